//! GIF 89a: header, extensions, pictures and the trailer.

use super::{Broken, piece};

const HEAD_BYTES: usize = 13;
const IMAGE_HEAD_BYTES: usize = 10;

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// Signature, screen and its colours.
    Head,
    /// One picture.
    Image,
    /// Times and transparency, or a text to be drawn.
    Control,
    /// A comment.
    Comment,
    /// An application's, with its eleven letters.
    Application(&'a [u8]),
    /// The end.
    Trailer,
}

/// One block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// What it is.
    pub kind: Kind<'a>,
    /// All of it.
    pub bytes: &'a [u8],
}

/// The blocks, the trailer the last. Some writers leave that out.
pub fn blocks(bytes: &[u8]) -> impl Iterator<Item = Result<Block<'_>, Broken>> {
    let mut at = Some(0);
    std::iter::from_fn(move || {
        let begin = at.filter(|at| *at == 0 || *at < bytes.len())?;
        let read = if begin == 0 { head(bytes) } else { block(bytes, begin) };
        at = match &read {
            Ok(block) if block.kind != Kind::Trailer => Some(begin + block.bytes.len()),
            _ => None,
        };
        Some(read)
    })
}

/// Whether there is more than one picture in it.
pub fn is_animated(bytes: &[u8]) -> bool {
    blocks(bytes).map_while(Result::ok).filter(|block| block.kind == Kind::Image).nth(1).is_some()
}

fn head(bytes: &[u8]) -> Result<Block<'_>, Broken> {
    let flags = piece(bytes, 0, HEAD_BYTES)?[10];
    Ok(Block { kind: Kind::Head, bytes: piece(bytes, 0, HEAD_BYTES + table_bytes(flags))? })
}

/// Bytes of the table of colours that these flags announce.
fn table_bytes(flags: u8) -> usize {
    if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) }
}

fn block(bytes: &[u8], at: usize) -> Result<Block<'_>, Broken> {
    match bytes[at] {
        0x3b => Ok(Block { kind: Kind::Trailer, bytes: &bytes[at..=at] }),
        0x2c => {
            let flags = piece(bytes, at, IMAGE_HEAD_BYTES)?[9];
            // One byte more: how wide the codes are.
            let end = sub_blocks_end(bytes, at + IMAGE_HEAD_BYTES + table_bytes(flags) + 1)?;
            Ok(Block { kind: Kind::Image, bytes: &bytes[at..end] })
        }
        0x21 => {
            let label = piece(bytes, at, 2)?[1];
            let end = sub_blocks_end(bytes, at + 2)?;
            let kind = match label {
                0xfe => Kind::Comment,
                0xff => Kind::Application(piece(bytes, at + 3, 11).unwrap_or_default()),
                _ => Kind::Control,
            };
            Ok(Block { kind, bytes: &bytes[at..end] })
        }
        _ => Err(Broken::Lost),
    }
}

/// Behind the empty block that ends a row of them.
fn sub_blocks_end(bytes: &[u8], mut at: usize) -> Result<usize, Broken> {
    loop {
        let len = usize::from(piece(bytes, at, 1)?[0]);
        at += 1 + len;
        if len == 0 {
            return Ok(at);
        }
    }
}
