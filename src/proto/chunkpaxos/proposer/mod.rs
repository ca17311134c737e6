//! The proposer: takes calls, brings each to an answer within its deadline, one at a time for each object.
//!
//! It keeps nothing on disk. A ballot of its carries one value for ever: counters only grow, the boot
//! number is of this start, and a prepared ballot is used up by the first accept that carries it.

mod elsewhere;
#[cfg(test)]
mod essence;
mod judge;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    Action, Answer, CallId, Config, Desk, Local, Send, Variant, View,
    acceptor::Input,
    alarms::{Alarms, Due},
    ballot::Ballot,
    lru::Lru,
    messages::{Accepted, Body, Command, Outcome, RoundId},
    round::{Current, Ending, Phase, Reports, Round, Verdict, Writing, follows, verdict},
};
use crate::model::{Millis, ObjectId, PeerId, limits, register::VerifiedRegister, slots::HashSlot};

/// The proposer of one node.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Proposer {
    counter: u64,
    rounds: u64,
    work: BTreeMap<ObjectId, Work>,
    ballots: Lru<Prepared>,
    asks: BTreeMap<u64, Ask>,
    forwards: BTreeMap<u64, Forward>,
    /// Calls in `work`, `asks` and `forwards` together.
    calls: usize,
    alarms: Alarms,
    dice: blake3::OutputReader,
}

/// The calls for one object; the first is in progress.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
struct Work {
    queue: VecDeque<Task>,
    round: Option<Round>,
}

#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
struct Task {
    caller: Caller,
    command: Command,
    deadline: Millis,
    messages: u64,
    lost_duels: u32,
    /// Its value may have been accepted somewhere already, for this call.
    tried: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Caller {
    Here(CallId),
    Peer(PeerId, RoundId),
}

/// A ballot that a majority has promised and that carries nothing yet, and the value chosen just before it.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
struct Prepared {
    ballot: Ballot,
    current: VerifiedRegister,
}

/// A question for the newest known value.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
struct Ask {
    call: CallId,
    object: ObjectId,
    asked: usize,
    states: Reports,
}

/// A call that the object's home does for us.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
struct Forward {
    call: CallId,
    object: ObjectId,
    home: PeerId,
    command: Command,
    deadline: Millis,
}

impl std::fmt::Debug for Proposer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proposer")
            .field("counter", &self.counter)
            .field("work", &self.work)
            .finish_non_exhaustive()
    }
}

impl Task {
    /// A conflict says that the proposal was not done and never will be. Who has tried it and finds so many
    /// later versions that none tells of it does not know that.
    fn what_is_known(&self, outcome: Outcome) -> Outcome {
        match (&self.command, &outcome) {
            (Command::Propose { value }, Outcome::Conflict { current: Some(current) })
                if self.tried && current.has_forgotten(value.version) =>
            {
                Outcome::NoQuorum
            }
            _ => outcome,
        }
    }
}

impl Proposer {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            counter: 0,
            rounds: 0,
            work: BTreeMap::new(),
            ballots: Lru::new(limits::PAXOS_BALLOTS_CACHED_MAX),
            asks: BTreeMap::new(),
            forwards: BTreeMap::new(),
            calls: 0,
            alarms: Alarms::default(),
            dice: blake3::Hasher::new_keyed(&config.seed).finalize_xof(),
        }
    }

    /// Every later ballot of this node is above this one.
    pub(super) fn observe(&mut self, ballot: &Ballot) {
        self.counter = self.counter.max(ballot.counter);
    }

    /// A call of this node's driver.
    pub(super) fn call(&mut self, call: CallId, object: ObjectId, command: Command, desk: &mut Desk<'_>) {
        if self.calls >= limits::PAXOS_CALLS_MAX {
            return answer(Caller::Here(call), object, Outcome::Busy, 0, desk);
        }
        let home = desk.home(&object).filter(|home| *home != desk.config.me && desk.reachable.contains(home));
        match (command, home) {
            (Command::ReadAny, _) => self.ask(call, object, desk),
            (command, Some(home)) => self.forward(call, object, home, command, desk),
            (command, None) => {
                self.enqueue(object, Caller::Here(call), command, desk.now + limits::NO_QUORUM, desk)
            }
        }
    }

    /// A member forwarded a call, because it takes this node for the object's home.
    pub(super) fn on_forward(
        &mut self,
        from: PeerId,
        object: ObjectId,
        round: RoundId,
        command: Command,
        desk: &mut Desk<'_>,
    ) {
        let caller = Caller::Peer(from, round);
        if self.calls >= limits::PAXOS_CALLS_MAX {
            return answer(caller, object, Outcome::Busy, 0, desk);
        }
        desk.say(from, object, round, Body::Taken);
        let known = self.work.get(&object).is_some_and(|work| work.queue.iter().any(|t| t.caller == caller));
        if !known {
            self.enqueue(object, caller, command, desk.now + limits::NO_QUORUM, desk);
        }
    }

    /// A message that answers one of this proposer's.
    pub(super) fn on_message(
        &mut self,
        from: PeerId,
        object: ObjectId,
        round: RoundId,
        body: Body,
        desk: &mut Desk<'_>,
    ) {
        if round.boot != desk.config.boot {
            desk.counters.ignored += 1;
            return;
        }
        match body {
            Body::Taken => self.on_taken(round.number, from, desk.now),
            Body::Answered { answer } => self.on_answered(round.number, from, answer, desk),
            Body::State { accepted } if self.asks.contains_key(&round.number) => {
                self.on_asked(round.number, from, accepted, desk);
            }
            body => self.on_round(from, object, round, body, desk),
        }
    }

    /// The record was not empty, or could not be had: a full round.
    pub(super) fn on_first_declined(&mut self, object: ObjectId, round: RoundId, desk: &mut Desk<'_>) {
        if self.round(&object).is_none_or(|r| r.id != round) {
            return;
        }
        if let Some(task) = self.work.get_mut(&object).and_then(|work| work.queue.front_mut()) {
            task.messages = 0;
        }
        self.prepare(object, desk);
    }

    /// What is known of a connection.
    pub(super) fn on_reachable(&mut self, peer: PeerId, reachable: bool, desk: &mut Desk<'_>) {
        if reachable {
            desk.reachable.insert(peer);
            return;
        }
        desk.reachable.remove(&peer);
        let waiting: Vec<u64> =
            self.forwards.iter().filter(|(_, f)| f.home == peer).map(|(n, _)| *n).collect();
        waiting.into_iter().for_each(|number| self.propose_here(number, desk));
        let objects: Vec<ObjectId> = self.work.keys().copied().collect();
        objects.into_iter().for_each(|object| self.finish_if_written(object, desk));
    }

    /// Does what is due, and says when to wake up next.
    pub(super) fn on_wake(&mut self, desk: &mut Desk<'_>) {
        while let Some(due) = self.alarms.pop(desk.now) {
            match due {
                Due::Work(object) => self.on_work_due(object, desk),
                Due::Ask(number) => self.finish_ask(number, desk),
                Due::Forward(number) => self.propose_here(number, desk),
            }
        }
    }

    /// When something is due.
    pub(super) fn next_alarm(&self) -> Option<Millis> {
        self.alarms.first()
    }

    /// The slot's view is a new one: nothing that was promised in the old one counts, and what is in progress
    /// begins again with a full round. Callers keep their deadlines. What a node that is the home no more was
    /// asked to do is proposed here.
    pub(super) fn activated(&mut self, slot: HashSlot, desk: &mut Desk<'_>) {
        self.counter = self.counter.max(desk.slots.get(slot).active.first_counter);
        self.ballots.retain(|object, _| HashSlot::of(object) != slot);
        let of_slot = |object: &&ObjectId| HashSlot::of(object) == slot;
        let objects: Vec<ObjectId> = self.work.keys().filter(of_slot).copied().collect();
        objects.into_iter().for_each(|object| self.prepare(object, desk));
        let moved = |f: &Forward| of_slot(&&f.object) && desk.home(&f.object) != Some(f.home);
        let numbers: Vec<u64> = self.forwards.iter().filter(|(_, f)| moved(f)).map(|(n, _)| *n).collect();
        numbers.into_iter().for_each(|number| self.propose_here(number, desk));
    }

    // ---- calls done here ----

    fn enqueue(
        &mut self,
        object: ObjectId,
        caller: Caller,
        command: Command,
        deadline: Millis,
        desk: &mut Desk<'_>,
    ) {
        let work = self.work.entry(object).or_default();
        if work.queue.len() >= limits::PAXOS_CALLS_PER_OBJECT_MAX {
            return answer(caller, object, Outcome::Busy, 0, desk);
        }
        self.calls += 1;
        work.queue.push_back(Task { caller, command, deadline, messages: 0, lost_duels: 0, tried: false });
        if work.queue.len() == 1 {
            self.begin(object, desk);
        }
        self.rearm(object);
    }

    /// Begins the first call of the queue.
    fn begin(&mut self, object: ObjectId, desk: &mut Desk<'_>) {
        let Some(task) = self.work.get(&object).and_then(|work| work.queue.front()) else {
            self.work.remove(&object);
            return self.alarms.clear(Due::Work(object));
        };
        if task.deadline <= desk.now {
            return self.finish(object, Outcome::NoQuorum, desk);
        }
        match task.command.clone() {
            Command::Propose { value } => self.begin_proposal(object, value, desk),
            Command::Read | Command::ReadAny => self.query(object, desk),
            Command::Settle => self.prepare(object, desk),
        }
    }

    fn begin_proposal(&mut self, object: ObjectId, value: VerifiedRegister, desk: &mut Desk<'_>) {
        match self.ballots.touch(&object).map(|prepared| follows(&value, Some(&prepared.current))) {
            Some(true) => {
                let prepared = self.ballots.remove(&object).map(|prepared| prepared.ballot);
                let Some(ballot) = prepared else { return };
                self.write(object, ballot, value, Ending::Commit, desk);
            }
            // A retry, a conflict, or another proposer was here: first see.
            Some(false) => self.query(object, desk),
            None if value.version == 1 && desk.may_begin_unprepared(&object) => {
                self.first(object, value, desk);
            }
            None => self.prepare(object, desk),
        }
    }

    /// The one round without a prepare that needs no cached ballot: see the acceptor.
    fn first(&mut self, object: ObjectId, value: VerifiedRegister, desk: &mut Desk<'_>) {
        let Some(node) = desk.my_number() else { return };
        let View { epoch, first_counter: counter, .. } = *desk.view(&object);
        let ballot = Ballot { epoch, counter, node, boot: desk.ballot_boot() };
        self.note_tried(&object);
        let next = self.fresh_ballot(&object, desk);
        let id = self.enter(
            object,
            Phase::Accept(Writing::new(ballot, value.clone(), next, Ending::Commit)),
            desk,
        );
        self.count(&object, desk.view(&object).keepers.acceptors.len() + desk.mirrors(&object));
        let input = Input::First { round: id, ballot, value, next };
        desk.local.push_back(Local::Acceptor { object, input });
    }

    fn query(&mut self, object: ObjectId, desk: &mut Desk<'_>) {
        let id = self.enter(object, Phase::Query { states: Reports::default() }, desk);
        self.ask_acceptors(object, id, Body::Query, |_| true, desk);
    }

    fn prepare(&mut self, object: ObjectId, desk: &mut Desk<'_>) {
        self.ballots.remove(&object);
        let Some(ballot) = self.fresh_ballot(&object, desk) else { return };
        let id = self.enter(
            object,
            Phase::Prepare { ballot, promises: Reports::default(), refused: BTreeSet::new() },
            desk,
        );
        self.ask_acceptors(object, id, Body::Prepare { ballot }, |_| true, desk);
    }

    fn write(
        &mut self,
        object: ObjectId,
        ballot: Ballot,
        value: VerifiedRegister,
        ending: Ending,
        desk: &mut Desk<'_>,
    ) {
        if ending == Ending::Commit {
            self.note_tried(&object);
        }
        let next = if desk.is_home(&object) { self.fresh_ballot(&object, desk) } else { None };
        let id = self.enter(object, Phase::Accept(Writing::new(ballot, value.clone(), next, ending)), desk);
        self.count(&object, desk.mirrors(&object));
        self.ask_acceptors(object, id, Body::Accept { ballot, value, next }, |_| true, desk);
    }

    fn back_off(&mut self, object: ObjectId, desk: &mut Desk<'_>) {
        let Some(task) = self.work.get_mut(&object).and_then(|work| work.queue.front_mut()) else { return };
        task.lost_duels += 1;
        let longest = (limits::PAXOS_BACKOFF.0 << task.lost_duels.min(8)).min(limits::PAXOS_BACKOFF_MAX.0);
        let mut bytes = [0; 8];
        self.dice.fill(&mut bytes);
        let wake = desk.now + Millis(1 + u64::from_le_bytes(bytes) % longest);
        self.enter(object, Phase::Backoff, desk);
        if let Some(round) = self.round(&object) {
            round.wake = wake;
        }
        self.rearm(object);
    }

    // ---- time ----

    fn on_work_due(&mut self, object: ObjectId, desk: &mut Desk<'_>) {
        let Some(work) = self.work.get_mut(&object) else { return };
        let first = work.queue.front().map(|task| task.deadline);
        let (late, kept) = work
            .queue
            .drain(..)
            .partition::<VecDeque<_>, _>(|task| task.deadline <= desk.now && first != Some(task.deadline));
        work.queue = kept;
        self.calls -= late.len();
        late.into_iter().for_each(|t| answer(t.caller, object, Outcome::NoQuorum, t.messages, desk));
        if first.is_some_and(|deadline| deadline <= desk.now) {
            return self.on_deadline(object, desk);
        }
        if self.round(&object).is_some_and(|round| round.wake <= desk.now) {
            self.on_phase_due(object, desk);
        }
        self.rearm(object);
    }

    fn on_deadline(&mut self, object: ObjectId, desk: &mut Desk<'_>) {
        match self.round(&object).map(|round| &round.phase) {
            Some(Phase::Accept(writing)) if writing.chosen_at.is_some() => self.finish_written(object, desk),
            _ => self.finish(object, Outcome::NoQuorum, desk),
        }
    }

    fn on_phase_due(&mut self, object: ObjectId, desk: &mut Desk<'_>) {
        let majority = desk.view(&object).keepers.majority();
        let me = desk.config.me;
        let Some(round) = self.round(&object) else { return };
        round.wake = desk.now + limits::PAXOS_PHASE;
        let id = round.id;
        match &round.phase {
            Phase::Backoff | Phase::Prepare { .. } => self.prepare(object, desk),
            Phase::Query { states } if states.0.len() >= majority => self.prepare(object, desk),
            Phase::Query { states } => {
                let heard: BTreeSet<PeerId> = states.0.keys().copied().collect();
                self.ask_acceptors(object, id, Body::Query, |peer| !heard.contains(peer), desk);
            }
            Phase::Accept(writing) => {
                let (ballot, value, next) = (writing.ballot, writing.value.clone(), writing.next);
                let heard: BTreeSet<PeerId> = writing.accepted.keys().copied().collect();
                let implicit = desk.is_implicit(&object, &ballot);
                if let Some(chosen_at) = writing.chosen_at {
                    if desk.now >= chosen_at + limits::NO_PROGRESS {
                        return self.finish_written(object, desk);
                    }
                    round.wake = chosen_at + limits::NO_PROGRESS;
                    self.ask_acceptors(object, id, Body::Accept { ballot, value, next }, |_| true, desk);
                } else if !writing.refused.is_empty() || (implicit && !heard.contains(&me)) {
                    self.prepare(object, desk);
                } else {
                    let body = Body::Accept { ballot, value, next };
                    self.ask_acceptors(object, id, body, |peer| !heard.contains(peer), desk);
                }
            }
        }
    }

    // ---- small steps ----

    /// Answers the first call and begins the next.
    fn finish(&mut self, object: ObjectId, outcome: Outcome, desk: &mut Desk<'_>) {
        let Some(work) = self.work.get_mut(&object) else { return };
        work.round = None;
        let Some(task) = work.queue.pop_front() else { return };
        self.calls -= 1;
        let outcome = task.what_is_known(outcome);
        if matches!(outcome, Outcome::Committed { .. }) {
            desk.counters.commits += 1;
            desk.counters.home_commits += u64::from(desk.is_home(&object));
            desk.counters.commit_messages += task.messages;
        }
        answer(task.caller, object, outcome, task.messages, desk);
        self.begin(object, desk);
        self.rearm(object);
    }

    fn enter(&mut self, object: ObjectId, phase: Phase, desk: &Desk<'_>) -> RoundId {
        let id = self.next_round(desk);
        if let Some(work) = self.work.get_mut(&object) {
            work.round = Some(Round { id, phase, wake: desk.now + limits::PAXOS_PHASE });
        }
        self.rearm(object);
        id
    }

    fn ask_acceptors(
        &mut self,
        object: ObjectId,
        round: RoundId,
        body: Body,
        whom: impl Fn(&PeerId) -> bool,
        desk: &mut Desk<'_>,
    ) {
        let peers: Vec<PeerId> =
            desk.view(&object).keepers.acceptors.iter().filter(|p| whom(p)).copied().collect();
        self.count(&object, peers.len());
        peers.into_iter().for_each(|peer| desk.say(peer, object, round, body.clone()));
    }

    fn note_tried(&mut self, object: &ObjectId) {
        if let Some(task) = self.work.get_mut(object).and_then(|work| work.queue.front_mut()) {
            task.tried = true;
        }
    }

    /// Counts questions, each with its answer.
    fn count(&mut self, object: &ObjectId, questions: usize) {
        if let Some(task) = self.work.get_mut(object).and_then(|work| work.queue.front_mut()) {
            task.messages += 2 * questions as u64;
        }
    }

    /// Keeps a promised ballot for the next write, if this is the home: nobody else should be here often.
    fn keep_ballot(&mut self, object: ObjectId, ballot: Ballot, current: Option<Accepted>, desk: &Desk<'_>) {
        self.ballots.remove(&object);
        let Some(current) = current.filter(|_| desk.is_home(&object)).map(|a| a.value) else { return };
        self.ballots.insert(object, Prepared { ballot, current }, |_| true);
    }

    fn mirror_counts(&self, object: &ObjectId, desk: &Desk<'_>) -> bool {
        let mirror = desk.view(object).keepers.mirror;
        mirror.is_some_and(|mirror| mirror == desk.config.me || desk.reachable.contains(&mirror))
    }

    fn fresh_ballot(&mut self, object: &ObjectId, desk: &Desk<'_>) -> Option<Ballot> {
        self.counter += 1;
        let (epoch, boot) = (desk.view(object).epoch, desk.ballot_boot());
        Some(Ballot { epoch, counter: self.counter, node: desk.my_number()?, boot })
    }

    fn next_round(&mut self, desk: &Desk<'_>) -> RoundId {
        self.rounds += 1;
        RoundId { boot: desk.config.boot, number: self.rounds }
    }

    fn round(&mut self, object: &ObjectId) -> Option<&mut Round> {
        self.work.get_mut(object)?.round.as_mut()
    }

    fn command(&self, object: &ObjectId) -> Option<Command> {
        self.work.get(object)?.queue.front().map(|task| task.command.clone())
    }

    /// Sets the object's alarm to the earliest of its round's and its calls' times.
    fn rearm(&mut self, object: ObjectId) {
        let Some(work) = self.work.get(&object) else { return };
        let deadlines = work.queue.iter().map(|task| task.deadline);
        match deadlines.chain(work.round.as_ref().map(|round| round.wake)).min() {
            Some(at) => self.alarms.set(Due::Work(object), at),
            None => self.alarms.clear(Due::Work(object)),
        }
    }
}

fn answer(caller: Caller, object: ObjectId, outcome: Outcome, messages: u64, desk: &mut Desk<'_>) {
    let answer = Answer { outcome, messages, by_home: desk.is_home(&object) };
    match caller {
        Caller::Here(call) => desk.out.push(Action::Answer { call, answer }),
        Caller::Peer(to, round) => {
            let message = desk.message(object, round, Body::Answered { answer });
            desk.send(Send { to, message });
        }
    }
}
