//! Hides bytes in pixels and finds them again: the least significant bits of red, green and blue.
//!
//! Bytes and pixels in, bytes and pixels out: it knows no picture format, no key and no user, and it never
//! changes a pixel's alpha. Samples are counted row by row, red before green before blue; eight of them are a
//! cell, which holds one byte, its most significant bit first.
//!
//! ```text
//! bits      (private) one cell, or all from the first on
//! order     (private) a permutation of cells that follows from a seed
//! plain     length, bytes, mark: what other tools read, too
//! scattered a header row by row, and bytes all over the other cells
//! ```

mod bits;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod order;
mod plain;
mod scattered;

pub use plain::{Plain, capacity, hide, is_broken, reveal, reveal_unmarked};
pub use scattered::{gather, head, scatter, scattered_capacity};

/// How the bytes of an interleaved picture are to be read, 8 bits a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// Red, green, blue.
    Rgb,
    /// Red, green, blue, alpha; nothing is hidden in alpha.
    Rgba,
}

impl Channels {
    /// Bytes of a pixel.
    pub fn bytes(self) -> usize {
        match self {
            Self::Rgb => 3,
            Self::Rgba => 4,
        }
    }

    /// Cells in so many bytes of pixels.
    fn cells(self, pixel_bytes: usize) -> usize {
        pixel_bytes / self.bytes() * 3 / 8
    }
}

/// There is more to hide than fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are to be hidden, and the picture has room for {capacity}")]
pub struct TooLong {
    /// What was to be hidden.
    pub bytes: u64,
    /// What fits.
    pub capacity: u64,
}

/// Whole cells in a picture of so many pixels.
fn cells_of(pixels: u64) -> u64 {
    pixels.saturating_mul(3) / 8
}

#[cfg(test)]
mod tests;
