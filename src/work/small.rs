//! Small pictures: shrunk, upright, a JPEG or, where something shines through, a PNG.
//!
//! For the thumbnails that a client stores beside its pictures, and for those that somebody asks for.

use image::{
    DynamicImage, ImageBuffer, ImageEncoder, ImageError, Pixel,
    codecs::{
        jpeg::JpegEncoder,
        png::{CompressionType, FilterType, PngEncoder},
    },
};

use super::{
    Frames, WorkError,
    decode::{self, Decoded},
    hide::is_rgb_profile,
};
use crate::model::limits;

/// Good enough for a picture of this size: about 20 kB at 320 pixels.
const JPEG_QUALITY: u8 = 80;

/// An encoded small picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Small {
    /// JPEG, or PNG when the picture has transparent places.
    pub bytes: Vec<u8>,
    /// Their media type.
    pub media_type: &'static str,
    /// Pixels, upright.
    pub width: u32,
    /// Pixels, upright.
    pub height: u32,
}

/// The small picture of a picture, its longest edge at most so long, with what its colours mean.
pub(super) fn thumbnail(picture: &[u8], edge_px: u32, frames: Frames) -> Result<Vec<u8>, WorkError> {
    if !(1..=limits::TASK_EDGE_PX_MAX).contains(&edge_px) {
        return Err(WorkError::Edge { edge_px });
    }
    let mut decoded = decode::picture(picture, frames)?;
    let icc = decoded.icc.take().filter(|icc| is_rgb_profile(icc));
    let small = shrink(decoded, edge_px);
    encode(&small, icc.as_deref()).map(|small| small.bytes).map_err(|e| WorkError::from_encoder(&e))
}

/// Within the edge, never larger than it was, and upright.
pub fn shrink(decoded: Decoded, edge_px: u32) -> DynamicImage {
    let whole = decoded.image;
    let mut small = if whole.width() <= edge_px && whole.height() <= edge_px {
        whole
    } else {
        thin_out(whole, edge_px).thumbnail(edge_px, edge_px)
    };
    small.apply_orientation(decoded.orientation);
    small
}

/// Averages blocks of pixels until about two an edge pixel of the small picture remain, each way: the general
/// filter takes five times as long for the same.
fn thin_out(whole: DynamicImage, edge_px: u32) -> DynamicImage {
    let step = whole.width().max(whole.height()) / edge_px.saturating_mul(2);
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
    let mut sums = vec![[0u64; N]; width as usize];
    let mut small = Vec::with_capacity(width as usize * height as usize * N);
    for rows in pixels.as_raw().chunks_exact(row_bytes * step_rows) {
        sums.fill([0; N]);
        for row in rows.chunks_exact(row_bytes) {
            for (sum, block) in sums.iter_mut().zip(row.chunks_exact(N * step_rows)) {
                for pixel in block.chunks_exact(N) {
                    for (sum, sample) in sum.iter_mut().zip(pixel) {
                        *sum += u64::from(*sample);
                    }
                }
            }
        }
        let count = u64::from(step) * u64::from(step);
        small.extend(sums.iter().flatten().map(|sum| (sum / count) as u8));
    }
    ImageBuffer::from_raw(width, height, small).expect("one pixel a block")
}

/// Encodes a small picture, with a colour profile if there is one for it.
///
/// # Errors
/// What the encoder says.
pub fn encode(small: &DynamicImage, icc: Option<&[u8]>) -> Result<Small, ImageError> {
    let mut bytes = Vec::new();
    let icc = icc.unwrap_or_default();
    let rgba = small.color().has_alpha().then(|| small.to_rgba8());
    let media_type = match rgba.filter(|rgba| rgba.pixels().any(|pixel| pixel.0[3] != u8::MAX)) {
        Some(rgba) => {
            let (compression, filter) = (CompressionType::Fast, FilterType::Adaptive);
            let mut encoder = PngEncoder::new_with_quality(&mut bytes, compression, filter);
            if !icc.is_empty() {
                encoder.set_icc_profile(icc.to_vec()).map_err(ImageError::Unsupported)?;
            }
            rgba.write_with_encoder(encoder)?;
            "image/png"
        }
        None => {
            let mut encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
            encoder.set_icc_profile(icc.to_vec()).map_err(ImageError::Unsupported)?;
            small.to_rgb8().write_with_encoder(encoder)?;
            "image/jpeg"
        }
    };
    Ok(Small { bytes, media_type, width: small.width(), height: small.height() })
}
