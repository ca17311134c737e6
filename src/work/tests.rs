//! Orders on small pictures of every format, good and bad.

use std::io::Cursor;

use image::{
    DynamicImage, ExtendedColorType, Frame, GrayImage, ImageEncoder, ImageFormat, Luma, Rgb, Rgba, RgbaImage,
    codecs::{gif::GifEncoder, png::PngEncoder},
};
use zeroize::Zeroizing;

use super::{decode::Size, parts::png, *};
use crate::{
    model::limits,
    stego::{self, Channels},
};

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("encodes");
    bytes.into_inner()
}

/// Left half red, right half blue, with some noise.
fn halves(width: u32, height: u32) -> DynamicImage {
    let pixel = |x: u32, y: u32| {
        let noise = (x * 7 + y * 13) as u8 % 5;
        if x < width / 2 { Rgb([240 + noise, noise, 0]) } else { Rgb([0, noise, 240 + noise]) }
    };
    DynamicImage::ImageRgb8(image::RgbImage::from_fn(width, height, pixel))
}

fn hide(text: &[u8]) -> Order {
    Order::Hide { layout: Layout::Plain, payload: Zeroizing::new(text.to_vec()), frames: Frames::Single }
}

fn found(png: &[u8]) -> Option<Vec<u8>> {
    let pixels = hide::pixels_as_stored(png, Frames::Single).expect("a picture");
    stego::reveal(&pixels.samples, pixels.channels).map(|plain| plain.payload)
}

/// `Exif`, one entry: orientation 6, to be turned by a quarter clockwise, and a place where it was taken.
const EXIF: &[u8] =
    b"II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\x0e\x01\x02\0\x04\0\0\0GPS!\0\0\0\0";

fn with_exif(jpeg: &[u8]) -> Vec<u8> {
    let len = (EXIF.len() + 8) as u16;
    [&jpeg[..2], &[0xff, 0xe1], &len.to_be_bytes(), b"Exif\0\0", EXIF, b"\xff\xfe\0\x08secret", &jpeg[2..]]
        .concat()
}

/// Changes the size that a PNG declares.
fn png_of_size(png: &[u8], width: u32, height: u32) -> Vec<u8> {
    let mut png = png.to_vec();
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = crc32fast::hash(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    png
}

fn animated_gif(frames: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    let frame = |shade: usize| RgbaImage::from_pixel(20, 20, Rgba([60 * shade as u8, 9, 9, 255]));
    encoder.encode_frames((0..frames).map(|shade| Frame::new(frame(shade)))).expect("encodes");
    drop(encoder);
    bytes
}

fn animated_png(frames: u32) -> Vec<u8> {
    let png = encoded(&halves(20, 20), ImageFormat::Png);
    let control = png::made(*b"acTL", &[frames.to_be_bytes(), [0; 4]].concat());
    [&png[..33], &control, &png[33..]].concat()
}

/// Two frames in an extended container; they need not decode to be counted.
fn animated_webp() -> Vec<u8> {
    let still = encoded(&halves(20, 20), ImageFormat::WebP);
    let image = &still[12..];
    let frame = [&[0; 6][..], &[19, 0, 0, 19, 0, 0, 100, 0, 0, 0], image].concat();
    let mut body = parts::webp::made(*b"VP8X", &[2, 0, 0, 0, 19, 0, 0, 19, 0, 0]);
    body.extend(parts::webp::made(*b"ANIM", &[0; 6]));
    body.extend(parts::webp::made(*b"ANMF", &frame));
    body.extend(parts::webp::made(*b"ANMF", &frame));
    let len = (4 + body.len()) as u32;
    [b"RIFF", &len.to_le_bytes()[..], b"WEBP", &body].concat()
}

#[test]
fn a_text_is_hidden_in_every_format() {
    let rgb = halves(60, 40);
    let grey = DynamicImage::ImageLuma8(GrayImage::from_fn(60, 40, |x, y| Luma([(x * y) as u8])));
    let deep = DynamicImage::ImageRgb16(rgb.to_rgb16());
    let pictures = [
        encoded(&rgb, ImageFormat::Png),
        encoded(&rgb, ImageFormat::Jpeg),
        encoded(&rgb, ImageFormat::Gif),
        encoded(&rgb, ImageFormat::WebP),
        encoded(&rgb, ImageFormat::Bmp),
        encoded(&rgb, ImageFormat::Tiff),
        encoded(&grey, ImageFormat::Png),
        encoded(&deep, ImageFormat::Png),
        encoded(&DynamicImage::ImageLuma16(grey.to_luma16()), ImageFormat::Png),
        encoded(&DynamicImage::ImageRgba16(deep.to_rgba16()), ImageFormat::Png),
        encoded(&DynamicImage::ImageLumaA8(grey.to_luma_alpha8()), ImageFormat::Png),
    ];
    for (number, picture) in pictures.iter().enumerate() {
        let png = run(&hide("Grüße".as_bytes()), picture).unwrap_or_else(|e| panic!("picture {number}: {e}"));
        assert_eq!(found(&png).as_deref(), Some("Grüße".as_bytes()), "picture {number}");
        let (before, after) = (decode::picture(picture, Frames::Single), image::load_from_memory(&png));
        let (before, after) = (before.expect("decodes").image, after.expect("a PNG"));
        assert!(matches!(after, DynamicImage::ImageRgb8(_) | DynamicImage::ImageRgba8(_)));
        for (before, after) in before.to_rgba8().iter().zip(after.to_rgba8().iter()) {
            assert_eq!(before | 1, after | 1, "picture {number}");
        }
    }
}

#[test]
fn alpha_is_never_touched() {
    let glass = RgbaImage::from_fn(40, 40, |x, y| Rgba([9, 9, 9, (x * y) as u8]));
    let picture = encoded(&DynamicImage::ImageRgba8(glass.clone()), ImageFormat::Png);
    let pixels = hide::pixels(&picture, Frames::Single).expect("a picture");
    assert_eq!(pixels.channels, Channels::Rgba);
    let room = stego::capacity(1600) as usize;
    let png = run(&hide(&vec![0xff; room]), &picture).expect("it fits");
    let after = image::load_from_memory(&png).expect("a PNG").to_rgba8();
    assert!(glass.pixels().zip(after.pixels()).all(|(before, after)| before.0[3] == after.0[3]));
    assert_eq!(found(&png), Some(vec![0xff; room]));
    let refused = run(&hide(&vec![0xff; room + 1]), &picture);
    let too_long = stego::TooLong { bytes: room as u64 + 1, capacity: room as u64 };
    assert_eq!(refused, Err(WorkError::TooLong(too_long)));
}

#[test]
fn sealed_bytes_are_scattered_by_their_seed() {
    let layout = Layout::Scattered { seed: Zeroizing::new([7; 32]), header: vec![0xfe; 44] };
    let payload = Zeroizing::new(vec![3; 100]);
    let order = Order::Hide { layout, payload, frames: Frames::Single };
    let png = run(&order, &encoded(&halves(60, 40), ImageFormat::Jpeg)).expect("it fits");
    let pixels = hide::pixels_as_stored(&png, Frames::Single).expect("a PNG");
    assert_eq!(stego::gather(&pixels.samples, pixels.channels, 44, &[7; 32], 100), Some(vec![3; 100]));
    assert_eq!(found(&png), None);
}

#[test]
fn the_picture_stays_upright_and_keeps_its_colours() {
    let jpeg = with_exif(&encoded(&halves(40, 20), ImageFormat::Jpeg));
    let png = run(&hide(b"up"), &jpeg).expect("it fits");
    let after = image::load_from_memory(&png).expect("a PNG").to_rgb8();
    assert_eq!(after.dimensions(), (20, 40));
    assert!(after.get_pixel(10, 3).0[0] > 200, "red on top");
    assert_eq!(found(&png).as_deref(), Some(&b"up"[..]));
    // Its size is known before, and is as good for counting what fits.
    let size = decode::size(&jpeg, Frames::Single).expect("a header");
    assert_eq!((size, size.pixels()), (Size { width: 40, height: 20 }, 800));

    let profile = [&[0; 16][..], b"RGB ", &[0; 108]].concat();
    for (profile, kept) in [(profile.clone(), true), ([&[0; 16][..], b"GRAY", &[0; 108]].concat(), false)] {
        let mut picture = Vec::new();
        let mut encoder = PngEncoder::new(&mut picture);
        encoder.set_icc_profile(profile.clone()).expect("PNG has profiles");
        encoder.write_image(&[9; 1200], 20, 20, ExtendedColorType::Rgb8).expect("encodes");
        let png = run(&hide(b"x"), &picture).expect("it fits");
        let icc = decode::picture(&png, Frames::Single).expect("a PNG").icc;
        assert_eq!(icc, kept.then_some(profile));
    }
}

#[test]
fn a_profile_that_unpacks_to_far_more_than_its_picture_is_refused_and_a_large_one_left_out() {
    let with_profile = |bytes: usize| {
        let mut picture = Vec::new();
        let mut encoder = PngEncoder::new(&mut picture);
        let profile = [&[0; 16][..], b"RGB ", &vec![0; bytes]].concat();
        encoder.set_icc_profile(profile).expect("PNG has profiles");
        encoder.write_image(&[9; 1200], 20, 20, ExtendedColorType::Rgb8).expect("encodes");
        picture
    };
    let bomb = with_profile(64 << 20);
    assert!(bomb.len() < 1 << 20, "a small file");
    let thumbnail = Order::Thumbnail { edge_px: 9, frames: Frames::Single };
    for order in [hide(b"x"), thumbnail.clone(), Order::Strip] {
        // Either is fine: refused, or without its profile.
        if let Ok(made) = run(&order, &bomb) {
            assert!(made.len() < bomb.len() || order == Order::Strip, "{order:?} hands the bomb on");
        }
    }
    let large = with_profile(8 << 20);
    for order in [hide(b"x"), thumbnail] {
        let made = run(&order, &large).expect("a picture like any other");
        assert_eq!(decode::picture(&made, Frames::Single).expect("a picture").icc, None);
    }
}

#[test]
fn bombs_are_refused_from_their_header() {
    let png = encoded(&halves(10, 10), ImageFormat::Png);
    for (width, height) in [(100_000, 100_000), (20_000, 20_000), (u32::MAX >> 1, 1)] {
        let bomb = png_of_size(&png, width, height);
        for order in [hide(b"x"), Order::Thumbnail { edge_px: 99, frames: Frames::Single }, Order::Strip] {
            let refused = run(&order, &bomb);
            let fits = matches!(refused, Err(WorkError::TooManyPixels { .. } | WorkError::TooMuchMemory));
            assert!(fits, "{width} x {height}: {refused:?}");
        }
    }
    let mut bmp = encoded(&halves(10, 10), ImageFormat::Bmp);
    bmp[18..26].copy_from_slice(&[0x40, 0x9c, 0, 0, 0x40, 0x9c, 0, 0]);
    assert!(run(&hide(b"x"), &bmp).is_err());
    let mut gif = encoded(&halves(10, 10), ImageFormat::Gif);
    gif[6..10].fill(0xff);
    assert!(run(&hide(b"x"), &gif).is_err());
    let words = run(&hide(b"x"), &png_of_size(&png, 100_000, 100_000)).expect_err("a bomb").to_string();
    assert!(words.contains("100000 x 100000"), "{words}");
}

#[test]
fn what_is_cut_or_no_picture_is_refused_with_a_sentence() {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    for format in [Png, Jpeg, Gif, WebP, Bmp, Tiff] {
        let whole = encoded(&halves(60, 40), format);
        for part in [whole.len() / 3, whole.len() / 2, whole.len() * 9 / 10] {
            for order in [hide(b"x"), Order::Thumbnail { edge_px: 9, frames: Frames::Single }] {
                let refused = run(&order, &whole[..part]);
                assert!(refused.is_err(), "{format:?} cut to {part} of {}", whole.len());
            }
        }
    }
    for bytes in [&b""[..], b"hello", b"BM", b"%PDF-1.4", &[0; 1000]] {
        for order in [hide(b"x"), Order::Strip] {
            assert!(run(&order, bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }
    assert_eq!(run(&hide(b"x"), b"hello"), Err(WorkError::NotAPicture));
}

#[test]
fn an_animated_picture_is_refused_unless_its_first_frame_will_do() {
    for picture in [animated_gif(2), animated_png(2), animated_webp()] {
        for order in [hide(b"x"), Order::Thumbnail { edge_px: 9, frames: Frames::Single }] {
            let refused = run(&order, &picture);
            assert!(matches!(refused, Err(WorkError::Animated { .. })), "{refused:?}");
        }
    }
    for picture in [animated_gif(1), animated_png(1)] {
        run(&hide(b"x"), &picture).expect("a single frame");
    }
    for picture in [animated_gif(3), animated_png(3)] {
        let payload = Zeroizing::new(b"x".to_vec());
        let order = Order::Hide { layout: Layout::Plain, payload, frames: Frames::First };
        assert_eq!(found(&run(&order, &picture).expect("its first frame")).as_deref(), Some(&b"x"[..]));
    }
    // Cut in its second frame it is no still picture.
    for picture in [animated_gif(2), animated_webp()] {
        for len in [picture.len() - 10, picture.len() - 30] {
            let refused = run(&hide(b"x"), &picture[..len]);
            assert!(matches!(refused, Err(WorkError::Damaged { .. })), "{len}: {refused:?}");
        }
    }
    let all = run(&Order::Strip, &animated_gif(3)).expect("all frames stay");
    assert!(parts::gif::is_animated(&all));
}

#[test]
fn a_thumbnail_is_within_its_edge_upright_and_a_jpeg_unless_it_is_transparent() {
    let thumbnail =
        |edge_px, picture: &[u8]| run(&Order::Thumbnail { edge_px, frames: Frames::Single }, picture);
    let jpeg = with_exif(&encoded(&halves(400, 200), ImageFormat::Jpeg));
    let small = thumbnail(64, &jpeg).expect("a picture");
    assert_eq!(image::guess_format(&small).expect("a picture"), ImageFormat::Jpeg);
    let small = image::load_from_memory(&small).expect("a JPEG").to_rgb8();
    assert_eq!(small.dimensions(), (32, 64));
    assert!(small.get_pixel(16, 8).0[0] > 200, "red on top");
    let glass = DynamicImage::ImageRgba8(RgbaImage::from_pixel(300, 30, Rgba([9, 9, 9, 128])));
    let small = thumbnail(100, &encoded(&glass, ImageFormat::Png)).expect("a picture");
    assert_eq!(image::guess_format(&small).expect("a picture"), ImageFormat::Png);
    assert_eq!(image::load_from_memory(&small).expect("a PNG").width(), 100);
    // Never larger than it was.
    let small = thumbnail(1000, &encoded(&halves(40, 30), ImageFormat::Png)).expect("a picture");
    assert_eq!(image::load_from_memory(&small).expect("a JPEG").width(), 40);
    for edge_px in [0, 1_000_000] {
        assert_eq!(thumbnail(edge_px, &jpeg), Err(WorkError::Edge { edge_px }));
    }
}

/// Every word that a stripped file must not have any more.
const PRIVATE: [&[u8]; 3] = [b"GPS!", b"secret", b"behind the end"];

#[track_caller]
fn hold_stripped(picture: &[u8], words: usize) -> Vec<u8> {
    let has = |bytes: &[u8]| PRIVATE.iter().filter(|w| memchr::memmem::find(bytes, w).is_some()).count();
    assert_eq!(has(picture), words, "what is to be taken away is there");
    let stripped = run(&Order::Strip, picture).expect("a picture");
    assert_eq!(has(&stripped), 0);
    let (before, after) =
        (decode::picture(picture, Frames::First), decode::picture(&stripped, Frames::First));
    let (before, after) = (before.expect("decodes"), after.expect("decodes"));
    assert!(before.image == after.image, "its pixels are the same");
    assert_eq!((before.orientation, before.icc), (after.orientation, after.icc));
    assert_eq!(run(&Order::Strip, &stripped).as_ref(), Ok(&stripped));
    stripped
}

/// What no camera writes, but who wants to say something unseen.
#[test]
fn nothing_stays_behind_or_inside_what_must_stay() {
    let jpeg = encoded(&halves(40, 20), ImageFormat::Jpeg);
    // Its transform, the last byte that counts, is the usual one: YCbCr.
    let adobe = b"\xff\xee\0\x14Adobe\0\x64\0\0\0\0\x01secret";
    let stripped = hold_stripped(&[&jpeg[..2], adobe, &jpeg[2..]].concat(), 1);
    assert!(memchr::memmem::find(&stripped, b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x01\xff").is_some());

    let png = encoded(&halves(40, 20), ImageFormat::Png);
    let (pixels, end) = (33, png.len() - 12);
    let unknown = png::made(*b"abCd", b"secret");
    hold_stripped(&[&png[..pixels], &unknown, &png[pixels..]].concat(), 1);
    let critical = png::made(*b"CgBI", b"secret");
    let stripped = run(&Order::Strip, &[&png[..end], &critical, &png[end..]].concat());
    assert_eq!(stripped.as_ref(), Ok(&png));
    let full_end = [&png[..end], &png::made(*b"IEND", b"secret")].concat();
    assert_eq!(run(&Order::Strip, &full_end).as_ref(), Ok(&png));
}

#[test]
fn metadata_is_taken_away_and_no_pixel_changes() {
    let jpeg = with_exif(&encoded(&halves(40, 20), ImageFormat::Jpeg));
    let jpeg = [&jpeg, &b"behind the end"[..]].concat();
    let stripped = hold_stripped(&jpeg, 3);
    assert!(stripped.len() < jpeg.len());

    let png = encoded(&halves(40, 20), ImageFormat::Png);
    let private = [png::made(*b"tEXt", b"Comment\0secret"), png::made(*b"eXIf", EXIF)].concat();
    let end = png.len() - 12;
    hold_stripped(
        &[&png[..33], &private, &png[33..end], &private, &png[end..], b"behind the end"].concat(),
        3,
    );

    let webp = encoded(&halves(40, 20), ImageFormat::WebP);
    let mut body = parts::webp::made(*b"VP8X", &[0x0c, 0, 0, 0, 39, 0, 0, 19, 0, 0]);
    body.extend_from_slice(&webp[12..]);
    body.extend(parts::webp::made(*b"EXIF", EXIF));
    body.extend(parts::webp::made(*b"XMP ", b"secret!"));
    let len = (4 + body.len()) as u32;
    let webp = [b"RIFF", &len.to_le_bytes()[..], b"WEBP", &body, b"behind the end"].concat();
    hold_stripped(&webp, 3);

    let gif = encoded(&halves(40, 20), ImageFormat::Gif);
    let end = gif.len() - 1;
    hold_stripped(&[&gif[..end], b"\x21\xfe\x06secret\0", &gif[end..], b"behind the end"].concat(), 2);

    let bmp = encoded(&halves(40, 20), ImageFormat::Bmp);
    hold_stripped(&bmp, 0);
    let tiff = encoded(&halves(40, 20), ImageFormat::Tiff);
    assert_eq!(run(&Order::Strip, &tiff), Err(WorkError::Strip { format: "TIFF" }));
}

/// A progressive picture of a few kilobytes can ask to be decoded ten thousand times over.
#[test]
fn a_picture_of_too_many_scans_is_refused() {
    let jpeg = encoded(&halves(40, 20), ImageFormat::Jpeg);
    let scan = parts::jpeg::segments(&jpeg)
        .map(|segment| segment.expect("whole"))
        .find(|segment| segment.marker == parts::jpeg::SOS)
        .expect("a scan")
        .bytes;
    let end = jpeg.len() - 2;
    let scans = |count: usize| [&jpeg[..end], &scan.repeat(count), &jpeg[end..]].concat();
    let refused = run(&hide(b"x"), &scans(limits::JPEG_SCANS_MAX));
    assert!(refused.is_err_and(|error| error.to_string().contains("scans")));
    assert!(parts::jpeg::hold_whole(&scans(9)).is_ok());
}

#[test]
fn a_cut_picture_is_not_stripped() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
        let whole = encoded(&halves(60, 40), format);
        let refused = run(&Order::Strip, &whole[..whole.len() - 20]);
        assert!(matches!(refused, Err(WorkError::Damaged { .. })), "{format:?}: {refused:?}");
    }
}
