//! Nodes of a few lines for the client's own tests: they hold bodies, behind real connections on loopback.
//!
//! They decide nothing, and keep nothing on a disk.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use libp2p_identity::Keypair;
use tokio::{net::UdpSocket, sync::watch};

use super::{Client, View, types::Connect};
use crate::{
    model::{
        BodyId, FoundingId, Incarnation, PeerId, ProcessId,
        hello::{BootMark, Kind},
        rpc::{BodyState, Request, Response},
    },
    net::{
        BulkAnswer, BulkRequest, Event, Net, NetConfig, address,
        transport::{Gate, Keys, Me, OwnStarts},
    },
    proto::placement::{self, Weighted},
    seal::admission::ClusterKey,
};

const KEY: [u8; 32] = [7; 32];
const SLOW_BYTES_PER_SECOND: u32 = 700_000;

/// A body of so many bytes, the same for a seed.
pub(super) fn body(seed: u64, len: usize) -> Arc<Vec<u8>> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    Arc::new(bytes)
}

/// Its id.
pub(super) fn id(body: &[u8]) -> BodyId {
    BodyId(*blake3::hash(body).as_bytes())
}

/// A node that takes and gives bodies, and does not answer while it is told not to.
pub(super) struct Holder {
    pub(super) peer: PeerId,
    pub(super) addr: SocketAddr,
    /// How many bodies it was asked for.
    pub(super) asked: Arc<AtomicU64>,
    pub(super) silent: watch::Sender<bool>,
    /// What it has.
    pub(super) bodies: Arc<Mutex<BTreeMap<BodyId, Arc<Vec<u8>>>>>,
    /// It has no room for more.
    pub(super) full: Arc<AtomicBool>,
}

/// One that has these.
pub(super) async fn holder(seed: u8, bodies: &BTreeMap<BodyId, Arc<Vec<u8>>>) -> Holder {
    let keypair = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
    let peer = keypair.public().to_peer_id();
    let me = Me {
        peer,
        kind: Kind::Member,
        mark: BootMark { boot: 1, process: ProcessId([seed; 16]) },
        promises: 0,
        incarnation: Some(Incarnation([seed; 16])),
        founding: None,
        name: format!("holder {seed}"),
    };
    let (gate, events) = Gate::new(me, Keys::Cluster(ClusterKey::from_bytes(KEY)), OwnStarts::default(), []);
    let config = NetConfig::node(vec![address::quic(([127, 0, 0, 1], 0).into())]);
    let (mut net, mut calls) = Net::start(config, &keypair, gate, events).unwrap();
    while net.listening().is_empty() {
        net.next().await;
    }
    let port = net.listening()[0].to_string().split('/').nth(4).unwrap().parse().unwrap();
    tokio::spawn(async move {
        loop {
            if let Event::Request { token, bytes, .. } = net.next().await {
                let answer = match Request::decode(&bytes) {
                    // As one that fetches it from whoever has it.
                    Ok(Request::Check { bodies, .. }) => {
                        Response::Checked(vec![BodyState::Restored; bodies.len()])
                    }
                    Ok(Request::Offer { bodies }) => Response::Have(vec![false; bodies.len()]),
                    Ok(Request::Read { .. }) => Response::Register { value: None },
                    _ => Response::Busy,
                };
                let _ = net.respond(token, answer.encode());
            }
        }
    });
    let asked = Arc::new(AtomicU64::new(0));
    let (silent, is_silent) = watch::channel(false);
    let bodies = Arc::new(Mutex::new(bodies.clone()));
    let full = Arc::new(AtomicBool::new(false));
    let (count, has, is_full) = (asked.clone(), bodies.clone(), full.clone());
    tokio::spawn(async move {
        while let Some(call) = calls.recv().await {
            let answer = match call.request {
                BulkRequest::Get { id } => {
                    count.fetch_add(1, Ordering::SeqCst);
                    let found = has.lock().unwrap().get(&id).cloned();
                    found.map_or(BulkAnswer::NotHere, BulkAnswer::Body)
                }
                BulkRequest::Put { .. } if is_full.load(Ordering::SeqCst) => BulkAnswer::Full,
                BulkRequest::Put { id, .. } => {
                    has.lock().unwrap().insert(id, Arc::new(call.body));
                    BulkAnswer::Stored { holders: vec![peer] }
                }
                BulkRequest::Give { .. } | BulkRequest::Take { .. } => BulkAnswer::NotHere,
            };
            let mut is_silent = is_silent.clone();
            tokio::spawn(async move {
                let _ = is_silent.wait_for(|silent| !silent).await;
                let _ = call.reply.send(answer);
            });
        }
    });
    Holder { peer, addr: ([127, 0, 0, 1], port).into(), asked, silent, bodies, full }
}

/// A way to a holder that can be cut. For one caller.
pub(super) struct CutWay {
    pub(super) addr: SocketAddr,
    pub(super) cut: watch::Sender<bool>,
}

impl CutWay {
    pub(super) async fn to(to: SocketAddr) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        back.connect(to).await.unwrap();
        let addr = front.local_addr().unwrap();
        let (cut, is_cut) = watch::channel(false);
        let (caller, known) = watch::channel(addr);
        let (front_in, back_out, cut_in) = (front.clone(), back.clone(), is_cut.clone());
        tokio::spawn(async move {
            let mut packet = [0; 65_536];
            while let Ok((len, from)) = front_in.recv_from(&mut packet).await {
                caller.send_replace(from);
                if !*cut_in.borrow() {
                    let _ = back_out.send(&packet[..len]).await;
                }
            }
        });
        tokio::spawn(async move {
            let mut packet = [0; 65_536];
            while let Ok(len) = back.recv(&mut packet).await {
                let to = *known.borrow();
                if !*is_cut.borrow() {
                    let _ = front.send_to(&packet[..len], to).await;
                }
            }
        });
        Self { addr, cut }
    }
}

/// A way to `to` on which so much comes back in a second. For one caller.
pub(super) async fn slow_way(to: SocketAddr) -> SocketAddr {
    let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    back.connect(to).await.unwrap();
    let addr = front.local_addr().unwrap();
    let (caller, known) = watch::channel(addr);
    let (front_in, back_out) = (front.clone(), back.clone());
    tokio::spawn(async move {
        let mut packet = [0; 65_536];
        while let Ok((len, from)) = front_in.recv_from(&mut packet).await {
            caller.send_replace(from);
            let _ = back_out.send(&packet[..len]).await;
        }
    });
    tokio::spawn(async move {
        let mut packet = [0; 65_536];
        let mut free_at = tokio::time::Instant::now();
        while let Ok(len) = back.recv(&mut packet).await {
            let takes = Duration::from_secs(1) * len as u32 / SLOW_BYTES_PER_SECOND;
            free_at = free_at.max(tokio::time::Instant::now()) + takes;
            tokio::time::sleep_until(free_at).await;
            let to = *known.borrow();
            let _ = front.send_to(&packet[..len], to).await;
        }
    });
    addr
}

/// A client of these holders, connected with each at the given address.
pub(super) async fn client(dir: &Path, holders: &[&Holder], ways: &[SocketAddr]) -> Client {
    client_of_some(dir, holders, ways, holders.len()).await
}

/// The same, of whose holders only so many can be reached.
pub(super) async fn client_of_some(
    dir: &Path,
    holders: &[&Holder],
    ways: &[SocketAddr],
    connected: usize,
) -> Client {
    std::fs::create_dir_all(dir.join("keys")).unwrap();
    let key = ClusterKey::from_bytes(KEY).to_text();
    std::fs::write(dir.join("keys/cluster.key"), &*key).unwrap();
    let nodes = ways.iter().map(ToString::to_string).collect();
    let connect = Connect { home: dir.to_owned(), nodes, ..Connect::default() };
    let client = Client::open(connect).await.unwrap();
    let mut peers = client.net.watch_peers();
    let all = peers.wait_for(|peers| peers.len() == connected);
    tokio::time::timeout(Duration::from_secs(10), all).await.expect("all are connected").unwrap();
    let members = holders.iter().map(|h| Weighted { peer: h.peer, weight: 1 }).collect();
    let view = View { founding: FoundingId([1; 16]), members, names: BTreeMap::new() };
    assert!(client.view.set(view).is_ok());
    client
}

/// So many bodies that placement has on the first of two holders first.
pub(super) fn bodies_of_the_first(count: usize, len: usize) -> Vec<Arc<Vec<u8>>> {
    let members = [1, 2].map(|seed| {
        let peer = Keypair::ed25519_from_bytes([seed; 32]).unwrap().public().to_peer_id();
        Weighted { peer, weight: 1 }
    });
    let first = |b: &Arc<Vec<u8>>| placement::order(&members, &id(b))[0] == members[0].peer;
    (0..).map(|seed| body(seed, len)).filter(first).take(count).collect()
}

/// These by their ids.
pub(super) fn by_id(bodies: &[Arc<Vec<u8>>]) -> BTreeMap<BodyId, Arc<Vec<u8>>> {
    bodies.iter().map(|b| (id(b), b.clone())).collect()
}

/// Runs a test.
pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(test);
}
