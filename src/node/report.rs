//! What a node says of itself and of the others, for people: status, nodes, names, remembered addresses.

use std::collections::BTreeMap;

use super::{event_loop::EventLoop, events::unix_ms};
use crate::{
    disk::{MetaKey, WriteBatch},
    model::{
        PeerId, codec,
        hello::Kind,
        limits,
        rpc::{Counters, NodeInfo, NodeState, StatusInfo},
    },
    net::Multiaddr,
    proto::{founding, membership::Vitals},
};

/// The longest that is read back of what is known of others.
const KNOWN_BYTES_MAX: usize = 1 << 20;

impl EventLoop {
    /// The status as this node sees it; what it cannot know is absent.
    pub(super) fn status(&self) -> StatusInfo {
        let ready = matches!(self.founding_status, founding::Status::Ready(_));
        // A copy that could not be made just now was not there for the last run of repair to see.
        let known = self.repair.lacking.filter(|_| !self.bodies.has_missed());
        StatusInfo {
            peer: self.me,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            process: self.boot.mark.process,
            boot: self.boot.mark.boot,
            founding: self.cluster.as_ref().map(|c| c.founding.id),
            waiting: if ready { String::new() } else { self.founding_status.sentence() },
            nodes: self.nodes(),
            epoch: u64::from(self.cluster.is_some()),
            under_repair: known.map(|lacking| lacking.max(self.bodies.wanted_count())),
            clients: self.gate.connected(Kind::Client) as u64,
            refused: self.gate.refused_total(),
            foreign: self.foreign.values().cloned().collect(),
            warnings: self.warnings.values().cloned().collect(),
            clock_unix_ms: unix_ms(),
            single_copy_objects: self.repair.single_copy,
            coordinator: self.coordinator(),
            coordinator_why: self.coordinator_why(),
        }
    }

    /// Every node of the epoch; before the founding, this one.
    pub(super) fn nodes(&self) -> Vec<NodeInfo> {
        let Some(cluster) = &self.cluster else { return vec![self.own_info()] };
        cluster.founding.members.iter().map(|member| self.node_info(&member.peer)).collect()
    }

    fn node_info(&self, peer: &PeerId) -> NodeInfo {
        if *peer == self.me {
            return self.own_info();
        }
        let connected = self.net.peers();
        let reached = connected.get(peer).map(|info| info.addr.to_string());
        let seen = self
            .cluster
            .as_ref()
            .and_then(|c| c.membership.view().find(|(p, _)| *p == peer).map(|(_, seen)| seen.clone()));
        let last = seen.as_ref().and_then(|s| s.last.as_ref());
        let mut addrs: Vec<String> = reached.into_iter().collect();
        let known = self.net.worked().into_iter().filter(|(p, _)| p == peer).map(|(_, a)| a.to_string());
        addrs.extend(known.chain(last.map(|m| m.addrs.clone()).unwrap_or_default()));
        addrs.dedup();
        addrs.truncate(limits::KNOWN_ADDRESSES_MAX);
        let vitals = last.map_or_else(Told::default, |m| Told::of(&m.vitals));
        NodeInfo {
            peer: *peer,
            name: self.name_of(peer),
            addrs,
            state: seen.as_ref().map_or(NodeState::Unknown, |s| s.state),
            load_centi: vitals.load_centi,
            capacity_bytes: vitals.capacity_bytes,
            used_bytes: vitals.used_bytes,
            role: self.role_of(peer, "member"),
            tasks: last.map(|m| m.vitals.tasks),
            slots: last.map(|m| m.vitals.slots),
            counters: None,
        }
    }

    fn own_info(&self) -> NodeInfo {
        let role = match &self.founding_status {
            founding::Status::Ready(_) => "member",
            founding::Status::Waiting(_) => "waiting",
            founding::Status::LeftOut { .. } => "left out",
        };
        NodeInfo {
            peer: self.me,
            name: self.config.name.clone(),
            addrs: self.addresses(),
            state: NodeState::Alive,
            load_centi: Some(self.sampler.last()),
            capacity_bytes: self.disk.capacity_bytes(),
            used_bytes: self.disk.used_bytes(),
            role: self.role_of(&self.me, role),
            tasks: self.cluster.as_ref().map(|c| c.history.in_hand().0),
            slots: self.cluster.as_ref().map(|c| c.history.in_hand().1),
            counters: Some(self.counted()),
        }
    }

    fn coordinator(&self) -> Option<PeerId> {
        self.cluster.as_ref()?.election.coordinator().map(|(peer, _)| peer)
    }

    fn coordinator_why(&self) -> String {
        let election = self.cluster.as_ref().map(|cluster| &cluster.election);
        election.and_then(|election| election.reason(|peer| self.name_of(peer))).unwrap_or_default()
    }

    fn role_of(&self, peer: &PeerId, role: &str) -> String {
        let role = if self.coordinator().as_ref() == Some(peer) { "coordinator" } else { role };
        role.to_owned()
    }

    /// Where this node listens, what others can reach first.
    pub(super) fn addresses(&self) -> Vec<String> {
        let mut addrs: Vec<String> = self.net.listening().iter().map(ToString::to_string).collect();
        let is_local = |addr: &str| addr.starts_with("/ip4/127.") || addr.starts_with("/ip6/::1/");
        addrs.sort_by_key(|addr| (is_local(addr), addr.starts_with("/ip6/")));
        addrs
    }

    /// What this node counted since its start.
    pub(super) fn counted(&self) -> Counters {
        let mut counters = Counters { refused: self.gate.refused_total(), ..Counters::default() };
        self.counters.fill(&mut counters);
        if let Some(cluster) = &self.cluster {
            let paxos = cluster.paxos.counters();
            counters.home_commits = paxos.home_commits;
            counters.commits = paxos.commits;
            counters.commit_messages = paxos.commit_messages;
        }
        let net = self.handle.counters();
        counters.malformed += net.rpc_malformed.get()
            + net.lane_malformed.get()
            + net.bulk_malformed.get()
            + net.bulk_corrupt.get()
            + net.bulk_short.get()
            + net.gossip_refused.get()
            + net.streams_refused_not_member.get();
        counters
    }

    /// Keeps the name that a node calls itself by, also over a restart: it may be gone when somebody asks.
    pub(super) fn note_name(&mut self, peer: PeerId, name: &str) {
        let is_known = self.names.get(&peer).map(String::as_str);
        if name.is_empty() || is_known == Some(name) {
            return;
        }
        if is_known.is_none() && self.names.len() >= limits::KNOWN_PEERS_MAX {
            return;
        }
        self.names.insert(peer, name.to_owned());
        if let Err(error) = self.disk.submit(self.known(), |_| ()) {
            tracing::debug!("a name is kept in memory only: {error}");
        }
    }

    /// Where others were and how they are called, to be written down.
    pub(super) fn known(&self) -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.meta(MetaKey::KnownAddresses, Some(write_known(&self.net.worked(), &self.names)));
        batch
    }

    /// A member's display name, the one heard last if it is not connected, or the end of its PeerId.
    pub(super) fn name_of(&self, peer: &PeerId) -> String {
        if *peer == self.me {
            return self.config.name.clone();
        }
        let said = self.gate.hello(peer).map(|hello| hello.name.clone()).filter(|name| !name.is_empty());
        said.or_else(|| self.names.get(peer).cloned()).unwrap_or_else(|| {
            let text = peer.to_string();
            format!("node …{}", &text[text.len().saturating_sub(8)..])
        })
    }
}

/// What a heartbeat tells of load and room.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    load_centi: Option<u64>,
    used_bytes: Option<u64>,
    capacity_bytes: Option<u64>,
}

impl Told {
    /// Zeros stand for what a node had not measured yet when it said so: the room of a node that still counts
    /// its files, and all of one that has just started. No node has a capacity of 0.
    fn of(vitals: &Vitals) -> Self {
        let knows_room = vitals.capacity_bytes > 0;
        Self {
            load_centi: (knows_room || vitals.load_centi > 0).then_some(vitals.load_centi),
            used_bytes: knows_room.then_some(vitals.used_bytes),
            capacity_bytes: knows_room.then_some(vitals.capacity_bytes),
        }
    }
}

/// What is remembered of others from start to start: version 2, addresses that worked, names heard last.
type Known = (u64, Vec<(PeerId, String)>, Vec<(PeerId, String)>);

/// Addresses that worked, and how the others were called, for the next start.
pub(super) fn write_known(worked: &[(PeerId, Multiaddr)], names: &BTreeMap<PeerId, String>) -> Vec<u8> {
    let addresses = worked
        .iter()
        .take(limits::KNOWN_PEERS_MAX * limits::KNOWN_ADDRESSES_MAX)
        .map(|(peer, addr)| (*peer, addr.to_string()))
        .collect();
    let names = names.iter().take(limits::KNOWN_PEERS_MAX).map(|(peer, name)| (*peer, name.clone()));
    let known: Known = (2, addresses, names.collect());
    codec::encode(&known)
}

/// Reads the addresses; a hint only, so damage is no error.
pub(super) fn read_addresses(bytes: Option<&[u8]>) -> Vec<(PeerId, Multiaddr)> {
    let addresses = read_known(bytes).1;
    addresses.into_iter().filter_map(|(peer, addr)| Some((peer, addr.parse().ok()?))).collect()
}

/// Reads the names; for people only.
pub(super) fn read_names(bytes: Option<&[u8]>) -> BTreeMap<PeerId, String> {
    read_known(bytes).2.into_iter().collect()
}

fn read_known(bytes: Option<&[u8]>) -> Known {
    let decoded = bytes.and_then(|bytes| codec::decode::<Known>(bytes, KNOWN_BYTES_MAX).ok());
    decoded.filter(|(version, ..)| *version == 2).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use libp2p_identity::Keypair;

    use super::*;

    fn peer(byte: u8) -> PeerId {
        Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes").public().to_peer_id()
    }

    #[test]
    fn what_was_not_measured_is_unknown_and_not_zero() {
        let told = |load_centi, used_bytes, capacity_bytes| {
            let vitals = Vitals { load_centi, used_bytes, capacity_bytes, ..Vitals::default() };
            let told = Told::of(&vitals);
            (told.load_centi, told.used_bytes, told.capacity_bytes)
        };
        assert_eq!(told(0, 0, 0), (None, None, None));
        assert_eq!(told(2000, 0, 0), (Some(2000), None, None));
        assert_eq!(told(0, 0, 9), (Some(0), Some(0), Some(9)));
        assert_eq!(Told::default(), Told::of(&Vitals::default()));
    }

    #[test]
    fn what_is_known_of_others_is_read_as_it_was_written() {
        let addr: Multiaddr = "/ip4/10.0.0.2/udp/4117/quic-v1".parse().expect("an address");
        let worked = vec![(peer(1), addr)];
        let names = BTreeMap::from([(peer(1), "desk".to_owned()), (peer(2), "attic".to_owned())]);
        let bytes = write_known(&worked, &names);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(include_str!("../../tests/vectors/known.txt").trim_end(), hex);
        assert_eq!(read_addresses(Some(&bytes)), worked);
        assert_eq!(read_names(Some(&bytes)), names);
        for damaged in [None, Some(&bytes[..bytes.len() - 1]), Some(&[0xff][..])] {
            assert_eq!((read_addresses(damaged), read_names(damaged)), Default::default());
        }
    }
}
