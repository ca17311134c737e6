//! Whole pictures of real encoders pass; the same pictures cut or damaged do not.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, RgbImage};
use proptest::prelude::*;

use super::*;

fn picture(width: u32, height: u32) -> DynamicImage {
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut image = RgbImage::new(width, height);
    noise.fill(&mut image);
    DynamicImage::ImageRgb8(image)
}

fn encoded(format: ImageFormat, edge: u32) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture(edge, edge).write_to(&mut bytes, format).expect("encoders of this build write RGB");
    bytes.into_inner()
}

fn check_in(bytes: &[u8], step: usize) -> Result<(), Broken> {
    let mut checker = Checker::new();
    for piece in bytes.chunks(step) {
        checker.push(piece);
    }
    checker.finish(Some(&mut Cursor::new(bytes)))
}

fn check(bytes: &[u8]) -> Result<(), Broken> {
    check_in(bytes, 64 << 10)
}

const FORMATS: [(ImageFormat, Format); 6] = [
    (ImageFormat::Png, Format::Png),
    (ImageFormat::Jpeg, Format::Jpeg),
    (ImageFormat::Gif, Format::Gif),
    (ImageFormat::WebP, Format::WebP),
    (ImageFormat::Bmp, Format::Bmp),
    (ImageFormat::Tiff, Format::Tiff),
];

#[test]
fn whole_pictures_pass_in_pieces_of_any_size() {
    for (encoder, format) in FORMATS {
        let bytes = encoded(encoder, 61);
        assert_eq!(Format::of(&bytes), Some(format));
        for step in [1, 2, 3, 7, 31, 32, 33, 1000, bytes.len()] {
            assert_eq!(check_in(&bytes, step), Ok(()), "{format} in pieces of {step}");
        }
    }
}

#[test]
fn a_picture_cut_anywhere_is_broken() {
    for (encoder, format) in FORMATS {
        let bytes = encoded(encoder, 24);
        for len in SNIFF_BYTES..bytes.len() {
            let broken = check(&bytes[..len]).expect_err("a cut picture");
            assert_eq!(broken.format, format, "cut at {len}");
            assert!(broken.offset <= len as u64, "{broken} of {len}");
        }
    }
}

#[test]
fn a_picture_cut_inside_its_head_is_broken_or_not_recognised() {
    for (encoder, _) in FORMATS {
        let bytes = encoded(encoder, 24);
        for len in 0..SNIFF_BYTES {
            let cut = &bytes[..len];
            assert_eq!(check(cut).is_err(), Format::of(cut).is_some(), "{encoder:?} cut at {len}");
        }
    }
}

#[test]
fn every_flipped_byte_of_a_png_is_seen() {
    let bytes = encoded(ImageFormat::Png, 9);
    // The first four bytes are what says that it is a PNG.
    for at in 4..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            assert!(check(&damaged).is_err(), "byte {at} xor {flip}");
        }
    }
}

#[test]
fn what_follows_a_whole_picture_is_not_judged() {
    for (encoder, format) in FORMATS {
        let mut bytes = encoded(encoder, 16);
        bytes.extend_from_slice(b"\xff\xd8\xff\xe0 a second picture, a film, a trailer");
        assert_eq!(check(&bytes), Ok(()), "{format}");
    }
}

/// Damage that a JPEG shows: lengths and markers.
#[test]
fn broken_jpeg_markers_are_seen() {
    let bytes = encoded(ImageFormat::Jpeg, 33);
    let scan = bytes.windows(2).position(|w| w == [0xff, 0xda]).expect("a scan");
    let mut unknown_marker = bytes.clone();
    unknown_marker[scan + 100..scan + 102].copy_from_slice(&[0xff, 0x05]);
    let mut early_end = bytes.clone();
    early_end[scan + 1] = 0xd9;
    let mut second_start = bytes.clone();
    second_start[scan + 1] = 0xd8;
    let mut long_segment = bytes.clone();
    long_segment[4] = 0xff;
    let mut no_length = bytes.clone();
    no_length[4..6].copy_from_slice(&[0, 1]);
    for (what, damaged) in [
        ("unknown marker", unknown_marker),
        ("end without image", early_end),
        ("start within", second_start),
        ("long segment", long_segment),
        ("segment without length", no_length),
    ] {
        assert_eq!(check(&damaged).map_err(|b| b.format), Err(Format::Jpeg), "{what}");
    }
}

/// Progressive pictures have many scans, with tables between them; films append themselves after EOI.
#[test]
fn a_jpeg_of_several_scans_restarts_and_filling_passes() {
    let mut bytes = vec![0xff, 0xd8];
    bytes.extend([0xff, 0xe1, 0, 6, 0xff, 0xd8, 0xff, 0xd9]); // a preview inside a segment
    bytes.extend([0xff, 0xff, 0xff, 0xc2, 0, 11, 8, 0, 8, 0, 8, 1, 1, 0x11, 0]);
    for _ in 0..3 {
        bytes.extend([0xff, 0xc4, 0, 4, 0, 0, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0]);
        bytes.extend([1, 2, 0xff, 0, 3, 0xff, 0xd0, 4, 0xff, 0xff, 0xd1, 5]);
    }
    let without_end = bytes.clone();
    bytes.extend([0xff, 0xd9]);
    for step in 1..bytes.len() {
        assert_eq!(check_in(&bytes, step), Ok(()), "pieces of {step}");
    }
    assert_eq!(check(&without_end).map_err(|b| b.reason), Err("it ends before its EOI marker".into()));
}

#[test]
fn gif_webp_and_bmp_lengths_are_seen() {
    let gif = encoded(ImageFormat::Gif, 20);
    let mut no_block = gif.clone();
    *no_block.last_mut().expect("not empty") = 0x3c;
    assert!(check(&no_block).is_err());
    let webp = encoded(ImageFormat::WebP, 20);
    for (at, what) in [(4, "RIFF length"), (16, "chunk length"), (20, "start code")] {
        let mut damaged = webp.clone();
        damaged[at] = damaged[at].wrapping_add(2);
        assert!(check(&damaged).is_err(), "{what}");
    }
    let mut bmp = encoded(ImageFormat::Bmp, 20);
    bmp[18] += 1;
    assert!(check(&bmp).is_err(), "a wider picture than there are pixels");
    bmp[18..26].copy_from_slice(&[0xff; 8]);
    bmp[28] = 64;
    bmp[25] = 0x7f;
    assert!(check(&bmp).is_err(), "a picture larger than any file");
}

#[test]
fn a_text_that_begins_like_a_bitmap_is_not_one() {
    assert_eq!(check(b"BMW is a maker of cars, and of motorcycles and of aircraft engines."), Ok(()));
}

/// Both byte orders and widths, made by hand: the encoder writes little-endian classic ones only.
fn tiff(little: bool, big: bool, next: u64, strip_at: u64) -> Vec<u8> {
    let number = |value: u64, len: usize| -> Vec<u8> {
        let bytes = if little { value.to_le_bytes() } else { (value << (64 - 8 * len)).to_be_bytes() };
        bytes[..len].to_vec()
    };
    let wide = if big { 8 } else { 4 };
    let mut bytes = if little { b"II".to_vec() } else { b"MM".to_vec() };
    bytes.extend(number(if big { 43 } else { 42 }, 2));
    if big {
        bytes.extend(number(8, 2));
        bytes.extend(number(0, 2));
    }
    bytes.extend(number(if big { 16 } else { 8 }, wide));
    bytes.extend(number(2, if big { 8 } else { 2 }));
    for (tag, value) in [(273, strip_at), (279, 16)] {
        bytes.extend(number(tag, 2));
        bytes.extend(number(4, 2));
        bytes.extend(number(1, wide));
        let mut inline = number(value, 4);
        inline.resize(wide, 0);
        bytes.extend(inline);
    }
    bytes.extend(number(next, wide));
    bytes.resize(160, 7);
    bytes
}

#[test]
fn tiffs_of_both_orders_and_widths_are_followed() {
    for (little, big) in [(true, false), (false, false), (true, true), (false, true)] {
        assert_eq!(check(&tiff(little, big, 0, 144)), Ok(()), "{little} {big}");
        let outside = check(&tiff(little, big, 0, 145)).expect_err("pixels outside");
        assert_eq!((outside.format, outside.offset), (Format::Tiff, 145));
        let first = if big { 16 } else { 8 };
        let circle = check(&tiff(little, big, first, 144)).expect_err("a circle");
        assert!(circle.reason.contains("circle"), "{circle}");
        assert!(check(&tiff(little, big, 1 << 30, 144)).is_err(), "a directory outside");
    }
}

#[test]
fn a_long_circle_of_directories_is_found() {
    // Forty directories of one private entry, the last pointing at the third.
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    for number in 0..40u32 {
        let next = if number == 39 { 8 + 2 * 18 } else { 8 + (number + 1) * 18 };
        bytes.extend([1, 0, 1, 2, 4, 0, 1, 0, 0, 0, 9, 0, 0, 0]);
        bytes.extend(next.to_le_bytes());
    }
    bytes[10..12].copy_from_slice(&513u16.to_le_bytes());
    let broken = check(&bytes).expect_err("a circle");
    assert!(broken.reason.contains("circle"), "{broken}");
}

#[test]
fn a_tiff_from_standard_input_is_checked_as_far_as_it_can_be() {
    let whole = encoded(ImageFormat::Tiff, 24);
    let forward = |bytes: &[u8]| {
        let mut checker = Checker::new();
        checker.push(bytes);
        checker.finish(None)
    };
    assert_eq!(forward(&whole), Ok(()));
    // This encoder writes its directory last.
    assert!(forward(&whole[..whole.len() / 2]).is_err());
}

#[test]
fn everything_else_passes() {
    for other in
        [&b""[..], b"hello", b"\0\0\0\x18ftypheic", b"RIFF\x04\0\0\0WAVE", b"II*\0\x10\0\0\0CR\x02\0"]
    {
        assert_eq!(check(other), Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_bytes_never_panic(
        which in 0..FORMATS.len() + 1,
        body in proptest::collection::vec(any::<u8>(), 0..600),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        step in 1usize..100,
    ) {
        let mut bytes = FORMATS.get(which).map_or(Vec::new(), |(encoder, _)| encoded(*encoder, 6));
        if which % 2 == 0 {
            bytes.truncate(40);
        }
        bytes.extend(body);
        for (at, value) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        let at_once = check(&bytes);
        prop_assert_eq!(at_once, check_in(&bytes, step));
    }
}
