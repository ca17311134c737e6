//! Whom to dial, where and when: the ladder of mDNS, bootstrap, remembered and given addresses.
//!
//! It holds a bounded table and decides; it opens no connection and reads no clock. An address is a hint:
//! the transport proves who answers. A connection is never closed here, least of all because mDNS forgot it.

use std::{collections::BTreeMap, time::Duration};

use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use super::address;
use crate::model::limits;

/// After the first failed dial; doubles with each further one. A LAN answers in a millisecond.
const RETRY_FIRST: Duration = Duration::from_millis(150);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// After a refusal: the other side will not change its mind soon.
const REFUSED_FIRST: Duration = Duration::from_secs(30);
const REFUSED_MAX: Duration = Duration::from_secs(300);
/// The larger peer id leaves the first word to the smaller for so long.
const YIELD: Duration = Duration::from_millis(500);
/// An address that a peer only came from is tried so often: it may be one that nobody listens at.
const SEEN_TRIES: u32 = 10;
/// Random part of every delay that would otherwise be the same on many machines.
const JITTER: Duration = Duration::from_millis(50);

/// Where an address comes from; later ones are better reasons to keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// A peer came from there; it may listen there too.
    Seen,
    /// mDNS said so.
    Mdns,
    /// It worked before.
    Worked,
    /// A person or a file said so.
    Given,
}

/// One dial to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Peer { peer: PeerId, addrs: Vec<Multiaddr> },
    Address { addr: Multiaddr },
}

/// How a dial failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nobody there, or it broke: soon again.
    Unreachable,
    /// Refused at admission, by us or by them: much later again.
    Refused,
    /// That was this process itself.
    Myself,
    /// Another peer answered there.
    OtherPeer(PeerId),
}

#[derive(Debug)]
struct Place {
    addr: Multiaddr,
    source: Source,
    tried: bool,
}

#[derive(Debug)]
struct Known {
    places: Vec<Place>,
    connected: bool,
    dialing: u8,
    failures: u32,
    at: Instant,
}

#[derive(Debug)]
struct Nameless {
    addr: Multiaddr,
    /// Who answered there last.
    found: Option<PeerId>,
    dialing: bool,
    failures: u32,
    at: Instant,
}

/// The table.
pub(super) struct Discovery {
    me: PeerId,
    /// False for a client: nobody else would dial.
    yields: bool,
    peers: BTreeMap<PeerId, Known>,
    nameless: Vec<Nameless>,
}

impl Discovery {
    pub(super) fn new(me: PeerId, yields: bool) -> Self {
        Self { me, yields, peers: BTreeMap::new(), nameless: Vec::new() }
    }

    /// Learns an address; a trailing peer id counts. Says whether it was new.
    pub(super) fn learn(
        &mut self,
        now: Instant,
        peer: Option<PeerId>,
        addr: Multiaddr,
        source: Source,
    ) -> bool {
        let (addr, named) = address::split_peer(addr);
        match peer.or(named) {
            Some(peer) if peer == self.me => false,
            _ if !dialable(&addr) => false,
            Some(peer) => self.learn_of_peer(now, peer, addr, source),
            None => self.learn_nameless(now, addr),
        }
    }

    fn learn_of_peer(&mut self, now: Instant, peer: PeerId, addr: Multiaddr, source: Source) -> bool {
        if !self.peers.contains_key(&peer) && !self.make_room(source) {
            return false;
        }
        let first = now + self.first_delay(peer);
        let known = self.peers.entry(peer).or_insert_with(|| Known {
            places: Vec::new(),
            connected: false,
            dialing: 0,
            failures: 0,
            at: first,
        });
        if let Some(place) = known.places.iter_mut().find(|place| place.addr == addr) {
            place.source = place.source.max(source);
            return false;
        }
        if known.places.len() >= limits::KNOWN_ADDRESSES_MAX {
            let worst = (0..known.places.len()).min_by_key(|i| {
                let place = &known.places[*i];
                (place.source, !place.tried)
            });
            match worst {
                Some(i) if known.places[i].source <= source => drop(known.places.remove(i)),
                _ => return false,
            }
        }
        known.places.insert(0, Place { addr, source, tried: false });
        // A new address is a new chance, except for one who refuses us whatever its address.
        if known.failures == 0 || known.at.saturating_duration_since(now) <= RETRY_MAX + RETRY_MAX / 4 {
            known.at = known.at.min(first);
        }
        true
    }

    fn learn_nameless(&mut self, now: Instant, addr: Multiaddr) -> bool {
        if let Some(known) = self.nameless.iter_mut().find(|n| n.addr == addr) {
            // Somebody asks for it again: no reason to wait out the back-off.
            known.at = known.at.min(now);
            return false;
        }
        if self.nameless.len() >= limits::KNOWN_PEERS_MAX {
            return false;
        }
        let delay = if self.yields { random_up_to(JITTER) } else { Duration::ZERO };
        self.nameless.push(Nameless { addr, found: None, dialing: false, failures: 0, at: now + delay });
        true
    }

    /// Makes room for one more peer, at the cost of one of no better standing.
    fn make_room(&mut self, source: Source) -> bool {
        if self.peers.len() < limits::KNOWN_PEERS_MAX {
            return true;
        }
        let standing = |known: &Known| known.places.iter().map(|p| p.source).max();
        let idle = self.peers.iter().filter(|(_, known)| !known.connected && known.dialing == 0);
        let worst = idle.min_by_key(|(_, known)| (standing(known), u32::MAX - known.failures));
        match worst.map(|(peer, known)| (*peer, standing(known))) {
            Some((peer, held)) if held <= Some(source) => self.peers.remove(&peer).is_some(),
            _ => false,
        }
    }

    /// mDNS has not heard of it for long: no candidate any more, unless something better speaks for it.
    pub(super) fn expired(&mut self, peer: &PeerId, addr: &Multiaddr) {
        let (addr, _) = address::split_peer(addr.clone());
        let Some(known) = self.peers.get_mut(peer) else { return };
        known.places.retain(|place| place.addr != addr || place.source > Source::Mdns);
        if known.places.is_empty() && !known.connected && known.dialing == 0 {
            self.peers.remove(peer);
        }
    }

    /// A connection stands. `dialed` if this side opened it: then the address is worth remembering.
    pub(super) fn connected(&mut self, now: Instant, peer: PeerId, addr: &Multiaddr, dialed: bool) {
        let (addr, _) = address::split_peer(addr.clone());
        let source = if dialed { Source::Worked } else { Source::Seen };
        for nameless in self.nameless.iter_mut().filter(|n| n.addr == addr) {
            (nameless.found, nameless.failures) = (Some(peer), 0);
        }
        if dialable(&addr) {
            self.learn_of_peer(now, peer, addr.clone(), source);
        }
        let Some(known) = self.peers.get_mut(&peer) else { return };
        (known.connected, known.failures) = (true, 0);
        if dialed && let Some(i) = known.places.iter().position(|place| place.addr == addr) {
            let place = known.places.remove(i);
            known.places.insert(0, place);
        }
    }

    /// The last connection is gone: dial again at once, or after the other side had its chance.
    pub(super) fn disconnected(&mut self, now: Instant, peer: &PeerId) {
        let delay = self.first_delay(*peer);
        if let Some(known) = self.peers.get_mut(peer) {
            known.connected = false;
            known.failures = 0;
            known.at = now + delay;
            known.places.iter_mut().for_each(|place| place.tried = false);
        }
        for nameless in self.nameless.iter_mut().filter(|n| n.found == Some(*peer)) {
            nameless.at = now + YIELD;
        }
    }

    /// Not before then.
    pub(super) fn hold(&mut self, peer: &PeerId, until: Instant) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.at = known.at.max(until);
        }
        for nameless in self.nameless.iter_mut().filter(|n| n.found == Some(*peer)) {
            nameless.at = nameless.at.max(until);
        }
    }

    /// A dial is over, well or badly.
    pub(super) fn finished(&mut self, now: Instant, attempt: &Attempt, failure: Option<Failure>) {
        match attempt {
            Attempt::Peer { peer, addrs } => self.finished_peer(now, peer, addrs, failure),
            Attempt::Address { addr } => self.finished_address(now, addr, failure),
        }
    }

    fn finished_peer(&mut self, now: Instant, peer: &PeerId, addrs: &[Multiaddr], failure: Option<Failure>) {
        let Some(known) = self.peers.get_mut(peer) else { return };
        known.dialing = known.dialing.saturating_sub(1);
        let Some(failure) = failure else { return };
        known.failures += 1;
        known.at = now + back_off(failure, known.failures);
        if known.failures > SEEN_TRIES {
            known.places.retain(|place| place.source > Source::Seen);
        }
        if matches!(failure, Failure::OtherPeer(_) | Failure::Myself) {
            // The port belongs to somebody else now. What a person wrote down stays, and is tried seldom.
            known.places.retain(|place| !addrs.contains(&place.addr) || place.source == Source::Given);
        }
        if known.places.is_empty() && !known.connected && known.dialing == 0 {
            self.peers.remove(peer);
        }
    }

    fn finished_address(&mut self, now: Instant, addr: &Multiaddr, failure: Option<Failure>) {
        let Some(nameless) = self.nameless.iter_mut().find(|n| n.addr == *addr) else { return };
        nameless.dialing = false;
        if let Some(failure) = failure {
            nameless.failures += 1;
            nameless.at = now + back_off(failure, nameless.failures);
        }
    }

    /// The dials to begin now, at most `max`. Each must be followed by [`Self::finished`].
    pub(super) fn due(&mut self, now: Instant, max: usize) -> Vec<Attempt> {
        let mut due = Vec::new();
        for nameless in &mut self.nameless {
            if due.len() < max
                && !nameless.dialing
                && !has_answered(&self.peers, nameless)
                && nameless.at <= now
            {
                nameless.dialing = true;
                due.push(Attempt::Address { addr: nameless.addr.clone() });
            }
        }
        for (peer, known) in &mut self.peers {
            if due.len() < max && known.at <= now && known.wants_dial() {
                due.push(Attempt::Peer { peer: *peer, addrs: known.take_untried() });
            }
        }
        due
    }

    /// When [`Self::due`] has something next, if dials are free then.
    pub(super) fn wake(&self) -> Option<Instant> {
        let waiting = |n: &&Nameless| !n.dialing && !has_answered(&self.peers, n);
        let nameless = self.nameless.iter().filter(waiting).map(|n| n.at);
        let peers = self.peers.values().filter(|known| known.wants_dial()).map(|known| known.at);
        nameless.chain(peers).min()
    }

    /// Addresses that worked, for the home to remember.
    pub(super) fn worked(&self) -> Vec<(PeerId, Multiaddr)> {
        let worked = self.peers.iter().flat_map(|(peer, known)| {
            known.places.iter().filter(|p| p.source >= Source::Worked).map(|p| (*peer, p.addr.clone()))
        });
        worked.collect()
    }

    fn first_delay(&self, peer: PeerId) -> Duration {
        match (self.yields, self.me < peer) {
            (false, _) => Duration::ZERO,
            (true, true) => random_up_to(JITTER),
            (true, false) => YIELD + random_up_to(JITTER),
        }
    }
}

/// Whether who answered at an address is connected.
fn has_answered(peers: &BTreeMap<PeerId, Known>, nameless: &Nameless) -> bool {
    nameless.found.and_then(|peer| peers.get(&peer)).is_some_and(|known| known.connected)
}

impl Known {
    /// A second dial beside a running one only for an address that came meanwhile: a dead one takes seconds.
    fn wants_dial(&self) -> bool {
        let untried = self.places.iter().any(|place| !place.tried);
        !self.connected && !self.places.is_empty() && (self.dialing == 0 || (self.dialing == 1 && untried))
    }

    fn take_untried(&mut self) -> Vec<Multiaddr> {
        let all = self.dialing == 0;
        self.dialing += 1;
        let mut taken = Vec::new();
        for place in self.places.iter_mut().filter(|place| all || !place.tried) {
            place.tried = true;
            taken.push(place.addr.clone());
        }
        taken
    }
}

/// An IP address and a port that a packet can be sent to.
fn dialable(addr: &Multiaddr) -> bool {
    address::socket_addr(addr)
        .is_some_and(|a| a.port() != 0 && !a.ip().is_unspecified() && !a.ip().is_multicast())
}

fn back_off(failure: Failure, failures: u32) -> Duration {
    let (first, max) = match failure {
        Failure::Unreachable => (RETRY_FIRST, RETRY_MAX),
        Failure::Refused | Failure::OtherPeer(_) => (REFUSED_FIRST, REFUSED_MAX),
        Failure::Myself => (REFUSED_MAX, REFUSED_MAX),
    };
    let whole = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(max);
    whole * 3 / 4 + random_up_to(whole / 2)
}

fn random_up_to(max: Duration) -> Duration {
    max.mul_f64(rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/udp/{port}/quic-v1").parse().unwrap()
    }

    fn pair() -> (PeerId, PeerId) {
        let (a, b) = (PeerId::random(), PeerId::random());
        (a.min(b), a.max(b))
    }

    const SOON: Duration = Duration::from_millis(60);

    #[tokio::test]
    async fn the_smaller_dials_first_and_the_larger_waits() {
        let (small, large) = pair();
        let now = Instant::now();
        let mut of_small = Discovery::new(small, true);
        of_small.learn(now, Some(large), addr(1), Source::Mdns);
        assert_eq!(of_small.due(now + SOON, 9), [Attempt::Peer { peer: large, addrs: vec![addr(1)] }]);
        let mut of_large = Discovery::new(large, true);
        of_large.learn(now, Some(small), addr(1), Source::Mdns);
        assert_eq!(of_large.due(now + SOON, 9), []);
        of_large.connected(now, small, &addr(9), false);
        assert_eq!(of_large.due(now + YIELD * 9, 9), [], "connected meanwhile");
        of_large.disconnected(now, &small);
        assert_eq!(of_large.due(now + YIELD * 9, 9).len(), 1);
        let mut client = Discovery::new(large, false);
        client.learn(now, Some(small), addr(1), Source::Mdns);
        assert_eq!(client.due(now, 9).len(), 1, "nobody dials a client");
    }

    #[tokio::test]
    async fn retries_are_fast_at_first_and_bounded_and_refusals_wait_long() {
        let (small, large) = pair();
        let mut now = Instant::now();
        let mut table = Discovery::new(small, true);
        table.learn(now, None, addr(7), Source::Given);
        table.learn(now, Some(large), addr(8), Source::Given);
        for round in 0..12 {
            now = table.wake().unwrap().max(now);
            let due = table.due(now + SOON, 9);
            assert!(!due.is_empty());
            for attempt in &due {
                table.finished(now, attempt, Some(Failure::Unreachable));
            }
            let wait = table.wake().unwrap() - now;
            assert!(wait <= RETRY_MAX * 5 / 4, "round {round}: {wait:?}");
            assert!(round > 0 || wait <= Duration::from_millis(200), "the first retry comes soon: {wait:?}");
        }
        now += RETRY_MAX * 2;
        for attempt in table.due(now, 9) {
            table.finished(now, &attempt, Some(Failure::Refused));
        }
        assert!(table.wake().unwrap() - now >= REFUSED_FIRST * 3 / 4);
    }

    #[tokio::test]
    async fn a_new_address_is_tried_beside_a_hanging_dial_but_only_once() {
        let (small, large) = pair();
        let now = Instant::now();
        let mut table = Discovery::new(small, true);
        table.learn(now, Some(large), addr(1), Source::Worked);
        assert_eq!(table.due(now + SOON, 9).len(), 1);
        assert_eq!(table.due(now + SOON, 9), []);
        assert!(table.learn(now, Some(large), addr(2), Source::Mdns));
        assert!(!table.learn(now, Some(large), addr(2), Source::Mdns));
        assert_eq!(table.due(now + SOON, 9), [Attempt::Peer { peer: large, addrs: vec![addr(2)] }]);
        assert_eq!(table.due(now + SOON, 9), []);
    }

    #[tokio::test]
    async fn strangers_never_push_out_what_a_person_wrote_down_and_the_table_stays_bounded() {
        let now = Instant::now();
        let (me, friend) = pair();
        let mut table = Discovery::new(me, true);
        table.learn(now, Some(friend), addr(1), Source::Given);
        for _ in 0..2 * limits::KNOWN_PEERS_MAX {
            table.learn(now, Some(PeerId::random()), addr(2), Source::Mdns);
        }
        for port in 2..200 {
            table.learn(now, Some(friend), addr(port), Source::Mdns);
        }
        assert!(table.peers.len() <= limits::KNOWN_PEERS_MAX);
        let known = &table.peers[&friend];
        assert!(known.places.len() <= limits::KNOWN_ADDRESSES_MAX);
        assert!(known.places.iter().any(|place| place.addr == addr(1)));
        table.expired(&friend, &addr(1));
        assert!(table.peers[&friend].places.iter().any(|place| place.addr == addr(1)));
    }

    #[tokio::test]
    async fn an_address_that_answers_is_not_dialed_while_its_peer_is_connected() {
        let (small, large) = pair();
        let now = Instant::now();
        let mut table = Discovery::new(large, true);
        table.learn(now, None, addr(1), Source::Given);
        let attempt = table.due(now + SOON, 9).remove(0);
        table.connected(now, small, &addr(1), true);
        table.finished(now, &attempt, None);
        assert_eq!(table.wake(), None);
        assert_eq!(table.worked(), [(small, addr(1))]);
        table.disconnected(now, &small);
        assert!(!table.due(now + YIELD * 3, 9).is_empty());
        assert!(!table.learn(now, Some(large), addr(3), Source::Given), "the own id");
        assert!(!table.learn(now, None, "/ip4/0.0.0.0/udp/1/quic-v1".parse().unwrap(), Source::Given));
    }
}
