//! What of a machine decides what it will ever say, for the exhaustive check: two machines of the same
//! essence are one to it. Never what only tells time, counts, or throws dice.
//!
//! Every part is taken apart field by field, so that a new field cannot be forgotten here.

use std::hash::{Hash, Hasher};

use super::*;

impl ChunkPaxos {
    /// Feeds the essence. A node that will never propose again is only an acceptor.
    pub(super) fn essence(&self, proposes: bool, into: &mut impl Hasher) {
        let Self { config: _, slots: _, reachable, roles, armed: _, local, counters: _ } = self;
        let Roles { acceptor, proposer, installer } = roles;
        assert!(local.is_empty(), "what one role tells another does not outlive an event");
        assert_eq!(
            installer.next_alarm(),
            None,
            "nothing is handed over here, so all slots stay as they were"
        );
        acceptor.essence(into);
        if proposes {
            reachable.hash(into);
            proposer.essence(into);
        }
    }

    /// How many writes were issued after this one.
    pub(super) fn writes_after(&self, serial: u64) -> u64 {
        self.roles.acceptor.writes_after(serial)
    }

    /// Whether an answer to this round would be heard.
    pub(super) fn waits_for(&self, round: RoundId) -> bool {
        round.boot == self.config.boot && self.roles.proposer.waits_for(round)
    }

    /// Whether no call is in progress.
    pub(super) fn is_idle(&self) -> bool {
        self.roles.proposer.is_idle()
    }
}
