//! The candidate's part: when it stands, whom it asks, and what the answers come to.

use std::collections::BTreeSet;

use super::*;

/// One attempt to become coordinator.
#[derive(Debug)]
pub(super) struct Candidacy {
    pub(super) reason: Reason,
    pub(super) counter: u64,
    /// The load that it has said: by it those that stand at once compare themselves.
    pub(super) load_centi: u64,
    /// Until then those who agreed keep their word.
    deadline: Millis,
    waiting: BTreeSet<PeerId>,
    /// Who has agreed to another, and is asked again.
    bound: BTreeSet<PeerId>,
    agreed: BTreeSet<PeerId>,
}

/// When this node is going to stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// From then on, with a step for everybody who comes before it.
    from: Millis,
    /// Who does not count among those: it has resigned, or was waited for in vain.
    without: Option<PeerId>,
}

impl Election {
    // ---- when ----

    /// Whether this node could be coordinator.
    pub(super) fn is_fit(&self) -> bool {
        self.sees_majority() && self.thawing.is_none() && !self.leaving
    }

    /// Whether it may try to become it now.
    pub(super) fn may_stand(&self) -> bool {
        self.is_fit() && self.belief.is_none() && self.candidacy.is_none()
    }

    /// How many of those alive come before this node, one left out.
    pub(super) fn rank_without(&self, left_out: Option<PeerId>) -> usize {
        let own = (self.own_load(), self.config.me);
        let before = |(peer, load): &(&PeerId, &u64)| (**load, **peer) < own && Some(**peer) != left_out;
        self.alive.iter().filter(before).count()
    }

    /// Stands after `wait` and a step for everybody who comes before this node; instead of when it was going
    /// to. Who has agreed to another waits for its news first.
    pub(super) fn schedule(&mut self, wait: Millis, now: Millis, out: &mut Outbox<Action>) {
        if !self.may_stand() {
            return;
        }
        let agreed_to = self.vote.filter(|(_, at)| now.since(*at) < limits::ELECTION_PATIENCE);
        let plan = match agreed_to {
            Some((peer, at)) => {
                let from = (now + wait).max(at + limits::ELECTION_PATIENCE);
                Plan { from, without: Some(peer) }
            }
            None => Plan { from: now + wait, without: self.vacancy.resigned() },
        };
        self.plan = Some(plan);
        self.on_stand_due(now, out);
    }

    /// Stands if it is its turn by now, with the loads as they are now.
    pub(super) fn on_stand_due(&mut self, now: Millis, out: &mut Outbox<Action>) {
        if !self.may_stand() {
            // A plan whose timer is gone would keep every later look from making another.
            self.plan = None;
        }
        let Some(plan) = self.plan else { return };
        let steps = self.rank_without(plan.without).min(limits::ELECTION_STEPS_MAX) as u64;
        let at = plan.from + Millis(limits::ELECTION_STEP.0 * steps);
        if at <= now || self.config.founding.members.len() == 1 {
            return self.stand(self.vacancy, now, out);
        }
        out.push(Action::Arm { at, timer: Timer::Stand });
    }

    /// This one may be coordinator soon: its news is waited for.
    pub(super) fn agree_to(&mut self, peer: PeerId, now: Millis, out: &mut Outbox<Action>) {
        self.withdraw(out);
        self.vote = Some((peer, now));
        self.schedule(Millis(0), now, out);
    }

    /// Whether another may win by this node's word that it already has.
    pub(super) fn is_bound_to_another(&self, than: PeerId, now: Millis) -> bool {
        self.vote.is_some_and(|(peer, at)| peer != than && now.since(at) < limits::ELECTION_ANSWER)
    }

    /// No candidacy, and none to come.
    pub(super) fn stand_down(&mut self, out: &mut Outbox<Action>) {
        self.withdraw(out);
        self.plan = None;
    }

    /// Whoever has agreed may agree to another now.
    pub(super) fn withdraw(&mut self, out: &mut Outbox<Action>) {
        let Some(Candidacy { counter, waiting, agreed, .. }) = self.candidacy.take() else { return };
        for to in waiting.into_iter().chain(agreed) {
            out.push(Action::Tell { to, message: Message::Withdraw { counter } });
        }
    }

    // ---- asking ----

    pub(super) fn stand(&mut self, reason: Reason, now: Millis, out: &mut Outbox<Action>) {
        self.plan = None;
        let Some(counter) = self.next_counter() else {
            self.is_held_up = true;
            return;
        };
        self.counter = self.counter.max(counter);
        let deadline = now + limits::ELECTION_ANSWER;
        let (waiting, bound, agreed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let load_centi = self.own_load();
        self.candidacy = Some(Candidacy { reason, counter, load_centi, deadline, waiting, bound, agreed });
        self.ask(self.others(), now, out);
        self.decide(now, out);
    }

    fn ask(&mut self, whom: Vec<PeerId>, now: Millis, out: &mut Outbox<Action>) {
        let (epoch, known) = (self.config.epoch, self.greatest);
        let Some(candidacy) = &mut self.candidacy else { return };
        let Candidacy { counter, load_centi, reason, deadline, .. } = *candidacy;
        for to in whom {
            candidacy.waiting.insert(to);
            let message = Message::Election { epoch, counter, load_centi, known, reason };
            out.push(Action::Ask { to, message });
        }
        let at = deadline.min(now + limits::ELECTION_AGAIN);
        out.push(Action::Arm { at, timer: Timer::Answers });
    }

    pub(super) fn on_answered(
        &mut self,
        from: PeerId,
        answer: Option<Message>,
        now: Millis,
        out: &mut Outbox<Action>,
    ) {
        let verdict = answer.and_then(|answer| self.take_in(from, answer, now, out));
        let Some(candidacy) = &mut self.candidacy else { return };
        if !candidacy.waiting.contains(&from) {
            return;
        }
        match verdict {
            // Late, and of an earlier candidacy: the answer to this one is still to come.
            Some((asked, _)) if asked != candidacy.counter => return,
            Some((_, Verdict::Agrees)) => drop(candidacy.agreed.insert(from)),
            Some((_, Verdict::Bound)) => drop(candidacy.bound.insert(from)),
            Some((_, Verdict::Better)) => return self.lose(now, out),
            Some((_, Verdict::InOffice | Verdict::Believes)) | None => {}
        }
        candidacy.waiting.remove(&from);
        self.decide(now, out);
    }

    /// What an answer teaches, whatever it was asked for: its counter, and its verdict.
    fn take_in(
        &mut self,
        from: PeerId,
        answer: Message,
        now: Millis,
        out: &mut Outbox<Action>,
    ) -> Option<(u64, Verdict)> {
        let Message::Alive { epoch, asked, load_centi, counter, known, verdict } = answer else {
            return None;
        };
        if epoch != self.config.epoch {
            return None;
        }
        if counter <= Claim::COUNTER_MAX {
            self.counter = self.counter.max(counter);
        }
        if let Some(load) = self.alive.get_mut(&from) {
            *load = load_centi;
        }
        if let Some(known) = known.filter(|claim| self.is_sane(claim)) {
            let is_its_own = self.holder_of(&known) == Some(from);
            if !(verdict == Verdict::InOffice && is_its_own && self.believe(known, from, None, now, out)) {
                self.learn(known, now, out);
            }
        }
        Some((asked, verdict))
    }

    /// Asks those again who were bound, or waits no longer.
    pub(super) fn on_answers_due(&mut self, now: Millis, out: &mut Outbox<Action>) {
        let Some(candidacy) = &mut self.candidacy else { return };
        let bound = std::mem::take(&mut candidacy.bound);
        if now >= candidacy.deadline {
            candidacy.waiting.clear();
            return self.decide(now, out);
        }
        self.ask(bound.into_iter().collect(), now, out);
    }

    // ---- what comes of it ----

    fn decide(&mut self, now: Millis, out: &mut Outbox<Action>) {
        let Some(candidacy) = &self.candidacy else { return };
        let Candidacy { agreed, waiting, bound, .. } = candidacy;
        // Nobody takes an office from somebody who is in it and alive, except with its consent.
        let (has_consent, may_have_it) = match candidacy.reason {
            Reason::ClearlyBetter(holder) => {
                (agreed.contains(&holder), agreed.contains(&holder) || waiting.contains(&holder))
            }
            _ => (true, true),
        };
        if agreed.len() + 1 >= self.needed() && has_consent {
            return self.win(now, out);
        }
        if agreed.len() + waiting.len() + bound.len() + 1 < self.needed() || !may_have_it {
            self.lose(now, out);
        }
    }

    fn win(&mut self, now: Millis, out: &mut Outbox<Action>) {
        let Some(candidacy) = self.candidacy.take() else { return };
        // Somebody may have named a greater one since.
        let is_greatest = candidacy.counter == self.known_counter();
        let counter = if is_greatest { Some(candidacy.counter) } else { self.next_counter() };
        if let Some(counter) = counter {
            self.take_office(candidacy.reason, counter, now, now, out);
        }
    }

    fn lose(&mut self, now: Millis, out: &mut Outbox<Action>) {
        self.withdraw(out);
        let doubled = limits::ELECTION_RETRY.0 << self.losses.min(8);
        self.losses = self.losses.saturating_add(1);
        let wait = self.about(Millis(doubled.min(limits::ELECTION_RETRY_MAX.0)));
        self.schedule(wait, now, out);
    }
}
