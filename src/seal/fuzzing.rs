//! What must hold of any bytes that are given to the decoders of sealed, signed and secret things.
//!
//! For fuzzers and property tests only: no program is built with it. What a stranger cannot make, a right
//! tag, signature or check, is made here over foreign contents, so that what lies behind it is reached, too.
//! Its user and cluster are those of the test vectors; it must never be given anybody's keys.

use std::sync::LazyLock;

use libp2p_identity::{Keypair, PeerId, ed25519};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

use super::{
    admission::{ClientRight, ClusterKey},
    chunk::{self, ChunkKey, IdCheck, SealedChunk, body_id},
    hidden,
    key_file::{self, KeyFile, KeyFileError},
    keys::{UserKeys, UserSecret, object_id},
    manifest::{self, Layout, MANIFEST_CONTEXT, Manifest, ManifestPlan, ObjectInfo, PART_CONTEXT},
    register::{self, ListClaim, RegisterError},
    sealed::{self, Binding, LENGTH_BYTES},
};
use crate::model::{
    fuzzing::{canonical, settled},
    id::{BodyId, Digest, ObjectId, OwnerKey, RequestId},
    limits,
    object::{
        BodyPublic, ChunkRef, ManifestBody, ManifestPublic, MediaType, ObjectName, PartPublic, PartRef,
        Redundancy, Sealed,
    },
    register::{Register, VerifiedRegister},
};

/// The version that the manifests of the vectors have.
const VERSION: u64 = 7;

/// The user of the vectors and the object of their manifests and registers.
struct User {
    keys: UserKeys,
    object: ObjectId,
}

static USER: LazyLock<User> = LazyLock::new(|| {
    let secret = UserSecret::from_random(Zeroizing::new(std::array::from_fn(|i| i as u8)));
    let keys = UserKeys::derive(&secret);
    let name = ObjectName::parse("trip/\u{fc}ber.png").expect("a name");
    let object = keys.address(&name).object;
    User { keys, object }
});

/// Somebody else, who opens nothing of the user's.
static STRANGER: LazyLock<UserKeys> =
    LazyLock::new(|| UserKeys::derive(&UserSecret::from_random(Zeroizing::new([9; 32]))));

// ---- registers ----

/// A register: believed only if its owner signed it. The same fields under the user's own signature: the
/// entry opens only if it is what the user would have sealed.
pub fn signed_register(bytes: &[u8]) -> bool {
    let verified = register::verify(bytes);
    if let Ok(verified) = &verified {
        assert_eq!((verified.bytes(), verified.encode().as_slice()), (bytes, bytes));
        hold_signature(verified);
        open_entry(verified);
    }
    let Some(read) = canonical(bytes, Register::decode, Register::encode) else { return false };
    let keys = &USER.keys;
    let mut own = Register { owner: keys.owner(), object: object_id(&keys.owner(), &read.tag), ..read };
    own.signature = keys.sign(&register::signed_bytes(&own)).to_vec().into();
    open_entry(&register::verify(&own.encode()).expect("its bounds hold, and its owner signed it"));
    let other = Register { fence: own.fence ^ 1, ..own };
    assert!(register::verify(&other.encode()).is_err(), "a signature for another register is believed");
    verified.is_ok()
}

/// Asked anew, and of nothing but the library: the check that stands before it is not trusted here.
fn hold_signature(verified: &VerifiedRegister) {
    let key = ed25519::PublicKey::try_from_bytes(verified.owner.as_bytes()).expect("a key");
    assert!(key.verify(&register::signed_bytes(verified), &verified.signature), "nobody signed it");
    assert_eq!(object_id(&verified.owner, &verified.tag), verified.object, "another's object");
}

fn open_entry(verified: &VerifiedRegister) -> bool {
    let Ok(info) = register::open_entry(&USER.keys, verified) else { return false };
    let again = register::seal_entry(&USER.keys, verified, &info).encode();
    assert_eq!(again, verified.entry.as_slice(), "an entry opens that its owner would not write");
    assert_eq!(register::open_entry(&STRANGER, verified), Err(RegisterError::ForeignOwner));
    true
}

/// The proof that opens a listing: key and proof of 32 and 64 bytes. There is one good one.
pub fn list_proof(bytes: &[u8]) -> bool {
    static PEERS: LazyLock<[PeerId; 2]> = LazyLock::new(|| {
        let peer = |seed: u8| Keypair::ed25519_from_bytes([seed; 32]).expect("a seed").public().to_peer_id();
        [peer(1), peer(2)]
    });
    let Some((owner, proof)) = bytes.split_first_chunk::<32>() else { return false };
    let [client, server] = &*PEERS;
    let claim = ListClaim {
        client,
        client_boot: 0,
        server,
        server_boot: 300,
        nonce: b"nnnnnnnnnnnnnnnn",
        after: None,
    };
    let good = [OwnerKey(*owner), USER.keys.owner()].map(|owner| {
        let good = register::verify_list_proof(&owner, &claim, proof);
        assert!(!good || owner == USER.keys.owner(), "a proof by somebody who has no key");
        assert!(!good || proof == register::list_proof(&USER.keys, &claim), "a second proof");
        good
    });
    good[0]
}

// ---- manifests ----

/// A manifest, root or part as it is stored: its user opens what that user would seal, and nothing else.
pub fn stored_manifest(bytes: &[u8]) -> bool {
    let encode = |body: &ManifestBody| body.clone().encode();
    let Some(body) = canonical(bytes, ManifestBody::decode, encode) else { return false };
    assert!(body.referenced().count() <= limits::MANIFEST_PART_CHUNKS_MAX + 1);
    let public = match &body.public {
        BodyPublic::Manifest(public) => public.encode(),
        BodyPublic::Part(public) => public.encode(),
    };
    assert_eq!(public, body.public_bytes);
    canonical(&body.sealed.encode(), |b| Sealed::decode(b, limits::BODY_BYTES_MAX), Sealed::encode);
    open_manifest(bytes)
}

fn open_manifest(bytes: &[u8]) -> bool {
    let User { keys, object } = &*USER;
    let id = body_id(bytes);
    let Ok(opened) = manifest::open(keys, object, VERSION, &id, bytes) else { return false };
    assert!(manifest::open(keys, object, VERSION + 1, &id, bytes).is_err(), "it opens as another version");
    assert!(manifest::open(&STRANGER, object, VERSION, &id, bytes).is_err(), "it opens for a stranger");
    assert!(manifest::open(keys, &ObjectId::ZERO, VERSION, &id, bytes).is_err(), "or as another object");
    let Layout::Chunks(chunks) = &opened.layout else { return true };
    let total: u64 = (0..chunks.len() as u64).map(|index| opened.chunk_true_bytes(index) as u64).sum();
    assert_eq!(total, opened.info.bytes, "its chunks are not its bytes");
    let plan = ManifestPlan {
        info: opened.info.clone(),
        chunks: chunks.clone(),
        predecessors: opened.predecessors.clone(),
        redundancy: opened.redundancy,
    };
    let again = manifest::seal(keys, VERSION, &plan).expect("what was read can be written");
    assert_eq!(again.last().map(|body| body.bytes.as_slice()), Some(bytes), "two spellings of a manifest");
    true
}

/// What lies inside of sealed parts, under the user's own tag: a public half with its length (two bytes, big
/// endian) in front, then the secret half.
pub fn sealed_contents(bytes: &[u8]) -> bool {
    let Some((public, secret)) = halves(bytes) else { return false };
    let User { keys, object } = &*USER;
    let seal = |context, public: &[u8]| {
        let binding = Binding { context, object, version: VERSION, public };
        sealed::seal_text(keys, &binding, framed(secret))
    };
    let manifest = ManifestPublic::decode(public).is_ok_and(|read| {
        let sealed = seal(MANIFEST_CONTEXT, public);
        let body = ManifestBody { public: BodyPublic::Manifest(read), public_bytes: public.to_vec(), sealed };
        open_manifest(&body.encode())
    });
    let part = PartPublic::decode(public).is_ok_and(|read| {
        let (sealed, chunks) = (seal(PART_CONTEXT, public), read.chunks.len() as u64);
        let bytes = read.chunks.iter().map(|chunk| chunk.padded_bytes).sum();
        let body = ManifestBody { public: BodyPublic::Part(read), public_bytes: public.to_vec(), sealed };
        open_part(&body.encode(), chunks, bytes)
    });
    let entry = open_entry_of(secret);
    open_chunk(secret);
    manifest || part || entry
}

/// As the only part of a root that some object of this user might have.
fn open_part(body: &[u8], chunks: u64, bytes: u64) -> bool {
    let root = Manifest {
        object: USER.object,
        version: VERSION,
        info: ObjectInfo {
            name: ObjectName::parse("x").expect("a name"),
            media_type: MediaType::octet_stream(),
            bytes,
            unix_ms: 0,
            thumbnail: None,
        },
        layout: Layout::Parts(vec![PartRef { id: body_id(body), chunks }]),
        predecessors: Vec::new(),
        redundancy: Redundancy::Copies(1),
    };
    let opened = root.open_part(&USER.keys, 0, body);
    assert!(opened.as_ref().is_ok_and(|opened| opened.len() as u64 == chunks) || opened.is_err());
    opened.is_ok()
}

/// Signed by the user, with this inside of its entry.
fn open_entry_of(secret: &[u8]) -> bool {
    let keys = &USER.keys;
    let name = ObjectName::parse("trip/\u{fc}ber.png").expect("a name");
    let mut register = Register {
        format: 1,
        object: USER.object,
        version: 1,
        previous: Digest::ZERO,
        manifest: Some(BodyId([0x4d; 32])),
        owner: keys.owner(),
        tag: keys.address(&name).tag,
        entry: ByteBuf::new(),
        flags: 0,
        fence: 11,
        requests: vec![RequestId([1; 16])],
        signature: ByteBuf::new(),
    };
    let public = register::entry_binding_bytes(&register);
    let sealed = sealed::seal_text(keys, &register::entry_binding(&register, &public), framed(secret));
    register.entry = sealed.encode().into();
    register.signature = keys.sign(&register::signed_bytes(&register)).to_vec().into();
    register::verify(&register.encode()).is_ok_and(|verified| open_entry(&verified))
}

/// As a chunk that somebody sent: its length, its id and its padding are checked, and its key is any.
fn open_chunk(body: &[u8]) {
    let (id, padded_bytes) = (body_id(body), body.len() as u64);
    for id in [id, BodyId::ZERO] {
        let sealed = SealedChunk { chunk: ChunkRef { id, padded_bytes }, key: ChunkKey::ZERO };
        for true_bytes in [0, 1, body.len() / 2, body.len(), usize::MAX] {
            let mut copy = body.to_vec();
            if let Ok(contents) = chunk::open(&sealed, &mut copy, true_bytes, IdCheck::Needed) {
                assert!(id != BodyId::ZERO && contents.len() == true_bytes && true_bytes > 0);
            }
        }
    }
}

fn halves(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

/// With its length in front and zeros behind, as sealed plaintexts are.
fn framed(secret: &[u8]) -> Zeroizing<Vec<u8>> {
    let len = u32::try_from(secret.len()).expect("inputs are short");
    let mut text = [&len.to_le_bytes()[..], secret].concat();
    text.resize(text.len().next_multiple_of(limits::SEALED_PAD_BYTES), 0);
    Zeroizing::new(text)
}

/// The input of [`sealed_contents`] that a stored manifest of the vectors is made of; none of another's.
pub fn contents_of_manifest(bytes: &[u8]) -> Option<Vec<u8>> {
    let body = ManifestBody::decode(bytes).ok()?;
    let context = match body.public {
        BodyPublic::Manifest(_) => MANIFEST_CONTEXT,
        BodyPublic::Part(_) => PART_CONTEXT,
    };
    let User { keys, object } = &*USER;
    let binding = Binding { context, object, version: VERSION, public: &body.public_bytes };
    let text = sealed::open_text(keys, &binding, &body.sealed).ok()?;
    Some(joined(&body.public_bytes, &text))
}

/// The input of [`sealed_contents`] that a register's entry is made of; none of another's.
pub fn contents_of_register(bytes: &[u8]) -> Option<Vec<u8>> {
    let register = register::verify(bytes).ok()?;
    let public = register::entry_binding_bytes(&register);
    let sealed = Sealed::decode(&register.entry, limits::ENTRY_BYTES_MAX).ok()?;
    let binding = register::entry_binding(&register, &public);
    let text = sealed::open_text(&USER.keys, &binding, &sealed).ok()?;
    Some(joined(&[], &text))
}

fn joined(public: &[u8], text: &[u8]) -> Vec<u8> {
    let len = u16::try_from(public.len()).expect("a small manifest");
    let (secret_len, rest) = text.split_first_chunk::<LENGTH_BYTES>().expect("a length");
    let secret = &rest[..u32::from_le_bytes(*secret_len) as usize];
    [&len.to_be_bytes()[..], public, secret].concat()
}

// ---- keys ----

/// The line of a user's key, a cluster's or a client's; once as it is, once with the right check behind it.
pub fn key_line(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let user = user_key(text);
    if let Some((body, _)) = text.trim().rsplit_once(':') {
        let check = key_file::check_of(body).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        user_key(&format!("{body}:{check}"));
    }
    let cluster = settled(text, |text| ClusterKey::parse(text).ok(), |key| key.to_text().to_string());
    let client = settled(text, |text| ClientRight::parse(text).ok(), |right| right.to_text().to_string());
    let digits = text.trim().rsplit_once(':').and_then(|(_, digits)| Digest::from_hex(digits.get(..64)?));
    if let Some(secret) = digits {
        let key = ClusterKey::from_bytes(secret.0);
        assert_eq!(ClusterKey::parse(&key.to_text()), Ok(key.clone()));
        assert_eq!(ClientRight::parse(&key.client_right().to_text()), Ok(key.client_right()));
        assert!(ClusterKey::parse(&key.client_right().to_text()).is_err(), "a client's right is a member's");
    }
    user || cluster.is_some() || client.is_some()
}

fn user_key(text: &str) -> bool {
    match KeyFile::parse(text) {
        Ok(KeyFile::Plain(secret)) => {
            let printed = key_file::plain_text(&secret);
            assert_eq!(printed.trim_end(), text.trim(), "two spellings of a plain key");
            let again = KeyFile::parse(&printed).expect("what was printed is read");
            assert!(matches!(again, KeyFile::Plain(again) if again.expose() == secret.expose()));
            true
        }
        // To open one costs 64 MiB and 100 ms; nothing of that depends on how the line was spelled.
        Ok(KeyFile::Sealed(sealed)) => {
            assert_eq!(sealed.open("").err(), Some(KeyFileError::EmptyPassphrase));
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

// ---- hidden ----

/// What is found in a picture: header and sealed bytes. The user's own is what the user would have sealed.
pub fn hidden_bytes(bytes: &[u8]) -> bool {
    let (header, sealed) = bytes.split_at(bytes.len().min(hidden::HEADER_BYTES));
    assert!(!hidden::is_sealed(header) || header.len() >= hidden::MAGIC_BYTES);
    let Ok(opening) = hidden::open_header(&USER.keys, header) else { return false };
    assert!(hidden::is_sealed(header));
    assert!(hidden::open_header(&STRANGER, header).is_err(), "a stranger opens it");
    let Ok(payload) = opening.open(sealed.to_vec()) else { return false };
    let salt = header[hidden::MAGIC_BYTES..hidden::MAGIC_BYTES + 16].try_into().expect("the salt");
    let again = hidden::seal(&USER.keys, salt, &payload);
    assert_eq!((&again.header[..], &again.sealed[..]), (header, sealed));
    true
}

/// A header and sealed bytes of the user's, to begin with.
pub fn hidden_seed(payload: &[u8]) -> Vec<u8> {
    let sealed = hidden::seal(&USER.keys, [5; 16], payload);
    [&sealed.header[..], &sealed.sealed].concat()
}
