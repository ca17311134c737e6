//! Each step of a handover by itself: a state, an event, the actions that must follow.

use super::*;
use crate::{
    model::limits,
    proto::{
        placement::SlotKeepers,
        testing::{founding, register},
    },
};

const OLD: Epoch = Epoch::FOUNDING;
const NEW: Epoch = Epoch(2);
const ROUND: RoundId = RoundId { boot: 9, number: 1 };

/// One of four nodes, and an object of a slot that is handed over: of its acceptors the first goes and the
/// fourth node comes. The installer is the second acceptor.
struct Bench {
    machine: ChunkPaxos,
    me: PeerId,
    object: ObjectId,
    old: Vec<PeerId>,
    new: SlotKeepers,
    now: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Leaving,
    Installer,
    Staying,
    Coming,
}

impl Bench {
    fn new(place: Place, fences: BTreeMap<HashSlot, Epoch>) -> Self {
        let object = ObjectId([42; 32]);
        let founding = founding(4);
        let members: Vec<Weighted> = founding.members.iter().map(Weighted::from).collect();
        let old = placement::keepers(OLD, &members, HashSlot(42)).acceptors;
        let fourth = members.iter().map(|m| m.peer).find(|peer| !old.contains(peer)).expect("of four");
        let new = SlotKeepers { acceptors: vec![old[1], old[2], fourth], mirror: None };
        let me = match place {
            Place::Leaving => old[0],
            Place::Installer => old[1],
            Place::Staying => old[2],
            Place::Coming => fourth,
        };
        let (seed, variant) = ([3; 32], Variant::Right);
        let machine = ChunkPaxos::new(Config { me, founding, epoch: OLD, boot: 9, fences, seed, variant });
        Self { machine, me, object, old, new, now: 0 }
    }

    /// All but timers.
    fn run(&mut self, event: Event) -> Vec<Action> {
        let mut out = Outbox::new();
        self.now += 1;
        self.machine.handle(Millis(self.now), event, &mut out);
        out.drain().filter(|action| !matches!(action, Action::Arm { .. })).collect()
    }

    fn order(&mut self, attempt: u64, boot: u64) -> Vec<Action> {
        let (slot, to, installer, keepers) = (HashSlot(42), NEW, self.old[1], self.new.clone());
        self.run(Event::Order(Order::Handover { slot, to, attempt, installer, boot, keepers }))
    }

    fn activate(&mut self, attempt: u64) -> Vec<Action> {
        self.run(Event::Order(Order::Activate { slot: HashSlot(42), to: NEW, attempt }))
    }

    fn hear(&mut self, from: PeerId, epoch: Epoch, body: Body) -> Vec<Action> {
        self.hear_in(from, epoch, ROUND, body)
    }

    fn hear_in(&mut self, from: PeerId, epoch: Epoch, round: RoundId, body: Body) -> Vec<Action> {
        let message = Message { epoch, object: self.object, round, body };
        self.run(Event::Message { from, message })
    }

    /// What the durable action sends to this node comes back.
    fn durable(&mut self, action: &Action) -> (Vec<Action>, Vec<Send>) {
        let (Action::Write { then, .. } | Action::WriteFence { then, .. }) = action else {
            panic!("not a write: {action:?}")
        };
        let (own, others) = then.iter().cloned().partition::<Vec<_>, _>(|send| send.to == self.me);
        let mut follows = Vec::new();
        for send in own {
            follows.extend(self.run(Event::Message { from: self.me, message: send.message }));
        }
        (follows, others)
    }

    fn ballot(&self, epoch: Epoch, counter: u64, peer: PeerId) -> Ballot {
        let node = founding(4).number_of(&peer).expect("a member");
        Ballot { epoch, counter, node, boot: 9 }
    }

    fn value(&self) -> VerifiedRegister {
        register(self.object, None, 1)
    }

    fn install(&self, attempt: u64) -> Body {
        Body::Install { attempt, ballot: self.ballot(NEW, attempt, self.old[1]), value: self.value() }
    }

    fn ignores(&mut self, from: PeerId, epoch: Epoch, body: Body) {
        let before = self.machine.counters().ignored;
        let said = format!("{body:?}");
        assert_eq!(self.hear(from, epoch, body), [], "{said}");
        assert_eq!(self.machine.counters().ignored, before + 1, "{said}");
    }
}

fn sends(actions: &[Action]) -> Vec<(PeerId, RoundId, Body)> {
    let send = |action: &Action| match action {
        Action::Send(send) => Some((send.to, send.message.round, send.message.body.clone())),
        _ => None,
    };
    actions.iter().filter_map(send).collect()
}

#[test]
fn a_fence_holds_at_once_and_is_said_once_it_is_durable() {
    let mut bench = Bench::new(Place::Staying, BTreeMap::new());
    let (installer, home) = (bench.old[1], bench.old[0]);
    let slot = HashSlot(42);
    bench.ignores(installer, NEW, Body::Fence { attempt: 1 });
    bench.order(1, 9);
    bench.ignores(home, NEW, Body::Fence { attempt: 1 });
    bench.ignores(installer, NEW, Body::Fence { attempt: 2 });
    bench.ignores(installer, OLD, Body::Fence { attempt: 1 });
    let actions = bench.hear(installer, NEW, Body::Fence { attempt: 1 });
    let [write @ Action::WriteFence { slot: HashSlot(42), to: NEW, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    let prepare = Body::Prepare { ballot: bench.ballot(OLD, 5, home) };
    bench.ignores(home, OLD, prepare.clone());
    bench.ignores(home, OLD, Body::Query);
    assert_eq!(bench.hear(installer, NEW, Body::Fence { attempt: 1 }), [], "it is on its way to disk");
    bench.ignores(installer, NEW, Body::List { attempt: 1, after: None });
    let (follows, said) = bench.durable(write);
    assert!(follows.is_empty());
    assert_eq!((said[0].to, &said[0].message.body), (installer, &Body::Fenced));
    let again = bench.hear(installer, NEW, Body::Fence { attempt: 1 });
    assert_eq!(sends(&again), [(installer, ROUND, Body::Fenced)]);

    let mut restarted = Bench::new(Place::Staying, [(slot, NEW)].into());
    restarted.ignores(home, OLD, prepare);
    restarted.ignores(home, OLD, Body::Query);
    restarted.order(1, 9);
    let again = restarted.hear(installer, NEW, Body::Fence { attempt: 1 });
    assert_eq!(sends(&again), [(installer, ROUND, Body::Fenced)]);
}

#[test]
fn a_fence_that_was_refused_holds_and_is_written_when_asked_for_again() {
    let mut bench = Bench::new(Place::Staying, BTreeMap::new());
    let (installer, home) = (bench.old[1], bench.old[0]);
    bench.order(1, 9);
    bench.hear(installer, NEW, Body::Fence { attempt: 1 });
    assert_eq!(bench.run(Event::FenceRefused { slot: HashSlot(42) }), []);
    bench.ignores(home, OLD, Body::Query);
    let again = bench.hear(installer, NEW, Body::Fence { attempt: 1 });
    assert!(matches!(again[..], [Action::WriteFence { .. }]), "{again:?}");
}

#[test]
fn what_waited_for_the_disk_when_the_fence_came_is_not_answered() {
    let mut bench = Bench::new(Place::Staying, BTreeMap::new());
    let (installer, home, object) = (bench.old[1], bench.old[0], bench.object);
    bench.order(1, 9);
    assert_eq!(bench.hear(home, OLD, Body::Query), [Action::Load { object }]);
    bench.hear(installer, NEW, Body::Fence { attempt: 1 });
    assert_eq!(bench.run(Event::Loaded { object, record: None }), []);
}

#[test]
fn a_fenced_acceptor_lists_pages_and_tells_what_it_accepted() {
    let mut bench = Bench::new(Place::Leaving, [(HashSlot(42), NEW)].into());
    let (installer, object) = (bench.old[1], bench.object);
    bench.order(1, 9);
    let (slot, after) = (HashSlot(42), None);
    let list = Body::List { attempt: 1, after };
    assert_eq!(bench.hear(installer, NEW, list.clone()), [Action::Scan { slot, after }]);
    assert_eq!(bench.hear(installer, NEW, list.clone()), [], "it is being read");
    let page = |objects, more| Event::Scanned { slot, after, page: Some(SlotPage { objects, more }) };
    let many = vec![object; limits::HANDOVER_PAGE_OBJECTS_MAX + 1];
    let listed = Body::Listed { objects: many[1..].to_vec(), more: true };
    assert_eq!(sends(&bench.run(page(many, false))), [(installer, ROUND, listed)]);
    assert_eq!(bench.run(page(Vec::new(), false)), [], "nobody waits for it");
    bench.hear(installer, NEW, list.clone());
    assert_eq!(bench.run(Event::Scanned { slot, after, page: None }), []);
    assert_eq!(bench.hear(installer, NEW, list), [Action::Scan { slot, after }]);

    let fetch = Body::Fetch { attempt: 1 };
    assert_eq!(bench.hear(installer, NEW, fetch), [Action::Load { object }]);
    let accepted = Some(Accepted { ballot: bench.ballot(OLD, 3, installer), value: bench.value() });
    let record = Some(AcceptorRecord::new(None, accepted.clone()));
    let actions = bench.run(Event::Loaded { object, record });
    assert_eq!(sends(&actions), [(installer, ROUND, Body::Fetched { accepted })]);
}

#[test]
fn an_install_is_taken_of_the_attempt_in_hand_alone() {
    let mut bench = Bench::new(Place::Coming, BTreeMap::new());
    let (installer, object) = (bench.old[1], bench.object);
    bench.ignores(installer, NEW, bench.install(1));
    bench.order(1, 9);
    bench.order(2, 9);
    bench.ignores(installer, NEW, bench.install(1));
    bench.ignores(bench.old[2], NEW, bench.install(2));
    let own = bench.ballot(NEW, 2, installer);
    let odd = Body::Install { attempt: 2, ballot: Ballot { boot: 8, ..own }, value: bench.value() };
    bench.ignores(installer, NEW, odd);
    assert_eq!(bench.hear(installer, NEW, bench.install(2)), [Action::Load { object }]);
    let old = Accepted { ballot: bench.ballot(OLD, 70, installer), value: bench.value() };
    let promised = Some(bench.ballot(OLD, 71, installer));
    let record = Some(AcceptorRecord::new(promised, Some(old)));
    let actions = bench.run(Event::Loaded { object, record });
    let [write @ Action::Write { record, .. }] = &actions[..] else { panic!("{actions:?}") };
    let new = Accepted { ballot: own, value: bench.value() };
    assert_eq!(*record, AcceptorRecord::new(None, Some(new)), "above all of the epoch before");
    let (_, said) = bench.durable(write);
    assert_eq!(said[0].message.body, Body::Installed { ballot: own });
    let again = bench.hear(installer, NEW, bench.install(2));
    assert_eq!(sends(&again), [(installer, ROUND, Body::Installed { ballot: own })]);
    bench.activate(2);
    bench.ignores(installer, NEW, bench.install(2));
    assert_eq!(bench.machine.view(HashSlot(42)).first_counter, 3);
}

#[test]
fn the_installer_takes_the_greatest_of_a_majority_and_says_when_it_is_on_one() {
    let mut bench = Bench::new(Place::Installer, BTreeMap::new());
    let (first, third, fourth) = (bench.old[0], bench.old[2], bench.new.acceptors[2]);
    let (object, slot) = (bench.object, HashSlot(42));
    assert_eq!(bench.order(1, 8), [], "the order is for an earlier start");
    let actions = bench.order(2, 9);
    let fence = |peer| (peer, RoundId { boot: 9, number: 1 }, Body::Fence { attempt: 2 });
    assert_eq!(sends(&actions), [fence(first), fence(third)]);
    let own = actions.iter().find(|a| matches!(a, Action::WriteFence { .. })).expect("it is one of the old");
    let (actions, _) = bench.durable(own);
    assert_eq!(actions, [Action::Scan { slot, after: None }]);
    let round = RoundId { boot: 9, number: 1 };
    let asked = bench.hear_in(third, NEW, round, Body::Fenced);
    let (_, list, _) = sends(&asked)[0].clone();
    let page = SlotPage { objects: vec![object], more: false };
    assert_eq!(bench.run(Event::Scanned { slot, after: None, page: Some(page) }), [], "one is no majority");
    let actions = bench.hear_in(third, NEW, list, Body::Listed { objects: Vec::new(), more: false });
    let [(to, fetch, Body::Fetch { attempt: 2 })] = sends(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(to, third, "the first is not fenced");
    let low = Accepted { ballot: bench.ballot(OLD, 3, first), value: bench.value() };
    let high = Accepted { ballot: bench.ballot(OLD, 4, first), value: register(object, None, 2) };
    bench.run(Event::Loaded { object, record: Some(AcceptorRecord::new(None, Some(low))) });
    let fetched = Body::Fetched { accepted: Some(high.clone()) };
    let actions = bench.hear_in(third, NEW, fetch, fetched);
    let ballot = bench.ballot(NEW, 2, bench.me);
    let install = Body::Install { attempt: 2, ballot, value: high.value };
    let round = sends(&actions)[0].1;
    assert_eq!(sends(&actions), [(third, round, install.clone()), (fourth, round, install)]);
    let write = actions.iter().find(|a| matches!(a, Action::Write { .. })).expect("it is one of the new");
    assert_eq!(bench.durable(write).0, []);
    let done = Action::Installed { slot, to: NEW, attempt: 2 };
    assert_eq!(bench.hear_in(fourth, NEW, round, Body::Installed { ballot }), [done]);
    bench.ignores(third, NEW, Body::Installed { ballot });
}

#[test]
fn what_the_installer_hears_nothing_of_is_said_again() {
    let mut bench = Bench::new(Place::Installer, BTreeMap::new());
    let actions = bench.order(1, 9);
    assert_eq!(bench.run(Event::Timer(Timer::Wake)), [], "too early");
    bench.now = limits::PAXOS_PHASE.0 + 1;
    let again = bench.run(Event::Timer(Timer::Wake));
    assert_eq!(sends(&again), sends(&actions));
}

#[test]
fn a_call_in_progress_begins_again_in_the_new_view_and_keeps_its_deadline() {
    let mut bench = Bench::new(Place::Staying, BTreeMap::new());
    let (call, object) = (CallId(1), bench.object);
    let began = bench.now;
    bench.run(Event::Call { call, object, command: Command::Read });
    bench.order(4, 9);
    let actions = bench.activate(4);
    let prepare = Body::Prepare { ballot: bench.ballot(NEW, 6, bench.me) };
    let new = bench.new.acceptors.clone();
    for (to, _, body) in sends(&actions) {
        assert!(new.contains(&to) && body == prepare, "above the attempt and the implicit ballot: {body:?}");
    }
    assert_eq!(sends(&actions).len(), 2);
    bench.ignores(bench.old[0], OLD, Body::Query);
    bench.now = began + limits::NO_QUORUM.0;
    let actions = bench.run(Event::Timer(Timer::Wake));
    let no_quorum =
        |a: &Action| matches!(a, Action::Answer { answer, .. } if answer.outcome == Outcome::NoQuorum);
    assert!(actions.iter().any(no_quorum), "{actions:?}");
}

#[test]
fn a_write_of_the_old_view_that_ends_in_the_new_one_is_known_to_have_ended() {
    let mut bench = Bench::new(Place::Staying, BTreeMap::new());
    let (home, object) = (bench.old[0], bench.object);
    let ballot = bench.ballot(OLD, 5, home);
    bench.hear(home, OLD, Body::Prepare { ballot });
    let actions = bench.run(Event::Loaded { object, record: None });
    bench.order(1, 9);
    bench.activate(1);
    bench.durable(&actions[0]);
    let asker = bench.old[1];
    let state = bench.hear(asker, NEW, Body::Query);
    assert_eq!(sends(&state), [(asker, ROUND, Body::State { accepted: None })], "durable, so at once");
}

/// It may have missed the install of what is chosen, and be empty for that.
#[test]
fn after_a_handover_no_first_write_goes_without_a_prepare() {
    for place in [Place::Installer, Place::Staying, Place::Coming] {
        let mut bench = Bench::new(place, BTreeMap::new());
        let object = bench.object;
        let home = placement::home(NEW, &bench.new.acceptors, &object).expect("there are some");
        bench.order(1, 9);
        bench.activate(1);
        let (call, value) = (CallId(1), bench.value());
        let without = Body::Accept { ballot: bench.ballot(NEW, 2, home), value: value.clone(), next: None };
        if bench.me != home {
            bench.ignores(home, NEW, without);
            continue;
        }
        let actions = bench.run(Event::Call { call, object, command: Command::Propose { value } });
        let bodies: Vec<Body> = sends(&actions).into_iter().map(|(_, _, body)| body).collect();
        let prepare = Body::Prepare { ballot: bench.ballot(NEW, 3, home) };
        assert_eq!(bodies, [prepare.clone(), prepare]);
        assert!(!actions.iter().any(|action| matches!(action, Action::Write { .. })), "{actions:?}");
    }
}

#[test]
fn orders_that_are_old_or_make_no_sense_change_nothing() {
    let mut bench = Bench::new(Place::Staying, BTreeMap::new());
    let slot = HashSlot(42);
    let (installer, keepers) = (bench.old[1], bench.new.clone());
    let order = |to, attempt, keepers| Order::Handover { slot, to, attempt, installer, boot: 9, keepers };
    let twice = SlotKeepers { acceptors: vec![installer, installer], mirror: None };
    let nobody = SlotKeepers { acceptors: Vec::new(), mirror: Some(installer) };
    let bad = [
        order(OLD, 1, keepers.clone()),
        order(NEW, 0, keepers.clone()),
        order(NEW, Ballot::COUNTER_MAX, keepers.clone()),
        order(NEW, 1, twice),
        order(NEW, 1, nobody),
        Order::Activate { slot, to: NEW, attempt: 1 },
    ];
    for (index, order) in bad.into_iter().enumerate() {
        bench.run(Event::Order(order));
        assert_eq!(bench.machine.counters().ignored, index as u64 + 1);
    }
    bench.order(2, 9);
    bench.run(Event::Order(order(NEW, 1, keepers)));
    bench.activate(1);
    assert_eq!(bench.machine.view(slot).epoch, OLD, "of attempt 2 nothing was said");
    bench.activate(2);
    assert_eq!(bench.machine.view(slot).epoch, NEW);
    bench.order(3, 9);
    bench.activate(3);
    assert_eq!(bench.machine.view(slot).first_counter, 3, "it is in use already");
}
