//! The acceptor, and the mirror: what one node promises and keeps of each object.
//!
//! Its state lies on disk; here are the records in use. It never says what is not durable: an answer that
//! shows a state still on its way to disk rides on a write of that state.

#[cfg(test)]
mod essence;

use std::collections::VecDeque;

use super::{
    Action, Desk, Local, Send, Variant,
    ballot::Ballot,
    lru::Lru,
    messages::{Accepted, Body, Message, RoundId},
    record::AcceptorRecord,
};
use crate::model::{ObjectId, PeerId, limits, register::VerifiedRegister, slots::HashSlot};

/// The records in use of one node.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Acceptor {
    entries: Lru<Entry>,
    serial: u64,
}

/// One object's record in memory.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
struct Entry {
    /// None while it is being read from disk.
    record: Option<AcceptorRecord>,
    waiting: VecDeque<Input>,
    writes_in_flight: u32,
    last_serial: u64,
    /// The record is not known to be durable as it stands here.
    dirty: bool,
}

/// What is asked of an acceptor or mirror.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) enum Input {
    /// By a message, which was allowed when it came.
    Message { from: PeerId, message: Message },
    /// By this node's proposer, the object's home: if the record is empty, accept this and only then send
    /// it on.
    First { round: RoundId, ballot: Ballot, value: VerifiedRegister, next: Option<Ballot> },
    /// By repair: this is chosen.
    Late(Accepted),
}

impl Entry {
    fn may_go(&self) -> bool {
        self.record.is_some() && self.writes_in_flight == 0
    }
}

impl Acceptor {
    pub(super) fn new() -> Self {
        Self { entries: Lru::new(limits::PAXOS_RECORDS_CACHED_MAX), serial: 0 }
    }

    /// Does what is asked, now or once the record is loaded; drops it if too much waits already.
    pub(super) fn submit(&mut self, object: ObjectId, input: Input, desk: &mut Desk<'_>) {
        if self.entries.touch(&object).is_none() {
            if !self.entries.insert(object, Entry::default(), Entry::may_go) {
                return decline(object, input, desk);
            }
            desk.out.push(Action::Load { object });
        }
        let Some(entry) = self.entries.touch(&object) else { return };
        if entry.record.is_some() {
            self.process(object, input, desk);
        } else if entry.waiting.len() < limits::PAXOS_WAITING_PER_OBJECT_MAX {
            entry.waiting.push_back(input);
        } else {
            decline(object, input, desk);
        }
    }

    /// The record came from disk, or there is none.
    pub(super) fn loaded(&mut self, object: ObjectId, record: Option<AcceptorRecord>, desk: &mut Desk<'_>) {
        let Some(entry) = self.entries.touch(&object).filter(|e| e.record.is_none()) else { return };
        entry.record = Some(record.unwrap_or_else(AcceptorRecord::empty));
        for input in std::mem::take(&mut entry.waiting) {
            self.process(object, input, desk);
        }
    }

    /// The record cannot be read: what waited is lost, and the next asks the disk again.
    pub(super) fn load_failed(&mut self, object: ObjectId, desk: &mut Desk<'_>) {
        if self.entries.touch(&object).is_none_or(|e| e.record.is_some()) {
            return;
        }
        let entry = self.entries.remove(&object).unwrap_or_default();
        entry.waiting.into_iter().for_each(|input| decline(object, input, desk));
    }

    /// Drops what is known of a slot, but for what is on its way to disk or from it: what the disk has
    /// refused is never to come there later, for it was accepted by nobody.
    pub(super) fn forget(&mut self, slot: HashSlot) {
        self.entries.retain(|object, entry| HashSlot::of(object) != slot || !entry.may_go());
    }

    /// A write ended; `durable` or refused. What the disk has refused was shown to nobody and is forgotten,
    /// as by a restart: what the disk has holds, and can be told also while it takes nothing new.
    pub(super) fn write_ended(&mut self, object: ObjectId, serial: u64, durable: bool) {
        let Some(entry) = self.entries.touch(&object) else { return };
        entry.writes_in_flight = entry.writes_in_flight.saturating_sub(1);
        if durable && serial == entry.last_serial {
            entry.dirty = false;
        }
        if entry.dirty && entry.writes_in_flight == 0 {
            self.entries.remove(&object);
        }
    }

    fn process(&mut self, object: ObjectId, input: Input, desk: &mut Desk<'_>) {
        let slot = desk.slots.of(&object);
        let may_be = match &input {
            Input::First { ballot, .. } => slot.serves(ballot.epoch),
            Input::Late(Accepted { ballot, .. }) => slot.serves(ballot.epoch) && slot.active.counts(ballot),
            Input::Message { from, message } => desk.allows(from, message),
        };
        if !may_be {
            return decline(object, input, desk);
        }
        match input {
            Input::First { round, ballot, value, next } => {
                self.first(object, round, ballot, value, next, desk)
            }
            Input::Late(accepted) => self.late(object, accepted, desk),
            Input::Message { from, message } => self.on_message(from, message, desk),
        }
    }

    fn on_message(&mut self, from: PeerId, message: Message, desk: &mut Desk<'_>) {
        let Message { epoch, object, round, body } = message;
        let Some(record) = self.record(&object) else { return };
        match body {
            Body::Prepare { ballot } => {
                let again = desk.config.variant == Variant::BallotsReused;
                if record.floor().is_some_and(|floor| ballot < floor || ballot == floor && !again) {
                    return self.refuse(object, from, round, ballot, desk);
                }
                record.promised = Some(ballot);
                let accepted = record.accepted.clone();
                let promise = desk.message(object, round, Body::Promise { ballot, accepted });
                self.persist(object, vec![Send { to: from, message: promise }], desk);
            }
            Body::Accept { ballot, value, next } => {
                self.on_accept(object, from, round, Accepted { ballot, value }, next, desk);
            }
            Body::Query => {
                let state = Body::State { accepted: record.accepted.clone() };
                let message = desk.message(object, round, state);
                self.say(object, vec![Send { to: from, message }], desk);
            }
            Body::Fetch { .. } => {
                let body = Body::Fetched { accepted: record.accepted.clone() };
                let message = Message { epoch, object, round, body };
                self.say(object, vec![Send { to: from, message }], desk);
            }
            Body::Install { ballot, value, .. } => {
                let body = Body::Installed { ballot };
                let answer = Send { to: from, message: Message { epoch, object, round, body } };
                self.on_install(object, Accepted { ballot, value }, answer, desk);
            }
            Body::Mirror { ballot, value } => self.on_mirror(object, round, Accepted { ballot, value }, desk),
            _ => desk.counters.ignored += 1,
        }
    }

    fn on_accept(
        &mut self,
        object: ObjectId,
        from: PeerId,
        round: RoundId,
        new: Accepted,
        next: Option<Ballot>,
        desk: &mut Desk<'_>,
    ) {
        let Some(record) = self.record(&object) else { return };
        let ballot = new.ballot;
        let again = desk.config.variant == Variant::BallotsReused;
        let is_known = |old: &&Accepted| old.ballot == ballot && (!again || old.value == new.value);
        if let Some(old) = record.accepted.as_ref().filter(is_known) {
            if old.value != new.value {
                // A ballot carries one value for ever; whoever sends a second one gets no word for it.
                desk.counters.ignored += 1;
                return;
            }
            let sends = accepted_sends(object, from, round, &new, record.promised == next, desk);
            return self.say(object, sends, desk);
        }
        let allowed = if desk.is_implicit(&object, &ballot) {
            record.is_empty() || desk.config.variant == Variant::ImplicitWithoutEmptyCheck
        } else {
            record.floor().is_none_or(|floor| ballot >= floor)
        };
        if !allowed {
            return self.refuse(object, from, round, ballot, desk);
        }
        record.promised = next;
        record.accepted = Some(new.clone());
        let sends = accepted_sends(object, from, round, &new, true, desk);
        self.persist(object, sends, desk);
    }

    /// Empty check and acceptance are one step; others hear of it once it is durable here.
    fn first(
        &mut self,
        object: ObjectId,
        round: RoundId,
        ballot: Ballot,
        value: VerifiedRegister,
        next: Option<Ballot>,
        desk: &mut Desk<'_>,
    ) {
        let Some(record) = self.record(&object) else { return };
        let counts = match desk.config.variant {
            Variant::ImplicitWithoutEmptyCheck => false,
            Variant::ImplicitAgainAfterRestart => !record.is_of_earlier_start(&ballot),
            _ => true,
        };
        if counts && !record.is_empty() {
            desk.local.push_back(Local::FirstDeclined { object, round });
            return;
        }
        let new = Accepted { ballot, value };
        record.promised = next;
        record.accepted = Some(new.clone());
        let me = desk.config.me;
        let mut sends = accepted_sends(object, me, round, &new, true, desk);
        for acceptor in desk.view(&object).keepers.acceptors.iter().filter(|a| **a != me) {
            let body = Body::Accept { ballot, value: new.value.clone(), next };
            sends.push(Send { to: *acceptor, message: desk.message(object, round, body) });
        }
        self.persist(object, sends, desk);
    }

    fn on_mirror(&mut self, object: ObjectId, round: RoundId, new: Accepted, desk: &mut Desk<'_>) {
        let (Some(record), Some(proposer)) = (self.record(&object), desk.proposer_of(&new.ballot)) else {
            return;
        };
        let message = desk.message(object, round, Body::Mirrored { ballot: new.ballot });
        let sends = vec![Send { to: proposer, message }];
        if record.accepted.as_ref().is_some_and(|old| old.ballot >= new.ballot) {
            return self.say(object, sends, desk);
        }
        record.accepted = Some(new);
        self.persist(object, sends, desk);
    }

    /// As an accept, in an epoch that is not in use here yet; the mirror to be takes it too. Below a promise
    /// or an acceptance there is nothing to say: only a later attempt or a later epoch can have been here.
    fn on_install(&mut self, object: ObjectId, new: Accepted, answer: Send, desk: &mut Desk<'_>) {
        let Some(record) = self.record(&object) else { return };
        if record.accepted.as_ref().is_some_and(|old| *old == new) {
            return self.say(object, vec![answer], desk);
        }
        let copied = desk.config.variant == Variant::InstallOldBallot;
        if copied && record.accepted.as_ref().is_some_and(|old| old.ballot > new.ballot) {
            return self.say(object, vec![answer], desk);
        }
        if !copied && record.floor().is_some_and(|floor| new.ballot <= floor) {
            desk.counters.ignored += 1;
            return;
        }
        record.promised = record.promised.filter(|_| copied);
        record.accepted = Some(new);
        self.persist(object, vec![answer], desk);
    }

    /// What is chosen may be accepted below a promise: that ballot's proposer has seen this value, or one
    /// after it, in the promises of its majority.
    fn late(&mut self, object: ObjectId, new: Accepted, desk: &mut Desk<'_>) {
        let Some(record) = self.record(&object) else { return };
        if record.accepted.as_ref().is_none_or(|old| old.ballot < new.ballot) {
            record.accepted = Some(new);
            self.persist(object, Vec::new(), desk);
        }
    }

    fn refuse(&mut self, object: ObjectId, to: PeerId, round: RoundId, ballot: Ballot, desk: &mut Desk<'_>) {
        let Some(floor) = self.record(&object).and_then(|record| record.floor()) else { return };
        let message = desk.message(object, round, Body::Refused { ballot, floor });
        self.say(object, vec![Send { to, message }], desk);
    }

    /// Says something that shows the record as it is: at once if that is durable, else behind a write of it.
    fn say(&mut self, object: ObjectId, sends: Vec<Send>, desk: &mut Desk<'_>) {
        if self.entries.touch(&object).is_some_and(|e| e.dirty) {
            return self.persist(object, sends, desk);
        }
        sends.into_iter().for_each(|send| desk.send(send));
    }

    /// Writes the record as it is, then does the sends.
    fn persist(&mut self, object: ObjectId, mut sends: Vec<Send>, desk: &mut Desk<'_>) {
        let Some(entry) = self.entries.touch(&object) else { return };
        let Some(record) = entry.record.clone() else { return };
        self.serial += 1;
        let serial = self.serial;
        entry.last_serial = serial;
        entry.writes_in_flight += 1;
        entry.dirty = true;
        if desk.config.variant == Variant::SpeakBeforePersisting {
            sends.drain(..).for_each(|send| desk.send(send));
        }
        desk.counters.sent += sends.iter().filter(|s| s.to != desk.config.me).count() as u64;
        let round = RoundId { boot: desk.config.boot, number: 0 };
        let written = desk.message(object, round, Body::Written { serial });
        sends.push(Send { to: desk.config.me, message: written });
        desk.out.push(Action::Write { object, serial, record, then: sends });
    }

    fn record(&mut self, object: &ObjectId) -> Option<&mut AcceptorRecord> {
        self.entries.touch(object)?.record.as_mut()
    }
}

/// The proposer hears of an acceptance, and the mirror gets its copy.
fn accepted_sends(
    object: ObjectId,
    proposer: PeerId,
    round: RoundId,
    new: &Accepted,
    next_promised: bool,
    desk: &Desk<'_>,
) -> Vec<Send> {
    let body = Body::Accepted { ballot: new.ballot, next_promised };
    let mut sends = vec![Send { to: proposer, message: desk.message(object, round, body) }];
    if let Some(mirror) = desk.view(&object).keepers.mirror {
        let body = Body::Mirror { ballot: new.ballot, value: new.value.clone() };
        sends.push(Send { to: mirror, message: desk.message(object, round, body) });
    }
    sends
}

/// An input that cannot be taken is a lost message; only the proposer of this node is told.
fn decline(object: ObjectId, input: Input, desk: &mut Desk<'_>) {
    desk.counters.ignored += 1;
    if let Input::First { round, .. } = input {
        desk.local.push_back(Local::FirstDeclined { object, round });
    }
}
