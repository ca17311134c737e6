//! The least significant bits of cells: eight samples at a time, without looking at single bits.
//!
//! The first sample of a cell holds the most significant bit of its byte. Alpha is stepped over.

use super::Channels;

/// The least significant bit of each of eight bytes.
const LOWEST: u64 = 0x0101_0101_0101_0101;
/// Those of red, green and blue in two pixels with alpha, the first byte lowest.
const LOWEST_RGB: u64 = 0x0001_0101_0001_0101;
/// Multiplied with lowest bits, it brings the one of byte `i` to bit `63 - i`: no two products meet.
const GATHER: u64 = 0x8040_2010_0804_0201;
/// Bytes of eight pixels with alpha, and of what three cells hold.
const GROUP_PIXEL_BYTES: usize = 32;
const GROUP_CELLS: usize = 3;
/// Where the samples of a cell lie, from its first pixel on, when its first sample is red, green or blue.
const OFFSETS: [[usize; 8]; 3] = offsets();
/// For each byte its bits as the lowest of eight bytes, the most significant one in the first.
const SPREAD: [u64; 256] = spread();

const fn spread() -> [u64; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut place = 0;
        while place < 8 {
            table[byte] |= ((byte as u64 >> (7 - place)) & 1) << (8 * place);
            place += 1;
        }
        byte += 1;
    }
    table
}

const fn offsets() -> [[usize; 8]; 3] {
    let mut table = [[0; 8]; 3];
    let mut first = 0;
    while first < 3 {
        let mut place = 0;
        while place < 8 {
            table[first][place] = (first + place) / 3 * 4 + (first + place) % 3;
            place += 1;
        }
        first += 1;
    }
    table
}

fn gathered(word: u64) -> u8 {
    ((word & LOWEST).wrapping_mul(GATHER) >> 56) as u8
}

/// Writes one byte into one cell, which must be there.
pub(super) fn write_cell(pixels: &mut [u8], channels: Channels, cell: usize, byte: u8) {
    match channels {
        Channels::Rgb => {
            let eight: &mut [u8; 8] =
                (&mut pixels[8 * cell..8 * cell + 8]).try_into().expect("a slice of eight");
            *eight = (u64::from_le_bytes(*eight) & !LOWEST | SPREAD[usize::from(byte)]).to_le_bytes();
        }
        Channels::Rgba => {
            let (first, offsets) = place(cell);
            let pixels = &mut pixels[first..=first + offsets[7]];
            for (shift, offset) in (0..8).rev().zip(offsets) {
                pixels[offset] = pixels[offset] & !1 | byte >> shift & 1;
            }
        }
    }
}

/// The byte in one cell, which must be there.
pub(super) fn read_cell(pixels: &[u8], channels: Channels, cell: usize) -> u8 {
    match channels {
        Channels::Rgb => {
            let eight = pixels[8 * cell..8 * cell + 8].try_into().expect("a slice of eight");
            gathered(u64::from_le_bytes(eight))
        }
        Channels::Rgba => {
            let (first, offsets) = place(cell);
            let pixels = &pixels[first..=first + offsets[7]];
            offsets.iter().fold(0, |byte, offset| byte << 1 | pixels[*offset] & 1)
        }
    }
}

/// The first byte of a cell's first pixel with alpha, and where its samples lie from there.
fn place(cell: usize) -> (usize, [usize; 8]) {
    let sample = 8 * cell;
    (sample / 3 * 4, OFFSETS[sample % 3])
}

/// Writes bytes into the cells from the first on; they must fit.
pub(super) fn write(pixels: &mut [u8], channels: Channels, bytes: &[u8]) {
    match channels {
        Channels::Rgb => {
            for (cell, byte) in pixels.chunks_exact_mut(8).zip(bytes) {
                write_cell(cell, channels, 0, *byte);
            }
        }
        Channels::Rgba => {
            let groups = bytes.chunks_exact(GROUP_CELLS);
            let done = bytes.len() - groups.remainder().len();
            for (pixels, bytes) in pixels.chunks_exact_mut(GROUP_PIXEL_BYTES).zip(groups) {
                write_group(pixels, bytes);
            }
            for (cell, byte) in bytes.iter().enumerate().skip(done) {
                write_cell(pixels, channels, cell, *byte);
            }
        }
    }
}

/// Three bytes into eight pixels with alpha: six bits into each pair of them.
fn write_group(pixels: &mut [u8], bytes: &[u8]) {
    let all = bytes.iter().fold(0, |all, byte| all << 8 | usize::from(*byte));
    for (pair, shift) in pixels.chunks_exact_mut(8).zip([18, 12, 6, 0]) {
        let six = all >> shift & 0x3f;
        // Three bits, a gap for alpha, three bits, a gap.
        let spread = SPREAD[(six & 0x38) << 2 | (six & 7) << 1];
        let word = u64::from_le_bytes((&*pair).try_into().expect("a slice of eight"));
        pair.copy_from_slice(&(word & !LOWEST_RGB | spread).to_le_bytes());
    }
}

/// Reads as many bytes as `into` has from the cells from the first on; they must be there.
pub(super) fn read(pixels: &[u8], channels: Channels, into: &mut [u8]) {
    match channels {
        Channels::Rgb => {
            for (byte, cell) in into.iter_mut().zip(pixels.chunks_exact(8)) {
                *byte = read_cell(cell, channels, 0);
            }
        }
        Channels::Rgba => {
            let mut groups = into.chunks_exact_mut(GROUP_CELLS);
            let mut done = 0;
            for (bytes, pixels) in groups.by_ref().zip(pixels.chunks_exact(GROUP_PIXEL_BYTES)) {
                read_group(pixels, bytes);
                done += GROUP_CELLS;
            }
            for (cell, byte) in (done..).zip(groups.into_remainder()) {
                *byte = read_cell(pixels, channels, cell);
            }
        }
    }
}

fn read_group(pixels: &[u8], bytes: &mut [u8]) {
    let six = |pair: &[u8]| {
        let word = u64::from_le_bytes(pair.try_into().expect("a slice of eight"));
        let gapped = u32::from(gathered(word & LOWEST_RGB));
        gapped >> 5 << 3 | gapped >> 1 & 7
    };
    let all = pixels.chunks_exact(8).fold(0, |all, pair| all << 6 | six(pair));
    bytes.copy_from_slice(&all.to_be_bytes()[1..]);
}
