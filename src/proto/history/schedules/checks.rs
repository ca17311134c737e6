//! What must hold in every schedule.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checked, NodeNumber, Rank, TaskId};

/// Questions and transfers of one errand within a second: all nodes every 200 ms, and some more.
const WISHES_PER_SECOND_MAX: usize = 60;
/// Reservations of one coordinator within a second.
const RESERVES_PER_SECOND_MAX: usize = 200;

/// What has happened, and how often.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// Who was ever told to expect what: a node and its life.
    given: BTreeMap<(TaskId, Rank), (usize, u64)>,
    produced: BTreeSet<(TaskId, Rank)>,
    ended: BTreeSet<TaskId>,
    /// Calls of nodes that live.
    open: BTreeSet<(usize, u64)>,
    wishes: BTreeMap<TaskId, Vec<u64>>,
    reserves: BTreeMap<usize, Vec<u64>>,
    pub(super) effective: u64,
    pub(super) moved: u64,
    pub(super) again: u64,
}

impl Checks {
    pub(super) fn add(&mut self, other: &Self) {
        self.effective += other.effective;
        self.moved += other.moved;
        self.again += other.again;
    }

    /// A worker has a place: nobody else ever has it under the same assignment.
    pub(super) fn expected(&mut self, node: usize, life: u64, task: TaskId, rank: Rank) -> Checked {
        let first = *self.given.entry((task, rank)).or_insert((node, life));
        if first != (node, life) {
            return Err(format!("{task:?} {rank:?} was given to {first:?} and to {:?}", (node, life)));
        }
        Ok(())
    }

    pub(super) fn produced(&mut self, task: TaskId, rank: Rank) {
        self.produced.insert((task, rank));
    }

    /// A client makes an answer effective that was made under `made`.
    pub(super) fn effective(&mut self, task: TaskId, rank: Rank, made: Option<Rank>) -> Checked {
        self.effective += 1;
        if !self.ended.insert(task) {
            return Err(format!("{task:?} has two effective answers"));
        }
        if made != Some(rank) || !self.produced.contains(&(task, rank)) {
            return Err(format!("{task:?} has an effective answer of {rank:?}, made under {made:?}"));
        }
        Ok(())
    }

    pub(super) fn moved(&mut self, from: NodeNumber, to: NodeNumber) -> Checked {
        self.moved += 1;
        if from == to { Err("moved to who had it".into()) } else { Ok(()) }
    }

    pub(super) fn asked(&mut self, node: usize, call: u64) {
        self.open.insert((node, call));
    }

    pub(super) fn answered(&mut self, node: usize, call: u64) -> Checked {
        if self.open.remove(&(node, call)) { Ok(()) } else { Err(format!("call {call} was answered twice")) }
    }

    pub(super) fn died(&mut self, node: usize) {
        self.open.retain(|(of, _)| *of != node);
    }

    pub(super) fn check_answered(&self) -> Checked {
        if self.open.is_empty() { Ok(()) } else { Err(format!("never answered: {:?}", self.open)) }
    }

    /// A client asks or transfers something for a task.
    pub(super) fn wished(&mut self, task: TaskId, now: u64) -> Checked {
        let wishes = within_a_second(self.wishes.entry(task).or_default(), now);
        if wishes > WISHES_PER_SECOND_MAX {
            return Err(format!("{wishes} questions and transfers of one errand within a second"));
        }
        Ok(())
    }

    pub(super) fn reserved(&mut self, node: usize, now: u64) -> Checked {
        let asked = within_a_second(self.reserves.entry(node).or_default(), now);
        if asked > RESERVES_PER_SECOND_MAX {
            return Err(format!("{asked} reservations of one coordinator within a second"));
        }
        Ok(())
    }
}

fn within_a_second(times: &mut Vec<u64>, now: u64) -> usize {
    times.push(now);
    times.retain(|at| at + 1000 > now);
    times.len()
}
