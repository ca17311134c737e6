//! Pictures as pixels: which formats there are, what each costs in memory, and what is refused unread.
//!
//! A picture is judged by its header before anything is allocated for it: a small file may say that it is
//! huge. Decoders are the `image` crate's.

use std::io::{BufRead, Cursor, Read, Seek, SeekFrom};

use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, metadata::Orientation,
};

use super::{
    Frames, WorkError,
    parts::{self, gif, jpeg, png, webp},
};
use crate::model::limits;

/// What one decode may take.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Pixels.
    pub pixels_max: u64,
    /// Bytes of the decoded pixels.
    pub decoded_bytes_max: u64,
    /// All of it: pixels, the decoder's working memory, and the file where it is held whole.
    pub peak_bytes_max: u64,
}

impl Budget {
    /// Of a task.
    pub const TASK: Self = Self {
        pixels_max: limits::TASK_PIXELS_MAX,
        decoded_bytes_max: limits::TASK_DECODED_BYTES_MAX,
        peak_bytes_max: limits::TASK_PEAK_BYTES_MAX,
    };
}

/// A decoded picture as its file has it, not turned upright yet.
pub struct Decoded {
    /// Pixels, in the file's own kind of samples.
    pub image: DynamicImage,
    /// How to turn it upright.
    pub orientation: Orientation,
    /// What its colours mean, if it says so.
    pub icc: Option<Vec<u8>>,
}

/// How large a picture is, as its file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

impl Size {
    /// Pixels in all.
    pub fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// The format of these bytes, if it is one that is read here.
pub fn format(bytes: &[u8]) -> Option<ImageFormat> {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    image::guess_format(bytes).ok().filter(|format| matches!(format, Bmp | Gif | Jpeg | Png | Tiff | WebP))
}

/// As people write it.
pub fn format_name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Gif => "GIF",
        ImageFormat::WebP => "WebP",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        _ => "picture",
    }
}

/// The size of a picture, from its header; refused as decoding it would be.
///
/// # Errors
/// [`WorkError`].
pub fn size(bytes: &[u8], frames: Frames) -> Result<Size, WorkError> {
    let format = acceptable(bytes, frames)?;
    let decoder = decoder(Cursor::new(bytes), format, bytes.len() as u64, Budget::TASK)?;
    let (width, height) = decoder.dimensions();
    Ok(Size { width, height })
}

/// Decodes a picture in memory, within what a task may take.
///
/// # Errors
/// [`WorkError`].
pub fn picture(bytes: &[u8], frames: Frames) -> Result<Decoded, WorkError> {
    let format = acceptable(bytes, frames)?;
    decode(Cursor::new(bytes), format, bytes.len() as u64, Budget::TASK)
}

/// Decodes what `input` has, of this format and so many bytes.
///
/// # Errors
/// [`WorkError`]; before anything large is allocated if it would take more than the budget.
pub fn decode(
    input: impl BufRead + Seek,
    format: ImageFormat,
    file_bytes: u64,
    budget: Budget,
) -> Result<Decoded, WorkError> {
    let mut decoder = decoder(input, format, file_bytes, budget)?;
    let failed = |error: ImageError| WorkError::from_decoder(format, &error);
    let orientation = decoder.orientation().map_err(failed)?;
    // A profile that cannot be read, or that is none by its size, is a picture without one.
    let icc = decoder.icc_profile().ok().flatten().filter(|icc| icc.len() <= limits::ICC_BYTES_MAX);
    let image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    Ok(Decoded { image, orientation, icc })
}

/// A format that is read here, whole as far as its decoder does not see it, and of one frame if that is
/// asked.
fn acceptable(bytes: &[u8], frames: Frames) -> Result<ImageFormat, WorkError> {
    let format = format(bytes).ok_or(WorkError::NotAPicture)?;
    let name = format_name(format);
    let damaged = |reason: parts::Broken| WorkError::Damaged { format: name, reason: reason.to_string() };
    let animated = match format {
        ImageFormat::Png => png::is_animated(bytes),
        // Of what is cut in a later frame nobody knows how many there were.
        ImageFormat::Gif => {
            hold_uncut(gif::blocks(bytes)).map_err(damaged)?;
            gif::is_animated(bytes)
        }
        ImageFormat::WebP => {
            hold_uncut(webp::chunks(bytes)).map_err(damaged)?;
            webp::is_animated(bytes)
        }
        // Its decoder makes up what is missing at the end.
        ImageFormat::Jpeg => {
            jpeg::hold_whole(bytes).map_err(damaged)?;
            false
        }
        _ => false,
    };
    if animated && frames == Frames::Single {
        return Err(WorkError::Animated { format: name });
    }
    Ok(format)
}

/// Whether no part ends in its middle. What stands where no part should begin is left to the decoder: some
/// writers leave such things behind the picture.
fn hold_uncut<T>(mut parts: impl Iterator<Item = Result<T, parts::Broken>>) -> Result<(), parts::Broken> {
    parts.try_for_each(|part| match part {
        Err(parts::Broken::Cut) => Err(parts::Broken::Cut),
        _ => Ok(()),
    })
}

/// A decoder that has read the header of a picture that may be decoded.
fn decoder<'a>(
    mut input: impl BufRead + Seek + 'a,
    format: ImageFormat,
    file_bytes: u64,
    budget: Budget,
) -> Result<impl ImageDecoder + 'a, WorkError> {
    let failed = |error: ImageError| WorkError::from_decoder(format, &error);
    let working_factor = working_factor(format, &mut input).map_err(|e| failed(ImageError::IoError(e)))?;
    input.seek(SeekFrom::Start(0)).map_err(|error| failed(ImageError::IoError(error)))?;
    let file_in_memory = match format {
        ImageFormat::Jpeg | ImageFormat::WebP => file_bytes,
        _ => 0,
    };
    if file_in_memory > budget.peak_bytes_max {
        return Err(WorkError::TooMuchMemory);
    }
    let mut decoder_limits = Limits::default();
    decoder_limits.max_alloc = Some(alloc_max(format, &mut input, budget));
    let mut reader = ImageReader::with_format(input, format);
    reader.limits(decoder_limits);
    let decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    if (Size { width, height }).pixels() > budget.pixels_max {
        return Err(WorkError::TooManyPixels { width, height });
    }
    let decoded = decoder.total_bytes();
    let peak = decoded.saturating_mul(working_factor) / 2 + file_in_memory;
    if decoded > budget.decoded_bytes_max || peak > budget.peak_bytes_max {
        return Err(WorkError::TooMuchMemory);
    }
    Ok(decoder)
}

/// What a decoder may allocate. A PNG's metadata are packed: a small file could unpack to all of the budget,
/// so they get no more than what its pixels take and a little.
fn alloc_max(format: ImageFormat, input: &mut (impl Read + Seek), budget: Budget) -> u64 {
    /// Where width and height stand, and the most bytes of a pixel.
    const SIZE_AT: u64 = 16;
    const PIXEL_BYTES_MAX: u64 = 8;
    if format != ImageFormat::Png {
        return budget.peak_bytes_max;
    }
    let mut size = [0; 8];
    let read = input.seek(SeekFrom::Start(SIZE_AT)).and_then(|_| input.read_exact(&mut size));
    // What is too short for a header is refused by the decoder.
    let rewound = input.seek(SeekFrom::Start(0));
    let (width, height) = (u32::from_be_bytes([size[0], size[1], size[2], size[3]]), &size[4..]);
    let height = height.iter().fold(0u64, |height, byte| height << 8 | u64::from(*byte));
    let pixels = if read.is_ok() && rewound.is_ok() { u64::from(width).saturating_mul(height) } else { 0 };
    let wanted = pixels.saturating_mul(PIXEL_BYTES_MAX).saturating_add(limits::PICTURE_METADATA_BYTES_MAX);
    wanted.min(budget.peak_bytes_max)
}

/// How many halves of the decoded bytes a decoder takes at its peak, its output among them.
fn working_factor(format: ImageFormat, input: &mut (impl BufRead + Seek)) -> std::io::Result<u64> {
    Ok(match format {
        ImageFormat::Png | ImageFormat::Bmp => 2,
        // All coefficients of a progressive picture are held, two bytes each.
        ImageFormat::Jpeg if is_progressive(input)? => 6,
        ImageFormat::Jpeg => 2,
        // Planes or a canvas beside the output.
        ImageFormat::WebP => 5,
        _ => 4,
    })
}

/// Looks for the frame header, over the segments before it; `input` may stand anywhere.
fn is_progressive(input: &mut (impl Read + Seek)) -> std::io::Result<bool> {
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
    Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "there is no frame header in it"))
}
