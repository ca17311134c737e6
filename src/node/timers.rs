//! The node's timers: one of each kind, armed again replaces.
//!
//! It knows no clock; the event loop does.

use std::collections::BTreeMap;

use crate::{
    model::Millis,
    proto::{chunkpaxos, election, founding, history, membership},
};

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerKey {
    /// Of the founding.
    Founding(founding::Timer),
    /// Of ChunkPaxos.
    ChunkPaxos(chunkpaxos::Timer),
    /// Of the membership view.
    Membership(membership::Timer),
    /// Of the election.
    Election(election::Timer),
    /// Of the tasks.
    History(history::Timer),
    /// Sample the load, look at the disk.
    Vitals,
    /// Look through the slots for what lacks a copy.
    Repair,
}

/// Armed timers.
#[derive(Default)]
pub struct Timers(BTreeMap<TimerKey, Millis>);

impl Timers {
    /// Arms, replacing an earlier arming of the same timer.
    pub fn arm(&mut self, key: TimerKey, at: Millis) {
        self.0.insert(key, at);
    }

    /// Arms unless it is armed for an earlier time.
    pub fn arm_no_later(&mut self, key: TimerKey, at: Millis) {
        let earlier = self.0.get(&key).is_some_and(|old| *old <= at);
        if !earlier {
            self.arm(key, at);
        }
    }

    /// When the next one is due.
    pub fn next_at(&self) -> Option<Millis> {
        self.0.values().min().copied()
    }

    /// Takes one that is due.
    pub fn take_due(&mut self, now: Millis) -> Option<TimerKey> {
        let key =
            self.0.iter().filter(|(_, at)| **at <= now).min_by_key(|(_, at)| **at).map(|(key, _)| *key)?;
        self.0.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_due_comes_first_and_arming_replaces() {
        let mut timers = Timers::default();
        timers.arm(TimerKey::Vitals, Millis(10));
        timers.arm(TimerKey::Repair, Millis(5));
        timers.arm_no_later(TimerKey::Repair, Millis(7));
        assert_eq!(timers.next_at(), Some(Millis(5)));
        assert_eq!(timers.take_due(Millis(4)), None);
        timers.arm(TimerKey::Repair, Millis(20));
        assert_eq!(timers.take_due(Millis(30)), Some(TimerKey::Vitals));
        assert_eq!(timers.take_due(Millis(30)), Some(TimerKey::Repair));
        assert_eq!(timers.next_at(), None);
    }
}
