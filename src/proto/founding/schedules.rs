//! The founding under random schedules and crashes at every step: never two foundings, and in the end one;
//! then its rules one by one.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::proto::testing::{Dice, hex, incarnation, peers, seeds};

struct Node {
    machine: Option<FoundingMachine>,
    life: u64,
    disk: Vec<u8>,
    writes: VecDeque<(FoundingRecord, Vec<Send>)>,
    status: Option<Status>,
}

enum Thing {
    Deliver { from: usize, to: usize, bytes: Vec<u8> },
    Synced { node: usize, life: u64 },
    Tick { node: usize, life: u64 },
    Start { node: usize },
}

/// A node dies at its nth action: before it, or, if that is a write, once it is durable and before anything
/// is said.
#[derive(Clone, Copy)]
struct CrashAt {
    node: usize,
    action: u64,
    after_write: bool,
}

struct World {
    dice: Dice,
    loss: u64,
    expect: usize,
    crash: Option<CrashAt>,
    random_crashes: u64,
    now: Millis,
    order: u64,
    queue: BTreeMap<(Millis, u64), Thing>,
    nodes: Vec<Node>,
    actions: Vec<u64>,
    /// Who durably voted for what, ever since not taken back.
    votes: BTreeMap<usize, Founding>,
    foundings: BTreeMap<FoundingId, Founding>,
}

impl World {
    fn new(seed: u64, count: usize, expect: usize, loss: u64) -> Self {
        let node =
            |_| Node { machine: None, life: 0, disk: Vec::new(), writes: VecDeque::new(), status: None };
        let mut world = Self {
            dice: Dice::new(seed),
            loss,
            expect,
            crash: None,
            random_crashes: 0,
            now: Millis(0),
            order: 0,
            queue: BTreeMap::new(),
            nodes: (0..count).map(node).collect(),
            actions: vec![0; count],
            votes: BTreeMap::new(),
            foundings: BTreeMap::new(),
        };
        for node in 0..count {
            let delay = world.dice.below(2500);
            world.at(delay, Thing::Start { node });
        }
        world
    }

    fn at(&mut self, delay: u64, thing: Thing) {
        self.order += 1;
        self.queue.insert((self.now + Millis(delay), self.order), thing);
    }

    fn run(mut self, span: u64) -> Result<Self, String> {
        while let Some(((at, _), thing)) = self.queue.pop_first() {
            if at > Millis(span) {
                break;
            }
            if at > Millis(span / 2) {
                (self.loss, self.random_crashes) = (0, 0);
            }
            self.now = at;
            self.step(thing)?;
        }
        let ready = self.nodes.iter().filter(|n| matches!(n.status, Some(Status::Ready(_)))).count();
        if ready != self.expect {
            let all: Vec<_> = self.nodes.iter().map(|n| n.status.clone()).collect();
            return Err(format!("{ready} nodes are ready in the end: {all:?}"));
        }
        Ok(self)
    }

    fn step(&mut self, thing: Thing) -> Result<(), String> {
        match thing {
            Thing::Start { node } if self.nodes[node].machine.is_none() => self.start(node),
            Thing::Deliver { from, to, bytes } => {
                let message = Message::decode(&bytes).map_err(|e| e.to_string())?;
                self.feed(to, Event::Message { from: peers(self.nodes.len())[from], message })
            }
            Thing::Tick { node, life } if self.nodes[node].life == life => {
                self.feed(node, Event::Timer(Timer::Tick))
            }
            Thing::Synced { node, life } if self.nodes[node].life == life => self.synced(node),
            _ => Ok(()),
        }
    }

    fn start(&mut self, node: usize) -> Result<(), String> {
        let seed = self.dice.seed();
        let all = peers(self.nodes.len());
        let disk = &self.nodes[node].disk;
        let record = (!disk.is_empty()).then(|| FoundingRecord::decode(disk)).transpose();
        self.nodes[node].machine = Some(FoundingMachine::new(Config {
            me: all[node],
            incarnation: incarnation(&all[node]),
            expect: self.expect,
            key_was_there: true,
            record: record.map_err(|e| e.to_string())?,
            seed,
            variant: Variant::Right,
        }));
        self.feed(node, Event::Start)?;
        for other in (0..all.len()).filter(|other| *other != node) {
            if self.nodes[other].machine.is_some() {
                self.feed(node, Event::Connected { peer: all[other] })?;
                self.feed(other, Event::Disconnected { peer: all[node] })?;
                self.feed(other, Event::Connected { peer: all[node] })?;
            }
        }
        Ok(())
    }

    fn stop(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        n.machine = None;
        n.life += 1;
        n.status = None;
        n.writes.clear();
        let down = self.dice.below(3000);
        self.at(down, Thing::Start { node });
    }

    fn feed(&mut self, node: usize, event: Event) -> Result<(), String> {
        let mut out = Outbox::new();
        let Some(machine) = &mut self.nodes[node].machine else { return Ok(()) };
        machine.handle(self.now, event, &mut out);
        for action in out.drain().collect::<Vec<_>>() {
            if self.nodes[node].machine.is_none() {
                return Ok(());
            }
            self.execute(node, action)?;
        }
        Ok(())
    }

    fn execute(&mut self, node: usize, action: Action) -> Result<(), String> {
        let life = self.nodes[node].life;
        self.actions[node] += 1;
        let number = self.actions[node];
        let planned = self.crash.is_some_and(|c| (c.node, c.action, c.after_write) == (node, number, false));
        if planned || self.dice.below(1000) < self.random_crashes {
            self.stop(node);
            return Ok(());
        }
        match action {
            Action::Send(send) => self.transmit(node, send),
            Action::Write { record, then } => {
                self.nodes[node].writes.push_back((record, then));
                if self.crash.is_some_and(|c| (c.node, c.action, c.after_write) == (node, number, true)) {
                    return self.synced_and_dead(node);
                }
                let delay = 1 + self.dice.below(20);
                self.at(delay, Thing::Synced { node, life });
            }
            Action::Arm { at, .. } => self.at(at.since(self.now).0, Thing::Tick { node, life }),
            Action::Publicise(status) => {
                if let Status::Ready(founding) = &status {
                    let durable =
                        FoundingRecord::decode(&self.nodes[node].disk).ok().and_then(|r| r.founding);
                    if durable.as_ref() != Some(founding) {
                        return Err("ready before it was durable".into());
                    }
                }
                assert!(!status.sentence().is_empty());
                self.nodes[node].status = Some(status);
            }
        }
        Ok(())
    }

    fn synced(&mut self, node: usize) -> Result<(), String> {
        for send in self.write_down(node)? {
            if send.to == peers(self.nodes.len())[node] {
                self.feed(node, Event::Message { from: send.to, message: send.message })?;
            } else {
                self.transmit(node, send);
            }
        }
        Ok(())
    }

    fn synced_and_dead(&mut self, node: usize) -> Result<(), String> {
        while !self.nodes[node].writes.is_empty() {
            self.write_down(node)?;
        }
        self.stop(node);
        Ok(())
    }

    fn write_down(&mut self, node: usize) -> Result<Vec<Send>, String> {
        let Some((record, then)) = self.nodes[node].writes.pop_front() else { return Ok(Vec::new()) };
        self.nodes[node].disk = record.encode();
        match record.vote {
            Some(vote) => self.votes.insert(node, vote),
            None => self.votes.remove(&node),
        };
        if let Some(founding) = record.founding {
            let all = peers(self.nodes.len());
            let voted = |m: &Member| {
                let node = all.iter().position(|p| *p == m.peer).expect("a member is one of the nodes");
                self.votes.get(&node) == Some(&founding)
            };
            if !founding.members.iter().all(voted) || founding.members.len() != self.expect {
                return Err(format!("{founding:?} without all its votes"));
            }
            self.foundings.insert(founding.id, founding);
        }
        if self.foundings.len() > 1 {
            return Err(format!("two foundings: {:?}", self.foundings));
        }
        Ok(then)
    }

    fn transmit(&mut self, from: usize, send: Send) {
        let Some(to) = peers(self.nodes.len()).iter().position(|p| *p == send.to) else { return };
        let copies = if self.dice.percent(self.loss) { 0 } else { 1 + u64::from(self.dice.percent(10)) };
        for _ in 0..copies {
            let slow = self.dice.percent(10);
            let delay = 1 + self.dice.below(if slow { 4000 } else { 30 });
            self.at(delay, Thing::Deliver { from, to, bytes: send.message.encode() });
        }
    }
}

#[test]
fn never_two_foundings_and_in_the_end_one() {
    for seed in seeds(400) {
        let expect = [3, 3, 2, 4][seed as usize % 4];
        let count = expect + usize::from(seed % 4 < 2);
        let mut world = World::new(seed, count, expect, 25);
        world.random_crashes = 8;
        if let Err(what) = world.run(160_000) {
            panic!("{count} nodes, expect {expect}, SEED={seed}: {what}");
        }
    }
}

#[test]
fn a_crash_at_any_step_of_any_node_does_no_harm() {
    let mut crashed = 0;
    for action in 1..30 {
        for (node, after_write) in (0..4).flat_map(|node| [(node, false), (node, true)]) {
            let mut world = World::new(action, 4, 3, 0);
            world.crash = Some(CrashAt { node, action, after_write });
            match world.run(60_000) {
                Ok(world) => crashed += world.nodes.iter().map(|n| n.life).sum::<u64>(),
                Err(what) => panic!("node {node}, action {action}, after {after_write}: {what}"),
            }
        }
    }
    assert!(crashed > 100, "{crashed} crashes");
}

fn machine(me: usize, expect: usize, record: Option<FoundingRecord>) -> FoundingMachine {
    let me = peers(4)[me];
    let seed = [9; 32];
    FoundingMachine::new(Config {
        me,
        incarnation: incarnation(&me),
        expect,
        key_was_there: true,
        record,
        seed,
        variant: Variant::Right,
    })
}

fn handle(machine: &mut FoundingMachine, now: u64, event: Event) -> Vec<Action> {
    let mut out = Outbox::new();
    machine.handle(Millis(now), event, &mut out);
    out.drain().collect()
}

fn announce(from: usize, expect: u64, standing: Standing) -> Event {
    let from = peers(4)[from];
    let message = Message::Announce { incarnation: incarnation(&from), expect, standing };
    Event::Message { from, message }
}

fn members(which: &[usize]) -> Vec<Member> {
    which.iter().map(|n| peers(4)[*n]).map(|peer| Member { peer, incarnation: incarnation(&peer) }).collect()
}

fn writes(actions: &[Action]) -> Vec<&FoundingRecord> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Write { record, .. } => Some(record),
            _ => None,
        })
        .collect()
}

#[test]
fn the_smallest_of_enough_candidates_proposes_and_others_wait() {
    let mut smallest = machine(0, 3, None);
    handle(&mut smallest, 0, Event::Start);
    assert!(writes(&handle(&mut smallest, 1, announce(1, 3, Standing::Pristine))).is_empty());
    let actions = handle(&mut smallest, 2, announce(3, 3, Standing::Pristine));
    let record = writes(&actions)[0];
    assert_eq!(record.vote.as_ref().map(|v| v.members.clone()), Some(members(&[0, 1, 3])));
    assert!(!actions.iter().any(|a| matches!(a, Action::Send(_))), "said only once it is durable");

    let mut second = machine(1, 3, None);
    handle(&mut second, 0, Event::Start);
    handle(&mut second, 1, announce(0, 3, Standing::Pristine));
    let actions = handle(&mut second, 2, announce(3, 3, Standing::Pristine));
    assert!(writes(&actions).is_empty());
    assert!(
        matches!(&actions[..], [Action::Publicise(Status::Waiting(Waiting::Proposer { .. }))]),
        "{actions:?}"
    );
}

#[test]
fn nodes_that_came_and_went_keep_no_candidate_out() {
    let mut smallest = machine(0, 2, None);
    handle(&mut smallest, 0, Event::Start);
    for _ in 0..limits::KNOWN_PEERS_MAX + 5 {
        let peer = PeerId::random();
        handle(&mut smallest, 1, Event::Connected { peer });
        handle(&mut smallest, 1, Event::Disconnected { peer });
    }
    let actions = handle(&mut smallest, 2, announce(1, 2, Standing::Pristine));
    assert_eq!(writes(&actions)[0].vote.as_ref().map(|v| v.members.clone()), Some(members(&[0, 1])));
}

#[test]
fn candidates_with_another_expectation_do_not_count() {
    let mut node = machine(0, 2, None);
    handle(&mut node, 0, Event::Start);
    let actions = handle(&mut node, 1, announce(1, 3, Standing::Pristine));
    assert!(writes(&actions).is_empty());
    let Some(Action::Publicise(status)) = actions.last() else { panic!("{actions:?}") };
    assert!(status.sentence().contains("--expect 3"), "{}", status.sentence());
}

#[test]
fn a_vote_is_given_once_and_taken_back_only_by_its_proposer() {
    let proposal = Founding::new(FoundingId([1; 16]), members(&[0, 2, 3]));
    let other = Founding::new(FoundingId([2; 16]), members(&[1, 2, 3]));
    let record = FoundingRecord { vote: Some(proposal.clone()), ..FoundingRecord::default() };
    let mut voter = machine(2, 3, Some(record));
    handle(&mut voter, 0, Event::Start);
    let propose = Message::Propose { founding: other.encode() };
    let actions = handle(&mut voter, 1, Event::Message { from: peers(4)[1], message: propose });
    assert!(writes(&actions).is_empty());
    let abort = Message::Abort { id: proposal.id };
    let by_another = Event::Message { from: peers(4)[1], message: abort.clone() };
    assert!(writes(&handle(&mut voter, 2, by_another)).is_empty());
    let actions = handle(&mut voter, 3, Event::Message { from: peers(4)[0], message: abort });
    assert_eq!(writes(&actions), [&FoundingRecord::default()]);
}

#[test]
fn a_founding_counts_only_with_ones_own_vote() {
    let founding = Founding::new(FoundingId([1; 16]), members(&[0, 2, 3]));
    let founded = |from: usize| Event::Message {
        from: peers(4)[from],
        message: Message::Founded { founding: founding.encode() },
    };
    let voted = FoundingRecord { vote: Some(founding.clone()), ..FoundingRecord::default() };
    let mut voter = machine(2, 3, Some(voted.clone()));
    handle(&mut voter, 0, Event::Start);
    assert!(writes(&handle(&mut voter, 1, founded(1))).is_empty(), "from one who is not in it");
    let actions = handle(&mut voter, 1, founded(0));
    assert_eq!(writes(&actions), [&FoundingRecord { founding: Some(founding.clone()), ..voted }]);
    assert_eq!(voter.founding(), None, "not durable yet");

    let mut stranger = machine(1, 3, None);
    handle(&mut stranger, 0, Event::Start);
    let actions = handle(&mut stranger, 1, founded(0));
    assert_eq!(writes(&actions)[0].left_out, Some(founding.id));
}

#[test]
fn a_proposer_aborts_for_a_silent_node_and_durably_before_it_says_so() {
    let proposal = Founding::new(FoundingId([1; 16]), members(&[0, 1, 2]));
    let record = FoundingRecord { vote: Some(proposal.clone()), ..FoundingRecord::default() };
    let mut proposer = machine(0, 3, Some(record));
    handle(&mut proposer, 0, Event::Start);
    let voted = Standing::Voted {
        id: proposal.id,
        proposer: proposal.members[0].peer,
        incarnation: proposal.members[0].incarnation,
    };
    for now in 1..10 {
        handle(&mut proposer, now * 1000, announce(1, 3, voted));
        assert!(writes(&handle(&mut proposer, now * 1000, Event::Timer(Timer::Tick))).is_empty());
    }
    let actions = handle(&mut proposer, 10_000, Event::Timer(Timer::Tick));
    let Some(Action::Write { record, then }) = actions.iter().find(|a| matches!(a, Action::Write { .. }))
    else {
        panic!("{actions:?}")
    };
    assert_eq!(record.vote, None);
    let aborts = then.iter().filter(|s| s.message == Message::Abort { id: proposal.id }).count();
    assert_eq!(aborts, 2);
}

#[test]
fn alone_it_looks_three_seconds_when_others_may_have_the_key() {
    let mut node = machine(0, 1, None);
    handle(&mut node, 0, Event::Start);
    assert!(writes(&handle(&mut node, 2999, Event::Timer(Timer::Tick))).is_empty());
    assert_eq!(writes(&handle(&mut node, 3000, Event::Timer(Timer::Tick))).len(), 1);

    let mut met = machine(0, 1, None);
    handle(&mut met, 0, Event::Start);
    let actions = handle(&mut met, 100, Event::Connected { peer: peers(4)[1] });
    let Some(Action::Publicise(status)) = actions.last() else { panic!("{actions:?}") };
    assert!(status.sentence().contains("--expect 2"));
    assert!(writes(&handle(&mut met, 9000, Event::Timer(Timer::Tick))).is_empty());

    let me = peers(4)[0];
    let (incarnation, seed) = (incarnation(&me), [9; 32]);
    let variant = Variant::Right;
    let config = Config { me, incarnation, expect: 1, key_was_there: false, record: None, seed, variant };
    let mut first = FoundingMachine::new(config);
    assert_eq!(writes(&handle(&mut first, 0, Event::Start)).len(), 1, "nobody else can have the key");
}

#[test]
fn vectors_and_refusals() {
    let founding = Founding::new(FoundingId([1; 16]), members(&[0, 1]));
    let record =
        FoundingRecord { vote: Some(founding.clone()), founding: Some(founding.clone()), left_out: None };
    assert_eq!(FoundingRecord::decode(&record.encode()), Ok(record.clone()));
    let left_out = FoundingRecord { left_out: Some(FoundingId([7; 16])), ..FoundingRecord::default() };
    let voted = Standing::Voted {
        id: founding.id,
        proposer: founding.members[0].peer,
        incarnation: founding.members[0].incarnation,
    };
    let announce = Message::Announce { incarnation: Incarnation([3; 16]), expect: 2, standing: voted };
    let text = format!(
        "empty {}\nleft out {}\nfounded {}\nannounce {}\nabort {}\n",
        hex(&FoundingRecord::default().encode()),
        hex(&left_out.encode()),
        hex(&record.encode()),
        hex(&announce.encode()),
        hex(&Message::Abort { id: founding.id }.encode()),
    );
    assert_eq!(include_str!("../../../tests/vectors/founding.txt"), text);
    assert_eq!(Message::decode(&announce.encode()), Ok(announce.clone()));
    for cut in 0..announce.encode().len() {
        assert!(Message::decode(&announce.encode()[..cut]).is_err());
    }
    let mut later = record.encode();
    later[1] = 2;
    assert!(FoundingRecord::decode(&later).is_err());
}
