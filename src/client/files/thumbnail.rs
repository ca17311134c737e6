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

use image::ImageFormat;

use super::structure::Format;
pub use crate::work::small::Small as Thumbnail;
use crate::{
    model::limits,
    work::{
        WorkError,
        decode::{self, Budget},
        small,
    },
};

/// All that one decode may take: pixels, the decoder's working memory, and the file where it holds it whole.
const BUDGET: Budget = Budget {
    pixels_max: u64::MAX,
    decoded_bytes_max: limits::THUMBNAIL_DECODED_BYTES_MAX,
    peak_bytes_max: 144 << 20,
};
/// Files that decoders read whole into memory are not tried above this.
const WHOLE_FILE_BYTES_MAX: u64 = 40 << 20;

/// Held while a picture is decoded.
static ONE_DECODE: Mutex<()> = Mutex::new(());

/// Why there is no thumbnail; for the debug log, never for the user.
#[derive(Debug, thiserror::Error)]
pub enum NoThumbnail {
    /// Not a picture that this program decodes.
    #[error("not a picture that decodes here")]
    NotAPicture,
    /// Decoders read it whole, and it is too large for that.
    #[error("its {bytes} bytes would be read whole")]
    TooLarge { bytes: u64 },
    /// It asks for more memory than a thumbnail may take, or does not decode.
    #[error("{0}")]
    Decode(#[from] WorkError),
    /// The small picture was not made.
    #[error("it is not encoded: {0}")]
    Encode(#[from] image::ImageError),
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
    if matches!(format, Format::Jpeg | Format::WebP) && file_bytes > WHOLE_FILE_BYTES_MAX {
        return Err(NoThumbnail::TooLarge { bytes: file_bytes });
    }
    input.seek(SeekFrom::Start(0))?;
    // A decoder that panicked over some other picture says nothing about this one.
    let _one = ONE_DECODE.lock().unwrap_or_else(PoisonError::into_inner);
    let decoded = decode::decode(input, image_format(format), file_bytes, BUDGET)?;
    Ok(small::encode(&small::shrink(decoded, limits::THUMBNAIL_EDGE_PX), None)?)
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

#[cfg(test)]
mod tests {
    use image::{DynamicImage, Rgba, RgbaImage};

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
        assert!(matches!(of_bytes(&png), Err(NoThumbnail::Decode(WorkError::TooMuchMemory))));
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
