//! Both layouts against a reference that is written from the description alone, one bit at a time.

use proptest::prelude::*;

use super::*;

/// A second way: the layout as another tool would write it.
mod again {
    /// Places of the samples of red, green and blue, row by row.
    fn samples(pixels: &[u8], channels: usize) -> impl Iterator<Item = usize> {
        (0..pixels.len() / channels * channels).filter(move |at| at % channels < 3)
    }

    pub fn write(pixels: &mut [u8], channels: usize, bytes: &[u8]) {
        let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
        for at in samples(pixels, channels).collect::<Vec<_>>() {
            let Some(bit) = bits.next() else { return };
            pixels[at] = if bit == 1 { pixels[at] | 1 } else { pixels[at] & 0xfe };
        }
        assert_eq!(bits.next(), None, "it does not fit");
    }

    pub fn read(pixels: &[u8], channels: usize) -> Vec<u8> {
        let bits: Vec<u8> = samples(pixels, channels).map(|at| pixels[at] & 1).collect();
        let bytes: Vec<u8> =
            bits.chunks_exact(8).map(|eight| eight.iter().fold(0, |byte, bit| byte << 1 | bit)).collect();
        let (len, rest) = bytes.split_first_chunk::<4>().expect("a length");
        rest[..u32::from_be_bytes(*len) as usize].to_vec()
    }
}

/// Pixels that look like nothing.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn both() -> impl Strategy<Value = Channels> {
    prop_oneof![Just(Channels::Rgb), Just(Channels::Rgba)]
}

proptest! {
    #[test]
    fn what_another_tool_hides_is_found_and_it_finds_ours(
        channels in both(),
        seed in any::<u64>(),
        text in "[a-zäöü 🐟\n]{1,60}",
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
        pixels in 700usize..900,
    ) {
        let plain = noise(seed, pixels * channels.bytes());
        let mut theirs = plain.clone();
        let wire = [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
        again::write(&mut theirs, channels.bytes(), &wire);
        let found = reveal(&theirs, channels).expect("a text is hidden there");
        prop_assert_eq!((found.payload.as_slice(), found.marked), (text.as_bytes(), false));

        let mut ours = plain.clone();
        hide(&mut ours, channels, &bytes).expect("it fits");
        prop_assert_eq!(again::read(&ours, channels.bytes()), bytes.clone());
        let found = reveal(&ours, channels).expect("bytes are hidden there");
        prop_assert_eq!((&found.payload, found.marked), (&bytes, true));
        for (at, (before, after)) in plain.iter().zip(&ours).enumerate() {
            let is_alpha = channels == Channels::Rgba && at % 4 == 3;
            prop_assert!(before == after || (!is_alpha && before ^ after == 1));
        }
    }

    #[test]
    fn what_is_scattered_is_gathered_by_its_seed_only(
        channels in both(),
        seed in any::<[u8; 32]>(),
        header in proptest::collection::vec(any::<u8>(), 0..50),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        spare in 0usize..40,
    ) {
        let cells = header.len() + bytes.len() + spare;
        let before = noise(1, (8 * cells).div_ceil(3) * channels.bytes());
        let mut pixels = before.clone();
        scatter(&mut pixels, channels, &header, &seed, &bytes).expect("it fits");
        prop_assert_eq!(head(&pixels, channels, header.len()), Some(header.clone()));
        let found = gather(&pixels, channels, header.len(), &seed, bytes.len());
        prop_assert_eq!(found.as_ref(), Some(&bytes));
        if bytes.len() > 20 {
            let other = gather(&pixels, channels, header.len(), &[!seed[0]; 32], bytes.len());
            prop_assert_ne!(other.as_ref(), Some(&bytes));
        }
        let alpha = |pixels: &[u8]| pixels.iter().skip(3).step_by(4).copied().collect::<Vec<_>>();
        prop_assert!(channels == Channels::Rgb || alpha(&pixels) == alpha(&before));
        prop_assert!(before.iter().zip(&pixels).all(|(before, after)| before | 1 == after | 1));
    }
}

#[test]
fn a_picture_is_filled_to_its_capacity_and_no_further() {
    for channels in [Channels::Rgb, Channels::Rgba] {
        for pixels in [0usize, 1, 10, 31, 32, 33, 34, 35, 36, 100, 101, 102, 103] {
            let before = noise(2, pixels * channels.bytes());
            let room = capacity(pixels as u64);
            assert_eq!(room, (pixels as u64 * 3 / 8).saturating_sub(12));
            let payload = noise(3, room as usize + 1);
            let mut filled = before.clone();
            let refused = hide(&mut filled, channels, &payload);
            assert_eq!(refused, Err(TooLong { bytes: room + 1, capacity: room }));
            assert!(filled == before, "nothing was changed");
            if pixels < 32 {
                assert!(hide(&mut filled, channels, b"").is_err(), "{pixels} pixels");
            } else {
                hide(&mut filled, channels, &payload[..room as usize]).expect("it fits");
                let found = reveal(&filled, channels).expect("it is there");
                assert_eq!(found.payload, payload[..room as usize]);
            }
        }
    }
}

#[test]
fn a_photograph_hides_nothing_whatever_length_its_pixels_spell() {
    let bytes = 3 * 40_000;
    for seed in 0..300 {
        let mut pixels = noise(seed, bytes);
        assert_eq!(reveal(&pixels, Channels::Rgb), None, "seed {seed}");
        // A length that fits, as one picture in some hundred has it.
        let len = 1 + seed as u32 * 49;
        again::write(&mut pixels, 3, &len.to_be_bytes());
        let found = reveal(&pixels, Channels::Rgb);
        // One byte alone is a letter more often than not that a random one is.
        assert!(found.is_none() || len < 5, "seed {seed}: {found:?}");
        assert_eq!(reveal_unmarked(&pixels, Channels::Rgb).map(|bytes| bytes.len()), Some(len as usize));
    }
    for byte in [0, 1, 254, 255] {
        assert_eq!(reveal(&vec![byte; bytes], Channels::Rgb), None);
        assert_eq!(reveal(&vec![byte; bytes], Channels::Rgba), None);
    }
}

#[test]
fn a_mark_that_does_not_fit_its_bytes_marks_nothing() {
    let mut pixels = noise(5, 3000);
    hide(&mut pixels, Channels::Rgb, b"\x00\x01\x02\xff").expect("it fits");
    assert!(reveal(&pixels, Channels::Rgb).is_some_and(|plain| plain.marked));
    // The lowest bit of the last hidden byte.
    pixels[8 * 8 - 1] ^= 1;
    assert_eq!(reveal(&pixels, Channels::Rgb), None);
}

#[test]
fn an_empty_payload_is_one_if_it_is_marked() {
    let mut pixels = noise(6, 3000);
    hide(&mut pixels, Channels::Rgb, b"").expect("it fits");
    assert_eq!(reveal(&pixels, Channels::Rgb), Some(Plain { payload: vec![], marked: true }));
    again::write(&mut pixels, 3, &[0, 0, 0, 0, 9]);
    assert_eq!(reveal(&pixels, Channels::Rgb), None);
    assert_eq!(reveal_unmarked(&pixels, Channels::Rgb), None);
}
