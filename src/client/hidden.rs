//! What a client does about hidden bytes itself: whether they fit, sealing them, finding and opening them.
//!
//! Bytes in, bytes out; it opens no file and asks no node. A user's key never leaves here: what is handed on
//! is an order with sealed bytes and a seed that is for one picture alone.

use zeroize::Zeroizing;

use crate::{
    seal::{
        hidden::{self, HiddenError},
        keys::UserKeys,
    },
    stego,
    work::{
        Frames, Layout, Order, WorkError,
        decode::{self, Size},
        hide::{self, Pixels},
    },
};

/// What a picture has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Its size, as its file has it.
    pub size: Size,
    /// Bytes that can be hidden plainly.
    pub plain_bytes: u64,
    /// Bytes that can be hidden sealed.
    pub sealed_bytes: u64,
}

/// What is hidden in a picture.
pub enum Found {
    /// Nothing that anybody could tell from chance.
    Nothing,
    /// Bytes that anybody can read.
    Plain {
        /// They.
        payload: Vec<u8>,
        /// Whether this program hid them; if not, it is a text that another tool hid.
        marked: bool,
    },
    /// Bytes that this program hid plainly, and that have been changed since.
    Broken,
    /// Bytes for one user alone.
    Sealed,
}

/// Why sealed bytes were not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// For another user, or changed.
    #[error(
        "something is sealed in this picture, but not for this user's key (or its beginning was changed)"
    )]
    OtherKey,
    /// This user's, and not what it was.
    #[error("something is sealed in this picture for this user, but it has been changed")]
    Damaged,
}

/// What a picture has room for, from its header.
///
/// # Errors
/// [`WorkError`], as hiding in it would say.
pub fn room(picture: &[u8], frames: Frames) -> Result<Room, WorkError> {
    let size = decode::size(picture, frames)?;
    let scattered = stego::scattered_capacity(size.pixels(), hidden::HEADER_BYTES);
    let tag_bytes = (hidden::OVERHEAD_BYTES - hidden::HEADER_BYTES) as u64;
    Ok(Room {
        size,
        plain_bytes: stego::capacity(size.pixels()),
        sealed_bytes: scattered.saturating_sub(tag_bytes),
    })
}

/// The order to hide `payload`, sealed first if there are keys.
pub fn order(payload: &[u8], keys: Option<&UserKeys>, frames: Frames) -> Order {
    let Some(keys) = keys else {
        return Order::Hide { layout: Layout::Plain, payload: Zeroizing::new(payload.to_vec()), frames };
    };
    let sealed = hidden::seal(keys, rand::random(), payload);
    let seed = Zeroizing::new(*sealed.seed.as_bytes());
    let layout = Layout::Scattered { seed, header: sealed.header.to_vec() };
    Order::Hide { layout, payload: Zeroizing::new(sealed.sealed), frames }
}

/// The pixels in which something may be hidden.
///
/// # Errors
/// [`WorkError`].
pub fn pixels(picture: &[u8], frames: Frames) -> Result<Pixels, WorkError> {
    hide::pixels_as_stored(picture, frames)
}

/// Looks for something hidden.
pub fn find(pixels: &Pixels) -> Found {
    let (samples, channels) = (&pixels.samples, pixels.channels);
    let head = stego::head(samples, channels, hidden::MAGIC_BYTES);
    if head.is_some_and(|head| hidden::is_sealed(&head)) {
        return Found::Sealed;
    }
    match stego::reveal(samples, channels) {
        Some(plain) if !plain.marked && stego::is_broken(samples, channels) => Found::Broken,
        None if stego::is_broken(samples, channels) => Found::Broken,
        Some(plain) => Found::Plain { payload: plain.payload, marked: plain.marked },
        None => Found::Nothing,
    }
}

/// As many bytes as a length at the beginning counts, whatever they are; none if it counts none or too many.
pub fn unmarked(pixels: &Pixels) -> Option<Vec<u8>> {
    stego::reveal_unmarked(&pixels.samples, pixels.channels)
}

/// Opens what is sealed.
///
/// # Errors
/// [`NotOpened`].
pub fn open(pixels: &Pixels, keys: &UserKeys) -> Result<Vec<u8>, NotOpened> {
    let (samples, channels) = (&pixels.samples, pixels.channels);
    let header = stego::head(samples, channels, hidden::HEADER_BYTES).ok_or(NotOpened::Damaged)?;
    let opening = hidden::open_header(keys, &header).map_err(|error| match error {
        HiddenError::NoHeader | HiddenError::OtherKey => NotOpened::OtherKey,
        HiddenError::Damaged => NotOpened::Damaged,
    })?;
    let sealed = opening
        .sealed_bytes()
        .and_then(|len| stego::gather(samples, channels, header.len(), opening.seed(), len))
        .ok_or(NotOpened::Damaged)?;
    opening.open(sealed).map_err(|_| NotOpened::Damaged)
}

/// Whether a picture that came back holds what was to be hidden, read as its owner will read it.
///
/// # Errors
/// [`WorkError::ReadBack`] if not, and what keeps it from being read.
pub fn hold(picture: &[u8], keys: Option<&UserKeys>, payload: &[u8]) -> Result<(), WorkError> {
    let pixels = pixels(picture, Frames::Single)?;
    let found = match (find(&pixels), keys) {
        (Found::Plain { payload, marked: true }, None) => Some(payload),
        (Found::Sealed, Some(keys)) => open(&pixels, keys).ok(),
        _ => None,
    };
    if found.as_deref() == Some(payload) { Ok(()) } else { Err(WorkError::ReadBack) }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageFormat};

    use super::*;
    use crate::{seal::keys::UserSecret, work};

    fn user(byte: u8) -> UserKeys {
        UserKeys::derive(&UserSecret::from_random(Zeroizing::new([byte; 32])))
    }

    fn picture(edge: u32) -> Vec<u8> {
        let pixel = |x: u32, y: u32| image::Rgb([(x * y) as u8, (x ^ y) as u8, (x + 3 * y) as u8]);
        let image = DynamicImage::ImageRgb8(image::RgbImage::from_fn(edge, edge, pixel));
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).expect("encodes");
        bytes.into_inner()
    }

    #[test]
    fn what_is_said_to_fit_fits_and_one_byte_more_does_not() {
        let picture = picture(60);
        let room = room(&picture, Frames::Single).expect("a picture");
        assert_eq!((room.plain_bytes, room.sealed_bytes), (1350 - 12, 1350 - 76));
        for (keys, bytes) in [(None, room.plain_bytes), (Some(user(1)), room.sealed_bytes)] {
            let payload = vec![0xa5; bytes as usize + 1];
            let fitting = &payload[1..];
            let png = work::run(&order(fitting, keys.as_ref(), Frames::Single), &picture).expect("it fits");
            hold(&png, keys.as_ref(), fitting).expect("it is there");
            let refused = work::run(&order(&payload, keys.as_ref(), Frames::Single), &picture);
            assert!(matches!(refused, Err(WorkError::TooLong(_))));
        }
    }

    #[test]
    fn what_was_changed_since_is_neither_read_nor_called_nothing() {
        let png = work::run(&order(b"hello", None, Frames::Single), &picture(40)).expect("it fits");
        let mut found = pixels(&png, Frames::Single).expect("a PNG");
        assert!(matches!(find(&found), Found::Plain { marked: true, .. }));
        found.samples[40] ^= 1;
        assert!(matches!(find(&found), Found::Broken));
    }

    #[test]
    fn what_is_sealed_is_its_owners_alone() {
        let (alice, bob) = (user(1), user(2));
        let png = work::run(&order(b"for me", Some(&alice), Frames::Single), &picture(40)).expect("it fits");
        let found = pixels(&png, Frames::Single).expect("a PNG");
        assert!(matches!(find(&found), Found::Sealed));
        assert_eq!(open(&found, &alice).as_deref(), Ok(&b"for me"[..]));
        assert_eq!(open(&found, &bob), Err(NotOpened::OtherKey));
        assert_eq!(hold(&png, Some(&bob), b"for me"), Err(WorkError::ReadBack));
        assert_eq!(hold(&png, None, b"for me"), Err(WorkError::ReadBack));
        // What a worker is given tells it none of the text.
        let Order::Hide { payload, .. } = order(b"for me", Some(&alice), Frames::Single) else { panic!() };
        assert!(memchr::memmem::find(&payload, b"for me").is_none());
    }

    #[test]
    fn a_changed_picture_is_said_to_be_changed() {
        let alice = user(1);
        let picture = picture(40);
        let room = room(&picture, Frames::Single).expect("a picture").sealed_bytes;
        let text = vec![7; room as usize];
        let png = work::run(&order(&text, Some(&alice), Frames::Single), &picture).expect("it fits");
        let mut found = pixels(&png, Frames::Single).expect("a PNG");
        let end = found.samples.len() - 1;
        found.samples[end] ^= 1;
        assert_eq!(open(&found, &alice), Err(NotOpened::Damaged));
    }

    #[test]
    fn a_picture_that_came_back_without_its_text_is_not_taken() {
        let picture = picture(40);
        assert_eq!(hold(&picture, None, b"x"), Err(WorkError::ReadBack));
        let png = work::run(&order(b"x", None, Frames::Single), &picture).expect("it fits");
        assert_eq!(hold(&png, None, b"y"), Err(WorkError::ReadBack));
        hold(&png, None, b"x").expect("it is there");
    }
}
