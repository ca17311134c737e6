//! What a node says of itself and of the others, for people: status, nodes, names, remembered addresses.

use super::{event_loop::EventLoop, events::unix_ms};
use crate::{
    model::{
        PeerId, codec,
        hello::Kind,
        limits,
        rpc::{Counters, NodeInfo, NodeState, StatusInfo},
    },
    net::Multiaddr,
    proto::founding,
};

/// The longest encoded list of addresses that is read back.
const ADDRESSES_BYTES_MAX: usize = 1 << 20;

impl EventLoop {
    /// The status as this node sees it; what it cannot know is absent.
    pub(super) fn status(&self) -> StatusInfo {
        let ready = matches!(self.founding_status, founding::Status::Ready(_));
        StatusInfo {
            peer: self.me,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            process: self.boot.mark.process,
            boot: self.boot.mark.boot,
            founding: self.cluster.as_ref().map(|c| c.founding.id),
            waiting: if ready { String::new() } else { self.founding_status.sentence() },
            nodes: self.nodes(),
            epoch: u64::from(self.cluster.is_some()),
            under_repair: self.lacking.map(|lacking| lacking.max(self.bodies.wanted_count())),
            clients: self.gate.connected(Kind::Client) as u64,
            refused: self.gate.refused_total(),
            foreign: self.foreign.values().cloned().collect(),
            warnings: self.warnings.values().cloned().collect(),
            clock_unix_ms: unix_ms(),
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
        NodeInfo {
            peer: *peer,
            name: self.name_of(peer),
            addrs,
            state: seen.as_ref().map_or(NodeState::Unknown, |s| s.state),
            load_centi: last.map(|m| m.vitals.load_centi),
            capacity_bytes: last.map(|m| m.vitals.capacity_bytes),
            used_bytes: last.map(|m| m.vitals.used_bytes),
            role: "member".into(),
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
            role: role.into(),
            counters: Some(self.counted()),
        }
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

    /// A member's display name, or the end of its PeerId.
    pub(super) fn name_of(&self, peer: &PeerId) -> String {
        if *peer == self.me {
            return self.config.name.clone();
        }
        let said = self.gate.hello(peer).map(|hello| hello.name.clone()).filter(|name| !name.is_empty());
        said.unwrap_or_else(|| {
            let text = peer.to_string();
            format!("node …{}", &text[text.len().saturating_sub(8)..])
        })
    }
}

/// Addresses that worked, for the next start.
pub(super) fn write_addresses(worked: &[(PeerId, Multiaddr)]) -> Vec<u8> {
    let list: Vec<(PeerId, String)> = worked
        .iter()
        .take(limits::KNOWN_PEERS_MAX * limits::KNOWN_ADDRESSES_MAX)
        .map(|(peer, addr)| (*peer, addr.to_string()))
        .collect();
    codec::encode(&(1u64, list))
}

/// Reads them; a hint only, so damage is no error.
pub(super) fn read_addresses(bytes: Option<&[u8]>) -> Vec<(PeerId, Multiaddr)> {
    let decoded = bytes.map(|b| codec::decode::<(u64, Vec<(PeerId, String)>)>(b, ADDRESSES_BYTES_MAX));
    let Some(Ok((1, list))) = decoded else { return Vec::new() };
    list.into_iter().filter_map(|(peer, addr)| Some((peer, addr.parse().ok()?))).collect()
}
