//! Whole networks on loopback, honest and hostile.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, identity::Keypair};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    streams::{BULK, LANE},
    transport::{Gate, Keys, KnownPeer, Me, OwnStarts},
    *,
};
use crate::{
    model::{
        BodyId, Incarnation, ProcessId, codec,
        hello::{BootMark, Kind},
    },
    seal::admission::ClusterKey,
};

mod bulk;
mod rpc;
mod served;

const PATIENCE: Duration = Duration::from_secs(10);

type Act = Box<dyn FnOnce(&mut Net) + Send>;

/// A network in a task of its own; its events queue up here.
struct Peer {
    id: PeerId,
    handle: NetHandle,
    events: mpsc::Receiver<Event>,
    acts: mpsc::Sender<Act>,
    calls: Option<mpsc::Receiver<BulkCall>>,
    addr: OnceLock<Multiaddr>,
    task: JoinHandle<Net>,
    stop: oneshot::Sender<()>,
}

#[derive(Clone)]
struct Setup {
    seed: u8,
    cluster: u8,
    member: bool,
    boot: u64,
    known: Vec<(PeerId, KnownPeer)>,
    config: NetConfig,
}

fn keypair(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn id_of(seed: u8) -> PeerId {
    keypair(seed).public().to_peer_id()
}

fn loopback(port: u16) -> Multiaddr {
    address::quic(([127, 0, 0, 1], port).into())
}

fn node(seed: u8) -> Setup {
    let config = NetConfig::node(vec![loopback(0)]);
    Setup { seed, cluster: 1, member: true, boot: 1, known: Vec::new(), config }
}

fn client(seed: u8) -> Setup {
    Setup { config: NetConfig::client(), member: false, boot: 0, ..node(seed) }
}

impl Setup {
    fn knows(mut self, peer: &Peer) -> Self {
        self.config.bootstrap.push(peer.addr());
        self
    }

    fn net(self) -> (Net, mpsc::Receiver<BulkCall>) {
        self.try_net().unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_net(self) -> Result<(Net, mpsc::Receiver<BulkCall>), NetError> {
        let mark = BootMark { boot: self.boot, process: ProcessId([self.boot as u8; 16]) };
        let is_node = self.member;
        let me = Me {
            peer: id_of(self.seed),
            kind: if is_node { Kind::Member } else { Kind::Client },
            mark,
            promises: 0,
            incarnation: is_node.then_some(Incarnation([self.seed; 16])),
            founding: None,
            name: format!("node-{}", self.seed),
        };
        let starts = (1..=self.boot).map(|boot| BootMark { boot, process: ProcessId([boot as u8; 16]) });
        let keys = Keys::Cluster(ClusterKey::from_bytes([self.cluster; 32]));
        let (gate, events) = Gate::new(me, keys, OwnStarts::new(starts), self.known);
        Net::start(self.config, &keypair(self.seed), gate, events)
    }

    async fn start(self) -> Peer {
        let listens = !self.config.listen.is_empty();
        let (net, calls) = self.net();
        let mut peer = Peer::drive(net, calls);
        if listens {
            let addr = peer.until(|e| match e {
                Event::Listening { addr } => Some(addr),
                _ => None,
            });
            let addr = addr.await;
            peer.addr.set(addr).unwrap();
        }
        peer
    }
}

impl Peer {
    fn drive(mut net: Net, calls: mpsc::Receiver<BulkCall>) -> Self {
        let (events_tx, events) = mpsc::channel(100_000);
        let (acts, mut acts_rx) = mpsc::channel::<Act>(1024);
        let (stop, mut stopped) = oneshot::channel();
        let (id, handle) = (net.local_peer(), net.handle());
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = &mut stopped => return net,
                    Some(act) = acts_rx.recv() => act(&mut net),
                    event = net.next() => events_tx.try_send(event).expect("room for the events of one test"),
                }
            }
        });
        Self { id, handle, events, acts, calls: Some(calls), addr: OnceLock::new(), task, stop }
    }

    fn addr(&self) -> Multiaddr {
        self.addr.get().unwrap().clone()
    }

    /// Waits for the first event that `pick` wants; others are thrown away.
    async fn until<T>(&mut self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let wanted = async {
            loop {
                let event = self.events.recv().await.expect("the network runs");
                if let Some(picked) = pick(event) {
                    return picked;
                }
            }
        };
        timeout(PATIENCE, wanted).await.expect("an event in time")
    }

    async fn until_connected(&mut self, peer: PeerId) -> Kind {
        self.until(|e| match e {
            Event::Connected { peer: p, kind, .. } if p == peer => Some(kind),
            _ => None,
        })
        .await
    }

    async fn act<T: Send + 'static>(&self, act: impl FnOnce(&mut Net) -> T + Send + 'static) -> T {
        let (tx, rx) = oneshot::channel();
        let boxed: Act = Box::new(move |net| drop(tx.send(act(net))));
        assert!(self.acts.send(boxed).await.is_ok());
        timeout(PATIENCE, rx).await.unwrap().unwrap()
    }

    async fn members(&self, members: &[PeerId]) {
        let members: BTreeSet<_> = members.iter().copied().collect();
        self.act(move |net| net.set_members(members)).await;
    }

    /// Stops polling and gives the network back.
    async fn freeze(self) -> Net {
        assert!(self.stop.send(()).is_ok());
        self.task.await.unwrap()
    }

    async fn count(&self, what: impl Fn(&Counters) -> u64, at_least: u64) {
        let counters = self.handle.counters();
        eventually(|| what(&counters) >= at_least, || format!("{:?}", counters.list())).await;
    }

    /// Answers every request with its own bytes, for ever.
    fn echo(mut self) -> JoinHandle<()> {
        tokio::spawn(async move {
            while let Some(event) = self.events.recv().await {
                if let Event::Request { token, bytes, .. } = event {
                    self.act(move |net| net.respond(token, bytes)).await.unwrap();
                }
            }
        })
    }

    /// A stream whose greeting has been read.
    async fn greeted(&self, to: PeerId, protocol: StreamProtocol) -> Stream {
        let start = Instant::now();
        loop {
            match self.handle.opener().open(to, protocol.clone(), PATIENCE).await {
                Ok(stream) => return stream,
                // The other side may still be taking the last one down.
                Err(OpenError::Refused(StreamRefusal::Busy)) if start.elapsed() < PATIENCE => {
                    tokio::task::yield_now().await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

async fn eventually(mut is: impl FnMut() -> bool, why: impl Fn() -> String) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "not in time: {}", why());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Two connected nodes that count each other as members.
async fn pair() -> (Peer, Peer) {
    let mut a = node(1).start().await;
    let mut b = node(2).knows(&a).start().await;
    assert_eq!(a.until_connected(b.id).await, Kind::Member);
    b.until_connected(a.id).await;
    a.members(&[a.id, b.id]).await;
    b.members(&[a.id, b.id]).await;
    (a, b)
}

/// A small generator: the same bytes in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        let len = self.next() as usize % (max + 1);
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Runs on a current-thread runtime, as the product does, and ends even if something hangs.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(60), test).await.expect("the test hangs") });
    runtime.shutdown_timeout(Duration::from_millis(100));
}

// ---- streams ----

#[test]
fn sixty_four_streams_at_once_are_each_taken_or_refused_with_a_reason() {
    run(async {
        let (a, b) = pair().await;
        let opens = (0..64).map(|_| {
            let (opener, to) = (a.handle.opener(), b.id);
            tokio::spawn(async move { opener.open(to, BULK, PATIENCE).await })
        });
        let opened = futures::future::join_all(opens.collect::<Vec<_>>()).await;
        let opened: Vec<_> = opened.into_iter().map(|o| o.unwrap()).collect();
        let taken = opened.iter().filter(|o| o.is_ok()).count();
        let busy =
            opened.iter().filter(|o| matches!(o, Err(OpenError::Refused(StreamRefusal::Busy)))).count();
        assert_eq!(
            (taken, busy),
            (limits::BULK_STREAMS_PER_PEER_MAX, 64 - limits::BULK_STREAMS_PER_PEER_MAX)
        );
        b.count(|c| c.streams_refused.get(), busy as u64).await;
        drop(opened);
        a.greeted(b.id, BULK).await;
    });
}

#[test]
fn a_protocol_that_is_not_served_is_an_error_at_once() {
    run(async {
        let mut a = node(1).start().await;
        let mut c = client(3).knows(&a).start().await;
        assert_eq!(a.until_connected(c.id).await, Kind::Client);
        c.until_connected(a.id).await;
        let refused = a.handle.opener().open(c.id, BULK, PATIENCE).await;
        assert_eq!(refused.err(), Some(OpenError::Unsupported));
        let unknown = a.handle.opener().open(id_of(9), BULK, PATIENCE).await;
        assert_eq!(unknown.err(), Some(OpenError::NotConnected));
    });
}

// ---- lanes ----

fn frame_of(event: Event) -> Option<Vec<u8>> {
    if let Event::LaneFrame { bytes, .. } = event { Some(bytes) } else { None }
}

#[test]
fn lane_frames_keep_their_order() {
    run(async {
        let (a, mut b) = pair().await;
        let to = b.id;
        let frame = |i: u32| [i.to_be_bytes().to_vec(), vec![i as u8; (i as usize * 37) % 900]].concat();
        for part in 0..8u32 {
            a.act(move |net| {
                (0..500).for_each(|i| net.send_lane(to, frame(part * 500 + i)).unwrap());
            })
            .await;
            for i in 0..500 {
                assert_eq!(b.until(frame_of).await, frame(part * 500 + i));
            }
        }
        let largest = vec![9; limits::LANE_FRAME_BYTES_MAX];
        a.act({
            let largest = largest.clone();
            move |net| net.send_lane(to, largest)
        })
        .await
        .unwrap();
        assert_eq!(b.until(frame_of).await, largest);
        let larger = vec![9; limits::LANE_FRAME_BYTES_MAX + 1];
        assert_eq!(a.act(move |net| net.send_lane(to, larger)).await, Err(Busy::TooLong));
        assert_eq!(a.handle.counters().lane_frames_dropped.get(), 1);
    });
}

#[test]
fn a_lane_that_is_not_read_drops_frames_and_counts_them() {
    run(async {
        let (a, b) = pair().await;
        let to = b.id;
        let mut frozen = b.freeze().await;
        let mut sent = 0u64;
        let start = Instant::now();
        loop {
            let mut frame = vec![0; limits::LANE_FRAME_BYTES_MAX];
            frame[..8].copy_from_slice(&sent.to_be_bytes());
            match a.act(move |net| net.send_lane(to, frame)).await {
                Ok(()) => sent += 1,
                Err(busy) => {
                    assert_eq!(busy, Busy::Full);
                    // Room comes back while the wire takes some; full is full when time changes nothing.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    let dropped = a.handle.counters().lane_frames_dropped.get();
                    if dropped > 10 {
                        break;
                    }
                }
            }
            assert!(start.elapsed() < PATIENCE);
        }
        let held = sent * limits::LANE_FRAME_BYTES_MAX as u64;
        assert!(held < 64 << 20, "{held} bytes were taken for a peer that reads nothing");
        let mut next = 0u64;
        while next < sent {
            if let Event::LaneFrame { bytes, .. } = timeout(PATIENCE, frozen.next()).await.unwrap() {
                assert_eq!(bytes[..8], next.to_be_bytes());
                next += 1;
            }
        }
    });
}

#[test]
fn lanes_are_for_members() {
    run(async {
        let (a, mut b) = pair().await;
        let (a_id, b_id) = (a.id, b.id);
        let mut c = client(3).knows(&b).start().await;
        c.until_connected(b_id).await;
        b.until_connected(c.id).await;
        assert_eq!(c.act(move |net| net.send_lane(b_id, vec![1])).await, Err(Busy::NotMember));
        let by_hand = c.handle.opener().open(b_id, LANE, PATIENCE).await;
        assert_eq!(by_hand.err(), Some(OpenError::Refused(StreamRefusal::NotMember)));
        b.count(|n| n.streams_refused_not_member.get(), 1).await;

        a.act(move |net| net.send_lane(b_id, vec![1])).await.unwrap();
        assert_eq!(b.until(frame_of).await, [1]);
        // No member any more: the open lane ends with the next frame, and no new one is taken.
        b.members(&[b_id]).await;
        assert_eq!(b.act(move |net| net.send_lane(a_id, vec![2])).await, Err(Busy::NotMember));
        let start = Instant::now();
        while a.handle.counters().lane_frames_dropped.get() == 0 {
            // Some are lost on the way; those that find no lane are counted.
            let _ = a.act(move |net| net.send_lane(b_id, vec![3])).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(start.elapsed() < PATIENCE);
        }
        b.count(|n| n.streams_refused_not_member.get(), 2).await;
        assert_eq!(b.handle.counters().lane_frames_received.get(), 1);
    });
}

#[test]
fn hostile_lane_bytes_close_the_lane() {
    run(async {
        let (a, mut b) = pair().await;
        let to = b.id;
        let mut noise = Noise(0x5eed_0002);
        for _ in 0..1000 {
            let mut stream = a.greeted(to, LANE).await;
            let mut bytes =
                (limits::LANE_FRAME_BYTES_MAX as u32 + 1 + (noise.next() as u32 >> 1)).to_be_bytes().to_vec();
            bytes.extend(noise.bytes(64));
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
            let mut nothing = Vec::new();
            // The other side closes: that is all that may come.
            let _ = stream.read_to_end(&mut nothing).await;
            assert!(nothing.is_empty());
        }
        b.count(|c| c.lane_malformed.get(), 1000).await;
        b.until(|e| matches!(e, Event::Malformed { .. }).then_some(())).await;
        a.act(move |net| net.send_lane(to, vec![5])).await.unwrap();
        assert_eq!(b.until(frame_of).await, [5]);
    });
}

// ---- bulk ----

fn body(seed: u64, len: usize) -> Arc<Vec<u8>> {
    let mut noise = Noise(seed + 1);
    let mut body: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| noise.next().to_le_bytes()).collect();
    body.truncate(len);
    Arc::new(body)
}

fn hash(body: &[u8]) -> BodyId {
    BodyId(*blake3::hash(body).as_bytes())
}

fn put(body: &Arc<Vec<u8>>) -> Put {
    Put { id: hash(body), body: body.clone(), onward: vec![id_of(7)], durable: 2, first_hop: true }
}

const QUIET: Duration = Duration::from_millis(500);

/// A node that keeps what it is given in memory.
fn keep(mut calls: mpsc::Receiver<BulkCall>, me: PeerId) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut kept: BTreeMap<BodyId, Arc<Vec<u8>>> = BTreeMap::new();
        while let Some(call) = calls.recv().await {
            let answer = match call.request {
                BulkRequest::Put { id, onward, durable, first_hop, len } => {
                    assert_eq!(hash(&call.body), id);
                    assert_eq!((onward, durable, first_hop), (vec![id_of(7)], 2, true));
                    assert_eq!(len, call.body.len() as u64);
                    kept.insert(id, Arc::new(call.body));
                    BulkAnswer::Stored { holders: vec![me, id_of(7)] }
                }
                BulkRequest::Get { id } => {
                    kept.get(&id).map_or(BulkAnswer::NotHere, |b| BulkAnswer::Body(b.clone()))
                }
                BulkRequest::Give { piece, len } => {
                    assert_eq!((hash(&call.body), call.body.len() as u64), (piece.id, len));
                    kept.insert(piece.id, Arc::new(call.body));
                    BulkAnswer::Stored { holders: Vec::new() }
                }
                BulkRequest::Take { piece } => {
                    kept.get(&piece.id).map_or(BulkAnswer::NotHere, |b| BulkAnswer::Body(b.clone()))
                }
            };
            let _ = call.reply.send(answer);
        }
    })
}

#[test]
fn bodies_go_there_and_back_side_by_side() {
    run(async {
        // Made first: a connection that nobody serves for so long would be given up.
        let mut bodies: Vec<_> = (0..48).map(|i| body(i, 1 << 20)).collect();
        bodies.extend([body(90, 0), body(91, 1), body(92, 65_537)]);
        let (a, mut b) = pair().await;
        let _keeping = keep(b.calls.take().unwrap(), b.id);
        let to = a.handle.bulk(b.id);
        let start = Instant::now();
        let puts = bodies.iter().map(|body| async { to.put(put(body), QUIET).await });
        for receipt in futures::future::join_all(puts).await {
            assert_eq!(receipt.unwrap().holders, [b.id, id_of(7)]);
        }
        let stored = start.elapsed();
        let gets = bodies.iter().map(|body| async {
            assert_eq!(to.get(hash(body), QUIET).await.as_ref(), Ok(&**body));
        });
        futures::future::join_all(gets).await;
        let mib = |took: Duration| 48.0 / took.as_secs_f64();
        println!("put {:.0} MiB/s, get {:.0} MiB/s", mib(stored), mib(start.elapsed() - stored));
        assert_eq!(to.get(BodyId([1; 32]), QUIET).await, Err(BulkError::NotHere));
        let bytes: usize = bodies.iter().map(|body| body.len()).sum();
        assert_eq!(b.handle.counters().bulk_bytes_received.get(), bytes as u64);
        assert_eq!(to.traffic(), (bytes as u64, bytes as u64));
        let large = Arc::new(vec![0; limits::BODY_BYTES_MAX + 1]);
        assert_eq!(to.put(put(&large), QUIET).await, Err(BulkError::TooLong));
        assert_eq!(
            a.handle.bulk(id_of(9)).get(BodyId([1; 32]), QUIET).await,
            Err(BulkError::Open(OpenError::NotConnected))
        );
    });
}

#[test]
fn a_body_that_is_not_its_id_is_refused_in_either_direction() {
    run(async {
        let (a, mut b) = pair().await;
        let mut calls = b.calls.take().unwrap();
        let to = a.handle.bulk(b.id);
        let mut wrong = put(&body(1, 300_000));
        wrong.id = BodyId([3; 32]);
        assert_eq!(to.put(wrong, QUIET).await, Err(BulkError::Corrupt));
        assert!(calls.try_recv().is_err(), "it was never handed up");
        assert_eq!(b.handle.counters().bulk_corrupt.get(), 1);
        let getting = tokio::spawn({
            let to = to.clone();
            async move { to.get(BodyId([4; 32]), QUIET).await }
        });
        let call = calls.recv().await.unwrap();
        call.reply.send(BulkAnswer::Body(body(2, 5000))).unwrap();
        assert_eq!(getting.await.unwrap(), Err(BulkError::Corrupt));
        assert_eq!(a.handle.counters().bulk_corrupt.get(), 1);
        // The stream is still good; and what the node drops is refused, not forgotten.
        let asking = tokio::spawn({
            let to = to.clone();
            async move { to.put(put(&body(5, 10)), QUIET).await }
        });
        drop(calls.recv().await.unwrap());
        assert_eq!(asking.await.unwrap(), Err(BulkError::Refused("not served".into())));
    });
}

#[test]
fn a_server_that_works_is_waited_for_but_not_for_ever_and_a_busy_one_says_so() {
    run(async {
        let (a, mut b) = pair().await;
        let mut calls = b.calls.take().unwrap();
        let to = a.handle.bulk(b.id);
        let start = Instant::now();
        assert_eq!(to.put(put(&body(1, 1 << 20)), QUIET).await, Err(BulkError::NoProgress(QUIET)));
        let took = start.elapsed();
        let working = Duration::from(limits::BULK_WORKING_EVERY) * limits::BULK_WORKING_MAX;
        assert!(took >= working && took < 3 * working + QUIET, "{took:?}");
        drop(calls.recv().await.unwrap());
        // More at once than one peer may have served: the rest is told so while the others wait.
        let mut stream = a.greeted(b.id, BULK).await;
        for _ in 0..limits::BULK_SERVED_PER_PEER_MAX + 5 {
            stream.write_all(&header(2, BodyId([1; 32]), 0, 0)).await.unwrap();
        }
        stream.flush().await.unwrap();
        b.count(|c| c.bulk_busy.get(), 5).await;
        for _ in 0..limits::BULK_SERVED_PER_PEER_MAX {
            let _ = calls.recv().await.unwrap().reply.send(BulkAnswer::NotHere);
        }
        let asking = tokio::spawn(async move { to.get(BodyId([2; 32]), QUIET).await });
        calls.recv().await.unwrap().reply.send(BulkAnswer::Full).unwrap();
        assert_eq!(asking.await.unwrap(), Err(BulkError::Full));
        assert_eq!(b.handle.counters().bulk_busy.get(), 5);
    });
}

#[test]
fn a_get_that_is_given_up_hurts_no_other_and_a_dead_stream_is_not_kept() {
    run(async {
        let (a, mut b) = pair().await;
        let mut calls = b.calls.take().unwrap();
        let to = a.handle.bulk(b.id);
        let get = |body: &[u8]| {
            let (to, id) = (to.clone(), hash(body));
            tokio::spawn(async move { to.get(id, QUIET).await })
        };
        let (given_up, wanted) = (body(1, 1 << 20), body(2, 1 << 20));
        let first = get(&given_up);
        let late = calls.recv().await.unwrap();
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let second = get(&wanted);
        let call = calls.recv().await.unwrap();
        // What nobody wants any more comes first, in full.
        late.reply.send(BulkAnswer::Body(given_up)).unwrap();
        call.reply.send(BulkAnswer::Body(wanted.clone())).unwrap();
        assert_eq!(second.await.unwrap().as_ref(), Ok(&*wanted));
        assert_eq!(to.streams(), 1, "and it was the same stream");
        // Given up, and never answered at all: nobody shall find that stream open and wait for it again.
        let third = get(&wanted);
        let _never = calls.recv().await.unwrap();
        third.abort();
        let start = Instant::now();
        while to.streams() > 0 {
            assert!(start.elapsed() < PATIENCE, "a stream that stands still is kept");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

/// A header of version 1, number 1, as an attacker would build it.
fn header(kind: u8, id: BodyId, len: u64, durable: u8) -> Vec<u8> {
    framed(&(1u64, 1u64, kind, id, len, Vec::<PeerId>::new(), durable, durable > 0))
}

fn framed(header: &impl serde::Serialize) -> Vec<u8> {
    let header = codec::encode(header);
    [(header.len() as u32).to_be_bytes().to_vec(), header].concat()
}

fn put_header(id: BodyId, len: u64) -> Vec<u8> {
    header(1, id, len, 1)
}

#[test]
fn a_body_cut_short_or_standing_still_is_an_error_and_gives_its_place_back() {
    run(async {
        let mut a = node(1).start().await;
        let mut setup = node(2).knows(&a);
        setup.config.bulk_stall = Duration::from_millis(100);
        let mut b = setup.start().await;
        b.until_connected(a.id).await;
        a.until_connected(b.id).await;
        let mut calls = b.calls.take().unwrap();
        let full = body(1, 1 << 20);
        // More often than there are places: each is given back.
        for _ in 0..limits::BULK_SERVED_MAX + 3 {
            let mut stream = a.greeted(b.id, BULK).await;
            stream.write_all(&put_header(hash(&full), full.len() as u64)).await.unwrap();
            stream.write_all(&full[..200_000]).await.unwrap();
            stream.close().await.unwrap();
            let mut nothing = Vec::new();
            let _ = stream.read_to_end(&mut nothing).await;
            assert!(nothing.is_empty(), "no receipt for half a body");
        }
        b.count(|c| c.bulk_short.get(), limits::BULK_SERVED_MAX as u64 + 3).await;
        let read = || b.act(|net| net.transport().traffic().read);
        let before = read().await;
        let mut dropped = a.greeted(b.id, BULK).await;
        dropped.write_all(&put_header(hash(&full), full.len() as u64)).await.unwrap();
        dropped.write_all(&full[..200_000]).await.unwrap();
        // Dropped before anything was read it would be a reset of nothing.
        while read().await < before + 200_000 {
            tokio::task::yield_now().await;
        }
        drop(dropped);
        b.count(|c| c.bulk_short.get(), limits::BULK_SERVED_MAX as u64 + 4).await;
        let mut stalled = a.greeted(b.id, BULK).await;
        stalled.write_all(&put_header(hash(&full), full.len() as u64)).await.unwrap();
        b.count(|c| c.bulk_stalled.get(), 1).await;
        assert!(calls.try_recv().is_err());
        let _keeping = keep(calls, b.id);
        assert!(a.handle.bulk(b.id).put(put(&full), QUIET).await.is_ok());
    });
}

/// The next answer of a bulk stream, in the words of its header; none if there is none in time.
async fn bulk_answer(stream: &mut Stream, patience: Duration) -> Option<(u64, u8)> {
    let read = async {
        let mut len = [0; 4];
        stream.read_exact(&mut len).await.ok()?;
        let mut header = vec![0; u32::from_be_bytes(len) as usize];
        stream.read_exact(&mut header).await.ok()?;
        let (_, number, kind, ..): (u64, u64, u8, u64, Vec<PeerId>, String) =
            codec::decode(&header, limits::BULK_HEADER_BYTES_MAX).unwrap();
        Some((number, kind))
    };
    timeout(patience, read).await.ok().flatten()
}

#[test]
fn a_body_that_comes_slowly_is_waited_for_and_one_that_drips_is_not() {
    run(async {
        let mut a = node(1).start().await;
        let mut setup = node(2).knows(&a);
        setup.config.bulk_stall = Duration::from_millis(300);
        let mut b = setup.start().await;
        b.until_connected(a.id).await;
        a.until_connected(b.id).await;
        let _keeping = keep(b.calls.take().unwrap(), b.id);
        let mut stream = a.greeted(b.id, BULK).await;
        let full = body(1, 200_000);
        stream
            .write_all(&framed(&(1u64, 1u64, 1u8, hash(&full), 200_000u64, vec![id_of(7)], 2u8, true)))
            .await
            .unwrap();
        // Its sender may have handed all of it to the system by now; what it hears is that it arrives.
        let mut sent = 0;
        let working = loop {
            stream.write_all(&full[sent..sent + 1000]).await.unwrap();
            sent += 1000;
            if let Some(answer) = bulk_answer(&mut stream, Duration::from_millis(10)).await {
                break answer;
            }
        };
        assert_eq!(working, (0, 8));
        stream.write_all(&full[sent..]).await.unwrap();
        while bulk_answer(&mut stream, PATIENCE).await.expect("a receipt") == (0, 8) {}
        // Never still for long, and never there.
        stream.write_all(&put_header(hash(&full), full.len() as u64)).await.unwrap();
        while stream.write_all(&[1]).await.is_ok() && b.handle.counters().bulk_stalled.get() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        b.count(|c| c.bulk_stalled.get(), 1).await;
        assert_eq!(b.handle.counters().bulk_short.get(), 0);
    });
}

#[test]
fn hostile_bulk_bytes_close_the_stream() {
    run(async {
        let (a, mut b) = pair().await;
        let mut calls = b.calls.take().unwrap();
        let mut noise = Noise(0x5eed_0003);
        let good = put_header(BodyId([1; 32]), 8);
        for round in 0..1500 {
            let mut bytes = match round % 5 {
                0 => (limits::BULK_HEADER_BYTES_MAX as u32 + 1).to_be_bytes().to_vec(),
                1 => put_header(BodyId([1; 32]), limits::BODY_BYTES_MAX as u64 + 1),
                2 => put_header(BodyId([1; 32]), u64::MAX),
                3 => {
                    let mut bent = good.clone();
                    let at = 4 + noise.next() as usize % 3;
                    bent[at] ^= 0x41;
                    bent
                }
                _ => [vec![0, 0, 0, 60], noise.bytes(0), vec![0xff; 60]].concat(),
            };
            bytes.extend(noise.bytes(32));
            let mut stream = a.greeted(b.id, BULK).await;
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
            let mut nothing = Vec::new();
            let _ = stream.read_to_end(&mut nothing).await;
            assert!(nothing.is_empty(), "round {round}");
        }
        b.count(|c| c.bulk_malformed.get(), 1500).await;
        assert!(calls.try_recv().is_err());
        let _keeping = keep(calls, b.id);
        assert!(a.handle.bulk(b.id).put(put(&body(1, 100)), QUIET).await.is_ok());
    });
}

#[test]
fn more_bytes_than_the_window_end_the_stream() {
    run(async {
        let (a, mut b) = pair().await;
        let mut held = Vec::new();
        let mut calls = b.calls.take().unwrap();
        let mut stream = a.greeted(b.id, BULK).await;
        let full = body(1, 1 << 20);
        let window = limits::BULK_UNACKNOWLEDGED_BYTES_MAX / full.len();
        for _ in 0..window {
            stream.write_all(&put_header(hash(&full), full.len() as u64)).await.unwrap();
            stream.write_all(&full).await.unwrap();
            stream.flush().await.unwrap();
            held.push(calls.recv().await.unwrap());
        }
        assert_eq!(b.handle.counters().bulk_malformed.get(), 0);
        stream.write_all(&put_header(hash(&full), full.len() as u64)).await.unwrap();
        b.count(|c| c.bulk_malformed.get(), 1).await;
    });
}

// ---- gossip, membership, restarts ----

fn heartbeat_of(event: Event) -> Option<(PeerId, Vec<u8>)> {
    if let Event::Heartbeat { source, bytes } = event { Some((source, bytes)) } else { None }
}

/// Publishes at one until the other has heard it.
async fn hears(to: &mut Peer, from: &Peer, word: u8, within: Duration) {
    let source = from.id;
    let hearing = to.until(|e| heartbeat_of(e).filter(|h| *h == (source, vec![word])));
    let talking = async {
        loop {
            // Nobody may be subscribed yet.
            let _ = from.act(move |net| net.publish(Topic::Heartbeat, vec![word])).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let heard = async {
        tokio::select! { _ = hearing => {}, () = talking => {} }
    };
    timeout(within, heard).await.expect("heard in time");
}

#[test]
fn heartbeats_count_from_members_only() {
    run(async {
        let (mut a, mut b) = pair().await;
        let c = node(3).knows(&a).knows(&b).start().await;
        // In either order.
        let connected = || c.handle.connected();
        eventually(|| connected().len() == 2, || format!("{:?}", connected())).await;
        c.members(&[a.id, b.id, c.id]).await;
        hears(&mut b, &a, 1, PATIENCE).await;
        hears(&mut a, &b, 2, PATIENCE).await;
        // A and B do not count C as a member: nothing that it says is heard.
        let counters = b.handle.counters();
        let (start, before) = (Instant::now(), counters.gossip_refused.get());
        while counters.gossip_refused.get() < before + 3 {
            let _ = c.act(|net| net.publish(Topic::Heartbeat, vec![4])).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(start.elapsed() < PATIENCE);
        }
        hears(&mut b, &a, 5, PATIENCE).await;
        while let Ok(event) = b.events.try_recv() {
            assert_ne!(heartbeat_of(event).map(|h| h.0), Some(c.id));
        }
        let long = vec![0; limits::GOSSIP_BYTES_MAX + 1];
        assert_eq!(a.act(|net| net.publish(Topic::Heartbeat, long)).await, Err(Busy::TooLong));
    });
}

#[test]
fn a_client_asks_but_stands_in_no_gossip_and_no_lane() {
    run(async {
        let a = node(1).start().await;
        let mut c = client(3).knows(&a).start().await;
        c.until_connected(a.id).await;
        let (a_id, c_id) = (a.id, c.id);
        assert_eq!(c.act(|net| net.publish(Topic::Heartbeat, vec![1])).await, Err(Busy::NotMember));
        a.members(&[a_id, c_id]).await;
        c.members(&[a_id, c_id]).await;
        assert_eq!(c.act(move |net| net.send_lane(a_id, vec![1])).await, Err(Busy::NotMember));
        assert_eq!(a.handle.connected()[&c_id].kind, Kind::Client);
        let _serving = a.echo();
        assert_eq!(c.handle.request(a_id, vec![8; 9], PATIENCE).await, Ok(vec![8; 9]));
    });
}

#[test]
fn an_orderly_end_is_noticed_at_once() {
    run(async {
        let (mut a, b) = pair().await;
        let b_id = b.id;
        let start = Instant::now();
        b.freeze().await.close().await;
        assert!(start.elapsed() < Duration::from_millis(900));
        a.until(|e| matches!(e, Event::Disconnected { peer } if peer == b_id).then_some(())).await;
        assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
        assert!(a.handle.connected().is_empty());
        assert_eq!(a.handle.request(b_id, vec![], PATIENCE).await, Err(Busy::NotConnected.into()));
    });
}

/// A node whose process can be killed: its runtime ends without a word to anybody.
async fn killable(setup: Setup) -> (Peer, impl FnOnce()) {
    let (out, peer) = oneshot::channel();
    let (kill, killed) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            assert!(out.send(setup.start().await).is_ok());
            let _ = killed.await;
        });
    });
    let kill = move || {
        let _ = kill.send(());
        thread.join().unwrap();
    };
    (peer.await.unwrap(), kill)
}

#[test]
fn a_killed_member_that_restarts_at_once_is_heard_and_hears_again() {
    run(async {
        let mut a = node(1).start().await;
        let (mut b, kill) = killable(node(2).knows(&a)).await;
        a.until_connected(b.id).await;
        b.until_connected(a.id).await;
        let both = [a.id, b.id];
        a.members(&both).await;
        b.members(&both).await;
        hears(&mut b, &a, 1, PATIENCE).await;
        hears(&mut a, &b, 2, PATIENCE).await;
        let port = address::socket_addr(&b.addr()).unwrap().port();
        kill();
        let restarted = Instant::now();
        let mut setup = node(2).knows(&a);
        setup.boot = 2;
        setup.config.listen = vec![loopback(port)];
        let (net, calls) = setup.net();
        let mut b = Peer::drive(net, calls);
        b.until_connected(a.id).await;
        b.members(&both).await;
        hears(&mut a, &b, 3, Duration::from_secs(4)).await;
        hears(&mut b, &a, 4, Duration::from_secs(4)).await;
        println!("heard both ways {:?} after the kill", restarted.elapsed());
        assert_eq!(a.handle.counters().gossip_half_deaf.get(), 0);
        assert_eq!(b.handle.counters().gossip_half_deaf.get(), 0);
        let refused = [&a, &b].map(|peer| peer.handle.counters().gossip_refused.get());
        assert_eq!(refused, [0, 0], "an honest peer needs one stream, restarts or not");
        let to = b.id;
        let start = Instant::now();
        // A lane may have been opened on the connection that has just been closed.
        while b.handle.counters().lane_frames_received.get() == 0 && start.elapsed() < PATIENCE {
            let _ = a.act(move |net| net.send_lane(to, vec![6])).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(b.until(frame_of).await, [6]);
    });
}

#[test]
fn a_member_that_comes_back_is_dialed_again_by_those_who_know_its_address() {
    run(async {
        let (mut a, b) = pair().await;
        let (id, addr) = (b.id, b.addr());
        b.freeze().await.close().await;
        a.until(|e| matches!(e, Event::Disconnected { .. }).then_some(())).await;
        let mut setup = node(2);
        setup.boot = 2;
        setup.config.listen = vec![addr];
        // It knows nobody: the other side must come. The port is free once the old connections have drained.
        let start = Instant::now();
        let _b = loop {
            match setup.clone().try_net() {
                Ok((net, calls)) => break Peer::drive(net, calls),
                Err(error) => assert!(matches!(error, NetError::PortTaken { .. }), "{error}"),
            }
            assert!(start.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(a.until_connected(id).await, Kind::Member);
    });
}

#[test]
fn another_cluster_is_told_once_and_left_alone() {
    run(async {
        let mut a = node(1).start().await;
        let mut setup = node(2).knows(&a);
        setup.cluster = 2;
        let mut b = setup.start().await;
        let b_id = b.id;
        let (refusal, by_them) = b
            .until(|e| match e {
                Event::Foreign { refusal, by_them, .. } => Some((refusal, by_them)),
                _ => None,
            })
            .await;
        assert_eq!((refusal, by_them), (transport::Refusal::WrongKey, true));
        let who = a.until(|e| if let Event::Foreign { peer, .. } = e { Some(peer) } else { None }).await;
        assert_eq!(who, Some(b_id));
        let dials = b.handle.counters().dials.get();
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(b.handle.counters().dials.get(), dials, "no fast retries");
        assert!(a.handle.connected().is_empty() && b.handle.connected().is_empty());
        assert!(a.events.try_recv().is_err());
    });
}

#[test]
fn a_list_of_addresses_with_the_own_among_them_makes_one_full_mesh() {
    run(async {
        let mut peers = vec![node(1).start().await, node(2).start().await, node(3).start().await];
        let all: Vec<_> = peers.iter().map(Peer::addr).collect();
        for peer in &peers {
            let all = all.clone();
            peer.act(move |net| all.into_iter().for_each(|addr| net.dial(addr))).await;
        }
        for peer in &mut peers {
            let handle = peer.handle.clone();
            eventually(|| handle.connected().len() == 2, || format!("{:?}", handle.connected())).await;
        }
        // Both sides dialed: one of each pair of connections goes, and nobody is ever without.
        let closed = || peers.iter().map(|p| p.handle.counters().duplicates_closed.get()).sum::<u64>();
        let connections = || peers.iter().map(|p| p.handle.gate().connected(Kind::Member)).sum::<usize>();
        println!("{} connections counted by the gates, {} closed", connections(), closed());
        for peer in &mut peers {
            while let Ok(event) = peer.events.try_recv() {
                assert!(!matches!(event, Event::Disconnected { .. }));
            }
        }
    });
}

#[test]
fn a_second_connection_goes_after_a_while_and_nobody_is_ever_without() {
    run(async {
        let (mut a, mut b) = pair().await;
        // The smaller id closes; who has dialed does not matter.
        let addr = b.addr();
        let dialed = a.act(move |net| net.dial_beside(addr));
        dialed.await;
        let connections = |p: &Peer| p.handle.gate().clone().connected(Kind::Member);
        assert_eq!(connections(&a), 1, "peers, not connections");
        let closed = |p: &Peer| p.handle.counters().duplicates_closed.get();
        eventually(|| closed(&a) + closed(&b) >= 1, || "a duplicate that stays".into()).await;
        let (smaller, larger) = if a.id < b.id { (&a, &b) } else { (&b, &a) };
        assert_eq!(closed(larger), 0);
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(closed(smaller), 1);
        for peer in [&mut a, &mut b] {
            while let Ok(event) = peer.events.try_recv() {
                assert!(!matches!(event, Event::Disconnected { .. }));
            }
        }
        hears(&mut a, &b, 1, PATIENCE).await;
        hears(&mut b, &a, 2, PATIENCE).await;
    });
}

#[test]
fn a_member_that_never_says_that_it_listens_is_cut_off_and_met_again() {
    run(async {
        let mut a = node(1).start().await;
        // A member by its hello, but one without gossip.
        let mut setup = node(2).knows(&a);
        setup.config.role = Role::Client;
        setup.member = true;
        let mut b = setup.start().await;
        let (b_id, start) = (b.id, Instant::now());
        a.until_connected(b_id).await;
        b.until_connected(a.id).await;
        a.until(|e| matches!(e, Event::Disconnected { .. }).then_some(())).await;
        assert!(start.elapsed() > Duration::from_secs(4), "patience first");
        assert_eq!(a.handle.counters().gossip_half_deaf.get(), 1);
        a.until_connected(b_id).await;
    });
}

#[test]
fn a_taken_port_is_an_error_with_its_number() {
    run(async {
        let a = node(1).start().await;
        let port = address::socket_addr(&a.addr()).unwrap().port();
        let (gate, events) = {
            let me = Me {
                peer: id_of(2),
                kind: Kind::Client,
                mark: BootMark { boot: 0, process: ProcessId::ZERO },
                promises: 0,
                incarnation: None,
                founding: None,
                name: String::new(),
            };
            Gate::new(me, Keys::Cluster(ClusterKey::from_bytes([1; 32])), OwnStarts::default(), [])
        };
        let started = Net::start(NetConfig::node(vec![loopback(port)]), &keypair(2), gate, events);
        assert!(matches!(started, Err(NetError::PortTaken { port: taken }) if taken == port));
    });
}
