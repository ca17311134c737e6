//! What a node of the simulator does with what arrives: as `node::serve` and `node::machines` do.

use std::sync::Arc;

use tintype::{
    model::{
        PeerId, limits,
        register::RawRegister,
        rpc::{BodyState, RecordInfo, RecordPage, Request, Response},
        slots::HashSlot,
    },
    proto::{
        chunkpaxos::{self, AcceptorRecord, Command},
        founding, membership,
    },
};

use super::{
    bodies::{Fetched, PutId, PutJob},
    links::Party,
    node::{Asked, Caller, TimerKey},
    store::Read,
    tasks::Beside,
    world::{Packet, World},
};

impl World {
    pub fn node_gets(&mut self, node: usize, from: Party, packet: Packet) {
        match packet {
            Packet::Lane(bytes) => self.on_lane(node, from, &bytes),
            Packet::Gossip(bytes, beside) => self.on_gossip(node, from, &bytes, beside),
            Packet::OfTasks(said) => self.node_hears_of_tasks(node, from, said),
            Packet::Ask { number, bytes } => match Request::decode(&bytes) {
                Ok(request) => self.serve(node, from, number, request),
                Err(error) => self.fail(|| format!("a request that cannot be read: {error}")),
            },
            Packet::Told { number, bytes } => match Response::decode(&bytes) {
                Ok(response) => self.told(node, number, Some(response)),
                Err(error) => self.fail(|| format!("an answer that cannot be read: {error}")),
            },
            Packet::Store { number, id, body, onward, durable } => {
                let put = PutId { who: from, number };
                self.begin_put(node, put, PutJob::new(id, body, onward, durable));
            }
            Packet::Stored { number, stored } => self.forward_ended(node, number, Some(stored)),
            Packet::Fetch { number, id } => {
                let fetched = match self.nodes[node].store.good_body(&id) {
                    Read::Good(body) => Fetched::Body(body),
                    Read::Nothing => Fetched::NotHere,
                    Read::Bad => {
                        self.tally.corrupt_found += 1;
                        self.want(node, vec![id]);
                        Fetched::Corrupt
                    }
                };
                self.send(Party::Node(node), from, Packet::Fetched { number, fetched });
            }
            Packet::Fetched { number, fetched } => self.fetch_ended(node, number, Some(fetched)),
        }
    }

    fn on_lane(&mut self, node: usize, from: Party, bytes: &[u8]) {
        let Some(from) = self.peer_of(from) else { return self.fail(|| "a client spoke on a lane".into()) };
        let Ok((_, message)) = chunkpaxos::Message::<RawRegister>::decode(bytes) else {
            return self.fail(|| "a lane frame that cannot be read".into());
        };
        // A frame whose register nobody signed is dropped before the machine sees it.
        match message.try_map(|raw| self.verify(&raw).ok_or(())) {
            Ok(message) => self.feed_paxos(node, chunkpaxos::Event::Message { from, message }),
            Err(()) => self.tally.forgeries_refused += 1,
        }
    }

    fn on_gossip(&mut self, node: usize, from: Party, bytes: &[u8], beside: Beside) {
        let Some(author) = self.peer_of(from) else { return };
        match membership::Message::decode(bytes) {
            Ok(message) => {
                let before = self.heartbeats_ignored(node);
                self.feed_membership(node, membership::Event::Heard { author, message });
                if self.heartbeats_ignored(node) == before {
                    self.hear_beside(node, author, beside);
                }
            }
            Err(error) => self.fail(|| format!("a heartbeat that cannot be read: {error}")),
        }
    }

    fn heartbeats_ignored(&self, node: usize) -> u64 {
        let cluster = self.nodes[node].running.as_ref().and_then(|r| r.cluster.as_ref());
        cluster.map_or(0, |cluster| cluster.membership.ignored())
    }

    fn peer_of(&self, party: Party) -> Option<PeerId> {
        match party {
            Party::Node(node) => Some(self.nodes[node].peer),
            Party::Client(_) => None,
        }
    }

    // ---- what others ask ----

    fn serve(&mut self, node: usize, from: Party, number: u64, request: Request) {
        let is_founded = self.nodes[node].running.as_ref().is_some_and(|r| r.cluster.is_some());
        match request {
            Request::Probe => self.tell(node, from, number, &Response::Done),
            Request::Founding { message } => {
                self.tell(node, from, number, &Response::Done);
                let (Some(from), Ok(message)) = (self.peer_of(from), founding::Message::decode(&message))
                else {
                    return self.fail(|| "a message of the founding that cannot be read".into());
                };
                self.feed_founding(node, founding::Event::Message { from, message });
            }
            _ if !is_founded => self.tell(node, from, number, &Response::NotReady("no cluster".into())),
            request => self.serve_founded(node, from, number, request),
        }
    }

    fn serve_founded(&mut self, node: usize, from: Party, number: u64, request: Request) {
        let caller = Caller::Peer { who: from, number };
        match request {
            Request::Read { object } => self.call_paxos(node, object, Command::Read, caller),
            Request::ReadAny { object } => self.call_paxos(node, object, Command::ReadAny, caller),
            Request::Propose { value } => match self.verify(&value) {
                Some(value) => {
                    self.call_paxos(node, value.object, Command::Propose { value }, caller);
                }
                None => {
                    self.tally.forgeries_refused += 1;
                    self.tell(node, from, number, &Response::Refused("not signed".into()));
                }
            },
            Request::ProbeThrough { peer } => {
                let asked = Asked::ProbeFor { who: from, number };
                self.ask_peer(node, peer, &Request::Probe, asked, limits::PROBE_TIMEOUT);
            }
            Request::ScanSlot { slot, .. } => {
                let page = self.scan_slot(node, HashSlot(slot));
                self.tell(node, from, number, &Response::Page(page));
            }
            Request::Check { bodies, .. } => {
                let store = &self.nodes[node].store;
                let state = |id| match store.has(id) {
                    true => BodyState::Good { verified_unix_ms: 0 },
                    false => BodyState::Missing,
                };
                let states = bodies.iter().map(state).collect();
                self.tell(node, from, number, &Response::Checked(states));
            }
            Request::Push { bodies } => {
                self.want(node, bodies);
                self.tell(node, from, number, &Response::Done);
            }
            Request::Behind => {
                let at = self.clock(node) + limits::REPAIR_AFTER_CONNECT;
                self.arm_no_later(node, TimerKey::Repair, at);
                self.tell(node, from, number, &Response::Done);
            }
            other => self.fail(|| format!("nobody here asks {other:?}")),
        }
    }

    /// A page of this disk's accepted values; what is rotten is left out.
    pub fn scan_slot(&self, node: usize, slot: HashSlot) -> RecordPage {
        let store = &self.nodes[node].store;
        let in_slot = store.contents.records.iter().filter(|(object, _)| HashSlot::of(object) == slot);
        let readable = in_slot.filter(|(object, _)| !store.rotten.contains(object));
        let records = readable.filter_map(|(object, bytes)| {
            let accepted = AcceptorRecord::<RawRegister>::decode(bytes).ok()?.accepted?;
            let ballot = serde_bytes::ByteBuf::from(accepted.ballot.encode());
            Some(RecordInfo { object: *object, ballot, value: accepted.value })
        });
        RecordPage { records: records.collect(), next: None }
    }

    // ---- what others answer ----

    pub fn expired(&mut self, node: usize, number: u64) {
        let Some(running) = &self.nodes[node].running else { return };
        match running.asked.get(&number) {
            Some(Asked::Forward { .. }) => self.forward_ended(node, number, None),
            Some(Asked::Fetch { .. }) => self.fetch_ended(node, number, None),
            Some(Asked::OfTasks(_)) => self.of_tasks_answered(node, number, None),
            Some(_) => self.told(node, number, None),
            None => {}
        }
    }

    /// An answer, or none in time.
    fn told(&mut self, node: usize, number: u64, response: Option<Response>) {
        let Some(running) = &mut self.nodes[node].running else { return };
        let reached = matches!(response, Some(Response::Done | Response::Reached(true)));
        match running.asked.remove(&number) {
            Some(Asked::Probe { peer }) => {
                self.feed_membership(node, membership::Event::Probed { peer, via: None, reached });
            }
            Some(Asked::ProbeThrough { peer, via }) => {
                self.feed_membership(node, membership::Event::Probed { peer, via: Some(via), reached });
            }
            Some(Asked::ProbeFor { who, number }) => {
                self.tell(node, who, number, &Response::Reached(reached));
            }
            Some(Asked::Scan { peer }) => {
                let page = match response {
                    Some(Response::Page(page)) => Some(page),
                    _ => None,
                };
                self.scanned(node, peer, page);
            }
            Some(Asked::Check { peer, bodies, for_run }) => {
                let lacking = self.checked(node, peer, bodies, response);
                if for_run {
                    self.run_has_checked(node, lacking);
                }
            }
            _ => {}
        }
    }

    /// Every node reads its copies of everything that was acknowledged, as `tintype verify` has it do; a bad
    /// one is moved aside and fetched again.
    pub fn verify_all(&mut self) {
        let bodies = self.oracle.kept.bodies();
        for node in 0..self.nodes.len() {
            for id in &bodies {
                if matches!(self.nodes[node].store.good_body(id), Read::Bad) {
                    self.tally.corrupt_found += 1;
                    self.want(node, vec![*id]);
                }
            }
        }
    }

    /// What the members of this epoch are for the placement of bodies.
    pub fn order_of(&self, node: usize, id: &tintype::model::BodyId) -> Vec<usize> {
        let cluster = self.nodes[node].running.as_ref().and_then(|r| r.cluster.as_ref());
        let Some(cluster) = cluster else { return Vec::new() };
        let order = tintype::proto::placement::order(&cluster.members, id);
        order.iter().filter_map(|peer| self.index_of(peer)).collect()
    }

    pub fn body_of(&mut self, node: usize, id: &tintype::model::BodyId) -> Option<Arc<Vec<u8>>> {
        match self.nodes[node].store.good_body(id) {
            Read::Good(body) => Some(body),
            Read::Nothing | Read::Bad => None,
        }
    }
}
