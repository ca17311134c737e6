//! What must hold of any pixels in which something may be hidden.
//!
//! For fuzzers and property tests only: no program is built with it.

use super::{Channels, bits, capacity, gather, head, hide, reveal, reveal_unmarked, scatter};

const HEADER_BYTES: usize = 20;

/// The bytes as pixels. What is found in them is found again after it was hidden anew, and nothing but lowest
/// bits of colours changes.
pub fn pixels(bytes: &[u8]) -> bool {
    let found = [Channels::Rgb, Channels::Rgba].map(|channels| one_way(bytes, channels));
    found.contains(&true)
}

fn one_way(bytes: &[u8], channels: Channels) -> bool {
    let cells = channels.cells(bytes.len());
    let mut every = vec![0; cells];
    bits::read(bytes, channels, &mut every);
    assert!((0..cells).all(|cell| bits::read_cell(bytes, channels, cell) == every[cell]));
    let found = reveal(bytes, channels);
    if let Some(plain) = &found {
        assert_eq!(reveal_unmarked(bytes, channels).unwrap_or_default(), plain.payload);
        let mut again = bytes.to_vec();
        if hide(&mut again, channels, &plain.payload).is_ok() {
            assert!(again == bytes || !plain.marked, "hidden anew it is something else");
            let again = reveal(&again, channels).expect("it was hidden just now");
            assert!(again.marked && again.payload == plain.payload);
        }
    }
    let room = capacity((bytes.len() / channels.bytes()) as u64);
    let payload = &every[..every.len().min(room as usize)];
    let mut pixels = bytes.to_vec();
    if hide(&mut pixels, channels, payload).is_ok() {
        assert_eq!(reveal(&pixels, channels).expect("it was hidden just now").payload, payload);
        hold_unchanged(bytes, &pixels, channels);
    }
    hold_scattered(bytes, channels, &every);
    found.is_some()
}

fn hold_scattered(bytes: &[u8], channels: Channels, every: &[u8]) {
    let (seed, header) = ([7; 32], [0xa5; HEADER_BYTES]);
    let Some(room) = every.len().checked_sub(HEADER_BYTES) else { return };
    let mut pixels = bytes.to_vec();
    scatter(&mut pixels, channels, &header, &seed, &every[..room]).expect("it fits");
    assert_eq!(head(&pixels, channels, HEADER_BYTES).as_deref(), Some(&header[..]));
    assert_eq!(gather(&pixels, channels, HEADER_BYTES, &seed, room).as_deref(), Some(&every[..room]));
    assert_eq!(gather(&pixels, channels, HEADER_BYTES, &seed, room + 1), None);
    hold_unchanged(bytes, &pixels, channels);
}

fn hold_unchanged(before: &[u8], after: &[u8], channels: Channels) {
    for (at, (before, after)) in before.iter().zip(after).enumerate() {
        let is_alpha = channels == Channels::Rgba && at % 4 == 3;
        let same = if is_alpha { before == after } else { before | 1 == after | 1 };
        assert!(same, "byte {at}: {before} has become {after}");
    }
}
