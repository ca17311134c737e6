//! What is hidden in a picture for its owner alone: encrypted, authenticated, and in an order of its own.
//!
//! A header that anybody can tell from chance and nobody but the owner can read, and sealed bytes. Both go to
//! whoever writes them into pixels, with the order's seed: that is for this picture alone, and tells nothing
//! about the user's keys. Where they lie in the picture is not decided here.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::{
    chunk::ChunkKey,
    keys::{Key, UserKeys, keyed_xof},
};

/// Begins the header. Its first byte makes the length that other tools read there larger than any picture;
/// its last one is the version.
const MAGIC: [u8; 8] = *b"\xfftintyp\x01";
const SALT_BYTES: usize = 16;
const LENGTH_BYTES: usize = 4;
const CHECK_BYTES: usize = 16;
/// Ends the sealed bytes.
const TAG_BYTES: usize = 32;

/// Magic, salt, encrypted length, check.
pub const HEADER_BYTES: usize = MAGIC.len() + SALT_BYTES + LENGTH_BYTES + CHECK_BYTES;
/// Bytes that sealing adds, header and tag.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;
/// How much a header tells whoever has no key: whether it is one.
pub const MAGIC_BYTES: usize = MAGIC.len();

/// Says what is hashed, in front of it.
const CHECK_INPUT: &[u8] = b"check";
const TAG_INPUT: &[u8] = b"bytes";

/// Where the bytes lie in one picture. Wiped on drop, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct OrderSeed(Key);

impl OrderSeed {
    /// The seed itself, for whoever writes into the picture.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for OrderSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OrderSeed(hidden)")
    }
}

/// A payload that was sealed for one picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedPayload {
    /// Stands in the picture row by row.
    pub header: [u8; HEADER_BYTES],
    /// Where the sealed bytes go.
    pub seed: OrderSeed,
    /// Ciphertext and tag.
    pub sealed: Vec<u8>,
}

/// Why nothing was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HiddenError {
    /// It is no header of this version.
    #[error("nothing sealed begins here")]
    NoHeader,
    /// It is a header, and this user did not make it, or it was changed.
    #[error("it was sealed with another user's key, or its beginning was changed")]
    OtherKey,
    /// The header is this user's, the bytes are not what was sealed.
    #[error("what was sealed has been changed")]
    Damaged,
}

struct PictureKeys {
    cipher: ChunkKey,
    mac: Key,
    seed: Key,
    length: [u8; LENGTH_BYTES],
}

/// A header that was opened: it says how many bytes to collect, and in which order.
pub struct Opening {
    keys: PictureKeys,
    header: [u8; HEADER_BYTES],
    payload_bytes: usize,
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opening({} bytes, hidden)", self.payload_bytes)
    }
}

/// Whether a picture that begins so has something sealed in it, for whomever. [`MAGIC_BYTES`] are enough.
pub fn is_sealed(head: &[u8]) -> bool {
    head.starts_with(&MAGIC)
}

/// Seals `payload` for one picture. `salt` must be random, and is used once.
///
/// # Panics
/// If the payload has 4 GiB or more; no picture holds that.
pub fn seal(keys: &UserKeys, salt: [u8; SALT_BYTES], payload: &[u8]) -> SealedPayload {
    let keys = picture_keys(keys, &salt);
    let len = u32::try_from(payload.len()).expect("a picture holds less than 4 GiB");
    let mut header = [0; HEADER_BYTES];
    let (front, check) = header.split_at_mut(HEADER_BYTES - CHECK_BYTES);
    let len = masked(len.to_be_bytes(), keys.length);
    front.copy_from_slice(&[&MAGIC[..], &salt, &len].concat());
    check.copy_from_slice(&*header_check(&keys.mac, front));
    let mut sealed = Vec::with_capacity(payload.len() + TAG_BYTES);
    sealed.extend_from_slice(payload);
    keys.cipher.apply(&mut sealed);
    let tag = tag(&keys.mac, &header, &sealed);
    sealed.extend_from_slice(&*tag);
    SealedPayload { header, seed: OrderSeed(keys.seed.clone()), sealed }
}

/// Opens a header: is it this user's?
///
/// # Errors
/// [`HiddenError::NoHeader`], [`HiddenError::OtherKey`].
pub fn open_header(keys: &UserKeys, header: &[u8]) -> Result<Opening, HiddenError> {
    let header: [u8; HEADER_BYTES] = header.try_into().map_err(|_| HiddenError::NoHeader)?;
    if !is_sealed(&header) {
        return Err(HiddenError::NoHeader);
    }
    let (front, check) = header.split_at(HEADER_BYTES - CHECK_BYTES);
    let (salt, len) = front[MAGIC.len()..].split_at(SALT_BYTES);
    let keys = picture_keys(keys, salt.try_into().expect("the salt's bytes"));
    if !bool::from(header_check(&keys.mac, front).as_slice().ct_eq(check)) {
        return Err(HiddenError::OtherKey);
    }
    let len = masked(len.try_into().expect("the length's bytes"), keys.length);
    let payload_bytes = usize::try_from(u32::from_be_bytes(len)).map_err(|_| HiddenError::Damaged)?;
    Ok(Opening { keys, header, payload_bytes })
}

impl Opening {
    /// Where the sealed bytes lie.
    pub fn seed(&self) -> &[u8; 32] {
        &self.keys.seed
    }

    /// How many sealed bytes to collect, or none if no memory has so many.
    pub fn sealed_bytes(&self) -> Option<usize> {
        self.payload_bytes.checked_add(TAG_BYTES)
    }

    /// Checks and decrypts the sealed bytes.
    ///
    /// # Errors
    /// [`HiddenError::Damaged`]; nothing was decrypted.
    pub fn open(self, mut sealed: Vec<u8>) -> Result<Vec<u8>, HiddenError> {
        if Some(sealed.len()) != self.sealed_bytes() {
            return Err(HiddenError::Damaged);
        }
        let found = sealed.split_off(self.payload_bytes);
        let expected = tag(&self.keys.mac, &self.header, &sealed);
        if !bool::from(expected.as_slice().ct_eq(&found)) {
            return Err(HiddenError::Damaged);
        }
        self.keys.cipher.apply(&mut sealed);
        Ok(sealed)
    }
}

fn picture_keys(keys: &UserKeys, salt: &[u8; SALT_BYTES]) -> PictureKeys {
    const STREAM_BYTES: usize = 32 * 3 + LENGTH_BYTES;
    let stream = keyed_xof::<STREAM_BYTES>(keys.hidden(), &[salt]);
    let part = |at: usize| -> &[u8; 32] { stream[at..at + 32].try_into().expect("32 bytes") };
    let mut cipher = ChunkKey::ZERO;
    cipher.copy_from(part(0));
    let length = stream[96..].try_into().expect("the length's bytes");
    PictureKeys { cipher, mac: Zeroizing::new(*part(32)), seed: Zeroizing::new(*part(64)), length }
}

impl Drop for PictureKeys {
    fn drop(&mut self) {
        // The others wipe themselves.
        self.length.zeroize();
    }
}

fn masked(len: [u8; LENGTH_BYTES], mask: [u8; LENGTH_BYTES]) -> [u8; LENGTH_BYTES] {
    std::array::from_fn(|i| len[i] ^ mask[i])
}

/// The two inputs of the MAC key begin differently, so neither can be taken for the other.
fn header_check(mac: &Key, front: &[u8]) -> Zeroizing<[u8; CHECK_BYTES]> {
    keyed_xof(mac, &[CHECK_INPUT, front])
}

fn tag(mac: &Key, header: &[u8; HEADER_BYTES], ciphertext: &[u8]) -> Zeroizing<[u8; TAG_BYTES]> {
    keyed_xof(mac, &[TAG_INPUT, header, ciphertext])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::seal::keys::tests::user;

    fn opened(keys: &UserKeys, sealed: &SealedPayload) -> Result<Vec<u8>, HiddenError> {
        open_header(keys, &sealed.header)?.open(sealed.sealed.clone())
    }

    proptest! {
        #[test]
        fn only_its_owner_opens_it(
            salt in any::<[u8; 16]>(),
            payload in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let sealed = seal(&user(1), salt, &payload);
            prop_assert!(is_sealed(&sealed.header));
            prop_assert_eq!(sealed.header.len() + sealed.sealed.len(), payload.len() + OVERHEAD_BYTES);
            let opening = open_header(&user(1), &sealed.header).expect("its owner");
            prop_assert_eq!(opening.seed(), sealed.seed.as_bytes());
            prop_assert_eq!(opening.sealed_bytes(), Some(sealed.sealed.len()));
            prop_assert_eq!(opened(&user(1), &sealed), Ok(payload));
            prop_assert_eq!(opened(&user(2), &sealed), Err(HiddenError::OtherKey));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let sealed = seal(&user(1), [3; 16], b"a text");
        for bit in 0..8 * HEADER_BYTES {
            let mut changed = sealed.clone();
            changed.header[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < 8 * MAGIC_BYTES { HiddenError::NoHeader } else { HiddenError::OtherKey };
            assert_eq!(opened(&user(1), &changed), Err(expected), "header bit {bit}");
        }
        for bit in 0..8 * sealed.sealed.len() {
            let mut changed = sealed.clone();
            changed.sealed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opened(&user(1), &changed), Err(HiddenError::Damaged), "bit {bit}");
        }
        let mut shorter = sealed.clone();
        shorter.sealed.pop();
        assert_eq!(opened(&user(1), &shorter), Err(HiddenError::Damaged));
        assert_eq!(open_header(&user(1), &sealed.header[1..]).map(|_| ()), Err(HiddenError::NoHeader));
    }

    /// Without the key neither length nor order nor text is there to be read; each picture has its own.
    #[test]
    fn two_pictures_of_one_text_have_nothing_but_the_magic_in_common() {
        let (one, other) = (seal(&user(1), [1; 16], &[0; 100]), seal(&user(1), [2; 16], &[0; 100]));
        assert_ne!(one.seed, other.seed);
        assert_ne!(one.sealed, other.sealed);
        let len = |sealed: &SealedPayload| sealed.header[24..28].to_vec();
        assert_ne!(len(&one), len(&other));
        assert_ne!(len(&one), [0, 0, 0, 100]);
        assert_ne!(len(&other), [0, 0, 0, 100]);
        assert_eq!(format!("{:?}", one.seed), "OrderSeed(hidden)");
    }

    /// Other tools that read a length here find one that fits no picture.
    #[test]
    fn for_other_tools_the_magic_is_no_length() {
        let len = u32::from_be_bytes([MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3]]);
        assert!(len > 4_000_000_000);
    }
}
