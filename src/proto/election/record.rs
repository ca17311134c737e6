//! What a node remembers of elections, for people, and how it says why somebody is coordinator.

use std::collections::VecDeque;

use super::message::Reason;
use crate::model::{PeerId, limits, task::Claim};

/// One election as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The claim that came of it.
    pub claim: Claim,
    /// Who made it.
    pub coordinator: PeerId,
    /// Why there was an election.
    pub reason: Reason,
    /// The loads that the claimant knew, in hundredths of a point, by PeerId; none if its news did not come
    /// here.
    pub loads: Vec<(PeerId, u64)>,
}

impl Record {
    /// Why this one is coordinator, in words: "lowest load of 3: 12.5 (attic 20.1, nas 33.0)". `name` gives
    /// a member's name.
    pub fn sentence(&self, name: impl Fn(&PeerId) -> String) -> String {
        let why = match &self.reason {
            Reason::First => String::new(),
            Reason::Death(peer) => format!("{} died; ", name(peer)),
            Reason::Resignation(peer) => format!("{} resigned; ", name(peer)),
            Reason::Gone(peer) => format!("{} left office; ", name(peer)),
            Reason::ClearlyBetter(peer) => format!("clearly better than {}; ", name(peer)),
            Reason::Anew => "it claims anew; ".to_owned(),
            Reason::Unheard => return "it was in office when this node heard of it".to_owned(),
        };
        let own = self.loads.iter().find(|(peer, _)| *peer == self.coordinator).map(|(_, load)| *load);
        let Some(own) = own else { return format!("{why}its load is not known here") };
        let mut others: Vec<(u64, PeerId)> = self.loads.iter().map(|(peer, load)| (*load, *peer)).collect();
        others.retain(|(_, peer)| *peer != self.coordinator);
        others.sort();
        if others.is_empty() {
            return format!("{why}the only node; load {}", points(own));
        }
        let lowest = others.iter().all(|other| (own, self.coordinator) < *other);
        let what = match (lowest, &self.reason) {
            (true, _) => "lowest load",
            (false, Reason::First) => "the first that saw more than half of them; load",
            (false, _) => "load",
        };
        let listed: Vec<String> =
            others.iter().map(|(load, peer)| format!("{} {}", name(peer), points(*load))).collect();
        format!("{why}{what} of {}: {} ({})", self.loads.len(), points(own), listed.join(", "))
    }
}

/// A load as people read it.
fn points(centi: u64) -> String {
    let tenths = centi.saturating_add(5) / 10;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// The last elections, oldest first; at most [`limits::ELECTIONS_KEPT`].
#[derive(Debug, Default)]
pub(super) struct Records(VecDeque<Record>);

impl Records {
    /// Keeps it; whether it is new, or says more than what was known of this claim.
    pub(super) fn keep(&mut self, record: &Record) -> bool {
        if let Some(known) = self.0.iter_mut().find(|known| known.claim == record.claim) {
            let says_more = known.reason == Reason::Unheard && record.reason != Reason::Unheard;
            if says_more {
                *known = record.clone();
            }
            return says_more;
        }
        while self.0.len() >= limits::ELECTIONS_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(record.clone());
        true
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Record> + ExactSizeIterator {
        self.0.iter()
    }

    pub(super) fn of(&self, claim: &Claim) -> Option<&Record> {
        self.0.iter().rev().find(|record| record.claim == *claim)
    }
}
