//! **At most one effective answer per task**, made under the very assignment that the client goes by; and no
//! assignment is ever given to two workers.

use std::collections::{BTreeMap, BTreeSet};

use tintype::model::task::{Rank, TaskId};

use super::Checked;

#[derive(Default)]
pub struct Effects {
    /// Who has a place under which assignment: a node and its life.
    given: BTreeMap<(TaskId, Rank), (usize, u64)>,
    made: BTreeSet<(TaskId, Rank)>,
    effective: BTreeSet<TaskId>,
}

impl Effects {
    /// A node expects the picture of a task.
    pub fn given(&mut self, node: usize, life: u64, task: TaskId, rank: Rank) -> Checked {
        let first = *self.given.entry((task, rank)).or_insert((node, life));
        if first != (node, life) {
            return Err(format!("{rank:?} of {task:?} was given to {first:?} and to {:?}", (node, life)));
        }
        Ok(())
    }

    /// A worker has an answer.
    pub fn made(&mut self, task: TaskId, rank: Rank) {
        self.made.insert((task, rank));
    }

    /// A client makes an answer effective, which was made under `made`.
    pub fn effective(&mut self, task: TaskId, rank: Rank, made: Option<Rank>) -> Checked {
        if !self.effective.insert(task) {
            return Err(format!("{task:?} has two effective answers"));
        }
        if made != Some(rank) {
            return Err(format!("the answer of {task:?} under {rank:?} was made under {made:?}"));
        }
        if !self.made.contains(&(task, rank)) {
            return Err(format!("nobody made the answer of {task:?} under {rank:?}"));
        }
        Ok(())
    }
}
