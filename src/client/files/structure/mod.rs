//! Is a picture whole? A check of its structure while its bytes stream by.
//!
//! It follows chunks, markers and lengths to the end and never decodes a pixel. Its memory does not grow
//! with the file. It judges only formats whose content says what they are; everything else passes. What
//! follows the end of a whole picture is not judged either: cameras append films and second pictures there,
//! and every viewer shows such a file.

mod bmp;
mod gif;
mod input;
mod jpeg;
mod png;
mod tiff;
mod webp;

use std::io::{Read, Seek};

use input::{Fault, Input};

/// Bytes that are enough to tell each format.
const SNIFF_BYTES: usize = 32;

/// A picture format whose structure can be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Portable Network Graphics (PNG specification, third edition).
    Png,
    /// JPEG (ITU T.81).
    Jpeg,
    /// GIF 87a and 89a.
    Gif,
    /// WebP in RIFF (RFC 9649).
    WebP,
    /// Windows bitmap.
    Bmp,
    /// TIFF 6.0 and BigTIFF; the camera RAW families that are built on it are not judged.
    Tiff,
}

/// Why a picture is broken, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a whole {format}: {reason} (at byte {offset})")]
pub struct Broken {
    /// What its content says it is.
    pub format: Format,
    /// What is wrong, half a sentence.
    pub reason: String,
    /// Where, in bytes from the start.
    pub offset: u64,
}

/// Something that can be read from any place: a file, or a cursor over bytes.
pub trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

/// Follows the structure of one object while its bytes are pushed in order.
#[derive(Debug, Default)]
pub struct Checker {
    machine: Machine,
    bytes_seen: u64,
    broken: Option<Broken>,
}

#[derive(Debug)]
enum Machine {
    Sniffing { head: [u8; SNIFF_BYTES], len: usize },
    Png(png::Walk),
    Jpeg(jpeg::Walk),
    Gif(gif::Walk),
    WebP(webp::Walk),
    Bmp(bmp::Walk),
    Tiff([u8; SNIFF_BYTES]),
    Unjudged,
}

impl Checker {
    /// A checker that has seen nothing; the format is told from the first bytes pushed.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes of the object, in pieces of any size.
    pub fn push(&mut self, mut bytes: &[u8]) {
        if self.broken.is_some() {
            return;
        }
        if let Machine::Sniffing { head, len } = &mut self.machine {
            let taken = bytes.len().min(SNIFF_BYTES - *len);
            head[*len..*len + taken].copy_from_slice(&bytes[..taken]);
            *len += taken;
            bytes = &bytes[taken..];
            if *len < SNIFF_BYTES {
                return;
            }
            self.decide();
        }
        self.walk(bytes);
    }

    /// The format, once 32 bytes were pushed; none also for objects that are not judged.
    pub fn format(&self) -> Option<Format> {
        match &self.machine {
            Machine::Sniffing { .. } | Machine::Unjudged => None,
            Machine::Png(_) => Some(Format::Png),
            Machine::Jpeg(_) => Some(Format::Jpeg),
            Machine::Gif(_) => Some(Format::Gif),
            Machine::WebP(_) => Some(Format::WebP),
            Machine::Bmp(_) => Some(Format::Bmp),
            Machine::Tiff(_) => Some(Format::Tiff),
        }
    }

    /// What is already known to be wrong, so that a caller can stop reading.
    pub fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// The object has ended. `again` opens the same bytes for random access: TIFF needs it, because its
    /// directories may lie anywhere; without it (standard input) only a TIFF's header and the place of its
    /// first directory are checked. An error in reading `again` counts as broken.
    ///
    /// # Errors
    /// [`Broken`]: its content says that it is a picture, and it is not whole.
    pub fn finish(mut self, again: Option<&mut dyn ReadSeek>) -> Result<(), Broken> {
        if matches!(self.machine, Machine::Sniffing { .. }) {
            self.decide();
        }
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        let Some(format) = self.format() else { return Ok(()) };
        let outcome = match &self.machine {
            Machine::Sniffing { .. } | Machine::Unjudged => Ok(()),
            Machine::Png(walk) => walk.finish(),
            Machine::Jpeg(walk) => walk.finish(),
            Machine::Gif(walk) => walk.finish(),
            Machine::WebP(walk) => walk.finish(),
            Machine::Bmp(walk) => walk.finish(self.bytes_seen),
            Machine::Tiff(head) => tiff::check(head, self.bytes_seen, again),
        };
        outcome.map_err(|fault| fault.at(format, self.bytes_seen))
    }

    /// Chooses the machine from the head, and lets it see the head.
    fn decide(&mut self) {
        let Machine::Sniffing { head, len } = self.machine else { return };
        let head = &head[..len];
        self.machine = match Format::of(head) {
            Some(Format::Png) => Machine::Png(png::Walk::default()),
            Some(Format::Jpeg) => Machine::Jpeg(jpeg::Walk::default()),
            Some(Format::Gif) => Machine::Gif(gif::Walk::default()),
            Some(Format::WebP) => Machine::WebP(webp::Walk::default()),
            Some(Format::Bmp) => Machine::Bmp(bmp::Walk::default()),
            Some(Format::Tiff) => {
                let mut kept = [0; SNIFF_BYTES];
                kept[..len].copy_from_slice(head);
                Machine::Tiff(kept)
            }
            None => Machine::Unjudged,
        };
        let mut copy = [0; SNIFF_BYTES];
        copy[..len].copy_from_slice(head);
        self.walk(&copy[..len]);
    }

    fn walk(&mut self, bytes: &[u8]) {
        if self.broken.is_some() {
            return;
        }
        let mut input = Input::new(bytes, self.bytes_seen);
        let outcome = match &mut self.machine {
            Machine::Sniffing { .. } | Machine::Unjudged | Machine::Tiff(_) => Ok(()),
            Machine::Png(walk) => walk.push(&mut input),
            Machine::Jpeg(walk) => walk.push(&mut input),
            Machine::Gif(walk) => walk.push(&mut input),
            Machine::WebP(walk) => walk.push(&mut input),
            Machine::Bmp(walk) => walk.push(&mut input),
        };
        if let (Err(fault), Some(format)) = (outcome, self.format()) {
            self.broken = Some(fault.at(format, input.offset()));
        }
        self.bytes_seen += bytes.len() as u64;
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::Sniffing { head: [0; SNIFF_BYTES], len: 0 }
    }
}

impl Fault {
    fn at(self, format: Format, offset: u64) -> Broken {
        Broken { format, reason: self.reason, offset: self.offset.unwrap_or(offset) }
    }
}

impl Format {
    /// What these first bytes (32 are enough) say that the object is.
    pub fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x89, b'P', b'N', b'G', ..] => Some(Self::Png),
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            [b'I', b'I', 42 | 43, 0, ..] if !is_other_raw(head) => Some(Self::Tiff),
            [b'M', b'M', 0, 42 | 43, ..] => Some(Self::Tiff),
            [b'B', b'M', ..] if bmp::is_header(head) => Some(Self::Bmp),
            _ => None,
        }
    }
}

/// Canon's CR2 begins like a TIFF and says at byte 8 that it is none.
fn is_other_raw(head: &[u8]) -> bool {
    head.get(8..10) == Some(b"CR")
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::Gif => "GIF",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        })
    }
}

#[cfg(test)]
mod tests;
