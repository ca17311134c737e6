//! The coordinator's part: which worker gets a task, and who gets it when that one is gone.
//!
//! It never takes a worker's word for granted: a task is assigned once the worker has said that it has a
//! place for it. Outside of office it assigns nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Action, CallId,
    book::Book,
    line::{Left, Line},
};
use crate::{
    model::{
        Millis, PeerId, limits,
        member::NodeNumber,
        task::{Claim, Phase, Rank, Submitted, TaskId, TaskKind, TaskRecord, Verdict},
    },
    proto::Outbox,
};

/// The part of a load that tasks make up, in hundredths of a point; see `node::load`.
const TASKS_PART_CENTI: u64 = 3000;

/// A member as a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Neither suspect nor dead.
    pub is_alive: bool,
    /// Known for dead: its tasks are orphans.
    pub is_dead: bool,
    /// Its load in hundredths of a point, tasks counted.
    pub load_centi: u64,
    /// Tasks that it had then.
    pub tasks: u64,
    /// Tasks that it works on at once.
    pub slots: u64,
    /// Tasks that it has in hand at most.
    pub places: u64,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Which task.
    pub task: TaskId,
    /// What is to be done.
    pub kind: TaskKind,
    /// Bytes that it will send.
    pub payload_bytes: u64,
    /// The greatest assignment that the client knows and that did not serve it.
    pub above: Option<Rank>,
    /// Workers that it would rather not have.
    pub avoid: Vec<PeerId>,
}

impl Wish {
    /// Whether a node can take it. What is said of earlier assignments does not count here.
    fn is_sane(&self) -> bool {
        self.kind.is_sane() && self.payload_bytes <= limits::TASK_PAYLOAD_BYTES_MAX
    }

    /// Without what no coordinator can have said, and no longer than it may be.
    fn bounded(mut self) -> Self {
        // Attempts go on from there, and have to have somewhere to go.
        let can_be = |above: &Rank| above.is_sane() && above.attempt <= Rank::ATTEMPT_MAX / 2;
        self.above = self.above.filter(can_be);
        self.avoid.truncate(limits::TASK_AVOID_MAX);
        self
    }
}

/// The coordinator's memory.
#[derive(Debug, Default)]
pub(super) struct Assigner {
    office: Option<Claim>,
    placing: BTreeMap<TaskId, Placing>,
    /// The greatest assignment that a worker may have taken without being heard, and that nobody knows of:
    /// the same must not be given to another.
    spent: Option<Rank>,
    /// Clients for which there was no place.
    line: Line,
    /// There was no place when one was sought last; until one may be free nobody in the line is served.
    is_full: bool,
    /// Orphans for which there was no place; until the next tick nobody is asked again.
    unplaced: BTreeSet<TaskId>,
    /// When each worker was given something last: those that are as good as each other have their turn.
    given: BTreeMap<PeerId, u64>,
    turns: u64,
}

/// A task that a worker is being sought for.
#[derive(Debug)]
struct Placing {
    /// Who waits for it; none if its worker is gone and nobody has asked yet.
    call: Option<CallId>,
    record: TaskRecord,
    asked: Option<PeerId>,
    tried: BTreeSet<PeerId>,
    wanted: Wanted,
    /// Those among the tried who do not know work of its kind.
    unable: BTreeSet<PeerId>,
    /// The greatest of its assignments that was not answered: it may have been taken.
    doubtful: Option<Rank>,
}

/// What is known of a task's earlier assignments.
#[derive(Debug)]
struct Wanted {
    /// The greatest that its client knew.
    above: Option<Rank>,
    /// Workers that it shall rather not have.
    avoid: Vec<PeerId>,
    /// Who had it before.
    former: Option<NodeNumber>,
}

/// What a worker said to a reservation.
pub(super) struct Said {
    pub(super) from: PeerId,
    pub(super) task: TaskId,
    pub(super) rank: Rank,
    pub(super) verdict: Option<Verdict>,
}

/// What has come of a search.
pub(super) enum Found {
    /// A worker has a place; who had it before.
    Worker { record: TaskRecord, former: Option<NodeNumber> },
    /// A worker has a place, but what is known by now counts more.
    TooLate,
}

/// What the assigner may look at.
pub(super) struct Desk<'a> {
    pub(super) now: Millis,
    pub(super) book: &'a mut Book,
    pub(super) workers: &'a BTreeMap<PeerId, Worker>,
    pub(super) number_of: &'a dyn Fn(&PeerId) -> Option<NodeNumber>,
    /// Who is to be asked for a place, and for what.
    pub(super) asks: &'a mut super::Asks,
    pub(super) out: &'a mut Outbox<Action>,
}

impl Assigner {
    /// In office under this claim from now on, or not at all. What was being sought under another ends.
    pub(super) fn set_office(&mut self, office: Option<Claim>, out: &mut Outbox<Action>) {
        if self.office == office {
            return;
        }
        self.office = office;
        self.unplaced.clear();
        self.is_full = false;
        for placing in std::mem::take(&mut self.placing).into_values() {
            self.give_up(&placing);
            answer(placing.call, Submitted::Again, out);
        }
        self.line.clear().into_iter().for_each(|call| answer(Some(call), Submitted::Again, out));
    }

    /// Time has passed: places may be free again.
    pub(super) fn look_again(&mut self) {
        self.unplaced.clear();
        self.is_full = false;
    }

    /// A place may be free now.
    pub(super) fn on_freed(&mut self) {
        self.is_full = false;
    }

    /// When somebody who waits for a place is to be answered.
    pub(super) fn next_at(&self) -> Option<Millis> {
        self.line.next_at()
    }

    /// Gives places to those who wait for them, and answers those who have waited long enough.
    pub(super) fn serve_line(&mut self, desk: &mut Desk<'_>) {
        if self.line.is_empty() {
            return;
        }
        for call in self.line.due(desk.now) {
            answer(Some(call), busy(desk), desk.out);
        }
        let mut last = 0;
        // One search at a time that may find nothing; where places are known to be free, as many.
        let mut searches = self.free_places(desk).max(u64::from(self.placing.is_empty()));
        while !self.is_full && searches > 0 {
            let Some((turn, wish)) = self.line.next(last) else { break };
            last = turn;
            if !self.may_seek(&wish.task, desk) {
                continue;
            }
            if let Some((call, wish)) = self.line.take(turn) {
                searches -= 1;
                self.consider(call, wish, true, desk);
            }
        }
    }

    /// As far as this node knows.
    fn free_places(&self, desk: &Desk<'_>) -> u64 {
        let alive = desk.workers.iter().filter(|(_, worker)| worker.is_alive);
        let free = alive.filter_map(|(peer, worker)| {
            let number = (desk.number_of)(peer)?;
            Some(worker.places.saturating_sub(self.work_of(peer, number, desk)))
        });
        free.sum()
    }

    /// What a worker has to do still, with what it is being asked for just now.
    fn work_of(&self, peer: &PeerId, number: NodeNumber, desk: &Desk<'_>) -> u64 {
        let promised = self.placing.values().filter(|other| other.asked == Some(*peer)).count() as u64;
        desk.book.work_of(number) + promised
    }

    /// Nobody wants this task any more. If a place is being sought for it: the assignment that would have
    /// been made.
    pub(super) fn end(&mut self, task: &TaskId, phase: Phase, desk: &mut Desk<'_>) -> Option<TaskRecord> {
        answer(self.line.remove(task), Submitted::Closed(phase), desk.out);
        let placing = self.placing.remove(task)?;
        self.give_up(&placing);
        answer(placing.call, Submitted::Closed(phase), desk.out);
        Some(TaskRecord { phase, ..placing.record })
    }

    /// No longer seeks a worker for this, whatever the last that was asked has to say.
    fn give_up(&mut self, placing: &Placing) {
        let unheard = placing.asked.map(|_| placing.record.rank).max(placing.doubtful);
        self.spent = self.spent.max(unheard);
    }

    pub(super) fn submit(&mut self, call: CallId, wish: Wish, desk: &mut Desk<'_>) {
        let wish = wish.bounded();
        let is_its_turn = !self.line.is_before(&wish.task);
        self.consider(call, wish, is_its_turn, desk);
    }

    /// Answers it, lets it wait, or seeks a worker for it.
    fn consider(&mut self, call: CallId, wish: Wish, is_its_turn: bool, desk: &mut Desk<'_>) {
        if let Some(placing) = self.placing.get_mut(&wish.task) {
            // It has asked again: the one before does not listen any more. Or its worker is gone, and another
            // is being sought already.
            answer(placing.call.replace(call), Submitted::Again, desk.out);
            return answer(self.line.seek(&wish.task, desk.now), Submitted::Again, desk.out);
        }
        let (claim, known) = match self.judge(&wish, desk) {
            Ok(judged) => judged,
            Err(said) => {
                answer(self.line.remove(&wish.task), Submitted::Again, desk.out);
                return answer(Some(call), *said, desk.out);
            }
        };
        if !is_its_turn || !self.may_seek(&wish.task, desk) {
            return self.wait(call, wish, desk);
        }
        answer(self.line.seek(&wish.task, desk.now), Submitted::Again, desk.out);
        let former = known.as_ref().map(|known| known.worker);
        let below = known.map(|known| known.rank).max(wish.above);
        let Wish { task, kind, payload_bytes, avoid, above } = wish;
        let (rank, worker, phase) = (self.next_rank(claim, below), NodeNumber(0), Phase::Assigned);
        let record = TaskRecord { task, kind, payload_bytes, rank, worker, phase };
        self.seek(Some(call), record, Wanted { above, avoid, former }, desk);
    }

    /// Whether a worker is to be sought for this: under which claim, and what is known of it; or what there
    /// is to say instead.
    fn judge(&self, wish: &Wish, desk: &mut Desk<'_>) -> Result<(Claim, Option<TaskRecord>), Box<Submitted>> {
        let claim = self.office.ok_or(Box::new(Submitted::NotCoordinator { coordinator: None }))?;
        if !wish.kind.is_sane() {
            return Err(Box::new(Submitted::UnknownKind));
        }
        if !wish.is_sane() {
            return Err(Box::new(Submitted::Closed(Phase::Abandoned)));
        }
        let known = desk.book.get(&wish.task).cloned();
        if let Some(known) = &known {
            if known.phase.is_final() {
                return Err(Box::new(Submitted::Closed(known.phase)));
            }
            let is_news = wish.above.is_none_or(|above| above < known.rank);
            let is_wanted = is_news || (wish.above == Some(known.rank) && wish.avoid.is_empty());
            if is_wanted && known.phase.is_in_hand() && self.serves(known, &wish.avoid, desk) {
                return Err(Box::new(Submitted::Assigned(known.clone())));
            }
        }
        let below = known.as_ref().map(|known| known.rank).max(wish.above);
        if let Some(below) = below.filter(|below| below.claim > claim) {
            desk.out.push(Action::Outranked { counter: below.claim.counter });
            return Err(Box::new(Submitted::Again));
        }
        Ok((claim, known))
    }

    /// Lets a client wait for a place.
    fn wait(&mut self, call: CallId, wish: Wish, desk: &mut Desk<'_>) {
        let Left { earlier, refused } = self.line.wait(call, wish, desk.now);
        answer(earlier, Submitted::Again, desk.out);
        answer(refused, busy(desk), desk.out);
    }

    fn may_seek(&self, task: &TaskId, desk: &mut Desk<'_>) -> bool {
        self.placing.len() < limits::TASKS_PLACING_MAX && self.may_have_more(task, desk)
    }

    /// An attempt after the last, whoever's claim that was under.
    fn next_rank(&self, claim: Claim, below: Option<Rank>) -> Rank {
        let spent = self.spent.filter(|spent| spent.claim == claim).map_or(0, |spent| spent.attempt);
        Rank { claim, attempt: below.map_or(0, |below| below.attempt).max(spent) + 1 }
    }

    /// Whether the worker of this assignment can be expected to serve it.
    fn serves(&self, known: &TaskRecord, avoid: &[PeerId], desk: &Desk<'_>) -> bool {
        let worker = desk.workers.iter().find(|(peer, _)| (desk.number_of)(peer) == Some(known.worker));
        worker.is_some_and(|(peer, worker)| !worker.is_dead && !avoid.contains(peer))
    }

    fn may_have_more(&self, task: &TaskId, desk: &mut Desk<'_>) -> bool {
        let is_other = |other: &TaskId| other.client == task.client && other != task;
        let of_client = desk.book.open().filter(|record| is_other(&record.task)).count();
        of_client < limits::TASKS_PER_CLIENT_MAX && desk.book.has_room_for(task)
    }

    fn seek(&mut self, call: Option<CallId>, record: TaskRecord, wanted: Wanted, desk: &mut Desk<'_>) {
        let task = record.task;
        let (asked, tried, unable, doubtful) = (None, BTreeSet::new(), BTreeSet::new(), None);
        let placing = Placing { call, record, asked, tried, wanted, unable, doubtful };
        self.placing.insert(task, placing);
        self.ask_next(&task, desk);
    }

    /// Asks the best worker that was not asked yet; with none left, says so.
    fn ask_next(&mut self, task: &TaskId, desk: &mut Desk<'_>) {
        let Some(placing) = self.placing.get(task) else { return };
        let Some((peer, number)) = self.best(placing, desk) else {
            let Some(placing) = self.placing.remove(task) else { return };
            self.give_up(&placing);
            // One that does not answer just now may know it.
            let mut others = desk.workers.iter().filter(|(peer, _)| !placing.unable.contains(peer));
            let is_unknown = !placing.unable.is_empty() && others.all(|(_, worker)| worker.is_dead);
            return self.not_found(placing, is_unknown, desk);
        };
        let Some(placing) = self.placing.get_mut(task) else { return };
        placing.asked = Some(peer);
        placing.tried.insert(peer);
        placing.record.worker = number;
        desk.asks.push((peer, placing.record.clone()));
    }

    /// No worker has taken it, or none can.
    fn not_found(&mut self, placing: Placing, is_unknown: bool, desk: &mut Desk<'_>) {
        self.is_full |= !is_unknown;
        let TaskRecord { task, kind, payload_bytes, .. } = placing.record;
        let Wanted { above, avoid, .. } = placing.wanted;
        match placing.call {
            None => drop(self.unplaced.insert(task)),
            Some(call) if is_unknown => {
                self.line.remove(&task);
                answer(Some(call), Submitted::UnknownKind, desk.out);
            }
            Some(call) => self.wait(call, Wish { task, kind, payload_bytes, above, avoid }, desk),
        }
    }

    /// Those with a free slot first, then those with room in the line; of those that are as good as each
    /// other the one whose turn it is. Whom the client would rather not have comes last of all.
    fn best(&self, placing: &Placing, desk: &Desk<'_>) -> Option<(PeerId, NodeNumber)> {
        let candidates = desk.workers.iter().filter(|(peer, w)| w.is_alive && !placing.tried.contains(peer));
        let rated = candidates.filter_map(|(peer, worker)| {
            let number = (desk.number_of)(peer)?;
            let tasks = self.work_of(peer, number, desk);
            let avoided = placing.wanted.avoid.contains(peer);
            Some((avoided, tasks >= worker.slots, worker.load_with(tasks), *peer, number))
        });
        let rated: Vec<_> = rated.collect();
        let best = rated.iter().map(|(avoided, is_full, load, ..)| (*avoided, *is_full, *load)).min()?;
        let as_good = rated.iter().filter(|(avoided, is_full, load, ..)| {
            (*avoided, *is_full) == (best.0, best.1) && *load < best.2 + limits::TASK_LOAD_BAND_CENTI
        });
        let turn = |peer: &PeerId| self.given.get(peer).copied().unwrap_or(0);
        as_good.min_by_key(|(_, _, load, peer, _)| (turn(peer), *load, *peer)).map(|(.., p, n)| (*p, *n))
    }

    /// What a worker said, or nothing in time; what has come of it if it has a place.
    pub(super) fn reserved(&mut self, said: Said, desk: &mut Desk<'_>) -> Option<Found> {
        let Said { from, task, rank, verdict } = said;
        let task = &task;
        let placing = self.placing.get_mut(task)?;
        if placing.asked != Some(from) || placing.record.rank != rank {
            return None;
        }
        placing.asked = None;
        if verdict != Some(Verdict::Taken) {
            match verdict {
                Some(Verdict::UnknownKind) => drop(placing.unable.insert(from)),
                None => {
                    // It may have said yes all the same: the next one's assignment has to count more.
                    placing.doubtful = Some(rank);
                    placing.record.rank.attempt += 1;
                }
                Some(_) => {}
            }
            self.ask_next(task, desk);
            return None;
        }
        let placing = self.placing.remove(task)?;
        self.turns += 1;
        self.given.insert(from, self.turns);
        let Placing { call, record, wanted: Wanted { former, .. }, .. } = placing;
        // A worker was sought because the one before is gone; its client may have waited in line meanwhile.
        let call = call.or(self.line.remove(task));
        match desk.book.get(task).filter(|known| known.precedence() > record.precedence()) {
            Some(known) => {
                let known = match known.phase {
                    phase if phase.is_final() => Submitted::Closed(phase),
                    phase if phase.is_in_hand() => Submitted::Assigned(known.clone()),
                    _ => Submitted::Again,
                };
                answer(call, known, desk.out);
                Some(Found::TooLate)
            }
            None => {
                answer(call, Submitted::Assigned(record.clone()), desk.out);
                Some(Found::Worker { record, former })
            }
        }
    }

    /// Gives the tasks of workers that are gone, and those that their workers have lost, to others.
    pub(super) fn place_orphans(&mut self, desk: &mut Desk<'_>) {
        let Some(claim) = self.office else { return };
        let is_dead = |number: NodeNumber| {
            let of = desk.workers.iter().find(|(peer, _)| (desk.number_of)(peer) == Some(number));
            of.is_none_or(|(_, worker)| worker.is_dead)
        };
        let is_orphan =
            |r: &&TaskRecord| r.phase == Phase::Lost || (r.phase.is_in_hand() && is_dead(r.worker));
        let orphans: Vec<TaskRecord> = desk.book.open().filter(is_orphan).cloned().collect();
        let mut greater = None;
        for orphan in orphans {
            let is_sought = self.placing.contains_key(&orphan.task) || self.unplaced.contains(&orphan.task);
            if is_sought || self.placing.len() >= limits::TASKS_PLACING_MAX {
                continue;
            }
            if orphan.rank.claim > claim {
                greater = greater.max(Some(orphan.rank.claim));
                continue;
            }
            let rank = self.next_rank(claim, Some(orphan.rank));
            let former = orphan.worker;
            let avoid =
                desk.workers.keys().copied().filter(|p| (desk.number_of)(p) == Some(former)).collect();
            let record = TaskRecord { rank, phase: Phase::Assigned, ..orphan };
            self.seek(None, record, Wanted { above: None, avoid, former: Some(former) }, desk);
        }
        if let Some(Claim { counter, .. }) = greater {
            desk.out.push(Action::Outranked { counter });
        }
    }
}

impl Worker {
    /// What its load will be with so many tasks, instead of those that it had when it told its load.
    fn load_with(&self, tasks: u64) -> u64 {
        let part = |tasks: u64| TASKS_PART_CENTI * tasks.min(self.slots.max(1)) / self.slots.max(1);
        self.load_centi.saturating_sub(part(self.tasks)) + part(tasks)
    }
}

fn busy(desk: &Desk<'_>) -> Submitted {
    let alive = desk.workers.values().filter(|worker| worker.is_alive);
    let (tasks, places) = alive.fold((0, 0), |(t, p), w| (t + w.tasks, p + w.places));
    Submitted::Busy { tasks, places }
}

fn answer(call: Option<CallId>, submitted: Submitted, out: &mut Outbox<Action>) {
    if let Some(call) = call {
        out.push(Action::Answer { call, answer: super::Answer::Submitted(submitted) });
    }
}
