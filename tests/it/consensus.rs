//! Registers on real nodes: what a commit costs on the wire, whose it is, what is refused, and many at once.
//!
//! What is measured of time is printed (`--nocapture`).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use libp2p_identity::Keypair;
use tintype::{
    disk::{Disk, DiskOptions, Home},
    model::{
        BodyId, Digest, ObjectId, PeerId, ProcessId, RequestId,
        hello::{BootMark, Kind},
        member::{Epoch, NodeNumber},
        object::{MediaType, ObjectName},
        register::{RawRegister, Register, VerifiedRegister},
        rpc::{Commit, Counters, NodeState, Request, Response},
        slots::HashSlot,
    },
    net::{
        Event, Net, NetConfig, NetHandle, address,
        transport::{Gate, Keys, Me, OwnStarts},
    },
    proto::{
        chunkpaxos::{Ballot, Body, Message, RoundId},
        placement::{self, Weighted},
    },
    seal::{
        admission::ClusterKey,
        keys::{UserKeys, UserSecret},
        manifest::ObjectInfo,
        register::{RegisterPlan, sign},
    },
};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::{
    cluster::{Cluster, PROGRAM, finish, noise, wait_for},
    founding::status_of,
};

const PATIENCE: Duration = Duration::from_secs(30);

// ---- a peer of the test's own ----

/// A network of the test's own, without a node around it.
struct Wire {
    net: NetHandle,
    lane: tokio::sync::mpsc::Sender<(PeerId, Vec<u8>)>,
    heard: mpsc::Receiver<(PeerId, Vec<u8>)>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// A client that talks with all nodes of the cluster that run.
    fn client(cluster: &Cluster, peers: &[PeerId]) -> Self {
        let keypair = Keypair::generate_ed25519();
        let me = Me {
            peer: keypair.public().to_peer_id(),
            kind: Kind::Client,
            mark: BootMark { boot: 0, process: ProcessId([7; 16]) },
            promises: 0,
            incarnation: None,
            founding: None,
            name: String::new(),
        };
        let keys = Keys::Client(cluster_key(cluster).client_right());
        let wire = Self::start(cluster, NetConfig::client(), keypair, me, keys, OwnStarts::default());
        wire.wait_connected(peers);
        wire
    }

    fn start(
        cluster: &Cluster,
        mut config: NetConfig,
        keypair: Keypair,
        me: Me,
        keys: Keys,
        starts: OwnStarts,
    ) -> Self {
        let sockets = cluster.nodes.addresses().into_iter().map(|addr| addr.parse().expect("host:port"));
        config.bootstrap = sockets.map(address::quic).collect();
        let (tell, told) = mpsc::sync_channel(1);
        let (lane, mut frames) = tokio::sync::mpsc::channel::<(PeerId, Vec<u8>)>(64);
        let (say, heard) = mpsc::sync_channel(1024);
        let (stop, mut stopped) = watch::channel(false);
        let members: BTreeSet<PeerId> = peers_of(cluster).into_iter().collect();
        let run = async move {
            let (gate, gate_events) = Gate::new(me, keys, starts, []);
            let (mut net, _calls) = Net::start(config, &keypair, gate, gate_events).expect("it starts");
            net.set_members(members);
            tell.send(net.handle()).expect("the test waits");
            loop {
                tokio::select! {
                    _ = stopped.changed() => break,
                    Some((peer, frame)) = frames.recv() => net.send_lane(peer, frame).expect("it is sent"),
                    event = net.next() => if let Event::LaneFrame { peer, bytes } = event {
                        let _ = say.try_send((peer, bytes));
                    }
                }
            }
            net.close().await;
        };
        let thread = std::thread::spawn(move || runtime().block_on(run));
        let net = told.recv().expect("the network starts");
        Self { net, lane, heard, stop, thread: Some(thread) }
    }

    #[track_caller]
    fn wait_connected(&self, peers: &[PeerId]) {
        wait_for("connections with all nodes", PATIENCE, || {
            let connected = self.net.connected();
            peers.iter().all(|peer| connected.contains_key(peer))
        });
    }

    fn ask(&self, peer: PeerId, request: &Request) -> Response {
        let answer = self.net.request(peer, request.encode(), Duration::from_secs(5));
        let bytes = runtime().block_on(answer).expect("an answer");
        Response::decode(&bytes).expect("a response")
    }

    fn propose(&self, peer: PeerId, value: &VerifiedRegister) -> Response {
        self.ask(peer, &Request::Propose { value: value.to_raw() })
    }

    #[track_caller]
    fn commit(&self, peer: PeerId, value: &VerifiedRegister) -> Commit {
        match self.propose(peer, value) {
            Response::Committed(commit) => commit,
            other => panic!("not committed: {other:?}"),
        }
    }

    fn read(&self, peer: PeerId, object: ObjectId) -> Option<RawRegister> {
        match self.ask(peer, &Request::Read { object }) {
            Response::Register { value } => value,
            other => panic!("not read: {other:?}"),
        }
    }

    /// What each of these nodes counted itself.
    fn counters(&self, peers: &[PeerId]) -> Vec<Counters> {
        let own = |peer: &PeerId| match self.ask(*peer, &Request::Nodes) {
            Response::Nodes(nodes) => nodes.into_iter().find(|n| n.peer == *peer).and_then(|n| n.counters),
            other => panic!("no nodes: {other:?}"),
        };
        peers.iter().map(|peer| own(peer).expect("its own counters")).collect()
    }

    fn frames(&self, peers: &[PeerId]) -> u64 {
        self.counters(peers).iter().map(|counters| counters.lane_frames_sent).sum()
    }

    /// Waits until all nodes together have sent exactly so many frames more than before.
    #[track_caller]
    fn wait_frames(&self, peers: &[PeerId], before: u64, more: u64) {
        let mut now = before;
        let deadline = Instant::now() + Duration::from_secs(5);
        while now < before + more && Instant::now() < deadline {
            now = self.frames(peers);
        }
        assert_eq!(now - before, more, "frames on the wire");
    }

    fn end(mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it ends");
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn cluster_key(cluster: &Cluster) -> ClusterKey {
    let text = std::fs::read_to_string(cluster.client.join("keys/cluster.key")).expect("a cluster key");
    ClusterKey::parse(text.trim()).expect("a cluster key")
}

fn peers_of(cluster: &Cluster) -> Vec<PeerId> {
    cluster.nodes.all.iter().map(|node| node.peer.parse().expect("a PeerId")).collect()
}

/// The node that proposes for an object, and another one.
fn home_and_other(peers: &[PeerId], object: &ObjectId) -> (PeerId, PeerId) {
    let members: Vec<Weighted> = peers.iter().map(|peer| Weighted { peer: *peer, weight: 1 }).collect();
    let keepers = placement::keepers(Epoch::FOUNDING, &members, HashSlot::of(object));
    let home = placement::home(Epoch::FOUNDING, &keepers.acceptors, object).expect("a home");
    let other = peers.iter().copied().find(|peer| *peer != home).expect("another node");
    (home, other)
}

// ---- registers of the test's own ----

fn user(seed: u8) -> UserKeys {
    UserKeys::derive(&UserSecret::from_random(Zeroizing::new([seed; 32])))
}

/// A value whose manifest is nowhere: acceptors do not look at it.
fn value(keys: &UserKeys, name: &str, before: Option<&VerifiedRegister>, request: u8) -> VerifiedRegister {
    let info = ObjectInfo {
        name: ObjectName::parse(name).expect("a name"),
        media_type: MediaType::parse("application/octet-stream").expect("a type"),
        bytes: 5,
        unix_ms: 1,
        thumbnail: None,
    };
    let plan = RegisterPlan {
        info: &info,
        version: before.map_or(1, |b| b.version + 1),
        previous: before.map_or(Digest::ZERO, VerifiedRegister::hash),
        manifest: Some(BodyId([request; 32])),
        tombstone: false,
        fence: 0,
        requests: vec![RequestId([request; 16])],
    };
    sign(keys, &plan).expect("signs")
}

/// Waits until no node has anything to repair, so that nothing but the test speaks.
#[track_caller]
fn wait_calm(cluster: &Cluster) {
    wait_for("nothing to repair", PATIENCE, || {
        (0..cluster.nodes.all.len()).all(|index| {
            status_of(cluster, index).is_some_and(|status| {
                status.info.under_repair == Some(0)
                    && status.info.nodes.iter().all(|node| node.state == NodeState::Alive)
            })
        })
    });
}

// ---- what a commit costs ----

/// Counted are frames of the lanes between members, each once, where it is sent: all that ChunkPaxos says but
/// what a node says to itself. A read by the home is a question and an answer with each of the two other
/// acceptors (4); a first or cached write likewise (4), and with what the home says to itself 6. Through
/// another node come three frames more: forwarded, taken, answered.
#[test]
fn a_first_and_a_cached_commit_cost_six_messages_four_of_them_on_the_wire() {
    let cluster = Cluster::start(3);
    wait_calm(&cluster);
    let peers = peers_of(&cluster);
    let wire = Wire::client(&cluster, &peers);
    let alice = user(1);
    for number in 0..3u8 {
        let first = value(&alice, &format!("home-{number}.bin"), None, number);
        let (home, other) = home_and_other(&peers, &first.object);
        let before = wire.frames(&peers);
        assert_eq!(wire.read(home, first.object), None);
        wire.wait_frames(&peers, before, 4);
        let before = wire.frames(&peers);
        assert_eq!(wire.commit(home, &first).messages, 6);
        wire.wait_frames(&peers, before, 4);
        let before = wire.frames(&peers);
        let second = value(&alice, &format!("home-{number}.bin"), Some(&first), 100 + number);
        assert_eq!(wire.commit(home, &second).messages, 6);
        wire.wait_frames(&peers, before, 4);
        let before = wire.frames(&peers);
        let third = value(&alice, &format!("home-{number}.bin"), Some(&second), 200 + number);
        assert_eq!(wire.commit(other, &third).messages, 6);
        wire.wait_frames(&peers, before, 7);
        assert_eq!(wire.read(other, first.object), Some(third.to_raw()));
    }
    let counters = wire.counters(&peers);
    let sum = |of: fn(&Counters) -> u64| counters.iter().map(of).sum::<u64>();
    assert_eq!((sum(|c| c.commits), sum(|c| c.home_commits), sum(|c| c.commit_messages)), (9, 9, 54));
    wire.end();
    // The same of the program's own put: the commit alone, without the read before it.
    let file = cluster.file("small.bin", &noise(1, 900));
    let said = cluster.ok(&["put", "--json", file.to_str().expect("a plain path")]);
    let said: serde_json::Value = serde_json::from_str(said.lines().last().expect("a line")).expect("JSON");
    assert_eq!(said["commit_messages"], 6, "{said}");
}

// ---- whose it is ----

#[test]
fn two_users_may_use_one_name() {
    let cluster = Cluster::start(3);
    for user in ["alice", "bob"] {
        cluster.ok(&["user", "add", user]);
        let file = cluster.file(&format!("{user}/same.bin"), user.as_bytes());
        let said = cluster.ok(&["put", file.to_str().expect("a plain path"), "--as", user]);
        assert!(said.contains("same.bin  version 1"), "{said}");
    }
    for user in ["alice", "bob"] {
        assert_eq!(cluster.ok(&["get", "same.bin", "-o", "-", "--as", user]), user);
        let listed = cluster.ok(&["ls", "--as", user]);
        assert_eq!(listed.matches("same.bin").count(), 1, "{listed}");
    }
    cluster.ok(&["user", "add", "carol"]);
    assert_eq!(cluster.run(&["get", "same.bin", "-o", "-", "--as", "carol"]).code, Some(3));
}

/// Registers that nobody may believe: one object's sent for another, with another's key, changed afterwards.
fn forgeries(good: &VerifiedRegister, alice: &UserKeys, mallory: &UserKeys) -> Vec<Vec<u8>> {
    let register = Register::clone(good);
    let others = value(alice, "other.bin", None, 9);
    let hers = Register::clone(&value(mallory, "one.bin", None, 9));
    let forged = [
        Register { object: others.object, ..register.clone() },
        Register { object: others.object, tag: others.tag, ..register.clone() },
        Register { owner: mallory.owner(), ..register.clone() },
        Register { object: register.object, ..hers.clone() },
        Register { object: register.object, owner: register.owner, tag: register.tag, ..hers },
        Register { manifest: Some(BodyId([8; 32])), ..register },
    ];
    forged.iter().map(Register::encode).collect()
}

#[test]
fn a_register_for_another_object_or_with_a_foreign_key_is_refused_by_every_node() {
    let cluster = Cluster::start(3);
    let peers = peers_of(&cluster);
    let wire = Wire::client(&cluster, &peers);
    let (alice, mallory) = (user(1), user(2));
    let good = value(&alice, "one.bin", None, 1);
    let forged = forgeries(&good, &alice, &mallory);
    let before = wire.counters(&peers);
    for bytes in &forged {
        for peer in &peers {
            let answer = wire.ask(*peer, &Request::Propose { value: RawRegister(bytes.clone()) });
            assert!(matches!(answer, Response::Refused(_)), "{answer:?}");
        }
    }
    for (now, before) in wire.counters(&peers).iter().zip(&before) {
        assert_eq!(now.malformed - before.malformed, forged.len() as u64, "each is counted");
        assert_eq!(now.lane_frames_sent, before.lane_frames_sent, "no acceptor was even asked");
    }
    wire.commit(peers[0], &good);
    wire.end();
}

/// A member that lies, with a node's own keys and disk, but none of its checks.
#[test]
fn an_acceptor_believes_no_member_what_the_owner_has_not_signed() {
    let mut cluster = Cluster::start(3);
    wait_calm(&cluster);
    let peers = peers_of(&cluster);
    let founding = status_of(&cluster, 0).and_then(|status| status.info.founding);
    cluster.nodes.kill(2).expect("killed");
    let home = Home::at(&cluster.nodes.all[2].home);
    let (disk, boot) = Disk::open(&home, DiskOptions::default()).expect("its disk");
    let (keypair, _) = home.node_key_or_new().expect("its key");
    let me = Me {
        peer: peers[2],
        kind: Kind::Member,
        mark: boot.mark,
        promises: boot.promises,
        incarnation: Some(boot.incarnation),
        founding,
        name: "mallory".into(),
    };
    let listen = vec![address::quic("127.0.0.1:0".parse().expect("an address"))];
    let keys = Keys::Cluster(cluster_key(&cluster));
    let starts = OwnStarts::new(disk.starts());
    let wire = Wire::start(&cluster, NetConfig::node(listen), keypair, me, keys, starts);
    let acceptors = [peers[0], peers[1]];
    wire.wait_connected(&acceptors);
    let client = Wire::client(&cluster, &acceptors);
    let before = client.counters(&acceptors);

    let mut members = peers.clone();
    members.sort();
    let place = members.iter().position(|peer| *peer == peers[2]).expect("a member");
    let node = NodeNumber(u16::try_from(place).expect("three"));
    let say = |object: ObjectId, number: u64, raw: RawRegister| {
        let ballot = Ballot { epoch: Epoch::FOUNDING, counter: number, node, boot: boot.mark.boot };
        let round = RoundId { boot: boot.mark.boot, number };
        let body = Body::Accept { ballot, value: raw, next: None };
        let frame = Message { epoch: Epoch::FOUNDING, object, round, body }.encode(disk.promises());
        for peer in acceptors {
            wire.lane.blocking_send((peer, frame.clone())).expect("the wire runs");
        }
    };
    let (alice, mallory) = (user(1), user(2));
    let good = value(&alice, "one.bin", None, 1);
    let forged = forgeries(&good, &alice, &mallory);
    for (bytes, number) in forged.iter().zip(1..) {
        say(good.object, number, RawRegister(bytes.clone()));
        let named = Register::decode(bytes).expect("it decodes").object;
        say(named, 100 + number, RawRegister(bytes.clone()));
    }
    // A right one under the name of another object.
    say(value(&alice, "other.bin", None, 1).object, 200, good.to_raw());
    say(good.object, 1000, good.to_raw());

    let mut accepted = BTreeMap::new();
    while accepted.len() < 2 {
        let (peer, bytes) = wire.heard.recv_timeout(PATIENCE).expect("the right one is accepted");
        let Ok((_, message)) = Message::<RawRegister>::decode(&bytes) else { panic!("malformed") };
        if matches!(message.body, Body::Accepted { .. }) {
            assert_eq!(message.round.number, 1000, "a forgery was accepted");
            accepted.insert(peer, message.round.number);
        }
    }
    wait_for("all forgeries to be counted", PATIENCE, || {
        let counted = client.counters(&acceptors).into_iter().zip(&before);
        counted.into_iter().all(|(now, before)| now.malformed - before.malformed == 2 * forged.len() as u64)
    });
    assert!(wire.heard.try_iter().all(|(_, bytes)| {
        let (_, message) = Message::<RawRegister>::decode(&bytes).expect("whole");
        !matches!(message.body, Body::Accepted { .. })
    }));
    wire.end();
    client.end();
}

#[test]
fn an_older_value_sent_again_is_a_conflict_and_the_same_one_is_not() {
    let cluster = Cluster::start(3);
    let peers = peers_of(&cluster);
    let wire = Wire::client(&cluster, &peers);
    let alice = user(1);
    let first = value(&alice, "one.bin", None, 1);
    let second = value(&alice, "one.bin", Some(&first), 2);
    wire.commit(peers[0], &first);
    wire.commit(peers[1], &second);
    let rival = value(&alice, "one.bin", Some(&first), 3);
    for peer in &peers {
        for old in [&first, &rival] {
            let Response::Conflict { current } = wire.propose(*peer, old) else { panic!("no conflict") };
            assert_eq!(current, Some(second.to_raw()));
        }
        wire.commit(*peer, &second);
    }
    assert_eq!(wire.read(peers[2], first.object), Some(second.to_raw()));
    wire.end();
}

// ---- many at once ----

#[test]
fn eight_clients_that_put_one_name_become_eight_versions() {
    let cluster = Cluster::start(3);
    cluster.ok(&["user", "add", "alice"]);
    let files: Vec<Vec<u8>> = (0..8).map(|seed| noise(seed, 1500)).collect();
    let versions: Mutex<BTreeMap<u64, usize>> = Mutex::default();
    std::thread::scope(|scope| {
        for (index, bytes) in files.iter().enumerate() {
            let (cluster, versions) = (&cluster, &versions);
            scope.spawn(move || {
                let file = cluster.file(&format!("{index}/x.bin"), bytes);
                let said = cluster.ok(&["put", "--json", file.to_str().expect("a plain path")]);
                let said: serde_json::Value = serde_json::from_str(said.trim()).expect("JSON");
                let version = said["version"].as_u64().expect("a version");
                let double = versions.lock().expect("no panic").insert(version, index);
                assert_eq!(double, None, "version {version} was given twice");
            });
        }
    });
    let versions = versions.into_inner().expect("no panic");
    assert_eq!(versions.keys().copied().collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
    for (version, index) in versions {
        let get = ["get", "x.bin", "-o", "-", "--version", &version.to_string()];
        let output = cluster.command(&get).output().expect("the program runs");
        assert!(output.stdout == files[index], "version {version}: {output:?}");
    }
}

#[test]
fn many_objects_from_several_processes_are_all_there() {
    let cluster = Cluster::start(3);
    cluster.ok(&["user", "add", "alice"]);
    let bytes = |process: usize, file: usize| noise((100 * process + file) as u64, 400 + 900 * file);
    std::thread::scope(|scope| {
        for process in 0..4 {
            let (cluster, bytes) = (&cluster, &bytes);
            scope.spawn(move || {
                for file in 0..8 {
                    cluster.file(&format!("p{process}/f{file}.bin"), &bytes(process, file));
                }
                let folder = cluster.dir().join(format!("p{process}"));
                let said = cluster.ok(&["put", "-r", folder.to_str().expect("a plain path")]);
                assert_eq!(said.matches("version 1 ").count(), 8, "{said}");
            });
        }
    });
    let out = cluster.dir().join("out");
    cluster.ok(&["get", "--all", "-o", out.to_str().expect("a plain path")]);
    for process in 0..4 {
        for file in 0..8 {
            let path = out.join(format!("p{process}/f{file}.bin"));
            assert!(std::fs::read(&path).ok() == Some(bytes(process, file)), "{}", path.display());
        }
    }
}

// ---- time ----

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Promised of a release build on a calm machine: 100 ms each. Printed here, for the build of the tests.
#[test]
fn a_small_picture_travels_fast() {
    let cluster = Cluster::start(3);
    cluster.ok(&["user", "add", "alice"]);
    let (mut puts, mut gets) = (Vec::new(), Vec::new());
    for number in 0..15 {
        let bytes = noise(number, 100_000);
        let name = format!("{number}.bin");
        let file = cluster.file(&name, &bytes);
        let put = cluster.run(&["put", file.to_str().expect("a plain path")]);
        assert_eq!(put.code, Some(0), "{put:?}");
        puts.push(put.took);
        let to = cluster.dir().join(format!("got-{name}"));
        let get = cluster.run(&["get", &name, "-o", to.to_str().expect("a plain path")]);
        assert_eq!(get.code, Some(0), "{get:?}");
        gets.push(get.took);
        assert!(std::fs::read(&to).expect("a file") == bytes, "{name} differs");
    }
    let (put, get) = (median(puts).as_millis(), median(gets).as_millis());
    println!("100 kB, the whole process, median of 15: put {put} ms, get {get} ms");
}

#[test]
fn status_answers_soon_with_a_node_down() {
    let mut cluster = Cluster::start(3);
    cluster.nodes.kill(1).expect("killed");
    let words = |said: &str| said.contains("2 of 3 nodes answer");
    let mut took = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let mut said = String::new();
    while !words(&said) {
        assert!(Instant::now() < deadline, "the loss was never told: {said}");
        let answer = cluster.run(&["status"]);
        assert_eq!(answer.code, Some(0), "{answer:?}");
        said = answer.stdout;
        took.push(answer.took);
    }
    for _ in 0..5 {
        took.push(cluster.run(&["status"]).took);
    }
    let worst = took.iter().max().copied().unwrap_or_default();
    println!(
        "status with a node down: median {} ms, worst {} ms",
        median(took).as_millis(),
        worst.as_millis()
    );
    assert!(worst < Duration::from_millis(2500), "{worst:?}");
}

// ---- an orderly end ----

#[cfg(unix)]
#[test]
fn a_node_that_is_told_to_stop_under_load_stops_in_order() {
    let mut cluster = Cluster::start(3);
    cluster.ok(&["user", "add", "alice"]);
    let (client, addresses) = (cluster.client.clone(), cluster.nodes.addresses());
    let dir = cluster.dir().to_path_buf();
    let done = AtomicBool::new(false);
    let acknowledged: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (client, addresses, dir, done, acknowledged) =
                (&client, &addresses, &dir, &done, &acknowledged);
            scope.spawn(move || {
                for number in 0..200u64 {
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                    let name = format!("{thread}-{number}.bin");
                    let path = dir.join(&name);
                    std::fs::write(&path, noise(1000 * thread + number, 70_000)).expect("written");
                    if put(client, addresses, &path) {
                        acknowledged.lock().expect("no panic").push(name);
                    }
                }
            });
        }
        let count = || acknowledged.lock().expect("no panic").len();
        wait_for("the load to run", PATIENCE, || count() >= 6);
        let pid = cluster.nodes.pid(0).expect("it runs").to_string();
        let since = Instant::now();
        let killed = finish(Command::new("kill").args(["-TERM", &pid]));
        assert_eq!(killed.code, Some(0), "{killed:?}");
        let end = cluster.nodes.wait_for_end(0, Duration::from_secs(10));
        println!("stopped under load after {} ms", since.elapsed().as_millis());
        assert_eq!(end.and_then(|status| status.code()), Some(0), "{}", cluster.nodes.log(0));
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
        let before = count();
        wait_for("puts without it", PATIENCE, || count() > before + 2);
        done.store(true, Ordering::SeqCst);
    });
    wait_for("the others to notice", PATIENCE, || {
        let peer = cluster.nodes.all[0].peer.clone();
        status_of(&cluster, 1).is_some_and(|status| {
            let gone = |node: &tintype::model::rpc::NodeInfo| node.state == NodeState::Dead;
            status.info.nodes.iter().any(|node| node.peer.to_string() == peer && gone(node))
        })
    });
    assert!(!cluster.nodes.all[0].home.join("data/node.addr").exists(), "its address is gone");
    let out = dir.join("out");
    cluster.ok(&["get", "--all", "-o", out.to_str().expect("a plain path")]);
    for name in acknowledged.into_inner().expect("no panic") {
        let read = |folder: &Path| std::fs::read(folder.join(&name)).ok();
        assert!(read(&out).is_some() && read(&out) == read(&dir), "{name} was acknowledged and is lost");
    }
}

/// One put by the program; whether it was acknowledged.
fn put(client: &Path, addresses: &[String], file: &Path) -> bool {
    let mut command = Command::new(PROGRAM);
    command.arg("put").arg(file).arg("--home").arg(client).stdin(Stdio::null());
    for addr in addresses {
        command.args(["--node", addr]);
    }
    finish(&mut command).code == Some(0)
}
