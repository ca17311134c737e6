//! What one stream of a transport carries when nobody stores, seals, frames or decides anything: our own
//! transport beside stock libp2p-quic, under equal conditions. For measurements; a node never uses it.
//!
//! Each end is a thread with a current-thread runtime of its own, and both transports get the same windows.
//! It measures and judges nothing.

use std::{
    future::poll_fn,
    io,
    pin::pin,
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use futures::{
    AsyncReadExt, AsyncWriteExt, StreamExt,
    future::{self, Either},
};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        Endpoint,
        muxing::{StreamMuxerBox, StreamMuxerExt},
        transport::{DialOpts, ListenerId, PortUse, TransportEvent},
    },
    identity::Keypair,
};
use tokio::sync::oneshot;

use super::transport::{self, Gate, Keys, Me, OwnStarts, SwarmTransport, TransportConfig};
use crate::{
    model::{
        Incarnation, ProcessId,
        hello::{BootMark, Kind},
        limits,
    },
    seal::admission::ClusterKey,
};

/// One read or write.
const PIECE_BYTES: usize = 256 << 10;
/// How long either end may take for all of it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Which transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that tintype uses, with its admission.
    Own,
    /// libp2p's, with windows as large.
    Stock,
}

/// Sends so many bytes over one fresh stream from one thread to another; bytes a second, from the first one
/// written until the receiver has said that it read the last one.
///
/// # Errors
/// What the transport or the system says.
pub fn one_stream(which: Which, bytes: usize) -> io::Result<f64> {
    let key = ClusterKey::from_bytes(rand::random());
    let (tell_addr, addr) = mpsc::sync_channel(1);
    let (tell_end, ended) = oneshot::channel();
    let receiver = end(which, key.clone(), move |transport| receive(transport, tell_addr, bytes, ended))?;
    let addr = addr.recv_timeout(PATIENCE).map_err(|_| io::Error::other("it does not listen"))?;
    let sender = end(which, key, move |transport| send(transport, addr, bytes, tell_end))?;
    let took = join(sender)?;
    join(receiver)?;
    Ok(bytes as f64 / took.as_secs_f64())
}

/// Runs one end on a thread of its own.
fn end<T, F>(
    which: Which,
    key: ClusterKey,
    work: impl FnOnce(SwarmTransport) -> F + Send + 'static,
) -> io::Result<JoinHandle<io::Result<T>>>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>>,
{
    std::thread::Builder::new().name("bare-stream".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let work = work(transport_of(which, key)?);
            tokio::time::timeout(PATIENCE, work).await.map_err(io::Error::other)?
        })
    })
}

fn join<T>(thread: JoinHandle<io::Result<T>>) -> io::Result<T> {
    thread.join().map_err(|_| io::Error::other("one end of the stream died"))?
}

fn transport_of(which: Which, key: ClusterKey) -> io::Result<SwarmTransport> {
    let keypair = Keypair::generate_ed25519();
    match which {
        Which::Stock => Ok(stock(&keypair)),
        Which::Own => {
            let mark = BootMark { boot: 1, process: ProcessId(rand::random()) };
            let me = Me {
                peer: keypair.public().to_peer_id(),
                kind: Kind::Member,
                mark,
                promises: 0,
                incarnation: Some(Incarnation(rand::random())),
                founding: None,
                name: "bare".into(),
            };
            let (gate, _events) = Gate::new(me, Keys::Cluster(key), OwnStarts::new([mark]), []);
            Ok(transport::build(&keypair, gate, TransportConfig::default())?.0)
        }
    }
}

fn stock(keypair: &Keypair) -> SwarmTransport {
    let mut config = libp2p_quic::Config::new(keypair);
    config.max_stream_data = limits::QUIC_STREAM_WINDOW_BYTES;
    config.max_connection_data = limits::QUIC_CONNECTION_WINDOW_BYTES;
    libp2p_quic::tokio::Transport::new(config)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed()
}

async fn receive(
    mut transport: SwarmTransport,
    tell_addr: mpsc::SyncSender<Multiaddr>,
    bytes: usize,
    ended: oneshot::Receiver<()>,
) -> io::Result<()> {
    let at = "/ip4/127.0.0.1/udp/0/quic-v1".parse().expect("an address as it should be");
    transport.listen_on(ListenerId::next(), at).map_err(io::Error::other)?;
    let (_, muxer) = incoming(&mut transport, &tell_addr).await?;
    // The listener must live, and be turned, as long as what it accepted.
    let turning = pin!(async { while transport.next().await.is_some() {} });
    match future::select(pin!(read_all(muxer, bytes, ended)), turning).await {
        Either::Left((done, _)) => done,
        Either::Right(((), _)) => Err(io::Error::other("the listener ended")),
    }
}

async fn incoming(
    transport: &mut SwarmTransport,
    tell_addr: &mpsc::SyncSender<Multiaddr>,
) -> io::Result<(PeerId, StreamMuxerBox)> {
    let mut upgrade = None;
    loop {
        let event = match upgrade.as_mut() {
            None => transport.next().await,
            Some(upgrade) => match future::select(upgrade, transport.next()).await {
                Either::Left((done, _)) => return done,
                Either::Right((event, _)) => event,
            },
        };
        match event.ok_or_else(|| io::Error::other("the listener ended"))? {
            TransportEvent::NewAddress { listen_addr, .. } => drop(tell_addr.try_send(listen_addr)),
            TransportEvent::Incoming { upgrade: begun, .. } => upgrade = Some(begun),
            TransportEvent::ListenerError { error, .. } => return Err(error),
            _ => {}
        }
    }
}

async fn read_all(mut muxer: StreamMuxerBox, bytes: usize, ended: oneshot::Receiver<()>) -> io::Result<()> {
    let mut stream = poll_fn(|cx| muxer.poll_inbound_unpin(cx)).await?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = bytes;
    while left > 0 {
        match stream.read(&mut piece).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            got => left = left.saturating_sub(got),
        }
    }
    stream.write_all(&[1]).await?;
    stream.close().await?;
    // Until the other side has read it, or died. It says so from thread to thread: a close would leave only
    // if its runtime lived on, and without one this side waits for its idle timeout.
    let _ = ended.await;
    Ok(())
}

async fn send(
    mut transport: SwarmTransport,
    to: Multiaddr,
    bytes: usize,
    tell_end: oneshot::Sender<()>,
) -> io::Result<Duration> {
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let (_, mut muxer) = transport.dial(to, options).map_err(io::Error::other)?.await?;
    let mut stream = poll_fn(|cx| muxer.poll_outbound_unpin(cx)).await?;
    let piece = vec![7; PIECE_BYTES];
    let mut left = bytes;
    let since = Instant::now();
    while left > 0 {
        left -= stream.write(&piece[..left.min(PIECE_BYTES)]).await?;
    }
    stream.flush().await?;
    stream.read_exact(&mut [0]).await?;
    let took = since.elapsed();
    // Nobody listens any more if the other side has failed, which is told there.
    let _ = tell_end.send(());
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_ends_when_its_bytes_have_arrived() {
        for which in [Which::Own, Which::Stock] {
            let since = Instant::now();
            one_stream(which, 1 << 10).expect("it arrives");
            // The one would wait 1.5 s for nothing more to come, the other 10 s.
            assert!(since.elapsed() < Duration::from_millis(1400), "{which:?}: {:?}", since.elapsed());
        }
    }

    #[test]
    fn both_carry_every_byte() {
        for which in [Which::Own, Which::Stock] {
            assert!(one_stream(which, 3 << 20).expect("it arrives") > 0.0, "{which:?}");
        }
    }
}
