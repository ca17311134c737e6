//! The scattered layout: a header row by row from the first sample on, and bytes all over the other cells.
//!
//! What header and bytes mean is their maker's affair. Where each byte lies follows from a seed, which is of
//! use for that picture only.

use super::{Channels, TooLong, bits, cells_of, order::Order};

/// Bytes that a picture of so many pixels has room for beside a header.
pub fn scattered_capacity(pixels: u64, header_bytes: usize) -> u64 {
    cells_of(pixels).saturating_sub(header_bytes as u64)
}

/// Writes the header and scatters the bytes.
///
/// # Errors
/// [`TooLong`]; then nothing was changed.
pub fn scatter(
    pixels: &mut [u8],
    channels: Channels,
    header: &[u8],
    seed: &[u8; 32],
    bytes: &[u8],
) -> Result<(), TooLong> {
    let cells = channels.cells(pixels.len());
    let capacity = scattered_capacity((pixels.len() / channels.bytes()) as u64, header.len());
    let bytes_len = bytes.len() as u64;
    if header.len() > cells || bytes_len > capacity {
        return Err(TooLong { bytes: bytes_len, capacity });
    }
    bits::write(pixels, channels, header);
    let order = Order::new(seed, capacity);
    order.each(bytes.len(), |at| {
        bits::write_cell(pixels, channels, header.len() + at.place, bytes[at.number]);
    });
    Ok(())
}

/// So many bytes from the first cells: the header, if there is one. None if the picture is too small.
pub fn head(pixels: &[u8], channels: Channels, len: usize) -> Option<Vec<u8>> {
    let mut head = vec![0; len];
    (len <= channels.cells(pixels.len())).then(|| bits::read(pixels, channels, &mut head))?;
    Some(head)
}

/// Collects `len` scattered bytes; none if the picture has not so many cells beside the header.
pub fn gather(
    pixels: &[u8],
    channels: Channels,
    header_bytes: usize,
    seed: &[u8; 32],
    len: usize,
) -> Option<Vec<u8>> {
    let cells = channels.cells(pixels.len()).checked_sub(header_bytes)?;
    if len > cells {
        return None;
    }
    let order = Order::new(seed, cells as u64);
    let mut bytes = vec![0; len];
    order.each(len, |at| bytes[at.number] = bits::read_cell(pixels, channels, header_bytes + at.place));
    Some(bytes)
}
