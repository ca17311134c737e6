//! **Every task of a living client ends** once a majority lives and nothing breaks any more; and until then
//! its client asks no more than so often.

use std::collections::{BTreeMap, VecDeque};

use tintype::model::task::TaskId;

use super::Checked;

/// Questions and transfers of one task within a second: every node each 200 ms, and some more.
const WISHES_PER_SECOND_MAX: usize = 60;

#[derive(Default)]
pub struct TasksEnd {
    open: BTreeMap<TaskId, usize>,
    wishes: BTreeMap<TaskId, VecDeque<u64>>,
}

impl TasksEnd {
    pub fn begun(&mut self, client: usize, task: TaskId) {
        self.open.insert(task, client);
    }

    pub fn ended(&mut self, task: &TaskId) {
        self.open.remove(task);
        self.wishes.remove(task);
    }

    /// Its process is gone: nobody waits for its tasks.
    pub fn client_died(&mut self, client: usize) {
        self.open.retain(|_, of| *of != client);
    }

    /// A client asks or transfers something.
    pub fn wished(&mut self, task: TaskId, now: u64) -> Checked {
        let last = self.wishes.entry(task).or_default();
        last.push_back(now);
        while last.front().is_some_and(|at| at + 1000 <= now) {
            last.pop_front();
        }
        if last.len() > WISHES_PER_SECOND_MAX {
            return Err(format!("{} questions about {task:?} within a second", last.len()));
        }
        Ok(())
    }

    pub fn all_ended(&self) -> Checked {
        match self.open.first_key_value() {
            Some((task, client)) => Err(format!("client {client} waits for {task:?} for ever")),
            None => Ok(()),
        }
    }
}
