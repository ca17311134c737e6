//! Bodies that this disk had no room for, and how long they are: nobody fetches one again to see it refused
//! once more, for as long as it is still too long.
//!
//! It is a memory, and decides nothing.

use std::collections::BTreeMap;

use crate::model::{BodyId, limits};

/// Bounded by [`limits::REPAIR_WANTED_MAX`], in about 4 MiB.
#[derive(Debug, Default)]
pub(super) struct Refused {
    lens: BTreeMap<BodyId, u64>,
}

impl Refused {
    /// There was no room for it.
    pub(super) fn note(&mut self, id: BodyId, len: u64) {
        if self.lens.len() < limits::REPAIR_WANTED_MAX {
            self.lens.insert(id, len);
        }
    }

    /// It is here.
    pub(super) fn is_here(&mut self, id: &BodyId) {
        self.lens.remove(id);
    }

    /// How many bytes there must be room for before it is fetched; none if it was not refused. Of what is not
    /// remembered, once that is much, it is the most.
    pub(super) fn room_wanted(&self, id: &BodyId) -> Option<u64> {
        let is_full = self.lens.len() >= limits::REPAIR_WANTED_MAX;
        self.lens.get(id).copied().or(is_full.then_some(limits::BODY_BYTES_MAX as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(n: usize) -> BodyId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        BodyId(id)
    }

    #[test]
    fn it_remembers_what_was_refused_until_it_is_here_and_never_too_much() {
        let mut refused = Refused::default();
        refused.note(body(0), 7);
        refused.note(body(1), 8);
        refused.is_here(&body(1));
        assert_eq!((refused.room_wanted(&body(0)), refused.room_wanted(&body(1))), (Some(7), None));
        for n in 2..limits::REPAIR_WANTED_MAX + 9 {
            refused.note(body(n), 9);
        }
        assert_eq!(refused.lens.len(), limits::REPAIR_WANTED_MAX);
        let most = limits::BODY_BYTES_MAX as u64;
        assert_eq!((refused.room_wanted(&body(0)), refused.room_wanted(&body(1))), (Some(7), Some(most)));
        refused.is_here(&body(0));
        assert_eq!(refused.room_wanted(&body(1)), None);
    }
}
