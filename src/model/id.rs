//! Identifiers: fixed-size byte strings, each a type of its own so that none is taken for another.
//!
//! They encode as CBOR byte strings and print as lower-case hexadecimal. How an id is *made* is the
//! business of `seal`.

use std::fmt;

pub use libp2p_identity::PeerId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Bytes in this id.
            pub const LEN: usize = $len;

            /// All zeros.
            pub const ZERO: Self = Self([0; $len]);

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Reads the hexadecimal form that `Display` prints.
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0u8; $len];
                if text.len() != 2 * $len || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return None;
                }
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
                }
                Some(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "("))?;
                self.0.iter().take(6).try_for_each(|b| write!(f, "{b:02x}"))?;
                f.write_str("…)")
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let bytes = <&serde_bytes::Bytes>::deserialize(deserializer)?;
                <[u8; $len]>::try_from(bytes.as_ref()).map(Self).map_err(|_| {
                    de::Error::invalid_length(bytes.len(), &concat!($len, " bytes"))
                })
            }
        }
    };
}

byte_id! {
    /// A BLAKE3 hash that is not one of the ids below.
    Digest, 32
}
byte_id! {
    /// An object's name for the nodes: derived from its owner's key and a keyed hash of its name.
    ObjectId, 32
}
byte_id! {
    /// The BLAKE3 hash of a stored body: a chunk's ciphertext or an encoded manifest.
    BodyId, 32
}
byte_id! {
    /// A user's Ed25519 public key, which signs that user's registers.
    OwnerKey, 32
}
byte_id! {
    /// One put, kept through its retries and conflicts, so that a retry is known for one.
    RequestId, 16
}
byte_id! {
    /// One start of a process; random.
    ProcessId, 16
}
byte_id! {
    /// Made at random with `data/`: the same key on an emptied disk is another incarnation.
    Incarnation, 16
}
byte_id! {
    /// One founding of a cluster; random, never reused.
    FoundingId, 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::codec::{decode, encode};

    #[test]
    fn ids_are_byte_strings_of_exactly_their_length() {
        let id = RequestId([7; 16]);
        let bytes = encode(&id);
        assert_eq!(bytes[0], 0x50);
        assert_eq!(decode::<RequestId>(&bytes, 64), Ok(id));
        assert!(decode::<ObjectId>(&bytes, 64).is_err());
        assert_eq!(RequestId::from_hex(&id.to_string()), Some(id));
        assert_eq!(RequestId::from_hex("zz"), None);
    }
}
