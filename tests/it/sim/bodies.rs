//! Bodies on a node of the simulator: storing and passing on, fetching what belongs here, as `node::bodies`
//! does.

use std::{collections::VecDeque, sync::Arc};

use tintype::model::{BodyId, limits, rpc::Request};

use super::{
    links::Party,
    node::Asked,
    store::{Then, Write},
    world::{Packet, World},
};

/// A put that somebody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PutId {
    pub who: Party,
    pub number: u64,
}

/// What came of a put.
#[derive(Clone, Debug)]
pub enum Stored {
    /// These nodes have it durably.
    By(Vec<usize>),
    /// No room.
    Full,
    /// Not now, or not yet.
    Busy,
}

/// What came of a get.
#[derive(Clone)]
pub enum Fetched {
    Body(Arc<Vec<u8>>),
    NotHere,
    Corrupt,
}

/// A body on its way to this disk and further holders.
pub struct PutJob {
    id: BodyId,
    body: Arc<Vec<u8>>,
    onward: VecDeque<usize>,
    wanted: usize,
    holders: Vec<usize>,
    writing: bool,
    full: bool,
    forwarding: Option<usize>,
    answered: bool,
}

/// A body that should be here, being fetched.
pub struct FetchJob {
    id: BodyId,
    left: VecDeque<usize>,
}

impl PutJob {
    pub fn new(id: BodyId, body: Arc<Vec<u8>>, onward: Vec<usize>, durable: usize) -> Self {
        Self {
            id,
            body,
            onward: onward.into(),
            wanted: durable.max(1),
            holders: Vec::new(),
            writing: false,
            full: false,
            forwarding: None,
            answered: false,
        }
    }
}

impl World {
    // ---- storing and passing on ----

    pub fn begin_put(&mut self, node: usize, put: PutId, mut job: PutJob) {
        let Some(running) = &mut self.nodes[node].running else { return };
        let is_busy = running.cluster.is_none() || running.puts.len() >= limits::BULK_SERVED_MAX;
        // The network repeated it.
        if running.puts.contains_key(&put) {
            return;
        }
        if is_busy {
            return self.answer_put(node, put, Stored::Busy);
        }
        let write = Write::Body { id: job.id, body: Arc::clone(&job.body) };
        job.writing = self.write(node, write, Then::Put(put));
        job.full = !job.writing;
        if job.full {
            // The one whose copy is lacking is this node itself.
            self.missed(node, node, job.id);
        }
        if let Some(running) = &mut self.nodes[node].running {
            running.puts.insert(put, job);
        }
        self.go_on_with_put(node, put);
    }

    pub fn put_is_durable(&mut self, node: usize, put: PutId) {
        if let Some(job) = self.nodes[node].running.as_mut().and_then(|r| r.puts.get_mut(&put)) {
            job.writing = false;
            job.holders.insert(0, node);
        }
        self.go_on_with_put(node, put);
    }

    pub fn forward_ended(&mut self, node: usize, number: u64, stored: Option<Stored>) {
        let Some(running) = &mut self.nodes[node].running else { return };
        let Some(Asked::Forward { put }) = running.asked.remove(&number) else { return };
        if let Some(job) = running.puts.get_mut(&put) {
            let to = job.forwarding.take();
            match (stored, to) {
                (Some(Stored::By(holders)), _) => job.holders.extend(holders),
                (_, Some(to)) => {
                    let id = job.id;
                    running.shunned.insert(to, self.now + limits::SHUN.0);
                    self.missed(node, to, id);
                }
                _ => {}
            }
        }
        self.go_on_with_put(node, put);
    }

    /// Answers once as many have it as were asked for, and then goes on to the rest.
    fn go_on_with_put(&mut self, node: usize, put: PutId) {
        loop {
            let now = self.now;
            let Some(running) = &mut self.nodes[node].running else { return };
            let Some(job) = running.puts.get_mut(&put) else { return };
            if job.forwarding.is_some() {
                return;
            }
            let goal = if job.answered { usize::MAX } else { job.wanted };
            let soon = job.holders.len() + usize::from(job.writing);
            if soon < goal
                && let Some(to) = job.onward.pop_front()
            {
                let id = job.id;
                let is_shunned = running.shunned.get(&to).is_some_and(|until| *until > now);
                if is_shunned || !self.forward(node, put, to) {
                    self.missed(node, to, id);
                }
                continue;
            }
            if job.writing {
                return;
            }
            if job.answered {
                running.puts.remove(&put);
                return;
            }
            job.answered = true;
            let stored = match (job.holders.is_empty(), job.full) {
                (false, _) => Stored::By(job.holders.clone()),
                (true, true) => Stored::Full,
                (true, false) => Stored::Busy,
            };
            self.answer_put(node, put, stored);
        }
    }

    /// Some body lacks a copy: repair looks for it, and it is offered again.
    fn missed(&mut self, node: usize, on: usize, id: BodyId) {
        let peer = self.nodes[on].peer;
        if let Some(running) = &mut self.nodes[node].running {
            running.missed = true;
            running.hints.note(peer, id);
        }
    }

    /// Offers what is due, as `node::hints` does.
    pub fn offer_missed(&mut self, node: usize) {
        let (clock, me) = (self.clock(node), self.nodes[node].peer);
        let Some(running) = &mut self.nodes[node].running else { return };
        for (peer, bodies) in running.hints.due(clock) {
            let Some(to) = self.index_of(&peer) else { continue };
            if peer == me {
                self.take_in_missed(node, bodies);
            } else if self.links.is_connected(Party::Node(node), Party::Node(to)) {
                let request = Request::Check { bodies: bodies.clone(), read: false, copies: 0 };
                let asked = Asked::Check { peer: to, bodies, for_run: false };
                self.ask(node, to, &request, asked, limits::RPC_TIMEOUT);
            }
        }
    }

    fn take_in_missed(&mut self, node: usize, bodies: Vec<BodyId>) {
        let me = self.nodes[node].peer;
        let store = &self.nodes[node].store;
        let (there, missing): (Vec<_>, Vec<_>) = bodies.into_iter().partition(|id| store.has(id));
        if let Some(running) = &mut self.nodes[node].running {
            running.hints.is_there(me, &there);
        }
        self.want(node, missing);
    }

    /// Passes a body on; says whether there is a connection to do so.
    fn forward(&mut self, node: usize, put: PutId, to: usize) -> bool {
        if !self.links.is_connected(Party::Node(node), Party::Node(to)) {
            return false;
        }
        let number = self.next_number();
        let job = self.nodes[node].running.as_mut().and_then(|r| r.puts.get_mut(&put));
        let Some(job) = job else { return true };
        job.forwarding = Some(to);
        let (id, body) = (job.id, Arc::clone(&job.body));
        self.wait_for(node, number, Asked::Forward { put }, limits::FORWARD_PATIENCE);
        let packet = Packet::Store { number, id, body, onward: Vec::new(), durable: 1 };
        self.send(Party::Node(node), Party::Node(to), packet);
        true
    }

    fn answer_put(&mut self, node: usize, put: PutId, stored: Stored) {
        // Whoever is named has it, or had it a moment ago: nobody else is.
        if let Stored::By(holders) = &stored {
            self.tally.receipts += holders.len() as u64;
        }
        self.send(Party::Node(node), put.who, Packet::Stored { number: put.number, stored });
    }

    // ---- what belongs here ----

    pub fn want(&mut self, node: usize, ids: Vec<BodyId>) {
        let Some(running) = &mut self.nodes[node].running else { return };
        if running.wanted.len() + ids.len() <= limits::REPAIR_WANTED_MAX {
            running.wanted.extend(ids);
        }
        self.fetch_wanted(node);
    }

    fn fetch_wanted(&mut self, node: usize) {
        loop {
            let Some(running) = &mut self.nodes[node].running else { return };
            if running.fetches.len() >= limits::REPAIR_FETCHES_MAX {
                return;
            }
            let Some(id) = running.wanted.pop_first() else { return };
            // A real node learns of each body that it is refused by fetching it once; here it knows.
            let store = &self.nodes[node].store;
            if store.has(&id) || store.no_room || store.is_full {
                continue;
            }
            let order = self.order_of(node, &id);
            let left = order.into_iter().filter(|peer| *peer != node).collect();
            let job = self.next_number();
            if let Some(running) = &mut self.nodes[node].running {
                running.fetches.insert(job, FetchJob { id, left });
            }
            self.fetch_from_next(node, job);
        }
    }

    fn fetch_from_next(&mut self, node: usize, job: u64) {
        loop {
            let Some(running) = &mut self.nodes[node].running else { return };
            let Some(fetch) = running.fetches.get_mut(&job) else { return };
            let (id, next) = (fetch.id, fetch.left.pop_front());
            let Some(from) = next else {
                running.fetches.remove(&job);
                return;
            };
            if self.links.is_connected(Party::Node(node), Party::Node(from)) {
                let number = self.next_number();
                self.wait_for(node, number, Asked::Fetch { job }, limits::NO_PROGRESS);
                return self.send(Party::Node(node), Party::Node(from), Packet::Fetch { number, id });
            }
        }
    }

    pub fn fetch_ended(&mut self, node: usize, number: u64, fetched: Option<Fetched>) {
        let Some(running) = &mut self.nodes[node].running else { return };
        let Some(Asked::Fetch { job }) = running.asked.remove(&number) else { return };
        let Some(id) = running.fetches.get(&job).map(|fetch| fetch.id) else { return };
        let Some(Fetched::Body(body)) = fetched else { return self.fetch_from_next(node, job) };
        if tintype::seal::chunk::body_id(&body) != id {
            return self.fail(|| "a bad copy was given out".into());
        }
        running.fetches.remove(&job);
        self.tally.bodies_repaired += 1;
        self.write(node, Write::Body { id, body }, Then::Nothing);
        self.fetch_wanted(node);
    }
}
