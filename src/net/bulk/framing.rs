//! Headers and bodies on a stream: read and written in large pieces, hashed as they pass, never waited for
//! longer than the given patience without a byte moving.

use std::{future::Future, io, time::Duration};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::model::{BodyId, limits};

/// One read or write: large, because each costs a turn of the connection's lock.
const PIECE_BYTES: usize = 256 << 10;

/// Why a stream is of no more use.
#[derive(Debug)]
pub(super) enum Fault {
    /// The peer broke the framing or its bounds.
    Malformed(&'static str),
    /// It ended in the middle of something.
    Short,
    /// Nothing moved in the middle of something.
    Stalled,
    /// It broke.
    Io(io::Error),
}

async fn within<T>(patience: Duration, step: impl Future<Output = io::Result<T>>) -> Result<T, Fault> {
    Ok(timeout(patience, step).await.map_err(|_| Fault::Stalled)??)
}

/// Reads one header without its length; none at a clean end. Waits for its first byte for ever.
pub(super) async fn read_header<R: AsyncRead + Unpin>(
    from: &mut R,
    patience: Duration,
) -> Result<Option<Vec<u8>>, Fault> {
    let mut len = [0; 4];
    let got = from.read(&mut len).await?;
    if got == 0 {
        return Ok(None);
    }
    within(patience, from.read_exact(&mut len[got..])).await?;
    let len = u32::from_be_bytes(len) as usize;
    if len == 0 || len > limits::BULK_HEADER_BYTES_MAX {
        return Err(Fault::Malformed("header length"));
    }
    let mut header = vec![0; len];
    within(patience, from.read_exact(&mut header)).await?;
    Ok(Some(header))
}

/// Fills `body`, hashing each piece while it is in the cache. `moved` hears of every piece.
pub(super) async fn read_body<R: AsyncRead + Unpin>(
    from: &mut R,
    body: &mut [u8],
    patience: Duration,
    moved: impl Fn(usize),
) -> Result<BodyId, Fault> {
    let mut hasher = blake3::Hasher::new();
    let (mut filled, mut hashed) = (0, 0);
    while filled < body.len() {
        let end = body.len().min(filled + PIECE_BYTES);
        let got = read_some(from, &mut body[filled..end], patience).await?;
        filled += got;
        moved(got);
        // Small updates would cost the wide hash its width.
        if filled - hashed >= PIECE_BYTES {
            hasher.update(&body[hashed..filled]);
            hashed = filled;
        }
    }
    hasher.update(&body[hashed..]);
    Ok(BodyId(*hasher.finalize().as_bytes()))
}

/// A piece of a body. However the stream ends here, by a close, a reset or its connection: it is too short.
async fn read_some<R: AsyncRead + Unpin>(
    from: &mut R,
    piece: &mut [u8],
    patience: Duration,
) -> Result<usize, Fault> {
    match within(patience, from.read(piece)).await {
        Ok(0) | Err(Fault::Io(_)) => Err(Fault::Short),
        other => other,
    }
}

/// Reads and throws away.
pub(super) async fn skip<R: AsyncRead + Unpin>(
    from: &mut R,
    mut len: usize,
    patience: Duration,
) -> Result<(), Fault> {
    let mut scratch = vec![0; len.min(64 << 10)];
    while len > 0 {
        let end = len.min(scratch.len());
        len -= read_some(from, &mut scratch[..end], patience).await?;
    }
    Ok(())
}

/// Writes all of it. `moved` hears of every piece.
pub(super) async fn write_pieces<W: AsyncWrite + Unpin>(
    to: &mut W,
    bytes: &[u8],
    patience: Duration,
    moved: impl Fn(usize),
) -> Result<(), Fault> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = rest.len().min(PIECE_BYTES);
        let sent = within(patience, to.write(&rest[..end])).await?;
        if sent == 0 {
            return Err(Fault::Io(io::ErrorKind::WriteZero.into()));
        }
        moved(sent);
        rest = &rest[sent..];
    }
    Ok(())
}

/// Flushes.
pub(super) async fn flush<W: AsyncWrite + Unpin>(to: &mut W, patience: Duration) -> Result<(), Fault> {
    within(patience, to.flush()).await
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::Short,
            _ => Fault::Io(error),
        }
    }
}
