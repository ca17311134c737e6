//! The cluster's key, the rights derived from it, and the proof that a fresh connection asks for.
//!
//! It turns bytes into bytes. It must never print a key except through `to_text`, and never compare a
//! proof in time that depends on its bytes.
//!
//! A proof is keyed BLAKE3 (<https://github.com/BLAKE3-team/BLAKE3-specs>) over both PeerIds, the TLS
//! exporter (RFC 8446, 7.5) of one connection and the hellos byte for byte, so it proves nothing on any
//! other connection, in the other direction, or after any change to what was said.

use libp2p_identity::PeerId;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::model::hello::Side;

/// Bytes of a proof.
pub const PROOF_BYTES: usize = 32;
/// Bytes of the TLS exporter that a proof covers.
pub const EXPORTER_BYTES: usize = 32;
/// The exporter's label; its context is empty.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-tintype-admission-1";

const KEY_BYTES: usize = 32;
const CHECK_BYTES: usize = 4;
const CLUSTER_PREFIX: &str = "tintype-cluster-1:";
const CLIENT_PREFIX: &str = "tintype-client-1:";
const PROOF_CONTEXT: &[u8] = b"tintype 1 admission proof";
const MEMBER_CONTEXT: &str = "tintype 1 admission member";
const CLIENT_CONTEXT: &str = "tintype 1 admission client";
const TICKET_CONTEXT: &str = "tintype 1 admission ticket";
const TAG_CONTEXT: &str = "tintype 1 admission tag";
const CHECK_CONTEXT: &str = "tintype 1 admission key check";

/// Why a text is not the key that it should be. Each message is one sentence for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text begins with something else.
    #[error("this is not a {expected} key: it should begin with `{prefix}`")]
    Prefix {
        /// What kind of key was wanted, in words.
        expected: &'static str,
        /// How its text begins.
        prefix: &'static str,
    },
    /// The right kind of key, of a version that this program does not know.
    #[error("this key is of a newer version than this program knows: update tintype")]
    Version,
    /// Too short or too long.
    #[error("the key has {found} characters after `{prefix}` where {wanted} belong: copy the whole line")]
    Length {
        /// How the text begins.
        prefix: &'static str,
        /// Characters found after the prefix.
        found: usize,
        /// Characters that belong there.
        wanted: usize,
    },
    /// Something that is no hexadecimal digit.
    #[error("character {at} of the key is not one of 0-9 and a-f: copy the key again")]
    Digit {
        /// Its place after the prefix, from 1.
        at: usize,
    },
    /// The check digits do not fit.
    #[error("the key is mistyped or damaged, its check digits do not fit: copy it again")]
    Check,
}

/// The right to become a member: 32 random bytes, text `tintype-cluster-1:…`. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey(Zeroizing<[u8; KEY_BYTES]>);

/// The right to be a client and no more, derived one way from the cluster key. Wiped when dropped.
///
/// It is symmetric: who holds it can also answer *another client* as a node would. Such a holder can
/// refuse service, and can neither read nor forge pictures.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientRight(Zeroizing<[u8; KEY_BYTES]>);

/// What proofs of one role are keyed with. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct RoleKey(Zeroizing<[u8; KEY_BYTES]>);

/// A public name of a cluster key: shows that two keys differ and nothing else about them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterTag(pub [u8; 8]);

/// What both ends of one connection know before anything is proved.
#[derive(Clone, Copy, Debug)]
pub struct Meeting<'a> {
    /// The end that opened the connection.
    pub dialer: &'a PeerId,
    /// The end that accepted it.
    pub listener: &'a PeerId,
    /// The TLS exporter of this very connection.
    pub exporter: &'a [u8; EXPORTER_BYTES],
    /// The dialer's hello, byte for byte.
    pub dialer_hello: &'a [u8],
}

/// What the listener says back, byte for byte.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// 0 for admitted, else the code of the refusal.
    pub verdict: u32,
    /// The listener's hello.
    pub hello: &'a [u8],
}

impl ClusterKey {
    /// From 32 random bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads the text form; white space around it is ignored.
    ///
    /// # Errors
    /// [`KeyError`], one sentence for a person.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        parse_key(text, "cluster", CLUSTER_PREFIX).map(Self)
    }

    /// The text form, on one line without its end. It *is* the secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        print_key(CLUSTER_PREFIX, &self.0)
    }

    /// The key of proofs between members.
    pub fn member_key(&self) -> RoleKey {
        RoleKey(derive(MEMBER_CONTEXT, &self.0[..]))
    }

    /// The client right of this cluster.
    pub fn client_right(&self) -> ClientRight {
        ClientRight(derive(CLIENT_CONTEXT, &self.0[..]))
    }

    /// The public name of this key.
    pub fn tag(&self) -> ClusterTag {
        self.client_right().tag()
    }
}

impl ClientRight {
    /// Reads the text form; white space around it is ignored.
    ///
    /// # Errors
    /// [`KeyError`], one sentence for a person.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        parse_key(text, "client", CLIENT_PREFIX).map(Self)
    }

    /// The text form, on one line without its end. It *is* the secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        print_key(CLIENT_PREFIX, &self.0)
    }

    /// The key of proofs between a client and a node.
    pub fn client_key(&self) -> RoleKey {
        RoleKey(self.0.clone())
    }

    /// The public name of the cluster key behind this right.
    pub fn tag(&self) -> ClusterTag {
        let full = derive(TAG_CONTEXT, &self.0[..]);
        let mut tag = [0; 8];
        tag.copy_from_slice(&full[..8]);
        ClusterTag(tag)
    }
}

impl RoleKey {
    /// The key of proofs for the holder of a ticket's secret.
    pub fn of_ticket(secret: &[u8; KEY_BYTES]) -> Self {
        Self(derive(TICKET_CONTEXT, secret))
    }

    /// The dialer's proof, made and checked before the listener has said anything.
    pub fn dialer_proof(&self, meeting: &Meeting<'_>) -> [u8; PROOF_BYTES] {
        self.proof(Side::Dialer, meeting, None)
    }

    /// The listener's proof; it covers its answer too.
    pub fn listener_proof(&self, meeting: &Meeting<'_>, answer: &Answer<'_>) -> [u8; PROOF_BYTES] {
        self.proof(Side::Listener, meeting, Some(answer))
    }

    fn proof(&self, side: Side, meeting: &Meeting<'_>, answer: Option<&Answer<'_>>) -> [u8; PROOF_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        part(&mut hasher, PROOF_CONTEXT);
        part(&mut hasher, &[u8::from(side)]);
        part(&mut hasher, &meeting.dialer.to_bytes());
        part(&mut hasher, &meeting.listener.to_bytes());
        part(&mut hasher, meeting.exporter);
        part(&mut hasher, meeting.dialer_hello);
        if let Some(answer) = answer {
            part(&mut hasher, &answer.verdict.to_be_bytes());
            part(&mut hasher, answer.hello);
        }
        let proof = *hasher.finalize().as_bytes();
        hasher.zeroize();
        proof
    }
}

/// Whether two proofs are the same, in time that does not depend on where they differ.
pub fn same_proof(one: &[u8; PROOF_BYTES], other: &[u8; PROOF_BYTES]) -> bool {
    one.ct_eq(other).into()
}

/// One part of the hashed message; its length in front keeps parts from running into each other.
fn part(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_be_bytes());
    hasher.update(bytes);
}

fn derive(context: &str, secret: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
    Zeroizing::new(blake3::derive_key(context, secret))
}

fn print_key(prefix: &str, key: &[u8; KEY_BYTES]) -> Zeroizing<String> {
    // Room for all of it at once: a string that grows leaves copies of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + 2 * (KEY_BYTES + CHECK_BYTES)));
    text.push_str(prefix);
    let check = derive(CHECK_CONTEXT, key);
    for byte in key.iter().chain(&check[..CHECK_BYTES]) {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
        }
    }
    text
}

fn parse_key(
    text: &str,
    expected: &'static str,
    prefix: &'static str,
) -> Result<Zeroizing<[u8; KEY_BYTES]>, KeyError> {
    let text = text.trim();
    let family = prefix.trim_end_matches("1:");
    let Some(digits) = text.strip_prefix(prefix) else {
        let newer =
            text.strip_prefix(family).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        return Err(if newer { KeyError::Version } else { KeyError::Prefix { expected, prefix } });
    };
    let wanted = 2 * (KEY_BYTES + CHECK_BYTES);
    let found = digits.chars().count();
    if found != wanted {
        return Err(KeyError::Length { prefix, found, wanted });
    }
    let mut all = Zeroizing::new([0u8; KEY_BYTES + CHECK_BYTES]);
    for (at, digit) in digits.chars().enumerate() {
        let value = digit.to_digit(16).filter(|_| !digit.is_ascii_uppercase());
        let value = value.ok_or(KeyError::Digit { at: at + 1 })?;
        all[at / 2] = all[at / 2] << 4 | u8::try_from(value).map_err(|_| KeyError::Digit { at: at + 1 })?;
    }
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    key.copy_from_slice(&all[..KEY_BYTES]);
    let check = derive(CHECK_CONTEXT, &key[..]);
    if check[..CHECK_BYTES] != all[KEY_BYTES..] {
        return Err(KeyError::Check);
    }
    Ok(key)
}

impl std::fmt::Display for ClusterTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClusterKey(tag {})", self.tag())
    }
}

impl std::fmt::Debug for ClientRight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientRight(tag {})", self.tag())
    }
}

impl std::fmt::Debug for RoleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RoleKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use libp2p_identity::Keypair;
    use proptest::prelude::*;
    use serde_bytes::ByteBuf;

    use super::*;
    use crate::model::{
        FoundingId, Incarnation, ProcessId,
        hello::{BootMark, Hello, Kind, KnownPeer},
    };

    const VECTORS: &str = include_str!("../../tests/vectors/admission.txt");

    fn vectors() -> BTreeMap<&'static str, &'static str> {
        let lines = VECTORS.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.map(|line| line.split_once(" = ").expect("name = value")).collect()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn key(byte: u8) -> ClusterKey {
        ClusterKey::from_bytes([byte; 32])
    }

    fn peer(byte: u8) -> PeerId {
        Keypair::ed25519_from_bytes([byte; 32]).unwrap().public().to_peer_id()
    }

    fn member_hello() -> Hello {
        Hello {
            format: 1,
            versions: (1, 1),
            side: Side::Dialer,
            kind: Kind::Member,
            mark: BootMark { boot: 3, process: ProcessId([4; 16]) },
            promises: 40,
            known: Some(KnownPeer {
                mark: BootMark { boot: 2, process: ProcessId([5; 16]) },
                promises: 39,
                incarnation: Incarnation([6; 16]),
            }),
            incarnation: Some(Incarnation([6; 16])),
            founding: Some(FoundingId([7; 16])),
            features: 0,
            name: "desk".into(),
            software: "0.1.0".into(),
            ticket: ByteBuf::new(),
        }
    }

    fn look_hello(tag: ClusterTag) -> Hello {
        Hello {
            side: Side::Listener,
            kind: Kind::Look,
            mark: BootMark { boot: 0, process: ProcessId::ZERO },
            promises: 0,
            known: None,
            incarnation: None,
            founding: Some(FoundingId::ZERO),
            name: "attic".into(),
            ticket: ByteBuf::from(tag.0.to_vec()),
            ..member_hello()
        }
    }

    #[test]
    fn the_recorded_keys_tags_and_proofs_stay_what_they_are() {
        let vectors = vectors();
        let cluster = ClusterKey::from_bytes(std::array::from_fn(|i| i as u8));
        let right = cluster.client_right();
        let ticket = RoleKey::of_ticket(&[7; 32]);
        let (dialer, listener) = (peer(1), peer(2));
        let meeting = Meeting {
            dialer: &dialer,
            listener: &listener,
            exporter: &[3; 32],
            dialer_hello: b"the dialer's hello",
        };
        let answer = Answer { verdict: 0x7405, hello: b"the listener's hello" };
        let member = cluster.member_key();
        let found = [
            ("cluster", cluster.to_text().to_string()),
            ("client", right.to_text().to_string()),
            ("tag", cluster.tag().to_string()),
            ("member_key", hex(&member.0[..])),
            ("ticket_key", hex(&ticket.0[..])),
            ("dialer", dialer.to_string()),
            ("listener", listener.to_string()),
            ("dialer_proof", hex(&member.dialer_proof(&meeting))),
            ("listener_proof", hex(&member.listener_proof(&meeting, &answer))),
            ("client_dialer_proof", hex(&right.client_key().dialer_proof(&meeting))),
            ("hello_member", hex(&member_hello().encode())),
            ("hello_look", hex(&look_hello(cluster.tag()).encode())),
        ];
        assert_eq!(Hello::decode(&member_hello().encode()), Ok(member_hello()));
        assert_eq!(vectors.len(), found.len());
        for (name, value) in found {
            assert_eq!(vectors.get(name), Some(&value.as_str()), "{name}");
        }
    }

    #[test]
    fn keys_survive_their_text_and_every_mistake_has_its_own_sentence() {
        let cluster = key(9);
        let text = cluster.to_text();
        assert_eq!(ClusterKey::parse(&format!("  {}\n", *text)), Ok(cluster.clone()));
        let right = cluster.client_right();
        assert_eq!(ClientRight::parse(&right.to_text()), Ok(right.clone()));
        assert_eq!(right.tag(), cluster.tag());
        assert_ne!(key(8).tag(), cluster.tag());

        let wrong_kind = ClusterKey::parse(&right.to_text());
        assert!(matches!(wrong_kind, Err(KeyError::Prefix { prefix: CLUSTER_PREFIX, .. })), "{wrong_kind:?}");
        assert_eq!(ClusterKey::parse("tintype-cluster-2:00"), Err(KeyError::Version));
        let short = ClusterKey::parse(&text[..text.len() - 1]);
        assert!(matches!(short, Err(KeyError::Length { found: 71, wanted: 72, .. })), "{short:?}");
        let upper = text.replacen("09", "0G", 1);
        assert_eq!(ClusterKey::parse(&upper), Err(KeyError::Digit { at: 2 }));
        let mistyped = text.replacen("09", "08", 1);
        assert_eq!(ClusterKey::parse(&mistyped), Err(KeyError::Check));
        assert!(ClusterKey::parse("").is_err() && ClusterKey::parse("tintype-cluster-1:é").is_err());
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let cluster = key(0xab);
        let shown = format!("{cluster:?} {:?} {:?}", cluster.client_right(), cluster.member_key());
        assert!(!shown.contains("abab") && !shown.contains(&hex(&cluster.client_right().0[..])), "{shown}");
    }

    #[test]
    fn roles_never_share_a_key() {
        let cluster = key(1);
        let mut all = vec![cluster.0.to_vec(), cluster.member_key().0.to_vec()];
        all.push(cluster.client_right().client_key().0.to_vec());
        all.push(RoleKey::of_ticket(&[1; 32]).0.to_vec());
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn a_reflected_proof_never_verifies() {
        let (one, two) = (peer(1), peer(2));
        let key = key(5).member_key();
        let meeting = Meeting { dialer: &one, listener: &two, exporter: &[3; 32], dialer_hello: b"hello" };
        let turned = Meeting { dialer: &two, listener: &one, ..meeting };
        let dialer = key.dialer_proof(&meeting);
        for hello in [&b"hello"[..], b""] {
            let listener = key.listener_proof(&meeting, &Answer { verdict: 0, hello });
            assert!(!same_proof(&listener, &dialer));
        }
        assert!(!same_proof(&key.dialer_proof(&turned), &dialer));
    }

    proptest! {
        /// Whatever single byte of anything that is covered changes, the proof is another.
        #[test]
        fn any_flipped_byte_refuses(
            exporter in any::<[u8; 32]>(),
            hello in proptest::collection::vec(any::<u8>(), 1..64),
            answer in proptest::collection::vec(any::<u8>(), 1..64),
            verdict in any::<u32>(),
            at in any::<prop::sample::Index>(),
            flip in 1..=255u8,
        ) {
            let (one, two, three) = (peer(1), peer(2), peer(3));
            let key = key(5).member_key();
            let said = Meeting { dialer: &one, listener: &two, exporter: &exporter, dialer_hello: &hello };
            let replied = Answer { verdict, hello: &answer };
            let right = (key.dialer_proof(&said), key.listener_proof(&said, &replied));
            let differs = |meeting: &Meeting<'_>, answer: &Answer<'_>| {
                !same_proof(&key.listener_proof(meeting, answer), &right.1)
            };
            let flipped = |bytes: &[u8]| {
                let mut bytes = bytes.to_vec();
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
                bytes
            };
            let other_exporter: [u8; 32] = flipped(&exporter).try_into().unwrap();
            let other_hello = flipped(&hello);
            for meeting in [
                Meeting { exporter: &other_exporter, ..said },
                Meeting { dialer_hello: &other_hello, ..said },
                Meeting { dialer: &three, ..said },
                Meeting { listener: &three, ..said },
            ] {
                prop_assert!(!same_proof(&key.dialer_proof(&meeting), &right.0));
                prop_assert!(differs(&meeting, &replied));
            }
            let other_answer = flipped(&answer);
            for answer in [
                Answer { hello: &other_answer, ..replied },
                Answer { verdict: verdict ^ u32::from(flip), ..replied },
            ] {
                prop_assert!(differs(&said, &answer));
            }
            let other_key = ClusterKey::from_bytes([6; 32]).member_key();
            prop_assert!(!same_proof(&other_key.dialer_proof(&said), &right.0));
        }
    }
}
