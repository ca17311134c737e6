//! Real nodes and peers that mean harm: strangers, floods, clients that speak like members, broken frames.
//!
//! What must hold each time: the node serves on, it has counted what it refused, nothing changed, and its
//! memory and descriptors return. Memory is compared after a first, smaller round of the same: an allocator
//! keeps what it once had, and what counts is that five times as much asks for no more.

#![allow(clippy::disallowed_methods)] // tests of time read the clock

use std::{io, sync::Arc, time::Duration};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, stream::FuturesUnordered};
use libp2p::{
    Multiaddr,
    core::{muxing::SubstreamBox, transport::Transport},
    gossipsub,
    identity::Keypair,
    swarm::{NetworkBehaviour, SwarmEvent},
};
use libp2p_identify as identify;
use serde_bytes::ByteBuf;
use tintype::{
    disk::Home,
    model::{
        BodyId, FoundingId, Incarnation, ObjectId, OwnerKey, RequestId, codec,
        hello::{BootMark, Hello, Kind, PROTOCOL_VERSION, Side},
        limits,
        member::{Epoch, NodeNumber},
        object::{MediaType, ObjectName},
        register::{RawRegister, Register},
        rpc::{Counters, ListRequest, Request, Response, StatusInfo},
    },
    proto::{
        chunkpaxos::{Ballot, Body, Command, Message, RoundId},
        founding,
    },
    seal::{
        admission::ClusterKey,
        key_file::KeyFile,
        keys::{UserKeys, UserSecret},
        manifest::ObjectInfo,
        register::{self, ListClaim, RegisterPlan},
    },
};
use tokio::time::{sleep, timeout};

use crate::{
    cluster::{Cluster, finish, noise, wait_for},
    foe::{
        BULK, Foe, GOSSIP, LANE, Mask, PATIENCE, RPC, agreed, answer, broken, ended, framed, question,
        returned_to, returns_to, until, uses,
    },
    transport::{dial_options, end_of, gossip, open, stock, swarm_over},
};

/// What an allocator may keep after ten times as much of the same: the bound that the design sets.
pub const GROWTH_KIB: u64 = 1024;
/// Frames of each kind of attack, and of the smaller round before.
const FRAMES: u64 = 10_000;
const FRAMES_BEFORE: u64 = 2_000;

// ---- the scene ----

/// A running cluster, an honest client that was there before the attack, and its key.
pub struct Scene {
    pub cluster: Arc<Cluster>,
    pub key: ClusterKey,
    pub addr: Multiaddr,
    pub pid: u32,
    watcher: Foe,
}

impl Scene {
    pub async fn start(nodes: usize) -> Self {
        let cluster = tokio::task::spawn_blocking(move || Cluster::start(nodes)).await.unwrap();
        Self::of(cluster).await
    }

    async fn of(cluster: Cluster) -> Self {
        let key = Home::at(&cluster.client).cluster_key().unwrap().expect("a key");
        let key = ClusterKey::parse(&key).unwrap();
        let addr = multiaddr(&cluster.nodes.all[0].addr);
        let pid = cluster.nodes.pid(0).expect("it runs");
        let watcher = Foe::meet(&Mask::client(&key), &addr).await;
        let scene = Self { cluster: Arc::new(cluster), key, addr, pid, watcher };
        scene.serves("first.bin", 1).await;
        scene
    }

    /// A command of the real program, beside this runtime.
    pub async fn cli<T: Send + 'static>(&self, run: impl FnOnce(&Cluster) -> T + Send + 'static) -> T {
        let cluster = self.cluster.clone();
        tokio::task::spawn_blocking(move || run(&cluster)).await.unwrap()
    }

    /// Something new is put and everything comes back.
    pub async fn serves(&self, name: &'static str, seed: u64) {
        let bytes = noise(seed, 200_000);
        let got =
            self.cli(move |cluster| (cluster.put(name, &bytes), cluster.get(name) == Some(bytes))).await;
        assert!(got.1, "{name} came back otherwise");
    }

    async fn refused(&self) -> u64 {
        let json = self.cli(|cluster| cluster.ok(&["status", "--json"])).await;
        let status: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
        status["refused"].as_u64().expect("a number")
    }

    pub async fn counted(&self) -> Counters {
        self.watcher.counters().await
    }

    async fn status(&self) -> StatusInfo {
        match self.watcher.ask(&Request::Status).await {
            Some(Response::Status(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// At least so many messages more than `before` were thrown away and counted.
    pub async fn malformed_since(&self, before: &Counters, at_least: u64) {
        let wanted = before.malformed + at_least;
        until("every bad frame counted", || async { self.counted().await.malformed >= wanted }).await;
    }

    async fn secret(&self) -> UserKeys {
        let home = Home::at(&self.cluster.client);
        let user = home.users().unwrap().remove(0);
        match KeyFile::parse(&home.user_key(&user).unwrap().unwrap()).unwrap() {
            KeyFile::Plain(secret) => UserKeys::derive(&secret),
            other => panic!("{other:?}"),
        }
    }
}

fn multiaddr(addr: &str) -> Multiaddr {
    let (ip, port) = addr.split_once(':').unwrap();
    format!("/ip4/{ip}/udp/{port}/quic-v1").parse().unwrap()
}

fn object(byte: u8) -> ObjectId {
    ObjectId([byte; 32])
}

// ---- strangers ----

/// What a usual libp2p program speaks on every connection.
#[derive(NetworkBehaviour)]
struct Plain {
    gossip: gossipsub::Behaviour,
    identify: identify::Behaviour,
}

impl Plain {
    fn new(key: &Keypair) -> Self {
        let config = identify::Config::new("/plain/1".into(), key.public());
        Self { gossip: gossip(key), identify: identify::Behaviour::new(config) }
    }
}

/// A peer with another key, as a node and as a client, and a plain libp2p program.
async fn knock(scene: &Scene) {
    let wrong = ClusterKey::from_bytes([7; 32]);
    for mask in [Mask::outsider(&wrong), Mask::client(&wrong)] {
        let refused = Foe::dial(&mask, &scene.addr, None).await.map(drop).unwrap_err();
        let refused = refused.downcast::<tintype::net::transport::Error>().expect("our transport's error");
        assert_eq!(refused.refusal(), Some(tintype::net::transport::Refusal::WrongKey), "{refused}");
    }
    let key = Keypair::generate_ed25519();
    let mut plain = swarm_over(stock(&key), &key, Plain::new(&key));
    plain.dial(scene.addr.clone()).unwrap();
    let closed = async {
        loop {
            match plain.select_next_some().await {
                SwarmEvent::Behaviour(PlainEvent::Identify(identify::Event::Error { .. })) => {}
                SwarmEvent::Behaviour(event) => panic!("a protocol was reached: {event:?}"),
                SwarmEvent::ConnectionClosed { .. } | SwarmEvent::OutgoingConnectionError { .. } => return,
                _ => {}
            }
        }
    };
    timeout(PATIENCE, closed).await.expect("it is turned away");
}

#[tokio::test]
async fn strangers_reach_no_protocol_and_leave_nothing_behind() {
    let scene = Scene::start(1).await;
    for _ in 0..5 {
        knock(&scene).await;
    }
    scene.serves("between.bin", 2).await;
    let (refused, before) = (scene.refused().await, uses(scene.pid).await);
    for _ in 0..10 {
        knock(&scene).await;
    }
    assert!(scene.refused().await >= refused + 30, "each was counted");
    returns_to(scene.pid, before, GROWTH_KIB).await;
    let status = scene.status().await;
    // The honest client of this test, and nobody of those.
    assert_eq!(status.clients, 1, "{status:?}");
    assert!(status.foreign.iter().any(|line| line.contains("another cluster key")), "{:?}", status.foreign);
    scene.serves("after.bin", 3).await;
}

/// Connections past TLS that say nothing, or too little, until they are closed.
async fn sit(addr: &Multiaddr, count: u32) {
    let mut sitting = FuturesUnordered::new();
    for number in 0..count {
        let mut transport = stock(&Keypair::generate_ed25519());
        // Four from each address, so that each gets a place as long as there are any.
        let at: Multiaddr = format!("/ip4/127.0.7.{}/udp/0/quic-v1", 1 + number / 4).parse().unwrap();
        transport.listen_on(libp2p::core::transport::ListenerId::next(), at).unwrap();
        let addr = addr.clone();
        sitting.push(async move {
            let dial = transport.dial(addr, dial_options()).unwrap();
            let Ok(Ok((_, mut muxer))) = timeout(PATIENCE, dial).await else { return false };
            if number % 3 > 0
                && let Ok(mut stream) = open(&mut muxer).await
            {
                let drip: &[u8] = if number % 3 == 1 { b"t" } else { b"tintype" };
                let _ = stream.write_all(drip).await;
                end_of(&mut muxer).await;
                return true;
            }
            end_of(&mut muxer).await;
            true
        });
    }
    let mut seated = 0;
    while let Some(had_a_place) = sitting.next().await {
        seated += u32::from(had_a_place);
    }
    assert!(seated > 0, "nobody got as far as admission");
}

/// Connections past TLS that send as much as they can before admission.
async fn flood(addr: &Multiaddr) {
    let mut floods = FuturesUnordered::new();
    for number in 0..20 {
        let mut transport = stock(&Keypair::generate_ed25519());
        let at: Multiaddr = format!("/ip4/127.0.8.{}/udp/0/quic-v1", 1 + number / 4).parse().unwrap();
        transport.listen_on(libp2p::core::transport::ListenerId::next(), at).unwrap();
        let addr = addr.clone();
        floods.push(async move {
            let dial = transport.dial(addr, dial_options()).unwrap();
            let Ok(Ok((_, mut muxer))) = timeout(PATIENCE, dial).await else { return };
            let Ok(mut stream) = open(&mut muxer).await else { return };
            let pour = async {
                // A length that will never be filled, then whatever the window takes.
                while stream.write_all(b"tintype\x01\x03\xff").await.is_ok()
                    && stream.write_all(&[0xa5; 60_000]).await.is_ok()
                {}
            };
            futures::join!(pour, end_of(&mut muxer));
        });
    }
    while floods.next().await.is_some() {}
}

/// Both, on a thread of their own: who watches must not be late for work that is not the node's.
async fn attack_from_elsewhere(scene: &Scene, sitting: u32) {
    let addr = scene.addr.clone();
    let attack = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { futures::join!(sit(&addr, sitting), flood(&addr)) });
    });
    attack.await.unwrap();
}

#[tokio::test]
async fn two_hundred_that_never_speak_and_twenty_that_flood_pass_without_a_trace() {
    let scene = Scene::start(1).await;
    attack_from_elsewhere(&scene, 200).await;
    let (refused, before) = (scene.refused().await, uses(scene.pid).await);
    let during = async {
        // Who is connected is served all the while.
        for _ in 0..20 {
            assert_eq!(scene.status().await.clients, 1);
            sleep(Duration::from_millis(100)).await;
        }
    };
    futures::join!(attack_from_elsewhere(&scene, 200), during);
    returns_to(scene.pid, before, GROWTH_KIB).await;
    assert!(scene.refused().await >= refused + 40, "who had a place and said nothing was counted");
    scene.serves("after.bin", 2).await;
}

#[tokio::test]
async fn whoever_fills_the_places_of_one_address_keeps_nobody_else_out() {
    let scene = Scene::start(1).await;
    let mut silent = Vec::new();
    for _ in 0..3 * limits::ADMISSIONS_PER_ADDRESS_MAX {
        let mut transport = stock(&Keypair::generate_ed25519());
        let at: Multiaddr = "/ip4/127.0.9.1/udp/0/quic-v1".parse().unwrap();
        transport.listen_on(libp2p::core::transport::ListenerId::next(), at).unwrap();
        let dial = transport.dial(scene.addr.clone(), dial_options()).unwrap();
        silent.push((transport, timeout(PATIENCE, dial).await.expect("a dial ends")));
    }
    let seated = silent.iter().filter(|(_, dialed)| dialed.is_ok()).count();
    assert_eq!(seated, limits::ADMISSIONS_PER_ADDRESS_MAX, "of one address");
    scene.serves("meanwhile.bin", 2).await;
}

// ---- peers with a key who speak out of turn ----

fn members_requests(other: libp2p::PeerId) -> Vec<Request> {
    vec![
        Request::Probe,
        Request::ProbeThrough { peer: other },
        Request::ScanSlot { slot: 3, after: None },
        Request::Push { bodies: vec![BodyId([1; 32])] },
    ]
}

fn announcement() -> Request {
    let standing = founding::Standing::Pristine;
    let incarnation = Incarnation([4; 16]);
    let message = founding::Message::Announce { incarnation, expect: 1, standing };
    Request::Founding { message: ByteBuf::from(message.encode()) }
}

/// A heartbeat message as gossipsub wants it, signed by this key.
fn published(key: &Keypair, sequence: u64, topic: &str, data: &[u8]) -> Vec<u8> {
    fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
        [&[tag << 3 | 2][..], &varint(bytes.len()), bytes].concat()
    }
    let from = key.public().to_peer_id().to_bytes();
    let message =
        [field(1, &from), field(2, data), field(3, &sequence.to_be_bytes()), field(4, topic.as_bytes())]
            .concat();
    let signature = key.sign(&[b"libp2p-pubsub:", &message[..]].concat()).unwrap();
    let message = [message, field(5, &signature)].concat();
    let rpc = field(2, &message);
    [varint(rpc.len()), rpc].concat()
}

/// The gossip stream of a node that says that it listens: one that never does is soon cut off.
async fn listening(foe: &Foe) -> SubstreamBox {
    let mut stream = foe.open(GOSSIP).await.unwrap();
    agreed(&mut stream, GOSSIP).await.unwrap();
    let subscribed = [&[0x08, 1, 0x12, HEARTBEATS.len() as u8][..], HEARTBEATS.as_bytes()].concat();
    let rpc = [&[0x0a, subscribed.len() as u8][..], &subscribed].concat();
    stream.write_all(&[varint(rpc.len()), rpc].concat()).await.unwrap();
    stream
}

fn varint(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

const HEARTBEATS: &str = "tintype/heartbeat/1";

#[tokio::test]
async fn a_client_that_speaks_like_a_member_is_refused_and_counted() {
    let scene = Scene::start(1).await;
    let before = (scene.status().await, scene.counted().await);
    let mask = Mask::client(&scene.key);
    let client = Foe::meet(&mask, &scene.addr).await;
    let mut said = 0;
    for request in members_requests(before.0.peer).into_iter().chain([announcement()]) {
        let answer = client.ask(&request).await;
        assert!(matches!(&answer, Some(Response::Refused(why)) if why.contains("members")), "{answer:?}");
        said += 1;
    }
    // 3: not a member. The lane, and gossip under each of its names.
    for protocol in [LANE, GOSSIP, "/meshsub/1.3.0", "/meshsub/1.2.0", "/meshsub/1.0.0"] {
        let greeting = client.greeted(protocol).await.unwrap().map(drop);
        assert_eq!(greeting, Err(3), "{protocol}");
        said += 1;
    }
    // Pressed on regardless: whatever is published behind the refusal reaches nobody.
    let mut stream = client.open(GOSSIP).await.unwrap();
    for sequence in 0..10 {
        let _ = stream.write_all(&published(&mask.keypair, sequence, HEARTBEATS, b"x")).await;
    }
    ended(&mut stream).await;
    scene.malformed_since(&before.1, said + 1).await;
    let after = scene.status().await;
    assert_eq!((after.founding, after.nodes.len()), (before.0.founding, 1));
    scene.serves("after.bin", 2).await;
}

#[tokio::test]
async fn a_node_that_is_no_member_has_no_members_rights() {
    let scene = Scene::start(1).await;
    let (status, before) = (scene.status().await, scene.counted().await);
    let mask = Mask::outsider(&scene.key);
    let outsider = Foe::meet(&mask, &scene.addr).await;
    for request in members_requests(status.peer) {
        let answer = outsider.ask(&request).await;
        assert!(matches!(&answer, Some(Response::Refused(why)) if why.contains("members")), "{answer:?}");
    }
    assert_eq!(outsider.greeted(LANE).await.unwrap().map(drop), Err(3));
    // It may say that it looks for a founding; it changes none.
    assert_eq!(outsider.ask(&announcement()).await, Some(Response::Done));
    let mut stream = listening(&outsider).await;
    for sequence in 0..10 {
        stream.write_all(&published(&mask.keypair, sequence, HEARTBEATS, b"x")).await.unwrap();
    }
    scene.malformed_since(&before, 4 + 1 + 10).await;
    let after = scene.status().await;
    assert_eq!((after.founding, after.nodes.len()), (status.founding, 1));
}

#[tokio::test]
async fn node_keys_that_come_and_go_do_not_shut_the_door() {
    let scene = Scene::start(1).await;
    for _ in 0..limits::KNOWN_PEERS_MAX + 8 {
        drop(Foe::meet(&Mask::outsider(&scene.key), &scene.addr).await);
    }
    drop(Foe::dial(&Mask::outsider(&scene.key), &scene.addr, None).await.expect("still let in"));
    scene.serves("after.bin", 2).await;
}

#[test]
fn a_disk_emptied_before_the_founding_is_no_forgotten_promise() {
    let mut cluster = Cluster::prepare(3);
    let first = cluster.nodes.spawn(0).unwrap();
    let _before = cluster.nodes.spawn(1).unwrap();
    let met = |node| cluster.nodes.log(node).contains("Waiting for 1 more of 3 nodes");
    wait_for("the two have met", PATIENCE, || met(0) && met(1));
    cluster.nodes.kill(1).unwrap();
    std::fs::remove_dir_all(cluster.nodes.all[1].home.join("data")).unwrap();
    let (second, third) = (cluster.nodes.spawn(1).unwrap(), cluster.nodes.spawn(2).unwrap());
    for (node, lines) in [first, second, third].iter().enumerate() {
        cluster.nodes.wait_ready(node, lines).unwrap();
    }
}

// ---- broken frames, ten thousand of each ----

/// All numbers from..to, so many at once.
async fn each<F: Future<Output = ()>>(from: u64, to: u64, at_once: usize, act: impl Fn(u64) -> F) {
    futures::stream::iter(from..to).for_each_concurrent(at_once, act).await;
}

/// A first round, then five times as much; the node must have counted each and kept nothing.
async fn attack<F: Future<Output = ()>>(scene: &Scene, round: impl Fn(u64, u64) -> F) {
    let started = std::time::Instant::now();
    let counted = scene.counted().await;
    round(0, FRAMES_BEFORE).await;
    scene.malformed_since(&counted, FRAMES_BEFORE).await;
    scene.serves("between.bin", 2).await;
    let (counted, before) = (scene.counted().await, uses(scene.pid).await);
    round(FRAMES_BEFORE, FRAMES_BEFORE + FRAMES).await;
    scene.malformed_since(&counted, FRAMES).await;
    eprintln!("{} bad frames in {:?}", FRAMES_BEFORE + FRAMES, started.elapsed());
    returns_to(scene.pid, before, GROWTH_KIB).await;
    scene.serves("after.bin", 3).await;
}

/// What one rpc stream says.
fn bad_request(number: u64) -> Vec<u8> {
    let good = Request::Check { bodies: vec![BodyId([1; 32]); 3], read: false, copies: 3 }.encode();
    let asked = question(1, &good);
    match number % 16 {
        // Longer than any request, by much or by one byte, and nothing behind it.
        9 => (limits::RPC_REQUEST_BYTES_MAX as u32 + 1).to_be_bytes().to_vec(),
        12 => u32::MAX.to_be_bytes().to_vec(),
        13 => asked[..asked.len() - 7].to_vec(),
        14 => [asked, vec![1]].concat(),
        15 => vec![0, 0],
        11 => question(0, &[]),
        // Numbers that do not grow.
        10 => [&asked[..], &asked].concat(),
        // More at once than anybody may ask.
        8 => (0..2000).flat_map(|number| question(number, &[])).collect(),
        _ => question(1, &broken(number, &good)),
    }
}

#[tokio::test]
async fn ten_thousand_bad_requests() {
    let scene = Scene::start(1).await;
    let foe = Foe::meet(&Mask::client(&scene.key), &scene.addr).await;
    attack(&scene, |from, to| {
        let (scene, foe) = (&scene, &foe);
        let bad = each(from, to, limits::RPC_STREAMS_PER_PEER_MAX, async move |number| {
            // Readable as a frame: refused in words. Not: the stream is closed.
            let Ok(said) = foe.say_by_rpc(&bad_request(number)).await else { return };
            let mut rest = &said[..];
            while let Some((_, answered, behind)) = answer(rest) {
                rest = behind;
                let is_no = matches!(answered, None | Some(Response::Refused(_)));
                let is_of_a_good_one = matches!(answered, Some(Response::Checked(_))) && number % 16 > 8;
                assert!(is_no || is_of_a_good_one, "{number}: {answered:?}");
            }
            assert!(rest.is_empty() || number % 16 > 7, "{number}: half an answer");
        });
        let honest = async {
            // Whoever asks properly is served meanwhile.
            for _ in 0..20 {
                assert_eq!(scene.status().await.clients, 2);
                sleep(Duration::from_millis(50)).await;
            }
        };
        async move {
            futures::join!(bad, honest);
        }
    })
    .await;
}

/// What one bulk stream says, until it is closed.
fn bad_bulk(number: u64) -> Vec<u8> {
    let put = |id: BodyId, len: u64, holders: usize, kind: u8| {
        let onward = vec![libp2p::PeerId::random(); holders];
        framed(&codec::encode(&(1u64, number, kind, id, len, onward, 1u8, true)))
    };
    let id = BodyId([2; 32]);
    match number % 16 {
        10 => (limits::BULK_HEADER_BYTES_MAX as u32 + 1).to_be_bytes().to_vec(),
        11 => 0u32.to_be_bytes().to_vec(),
        12 => put(id, limits::BODY_BYTES_MAX as u64 + 1, 0, 1),
        13 => put(id, 5, 17, 1),
        14 => put(id, 5, 0, 9),
        // A get that announces a body.
        15 => put(id, 5, 0, 2),
        // A body shorter than announced.
        8 => [put(id, 500, 0, 1), vec![1; 100]].concat(),
        _ => framed(&broken(number, &put(id, 0, 1, 1)[4..])),
    }
}

#[tokio::test]
async fn ten_thousand_bad_bulk_frames() {
    let scene = Scene::start(1).await;
    let mut foes = Vec::new();
    for _ in 0..8 {
        foes.push(Foe::meet(&Mask::client(&scene.key), &scene.addr).await);
    }
    attack(&scene, |from, to| {
        each(from, to, 2 * foes.len(), |number| {
            let foe = &foes[number as usize % foes.len()];
            async move {
                // The last streams of this peer may not be given back yet: "busy" is no frame.
                let mut stream = loop {
                    match foe.greeted(BULK).await {
                        Ok(Ok(stream)) => break stream,
                        Ok(Err(code)) => assert_eq!(code, 2, "busy"),
                        Err(error) => panic!("{error}"),
                    }
                };
                let _ = stream.write_all(&bad_bulk(number)).await;
                let _ = stream.close().await;
                ended(&mut stream).await;
            }
        })
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_gossip_messages_of_a_stranger_to_the_member_list() {
    let scene = Scene::start(1).await;
    let mask = Mask::outsider(&scene.key);
    let long = vec![7; limits::GOSSIP_BYTES_MAX + 1];
    attack(&scene, |from, to| {
        let (scene, mask, long) = (&scene, &mask, &long);
        async move {
            let foe = Foe::meet(mask, &scene.addr).await;
            let mut stream = listening(&foe).await;
            let counted = scene.counted().await;
            for number in from..to {
                // No faster than it reads: what waits in QUIC's windows is bounded, and not what is measured.
                if (number - from) % 500 == 499 {
                    scene.malformed_since(&counted, number - from).await;
                }
                let data = if number % 10 == 0 { &long[..] } else { b"not a heartbeat" };
                stream.write_all(&published(&mask.keypair, number, HEARTBEATS, data)).await.unwrap();
            }
            // What it has not read when the connection goes is never counted.
            stream.close().await.unwrap();
            ended(&mut stream).await;
        }
    })
    .await;
    // Frames that gossipsub itself cannot read end the stream; a connection has five, and all but the first
    // show that one before was ended.
    let counted = scene.counted().await;
    for number in 0..40 {
        let foe = Foe::meet(&mask, &scene.addr).await;
        for way in 0..4 {
            let Ok(mut stream) = foe.open(GOSSIP).await else { break };
            let bad = match way {
                0 => broken(9 * number, b"--"),
                1 => [varint(1 << 30), vec![1; 99]].concat(),
                2 => [varint(50), vec![0x12; 50]].concat(),
                _ => vec![0xff; 20],
            };
            let _ = stream.write_all(&bad).await;
            let _ = stream.close().await;
            ended(&mut stream).await;
        }
    }
    scene.malformed_since(&counted, 3 * 40).await;
    scene.serves("last.bin", 4).await;
}

/// What one dialer says in admission.
fn bad_hello(number: u64) -> Vec<u8> {
    let hello = Hello {
        format: 1,
        versions: (PROTOCOL_VERSION, PROTOCOL_VERSION),
        side: Side::Dialer,
        kind: Kind::Client,
        mark: BootMark { boot: 0, process: tintype::model::ProcessId([1; 16]) },
        promises: 0,
        known: None,
        incarnation: None,
        founding: Some(FoundingId([1; 16])),
        features: 0,
        name: "foe".into(),
        software: "0".into(),
        ticket: ByteBuf::new(),
    };
    let said = |hello: &[u8]| {
        let length = (hello.len() as u16).to_be_bytes();
        [&b"tintype\x01"[..], &length, hello, &[5; 32]].concat()
    };
    match number % 12 {
        // Well formed, and the proof is none.
        9 => said(&hello.encode()),
        10 => [&b"tintype\x01\xff\xff"[..], &[1; 2000]].concat(),
        11 => broken(9 * number, b"--"),
        _ => said(&broken(number, &hello.encode())[..].iter().take(1024).copied().collect::<Vec<u8>>()),
    }
}

/// One connection for each number from..to, from eight addresses side by side.
async fn knock_badly(addr: &Multiaddr, from: u64, to: u64) {
    let mut strands = FuturesUnordered::new();
    for strand in 0..16 {
        let mut transport = stock(&Keypair::generate_ed25519());
        let at: Multiaddr = format!("/ip4/127.0.10.{}/udp/0/quic-v1", 1 + strand % 8).parse().unwrap();
        transport.listen_on(libp2p::core::transport::ListenerId::next(), at).unwrap();
        strands.push(async move {
            for number in (from + strand..to).step_by(16) {
                let dial = transport.dial(addr.clone(), dial_options()).unwrap();
                let Ok(Ok((_, mut muxer))) = timeout(PATIENCE, dial).await else { continue };
                let Ok(mut stream) = open(&mut muxer).await else { continue };
                let _ = stream.write_all(&bad_hello(number)).await;
                let _ = stream.close().await;
                end_of(&mut muxer).await;
            }
        });
    }
    while strands.next().await.is_some() {}
}

#[tokio::test]
async fn ten_thousand_bad_hellos() {
    let scene = Scene::start(1).await;
    let started = std::time::Instant::now();
    // Each is a connection of an identity of its own: what is remembered of the refused has to fill up first,
    // and the allocator to find its level, before growth says anything.
    let before = 3 * FRAMES_BEFORE;
    knock_badly(&scene.addr, 0, before).await;
    scene.serves("between.bin", 2).await;
    // The allocator takes a step now and then; what leaks grows in every round.
    let mut grew = Vec::new();
    for round in 0..3 {
        let (refused, used) = (scene.refused().await, uses(scene.pid).await);
        let first = before + round * FRAMES;
        knock_badly(&scene.addr, first, first + FRAMES).await;
        eprintln!("{} bad hellos in {:?}", first + FRAMES, started.elapsed());
        assert!(scene.refused().await >= refused + FRAMES, "each was counted");
        match returned_to(scene.pid, used, GROWTH_KIB, Duration::from_secs(2)).await {
            Ok(()) => return scene.serves("after.bin", 3).await,
            Err(now) => grew.push((used, now)),
        }
    }
    panic!("each round of {FRAMES} grew by more than {GROWTH_KIB} KiB: {grew:?}");
}

// ---- a member that is not itself any more ----

/// Three nodes; the third is killed and its place taken.
async fn with_a_stolen_member() -> (Scene, Mask) {
    let cluster = tokio::task::spawn_blocking(|| {
        let mut cluster = Cluster::start(3);
        cluster.nodes.kill(2).unwrap();
        cluster
    });
    let cluster = cluster.await.unwrap();
    let home = cluster.nodes.all[2].home.clone();
    let scene = Scene::of(cluster).await;
    let mask = Mask::of_home(&home, &scene.key).await;
    (scene, mask)
}

fn lane_message(number: u64, body: Body<RawRegister>) -> Vec<u8> {
    let round = RoundId { boot: 1, number };
    Message { epoch: Epoch::FOUNDING, object: object(9), round, body }.encode(0)
}

#[tokio::test]
async fn ten_thousand_bad_lane_frames_of_a_member() {
    let (scene, mask) = with_a_stolen_member().await;
    let good = lane_message(1, Body::Prepare { ballot: ballot(7) });
    let not_a_register = lane_message(2, Body::Mirror { ballot: ballot(7), value: RawRegister(vec![1; 99]) });
    attack(&scene, |from, to| {
        let (scene, mask, good, not_a_register) = (&scene, &mask, &good, &not_a_register);
        async move {
            let foe = Foe::meet(mask, &scene.addr).await;
            let _ears = listening(&foe).await;
            let mut lane = lane(&foe).await;
            for number in from..to {
                let bad = match number % 500 {
                    // Too long: it ends the lane, and the next one is another.
                    499 => (limits::LANE_FRAME_BYTES_MAX as u32 + 1).to_be_bytes().to_vec(),
                    n if n % 10 == 9 => framed(not_a_register),
                    _ => framed(&broken(number, good)),
                };
                lane.write_all(&bad).await.unwrap();
                if number % 500 == 499 {
                    ended(&mut lane).await;
                    lane = self::lane(&foe).await;
                }
            }
            lane.close().await.unwrap();
            ended(&mut lane).await;
        }
    })
    .await;
}

async fn lane(foe: &Foe) -> SubstreamBox {
    loop {
        match foe.greeted(LANE).await.expect("a lane") {
            Ok(stream) => return stream,
            Err(code) => assert_eq!(code, 2, "only busy: the last one is not gone yet"),
        }
    }
}

fn ballot(counter: u64) -> Ballot {
    Ballot { epoch: Epoch::FOUNDING, counter, node: NodeNumber(0), boot: 1 }
}

// ---- values that nobody may write ----

async fn current(scene: &Scene, object: ObjectId) -> Vec<u8> {
    match scene.watcher.ask(&Request::Read { object }).await {
        Some(Response::Register { value: Some(value) }) => value.0,
        other => panic!("{other:?}"),
    }
}

fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).unwrap()
}

fn keys_of_another_user() -> UserKeys {
    UserKeys::derive(&UserSecret::from_random([8; 32].into()))
}

/// Values with one thing wrong each.
fn forgeries(one: &[u8], other: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let (register, other) = (Register::decode(one).unwrap(), Register::decode(other).unwrap());
    let stranger = keys_of_another_user().owner();
    let mut signature = register.signature.clone();
    signature[10] ^= 1;
    let with = |change: &dyn Fn(&mut Register)| {
        let mut forged = register.clone();
        change(&mut forged);
        forged.encode()
    };
    vec![
        ("a wrong signature", with(&|r| r.signature = signature.clone())),
        ("no signature", with(&|r| r.signature = ByteBuf::new())),
        ("one object's value sent for another", with(&|r| r.object = other.object)),
        ("another tag", with(&|r| r.tag = other.tag)),
        ("a foreign key", with(&|r| r.owner = stranger)),
        ("another manifest", with(&|r| r.manifest = other.manifest)),
        ("a later version", with(&|r| r.version += 1)),
        ("cut short", one[..one.len() - 1].to_vec()),
        ("empty", Vec::new()),
        ("noise", noise(3, 500)),
    ]
}

#[tokio::test]
async fn forged_and_old_values_change_nothing_whoever_sends_them() {
    let (scene, mask) = with_a_stolen_member().await;
    scene.serves("a.bin", 5).await;
    scene.serves("b.bin", 6).await;
    let keys = scene.secret().await;
    let [a, b] = ["a.bin", "b.bin"].map(|n| keys.address(&name(n)).object);
    let old = current(&scene, a).await;
    // A value whose request is among the last of the current one is taken for a retry of what was done.
    for seed in 0..=limits::REGISTER_REQUESTS_MAX as u64 {
        scene.cli(move |cluster| cluster.put("a.bin", &noise(100 + seed, 100))).await;
    }
    let values = (current(&scene, a).await, current(&scene, b).await);
    assert_ne!(values.0, old);

    let before = scene.counted().await;
    let forgeries = forgeries(&values.0, &values.1);
    for (what, forged) in &forgeries {
        let answer = scene.watcher.ask(&Request::Propose { value: RawRegister(forged.clone()) }).await;
        assert!(matches!(answer, Some(Response::Refused(_))), "{what}: {answer:?}");
    }
    let replayed = scene.watcher.ask(&Request::Propose { value: RawRegister(old.clone()) }).await;
    let current_a = Some(RawRegister(values.0.clone()));
    assert_eq!(replayed, Some(Response::Conflict { current: current_a }), "an older value");

    // The same from a member, as a proposer and as a client of the home.
    let foe = Foe::meet(&mask, &scene.addr).await;
    let _ears = listening(&foe).await;
    let mut lane = lane(&foe).await;
    let high = ballot(1 << 40);
    for (_, forged) in &forgeries {
        let value = || RawRegister(forged.clone());
        for body in [
            Body::Accept { ballot: high, value: value(), next: None },
            Body::Mirror { ballot: high, value: value() },
            Body::Forward { command: Command::Propose { value: value() } },
        ] {
            let round = RoundId { boot: 1, number: 1 };
            let message = Message { epoch: Epoch::FOUNDING, object: a, round, body };
            lane.write_all(&framed(&message.encode(0))).await.unwrap();
        }
    }
    // Well signed, for another object than the message is about.
    let round = RoundId { boot: 1, number: 2 };
    let body = Body::Accept { ballot: high, value: RawRegister(values.1.clone()), next: None };
    let crossed = Message { epoch: Epoch::FOUNDING, object: a, round, body };
    lane.write_all(&framed(&crossed.encode(0))).await.unwrap();
    scene.malformed_since(&before, 4 * forgeries.len() as u64).await;
    assert_eq!((current(&scene, a).await, current(&scene, b).await), values);
    scene.serves("c.bin", 8).await;
}

#[tokio::test]
async fn a_stranger_may_write_beside_a_user_and_never_over() {
    let scene = Scene::start(1).await;
    let (owner, thief) = (scene.secret().await, keys_of_another_user());
    let plan_name = name("first.bin");
    let info = ObjectInfo {
        name: plan_name.clone(),
        media_type: MediaType::octet_stream(),
        bytes: 1,
        unix_ms: 1,
        thumbnail: None,
    };
    let plan = RegisterPlan {
        info: &info,
        version: 1,
        previous: tintype::model::Digest::ZERO,
        manifest: Some(BodyId([1; 32])),
        tombstone: false,
        fence: 0,
        requests: vec![RequestId([1; 16])],
    };
    let before = current(&scene, owner.address(&plan_name).object).await;
    let own = register::sign(&thief, &plan).unwrap();
    assert_ne!(own.object, owner.address(&plan_name).object);
    let answer = scene.watcher.ask(&Request::Propose { value: own.to_raw() }).await;
    assert!(matches!(answer, Some(Response::Committed(_))), "{answer:?}");
    assert_eq!(current(&scene, owner.address(&plan_name).object).await, before);
}

// ---- bodies ----

pub fn body_id(bytes: &[u8]) -> BodyId {
    BodyId(*blake3::hash(bytes).as_bytes())
}

/// One put, as raw frames; the kind of the answer and the holders in it.
pub async fn put_raw(
    foe: &Foe,
    id: BodyId,
    body: &[u8],
    onward: Vec<libp2p::PeerId>,
) -> (u8, Vec<libp2p::PeerId>) {
    let Ok(mut stream) = foe.greeted(BULK).await.unwrap() else { panic!("busy") };
    let header = codec::encode(&(1u64, 7u64, 1u8, id, body.len() as u64, onward, 1u8, false));
    stream.write_all(&[framed(&header), body.to_vec()].concat()).await.unwrap();
    let mut len = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut len)).await.expect("an answer").unwrap();
    let mut answer = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut answer).await.unwrap();
    let (_, _, kind, _, holders, _): (u64, u64, u8, u64, Vec<libp2p::PeerId>, String) =
        codec::decode(&answer, limits::BULK_HEADER_BYTES_MAX).unwrap();
    (kind, holders)
}

#[tokio::test]
async fn bodies_are_what_their_id_says_and_go_to_members_only() {
    let scene = Scene::start(1).await;
    let foe = Foe::meet(&Mask::client(&scene.key), &scene.addr).await;
    let me = scene.status().await.peer;
    let before = scene.counted().await;
    let (body, wrong) = (noise(1, 70_000), noise(2, 70_000));
    assert_eq!(put_raw(&foe, body_id(&body), &wrong, vec![]).await, (6, vec![]), "corrupt");
    assert_eq!(put_raw(&foe, body_id(&body), &body[..69_999], vec![]).await.0, 6);
    assert_eq!(put_raw(&foe, body_id(&body), &[], vec![]).await.0, 6, "nothing is not that body");
    scene.malformed_since(&before, 3).await;
    let check = Request::Check { bodies: vec![body_id(&body)], read: true, copies: u64::MAX };
    let states = scene.watcher.ask(&check).await;
    assert_eq!(states, Some(Response::Checked(vec![tintype::model::rpc::BodyState::Missing])));

    // Itself, the sender, a stranger, each twice: they are passed over, the body is stored once.
    let stranger = libp2p::PeerId::random();
    let onward = vec![me, me, foe.peer, foe.peer, stranger, stranger];
    assert_eq!(put_raw(&foe, body_id(&body), &body, onward).await, (1, vec![me]));
    assert_eq!(put_raw(&foe, body_id(&[]), &[], vec![]).await, (1, vec![me]), "the empty body has an id too");
    let many = vec![BodyId([3; 32]); limits::OFFER_IDS_MAX + 1];
    for request in [
        Request::Offer { bodies: many.clone() },
        Request::Check { bodies: many, read: false, copies: 0 },
        Request::Check { bodies: vec![BodyId([3; 32]); limits::VERIFY_IDS_MAX + 1], read: true, copies: 3 },
    ] {
        let answer = foe.ask(&request).await;
        assert!(matches!(answer, Some(Response::Refused(_))), "{answer:?}");
    }
}

// ---- bounds ----

#[tokio::test]
async fn a_listing_is_its_owners_and_a_stop_the_homes() {
    let scene = Scene::start(1).await;
    let (owner, thief, status) = (scene.secret().await, keys_of_another_user(), scene.status().await);
    let list = |foe: &Foe, keys: &UserKeys, of: OwnerKey, nonce: &[u8]| {
        let claim = ListClaim {
            client: &foe.peer,
            client_boot: 0,
            server: &status.peer,
            server_boot: status.boot,
            nonce,
            after: None,
        };
        let signature = ByteBuf::from(register::list_proof(keys, &claim));
        Request::List(ListRequest { owner: of, nonce: ByteBuf::from(nonce.to_vec()), after: None, signature })
    };
    let nonce = async |foe: &Foe| match foe.ask(&Request::ListNonce).await {
        Some(Response::Nonce(nonce)) => nonce.to_vec(),
        other => panic!("{other:?}"),
    };
    let is_refused = |answer| matches!(answer, Some(Response::Refused(_)));
    let other = Foe::meet(&Mask::client(&scene.key), &scene.addr).await;
    let before_any = list(&scene.watcher, &owner, owner.owner(), &[1; 32]);
    assert!(is_refused(scene.watcher.ask(&before_any).await), "no nonce was given out");
    let given = nonce(&scene.watcher).await;
    let right = list(&scene.watcher, &owner, owner.owner(), &given);
    let forged = list(&scene.watcher, &thief, owner.owner(), &given);
    assert!(is_refused(scene.watcher.ask(&forged).await), "another user's signature");
    let Some(Response::Page(page)) = scene.watcher.ask(&right).await else { panic!("its owner may") };
    assert_eq!(page.records.len(), 1);
    // Overheard and sent again: from another connection, with its own nonce or none; here after a new one.
    assert!(is_refused(other.ask(&right).await));
    let others = nonce(&other).await;
    assert!(is_refused(other.ask(&right).await));
    assert!(is_refused(other.ask(&list(&scene.watcher, &owner, owner.owner(), &others)).await));
    nonce(&scene.watcher).await;
    assert!(is_refused(scene.watcher.ask(&right).await), "the nonce is another now");

    for token in [vec![], vec![0; 32], vec![7; 31], vec![7; 4000]] {
        let answer = scene.watcher.ask(&Request::Stop { token: ByteBuf::from(token) }).await;
        assert!(is_refused(answer), "a wrong token");
    }
    scene.serves("after.bin", 2).await;
}

#[tokio::test]
async fn more_than_is_allowed_at_once_is_busy_and_not_memory() {
    let scene = Scene::start(1).await;
    let foe = Foe::meet(&Mask::client(&scene.key), &scene.addr).await;
    // Streams that only half ask, or whose answers nobody reads; more than one connection may have.
    let round = async || {
        for _ in 0..4 {
            let mut unread = Vec::new();
            for number in 0..limits::QUIC_STREAMS_MAX {
                let opened = timeout(Duration::from_millis(200), foe.open(RPC)).await;
                let Ok(Ok(mut stream)) = opened else { break };
                let events = Request::Events { after: 0 }.encode();
                let whole: Vec<u8> = (0..30).flat_map(|number| question(number, &events)).collect();
                let part = if number % 3 == 0 { &whole[..3] } else { &whole[..] };
                let _ = stream.write_all(part).await;
                if number % 3 > 0 {
                    let _ = stream.close().await;
                }
                unread.push(stream);
            }
            assert!(unread.len() >= 60, "so many may be open: {}", unread.len());
        }
    };
    round().await;
    let before = uses(scene.pid).await;
    round().await;
    round().await;
    returns_to(scene.pid, before, GROWTH_KIB).await;
    scene.serves("after.bin", 2).await;
}

#[tokio::test]
async fn questions_past_the_bound_of_one_peer_are_answered_busy() {
    let mut cluster = tokio::task::spawn_blocking(|| Cluster::start(3)).await.unwrap();
    let addr = multiaddr(&cluster.nodes.all[0].addr);
    let key = Home::at(&cluster.client).cluster_key().unwrap().expect("a key");
    let key = ClusterKey::parse(&key).unwrap();
    // Alone, a node needs its full patience for every read: they pile up.
    cluster.nodes.kill(1).unwrap();
    cluster.nodes.kill(2).unwrap();
    let foe = Foe::meet(&Mask::client(&key), &addr).await;
    let asked: Vec<u8> = (0..limits::RPC_IN_FLIGHT_MAX as u8 + 20)
        .flat_map(|number| question(number.into(), &Request::Read { object: object(number) }.encode()))
        .collect();
    let said = foe.say_by_rpc(&asked).await.unwrap();
    let (mut busy, mut numbers, mut rest) = (0, std::collections::BTreeSet::new(), &said[..]);
    while let Some((number, answer, behind)) = answer(rest) {
        match answer {
            None => busy += 1,
            Some(Response::NoQuorum | Response::Busy) => {}
            other => panic!("{other:?}"),
        }
        numbers.insert(number);
        rest = behind;
    }
    assert!(rest.is_empty());
    assert_eq!(numbers, (0..limits::RPC_IN_FLIGHT_MAX as u64 + 20).collect(), "each has its answer");
    assert!(busy >= 20, "{busy}");
    // The places are free again.
    let again = foe.ask(&Request::Read { object: object(1) }).await;
    assert_eq!(again, Some(Response::NoQuorum));
}

/// A command of a home with another key says so and puts nothing.
#[tokio::test]
async fn a_client_with_another_key_is_told_so() {
    let scene = Scene::start(1).await;
    let answer = scene
        .cli(|cluster| {
            let home = cluster.dir().join("other");
            let home = home.to_str().unwrap();
            let program = || std::process::Command::new(crate::cluster::PROGRAM);
            assert_eq!(finish(program().args(["init", "--home", home])).code, Some(0));
            let addr = &cluster.nodes.all[0].addr;
            finish(program().args(["ls", "--home", home, "--node", addr]))
        })
        .await;
    assert_eq!(answer.code, Some(5), "{answer:?}");
    assert!(answer.stderr.contains("key"), "{answer:?}");
    assert!(answer.took < Duration::from_secs(4), "{answer:?}");
}

#[tokio::test]
async fn an_unknown_protocol_is_refused_before_anything_is_read() {
    let scene = Scene::start(1).await;
    let error = scene.watcher.exchange("/tintype/other/1", &[0; 100]).await.unwrap_err();
    assert!(
        matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::Unsupported)
            || error.kind() == io::ErrorKind::ConnectionReset,
        "{error:?}"
    );
}
