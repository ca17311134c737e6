//! Calls that need others: forwarded to the object's home, or asked of all who may know.

use super::*;

impl Proposer {
    // ---- calls that others do ----

    pub(super) fn forward(
        &mut self,
        call: CallId,
        object: ObjectId,
        home: PeerId,
        command: Command,
        desk: &mut Desk<'_>,
    ) {
        let round = self.next_round(desk);
        self.calls += 1;
        self.alarms.set(Due::Forward(round.number), desk.now + limits::HOME_PATIENCE);
        desk.say(home, object, round, Body::Forward { command: command.clone() });
        let deadline = desk.now + limits::NO_QUORUM;
        self.forwards.insert(round.number, Forward { call, object, home, command, deadline });
    }

    pub(super) fn on_taken(&mut self, number: u64, from: PeerId, now: Millis) {
        if let Some(forward) = self.forwards.get(&number).filter(|f| f.home == from) {
            let began = forward.deadline.since(limits::NO_QUORUM);
            self.alarms.set(Due::Forward(number), now.max(began + limits::PAXOS_TAKEN_PATIENCE));
        }
    }

    pub(super) fn on_answered(&mut self, number: u64, from: PeerId, given: Answer, desk: &mut Desk<'_>) {
        if self.forwards.get(&number).is_none_or(|f| f.home != from) {
            return;
        }
        let Some(forward) = self.forwards.remove(&number) else { return };
        self.alarms.clear(Due::Forward(number));
        self.calls -= 1;
        desk.out.push(Action::Answer { call: forward.call, answer: given });
    }

    /// The home is silent: this node proposes.
    pub(super) fn propose_here(&mut self, number: u64, desk: &mut Desk<'_>) {
        let Some(forward) = self.forwards.remove(&number) else { return };
        self.alarms.clear(Due::Forward(number));
        self.calls -= 1;
        let Forward { call, object, command, deadline, .. } = forward;
        self.enqueue(object, Caller::Here(call), command, deadline, desk);
        // The home may have done it.
        let task = self.work.get_mut(&object).and_then(|work| work.queue.back_mut());
        if let Some(task) = task.filter(|task| task.caller == Caller::Here(call)) {
            task.tried = true;
        }
    }

    // ---- the newest known value ----

    pub(super) fn ask(&mut self, call: CallId, object: ObjectId, desk: &mut Desk<'_>) {
        let round = self.next_round(desk);
        let keepers = &desk.view(&object).keepers;
        let asked: Vec<PeerId> = keepers
            .acceptors
            .iter()
            .chain(keepers.mirror.as_ref())
            .filter(|peer| **peer == desk.config.me || desk.reachable.contains(peer))
            .copied()
            .collect();
        self.calls += 1;
        self.alarms.set(Due::Ask(round.number), desk.now + limits::PAXOS_ANY_PATIENCE);
        self.asks.insert(round.number, Ask { call, object, asked: asked.len(), states: Reports::default() });
        asked.iter().for_each(|peer| desk.say(*peer, object, round, Body::Query));
        if asked.is_empty() {
            self.finish_ask(round.number, desk);
        }
    }

    pub(super) fn on_asked(
        &mut self,
        number: u64,
        from: PeerId,
        accepted: Option<Accepted>,
        desk: &mut Desk<'_>,
    ) {
        let Some(ask) = self.asks.get_mut(&number).filter(|a| desk.view(&a.object).keepers.holds(&from))
        else {
            return;
        };
        ask.states.0.insert(from, accepted);
        if ask.states.0.len() >= ask.asked {
            self.finish_ask(number, desk);
        }
    }

    pub(super) fn finish_ask(&mut self, number: u64, desk: &mut Desk<'_>) {
        let Some(ask) = self.asks.remove(&number) else { return };
        self.alarms.clear(Due::Ask(number));
        self.calls -= 1;
        let messages = 2 * ask.asked as u64;
        let outcome = match ask.states.current(1, |_| false) {
            Some(current) => Outcome::Value { current: current.accepted },
            None => Outcome::NoQuorum,
        };
        answer(Caller::Here(ask.call), ask.object, outcome, messages, desk);
    }
}
