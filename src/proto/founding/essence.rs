//! What of a machine decides what it will ever say, for the exhaustive check: two machines of the same
//! essence are one to it.
//!
//! What was heard of others is not in it: a state of the check is one in which it is forgotten, see
//! [`FoundingMachine::forget`]. Every part is taken apart field by field, so that a new field cannot be
//! forgotten here.

use std::hash::{Hash, Hasher};

use super::*;

impl FoundingMachine {
    /// Feeds the essence.
    pub(super) fn essence(&self, now: Millis, into: &mut impl Hasher) {
        let Self { config, record, in_flight, ready, peers, votes, began: _, voted_at, status: _, ids } =
            self;
        (record, in_flight, ready, votes, ids.position()).hash(into);
        if self.my_proposal().is_some() || config.variant == Variant::VoterTakesBack {
            (now.since(*voted_at) >= limits::FOUNDING_SILENCE).hash(into);
        }
        for (peer, Peer { connected, heard }) in peers {
            assert!(heard.is_none(), "forgotten");
            (peer, connected).hash(into);
        }
    }

    /// Forgets where the others stand. Nothing is lost by it where every message may come again: what was
    /// heard only says who is a candidate now, and who is not silent.
    pub(super) fn forget(&mut self) {
        self.peers.values_mut().for_each(|peer| peer.heard = None);
    }

    /// Whether it has promised nothing and nothing is on its way to disk.
    pub(super) fn is_pristine(&self) -> bool {
        self.record == FoundingRecord::default() && self.in_flight.is_empty()
    }

    /// How many proposals it made since its start.
    pub(super) fn proposals(&self) -> u64 {
        self.ids.position() / 16
    }
}
