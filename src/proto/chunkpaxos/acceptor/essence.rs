//! What of an acceptor decides what it will ever say; see [`ChunkPaxos::essence`].

use std::hash::{Hash, Hasher};

use super::*;

impl Acceptor {
    pub(in super::super) fn essence(&self, into: &mut impl Hasher) {
        let Self { entries, serial } = self;
        for (object, entry) in entries.iter() {
            let Entry { record, waiting, writes_in_flight, last_serial, dirty } = entry;
            assert!(waiting.is_empty(), "a record is loaded at once");
            (object, record, writes_in_flight, serial - last_serial, dirty).hash(into);
        }
    }

    pub(in super::super) fn writes_after(&self, serial: u64) -> u64 {
        self.serial - serial
    }
}
