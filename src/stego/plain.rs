//! The plain layout: a length in four bytes, big endian, the bytes, and behind them a mark of ours.
//!
//! Other tools write and read the first two. The mark, which they pass over, makes a find certain: pixels of
//! any picture now and then look like a length. Without it only a text counts, which chance does not make.

use super::{Channels, TooLong, bits, cells_of};

const LENGTH_BYTES: usize = 4;
/// Begins the mark; a checksum over length and bytes follows.
const MARK: [u8; 4] = *b"ttyp";
const MARK_BYTES: usize = MARK.len() + 4;

/// What was found in the plain layout.
#[derive(Clone, PartialEq, Eq)]
pub struct Plain {
    /// The hidden bytes.
    pub payload: Vec<u8>,
    /// Whether the mark stands behind them; if not, it is a text that another tool wrote.
    pub marked: bool,
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plain({} bytes, marked: {})", self.payload.len(), self.marked)
    }
}

/// Bytes that a picture of so many pixels has room for, length and mark taken off.
pub fn capacity(pixels: u64) -> u64 {
    cells_of(pixels).saturating_sub((LENGTH_BYTES + MARK_BYTES) as u64).min(u64::from(u32::MAX))
}

/// Hides `payload` in the least significant bits.
///
/// # Errors
/// [`TooLong`]; then nothing was changed.
pub fn hide(pixels: &mut [u8], channels: Channels, payload: &[u8]) -> Result<(), TooLong> {
    let capacity = capacity((pixels.len() / channels.bytes()) as u64);
    let has_room = channels.cells(pixels.len()) >= LENGTH_BYTES + MARK_BYTES;
    let len = match u32::try_from(payload.len()) {
        // Also nothing at all needs room for length and mark.
        Ok(len) if u64::from(len) <= capacity && has_room => len.to_be_bytes(),
        _ => return Err(TooLong { bytes: payload.len() as u64, capacity }),
    };
    let stream = [&len[..], payload, &MARK, &checksum(len, payload)].concat();
    bits::write(pixels, channels, &stream);
    Ok(())
}

/// What is hidden there; none also when a length stands there by chance.
pub fn reveal(pixels: &[u8], channels: Channels) -> Option<Plain> {
    let (len, mut stream) = candidate(pixels, channels)?;
    let end = LENGTH_BYTES + payload_len(len)?;
    if let Some(mark) = stream.get(end..end + MARK_BYTES) {
        let payload = &stream[LENGTH_BYTES..end];
        if mark[..MARK.len()] == MARK && mark[MARK.len()..] == checksum(len, payload) {
            return Some(Plain { payload: cut(&mut stream, end), marked: true });
        }
    }
    let is_text = end > LENGTH_BYTES && is_text(&stream[LENGTH_BYTES..end]);
    is_text.then(|| Plain { payload: cut(&mut stream, end), marked: false })
}

/// Whether this program has hidden something there that has been changed since: its mark stands where the
/// length says, but what is checked by it is not what it was.
pub fn is_broken(pixels: &[u8], channels: Channels) -> bool {
    let found = candidate(pixels, channels).and_then(|(len, stream)| {
        let end = LENGTH_BYTES + payload_len(len)?;
        let mark = stream.get(end..end + MARK_BYTES)?;
        let is_whole = mark[MARK.len()..] == checksum(len, &stream[LENGTH_BYTES..end]);
        Some(mark[..MARK.len()] == MARK && !is_whole)
    });
    found.unwrap_or(false)
}

/// The bytes that the length counts, whatever they are: for who knows that another tool hid something that
/// is no text. None when there is no length, or one that does not fit.
pub fn reveal_unmarked(pixels: &[u8], channels: Channels) -> Option<Vec<u8>> {
    let (len, mut stream) = candidate(pixels, channels)?;
    let end = LENGTH_BYTES + payload_len(len)?;
    (end > LENGTH_BYTES).then(|| cut(&mut stream, end))
}

/// The length, and the bytes from it on, those of a mark among them where there is room for one.
fn candidate(pixels: &[u8], channels: Channels) -> Option<([u8; LENGTH_BYTES], Vec<u8>)> {
    let cells = channels.cells(pixels.len());
    let mut len = [0; LENGTH_BYTES];
    if cells < LENGTH_BYTES {
        return None;
    }
    bits::read(pixels, channels, &mut len);
    let end = LENGTH_BYTES.checked_add(payload_len(len)?)?;
    if end > cells {
        return None;
    }
    let mut stream = vec![0; (end + MARK_BYTES).min(cells)];
    bits::read(pixels, channels, &mut stream);
    Some((len, stream))
}

fn payload_len(len: [u8; LENGTH_BYTES]) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(len)).ok()
}

fn cut(stream: &mut Vec<u8>, end: usize) -> Vec<u8> {
    stream.truncate(end);
    stream.split_off(LENGTH_BYTES)
}

fn checksum(len: [u8; LENGTH_BYTES], payload: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&len);
    hasher.update(payload);
    hasher.finalize().to_be_bytes()
}

/// Whether a person can have written it: UTF-8 without control characters, line ends and tabs excepted.
fn is_text(bytes: &[u8]) -> bool {
    let fits = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r');
    std::str::from_utf8(bytes).is_ok_and(|text| text.chars().all(fits))
}
