//! Gossip for nodes alone: a client's connection has no part in it.
//!
//! gossipsub remembers something of each message before anybody can judge its source. So who is no node is
//! kept out by its connection: its handler is none, and gossipsub never hears of it. Once there are members,
//! what comes from the connections of others is thrown away and counted. Members' messages it does not judge.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Deref, DerefMut},
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        AddressChange, ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished,
        derive_prelude::Either, dummy,
    },
};

use super::{event::SharedCounters, gossip, one_stream::OneStream, places::Roster, transport::Gate};
use crate::model::hello::Kind;

/// gossipsub, behind the question who may take part.
pub(super) struct NodesOnly {
    gossip: gossip::Behaviour,
    gate: Gate,
    roster: Arc<Roster>,
    counters: SharedCounters,
    kept_out: BTreeSet<ConnectionId>,
    /// Connections of each peer that gossipsub knows: its counts leave out the others.
    inside: BTreeMap<PeerId, usize>,
}

impl NodesOnly {
    pub(super) fn new(
        gossip: gossip::Behaviour,
        gate: Gate,
        roster: Arc<Roster>,
        counters: SharedCounters,
    ) -> Self {
        Self { gossip, gate, roster, counters, kept_out: BTreeSet::new(), inside: BTreeMap::new() }
    }

    fn keeps_out(&self, peer: &PeerId) -> bool {
        self.gate.kind(peer) != Some(Kind::Member)
    }

    fn on_established(&mut self, event: ConnectionEstablished<'_>) {
        let inside = self.inside.entry(event.peer_id).or_default();
        let event = ConnectionEstablished { other_established: *inside, ..event };
        *inside += 1;
        self.gossip.on_swarm_event(FromSwarm::ConnectionEstablished(event));
    }

    fn on_closed(&mut self, event: ConnectionClosed<'_>) {
        let inside = self.inside.entry(event.peer_id).or_default();
        *inside = inside.saturating_sub(1);
        let event = ConnectionClosed { remaining_established: *inside, ..event };
        if *inside == 0 {
            self.inside.remove(&event.peer_id);
        }
        self.gossip.on_swarm_event(FromSwarm::ConnectionClosed(event));
    }
}

impl Deref for NodesOnly {
    type Target = gossip::Behaviour;
    fn deref(&self) -> &Self::Target {
        &self.gossip
    }
}

impl DerefMut for NodesOnly {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.gossip
    }
}

impl NetworkBehaviour for NodesOnly {
    type ConnectionHandler = Either<OneStream<THandler<gossip::Behaviour>>, dummy::ConnectionHandler>;
    type ToSwarm = <gossip::Behaviour as NetworkBehaviour>::ToSwarm;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.keeps_out(&peer) {
            self.kept_out.insert(id);
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        let handler = self.gossip.handle_established_inbound_connection(id, peer, local, remote)?;
        Ok(Either::Left(OneStream::new(handler, self.counters.clone())))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        // Whoever was dialed is a node: nobody else listens.
        let handler = self.gossip.handle_established_outbound_connection(id, peer, addr, role, port_use)?;
        Ok(Either::Left(OneStream::new(handler, self.counters.clone())))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(e) if self.kept_out.contains(&e.connection_id) => {}
            FromSwarm::ConnectionClosed(e) if self.kept_out.remove(&e.connection_id) => {}
            FromSwarm::AddressChange(AddressChange { connection_id, .. })
                if self.kept_out.contains(&connection_id) => {}
            FromSwarm::ConnectionEstablished(e) => self.on_established(e),
            FromSwarm::ConnectionClosed(e) => self.on_closed(e),
            other => self.gossip.on_swarm_event(other),
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Either::Left(event) if self.roster.may_gossip(&peer) => {
                self.gossip.on_connection_handler_event(peer, id, event);
            }
            Either::Left(_) => self.counters.gossip_refused.bump(),
            Either::Right(never) => match never {},
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.gossip.poll(cx).map(|action| action.map_in(Either::Left))
    }
}
