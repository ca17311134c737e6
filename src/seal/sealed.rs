//! The one authenticated encryption of sealed halves and entries: deterministic, bound to its surroundings.
//!
//! A synthetic IV (in the manner of Rogaway and Shrimpton, "Deterministic Authenticated-Encryption", 2006):
//! the salt is a keyed hash of everything, the keys follow from the salt, and a tag covers the ciphertext
//! and what it belongs to. It is checked, in constant time, before anything is decrypted. Variable parts
//! are preceded by their length, so each hash input can be cut in one way only.

use serde::{Serialize, de::DeserializeOwned};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    chunk::ChunkKey,
    keys::{Key, UserKeys, keyed_xof},
};
use crate::model::{
    id::{Digest, ObjectId},
    limits,
    object::Sealed,
};

/// Bytes of the length that precedes the sealed plaintext.
pub(super) const LENGTH_BYTES: usize = 4;

/// What a sealed part belongs to. Changing any of it makes the part unreadable.
pub(super) struct Binding<'a> {
    /// What kind of thing this is.
    pub context: &'static str,
    /// The object.
    pub object: &'a ObjectId,
    /// Its version.
    pub version: u64,
    /// The fields in clear beside the sealed part.
    pub public: &'a [u8],
}

/// The sealed part was not made by this user for this place, or was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SealedError {
    /// The tag is wrong: nothing was decrypted.
    Tag,
    /// It is authentic, and still not what this version of the program writes.
    Content,
}

struct PartKeys {
    cipher: ChunkKey,
    mac: Key,
}

/// Seals `secret`; `capacity_bytes` is a bound on its encoding, so that it is not copied about in memory.
pub(super) fn seal<T: Serialize>(
    keys: &UserKeys,
    binding: &Binding<'_>,
    secret: &T,
    capacity_bytes: usize,
) -> Sealed {
    let text = padded_plaintext(secret, capacity_bytes);
    debug_assert!(
        text.len() < capacity_bytes + LENGTH_BYTES + limits::SEALED_PAD_BYTES,
        "encoded over its bound"
    );
    seal_text(keys, binding, text)
}

/// Seals a padded plaintext.
pub(super) fn seal_text(keys: &UserKeys, binding: &Binding<'_>, mut text: Zeroizing<Vec<u8>>) -> Sealed {
    let public_len = length(binding.public);
    let salt = keyed_xof::<32>(
        keys.salt(),
        &[binding.object.as_bytes(), &binding.version.to_le_bytes(), &public_len, binding.public, &text],
    );
    let salt = Digest(*salt);
    let part = part_keys(keys, &salt);
    part.cipher.apply(&mut text);
    let tag = tag(&part.mac, binding, &salt, &text);
    Sealed::new(salt, std::mem::take(&mut *text), tag)
}

/// Checks and opens.
pub(super) fn open<T: Serialize + DeserializeOwned>(
    keys: &UserKeys,
    binding: &Binding<'_>,
    sealed: &Sealed,
) -> Result<T, SealedError> {
    read_plaintext(&open_text(keys, binding, sealed)?).ok_or(SealedError::Content)
}

/// Checks and decrypts: the padded plaintext.
pub(super) fn open_text(
    keys: &UserKeys,
    binding: &Binding<'_>,
    sealed: &Sealed,
) -> Result<Zeroizing<Vec<u8>>, SealedError> {
    let part = part_keys(keys, &sealed.salt);
    let expected = tag(&part.mac, binding, &sealed.salt, &sealed.ciphertext);
    if !bool::from(expected.as_bytes().ct_eq(sealed.tag.as_bytes())) {
        return Err(SealedError::Tag);
    }
    let mut text = Zeroizing::new(sealed.ciphertext.to_vec());
    part.cipher.apply(&mut text);
    Ok(text)
}

fn length(bytes: &[u8]) -> [u8; 8] {
    (bytes.len() as u64).to_le_bytes()
}

fn part_keys(keys: &UserKeys, salt: &Digest) -> PartKeys {
    let stream = keyed_xof::<64>(keys.manifest(), &[salt.as_bytes()]);
    let (cipher, mac) = stream.split_at(32);
    let mut out = PartKeys { cipher: ChunkKey::ZERO, mac: Zeroizing::new([0; 32]) };
    out.cipher.copy_from(cipher.try_into().expect("32 of 64 bytes"));
    out.mac.copy_from_slice(mac);
    out
}

fn tag(mac: &Key, binding: &Binding<'_>, salt: &Digest, ciphertext: &[u8]) -> Digest {
    let context = binding.context.as_bytes();
    Digest(*keyed_xof::<32>(
        mac,
        &[
            &length(context),
            context,
            binding.object.as_bytes(),
            &binding.version.to_le_bytes(),
            &length(binding.public),
            binding.public,
            salt.as_bytes(),
            ciphertext,
        ],
    ))
}

/// Length, encoding, zeros up to a multiple of 256 bytes.
fn padded_plaintext<T: Serialize>(secret: &T, capacity_bytes: usize) -> Zeroizing<Vec<u8>> {
    let room = LENGTH_BYTES + capacity_bytes + limits::SEALED_PAD_BYTES;
    let mut text = Vec::with_capacity(room);
    text.extend_from_slice(&[0; LENGTH_BYTES]);
    let mut text =
        Zeroizing::new(cbor4ii::serde::to_vec(text, secret).expect("plain data encodes into memory"));
    let len = u32::try_from(text.len() - LENGTH_BYTES).expect("a sealed part is under 1 MiB");
    text[..LENGTH_BYTES].copy_from_slice(&len.to_le_bytes());
    let padded = text.len().next_multiple_of(limits::SEALED_PAD_BYTES);
    text.resize(padded, 0);
    text
}

/// None unless it is exactly what [`padded_plaintext`] writes.
fn read_plaintext<T: Serialize + DeserializeOwned>(text: &[u8]) -> Option<T> {
    let (len, rest) = text.split_first_chunk::<LENGTH_BYTES>()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    let value: T = cbor4ii::serde::from_slice(rest.get(..len)?).ok()?;
    // One spelling only, as everywhere: the encoding of what was read is what was there.
    let again = padded_plaintext(&value, len);
    (again.as_slice() == text).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::keys::tests::user;
    use serde_bytes::ByteBuf;

    const OBJECT: ObjectId = ObjectId([3; 32]);
    const PLACE: Binding<'_> =
        Binding { context: "tintype 1 test", object: &OBJECT, version: 7, public: b"public" };

    fn sealed_bytes(len: usize) -> Sealed {
        seal(&user(1), &PLACE, &ByteBuf::from(vec![9; len]), len + 5)
    }

    #[test]
    fn the_ciphertext_tells_only_how_many_blocks_of_256_bytes_there_are() {
        // Four bytes of length and one to three of CBOR come on top.
        for (len, ciphertext) in [(1, 256), (250, 256), (251, 512), (505, 512), (506, 768)] {
            let sealed = sealed_bytes(len);
            assert_eq!(sealed.ciphertext.len(), ciphertext, "{len}");
            let back: Result<ByteBuf, _> = open(&user(1), &PLACE, &sealed);
            assert_eq!(back, Ok(ByteBuf::from(vec![9; len])));
        }
    }

    #[test]
    fn equal_contents_elsewhere_are_other_bytes() {
        let here = sealed_bytes(100);
        let text = ByteBuf::from(vec![9; 100]);
        for place in [
            Binding { version: 8, ..PLACE },
            Binding { object: &ObjectId([4; 32]), ..PLACE },
            Binding { public: b"publiC", ..PLACE },
            Binding { public: b"", ..PLACE },
        ] {
            let there = seal(&user(1), &place, &text, 105);
            assert!(there.salt != here.salt && there.ciphertext != here.ciphertext && there.tag != here.tag);
        }
        assert_eq!(seal(&user(1), &PLACE, &text, 105), here);
        assert_ne!(seal(&user(2), &PLACE, &text, 105).ciphertext, here.ciphertext);
    }

    #[test]
    fn nothing_opens_out_of_its_place() {
        let sealed = sealed_bytes(100);
        let refused = |keys: &UserKeys, place: &Binding<'_>, sealed: &Sealed| {
            open::<ByteBuf>(keys, place, sealed) == Err(SealedError::Tag)
        };
        assert!(!refused(&user(1), &PLACE, &sealed));
        assert!(refused(&user(2), &PLACE, &sealed));
        assert!(refused(&user(1), &Binding { context: "tintype 1 tesT", ..PLACE }, &sealed));
        assert!(refused(&user(1), &Binding { version: 8, ..PLACE }, &sealed));
        assert!(refused(&user(1), &Binding { object: &ObjectId([4; 32]), ..PLACE }, &sealed));
        assert!(refused(&user(1), &Binding { public: b"publi", ..PLACE }, &sealed));
        // A byte that moves from one field into its neighbour is noticed too.
        assert!(refused(&user(1), &Binding { context: "tintype 1 tes", ..PLACE }, &sealed));
        let tag = Digest([0; 32]);
        let cut = Sealed::new(sealed.salt, sealed.ciphertext[..0].to_vec(), sealed.tag);
        assert!(refused(&user(1), &PLACE, &cut));
        assert!(refused(&user(1), &PLACE, &Sealed::new(sealed.salt, sealed.ciphertext.to_vec(), tag)));
    }

    #[test]
    fn authentic_and_yet_of_another_form_is_told_apart() {
        let sealed = sealed_bytes(3);
        assert_eq!(open::<String>(&user(1), &PLACE, &sealed), Err(SealedError::Content));
        assert_eq!(open::<(u64, u64)>(&user(1), &PLACE, &sealed), Err(SealedError::Content));
        let mut text = padded_plaintext(&(1u64, 2u64), 16);
        assert_eq!(read_plaintext(&text), Some((1u64, 2u64)));
        for at in 7..text.len() {
            text[at] = 1;
            assert_eq!(read_plaintext::<(u64, u64)>(&text), None, "what follows must be zeros, byte {at}");
            text[at] = 0;
        }
        let longer = [text.as_slice(), &[0; 256]].concat();
        assert_eq!(read_plaintext::<(u64, u64)>(&longer), None);
        for len in [0, 2, 4, 252, 253, u32::MAX] {
            text[..4].copy_from_slice(&len.to_le_bytes());
            assert_eq!(read_plaintext::<(u64, u64)>(&text), None, "{len}");
        }
        assert_eq!(read_plaintext::<(u64, u64)>(&[]), None);
    }
}
