//! Who a user is: one random secret, and the keys that follow from it.
//!
//! Everything follows by BLAKE3 `derive_key` (BLAKE3 paper, section 6.2), one context for each use, so no
//! key tells anything about another. Nothing is ever derived from a passphrase or a name alone.

use std::fmt;

use libp2p_identity::ed25519;
use zeroize::{Zeroize, Zeroizing};

use crate::model::{
    id::{Digest, ObjectId, OwnerKey},
    object::ObjectName,
};

const NAME_CONTEXT: &str = "tintype 1 name";
const CHUNK_CONTEXT: &str = "tintype 1 chunk";
const SALT_CONTEXT: &str = "tintype 1 salt";
const MANIFEST_CONTEXT: &str = "tintype 1 manifest";
const HIDDEN_CONTEXT: &str = "tintype 1 hidden";
const SIGN_CONTEXT: &str = "tintype 1 sign";
const OBJECT_CONTEXT: &str = "tintype 1 object";

/// A key of 32 bytes that is wiped when it is dropped.
pub(super) type Key = Zeroizing<[u8; 32]>;

/// A user's secret: 32 random bytes from which everything else of that user follows.
///
/// Wiped on drop; never printed.
#[derive(Clone)]
pub struct UserSecret(Key);

impl UserSecret {
    /// A user made of these bytes, which must be random and come from nowhere else.
    pub fn from_random(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// The bytes themselves, for whoever writes them down.
    pub(super) fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for UserSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserSecret(hidden)")
    }
}

/// The keys of one user. Share them by `Arc`; they are wiped on drop and never printed.
pub struct UserKeys {
    name: Key,
    chunk: Key,
    salt: Key,
    manifest: Key,
    hidden: Key,
    // Wiped on drop by ed25519-dalek, whose `zeroize` feature is among its defaults. libp2p-identity passes
    // the seed through a type that is not wiped, so a copy may stay on the stack for a while.
    signing: ed25519::Keypair,
    owner: OwnerKey,
}

/// Where an object of a user lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectAddress {
    /// What nodes call it.
    pub object: ObjectId,
    /// The keyed hash of its name, from which and the owner's key `object` follows.
    pub tag: Digest,
}

impl UserKeys {
    /// The keys that follow from a secret.
    pub fn derive(secret: &UserSecret) -> Self {
        let derived = |context| derive(context, secret.expose());
        let mut seed = derived(SIGN_CONTEXT);
        let signing = ed25519::SecretKey::try_from_bytes(seed.as_mut_slice())
            .expect("every 32 bytes are an Ed25519 seed");
        let signing = ed25519::Keypair::from(signing);
        Self {
            name: derived(NAME_CONTEXT),
            chunk: derived(CHUNK_CONTEXT),
            salt: derived(SALT_CONTEXT),
            manifest: derived(MANIFEST_CONTEXT),
            hidden: derived(HIDDEN_CONTEXT),
            owner: OwnerKey(signing.public().to_bytes()),
            signing,
        }
    }

    /// The public key that the user's registers carry.
    pub fn owner(&self) -> OwnerKey {
        self.owner
    }

    /// Where this user's object of that name lives.
    pub fn address(&self, name: &ObjectName) -> ObjectAddress {
        let tag = Digest(*keyed_xof::<32>(&self.name, &[name.as_str().as_bytes()]));
        ObjectAddress { object: object_id(&self.owner, &tag), tag }
    }

    pub(super) fn chunk(&self) -> &Key {
        &self.chunk
    }

    pub(super) fn salt(&self) -> &Key {
        &self.salt
    }

    pub(super) fn manifest(&self) -> &Key {
        &self.manifest
    }

    pub(super) fn hidden(&self) -> &Key {
        &self.hidden
    }

    /// Ed25519 (RFC 8032) by this user.
    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

impl fmt::Debug for UserKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserKeys({:?}, hidden)", self.owner)
    }
}

/// The id of an object, which anybody can recompute from what its register carries.
pub fn object_id(owner: &OwnerKey, tag: &Digest) -> ObjectId {
    let mut hasher = blake3::Hasher::new_derive_key(OBJECT_CONTEXT);
    hasher.update(owner.as_bytes()).update(tag.as_bytes());
    ObjectId(*hasher.finalize().as_bytes())
}

/// BLAKE3 `derive_key`, leaving nothing behind.
fn derive(context: &str, secret: &[u8; 32]) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(secret);
    finish(hasher)
}

/// Keyed BLAKE3 of the concatenated `parts`, `N` bytes long, leaving nothing behind.
///
/// Whoever calls it sees to it that the concatenation can be cut in one way only.
pub(super) fn keyed_xof<const N: usize>(key: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; N]> {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in parts {
        hasher.update(part);
    }
    finish(hasher)
}

fn finish<const N: usize>(mut hasher: blake3::Hasher) -> Zeroizing<[u8; N]> {
    let mut out = Zeroizing::new([0; N]);
    let mut reader = hasher.finalize_xof();
    reader.fill(out.as_mut_slice());
    reader.zeroize();
    hasher.zeroize();
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A user for tests.
    pub(in crate::seal) fn user(byte: u8) -> UserKeys {
        UserKeys::derive(&UserSecret::from_random(Zeroizing::new([byte; 32])))
    }

    pub(in crate::seal) fn name(text: &str) -> ObjectName {
        ObjectName::parse(text).expect("a good name")
    }

    #[test]
    fn two_users_with_one_name_have_two_objects_and_one_user_has_one() {
        let (alice, bob) = (user(1), user(2));
        let (a, b) = (alice.address(&name("trip/img.png")), bob.address(&name("trip/img.png")));
        assert_ne!(a.object, b.object);
        assert_ne!(a.tag, b.tag);
        assert_ne!(alice.owner(), bob.owner());
        assert_eq!(a, user(1).address(&name("trip/img.png")));
        assert_ne!(a, alice.address(&name("trip/img.pnG")));
        assert_eq!(alice.address(&name("u\u{308}")), alice.address(&name("\u{fc}")));
        assert_eq!(a.object, object_id(&alice.owner(), &a.tag));
        assert_ne!(a.object, object_id(&bob.owner(), &a.tag));
    }

    #[test]
    fn no_key_of_a_user_is_another() {
        let keys = user(1);
        let all = [*keys.name, *keys.chunk, *keys.salt, *keys.manifest, *keys.hidden, keys.owner.0, [1; 32]];
        for (i, one) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|other| other != one));
        }
        assert_eq!(format!("{keys:?}"), format!("UserKeys({:?}, hidden)", keys.owner));
    }
}
