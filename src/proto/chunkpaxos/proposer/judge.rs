//! What follows from the answers to a round.

use super::*;

impl Proposer {
    // ---- what comes back ----

    pub(super) fn on_round(
        &mut self,
        from: PeerId,
        object: ObjectId,
        id: RoundId,
        body: Body,
        desk: &mut Desk<'_>,
    ) {
        let is_acceptor = desk.view(&object).keepers.acceptors.contains(&from);
        let is_mirror = desk.view(&object).keepers.mirror == Some(from);
        let Some(round) = self.round(&object).filter(|round| round.id == id) else { return };
        match (&mut round.phase, body) {
            (Phase::Query { states }, Body::State { accepted }) if is_acceptor => {
                states.0.insert(from, accepted);
                self.judge_query(object, desk);
            }
            (Phase::Prepare { ballot, promises, .. }, Body::Promise { ballot: said, accepted })
                if is_acceptor && said == *ballot =>
            {
                promises.0.insert(from, accepted);
                self.judge_promises(object, desk);
            }
            (Phase::Accept(writing), Body::Accepted { ballot, next_promised })
                if is_acceptor && ballot == writing.ballot =>
            {
                writing.accepted.insert(from, next_promised);
                self.judge_acceptances(object, desk);
            }
            (Phase::Accept(writing), Body::Mirrored { ballot }) if is_mirror && ballot == writing.ballot => {
                writing.mirrored = true;
                self.finish_if_written(object, desk);
            }
            // A floor that is this very ballot is our own message, repeated by the network.
            (Phase::Prepare { ballot, refused, .. }, Body::Refused { ballot: said, floor })
            | (Phase::Accept(Writing { ballot, refused, .. }), Body::Refused { ballot: said, floor })
                if is_acceptor && said == *ballot && floor > said =>
            {
                refused.insert(from);
                self.judge_refusals(object, desk);
            }
            _ => desk.counters.ignored += 1,
        }
    }

    pub(super) fn judge_query(&mut self, object: ObjectId, desk: &mut Desk<'_>) {
        let keepers = &desk.view(&object).keepers;
        let (majority, all) = (keepers.majority(), keepers.acceptors.len());
        let Some(Round { phase: Phase::Query { states }, wake, .. }) = self.round(&object) else { return };
        let bare = desk.config.variant == Variant::BareQuorumRead;
        let counts = |ballot: &Ballot| desk.counts(&object, ballot);
        let known = if bare { states.current(majority, counts) } else { states.agreement(majority, counts) };
        let heard = states.0.len();
        if let Some(current) = known {
            return self.on_agreement(object, current, desk);
        }
        if heard < majority {
            return;
        }
        if heard == all {
            return self.prepare(object, desk);
        }
        *wake = (*wake).min(desk.now + limits::PAXOS_READ_GRACE);
        self.rearm(object);
    }

    /// A majority has the same: it is chosen, nothing need be written to know it.
    pub(super) fn on_agreement(&mut self, object: ObjectId, current: Current, desk: &mut Desk<'_>) {
        let Some(command) = self.command(&object) else { return };
        let value = current.accepted.as_ref().map(|a| &a.value);
        match verdict(&command, value) {
            Verdict::Already if !self.mirror_counts(&object, desk) => {
                self.finish(object, Outcome::Committed { copies: current.reporters as u64 }, desk);
            }
            Verdict::Conflict => self.finish(object, Outcome::Conflict { current: value.cloned() }, desk),
            Verdict::Report => self.finish(object, Outcome::Value { current: current.accepted }, desk),
            Verdict::Write(_) | Verdict::Already | Verdict::Rewrite => self.prepare(object, desk),
        }
    }

    pub(super) fn judge_promises(&mut self, object: ObjectId, desk: &mut Desk<'_>) {
        let majority = desk.view(&object).keepers.majority();
        let Some(Round { phase: Phase::Prepare { ballot, promises, .. }, .. }) = self.round(&object) else {
            return;
        };
        let counts = |ballot: &Ballot| desk.counts(&object, ballot);
        let (ballot, Some(current)) = (*ballot, promises.current(majority, counts)) else { return };
        let Some(command) = self.command(&object) else { return };
        let value = current.accepted.as_ref().map(|a| a.value.clone());
        let mirror_counts = self.mirror_counts(&object, desk);
        match (verdict(&command, value.as_ref()), value) {
            (Verdict::Write(next), _) => self.write(object, ballot, next, Ending::Commit, desk),
            (Verdict::Already, Some(_)) if current.agreed && !mirror_counts => {
                self.keep_ballot(object, ballot, current.accepted, desk);
                self.finish(object, Outcome::Committed { copies: current.reporters as u64 }, desk);
            }
            (Verdict::Conflict, value) if current.agreed || value.is_none() => {
                self.keep_ballot(object, ballot, current.accepted, desk);
                self.finish(object, Outcome::Conflict { current: value }, desk);
            }
            (Verdict::Report, value) if current.agreed || value.is_none() => {
                self.keep_ballot(object, ballot, current.accepted.clone(), desk);
                self.finish(object, Outcome::Value { current: current.accepted }, desk);
            }
            (Verdict::Already, Some(value)) => self.write(object, ballot, value, Ending::Commit, desk),
            (Verdict::Conflict, Some(value)) => self.write(object, ballot, value, Ending::Conflict, desk),
            (Verdict::Report | Verdict::Rewrite, Some(value)) => {
                self.write(object, ballot, value, Ending::Current, desk);
            }
            (_, None) => self.finish(object, Outcome::Value { current: None }, desk),
        }
    }

    pub(super) fn judge_acceptances(&mut self, object: ObjectId, desk: &mut Desk<'_>) {
        let majority = desk.view(&object).keepers.majority();
        let Some(Round { phase: Phase::Accept(writing), wake, .. }) = self.round(&object) else { return };
        if writing.accepted.len() >= majority && writing.chosen_at.is_none() {
            writing.chosen_at = Some(desk.now);
            *wake = desk.now + limits::PAXOS_PHASE;
        }
        self.finish_if_written(object, desk);
    }

    pub(super) fn judge_refusals(&mut self, object: ObjectId, desk: &mut Desk<'_>) {
        let keepers = &desk.view(&object).keepers;
        let spare = keepers.acceptors.len() - keepers.majority();
        let lost = match self.round(&object).map(|round| &round.phase) {
            Some(Phase::Prepare { refused, .. }) => refused.len() > spare,
            Some(Phase::Accept(writing)) => writing.refused.len() > spare && writing.chosen_at.is_none(),
            _ => false,
        };
        if lost {
            self.back_off(object, desk);
        }
    }

    /// Answers if the value is chosen, and on the mirror too as long as that can be reached.
    pub(super) fn finish_if_written(&mut self, object: ObjectId, desk: &mut Desk<'_>) {
        let waits_for_mirror = self.mirror_counts(&object, desk);
        let Some(Round { phase: Phase::Accept(writing), .. }) = self.round(&object) else { return };
        if writing.chosen_at.is_some() && (writing.mirrored || !waits_for_mirror) {
            self.finish_written(object, desk);
        } else {
            self.rearm(object);
        }
    }

    pub(super) fn finish_written(&mut self, object: ObjectId, desk: &mut Desk<'_>) {
        let majority = desk.view(&object).keepers.majority();
        let Some(work) = self.work.get_mut(&object) else { return };
        let Some(Round { phase: Phase::Accept(writing), .. }) = work.round.take() else { return };
        let chosen = Accepted { ballot: writing.ballot, value: writing.value };
        let copies = writing.accepted.len() as u64 + u64::from(writing.mirrored);
        let promised = writing.accepted.values().filter(|promised| **promised).count();
        if let Some(next) = writing.next.filter(|_| promised >= majority) {
            self.keep_ballot(object, next, Some(chosen.clone()), desk);
        }
        let outcome = match writing.ending {
            Ending::Commit => Outcome::Committed { copies },
            Ending::Conflict => Outcome::Conflict { current: Some(chosen.value) },
            Ending::Current => Outcome::Value { current: Some(chosen) },
        };
        self.finish(object, outcome, desk);
    }
}
