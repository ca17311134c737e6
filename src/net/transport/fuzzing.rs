//! What must hold of any bytes in the admission exchange.
//!
//! For fuzzers and property tests only: no program is built with it. The keys are those of the test vectors.

use std::sync::LazyLock;

use futures::FutureExt;
use libp2p::{Multiaddr, PeerId, identity::Keypair};

use super::{
    Error, Gate, Keys, Me, OwnStarts,
    admission::{self, MAGIC, Said, Words},
    refusal::Refusal,
    tls,
};
use crate::{
    model::{
        FoundingId, Incarnation, ProcessId,
        fuzzing::canonical,
        hello::{BootMark, Hello, Kind, KnownPeer, Side},
        limits,
    },
    seal::admission::{Answer, ClusterKey, Meeting, same_proof},
};

/// What a stranger shows as its certificate, before anything is known of it.
pub fn certificate(bytes: &[u8]) -> bool {
    tls::fuzz(bytes)
}

/// A good input of [`certificate`], another one each time.
pub fn fresh_certificate() -> Vec<u8> {
    tls::fresh_certificate()
}

impl Words for &[u8] {
    async fn read(&mut self, into: &mut [u8]) -> Result<(), Error> {
        let (here, rest) = self.split_at_checked(into.len()).ok_or(Error::Refusing(Refusal::BadHello))?;
        into.copy_from_slice(here);
        *self = rest;
        Ok(())
    }
}

/// A listener, a dialer, and somebody that the listener has met.
struct Scene {
    listener: PeerId,
    dialer: PeerId,
    key: ClusterKey,
    addr: Multiaddr,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let peer = |seed: u8| Keypair::ed25519_from_bytes([seed; 32]).expect("a seed").public().to_peer_id();
    Scene {
        dialer: peer(1),
        listener: peer(2),
        key: ClusterKey::from_bytes(std::array::from_fn(|i| i as u8)),
        addr: "/ip4/127.0.0.1/udp/1/quic-v1".parse().expect("an address"),
    }
});

/// All that a stranger says before it is admitted, as a dialer and as a listener: what is read is exactly
/// what was there, and without the key no proof fits.
pub fn admission(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let offer = now(admission::read_offer(&mut rest));
    if let Some(said) = &offer {
        let again = admission::said_bytes(&[&MAGIC], &said.bytes, &said.proof);
        assert_eq!([&again, rest].concat(), bytes, "other words than were said");
        assert_eq!(said.hello.side, Side::Dialer);
        prove(said, None);
        judge(&said.hello);
    }
    let mut rest = bytes;
    let answer = now(admission::read_answer(&mut rest));
    if let Some((verdict, said)) = &answer {
        let again = admission::said_bytes(&[&MAGIC, &verdict.to_be_bytes()], &said.bytes, &said.proof);
        assert_eq!([&again, rest].concat(), bytes, "other words than were said");
        assert_eq!(said.hello.side, Side::Listener);
        prove(said, Some(*verdict));
        assert!(Refusal::from_code((*verdict).into()).is_none_or(|refusal| refusal.code() == *verdict));
        judge(&said.hello);
    }
    offer.is_some() || answer.is_some()
}

/// The hello alone, and what follows from it once its proof was right.
pub fn hello(bytes: &[u8]) -> bool {
    let Some(hello) = canonical(bytes, Hello::decode, Hello::encode) else { return false };
    assert!(bytes.len() <= limits::HELLO_BYTES_MAX && hello.name.len() <= limits::DISPLAY_NAME_BYTES_MAX);
    judge(&hello);
    true
}

/// What is there can be read at once.
fn now<T>(reading: impl Future<Output = Result<T, Error>>) -> Option<T> {
    match reading.now_or_never().expect("bytes in memory are there") {
        Ok(read) => Some(read),
        Err(error) => {
            assert!(error.refusal().is_some(), "a stranger is not told why: {error}");
            None
        }
    }
}

/// Of a connection with an exporter that nobody else knows.
fn prove(said: &Said, verdict: Option<u32>) {
    let Scene { listener, dialer, key, .. } = &*SCENE;
    let meeting = |dialer_hello| Meeting { dialer, listener, exporter: &[7; 32], dialer_hello };
    for key in [key.member_key(), key.client_right().client_key()] {
        let right = match verdict {
            None => key.dialer_proof(&meeting(&said.bytes)),
            Some(verdict) => key.listener_proof(&meeting(b""), &Answer { verdict, hello: &said.bytes }),
        };
        assert!(!same_proof(&right, &said.proof), "a proof without the key");
    }
}

/// By a founded node that has met the dialer before, and by a fresh one.
fn judge(hello: &Hello) {
    let Scene { listener, dialer, key, addr } = &*SCENE;
    let incarnation = Incarnation([3; 16]);
    let mark = |boot, byte| BootMark { boot, process: ProcessId([byte; 16]) };
    for founding in [None, Some(FoundingId([4; 16]))] {
        let me = Me {
            peer: *listener,
            kind: Kind::Member,
            mark: mark(301, 9),
            promises: 7000,
            incarnation: Some(Incarnation([6; 16])),
            founding,
            name: "desk".into(),
        };
        let starts = OwnStarts::new([mark(300, 2), me.mark]);
        let known = KnownPeer { mark: mark(3, 1), promises: 40, incarnation };
        let (gate, _events) = Gate::new(me, Keys::Cluster(key.clone()), starts, [(*dialer, known)]);
        if founding.is_some() {
            gate.bind_members([(*dialer, incarnation), (*listener, Incarnation([6; 16]))]);
        }
        assert_eq!(gate.role_key(hello.kind).is_ok(), matches!(hello.kind, Kind::Member | Kind::Client));
        let judged = gate.judge(dialer, hello);
        assert_eq!(gate.judge(dialer, hello), judged, "judged in two ways");
        assert!(hello.kind == Kind::Member || !gate.rolled_back(), "no member, and it stops a node");
        let admitted = gate.admit(*dialer, hello.clone(), addr.clone(), Side::Listener);
        assert_eq!(admitted.as_ref().err().copied(), judged.err());
        assert_eq!(gate.kind(dialer), admitted.is_ok().then_some(hello.kind));
        assert!(gate.judge(listener, hello).is_err(), "a node meets itself");
        drop(admitted);
        assert_eq!(gate.connected(hello.kind), 0);
    }
}
