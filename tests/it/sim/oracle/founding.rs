//! **One founding**: no two nodes ever durably have or serve two different ones, a founding is never taken
//! back, and a vote is given anew only after it was taken back.

use tintype::{
    model::{FoundingId, member::Founding},
    proto::founding::FoundingRecord,
};

use super::Checked;

pub struct Foundings {
    made: Option<Founding>,
    /// What is on each node's disk.
    records: Vec<FoundingRecord>,
    pub ready: u64,
}

impl Foundings {
    pub fn new(nodes: usize) -> Self {
        Self { made: None, records: vec![FoundingRecord::default(); nodes], ready: 0 }
    }

    /// This is on a node's disk now.
    pub fn durable(&mut self, node: usize, record: &FoundingRecord) -> Checked {
        let old = std::mem::replace(&mut self.records[node], record.clone());
        if old.founding.is_some() && old.founding != record.founding {
            return Err(format!("node {node} took its founding back"));
        }
        let id = |vote: &Option<Founding>| vote.as_ref().map(|v| v.id);
        if let (Some(before), Some(after)) = (id(&old.vote), id(&record.vote))
            && before != after
        {
            return Err(format!("node {node} voted twice: {before} and {after}"));
        }
        record.founding.as_ref().map_or(Ok(()), |founding| self.agree(founding))
    }

    /// A node lost what it had not yet made durable: its disk says what it knows.
    pub fn restarted(&mut self, node: usize, on_disk: FoundingRecord) {
        self.records[node] = on_disk;
    }

    /// A node serves.
    pub fn ready(&mut self, node: usize, founding: &Founding) -> Checked {
        self.ready += 1;
        if self.records[node].founding.as_ref() != Some(founding) {
            return Err(format!("node {node} serves a founding that it has not written"));
        }
        self.agree(founding)
    }

    fn agree(&mut self, founding: &Founding) -> Checked {
        let made: FoundingId = self.made.get_or_insert_with(|| founding.clone()).id;
        if made != founding.id {
            return Err(format!("two foundings: {made} and {}", founding.id));
        }
        Ok(())
    }
}
