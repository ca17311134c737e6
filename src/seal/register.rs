//! Registers: sealed, signed and checked; and the owner's signature that opens a listing.
//!
//! [`verify`] is the only place that vouches for a register, and every path to a
//! [`VerifiedRegister`] goes through it, this program's own fresh ones included.

use serde_bytes::{ByteBuf, Bytes};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};

use super::{
    keys::{self, UserKeys},
    manifest::{ObjectInfo, ThumbnailWire},
    sealed::{self, Binding, SealedError},
    signature,
};
use crate::model::{
    codec::{self, CodecError},
    id::{BodyId, Digest, ObjectId, OwnerKey, PeerId, RequestId},
    limits,
    object::{MediaType, ObjectName, Sealed},
    register::{FLAG_TOMBSTONE, Register, VerifiedRegister},
};

const FORMAT: u64 = 1;
const REGISTER_CONTEXT: &str = "tintype 1 register";
const ENTRY_CONTEXT: &str = "tintype 1 entry";
const LIST_CONTEXT: &str = "tintype 1 list";
/// The encoded entry with the longest name and media type and a thumbnail, all integers at their longest.
const ENTRY_SECRET_BYTES_MAX: usize = 1276;

// The longest name always fits, so no name is ever cut: length, entry and padding make at most five
// blocks of 256 bytes; salt, tag and framing take 75 more.
const _: () = assert!(
    (4 + ENTRY_SECRET_BYTES_MAX).next_multiple_of(limits::SEALED_PAD_BYTES) + 75 <= limits::ENTRY_BYTES_MAX
);

#[derive(Serialize_tuple, Deserialize_tuple)]
struct EntrySecret {
    format: u64,
    name: ObjectName,
    bytes: u64,
    media_type: MediaType,
    unix_ms: u64,
    thumbnail: Option<ThumbnailWire>,
}

/// What a register shall say. Its object follows from the name.
#[derive(Clone, Debug)]
pub struct RegisterPlan<'a> {
    /// What the object is; of a tombstone, what the hidden version was.
    pub info: &'a ObjectInfo,
    /// One more than the current version; 1 if there is none.
    pub version: u64,
    /// [`VerifiedRegister::hash`] of the current value; zeros if there is none.
    pub previous: Digest,
    /// The manifest; of a tombstone the hidden version's, or none if purged.
    pub manifest: Option<BodyId>,
    /// Whether this removes the object.
    pub tombstone: bool,
    /// The token of the lock that guards the object; 0 = none so far.
    pub fence: u64,
    /// See [`requests_with`].
    pub requests: Vec<RequestId>,
}

/// Why bytes are not a register that one may believe, or cannot become one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Malformed, too long, of an unknown version, or out of bounds.
    #[error("the register is {0}")]
    Codec(#[from] CodecError),
    /// The id does not follow from owner and tag: somebody reaches for another's object.
    #[error("the register names an object that is not its owner's")]
    ForeignObject,
    /// Not signed by the owner whose key it carries.
    #[error("the register's signature is wrong")]
    Signature,
    /// It is somebody else's, so these keys cannot open it.
    #[error("the register belongs to another user")]
    ForeignOwner,
    /// The owner signed it, yet the sealed entry is not the owner's own for these fields.
    #[error("the register's sealed entry is damaged or does not belong to it")]
    Entry,
}

/// The request ids of the next value: those of the current one and this put's, the newest 8.
pub fn requests_with(current: &[RequestId], newest: RequestId) -> Vec<RequestId> {
    let older = current.iter().copied().filter(|id| *id != newest);
    let mut all: Vec<RequestId> = older.chain([newest]).collect();
    all.drain(..all.len().saturating_sub(limits::REGISTER_REQUESTS_MAX));
    all
}

/// Seals the entry, signs the value, and checks it as everybody else will.
///
/// # Errors
/// [`RegisterError::Codec`] if the plan breaks a bound: version and previous hash that do not fit, more than
/// 8 requests, no manifest without a tombstone.
pub fn sign(keys: &UserKeys, plan: &RegisterPlan<'_>) -> Result<VerifiedRegister, RegisterError> {
    let address = keys.address(&plan.info.name);
    let mut register = Register {
        format: FORMAT,
        object: address.object,
        version: plan.version,
        previous: plan.previous,
        manifest: plan.manifest,
        owner: keys.owner(),
        tag: address.tag,
        entry: ByteBuf::new(),
        flags: if plan.tombstone { FLAG_TOMBSTONE } else { 0 },
        fence: plan.fence,
        requests: plan.requests.clone(),
        signature: ByteBuf::new(),
    };
    register.entry = ByteBuf::from(seal_entry(keys, &register, plan.info).encode());
    register.signature = ByteBuf::from(keys.sign(&signed_bytes(&register)));
    verify(&register.encode())
}

/// Decodes a register, recomputes its object id from owner and tag, and checks its signature.
///
/// Costs an Ed25519 verification, some 50 microseconds: not for the event loop.
///
/// # Errors
/// [`RegisterError`].
pub fn verify(bytes: &[u8]) -> Result<VerifiedRegister, RegisterError> {
    let register = Register::decode(bytes)?;
    if keys::object_id(&register.owner, &register.tag) != register.object {
        return Err(RegisterError::ForeignObject);
    }
    if !signature::verify(&register.owner, &signed_bytes(&register), &register.signature) {
        return Err(RegisterError::Signature);
    }
    Ok(VerifiedRegister::vouch(register, bytes))
}

/// Opens the sealed entry of a register of this user.
///
/// # Errors
/// [`RegisterError::ForeignOwner`] or [`RegisterError::Entry`].
pub fn open_entry(keys: &UserKeys, register: &VerifiedRegister) -> Result<ObjectInfo, RegisterError> {
    if register.owner != keys.owner() {
        return Err(RegisterError::ForeignOwner);
    }
    let public = entry_binding_bytes(register);
    let sealed =
        Sealed::decode(&register.entry, limits::ENTRY_BYTES_MAX).map_err(|_| RegisterError::Entry)?;
    let secret: EntrySecret = sealed::open(keys, &entry_binding(register, &public), &sealed)?;
    let EntrySecret { format, name, bytes, media_type, unix_ms, thumbnail } = secret;
    codec::check_version(format, FORMAT)?;
    if keys.address(&name).tag != register.tag {
        return Err(RegisterError::Entry);
    }
    let thumbnail = thumbnail.map(|wire| wire.checked().ok_or(RegisterError::Entry)).transpose()?;
    Ok(ObjectInfo { name, media_type, bytes, unix_ms, thumbnail })
}

impl From<SealedError> for RegisterError {
    fn from(_: SealedError) -> Self {
        RegisterError::Entry
    }
}

pub(super) fn seal_entry(keys: &UserKeys, register: &Register, info: &ObjectInfo) -> Sealed {
    let secret = EntrySecret {
        format: FORMAT,
        name: info.name.clone(),
        bytes: info.bytes,
        media_type: info.media_type.clone(),
        unix_ms: info.unix_ms,
        thumbnail: info.thumbnail.as_ref().map(ThumbnailWire::from),
    };
    let public = entry_binding_bytes(register);
    sealed::seal(keys, &entry_binding(register, &public), &secret, ENTRY_SECRET_BYTES_MAX)
}

pub(super) fn entry_binding<'a>(register: &'a Register, public: &'a [u8]) -> Binding<'a> {
    Binding { context: ENTRY_CONTEXT, object: &register.object, version: register.version, public }
}

/// All fields but the entry and the signature.
pub(super) fn entry_binding_bytes(register: &Register) -> Vec<u8> {
    let Register { format, object, version, previous, manifest, owner, tag, flags, fence, requests, .. } =
        register;
    codec::encode(&(format, object, version, previous, manifest, owner, tag, flags, fence, requests))
}

/// The fixed context and every field but the signature, as one array.
pub(super) fn signed_bytes(register: &Register) -> Vec<u8> {
    let Register { format, object, version, previous, manifest, owner, tag, entry, flags, fence, .. } =
        register;
    let requests = &register.requests;
    let context = REGISTER_CONTEXT;
    codec::encode(&(
        context, format, object, version, previous, manifest, owner, tag, entry, flags, fence, requests,
    ))
}

/// What an owner signs to see a page of the own registers on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListClaim<'a> {
    /// Who asks.
    pub client: &'a PeerId,
    /// The asker's boot number, as its hello said; 0 for a client.
    pub client_boot: u64,
    /// Who is asked.
    pub server: &'a PeerId,
    /// The boot number of the one asked, as its hello said.
    pub server_boot: u64,
    /// What the one asked gave out on this connection.
    pub nonce: &'a [u8],
    /// Objects after this one.
    pub after: Option<ObjectId>,
}

impl ListClaim<'_> {
    fn signed_bytes(&self) -> Vec<u8> {
        let (client, server) = (self.client.to_bytes(), self.server.to_bytes());
        let client = (Bytes::new(&client), self.client_boot);
        let server = (Bytes::new(&server), self.server_boot);
        let nonce = Bytes::new(self.nonce);
        codec::encode(&(LIST_CONTEXT, client.0, client.1, server.0, server.1, nonce, self.after))
    }
}

/// Signs a request for a page of the own registers; 64 bytes.
pub fn list_proof(keys: &UserKeys, claim: &ListClaim<'_>) -> Vec<u8> {
    keys.sign(&claim.signed_bytes()).to_vec()
}

/// Whether `owner` signed this request. The caller fills `claim` from the connection and the nonce that
/// it gave out itself, never from the request.
pub fn verify_list_proof(owner: &OwnerKey, claim: &ListClaim<'_>, proof: &[u8]) -> bool {
    signature::verify(owner, &claim.signed_bytes(), proof)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::object::Padding,
        seal::{
            chunk,
            keys::tests::{name, user},
            manifest::Thumbnail,
        },
    };
    use proptest::prelude::*;

    fn info(keys: &UserKeys, text: &str) -> ObjectInfo {
        let thumbnail = chunk::seal(keys, &mut vec![1; 3000], Padding::of_object(3000));
        ObjectInfo {
            name: name(text),
            media_type: MediaType::parse("image/png").expect("good"),
            bytes: 5000,
            unix_ms: 1_700_000_000_000,
            thumbnail: Some(Thumbnail::new(thumbnail, 3000)),
        }
    }

    fn plan(info: &ObjectInfo) -> RegisterPlan<'_> {
        RegisterPlan {
            info,
            version: 1,
            previous: Digest::ZERO,
            manifest: Some(BodyId([4; 32])),
            tombstone: false,
            fence: 0,
            requests: vec![RequestId([5; 16])],
        }
    }

    #[test]
    fn a_signed_register_is_believed_and_its_entry_opens() {
        let keys = user(1);
        let info = info(&keys, "trip/img.png");
        let register = sign(&keys, &plan(&info)).expect("signs");
        let read = verify(register.bytes()).expect("is believed");
        assert_eq!(read, register);
        assert_eq!(open_entry(&keys, &read), Ok(info.clone()));
        assert_eq!(read.object, keys.address(&info.name).object);
        assert_eq!(sign(&keys, &plan(&info)).expect("signs"), register, "the same plan is the same bytes");
        let next = RegisterPlan { version: 2, previous: register.hash(), tombstone: true, ..plan(&info) };
        let gone = sign(&keys, &next).expect("signs");
        assert!(gone.is_tombstone() && gone.manifest == read.manifest);
        assert_eq!(open_entry(&keys, &gone), Ok(info.clone()));
        let purged = sign(&keys, &RegisterPlan { manifest: None, ..next }).expect("signs");
        assert!(purged.manifest.is_none());
    }

    #[test]
    fn the_longest_of_everything_fits() {
        let keys = user(1);
        let mut longest = info(&keys, &"n".repeat(limits::NAME_BYTES_MAX));
        let media_type = format!("a/{}", "b".repeat(limits::MEDIA_TYPE_BYTES_MAX - 2));
        longest.media_type = MediaType::parse(&media_type).expect("good");
        longest.bytes = u64::MAX;
        longest.unix_ms = u64::MAX;
        longest.thumbnail.as_mut().expect("has one").bytes = 1 << 20;
        let requests = (0..8).map(|i| RequestId([i; 16])).collect();
        let (previous, fence) = (Digest([1; 32]), u64::MAX);
        let plan = RegisterPlan { version: limits::VERSION_MAX, previous, fence, requests, ..plan(&longest) };
        let register = sign(&keys, &plan).expect("fits");
        assert!(register.entry.len() <= limits::ENTRY_BYTES_MAX);
        assert!(register.bytes().len() <= limits::REGISTER_BYTES_MAX);
        assert_eq!(open_entry(&keys, &register), Ok(longest));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let keys = user(1);
        let info = info(&keys, "img.png");
        let good = sign(&keys, &plan(&info)).expect("signs");
        for bit in 0..good.bytes().len() * 8 {
            let mut bytes = good.bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&bytes).is_err(), "bit {bit}");
        }
    }

    /// `register` as a signer of these keys would have it.
    fn resigned(keys: &UserKeys, mut register: Register) -> Vec<u8> {
        register.signature = ByteBuf::from(keys.sign(&signed_bytes(&register)));
        register.encode()
    }

    #[test]
    fn nobody_can_take_anothers_object() {
        let (alice, mallory) = (user(1), user(2));
        let info = info(&alice, "img.png");
        let register = Register::clone(&*sign(&alice, &plan(&info)).expect("signs"));
        // Mallory signs for alice's object: with alice's key in it, with the own key, with another tag.
        assert_eq!(verify(&resigned(&mallory, register.clone())), Err(RegisterError::Signature));
        let own_key = Register { owner: mallory.owner(), ..register.clone() };
        assert_eq!(verify(&resigned(&mallory, own_key)), Err(RegisterError::ForeignObject));
        let other_tag = Register { tag: Digest([9; 32]), ..register.clone() };
        assert_eq!(verify(&resigned(&mallory, other_tag)), Err(RegisterError::ForeignObject));
        // Even alice cannot move it to an id that is not the name's.
        let moved = Register { object: ObjectId([9; 32]), ..register };
        assert_eq!(verify(&resigned(&alice, moved)), Err(RegisterError::ForeignObject));
        let verified = sign(&alice, &plan(&info)).expect("signs");
        assert_eq!(open_entry(&mallory, &verified), Err(RegisterError::ForeignOwner));
    }

    #[test]
    fn an_entry_is_bound_to_its_register() {
        let keys = user(1);
        let info = info(&keys, "img.png");
        let register = Register::clone(&*sign(&keys, &plan(&info)).expect("signs"));
        let (next_version, previous) = (2, Digest([1; 32]));
        let changes: [Register; 7] = [
            Register { version: next_version, previous, ..register.clone() },
            Register { manifest: Some(BodyId([5; 32])), ..register.clone() },
            Register { manifest: None, flags: FLAG_TOMBSTONE, ..register.clone() },
            Register { flags: FLAG_TOMBSTONE, ..register.clone() },
            Register { fence: 1, ..register.clone() },
            Register { requests: Vec::new(), ..register.clone() },
            Register { entry: ByteBuf::from(vec![0; 64]), ..register.clone() },
        ];
        for changed in changes {
            let verified = verify(&resigned(&keys, changed)).expect("signed by its owner");
            assert_eq!(open_entry(&keys, &verified), Err(RegisterError::Entry), "{verified:?}");
        }
        // An entry for another name of the same user, sealed for this register.
        let mut other = register;
        let renamed = ObjectInfo { name: name("other.png"), ..info };
        other.entry = ByteBuf::from(seal_entry(&keys, &other, &renamed).encode());
        let verified = verify(&resigned(&keys, other)).expect("signed by its owner");
        assert_eq!(open_entry(&keys, &verified), Err(RegisterError::Entry));
    }

    #[test]
    fn plans_out_of_bounds_are_refused() {
        let keys = user(1);
        let info = info(&keys, "img.png");
        let refused = |plan: RegisterPlan<'_>| matches!(sign(&keys, &plan), Err(RegisterError::Codec(_)));
        assert!(refused(RegisterPlan { version: 0, ..plan(&info) }));
        assert!(refused(RegisterPlan { version: 2, ..plan(&info) }));
        let previous = Digest([1; 32]);
        assert!(refused(RegisterPlan { previous, ..plan(&info) }));
        assert!(refused(RegisterPlan { version: limits::VERSION_MAX + 1, previous, ..plan(&info) }));
        assert!(refused(RegisterPlan { manifest: None, ..plan(&info) }));
        assert!(refused(RegisterPlan { requests: vec![RequestId::ZERO; 9], ..plan(&info) }));
    }

    #[test]
    fn the_newest_eight_requests_are_remembered_once_each() {
        let id = |i| RequestId([i; 16]);
        let mut current = Vec::new();
        for i in 0..10 {
            current = requests_with(&current, id(i));
        }
        assert_eq!(current, (2..10).map(id).collect::<Vec<_>>());
        assert_eq!(requests_with(&current, id(9)), current);
        assert_eq!(requests_with(&current, id(2)).last(), Some(&id(2)));
        assert_eq!(requests_with(&current, id(2)).len(), 8);
    }

    #[test]
    fn a_listing_is_opened_by_its_owner_for_one_connection_only() {
        let keys = user(1);
        let peer = |byte: u8| {
            let secret = libp2p_identity::ed25519::SecretKey::try_from_bytes([byte; 32]).expect("a seed");
            let keypair = libp2p_identity::Keypair::from(libp2p_identity::ed25519::Keypair::from(secret));
            keypair.public().to_peer_id()
        };
        let (client, server, third) = (peer(1), peer(2), peer(3));
        let claim = ListClaim {
            client: &client,
            client_boot: 0,
            server: &server,
            server_boot: 7,
            nonce: &[1; 16],
            after: None,
        };
        let proof = list_proof(&keys, &claim);
        assert!(verify_list_proof(&keys.owner(), &claim, &proof));
        assert!(!verify_list_proof(&user(2).owner(), &claim, &proof));
        for other in [
            ListClaim { client: &third, ..claim },
            ListClaim { server: &third, ..claim },
            ListClaim { client: &server, server: &client, ..claim },
            ListClaim { client_boot: 1, ..claim },
            ListClaim { server_boot: 8, ..claim },
            ListClaim { nonce: &[2; 16], ..claim },
            ListClaim { nonce: &[], ..claim },
            ListClaim { after: Some(ObjectId::ZERO), ..claim },
        ] {
            assert!(!verify_list_proof(&keys.owner(), &other, &proof), "{other:?}");
        }
        for bit in 0..512 {
            let mut bad = proof.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!verify_list_proof(&keys.owner(), &claim, &bad), "bit {bit}");
        }
        assert!(!verify_list_proof(&keys.owner(), &claim, &[]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(
            bytes in proptest::collection::vec(any::<u8>(), 0..2400),
            at in 0usize..1000,
            splice in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            prop_assert!(verify(&bytes).is_err());
            let keys = user(1);
            let info = info(&keys, "img.png");
            let good = sign(&keys, &plan(&info)).expect("signs");
            let mut bent = good.bytes().to_vec();
            let from = at.min(bent.len());
            bent.splice(from..(from + splice.len()).min(good.bytes().len()), splice);
            prop_assert!(bent == good.bytes() || verify(&bent).is_err());
            // Signed rubbish in place of an entry.
            let entry = ByteBuf::from(bytes.get(..1536).unwrap_or(&bytes).to_vec());
            let rubbish = Register { entry, ..Register::clone(&good) };
            let verified = verify(&resigned(&keys, rubbish)).expect("signed by its owner");
            prop_assert_eq!(open_entry(&keys, &verified), Err(RegisterError::Entry));
        }

        #[test]
        fn what_was_signed_opens(
            secret: u8,
            text in "[a-z]{1,40}/[^\\p{C}/.]{1,200}",
            bytes: u64,
            unix_ms: u64,
            version in 2u64..limits::VERSION_MAX,
            previous: [u8; 32],
            fence: u64,
            tombstone: bool,
        ) {
            prop_assume!(previous != [0; 32]);
            let keys = user(secret);
            let info = ObjectInfo { bytes, unix_ms, ..info(&keys, &text) };
            let previous = Digest(previous);
            let register = sign(&keys, &RegisterPlan { version, previous, fence, tombstone, ..plan(&info) });
            let register = verify(register.expect("signs").bytes()).expect("is believed");
            prop_assert_eq!(open_entry(&keys, &register), Ok(info));
            prop_assert_eq!((register.version, register.fence), (version, fence));
        }
    }
}
