//! Who may say what to this node, and in which epoch. What is not allowed is ignored and counted.
//!
//! It only looks; whatever waited for the disk is looked at again, for its slot may have gone on meanwhile.

use super::{
    Ballot, Body, Command, Desk, Message, Variant,
    view::{Pending, Slot},
};
use crate::{model::PeerId, proto::placement};

impl Desk<'_> {
    /// Whether this peer may say this to this node now.
    pub(super) fn allows(&self, from: &PeerId, message: &Message) -> bool {
        let Message { object, body, .. } = message;
        if matches!(body, Body::Written { .. } | Body::FenceWritten) {
            // Of any epoch: what was issued in the one before is durable all the same.
            return *from == self.config.me;
        }
        let is_member = self.config.founding.number_of(from).is_some();
        let sane = body.ballots().all(Ballot::is_sane);
        if !is_member || !sane || message.register().is_some_and(|value| value.object != *object) {
            return false;
        }
        let slot = self.slots.of(object);
        match slot.pending.as_ref().filter(|_| body.is_of_handover()) {
            Some(pending) => self.allows_in_handover(from, message, slot, pending),
            None => !body.is_of_handover() && self.allows_in_view(from, message, slot),
        }
    }

    /// What proposers, acceptors and mirrors say to each other, all in one view.
    fn allows_in_view(&self, from: &PeerId, message: &Message, slot: &Slot) -> bool {
        let Message { epoch, object, body, .. } = message;
        let (me, view) = (&self.config.me, &slot.active);
        if *epoch != view.epoch || body.ballots().any(|ballot| ballot.epoch > view.epoch) {
            return false;
        }
        let is_acceptor = view.keepers.acceptors.contains(me) && slot.serves(*epoch);
        match body {
            Body::Prepare { ballot } => {
                is_acceptor && ballot.counter > view.first_counter && self.is_its(from, ballot, slot)
            }
            Body::Accept { ballot, value, next } => {
                let anyone = self.config.variant == Variant::EveryoneSkipsPrepare;
                let home = || placement::home(view.epoch, &view.keepers.acceptors, object);
                let may_skip = || value.version == 1 && (anyone || home() == Some(*from));
                let may_write = match ballot.counter.cmp(&view.first_counter) {
                    std::cmp::Ordering::Less => false,
                    std::cmp::Ordering::Equal => self.has_implicit_ballot(view) && may_skip(),
                    std::cmp::Ordering::Greater => true,
                };
                let fits = |n: &Ballot| n > ballot && n.node == ballot.node && n.boot == ballot.boot;
                is_acceptor && may_write && self.is_its(from, ballot, slot) && next.as_ref().is_none_or(fits)
            }
            Body::Query => is_acceptor || view.keepers.mirror == Some(*me),
            Body::Mirror { .. } => view.keepers.mirror == Some(*me) && view.keepers.acceptors.contains(from),
            Body::Forward { command: Command::ReadAny } => false,
            _ => true,
        }
    }

    /// What an installer says, and what it is told.
    fn allows_in_handover(&self, from: &PeerId, message: &Message, slot: &Slot, ordered: &Pending) -> bool {
        if message.epoch != ordered.to || message.body.ballots().any(|ballot| ballot.epoch > ordered.to) {
            return false;
        }
        let me = &self.config.me;
        let by_its = |attempt: u64| ordered.installer == *from && ordered.attempt == attempt;
        let is_old = slot.active.keepers.acceptors.contains(me);
        match &message.body {
            Body::Fence { attempt } => by_its(*attempt) && is_old,
            Body::List { attempt, .. } | Body::Fetch { attempt } => {
                let is_fenced = slot.is_fenced(ordered.to) || self.config.variant == Variant::NoFence;
                by_its(*attempt) && is_old && is_fenced
            }
            Body::Install { attempt, ballot, .. } => {
                let is_its = (ballot.epoch, ballot.counter, ballot.boot)
                    == (ordered.to, *attempt, ordered.boot)
                    && self.proposer_of(ballot) == Some(*from);
                let any = self.config.variant == Variant::InstallOldBallot;
                let is_new = ordered.keepers.holds(me) && !slot.refuses(ordered.to);
                by_its(*attempt) && is_new && (is_its || any)
            }
            _ => ordered.installer == *me,
        }
    }

    fn is_its(&self, from: &PeerId, ballot: &Ballot, slot: &Slot) -> bool {
        ballot.epoch == slot.active.epoch && self.proposer_of(ballot) == Some(*from)
    }
}
