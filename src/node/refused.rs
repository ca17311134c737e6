//! Bodies that this disk had no room for, and how long they are: nobody fetches one again to see it refused
//! once more, for as long as it is still too long.
//!
//! It is a memory, and decides nothing: what it has forgotten is fetched once more.

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
        if self.lens.len() >= limits::REPAIR_WANTED_MAX {
            self.lens.clear();
        }
        self.lens.insert(id, len);
    }

    /// It is here.
    pub(super) fn is_here(&mut self, id: &BodyId) {
        self.lens.remove(id);
    }

    /// How long it is, in bytes; none if it was not refused.
    pub(super) fn len_of(&self, id: &BodyId) -> Option<u64> {
        self.lens.get(id).copied()
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
        assert_eq!((refused.len_of(&body(0)), refused.len_of(&body(1))), (Some(7), None));
        for n in 2..=limits::REPAIR_WANTED_MAX {
            refused.note(body(n), 9);
        }
        assert_eq!(refused.lens.len(), limits::REPAIR_WANTED_MAX);
        refused.note(body(1), 8);
        assert_eq!((refused.len_of(&body(0)), refused.len_of(&body(1))), (None, Some(8)));
    }
}
