//! BMP: a file header, a bitmap header, masks or colours, and the rows of pixels, wherever the header says.

use super::{Broken, piece};

const FILE_HEADER_BYTES: usize = 14;
/// BITMAPINFOHEADER, the least that says how rows are stored (Microsoft, "Bitmap Header Types").
const INFO_HEADER_BYTES: usize = 40;
/// BITMAPV5HEADER, which may name a colour profile behind the pixels.
const V5_HEADER_BYTES: usize = 124;

/// Where things are in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Headers, masks and colours end here.
    pub head_end: usize,
    /// The rows begin here.
    pub begin: usize,
    /// And end here.
    pub end: usize,
    /// Whether the header may name a profile.
    pub has_profile_fields: bool,
}

/// Reads the headers; the rows must be there.
pub fn layout(bytes: &[u8]) -> Result<Layout, Broken> {
    let header_bytes = number(bytes, FILE_HEADER_BYTES)?;
    if header_bytes < INFO_HEADER_BYTES {
        // Those of OS/2 have other fields.
        return Err(Broken::Lost);
    }
    let field = |offset: usize| number(bytes, FILE_HEADER_BYTES + offset);
    let (width, height) = (field(4)?, (field(8)? as u32).cast_signed().unsigned_abs() as usize);
    let (depth, compression) = (field(12)? >> 16, field(16)?);
    let colours = match (field(32)?, depth) {
        (0, 1..=8) => 1 << depth,
        (colours, _) => colours,
    };
    let masks_bytes = match compression {
        3 if header_bytes == INFO_HEADER_BYTES => 12,
        6 if header_bytes == INFO_HEADER_BYTES => 16,
        _ => 0,
    };
    let rows_bytes = match compression {
        0 | 3 | 6 => {
            let row = width.checked_mul(depth).ok_or(Broken::Cut)?.div_ceil(32) * 4;
            row.checked_mul(height).ok_or(Broken::Cut)?
        }
        _ => field(20)?,
    };
    let begin = number(bytes, 10)?;
    piece(bytes, begin, rows_bytes)?;
    let colours_bytes = colours.checked_mul(4).ok_or(Broken::Cut)?;
    let head_end = (FILE_HEADER_BYTES + header_bytes + masks_bytes).saturating_add(colours_bytes);
    if head_end > begin {
        return Err(Broken::Lost);
    }
    let has_profile_fields = header_bytes >= V5_HEADER_BYTES;
    Ok(Layout { head_end, begin, end: begin + rows_bytes, has_profile_fields })
}

/// The picture in its own bytes alone: what lies between head and rows is zero, nothing is behind the rows.
pub fn without(bytes: &[u8]) -> Result<Vec<u8>, Broken> {
    let Layout { head_end, begin, end, has_profile_fields } = layout(bytes)?;
    let mut out = bytes[..end].to_vec();
    out[head_end..begin].fill(0);
    let total = u32::try_from(end).map_err(|_| Broken::Cut)?;
    out[2..6].copy_from_slice(&total.to_le_bytes());
    out[6..10].fill(0);
    if has_profile_fields {
        // Where a profile was, sRGB is meant; its place and length are the last but one fields.
        let profile = FILE_HEADER_BYTES + 112;
        if out[profile..profile + 8].iter().any(|byte| *byte != 0) {
            let kind = FILE_HEADER_BYTES + 56;
            out[kind..kind + 4].copy_from_slice(b"BGRs");
        }
        out[profile..profile + 12].fill(0);
    }
    Ok(out)
}

fn number(bytes: &[u8], at: usize) -> Result<usize, Broken> {
    let four = piece(bytes, at, 4)?.try_into().expect("a slice of four");
    usize::try_from(u32::from_le_bytes(four)).map_err(|_| Broken::Cut)
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, ImageFormat, ImageReader};

    use super::*;

    fn made(image: &DynamicImage) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Bmp).expect("written into memory");
        bytes.into_inner()
    }

    fn pixels(bytes: &[u8]) -> DynamicImage {
        let reader = ImageReader::with_format(std::io::Cursor::new(bytes), ImageFormat::Bmp);
        reader.decode().expect("a picture")
    }

    fn images() -> [DynamicImage; 3] {
        let rgb = image::RgbImage::from_fn(7, 5, |x, y| image::Rgb([x as u8 * 30, y as u8 * 40, 9]));
        let rgb = DynamicImage::ImageRgb8(rgb);
        [DynamicImage::ImageLuma8(rgb.to_luma8()), DynamicImage::ImageRgba8(rgb.to_rgba8()), rgb]
    }

    #[test]
    fn what_is_behind_the_rows_goes_and_the_picture_stays() {
        for image in images() {
            let clean = made(&image);
            let mut with_tail = clean.clone();
            with_tail.extend_from_slice(b"a secret behind the picture");
            with_tail[6..10].copy_from_slice(b"note");
            let stripped = without(&with_tail).expect("a BMP");
            assert_eq!(stripped, without(&clean).expect("a BMP"));
            assert_eq!(stripped.len(), clean.len());
            assert_eq!(pixels(&stripped), pixels(&clean));
        }
    }

    #[test]
    fn what_is_between_head_and_rows_goes_too() {
        for image in images() {
            let clean = made(&image);
            let Layout { begin, .. } = layout(&clean).expect("a BMP");
            let gap = b"a secret in the gap";
            let mut gapped = clean.clone();
            gapped.splice(begin..begin, gap.iter().copied());
            gapped[10..14].copy_from_slice(&((begin + gap.len()) as u32).to_le_bytes());
            let stripped = without(&gapped).expect("a BMP");
            assert!(!stripped.windows(6).any(|six| six == b"secret"));
            assert_eq!(pixels(&stripped), pixels(&clean));
        }
    }

    #[test]
    fn what_is_cut_or_overlaps_is_refused() {
        let clean = made(&images()[2]);
        for len in 0..clean.len() {
            assert!(without(&clean[..len]).is_err(), "{len} bytes");
        }
        let mut overlapping = clean.clone();
        overlapping[10..14].copy_from_slice(&20u32.to_le_bytes());
        assert!(without(&overlapping).is_err());
    }
}
