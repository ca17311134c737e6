//! What libp2p runs on each connection. Limits come first: a later denial would leave state behind.

use libp2p::{
    PeerId, Swarm,
    connection_limits::{self, ConnectionLimits},
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    identity::Keypair,
    mdns,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};
use std::{num::NonZeroU8, sync::Arc, time::Duration};

use super::{
    event::{NetConfig, NetError, Role, SharedCounters},
    gossip,
    nodes_only::NodesOnly,
    places::Roster,
    streams,
    transport::Gate,
};
use crate::model::limits;

/// All protocols, in the order in which libp2p asks them.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: connection_limits::Behaviour,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(super) gossip: Toggle<NodesOnly>,
    pub(super) streams: streams::Behaviour,
}

const MDNS_QUERY: Duration = Duration::from_secs(30);
const MDNS_TTL: Duration = Duration::from_secs(240);
/// Addresses of one peer dialed side by side.
const DIALS_PER_PEER: NonZeroU8 = NonZeroU8::new(8).expect("8 is not 0");
/// Inbound streams of one connection whose protocol is not agreed yet.
const NEGOTIATING_MAX: usize = 64;
const EVENT_BUFFER: usize = 64;

/// The swarm of this process. It must be polled, and dropped, inside a running tokio runtime.
pub(super) fn swarm(
    config: &NetConfig,
    keypair: &Keypair,
    transport: Boxed<(PeerId, StreamMuxerBox)>,
    streams: streams::Behaviour,
    counters: SharedCounters,
    (gate, roster): (Gate, Arc<Roster>),
) -> Result<Swarm<Behaviour>, NetError> {
    let gossip = match config.role {
        Role::Node => Some(NodesOnly::new(gossip::build(keypair)?, gate, roster, counters)),
        Role::Client => None,
    };
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(connection_limits()),
        mdns: mdns(config, keypair).into(),
        gossip: gossip.into(),
        streams,
    };
    let swarm_config = libp2p::swarm::Config::with_tokio_executor()
        // Admitted peers stay, used or not: detection of the dead is the transport's.
        .with_idle_connection_timeout(Duration::from_secs(u64::MAX))
        // One protocol is proposed at a time: no need to wait for the other side's yes.
        .with_substream_upgrade_protocol_override(Version::V1Lazy)
        .with_max_negotiating_inbound_streams(NEGOTIATING_MAX)
        .with_per_connection_event_buffer_size(EVENT_BUFFER)
        .with_dial_concurrency_factor(DIALS_PER_PEER);
    Ok(Swarm::new(transport, behaviour, keypair.public().to_peer_id(), swarm_config))
}

fn connection_limits() -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(limits::ADMISSIONS_MAX as u32))
        .with_max_pending_outgoing(Some(limits::DIALS_MAX as u32))
        .with_max_established(Some(limits::CONNECTIONS_MAX))
        .with_max_established_per_peer(Some(limits::CONNECTIONS_PER_PEER_MAX))
}

/// A machine without multicast is no reason not to start: bootstrap addresses still work.
fn mdns(config: &NetConfig, keypair: &Keypair) -> Option<mdns::tokio::Behaviour> {
    if !config.mdns {
        return None;
    }
    let how = mdns::Config { ttl: MDNS_TTL, query_interval: MDNS_QUERY, enable_ipv6: false };
    match mdns::tokio::Behaviour::new(how, keypair.public().to_peer_id()) {
        Ok(mdns) => Some(mdns),
        Err(error) => {
            tracing::warn!(%error, "no mDNS on this machine: give addresses with --bootstrap");
            None
        }
    }
}
