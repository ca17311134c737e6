//! Who is in office: when that is believed, when it ends, and what claims are made.

use std::collections::BTreeMap;

use super::*;

/// What its holder says of a claim beside it.
pub(super) struct News {
    pub(super) reason: Reason,
    pub(super) loads: Vec<(NodeNumber, u64)>,
}

impl Election {
    // ---- what is heard ----

    /// A heartbeat carries what its author believes in office.
    pub(super) fn on_heard(
        &mut self,
        from: PeerId,
        claim: Option<Claim>,
        now: Millis,
        out: &mut Outbox<Action>,
    ) {
        let claim = claim.filter(|claim| self.is_sane(claim));
        let own = claim.filter(|claim| self.holder_of(claim) == Some(from));
        match (own, claim) {
            (Some(own), _) if self.believe(own, from, None, now, out) => return,
            (None, Some(hearsay)) => self.learn(hearsay, now, out),
            _ => {}
        }
        let Some(belief) = self.belief.filter(|_| self.holder() == Some(from)) else { return };
        // A heartbeat that left before the claim was made may come after its news.
        if claim != self.greatest && now.since(belief.claimed) >= limits::HEARTBEAT {
            self.vacate(Reason::Gone(from), out);
            self.schedule(Millis(0), now, out);
        }
    }

    pub(super) fn on_told(&mut self, from: PeerId, message: Message, now: Millis, out: &mut Outbox<Action>) {
        let is_own = |claim: &Claim| self.is_sane(claim) && self.holder_of(claim) == Some(from);
        match message {
            Message::Coordinator { claim, reason, loads } if is_own(&claim) => {
                self.believe(claim, from, Some(News { reason, loads }), now, out);
            }
            Message::Withdraw { .. } => self.vote = self.vote.filter(|(agreed_to, _)| *agreed_to != from),
            Message::Resign { claim } if is_own(&claim) => {
                self.learn(claim, now, out);
                self.over = self.over.max(Some(claim));
                if self.claim() == Some(claim) {
                    self.vacate(Reason::Resignation(from), out);
                    self.schedule(Millis(0), now, out);
                }
            }
            _ => {}
        }
    }

    /// The holder itself says that it is in office; whether that is believed.
    pub(super) fn believe(
        &mut self,
        claim: Claim,
        holder: PeerId,
        news: Option<News>,
        now: Millis,
        out: &mut Outbox<Action>,
    ) -> bool {
        if Some(claim) < self.greatest || Some(claim) <= self.over || self.is_stubborn() {
            return false;
        }
        if self.claim() != Some(claim) {
            let since = match self.belief.filter(|_| self.holder() == Some(holder)) {
                Some(before) => before.since,
                None => now,
            };
            self.greatest = Some(claim);
            self.belief = Some(Belief::new(since, now));
            self.settle(out);
            out.push(Action::Publicise(Fact::Office { claim: Some(claim), mine: false }));
        }
        let news = news.unwrap_or(News { reason: Reason::Unheard, loads: Vec::new() });
        let member = |number: NodeNumber| self.config.founding.member(number).map(|member| member.peer);
        let loads = news.loads.iter().filter_map(|(number, load)| member(*number).map(|peer| (peer, *load)));
        let record = Record { claim, coordinator: holder, reason: news.reason, loads: loads.collect() };
        self.keep(record, out);
        true
    }

    /// That this claim was made, by hearsay: nothing smaller counts any more.
    pub(super) fn learn(&mut self, claim: Claim, now: Millis, out: &mut Outbox<Action>) {
        if Some(claim) <= self.greatest || self.is_stubborn() {
            return;
        }
        let mine = self.in_office().is_some();
        self.vacate(if mine { Reason::Anew } else { Reason::First }, out);
        self.greatest = Some(claim);
        // Its holder is given time to be heard.
        self.schedule(limits::ELECTION_LOOK, now, out);
    }

    fn is_stubborn(&self) -> bool {
        #[cfg(test)]
        if self.variant == Variant::Stubborn {
            return self.in_office().is_some();
        }
        false
    }

    // ---- who is alive ----

    pub(super) fn on_view(&mut self, alive: BTreeMap<PeerId, u64>, now: Millis, out: &mut Outbox<Action>) {
        let own_load = self.own_load();
        self.alive = alive;
        let founding = &self.config.founding;
        self.alive.retain(|peer, _| founding.number_of(peer).is_some());
        self.alive.entry(self.config.me).or_insert(own_load);
        if let Some(holder) = self.holder()
            && let Some(belief) = &mut self.belief
        {
            if self.alive.contains_key(&holder) {
                belief.last_sign = now;
            } else if now.since(belief.last_sign) >= limits::COORDINATOR_SILENCE_MAX {
                self.vacate(Reason::Death(holder), out);
                self.schedule(Millis(0), now, out);
            }
        }
        // One look without a majority may be a heartbeat that was late.
        self.check_majority(Millis(limits::HEARTBEAT.0 / 2), now, out);
        self.count_beat(now, out);
        if self.plan.is_none() {
            self.schedule(limits::ELECTION_LOOK, now, out);
        }
    }

    pub(super) fn on_dead(&mut self, peer: PeerId, now: Millis, out: &mut Outbox<Action>) {
        if peer == self.config.me {
            return;
        }
        self.alive.remove(&peer);
        self.vote = self.vote.filter(|(agreed_to, _)| *agreed_to != peer);
        let was_holder = self.holder() == Some(peer);
        if was_holder {
            self.vacate(Reason::Death(peer), out);
        }
        self.check_majority(Millis(0), now, out);
        self.on_answered(peer, None, now, out);
        if was_holder {
            self.schedule(Millis(0), now, out);
        }
    }

    fn check_majority(&mut self, grace: Millis, now: Millis, out: &mut Outbox<Action>) {
        if self.sees_majority() {
            self.minority_since = None;
            return;
        }
        let since = *self.minority_since.get_or_insert(now);
        if now.since(since) >= grace {
            self.stand_down(out);
            self.leave_office(out);
        }
    }

    // ---- changes of free will ----

    fn count_beat(&mut self, now: Millis, out: &mut Outbox<Action>) {
        let Some(belief) = self.belief else { return };
        let wishes = if self.in_office().is_some() { self.is_too_busy() } else { self.is_clearly_the_best() };
        self.beats = if wishes { self.beats.saturating_add(1) } else { 0 };
        if now.since(belief.since) < self.tenure() {
            return;
        }
        if self.in_office().is_some() {
            if self.beats >= limits::RESIGN_BEATS {
                self.resign(out);
                self.schedule(limits::ELECTION_PATIENCE, now, out);
            }
        } else if self.beats >= limits::CLEARLY_BETTER_BEATS
            && let Some(holder) = self.holder()
            && self.is_fit()
            && self.candidacy.is_none()
        {
            self.beats = 0;
            self.stand(Reason::ClearlyBetter(holder), now, out);
        }
    }

    fn is_too_busy(&self) -> bool {
        let own = self.own_load();
        let mut others = self.alive.iter().filter(|(peer, _)| **peer != self.config.me);
        own > limits::RESIGN_ABOVE_CENTI && others.any(|(_, load)| clearly_better(*load, own))
    }

    fn is_clearly_the_best(&self) -> bool {
        let held = self.holder().and_then(|holder| self.alive.get(&holder));
        held.is_some_and(|load| clearly_better(self.own_load(), *load)) && self.rank_without(None) == 0
    }

    /// Says that the own office is over, if there is one.
    pub(super) fn resign(&mut self, out: &mut Outbox<Action>) {
        let Some(claim) = self.in_office() else { return };
        self.over = Some(claim);
        self.vacate(Reason::Resignation(self.config.me), out);
        for to in self.others() {
            out.push(Action::Tell { to, message: Message::Resign { claim } });
        }
    }

    // ---- claims ----

    /// In office from now on.
    pub(super) fn take_office(
        &mut self,
        reason: Reason,
        counter: u64,
        since: Millis,
        now: Millis,
        out: &mut Outbox<Action>,
    ) {
        let Some(node) = self.config.founding.number_of(&self.config.me) else { return };
        let claim = Claim { epoch: self.config.epoch, counter, node };
        self.greatest = Some(claim);
        self.belief = Some(Belief::new(since, now));
        self.settle(out);
        out.push(Action::Publicise(Fact::Office { claim: Some(claim), mine: true }));
        let number = |peer: &PeerId| self.config.founding.number_of(peer);
        let mut loads: Vec<(NodeNumber, u64)> =
            self.alive.iter().filter_map(|(peer, load)| number(peer).map(|n| (n, *load))).collect();
        loads.sort();
        loads.truncate(limits::MEMBERS_MAX);
        for to in self.others() {
            let message = Message::Coordinator { claim, reason, loads: loads.clone() };
            out.push(Action::Tell { to, message });
        }
        let loads = self.alive.iter().map(|(peer, load)| (*peer, *load)).collect();
        self.keep(Record { claim, coordinator: self.config.me, reason, loads }, out);
    }

    /// A client knows of a counter that is not below the claim in office: another claim above it.
    pub(super) fn claim_above(&mut self, now: Millis, out: &mut Outbox<Action>) {
        let Some(belief) = self.belief else { return };
        let is_short = self.in_office().is_some_and(|claim| claim.counter <= self.wanted);
        if is_short
            && now.since(belief.claimed) >= limits::ANEW_EVERY
            && let Some(counter) = self.next_counter()
        {
            self.take_office(Reason::Anew, counter, belief.since, now, out);
        }
    }

    /// The greatest counter known of.
    pub(super) fn known_counter(&self) -> u64 {
        self.greatest.map_or(0, |claim| claim.counter).max(self.counter).max(self.wanted)
    }

    /// The next counter for a claim or a candidacy; none when they are used up.
    pub(super) fn next_counter(&self) -> Option<u64> {
        #[cfg(test)]
        if self.variant == Variant::ForgetsItsStarts {
            return Some(self.greatest.map_or(0, |claim| claim.counter) + 1);
        }
        let least = self.known_counter() + 1;
        let stamp = self.config.boot % STAMPS;
        let counter = least + (stamp + STAMPS - least % STAMPS) % STAMPS;
        (counter <= Claim::COUNTER_MAX.min(self.kept)).then_some(counter)
    }

    /// Has more room for claims written down, if it gets short.
    pub(super) fn keep_ahead(&mut self, now: Millis, out: &mut Outbox<Action>) {
        let known = self.known_counter();
        let is_short = self.kept < Claim::COUNTER_MAX && known + KEEP_AHEAD > self.kept;
        let is_asked = self.keep_asked.is_some_and(|at| now.since(at) < limits::ANEW_EVERY);
        if is_short && !is_asked {
            self.keep_asked = Some(now);
            out.push(Action::Keep { counter: (known + 2 * KEEP_AHEAD).min(Claim::COUNTER_MAX) });
        }
    }

    pub(super) fn on_kept(&mut self, counter: u64, now: Millis, out: &mut Outbox<Action>) {
        self.kept = self.kept.max(counter);
        self.claim_above(now, out);
        if std::mem::take(&mut self.is_held_up) {
            self.schedule(Millis(0), now, out);
        }
    }

    // ---- small steps ----

    pub(super) fn holder(&self) -> Option<PeerId> {
        self.coordinator().map(|(peer, _)| peer)
    }

    /// Nobody is in office any more, as far as this node knows.
    pub(super) fn vacate(&mut self, why: Reason, out: &mut Outbox<Action>) {
        if self.belief.take().is_none() {
            return;
        }
        self.vacancy = why;
        self.beats = 0;
        // Who stood against the one whose office ended stands again for another reason.
        self.withdraw(out);
        out.push(Action::Publicise(Fact::Office { claim: None, mine: false }));
    }

    /// Silently: others see it by the heartbeats.
    pub(super) fn leave_office(&mut self, out: &mut Outbox<Action>) {
        if self.in_office().is_some() {
            self.vacate(Reason::Anew, out);
        }
    }

    /// Somebody is in office: nothing else is under way.
    fn settle(&mut self, out: &mut Outbox<Action>) {
        self.stand_down(out);
        self.vote = None;
        self.losses = 0;
        self.beats = 0;
    }

    fn keep(&mut self, record: Record, out: &mut Outbox<Action>) {
        if self.records.keep(&record) {
            out.push(Action::Publicise(Fact::Elected(record)));
        }
    }
}
