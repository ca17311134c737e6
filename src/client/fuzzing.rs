//! What must hold of any bytes in a picture that a user puts.
//!
//! For fuzzers and property tests only: no program is built with it. It opens no file.

use std::io::Cursor;

use super::files::{
    structure::{Broken, Checker, Format},
    thumbnail,
};
use crate::model::limits;

/// The check whether a picture is whole says the same in whatever pieces the bytes come.
pub fn pictures(bytes: &[u8]) -> bool {
    for with_file in [true, false] {
        let whole = check(bytes, usize::MAX, with_file);
        for step in [1, 7, 4096] {
            assert_eq!(check(bytes, step, with_file), whole, "in pieces of {step}");
        }
        if let Err(broken) = whole {
            assert_eq!(Format::of(bytes), Some(broken.format));
            assert!(broken.offset <= bytes.len() as u64 || broken.format == Format::Tiff, "{broken}");
        }
    }
    Format::of(bytes).is_some() && check(bytes, usize::MAX, true).is_ok()
}

fn check(bytes: &[u8], step: usize, with_file: bool) -> Result<(), Broken> {
    let mut checker = Checker::new();
    for piece in bytes.chunks(step.min(bytes.len().max(1))) {
        checker.push(piece);
    }
    let mut file = Cursor::new(bytes);
    checker.finish(if with_file { Some(&mut file) } else { None })
}

/// The small picture of a picture: within its size, or none.
pub fn small_pictures(bytes: &[u8]) -> bool {
    let Ok(small) = thumbnail::of_bytes(bytes) else { return false };
    assert!((1..=limits::THUMBNAIL_EDGE_PX).contains(&small.width));
    assert!((1..=limits::THUMBNAIL_EDGE_PX).contains(&small.height));
    assert!(small.bytes.len() <= limits::CHUNK_BYTES);
    true
}
