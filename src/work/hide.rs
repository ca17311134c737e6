//! Pixels to hide in, the PNG that they become, and the proof that what was hidden can be read back.
//!
//! 8 bits a sample whatever the picture had, upright, with its colour profile and no other metadata. What
//! is hidden, and where, comes from the caller.

use image::{
    DynamicImage, ExtendedColorType, ImageEncoder,
    codecs::png::{CompressionType, FilterType, PngEncoder},
};

use super::{
    Frames, Layout, WorkError,
    decode::{self, Decoded},
};
use crate::stego::{self, Channels};

/// How PNGs are written: noise in the lowest bits does not compress, so effort on it is lost.
pub const PNG_COMPRESSION: CompressionType = CompressionType::Fast;
/// Likewise.
pub const PNG_FILTER: FilterType = FilterType::Adaptive;

/// A picture to hide in.
pub struct Pixels {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// With alpha or without.
    pub channels: Channels,
    /// 8 bits a sample, row by row.
    pub samples: Vec<u8>,
    /// What the colours mean, if the picture said so.
    pub icc: Option<Vec<u8>>,
}

/// Whether a colour profile is one of red, green and blue (ICC.1, section 7.2.6): for other colours it would
/// be wrong after they have become these.
pub(super) fn is_rgb_profile(icc: &[u8]) -> bool {
    icc.get(16..20) == Some(b"RGB ")
}

/// The pixels of a picture, upright, as one hides in them.
///
/// # Errors
/// [`WorkError`]: not a picture, damaged, too large, animated.
pub fn pixels(picture: &[u8], frames: Frames) -> Result<Pixels, WorkError> {
    let mut decoded = decode::picture(picture, frames)?;
    decoded.image.apply_orientation(decoded.orientation);
    Ok(eight_bits(decoded))
}

/// The pixels as they stand in the file: something hidden there is not turned upright by anybody.
///
/// # Errors
/// [`WorkError`].
pub fn pixels_as_stored(picture: &[u8], frames: Frames) -> Result<Pixels, WorkError> {
    decode::picture(picture, frames).map(eight_bits)
}

fn eight_bits(decoded: Decoded) -> Pixels {
    let icc = decoded.icc.filter(|icc| is_rgb_profile(icc));
    let image: DynamicImage = decoded.image;
    let (width, height) = (image.width(), image.height());
    let (channels, samples) = if image.color().has_alpha() {
        (Channels::Rgba, image.into_rgba8().into_raw())
    } else {
        (Channels::Rgb, image.into_rgb8().into_raw())
    };
    Pixels { width, height, channels, samples, icc }
}

/// Hides a payload.
///
/// # Errors
/// [`WorkError::TooLong`].
pub fn write(pixels: &mut Pixels, layout: &Layout, payload: &[u8]) -> Result<(), WorkError> {
    let (samples, channels) = (&mut pixels.samples, pixels.channels);
    match layout {
        Layout::Plain => stego::hide(samples, channels, payload)?,
        Layout::Scattered { seed, header } => stego::scatter(samples, channels, header, seed, payload)?,
    }
    Ok(())
}

/// The PNG of these pixels.
///
/// # Errors
/// [`WorkError::Encode`].
pub fn encode(pixels: &Pixels) -> Result<Vec<u8>, WorkError> {
    let mut png = Vec::new();
    let mut encoder = PngEncoder::new_with_quality(&mut png, PNG_COMPRESSION, PNG_FILTER);
    if let Some(icc) = &pixels.icc {
        encoder.set_icc_profile(icc.clone()).map_err(|error| WorkError::Encode(error.to_string()))?;
    }
    let colour = match pixels.channels {
        Channels::Rgb => ExtendedColorType::Rgb8,
        Channels::Rgba => ExtendedColorType::Rgba8,
    };
    let written = encoder.write_image(&pixels.samples, pixels.width, pixels.height, colour);
    written.map_err(|error| WorkError::from_encoder(&error))?;
    Ok(png)
}

/// Reads an encoded picture again and compares what is hidden in it.
///
/// # Errors
/// [`WorkError::ReadBack`], and what keeps it from being decoded.
pub fn read_back(png: &[u8], layout: &Layout, payload: &[u8]) -> Result<(), WorkError> {
    let pixels = pixels_as_stored(png, Frames::Single)?;
    let (samples, channels) = (&pixels.samples, pixels.channels);
    let same = match layout {
        Layout::Plain => stego::reveal(samples, channels).is_some_and(|found| found.payload == payload),
        Layout::Scattered { seed, header } => {
            let found = stego::gather(samples, channels, header.len(), seed, payload.len());
            stego::head(samples, channels, header.len()).as_ref() == Some(header)
                && found.as_deref() == Some(payload)
        }
    };
    if same { Ok(()) } else { Err(WorkError::ReadBack) }
}
