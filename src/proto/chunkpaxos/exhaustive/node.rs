//! One node of the checked cluster: the real machine, its disk, the writes on their way there, its clock.
//!
//! A step is a pure function of the node and what happens to it. Reading the disk takes no time here; the
//! clock stands still but for the firing of the timer.

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
};

use crate::{
    model::{Millis, ObjectId, PeerId, limits, register::VerifiedRegister},
    proto::{
        Outbox,
        chunkpaxos::{
            Accepted, AcceptorRecord, Action, Ballot, Body, CallId, ChunkPaxos, Command, Event, Message,
            Outcome, Send, Timer,
        },
        testing::Essence,
    },
};

/// More writes than these never wait for a disk here: what would issue one more does not happen yet.
const WRITES_WAITING_MAX: usize = 2;

/// One node.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) index: usize,
    pub(super) me: PeerId,
    pub(super) machine: ChunkPaxos,
    pub(super) disk: Option<AcceptorRecord>,
    pub(super) writes: VecDeque<Write>,
    pub(super) boot: u64,
    now: Millis,
    timer: Option<Millis>,
    /// Writes are durable as soon as they are issued: right where nothing can be lost any more.
    pub(super) fast_disk: bool,
    /// It will never propose again.
    pub(super) retired: bool,
}

/// A record on its way to disk, and what may be said once it is there.
#[derive(Clone)]
pub(super) struct Write {
    serial: u64,
    record: AcceptorRecord,
    then: Vec<Send>,
}

/// What travels between nodes, and what repair hands in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Word {
    /// A message of the machine.
    Lane(Message),
    /// This is chosen.
    Repair(Accepted),
}

/// What a step leads to.
pub(super) struct Stepped {
    pub(super) node: Node,
    pub(super) sends: Vec<Send>,
    pub(super) answers: Vec<(CallId, Outcome)>,
}

impl Node {
    /// A node that has just started.
    pub(super) fn new(index: usize, me: PeerId, machine: ChunkPaxos, boot: u64, fast_disk: bool) -> Self {
        let (disk, writes) = (None, VecDeque::new());
        let (now, timer) = (Millis(0), None);
        Self { index, me, machine, disk, writes, boot, now, timer, fast_disk, retired: false }
    }

    /// All that decides what it will ever do.
    pub(super) fn essence(&self) -> [u8; 32] {
        let mut into = Essence::default();
        (self.index, self.boot, &self.disk, self.fast_disk, self.retired).hash(&mut into);
        self.machine.essence(!self.retired, &mut into);
        for write in &self.writes {
            (self.machine.writes_after(write.serial), &write.record).hash(&mut into);
            write.says().for_each(|send| send.hash(&mut into));
            into.write_u8(0);
        }
        into.key()
    }

    pub(super) fn has_timer(&self) -> bool {
        self.timer.is_some()
    }

    /// What this acceptor durably accepted.
    pub(super) fn accepted(&self) -> Option<&Accepted> {
        self.disk.as_ref()?.accepted.as_ref()
    }

    /// Whether this request can change nothing here any more, whatever happens.
    pub(super) fn is_past(&self, ballot: &Ballot, value: Option<&VerifiedRegister>) -> bool {
        let Some(disk) = &self.disk else { return false };
        let is_known = self.accepted().is_some_and(|a| a.ballot == *ballot && Some(&a.value) == value);
        let is_below =
            disk.floor().is_some_and(|floor| *ballot < floor || value.is_none() && *ballot == floor);
        is_known || is_below
    }

    pub(super) fn hear(&self, from: PeerId, word: Word, object: ObjectId) -> Option<Stepped> {
        let mut step = self.begin();
        match word {
            Word::Lane(message) => step.feed(Event::Message { from, message }, object),
            Word::Repair(accepted) => step.feed(Event::LateAccept { object, accepted }, object),
        }
        let writes = &step.node.writes;
        let says_the_same = |last: &Write, before: &Write| {
            last.record == before.record && last.says().all(|send| before.then.contains(send))
        };
        let mut newest = writes.iter().rev().take(writes.len() - self.writes.len() + 1);
        let repeated = writes.len() == self.writes.len() + 1
            && newest.next().zip(newest.next()).is_some_and(|(last, before)| says_the_same(last, before));
        // A repeated message whose answer is on its way to disk already is a lost one.
        (!repeated && writes.len() <= WRITES_WAITING_MAX).then_some(step)
    }

    /// The oldest write is durable.
    pub(super) fn sync(&self, object: ObjectId) -> Stepped {
        let mut step = self.begin();
        step.sync(object);
        step
    }

    /// The timer rings; if it was armed for something that is past, it is the next that counts.
    pub(super) fn fire(&self, object: ObjectId) -> Option<Stepped> {
        let mut step = self.begin();
        for _ in 0..4 {
            step.node.now = step.node.now.max(step.node.timer.take()?);
            step.feed(Event::Timer(Timer::Wake), object);
            if !step.is_quiet() || step.node.essence() != self.essence() {
                break;
            }
        }
        (step.node.writes.len() <= WRITES_WAITING_MAX).then_some(step)
    }

    /// The timer rings so late that every call is past its deadline.
    pub(super) fn give_up(&self, object: ObjectId) -> Option<Stepped> {
        let mut step = self.begin();
        step.node.timer.take()?;
        step.node.now = step.node.now + limits::NO_QUORUM;
        step.feed(Event::Timer(Timer::Wake), object);
        Some(step)
    }

    pub(super) fn call(&self, call: CallId, command: Command, object: ObjectId) -> Option<Stepped> {
        let mut step = self.begin();
        step.feed(Event::Call { call, object, command }, object);
        (step.node.writes.len() <= WRITES_WAITING_MAX).then_some(step)
    }

    /// Dies and starts again: what was not durable is lost. Being down is being slow, so it takes no time.
    pub(super) fn restart(&self, machine: ChunkPaxos, boot: u64, wipe: bool, fast_disk: bool) -> Stepped {
        let mut node = Node::new(self.index, self.me, machine, boot, fast_disk);
        node.disk = self.disk.clone().filter(|_| !wipe);
        Stepped { node, sends: Vec::new(), answers: Vec::new() }
    }

    /// From now on it only accepts.
    pub(super) fn retire(&self) -> Stepped {
        let mut step = self.begin();
        step.node.retired = true;
        step
    }

    fn begin(&self) -> Stepped {
        Stepped { node: self.clone(), sends: Vec::new(), answers: Vec::new() }
    }
}

impl Write {
    /// What it says but for the notice that it is durable.
    fn says(&self) -> impl Iterator<Item = &Send> {
        self.then.iter().filter(|send| !matches!(send.message.body, Body::Written { .. }))
    }
}

impl Stepped {
    fn is_quiet(&self) -> bool {
        self.sends.is_empty() && self.answers.is_empty()
    }

    /// Hands one event in and does what the machine says.
    pub(super) fn feed(&mut self, event: Event, object: ObjectId) {
        let mut out = Outbox::new();
        self.node.machine.handle(self.node.now, event, &mut out);
        for action in out.drain() {
            match action {
                Action::Send(send) => self.sends.push(send),
                Action::Write { serial, record, then, .. } => {
                    self.node.writes.push_back(Write { serial, record, then });
                }
                Action::Load { .. } => {
                    assert!(self.node.writes.is_empty(), "a record is never read while it is being written");
                    let record = self.node.disk.clone();
                    self.feed(Event::Loaded { object, record }, object);
                }
                Action::WriteFence { .. } | Action::Scan { .. } | Action::Installed { .. } => {
                    unreachable!("nothing is handed over here")
                }
                Action::Arm { at, .. } => self.node.timer = Some(at),
                Action::Answer { call, answer } => self.answers.push((call, answer.outcome)),
            }
        }
        while self.node.fast_disk && !self.node.writes.is_empty() {
            self.sync(object);
        }
    }

    fn sync(&mut self, object: ObjectId) {
        let Some(write) = self.node.writes.pop_front() else { return };
        self.node.disk = Some(write.record);
        for send in write.then {
            if send.to == self.node.me {
                let event = Event::Message { from: send.to, message: send.message };
                self.feed(event, object);
            } else {
                self.sends.push(send);
            }
        }
    }
}
