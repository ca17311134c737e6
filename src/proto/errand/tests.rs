//! Each rule of an errand by itself: what it asks, what it does with an answer, when it moves, how it ends.

use super::*;
use crate::{
    model::{
        member::{Epoch, NodeNumber},
        task::{Claim, TaskKind},
    },
    proto::testing::{founding, peers},
};

struct Bench {
    errand: Errand,
    nodes: Vec<PeerId>,
    now: u64,
    /// When the machine wants to be woken.
    wake: Option<u64>,
}

fn task() -> TaskId {
    TaskId { client: peers(16)[15], number: 1 }
}

fn rank(counter: u64, attempt: u64) -> Rank {
    Rank { claim: Claim { epoch: Epoch::FOUNDING, counter, node: NodeNumber(0) }, attempt }
}

fn record(rank: Rank, worker: u16, phase: Phase) -> TaskRecord {
    let kind = TaskKind("hide".into());
    TaskRecord { task: task(), kind, payload_bytes: 1000, rank, worker: NodeNumber(worker), phase }
}

fn assigned(rank: Rank, worker: u16) -> Reply {
    Reply::Submitted(Submitted::Assigned(record(rank, worker, Phase::Assigned)))
}

fn standing(rank: Rank, worker: u16, place: Place) -> Reply {
    let record = Some(record(rank, worker, Phase::Started));
    Reply::Standing(Standing { record, place: Some(place) })
}

impl Bench {
    /// Three nodes, none asked yet.
    fn new() -> Self {
        Self::giving_up_at(None)
    }

    fn giving_up_at(give_up_at: Option<Millis>) -> Self {
        let errand = Errand::new(Config { task: task(), founding: founding(3), give_up_at });
        Self { errand, nodes: peers(3), now: 0, wake: None }
    }

    /// All that it wants done; what it says for people only where that is asked for.
    fn run(&mut self, event: Event) -> Vec<Action> {
        let all = self.run_aloud(event);
        all.into_iter().filter(|action| !matches!(action, Action::Publicise(_))).collect()
    }

    fn run_aloud(&mut self, event: Event) -> Vec<Action> {
        let mut out = Outbox::new();
        self.errand.handle(Millis(self.now), event, &mut out);
        let mut all = Vec::new();
        for action in out.drain() {
            match action {
                Action::Arm { at, .. } => self.wake = Some(at.0),
                other => all.push(other),
            }
        }
        all
    }

    fn says(actions: &[Action]) -> Vec<Waiting> {
        let says = actions.iter().filter_map(|action| match action {
            Action::Publicise(waiting) => Some(waiting.clone()),
            _ => None,
        });
        says.collect()
    }

    fn start(&mut self) -> Vec<Action> {
        assert_eq!(self.run(Event::Start), []);
        self.run(Event::Nodes(self.nodes.clone()))
    }

    fn answer(&mut self, from: usize, reply: impl Into<Option<Reply>>) -> Vec<Action> {
        self.run(Event::Answered { from: self.nodes[from], reply: reply.into() })
    }

    fn gave(&mut self, rank: Rank, end: End) -> Vec<Action> {
        self.run(Event::Gave { rank, end })
    }

    fn took(&mut self, rank: Rank, end: End) -> Vec<Action> {
        self.run(Event::Took { rank, end })
    }

    /// Waits until the machine wants to go on; how long that was.
    fn woken(&mut self) -> (u64, Vec<Action>) {
        let at = self.wake.take().expect("it wants to be woken");
        assert!(at >= self.now, "a timer in the past");
        let waited = at - self.now;
        self.now = at;
        (waited, self.run(Event::Timer(Timer::Wake)))
    }

    fn submit(&self, to: usize, above: Option<Rank>, avoid: &[usize]) -> Action {
        let avoid = avoid.iter().map(|n| self.nodes[*n]).collect();
        Action::Ask { to: self.nodes[to], question: Question::Submit { above, avoid } }
    }

    fn poll(&self, to: usize) -> Action {
        Action::Ask { to: self.nodes[to], question: Question::Poll }
    }

    fn give(&self, to: usize, rank: Rank) -> Action {
        Action::Give { worker: self.nodes[to], rank }
    }

    fn take(&self, from: usize, rank: Rank) -> Action {
        Action::Take { worker: self.nodes[from], rank }
    }

    fn tell(&self, to: usize, question: Question) -> Action {
        Action::Ask { to: self.nodes[to], question }
    }

    /// Node 0 is the coordinator, node 1 works: it has the picture, and was asked how far it is.
    fn polling() -> Self {
        let mut bench = Self::new();
        bench.start();
        bench.answer(0, assigned(rank(1, 1), 1));
        assert_eq!(bench.gave(rank(1, 1), End::Done), [bench.poll(1)]);
        bench
    }
}

// ---- the good way ----

#[test]
fn a_task_goes_its_way() {
    let mut bench = Bench::new();
    let first = rank(1, 1);
    assert_eq!(bench.start(), [bench.submit(0, None, &[])]);
    assert_eq!(bench.answer(0, assigned(first, 1)), [bench.give(1, first)]);
    assert_eq!(bench.errand.worker(), Some(bench.nodes[1]));
    assert_eq!(bench.gave(first, End::Done), [bench.poll(1)]);
    let mut pauses = Vec::new();
    for place in [Place::Waiting { ahead: 2 }, Place::Running, Place::Running, Place::Running, Place::Running]
    {
        assert_eq!(bench.answer(1, standing(first, 1, place)), []);
        let (pause, actions) = bench.woken();
        assert_eq!(actions, [bench.poll(1)]);
        pauses.push(pause);
    }
    assert_eq!(pauses, [30, 60, 120, 240, 250], "most take less than a second");
    assert_eq!(bench.answer(1, standing(first, 1, Place::Done)), [bench.take(1, first)]);
    let end = [
        Action::Effective { rank: first },
        bench.tell(1, Question::Acknowledge),
        bench.tell(0, Question::Acknowledge),
        Action::End(Verdict::Answered),
    ];
    assert_eq!(bench.took(first, End::Done), end);
    for late in [Event::Took { rank: first, end: End::Done }, Event::Cancel, Event::Timer(Timer::Wake)] {
        assert_eq!(bench.run(late), [], "it is over");
    }
}

#[test]
fn a_person_hears_what_it_waits_for_each_thing_once() {
    let mut bench = Bench::new();
    let node = |n: usize| peers(3)[n];
    let mut said = Vec::new();
    let mut say = |bench: &mut Bench, event: Event| said.extend(Bench::says(&bench.run_aloud(event)));
    say(&mut bench, Event::Start);
    say(&mut bench, Event::Nodes(peers(3)));
    let of = |from: usize, reply: Reply| Event::Answered { from: node(from), reply: Some(reply) };
    let nobody = || Reply::Submitted(Submitted::NotCoordinator { coordinator: None });
    (0..3).for_each(|n| say(&mut bench, of(n, nobody())));
    bench.woken();
    say(&mut bench, of(0, Reply::Submitted(Submitted::Busy { tasks: 4, places: 4 })));
    bench.woken();
    say(&mut bench, of(0, Reply::Submitted(Submitted::Busy { tasks: 4, places: 4 })));
    bench.woken();
    say(&mut bench, of(0, assigned(rank(1, 1), 1)));
    say(&mut bench, Event::Gave { rank: rank(1, 1), end: End::Done });
    for place in [Place::Waiting { ahead: 1 }, Place::Running, Place::Running] {
        say(&mut bench, of(1, standing(rank(1, 1), 1, place)));
        bench.woken();
    }
    say(&mut bench, of(1, standing(rank(1, 1), 1, Place::Done)));
    say(&mut bench, Event::Took { rank: rank(1, 1), end: End::Broke });
    let expected = [
        Waiting::NoNode,
        Waiting::NoCoordinator,
        Waiting::Busy { tasks: 4, places: 4 },
        Waiting::Giving(node(1)),
        Waiting::Queued { worker: node(1), ahead: 1 },
        Waiting::Working(node(1)),
        Waiting::Taking(node(1)),
        Waiting::Moving(node(1)),
    ];
    assert_eq!(said, expected);
}

// ---- who is the coordinator ----

#[test]
fn it_finds_the_coordinator() {
    let elsewhere = |n: usize| {
        let coordinator = Some(peers(3)[n]);
        Reply::Submitted(Submitted::NotCoordinator { coordinator })
    };
    let unknown = || Reply::Submitted(Submitted::NotCoordinator { coordinator: None });
    let mut bench = Bench::new();
    bench.start();
    assert_eq!(bench.answer(0, elsewhere(2)), [bench.submit(2, None, &[])]);
    assert_eq!(bench.answer(2, elsewhere(0)), [bench.submit(1, None, &[])], "it was asked");
    assert_eq!(bench.answer(1, unknown()), []);
    let (pause, actions) = bench.woken();
    assert_eq!((pause, actions), (200, vec![bench.submit(0, None, &[])]));
    assert_eq!(
        bench.answer(0, None),
        [bench.submit(1, None, &[])],
        "one that does not answer is passed over"
    );
    assert_eq!(bench.answer(2, assigned(rank(1, 1), 0)), [], "it was not asked");
    assert_eq!(bench.answer(1, assigned(rank(1, 1), 0)), [bench.give(0, rank(1, 1))]);
    // Later it asks the coordinator at once.
    assert_eq!(bench.gave(rank(1, 1), End::Broke), [bench.submit(1, Some(rank(1, 1)), &[0])]);
}

#[test]
fn without_nodes_it_waits_for_some() {
    let mut bench = Bench::new();
    assert_eq!(bench.run(Event::Start), []);
    assert_eq!(bench.woken(), (200, vec![]));
    assert_eq!(bench.run(Event::Nodes(bench.nodes.clone())), [bench.submit(0, None, &[])], "at once");
    assert_eq!(bench.answer(0, None), [bench.submit(1, None, &[])]);
    bench.run(Event::Nodes(vec![bench.nodes[2]]));
    assert_eq!(bench.answer(1, None), [bench.submit(2, None, &[])]);
    assert_eq!(bench.run(Event::Nodes(vec![])), []);
    assert_eq!(bench.answer(2, None), []);
}

#[test]
fn a_full_cluster_is_asked_again_as_soon_as_the_next_turn() {
    let mut bench = Bench::new();
    bench.start();
    let mut pauses = Vec::new();
    for _ in 0..6 {
        assert_eq!(bench.answer(0, Reply::Submitted(Submitted::Busy { tasks: 1, places: 1 })), []);
        let (pause, actions) = bench.woken();
        assert_eq!(actions, [bench.submit(0, None, &[])]);
        pauses.push(pause);
    }
    assert_eq!(pauses, [200, 400, 400, 400, 400, 400]);
    // One that has let it wait already is asked at once.
    bench.now += limits::TASK_LINE_HOLD.0;
    let busy = Reply::Submitted(Submitted::Busy { tasks: 1, places: 1 });
    assert_eq!(bench.answer(0, busy), [bench.submit(0, None, &[])]);
    assert_eq!(bench.answer(0, Reply::Submitted(Submitted::Again)), []);
    assert_eq!(bench.woken(), (100, vec![bench.submit(0, None, &[])]));
}

// ---- which assignment counts ----

#[test]
fn a_smaller_assignment_than_the_known_one_does_not_count() {
    let mut bench = Bench::new();
    bench.start();
    bench.answer(0, assigned(rank(2, 2), 1));
    assert_eq!(bench.gave(rank(2, 2), End::Broke), [bench.submit(0, Some(rank(2, 2)), &[1])]);
    assert_eq!(bench.answer(0, assigned(rank(2, 1), 2)), []);
    assert_eq!(bench.woken(), (100, vec![bench.submit(0, Some(rank(2, 2)), &[1])]));
    assert_eq!(bench.answer(0, assigned(rank(2, 3), 7)), [], "nobody has that number");
    bench.woken();
    assert_eq!(bench.answer(0, assigned(rank(2, 3), 2)), [bench.give(2, rank(2, 3))]);
}

#[test]
fn what_comes_of_an_earlier_assignment_is_ignored() {
    let mut bench = Bench::polling();
    let (first, second) = (rank(1, 1), rank(1, 2));
    // The worker itself knows of the greater one.
    assert_eq!(bench.answer(1, standing(second, 2, Place::Receiving)), [bench.give(2, second)]);
    for end in [End::Done, End::Refused, End::Broke] {
        assert_eq!(bench.gave(first, end), []);
        assert_eq!(bench.took(first, end), []);
        assert_eq!(bench.took(second, end), [], "nothing is being taken");
    }
    assert_eq!(bench.gave(second, End::Done), [bench.poll(2)]);
    assert_eq!(bench.gave(second, End::Broke), [], "nothing is being given");
    assert_eq!(bench.answer(2, standing(second, 2, Place::Done)), [bench.take(2, second)]);
    assert_eq!(bench.took(first, End::Done), [], "not the one that counts");
    assert_eq!(bench.took(second, End::Done)[0], Action::Effective { rank: second });
}

#[test]
fn what_a_worker_says_of_the_task() {
    let (first, second) = (rank(1, 1), rank(1, 2));
    let known = |rank, worker, phase| {
        Reply::Standing(Standing { record: Some(record(rank, worker, phase)), place: None })
    };
    let again: fn(&Bench) -> Vec<Action> = |bench| vec![bench.submit(0, Some(rank(1, 1)), &[1])];
    for (reply, expected) in [
        (Reply::Standing(Standing::default()), again),
        (known(first, 1, Phase::Lost), again),
        (known(first, 1, Phase::Abandoned), again),
        (known(rank(1, 0), 1, Phase::Assigned), again),
        (known(second, 2, Phase::Lost), again),
        (known(second, 9, Phase::Assigned), again),
        (known(second, 2, Phase::Assigned), |bench| vec![bench.give(2, rank(1, 2))]),
        (known(second, 2, Phase::Cancelled), |_| vec![Action::End(Verdict::Cancelled)]),
        (standing(first, 1, Place::Receiving), |bench| vec![bench.give(1, rank(1, 1))]),
    ] {
        let mut bench = Bench::polling();
        let expected = expected(&bench);
        assert_eq!(bench.answer(1, reply.clone()), expected, "{reply:?}");
    }
}

// ---- when it moves ----

#[test]
fn a_worker_that_does_not_answer_is_left_and_avoided() {
    let mut bench = Bench::polling();
    assert_eq!(bench.answer(1, None), []);
    assert_eq!(bench.woken(), (100, vec![bench.poll(1)]));
    assert_eq!(bench.answer(1, None), [bench.submit(0, Some(rank(1, 1)), &[1])]);
    // An answer in between forgives.
    let mut bench = Bench::polling();
    for _ in 0..5 {
        assert_eq!(bench.answer(1, None), []);
        bench.woken();
        assert_eq!(bench.answer(1, standing(rank(1, 1), 1, Place::Running)), []);
        bench.woken();
    }
}

#[test]
fn only_so_many_are_avoided_the_last_ones() {
    let mut bench = Bench::new();
    bench.errand = Errand::new(Config { task: task(), founding: founding(16), give_up_at: None });
    bench.nodes = peers(16);
    bench.start();
    let workers: Vec<u16> = (0..16).chain([3, 5]).collect();
    for (attempt, worker) in (1..).zip(workers) {
        bench.answer(0, assigned(rank(1, attempt), worker));
        let mut actions = bench.gave(rank(1, attempt), End::Broke);
        if actions.is_empty() {
            actions = bench.woken().1;
        }
        let Action::Ask { question: Question::Submit { above, avoid }, .. } = &actions[0] else {
            panic!("{actions:?}")
        };
        assert_eq!(*above, Some(rank(1, attempt)));
        assert!(avoid.len() <= limits::TASK_AVOID_MAX && avoid.last() == Some(&bench.nodes[worker as usize]));
        assert_eq!(avoid.iter().collect::<BTreeSet<_>>().len(), avoid.len(), "each once");
    }
}

#[test]
fn the_first_move_is_at_once_and_each_next_waits_longer() {
    let mut bench = Bench::new();
    bench.start();
    let mut pauses = Vec::new();
    for attempt in 1..9 {
        bench.answer(0, assigned(rank(1, attempt), 1));
        let actions = bench.gave(rank(1, attempt), End::Broke);
        pauses.push(if actions.is_empty() { bench.woken().0 } else { 0 });
    }
    assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 2000, 2000]);
    bench.now += 10_000;
    bench.answer(0, assigned(rank(2, 1), 1));
    assert_eq!(bench.gave(rank(2, 1), End::Broke).len(), 1, "that was long ago");
}

#[test]
fn a_worker_that_only_refuses_is_not_asked_for_ever() {
    type Refusing = fn(&mut Bench) -> Vec<Action>;
    let gives: Refusing = |bench| {
        let actions = bench.answer(1, standing(rank(1, 1), 1, Place::Receiving));
        if actions != [bench.give(1, rank(1, 1))] { actions } else { bench.gave(rank(1, 1), End::Refused) }
    };
    let gives_all: Refusing = |bench| {
        let actions = bench.answer(1, standing(rank(1, 1), 1, Place::Receiving));
        if actions != [bench.give(1, rank(1, 1))] { actions } else { bench.gave(rank(1, 1), End::Done) }
    };
    let takes: Refusing = |bench| {
        assert_eq!(bench.answer(1, standing(rank(1, 1), 1, Place::Done)), [bench.take(1, rank(1, 1))]);
        bench.took(rank(1, 1), End::Refused)
    };
    for refusing in [gives, gives_all, takes] {
        let mut bench = Bench::polling();
        let (mut rounds, began) = (0, bench.now);
        loop {
            let actions = refusing(&mut bench);
            rounds += 1;
            match &actions[..] {
                [] => assert_eq!(bench.woken(), (100, vec![bench.poll(1)])),
                other => {
                    assert_eq!(other, [bench.submit(0, Some(rank(1, 1)), &[1])]);
                    break;
                }
            }
        }
        assert_eq!((rounds, bench.now - began), (9, 800));
    }
}

#[test]
fn what_was_refused_because_it_is_there_already_is_asked_for_at_once() {
    let mut bench = Bench::new();
    bench.start();
    bench.answer(0, assigned(rank(1, 1), 1));
    assert_eq!(bench.gave(rank(1, 1), End::Refused), [bench.poll(1)]);
    assert_eq!(bench.answer(1, standing(rank(1, 1), 1, Place::Done)), [bench.take(1, rank(1, 1))]);
}

// ---- how it ends ----

#[test]
fn whoever_may_have_it_in_hand_hears_that_nobody_wants_it() {
    let end = Action::End(Verdict::Cancelled);
    let mut bench = Bench::new();
    bench.run(Event::Start);
    assert_eq!(bench.run(Event::Cancel), std::slice::from_ref(&end), "nobody was asked");
    let mut bench = Bench::new();
    bench.start();
    let cancel = |bench: &Bench, n: usize| bench.tell(n, Question::Cancel);
    let all = |bench: &Bench, order: [usize; 3]| {
        order.map(|n| cancel(bench, n)).into_iter().chain([end.clone()]).collect::<Vec<_>>()
    };
    assert_eq!(bench.run(Event::Cancel), all(&bench, [0, 1, 2]), "any may be seeking a place");
    let mut bench = Bench::new();
    bench.start();
    bench.answer(0, Reply::Submitted(Submitted::Busy { tasks: 1, places: 1 }));
    assert_eq!(bench.run(Event::Cancel), all(&bench, [0, 1, 2]), "it may only have passed it on");
    let mut bench = Bench::polling();
    assert_eq!(bench.run(Event::Cancel), all(&bench, [1, 0, 2]), "the worker first");
}

#[test]
fn it_gives_up_when_it_was_told_to_whatever_it_is_doing() {
    let stages: [fn(&mut Bench); 4] = [
        |bench| drop(bench.start()),
        |bench| {
            bench.start();
            bench.answer(0, Reply::Submitted(Submitted::Busy { tasks: 1, places: 1 }));
        },
        |bench| {
            bench.start();
            bench.answer(0, assigned(rank(1, 1), 1));
        },
        |bench| {
            bench.start();
            bench.answer(0, assigned(rank(1, 1), 1));
            bench.gave(rank(1, 1), End::Done);
            bench.answer(1, standing(rank(1, 1), 1, Place::Done));
        },
    ];
    for stage in stages {
        let mut bench = Bench::giving_up_at(Some(Millis(150)));
        stage(&mut bench);
        let (waited, actions) = bench.woken();
        assert_eq!((waited, actions.last()), (150, Some(&Action::End(Verdict::TimedOut))));
        assert!(!actions.iter().any(|action| matches!(action, Action::Effective { .. })));
        assert_eq!(bench.took(rank(1, 1), End::Done), [], "too late");
    }
}

#[test]
fn other_ends() {
    for (submitted, verdict) in [
        (Submitted::Closed(Phase::Cancelled), Verdict::Cancelled),
        (Submitted::Closed(Phase::Acknowledged), Verdict::Cancelled),
        (Submitted::Closed(Phase::Abandoned), Verdict::Cancelled),
        (Submitted::UnknownKind, Verdict::UnknownKind),
    ] {
        let mut bench = Bench::new();
        bench.start();
        let actions = bench.answer(0, Reply::Submitted(submitted));
        assert_eq!(actions.last(), Some(&Action::End(verdict)));
    }
    // The kind was known to one that is gone: nobody shall seek another any more.
    let mut bench = Bench::polling();
    bench.answer(1, Reply::Standing(Standing::default()));
    let actions = bench.answer(0, Reply::Submitted(Submitted::UnknownKind));
    let told = [1, 0, 2].map(|n| bench.tell(n, Question::Cancel));
    assert_eq!(actions, [&told[..], &[Action::End(Verdict::UnknownKind)]].concat());
}
