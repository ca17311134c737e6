//! WebP (RFC 9649): the chunks inside of RIFF.

use super::{Broken, piece};

/// `RIFF`, length, `WEBP`.
pub const HEAD_BYTES: usize = 12;
/// In the flags of `VP8X`: there is EXIF.
pub const FLAG_EXIF: u8 = 0x08;
/// In the flags of `VP8X`: there is XMP.
pub const FLAG_XMP: u8 = 0x04;

/// One chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Four characters.
    pub kind: [u8; 4],
    /// What its length counts.
    pub body: &'a [u8],
}

/// The chunks up to the end that RIFF tells.
pub fn chunks(bytes: &[u8]) -> impl Iterator<Item = Result<Chunk<'_>, Broken>> {
    let end = end(bytes);
    let mut at = end.map(|_| HEAD_BYTES).ok();
    let mut failed = end.err();
    let end = end.unwrap_or(0);
    std::iter::from_fn(move || {
        if let Some(failed) = failed.take() {
            return Some(Err(failed));
        }
        let begin = at.filter(|at| *at < end)?;
        let read = chunk(&bytes[..end], begin);
        // An odd length is filled up.
        at = read.ok().map(|chunk| begin + 8 + chunk.body.len().next_multiple_of(2));
        Some(read)
    })
}

/// Whether there is more than one frame in it.
pub fn is_animated(bytes: &[u8]) -> bool {
    chunks(bytes).map_while(Result::ok).filter(|chunk| chunk.kind == *b"ANMF").nth(1).is_some()
}

/// A chunk of this kind with these contents.
pub fn made(kind: [u8; 4], body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("RIFF counts in 32 bits");
    let mut bytes = [&kind[..], &len.to_le_bytes(), body].concat();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

fn end(bytes: &[u8]) -> Result<usize, Broken> {
    let len = piece(bytes, 4, 4)?;
    let len = u32::from_le_bytes(len.try_into().expect("four bytes"));
    let end = usize::try_from(len).ok().and_then(|len| len.checked_add(8)).ok_or(Broken::Cut)?;
    if end < HEAD_BYTES || end > bytes.len() { Err(Broken::Cut) } else { Ok(end) }
}

fn chunk(bytes: &[u8], at: usize) -> Result<Chunk<'_>, Broken> {
    let head = piece(bytes, at, 8)?;
    let (kind, len) = head.split_at(4);
    let len = u32::from_le_bytes(len.try_into().expect("four of eight bytes"));
    let body = piece(bytes, at + 8, usize::try_from(len).map_err(|_| Broken::Cut)?)?;
    Ok(Chunk { kind: kind.try_into().expect("four of eight bytes"), body })
}
