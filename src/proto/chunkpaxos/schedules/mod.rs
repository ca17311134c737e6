//! Random schedules: whole machines over a lossy, repeating, reordering network and disks that forget what
//! was not synced, with crashes and restarts; and what must hold in every one of them.

mod authority;
mod checks;
mod handovers;
mod one_view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use self::{authority::Authority, checks::Checks};
use super::*;
use crate::{
    model::{codec::CodecError, limits, register::RawRegister, register::Register},
    proto::{
        placement::SlotKeepers,
        testing::{Dice, founding, register, seeds},
    },
};

/// What goes wrong in a schedule.
#[derive(Clone, Copy)]
struct Quirks {
    variant: Variant,
    /// A restarted node has an empty disk and the same identity.
    wipe: bool,
    /// A restarted node has the boot number of its earlier start.
    same_boot: bool,
    /// Of a hundred messages so many are lost.
    loss: u64,
    /// Crashes at most, but for those between the steps of handovers.
    crashes: u64,
    /// Handovers that authority orders, one after the other.
    handovers: u64,
    /// Objects, all of one slot.
    objects: u8,
    /// When faults end.
    span: u64,
}

impl Default for Quirks {
    fn default() -> Self {
        let variant = Variant::Right;
        Self {
            variant,
            wipe: false,
            same_boot: false,
            loss: 10,
            crashes: 4,
            handovers: 0,
            objects: 1,
            span: 4000,
        }
    }
}

#[derive(Debug)]
enum Thing {
    Deliver {
        from: usize,
        to: usize,
        bytes: Vec<u8>,
    },
    Synced {
        node: usize,
        life: u64,
    },
    Loaded {
        node: usize,
        life: u64,
        object: ObjectId,
    },
    Scanned {
        node: usize,
        life: u64,
        after: Option<ObjectId>,
    },
    Timer {
        node: usize,
        life: u64,
    },
    Crash {
        node: usize,
    },
    Restart {
        node: usize,
    },
    Call {
        client: usize,
    },
    Flip {
        node: usize,
    },
    Repair,
    /// Authority decides something.
    Decide,
    /// The next order comes to a node.
    Order {
        node: usize,
        life: u64,
    },
}

/// One write on its way to disk.
enum Pending {
    Record { object: ObjectId, record: AcceptorRecord, then: Vec<Send> },
    Fence { to: Epoch, then: Vec<Send> },
}

#[derive(Default)]
struct Node {
    machine: Option<ChunkPaxos>,
    boot: u64,
    life: u64,
    disk: BTreeMap<ObjectId, Vec<u8>>,
    fence: Option<Epoch>,
    writes: VecDeque<Pending>,
    timer: Option<Millis>,
    /// How many orders this start has heard.
    orders: usize,
}

#[derive(Default)]
struct Client {
    known: BTreeMap<ObjectId, VerifiedRegister>,
    /// The value of a proposal whose outcome is unknown.
    pending: BTreeMap<ObjectId, VerifiedRegister>,
    busy: Option<CallId>,
}

struct Open {
    client: usize,
    node: usize,
    object: ObjectId,
    began: Millis,
    version_at_begin: u64,
    proposed: Option<VerifiedRegister>,
    any: bool,
}

struct World {
    quirks: Quirks,
    dice: Dice,
    founding: Founding,
    objects: Vec<ObjectId>,
    now: Millis,
    order: u64,
    queue: BTreeMap<(Millis, u64), Thing>,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    open: BTreeMap<CallId, Open>,
    calls: u64,
    healed: bool,
    authority: Authority,
    checks: Checks,
    answers: BTreeMap<&'static str, u64>,
    /// What a two-member commit promised: that many copies.
    copies: BTreeMap<u64, u64>,
}

type Checked = Result<(), String>;

impl World {
    fn new(seed: u64, count: usize, quirks: Quirks) -> Self {
        let mut dice = Dice::new(seed);
        let slot = dice.below(256) as u8;
        let object = |n| {
            let mut id = [slot; 32];
            id[1] = n;
            ObjectId(id)
        };
        let founding = founding(count);
        let members: Vec<Weighted> = founding.members.iter().map(Weighted::from).collect();
        let keepers = placement::keepers(Epoch::FOUNDING, &members, HashSlot(slot));
        let peers = founding.members.iter().map(|m| m.peer).collect();
        Self {
            quirks,
            objects: (0..quirks.objects).map(object).collect(),
            now: Millis(0),
            order: 0,
            queue: BTreeMap::new(),
            nodes: (0..count).map(|_| Node::default()).collect(),
            clients: (0..2 + dice.below(2)).map(|_| Client::default()).collect(),
            open: BTreeMap::new(),
            calls: 0,
            healed: false,
            authority: Authority::new(HashSlot(slot), peers, keepers.clone(), quirks.handovers),
            checks: Checks::new(founding.clone(), keepers, quirks.variant),
            answers: BTreeMap::new(),
            copies: BTreeMap::new(),
            founding,
            dice,
        }
    }

    fn at(&mut self, delay: u64, thing: Thing) {
        self.order += 1;
        self.queue.insert((self.now + Millis(delay), self.order), thing);
    }

    fn some_node(&mut self) -> usize {
        self.dice.below(self.nodes.len() as u64) as usize
    }

    fn some_object(&mut self) -> ObjectId {
        let index = self.dice.below(self.objects.len() as u64) as usize;
        self.objects[index]
    }

    fn run(mut self) -> Result<Self, String> {
        for node in 0..self.nodes.len() {
            self.restart(node)?;
        }
        let span = self.quirks.span;
        for _ in 0..self.dice.below(self.quirks.crashes + 1) {
            let (at, node) = (self.dice.below(span), self.some_node());
            self.at(at, Thing::Crash { node });
        }
        for _ in 0..self.dice.below(6) {
            let (at, node) = (self.dice.below(span), self.some_node());
            self.at(at, Thing::Flip { node });
            let at = self.dice.below(span);
            self.at(at, Thing::Repair);
        }
        for client in 0..self.clients.len() {
            let at = self.dice.below(60);
            self.at(at, Thing::Call { client });
        }
        if self.quirks.handovers > 0 {
            let at = self.dice.below(span / 4);
            self.at(at, Thing::Decide);
        }
        self.run_until(Millis(span))?;
        self.heal()?;
        self.run_until(Millis(span + 3000))?;
        self.handovers_end()?;
        self.final_reads()?;
        Ok(self)
    }

    fn run_until(&mut self, end: Millis) -> Checked {
        while let Some(entry) = self.queue.first_entry() {
            let (at, _) = *entry.key();
            if at > end {
                break;
            }
            let thing = entry.remove();
            self.now = at;
            self.step(thing)?;
        }
        self.now = end;
        Ok(())
    }

    fn heal(&mut self) -> Checked {
        self.healed = true;
        for node in 0..self.nodes.len() {
            if self.nodes[node].machine.is_none() {
                self.restart(node)?;
            }
            self.tell_reachable(node, true)?;
        }
        Ok(())
    }

    fn final_reads(&mut self) -> Checked {
        for object in self.objects.clone() {
            for node in 0..self.nodes.len() {
                self.begin_call(0, node, object, Command::Read)?;
                let end = self.now + Millis(2500);
                self.run_until(end)?;
            }
        }
        let good = self.answers.get("final value").copied().unwrap_or(0);
        if good < (self.nodes.len() * self.objects.len()) as u64 {
            return Err(format!("after healing only {good} reads succeeded: {:?}", self.answers));
        }
        Ok(())
    }

    fn step(&mut self, thing: Thing) -> Checked {
        match thing {
            Thing::Deliver { from, to, bytes } => {
                let from = self.founding.members[from].peer;
                let (_, message) = Message::decode(&bytes).map_err(|e| e.to_string())?;
                let message = message.try_map(check).map_err(|e| e.to_string())?;
                self.feed(to, Event::Message { from, message })
            }
            Thing::Synced { node, life } if self.nodes[node].life == life => self.synced(node),
            Thing::Loaded { node, life, object } if self.nodes[node].life == life => {
                let record =
                    self.nodes[node].disk.get(&object).map(|bytes| decode_record(bytes)).transpose()?;
                self.feed(node, Event::Loaded { object, record })
            }
            Thing::Scanned { node, life, after } if self.nodes[node].life == life => {
                self.scanned(node, after)
            }
            Thing::Timer { node, life } if self.nodes[node].life == life => {
                if self.nodes[node].timer.is_some_and(|at| at <= self.now) {
                    self.nodes[node].timer = None;
                    return self.feed(node, Event::Timer(Timer::Wake));
                }
                Ok(())
            }
            Thing::Order { node, life } if self.nodes[node].life == life => self.next_order(node),
            Thing::Crash { node } => self.crash(node),
            Thing::Restart { node } if self.nodes[node].machine.is_none() => self.restart(node),
            Thing::Call { client } => self.next_call(client),
            Thing::Flip { node } => {
                let up = self.dice.percent(50);
                self.tell_reachable(node, up)
            }
            Thing::Repair => self.repair(),
            Thing::Decide => self.decide(),
            _ => Ok(()),
        }
    }

    // ---- nodes ----

    fn restart(&mut self, node: usize) -> Checked {
        let seed = self.dice.seed();
        let slot = self.authority.slot;
        let n = &mut self.nodes[node];
        if !self.quirks.same_boot || n.boot == 0 {
            n.boot += 1;
        }
        if self.quirks.wipe {
            n.disk.clear();
        }
        n.orders = 0;
        n.machine = Some(ChunkPaxos::new(Config {
            me: self.founding.members[node].peer,
            founding: self.founding.clone(),
            epoch: Epoch::FOUNDING,
            boot: n.boot,
            fences: n.fence.map(|to| (slot, to)).into_iter().collect(),
            seed,
            variant: self.quirks.variant,
        }));
        self.tell_reachable(node, true)?;
        self.hear_orders_again(node)
    }

    fn crash(&mut self, node: usize) -> Checked {
        let n = &mut self.nodes[node];
        if self.healed || n.machine.take().is_none() {
            return Ok(());
        }
        n.life += 1;
        n.writes.clear();
        n.timer = None;
        self.open.retain(|_, open| open.node != node);
        for client in &mut self.clients {
            if client.busy.is_some_and(|call| !self.open.contains_key(&call)) {
                client.busy = None;
            }
        }
        let down = self.dice.below(600);
        self.at(down, Thing::Restart { node });
        Ok(())
    }

    fn tell_reachable(&mut self, node: usize, reachable: bool) -> Checked {
        for peer in self.founding.members.clone() {
            self.feed(node, Event::Reachable { peer: peer.peer, reachable })?;
        }
        Ok(())
    }

    fn feed(&mut self, node: usize, event: Event) -> Checked {
        let mut out = Outbox::new();
        let Some(machine) = &mut self.nodes[node].machine else { return Ok(()) };
        machine.handle(self.now, event, &mut out);
        for action in out.drain().collect::<Vec<_>>() {
            self.execute(node, action)?;
        }
        Ok(())
    }

    fn execute(&mut self, node: usize, action: Action) -> Checked {
        let life = self.nodes[node].life;
        match action {
            Action::Send(send) => self.transmit(node, send),
            Action::Write { object, serial, record, then } => {
                if self.is_refused() {
                    return self.feed(node, Event::WriteRefused { object, serial });
                }
                self.write(node, Pending::Record { object, record, then });
                Ok(())
            }
            Action::WriteFence { slot, to, then } => {
                self.perhaps_crash(node);
                if self.is_refused() {
                    return self.feed(node, Event::FenceRefused { slot });
                }
                self.write(node, Pending::Fence { to, then });
                Ok(())
            }
            Action::Load { object } => {
                let delay = self.dice.below(10);
                self.at(delay, Thing::Loaded { node, life, object });
                Ok(())
            }
            Action::Scan { after, .. } => {
                self.perhaps_crash(node);
                let delay = self.dice.below(10);
                self.at(delay, Thing::Scanned { node, life, after });
                Ok(())
            }
            Action::Installed { slot, to, attempt } => {
                self.perhaps_crash(node);
                self.installed(slot, to, attempt)
            }
            Action::Arm { at, .. } => {
                self.nodes[node].timer = Some(at);
                let delay = at.since(self.now).0 + self.dice.below(3);
                self.at(delay, Thing::Timer { node, life });
                Ok(())
            }
            Action::Answer { call, answer } => self.answered(call, answer),
        }
    }

    fn is_refused(&mut self) -> bool {
        !self.healed && self.dice.percent(2)
    }

    fn write(&mut self, node: usize, pending: Pending) {
        let life = self.nodes[node].life;
        self.nodes[node].writes.push_back(pending);
        let delay = 1 + self.dice.below(15);
        self.at(delay, Thing::Synced { node, life });
    }

    /// A crash between two steps of a handover.
    fn perhaps_crash(&mut self, node: usize) {
        if !self.healed && self.dice.percent(4) {
            let delay = self.dice.below(25);
            self.at(delay, Thing::Crash { node });
        }
    }

    fn transmit(&mut self, from: usize, send: Send) -> Checked {
        let object = send.message.object;
        match &send.message.body {
            Body::Accept { ballot, value, .. } => self.checks.note_value(object, *ballot, value)?,
            Body::Install { ballot, value, .. } => {
                self.checks.note_value(object, *ballot, value)?;
                self.perhaps_crash(from);
            }
            _ => {}
        }
        let Some(to) = self.founding.number_of(&send.to).map(|n| usize::from(n.0)) else {
            return Err("a message to nobody".into());
        };
        let bytes = send.message.encode(0);
        if !self.healed && self.dice.percent(self.quirks.loss) {
            return Ok(());
        }
        let copies = if !self.healed && self.dice.percent(6) { 2 } else { 1 };
        for _ in 0..copies {
            let slow = !self.healed && self.dice.percent(8);
            let delay = 1 + self.dice.below(if slow { 700 } else { 15 });
            self.at(delay, Thing::Deliver { from, to, bytes: bytes.clone() });
        }
        Ok(())
    }

    /// The oldest write of the queue is on disk.
    fn synced(&mut self, node: usize) -> Checked {
        let then = match self.nodes[node].writes.pop_front() {
            None => return Ok(()),
            Some(Pending::Fence { to, then }) => {
                let old = self.nodes[node].fence.replace(to);
                if old > Some(to) {
                    return Err(format!("node {node} has lowered its fence from {old:?} to {to:?}"));
                }
                then
            }
            Some(Pending::Record { object, record, then }) => {
                let old = self.nodes[node].disk.insert(object, record.encode());
                let old = old.map(|bytes| decode_record(&bytes)).transpose()?;
                let fence = self.nodes[node].fence;
                self.checks.on_record(node, object, old.as_ref(), &record, fence)?;
                then
            }
        };
        let me = self.founding.members[node].peer;
        for send in then {
            if send.to == me {
                self.feed(node, Event::Message { from: me, message: send.message })?;
            } else {
                self.transmit(node, send)?;
            }
        }
        Ok(())
    }

    /// A small page, so that there are several.
    fn scanned(&mut self, node: usize, after: Option<ObjectId>) -> Checked {
        let most = 1 + self.dice.below(3) as usize;
        let rest = self.nodes[node].disk.keys().filter(|object| Some(**object) > after);
        let mut objects: Vec<ObjectId> = rest.copied().take(most + 1).collect();
        let more = objects.len() > most;
        objects.truncate(most);
        let page = (self.healed || !self.dice.percent(5)).then_some(SlotPage { objects, more });
        self.feed(node, Event::Scanned { slot: self.authority.slot, after, page })
    }

    // ---- clients ----

    fn next_call(&mut self, client: usize) -> Checked {
        let longest = if self.dice.percent(25) { 500 } else { 60 };
        let pause = 1 + self.dice.below(longest);
        self.at(pause, Thing::Call { client });
        if self.clients[client].busy.is_some() || self.healed {
            return Ok(());
        }
        let (node, object) = (self.some_node(), self.some_object());
        let command = match self.dice.below(20) {
            0..=5 => Command::Read,
            6 => Command::ReadAny,
            7 => Command::Settle,
            _ => {
                let again = self.dice.percent(70);
                let retry = self.clients[client].pending.remove(&object).filter(|_| again);
                self.calls += 1;
                let known = self.clients[client].known.get(&object);
                let value = retry.unwrap_or_else(|| register(object, known, self.calls));
                Command::Propose { value }
            }
        };
        self.begin_call(client, node, object, command)
    }

    fn begin_call(&mut self, client: usize, node: usize, object: ObjectId, command: Command) -> Checked {
        if self.nodes[node].machine.is_none() {
            return Ok(());
        }
        self.calls += 1;
        let call = CallId(self.calls);
        let proposed = match &command {
            Command::Propose { value } => Some(value.clone()),
            _ => None,
        };
        self.clients[client].busy = Some(call);
        self.clients[client].pending.extend(proposed.clone().map(|value| (object, value)));
        let open = Open {
            client,
            node,
            object,
            began: self.now,
            version_at_begin: self.checks.shown(&object),
            proposed,
            any: command == Command::ReadAny,
        };
        self.open.insert(call, open);
        self.feed(node, Event::Call { call, object, command })
    }

    fn answered(&mut self, call: CallId, answer: Answer) -> Checked {
        let Some(open) = self.open.remove(&call) else { return Err(format!("{call:?} was answered twice")) };
        let (object, client) = (open.object, &mut self.clients[open.client]);
        client.busy = None;
        if self.now.since(open.began) > limits::NO_QUORUM + Millis(10) {
            return Err(format!("an answer took {}", self.now.since(open.began)));
        }
        let (kind, shown) = match answer.outcome {
            Outcome::Committed { copies } => {
                client.pending.remove(&object);
                *self.copies.entry(copies).or_default() += 1;
                ("committed", Some(open.proposed.ok_or("a read was committed")?))
            }
            Outcome::Conflict { current } => {
                client.pending.remove(&object);
                ("conflict", current)
            }
            Outcome::Value { current } if open.any => {
                client.known.extend(current.map(|accepted| (object, accepted.value)));
                return Ok(());
            }
            Outcome::Value { current } => {
                (if self.healed { "final value" } else { "value" }, current.map(|a| a.value))
            }
            Outcome::NoQuorum => ("no quorum", None),
            Outcome::Busy => ("busy", None),
        };
        *self.answers.entry(kind).or_default() += 1;
        if matches!(kind, "no quorum" | "busy") {
            return Ok(());
        }
        let known = self.clients[open.client].known.get(&object).map_or(0, |value| value.version);
        if kind != "committed" || shown.as_ref().map_or(0, |value| value.version) >= known {
            self.clients[open.client].known.remove(&object);
            self.clients[open.client].known.extend(shown.clone().map(|value| (object, value)));
        }
        self.checks.on_shown(kind, object, shown.as_ref(), open.version_at_begin)
    }

    fn repair(&mut self) -> Checked {
        let object = self.some_object();
        let Some(accepted) = self.checks.last_chosen(&object) else { return Ok(()) };
        let node = self.some_node();
        self.feed(node, Event::LateAccept { object, accepted })
    }
}

fn check(raw: RawRegister) -> Result<VerifiedRegister, CodecError> {
    Ok(VerifiedRegister::vouch(Register::decode(&raw.0)?, &raw.0))
}

fn decode_record(bytes: &[u8]) -> Result<AcceptorRecord, String> {
    AcceptorRecord::decode(bytes).and_then(|record| record.try_map(check)).map_err(|e| e.to_string())
}

/// The first seed at which something that must hold does not.
fn find_violation(count: usize, schedules: u64, quirks: Quirks) -> Option<(u64, String)> {
    (0..schedules).find_map(|seed| World::new(seed, count, quirks).run().err().map(|what| (seed, what)))
}
