//! Each rule by itself: a state, an event, the actions that must follow; and the formats.

use super::*;
use crate::{
    model::{codec::CodecError, limits, register::RawRegister, register::Register},
    proto::testing::{founding, hex, peers, register},
};

/// One node of a cluster of `count`, and an object whose home it is, or is not.
struct Bench {
    machine: ChunkPaxos,
    me: PeerId,
    others: Vec<PeerId>,
    object: ObjectId,
}

fn config(count: usize, me: PeerId) -> Config {
    Config {
        me,
        founding: founding(count),
        epoch: Epoch::FOUNDING,
        boot: 7,
        fences: BTreeMap::new(),
        seed: [3; 32],
        variant: Variant::Right,
    }
}

impl Bench {
    /// The object's home, the slot's only acceptor, or another acceptor.
    fn new(count: usize, is_home: bool) -> Self {
        let object = ObjectId([42; 32]);
        let machine = ChunkPaxos::new(config(count, peers(count)[0]));
        let keepers = machine.view(HashSlot::of(&object)).keepers.clone();
        let home = placement::home(Epoch::FOUNDING, &keepers.acceptors, &object).expect("an acceptor");
        let all = keepers.acceptors.iter().chain(&keepers.mirror);
        let me = if is_home { home } else { *all.clone().find(|p| **p != home).expect("another keeper") };
        let others = all.filter(|p| **p != me).copied().collect();
        let mut bench = Self { machine: ChunkPaxos::new(config(count, me)), me, others, object };
        for peer in bench.others.clone() {
            bench.run(0, Event::Reachable { peer, reachable: true });
        }
        bench
    }

    fn home(&self) -> PeerId {
        let acceptors = &self.machine.view(HashSlot::of(&self.object)).keepers.acceptors;
        placement::home(Epoch::FOUNDING, acceptors, &self.object).expect("an acceptor")
    }

    fn number(&self, peer: PeerId) -> NodeNumber {
        founding(self.others.len() + 1).number_of(&peer).expect("a member")
    }

    fn ballot(&self, counter: u64, peer: PeerId) -> Ballot {
        Ballot { epoch: Epoch::FOUNDING, counter, node: self.number(peer), boot: 7 }
    }

    /// All but timers.
    fn run(&mut self, now: u64, event: Event) -> Vec<Action> {
        let mut out = Outbox::new();
        self.machine.handle(Millis(now), event, &mut out);
        out.drain().filter(|action| !matches!(action, Action::Arm { .. })).collect()
    }

    fn call(&mut self, now: u64, call: u64, command: Command) -> Vec<Action> {
        self.run(now, Event::Call { call: CallId(call), object: self.object, command })
    }

    fn loaded(&mut self, now: u64, record: Option<AcceptorRecord>) -> Vec<Action> {
        self.run(now, Event::Loaded { object: self.object, record })
    }

    fn hear(&mut self, now: u64, from: PeerId, round: RoundId, body: Body) -> Vec<Action> {
        let message = Message { epoch: Epoch::FOUNDING, object: self.object, round, body };
        self.run(now, Event::Message { from, message })
    }

    /// The write is durable: what it sends to this node comes back. Returns what follows, and what went to
    /// others.
    fn durable(&mut self, now: u64, action: &Action) -> (Vec<Action>, Vec<Send>) {
        let Action::Write { then, .. } = action else { panic!("not a write: {action:?}") };
        let (own, others) = then.iter().cloned().partition::<Vec<_>, _>(|send| send.to == self.me);
        let follows = own.into_iter().flat_map(|send| {
            self.run(now, Event::Message { from: send.to, message: send.message }).into_iter()
        });
        (follows.collect(), others)
    }

    /// Commits a first version by the implicit ballot. Returns it.
    fn first_version(&mut self) -> VerifiedRegister {
        let value = register(self.object, None, 1);
        self.call(0, 1, Command::Propose { value: value.clone() });
        let actions = self.loaded(1, None);
        let (_, sends) = self.durable(2, &actions[0]);
        let Body::Accept { ballot, .. } = sends[0].message.body else { panic!("{sends:?}") };
        let round = sends[0].message.round;
        let answers = self.hear(3, self.others[0], round, Body::Accepted { ballot, next_promised: true });
        assert!(matches!(outcome(&answers), Some(Outcome::Committed { copies: 2 })), "{answers:?}");
        value
    }
}

fn outcome(actions: &[Action]) -> Option<&Outcome> {
    actions.iter().find_map(|action| match action {
        Action::Answer { answer, .. } => Some(&answer.outcome),
        _ => None,
    })
}

fn cost(actions: &[Action]) -> Option<u64> {
    actions.iter().find_map(|action| match action {
        Action::Answer { answer, .. } => Some(answer.messages),
        _ => None,
    })
}

fn bodies(actions: &[Action]) -> Vec<&Body> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Send(send) => Some(&send.message.body),
            _ => None,
        })
        .collect()
}

fn round_of(actions: &[Action]) -> RoundId {
    let mut sends = actions.iter().filter_map(|action| match action {
        Action::Send(send) => Some(send.message.round),
        _ => None,
    });
    sends.next_back().expect("a message was sent")
}

const ROUND: RoundId = RoundId { boot: 1, number: 1 };

#[test]
fn a_first_write_is_durable_at_home_before_it_is_sent_and_costs_six_messages() {
    let mut home = Bench::new(3, true);
    let value = register(home.object, None, 1);
    let object = home.object;
    let actions = home.call(0, 1, Command::Propose { value: value.clone() });
    assert_eq!(actions, [Action::Load { object }]);
    let actions = home.loaded(1, None);
    let [write @ Action::Write { record, .. }] = &actions[..] else { panic!("{actions:?}") };
    let implicit = home.ballot(0, home.me);
    assert_eq!(record.accepted, Some(Accepted { ballot: implicit, value }));
    assert_eq!(record.promised, Some(home.ballot(1, home.me)), "the next round's promise, in the same write");
    let (follows, sends) = home.durable(2, write);
    assert!(follows.is_empty(), "one of three is no majority");
    assert_eq!(sends.len(), 2);
    let answers = home.hear(
        3,
        home.others[0],
        sends[0].message.round,
        Body::Accepted { ballot: implicit, next_promised: true },
    );
    assert_eq!((outcome(&answers), cost(&answers)), (Some(&Outcome::Committed { copies: 2 }), Some(6)));
    let counters = home.machine.counters();
    assert_eq!((counters.home_commits, counters.commits, counters.commit_messages), (1, 1, 6));
}

#[test]
fn the_next_write_skips_the_prepare_and_costs_six_messages_too() {
    let mut home = Bench::new(3, true);
    let first = home.first_version();
    let second = register(home.object, Some(&first), 2);
    let actions = home.call(10, 2, Command::Propose { value: second });
    let accepts = bodies(&actions);
    let ballot = home.ballot(1, home.me);
    assert_eq!(accepts.len(), 2);
    assert!(accepts.iter().all(|body| matches!(body, Body::Accept { ballot: b, .. } if *b == ballot)));
    let round = round_of(&actions);
    let accepted = Body::Accepted { ballot, next_promised: true };
    home.hear(11, home.others[0], round, accepted.clone());
    let answers = home.hear(12, home.others[1], round, accepted);
    assert_eq!((outcome(&answers), cost(&answers)), (Some(&Outcome::Committed { copies: 2 }), Some(6)));
}

#[test]
fn a_record_that_is_not_empty_gets_a_full_round_of_twelve_messages() {
    let mut home = Bench::new(3, true);
    let value = register(home.object, None, 1);
    home.call(0, 1, Command::Propose { value: value.clone() });
    let promised = home.ballot(9, home.others[0]);
    let actions = home.loaded(1, Some(AcceptorRecord::new(Some(promised), None)));
    let ballot = home.ballot(10, home.me);
    assert!(bodies(&actions).iter().all(|b| **b == Body::Prepare { ballot }), "above every counter seen");
    let round = round_of(&actions);
    let promise = Body::Promise { ballot, accepted: None };
    home.hear(2, home.others[0], round, promise.clone());
    let actions = home.hear(3, home.others[1], round, promise);
    let round = round_of(&actions);
    let accepted = Body::Accepted { ballot, next_promised: true };
    home.hear(4, home.others[0], round, accepted.clone());
    let answers = home.hear(5, home.others[1], round, accepted);
    assert_eq!((outcome(&answers), cost(&answers)), (Some(&Outcome::Committed { copies: 2 }), Some(12)));
}

#[test]
fn a_retry_of_the_current_value_or_request_is_success_and_anything_else_a_conflict() {
    let mut home = Bench::new(3, true);
    let first = home.first_version();
    let accepted = Some(Accepted { ballot: home.ballot(0, home.me), value: first.clone() });
    let other = register(home.object, None, 99);
    let table = [(first.clone(), true), (other, false)];
    for (call, (value, success)) in (2..).zip(table) {
        let actions = home.call(10 * call, call, Command::Propose { value });
        assert!(bodies(&actions).iter().all(|body| **body == Body::Query), "{actions:?}");
        let round = round_of(&actions);
        let state = Body::State { accepted: accepted.clone() };
        let mut answers = home.hear(10 * call, home.others[0], round, state.clone());
        answers.extend(home.hear(10 * call, home.others[1], round, state));
        match outcome(&answers) {
            Some(Outcome::Committed { copies: 2 }) => assert!(success),
            Some(Outcome::Conflict { current }) => assert!(!success && current.as_ref() == Some(&first)),
            other => panic!("{other:?}"),
        }
        assert_eq!(cost(&answers), Some(6));
    }
}

#[test]
fn acceptors_take_the_implicit_ballot_only_from_the_home_and_only_when_empty() {
    let mut acceptor = Bench::new(3, false);
    let (home, object) = (acceptor.home(), acceptor.object);
    let other = *acceptor.others.iter().find(|p| **p != home).expect("three nodes");
    let value = register(object, None, 1);
    let accept = |ballot| Body::Accept { ballot, value: value.clone(), next: None };
    let by_other = accept(acceptor.ballot(0, other));
    assert!(acceptor.hear(0, other, ROUND, by_other).is_empty());
    assert_eq!(acceptor.machine.counters().ignored, 1);

    let by_home = accept(acceptor.ballot(0, home));
    assert_eq!(acceptor.hear(1, home, ROUND, by_home.clone()), [Action::Load { object }]);
    let promised = acceptor.ballot(3, other);
    let actions = acceptor.loaded(2, Some(AcceptorRecord::new(Some(promised), None)));
    let refused = Body::Refused { ballot: acceptor.ballot(0, home), floor: promised };
    assert_eq!(bodies(&actions), [&refused]);

    let mut empty = Bench::new(3, false);
    empty.hear(1, home, ROUND, by_home);
    let actions = empty.loaded(2, None);
    assert!(matches!(&actions[..], [Action::Write { .. }]), "{actions:?}");
}

#[test]
fn a_prepare_needs_a_strictly_greater_ballot_and_the_promise_rides_on_the_write() {
    let mut acceptor = Bench::new(3, false);
    let home = acceptor.home();
    let ballot = acceptor.ballot(5, home);
    acceptor.hear(0, home, ROUND, Body::Prepare { ballot });
    let actions = acceptor.loaded(1, None);
    let [write @ Action::Write { record, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(*record, AcceptorRecord::new(Some(ballot), None));
    // Not durable yet, so even a refusal waits for the disk.
    let again = acceptor.hear(2, home, ROUND, Body::Prepare { ballot });
    assert!(matches!(&again[..], [Action::Write { .. }]), "{again:?}");
    let (_, sends) = acceptor.durable(3, write);
    assert_eq!(sends[0].message.body, Body::Promise { ballot, accepted: None });
    let (_, sends) = acceptor.durable(3, &again[0]);
    assert_eq!(sends[0].message.body, Body::Refused { ballot, floor: ballot });
    let smaller = acceptor.ballot(4, home);
    let actions = acceptor.hear(4, home, ROUND, Body::Prepare { ballot: smaller });
    assert_eq!(bodies(&actions), [&Body::Refused { ballot: smaller, floor: ballot }], "durable, so at once");
}

#[test]
fn a_read_of_a_state_on_its_way_to_disk_waits_for_the_disk() {
    let mut acceptor = Bench::new(3, false);
    let home = acceptor.home();
    let value = register(acceptor.object, None, 1);
    let ballot = acceptor.ballot(0, home);
    acceptor.hear(0, home, ROUND, Body::Accept { ballot, value: value.clone(), next: None });
    acceptor.loaded(1, None);
    let actions = acceptor.hear(2, home, ROUND, Body::Query);
    assert!(matches!(&actions[..], [Action::Write { .. }]), "{actions:?}");
    let (_, sends) = acceptor.durable(3, &actions[0]);
    assert_eq!(sends[0].message.body, Body::State { accepted: Some(Accepted { ballot, value }) });
    assert!(matches!(bodies(&acceptor.hear(4, home, ROUND, Body::Query))[..], [Body::State { .. }]));
}

#[test]
fn a_record_that_cannot_be_read_is_no_empty_one() {
    let mut acceptor = Bench::new(3, false);
    let (home, object) = (acceptor.home(), acceptor.object);
    let ballot = acceptor.ballot(5, home);
    acceptor.hear(0, home, ROUND, Body::Prepare { ballot });
    assert!(acceptor.run(1, Event::LoadFailed { object }).is_empty());
    assert_eq!(acceptor.hear(2, home, ROUND, Body::Query), [Action::Load { object }]);
}

#[test]
fn a_write_that_was_refused_says_nothing_and_what_the_disk_has_holds() {
    let mut acceptor = Bench::new(3, false);
    let (home, object) = (acceptor.home(), acceptor.object);
    let old = Accepted { ballot: acceptor.ballot(2, home), value: register(object, None, 1) };
    let on_disk = AcceptorRecord::new(None, Some(old.clone()));
    let value = register(object, Some(&old.value), 2);
    let accept = Body::Accept { ballot: acceptor.ballot(5, home), value, next: None };
    acceptor.hear(0, home, ROUND, accept.clone());
    let writes = acceptor.loaded(1, Some(on_disk.clone()));
    let Action::Write { serial, .. } = writes[0] else { panic!("{writes:?}") };
    // A second one is on its way while the first is refused: only then is it known what the disk has.
    let again = acceptor.hear(2, home, ROUND, accept.clone());
    assert!(acceptor.run(2, Event::WriteRefused { object, serial }).is_empty());
    let Action::Write { serial, .. } = again[0] else { panic!("{again:?}") };
    assert!(acceptor.run(2, Event::WriteRefused { object, serial }).is_empty());
    // It can be told also while the disk takes nothing.
    assert_eq!(acceptor.hear(3, home, ROUND, Body::Query), [Action::Load { object }]);
    let actions = acceptor.loaded(4, Some(on_disk));
    assert_eq!(bodies(&actions), [&Body::State { accepted: Some(old) }]);
    let actions = acceptor.hear(5, home, ROUND, accept);
    assert!(matches!(&actions[..], [Action::Write { .. }]), "there may be room now: {actions:?}");
}

#[test]
fn another_node_forwards_to_the_home_and_proposes_itself_when_that_is_silent() {
    let mut node = Bench::new(3, false);
    let home = node.home();
    let value = register(node.object, None, 1);
    let actions = node.call(0, 1, Command::Propose { value: value.clone() });
    let forward = Body::Forward { command: Command::Propose { value: value.clone() } };
    assert_eq!(bodies(&actions), [&forward]);
    assert!(node.run(299, Event::Timer(Timer::Wake)).is_empty());
    let actions = node.run(300, Event::Timer(Timer::Wake));
    assert!(bodies(&actions).iter().all(|body| matches!(body, Body::Prepare { .. })), "{actions:?}");

    let mut node = Bench::new(3, false);
    let actions = node.call(0, 1, Command::Propose { value: value.clone() });
    assert!(node.hear(200, home, round_of(&actions), Body::Taken).is_empty());
    assert!(node.run(999, Event::Timer(Timer::Wake)).is_empty(), "the home has it in hand");

    let mut node = Bench::new(3, false);
    node.run(0, Event::Reachable { peer: home, reachable: false });
    let actions = node.call(0, 1, Command::Propose { value });
    assert!(bodies(&actions).iter().all(|body| matches!(body, Body::Prepare { .. })), "{actions:?}");
}

/// What a node answers that has taken a first version over from the silent home, when so many versions are
/// there already.
fn answer_after_a_takeover(versions: u64) -> Option<Outcome> {
    let mut node = Bench::new(3, false);
    let value = register(node.object, None, 1000);
    node.call(0, 1, Command::Propose { value });
    let actions = node.run(300, Event::Timer(Timer::Wake));
    let (round, ballot) = (round_of(&actions), node.ballot(1, node.me));
    let newest = (0..versions).fold(None, |before, n| Some(register(node.object, before.as_ref(), n)))?;
    let accepted = Some(Accepted { ballot: node.ballot(0, node.home()), value: newest });
    let promise = Body::Promise { ballot, accepted };
    node.hear(301, node.others[0], round, promise.clone());
    outcome(&node.hear(302, node.others[1], round, promise)).cloned()
}

#[test]
fn what_the_home_may_have_done_is_no_conflict_once_nobody_remembers_it() {
    let remembered = limits::REGISTER_REQUESTS_MAX as u64;
    assert!(matches!(answer_after_a_takeover(remembered), Some(Outcome::Conflict { .. })));
    assert_eq!(answer_after_a_takeover(remembered + 1), Some(Outcome::NoQuorum), "nobody knows");
}

#[test]
fn without_a_majority_the_answer_comes_after_two_seconds() {
    for command in
        [Command::Read, Command::Settle, Command::Propose { value: register(ObjectId([42; 32]), None, 1) }]
    {
        let mut home = Bench::new(3, true);
        let mut actions = home.call(0, 1, command);
        actions.extend(home.loaded(1, None));
        let mut answered = None;
        for now in (0..=2000).step_by(50) {
            let actions = home.run(now, Event::Timer(Timer::Wake));
            if let Some(outcome) = outcome(&actions) {
                assert_eq!(*outcome, Outcome::NoQuorum);
                answered = Some(now);
            }
        }
        assert_eq!(answered, Some(limits::NO_QUORUM.0));
    }
}

#[test]
fn too_many_calls_for_one_object_are_refused_at_once() {
    let mut home = Bench::new(3, true);
    for call in 0..limits::PAXOS_CALLS_PER_OBJECT_MAX as u64 {
        assert_eq!(outcome(&home.call(0, call, Command::Read)), None);
    }
    assert_eq!(outcome(&home.call(0, 999, Command::Read)), Some(&Outcome::Busy));
}

#[test]
fn a_lost_duel_drops_the_ballot_and_a_full_round_above_it_follows() {
    let mut home = Bench::new(3, true);
    let first = home.first_version();
    let second = register(home.object, Some(&first), 2);
    let actions = home.call(10, 2, Command::Propose { value: second });
    let (round, ballot) = (round_of(&actions), home.ballot(1, home.me));
    let refused = Body::Refused { ballot, floor: home.ballot(50, home.others[0]) };
    home.hear(11, home.others[0], round, refused.clone());
    assert!(home.hear(11, home.others[1], round, refused).is_empty(), "first a random pause");
    let actions = home.run(11 + limits::PAXOS_BACKOFF_MAX.0, Event::Timer(Timer::Wake));
    let above = home.ballot(51, home.me);
    assert!(
        bodies(&actions).iter().any(|b| matches!(b, Body::Prepare { ballot } if *ballot >= above)),
        "{actions:?}"
    );
}

#[test]
fn of_two_members_the_mirror_has_it_too_before_the_answer_while_it_is_reachable() {
    for reachable in [true, false] {
        let mut home = Bench::new(2, true);
        let (mirror, value) = (home.others[0], register(home.object, None, 1));
        home.run(0, Event::Reachable { peer: mirror, reachable });
        home.call(0, 1, Command::Propose { value: value.clone() });
        let actions = home.loaded(1, None);
        let (mut answers, sends) = home.durable(2, &actions[0]);
        let ballot = home.ballot(0, home.me);
        assert_eq!(sends[0].message.body, Body::Mirror { ballot, value: value.clone() });
        if reachable {
            assert_eq!(outcome(&answers), None);
            answers = home.hear(3, mirror, sends[0].message.round, Body::Mirrored { ballot });
        }
        let copies = if reachable { 2 } else { 1 };
        assert_eq!(outcome(&answers), Some(&Outcome::Committed { copies }));
    }
}

#[test]
fn a_mirror_keeps_the_greatest_ballot_and_never_votes() {
    let mut mirror = Bench::new(2, false);
    let home = mirror.home();
    let value = register(mirror.object, None, 1);
    let (low, high) = (mirror.ballot(1, home), mirror.ballot(2, home));
    mirror.hear(0, home, ROUND, Body::Mirror { ballot: high, value: value.clone() });
    let actions = mirror.loaded(1, None);
    let (_, sends) = mirror.durable(2, &actions[0]);
    assert_eq!(sends[0].message.body, Body::Mirrored { ballot: high });
    let actions = mirror.hear(3, home, ROUND, Body::Mirror { ballot: low, value: value.clone() });
    assert_eq!(bodies(&actions), [&Body::Mirrored { ballot: low }], "it has a greater one");
    for body in [Body::Prepare { ballot: high }, Body::Accept { ballot: high, value, next: None }] {
        assert!(mirror.hear(4, home, ROUND, body).is_empty());
    }
}

#[test]
fn a_late_accept_is_taken_only_if_it_is_newer() {
    let mut acceptor = Bench::new(3, false);
    let (home, object) = (acceptor.home(), acceptor.object);
    let first = register(object, None, 1);
    let second = register(object, Some(&first), 2);
    let new = Accepted { ballot: acceptor.ballot(5, home), value: second };
    let old = Accepted { ballot: acceptor.ballot(4, home), value: first };
    acceptor.run(0, Event::LateAccept { object, accepted: new.clone() });
    let actions = acceptor.loaded(1, Some(AcceptorRecord::new(None, Some(old.clone()))));
    let [Action::Write { record, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(record.accepted, Some(new));
    assert!(acceptor.run(2, Event::LateAccept { object, accepted: old }).is_empty());
}

#[test]
fn a_late_accept_writes_again_what_the_disk_has_refused() {
    let mut acceptor = Bench::new(3, false);
    let (home, object) = (acceptor.home(), acceptor.object);
    let ballot = acceptor.ballot(5, home);
    let value = register(object, None, 1);
    let accept = Body::Accept { ballot, value: value.clone(), next: None };
    acceptor.hear(0, home, ROUND, accept);
    let actions = acceptor.loaded(1, None);
    let Action::Write { serial, .. } = actions[0] else { panic!("{actions:?}") };
    acceptor.run(2, Event::WriteRefused { object, serial });
    let chosen = Accepted { ballot, value };
    let actions = acceptor.run(3, Event::LateAccept { object, accepted: chosen.clone() });
    assert_eq!(actions, [Action::Load { object }]);
    let actions = acceptor.loaded(3, None);
    let [Action::Write { record, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(record.accepted, Some(chosen.clone()));
    let again = acceptor.run(4, Event::LateAccept { object, accepted: chosen });
    assert!(again.is_empty(), "one write in flight is enough");
}

#[test]
fn messages_that_nobody_may_say_are_ignored() {
    let mut acceptor = Bench::new(3, false);
    let home = acceptor.home();
    let other = *acceptor.others.iter().find(|p| **p != home).expect("three nodes");
    let elsewhere = register(ObjectId([1; 32]), None, 1);
    let insane = Ballot { counter: u64::MAX, ..acceptor.ballot(1, home) };
    let bad = [
        (other, Body::Prepare { ballot: acceptor.ballot(1, home) }),
        (home, Body::Prepare { ballot: insane }),
        (home, Body::Prepare { ballot: acceptor.ballot(0, home) }),
        (home, Body::Accept { ballot: acceptor.ballot(1, home), value: elsewhere, next: None }),
        (home, Body::Written { serial: 1 }),
        (home, Body::Mirrored { ballot: acceptor.ballot(1, home) }),
        (peers(9)[8], Body::Query),
    ];
    for (index, (from, body)) in bad.into_iter().enumerate() {
        let said = format!("{body:?}");
        assert!(acceptor.hear(0, from, ROUND, body).is_empty(), "{said}");
        assert_eq!(acceptor.machine.counters().ignored, index as u64 + 1, "{said}");
    }
    let message = Message { epoch: Epoch(2), object: acceptor.object, round: ROUND, body: Body::Query };
    assert!(acceptor.run(0, Event::Message { from: home, message }).is_empty(), "another epoch");
}

#[test]
fn vectors_and_refusals() {
    let object = ObjectId([42; 32]);
    let value = register(object, None, 1);
    let ballot = Ballot { epoch: Epoch(1), counter: 300, node: NodeNumber(2), boot: 7 };
    let round = RoundId { boot: 7, number: 9 };
    let promised = AcceptorRecord::<VerifiedRegister>::new(Some(ballot), None);
    let record = AcceptorRecord::new(None, Some(Accepted { ballot, value: value.clone() }));
    let body = Body::Accept { ballot, value, next: Some(Ballot { counter: 301, ..ballot }) };
    let message = Message { epoch: Epoch(1), object, round, body };
    let text = format!(
        "ballot {}\npromised {}\naccepted {}\naccept {}\n",
        hex(&ballot.encode()),
        hex(&promised.encode()),
        hex(&record.encode()),
        hex(&message.encode(300))
    );
    assert_eq!(include_str!("../../../tests/vectors/acceptor.txt"), text);
    let verify = |raw: RawRegister| -> Result<VerifiedRegister, CodecError> {
        Ok(VerifiedRegister::vouch(Register::decode(&raw.0)?, &raw.0))
    };
    assert_eq!(Ballot::decode(&ballot.encode()), Ok(ballot));
    assert!(Ballot::decode(&Ballot { counter: Ballot::COUNTER_MAX + 1, ..ballot }.encode()).is_err());
    assert_eq!(AcceptorRecord::decode(&record.encode()).and_then(|r| r.try_map(verify)), Ok(record.clone()));
    assert!(AcceptorRecord::decode(&AcceptorRecord::<VerifiedRegister>::empty().encode()).is_err());
    let bytes = message.encode(300);
    let (promises, decoded) = Message::decode(&bytes).expect("what was encoded");
    assert_eq!((promises, decoded.try_map(verify)), (300, Ok(message.clone())));
    for cut in 0..bytes.len() {
        assert!(Message::decode(&bytes[..cut]).is_err());
    }
    assert!(
        message.encode(u64::MAX).len() < limits::LANE_FRAME_BYTES_MAX
            && record.encode().len() < RECORD_BYTES_MAX
    );
}

#[test]
fn ballots_are_ordered_by_epoch_counter_node_and_boot() {
    let ballot =
        |epoch, counter, node, boot| Ballot { epoch: Epoch(epoch), counter, node: NodeNumber(node), boot };
    let sorted = [
        ballot(1, 0, 2, 9),
        ballot(1, 1, 0, 9),
        ballot(1, 1, 1, 1),
        ballot(1, 1, 1, 2),
        ballot(1, 2, 0, 1),
        ballot(2, 0, 0, 1),
    ];
    assert!(sorted.windows(2).all(|pair| pair[0] < pair[1]));
}
