//! What waits for a time, at most one alarm each, so that the machine needs one timer.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Millis, ObjectId};

/// What an alarm is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The calls for an object.
    Work(ObjectId),
    /// A question for the newest known value, by its round.
    Ask(u64),
    /// A forwarded call, by its round.
    Forward(u64),
}

/// All alarms.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
pub(super) struct Alarms {
    times: BTreeMap<Due, Millis>,
    order: BTreeSet<(Millis, Due)>,
}

impl Alarms {
    /// Sets or moves an alarm.
    pub(super) fn set(&mut self, due: Due, at: Millis) {
        self.clear(due);
        self.times.insert(due, at);
        self.order.insert((at, due));
    }

    /// Takes an alarm away, if it is there.
    pub(super) fn clear(&mut self, due: Due) {
        if let Some(at) = self.times.remove(&due) {
            self.order.remove(&(at, due));
        }
    }

    /// The earliest time.
    pub(super) fn first(&self) -> Option<Millis> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes out one alarm that is due.
    pub(super) fn pop(&mut self, now: Millis) -> Option<Due> {
        let (at, due) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.clear(due);
        Some(due)
    }
}
