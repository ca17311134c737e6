//! TIFF 6.0 and BigTIFF, both byte orders: the chain of directories and the places of the pixels.
//!
//! Directories may lie anywhere, so this walk reads the object a second time, from place to place, and only
//! directories. Its work and memory are bounded whatever the directories say.

use std::io::{self, SeekFrom};

use super::{
    super::media::{HEAD_BYTES, TIFF, media_type},
    ReadSeek,
    input::{Fault, be16, be32, le16, le32},
};

/// Directories followed; a stack of microscope pictures has thousands.
const DIRECTORIES_MAX: u32 = 65_536;
/// Entries of a directory that are looked at: all that a classic TIFF can have.
const ENTRIES_MAX: u64 = 65_535;
/// Strips or tiles whose places are looked at, over the whole file.
const PIECES_MAX: u64 = 1 << 20;
/// Read at once.
const BLOCK_BYTES: usize = 4096;
/// Tags from here on belong to somebody, who may write what he likes.
const PRIVATE_TAGS_FROM: u16 = 32_768;
const TAG_STRIP_OFFSETS: u16 = 273;
const TAG_STRIP_BYTES: u16 = 279;
const TAG_TILE_OFFSETS: u16 = 324;
const TAG_TILE_BYTES: u16 = 325;
const TAG_JPEG_OFFSET: u16 = 513;

/// Checks an object of `len` bytes that begins with `head`.
pub(super) fn check(head: &[u8], len: u64, again: Option<&mut dyn ReadSeek>) -> Result<(), Fault> {
    let shape = Shape::of(head);
    let first = shape.first_directory(head)?;
    let header_bytes = if shape.big { 16 } else { 8 };
    if len < header_bytes || first < header_bytes || first >= len {
        return Err(Fault::here(format!("its first directory would be at byte {first}")));
    }
    let Some(file) = again else { return Ok(()) };
    let mut walk = Walk { shape, file, len, pieces_left: PIECES_MAX };
    if walk.is_raw()? {
        return Ok(());
    }
    walk.chain(first)
}

/// Byte order and width of offsets.
#[derive(Clone, Copy)]
struct Shape {
    little: bool,
    big: bool,
}

struct Walk<'a> {
    shape: Shape,
    file: &'a mut dyn ReadSeek,
    len: u64,
    pieces_left: u64,
}

/// One entry of a directory: where its values lie.
#[derive(Clone, Copy)]
struct Values {
    kind: u16,
    count: u64,
    at: u64,
}

/// The entries of one directory that say where pixels lie.
#[derive(Default)]
struct Places {
    strips: [Option<Values>; 2],
    tiles: [Option<Values>; 2],
    other: bool,
}

impl Shape {
    fn of(head: &[u8]) -> Self {
        let little = head[0] == b'I';
        Self { little, big: if little { head[2] == 43 } else { head[3] == 43 } }
    }

    fn u16(self, bytes: &[u8], at: usize) -> u16 {
        if self.little { le16(bytes, at) } else { be16(bytes, at) }
    }

    fn u32(self, bytes: &[u8], at: usize) -> u64 {
        u64::from(if self.little { le32(bytes, at) } else { be32(bytes, at) })
    }

    fn u64(self, bytes: &[u8], at: usize) -> u64 {
        let (first, second) = (self.u32(bytes, at), self.u32(bytes, at + 4));
        if self.little { second << 32 | first } else { first << 32 | second }
    }

    /// An offset, a count or a pointer: four bytes, eight in BigTIFF.
    fn wide(self, bytes: &[u8], at: usize) -> u64 {
        if self.big { self.u64(bytes, at) } else { self.u32(bytes, at) }
    }

    fn wide_bytes(self) -> u64 {
        if self.big { 8 } else { 4 }
    }

    fn entry_bytes(self) -> u64 {
        4 + 2 * self.wide_bytes()
    }

    fn first_directory(self, head: &[u8]) -> Result<u64, Fault> {
        if !self.big {
            return Ok(self.u32(head, 4));
        }
        if self.u16(head, 4) != 8 || self.u16(head, 6) != 0 {
            return Err(Fault::at_byte("its BigTIFF header makes no sense", 4));
        }
        Ok(self.u64(head, 8))
    }
}

impl Walk<'_> {
    /// Whether a camera's RAW format is built on this TIFF: those bend the rules and are not judged.
    fn is_raw(&mut self) -> Result<bool, Fault> {
        let mut head = vec![0; self.len.min(HEAD_BYTES as u64) as usize];
        self.read(0, &mut head)?;
        Ok(media_type(&head) != TIFF)
    }

    /// Follows the chain; a loop is found by Brent's method, which needs one remembered place.
    fn chain(&mut self, first: u64) -> Result<(), Fault> {
        let (mut at, mut mark, mut next_mark) = (first, 0, 1);
        for number in 0..DIRECTORIES_MAX {
            let next = self.directory(at, number == 0)?;
            let Some(next) = next else { return Ok(()) };
            if number == next_mark {
                (mark, next_mark) = (at, next_mark * 2);
            }
            if next == mark || next == at {
                return Err(Fault::at_byte("its directories run in a circle", at));
            }
            at = next;
        }
        Err(Fault::at_byte(format!("more than {DIRECTORIES_MAX} directories"), at))
    }

    /// One directory; the answer is the next one, if there is one.
    fn directory(&mut self, at: u64, is_first: bool) -> Result<Option<u64>, Fault> {
        let count_bytes = if self.shape.big { 8 } else { 2 };
        let mut bytes = [0; BLOCK_BYTES];
        self.read(at, &mut bytes[..count_bytes])?;
        let count =
            if self.shape.big { self.shape.u64(&bytes, 0) } else { u64::from(self.shape.u16(&bytes, 0)) };
        if count == 0 || count > ENTRIES_MAX {
            return Err(Fault::at_byte(format!("a directory of {count} entries"), at));
        }
        let entries_at = at + count_bytes as u64;
        let places = self.entries(entries_at, count)?;
        let has_pixels = places.other || places.strips[0].is_some() || places.tiles[0].is_some();
        if is_first && !has_pixels {
            return Err(Fault::at_byte("its first directory names no pixels", at));
        }
        self.pieces(places.strips)?;
        self.pieces(places.tiles)?;
        let wide_bytes = self.shape.wide_bytes() as usize;
        self.read(entries_at + count * self.shape.entry_bytes(), &mut bytes[..wide_bytes])?;
        Ok(Some(self.shape.wide(&bytes, 0)).filter(|next| *next != 0))
    }

    fn entries(&mut self, mut at: u64, mut left: u64) -> Result<Places, Fault> {
        let size = self.shape.entry_bytes();
        let mut places = Places::default();
        let mut block = [0; BLOCK_BYTES];
        while left > 0 {
            let here = left.min(BLOCK_BYTES as u64 / size);
            let block = &mut block[..(here * size) as usize];
            self.read(at, block)?;
            for (number, entry) in block.chunks_exact(size as usize).enumerate() {
                self.entry(entry, at + number as u64 * size, &mut places)?;
            }
            at += here * size;
            left -= here;
        }
        Ok(places)
    }

    fn entry(&self, entry: &[u8], at: u64, places: &mut Places) -> Result<(), Fault> {
        let (tag, kind) = (self.shape.u16(entry, 0), self.shape.u16(entry, 2));
        let count = self.shape.wide(entry, 4);
        let value_in_entry = 4 + self.shape.wide_bytes();
        let Some(size) = value_bytes(kind) else { return Ok(()) };
        let bytes = count.saturating_mul(size);
        let inline = bytes <= self.shape.wide_bytes();
        let value_at =
            if inline { at + value_in_entry } else { self.shape.wide(entry, value_in_entry as usize) };
        if tag < PRIVATE_TAGS_FROM && value_at.saturating_add(bytes) > self.len {
            return Err(Fault::at_byte(format!("tag {tag} has its values behind the end of the file"), at));
        }
        let values = Some(Values { kind, count, at: value_at });
        match tag {
            TAG_STRIP_OFFSETS => places.strips[0] = values,
            TAG_STRIP_BYTES => places.strips[1] = values,
            TAG_TILE_OFFSETS => places.tiles[0] = values,
            TAG_TILE_BYTES => places.tiles[1] = values,
            TAG_JPEG_OFFSET => places.other = true,
            _ => {}
        }
        Ok(())
    }

    /// Every strip or tile must lie inside the file. Old files leave the byte counts out.
    fn pieces(&mut self, [offsets, bytes]: [Option<Values>; 2]) -> Result<(), Fault> {
        let Some(offsets) = offsets else { return Ok(()) };
        let (mut done, total) = (0, offsets.count.min(self.pieces_left));
        while done < total {
            let here = (total - done).min(256);
            let starts = self.numbers(offsets, done, here)?;
            let lengths = match bytes {
                Some(bytes) if bytes.count >= done + here => self.numbers(bytes, done, here)?,
                _ => vec![1; here as usize],
            };
            for (start, length) in starts.iter().zip(&lengths) {
                // A sparse piece has neither place nor length.
                if *length > 0 && start.saturating_add(*length) > self.len {
                    return Err(Fault::at_byte("pixels lie behind the end of the file", *start));
                }
            }
            done += here;
        }
        self.pieces_left -= total;
        Ok(())
    }

    /// At most 256 numbers of an entry, from its `first` on.
    fn numbers(&mut self, values: Values, first: u64, count: u64) -> Result<Vec<u64>, Fault> {
        let size = match values.kind {
            3 => 2,
            4 | 13 => 4,
            16 | 18 => 8,
            _ => return Err(Fault::at_byte("the places of its pixels are no numbers", values.at)),
        };
        let mut block = [0; 256 * 8];
        let block = &mut block[..(count * size) as usize];
        self.read(values.at.saturating_add(first * size), block)?;
        let shape = self.shape;
        let number = |bytes: &[u8]| match size {
            2 => u64::from(shape.u16(bytes, 0)),
            4 => shape.u32(bytes, 0),
            _ => shape.u64(bytes, 0),
        };
        Ok(block.chunks_exact(size as usize).map(number).collect())
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Fault> {
        if at.saturating_add(into.len() as u64) > self.len {
            return Err(Fault::at_byte("a directory reaches behind the end of the file", at));
        }
        let mut read = || -> io::Result<()> {
            self.file.seek(SeekFrom::Start(at))?;
            self.file.read_exact(into)
        };
        read().map_err(|error| Fault::at_byte(format!("it could not be read again: {error}"), at))
    }
}

/// Bytes of one value of a type; none for types not known, whose entries readers pass over.
fn value_bytes(kind: u16) -> Option<u64> {
    match kind {
        1 | 2 | 6 | 7 => Some(1),
        3 | 8 => Some(2),
        4 | 9 | 11 | 13 => Some(4),
        5 | 10 | 12 | 16 | 17 | 18 => Some(8),
        _ => None,
    }
}
