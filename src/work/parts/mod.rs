//! Picture files from part to part: what each part is called and where it ends. Nothing is decoded.
//!
//! Every walk is an iterator over borrowed bytes, so its memory does not grow with the file, and each step
//! goes forward.

pub(super) mod bmp;
pub(super) mod gif;
pub(super) mod jpeg;
pub(super) mod png;
pub(super) mod webp;

/// Where a file stops making sense, half a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// It ends inside of something.
    #[error("it ends in the middle")]
    Cut,
    /// Something else stands where a part should begin.
    #[error("a part does not begin where one should")]
    Lost,
    /// Each scan costs as much as the whole picture, however short it is.
    #[error("it is decoded in more scans than anybody needs")]
    Scans,
}

/// The first `len` bytes from `at` on, if there are so many.
fn piece(bytes: &[u8], at: usize, len: usize) -> Result<&[u8], Broken> {
    let end = at.checked_add(len).ok_or(Broken::Cut)?;
    bytes.get(at..end).ok_or(Broken::Cut)
}
