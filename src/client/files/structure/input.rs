//! Bytes on their way past a checker: where they are, and small headers put together from pieces.
//!
//! It judges nothing.

/// What a walk found wrong; the place is where the input stands, unless it says another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) reason: String,
    pub(super) offset: Option<u64>,
}

impl Fault {
    pub(super) fn here(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), offset: None }
    }

    pub(super) fn at_byte(reason: impl Into<String>, offset: u64) -> Self {
        Self { reason: reason.into(), offset: Some(offset) }
    }
}

/// The bytes of one push that are not consumed yet.
pub(super) struct Input<'a> {
    rest: &'a [u8],
    offset: u64,
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8], offset: u64) -> Self {
        Self { rest: bytes, offset }
    }

    /// Where the next byte stands in the object.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// At most `max` bytes, fewer when fewer are here.
    pub(super) fn take(&mut self, max: u64) -> &'a [u8] {
        let len = usize::try_from(max).unwrap_or(usize::MAX).min(self.rest.len());
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        self.offset += len as u64;
        taken
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1).first().copied()
    }
}

/// Collects a header of a fixed size from pieces.
#[derive(Debug)]
pub(super) struct Gather<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Default for Gather<N> {
    fn default() -> Self {
        Self { bytes: [0; N], len: 0 }
    }
}

impl<const N: usize> Gather<N> {
    /// The first `want` bytes once they are all here; then it is empty again.
    pub(super) fn collect(&mut self, want: usize, input: &mut Input<'_>) -> Option<[u8; N]> {
        let taken = input.take((want - self.len) as u64);
        self.bytes[self.len..self.len + taken.len()].copy_from_slice(taken);
        self.len += taken.len();
        if self.len < want {
            return None;
        }
        self.len = 0;
        Some(std::mem::replace(&mut self.bytes, [0; N]))
    }
}

/// A big-endian number of two bytes at `at`; the caller knows that they are there.
pub(super) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// A big-endian number of four bytes.
pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A little-endian number of two bytes.
pub(super) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// A little-endian number of four bytes.
pub(super) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
