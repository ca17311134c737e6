//! A picture without metadata: where, when and with what it was taken, comments, previews, what lies behind
//! its end. Its pixels are not touched.
//!
//! What says how to show it stays: the colour profile, and of EXIF which side is up, if that is not the first
//! row.

use image::{ImageFormat, metadata::Orientation};

use super::{
    Frames, WorkError, decode,
    parts::{Broken, bmp, gif, jpeg, png, webp},
};

/// Takes the metadata away.
///
/// # Errors
/// [`WorkError`]: not a picture, damaged, a format that is not taken apart here.
pub(super) fn strip(picture: &[u8]) -> Result<Vec<u8>, WorkError> {
    let format = decode::format(picture).ok_or(WorkError::NotAPicture)?;
    let name = decode::format_name(format);
    // Its header makes sense, and nobody is handed a bomb.
    decode::size(picture, Frames::First)?;
    let stripped = match format {
        ImageFormat::Jpeg => jpeg_without(picture),
        ImageFormat::Png => png_without(picture),
        ImageFormat::WebP => webp_without(picture),
        ImageFormat::Gif => gif_without(picture),
        // It has no room for any, but between its parts and behind them.
        ImageFormat::Bmp => bmp::without(picture),
        _ => return Err(WorkError::Strip { format: name }),
    };
    stripped.map_err(|reason| WorkError::Damaged { format: name, reason: reason.to_string() })
}

/// EXIF that says which side is up and nothing else; none if that goes without saying.
fn upright_only(exif: &[u8]) -> Option<Vec<u8>> {
    let orientation = Orientation::from_exif_chunk(exif)?;
    if orientation == Orientation::NoTransforms {
        return None;
    }
    // One directory of one entry: tag 0x112, one number of two bytes.
    let mut minimal = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    minimal.extend([orientation.to_exif(), 0, 0, 0, 0, 0, 0, 0]);
    Some(minimal)
}

const EXIF_PREFIX: &[u8] = b"Exif\0\0";
const ICC_PREFIX: &[u8] = b"ICC_PROFILE\0";

fn jpeg_without(picture: &[u8]) -> Result<Vec<u8>, Broken> {
    let mut out = Vec::with_capacity(picture.len());
    let mut saw_exif = false;
    for segment in jpeg::segments(picture) {
        let segment = segment?;
        match segment.marker {
            jpeg::APP0 if segment.body.starts_with(b"JFIF\0") => out.extend(jfif_without(segment.body)),
            jpeg::APP2 if segment.body.starts_with(ICC_PREFIX) => out.extend_from_slice(segment.bytes),
            jpeg::APP14 if segment.body.starts_with(b"Adobe") => out.extend(adobe_without(segment.body)),
            jpeg::APP1 if !saw_exif && segment.body.starts_with(EXIF_PREFIX) => {
                saw_exif = true;
                let exif = upright_only(&segment.body[EXIF_PREFIX.len()..]);
                out.extend(exif.map(|exif| app1(&exif)).unwrap_or_default());
            }
            jpeg::APP0..=jpeg::APP15 | jpeg::COM => {}
            _ => out.extend_from_slice(segment.bytes),
        }
    }
    Ok(out)
}

/// The JFIF segment without its preview.
fn jfif_without(body: &[u8]) -> Vec<u8> {
    const BODY_BYTES: usize = 14;
    let mut fixed = body.to_vec();
    fixed.resize(BODY_BYTES, 0);
    // No columns and no rows of preview.
    fixed[BODY_BYTES - 2..].fill(0);
    segment_of(jpeg::APP0, &fixed)
}

/// Adobe's segment without what may stand behind it; nothing of one that is too short to say anything.
fn adobe_without(body: &[u8]) -> Vec<u8> {
    const BODY_BYTES: usize = 12;
    body.get(..BODY_BYTES).map(|body| segment_of(jpeg::APP14, body)).unwrap_or_default()
}

fn app1(exif: &[u8]) -> Vec<u8> {
    segment_of(jpeg::APP1, &[EXIF_PREFIX, exif].concat())
}

fn segment_of(marker: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(2 + body.len()).expect("a short segment");
    [&[0xff, marker][..], &len.to_be_bytes(), body].concat()
}

/// The picture, and chunks that say how to show it. A chunk that calls itself critical and is none of these
/// shows nothing to anybody.
const PNG_KEPT: [&[u8; 4]; 17] = [
    b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"mDCV", b"cLLI",
    b"sBIT", b"bKGD", b"pHYs", b"acTL", b"fcTL", b"fdAT",
];

fn png_without(picture: &[u8]) -> Result<Vec<u8>, Broken> {
    let mut out = Vec::with_capacity(picture.len());
    out.extend_from_slice(&png::SIGNATURE);
    let mut saw_exif = false;
    for chunk in png::chunks(picture) {
        let chunk = chunk?;
        if chunk.kind == *b"IEND" {
            out.extend(png::made(chunk.kind, &[]));
        } else if PNG_KEPT.contains(&&chunk.kind) {
            out.extend_from_slice(chunk.bytes);
        } else if chunk.kind == *b"eXIf" && !saw_exif {
            saw_exif = true;
            out.extend(upright_only(chunk.body).map(|exif| png::made(*b"eXIf", &exif)).unwrap_or_default());
        }
    }
    Ok(out)
}

fn webp_without(picture: &[u8]) -> Result<Vec<u8>, Broken> {
    let mut out = Vec::with_capacity(picture.len());
    out.extend_from_slice(&picture[..webp::HEAD_BYTES]);
    let mut exif = None;
    let mut flags_at = None;
    for chunk in webp::chunks(picture) {
        let chunk = chunk?;
        match &chunk.kind {
            b"VP8X" => {
                flags_at.get_or_insert(out.len() + 8);
                out.extend(webp::made(chunk.kind, chunk.body));
            }
            b"VP8 " | b"VP8L" | b"ALPH" | b"ANIM" | b"ANMF" | b"ICCP" => {
                out.extend(webp::made(chunk.kind, chunk.body));
            }
            b"EXIF" if exif.is_none() => {
                let body = chunk.body.strip_prefix(EXIF_PREFIX).unwrap_or(chunk.body);
                exif = upright_only(body);
            }
            _ => {}
        }
    }
    if let Some(flags) = flags_at.and_then(|at| out.get_mut(at)) {
        *flags &= !(webp::FLAG_EXIF | webp::FLAG_XMP);
        *flags |= if exif.is_some() { webp::FLAG_EXIF } else { 0 };
        out.extend(exif.map(|exif| webp::made(*b"EXIF", &exif)).unwrap_or_default());
    }
    let len = u32::try_from(out.len() - 8).map_err(|_| Broken::Cut)?;
    out[4..8].copy_from_slice(&len.to_le_bytes());
    Ok(out)
}

/// Applications whose blocks say how to show the picture: how often it is repeated, and its colours.
const GIF_KEPT: [&[u8; 11]; 3] = [b"NETSCAPE2.0", b"ANIMEXTS1.0", b"ICCRGBG1012"];

fn gif_without(picture: &[u8]) -> Result<Vec<u8>, Broken> {
    let mut out = Vec::with_capacity(picture.len());
    let mut ended = false;
    for block in gif::blocks(picture) {
        let block = block?;
        ended |= block.kind == gif::Kind::Trailer;
        let keeps = match block.kind {
            gif::Kind::Comment => false,
            gif::Kind::Application(name) => GIF_KEPT.iter().any(|kept| name == kept.as_slice()),
            _ => true,
        };
        if keeps {
            out.extend_from_slice(block.bytes);
        }
    }
    if !ended {
        out.push(0x3b);
    }
    Ok(out)
}
