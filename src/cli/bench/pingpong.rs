//! Round trips of lane frames and of heartbeats between two bare networks in this process, one after the
//! other: what the members' small messages cost before anybody decides anything about them.

use std::{
    collections::BTreeSet,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use libp2p_identity::Keypair;
use tokio::sync::{oneshot, watch};

use super::{
    Effort,
    figure::{Figure, median},
    wire,
};
use crate::{
    model::{PeerId, hello::Kind},
    net::{Busy, Event, Multiaddr, Net, NetConfig, Topic, address, transport::Keys},
    seal::admission::ClusterKey,
};

/// Bytes of a message: about what a question of ChunkPaxos or a heartbeat has.
const MESSAGE_BYTES: usize = 200;
/// How long one round trip, the first connection included, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a message that cannot leave yet is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// A lane.
    Lane,
    /// gossipsub, signed.
    Gossip,
}

/// Lane frames there and back in a second, beside a bare UDP echo.
pub(super) async fn lane(effort: Effort) -> Result<Figure> {
    let rate = 1.0 / round_trip_s(Via::Lane, effort.pick(2000, 20_000)).await?;
    let echo = udp_echo(effort).await?;
    Ok(Figure::new("lane", "1/s", rate).under("a bare UDP echo", echo))
}

/// Heartbeats there and back in a second, beside a bare UDP echo.
pub(super) async fn gossip(effort: Effort) -> Result<Figure> {
    let rate = 1.0 / round_trip_s(Via::Gossip, effort.pick(200, 2000)).await?;
    let echo = udp_echo(effort).await?;
    Ok(Figure::new("gossip", "1/s", rate).under("a bare UDP echo", echo))
}

async fn udp_echo(effort: Effort) -> Result<f64> {
    tokio::task::spawn_blocking(move || wire::udp_echo(effort)).await.context("measuring an echo")?
}

/// The median of so many round trips, in seconds.
async fn round_trip_s(via: Via, count: usize) -> Result<f64> {
    let key = ClusterKey::from_bytes(rand::random());
    let (asker, echo) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let members: BTreeSet<PeerId> = [&asker, &echo].map(|key| key.public().to_peer_id()).into();
    let (stop, stopped) = watch::channel(false);
    let (tell, told) = oneshot::channel();
    let (echo_key, echo_members) = (key.clone(), members.clone());
    let echoing = on_a_thread(async move || {
        let mut net = member(echo_key, &echo, Vec::new(), echo_members)?;
        answer_all(&mut net, via, tell, stopped).await?;
        net.close().await;
        Ok(())
    })?;
    let addr = told.await.context("the other end did not listen")?;
    let asking = on_a_thread(async move || {
        let mut net = member(key, &asker, vec![addr], members)?;
        let times = ask_all(&mut net, via, count).await?;
        net.close().await;
        Ok(times)
    })?;
    let times = tokio::task::spawn_blocking(move || joined(asking)).await.context("measuring")?;
    stop.send_replace(true);
    tokio::task::spawn_blocking(move || joined(echoing)).await.context("measuring")??;
    Ok(median(times?.iter().map(Duration::as_secs_f64).collect()))
}

type Ended<T> = JoinHandle<Result<T>>;

fn on_a_thread<T: Send + 'static>(
    work: impl AsyncFnOnce() -> Result<T> + Send + 'static,
) -> Result<Ended<T>> {
    let thread = std::thread::Builder::new().name("bench-net".into());
    Ok(thread.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work())
    })?)
}

fn joined<T>(thread: Ended<T>) -> Result<T> {
    thread.join().ok().context("one end died")?
}

fn member(
    key: ClusterKey,
    keypair: &Keypair,
    bootstrap: Vec<Multiaddr>,
    members: BTreeSet<PeerId>,
) -> Result<Net> {
    let config = NetConfig { bootstrap, ..NetConfig::node(vec![address::quic(([127, 0, 0, 1], 0).into())]) };
    let (mut net, _calls) = wire::open(keypair, Keys::Cluster(key), Kind::Member, config)?;
    net.set_members(members);
    Ok(net)
}

/// Sends back whatever comes, until it is told to stop.
async fn answer_all(
    net: &mut Net,
    via: Via,
    tell: oneshot::Sender<Multiaddr>,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let mut tell = Some(tell);
    loop {
        let event = tokio::select! {
            _ = stopped.changed() => return Ok(()),
            event = net.next() => event,
        };
        match event {
            Event::Listening { addr } => drop(tell.take().map(|tell| tell.send(addr))),
            Event::LaneFrame { peer, .. } | Event::Heartbeat { source: peer, .. } => {
                send(net, via, peer).ok().context("an answer found no room")?;
            }
            _ => {}
        }
    }
}

async fn ask_all(net: &mut Net, via: Via, count: usize) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(count);
    let mut peer = None;
    let mut since = None;
    while times.len() < count {
        // Nobody listens to gossip before he has said so.
        if since.is_none()
            && let Some(peer) = peer
            && send(net, via, peer).is_ok()
        {
            since = Some(Instant::now());
        }
        let patience = if since.is_some() || peer.is_none() { PATIENCE } else { RETRY };
        match tokio::time::timeout(patience, net.next()).await {
            Ok(Event::Connected { peer: other, .. }) => peer = Some(other),
            Ok(Event::LaneFrame { .. } | Event::Heartbeat { .. }) => {
                times.extend(since.take().map(|since: Instant| since.elapsed()));
            }
            Ok(_) => {}
            Err(_) if patience == RETRY => {}
            Err(_) => bail!("no answer came back"),
        }
    }
    Ok(times)
}

fn send(net: &mut Net, via: Via, to: PeerId) -> Result<(), Busy> {
    let message = vec![7; MESSAGE_BYTES];
    match via {
        Via::Lane => net.send_lane(to, message),
        Via::Gossip => net.publish(Topic::Heartbeat, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sent_comes_back_either_way() {
        for via in [Via::Lane, Via::Gossip] {
            assert!(round_trip_s(via, 5).await.unwrap() > 0.0, "{via:?}");
        }
    }
}
