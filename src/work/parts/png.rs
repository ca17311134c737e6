//! PNG (third edition): chunks up to IEND. Their checksums are the decoder's affair.

use super::{Broken, piece};

/// What a file begins with.
pub const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n'];
/// Length, kind and checksum.
const FRAME_BYTES: usize = 12;

/// One chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Four letters.
    pub kind: [u8; 4],
    /// All of it.
    pub bytes: &'a [u8],
    /// What its length counts.
    pub body: &'a [u8],
}

/// The chunks, IEND the last.
pub fn chunks(bytes: &[u8]) -> impl Iterator<Item = Result<Chunk<'_>, Broken>> {
    let mut at = Some(SIGNATURE.len());
    std::iter::from_fn(move || {
        let read = chunk(bytes, at?);
        at = match &read {
            Ok(chunk) if chunk.kind != *b"IEND" => at.map(|at| at + chunk.bytes.len()),
            _ => None,
        };
        Some(read)
    })
}

/// Whether there is more than one frame in it (APNG).
pub fn is_animated(bytes: &[u8]) -> bool {
    let before_data = chunks(bytes).map_while(Result::ok).take_while(|chunk| chunk.kind != *b"IDAT");
    let frames =
        before_data.filter(|chunk| chunk.kind == *b"acTL").find_map(|chunk| chunk.body.first_chunk());
    frames.is_some_and(|frames| u32::from_be_bytes(*frames) > 1)
}

/// A chunk of this kind with these contents.
pub fn made(kind: [u8; 4], body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("a short chunk");
    let mut crc = crc32fast::Hasher::new();
    crc.update(&kind);
    crc.update(body);
    [&len.to_be_bytes()[..], &kind, body, &crc.finalize().to_be_bytes()].concat()
}

fn chunk(bytes: &[u8], at: usize) -> Result<Chunk<'_>, Broken> {
    let head = piece(bytes, at, 8)?;
    let (len, kind) = head.split_at(4);
    let kind: [u8; 4] = kind.try_into().expect("four of eight bytes");
    if !kind.iter().all(u8::is_ascii_alphabetic) {
        return Err(Broken::Lost);
    }
    let len = u32::from_be_bytes(len.try_into().expect("four of eight bytes"));
    let len = usize::try_from(len).map_err(|_| Broken::Cut)?;
    let bytes = piece(bytes, at, len.checked_add(FRAME_BYTES).ok_or(Broken::Cut)?)?;
    Ok(Chunk { kind, bytes, body: &bytes[8..8 + len] })
}
