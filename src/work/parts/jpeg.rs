//! JPEG (ITU T.81, annex B): segments, and the coded data that follows a start of scan.

use super::{Broken, piece};
use crate::model::limits;

/// Start of image.
pub const SOI: u8 = 0xd8;
/// End of image.
pub const EOI: u8 = 0xd9;
/// Start of scan; coded data follows.
pub const SOS: u8 = 0xda;
/// A comment.
pub const COM: u8 = 0xfe;
/// The first application segment, JFIF.
pub const APP0: u8 = 0xe0;
/// EXIF and XMP.
pub const APP1: u8 = 0xe1;
/// Colour profiles, and directories of further pictures.
pub const APP2: u8 = 0xe2;
/// Adobe's, which says how colours are coded.
pub const APP14: u8 = 0xee;
/// The last application segment.
pub const APP15: u8 = 0xef;

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Its marker's second byte.
    pub marker: u8,
    /// All of it, marker and coded data included.
    pub bytes: &'a [u8],
    /// What its length covers, without the length itself.
    pub body: &'a [u8],
}

/// The segments of the first picture in these bytes, its end of image the last.
pub fn segments(bytes: &[u8]) -> impl Iterator<Item = Result<Segment<'_>, Broken>> {
    let mut at = Some(0);
    std::iter::from_fn(move || {
        let begin = at?;
        let read = segment(bytes, begin);
        at = match &read {
            Ok((segment, next)) if segment.marker != EOI => Some(*next),
            _ => None,
        };
        Some(read.map(|(segment, _)| segment))
    })
}

/// Whether the first picture ends where it should: decoders make up what is missing. And whether it has no
/// more scans than it may.
///
/// # Errors
/// [`Broken`].
pub fn hold_whole(bytes: &[u8]) -> Result<(), Broken> {
    let mut scans = 0;
    for segment in segments(bytes) {
        scans += usize::from(segment?.marker == SOS);
        if scans > limits::JPEG_SCANS_MAX {
            return Err(Broken::Scans);
        }
    }
    Ok(())
}

/// The segment that begins here, and where the next one does.
fn segment(bytes: &[u8], begin: usize) -> Result<(Segment<'_>, usize), Broken> {
    if piece(bytes, begin, 1)?[0] != 0xff {
        return Err(Broken::Lost);
    }
    // Any number of 0xff may stand before a marker.
    let filled = bytes[begin..].iter().take_while(|byte| **byte == 0xff).count();
    let at = begin + filled - 1;
    let marker = piece(bytes, at, 2)?[1];
    let behind = at + 2;
    if marker == 0 {
        return Err(Broken::Lost);
    }
    if matches!(marker, SOI | EOI | 0x01 | 0xd0..=0xd7) {
        return Ok((Segment { marker, bytes: &bytes[at..behind], body: &[] }, behind));
    }
    let len = piece(bytes, behind, 2)?;
    let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
    if len < 2 {
        return Err(Broken::Lost);
    }
    let body = &piece(bytes, behind, len)?[2..];
    let end = behind + len;
    let end = if marker == SOS { coded_end(bytes, end)? } else { end };
    Ok((Segment { marker, bytes: &bytes[at..end], body }, end))
}

/// Where the coded data that begins at `at` ends: at a marker that is no restart.
fn coded_end(bytes: &[u8], at: usize) -> Result<usize, Broken> {
    for found in memchr::memchr_iter(0xff, &bytes[at..]) {
        match bytes.get(at + found + 1) {
            Some(0 | 0xd0..=0xd7 | 0xff) => {}
            Some(_) => return Ok(at + found),
            None => break,
        }
    }
    Err(Broken::Cut)
}
