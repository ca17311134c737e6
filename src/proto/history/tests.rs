//! Each rule of one node by itself: what it knows, what it has in hand, what it says to others.

use super::*;
use crate::{
    model::{
        member::Epoch,
        task::{Place, TaskKind},
    },
    proto::testing::{founding, peers},
};

/// One node of a cluster; its number is 0.
pub(super) struct Bench {
    pub(super) machine: History,
    pub(super) peers: Vec<PeerId>,
    pub(super) now: u64,
    calls: u64,
}

pub(super) fn means(slots: usize, queue: usize) -> Means {
    Means { slots, queue, kinds: vec![TaskKind("hide".into())] }
}

pub(super) fn claim(counter: u64) -> Claim {
    Claim { epoch: Epoch::FOUNDING, counter, node: NodeNumber(0) }
}

pub(super) fn rank(counter: u64, attempt: u64) -> Rank {
    Rank { claim: claim(counter), attempt }
}

pub(super) fn task(number: u64) -> TaskId {
    TaskId { client: peers(16)[15], number }
}

/// An assignment of a task to this node.
pub(super) fn record(number: u64, rank: Rank, worker: u16) -> TaskRecord {
    let (kind, phase) = (TaskKind("hide".into()), Phase::Assigned);
    TaskRecord { task: task(number), kind, payload_bytes: 1000, rank, worker: NodeNumber(worker), phase }
}

pub(super) fn wish(number: u64) -> Wish {
    let kind = TaskKind("hide".into());
    Wish { task: task(number), kind, payload_bytes: 1000, above: None, avoid: Vec::new() }
}

/// An idle worker of two slots and two places behind them.
pub(super) fn idle() -> Worker {
    Worker { is_alive: true, is_dead: false, load_centi: 0, tasks: 0, slots: 2, places: 4 }
}

pub(super) fn dead() -> Worker {
    Worker { is_alive: false, is_dead: true, ..idle() }
}

impl Bench {
    pub(super) fn new(count: usize, means: Means) -> Self {
        let peers = peers(count);
        let machine = History::new(Config { me: peers[0], founding: founding(count), means });
        let mut bench = Self { machine, peers, now: 0, calls: 0 };
        bench.run(Event::Start);
        bench
    }

    /// In office, where all are as they are said to be.
    pub(super) fn in_office(workers: &[Worker]) -> Self {
        let mut bench = Self::new(workers.len(), means(2, 2));
        bench.workers(workers);
        bench.office(1);
        bench
    }

    pub(super) fn workers(&mut self, workers: &[Worker]) -> Vec<Action> {
        self.run(Event::Workers(self.peers.iter().copied().zip(workers.iter().cloned()).collect()))
    }

    pub(super) fn office(&mut self, counter: u64) -> Vec<Action> {
        let claim = Some(claim(counter));
        self.run(Event::Office { mine: claim, greatest: claim })
    }

    /// All but timers.
    pub(super) fn run(&mut self, event: Event) -> Vec<Action> {
        let mut out = Outbox::new();
        self.machine.handle(Millis(self.now), event, &mut out);
        out.drain().filter(|action| !matches!(action, Action::Arm { .. })).collect()
    }

    pub(super) fn wait(&mut self, ms: u64) -> Vec<Action> {
        let end = self.now + ms;
        let mut all = Vec::new();
        while self.now < end {
            self.now = end.min(self.now + limits::TASK_TICK.0);
            all.extend(self.run(Event::Timer(Timer::Tick)));
        }
        all
    }

    /// What is said to those who have waited so long.
    pub(super) fn hold(&mut self, ms: u64) -> Vec<Action> {
        self.now += ms;
        self.run(Event::Timer(Timer::Hold))
    }

    pub(super) fn submit(&mut self, wish: Wish) -> (CallId, Vec<Action>) {
        self.calls += 1;
        let call = CallId(self.calls);
        (call, self.run(Event::Submit { call, wish }))
    }

    pub(super) fn reserve(&mut self, record: &TaskRecord) -> (Verdict, Vec<Action>) {
        let mut actions = self.run(Event::Reserve { call: CallId(0), record: record.clone() });
        match actions.pop() {
            Some(Action::Answer { answer: Answer::Verdict(verdict), .. }) => (verdict, actions),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn reserved(&mut self, asked: &(usize, TaskRecord), verdict: Option<Verdict>) -> Vec<Action> {
        let (from, record) = asked;
        let (task, rank) = (record.task, record.rank);
        self.run(Event::Reserved { from: self.peers[*from], task, rank, verdict })
    }

    pub(super) fn hear(&mut self, record: &TaskRecord) -> Vec<Action> {
        self.run(Event::Heard { record: record.clone() })
    }

    pub(super) fn phase(&self, number: u64) -> Option<Phase> {
        self.machine.standing(&task(number)).record.map(|record| record.phase)
    }

    pub(super) fn place(&self, number: u64) -> Option<Place> {
        self.machine.standing(&task(number)).place
    }

    /// Who is asked for a place, by number, and for what.
    pub(super) fn asked(&self, actions: &[Action]) -> Vec<(usize, TaskRecord)> {
        let of = |peer: &PeerId| self.peers.iter().position(|other| other == peer).expect("a member");
        let asks = actions.iter().filter_map(|action| match action {
            Action::Reserve { to, record } => Some((of(to), record.clone())),
            _ => None,
        });
        asks.collect()
    }

    fn received(&mut self, record: &TaskRecord) -> Vec<Action> {
        self.run(Event::Received { task: record.task, rank: record.rank })
    }

    fn ran(&mut self, record: &TaskRecord) -> Vec<Action> {
        self.ran_with(record, 0)
    }

    fn ran_with(&mut self, record: &TaskRecord, answer_bytes: u64) -> Vec<Action> {
        self.run(Event::Ran { task: record.task, rank: record.rank, answer_bytes })
    }
}

pub(super) fn answers(actions: &[Action]) -> Vec<(u64, Submitted)> {
    let answers = actions.iter().filter_map(|action| match action {
        Action::Answer { call, answer: Answer::Submitted(said) } => Some((call.0, said.clone())),
        _ => None,
    });
    answers.collect()
}

fn in_phase(record: &TaskRecord, phase: Phase) -> TaskRecord {
    TaskRecord { phase, ..record.clone() }
}

fn publish(record: &TaskRecord, phase: Phase) -> Action {
    Action::Publish { record: in_phase(record, phase) }
}

fn run_it(record: &TaskRecord) -> Action {
    Action::Run { task: record.task, rank: record.rank }
}

fn drop_it(record: &TaskRecord) -> Action {
    Action::Drop { task: record.task }
}

// ---- a worker ----

#[test]
fn a_task_goes_through_a_worker() {
    let mut bench = Bench::new(2, means(1, 1));
    let (one, two) = (record(1, rank(1, 1), 0), record(2, rank(1, 1), 0));
    assert_eq!(bench.reserve(&one), (Verdict::Taken, vec![Action::Expect { record: one.clone() }]));
    assert_eq!(bench.reserve(&one), (Verdict::Taken, vec![]), "the same question again");
    assert_eq!(bench.reserve(&two).0, Verdict::Taken);
    assert_eq!((bench.place(1), bench.machine.in_hand()), (Some(Place::Receiving), (2, 1)));
    assert_eq!(bench.received(&one), [publish(&one, Phase::Started), run_it(&one)]);
    assert_eq!(bench.received(&one), [], "it has it");
    assert_eq!(bench.received(&two), [publish(&two, Phase::Started)], "one after the other");
    assert_eq!((bench.place(1), bench.place(2)), (Some(Place::Running), Some(Place::Waiting { ahead: 1 })));
    assert_eq!(bench.ran(&one), [publish(&one, Phase::Finished), run_it(&two)]);
    assert_eq!((bench.place(1), bench.machine.in_hand()), (Some(Place::Done), (1, 1)));
    let ended = bench.run(Event::Acknowledge { task: one.task });
    assert_eq!(ended, [drop_it(&one), publish(&one, Phase::Acknowledged)]);
    assert_eq!(bench.run(Event::Acknowledge { task: one.task }), []);
    assert!(!bench.machine.is_idle());
    bench.ran(&two);
    bench.run(Event::Acknowledge { task: two.task });
    assert!(bench.machine.is_idle());
}

#[test]
fn those_that_came_first_are_worked_on_first() {
    let mut bench = Bench::new(2, means(1, 4));
    let all: Vec<TaskRecord> = [5, 3, 4, 1].into_iter().map(|n| record(n, rank(1, 1), 0)).collect();
    all.iter().for_each(|record| assert_eq!(bench.reserve(record).0, Verdict::Taken));
    all.iter().for_each(|record| drop(bench.received(record)));
    assert_eq!(bench.place(1), Some(Place::Waiting { ahead: 3 }));
    for pair in all.windows(2) {
        assert!(bench.ran(&pair[0]).contains(&run_it(&pair[1])));
    }
}

#[test]
fn a_place_is_refused_in_so_many_words() {
    let known = record(1, rank(2, 2), 0);
    let mut bench = Bench::new(2, means(1, 0));
    bench.run(Event::Office { mine: None, greatest: Some(claim(2)) });
    bench.run(Event::Office { mine: None, greatest: None });
    assert_eq!(bench.reserve(&known).0, Verdict::Taken);
    let unknown = TaskRecord { kind: TaskKind("paint".into()), ..record(7, rank(2, 1), 0) };
    let insane = TaskRecord { payload_bytes: limits::TASK_PAYLOAD_BYTES_MAX + 1, ..record(7, rank(2, 1), 0) };
    for (asked, verdict) in [
        (record(7, rank(1, 9), 0), Verdict::Outdated),
        (record(1, rank(2, 1), 0), Verdict::Outdated),
        (TaskRecord { payload_bytes: 1, ..known.clone() }, Verdict::Taken),
        (in_phase(&record(7, rank(2, 1), 0), Phase::Started), Verdict::Outdated),
        (record(7, rank(2, 1), 1), Verdict::Outdated),
        (insane, Verdict::Outdated),
        (unknown, Verdict::UnknownKind),
        (record(7, rank(2, 1), 0), Verdict::Full),
    ] {
        assert_eq!(bench.reserve(&asked), (verdict, vec![]), "{asked:?}");
    }
    bench.run(Event::Leave);
    assert_eq!(bench.reserve(&record(7, rank(3, 1), 0)).0, Verdict::Leaving);
}

#[test]
fn an_ended_task_is_not_taken_again() {
    for phase in [Phase::Cancelled, Phase::Acknowledged] {
        let mut bench = Bench::new(2, means(1, 0));
        bench.hear(&in_phase(&record(1, rank(1, 1), 1), phase));
        assert_eq!(bench.reserve(&record(1, rank(9, 9), 0)).0, Verdict::Outdated);
    }
    let mut bench = Bench::new(2, means(1, 0));
    bench.hear(&in_phase(&record(1, rank(1, 1), 1), Phase::Abandoned));
    assert_eq!(bench.reserve(&record(1, rank(1, 2), 0)).0, Verdict::Taken, "its client was only slow");
}

#[test]
fn places_and_bytes_are_bounded() {
    let mut bench = Bench::new(2, means(2, 1));
    let verdicts: Vec<Verdict> =
        (1..=4).map(|number| bench.reserve(&record(number, rank(1, 1), 0)).0).collect();
    assert_eq!(verdicts, [Verdict::Taken, Verdict::Taken, Verdict::Taken, Verdict::Full]);
    // Answers that wait to be taken cost memory only, up to as many as there are places.
    for number in 1.. {
        let this = record(number, rank(1, 1), 0);
        if bench.reserve(&this).0 != Verdict::Taken {
            assert_eq!(number, 7, "twice three are kept");
            break;
        }
        bench.received(&this);
        bench.ran(&this);
    }
    let big = |number| TaskRecord {
        payload_bytes: limits::TASK_PAYLOAD_BYTES_MAX,
        ..record(number, rank(1, 1), 0)
    };
    let mut bench = Bench::new(2, means(2, 8));
    assert_eq!(bench.reserve(&big(1)).0, Verdict::Taken);
    assert_eq!(bench.reserve(&big(2)).0, Verdict::Taken);
    assert_eq!(bench.reserve(&record(3, rank(1, 1), 0)).0, Verdict::Full, "512 MiB are held");
    assert_eq!(Bench::new(2, means(0, 4)).reserve(&record(1, rank(1, 1), 0)).0, Verdict::Full);
}

#[test]
fn what_cannot_be_stopped_keeps_its_slot_and_its_bytes() {
    let big = |number, rank| TaskRecord { payload_bytes: 256 << 20, ..record(number, rank, 0) };
    let mut bench = Bench::new(2, means(1, 1));
    let first = big(1, rank(1, 1));
    bench.reserve(&first);
    bench.received(&first);
    let elsewhere = record(1, rank(1, 2), 1);
    assert_eq!(bench.hear(&elsewhere), [drop_it(&first)]);
    assert_eq!((bench.place(1), bench.machine.in_hand()), (None, (1, 1)));
    assert!(!bench.machine.is_idle());
    // Its slot is taken, and its bytes are held, also by the task itself when it comes back.
    assert_eq!(bench.reserve(&big(2, rank(1, 1))).0, Verdict::Taken);
    assert_eq!(bench.reserve(&record(3, rank(1, 1), 0)).0, Verdict::Full);
    let back = big(1, rank(1, 3));
    assert_eq!(bench.reserve(&back).0, Verdict::Full);
    assert_eq!(bench.ran(&first), [], "nobody wants that answer");
    assert_eq!(bench.reserve(&back), (Verdict::Taken, vec![Action::Expect { record: back.clone() }]));
    bench.received(&back);
    assert_eq!(bench.reserve(&big(1, rank(1, 4))).0, Verdict::Full, "the third of 256 MiB");
    assert_eq!(bench.place(1), Some(Place::Running));
}

#[test]
fn a_late_answer_of_an_earlier_assignment_counts_for_nothing() {
    let mut bench = Bench::new(2, means(2, 0));
    let (first, second) = (record(1, rank(1, 1), 0), record(1, rank(1, 2), 0));
    bench.reserve(&first);
    bench.received(&first);
    assert_eq!(bench.reserve(&second), (Verdict::Taken, vec![Action::Expect { record: second.clone() }]));
    assert_eq!(bench.received(&first), [], "that picture was forgotten");
    bench.received(&second);
    assert_eq!(bench.ran(&first), []);
    assert_eq!(bench.place(1), Some(Place::Running));
    assert_eq!(bench.ran(&second), [publish(&second, Phase::Finished)]);
}

#[test]
fn places_are_free_again() {
    type Freeing = fn(&mut Bench) -> Vec<Action>;
    let cases: [(&str, Phase, Freeing); 4] = [
        ("cancelled", Phase::Cancelled, |bench| bench.run(Event::Cancel { task: task(1) })),
        ("acknowledged", Phase::Acknowledged, |bench| bench.run(Event::Acknowledge { task: task(1) })),
        ("heard", Phase::Cancelled, |bench| {
            bench.hear(&in_phase(&record(1, rank(1, 1), 0), Phase::Cancelled))
        }),
        ("silent", Phase::Abandoned, |bench| bench.wait(limits::TASK_CLIENT_SILENCE.0)),
    ];
    for (name, phase, freeing) in cases {
        for is_received in [false, true] {
            let mut bench = Bench::new(2, means(1, 0));
            let this = record(1, rank(1, 1), 0);
            bench.reserve(&this);
            if is_received {
                bench.received(&this);
                bench.ran(&this);
            }
            assert_eq!(bench.reserve(&record(2, rank(1, 1), 0)).0 == Verdict::Taken, is_received);
            let actions = freeing(&mut bench);
            assert!(actions.contains(&drop_it(&this)), "{name}: {actions:?}");
            assert_eq!((bench.phase(1), bench.place(1)), (Some(phase), None), "{name}");
        }
    }
}

#[test]
fn an_answer_that_waits_to_be_taken_holds_as_much_memory_as_it_is_long() {
    let most = limits::TASK_PAYLOADS_BYTES_MAX;
    for (answer_bytes, verdict) in
        [(0, Verdict::Taken), (most - 8, Verdict::Taken), (most - 7, Verdict::Full)]
    {
        let mut bench = Bench::new(2, means(2, 2));
        let this = TaskRecord { payload_bytes: most / 2, ..record(1, rank(1, 1), 0) };
        bench.reserve(&this);
        bench.received(&this);
        bench.ran_with(&this, answer_bytes);
        let next = TaskRecord { payload_bytes: 8, ..record(2, rank(1, 1), 0) };
        assert_eq!(bench.reserve(&next).0, verdict, "{answer_bytes}");
    }
}

#[test]
fn a_client_that_asks_is_there_and_another_is_given_up_whatever_is_done_for_it() {
    let mut bench = Bench::new(2, means(1, 2));
    let [asks, sends, works, is_gone] = [1, 2, 3, 4].map(|number| record(number, rank(1, 1), 0));
    bench.reserve(&works);
    bench.received(&works);
    bench.reserve(&asks);
    bench.reserve(&sends);
    assert_eq!(bench.reserve(&is_gone).0, Verdict::Full);
    for round in 0..4 {
        let given_up = bench.wait(limits::TASK_CLIENT_SILENCE.0 - 1000);
        let silent = [publish(&works, Phase::Abandoned), drop_it(&works)];
        assert_eq!(given_up, if round == 1 { &silent[..] } else { &[] }, "round {round}");
        let poll = bench.run(Event::Poll { call: CallId(7), task: asks.task });
        let standing = Standing { record: Some(asks.clone()), place: Some(Place::Receiving) };
        assert_eq!(poll, [Action::Answer { call: CallId(7), answer: Answer::Standing(standing) }]);
        assert_eq!(bench.run(Event::Sign { task: sends.task }), []);
    }
    assert_eq!(bench.ran(&works), [], "nobody waits for it");
}

#[test]
fn a_poll_is_answered_when_the_task_has_got_further_or_after_a_while() {
    let mut bench = Bench::new(2, means(1, 2));
    let [first, second] = [1, 2].map(|number| record(number, rank(1, 1), 0));
    for record in [&first, &second] {
        bench.reserve(record);
        bench.received(record);
    }
    let poll = |call: u64, of: &TaskRecord| Event::Poll { call: CallId(call), task: of.task };
    let places = |actions: &[Action]| -> Vec<(u64, Option<Place>)> {
        let answers = actions.iter().filter_map(|action| match action {
            Action::Answer { call, answer: Answer::Standing(standing) } => Some((call.0, standing.place)),
            _ => None,
        });
        answers.collect()
    };
    assert_eq!(bench.run(poll(1, &first)), []);
    assert_eq!(bench.run(poll(2, &second)), []);
    let again = bench.run(poll(3, &second));
    assert_eq!(places(&again), [(2, Some(Place::Waiting { ahead: 1 }))], "nobody listens to the earlier one");
    let ran = bench.ran(&first);
    assert_eq!(places(&ran), [(1, Some(Place::Done)), (3, Some(Place::Running))]);
    assert_eq!(places(&bench.run(poll(4, &first))), [(4, Some(Place::Done))], "there is nothing to wait for");
    bench.run(poll(5, &second));
    assert_eq!(bench.hold(limits::TASK_POLL_HOLD.0 - 1), []);
    assert_eq!(places(&bench.hold(1)), [(5, Some(Place::Running))]);
    bench.run(poll(6, &second));
    let cancelled = bench.run(Event::Cancel { task: second.task });
    assert_eq!(places(&cancelled), [(6, None)]);
}

#[test]
fn who_leaves_gives_back_what_has_not_begun() {
    let mut bench = Bench::new(2, means(1, 3));
    let all = [1, 2, 3, 4].map(|number| record(number, rank(1, 1), 0));
    all.iter().for_each(|record| drop(bench.reserve(record)));
    all[..3].iter().for_each(|record| drop(bench.received(record)));
    bench.ran(&all[0]);
    let expected =
        [publish(&all[2], Phase::Lost), drop_it(&all[2]), publish(&all[3], Phase::Lost), drop_it(&all[3])];
    assert_eq!(bench.run(Event::Leave), expected);
    assert_eq!(bench.run(Event::Leave), []);
    assert_eq!(bench.reserve(&record(9, rank(1, 1), 0)).0, Verdict::Leaving);
    assert_eq!((bench.place(1), bench.place(2)), (Some(Place::Done), Some(Place::Running)));
    bench.ran(&all[1]);
    bench.run(Event::Acknowledge { task: all[0].task });
    assert!(!bench.machine.is_idle());
    bench.run(Event::Acknowledge { task: all[1].task });
    assert!(bench.machine.is_idle());
}

#[test]
fn a_restarted_worker_says_that_it_has_lost_what_it_had() {
    let mut bench = Bench::new(2, means(1, 0));
    for phase in [Phase::Assigned, Phase::Started, Phase::Finished] {
        let this = record(phase as u64, rank(1, 1), 0);
        assert_eq!(bench.hear(&in_phase(&this, phase)), [publish(&this, Phase::Lost)]);
        assert_eq!(bench.hear(&in_phase(&this, phase)), [], "once");
    }
    for phase in [Phase::Lost, Phase::Abandoned, Phase::Cancelled, Phase::Acknowledged] {
        assert_eq!(bench.hear(&in_phase(&record(7 + phase as u64, rank(1, 1), 0), phase)), []);
    }
    assert_eq!(bench.hear(&record(99, rank(1, 1), 1)), [], "another's");
    let own = record(100, rank(1, 1), 0);
    bench.reserve(&own);
    assert_eq!(bench.hear(&in_phase(&own, Phase::Started)), [], "it has that one");
}

// ---- what is known ----

#[test]
fn records_replace_each_other_upwards_in_whatever_order_they_are_heard() {
    let phases = [Phase::Assigned, Phase::Started, Phase::Finished, Phase::Lost, Phase::Cancelled];
    let all: Vec<TaskRecord> = (1..3)
        .flat_map(|attempt| phases.map(|phase| in_phase(&record(1, rank(1, attempt), 1), phase)))
        .collect();
    let mut dice = crate::proto::testing::Dice::new(5);
    let greatest = all.iter().max_by_key(|record| record.precedence()).cloned();
    for _ in 0..50 {
        let mut bench = Bench::new(2, means(1, 0));
        let mut rest = all.clone();
        while !rest.is_empty() {
            let next = rest.remove(dice.below(rest.len() as u64) as usize);
            let before = bench.machine.standing(&next.task).record.map(|record| record.precedence());
            bench.hear(&next);
            let after = bench.machine.standing(&next.task).record.map(|record| record.precedence());
            assert_eq!(after, before.max(Some(next.precedence())));
        }
        assert_eq!(bench.machine.standing(&task(1)).record, greatest);
    }
}

#[test]
fn what_no_node_can_have_said_is_not_believed() {
    let mut bench = Bench::new(2, means(1, 0));
    for bad in [
        record(1, rank(0, 1), 1),
        record(1, rank(1, u64::MAX), 1),
        record(1, rank(1, 1), 2),
        TaskRecord { kind: TaskKind("../etc".into()), ..record(1, rank(1, 1), 1) },
    ] {
        assert_eq!(bench.hear(&bad), []);
        assert_eq!(bench.phase(1), None, "{bad:?}");
    }
}

#[test]
fn two_that_know_the_same_have_the_same_digest() {
    let (mut one, mut other) = (Bench::new(3, means(1, 0)), Bench::new(3, means(1, 0)));
    let all = [1, 2, 3].map(|number| record(number, rank(1, 1), 1));
    let empty = one.machine.digest();
    all.iter().for_each(|record| drop(one.hear(record)));
    all.iter().rev().for_each(|record| drop(other.hear(record)));
    assert_eq!(one.machine.digest(), other.machine.digest());
    assert_ne!(one.machine.digest(), empty);
    one.hear(&in_phase(&all[0], Phase::Started));
    assert_ne!(one.machine.digest(), other.machine.digest());
    // Of what has ended nothing is left in it, so that forgetting changes nothing.
    for record in &all {
        one.hear(&in_phase(record, Phase::Acknowledged));
        other.hear(&in_phase(record, Phase::Cancelled));
    }
    assert_eq!((one.machine.digest(), other.machine.digest()), (empty, empty));
}

#[test]
fn an_exchange_goes_through_all_pages_and_makes_two_know_the_same() {
    let mut one = Bench::new(3, means(1, 0));
    for number in 0..1000 {
        one.hear(&record(number, rank(1, 1), 1));
    }
    one.hear(&in_phase(&record(7, rank(1, 1), 1), Phase::Acknowledged));
    let mut other = Bench::new(3, means(1, 0));
    other.hear(&record(7, rank(1, 1), 1));
    let (mut after, mut pages) = (None, 0);
    loop {
        let (page, next) = one.machine.page(after);
        assert!(page.len() <= limits::TASK_PAGE_RECORDS_MAX);
        page.iter().for_each(|record| drop(other.hear(record)));
        pages += 1;
        let Some(next) = next else { break };
        after = Some(next);
    }
    assert_eq!((pages, other.phase(7)), (3, Some(Phase::Acknowledged)));
    assert_eq!(one.machine.digest(), other.machine.digest());
}

#[test]
fn one_asks_a_member_that_knows_something_else_every_now_and_then() {
    let mut bench = Bench::new(3, means(1, 0));
    let differs = |bench: &mut Bench, n: usize| bench.run(Event::Differs { peer: peers(16)[n] });
    let members = peers(3);
    let differs_of = |bench: &mut Bench, n: usize| bench.run(Event::Differs { peer: members[n] });
    assert_eq!(differs_of(&mut bench, 1), [Action::Exchange { with: members[1] }]);
    assert_eq!(differs_of(&mut bench, 2), [Action::Exchange { with: members[2] }]);
    assert_eq!(differs_of(&mut bench, 1), [], "it has asked just now");
    assert_eq!(differs_of(&mut bench, 0), [], "itself");
    let stranger = (0..16).find(|n| !members.contains(&peers(16)[*n])).expect("there are more");
    assert_eq!(differs(&mut bench, stranger), [], "a stranger");
    bench.wait(limits::TASK_EXCHANGE_EVERY.0);
    assert_eq!(differs_of(&mut bench, 1), [Action::Exchange { with: members[1] }]);
}

#[test]
fn what_ended_is_forgotten_after_a_while_and_makes_room_before() {
    let mut bench = Bench::new(2, means(1, 0));
    bench.hear(&in_phase(&record(1, rank(1, 1), 1), Phase::Cancelled));
    bench.hear(&record(2, rank(1, 1), 1));
    bench.wait(limits::TASK_KEPT.0 - 1);
    assert_eq!(bench.phase(1), Some(Phase::Cancelled));
    bench.wait(limits::TASK_TICK.0);
    assert_eq!((bench.phase(1), bench.phase(2)), (None, Some(Phase::Assigned)));
    bench.hear(&in_phase(&record(1, rank(1, 1), 1), Phase::Cancelled));
    for number in 3..limits::TASKS_KNOWN_MAX as u64 + 5 {
        bench.hear(&record(number, rank(1, 1), 1));
    }
    assert_eq!((bench.phase(1), bench.phase(2)), (None, Some(Phase::Assigned)));
    let mut after = None;
    let mut known = 0;
    loop {
        let (page, next) = bench.machine.page(after);
        known += page.len();
        let Some(next) = next else { break };
        after = Some(next);
    }
    assert_eq!(known, limits::TASKS_KNOWN_MAX);
    assert_eq!(bench.reserve(&record(1 << 40, rank(1, 1), 0)).0, Verdict::Full, "no room in the book");
    assert!(bench.machine.is_idle(), "so no place was taken");
}
