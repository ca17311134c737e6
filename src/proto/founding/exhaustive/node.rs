//! One node of the checked founding: the real machine, its disk, the writes on their way there, its clock.
//!
//! The clock stands still, or jumps by so much that everybody else has been silent for too long.

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
};

use super::Bounds;
use crate::{
    model::{Millis, PeerId, limits},
    proto::{
        Outbox,
        founding::{Action, Config, Event, FoundingMachine, FoundingRecord, Message, Send, Timer},
        testing::{Essence, incarnation, peers},
    },
};

/// One node.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) index: usize,
    pub(super) boot: u8,
    machine: FoundingMachine,
    pub(super) disk: FoundingRecord,
    pub(super) writes: VecDeque<(FoundingRecord, Vec<Send>)>,
    now: Millis,
}

/// What a step leads to.
pub(super) struct Stepped {
    pub(super) node: Node,
    pub(super) sends: Vec<Send>,
}

impl Node {
    /// A node that has just started and sees all others.
    pub(super) fn start(index: usize, boot: u8, disk: FoundingRecord, bounds: &Bounds) -> Stepped {
        let all = peers(bounds.nodes);
        let machine = FoundingMachine::new(Config {
            me: all[index],
            incarnation: incarnation(&all[index]),
            expect: bounds.expect,
            key_was_there: true,
            record: (disk != FoundingRecord::default()).then(|| disk.clone()),
            seed: [index as u8 * 16 + boot; 32],
            variant: bounds.variant,
        });
        let (writes, now) = (VecDeque::new(), Millis(0));
        let node = Node { index, boot, machine, disk, writes, now };
        let mut step = Stepped { node, sends: Vec::new() };
        step.feed(Event::Start);
        let me = all[index];
        for peer in all.into_iter().filter(|peer| *peer != me) {
            step.feed(Event::Connected { peer });
        }
        step.end()
    }

    fn me(&self) -> PeerId {
        self.machine.config.me
    }

    /// All that decides what it will ever do.
    pub(super) fn essence(&self) -> [u8; 32] {
        let mut into = Essence::default();
        (self.index, self.boot, &self.disk).hash(&mut into);
        self.machine.essence(self.now, &mut into);
        for (record, sends) in &self.writes {
            record.hash(&mut into);
            for send in sends {
                (send.to, &send.message).hash(&mut into);
            }
            into.write_u8(0);
        }
        into.key()
    }

    pub(super) fn proposals(&self) -> u64 {
        self.machine.proposals()
    }

    pub(super) fn is_pristine(&self) -> bool {
        self.machine.is_pristine()
    }

    /// These arrive one after the other, and what they say is remembered meanwhile.
    pub(super) fn hear(&self, words: &[(PeerId, &Message)]) -> Stepped {
        let mut step = self.begin();
        for (from, message) in words {
            step.feed(Event::Message { from: *from, message: (*message).clone() });
        }
        step.end()
    }

    pub(super) fn tick(&self) -> Stepped {
        let mut step = self.begin();
        step.feed(Event::Timer(Timer::Tick));
        step.end()
    }

    /// Long passes, here alone.
    pub(super) fn wait(&self) -> Stepped {
        let mut step = self.begin();
        step.node.now = step.node.now + limits::FOUNDING_SILENCE;
        step
    }

    /// The oldest write is durable.
    pub(super) fn sync(&self) -> Stepped {
        let mut step = self.begin();
        let Some((record, then)) = step.node.writes.pop_front() else { return step };
        step.node.disk = record;
        for Send { to, message } in then {
            if to == step.node.me() {
                step.feed(Event::Message { from: to, message });
            } else {
                step.sends.push(Send { to, message });
            }
        }
        step.end()
    }

    fn begin(&self) -> Stepped {
        Stepped { node: self.clone(), sends: Vec::new() }
    }
}

impl Stepped {
    /// Forgets what was heard, and says at once what every tick from now on says: it may be lost for ever
    /// anyway.
    fn end(mut self) -> Self {
        self.node.machine.forget();
        let mut ticked = Self { node: self.node.clone(), sends: Vec::new() };
        ticked.feed(Event::Timer(Timer::Tick));
        ticked.node.machine.forget();
        if ticked.node.essence() == self.node.essence() {
            self.sends.append(&mut ticked.sends);
        }
        self
    }

    fn feed(&mut self, event: Event) {
        let mut out = Outbox::new();
        self.node.machine.handle(self.node.now, event, &mut out);
        for action in out.drain() {
            match action {
                Action::Send(send) => self.sends.push(send),
                Action::Write { record, then } => self.node.writes.push_back((record, then)),
                Action::Arm { .. } | Action::Publicise(_) => {}
            }
        }
    }
}
