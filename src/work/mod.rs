//! Runs one task on one picture: hides in it, makes a small picture of it, or takes its metadata away.
//!
//! Bytes in, bytes out, on the caller's thread, within fixed memory. It knows no network, no file, no user
//! and no key; what it hides may be sealed already, and it cannot tell. Nothing here logs or keeps what it
//! was given.
//!
//! ```text
//! order     what is to be done
//! answer    what a worker gives back
//! envelope  order and picture as one string of bytes, for the way to a worker
//! decode    any picture that is read here as pixels, refused before it takes too much
//! hide      pixels, something in them, a PNG, and the proof that it can be read back
//! small     a small picture
//! strip     a picture without metadata, its pixels untouched
//! parts     (private) segments, chunks and blocks of the formats, from byte to byte
//! ```

pub mod answer;
pub mod decode;
pub mod envelope;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod hide;
mod order;
mod parts;
pub mod small;
mod strip;

pub use error::WorkError;
pub use order::{Frames, Layout, Order};

/// Runs an order. Blocks: a large picture takes a second.
///
/// # Errors
/// [`WorkError`], a sentence for the user.
pub fn run(order: &Order, picture: &[u8]) -> Result<Vec<u8>, WorkError> {
    match order {
        Order::Hide { layout, payload, frames } => {
            let mut pixels = hide::pixels(picture, *frames)?;
            hide::write(&mut pixels, layout, payload)?;
            let png = hide::encode(&pixels)?;
            // Two pictures in memory are enough.
            drop(pixels);
            hide::read_back(&png, layout, payload)?;
            Ok(png)
        }
        Order::Thumbnail { edge_px, frames } => small::thumbnail(picture, *edge_px, *frames),
        Order::Strip => strip::strip(picture),
    }
}

#[cfg(test)]
mod tests;
