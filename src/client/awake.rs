//! Time during which this process ran: what the patience of a client is counted in.
//!
//! A process that was stopped, or a machine that slept, has waited for nobody meanwhile. It must never make a
//! wait longer for any other reason: on a machine that is merely busy it keeps up with the clock.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::model::Millis;

/// The network's thread looks this often, so that whoever waits need not.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// More than this between two looks is no waiting: the process did not run. A busy machine is late by less.
const GAP_MAX: Duration = Duration::from_millis(250);

/// A clock that stands still while the process does.
#[derive(Debug)]
pub(super) struct AwakeClock(Mutex<Counted>);

#[derive(Debug)]
struct Counted {
    awake: Duration,
    looked: Instant,
}

impl AwakeClock {
    /// At nought.
    pub(super) fn start() -> Self {
        Self(Mutex::new(Counted { awake: Duration::ZERO, looked: Instant::now() }))
    }

    /// The time since the start during which the process ran; never goes back.
    pub(super) fn now(&self) -> Millis {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).look(Instant::now())
    }

    /// How much of the time since `then` the process ran.
    pub(super) fn since(&self, then: Millis) -> Millis {
        self.now().since(then)
    }
}

impl Counted {
    fn look(&mut self, now: Instant) -> Millis {
        self.awake += now.saturating_duration_since(self.looked).min(GAP_MAX);
        self.looked = self.looked.max(now);
        Millis(u64::try_from(self.awake.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_little_and_looks_that_come_often_count_whole() {
        let start = Instant::now();
        let mut counted = Counted { awake: Duration::ZERO, looked: start };
        let at = |ms: u64| start + Duration::from_millis(ms);
        for ms in (100..=2000).step_by(100) {
            assert_eq!(counted.look(at(ms)), Millis(ms));
        }
        assert_eq!(counted.look(at(5000)), Millis(2250));
        assert_eq!(counted.look(at(5001)), Millis(2251));
        assert_eq!(counted.look(at(4000)), Millis(2251), "a look that came late counts nothing twice");
        assert_eq!(counted.look(at(5101)), Millis(2351));
    }
}
