//! The installer of a handover: fences the old acceptors, finds what they have, installs it on the new ones.
//!
//! It keeps nothing on disk; after a crash authority orders another attempt. It never installs a second value
//! at one ballot, so each object is taken once: the lists are walked in the order of the ids, and the walk
//! never goes back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    Action, Desk, Send, Variant,
    ballot::Ballot,
    fence::first_of,
    messages::{Accepted, Body, Message, RoundId},
    round::Reports,
    view::Pending,
};
use crate::{
    model::{Millis, ObjectId, PeerId, limits, member::Epoch, slots::HashSlot},
    proto::placement::SlotKeepers,
};

/// All handovers that this node does.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
pub(super) struct Installer {
    runs: BTreeMap<HashSlot, Run>,
    rounds: u64,
}

/// One attempt at one slot.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
struct Run {
    to: Epoch,
    attempt: u64,
    ballot: Ballot,
    old: SlotKeepers,
    new: SlotKeepers,
    fence: RoundId,
    /// Of those that are fenced.
    lists: BTreeMap<PeerId, List>,
    /// Everything up to here was taken.
    taken: Option<ObjectId>,
    tasks: BTreeMap<ObjectId, Task>,
    wake: Millis,
}

/// What one fenced acceptor has, as far as it is known and not taken.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
struct List {
    ahead: VecDeque<ObjectId>,
    is_whole: bool,
    asked: Option<(RoundId, Option<ObjectId>)>,
}

/// One object on its way.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
struct Task {
    round: RoundId,
    step: Step,
}

#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
enum Step {
    /// What did the old acceptors accept?
    Fetch(Reports),
    /// The new ones are to accept this.
    Install { accepted: Accepted, by: BTreeSet<PeerId> },
}

impl List {
    /// Whether all that it has behind the last object taken is known up to its next.
    fn is_ready(&self) -> bool {
        self.is_whole || !self.ahead.is_empty()
    }

    fn drop_taken(&mut self, taken: Option<ObjectId>) {
        while self.ahead.front().is_some_and(|object| Some(*object) <= taken) {
            self.ahead.pop_front();
        }
    }
}

impl Run {
    fn majority_of_old(&self) -> usize {
        self.old.majority()
    }

    /// The next object that a majority of the old acceptors cannot have before it. What was chosen is on one
    /// of every majority, so none of that is passed over.
    fn take_next(&mut self) -> Option<ObjectId> {
        let ready = self.lists.values().filter(|list| list.is_ready()).count();
        if ready < self.majority_of_old() {
            return None;
        }
        let next = self.lists.values().filter_map(|list| list.ahead.front()).min().copied()?;
        self.taken = Some(next);
        let taken = self.taken;
        self.lists.values_mut().for_each(|list| list.drop_taken(taken));
        Some(next)
    }

    fn is_done(&self) -> bool {
        let whole = self.lists.values().filter(|list| list.is_whole).count();
        let left = self.lists.values().any(|list| !list.ahead.is_empty());
        whole >= self.majority_of_old() && !left && self.tasks.is_empty()
    }

    /// Whether so many have it that every majority of the new acceptors meets one of them; and the mirror, as
    /// long as that can be reached.
    fn is_installed(&self, by: &BTreeSet<PeerId>, desk: &Desk<'_>) -> bool {
        let votes = self.new.acceptors.iter().filter(|peer| by.contains(peer)).count();
        let waits = |mirror: &PeerId| *mirror == desk.config.me || desk.reachable.contains(mirror);
        let mirrored = self.new.mirror.as_ref().is_none_or(|mirror| by.contains(mirror) || !waits(mirror));
        votes >= self.new.majority() && mirrored
    }

    fn say(&self, to: PeerId, object: ObjectId, round: RoundId, body: Body, desk: &mut Desk<'_>) {
        desk.send(Send { to, message: Message { epoch: self.to, object, round, body } });
    }

    fn ask_for_fences(&self, slot: HashSlot, desk: &mut Desk<'_>) {
        let body = Body::Fence { attempt: self.attempt };
        for peer in self.old.acceptors.iter().filter(|peer| !self.lists.contains_key(peer)) {
            self.say(*peer, first_of(slot), self.fence, body.clone(), desk);
        }
    }

    fn ask_for_list(&self, slot: HashSlot, peer: PeerId, desk: &mut Desk<'_>) {
        if let Some((round, after)) = self.lists.get(&peer).and_then(|list| list.asked) {
            self.say(peer, first_of(slot), round, Body::List { attempt: self.attempt, after }, desk);
        }
    }

    /// Says a task's question to those who have not answered it.
    fn ask_for(&self, object: ObjectId, task: &Task, desk: &mut Desk<'_>) {
        match &task.step {
            Step::Fetch(answers) => {
                for peer in self.lists.keys().filter(|peer| !answers.0.contains_key(peer)) {
                    self.say(*peer, object, task.round, Body::Fetch { attempt: self.attempt }, desk);
                }
            }
            Step::Install { accepted: Accepted { ballot, value }, by } => {
                let (attempt, ballot) = (self.attempt, *ballot);
                let all = self.new.acceptors.iter().chain(&self.new.mirror);
                for peer in all.filter(|peer| !by.contains(peer)) {
                    let body = Body::Install { attempt, ballot, value: value.clone() };
                    self.say(*peer, object, task.round, body, desk);
                }
            }
        }
    }
}

impl Installer {
    /// A handover was ordered; if it is not this node's, an attempt of it at the same slot ends.
    pub(super) fn ordered(&mut self, slot: HashSlot, desk: &mut Desk<'_>) {
        self.stop(slot);
        let Some(ordered) = desk.slots.get(slot).pending.clone() else { return };
        let Pending { to, attempt, installer, boot, keepers } = ordered;
        let is_mine = (installer, boot) == (desk.config.me, desk.config.boot);
        let Some(node) = desk.my_number().filter(|_| is_mine) else { return };
        let mut run = Run {
            to,
            attempt,
            ballot: Ballot { epoch: to, counter: attempt, node, boot: desk.ballot_boot() },
            old: desk.slots.get(slot).active.keepers.clone(),
            new: keepers,
            fence: self.next_round(desk),
            lists: BTreeMap::new(),
            taken: None,
            tasks: BTreeMap::new(),
            wake: desk.now + limits::PAXOS_PHASE,
        };
        if desk.config.variant == Variant::NoFence {
            run.lists = run.old.acceptors.iter().map(|peer| (*peer, List::default())).collect();
        }
        run.ask_for_fences(slot, desk);
        self.runs.insert(slot, run);
        self.go_on(slot, desk);
    }

    /// Another attempt was ordered, or the last one is in use.
    pub(super) fn stop(&mut self, slot: HashSlot) {
        self.runs.remove(&slot);
    }

    /// When something must be said again.
    pub(super) fn next_alarm(&self) -> Option<Millis> {
        self.runs.values().map(|run| run.wake).min()
    }

    /// Says again what was not answered.
    pub(super) fn on_wake(&mut self, desk: &mut Desk<'_>) {
        let now = desk.now;
        for (slot, run) in self.runs.iter_mut().filter(|(_, run)| run.wake <= now) {
            run.wake = now + limits::PAXOS_PHASE;
            run.ask_for_fences(*slot, desk);
            run.lists.keys().for_each(|peer| run.ask_for_list(*slot, *peer, desk));
            run.tasks.iter().for_each(|(object, task)| run.ask_for(*object, task, desk));
        }
    }

    /// A mirror that went away is not waited for.
    pub(super) fn on_reachable(&mut self, desk: &mut Desk<'_>) {
        let slots: Vec<HashSlot> = self.runs.keys().copied().collect();
        slots.into_iter().for_each(|slot| self.go_on(slot, desk));
    }

    /// An answer to one of this installer's questions.
    pub(super) fn on_message(
        &mut self,
        from: PeerId,
        object: ObjectId,
        round: RoundId,
        body: Body,
        desk: &mut Desk<'_>,
    ) {
        let slot = HashSlot::of(&object);
        let taken = match self.runs.get_mut(&slot) {
            Some(run) => run.on_answer(from, object, round, body),
            None => false,
        };
        if !taken {
            desk.counters.ignored += 1;
            return;
        }
        self.choose(slot, object, desk);
        self.go_on(slot, desk);
    }

    /// A majority of the old acceptors has said what it has of this object: the greatest is installed.
    fn choose(&mut self, slot: HashSlot, object: ObjectId, desk: &mut Desk<'_>) {
        let round = self.next_round(desk);
        let Some(run) = self.runs.get_mut(&slot) else { return };
        let majority = run.majority_of_old();
        let Some(Task { step: Step::Fetch(answers), .. }) = run.tasks.get(&object) else { return };
        let Some(current) = answers.current(majority, |_| false) else { return };
        run.tasks.remove(&object);
        // A promise without a value is nothing to install: nothing was chosen there.
        let Some(old) = current.accepted else { return };
        let copied = desk.config.variant == Variant::InstallOldBallot;
        let ballot = if copied { old.ballot } else { run.ballot };
        let accepted = Accepted { ballot, value: old.value };
        let task = Task { round, step: Step::Install { accepted, by: BTreeSet::new() } };
        run.ask_for(object, &task, desk);
        run.tasks.insert(object, task);
    }

    /// Ends what is installed, takes what comes next, and says when all is done.
    fn go_on(&mut self, slot: HashSlot, desk: &mut Desk<'_>) {
        let window = (limits::HANDOVER_OBJECTS_AT_ONCE / self.runs.len().max(1)).max(1);
        let Some(mut run) = self.runs.remove(&slot) else { return };
        let ended = |task: &Task| match &task.step {
            Step::Install { by, .. } => run.is_installed(by, desk),
            Step::Fetch(_) => false,
        };
        let gone: Vec<ObjectId> = run.tasks.iter().filter(|(_, t)| ended(t)).map(|(o, _)| *o).collect();
        gone.iter().for_each(|object| drop(run.tasks.remove(object)));
        self.ask_for_lists(slot, &mut run, desk);
        while run.tasks.len() < window {
            let Some(object) = run.take_next() else { break };
            let task = Task { round: self.next_round(desk), step: Step::Fetch(Reports::default()) };
            run.ask_for(object, &task, desk);
            run.tasks.insert(object, task);
            self.ask_for_lists(slot, &mut run, desk);
        }
        if run.is_done() {
            let Run { to, attempt, .. } = run;
            return desk.out.push(Action::Installed { slot, to, attempt });
        }
        self.runs.insert(slot, run);
    }

    /// Asks for the next page where nothing is ahead.
    fn ask_for_lists(&mut self, slot: HashSlot, run: &mut Run, desk: &mut Desk<'_>) {
        let idle = |list: &List| !list.is_ready() && list.asked.is_none();
        let peers: Vec<PeerId> = run.lists.iter().filter(|(_, list)| idle(list)).map(|(p, _)| *p).collect();
        for peer in peers {
            let asked = (self.next_round(desk), run.taken);
            if let Some(list) = run.lists.get_mut(&peer) {
                list.asked = Some(asked);
            }
            run.ask_for_list(slot, peer, desk);
        }
    }

    fn next_round(&mut self, desk: &Desk<'_>) -> RoundId {
        self.rounds += 1;
        RoundId { boot: desk.config.boot, number: self.rounds }
    }
}

impl Run {
    /// Takes an answer in; false if nothing waits for it.
    fn on_answer(&mut self, from: PeerId, object: ObjectId, round: RoundId, body: Body) -> bool {
        match body {
            Body::Fenced if round == self.fence && self.old.acceptors.contains(&from) => {
                self.lists.entry(from).or_default();
                true
            }
            Body::Listed { objects, more } => {
                let of_slot = |other: &ObjectId| HashSlot::of(other) == HashSlot::of(&object);
                objects.iter().all(of_slot) && self.on_listed(from, round, objects, more)
            }
            Body::Fetched { accepted } if self.lists.contains_key(&from) => {
                let task = self.tasks.get_mut(&object).filter(|task| task.round == round);
                let Some(Task { step: Step::Fetch(answers), .. }) = task else { return false };
                answers.0.insert(from, accepted);
                true
            }
            Body::Installed { ballot: said } if self.new.holds(&from) => {
                let task = self.tasks.get_mut(&object).filter(|task| task.round == round);
                let Some(Task { step: Step::Install { accepted, by }, .. }) = task else { return false };
                if accepted.ballot == said {
                    by.insert(from);
                }
                true
            }
            _ => false,
        }
    }

    fn on_listed(&mut self, from: PeerId, round: RoundId, objects: Vec<ObjectId>, more: bool) -> bool {
        let taken = self.taken;
        let Some(list) = self.lists.get_mut(&from).filter(|l| l.asked.is_some_and(|a| a.0 == round)) else {
            return false;
        };
        let sorted = objects.windows(2).all(|pair| pair[0] < pair[1]);
        if !sorted || (more && objects.is_empty()) {
            return false;
        }
        list.asked = None;
        list.is_whole = !more;
        list.ahead = objects.into();
        // Others went on meanwhile.
        list.drop_taken(taken);
        true
    }
}
