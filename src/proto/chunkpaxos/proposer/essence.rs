//! What of a proposer decides what it will ever say; see [`super::super::ChunkPaxos::essence`].

use std::hash::{Hash, Hasher};

use super::*;

impl Proposer {
    pub(in super::super) fn essence(&self, into: &mut impl Hasher) {
        let Self { counter, rounds, work, ballots, asks, forwards, calls: _, alarms: _, dice: _ } = self;
        (counter, rounds).hash(into);
        for (object, Work { queue, round }) in work {
            object.hash(into);
            for Task { caller, command, deadline: _, messages: _, lost_duels: _, tried } in queue {
                (caller, command, tried).hash(into);
            }
            if let Some(Round { id, phase, wake: _ }) = round {
                id.hash(into);
                phase.essence(into);
            }
        }
        for (object, Prepared { ballot, current }) in ballots.iter() {
            (object, ballot, current).hash(into);
        }
        for (number, Ask { call, object, asked, states }) in asks {
            (number, call, object, asked, &states.0).hash(into);
        }
        for (number, Forward { call, object, home, command, deadline: _ }) in forwards {
            (number, call, object, home, command).hash(into);
        }
    }

    pub(in super::super) fn waits_for(&self, round: RoundId) -> bool {
        let is_it = |work: &Work| work.round.as_ref().is_some_and(|r| r.id == round);
        self.work.values().any(is_it)
            || self.asks.contains_key(&round.number)
            || self.forwards.contains_key(&round.number)
    }

    pub(in super::super) fn is_idle(&self) -> bool {
        self.work.is_empty() && self.asks.is_empty() && self.forwards.is_empty()
    }
}

impl Phase {
    fn essence(&self, into: &mut impl Hasher) {
        std::mem::discriminant(self).hash(into);
        match self {
            Phase::Backoff => {}
            Phase::Query { states } => states.0.hash(into),
            Phase::Prepare { ballot, promises, refused } => (ballot, &promises.0, refused).hash(into),
            Phase::Accept(writing) => {
                let Writing { ballot, value, next, accepted, refused, mirrored, chosen_at, ending } = writing;
                (ballot, value, next, accepted, refused, mirrored, chosen_at.is_some()).hash(into);
                std::mem::discriminant(ending).hash(into);
            }
        }
    }
}
