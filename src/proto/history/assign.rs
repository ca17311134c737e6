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

/// The coordinator's memory.
#[derive(Debug, Default)]
pub(super) struct Assigner {
    office: Option<Claim>,
    placing: BTreeMap<TaskId, Placing>,
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
    unknown_kind: bool,
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
        for placing in std::mem::take(&mut self.placing).into_values() {
            answer(placing.call, Submitted::Again, out);
        }
    }

    pub(super) fn submit(&mut self, call: CallId, wish: Wish, desk: &mut Desk<'_>) {
        let Some(claim) = self.office else {
            return answer(Some(call), Submitted::NotCoordinator { coordinator: None }, desk.out);
        };
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
        let (rank, worker, phase) = (next_rank(claim, below), NodeNumber(0), Phase::Assigned);
        let record = TaskRecord { task, kind, payload_bytes, rank, worker, phase };
        self.seek(Some(call), record, avoid, desk);
    }

    /// Whether the worker of this assignment can be expected to serve it.
    fn serves(&self, known: &TaskRecord, avoid: &[PeerId], desk: &Desk<'_>) -> bool {
        let worker = desk.workers.iter().find(|(peer, _)| (desk.number_of)(peer) == Some(known.worker));
        worker.is_some_and(|(peer, worker)| !worker.is_dead && !avoid.contains(peer))
    }

    fn may_have_more(&self, task: &TaskId, desk: &mut Desk<'_>) -> bool {
        let of_client = desk.book.open().filter(|record| record.task.client == task.client).count();
        of_client < limits::TASKS_PER_CLIENT_MAX && desk.book.has_room_for(task)
    }

    fn seek(&mut self, call: Option<CallId>, record: TaskRecord, avoid: Vec<PeerId>, desk: &mut Desk<'_>) {
        let task = record.task;
        let (asked, tried, unknown_kind) = (None, BTreeSet::new(), false);
        self.placing.insert(task, Placing { call, record, asked, tried, avoid, unknown_kind });
        self.ask_next(&task, desk);
    }

    /// Asks the best worker that was not asked yet; with none left, says so.
    fn ask_next(&mut self, task: &TaskId, desk: &mut Desk<'_>) {
        let Some(placing) = self.placing.get(task) else { return };
        let Some((peer, number)) = self.best(placing, desk) else {
            let Some(placing) = self.placing.remove(task) else { return };
            let refusal = if placing.unknown_kind { Submitted::UnknownKind } else { busy(desk) };
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

    /// What a worker said, or nothing in time; the new assignment if it has a place.
    pub(super) fn reserved(
        &mut self,
        from: PeerId,
        task: &TaskId,
        rank: Rank,
        verdict: Option<Verdict>,
        desk: &mut Desk<'_>,
    ) -> Option<TaskRecord> {
        let placing = self.placing.get_mut(task)?;
        if placing.asked != Some(from) || placing.record.rank != rank {
            return None;
        }
        placing.asked = None;
        if verdict != Some(Verdict::Taken) {
            placing.unknown_kind |= verdict == Some(Verdict::UnknownKind);
            if verdict.is_none() {
                // It may have said yes all the same: the next one's assignment has to count more.
                placing.record.rank.attempt += 1;
            }
            self.ask_next(task, desk);
            return None;
        }
        let placing = self.placing.remove(task)?;
        self.turns += 1;
        self.given.insert(from, self.turns);
        answer(placing.call, Submitted::Assigned(placing.record.clone()), desk.out);
        Some(placing.record)
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
        for orphan in orphans {
            if self.placing.contains_key(&orphan.task) || self.placing.len() >= limits::TASKS_PLACING_MAX {
                continue;
            }
            if orphan.rank.claim > claim {
                let counter = orphan.rank.claim.counter;
                return desk.out.push(Action::Outranked { counter });
            }
            let rank = next_rank(claim, Some(orphan.rank));
            let former = orphan.worker;
            let avoid =
                desk.workers.keys().copied().filter(|p| (desk.number_of)(p) == Some(former)).collect();
            self.seek(None, TaskRecord { rank, phase: Phase::Assigned, ..orphan }, avoid, desk);
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

/// An attempt after the last, whoever's claim that was under.
fn next_rank(claim: Claim, below: Option<Rank>) -> Rank {
    Rank { claim, attempt: below.map_or(0, |below| below.attempt) + 1 }
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
