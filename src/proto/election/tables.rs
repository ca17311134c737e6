//! The election's rules one by one: what a node says and does, event by event.

use std::collections::BTreeMap;

use super::*;
use crate::proto::testing::{founding, peers};

const BOOT: u64 = 3;

/// One node of some, with what it did last.
struct Desk {
    machine: Election,
    peers: Vec<PeerId>,
    now: u64,
}

impl Desk {
    fn new(count: usize, me: usize) -> Self {
        Self::started(count, me, BOOT)
    }

    fn started(count: usize, me: usize, boot: u64) -> Self {
        Self::started_with(count, me, boot, 0)
    }

    fn started_with(count: usize, me: usize, boot: u64, kept: u64) -> Self {
        let peers = peers(count);
        let (founding, epoch) = (founding(count), Epoch::FOUNDING);
        let config = Config { me: peers[me], founding, epoch, boot, kept, seed: [7; 32] };
        Self { machine: Election::new(config), peers, now: 0 }
    }

    /// What it does besides arming timers; what it wants to be kept is.
    fn hears(&mut self, event: Event) -> Vec<Action> {
        let mut all = self.hears_with_disk(event);
        while let Some(at) = all.iter().position(|action| matches!(action, Action::Keep { .. })) {
            let Action::Keep { counter } = all.remove(at) else { unreachable!("it is one") };
            all.extend(self.hears_with_disk(Event::Kept { counter }));
        }
        all
    }

    fn hears_with_disk(&mut self, event: Event) -> Vec<Action> {
        let mut out = Outbox::new();
        self.machine.handle(Millis(self.now), event, &mut out);
        out.drain().filter(|action| !matches!(action, Action::Arm { .. })).collect()
    }

    /// A heartbeat later, with these loads, in hundredths, of the first nodes; none = not alive.
    fn view(&mut self, loads: &[Option<u64>]) -> Vec<Action> {
        self.now += limits::HEARTBEAT.0;
        let alive = loads.iter().zip(&self.peers).filter_map(|(load, peer)| load.map(|load| (*peer, load)));
        let event = Event::View { alive: alive.collect() };
        let mut actions = self.hears(event);
        actions.extend(self.hears(Event::Timer(Timer::Tick)));
        actions
    }

    /// So many milliseconds pass, with its ticks in time; then it looks whether it is to stand.
    fn waits(&mut self, span_ms: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        for _ in 0..span_ms {
            self.now += 1;
            if self.machine.tick_due.is_some_and(|due| due <= Millis(self.now)) {
                actions.extend(self.hears(Event::Timer(Timer::Tick)));
            }
        }
        actions.extend(self.hears(Event::Timer(Timer::Stand)));
        actions
    }

    fn answers(&mut self, from: usize, verdict: Verdict, known: Option<Claim>) -> Vec<Action> {
        let asked = self.machine.candidacy.as_ref().map_or(0, |candidacy| candidacy.counter);
        let message = Message::Alive {
            epoch: Epoch::FOUNDING,
            asked,
            load_centi: 3000,
            counter: asked,
            known,
            verdict,
        };
        self.hears(Event::Answered { from: self.peers[from], answer: Some(message) })
    }

    /// It is asked, and this is its verdict.
    fn is_asked(&mut self, from: usize, load_centi: u64, known: Option<Claim>, reason: Reason) -> Verdict {
        let counter = known.map_or(1 << 30, |claim| claim.counter + 1);
        let message = Message::Election { epoch: Epoch::FOUNDING, counter, load_centi, known, reason };
        let actions = self.hears(Event::Asked { from: self.peers[from], call: 9, message });
        verdict(&actions)
    }

    fn news(&mut self, from: usize, claim: Claim) -> Vec<Action> {
        let message = Message::Coordinator { claim, reason: Reason::First, loads: Vec::new() };
        self.hears(Event::Told { from: self.peers[from], message })
    }

    /// Elected by the others, at once; the claim.
    fn in_office(count: usize) -> (Self, Claim) {
        let mut desk = Self::new(count, 0);
        let loads: Vec<Option<u64>> = (0..count as u64).map(|node| Some(1000 + 100 * node)).collect();
        desk.view(&loads);
        desk.waits(600);
        (1..count).for_each(|from| drop(desk.answers(from, Verdict::Agrees, None)));
        let claim = desk.machine.in_office().expect("all agreed");
        (desk, claim)
    }

    /// Node 1 of five, which believes node 0 in office by this claim.
    fn believing() -> (Self, Claim) {
        let mut desk = Self::new(5, 1);
        desk.view(&[Some(1000), Some(2000), Some(2100), Some(2200), Some(2300)]);
        let claim = claim(5 << BOOT_SHIFT, 0);
        desk.news(0, claim);
        assert_eq!(desk.machine.coordinator(), Some((desk.peers[0], claim)));
        (desk, claim)
    }
}

fn claim(counter: u64, node: u16) -> Claim {
    Claim { epoch: Epoch::FOUNDING, counter, node: NodeNumber(node) }
}

fn verdict(actions: &[Action]) -> Verdict {
    let of = |action: &Action| match action {
        Action::Answer { call: 9, message: Message::Alive { verdict, .. } } => Some(*verdict),
        _ => None,
    };
    let verdicts: Vec<Verdict> = actions.iter().filter_map(of).collect();
    assert_eq!(verdicts.len(), 1, "one answer to each question");
    verdicts[0]
}

fn asked(actions: &[Action]) -> Vec<PeerId> {
    actions.iter().filter_map(|a| if let Action::Ask { to, .. } = a { Some(*to) } else { None }).collect()
}

fn told(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Tell { .. })).count()
}

#[test]
fn a_node_alone_is_in_office_at_once() {
    let mut desk = Desk::new(1, 0);
    let actions = desk.view(&[Some(1250)]);
    let claim = desk.machine.in_office().expect("it is the majority");
    assert_eq!((told(&actions), asked(&actions).len()), (0, 0));
    assert!(claim.counter > BOOT << BOOT_SHIFT && claim.counter % STAMPS == BOOT);
    assert_eq!(desk.machine.reason(|_| "desk".into()).as_deref(), Some("the only node; load 12.5"));
}

#[test]
fn the_best_stands_first_and_is_in_office_with_a_majority() {
    let mut desk = Desk::new(5, 0);
    desk.view(&[Some(1250), Some(2010), Some(3300), None, None]);
    assert!(desk.waits(590).is_empty(), "it listens first");
    let actions = desk.waits(10);
    assert_eq!(asked(&actions), desk.peers[1..3], "all others alive");
    assert!(desk.answers(1, Verdict::Agrees, None).is_empty(), "two of five");
    let actions = desk.answers(2, Verdict::Agrees, None);
    let claim = desk.machine.in_office().expect("three of five");
    assert_eq!(told(&actions), 2);
    assert!(actions.contains(&Action::Publicise(Fact::Office { claim: Some(claim), mine: true })));
    let names = BTreeMap::from([(desk.peers[1], "attic"), (desk.peers[2], "nas")]);
    let sentence = desk.machine.reason(|peer| names[peer].to_owned());
    // Their answers said 30.0.
    assert_eq!(sentence.as_deref(), Some("lowest load of 3: 12.5 (attic 30.0, nas 30.0)"));
}

#[test]
fn the_kth_waits_k_steps_after_a_death() {
    for (me, steps) in [(1, 0), (2, 1), (4, 3)] {
        let mut desk = Desk::new(5, me);
        desk.view(&[Some(1000), Some(1100), Some(1200), Some(1300), Some(1400)]);
        desk.news(0, claim(9 << BOOT_SHIFT, 0));
        let mut actions = desk.hears(Event::Dead { peer: desk.peers[0] });
        if steps > 0 {
            assert!(asked(&actions).is_empty() && desk.waits(steps * 150 - 1).is_empty());
            actions = desk.waits(1);
        }
        assert_eq!(asked(&actions).len(), 3, "node {me}");
    }
}

#[test]
fn without_a_majority_nobody_stands_or_stays() {
    let mut desk = Desk::new(4, 0);
    for _ in 0..10 {
        assert!(desk.view(&[Some(1000), Some(2000), None, None]).is_empty(), "two of four");
    }
    assert!(desk.waits(3000).is_empty());
    let (mut desk, claim) = Desk::in_office(3);
    assert!(desk.view(&[Some(1000), None, None]).is_empty(), "one late heartbeat");
    let gone = Fact::Office { claim: None, mine: false };
    assert_eq!(desk.view(&[Some(1000), None, None]), [Action::Publicise(gone)], "silently");
    desk.view(&[Some(1000), Some(2000), None]);
    assert_eq!(asked(&desk.waits(600)), [desk.peers[1]]);
    desk.answers(1, Verdict::Agrees, Some(claim));
    assert!(desk.machine.in_office().is_some_and(|anew| anew > claim));
    assert_eq!(desk.machine.records().last().map(|record| record.reason), Some(Reason::Anew));
    desk.hears(Event::Dead { peer: desk.peers[1] });
    assert_eq!(desk.machine.in_office(), None, "death is not a late heartbeat");
}

/// The other of two is not seen at the very moment at which this one would stand.
#[test]
fn who_may_not_stand_when_its_turn_comes_has_another_turn() {
    let mut desk = Desk::new(2, 0);
    desk.view(&[Some(1000), Some(2000)]);
    assert!(desk.view(&[Some(1000), None]).is_empty(), "one late heartbeat");
    assert!(desk.hears(Event::Timer(Timer::Stand)).is_empty(), "two of two are needed");
    let alive = [1000, 2000].into_iter().zip(&desk.peers).map(|(load, peer)| (*peer, load)).collect();
    let mut out = Outbox::new();
    desk.machine.handle(Millis(desk.now), Event::View { alive }, &mut out);
    let is_turn = |action: &Action| matches!(action, Action::Arm { timer: Timer::Stand, .. });
    assert!(out.drain().any(|action| is_turn(&action)), "nobody else will ever ask it to");
    assert_eq!(asked(&desk.waits(600)), [desk.peers[1]]);
}

#[test]
fn a_vote_is_given_once() {
    let mut desk = Desk::new(5, 4);
    desk.view(&[Some(1000), Some(1100), Some(2000), Some(2100), Some(2200)]);
    assert_eq!(desk.is_asked(1, 1100, None, Reason::First), Verdict::Agrees);
    assert_eq!(desk.is_asked(0, 1000, None, Reason::First), Verdict::Bound);
    assert_eq!(desk.is_asked(1, 1100, None, Reason::First), Verdict::Agrees, "asked again");
    let message = Message::Withdraw { counter: 1 };
    desk.hears(Event::Told { from: desk.peers[1], message });
    assert_eq!(desk.is_asked(0, 1000, None, Reason::First), Verdict::Agrees);
    desk.now += limits::ELECTION_ANSWER.0;
    assert_eq!(desk.is_asked(1, 1100, None, Reason::First), Verdict::Agrees);
}

#[test]
fn who_was_bound_to_another_is_asked_again_in_time() {
    let mut desk = Desk::new(5, 0);
    desk.view(&[Some(1000); 5]);
    desk.waits(600);
    desk.answers(1, Verdict::Agrees, None);
    for from in [2, 3, 4] {
        assert!(desk.answers(from, Verdict::Bound, None).is_empty(), "it is not lost yet");
    }
    desk.now += limits::ELECTION_AGAIN.0;
    assert_eq!(asked(&desk.hears(Event::Timer(Timer::Answers))), desk.peers[2..]);
    desk.answers(2, Verdict::Bound, None);
    desk.now += 200;
    desk.hears(Event::Timer(Timer::Answers));
    assert!(desk.machine.candidacy.is_none(), "those who agreed first are free by now");
    assert_eq!(desk.machine.in_office(), None);
}

#[test]
fn of_two_candidates_the_worse_gives_way() {
    for (other_load, expected) in [(1100, Verdict::Better), (900, Verdict::Agrees)] {
        let mut desk = Desk::new(3, 0);
        desk.view(&[Some(1000), Some(2000), Some(2000)]);
        assert_eq!(asked(&desk.waits(600)).len(), 2);
        assert_eq!(desk.is_asked(1, other_load, None, Reason::First), expected);
        assert_eq!(desk.machine.candidacy.is_some(), expected == Verdict::Better);
    }
}

#[test]
fn who_is_clearly_better_objects_and_stands_at_once() {
    for (load, expected) in [(2499, Verdict::Agrees), (2500, Verdict::Better)] {
        let mut desk = Desk::new(3, 2);
        desk.view(&[Some(900), Some(2000), Some(1000)]);
        let message = Message::Election {
            epoch: Epoch::FOUNDING,
            counter: 77,
            load_centi: load,
            known: None,
            reason: Reason::First,
        };
        let actions = desk.hears(Event::Asked { from: desk.peers[1], call: 9, message });
        assert_eq!(verdict(&actions), expected);
        assert_eq!(asked(&actions).len(), if expected == Verdict::Better { 2 } else { 0 });
    }
    let mut leaving = Desk::new(3, 2);
    leaving.view(&[Some(900), Some(2000), Some(1000)]);
    leaving.hears(Event::Leave);
    assert_eq!(leaving.is_asked(1, 9000, None, Reason::First), Verdict::Agrees);
}

#[test]
fn a_coordinator_stays_unless_its_tenure_is_over_and_the_other_is_clearly_better() {
    let reason = |desk: &Desk| Reason::ClearlyBetter(desk.peers[0]);
    let loads = [Some(5000), Some(1000), Some(2000)];
    let (mut desk, claim) = Desk::in_office(3);
    desk.view(&loads);
    let why = reason(&desk);
    assert_eq!(desk.is_asked(1, 1000, Some(claim), why), Verdict::InOffice, "its tenure");
    desk.waits(limits::TENURE.0);
    desk.view(&loads);
    assert_eq!(desk.is_asked(1, 3501, Some(claim), why), Verdict::InOffice, "its margin");
    assert_eq!(desk.is_asked(1, 1000, Some(claim), Reason::First), Verdict::InOffice);
    assert_eq!(desk.is_asked(1, 1000, Some(claim), Reason::Death(desk.peers[0])), Verdict::InOffice);
    assert_eq!(desk.is_asked(1, 3500, Some(claim), why), Verdict::Agrees);
    assert_eq!(desk.machine.in_office(), Some(claim), "until the other is in office");
}

#[test]
fn who_believes_another_in_office_objects_except_for_its_end() {
    type Row = (&'static str, fn(&Desk) -> Reason, bool, Verdict);
    let rows: [Row; 8] = [
        ("nobody known", |_| Reason::First, true, Verdict::Believes),
        ("death, but it is heard", |d| Reason::Death(d.peers[0]), true, Verdict::Believes),
        ("death, and not in view", |d| Reason::Death(d.peers[0]), false, Verdict::Agrees),
        ("not in view", |_| Reason::First, false, Verdict::Agrees),
        ("its resignation", |d| Reason::Resignation(d.peers[0]), true, Verdict::Agrees),
        ("it is gone", |d| Reason::Gone(d.peers[0]), true, Verdict::Agrees),
        ("another's resignation", |d| Reason::Resignation(d.peers[3]), true, Verdict::Believes),
        ("clearly better", |d| Reason::ClearlyBetter(d.peers[0]), true, Verdict::Agrees),
    ];
    for (name, reason, is_seen, expected) in rows {
        let (mut desk, claim) = Desk::believing();
        let first = is_seen.then_some(1000);
        desk.view(&[first, Some(2000), Some(2100), Some(2200), Some(2300)]);
        let reason = reason(&desk);
        assert_eq!(desk.is_asked(2, 2100, Some(claim), reason), expected, "{name}");
    }
    // It is in view, but has been silent for two heartbeats.
    let (mut desk, claim) = Desk::believing();
    desk.view(&[Some(1000); 5]);
    let death = Reason::Death(desk.peers[0]);
    assert_eq!(desk.is_asked(2, 2100, Some(claim), death), Verdict::Believes);
    desk.view(&[Some(1000); 5]);
    assert_eq!(desk.is_asked(2, 2100, Some(claim), death), Verdict::Agrees);
    // The holder itself stands: it restarted.
    let (mut desk, claim) = Desk::believing();
    assert_eq!(desk.is_asked(0, 1000, Some(claim), Reason::First), Verdict::Agrees);
    assert_eq!(desk.machine.coordinator(), None);
}

#[test]
fn beliefs_rest_on_the_holders_word_and_end_with_it() {
    let (mut desk, held) = Desk::believing();
    let [first, third] = [desk.peers[0], desk.peers[2]];
    assert_eq!(desk.machine.claim(), Some(held));
    // A heartbeat from before the claim may be late; a later one ends it.
    desk.hears(Event::Heard { from: first, claim: None });
    assert_eq!(desk.machine.claim(), Some(held));
    desk.now += limits::HEARTBEAT.0;
    desk.hears(Event::Heard { from: third, claim: None });
    assert_eq!(desk.machine.claim(), Some(held), "another node's word");
    let actions = desk.hears(Event::Heard { from: first, claim: None });
    assert_eq!(actions[0], Action::Publicise(Fact::Office { claim: None, mine: false }));
    assert_eq!(actions.len(), 1, "the one that left is the best still");
    assert_eq!(asked(&desk.waits(limits::ELECTION_STEP.0)).len(), 4);
    // It comes back by the holder's heartbeat, not by another's.
    desk.hears(Event::Heard { from: third, claim: Some(held) });
    assert_eq!(desk.machine.claim(), None);
    desk.hears(Event::Heard { from: first, claim: Some(held) });
    assert_eq!(desk.machine.claim(), Some(held));
    // Its resignation is for good, though a heartbeat from before it may still come.
    desk.hears(Event::Told { from: first, message: Message::Resign { claim: held } });
    desk.hears(Event::Heard { from: first, claim: Some(held) });
    assert_eq!(desk.machine.claim(), None);
    // Nobody speaks for another.
    desk.news(2, claim(held.counter + 1, 0));
    desk.hears(Event::Told { from: third, message: Message::Resign { claim: held } });
    assert_eq!(desk.machine.claim(), None);
}

#[test]
fn the_greater_claim_wins_and_a_smaller_one_is_not_believed() {
    let (mut desk, own) = Desk::in_office(3);
    desk.news(1, claim(own.counter, 1));
    assert_eq!(desk.machine.coordinator(), Some((desk.peers[1], claim(own.counter, 1))), "by node number");
    desk.news(2, claim(own.counter - 1, 2));
    assert_eq!(desk.machine.coordinator().map(|(peer, _)| peer), Some(desk.peers[1]));
    // Hearsay of a greater one.
    let (mut desk, own) = Desk::in_office(3);
    let from = desk.peers[1];
    desk.hears(Event::Heard { from, claim: Some(claim(own.counter + 1, 2)) });
    assert_eq!((desk.machine.in_office(), desk.machine.coordinator()), (None, None));
    assert!(desk.waits(590).is_empty(), "its holder may be heard yet");
    assert_eq!(asked(&desk.waits(10)).len(), 2);
    desk.answers(1, Verdict::Agrees, None);
    assert!(desk.machine.in_office().is_some_and(|anew| anew.counter > own.counter + 1));
}

#[test]
fn insane_claims_and_counters_count_for_nothing() {
    let (mut desk, own) = Desk::in_office(3);
    let peer = desk.peers[1];
    let other_epoch = Claim { epoch: Epoch(2), ..claim(own.counter + 1, 1) };
    for bad in [claim(0, 1), claim(Claim::COUNTER_MAX + 1, 1), claim(own.counter + 1, 3), other_epoch] {
        desk.hears(Event::Heard { from: peer, claim: Some(bad) });
        desk.news(1, bad);
        desk.hears(Event::Told { from: peer, message: Message::Resign { claim: bad } });
        assert_eq!(desk.machine.in_office(), Some(own), "{bad:?}");
    }
    let stranger = peers(4).into_iter().find(|peer| !desk.peers.contains(peer)).expect("a fourth");
    desk.hears(Event::Heard { from: stranger, claim: Some(claim(own.counter + 1, 1)) });
    assert_eq!(desk.machine.in_office(), Some(own));
    for counter in [0, Claim::COUNTER_MAX + 1, u64::MAX] {
        let message = Message::Election {
            epoch: Epoch::FOUNDING,
            counter,
            load_centi: 0,
            known: None,
            reason: Reason::First,
        };
        assert_eq!(verdict(&desk.hears(Event::Asked { from: peer, call: 9, message })), Verdict::Believes);
    }
    assert!(desk.machine.known_counter() < Claim::COUNTER_MAX);
    let used_up = Desk::started(1, 0, u64::MAX).view(&[Some(0)]);
    assert!(used_up.is_empty(), "no counter is left: {used_up:?}");
}

#[test]
fn a_frozen_coordinator_is_out_of_office_until_it_has_heard_a_majority() {
    let (mut desk, own) = Desk::in_office(5);
    desk.now += limits::HEARTBEAT.0 + limits::SUSPECT_AFTER.0 + 1;
    let thawed = desk.is_asked(1, 3000, Some(own), Reason::Death(desk.peers[0]));
    assert_eq!((thawed, desk.machine.in_office()), (Verdict::Agrees, None));
    desk.view(&[Some(0), Some(1000), Some(1000), Some(1000), Some(1000)]);
    assert!(desk.waits(2000).is_empty(), "it has heard one of five");
    desk.hears(Event::Heard { from: desk.peers[2], claim: None });
    assert_eq!(asked(&desk.waits(600)).len(), 4);
}

#[test]
fn a_clearly_better_one_asks_after_some_heartbeats_and_a_tenure() {
    let (mut desk, held) = Desk::believing();
    let loads = [Some(3500), Some(2000), Some(2100), Some(2200), Some(2300)];
    while desk.now < 60_000 {
        assert!(desk.view(&loads).is_empty(), "at {}", desk.now);
    }
    let noise = [Some(3499), Some(2000), Some(2100), Some(2200), Some(2300)];
    assert!(desk.view(&noise).is_empty(), "it begins to count anew");
    (1..5).for_each(|_| assert!(desk.view(&loads).is_empty()));
    assert_eq!(asked(&desk.view(&loads)).len(), 4);
    for from in [2, 3, 4] {
        desk.answers(from, Verdict::Agrees, None);
        assert_eq!(desk.machine.claim(), Some(held), "nothing without the coordinator's consent");
    }
    desk.answers(0, Verdict::Agrees, None);
    assert!(desk.machine.in_office().is_some());
    let (mut refused, held) = Desk::believing();
    while asked(&refused.view(&loads)).is_empty() {}
    let actions = refused.answers(0, Verdict::InOffice, Some(held));
    let withdraws = |a: &Action| matches!(a, Action::Tell { message: Message::Withdraw { .. }, .. });
    assert!(actions.len() == 3 && actions.iter().all(withdraws), "{actions:?}");
    assert_eq!(refused.machine.claim(), Some(held));
    assert!(refused.machine.candidacy.is_none());
}

#[test]
fn a_coordinator_without_room_resigns_for_somebody_better() {
    for (own, other, resigns) in [(9001, 7501, true), (9000, 100, false), (10_000, 8501, false)] {
        let (mut desk, claim) = Desk::in_office(3);
        while desk.now < 60_300 {
            assert!(desk.view(&[Some(own), Some(other), Some(10_000)]).is_empty());
        }
        let actions: Vec<Action> =
            (0..12).flat_map(|_| desk.view(&[Some(own), Some(other), Some(10_000)])).collect();
        let resign = Action::Tell { to: desk.peers[1], message: Message::Resign { claim } };
        assert_eq!(actions.contains(&resign), resigns, "{own} beside {other}");
        assert_eq!(desk.machine.in_office().is_none(), resigns);
    }
}

#[test]
fn a_node_that_stops_resigns_and_stands_no_more() {
    let (mut desk, claim) = Desk::in_office(3);
    let actions = desk.hears(Event::Leave);
    assert_eq!((told(&actions), desk.machine.in_office()), (2, None));
    for _ in 0..20 {
        assert!(desk.view(&[Some(0), Some(5000), Some(5000)]).is_empty());
    }
    let mut other = Desk::new(3, 1);
    other.view(&[Some(0), Some(5000), Some(6000)]);
    other.news(0, claim);
    let message = Message::Resign { claim };
    let actions = other.hears(Event::Told { from: other.peers[0], message });
    assert_eq!(asked(&actions).len(), 2, "at once, though the one that left has the lowest load");
}

#[test]
fn a_client_that_knows_a_greater_counter_is_heard_once_a_second() {
    let (mut desk, own) = Desk::in_office(3);
    desk.now += 1000;
    assert!(desk.hears(Event::Above { counter: own.counter - 1 }).is_empty());
    assert!(desk.hears(Event::Above { counter: Claim::COUNTER_MAX / 2 + 1 }).is_empty());
    let actions = desk.hears(Event::Above { counter: own.counter + 5000 });
    assert_eq!(told(&actions), 2);
    let anew = desk.machine.in_office().expect("still");
    assert!(anew.counter > own.counter + 5000 && anew.counter % STAMPS == BOOT);
    assert!(desk.hears(Event::Above { counter: anew.counter }).is_empty(), "too soon");
    assert!(desk.waits(990).is_empty() && desk.machine.in_office() == Some(anew), "too soon");
    assert_eq!(told(&desk.waits(300)), 2, "but it is not forgotten");
}

#[test]
fn a_lost_candidacy_is_tried_again_later_each_time_within_bounds() {
    let mut desk = Desk::new(3, 0);
    desk.view(&[Some(1000), Some(2000), Some(2000)]);
    desk.waits(600);
    let mut waits = Vec::new();
    for _ in 0..6 {
        for from in [1, 2] {
            desk.answers(from, Verdict::Believes, None);
        }
        assert!(desk.machine.candidacy.is_none());
        let began = desk.now;
        while asked(&desk.waits(10)).is_empty() {
            assert!(desk.now - began <= limits::ELECTION_RETRY_MAX.0 + 10, "it gave up");
        }
        waits.push(desk.now - began);
    }
    assert!(waits[0] <= 310 && waits[0] >= 150 && waits[5] >= 600, "{waits:?}");
}

#[test]
fn a_silent_electorate_and_late_answers_decide_nothing() {
    let mut desk = Desk::new(3, 0);
    desk.view(&[Some(1000), Some(2000), Some(2000)]);
    desk.waits(600);
    let first = desk.machine.candidacy.as_ref().expect("it stands").counter;
    desk.now += limits::ELECTION_ANSWER.0;
    desk.hears(Event::Timer(Timer::Answers));
    assert!(desk.machine.candidacy.is_none());
    while asked(&desk.waits(10)).is_empty() {}
    let message = Message::Alive {
        epoch: Epoch::FOUNDING,
        asked: first,
        load_centi: 1,
        counter: 1,
        known: None,
        verdict: Verdict::Agrees,
    };
    desk.hears(Event::Answered { from: desk.peers[1], answer: Some(message) });
    assert_eq!(desk.machine.in_office(), None, "it agreed to the candidacy before");
    desk.answers(1, Verdict::Agrees, None);
    assert!(desk.machine.in_office().is_some());
}

#[test]
fn records_are_few_and_the_news_completes_what_a_heartbeat_said() {
    let mut desk = Desk::new(3, 0);
    desk.view(&[Some(1000), Some(2000), Some(2000)]);
    for number in 1..=40 {
        desk.news(1, claim(number, 1));
    }
    assert_eq!(desk.machine.records().len(), limits::ELECTIONS_KEPT);
    let held = claim(99, 2);
    desk.hears(Event::Heard { from: desk.peers[2], claim: Some(held) });
    let last = |desk: &Desk| desk.machine.records().last().cloned().expect("some");
    assert_eq!((last(&desk).claim, last(&desk).reason), (held, Reason::Unheard));
    let loads = vec![(NodeNumber(0), 9000), (NodeNumber(2), 1200)];
    let message = Message::Coordinator { claim: held, reason: Reason::Death(desk.peers[1]), loads };
    let actions = desk.hears(Event::Told { from: desk.peers[2], message: message.clone() });
    assert_eq!(actions, [Action::Publicise(Fact::Elected(last(&desk)))]);
    assert!(desk.hears(Event::Told { from: desk.peers[2], message }).is_empty(), "the same again");
    let name = |peer: &PeerId| if *peer == desk.peers[1] { "attic".to_owned() } else { "desk".to_owned() };
    assert_eq!(desk.machine.reason(name).as_deref(), Some("attic died; lowest load of 2: 12.0 (desk 90.0)"));
}

#[test]
fn starts_of_a_node_never_make_the_same_claim() {
    let mut made = BTreeMap::new();
    for boot in 1..200 {
        let mut desk = Desk::started(1, 0, boot);
        // Others, with later starts, had much greater counters; now it has forgotten all but some of them.
        desk.hears(Event::Above { counter: (7 << BOOT_SHIFT) + boot / 3 });
        desk.view(&[Some(0)]);
        let claim = desk.machine.in_office().expect("it is alone");
        assert!(claim.counter > boot << BOOT_SHIFT);
        assert_eq!(made.insert(claim, boot), None);
    }
}

#[test]
fn no_start_claims_below_an_earlier_one_whatever_others_have_named() {
    let mut desk = Desk::new(1, 0);
    desk.view(&[Some(0)]);
    let first = desk.machine.claim().expect("it is alone");
    desk.now += limits::ANEW_EVERY.0;
    let heard = desk.hears_with_disk(Event::Above { counter: 9 << BOOT_SHIFT });
    let [Action::Keep { counter: kept }] = heard[..] else { panic!("nothing above its own room: {heard:?}") };
    assert_eq!(desk.machine.claim(), Some(first), "until it is durable");
    desk.hears(Event::Kept { counter: kept });
    let taught = desk.machine.claim().expect("it is in office still");
    assert!(taught.counter > 9 << BOOT_SHIFT && taught.counter <= kept);

    // The next start has no idea of that counter, only of what is on its disk.
    let mut desk = Desk::started_with(1, 0, BOOT + 1, kept);
    desk.view(&[Some(0)]);
    let next = desk.machine.claim().expect("it is alone");
    assert!(next > taught, "{next:?} after {taught:?}");
}

#[test]
fn who_may_not_claim_yet_stands_as_soon_as_it_may() {
    let mut desk = Desk::started_with(1, 0, BOOT, 9 << BOOT_SHIFT);
    let wants = desk.hears_with_disk(Event::View { alive: BTreeMap::from([(desk.peers[0], 0)]) });
    let [Action::Keep { counter }] = wants[..] else { panic!("{wants:?}") };
    assert_eq!(desk.machine.claim(), None);
    desk.hears(Event::Kept { counter });
    assert!(desk.machine.claim().is_some_and(|claim| claim.counter > 9 << BOOT_SHIFT));
}
