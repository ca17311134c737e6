//! A bounded map that forgets what was used longest ago, unless its owner needs it.

use std::collections::BTreeMap;

use crate::model::ObjectId;

/// Values by object, with the order of their last use.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Lru<V> {
    entries: BTreeMap<ObjectId, (u64, V)>,
    by_use: BTreeMap<u64, ObjectId>,
    clock: u64,
    max: usize,
}

impl<V> Lru<V> {
    /// An empty one for at most `max` values.
    pub(super) fn new(max: usize) -> Self {
        Self { entries: BTreeMap::new(), by_use: BTreeMap::new(), clock: 0, max }
    }

    /// The value, which counts as used now.
    pub(super) fn touch(&mut self, object: &ObjectId) -> Option<&mut V> {
        let (stamp, value) = self.entries.get_mut(object)?;
        self.by_use.remove(stamp);
        self.clock += 1;
        *stamp = self.clock;
        self.by_use.insert(self.clock, *object);
        Some(value)
    }

    /// Adds a value that is not there yet; `false` if full of values that `may_go` will not let go.
    pub(super) fn insert(&mut self, object: ObjectId, value: V, may_go: impl Fn(&V) -> bool) -> bool {
        debug_assert!(!self.entries.contains_key(&object), "inserted twice");
        if self.entries.len() >= self.max && !self.evict(may_go) {
            return false;
        }
        self.clock += 1;
        self.entries.insert(object, (self.clock, value));
        self.by_use.insert(self.clock, object);
        true
    }

    /// Takes a value out.
    pub(super) fn remove(&mut self, object: &ObjectId) -> Option<V> {
        let (stamp, value) = self.entries.remove(object)?;
        self.by_use.remove(&stamp);
        Some(value)
    }

    /// Drops what is not to be kept.
    pub(super) fn retain(&mut self, keep: impl Fn(&ObjectId, &V) -> bool) {
        let Self { entries, by_use, .. } = self;
        entries.retain(|object, (stamp, value)| {
            let stays = keep(object, value);
            if !stays {
                by_use.remove(stamp);
            }
            stays
        });
    }

    /// All values, without touching any.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ObjectId, &V)> {
        self.entries.iter().map(|(object, (_, value))| (object, value))
    }

    fn evict(&mut self, may_go: impl Fn(&V) -> bool) -> bool {
        let oldest =
            self.by_use.values().find(|o| self.entries.get(*o).is_some_and(|(_, v)| may_go(v))).copied();
        oldest.is_some_and(|object| self.remove(&object).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_may_go_goes() {
        let id = |n| ObjectId([n; 32]);
        let mut lru = Lru::new(2);
        assert!(lru.insert(id(1), 1, |_| true) && lru.insert(id(2), 2, |_| true));
        lru.touch(&id(1));
        assert!(lru.insert(id(3), 3, |v| *v != 2), "2 is pinned, so 1 goes");
        assert_eq!((lru.touch(&id(1)).copied(), lru.touch(&id(2)).copied()), (None, Some(2)));
        assert!(!lru.insert(id(4), 4, |_| false));
        assert_eq!(lru.remove(&id(3)), Some(3));
        assert!(lru.insert(id(4), 4, |_| false));
    }
}
