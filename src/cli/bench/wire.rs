//! A bare client, for questions that no command asks; and what the network gives to those who do nothing but
//! send: one stream, and a UDP echo.

use std::{
    net::UdpSocket,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use libp2p_identity::Keypair;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Effort, MIB, figure::median};
use crate::{
    model::{
        Incarnation, PeerId, ProcessId,
        hello::{BootMark, Kind},
        limits::CLIENT_PATIENCE,
    },
    net::{
        BulkCall, Multiaddr, Net, NetConfig, NetHandle, bare,
        transport::{Gate, Keys, Me, OwnStarts},
    },
    seal::admission::ClusterKey,
};

/// Bytes of a question in the ceiling of `rpc`: about what a status request and its frame have.
const ECHO_BYTES: usize = 64;

/// A network on a thread of its own. Dropping it ends it.
pub(super) struct Wire {
    /// What it is used by.
    pub(super) net: NetHandle,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// A client that dials these addresses.
    pub(super) async fn dialing(key: &ClusterKey, to: Vec<Multiaddr>) -> Result<Self> {
        let config = NetConfig { bootstrap: to, ..NetConfig::client() };
        let keys = Keys::Client(key.client_right());
        let (stop, stopped) = watch::channel(false);
        let (tell, told) = oneshot::channel();
        let thread = std::thread::Builder::new().name("bench-net".into()).spawn(move || {
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(drive(keys, config, stopped, tell)),
                Err(error) => drop(tell.send(Err(error.into()))),
            }
        })?;
        let net = told.await.context("the network ended")??;
        Ok(Self { net, stop, thread: Some(thread) })
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
    config: NetConfig,
    mut stopped: watch::Receiver<bool>,
    tell: oneshot::Sender<Result<NetHandle>>,
) {
    let (mut net, _calls) = match open(&Keypair::generate_ed25519(), keys, Kind::Client, config) {
        Ok(open) => open,
        Err(error) => return drop(tell.send(Err(error))),
    };
    let _ = tell.send(Ok(net.handle()));
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            _ = net.next() => {}
        }
    }
    net.close().await;
}

/// A bare network of an identity that nobody knows yet.
pub(super) fn open(
    keypair: &Keypair,
    keys: Keys,
    kind: Kind,
    config: NetConfig,
) -> Result<(Net, mpsc::Receiver<BulkCall>)> {
    let mark = BootMark { boot: u64::from(kind == Kind::Member), process: ProcessId(rand::random()) };
    let me = Me {
        peer: keypair.public().to_peer_id(),
        kind,
        mark,
        promises: 0,
        incarnation: (kind == Kind::Member).then(|| Incarnation(rand::random())),
        founding: None,
        name: "bench".into(),
    };
    let (gate, events) = Gate::new(me, keys, OwnStarts::new([mark]), []);
    Ok(Net::start(config, keypair, gate, events)?)
}

/// MiB/s of one stream from one thread to another: (ours, stock libp2p-quic's), taking turns.
pub(super) async fn bare_streams(effort: Effort) -> Result<(f64, f64)> {
    let bytes = effort.pick(128, 1024) << 20;
    let (mut own, mut stock) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        own.push(one_stream(bare::Which::Own, bytes).await?);
        stock.push(one_stream(bare::Which::Stock, bytes).await?);
    }
    Ok((median(own), median(stock)))
}

async fn one_stream(which: bare::Which, bytes: usize) -> Result<f64> {
    let measured = tokio::task::spawn_blocking(move || bare::one_stream(which, bytes));
    Ok(measured.await.context("measuring a stream")?? / MIB)
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
}
