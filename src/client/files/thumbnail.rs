//! Thumbnails, made by the client before it encrypts.
//!
//! One decode at a time in a process, within fixed memory, and never from a picture whose header already
//! says that it is too large. A missing thumbnail is no error: a put goes on without.

use std::{
    fs::File,
    io::{BufRead, BufReader, Cursor, Read, Seek, SeekFrom},
    path::Path,
    sync::{Mutex, PoisonError},
};

use image::{
    DynamicImage, ImageBuffer, ImageDecoder, ImageFormat, ImageReader, Limits, Pixel,
    codecs::{
        jpeg::JpegEncoder,
        png::{CompressionType, FilterType, PngEncoder},
    },
};

use super::structure::Format;
use crate::model::limits;

/// All that one decode may take: pixels, the decoder's working memory, and the file where it holds it whole.
const PEAK_BYTES_MAX: u64 = 144 << 20;
/// Files that decoders read whole into memory are not tried above this.
const WHOLE_FILE_BYTES_MAX: u64 = 40 << 20;
/// Good enough for a picture of this size, and about 20 kB.
const JPEG_QUALITY: u8 = 80;

/// Held while a picture is decoded.
static ONE_DECODE: Mutex<()> = Mutex::new(());

/// A small picture of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumbnail {
    /// The encoded bytes: JPEG, or PNG when the picture has transparent places.
    pub bytes: Vec<u8>,
    /// Their media type.
    pub media_type: &'static str,
    /// Pixels, upright.
    pub width: u32,
    /// Pixels, upright.
    pub height: u32,
}

/// Why there is no thumbnail; for the debug log, never for the user.
#[derive(Debug, thiserror::Error)]
pub enum NoThumbnail {
    /// Not a picture that this program decodes.
    #[error("not a picture that decodes here")]
    NotAPicture,
    /// Its header asks for more memory than a thumbnail may take.
    #[error("decoding it would take about {bytes} bytes")]
    TooLarge { bytes: u64 },
    /// It does not decode.
    #[error("it does not decode: {0}")]
    Decode(#[from] image::ImageError),
    /// It could not be read.
    #[error("it could not be read: {0}")]
    Read(#[from] std::io::Error),
}

/// The thumbnail of a file. Blocks; waits for any other decode of this process to end.
///
/// # Errors
/// [`NoThumbnail`].
pub fn of_file(path: &Path) -> Result<Thumbnail, NoThumbnail> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    make(BufReader::with_capacity(64 << 10, file), bytes)
}

/// The thumbnail of a picture in memory. Blocks; waits for any other decode of this process to end.
///
/// # Errors
/// [`NoThumbnail`].
pub fn of_bytes(bytes: &[u8]) -> Result<Thumbnail, NoThumbnail> {
    make(Cursor::new(bytes), bytes.len() as u64)
}

fn make(mut input: impl BufRead + Seek, file_bytes: u64) -> Result<Thumbnail, NoThumbnail> {
    let mut head = Vec::new();
    input.by_ref().take(32).read_to_end(&mut head)?;
    let format = Format::of(&head).ok_or(NoThumbnail::NotAPicture)?;
    let working_factor = working_factor(format, &mut input)?;
    input.seek(SeekFrom::Start(0))?;
    let file_in_memory = match format {
        Format::Jpeg | Format::WebP if file_bytes > WHOLE_FILE_BYTES_MAX => {
            return Err(NoThumbnail::TooLarge { bytes: file_bytes });
        }
        Format::Jpeg | Format::WebP => file_bytes,
        _ => 0,
    };
    // A decoder that panicked over some other picture says nothing about this one.
    let _one = ONE_DECODE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut reader = ImageReader::with_format(input, image_format(format));
    let mut decoder_limits = Limits::default();
    decoder_limits.max_alloc = Some(PEAK_BYTES_MAX);
    reader.limits(decoder_limits);
    let mut decoder = reader.into_decoder()?;
    let decoded = decoder.total_bytes();
    let peak = decoded.saturating_mul(working_factor) / 2 + file_in_memory;
    if decoded > limits::THUMBNAIL_DECODED_BYTES_MAX || peak > PEAK_BYTES_MAX {
        return Err(NoThumbnail::TooLarge { bytes: peak });
    }
    let orientation = decoder.orientation()?;
    let whole = DynamicImage::from_decoder(decoder)?;
    let mut small = shrink(whole);
    small.apply_orientation(orientation);
    encode(&small)
}

/// How many halves of the decoded bytes a decoder takes at its peak, its output among them.
fn working_factor(format: Format, input: &mut (impl BufRead + Seek)) -> Result<u64, NoThumbnail> {
    Ok(match format {
        Format::Png | Format::Bmp => 2,
        // All coefficients of a progressive picture are held, two bytes each.
        Format::Jpeg if is_progressive(input)? => 6,
        Format::Jpeg => 2,
        // Planes or a canvas beside the output.
        Format::WebP => 5,
        Format::Gif | Format::Tiff => 4,
    })
}

/// Looks for the frame header, over the segments before it; `input` may stand anywhere.
fn is_progressive(input: &mut (impl BufRead + Seek)) -> Result<bool, NoThumbnail> {
    const SEGMENTS_MAX: usize = 1000;
    input.seek(SeekFrom::Start(2))?;
    for _ in 0..SEGMENTS_MAX {
        let mut head = [0; 4];
        input.read_exact(&mut head)?;
        match head[1] {
            0xff => {
                input.seek_relative(-3)?;
                continue;
            }
            0xc0..=0xcf if !matches!(head[1], 0xc4 | 0xc8 | 0xcc) => {
                return Ok(!matches!(head[1], 0xc0 | 0xc1));
            }
            0xd0..=0xda => break,
            _ => {}
        }
        let len = i64::from(u16::from_be_bytes([head[2], head[3]]));
        input.seek_relative((len - 2).max(0))?;
    }
    Err(NoThumbnail::NotAPicture)
}

fn image_format(format: Format) -> ImageFormat {
    match format {
        Format::Png => ImageFormat::Png,
        Format::Jpeg => ImageFormat::Jpeg,
        Format::Gif => ImageFormat::Gif,
        Format::WebP => ImageFormat::WebP,
        Format::Bmp => ImageFormat::Bmp,
        Format::Tiff => ImageFormat::Tiff,
    }
}

/// Within the edge, never larger than it was.
fn shrink(whole: DynamicImage) -> DynamicImage {
    let edge = limits::THUMBNAIL_EDGE_PX;
    if whole.width() <= edge && whole.height() <= edge {
        return whole;
    }
    thin_out(whole).thumbnail(edge, edge)
}

/// Averages blocks of pixels until about two an edge pixel of the thumbnail remain, each way: the general
/// filter takes five times as long for the same.
fn thin_out(whole: DynamicImage) -> DynamicImage {
    let step = whole.width().max(whole.height()) / (2 * limits::THUMBNAIL_EDGE_PX);
    // A line thinner than a block would vanish.
    if step < 2 || whole.width().min(whole.height()) < step {
        return whole;
    }
    match whole {
        DynamicImage::ImageRgb8(pixels) => blocks::<3, _>(&pixels, step).into(),
        DynamicImage::ImageRgba8(pixels) => blocks::<4, _>(&pixels, step).into(),
        DynamicImage::ImageLuma8(pixels) => blocks::<1, _>(&pixels, step).into(),
        other => other,
    }
}

/// One pixel for each whole block of `step` times `step`, of `N` samples each.
fn blocks<const N: usize, P: Pixel<Subpixel = u8>>(
    pixels: &ImageBuffer<P, Vec<u8>>,
    step: u32,
) -> ImageBuffer<P, Vec<u8>> {
    let (width, height) = (pixels.width() / step, pixels.height() / step);
    let row_bytes = pixels.width() as usize * N;
    let step_rows = step as usize;
    let mut sums = vec![[0u32; N]; width as usize];
    let mut small = Vec::with_capacity(width as usize * height as usize * N);
    for rows in pixels.as_raw().chunks_exact(row_bytes * step_rows) {
        sums.fill([0; N]);
        for row in rows.chunks_exact(row_bytes) {
            for (sum, block) in sums.iter_mut().zip(row.chunks_exact(N * step_rows)) {
                for pixel in block.chunks_exact(N) {
                    for (sum, sample) in sum.iter_mut().zip(pixel) {
                        *sum += u32::from(*sample);
                    }
                }
            }
        }
        small.extend(sums.iter().flatten().map(|sum| (sum / (step * step)) as u8));
    }
    ImageBuffer::from_raw(width, height, small).expect("one pixel a block")
}

fn encode(small: &DynamicImage) -> Result<Thumbnail, NoThumbnail> {
    let mut bytes = Vec::new();
    let rgba = small.color().has_alpha().then(|| small.to_rgba8());
    let media_type = match rgba.filter(|rgba| rgba.pixels().any(|pixel| pixel.0[3] != u8::MAX)) {
        Some(rgba) => {
            rgba.write_with_encoder(PngEncoder::new_with_quality(
                &mut bytes,
                CompressionType::Fast,
                FilterType::Adaptive,
            ))?;
            "image/png"
        }
        None => {
            small.to_rgb8().write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY))?;
            "image/jpeg"
        }
    };
    Ok(Thumbnail { bytes, media_type, width: small.width(), height: small.height() })
}

#[cfg(test)]
mod tests {
    use image::{Rgba, RgbaImage};

    use super::*;

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).expect("encodes");
        bytes.into_inner()
    }

    /// Left half red, right half blue.
    fn halves(width: u32, height: u32) -> DynamicImage {
        let pixel = |x, _| if x < width / 2 { Rgba([250, 0, 0, 255]) } else { Rgba([0, 0, 250, 255]) };
        DynamicImage::ImageRgba8(RgbaImage::from_fn(width, height, pixel)).to_rgb8().into()
    }

    #[test]
    fn every_format_becomes_a_small_jpeg_of_the_same_picture() {
        use ImageFormat::*;
        for format in [Png, Jpeg, Gif, WebP, Bmp, Tiff] {
            let thumbnail = of_bytes(&encoded(&halves(800, 400), format)).expect("decodes");
            assert_eq!((thumbnail.width, thumbnail.height), (320, 160), "{format:?}");
            assert_eq!(thumbnail.media_type, "image/jpeg");
            let small = image::load_from_memory(&thumbnail.bytes).expect("a JPEG").to_rgb8();
            assert_eq!(small.dimensions(), (320, 160));
            assert!(small.get_pixel(80, 80).0[0] > 200 && small.get_pixel(240, 80).0[2] > 200);
        }
    }

    #[test]
    fn a_large_picture_is_thinned_out_and_stays_the_same_picture() {
        let thumbnail = of_bytes(&encoded(&halves(2501, 1301), ImageFormat::Bmp)).expect("decodes");
        assert_eq!((thumbnail.width, thumbnail.height), (320, 166));
        let small = image::load_from_memory(&thumbnail.bytes).expect("a JPEG").to_rgb8();
        assert!(small.get_pixel(150, 160).0[0] > 200 && small.get_pixel(170, 5).0[2] > 200);
    }

    #[test]
    fn a_small_picture_keeps_its_size_and_a_transparent_one_its_transparency() {
        let glass = DynamicImage::ImageRgba8(RgbaImage::from_pixel(40, 30, Rgba([9, 9, 9, 128])));
        let thumbnail = of_bytes(&encoded(&glass, ImageFormat::Png)).expect("decodes");
        assert_eq!((thumbnail.width, thumbnail.height, thumbnail.media_type), (40, 30, "image/png"));
        assert_eq!(image::load_from_memory(&thumbnail.bytes).expect("a PNG").to_rgba8()[(5, 5)].0[3], 128);
    }

    #[test]
    fn the_camera_says_which_side_is_up() {
        let jpeg = encoded(&halves(400, 200), ImageFormat::Jpeg);
        // One EXIF entry: orientation 6, to be turned by a quarter clockwise.
        let mut exif =
            b"\xff\xe1\0\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0".to_vec();
        exif.extend([0; 4]);
        let turned = [&jpeg[..2], &exif, &jpeg[2..]].concat();
        let thumbnail = of_bytes(&turned).expect("decodes");
        assert_eq!((thumbnail.width, thumbnail.height), (160, 320));
        let small = image::load_from_memory(&thumbnail.bytes).expect("a JPEG").to_rgb8();
        assert!(small.get_pixel(80, 20).0[0] > 200, "red on top");
    }

    /// A few kilobytes that claim to be a huge picture.
    #[test]
    fn bombs_are_refused_from_the_header() {
        let mut png = encoded(&halves(10, 10), ImageFormat::Png);
        png[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
        let crc = crc32fast::hash(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        assert!(matches!(of_bytes(&png), Err(NoThumbnail::TooLarge { .. })));
        let mut bmp = encoded(&halves(10, 10), ImageFormat::Bmp);
        bmp[18..26].copy_from_slice(&[0, 0, 1, 0, 0, 0, 1, 0]);
        assert!(of_bytes(&bmp).is_err());
    }

    #[test]
    fn what_is_no_picture_or_a_broken_one_has_no_thumbnail() {
        assert!(matches!(of_bytes(b"hello"), Err(NoThumbnail::NotAPicture)));
        let png = encoded(&halves(64, 64), ImageFormat::Png);
        assert!(matches!(of_bytes(&png[..png.len() / 2]), Err(NoThumbnail::Decode(_))));
        assert!(matches!(of_file(Path::new("no such file")), Err(NoThumbnail::Read(_))));
    }
}
