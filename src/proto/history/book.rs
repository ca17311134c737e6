//! What a node knows of every task: one record each, the greatest that it has heard.
//!
//! Records only ever replace each other upwards, so it does not matter in what order or how often they are
//! heard. It decides nothing about who works.

use std::collections::BTreeMap;

use crate::model::{
    Millis, limits,
    member::NodeNumber,
    task::{Phase, TaskId, TaskRecord},
};

/// The records of one node.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: BTreeMap<TaskId, Entry>,
    /// Of the records that have not ended; counted anew when it is asked for after a change.
    digest: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    record: TaskRecord,
    /// When it came to be what it is.
    since: Millis,
}

impl Book {
    /// Takes a record in if it counts more than what is known; says whether it did.
    pub(super) fn join(&mut self, record: TaskRecord, now: Millis) -> bool {
        let known = self.entries.get(&record.task);
        if known.is_some_and(|known| known.record.precedence() >= record.precedence()) {
            return false;
        }
        if !self.has_room_for(&record.task) {
            return false;
        }
        self.digest = None;
        self.entries.insert(record.task, Entry { record, since: now });
        true
    }

    /// Whether one more task may be known. Ended ones make room.
    pub(super) fn has_room_for(&mut self, task: &TaskId) -> bool {
        if self.entries.contains_key(task) || self.entries.len() < limits::TASKS_KNOWN_MAX {
            return true;
        }
        let ended = self.entries.iter().filter(|(_, entry)| entry.record.phase.is_closed());
        let Some(oldest) = ended.min_by_key(|(_, entry)| entry.since).map(|(task, _)| *task) else {
            return false;
        };
        self.entries.remove(&oldest);
        true
    }

    pub(super) fn get(&self, task: &TaskId) -> Option<&TaskRecord> {
        self.entries.get(task).map(|entry| &entry.record)
    }

    /// All records, by task.
    pub(super) fn all(&self) -> impl Iterator<Item = &TaskRecord> {
        self.entries.values().map(|entry| &entry.record)
    }

    /// Those that have not ended.
    pub(super) fn open(&self) -> impl Iterator<Item = &TaskRecord> {
        self.all().filter(|record| !record.phase.is_closed())
    }

    /// How many tasks this worker has in hand that it still has to work on.
    pub(super) fn work_of(&self, worker: NodeNumber) -> u64 {
        let at_work = |r: &&TaskRecord| matches!(r.phase, Phase::Assigned | Phase::Started);
        self.open().filter(|record| record.worker == worker).filter(at_work).count() as u64
    }

    /// A page of records behind a task, and where the next page begins.
    pub(super) fn page(&self, after: Option<TaskId>) -> (Vec<TaskRecord>, Option<TaskId>) {
        let behind = self.all().filter(|record| after.is_none_or(|after| record.task > after));
        let mut page: Vec<TaskRecord> = behind.take(limits::TASK_PAGE_RECORDS_MAX + 1).cloned().collect();
        let has_more = page.len() > limits::TASK_PAGE_RECORDS_MAX;
        page.truncate(limits::TASK_PAGE_RECORDS_MAX);
        let next = page.last().filter(|_| has_more).map(|record| record.task);
        (page, next)
    }

    /// Forgets what ended long ago.
    pub(super) fn forget_old(&mut self, now: Millis) {
        let is_old = |entry: &Entry| now.since(entry.since) >= limits::TASK_KEPT;
        self.entries.retain(|_, entry| !(entry.record.phase.is_closed() && is_old(entry)));
    }

    /// Names the tasks that have not ended and how far they are: two nodes with the same one know the same.
    pub(super) fn digest(&mut self) -> u64 {
        let entries = &self.entries;
        *self.digest.get_or_insert_with(|| {
            let mut hasher = blake3::Hasher::new();
            let open = entries.values().map(|entry| &entry.record).filter(|r| !r.phase.is_closed());
            for record in open {
                hasher.update(&crate::model::codec::encode(record));
            }
            let bytes = hasher.finalize();
            let (head, _) = bytes.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
            u64::from_le_bytes(*head)
        })
    }
}
