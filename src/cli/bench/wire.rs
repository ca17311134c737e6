//! Two bare networks in this process, each on a thread of its own: what our bulk streams carry when nobody
//! stores, seals or decides anything. And a bare client, for questions that no command asks.

use std::{
    net::UdpSocket,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, stream};
use libp2p_identity::Keypair;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Effort, figure::median, local};
use crate::{
    model::{
        Incarnation, PeerId, ProcessId,
        hello::{BootMark, Kind},
        limits::{BULK_ASKED_PER_STREAM_MAX, CHUNK_BYTES, CLIENT_PATIENCE, NO_PROGRESS},
    },
    net::{
        BulkAnswer, BulkCall, BulkRequest, Event, Multiaddr, Net, NetConfig, NetHandle, Put, address,
        transport::{Gate, Keys, Me, OwnStarts},
    },
    seal::{admission::ClusterKey, chunk},
};

/// Bytes of a question in the ceiling of `rpc`: about what a status request and its frame have.
const ECHO_BYTES: usize = 64;

/// A network on a thread of its own. Dropping it ends it.
pub(super) struct Wire {
    /// What it is used by.
    pub(super) net: NetHandle,
    peer: PeerId,
    addr: Option<Multiaddr>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

type Ready = Result<(NetHandle, PeerId, Option<Multiaddr>)>;

impl Wire {
    /// Listens on loopback, takes every body at once and gives `body` to all who ask.
    async fn listening(key: ClusterKey, body: Arc<Vec<u8>>) -> Result<Self> {
        let config = NetConfig::node(vec![address::quic(([127, 0, 0, 1], 0).into())]);
        Self::start(Keys::Cluster(key), Kind::Member, config, body).await
    }

    /// A client that dials these addresses.
    pub(super) async fn dialing(key: &ClusterKey, to: Vec<Multiaddr>) -> Result<Self> {
        let config = NetConfig { bootstrap: to, ..NetConfig::client() };
        Self::start(Keys::Client(key.client_right()), Kind::Client, config, Arc::default()).await
    }

    async fn start(keys: Keys, kind: Kind, config: NetConfig, body: Arc<Vec<u8>>) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (tell, told) = oneshot::channel();
        let thread = std::thread::Builder::new().name("bench-net".into()).spawn(move || {
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(drive(keys, kind, config, body, stopped, tell)),
                Err(error) => drop(tell.send(Err(error.into()))),
            }
        })?;
        let (net, peer, addr) = told.await.context("the network ended")??;
        Ok(Self { net, peer, addr, stop, thread: Some(thread) })
    }

    /// Waits until as many peers are connected.
    pub(super) async fn connected(&self, count: usize) -> Result<Vec<PeerId>> {
        let mut peers = self.net.watch_peers();
        let wait = peers.wait_for(|peers| peers.len() >= count);
        match tokio::time::timeout(Duration::from(CLIENT_PATIENCE), wait).await {
            Ok(Ok(peers)) => Ok(peers.keys().copied().collect()),
            _ => bail!("fewer than {count} nodes answered"),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the hook already.
            let _ = thread.join();
        }
    }
}

async fn drive(
    keys: Keys,
    kind: Kind,
    config: NetConfig,
    body: Arc<Vec<u8>>,
    mut stopped: watch::Receiver<bool>,
    tell: oneshot::Sender<Ready>,
) {
    let listens = !config.listen.is_empty();
    let (mut net, mut calls) = match open(keys, kind, config) {
        Ok(open) => open,
        Err(error) => return drop(tell.send(Err(error))),
    };
    let mut tell = Some(tell);
    loop {
        if !listens && let Some(tell) = tell.take() {
            let _ = tell.send(Ok((net.handle(), net.local_peer(), None)));
        }
        let ended = tokio::select! {
            _ = stopped.changed() => true,
            Some(call) = calls.recv() => { answer(call, net.local_peer(), &body); false }
            event = net.next() => {
                if let Event::Listening { addr } = event && let Some(tell) = tell.take() {
                    let _ = tell.send(Ok((net.handle(), net.local_peer(), Some(addr))));
                }
                false
            }
        };
        if ended {
            break;
        }
    }
    net.close().await;
}

fn open(keys: Keys, kind: Kind, config: NetConfig) -> Result<(Net, mpsc::Receiver<BulkCall>)> {
    let keypair = Keypair::generate_ed25519();
    let mark = BootMark { boot: u64::from(kind == Kind::Member), process: ProcessId(rand::random()) };
    let me = Me {
        peer: keypair.public().to_peer_id(),
        kind,
        mark,
        incarnation: (kind == Kind::Member).then(|| Incarnation(rand::random())),
        founding: None,
        name: "bench".into(),
    };
    let (gate, events) = Gate::new(me, keys, OwnStarts::new([mark]), []);
    Ok(Net::start(config, &keypair, gate, events)?)
}

/// Says at once that a body is stored, and gives the one body there is.
fn answer(call: BulkCall, me: PeerId, body: &Arc<Vec<u8>>) {
    let answer = match call.request {
        BulkRequest::Put { .. } => BulkAnswer::Stored { holders: vec![me] },
        BulkRequest::Get { .. } => BulkAnswer::Body(Arc::clone(body)),
    };
    // An asker that is gone needs no answer.
    let _ = call.reply.send(answer);
}

/// MiB/s of bare bulk from one network to another in this process: (put, get). Bodies are hashed on arrival,
/// as always.
pub(super) async fn bulk(effort: Effort) -> Result<(f64, f64)> {
    let key = ClusterKey::from_bytes(rand::random());
    let body = Arc::new(local::noise(CHUNK_BYTES));
    let id = chunk::body_id(&body);
    let node = Wire::listening(key.clone(), Arc::clone(&body)).await?;
    let client = Wire::dialing(&key, node.addr.clone().into_iter().collect()).await?;
    client.connected(1).await?;
    let bulk = client.net.bulk(node.peer);
    let count = effort.pick(64, 256);
    let (mut puts, mut gets) = (Vec::new(), Vec::new());
    for _ in 0..effort.pick(5, 9) {
        let put = || Put { id, body: Arc::clone(&body), onward: vec![], durable: 1, first_hop: true };
        let started = Instant::now();
        let mut all = stream::iter((0..count).map(|_| bulk.put(put(), NO_PROGRESS.into())))
            .buffer_unordered(BULK_ASKED_PER_STREAM_MAX);
        while let Some(receipt) = all.next().await {
            receipt?;
        }
        puts.push(count as f64 / started.elapsed().as_secs_f64());
        let started = Instant::now();
        let mut all = stream::iter((0..count).map(|_| bulk.get(id, NO_PROGRESS.into())))
            .buffer_unordered(BULK_ASKED_PER_STREAM_MAX);
        while let Some(body) = all.next().await {
            body?;
        }
        gets.push(count as f64 / started.elapsed().as_secs_f64());
    }
    Ok((median(puts), median(gets)))
}

/// Round trips a second of a bare UDP echo on loopback between two threads, one after the other.
pub(super) fn udp_echo(effort: Effort) -> Result<f64> {
    let (asker, echo) = (UdpSocket::bind(("127.0.0.1", 0))?, UdpSocket::bind(("127.0.0.1", 0))?);
    asker.connect(echo.local_addr()?)?;
    echo.connect(asker.local_addr()?)?;
    for socket in [&asker, &echo] {
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    }
    let count = effort.pick(2000, 10_000);
    let echoing = std::thread::spawn(move || -> std::io::Result<()> {
        let mut packet = [0; ECHO_BYTES];
        for _ in 0..count {
            let len = echo.recv(&mut packet)?;
            echo.send(&packet[..len])?;
        }
        Ok(())
    });
    let mut packet = [0; ECHO_BYTES];
    let started = Instant::now();
    for _ in 0..count {
        asker.send(&packet)?;
        asker.recv(&mut packet)?;
    }
    let took_s = started.elapsed().as_secs_f64();
    echoing.join().ok().context("the echo ended")??;
    Ok(count as f64 / took_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_comes_back() {
        assert!(udp_echo(Effort { quick: true }).unwrap() > 1.0);
    }

    #[tokio::test]
    async fn a_bare_client_puts_and_gets_one_body() {
        let key = ClusterKey::from_bytes([7; 32]);
        let body = Arc::new(vec![3; 1000]);
        let id = chunk::body_id(&body);
        let node = Wire::listening(key.clone(), Arc::clone(&body)).await.unwrap();
        let client = Wire::dialing(&key, node.addr.clone().into_iter().collect()).await.unwrap();
        assert_eq!(client.connected(1).await.unwrap(), [node.peer]);
        let bulk = client.net.bulk(node.peer);
        assert_eq!(bulk.get(id, NO_PROGRESS.into()).await.unwrap(), *body);
        let put = Put { id, body, onward: vec![], durable: 1, first_hop: true };
        assert_eq!(bulk.put(put, NO_PROGRESS.into()).await.unwrap().holders, [node.peer]);
    }
}
