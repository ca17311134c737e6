//! The coordinator's part: which worker gets a task, and who gets it when that one is gone.
//!
//! It never takes a worker's word for granted: a task is assigned once the worker has said that it has a
//! place for it. Outside of office it assigns nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, CallId, Worker, book::Book};
use crate::{
    model::{
        PeerId, limits,
        member::NodeNumber,
        task::{Claim, Phase, Rank, Submitted, TaskId, TaskKind, TaskRecord, Verdict},
    },
    proto::Outbox,
};

/// The part of a load that tasks make up, in hundredths of a point; see `node::load`.
const TASKS_PART_CENTI: u64 = 3000;

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
    avoid: Vec<PeerId>,
    /// Those among the tried who do not know work of its kind.
    unable: BTreeSet<PeerId>,
    /// The greatest of its assignments that was not answered: it may have been taken.
    doubtful: Option<Rank>,
    /// Who had it before.
    former: Option<NodeNumber>,
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
        for placing in std::mem::take(&mut self.placing).into_values() {
            self.give_up(&placing);
            answer(placing.call, Submitted::Again, out);
        }
    }

    /// Time has passed: places may be free again.
    pub(super) fn look_again(&mut self) {
        self.unplaced.clear();
    }

    /// Nobody wants this task any more. If a place is being sought for it: the assignment that would have
    /// been made.
    pub(super) fn end(&mut self, task: &TaskId, phase: Phase, desk: &mut Desk<'_>) -> Option<TaskRecord> {
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
        let Some(claim) = self.office else {
            return answer(Some(call), Submitted::NotCoordinator { coordinator: None }, desk.out);
        };
        if !wish.is_sane() {
            let refusal = if wish.kind.is_sane() {
                Submitted::Closed(Phase::Abandoned)
            } else {
                Submitted::UnknownKind
            };
            return answer(Some(call), refusal, desk.out);
        }
        let wish = wish.bounded();
        if let Some(placing) = self.placing.get_mut(&wish.task) {
            // It has asked again: the one before does not listen any more.
            let before = placing.call.replace(call);
            return answer(before, Submitted::Again, desk.out);
        }
        let known = desk.book.get(&wish.task).cloned();
        if let Some(known) = &known {
            if known.phase.is_final() {
                return answer(Some(call), Submitted::Closed(known.phase), desk.out);
            }
            let is_news = wish.above.is_none_or(|above| above < known.rank);
            let is_wanted = is_news || (wish.above == Some(known.rank) && wish.avoid.is_empty());
            if is_wanted && known.phase.is_in_hand() && self.serves(known, &wish.avoid, desk) {
                return answer(Some(call), Submitted::Assigned(known.clone()), desk.out);
            }
        }
        let former = known.as_ref().map(|known| known.worker);
        let below = known.map(|known| known.rank).max(wish.above);
        if below.is_some_and(|below| below.claim > claim) {
            let counter = below.map_or(0, |below| below.claim.counter);
            desk.out.push(Action::Outranked { counter });
            return answer(Some(call), Submitted::Again, desk.out);
        }
        if self.placing.len() >= limits::TASKS_PLACING_MAX || !self.may_have_more(&wish.task, desk) {
            return answer(Some(call), busy(desk), desk.out);
        }
        let Wish { task, kind, payload_bytes, avoid, .. } = wish;
        let (rank, worker, phase) = (self.next_rank(claim, below), NodeNumber(0), Phase::Assigned);
        let record = TaskRecord { task, kind, payload_bytes, rank, worker, phase };
        self.seek(Some(call), record, avoid, former, desk);
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

    fn seek(
        &mut self,
        call: Option<CallId>,
        record: TaskRecord,
        avoid: Vec<PeerId>,
        former: Option<NodeNumber>,
        desk: &mut Desk<'_>,
    ) {
        let task = record.task;
        let (asked, tried, unable, doubtful) = (None, BTreeSet::new(), BTreeSet::new(), None);
        let placing = Placing { call, record, asked, tried, avoid, unable, doubtful, former };
        self.placing.insert(task, placing);
        self.ask_next(&task, desk);
    }

    /// Asks the best worker that was not asked yet; with none left, says so.
    fn ask_next(&mut self, task: &TaskId, desk: &mut Desk<'_>) {
        let Some(placing) = self.placing.get(task) else { return };
        let Some((peer, number)) = self.best(placing, desk) else {
            let Some(placing) = self.placing.remove(task) else { return };
            self.give_up(&placing);
            self.unplaced.insert(*task);
            // One that does not answer just now may know it.
            let mut others = desk.workers.iter().filter(|(peer, _)| !placing.unable.contains(peer));
            let is_unknown = !placing.unable.is_empty() && others.all(|(_, worker)| worker.is_dead);
            let refusal = if is_unknown { Submitted::UnknownKind } else { busy(desk) };
            return answer(placing.call, refusal, desk.out);
        };
        let Some(placing) = self.placing.get_mut(task) else { return };
        placing.asked = Some(peer);
        placing.tried.insert(peer);
        placing.record.worker = number;
        desk.asks.push((peer, placing.record.clone()));
    }

    /// Those with a free slot first, then those with room in the line; of those that are as good as each
    /// other the one whose turn it is. Whom the client would rather not have comes last of all.
    fn best(&self, placing: &Placing, desk: &Desk<'_>) -> Option<(PeerId, NodeNumber)> {
        let candidates = desk.workers.iter().filter(|(peer, w)| w.is_alive && !placing.tried.contains(peer));
        let rated = candidates.filter_map(|(peer, worker)| {
            let number = (desk.number_of)(peer)?;
            let promised = self.placing.values().filter(|other| other.asked == Some(*peer)).count() as u64;
            let tasks = desk.book.work_of(number) + promised;
            let avoided = placing.avoid.contains(peer);
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
    pub(super) fn reserved(
        &mut self,
        from: PeerId,
        task: &TaskId,
        rank: Rank,
        verdict: Option<Verdict>,
        desk: &mut Desk<'_>,
    ) -> Option<Found> {
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
        let Placing { call, record, former, .. } = placing;
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
            self.seek(None, record, avoid, Some(former), desk);
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
