//! Who is connected, by which connections, and which of those are one too many.
//!
//! It keeps count and decides; closing is done by its owner.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use tokio::{sync::watch, time::Instant};

use super::event::PeerInfo;
use crate::model::hello::Kind;

/// The connected, admitted peers.
pub type Peers = Arc<BTreeMap<PeerId, PeerInfo>>;

/// Duplicates of a simultaneous dial live so long: gossipsub's one hello may still ride on either.
const DUPLICATE_KEPT: Duration = Duration::from_secs(5);
/// A member connected so long that has not said that it hears heartbeats is half-deaf.
const HALF_DEAF_AFTER: Duration = Duration::from_secs(5);
/// At most one report of a broken protocol per peer in this time.
const MALFORMED_EVERY: Duration = Duration::from_secs(1);

struct Connection {
    id: ConnectionId,
    since: Instant,
    /// It belongs to a process that is gone.
    stale: bool,
}

struct Connected {
    info: PeerInfo,
    connections: Vec<Connection>,
    since: Instant,
    announce_again: bool,
    malformed_at: Option<Instant>,
}

/// What the end of a connection means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// Others remain; `announce_again` if the last stale one is gone.
    Remaining { announce_again: bool },
    /// That was the last.
    Last,
    /// It was not known.
    Unknown,
}

/// The table, and its public picture.
pub(super) struct Table {
    peers: BTreeMap<PeerId, Connected>,
    public: watch::Sender<Peers>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { peers: BTreeMap::new(), public: watch::Sender::new(Peers::default()) }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Peers> {
        self.public.subscribe()
    }

    pub(super) fn public(&self) -> Peers {
        self.public.borrow().clone()
    }

    pub(super) fn kind(&self, peer: &PeerId) -> Option<Kind> {
        self.peers.get(peer).map(|p| p.info.kind)
    }

    /// A connection stands. Says whether it is the peer's first.
    pub(super) fn established(
        &mut self,
        now: Instant,
        peer: PeerId,
        id: ConnectionId,
        kind: Kind,
        addr: Multiaddr,
        dialed: bool,
    ) -> bool {
        let connection = Connection { id, since: now, stale: false };
        if let Some(connected) = self.peers.get_mut(&peer) {
            connected.connections.push(connection);
            return false;
        }
        let info = PeerInfo { kind, addr, dialed };
        let connected = Connected {
            info,
            connections: vec![connection],
            since: now,
            announce_again: false,
            malformed_at: None,
        };
        self.peers.insert(peer, connected);
        self.publish();
        true
    }

    pub(super) fn closed(&mut self, peer: &PeerId, id: ConnectionId) -> Closed {
        let Some(connected) = self.peers.get_mut(peer) else { return Closed::Unknown };
        connected.connections.retain(|c| c.id != id);
        if connected.connections.is_empty() {
            self.peers.remove(peer);
            self.publish();
            return Closed::Last;
        }
        let announce_again = connected.announce_again && !connected.connections.iter().any(|c| c.stale);
        connected.announce_again &= !announce_again;
        Closed::Remaining { announce_again }
    }

    /// The peer has restarted: what stands now is to be closed.
    pub(super) fn restarted(&mut self, now: Instant, peer: &PeerId) -> Vec<ConnectionId> {
        let Some(connected) = self.peers.get_mut(peer) else { return Vec::new() };
        connected.announce_again = true;
        connected.since = now;
        connected.connections.iter_mut().for_each(|c| c.stale = true);
        connected.connections.iter().map(|c| c.id).collect()
    }

    /// Connections that this side should close: of old duplicates, all but the newest.
    pub(super) fn duplicates(&self, now: Instant, me: PeerId) -> Vec<ConnectionId> {
        // The smaller peer id closes, so that the two sides never close one each.
        let mine = self.peers.iter().filter(|(peer, _)| me < **peer);
        let old = mine.filter(|(_, connected)| {
            connected
                .connections
                .last()
                .is_some_and(|newest| now.duration_since(newest.since) >= DUPLICATE_KEPT)
        });
        old.flat_map(|(_, c)| c.connections[..c.connections.len() - 1].iter().map(|c| c.id)).collect()
    }

    /// Members that have been connected for long and are not among those who listen.
    pub(super) fn half_deaf(&self, now: Instant, listeners: &BTreeSet<PeerId>) -> Vec<PeerId> {
        let members = self.peers.iter().filter(|(_, c)| c.info.kind == Kind::Member);
        let silent = members
            .filter(|(peer, c)| now.duration_since(c.since) >= HALF_DEAF_AFTER && !listeners.contains(peer));
        silent.map(|(peer, _)| *peer).collect()
    }

    /// Whether a broken protocol of this peer is to be reported now.
    pub(super) fn report_malformed(&mut self, now: Instant, peer: &PeerId) -> bool {
        let Some(connected) = self.peers.get_mut(peer) else { return true };
        let quiet = connected.malformed_at.is_some_and(|at| now.duration_since(at) < MALFORMED_EVERY);
        if !quiet {
            connected.malformed_at = Some(now);
        }
        !quiet
    }

    fn publish(&self) {
        let picture = self.peers.iter().map(|(peer, c)| (*peer, c.info.clone())).collect();
        self.public.send_replace(Arc::new(picture));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr() -> Multiaddr {
        "/ip4/127.0.0.1/udp/1/quic-v1".parse().unwrap()
    }

    #[tokio::test]
    async fn duplicates_are_closed_late_by_one_side_only_and_the_newest_stays() {
        let (a, b) = (PeerId::random(), PeerId::random());
        let (small, large) = (a.min(b), a.max(b));
        let start = Instant::now();
        let mut table = Table::new();
        let ids: Vec<_> = (1..=2).map(ConnectionId::new_unchecked).collect();
        assert!(table.established(start, large, ids[0], Kind::Member, addr(), true));
        assert!(!table.established(start, large, ids[1], Kind::Member, addr(), false));
        assert_eq!(table.duplicates(start + Duration::from_secs(4), small), []);
        assert_eq!(table.duplicates(start + Duration::from_secs(6), small), [ids[0]]);
        let mut other = Table::new();
        other.established(start, small, ids[0], Kind::Member, addr(), true);
        other.established(start, small, ids[1], Kind::Member, addr(), true);
        assert_eq!(other.duplicates(start + Duration::from_secs(6), large), []);
        assert_eq!(table.closed(&large, ids[0]), Closed::Remaining { announce_again: false });
        assert_eq!(table.closed(&large, ids[1]), Closed::Last);
        assert!(table.public().is_empty());
    }

    #[tokio::test]
    async fn topics_are_announced_again_when_the_last_stale_connection_is_gone() {
        let (peer, now) = (PeerId::random(), Instant::now());
        let mut table = Table::new();
        let ids: Vec<_> = (1..=3).map(ConnectionId::new_unchecked).collect();
        assert_eq!(table.restarted(now, &peer), []);
        table.established(now, peer, ids[0], Kind::Member, addr(), true);
        table.established(now, peer, ids[1], Kind::Member, addr(), true);
        assert_eq!(table.restarted(now, &peer), ids[..2]);
        table.established(now, peer, ids[2], Kind::Member, addr(), false);
        assert_eq!(table.closed(&peer, ids[0]), Closed::Remaining { announce_again: false });
        assert_eq!(table.closed(&peer, ids[1]), Closed::Remaining { announce_again: true });
        let late = now + Duration::from_secs(6);
        assert_eq!(table.half_deaf(late, &BTreeSet::new()), [peer]);
        assert_eq!(table.half_deaf(late, &[peer].into()), []);
    }
}
