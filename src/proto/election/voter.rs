//! The part of who is asked: whether it objects to a candidate, and what it does then.

use super::*;

/// What a candidate says of itself.
struct Candidate {
    peer: PeerId,
    counter: u64,
    load_centi: u64,
    known: Option<Claim>,
    reason: Reason,
}

impl Election {
    /// Answers, whatever was asked: a call without an answer would cost the asker its patience.
    pub(super) fn on_asked(
        &mut self,
        from: PeerId,
        call: u64,
        message: Message,
        now: Millis,
        out: &mut Outbox<Action>,
    ) {
        let (asked, verdict) = match message {
            Message::Election { epoch, counter, load_centi, known, reason }
                if epoch == self.config.epoch
                    && self.is_other(&from)
                    && (1..=Claim::COUNTER_MAX).contains(&counter) =>
            {
                let known = known.filter(|claim| self.is_sane(claim));
                let candidate = Candidate { peer: from, counter, load_centi, known, reason };
                (counter, self.judge(&candidate, now, out))
            }
            Message::Election { counter, .. } => (counter, Verdict::Believes),
            _ => (0, Verdict::Believes),
        };
        let message = Message::Alive {
            epoch: self.config.epoch,
            asked,
            load_centi: self.own_load(),
            counter: self.known_counter(),
            known: self.greatest,
            verdict,
        };
        out.push(Action::Answer { call, message });
        if verdict == Verdict::Better && self.may_stand() {
            self.stand(self.vacancy, now, out);
        }
    }

    fn judge(&mut self, candidate: &Candidate, now: Millis, out: &mut Outbox<Action>) -> Verdict {
        if let Some(known) = candidate.known {
            self.learn(known, now, out);
        }
        let verdict = match self.holder() {
            Some(me) if me == self.config.me => self.as_coordinator(candidate, now),
            Some(holder) => self.as_believer(holder, candidate, now, out),
            None => None,
        };
        let verdict = match verdict {
            Some(Verdict::Agrees) | None if self.is_bound_to_another(candidate.peer, now) => Verdict::Bound,
            Some(Verdict::Agrees) => {
                self.agree_to(candidate.peer, now, out);
                Verdict::Agrees
            }
            Some(objection) => objection,
            None => self.as_rival(candidate, now, out),
        };
        self.counter = self.counter.max(candidate.counter);
        verdict
    }

    /// In office, this node stays, unless the candidate is clearly better and its own tenure is over.
    fn as_coordinator(&self, candidate: &Candidate, now: Millis) -> Option<Verdict> {
        let is_over = self.belief.is_some_and(|belief| now.since(belief.since) >= self.tenure());
        let yields = candidate.reason == Reason::ClearlyBetter(self.config.me)
            && clearly_better(candidate.load_centi, self.own_load());
        Some(if yields && is_over { Verdict::Agrees } else { Verdict::InOffice })
    }

    /// Another is believed in office. None = no longer, or it does not matter.
    fn as_believer(
        &mut self,
        holder: PeerId,
        candidate: &Candidate,
        now: Millis,
        out: &mut Outbox<Action>,
    ) -> Option<Verdict> {
        let (belief, claim) = (self.belief?, self.claim()?);
        // The candidate has probed a dead one; a heartbeat that is missing here, too, agrees with it.
        let is_silent =
            now.since(belief.last_word) >= limits::COORDINATOR_SILENT || !self.alive.contains_key(&holder);
        let is_newer = candidate.known >= Some(claim);
        match candidate.reason {
            // Who stands is not in office; but its claim may have overtaken its question.
            _ if candidate.peer == holder && candidate.counter <= claim.counter => Some(Verdict::Agrees),
            _ if candidate.peer == holder => {
                self.vacate(Reason::Gone(holder), out);
                None
            }
            // The holder itself is asked, too, and its word counts.
            Reason::ClearlyBetter(than) if than == holder => Some(Verdict::Agrees),
            // Its own words, heard by the candidate first.
            Reason::Resignation(peer) | Reason::Gone(peer) if peer == holder && is_newer => {
                self.vacate(candidate.reason, out);
                None
            }
            _ if self.thawing.is_some() => Some(Verdict::Agrees),
            Reason::Death(peer) if peer == holder && is_silent => {
                self.vacate(candidate.reason, out);
                None
            }
            _ if self.alive.contains_key(&holder) => Some(Verdict::Believes),
            _ => Some(Verdict::Agrees),
        }
    }

    /// Nobody is in office: the better of the two stands.
    fn as_rival(&mut self, candidate: &Candidate, now: Millis, out: &mut Outbox<Action>) -> Verdict {
        let is_better = match &self.candidacy {
            Some(own) => (own.load_centi, self.config.me) < (candidate.load_centi, candidate.peer),
            None => self.may_stand() && clearly_better(self.own_load(), candidate.load_centi),
        };
        if is_better {
            return Verdict::Better;
        }
        self.agree_to(candidate.peer, now, out);
        Verdict::Agrees
    }
}
