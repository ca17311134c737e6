//! Why a task was not done, each as a sentence for the user, who sees the picture and not the worker.

use image::{ImageError, ImageFormat};

use super::decode::format_name;
use crate::{model::limits, stego};

/// Why a task was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// No format that is read here.
    #[error("this is not a picture that can be read here (PNG, JPEG, WebP, GIF, BMP and TIFF can)")]
    NotAPicture,
    /// Its header says that it has more pixels than a task may have.
    #[error(
        "the picture declares {width} x {height} pixels; at most {} million are worked on",
        limits::TASK_PIXELS_MAX / 1_000_000
    )]
    TooManyPixels { width: u32, height: u32 },
    /// Its pixels, or what its decoder needs, would take too much memory.
    #[error(
        "the picture would take more memory than a task may have ({} MiB)",
        limits::TASK_PEAK_BYTES_MAX >> 20
    )]
    TooMuchMemory,
    /// Several frames, and nobody said that the first one will do.
    #[error("the {format} is animated, and only one of its frames would be worked on")]
    Animated { format: &'static str },
    /// It ends before its end, or makes no sense on the way.
    #[error("the {format} is cut off or damaged: {reason}")]
    Damaged { format: &'static str, reason: String },
    /// Something in it that is not supported.
    #[error("the {format} cannot be read here: {reason}")]
    Unsupported { format: &'static str, reason: String },
    /// More to hide than fits.
    #[error(transparent)]
    TooLong(#[from] stego::TooLong),
    /// What was written is not what is read.
    #[error("what was hidden could not be read back, so the picture was thrown away")]
    ReadBack,
    /// A small picture of no size.
    #[error("a thumbnail's edge has 1 to {} pixels, not {edge_px}", limits::TASK_EDGE_PX_MAX)]
    Edge { edge_px: u32 },
    /// A format whose metadata is not told from its pixels here.
    #[error("metadata is taken out of JPEG, PNG, WebP, GIF and BMP pictures, not of {format}")]
    Strip { format: &'static str },
    /// It could not be written.
    #[error("the new picture could not be encoded: {0}")]
    Encode(String),
    /// An envelope that cannot be read.
    #[error("the task is not understood here ({0}): this program may be older than the one that sent it")]
    Envelope(String),
    /// A picture that is too large to be sent.
    #[error("the task has {bytes} bytes; at most {} MiB are sent", limits::TASK_PAYLOAD_BYTES_MAX >> 20)]
    EnvelopeTooLarge { bytes: u64 },
}

impl WorkError {
    /// What a decoder says.
    pub(super) fn from_decoder(format: ImageFormat, error: &ImageError) -> Self {
        let format = format_name(format);
        match error {
            ImageError::Limits(_) => Self::TooMuchMemory,
            ImageError::Unsupported(_) => Self::Unsupported { format, reason: one_line(error) },
            _ => Self::Damaged { format, reason: one_line(error) },
        }
    }

    /// What an encoder says.
    pub(super) fn from_encoder(error: &ImageError) -> Self {
        Self::Encode(one_line(error))
    }
}

/// Other people's errors may have several lines, and be long.
fn one_line(error: &ImageError) -> String {
    const CHARS_MAX: usize = 200;
    let words: Vec<String> =
        error.to_string().split_whitespace().map(|word| word.replace(char::is_control, "?")).collect();
    words.join(" ").chars().take(CHARS_MAX).collect()
}
