//! One node of the simulator: the real machines, wired as `node::event_loop` wires them, on a simulated disk
//! and network.
//!
//! It carries out what the machines want and decides nothing, except what a node's driver decides: to check a
//! register before a machine sees it, and to ask the disk.

mod effects;

use std::collections::{BTreeMap, BTreeSet};

use tintype::{
    model::{
        BodyId, Incarnation, Millis, ObjectId, PeerId, limits,
        member::{Epoch, Founding},
        register::RawRegister,
        rpc::{Request, Response},
        slots::HashSlot,
    },
    proto::{
        Outbox,
        chunkpaxos::{self, AcceptorRecord, CallId, ChunkPaxos, Command, SlotPage},
        election,
        founding::{self, FoundingMachine, FoundingRecord},
        hints::Hints,
        history,
        membership::{self, Membership},
        placement::Weighted,
        repair::Runs,
    },
};

use super::{
    bodies::{FetchJob, PutId, PutJob},
    dice::Dice,
    links::Party,
    oracle::signed,
    repair::Run,
    store::{Store, Then, Write},
    tasks::{AskedOf, Tasks},
    world::{Packet, Thing, World},
};

/// So few objects on a page that there are several.
const SCAN_PAGE: usize = 2;

/// What a timer of a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerKey {
    Founding(founding::Timer),
    ChunkPaxos(chunkpaxos::Timer),
    Membership(membership::Timer),
    Election(election::Timer),
    History(history::Timer),
    Vitals,
    Repair,
}

/// A machine that may run a node: what survives the process.
pub struct Node {
    pub peer: PeerId,
    pub store: Store,
    /// Starts and ends so far: what was meant for an earlier process reaches nobody.
    pub life: u64,
    pub running: Option<Running>,
    /// It stands still until then: a stopped process, a machine asleep.
    pub still_until: Option<u64>,
    /// What waited meanwhile.
    pub held: usize,
    /// Lost for ever, disk and all.
    pub is_gone: bool,
    /// How fast its clock runs, in thousandths.
    pub clock_permille: u64,
}

/// A node's process.
pub struct Running {
    began_ms: u64,
    /// By how much its clock has jumped.
    pub jumped_ms: u64,
    pub founding: FoundingMachine,
    pub cluster: Option<Cluster>,
    timers: BTreeMap<TimerKey, u64>,
    pub callers: BTreeMap<CallId, Caller>,
    next_call: u64,
    /// Questions that it waits for.
    pub asked: BTreeMap<u64, Asked>,
    pub puts: BTreeMap<PutId, PutJob>,
    pub fetches: BTreeMap<u64, FetchJob>,
    pub wanted: BTreeSet<BodyId>,
    pub repair: Option<Run>,
    pub repairs: Runs,
    /// Peers passed over until then.
    pub shunned: BTreeMap<usize, u64>,
    /// A holder was passed over: some body lacks a copy.
    pub missed: bool,
    /// Whom, and with what.
    pub hints: Hints,
    /// There was no room when it was looked at last.
    was_full: bool,
    /// Orders of authority that it has heard.
    pub orders: usize,
}

/// The members' machines.
pub struct Cluster {
    pub members: Vec<Weighted>,
    pub paxos: ChunkPaxos,
    pub membership: Membership,
    pub tasks: Tasks,
}

/// Who waits for an answer of ChunkPaxos.
pub enum Caller {
    Peer { who: Party, number: u64 },
    Repair { object: ObjectId },
}

/// What a node asked somebody.
pub enum Asked {
    Probe {
        peer: PeerId,
    },
    ProbeThrough {
        peer: PeerId,
        via: PeerId,
    },
    /// On behalf of somebody else.
    ProbeFor {
        who: Party,
        number: u64,
    },
    Scan {
        peer: usize,
    },
    /// Which of these lie there; for a run of repair, or because they were missed once.
    Check {
        peer: usize,
        bodies: Vec<BodyId>,
        for_run: bool,
    },
    Forward {
        put: PutId,
    },
    Fetch {
        job: u64,
    },
    /// Of the election, or of tasks.
    OfTasks(AskedOf),
    Other,
}

impl Node {
    pub fn new(peer: PeerId, incarnation: Incarnation, dice: &mut Dice) -> Self {
        Self {
            peer,
            store: Store::new(incarnation),
            life: 0,
            running: None,
            still_until: None,
            held: 0,
            is_gone: false,
            clock_permille: dice.between(950, 1050),
        }
    }

    /// Whether it serves a cluster now.
    pub fn is_ready(&self, now: u64) -> bool {
        let is_founded = self.running.as_ref().is_some_and(|running| running.cluster.is_some());
        is_founded && self.still_until.is_none_or(|until| until <= now)
    }
}

impl World {
    // ---- life and death ----

    pub fn start(&mut self, node: usize) {
        if self.nodes[node].running.is_some() || self.nodes[node].is_gone {
            return;
        }
        self.drop_lines(Party::Node(node));
        let (plan, seed) = (&self.plan, self.dice.bytes());
        let n = &mut self.nodes[node];
        n.life += 1;
        if !(plan.wrong.same_boot && n.store.contents.boot > 0) {
            n.store.contents.boot += 1;
        }
        if plan.wrong.wiped {
            n.store.contents.records.clear();
        }
        let record = n.store.contents.founding.as_deref().map(FoundingRecord::decode);
        let record = record.transpose().expect("what was written can be read");
        // A crash may have left on disk what nobody was told of.
        self.oracle.founding.restarted(node, record.clone().unwrap_or_default());
        let founding = FoundingMachine::new(founding::Config {
            me: n.peer,
            incarnation: n.store.contents.incarnation,
            expect: plan.nodes,
            key_was_there: true,
            record,
            variant: founding::Variant::Right,
            seed,
        });
        n.running = Some(Running {
            began_ms: self.now,
            jumped_ms: 0,
            founding,
            cluster: None,
            timers: BTreeMap::new(),
            callers: BTreeMap::new(),
            next_call: 0,
            asked: BTreeMap::new(),
            puts: BTreeMap::new(),
            fetches: BTreeMap::new(),
            wanted: BTreeSet::new(),
            repair: None,
            repairs: Runs::default(),
            shunned: BTreeMap::new(),
            missed: false,
            hints: Hints::default(),
            was_full: false,
            orders: 0,
        });
        let (now, life) = (self.now, self.nodes[node].life);
        self.trace.line(now, || format!("node {node} starts, life {life}"));
        self.feed_founding(node, founding::Event::Start);
        self.arm(node, TimerKey::Vitals, self.clock(node));
    }

    /// The process ends without a word; what was not durable is lost.
    pub fn kill(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if n.running.take().is_none() {
            return;
        }
        n.life += 1;
        n.still_until = None;
        let before = n.store.contents.records.clone();
        let (kept, lost, torn) = n.store.crash(&mut self.dice);
        self.tally.lost_writes += lost;
        self.tally.torn_groups += u64::from(torn);
        self.oracle.calls_lost(node);
        let now = self.now;
        self.trace.line(now, || format!("node {node} dies"));
        // Nobody was told of these, and they count all the same.
        self.records_are_durable(node, before, kept);
    }

    // ---- clocks ----

    /// What the node's own clock says.
    pub fn clock(&self, node: usize) -> Millis {
        let n = &self.nodes[node];
        let Some(running) = &n.running else { return Millis(0) };
        Millis((self.now - running.began_ms) * n.clock_permille / 1000 + running.jumped_ms)
    }

    pub fn arm(&mut self, node: usize, key: TimerKey, at: Millis) {
        let (clock, life) = (self.clock(node), self.nodes[node].life);
        let wait = at.since(clock).0 * 1000 / self.nodes[node].clock_permille + 1;
        if let Some(running) = &mut self.nodes[node].running {
            running.timers.insert(key, at.0);
            let late = self.dice.below(3);
            self.after(wait + late, Thing::Ring { node, life, key });
        }
    }

    pub fn arm_no_later(&mut self, node: usize, key: TimerKey, at: Millis) {
        let running = self.nodes[node].running.as_ref();
        if running.is_some_and(|r| r.timers.get(&key).is_none_or(|old| *old > at.0)) {
            self.arm(node, key, at);
        }
    }

    pub fn ring(&mut self, node: usize, key: TimerKey) {
        let clock = self.clock(node);
        let Some(running) = &mut self.nodes[node].running else { return };
        if running.timers.get(&key).is_none_or(|at| *at > clock.0) {
            return;
        }
        running.timers.remove(&key);
        match key {
            TimerKey::Founding(timer) => self.feed_founding(node, founding::Event::Timer(timer)),
            TimerKey::ChunkPaxos(timer) => self.feed_paxos(node, chunkpaxos::Event::Timer(timer)),
            TimerKey::Membership(timer) => {
                self.feed_membership(node, membership::Event::Timer(timer));
                self.tell_who_is_here(node);
            }
            TimerKey::Election(timer) => self.feed_election(node, election::Event::Timer(timer)),
            TimerKey::History(timer) => self.feed_history(node, history::Event::Timer(timer)),
            TimerKey::Vitals => self.sample(node),
            TimerKey::Repair => self.start_repair(node),
        }
    }

    /// The clock has jumped: what is due by it now rings.
    pub fn ring_all(&mut self, node: usize) {
        let clock = self.clock(node);
        let Some(running) = &self.nodes[node].running else { return };
        let due: Vec<TimerKey> =
            running.timers.iter().filter(|(_, at)| **at <= clock.0).map(|(key, _)| *key).collect();
        due.into_iter().for_each(|key| self.ring(node, key));
    }

    fn sample(&mut self, node: usize) {
        let used: usize = self.nodes[node].store.contents.bodies.values().map(|body| body.len()).sum();
        let vitals = membership::Vitals {
            load_centi: self.dice.below(10_000),
            used_bytes: used as u64,
            capacity_bytes: 1 << 30,
            ..membership::Vitals::default()
        };
        self.feed_membership(node, membership::Event::Vitals { vitals, addrs: vec!["sim".into()] });
        self.look_at_disk(node);
        self.arm(node, TimerKey::Vitals, self.clock(node) + Millis(1000));
    }

    /// What a node that lacks something, or has room again, does about it.
    fn look_at_disk(&mut self, node: usize) {
        let is_full = self.nodes[node].store.no_room || self.nodes[node].store.is_full;
        let Some(running) = &mut self.nodes[node].running else { return };
        let has_room_again = std::mem::replace(&mut running.was_full, is_full) && !is_full;
        let has_missed = std::mem::take(&mut running.missed);
        if has_missed {
            running.repairs.quicken();
        }
        if has_room_again {
            self.repair_soon(node);
        }
        if has_missed {
            let at = self.clock(node) + limits::REPAIR_RETRY;
            self.arm_no_later(node, TimerKey::Repair, at);
        }
        self.offer_missed(node);
    }

    // ---- founding ----

    pub fn feed_founding(&mut self, node: usize, event: founding::Event) {
        let (clock, mut out) = (self.clock(node), Outbox::new());
        let Some(running) = &mut self.nodes[node].running else { return };
        running.founding.handle(clock, event, &mut out);
        for action in out.drain().collect::<Vec<_>>() {
            match action {
                founding::Action::Send(send) => self.send_founding(node, send),
                founding::Action::Write { record, then } => {
                    self.write(node, Write::Founding(record.encode()), Then::Founding { sends: then });
                }
                founding::Action::Arm { at, timer } => self.arm(node, TimerKey::Founding(timer), at),
                founding::Action::Publicise(founding::Status::Ready(founding)) => {
                    self.founded(node, founding)
                }
                founding::Action::Publicise(_) => {}
            }
        }
    }

    pub fn send_founding(&mut self, node: usize, send: founding::Send) {
        if send.to == self.nodes[node].peer {
            return self
                .feed_founding(node, founding::Event::Message { from: send.to, message: send.message });
        }
        let message = serde_bytes::ByteBuf::from(send.message.encode());
        if let Some(to) = self.index_of(&send.to) {
            self.ask(node, to, &Request::Founding { message }, Asked::Other, limits::RPC_TIMEOUT);
        }
    }

    fn founded(&mut self, node: usize, founding: Founding) {
        let checked = self.oracle.founding.ready(node, &founding);
        self.check(checked);
        let seeds: [[u8; 32]; 3] = [self.dice.bytes(), self.dice.bytes(), self.dice.bytes()];
        let is_forgetful = self.plan.wrong.forgets_its_claims;
        let n = &mut self.nodes[node];
        let (peer, boot, fences) = (n.peer, n.store.contents.boot, n.store.contents.fences.clone());
        let Some(running) = n.running.as_mut().filter(|running| running.cluster.is_none()) else { return };
        let paxos = ChunkPaxos::new(chunkpaxos::Config {
            me: peer,
            founding: founding.clone(),
            epoch: Epoch::FOUNDING,
            boot,
            fences,
            seed: seeds[0],
            variant: self.plan.wrong.variant,
        });
        let membership = Membership::new(membership::Config {
            me: peer,
            founding: founding.clone(),
            epoch: Epoch::FOUNDING,
            boot,
            name: format!("node {node}"),
            seed: seeds[1],
        });
        let members = founding.members.iter().map(Weighted::from).collect();
        let (claims_from, kept) = if is_forgetful { (1, 0) } else { (boot, n.store.contents.claims) };
        let tasks = Tasks::new(peer, founding.clone(), claims_from, kept, seeds[2]);
        running.cluster = Some(Cluster { members, paxos, membership, tasks });
        if self.founding.is_none() {
            self.cluster_is_founded(founding);
        }
        self.feed_membership(node, membership::Event::Start);
        self.feed_history(node, history::Event::Start);
        self.tell_who_is_here(node);
        for peer in self.neighbours(Party::Node(node)) {
            self.member_connected(node, peer);
        }
        self.arm(node, TimerKey::Repair, self.clock(node) + limits::REPAIR_AFTER_START);
        self.hear_soon(node);
    }

    fn cluster_is_founded(&mut self, founding: Founding) {
        let peers = self.nodes.iter().map(|node| node.peer).collect();
        self.oracle.ballots.founded(&founding, peers);
        self.founding = Some(founding);
    }

    // ---- connections ----

    pub fn line_changed(&mut self, node: usize, peer: usize, connected: bool) {
        let id = self.nodes[peer].peer;
        if connected {
            self.feed_founding(node, founding::Event::Connected { peer: id });
            self.member_connected(node, peer);
        } else {
            self.feed_founding(node, founding::Event::Disconnected { peer: id });
            self.feed_paxos(node, chunkpaxos::Event::Reachable { peer: id, reachable: false });
        }
    }

    fn member_connected(&mut self, node: usize, peer: usize) {
        let peer = self.nodes[peer].peer;
        self.feed_paxos(node, chunkpaxos::Event::Reachable { peer, reachable: true });
        self.feed_membership(node, membership::Event::SignOfLife { peer });
        self.feed_history(node, history::Event::Differs { peer });
        self.repair_soon(node);
    }

    // ---- ChunkPaxos ----

    pub fn feed_paxos(&mut self, node: usize, event: chunkpaxos::Event) {
        let (clock, mut out) = (self.clock(node), Outbox::new());
        let Some(cluster) = self.nodes[node].running.as_mut().and_then(|r| r.cluster.as_mut()) else {
            return;
        };
        cluster.paxos.handle(clock, event, &mut out);
        let actions: Vec<_> = out.drain().collect();
        let checked = self.oracle.bounds.actions(actions.len());
        self.check(checked);
        for action in actions {
            self.execute_paxos(node, action);
        }
    }

    fn execute_paxos(&mut self, node: usize, action: chunkpaxos::Action) {
        use chunkpaxos::Action;
        match action {
            Action::Send(send) => self.send_paxos(node, send),
            Action::Write { object, serial, record, then } => {
                let write = Write::Record { object, bytes: record.encode() };
                if !self.write(node, write, Then::Paxos { sends: then }) {
                    self.feed_paxos(node, chunkpaxos::Event::WriteRefused { object, serial });
                }
            }
            Action::Load { object } => {
                let (delay, life) = (self.dice.below(3), self.nodes[node].life);
                self.after(delay, Thing::Loaded { node, life, object });
            }
            Action::WriteFence { slot, to, then } => {
                if !self.write(node, Write::Fence { slot, to }, Then::Paxos { sends: then }) {
                    self.feed_paxos(node, chunkpaxos::Event::FenceRefused { slot });
                }
            }
            Action::Scan { slot, after } => {
                let (delay, life) = (self.dice.below(5), self.nodes[node].life);
                self.after(delay, Thing::Scanned { node, life, slot, after });
            }
            Action::Installed { slot, to, attempt } => self.installed(slot, to, attempt),
            Action::Arm { at, timer } => self.arm(node, TimerKey::ChunkPaxos(timer), at),
            Action::Answer { call, answer } => {
                let clock = self.clock(node).0;
                let checked = self.oracle.calls.answered(node, call, clock);
                self.check(checked);
                let running = self.nodes[node].running.as_mut();
                match running.and_then(|r| r.callers.remove(&call)) {
                    Some(Caller::Peer { who, number }) => {
                        self.tell(node, who, number, &response_of(answer));
                    }
                    Some(Caller::Repair { object }) => self.settled(node, object, answer.outcome),
                    None => self.fail(|| format!("node {node} answers {call:?}, which nobody asked")),
                }
            }
        }
    }

    pub fn send_paxos(&mut self, node: usize, send: chunkpaxos::Send) {
        if send.to == self.nodes[node].peer {
            let event = chunkpaxos::Event::Message { from: send.to, message: send.message };
            return self.feed_paxos(node, event);
        }
        let stored = self.nodes[node].store.contents.records.get(&send.message.object).cloned();
        let checked = self.oracle.says(node, &send.message, stored.as_deref());
        self.check(checked);
        if let Some(to) = self.index_of(&send.to) {
            let bytes = send.message.encode(0);
            self.send(Party::Node(node), Party::Node(to), Packet::Lane(bytes));
        }
    }

    pub fn call_paxos(&mut self, node: usize, object: ObjectId, command: Command, caller: Caller) {
        let clock = self.clock(node).0;
        let Some(running) = &mut self.nodes[node].running else { return };
        running.next_call += 1;
        let call = CallId(running.next_call);
        running.callers.insert(call, caller);
        self.oracle.calls.asked(node, call, clock);
        self.feed_paxos(node, chunkpaxos::Event::Call { call, object, command });
    }

    pub fn loaded(&mut self, node: usize, object: ObjectId) {
        let store = &self.nodes[node].store;
        let is_rotten = store.rotten.contains(&object);
        let bytes = store.contents.records.get(&object).cloned();
        let record = bytes.map(|bytes| self.read_record(&bytes));
        let event = match record {
            _ if is_rotten => chunkpaxos::Event::LoadFailed { object },
            None => chunkpaxos::Event::Loaded { object, record: None },
            Some(Some(record)) => chunkpaxos::Event::Loaded { object, record: Some(record) },
            Some(None) => return self.fail(|| format!("node {node} has written what it cannot read")),
        };
        self.feed_paxos(node, event);
    }

    /// Which objects of a slot have a record on this disk, a small page of them.
    pub fn scanned_for_paxos(&mut self, node: usize, slot: HashSlot, after: Option<ObjectId>) {
        let records = &self.nodes[node].store.contents.records;
        let in_slot = records.keys().filter(|object| HashSlot::of(object) == slot && Some(**object) > after);
        let mut objects: Vec<ObjectId> = in_slot.copied().collect();
        let more = objects.len() > SCAN_PAGE;
        objects.truncate(SCAN_PAGE);
        let page = (!self.dice.permille(50)).then_some(SlotPage { objects, more });
        self.feed_paxos(node, chunkpaxos::Event::Scanned { slot, after, page });
    }

    /// A record as it is read: decoded, and its register checked.
    pub fn read_record(&mut self, bytes: &[u8]) -> Option<AcceptorRecord> {
        let raw = AcceptorRecord::<RawRegister>::decode(bytes).ok()?;
        raw.try_map(|value| self.verify(&value).ok_or(())).ok()
    }

    // ---- membership ----

    pub fn feed_membership(&mut self, node: usize, event: membership::Event) {
        let (clock, mut out) = (self.clock(node), Outbox::new());
        let Some(cluster) = self.nodes[node].running.as_mut().and_then(|r| r.cluster.as_mut()) else {
            return;
        };
        cluster.membership.handle(clock, event, &mut out);
        for action in out.drain().collect::<Vec<_>>() {
            self.execute_membership(node, action);
        }
    }

    fn execute_membership(&mut self, node: usize, action: membership::Action) {
        use membership::Action;
        match action {
            Action::Publish(message) => {
                let (bytes, clock) = (message.encode(), self.clock(node));
                let Some(beside) = self.tasks(node).map(Tasks::beside) else { return };
                let checked = self.oracle.heartbeats.published(node, clock, &bytes);
                self.check(checked);
                for peer in self.neighbours(Party::Node(node)) {
                    self.send(Party::Node(node), Party::Node(peer), Packet::Gossip(bytes.clone(), beside));
                }
            }
            Action::Probe { peer } => {
                self.ask_peer(node, peer, &Request::Probe, Asked::Probe { peer }, limits::PROBE_TIMEOUT);
            }
            Action::ProbeThrough { via, peer } => {
                let asked = Asked::ProbeThrough { peer, via };
                let request = Request::ProbeThrough { peer };
                self.ask_peer(node, via, &request, asked, limits::INDIRECT_PROBE_TIMEOUT);
            }
            Action::Arm { at, timer } => self.arm(node, TimerKey::Membership(timer), at),
            Action::Publicise(membership::Fact::Back(_) | membership::Fact::Alive(_)) => {
                self.repair_soon(node)
            }
            Action::Publicise(membership::Fact::Dead(peer)) => {
                self.member_is_dead(node, peer);
                self.repair_soon(node);
            }
            Action::Publicise(_) => {}
        }
    }
}

/// What ChunkPaxos' answer says to a peer.
fn response_of(answer: chunkpaxos::Answer) -> Response {
    use chunkpaxos::Outcome;
    use tintype::model::rpc::Commit;
    match answer.outcome {
        Outcome::Committed { copies } => Response::Committed(Commit { messages: answer.messages, copies }),
        Outcome::Conflict { current } => Response::Conflict { current: current.map(|v| v.to_raw()) },
        Outcome::Value { current } => Response::Register { value: current.map(|a| a.value.to_raw()) },
        Outcome::NoQuorum => Response::NoQuorum,
        Outcome::Busy => Response::Busy,
    }
}
