//! What happened, turned into events: timers, admission, commands, frames, and what the swarm says.
//!
//! Each function is one turn of the loop in [`Net::next`]: it waits for nothing.

use libp2p::{
    PeerId, gossipsub, mdns,
    swarm::{
        ConnectionId, DialError, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::time::Instant;

use super::{
    Event, FOREIGN_TOLD_MAX, Net, TICK, address,
    behaviour::BehaviourEvent,
    discovery::{Attempt, Failure, Source},
    gossip, handle, lane,
    peers::Closed,
    rpc,
    transport::{self, GateEvent},
};
use crate::model::{hello::Kind, limits};

impl Net {
    pub(super) fn on_time(&mut self, now: Instant) {
        for attempt in self.discovery.due(now, limits::DIALS_MAX.saturating_sub(self.dials.len())) {
            self.begin_dial(now, attempt);
        }
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.close_duplicates(now);
            self.cut_half_deaf(now);
        }
    }

    fn begin_dial(&mut self, now: Instant, attempt: Attempt) {
        let opts: DialOpts = match &attempt {
            Attempt::Peer { peer, addrs } => DialOpts::peer_id(*peer)
                .condition(PeerCondition::Disconnected)
                .addresses(addrs.clone())
                .build(),
            Attempt::Address { addr } => addr.clone().into(),
        };
        let id = opts.connection_id();
        self.counters.dials.bump();
        match self.swarm.dial(opts) {
            Ok(()) => drop(self.dials.insert(id, attempt)),
            Err(error) => self.dial_failed(now, &attempt, &error),
        }
    }

    fn dial_failed(&mut self, now: Instant, attempt: &Attempt, error: &DialError) {
        self.counters.dials_failed.bump();
        tracing::debug!(?attempt, %error, "a dial failed");
        let failure = classify(error);
        self.discovery.finished(now, attempt, Some(failure));
        if let (Failure::OtherPeer(peer), Attempt::Peer { addrs, .. }) = (failure, attempt) {
            for addr in addrs {
                self.discovery.learn(now, Some(peer), addr.clone(), Source::Seen);
            }
        }
    }

    /// One more connection to whoever is there, for tests of duplicates.
    #[cfg(test)]
    pub(super) fn dial_beside(&mut self, addr: libp2p::Multiaddr) {
        self.swarm.dial(addr).expect("a dial can begin");
    }

    fn close_duplicates(&mut self, now: Instant) {
        for id in self.table.duplicates(now, *self.swarm.local_peer_id()) {
            if self.swarm.close_connection(id) {
                self.counters.duplicates_closed.bump();
            }
        }
    }

    fn cut_half_deaf(&mut self, now: Instant) {
        let Some(gossip) = self.swarm.behaviour().gossip.as_ref() else { return };
        let mut deaf = self.table.half_deaf(now, &gossip::listeners(gossip));
        // Of the others nothing is heard, whatever they say.
        deaf.retain(|peer| self.roster.may_gossip(peer));
        for peer in deaf {
            tracing::warn!(%peer, "it does not hear heartbeats: connecting anew");
            self.counters.gossip_half_deaf.bump();
            self.disconnect(peer);
        }
    }

    pub(super) fn drain_gate(&mut self) {
        while let Ok(event) = self.gate_events.try_recv() {
            self.on_gate(event);
        }
    }

    pub(super) fn on_gate(&mut self, event: GateEvent) {
        match event {
            GateEvent::Admitted { peer, hello, newer_start, .. } => {
                if newer_start {
                    for id in self.table.restarted(Instant::now(), &peer) {
                        self.swarm.close_connection(id);
                    }
                }
                self.ready.push_back(Event::Admitted { peer, hello, newer_start });
            }
            GateEvent::RolledBack { peer, seen } => self.ready.push_back(Event::RolledBack { peer, seen }),
            GateEvent::Refused { peer, addr, refusal, by_them } => {
                if self.told.len() >= FOREIGN_TOLD_MAX {
                    self.told.clear();
                }
                let key = (peer, peer.is_none().then(|| addr.clone()), refusal);
                // Of this one it counts how often it comes.
                let is_news = self.told.insert(key) || refusal == transport::Refusal::StillConnected;
                if is_about_the_peer(refusal) && is_news {
                    self.ready.push_back(Event::Foreign { peer, addr, refusal, by_them });
                }
            }
        }
    }

    pub(super) fn on_command(&mut self, command: handle::Command) {
        match command {
            handle::Command::Dial { addr } => self.dial(addr),
        }
    }

    pub(super) fn on_heard(&mut self, heard: rpc::Heard) {
        match heard {
            rpc::Heard::Question { peer, kind, token, bytes } => {
                self.ready.push_back(Event::Request { peer, kind, token, bytes });
            }
            rpc::Heard::Malformed { peer } => self.malformed(peer, "rpc message"),
        }
    }

    pub(super) fn on_answered(&mut self, answered: rpc::Answered) {
        let rpc::Answered { peer, request, result } = answered;
        self.ready.push_back(match result {
            Ok(bytes) => Event::Response { peer, request, bytes },
            Err(error) => Event::RequestFailed { peer, request, error },
        });
    }

    pub(super) fn on_frame(&mut self, received: lane::Received) {
        match received {
            lane::Received::Frame { peer, bytes } => self.ready.push_back(Event::LaneFrame { peer, bytes }),
            lane::Received::Malformed { peer } => self.malformed(peer, "lane frame"),
        }
    }

    fn malformed(&mut self, peer: PeerId, what: &'static str) {
        if self.table.report_malformed(Instant::now(), &peer) {
            self.ready.push_back(Event::Malformed { peer, what });
        }
    }

    pub(super) fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                self.on_closed(peer_id, connection_id)
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(attempt) = self.dials.remove(&connection_id) {
                    self.dial_failed(Instant::now(), &attempt, &error);
                }
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                self.ready.push_back(Event::Listening { addr: address })
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.ready.push_back(Event::NotListening { addr: address });
            }
            SwarmEvent::ListenerClosed { reason: Err(error), .. } => {
                self.ready.push_back(Event::ListenerFailed { reason: error.to_string() });
            }
            SwarmEvent::ListenerError { error, .. } => tracing::debug!(%error, "a listener had an error"),
            _ => {}
        }
    }

    fn on_established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &libp2p::core::ConnectedPoint) {
        let now = Instant::now();
        let addr = endpoint.get_remote_address().clone();
        let kind = self.gate.kind(&peer).unwrap_or(Kind::Look);
        // Nobody dials a client: where it came from is of no use.
        if kind == Kind::Member {
            self.discovery.connected(now, peer, &addr, endpoint.is_dialer());
        }
        if let Some(attempt) = self.dials.remove(&id) {
            self.discovery.finished(now, &attempt, None);
        }
        let (addr, _) = address::split_peer(addr);
        self.asking.connected(peer);
        if self.table.established(now, peer, id, kind, addr.clone(), endpoint.is_dialer()) {
            self.ready.push_back(Event::Connected { peer, kind, addr });
        }
    }

    fn on_closed(&mut self, peer: PeerId, id: ConnectionId) {
        match self.table.closed(&peer, id) {
            Closed::Last => {
                self.discovery.disconnected(Instant::now(), &peer);
                self.lanes.forget(&peer);
                self.handle.hang_up_on(peer);
                self.ready.push_back(Event::Disconnected { peer });
            }
            Closed::Remaining { announce_again: true } => {
                if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
                    self.counters.gossip_reannounced.bump();
                    gossip::announce_again(gossip);
                }
            }
            Closed::Remaining { announce_again: false } | Closed::Unknown => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Mdns(event) => self.on_mdns(event),
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Limits(never) | BehaviourEvent::Streams(never) => match never {},
        }
    }

    fn on_mdns(&mut self, event: mdns::Event) {
        match event {
            mdns::Event::Discovered(found) => {
                for (peer, addr) in found {
                    if self.discovery.learn(Instant::now(), Some(peer), addr.clone(), Source::Mdns) {
                        self.ready.push_back(Event::Discovered { peer, addr });
                    }
                }
            }
            mdns::Event::Expired(gone) => {
                gone.iter().for_each(|(peer, addr)| self.discovery.expired(peer, addr))
            }
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        let gossipsub::Event::Message { propagation_source, message_id, message } = event else { return };
        let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() else { return };
        let event = gossip::on_message(
            gossip,
            &self.roster,
            &self.counters,
            propagation_source,
            &message_id,
            message,
        );
        self.ready.extend(event);
    }
}

fn classify(error: &DialError) -> Failure {
    match error {
        DialError::LocalPeerId { .. } => return Failure::Myself,
        DialError::WrongPeerId { obtained, .. } => return Failure::OtherPeer(*obtained),
        _ => {}
    }
    let inner = transport::Error::inside_dial(error);
    let refusals: Vec<_> = inner.iter().filter_map(|e| e.refusal()).collect();
    if refusals.contains(&transport::Refusal::OwnPeer) {
        return Failure::Myself;
    }
    // A predecessor that is still connected is gone in a moment, or the next try tells so again.
    let lasting = |refusal| is_about_the_peer(refusal) && refusal != transport::Refusal::StillConnected;
    if refusals.iter().any(|refusal| lasting(*refusal)) {
        return Failure::Refused;
    }
    match inner
        .iter()
        .find_map(|e| if let transport::Error::OtherPeer(peer) = e { Some(*peer) } else { None })
    {
        Some(peer) => Failure::OtherPeer(peer),
        None => Failure::Unreachable,
    }
}

/// Whether a refusal says something of the peer, and not only of the moment.
fn is_about_the_peer(refusal: transport::Refusal) -> bool {
    use transport::Refusal;
    !matches!(
        refusal,
        Refusal::Busy | Refusal::TimedOut | Refusal::LookAnswered | Refusal::Leaving | Refusal::OwnPeer
    )
}
