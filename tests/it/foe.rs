//! A hostile peer: an admitted connection to a real node, raw streams on it, and what the node's process
//! uses.
//!
//! It speaks every protocol by hand, so that it can say what the library never would.

#![allow(clippy::disallowed_methods)] // tests of time read the clock

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    path::Path,
    task::Poll,
    time::{Duration, Instant},
};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{
    Multiaddr, PeerId,
    core::{
        muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
        transport::{ListenerId, Transport},
    },
    identity::Keypair,
};
use tintype::{
    disk::{Disk, DiskOptions, Home},
    model::{
        Incarnation, ProcessId, codec,
        hello::{BootMark, Kind},
        rpc::{Counters, Request, Response},
    },
    net::transport::{self, Gate, Handle, Keys, Me, OwnStarts, SwarmTransport, TransportConfig},
    seal::admission::ClusterKey,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::transport::dial_options;

/// Far above what a loaded machine needs.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const RPC: &str = "/tintype/rpc/1";
pub const LANE: &str = "/tintype/lane/1";
pub const BULK: &str = "/tintype/bulk/1";
pub const GOSSIP: &str = "/meshsub/1.1.0";

type Wish = oneshot::Sender<SubstreamBox>;

/// Who a foe says it is, and the keys that it has for that.
#[derive(Clone)]
pub struct Mask {
    pub keypair: Keypair,
    pub me: Me,
    keys: Keys,
    starts: Vec<BootMark>,
}

impl Mask {
    fn new(keypair: Keypair, kind: Kind, key: &ClusterKey, boot: u64, incarnation: Incarnation) -> Self {
        let mark = BootMark { boot, process: ProcessId(rand::random()) };
        let keys = match kind {
            Kind::Client => Keys::Client(key.client_right()),
            _ => Keys::Cluster(key.clone()),
        };
        let incarnation = (kind == Kind::Member).then_some(incarnation);
        let (peer, name) = (keypair.public().to_peer_id(), String::from("foe"));
        let me = Me { peer, kind, mark, promises: 0, incarnation, founding: None, name };
        Self { keypair, me, keys, starts: vec![mark] }
    }

    /// A client with the right key.
    pub fn client(key: &ClusterKey) -> Self {
        Self::new(Keypair::generate_ed25519(), Kind::Client, key, 0, Incarnation::ZERO)
    }

    /// A node with the right key that is in no member list.
    pub fn outsider(key: &ClusterKey) -> Self {
        Self::new(Keypair::generate_ed25519(), Kind::Member, key, 1, Incarnation(rand::random()))
    }

    /// The member whose home this is; its node must be dead.
    pub async fn of_home(home: &Path, key: &ClusterKey) -> Self {
        let home = Home::at(home);
        let keypair = home.node_key().unwrap().expect("the node has run");
        let (disk, boot) = Disk::open(&home, DiskOptions::default()).unwrap();
        let starts = disk.starts();
        disk.stop().await.unwrap();
        let mut mask = Self::new(keypair, Kind::Member, key, boot.mark.boot, boot.incarnation);
        (mask.me.mark, mask.me.promises) = (boot.mark, boot.promises);
        mask.starts = starts;
        mask
    }
}

/// An admitted connection of a hostile peer.
pub struct Foe {
    pub peer: PeerId,
    wishes: mpsc::Sender<Wish>,
    driver: JoinHandle<()>,
    _transport: (SwarmTransport, Handle),
}

impl Drop for Foe {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Foe {
    /// Dials, from a loopback address of its own if one is given.
    pub async fn dial(mask: &Mask, addr: &Multiaddr, from: Option<&str>) -> io::Result<Self> {
        let starts = OwnStarts::new(mask.starts.iter().copied());
        let (gate, _events) = Gate::new(mask.me.clone(), mask.keys.clone(), starts, []);
        let (mut transport, handle) =
            transport::build(&mask.keypair, gate, TransportConfig::default()).unwrap();
        if let Some(ip) = from {
            let at = format!("/ip4/{ip}/udp/0/quic-v1").parse().unwrap();
            transport.listen_on(ListenerId::next(), at).unwrap();
        }
        let dialed = transport.dial(addr.clone(), dial_options()).unwrap();
        let (_, muxer) = timeout(PATIENCE, dialed).await.expect("a dial ends")?;
        let (wishes, wished) = mpsc::channel(64);
        let driver = tokio::spawn(drive(muxer, wished));
        Ok(Self { peer: mask.me.peer, wishes, driver, _transport: (transport, handle) })
    }

    /// Dials until it is let in.
    pub async fn meet(mask: &Mask, addr: &Multiaddr) -> Self {
        let started = Instant::now();
        loop {
            match Self::dial(mask, addr, None).await {
                Ok(foe) => return foe,
                Err(error) => assert!(started.elapsed() < PATIENCE, "never let in: {error}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// A stream on which the protocol was proposed and nothing read.
    pub async fn open(&self, protocol: &str) -> io::Result<SubstreamBox> {
        let (wish, opened) = oneshot::channel();
        self.wishes.send(wish).await.map_err(|_| io::ErrorKind::NotConnected)?;
        let mut stream = opened.await.map_err(|_| io::ErrorKind::NotConnected)?;
        stream.write_all(&proposal(protocol)).await?;
        Ok(stream)
    }

    /// Says something on a stream of its own and hears all of the answer.
    pub async fn exchange(&self, protocol: &str, words: &[u8]) -> io::Result<Vec<u8>> {
        let exchange = async {
            let mut stream = self.open(protocol).await?;
            stream.write_all(words).await?;
            stream.close().await?;
            agreed(&mut stream, protocol).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok(answer)
        };
        timeout(PATIENCE, exchange).await.expect("an exchange ends")
    }

    /// A stream that was greeted, or the byte that was said instead of a greeting.
    pub async fn greeted(&self, protocol: &str) -> io::Result<Result<SubstreamBox, u8>> {
        let mut stream = self.open(protocol).await?;
        let greeting = async {
            agreed(&mut stream, protocol).await?;
            let mut greeting = [0];
            stream.read_exact(&mut greeting).await?;
            io::Result::Ok(greeting[0])
        };
        let greeting = timeout(PATIENCE, greeting).await.expect("a greeting comes")?;
        Ok(if greeting == 1 { Ok(stream) } else { Err(greeting) })
    }

    /// Says something on an rpc stream of its own, ends it, and hears all that comes back.
    pub async fn say_by_rpc(&self, words: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = self.rpc().await;
        let said = async {
            stream.write_all(words).await?;
            stream.close().await?;
            let mut answers = Vec::new();
            stream.read_to_end(&mut answers).await?;
            Ok(answers)
        };
        timeout(PATIENCE, said).await.expect("the stream is ended")
    }

    /// An rpc stream that was greeted.
    pub async fn rpc(&self) -> SubstreamBox {
        loop {
            match self.greeted(RPC).await.expect("an rpc stream") {
                Ok(stream) => return stream,
                Err(code) => assert_eq!(code, 2, "only busy: the last one is not gone yet"),
            }
        }
    }

    /// Asks by rpc as an honest peer does. None is "busy".
    pub async fn ask(&self, request: &Request) -> Option<Response> {
        let said = self.say_by_rpc(&question(7, &request.encode())).await.expect("an answer");
        let (number, answer, rest) = answer(&said).expect("a whole answer");
        assert_eq!((number, rest), (7, &[][..]));
        answer
    }

    /// What the node has counted.
    pub async fn counters(&self) -> Counters {
        let Some(Response::Nodes(nodes)) = self.ask(&Request::Nodes).await else { panic!("no nodes") };
        nodes.into_iter().find_map(|node| node.counters).expect("the answering node's counters")
    }
}

/// Gives out streams. What the node opens is kept and never read.
async fn drive(mut muxer: StreamMuxerBox, mut wishes: mpsc::Receiver<Wish>) {
    let (mut waiting, mut unread) = (VecDeque::new(), Vec::new());
    poll_fn(|cx| {
        while let Poll::Ready(wish) = wishes.poll_recv(cx) {
            match wish {
                Some(wish) => waiting.push_back(wish),
                None => return Poll::Ready(()),
            }
        }
        while let Poll::Ready(inbound) = muxer.poll_inbound_unpin(cx) {
            match inbound {
                Ok(stream) => unread.push(stream),
                Err(_) => return Poll::Ready(()),
            }
        }
        while !waiting.is_empty() {
            let Poll::Ready(opened) = muxer.poll_outbound_unpin(cx) else { break };
            let (Ok(stream), Some(wish)) = (opened, waiting.pop_front()) else { return Poll::Ready(()) };
            drop(Wish::send(wish, stream));
        }
        Poll::Pending
    })
    .await;
}

/// multistream-select, the lazy way: the header and the one protocol.
fn proposal(protocol: &str) -> Vec<u8> {
    let line = |text: &str| [&[text.len() as u8 + 1], text.as_bytes(), b"\n"].concat();
    [line("/multistream/1.0.0"), line(protocol)].concat()
}

/// Reads the other side's yes.
pub async fn agreed(stream: &mut SubstreamBox, protocol: &str) -> io::Result<()> {
    let expected = proposal(protocol);
    let mut yes = vec![0; expected.len()];
    stream.read_exact(&mut yes).await?;
    if yes == expected { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
}

/// Waits until the other side has ended the stream, however.
pub async fn ended(stream: &mut SubstreamBox) {
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the stream is ended");
}

/// A question as rpc has it: length, number, bytes.
pub fn question(number: u64, bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], &number.to_be_bytes(), bytes].concat()
}

/// The first answer of an rpc stream, its number before it and what is behind it. "Busy" is none.
pub fn answer(said: &[u8]) -> Option<(u64, Option<Response>, &[u8])> {
    let (len, rest) = said.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (status, rest) = rest.split_first()?;
    let (bytes, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
    let answer = match status {
        1 => Some(Response::decode(bytes).expect("a good answer")),
        2 if bytes.is_empty() => None,
        other => panic!("status {other}"),
    };
    Some((u64::from_be_bytes(*number), answer, rest))
}

/// Bytes with their length in front, as lanes and bulk have it.
pub fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// A malformed message, another for each number; `good` is a well-formed one. None is its own encoding.
pub fn broken(number: u64, good: &[u8]) -> Vec<u8> {
    let mut random = vec![0; 1 + number as usize % 700];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut random);
    random[0] = 0xff;
    let mut bytes = good.to_vec();
    match number % 9 {
        0 => random,
        1 => bytes[..good.len() - 1].to_vec(),
        // Nested deeper than any stack should follow.
        2 => vec![0x81; 3000],
        // An array, and a string, of 2^63 elements.
        3 => [&[0x82, 0x01, 0x9b, 0x80][..], &[0; 7]].concat(),
        4 => [&[0x82, 0x01, 0x5b, 0x80][..], &[0; 7]].concat(),
        // The version in two bytes where one would do.
        5 => [&bytes[..1], &[0x18, 0x01], &bytes[2..]].concat(),
        6 => {
            bytes[1] = 0x02;
            bytes
        }
        7 => [bytes, vec![0]].concat(),
        _ => codec::encode(&("tintype", 7u64)),
    }
}

/// What a process uses.
#[derive(Clone, Copy, Debug)]
pub struct Uses {
    pub rss_kib: u64,
    pub descriptors: usize,
}

fn uses_now(pid: u32) -> Uses {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("its memory");
    let rss_kib = line.trim().trim_end_matches(" kB").parse().expect("a number");
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its files").count();
    Uses { rss_kib, descriptors }
}

/// The median of a few looks.
pub async fn uses(pid: u32) -> Uses {
    let mut looks = Vec::new();
    for _ in 0..7 {
        looks.push(uses_now(pid));
        sleep(Duration::from_millis(30)).await;
    }
    looks.sort_by_key(|look| look.rss_kib);
    let rss_kib = looks[3].rss_kib;
    looks.sort_by_key(|look| look.descriptors);
    Uses { rss_kib, descriptors: looks[3].descriptors }
}

/// Waits until the process uses no more than before, `more_kib` of memory aside.
pub async fn returns_to(pid: u32, before: Uses, more_kib: u64) {
    if let Err(now) = returned_to(pid, before, more_kib, PATIENCE).await {
        panic!("{before:?} became {now:?}, {more_kib} KiB more were allowed");
    }
}

/// Whether it does so in time; else what it uses instead.
pub async fn returned_to(pid: u32, before: Uses, more_kib: u64, patience: Duration) -> Result<(), Uses> {
    let started = Instant::now();
    loop {
        let now = uses(pid).await;
        if now.rss_kib <= before.rss_kib + more_kib && now.descriptors <= before.descriptors {
            eprintln!("memory {} -> {} KiB, {} descriptors", before.rss_kib, now.rss_kib, now.descriptors);
            return Ok(());
        }
        if started.elapsed() >= patience {
            return Err(now);
        }
    }
}

/// Waits until an asked condition holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "in vain waited for: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
