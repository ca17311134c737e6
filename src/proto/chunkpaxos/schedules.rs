//! Random schedules: whole machines over a lossy, repeating, reordering network and disks that forget what
//! was not synced, with crashes and restarts; and what must hold in every one of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::{
    model::{codec::CodecError, limits, register::RawRegister, register::Register},
    proto::testing::{Dice, founding, register, seeds},
};

/// What else may go wrong in a schedule than the variant.
#[derive(Clone, Copy, Default)]
struct Quirks {
    variant: Variant,
    /// A restarted node has an empty disk and the same identity.
    wipe: bool,
    /// A restarted node has the boot number of its earlier start.
    same_boot: bool,
}

#[derive(Debug)]
enum Thing {
    Deliver { from: usize, to: usize, bytes: Vec<u8> },
    Synced { node: usize, life: u64 },
    Loaded { node: usize, life: u64 },
    Timer { node: usize, life: u64 },
    Crash { node: usize },
    Restart { node: usize },
    Call { client: usize },
    Flip { node: usize },
    Repair,
}

struct Node {
    machine: Option<ChunkPaxos>,
    boot: u64,
    life: u64,
    disk: Vec<u8>,
    writes: VecDeque<(AcceptorRecord, Vec<Send>)>,
    timer: Option<Millis>,
}

#[derive(Default)]
struct Client {
    known: Option<VerifiedRegister>,
    /// The value of a proposal whose outcome is unknown.
    pending: Option<VerifiedRegister>,
    busy: Option<CallId>,
}

struct Open {
    client: usize,
    node: usize,
    began: Millis,
    version_at_begin: u64,
    proposed: Option<VerifiedRegister>,
    any: bool,
}

struct World {
    quirks: Quirks,
    dice: Dice,
    founding: Founding,
    object: ObjectId,
    keepers: SlotKeepers,
    now: Millis,
    order: u64,
    queue: BTreeMap<(Millis, u64), Thing>,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    open: BTreeMap<CallId, Open>,
    calls: u64,
    healed: bool,
    /// Everything that any acceptor ever durably accepted.
    accepted: BTreeMap<Ballot, (VerifiedRegister, BTreeSet<usize>)>,
    /// The greatest version that some answer has shown.
    shown: u64,
    values: BTreeMap<Ballot, Vec<u8>>,
    answers: BTreeMap<&'static str, u64>,
    /// What a two-member commit promised: that many copies.
    copies: BTreeMap<u64, u64>,
}

type Checked = Result<(), String>;

impl World {
    fn new(seed: u64, count: usize, quirks: Quirks) -> Self {
        let mut dice = Dice::new(seed);
        let object = ObjectId([dice.below(256) as u8; 32]);
        let node = |_| Node {
            machine: None,
            boot: 0,
            life: 0,
            disk: Vec::new(),
            writes: VecDeque::new(),
            timer: None,
        };
        let founding = founding(count);
        let members: Vec<Weighted> = founding.members.iter().map(Weighted::from).collect();
        Self {
            quirks,
            keepers: placement::keepers(Epoch::FOUNDING, &members, HashSlot::of(&object)),
            founding,
            object,
            now: Millis(0),
            order: 0,
            queue: BTreeMap::new(),
            nodes: (0..count).map(node).collect(),
            clients: (0..2 + dice.below(2)).map(|_| Client::default()).collect(),
            open: BTreeMap::new(),
            calls: 0,
            healed: false,
            accepted: BTreeMap::new(),
            shown: 0,
            values: BTreeMap::new(),
            answers: BTreeMap::new(),
            copies: BTreeMap::new(),
            dice,
        }
    }

    fn at(&mut self, delay: u64, thing: Thing) {
        self.order += 1;
        self.queue.insert((self.now + Millis(delay), self.order), thing);
    }

    fn run(mut self) -> Result<Self, String> {
        for node in 0..self.nodes.len() {
            self.restart(node)?;
        }
        let span = 4000;
        for _ in 0..self.dice.below(5) {
            let (at, node) = (self.dice.below(span), self.dice.below(self.nodes.len() as u64) as usize);
            self.at(at, Thing::Crash { node });
        }
        for _ in 0..self.dice.below(6) {
            let (at, node) = (self.dice.below(span), self.dice.below(self.nodes.len() as u64) as usize);
            self.at(at, Thing::Flip { node });
            let at = self.dice.below(span);
            self.at(at, Thing::Repair);
        }
        for client in 0..self.clients.len() {
            let at = self.dice.below(60);
            self.at(at, Thing::Call { client });
        }
        self.run_until(Millis(span))?;
        self.heal()?;
        self.run_until(Millis(span + 3000))?;
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
        for node in 0..self.nodes.len() {
            self.begin_call(0, node, Command::Read)?;
            let end = self.now + Millis(2500);
            self.run_until(end)?;
        }
        let good = self.answers.get("final value").copied().unwrap_or(0);
        if good < self.nodes.len() as u64 {
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
            Thing::Loaded { node, life } if self.nodes[node].life == life => {
                let disk = &self.nodes[node].disk;
                let record = (!disk.is_empty()).then(|| decode_record(disk)).transpose()?;
                self.feed(node, Event::Loaded { object: self.object, record })
            }
            Thing::Timer { node, life } if self.nodes[node].life == life => {
                if self.nodes[node].timer.is_some_and(|at| at <= self.now) {
                    self.nodes[node].timer = None;
                    return self.feed(node, Event::Timer(Timer::Wake));
                }
                Ok(())
            }
            Thing::Crash { node } => self.crash(node),
            Thing::Restart { node } if self.nodes[node].machine.is_none() => self.restart(node),
            Thing::Call { client } => self.next_call(client),
            Thing::Flip { node } => {
                let up = self.dice.percent(50);
                self.tell_reachable(node, up)
            }
            Thing::Repair => self.repair(),
            _ => Ok(()),
        }
    }

    // ---- nodes ----

    fn restart(&mut self, node: usize) -> Checked {
        let seed = self.dice.seed();
        let n = &mut self.nodes[node];
        if !self.quirks.same_boot || n.boot == 0 {
            n.boot += 1;
        }
        if self.quirks.wipe {
            n.disk.clear();
        }
        n.machine = Some(ChunkPaxos::new(Config {
            me: self.founding.members[node].peer,
            founding: self.founding.clone(),
            epoch: Epoch::FOUNDING,
            boot: n.boot,
            seed,
            variant: self.quirks.variant,
        }));
        self.tell_reachable(node, true)
    }

    fn crash(&mut self, node: usize) -> Checked {
        let n = &mut self.nodes[node];
        if n.machine.take().is_none() {
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
                if !self.healed && self.dice.percent(2) {
                    return self.feed(node, Event::WriteRefused { object, serial });
                }
                self.nodes[node].writes.push_back((record, then));
                let delay = 1 + self.dice.below(15);
                self.at(delay, Thing::Synced { node, life });
                Ok(())
            }
            Action::Load { .. } => {
                let delay = self.dice.below(10);
                self.at(delay, Thing::Loaded { node, life });
                Ok(())
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

    fn transmit(&mut self, from: usize, send: Send) -> Checked {
        if let Body::Accept { ballot, value, .. } = &send.message.body {
            self.note_value(*ballot, value)?;
        }
        let Some(to) = self.founding.number_of(&send.to).map(|n| usize::from(n.0)) else {
            return Err("a message to nobody".into());
        };
        let bytes = send.message.encode(0);
        if !self.healed && self.dice.percent(10) {
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
        let Some((record, then)) = self.nodes[node].writes.pop_front() else { return Ok(()) };
        let bytes = record.encode();
        let old = std::mem::replace(&mut self.nodes[node].disk, bytes);
        if !old.is_empty() {
            let old = decode_record(&old)?;
            let ballot = |r: &AcceptorRecord| r.accepted.as_ref().map(|a| a.ballot);
            if old.floor() > record.floor() || ballot(&old) > ballot(&record) {
                return Err(format!("node {node} went back from {old:?} to {record:?}"));
            }
        }
        if let Some(accepted) = &record.accepted {
            self.note_value(accepted.ballot, &accepted.value)?;
            let entry = self
                .accepted
                .entry(accepted.ballot)
                .or_insert_with(|| (accepted.value.clone(), BTreeSet::new()));
            entry.1.insert(node);
            self.check_chain()?;
        }
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

    // ---- clients ----

    fn next_call(&mut self, client: usize) -> Checked {
        let longest = if self.dice.percent(25) { 500 } else { 60 };
        let pause = 1 + self.dice.below(longest);
        self.at(pause, Thing::Call { client });
        if self.clients[client].busy.is_some() || self.healed {
            return Ok(());
        }
        let node = self.dice.below(self.nodes.len() as u64) as usize;
        let command = match self.dice.below(20) {
            0..=5 => Command::Read,
            6 => Command::ReadAny,
            7 => Command::Settle,
            _ => {
                let retry = self.clients[client].pending.take().filter(|_| self.dice.percent(70));
                self.calls += 1;
                let known = self.clients[client].known.clone();
                let value = retry.unwrap_or_else(|| register(self.object, known.as_ref(), self.calls));
                Command::Propose { value }
            }
        };
        self.begin_call(client, node, command)
    }

    fn begin_call(&mut self, client: usize, node: usize, command: Command) -> Checked {
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
        self.clients[client].pending = proposed.clone();
        let open = Open {
            client,
            node,
            began: self.now,
            version_at_begin: self.shown,
            proposed,
            any: command == Command::ReadAny,
        };
        self.open.insert(call, open);
        self.feed(node, Event::Call { call, object: self.object, command })
    }

    fn answered(&mut self, call: CallId, answer: Answer) -> Checked {
        let Some(open) = self.open.remove(&call) else { return Err(format!("{call:?} was answered twice")) };
        let client = &mut self.clients[open.client];
        client.busy = None;
        if self.now.since(open.began) > limits::NO_QUORUM + Millis(10) {
            return Err(format!("an answer took {}", self.now.since(open.began)));
        }
        let (kind, shown) = match answer.outcome {
            Outcome::Committed { copies } => {
                client.pending = None;
                *self.copies.entry(copies).or_default() += 1;
                ("committed", Some(open.proposed.ok_or("a read was committed")?))
            }
            Outcome::Conflict { current } => {
                client.pending = None;
                ("conflict", current)
            }
            Outcome::Value { current } if open.any => {
                client.known = current.map(|a| a.value).or(client.known.take());
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
        let known = &mut self.clients[open.client].known;
        let version = |value: &Option<VerifiedRegister>| value.as_ref().map(|v| v.version);
        if kind != "committed" || version(&shown) >= version(known) {
            *known = shown.clone();
        }
        self.check_shown(kind, shown.as_ref(), open.version_at_begin)
    }

    fn repair(&mut self) -> Checked {
        let Some((ballot, value)) = self.chosen().last().map(|(b, v)| (**b, (*v).clone())) else {
            return Ok(());
        };
        let node = self.dice.below(self.nodes.len() as u64) as usize;
        self.feed(node, Event::LateAccept { object: self.object, accepted: Accepted { ballot, value } })
    }

    // ---- what must hold ----

    /// A ballot carries one value for ever.
    fn note_value(&mut self, ballot: Ballot, value: &VerifiedRegister) -> Checked {
        let known = self.values.entry(ballot).or_insert_with(|| value.bytes().to_vec());
        if known != value.bytes() {
            return Err(format!("two values at {ballot:?}"));
        }
        Ok(())
    }

    fn chosen(&self) -> Vec<(&Ballot, &VerifiedRegister)> {
        let keepers = &self.keepers;
        let votes = |who: &BTreeSet<usize>| {
            who.iter().filter(|n| keepers.acceptors.contains(&self.founding.members[**n].peer)).count()
        };
        let chosen = self.accepted.iter().filter(|(_, (_, who))| votes(who) >= keepers.majority());
        chosen.map(|(ballot, (value, _))| (ballot, value)).collect()
    }

    /// In the order of their ballots, each chosen value is the one before or the next version after it.
    fn check_chain(&self) -> Checked {
        let chosen = self.chosen();
        for pair in chosen.windows(2) {
            let (before, after) = (pair[0].1, pair[1].1);
            let next = after.version == before.version + 1 && after.previous == before.hash();
            if before != after && !next {
                return Err(format!("a fork: {:?} then {:?}", pair[0], pair[1]));
            }
        }
        match chosen.first() {
            Some((_, first)) if first.version != 1 => Err("the first chosen value is not version 1".into()),
            _ => Ok(()),
        }
    }

    /// What is shown is chosen, and not older than what was shown before the call began.
    fn check_shown(
        &mut self,
        kind: &str,
        shown: Option<&VerifiedRegister>,
        version_at_begin: u64,
    ) -> Checked {
        let version = shown.map_or(0, |value| value.version);
        if shown.is_some_and(|shown| !self.chosen().iter().any(|(_, value)| *value == shown)) {
            return Err(format!("{kind}: {shown:?} was never chosen"));
        }
        if kind != "committed" && version < version_at_begin {
            return Err(format!("{kind}: version {version} after {version_at_begin} had been shown"));
        }
        self.shown = self.shown.max(version);
        Ok(())
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

fn must_hold(count: usize, schedules: u64) {
    let mut answers = BTreeMap::<&str, u64>::new();
    let mut copies = BTreeMap::<u64, u64>::new();
    for seed in seeds(schedules) {
        match World::new(seed, count, Quirks::default()).run() {
            Ok(world) => {
                world.answers.into_iter().for_each(|(kind, n)| *answers.entry(kind).or_default() += n);
                world.copies.into_iter().for_each(|(kind, n)| *copies.entry(kind).or_default() += n);
            }
            Err(what) => panic!("{count} nodes, SEED={seed}: {what}"),
        }
    }
    println!("{count} nodes, {schedules} schedules: {answers:?}, copies {copies:?}");
    assert!(answers["committed"] > schedules && answers["conflict"] > 0 && answers["value"] > schedules);
    // Three acceptors answer at two copies; with a mirror there are two copies or, while it is away, one.
    let expected: &[u64] = match count {
        1 => &[1],
        2 => &[1, 2],
        _ => &[2],
    };
    assert_eq!(copies.keys().copied().collect::<Vec<_>>(), expected);
}

#[test]
fn three_nodes_hold_what_must_hold() {
    must_hold(3, 1200);
}

#[test]
fn more_nodes_than_acceptors_hold_what_must_hold() {
    must_hold(5, 300);
}

#[test]
fn an_acceptor_and_a_mirror_hold_what_must_hold() {
    must_hold(2, 300);
}

#[test]
fn one_node_holds_what_must_hold() {
    must_hold(1, 100);
}

#[test]
fn the_implicit_ballot_without_the_empty_check_is_found() {
    let quirks = Quirks { variant: Variant::ImplicitWithoutEmptyCheck, ..Quirks::default() };
    println!("{:?}", find_violation(3, 2000, quirks).expect("a wrong variant that was not found"));
}

#[test]
fn speaking_before_persisting_is_found() {
    let quirks = Quirks { variant: Variant::SpeakBeforePersisting, ..Quirks::default() };
    println!("{:?}", find_violation(3, 2000, quirks).expect("a wrong variant that was not found"));
}

#[test]
fn two_nodes_that_both_skip_the_prepare_are_found() {
    let quirks = Quirks { variant: Variant::EveryoneSkipsPrepare, ..Quirks::default() };
    println!("{:?}", find_violation(3, 2000, quirks).expect("a wrong variant that was not found"));
}

#[test]
fn a_bare_quorum_read_is_found() {
    let quirks = Quirks { variant: Variant::BareQuorumRead, ..Quirks::default() };
    println!("{:?}", find_violation(3, 2000, quirks).expect("a wrong variant that was not found"));
}

#[test]
fn a_wiped_acceptor_with_the_same_identity_is_found() {
    let quirks = Quirks { wipe: true, ..Quirks::default() };
    println!("{:?}", find_violation(3, 2000, quirks).expect("a wrong variant that was not found"));
}

#[test]
fn a_boot_number_used_twice_is_found() {
    let quirks = Quirks { same_boot: true, ..Quirks::default() };
    println!("{:?}", find_violation(3, 4000, quirks).expect("a wrong variant that was not found"));
}

#[test]
fn the_implicit_ballot_again_after_a_restart_is_found() {
    let quirks = Quirks { variant: Variant::ImplicitAgainAfterRestart, ..Quirks::default() };
    println!("{:?}", find_violation(3, 2000, quirks).expect("a wrong variant that was not found"));
}

#[test]
fn ballots_reused_after_a_restart_are_found() {
    let quirks = Quirks { variant: Variant::BallotsReused, ..Quirks::default() };
    println!("{:?}", find_violation(3, 4000, quirks).expect("a wrong variant that was not found"));
}
