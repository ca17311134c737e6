//! The transport over real QUIC on loopback: wire compatibility, admission, attackers, exits and crashes.
//!
//! Each node of a test is a task that owns its transport; tests talk to it through channels and never
//! sleep for luck: they wait for a condition with a deadline.

#![allow(clippy::disallowed_methods)] // a test of timeouts reads the clock

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    time::{Duration, Instant},
};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport,
    core::{
        Endpoint,
        muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
        transport::{DialOpts, ListenerId, PortUse, TransportEvent},
    },
    gossipsub,
    identity::Keypair,
    multiaddr::Protocol,
    swarm::{DialError, SwarmEvent},
};
use serde_bytes::ByteBuf;
use tintype::{
    model::{
        FoundingId, Incarnation, Millis, ProcessId,
        hello::{BootMark, Hello, Kind, Side},
        limits,
    },
    net::transport::{
        self, Error, Gate, GateEvent, Handle, Keys, KnownPeer, Me, OwnStarts, Refusal, SwarmTransport,
        TransportConfig,
    },
    seal::admission::ClusterKey,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use crate::cluster::{PROGRAM, ends, finish};

type Conn = (PeerId, StreamMuxerBox);

/// Far above anything that a loaded machine needs, far below what a person waits for.
const SOON: Duration = Duration::from_secs(8);
const MAGIC: &[u8; 8] = b"tintype\x01";

// ---- the harness ----

/// A listening transport in a task of its own.
struct Node {
    peer: PeerId,
    gate: Gate,
    events: mpsc::Receiver<GateEvent>,
    handle: Handle,
    addr: Multiaddr,
    incoming: mpsc::Receiver<io::Result<Conn>>,
    dials: mpsc::Sender<(Multiaddr, oneshot::Sender<io::Result<Conn>>)>,
    task: JoinHandle<()>,
}

fn keypair(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn mark(boot: u64, process: u8) -> BootMark {
    BootMark { boot, process: ProcessId([process; 16]) }
}

fn cluster(byte: u8) -> Keys {
    Keys::Cluster(ClusterKey::from_bytes([byte; 32]))
}

fn member(keypair: &Keypair, seed: u8) -> Me {
    Me {
        peer: keypair.public().to_peer_id(),
        kind: Kind::Member,
        mark: mark(3, seed),
        promises: 0,
        incarnation: Some(Incarnation([seed; 16])),
        founding: None,
        name: format!("node {seed}"),
    }
}

impl Node {
    async fn member(seed: u8) -> Node {
        let keypair = keypair(seed);
        let me = member(&keypair, seed);
        Node::start(&keypair, me, cluster(1), TransportConfig::default(), "127.0.0.1", 0).await
    }

    async fn with(seed: u8, change: impl FnOnce(&mut Me)) -> Node {
        let keypair = keypair(seed);
        let mut me = member(&keypair, seed);
        change(&mut me);
        Node::start(&keypair, me, cluster(1), TransportConfig::default(), "127.0.0.1", 0).await
    }

    async fn start(
        keypair: &Keypair,
        me: Me,
        keys: Keys,
        config: TransportConfig,
        ip: &str,
        port: u16,
    ) -> Node {
        let starts = OwnStarts::new([mark(1, 1), mark(2, 2), me.mark]);
        let (gate, events) = Gate::new(me, keys, starts, []);
        let (transport, handle) = transport::build(keypair, gate.clone(), config).unwrap();
        let (addr, incoming, dials, task) = run(transport, ip, port).await;
        let peer = keypair.public().to_peer_id();
        Node { peer, gate, events, handle, addr, incoming, dials, task }
    }

    async fn dial(&self, addr: &Multiaddr) -> Result<Conn, Error> {
        let (answer, receiver) = oneshot::channel();
        self.dials.send((addr.clone(), answer)).await.unwrap();
        timeout(SOON, receiver).await.expect("a dial ends").unwrap().map_err(own_error)
    }

    async fn accepted(&mut self) -> Result<Conn, Error> {
        timeout(SOON, self.incoming.recv()).await.expect("somebody comes").unwrap().map_err(own_error)
    }

    async fn event(&mut self) -> GateEvent {
        timeout(SOON, self.events.recv()).await.expect("an event").unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn own_error(error: io::Error) -> Error {
    error.downcast::<Error>().expect("our transport's own error")
}

type Running = (
    Multiaddr,
    mpsc::Receiver<io::Result<Conn>>,
    mpsc::Sender<(Multiaddr, oneshot::Sender<io::Result<Conn>>)>,
    JoinHandle<()>,
);

/// Listens and serves dials until the task is aborted; upgrades run in tasks, as in a swarm.
async fn run(mut transport: SwarmTransport, ip: &str, port: u16) -> Running {
    let at: Multiaddr = format!("/ip4/{ip}/udp/{port}/quic-v1").parse().unwrap();
    transport.listen_on(ListenerId::next(), at).unwrap();
    let TransportEvent::NewAddress { listen_addr, .. } = transport.next().await.unwrap() else {
        panic!("the address comes first");
    };
    let (incoming_tx, incoming) = mpsc::channel(1024);
    let (dials, mut dials_rx) = mpsc::channel::<(Multiaddr, oneshot::Sender<io::Result<Conn>>)>(64);
    let task = tokio::spawn(async move {
        let mut upgrades = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                event = transport.next() => {
                    if let Some(TransportEvent::Incoming { upgrade, .. }) = event {
                        let incoming = incoming_tx.clone();
                        upgrades.spawn(async move { let _ = incoming.send(upgrade.await).await; });
                    }
                }
                dial = dials_rx.recv() => {
                    let Some((addr, answer)) = dial else { return };
                    let dial = transport.dial(addr, dial_options()).unwrap();
                    upgrades.spawn(async move { let _ = answer.send(dial.await); });
                }
                Some(_) = upgrades.join_next() => {}
            }
        }
    });
    (listen_addr, incoming, dials, task)
}

pub(super) fn dial_options() -> DialOpts {
    DialOpts { role: Endpoint::Dialer, port_use: PortUse::Reuse }
}

/// libp2p's own QUIC, without any admission.
pub(super) fn stock(keypair: &Keypair) -> SwarmTransport {
    libp2p_quic::tokio::Transport::new(libp2p_quic::Config::new(keypair))
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed()
}

/// A stranger's raw connection, past TLS and before admission.
pub(super) async fn stranger(addr: &Multiaddr) -> io::Result<StreamMuxerBox> {
    let mut transport = stock(&Keypair::generate_ed25519());
    Ok(transport.dial(addr.clone(), dial_options()).unwrap().await?.1)
}

pub(super) async fn open(muxer: &mut StreamMuxerBox) -> io::Result<SubstreamBox> {
    poll_fn(|cx| muxer.poll_outbound_unpin(cx)).await
}

async fn accept(muxer: &mut StreamMuxerBox) -> io::Result<SubstreamBox> {
    poll_fn(|cx| muxer.poll_inbound_unpin(cx)).await
}

/// Why a connection ended, once it has.
pub(super) async fn end_of(muxer: &mut StreamMuxerBox) -> io::Error {
    let end = async {
        loop {
            if let Err(error) = accept(muxer).await {
                return error;
            }
        }
    };
    timeout(SOON, end).await.expect("the connection ends")
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "in vain waited for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Sends `len` bytes and wants them back.
async fn echo(one: &mut StreamMuxerBox, other: &mut StreamMuxerBox, len: usize) {
    let sent: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8).collect();
    let there = async {
        let (mut reader, mut writer) = open(one).await.unwrap().split();
        let mut back = vec![0; len];
        let write = async {
            writer.write_all(&sent).await.unwrap();
            writer.close().await.unwrap();
        };
        futures::join!(write, async { reader.read_exact(&mut back).await.unwrap() });
        assert_eq!(reader.read(&mut [0]).await.unwrap(), 0, "a closed stream ends");
        assert!(back == sent, "what came back is not what was sent");
    };
    let here = async {
        let (reader, mut writer) = accept(other).await.unwrap().split();
        futures::io::copy(reader, &mut writer).await.unwrap();
        writer.close().await.unwrap();
    };
    timeout(SOON, async { futures::join!(there, here) }).await.expect("the echo ends");
}

fn admission_bytes(hello: &[u8], proof: &[u8; 32]) -> Vec<u8> {
    let length = (hello.len() as u16).to_be_bytes();
    [&MAGIC[..], &length, hello, proof].concat()
}

// ---- the wire ----

#[tokio::test]
async fn stock_libp2p_and_we_understand_each_other_both_ways() {
    let config = TransportConfig { admission: false, ..TransportConfig::default() };
    let key = keypair(1);
    let mut ours = Node::start(&key, member(&key, 1), cluster(1), config, "127.0.0.1", 0).await;
    let other = keypair(2);
    let (addr, mut incoming, dials, task) = run(stock(&other), "127.0.0.1", 0).await;

    let (peer, mut out) = ours.dial(&addr).await.unwrap();
    assert_eq!(peer, other.public().to_peer_id());
    let (peer, mut inc) = incoming.recv().await.unwrap().unwrap();
    assert_eq!(peer, ours.peer);
    echo(&mut out, &mut inc, 3 << 20).await;
    echo(&mut inc, &mut out, 1 << 20).await;

    let (answer, dialled) = oneshot::channel();
    let with_peer = ours.addr.clone().with(Protocol::P2p(ours.peer));
    dials.send((with_peer, answer)).await.unwrap();
    let mut out = dialled.await.unwrap().unwrap().1;
    let mut inc = ours.accepted().await.unwrap().1;
    echo(&mut out, &mut inc, 3 << 20).await;
    assert!(ours.handle.traffic().read >= 7 << 20, "{:?}", ours.handle.traffic());
    task.abort();
}

#[tokio::test]
async fn the_right_key_lets_members_and_clients_in_and_says_who_they_are() {
    let mut a = Node::member(1).await;
    let b = Node::member(2).await;
    let (peer, mut out) = b.dial(&a.addr.clone().with(Protocol::P2p(a.peer))).await.unwrap();
    assert_eq!(peer, a.peer);
    let (peer, mut inc) = a.accepted().await.unwrap();
    assert_eq!(peer, b.peer);
    let before = b.handle.traffic();
    echo(&mut out, &mut inc, 2 << 20).await;
    let after = b.handle.traffic();
    assert_eq!((after.written - before.written, after.read - before.read), (2 << 20, 2 << 20));
    assert_eq!((a.gate.kind(&b.peer), b.gate.kind(&a.peer)), (Some(Kind::Member), Some(Kind::Member)));
    let GateEvent::Admitted { peer, hello, addr, side, newer_start } = a.event().await else { panic!() };
    assert_eq!((peer, hello.mark, side, newer_start), (b.peer, mark(3, 2), Side::Listener, false));
    assert_eq!(addr, b.addr, "a dial leaves from the listening port");

    let key = keypair(3);
    let right = ClusterKey::from_bytes([1; 32]).client_right();
    let me = Me { kind: Kind::Client, mark: mark(0, 3), incarnation: None, ..member(&key, 3) };
    let client = Node::start(&key, me, Keys::Client(right), TransportConfig::default(), "127.0.0.1", 0).await;
    let (_, mut out) = client.dial(&a.addr).await.unwrap();
    let (_, mut inc) = a.accepted().await.unwrap();
    echo(&mut out, &mut inc, 1 << 10).await;
    assert_eq!(
        (a.gate.kind(&client.peer), client.gate.kind(&a.peer)),
        (Some(Kind::Client), Some(Kind::Member))
    );
    assert_eq!((a.gate.connected(Kind::Client), a.gate.connected(Kind::Member)), (1, 1));
    drop((out, inc));
    until("the client to be gone", || a.gate.connected(Kind::Client) == 0).await;
    // A node never takes a client for a node, and a client has nothing to admit a member with.
    let refused = a.dial(&client.addr).await.unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::WrongKey), "{refused}");
}

#[tokio::test]
async fn another_key_is_a_failed_dial_that_says_so_on_both_sides() {
    let mut a = Node::member(1).await;
    let key = keypair(2);
    let config = TransportConfig::default();
    let mut b = Node::start(&key, member(&key, 2), cluster(2), config, "127.0.0.1", 0).await;
    let refused = b.dial(&a.addr).await.unwrap_err();
    assert!(matches!(refused, Error::RefusedBy(Refusal::WrongKey)), "{refused}");
    let refusing = a.accepted().await.unwrap_err();
    assert!(matches!(refusing, Error::Refusing(Refusal::WrongKey)), "{refusing}");
    // Both count it: the one that refused, and the one that was refused.
    assert_eq!((a.gate.kind(&b.peer), a.gate.refused_total(), b.gate.refused_total()), (None, 1, 1));
    assert_eq!(a.gate.refused().get(&Refusal::WrongKey), Some(&1));
    let GateEvent::Refused { peer, by_them: false, .. } = a.event().await else { panic!() };
    assert_eq!(peer, Some(b.peer));
    assert!(matches!(b.event().await, GateEvent::Refused { by_them: true, refusal: Refusal::WrongKey, .. }));
}

#[tokio::test]
async fn the_dialled_identity_must_answer_and_never_our_own() {
    let a = Node::member(1).await;
    let b = Node::member(2).await;
    let wrong = b.dial(&a.addr.clone().with(Protocol::P2p(PeerId::random()))).await.unwrap_err();
    assert!(matches!(wrong, Error::OtherPeer(peer) if peer == a.peer), "{wrong}");
    let itself = a.dial(&a.addr).await.unwrap_err();
    assert!(matches!(itself, Error::Refusing(Refusal::OwnPeer)), "{itself}");
}

#[tokio::test]
async fn a_dial_at_the_same_time_gives_two_good_connections() {
    let mut a = Node::member(1).await;
    let mut b = Node::member(2).await;
    for _ in 0..20 {
        let (one, two) = futures::join!(a.dial(&b.addr), b.dial(&a.addr));
        let (mut one, mut two) = (one.unwrap().1, two.unwrap().1);
        let (mut three, mut four) = (b.accepted().await.unwrap().1, a.accepted().await.unwrap().1);
        echo(&mut one, &mut three, 100).await;
        echo(&mut two, &mut four, 100).await;
    }
}

// ---- streams and ends ----

#[tokio::test]
async fn a_stream_dropped_half_written_is_an_error_and_not_an_end() {
    let mut a = Node::member(1).await;
    let b = Node::member(2).await;
    let mut out = b.dial(&a.addr).await.unwrap().1;
    let mut inc = a.accepted().await.unwrap().1;
    for len in [10, 1 << 20] {
        let mut half = open(&mut out).await.unwrap();
        half.write_all(&vec![7; len]).await.unwrap();
        half.flush().await.unwrap();
        let mut reader = accept(&mut inc).await.unwrap();
        drop(half);
        let result =
            timeout(SOON, reader.read_to_end(&mut Vec::new())).await.expect("the reader learns of it");
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
    let mut whole = open(&mut out).await.unwrap();
    whole.write_all(b"all").await.unwrap();
    whole.close().await.unwrap();
    whole.close().await.unwrap();
    drop(whole);
    let mut read = Vec::new();
    accept(&mut inc).await.unwrap().read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"all");
}

#[tokio::test]
async fn an_orderly_exit_reaches_the_peers_before_any_timeout() {
    let mut a = Node::member(1).await;
    let (key, at_once) = (keypair(2), TransportConfig { admission_turn: Millis(0), ..Default::default() });
    let b = Node::start(&key, member(&key, 2), cluster(1), at_once, "127.0.0.1", 0).await;
    let mut out = b.dial(&a.addr).await.unwrap().1;
    let mut inc = a.accepted().await.unwrap().1;
    let leaving = Instant::now();
    let (end, ()) = futures::join!(end_of(&mut out), a.handle.close(Refusal::Leaving));
    assert!(matches!(own_error(end), Error::RefusedBy(Refusal::Leaving)));
    assert!(leaving.elapsed() < Duration::from(limits::QUIC_IDLE), "{:?}", leaving.elapsed());
    end_of(&mut inc).await;
    let late = b.dial(&a.addr).await;
    assert!(late.is_err());
    until("all connections to be gone", || b.handle.open_connections() == 0).await;
}

/// Connects, closes and ends, all in a runtime that is gone right after: as a command does.
fn short_lived(seed: u8, kind: Kind, addr: Multiaddr) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let node = Node::with(seed, |me| me.kind = kind).await;
        let kept = node.dial(&addr).await.unwrap();
        let start = Instant::now();
        node.handle.close(Refusal::Leaving).await;
        let took = start.elapsed();
        drop(kept);
        took
    })
}

#[tokio::test]
async fn a_process_that_ends_takes_leave_and_a_command_does_so_at_once() {
    let mut a = Node::member(1).await;
    let mut quickest = Duration::MAX;
    // On a busy machine one command may be late; that all are means that they wait for something.
    for (seed, kind) in [(2, Kind::Member), (3, Kind::Client), (4, Kind::Client), (5, Kind::Client)] {
        let addr = a.addr.clone();
        let thread = tokio::task::spawn_blocking(move || short_lived(seed, kind, addr));
        let mut inc = a.accepted().await.unwrap().1;
        let end = own_error(end_of(&mut inc).await);
        assert!(matches!(end, Error::RefusedBy(Refusal::Leaving)), "{end}");
        let took = thread.await.unwrap();
        if kind == Kind::Client {
            quickest = quickest.min(took);
        }
    }
    // Three probe timeouts, as QUIC drains a connection, would be more than this.
    assert!(quickest < 5 * Duration::from(limits::CLIENT_EXIT_PATIENCE), "{quickest:?}");
}

/// A node in a thread with a runtime of its own, so that it can die without a word.
fn mortal(key: &Keypair, port: u16, born: std::sync::mpsc::Sender<Multiaddr>, die: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = TransportConfig::default();
        let mut node = Node::start(key, member(key, 1), cluster(1), config, "127.0.0.1", port).await;
        born.send(node.addr.clone()).unwrap();
        let mut kept = Vec::new();
        tokio::select! {
            () = async { loop { kept.push(node.incoming.recv().await) } } => {}
            _ = die => {}
        }
    });
    // No task is polled any more, so nothing that the drops below want to send is sent: as after kill -9.
}

#[tokio::test]
async fn a_node_that_crashed_and_came_back_ends_its_old_connections_at_once() {
    let key = keypair(1);
    let (born_tx, born) = std::sync::mpsc::channel();
    let live = |port| {
        let (die, dies) = oneshot::channel();
        let (key, born) = (key.clone(), born_tx.clone());
        (die, std::thread::spawn(move || mortal(&key, port, born, dies)))
    };
    let (die, thread) = live(0);
    let addr = born.recv().unwrap();
    let Some(Protocol::Udp(port)) = addr.iter().nth(1) else { panic!("{addr}") };
    let b = Node::member(2).await;
    let mut out = b.dial(&addr).await.unwrap().1;

    die.send(()).unwrap();
    thread.join().unwrap();
    let (die, thread) = live(port);
    assert_eq!(born.recv().unwrap(), addr);
    let end = own_error(end_of(&mut out).await);
    assert!(matches!(end, Error::Connection(quinn::ConnectionError::Reset)), "{end}");
    drop(b.dial(&addr).await.unwrap());
    die.send(()).unwrap();
    thread.join().unwrap();
}

#[tokio::test]
async fn a_taken_port_is_an_error_of_its_own() {
    let taken = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (mut swarm, handle) = plain_swarm(1);
    let error = transport::listen_everywhere(&mut swarm, &handle, port).unwrap_err();
    assert!(matches!(error, Error::PortTaken(at) if at.port() == port), "{error}");
    drop(taken);
    assert_eq!(transport::listen_everywhere(&mut swarm, &handle, port).unwrap(), port);
    let sockets = handle.sockets();
    assert!(
        !sockets.is_empty() && sockets.iter().all(|s| s.listens && s.local.port() == port),
        "{sockets:?}"
    );
    assert!(sockets.iter().all(|s| s.receive_buffer_bytes > 0 && s.send_buffer_bytes > 0));
    let has_ipv6 = std::net::UdpSocket::bind("[::]:0").is_ok();
    assert_eq!(sockets.len(), if has_ipv6 { 2 } else { 1 }, "one socket per family");
    // The interfaces' addresses come by themselves.
    let has_loopback = async {
        while let Some(event) = swarm.next().await {
            if let SwarmEvent::NewListenAddr { address, .. } = event
                && address.to_string() == format!("/ip4/127.0.0.1/udp/{port}/quic-v1")
            {
                return;
            }
        }
    };
    timeout(SOON, has_loopback).await.expect("loopback is an interface");
    if has_ipv6 {
        let (over_v6, serve) =
            (format!("/ip6/::1/udp/{port}/quic-v1").parse().unwrap(), watch(&mut swarm, |_| false));
        tokio::select! {
            seen = transport::look(&over_v6) => assert_eq!(seen.unwrap().name, "node 1"),
            () = serve => {}
        }
    }
}

// ---- strangers ----

fn plain_swarm(seed: u8) -> (Swarm<libp2p::swarm::dummy::Behaviour>, Handle) {
    let key = keypair(seed);
    let (gate, _) = Gate::new(member(&key, seed), cluster(1), OwnStarts::new([mark(3, seed)]), []);
    let (transport, handle) = transport::build(&key, gate, TransportConfig::default()).unwrap();
    (swarm_over(transport, &key, libp2p::swarm::dummy::Behaviour), handle)
}

pub(super) fn swarm_over<B: libp2p::swarm::NetworkBehaviour>(
    transport: SwarmTransport,
    key: &Keypair,
    behaviour: B,
) -> Swarm<B> {
    let config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(SOON);
    Swarm::new(transport, behaviour, key.public().to_peer_id(), config)
}

pub(super) fn gossip(key: &Keypair) -> gossipsub::Behaviour {
    let authenticity = gossipsub::MessageAuthenticity::Signed(key.clone());
    let mut gossip: gossipsub::Behaviour =
        gossipsub::Behaviour::new(authenticity, gossipsub::Config::default()).unwrap();
    gossip.subscribe(&gossipsub::IdentTopic::new("chatter")).unwrap();
    gossip
}

/// Everything a swarm reports until `done` says so.
async fn watch<B: libp2p::swarm::NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    mut done: impl FnMut(&SwarmEvent<B::ToSwarm>) -> bool,
) {
    let watching = async { while !done(&swarm.select_next_some().await) {} };
    timeout(SOON, watching).await.expect("the swarm gets there");
}

#[tokio::test]
async fn a_stock_peer_is_refused_before_any_behaviour_meets_it() {
    let key = keypair(1);
    let (gate, _events) = Gate::new(member(&key, 1), cluster(1), OwnStarts::new([mark(3, 1)]), []);
    let (transport, _handle) = transport::build(&key, gate.clone(), TransportConfig::default()).unwrap();
    let mut ours = swarm_over(transport, &key, gossip(&key));
    ours.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()).unwrap();
    let mut addr = None;
    watch(&mut ours, |event| match event {
        SwarmEvent::NewListenAddr { address, .. } => addr.replace(address.clone()).is_none(),
        _ => false,
    })
    .await;

    let other = keypair(2);
    let mut theirs = swarm_over(stock(&other), &other, gossip(&other));
    theirs.dial(addr.clone().unwrap()).unwrap();
    let start = Instant::now();
    let refused = watch(&mut ours, |event| match event {
        SwarmEvent::IncomingConnection { .. } => false,
        SwarmEvent::IncomingConnectionError { error, .. } => {
            assert!(format!("{error:?}").contains("NotTintype"), "{error:?}");
            true
        }
        other => panic!("a stranger got as far as {other:?}"),
    });
    let closed = watch(&mut theirs, |event| matches!(event, SwarmEvent::ConnectionClosed { .. }));
    futures::join!(refused, closed);
    assert!(start.elapsed() < Duration::from(limits::ADMISSION_TIMEOUT), "refused at its first bytes");
    assert_eq!(gate.kind(&other.public().to_peer_id()), None);
    assert_eq!(gate.refused().get(&Refusal::NotTintype), Some(&1));

    // The same two swarms with our transport and one key do meet, gossipsub included.
    let (gate, _events) = Gate::new(member(&other, 2), cluster(1), OwnStarts::new([mark(3, 2)]), []);
    let (transport, _handle) = transport::build(&other, gate, TransportConfig::default()).unwrap();
    let mut friend = swarm_over(transport, &other, gossip(&other));
    friend.dial(addr.unwrap()).unwrap();
    let is_subscribed = |event: &SwarmEvent<gossipsub::Event>| {
        matches!(event, SwarmEvent::Behaviour(gossipsub::Event::Subscribed { .. }))
    };
    futures::join!(watch(&mut ours, is_subscribed), watch(&mut friend, is_subscribed));

    // And the reason of a refusal is found inside the swarm's error.
    let (gate, _events) = Gate::new(member(&other, 2), cluster(9), OwnStarts::new([mark(3, 2)]), []);
    let (transport, _handle) = transport::build(&other, gate, TransportConfig::default()).unwrap();
    let mut foe = swarm_over(transport, &other, libp2p::swarm::dummy::Behaviour);
    foe.dial(ours.listeners().next().unwrap().clone()).unwrap();
    let failed = watch(&mut foe, |event| match event {
        SwarmEvent::OutgoingConnectionError { error: error @ DialError::Transport(_), .. } => {
            let inside: Vec<_> = Error::inside_dial(error).iter().map(|error| error.refusal()).collect();
            assert_eq!(inside, [Some(Refusal::WrongKey)]);
            true
        }
        _ => false,
    });
    tokio::select! {
        () = failed => {}
        () = watch(&mut ours, |_| false) => {}
    }
}

/// A listener that only records what a dialler says first, and answers nothing.
async fn record_a_dial(honest: &Node) -> Vec<u8> {
    let (addr, mut incoming, _dials, task) = run(stock(&keypair(99)), "127.0.0.1", 0).await;
    let dial = honest.dial(&addr);
    let listen = async {
        let mut muxer = incoming.recv().await.unwrap().unwrap().1;
        let mut stream = accept(&mut muxer).await.unwrap();
        let mut head = [0; 10];
        stream.read_exact(&mut head).await.unwrap();
        let mut rest = vec![0; usize::from(u16::from_be_bytes([head[8], head[9]])) + 32];
        stream.read_exact(&mut rest).await.unwrap();
        [&head[..], &rest].concat()
    };
    let recorded = tokio::select! {
        _ = dial => panic!("nobody admitted it"),
        recorded = listen => recorded,
    };
    task.abort();
    recorded
}

#[tokio::test]
async fn a_recorded_admission_opens_nothing() {
    let mut a = Node::member(1).await;
    let b = Node::member(2).await;
    let recorded = record_a_dial(&b).await;
    assert_eq!(recorded[..8], *MAGIC);

    let mut muxer = stranger(&a.addr).await.unwrap();
    let mut stream = open(&mut muxer).await.unwrap();
    stream.write_all(&recorded).await.unwrap();
    let refusing = a.accepted().await.unwrap_err();
    assert!(matches!(refusing, Error::Refusing(Refusal::WrongKey)), "{refusing}");
    // What the listener showed of itself: nothing.
    let mut shown = Vec::new();
    assert!(stream.read_to_end(&mut shown).await.is_err() && shown.is_empty(), "{shown:?}");
}

#[tokio::test]
async fn a_reflected_proof_opens_nothing() {
    let b = Node::member(2).await;
    let (addr, mut incoming, _dials, task) = run(stock(&keypair(99)), "127.0.0.1", 0).await;
    let mirror = async {
        let mut muxer = incoming.recv().await.unwrap().unwrap().1;
        let mut stream = accept(&mut muxer).await.unwrap();
        let mut head = [0; 10];
        stream.read_exact(&mut head).await.unwrap();
        let mut hello = vec![0; usize::from(u16::from_be_bytes([head[8], head[9]]))];
        let mut proof = [0; 32];
        stream.read_exact(&mut hello).await.unwrap();
        stream.read_exact(&mut proof).await.unwrap();
        let turned = Hello { side: Side::Listener, ..Hello::decode(&hello).unwrap() }.encode();
        let mut answer = admission_bytes(&turned, &proof);
        answer.splice(8..8, [0; 4]);
        stream.write_all(&answer).await.unwrap();
        stream.close().await.unwrap();
        end_of(&mut muxer).await;
    };
    let (dialled, ()) = futures::join!(b.dial(&addr), mirror);
    assert!(matches!(dialled, Err(Error::Refusing(Refusal::WrongKey))), "{:?}", dialled.err());
    assert_eq!(b.gate.kind(&keypair(99).public().to_peer_id()), None);
    task.abort();
}

#[tokio::test]
async fn malformed_hellos_other_versions_and_tickets_are_refused_by_name() {
    let mut a = Node::member(1).await;
    let hello = Hello {
        format: 1,
        versions: (1, 1),
        side: Side::Dialer,
        kind: Kind::Member,
        mark: mark(1, 1),
        promises: 0,
        known: None,
        incarnation: None,
        founding: None,
        features: 0,
        name: "x".into(),
        software: "x".into(),
        ticket: ByteBuf::new(),
    };
    let bytes = |hello: Hello| admission_bytes(&hello.encode(), &[0; 32]);
    let mut too_long = bytes(hello.clone());
    too_long[8..10].copy_from_slice(&2000u16.to_be_bytes());
    let garbage = admission_bytes(&[0xff; 40], &[0; 32]);
    let cases = [
        (bytes(Hello { versions: (2, 3), ..hello.clone() }), Refusal::Version),
        (bytes(Hello { format: 2, ..hello.clone() }), Refusal::Version),
        (bytes(Hello { side: Side::Listener, ..hello.clone() }), Refusal::BadHello),
        (bytes(Hello { kind: Kind::Ticket, ..hello.clone() }), Refusal::NotOffered),
        (too_long, Refusal::BadHello),
        (garbage, Refusal::BadHello),
        (b"GET / HTTP/1.1\r\n".to_vec(), Refusal::NotTintype),
        (bytes(hello), Refusal::WrongKey),
    ];
    for (said, expected) in cases {
        let mut muxer = stranger(&a.addr).await.unwrap();
        let mut stream = open(&mut muxer).await.unwrap();
        stream.write_all(&said).await.unwrap();
        let refusing = a.accepted().await.unwrap_err();
        assert!(
            matches!(refusing, Error::Refusing(refusal) if refusal == expected),
            "{refusing}, {expected}"
        );
    }
}

#[tokio::test]
async fn silent_and_dripping_peers_are_dropped_in_time_and_leave_nothing_behind() {
    let key = keypair(1);
    let config =
        TransportConfig { admissions_max: 500, admissions_per_address_max: 300, ..Default::default() };
    let mut a = Node::start(&key, member(&key, 1), cluster(1), config, "127.0.0.1", 0).await;
    let tasks_before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut transport = stock(&Keypair::generate_ed25519());
    let mut strangers = tokio::task::JoinSet::new();
    for number in 0..200u32 {
        let dial = transport.dial(a.addr.clone(), dial_options()).unwrap();
        strangers.spawn(async move {
            let mut muxer = dial.await.unwrap().1;
            let start = Instant::now();
            let stream = if number % 4 == 0 { None } else { open(&mut muxer).await.ok() };
            let drip = async {
                let Some(mut stream) = stream else { return std::future::pending().await };
                // Some open a stream and say nothing, some say too little, some a byte now and then.
                let first: &[u8] = [&b""[..], b"", b"tin", b""][number as usize % 4];
                let _ = stream.write_all(first).await;
                for byte in MAGIC.iter().filter(|_| number % 4 == 3) {
                    tokio::time::sleep(Duration::from_millis(450)).await;
                    let _ = stream.write_all(&[*byte]).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                error = end_of(&mut muxer) => (start.elapsed(), error.to_string()),
                () = drip => unreachable!("it never ends"),
            }
        });
    }
    let admission = Duration::from(limits::ADMISSION_TIMEOUT);
    while let Some(stranger) = strangers.join_next().await {
        let (lived, end) = stranger.unwrap();
        assert!(lived > admission - Duration::from_millis(500), "{lived:?} {end}");
        assert!(lived < admission + Duration::from_secs(2), "{lived:?} {end}");
    }
    for _ in 0..200 {
        let refusing = a.accepted().await.unwrap_err();
        assert!(matches!(refusing, Error::Refusing(Refusal::TimedOut)), "{refusing}");
    }
    drop(transport);
    until("every connection to be gone", || a.handle.open_connections() == 0).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    until("every task to be gone", || metrics.num_alive_tasks() <= tasks_before).await;
    assert_eq!((a.handle.sockets().len(), a.gate.refused().get(&Refusal::TimedOut)), (1, Some(&200)));
}

#[tokio::test]
async fn full_is_an_answer_at_once_and_only_for_those_who_fill_it() {
    let mut a = Node::member(1).await;
    let mut silent = Vec::new();
    for _ in 0..limits::ADMISSIONS_PER_ADDRESS_MAX {
        silent.push(stranger(&a.addr).await.unwrap());
    }
    let start = Instant::now();
    assert!(stranger(&a.addr).await.is_err(), "no handshake is even begun");
    let (key, at_once) = (keypair(2), TransportConfig { admission_turn: Millis(0), ..Default::default() });
    let b = Node::start(&key, member(&key, 2), cluster(1), at_once, "127.0.0.1", 0).await;
    let busy = b.dial(&a.addr).await.unwrap_err();
    assert!(matches!(busy, Error::RefusedBy(Refusal::Busy)), "{busy}");
    assert!(start.elapsed() < Duration::from(limits::ADMISSION_TIMEOUT), "{:?}", start.elapsed());
    assert!(a.gate.refused().contains_key(&Refusal::Busy), "it is known how many were put off");
    assert_eq!((a.gate.refused_total(), b.gate.is_in_line()), (0, false), "and none of them was refused");
    let patient = Node::member(4).await;
    let addr = a.addr.clone();
    let waiting = patient.dial(&addr);
    let looking = until("it to stand in line", || patient.gate.is_in_line());
    let mut waiting = std::pin::pin!(waiting);
    tokio::select! {
        early = &mut waiting => panic!("there was no place: {:?}", early.map(|_| ())),
        () = looking => {}
    }

    let key = keypair(3);
    let elsewhere =
        Node::start(&key, member(&key, 3), cluster(1), TransportConfig::default(), "127.0.0.2", 0).await;
    let admitted = elsewhere.dial(&a.addr).await.unwrap();
    until("the other address to be let in", || a.gate.kind(&elsewhere.peer).is_some()).await;
    drop((admitted, silent));
    let taking = async {
        for _ in 0..limits::ADMISSIONS_PER_ADDRESS_MAX + 2 {
            let _ = a.accepted().await;
        }
    };
    let (waited_for, ()) = futures::join!(waiting, taking);
    waited_for.expect("its turn came");
    assert!(!patient.gate.is_in_line());
    b.dial(&a.addr).await.unwrap();
}

#[tokio::test]
async fn a_command_whose_turn_never_comes_says_why() {
    let key = keypair(1);
    let crowded = TransportConfig { admissions_max: 0, ..Default::default() };
    let a = Node::start(&key, member(&key, 1), cluster(1), crowded, "127.0.0.1", 0).await;
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("keys")).unwrap();
    let text = ClusterKey::from_bytes([1; 32]).to_text();
    std::fs::write(home.path().join("keys/cluster.key"), &*text).unwrap();
    let mut command = std::process::Command::new(PROGRAM);
    command.arg("status").arg("--home").arg(home.path()).args(["--node", &a.addr.to_string()]);
    let answer = tokio::task::spawn_blocking(move || finish(&mut command)).await.unwrap();
    ends(&answer, 5, &["busy admitting others", "run it again in a moment"]);
    assert_eq!(a.gate.refused_total(), 0, "nobody attacks");
}

/// A way to `addr` on which nothing comes back, as for packets with a forged sender.
async fn one_way(addr: &Multiaddr) -> Multiaddr {
    let port = |addr: &Multiaddr| match addr.iter().nth(1) {
        Some(Protocol::Udp(port)) => port,
        other => panic!("{other:?}"),
    };
    let front = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let forged = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (here, to) = (front.local_addr().unwrap().port(), port(addr));
    tokio::spawn(async move {
        let mut packet = vec![0; 2000];
        while let Ok(len) = front.recv(&mut packet).await {
            let _ = forged.send_to(&packet[..len], ("127.0.0.1", to)).await;
        }
    });
    format!("/ip4/127.0.0.1/udp/{here}/quic-v1").parse().unwrap()
}

#[tokio::test]
async fn a_forged_address_gets_no_place_once_places_are_scarce() {
    let key = keypair(1);
    let config = TransportConfig { admissions_max: 2, admissions_per_address_max: 2, ..Default::default() };
    let mut a = Node::start(&key, member(&key, 1), cluster(1), config, "127.0.0.1", 0).await;
    // One of two places is taken: from now on a dialler has to answer a retry packet, which an honest one
    // does by itself and a forger cannot.
    let silent = stranger(&a.addr).await.unwrap();
    let dead_end = one_way(&a.addr).await;
    let forger = tokio::spawn(async move { stranger(&dead_end).await.map(drop) });
    let b = Node::member(2).await;
    for _ in 0..5 {
        let mut out = b.dial(&a.addr).await.unwrap().1;
        let mut inc = a.accepted().await.unwrap().1;
        echo(&mut out, &mut inc, 1000).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(a.gate.refused().get(&Refusal::Busy), None, "the forger held no place");
    forger.abort();
    drop(silent);
}

#[tokio::test]
async fn who_is_not_admitted_can_make_us_hold_one_small_window() {
    let key = keypair(1);
    let config = TransportConfig { admissions_per_address_max: 20, ..TransportConfig::default() };
    let a = Node::start(&key, member(&key, 1), cluster(1), config, "127.0.0.1", 0).await;
    let mut flooders = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let addr = a.addr.clone();
        flooders.spawn(async move {
            let mut muxer = stranger(&addr).await.unwrap();
            let mut stream = open(&mut muxer).await.unwrap();
            let second = timeout(Duration::from_millis(300), open(&mut muxer)).await;
            assert!(second.is_err(), "a second stream before admission");
            stream.write_all(MAGIC).await.unwrap();
            let mut taken = MAGIC.len();
            let flood = async {
                loop {
                    match stream.write(&[0; 4096]).await {
                        Ok(written) => taken += written,
                        Err(_) => return,
                    }
                }
            };
            let _ = timeout(Duration::from_secs(1), flood).await;
            taken
        });
    }
    while let Some(taken) = flooders.join_next().await {
        let taken = taken.unwrap();
        // A window's worth, and what was read of it is given back once: never more than twice the window.
        assert!(taken <= 2 * limits::ADMISSION_WINDOW_BYTES as usize, "{taken}");
    }
}

// ---- the rules ----

fn known(node: &Node, at: BootMark, incarnation: u8) -> (PeerId, KnownPeer) {
    (node.peer, KnownPeer { mark: at, promises: 0, incarnation: Incarnation([incarnation; 16]) })
}

#[tokio::test]
async fn copies_old_backups_and_emptied_homes_are_refused_whoever_dials() {
    // What `a` knows of `b` (boot 3 of process 2, incarnation 2); what `a` says to `b`, and `b` to `a`.
    let cases = [
        (mark(3, 77), 2, Refusal::CopyOrOldBackup, Refusal::RolledBack),
        (mark(4, 2), 2, Refusal::CopyOrOldBackup, Refusal::RolledBack),
        (mark(3, 2), 9, Refusal::OtherIncarnation, Refusal::Emptied),
        (mark(8, 2), 9, Refusal::OtherIncarnation, Refusal::Emptied),
    ];
    for (seen, incarnation, of_a, of_b) in cases {
        // The starts that `a` saw are no starts of `b`, so `b` learns from them what it is.
        let rolled_back = of_b == Refusal::RolledBack;
        let mut a = Node::member(1).await;
        let mut b = Node::member(2).await;
        let (peer, what) = known(&b, seen, incarnation);
        a.gate.bind_members([(peer, what.incarnation)]);
        a.gate.set_founding(FoundingId([1; 16]));
        a.gate.set_known(peer, what);
        let refused = b.dial(&a.addr).await.unwrap_err();
        assert!(matches!(refused, Error::RefusedBy(refusal) if refusal == of_a), "{refused}, {of_a}");
        assert!(matches!(a.accepted().await, Err(Error::Refusing(refusal)) if refusal == of_a));
        assert_eq!(b.gate.rolled_back(), rolled_back);
        if rolled_back {
            let GateEvent::RolledBack { peer, seen: told } = b.event().await else { panic!() };
            assert_eq!((peer, told), (a.peer, seen));
        }

        let a = Node::member(1).await;
        let mut b = Node::member(2).await;
        let (peer, what) = known(&b, seen, incarnation);
        a.gate.bind_members([(peer, what.incarnation)]);
        a.gate.set_founding(FoundingId([1; 16]));
        a.gate.set_known(peer, what);
        // Both have a reason; the one that the proven answer carries is told.
        let refused = a.dial(&b.addr).await.unwrap_err();
        assert!(matches!(refused, Error::RefusedBy(refusal) if refusal == of_b), "{refused}, {of_b}");
        assert!(b.accepted().await.is_err(), "the listener does not take for a guest whom the dialler left");
        assert_eq!((b.gate.rolled_back(), b.gate.kind(&a.peer)), (rolled_back, None));
    }
}

#[tokio::test]
async fn a_home_put_back_that_started_often_since_is_still_found_out() {
    let mut a = Node::member(1).await;
    let b = Node::with(2, |me| me.mark = mark(9, 2)).await;
    // Seen: boot 8 of another process. This home started again until boot 9, without that start.
    let (peer, what) = known(&b, mark(8, 66), 2);
    a.gate.set_known(peer, what);
    let refusing = b.dial(&a.addr).await.unwrap_err();
    assert!(matches!(refusing, Error::Refusing(Refusal::RolledBack)), "{refusing}");
    assert!(b.gate.rolled_back());
    assert!(matches!(a.accepted().await, Err(Error::RefusedBy(Refusal::RolledBack))));
    assert_eq!(a.gate.known_peers(), [(peer, what)], "what was seen stays, however often it tries");
}

#[tokio::test]
async fn a_newer_start_is_let_in_and_told_apart_and_foundings_do_not_mix() {
    let mut a = Node::member(1).await;
    let b = Node::member(2).await;
    let (peer, what) = known(&b, mark(2, 2), 2);
    a.gate.set_known(peer, what);
    let kept = b.dial(&a.addr).await.unwrap();
    assert!(matches!(a.event().await, GateEvent::Admitted { newer_start: true, .. }));
    assert_eq!(a.gate.known_peers(), [known(&b, mark(3, 2), 2)]);
    drop(kept);

    a.gate.set_founding(FoundingId([1; 16]));
    drop(b.dial(&a.addr).await.expect("a fresh node and a founded one may talk"));
    b.gate.set_founding(FoundingId([2; 16]));
    let refused = b.dial(&a.addr).await.unwrap_err();
    assert!(matches!(refused, Error::RefusedBy(Refusal::OtherFounding)), "{refused}");
    b.gate.set_founding(FoundingId([1; 16]));
}

#[tokio::test]
async fn the_same_identity_twice_never_connects() {
    let a = Node::member(1).await;
    let copy = Node::member(1).await;
    let refused = copy.dial(&a.addr).await.unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::OwnPeer), "{refused}");
}

#[tokio::test]
async fn anybody_may_look_and_sees_no_more_than_that() {
    let a = Node::member(1).await;
    let seen = transport::look(&a.addr).await.unwrap();
    assert_eq!((seen.peer, seen.name.as_str(), seen.founded), (a.peer, "node 1", false));
    assert_eq!(seen.tag, Some(ClusterKey::from_bytes([1; 32]).tag()));
    assert_ne!(seen.tag, Some(ClusterKey::from_bytes([2; 32]).tag()));
    assert_eq!(seen.software, env!("CARGO_PKG_VERSION"));
    a.gate.set_founding(FoundingId([1; 16]));
    assert!(transport::look(&a.addr).await.unwrap().founded);
    assert_eq!((a.gate.refused_total(), a.gate.connected(Kind::Look)), (0, 0));
    until("the looks to be over", || a.handle.open_connections() == 0).await;

    let (addr, _incoming, _dials, task) = run(stock(&keypair(9)), "127.0.0.1", 0).await;
    assert!(
        timeout(SOON, transport::look(&addr)).await.expect("it ends").is_err(),
        "a stock peer is no tintype"
    );
    task.abort();
}

/// The compiler's proof that what `build` returns is what a swarm wants.
#[test]
fn the_transport_is_pinned_nowhere_and_sent_anywhere() {
    fn wants<T: Transport<Output = Conn> + Send + Unpin + 'static>(_: Option<Pin<Box<T>>>) {}
    wants::<SwarmTransport>(None);
}
