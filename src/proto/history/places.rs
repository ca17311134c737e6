//! The tasks that this node works on: a bounded number of places, each for one assignment.
//!
//! It says when work begins and when a place is free again. It never sees a picture.

use std::collections::BTreeMap;

use crate::model::{
    Millis, limits,
    task::{Place, Rank, TaskId, TaskKind, TaskRecord, Verdict},
};

/// What this node can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Means {
    /// Tasks that it works on at once.
    pub slots: usize,
    /// Tasks beyond those that it takes, so that one comes in while another is worked on.
    pub queue: usize,
    /// The kinds of work that it knows.
    pub kinds: Vec<TaskKind>,
}

impl Means {
    /// Tasks that it has in hand at most; without a slot there is nothing to wait for.
    pub fn places(&self) -> usize {
        if self.slots == 0 { 0 } else { self.slots + self.queue }
    }
}

/// The places of one node.
#[derive(Debug)]
pub(super) struct Places {
    means: Means,
    taken: BTreeMap<TaskId, Taken>,
    /// Work that has not ended, whether it is still wanted or not, and the bytes that it holds.
    running: BTreeMap<(TaskId, Rank), u64>,
    serial: u64,
    is_leaving: bool,
}

#[derive(Debug)]
struct Taken {
    rank: Rank,
    /// What it holds: the payload, and then the answer.
    bytes: u64,
    stage: Stage,
    /// When its client was heard of last.
    last_sign: Millis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Receiving,
    /// With its place in the line.
    Waiting(u64),
    Running,
    Done,
}

impl Places {
    pub(super) fn new(means: Means) -> Self {
        Self { means, taken: BTreeMap::new(), running: BTreeMap::new(), serial: 0, is_leaving: false }
    }

    pub(super) fn leave(&mut self) {
        self.is_leaving = true;
    }

    /// Whether a place can be had for this; takes none.
    pub(super) fn judge(&self, record: &TaskRecord) -> Verdict {
        let others = || self.taken.iter().filter(|(task, _)| **task != record.task).map(|(_, taken)| taken);
        // What is worked on for an earlier assignment of this very task goes on, and nobody will want it.
        let is_stray = |at: &(TaskId, Rank)| at.0 == record.task || self.is_stray(at);
        let strays: Vec<u64> =
            self.running.iter().filter(|(at, _)| is_stray(at)).map(|(_, bytes)| *bytes).collect();
        // An answer that waits to be taken needs no place any more, only memory.
        let busy = others().filter(|taken| taken.stage != Stage::Done).count() + strays.len();
        let bytes = others().map(|taken| taken.bytes).sum::<u64>() + strays.iter().sum::<u64>();
        let kept = others().count();
        if self.is_leaving {
            Verdict::Leaving
        } else if !self.means.kinds.contains(&record.kind) {
            Verdict::UnknownKind
        } else if busy >= self.means.places()
            || kept >= 2 * self.means.places()
            || bytes + record.payload_bytes > limits::TASK_PAYLOADS_BYTES_MAX
        {
            Verdict::Full
        } else {
            Verdict::Taken
        }
    }

    /// Gives the task a place; an earlier assignment of it loses its own.
    pub(super) fn take(&mut self, record: &TaskRecord, now: Millis) {
        let taken =
            Taken { rank: record.rank, bytes: record.payload_bytes, stage: Stage::Receiving, last_sign: now };
        self.taken.insert(record.task, taken);
    }

    /// The picture is here.
    pub(super) fn received(&mut self, task: &TaskId, rank: Rank, now: Millis) -> bool {
        let Some(taken) = self.taken.get_mut(task).filter(|taken| taken.rank == rank) else { return false };
        if taken.stage != Stage::Receiving {
            return false;
        }
        self.serial += 1;
        taken.stage = Stage::Waiting(self.serial);
        taken.last_sign = now;
        true
    }

    /// The next that is to be worked on, if there is a slot for it.
    pub(super) fn next(&mut self) -> Option<(TaskId, Rank)> {
        if self.running.len() >= self.means.slots {
            return None;
        }
        let waiting = self.taken.iter_mut().filter_map(|(task, taken)| match taken.stage {
            Stage::Waiting(serial) => Some((serial, *task, taken)),
            _ => None,
        });
        let (_, task, taken) = waiting.min_by_key(|(serial, ..)| *serial)?;
        taken.stage = Stage::Running;
        self.running.insert((task, taken.rank), taken.bytes);
        Some((task, taken.rank))
    }

    /// The work has ended, with an answer of so many bytes; whether that is still wanted.
    pub(super) fn ran(&mut self, task: &TaskId, rank: Rank, answer_bytes: u64) -> bool {
        self.running.remove(&(*task, rank));
        match self.taken.get_mut(task).filter(|taken| taken.rank == rank) {
            Some(taken) if taken.stage == Stage::Running => {
                (taken.stage, taken.bytes) = (Stage::Done, answer_bytes);
                true
            }
            _ => false,
        }
    }

    /// The client was heard of.
    pub(super) fn sign(&mut self, task: &TaskId, now: Millis) {
        if let Some(taken) = self.taken.get_mut(task) {
            taken.last_sign = now;
        }
    }

    /// Nobody wants this assignment any more; whether there was a place for it.
    pub(super) fn free(&mut self, task: &TaskId, but: Option<Rank>) -> bool {
        match self.taken.get(task) {
            Some(taken) if but != Some(taken.rank) => self.taken.remove(task).is_some(),
            _ => false,
        }
    }

    pub(super) fn rank(&self, task: &TaskId) -> Option<Rank> {
        self.taken.get(task).map(|taken| taken.rank)
    }

    pub(super) fn place(&self, task: &TaskId) -> Option<Place> {
        let place = match self.taken.get(task)?.stage {
            Stage::Receiving => Place::Receiving,
            Stage::Waiting(serial) => {
                let earlier = |taken: &&Taken| matches!(taken.stage, Stage::Waiting(other) if other < serial);
                let ahead = self.taken.values().filter(earlier).count() + self.running.len();
                Place::Waiting { ahead: ahead as u64 }
            }
            Stage::Running => Place::Running,
            Stage::Done => Place::Done,
        };
        Some(place)
    }

    /// Tasks whose clients are gone.
    pub(super) fn silent(&self, now: Millis) -> Vec<TaskId> {
        let is_silent = |taken: &Taken| now.since(taken.last_sign) >= limits::TASK_CLIENT_SILENCE;
        self.taken.iter().filter(|(_, taken)| is_silent(taken)).map(|(task, _)| *task).collect()
    }

    /// Tasks that are worked on or could be.
    pub(super) fn active(&self) -> usize {
        self.taken.values().filter(|taken| taken.stage != Stage::Done).count() + self.stray_runs()
    }

    /// Tasks that have not begun: somebody else may as well have them.
    pub(super) fn not_begun(&self) -> Vec<TaskId> {
        let not_begun = |taken: &Taken| matches!(taken.stage, Stage::Receiving | Stage::Waiting(_));
        self.taken.iter().filter(|(_, taken)| not_begun(taken)).map(|(task, _)| *task).collect()
    }

    /// Whether nothing is in hand, not even an answer that waits to be taken.
    pub(super) fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.running.is_empty()
    }

    pub(super) fn means(&self) -> &Means {
        &self.means
    }

    /// Work that goes on although nobody waits for it: it has a processor all the same.
    fn stray_runs(&self) -> usize {
        self.running.keys().filter(|at| self.is_stray(at)).count()
    }

    fn is_stray(&self, (task, rank): &(TaskId, Rank)) -> bool {
        self.rank(task) != Some(*rank)
    }
}
