//! Which copies were not made when they should have been, and on whom: "hinted handoff" (DeCandia and
//! others, "Dynamo", 2007, section 4.6).
//!
//! Repair finds what lacks a copy by the registers that name it, so not before its object is agreed on. A
//! large picture's first chunk may have missed a machine a minute before that. Whoever could not pass a body
//! on remembers it here, and offers it again until it is there. It never says what must be kept: nothing is
//! lost with a hint but time, up to the next run of repair.

use std::collections::BTreeMap;

use crate::model::{BodyId, Millis, PeerId, limits};

/// Copies to be made later. Bounded by [`limits::HINTS_MAX`].
#[derive(Debug, Default)]
pub struct Hints {
    /// Without times as long as nobody has looked at it.
    of: BTreeMap<(PeerId, BodyId), Option<Times>>,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    again_at: Millis,
    forget_at: Millis,
}

impl Hints {
    /// This machine should have this body, and was not given it. False if there are too many: then only a
    /// run of repair will find it.
    pub fn note(&mut self, peer: PeerId, body: BodyId) -> bool {
        if self.of.len() >= limits::HINTS_MAX && !self.of.contains_key(&(peer, body)) {
            return false;
        }
        self.of.entry((peer, body)).or_default();
        true
    }

    /// It has these.
    pub fn is_there(&mut self, peer: PeerId, bodies: &[BodyId]) {
        for body in bodies {
            self.of.remove(&(peer, *body));
        }
    }

    /// What to offer to whom now, at most [`limits::OFFER_IDS_MAX`] to each; the same again
    /// [`limits::REPAIR_RETRY`] later, unless it is there by then. What is as old as the time between two
    /// runs of repair is left to the next of them.
    pub fn due(&mut self, now: Millis) -> BTreeMap<PeerId, Vec<BodyId>> {
        let mut due = BTreeMap::<PeerId, Vec<BodyId>>::new();
        self.of.retain(|(peer, body), times| {
            let first = Times { again_at: now + limits::REPAIR_RETRY, forget_at: now + limits::REPAIR_EVERY };
            let times = times.get_or_insert(first);
            if times.forget_at <= now {
                return false;
            }
            if times.again_at <= now {
                let offered = due.entry(*peer).or_default();
                if offered.len() < limits::OFFER_IDS_MAX {
                    offered.push(*body);
                    times.again_at = now + limits::REPAIR_RETRY;
                }
            }
            true
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::peers;

    const RETRY: Millis = limits::REPAIR_RETRY;

    fn body(n: u32) -> BodyId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        BodyId(id)
    }

    #[test]
    fn what_was_missed_is_offered_again_until_it_is_there() {
        let (mut hints, peers) = (Hints::default(), peers(2));
        assert!(
            hints.note(peers[0], body(1)) && hints.note(peers[0], body(2)) && hints.note(peers[1], body(1))
        );
        let start = Millis(5000);
        assert!(hints.due(start).is_empty(), "who missed it a moment ago may still be on the way back");
        assert!(hints.due(start + Millis(RETRY.0 - 1)).is_empty());
        let all = BTreeMap::from([(peers[0], vec![body(1), body(2)]), (peers[1], vec![body(1)])]);
        assert_eq!(hints.due(start + RETRY), all);
        assert!(hints.due(start + RETRY).is_empty(), "once in a while");
        hints.is_there(peers[0], &[body(1), body(7)]);
        let rest = BTreeMap::from([(peers[0], vec![body(2)]), (peers[1], vec![body(1)])]);
        assert_eq!(hints.due(start + RETRY + RETRY), rest);
        assert!(hints.due(start + limits::REPAIR_EVERY).is_empty(), "they are left to repair");
        assert!(hints.of.is_empty());
    }

    #[test]
    fn missed_twice_it_is_one_hint_and_what_is_missed_again_later_lives_anew() {
        let (mut hints, peers) = (Hints::default(), peers(1));
        assert!(hints.note(peers[0], body(1)) && hints.note(peers[0], body(1)));
        assert_eq!(hints.of.len(), 1);
        hints.due(Millis(0));
        hints.is_there(peers[0], &[body(1)]);
        assert!(hints.note(peers[0], body(1)));
        assert!(hints.due(RETRY).is_empty(), "its time begins when it is looked at");
        assert_eq!(hints.due(RETRY + RETRY).len(), 1);
    }

    #[test]
    fn it_is_bounded_and_no_offer_is_too_long() {
        let (mut hints, peers) = (Hints::default(), peers(1));
        let noted = (0..limits::HINTS_MAX as u32 + 5).filter(|n| hints.note(peers[0], body(*n))).count();
        assert_eq!(noted, limits::HINTS_MAX);
        assert!(hints.note(peers[0], body(0)), "it is one of them");
        hints.due(Millis(0));
        let mut offered = std::collections::BTreeSet::new();
        for _ in 0..limits::HINTS_MAX.div_ceil(limits::OFFER_IDS_MAX) {
            let due = hints.due(RETRY).remove(&peers[0]).unwrap_or_default();
            assert!(due.len() <= limits::OFFER_IDS_MAX);
            offered.extend(due);
        }
        assert_eq!(offered.len(), limits::HINTS_MAX, "all have their turn");
    }
}
