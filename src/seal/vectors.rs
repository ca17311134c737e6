//! Every format of this room, byte for byte, against `tests/vectors/` and against a second way to compute it.
//!
//! The second way is written here from the description alone: straight BLAKE3, AES one block at a time,
//! CBOR heads by hand. It shares no function with the room, so a mistake must be made twice to pass.

use aes::{
    Aes128,
    cipher::{BlockCipherEncrypt, KeyInit},
};
use libp2p_identity::ed25519;
use zeroize::Zeroizing;

use super::{
    chunk::{self, SealedChunk},
    hidden, key_file,
    keys::{UserKeys, UserSecret},
    manifest::{self, ManifestPlan, ObjectInfo, Thumbnail},
    register::{self, ListClaim, RegisterPlan},
};
use crate::model::{
    id::{BodyId, Digest, ObjectId, PeerId, RequestId},
    object::{MediaType, ObjectName, Padding, Predecessor, Redundancy},
};

/// A name and a value, as the files have them.
type Line = (String, String);

const NAME_TYPED: &str = "trip/u\u{308}ber.png";
const NAME_NFC: &str = "trip/\u{fc}ber.png";
const UNIX_MS: u64 = 1_700_000_000_000;
const KEY_FILE_SALT: [u8; 16] = [0xa5; 16];
const PASSPHRASE: &str = "correct horse battery staple";

/// The secret of every vector: 00 01 .. 1f.
fn secret() -> [u8; 32] {
    std::array::from_fn(|i| i as u8)
}

/// The plaintext of every chunk: byte i is i modulo 251.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn line(name: &str, bytes: &[u8]) -> Line {
    (name.into(), hex(bytes))
}

/// Fails with the whole file as it should be, unless it is exactly that.
fn compare(file: &str, file_text: &str, how: &str, lines: &[Line]) {
    let found: Vec<&str> = file_text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
    let expected: Vec<String> = lines.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let whole = expected.join("\n");
    assert!(found == expected, "{file} does not say what was {how}, which is:\n{whole}\n");
}

// ---- the second way ----

mod again {
    use super::*;

    pub fn xof<const N: usize>(key: &[u8; 32], input: &[u8]) -> [u8; N] {
        let mut out = [0; N];
        blake3::Hasher::new_keyed(key).update(input).finalize_xof().fill(&mut out);
        out
    }

    pub fn key(context: &str) -> [u8; 32] {
        blake3::derive_key(context, &secret())
    }

    pub fn signer() -> ed25519::Keypair {
        let seed = ed25519::SecretKey::try_from_bytes(key("tintype 1 sign")).expect("a seed");
        ed25519::Keypair::from(seed)
    }

    pub fn owner() -> [u8; 32] {
        signer().public().to_bytes()
    }

    pub fn tag(name: &str) -> [u8; 32] {
        xof(&key("tintype 1 name"), name.as_bytes())
    }

    pub fn object(name: &str) -> [u8; 32] {
        blake3::derive_key("tintype 1 object", &[owner(), tag(name)].concat())
    }

    /// SP 800-38A counter mode, a block at a time.
    pub fn ctr(key: &[u8], counter: &[u8], data: &[u8]) -> Vec<u8> {
        let cipher = Aes128::new_from_slice(key).expect("16 bytes");
        let mut counter = u128::from_be_bytes(counter.try_into().expect("16 bytes"));
        let mut out = Vec::new();
        for block in data.chunks(16) {
            let mut stream = counter.to_be_bytes().into();
            cipher.encrypt_block(&mut stream);
            out.extend(block.iter().zip(stream).map(|(byte, key)| byte ^ key));
            counter = counter.wrapping_add(1);
        }
        out
    }

    pub struct Chunk {
        pub id: [u8; 32],
        pub key: [u8; 32],
        pub ciphertext: Vec<u8>,
    }

    pub fn chunk(plain: &[u8], pad_to: usize) -> Chunk {
        let mut padded = plain.to_vec();
        while !padded.len().is_multiple_of(pad_to) {
            padded.push(0);
        }
        let hash = *blake3::hash(&padded).as_bytes();
        let input = [&hash[..], &(padded.len() as u64).to_le_bytes()].concat();
        let key: [u8; 32] = xof(&key("tintype 1 chunk"), &input);
        let ciphertext = ctr(&key[..16], &key[16..], &padded);
        Chunk { id: *blake3::hash(&ciphertext).as_bytes(), key, ciphertext }
    }

    // CBOR (RFC 8949): a head is a major type and a number.

    fn head(major: u8, number: u64) -> Vec<u8> {
        let major = major << 5;
        match number {
            0..24 => vec![major | number as u8],
            24..0x100 => vec![major | 24, number as u8],
            0x100..0x1_0000 => [&[major | 25][..], &(number as u16).to_be_bytes()].concat(),
            0x1_0000..0x1_0000_0000 => [&[major | 26][..], &(number as u32).to_be_bytes()].concat(),
            _ => [&[major | 27][..], &number.to_be_bytes()].concat(),
        }
    }

    pub fn uint(number: u64) -> Vec<u8> {
        head(0, number)
    }

    pub fn bytes(bytes: &[u8]) -> Vec<u8> {
        [head(2, bytes.len() as u64), bytes.to_vec()].concat()
    }

    pub fn text(text: &str) -> Vec<u8> {
        [head(3, text.len() as u64), text.as_bytes().to_vec()].concat()
    }

    pub fn array(items: &[Vec<u8>]) -> Vec<u8> {
        [head(4, items.len() as u64), items.concat()].concat()
    }

    pub fn null() -> Vec<u8> {
        vec![0xf6]
    }

    /// Salt, keys from the salt, counter mode, tag; as `[1, salt, ciphertext, tag]`.
    pub fn sealed(context: &str, object: &[u8; 32], version: u64, public: &[u8], secret: &[u8]) -> Vec<u8> {
        let len = |part: &[u8]| (part.len() as u64).to_le_bytes().to_vec();
        let place = [&object[..], &version.to_le_bytes(), &len(public), public].concat();
        let mut plain = [&(secret.len() as u32).to_le_bytes(), secret].concat();
        while !plain.len().is_multiple_of(256) {
            plain.push(0);
        }
        let salt: [u8; 32] = xof(&key("tintype 1 salt"), &[&place[..], &plain].concat());
        let stream: [u8; 64] = xof(&key("tintype 1 manifest"), &salt);
        let ciphertext = ctr(&stream[..16], &stream[16..32], &plain);
        let mac: [u8; 32] = stream[32..].try_into().expect("32 of 64");
        let input = [&len(context.as_bytes())[..], context.as_bytes(), &place, &salt, &ciphertext].concat();
        let tag: [u8; 32] = xof(&mac, &input);
        array(&[uint(1), bytes(&salt), bytes(&ciphertext), bytes(&tag)])
    }
}

// ---- keys ----

#[test]
fn user_keys() {
    const FILE: &str = include_str!("../../tests/vectors/user-keys.txt");
    let keys = UserKeys::derive(&UserSecret::from_random(Zeroizing::new(secret())));
    let address = keys.address(&ObjectName::parse(NAME_TYPED).expect("good"));
    let made = [
        line("secret", &secret()),
        line("chunk_key", keys.chunk().as_slice()),
        line("salt_key", keys.salt().as_slice()),
        line("manifest_key", keys.manifest().as_slice()),
        line("hidden_key", keys.hidden().as_slice()),
        line("owner", keys.owner().as_bytes()),
        line("signature_of_empty", &keys.sign(b"")),
        line("name_nfc", NAME_NFC.as_bytes()),
        line("tag", address.tag.as_bytes()),
        line("object", address.object.as_bytes()),
    ];
    compare("user-keys.txt", FILE, "made", &made);
    let recomputed = [
        line("secret", &secret()),
        line("chunk_key", &again::key("tintype 1 chunk")),
        line("salt_key", &again::key("tintype 1 salt")),
        line("manifest_key", &again::key("tintype 1 manifest")),
        line("hidden_key", &again::key("tintype 1 hidden")),
        line("owner", &again::owner()),
        line("signature_of_empty", &again::signer().sign(b"")),
        line("name_nfc", NAME_NFC.as_bytes()),
        line("tag", &again::tag(NAME_NFC)),
        line("object", &again::object(NAME_NFC)),
    ];
    compare("user-keys.txt", FILE, "recomputed", &recomputed);
}

#[test]
fn key_files() {
    const FILE: &str = include_str!("../../tests/vectors/key-file.txt");
    let user = UserSecret::from_random(Zeroizing::new(secret()));
    let plain = key_file::plain_text(&user).trim_end().to_owned();
    let sealed = key_file::sealed_text(&user, PASSPHRASE, KEY_FILE_SALT).expect("seals");
    let made = [("plain".into(), plain), ("sealed".into(), sealed.trim_end().to_owned())];
    compare("key-file.txt", FILE, "made", &made);

    let checked = |body: String| {
        let check = blake3::derive_key("tintype 1 user file check", body.as_bytes());
        format!("{body}:{}", hex(&check[..8]))
    };
    let params = argon2::Params::new(65536, 3, 1, Some(32)).expect("in range");
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut root = [0; 32];
    argon.hash_password_into(PASSPHRASE.as_bytes(), &KEY_FILE_SALT, &mut root).expect("hashes");
    let stream: [u8; 64] = again::xof(&root, &KEY_FILE_SALT);
    let ciphertext = again::ctr(&stream[..16], &stream[16..32], &secret());
    let cost = [65536u32, 3, 1].map(u32::to_le_bytes).concat();
    let input = [b"tintype 1 user file", &cost[..], &KEY_FILE_SALT, &ciphertext].concat();
    let tag: [u8; 32] = again::xof(&stream[32..].try_into().expect("32 of 64"), &input);
    let (salt, text, tag) = (hex(&KEY_FILE_SALT), hex(&ciphertext), hex(&tag));
    let recomputed = [
        ("plain".into(), checked(format!("tintype-user-1:plain:{}", hex(&secret())))),
        ("sealed".into(), checked(format!("tintype-user-1:sealed:65536,3,1:{salt}:{text}:{tag}"))),
    ];
    compare("key-file.txt", FILE, "recomputed", &recomputed);
}

// ---- hidden ----

#[test]
fn hidden_bytes() {
    const FILE: &str = include_str!("../../tests/vectors/hidden.txt");
    const TEXT: &[u8] = b"nine";
    let salt: [u8; 16] = std::array::from_fn(|i| 0xf0 + i as u8);
    let keys = UserKeys::derive(&UserSecret::from_random(Zeroizing::new(secret())));
    let sealed = hidden::seal(&keys, salt, TEXT);
    let made = [
        line("text", TEXT),
        line("salt", &salt),
        line("header", &sealed.header),
        line("seed", sealed.seed.as_bytes()),
        line("sealed", &sealed.sealed),
    ];
    compare("hidden.txt", FILE, "made", &made);

    let stream: [u8; 100] = again::xof(&again::key("tintype 1 hidden"), &salt);
    let mac: [u8; 32] = stream[32..64].try_into().expect("32 bytes");
    let len = [0, 0, 0, 4].iter().zip(&stream[96..]).map(|(len, mask): (&u8, _)| len ^ mask);
    let front = [b"\xfftintyp\x01", &salt[..], &len.collect::<Vec<u8>>()].concat();
    let check: [u8; 16] = again::xof(&mac, &[b"check", &front[..]].concat());
    let header = [&front[..], &check].concat();
    let ciphertext = again::ctr(&stream[..16], &stream[16..32], TEXT);
    let tag: [u8; 32] = again::xof(&mac, &[b"bytes", &header[..], &ciphertext].concat());
    let recomputed = [
        line("text", TEXT),
        line("salt", &salt),
        line("header", &header),
        line("seed", &stream[64..96]),
        line("sealed", &[&ciphertext[..], &tag].concat()),
    ];
    compare("hidden.txt", FILE, "recomputed", &recomputed);
}

// ---- chunks ----

/// Length of the chunk, length of its object, what it is padded to.
const CHUNKS: [(usize, u64, usize); 6] = [
    (1, 1, 1 << 10),
    (1500, 1500, 1 << 10),
    ((64 << 10) - 1, (64 << 10) - 1, 1 << 10),
    (64 << 10, 64 << 10, 64 << 10),
    (100, (1 << 20) + 100, 64 << 10),
    (1 << 20, 1 << 20, 64 << 10),
];

fn chunk_lines(prefix: &str, id: &[u8], key: &[u8], ciphertext: &[u8]) -> Vec<Line> {
    vec![
        line(&format!("{prefix}_id"), id),
        line(&format!("{prefix}_key_and_counter"), key),
        (format!("{prefix}_padded_bytes"), ciphertext.len().to_string()),
        line(&format!("{prefix}_ciphertext_begins"), &ciphertext[..64]),
        line(&format!("{prefix}_ciphertext_ends"), &ciphertext[ciphertext.len() - 64..]),
    ]
}

/// The key and counter block of a chunk as the manifest carries them.
fn exposed(sealed: &SealedChunk) -> Vec<u8> {
    crate::model::codec::encode(&sealed.key)[2..].to_vec()
}

#[test]
fn chunks() {
    const FILE: &str = include_str!("../../tests/vectors/chunk.txt");
    let keys = UserKeys::derive(&UserSecret::from_random(Zeroizing::new(secret())));
    let made: Vec<Line> = CHUNKS
        .iter()
        .flat_map(|(len, of, _)| {
            let mut data = pattern(*len);
            let sealed = chunk::seal(&keys, &mut data, Padding::of_object(*of));
            chunk_lines(&format!("chunk_{len}_of_{of}"), sealed.chunk.id.as_bytes(), &exposed(&sealed), &data)
        })
        .collect();
    compare("chunk.txt", FILE, "made", &made);
    let recomputed: Vec<Line> = CHUNKS
        .iter()
        .flat_map(|(len, of, pad)| {
            let again::Chunk { id, key, ciphertext } = again::chunk(&pattern(*len), *pad);
            chunk_lines(&format!("chunk_{len}_of_{of}"), &id, &key, &ciphertext)
        })
        .collect();
    compare("chunk.txt", FILE, "recomputed", &recomputed);
}

// ---- manifests ----

/// The object of the vectors: 2,098,652 bytes in three chunks, with a thumbnail of 1,500 bytes.
const OBJECT_BYTES: u64 = (2 << 20) + 1500;
/// The large one: two parts, 9,000 chunks, all of them equal, which is quick to make.
const LARGE_BYTES: u64 = 9000 << 20;

fn plan(keys: &UserKeys, bytes: u64) -> ManifestPlan {
    let mut thumbnail = pattern(1500);
    let thumbnail = chunk::seal(keys, &mut thumbnail, Padding::of_object(1500));
    let full = chunk::seal(keys, &mut pattern(1 << 20), Padding::Full);
    let mut chunks = vec![full; (bytes >> 20) as usize];
    if bytes == OBJECT_BYTES {
        chunks.push(chunk::seal(keys, &mut pattern(1500), Padding::Full));
    }
    let info = ObjectInfo {
        name: ObjectName::parse(NAME_TYPED).expect("good"),
        media_type: MediaType::parse("image/png").expect("good"),
        bytes,
        unix_ms: UNIX_MS,
        thumbnail: Some(Thumbnail::new(thumbnail, 1500)),
    };
    let predecessor = |version, byte| Predecessor { version, manifest: BodyId([byte; 32]) };
    let predecessors = vec![predecessor(6, 6), predecessor(4, 4)];
    ManifestPlan { info, chunks, predecessors, redundancy: Redundancy::Copies(3) }
}

mod manifest_again {
    use super::{again::*, *};

    fn chunk_ref(chunk: &Chunk) -> Vec<u8> {
        array(&[bytes(&chunk.id), uint(chunk.ciphertext.len() as u64)])
    }

    fn body(kind: u64, context: &str, public: &[u8], secret: &[u8]) -> Vec<u8> {
        let sealed = sealed(context, &object(NAME_NFC), 7, public, secret);
        array(&[uint(1), uint(kind), bytes(public), sealed])
    }

    /// A whole manifest or a root, of version 7.
    pub fn manifest(chunks: &[&Chunk], parts: &[Vec<u8>], object_bytes: u64) -> Vec<u8> {
        let thumbnail = chunk(&pattern(1500), 1 << 10);
        let public = array(&[
            uint(1),
            array(&chunks.iter().map(|c| chunk_ref(c)).collect::<Vec<_>>()),
            array(parts),
            chunk_ref(&thumbnail),
            array(&[array(&[uint(6), bytes(&[6; 32])]), array(&[uint(4), bytes(&[4; 32])])]),
            array(&[uint(1), uint(3)]),
        ]);
        let secret = array(&[
            uint(1),
            array(&chunks.iter().map(|c| bytes(&c.key)).collect::<Vec<_>>()),
            text(NAME_NFC),
            text("image/png"),
            uint(object_bytes),
            uint(UNIX_MS),
            array(&[bytes(&thumbnail.id), bytes(&thumbnail.key), uint(1500)]),
        ]);
        body(1, "tintype 1 manifest", &public, &secret)
    }

    pub fn part(chunk: &Chunk, count: usize) -> Vec<u8> {
        let public = array(&[uint(1), array(&vec![chunk_ref(chunk); count])]);
        let secret = array(&[uint(1), array(&vec![bytes(&chunk.key); count])]);
        body(2, "tintype 1 part", &public, &secret)
    }

    pub fn large() -> Vec<Vec<u8>> {
        let full = chunk(&pattern(1 << 20), 64 << 10);
        let parts = [part(&full, 8192), part(&full, 808)];
        let listed = [(&parts[0], 8192), (&parts[1], 808)]
            .map(|(part, count)| array(&[bytes(blake3::hash(part).as_bytes()), uint(count)]));
        let root = manifest(&[], &listed, LARGE_BYTES);
        parts.into_iter().chain([root]).collect()
    }
}

/// Parts are too long to be listed: their length and id stand for them.
fn manifest_lines(whole: &[u8], large: &[&[u8]]) -> Vec<Line> {
    let id = |bytes: &[u8]| hex(blake3::hash(bytes).as_bytes());
    let [first, second, root] = large else { panic!("two parts and a root") };
    vec![
        line("manifest", whole),
        ("manifest_id".into(), id(whole)),
        ("part_0_bytes".into(), first.len().to_string()),
        ("part_0_id".into(), id(first)),
        ("part_1_bytes".into(), second.len().to_string()),
        ("part_1_id".into(), id(second)),
        line("root", root),
        ("root_id".into(), id(root)),
    ]
}

#[test]
fn manifests() {
    const FILE: &str = include_str!("../../tests/vectors/manifest.txt");
    let keys = UserKeys::derive(&UserSecret::from_random(Zeroizing::new(secret())));
    let whole = manifest::seal(&keys, 7, &plan(&keys, OBJECT_BYTES)).expect("seals");
    let large = manifest::seal(&keys, 7, &plan(&keys, LARGE_BYTES)).expect("seals");
    let large_bytes: Vec<&[u8]> = large.iter().map(|body| &body.bytes[..]).collect();
    compare("manifest.txt", FILE, "made", &manifest_lines(&whole[0].bytes, &large_bytes));

    let full = again::chunk(&pattern(1 << 20), 64 << 10);
    let last = again::chunk(&pattern(1500), 64 << 10);
    let whole = manifest_again::manifest(&[&full, &full, &last], &[], OBJECT_BYTES);
    let large = manifest_again::large();
    let large_bytes: Vec<&[u8]> = large.iter().map(|body| &body[..]).collect();
    compare("manifest.txt", FILE, "recomputed", &manifest_lines(&whole, &large_bytes));
}

// ---- registers ----

mod register_again {
    use super::{again::*, *};

    /// All fields but entry and signature, in order; `entry` goes in behind the tag.
    fn fields(version: u64, previous: &[u8; 32], flags: u64, requests: &[[u8; 16]]) -> Vec<Vec<u8>> {
        vec![
            uint(1),
            bytes(&object(NAME_NFC)),
            uint(version),
            bytes(previous),
            bytes(&[0x4d; 32]),
            bytes(&owner()),
            bytes(&tag(NAME_NFC)),
            uint(flags),
            uint(11),
            array(&requests.iter().map(|id| bytes(id)).collect::<Vec<_>>()),
        ]
    }

    pub fn register(version: u64, previous: &[u8; 32], flags: u64, requests: &[[u8; 16]]) -> Vec<u8> {
        let thumbnail = chunk(&pattern(1500), 1 << 10);
        let secret = array(&[
            uint(1),
            text(NAME_NFC),
            uint(OBJECT_BYTES),
            text("image/png"),
            uint(UNIX_MS),
            array(&[bytes(&thumbnail.id), bytes(&thumbnail.key), uint(1500)]),
        ]);
        let mut fields = fields(version, previous, flags, requests);
        let entry = sealed("tintype 1 entry", &object(NAME_NFC), version, &array(&fields), &secret);
        fields.insert(7, bytes(&entry));
        let signed = array(&[vec![text("tintype 1 register")], fields.clone()].concat());
        fields.push(bytes(&signer().sign(&signed)));
        array(&fields)
    }

    pub fn list_proof(client: &PeerId, server: &PeerId, after: Option<[u8; 32]>) -> Vec<u8> {
        signer().sign(&array(&[
            text("tintype 1 list"),
            bytes(&client.to_bytes()),
            uint(0),
            bytes(&server.to_bytes()),
            uint(300),
            bytes(&[0x6e; 16]),
            after.map_or(null(), |id| bytes(&id)),
        ]))
    }
}

fn peer(byte: u8) -> PeerId {
    let secret = ed25519::SecretKey::try_from_bytes([byte; 32]).expect("a seed");
    libp2p_identity::Keypair::from(ed25519::Keypair::from(secret)).public().to_peer_id()
}

#[test]
fn registers() {
    const FILE: &str = include_str!("../../tests/vectors/register.txt");
    let keys = UserKeys::derive(&UserSecret::from_random(Zeroizing::new(secret())));
    let info = plan(&keys, OBJECT_BYTES).info;
    let request = |byte| RequestId([byte; 16]);
    let first = RegisterPlan {
        info: &info,
        version: 1,
        previous: Digest::ZERO,
        manifest: Some(BodyId([0x4d; 32])),
        tombstone: false,
        fence: 11,
        requests: vec![request(1)],
    };
    let register = register::sign(&keys, &first).expect("signs");
    let requests = vec![request(1), request(2)];
    let second = RegisterPlan { version: 2, previous: register.hash(), tombstone: true, requests, ..first };
    let tombstone = register::sign(&keys, &second).expect("signs");
    let (client, server) = (peer(1), peer(2));
    let claim = ListClaim {
        client: &client,
        client_boot: 0,
        server: &server,
        server_boot: 300,
        nonce: &[0x6e; 16],
        after: None,
    };
    let after = ListClaim { after: Some(ObjectId([7; 32])), ..claim };
    let made = [
        line("register", register.bytes()),
        line("tombstone", tombstone.bytes()),
        line("list_proof", &register::list_proof(&keys, &claim)),
        line("list_proof_after", &register::list_proof(&keys, &after)),
    ];
    compare("register.txt", FILE, "made", &made);

    let register = register_again::register(1, &[0; 32], 0, &[[1; 16]]);
    let previous = *blake3::hash(&register).as_bytes();
    let tombstone = register_again::register(2, &previous, 1, &[[1; 16], [2; 16]]);
    let recomputed = [
        line("register", &register),
        line("tombstone", &tombstone),
        line("list_proof", &register_again::list_proof(&client, &server, None)),
        line("list_proof_after", &register_again::list_proof(&client, &server, Some([7; 32]))),
    ];
    compare("register.txt", FILE, "recomputed", &recomputed);
}

/// The vectors are readable by the program too, not only written by it.
#[test]
fn what_the_files_say_opens() {
    let value = |file: &'static str, name: &str| {
        let found = file.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(" = "));
        let text = found.expect("the vector is there");
        (0..text.len() / 2)
            .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex"))
            .collect::<Vec<u8>>()
    };
    let keys = UserKeys::derive(&UserSecret::from_random(Zeroizing::new(secret())));
    let expected = plan(&keys, OBJECT_BYTES);
    let object = keys.address(&expected.info.name).object;
    let bytes = value(include_str!("../../tests/vectors/manifest.txt"), "manifest");
    let opened = manifest::open(&keys, &object, 7, &chunk::body_id(&bytes), &bytes).expect("opens");
    assert_eq!(opened.info, expected.info);
    let bytes = value(include_str!("../../tests/vectors/register.txt"), "tombstone");
    let register = register::verify(&bytes).expect("is believed");
    assert!(register.is_tombstone() && register.version == 2);
    assert_eq!(register::open_entry(&keys, &register), Ok(expected.info));
}
