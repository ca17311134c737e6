//! The register: the one mutable cell of an object, a signed pointer to its newest manifest.
//!
//! Here is only its shape and its encoding. Signing and checking are `seal`'s; a [`VerifiedRegister`] is
//! made there alone, so that an acceptor cannot be handed an unsigned one.

use std::sync::Arc;

use serde_bytes::ByteBuf;
use serde_tuple::{Deserialize_tuple, Serialize_tuple};

use super::{
    codec::{self, CodecError},
    id::{BodyId, Digest, ObjectId, OwnerKey, RequestId},
    limits,
};

/// Set when the object is removed; the manifest id is then the hidden version's.
pub const FLAG_TOMBSTONE: u64 = 1;

/// A register value: one version of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct Register {
    /// The format; 1.
    pub format: u64,
    /// The object.
    pub object: ObjectId,
    /// 1 for the first, one more for each next.
    pub version: u64,
    /// BLAKE3 of the encoded previous value with its signature; zeros for version 1.
    pub previous: Digest,
    /// The manifest, or of a tombstone the hidden version's; none = purged.
    pub manifest: Option<BodyId>,
    /// Whose it is.
    pub owner: OwnerKey,
    /// Keyed hash of the name under the owner's name key.
    pub tag: Digest,
    /// Sealed by the owner: name, size, type, time, thumbnail.
    pub entry: ByteBuf,
    /// See [`FLAG_TOMBSTONE`]; unknown bits are refused.
    pub flags: u64,
    /// The token of the lock that guards the object; 0 = none so far.
    pub fence: u64,
    /// The last puts, newest last, at most 8.
    pub requests: Vec<RequestId>,
    /// Ed25519 over the context and every field above.
    pub signature: ByteBuf,
}

impl Register {
    /// Whether the object is removed.
    pub fn is_tombstone(&self) -> bool {
        self.flags & FLAG_TOMBSTONE != 0
    }

    /// Whether so many versions came after `version` that its request is no longer among those listed here:
    /// then this one does not tell whether that write was done.
    pub fn has_forgotten(&self, version: u64) -> bool {
        self.version >= version.saturating_add(limits::REGISTER_REQUESTS_MAX as u64)
    }

    /// The encoded form, which travels and is stored.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the encoded form and checks its bounds, not its signature.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let register: Self = codec::decode(bytes, limits::REGISTER_BYTES_MAX)?;
        codec::check_version(register.format, 1)?;
        let bad = |what: &str| Err(CodecError::Malformed(what.into()));
        if register.version == 0 || register.version > limits::VERSION_MAX {
            return bad("the version is out of range");
        }
        if register.manifest.is_none() && !register.is_tombstone() {
            return bad("no manifest, and no tombstone either");
        }
        if register.entry.len() > limits::ENTRY_BYTES_MAX {
            return bad("the sealed entry is too long");
        }
        if register.flags & !FLAG_TOMBSTONE != 0 {
            return bad("unknown flags");
        }
        if register.requests.len() > limits::REGISTER_REQUESTS_MAX {
            return bad("too many request ids");
        }
        if register.signature.len() != 64 {
            return bad("the signature is not 64 bytes");
        }
        if (register.version == 1) != (register.previous == Digest::ZERO) {
            return bad("version and previous hash do not fit");
        }
        Ok(register)
    }
}

/// A register as it came over the wire or from a disk: bytes that nobody has checked.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct RawRegister(#[serde(with = "serde_bytes")] pub Vec<u8>);

impl std::fmt::Debug for RawRegister {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RawRegister({} bytes)", self.0.len())
    }
}

/// A register whose object id and signature were checked, with the bytes that were signed.
///
/// Cheap to clone. Two are equal if their bytes are.
#[derive(Clone)]
pub struct VerifiedRegister {
    register: Arc<Register>,
    bytes: Arc<[u8]>,
}

impl VerifiedRegister {
    /// Vouches that `register` decodes from `bytes` and that its id and signature are right.
    /// Only `seal::register` calls this; `tests/it/layers.rs` keeps it so.
    pub fn vouch(register: Register, bytes: &[u8]) -> Self {
        Self { register: Arc::new(register), bytes: bytes.into() }
    }

    /// The encoded form, with the signature.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the next version names as its previous: BLAKE3 of the encoded form.
    pub fn hash(&self) -> Digest {
        Digest(*blake3::hash(&self.bytes).as_bytes())
    }

    /// The unchecked form, for the wire.
    pub fn to_raw(&self) -> RawRegister {
        RawRegister(self.bytes.to_vec())
    }
}

impl std::ops::Deref for VerifiedRegister {
    type Target = Register;
    fn deref(&self) -> &Register {
        &self.register
    }
}

impl PartialEq for VerifiedRegister {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for VerifiedRegister {}

impl std::hash::Hash for VerifiedRegister {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl std::fmt::Debug for VerifiedRegister {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} v{} {:?}", self.register.object, self.register.version, self.hash())
    }
}

impl serde::Serialize for VerifiedRegister {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}
