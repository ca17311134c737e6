//! A seeded network of whole nodes for the election's tests: real memberships decide who is alive, real
//! elections who is coordinator; messages are slow or lost, nodes die, restart, freeze and are cut off.
//!
//! It decides nothing itself, and what it sees of the machines is what a node would.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    model::rpc::NodeState,
    proto::{
        membership::{self, Membership, Vitals},
        testing::{Dice, founding, peers},
    },
};

/// How loads move, in hundredths of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Node 0 the lowest, each next one 3 points more.
    Steady,
    /// Anything at any time.
    White,
    /// Small steps, as a smoothed load makes them.
    Walk,
    /// Every node is idle for some seconds and busy for some.
    Square,
    /// The coordinator is busy, the others are not.
    Punishing,
    /// Everybody's load rises and falls by turns.
    Waves,
}

struct Node {
    up: Option<(Membership, Election)>,
    boot: u64,
    /// What its elections have written down.
    kept: u64,
    life: u64,
    frozen_until: Millis,
    side: u8,
    load: u64,
}

enum Thing {
    Start {
        node: usize,
    },
    Beat {
        node: usize,
        life: u64,
    },
    Timer {
        node: usize,
        life: u64,
        timer: Timer,
        at: Millis,
    },
    Kept {
        node: usize,
        life: u64,
        counter: u64,
    },
    Heartbeat {
        from: usize,
        to: usize,
        message: membership::Message,
        claim: Option<Claim>,
    },
    Ask {
        from: usize,
        to: usize,
        call: u64,
        bytes: Vec<u8>,
    },
    /// The answer, or the end of the patience.
    Answer {
        call: u64,
        bytes: Option<Vec<u8>>,
    },
    Tell {
        from: usize,
        to: usize,
        bytes: Vec<u8>,
    },
    Probed {
        node: usize,
        life: u64,
        peer: PeerId,
        via: Option<PeerId>,
        reached: bool,
    },
}

/// Something that an observer of all nodes sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) at: Millis,
    pub(super) node: usize,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It takes office by this claim.
    Takes(Claim, Reason),
    /// It asks the others.
    Stands,
    /// It says that this one is dead.
    Dead(usize),
}

pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) now: Millis,
    /// Messages lost, in percent.
    pub(super) loss: u64,
    /// The longest way of a message.
    pub(super) delay_ms: u64,
    pub(super) shape: Shape,
    variant: Variant,
    order: u64,
    queue: BTreeMap<(Millis, u64), Thing>,
    peers: Vec<PeerId>,
    nodes: Vec<Node>,
    calls: BTreeMap<u64, (usize, u64, usize)>,
    next_call: u64,
    armed: BTreeMap<(usize, Timer), Millis>,
    /// Questions, answers and news of elections.
    pub(super) messages: u64,
    pub(super) seen: Vec<Seen>,
    /// The last time when a node changed its mind about who is alive.
    pub(super) views_changed: Millis,
    /// All claims of each node, and in which of its lives it made them.
    claims: BTreeMap<usize, Vec<(Claim, u64)>>,
    /// What must never be and was.
    pub(super) violation: Option<String>,
}

impl World {
    /// Nodes that start within `spread_ms`.
    pub(super) fn new(seed: u64, count: usize, shape: Shape, variant: Variant, spread_ms: u64) -> Self {
        let node =
            |_| Node { up: None, boot: 0, kept: 0, life: 0, frozen_until: Millis(0), side: 0, load: 2000 };
        let mut world = Self {
            dice: Dice::new(seed),
            now: Millis(0),
            loss: 0,
            delay_ms: 5,
            shape,
            variant,
            order: 0,
            queue: BTreeMap::new(),
            peers: peers(count),
            nodes: (0..count).map(node).collect(),
            calls: BTreeMap::new(),
            next_call: 0,
            armed: BTreeMap::new(),
            messages: 0,
            seen: Vec::new(),
            views_changed: Millis(0),
            claims: BTreeMap::new(),
            violation: None,
        };
        for node in 0..count {
            let delay = world.dice.below(spread_ms + 1);
            world.at(delay, Thing::Start { node });
        }
        world
    }

    // ---- what the tests do to it ----

    /// Lets so much time pass.
    pub(super) fn run(&mut self, span_ms: u64) {
        let end = self.now + Millis(span_ms);
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, order), thing) = entry.remove_entry();
            self.now = self.now.max(at);
            let until = self.whose(&thing).map_or(Millis(0), |node| self.nodes[node].frozen_until);
            if until > self.now {
                self.queue.insert((until, order), thing);
            } else {
                self.step(thing);
            }
        }
        self.now = end;
    }

    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].up = None;
        self.nodes[node].life += 1;
    }

    pub(super) fn start(&mut self, node: usize) {
        if self.nodes[node].up.is_none() {
            self.at(0, Thing::Start { node });
        }
    }

    pub(super) fn freeze(&mut self, node: usize, span_ms: u64) {
        self.nodes[node].frozen_until = self.now + Millis(span_ms);
    }

    pub(super) fn cut(&mut self, side_of: impl Fn(usize) -> u8) {
        self.nodes.iter_mut().enumerate().for_each(|(node, n)| n.side = side_of(node));
    }

    pub(super) fn tell(&mut self, node: usize, event: Event) {
        self.feed(node, event);
    }

    // ---- what the tests ask ----

    pub(super) fn is_up(&self, node: usize) -> bool {
        self.nodes[node].up.is_some() && self.nodes[node].frozen_until <= self.now
    }

    pub(super) fn in_office(&self) -> Vec<usize> {
        let rules = |node: &usize| self.election(*node).is_some_and(|e| e.in_office().is_some());
        (0..self.nodes.len()).filter(rules).collect()
    }

    pub(super) fn election(&self, node: usize) -> Option<&Election> {
        self.nodes[node].up.as_ref().map(|(_, election)| election)
    }

    /// The nodes that are up, by the side of the cut that they are on.
    pub(super) fn sides(&self) -> Vec<Vec<usize>> {
        let mut sides: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
        for node in (0..self.nodes.len()).filter(|node| self.is_up(*node)) {
            sides.entry(self.nodes[node].side).or_default().push(node);
        }
        sides.into_values().collect()
    }

    /// Exactly one on a side with a majority, on which all of it agree; none on the others.
    pub(super) fn check_settled(&self) -> Result<(), String> {
        for side in self.sides() {
            let offices: BTreeSet<usize> =
                self.in_office().into_iter().filter(|node| side.contains(node)).collect();
            let has_majority = side.len() > self.nodes.len() / 2;
            if offices.len() != usize::from(has_majority) {
                return Err(format!(
                    "{} of {} up on a side, in office: {offices:?}",
                    side.len(),
                    self.nodes.len()
                ));
            }
            let claims: BTreeSet<_> =
                side.iter().filter_map(|node| self.election(*node)).map(|e| e.coordinator()).collect();
            if has_majority && claims.len() != 1 {
                return Err(format!("a side does not agree: {claims:?}"));
            }
        }
        Ok(())
    }

    /// How many times somebody took office from `from` to `to`, its own claims made anew not counted.
    pub(super) fn changes(&self, from: Millis, to: Millis) -> usize {
        let mut last = None;
        let mut changes = 0;
        for seen in &self.seen {
            if matches!(seen.what, What::Takes(..)) {
                let is_change = last.is_some_and(|last| last != seen.node);
                changes += usize::from(is_change && (from..to).contains(&seen.at));
                last = Some(seen.node);
            }
        }
        changes
    }

    // ---- how it goes on ----

    fn at(&mut self, delay_ms: u64, thing: Thing) {
        self.order += 1;
        self.queue.insert((self.now + Millis(delay_ms), self.order), thing);
    }

    fn whose(&self, thing: &Thing) -> Option<usize> {
        match thing {
            Thing::Start { .. } => None,
            Thing::Beat { node, .. }
            | Thing::Timer { node, .. }
            | Thing::Kept { node, .. }
            | Thing::Probed { node, .. } => Some(*node),
            Thing::Heartbeat { to, .. } | Thing::Ask { to, .. } | Thing::Tell { to, .. } => Some(*to),
            Thing::Answer { call, .. } => self.calls.get(call).map(|(asker, _, _)| *asker),
        }
    }

    fn peer(&self, node: usize) -> PeerId {
        self.peers[node]
    }

    fn node(&self, peer: &PeerId) -> usize {
        self.peers.iter().position(|p| p == peer).expect("one of the nodes")
    }

    fn step(&mut self, thing: Thing) {
        let is_live = |nodes: &[Node], node: usize, life: u64| nodes[node].life == life;
        match thing {
            Thing::Start { node } => self.begin(node),
            Thing::Beat { node, life } if is_live(&self.nodes, node, life) => self.beat(node),
            Thing::Timer { node, life, timer, at } if is_live(&self.nodes, node, life) => {
                if self.armed.get(&(node, timer)) == Some(&at) {
                    self.armed.remove(&(node, timer));
                    self.feed(node, Event::Timer(timer));
                }
            }
            Thing::Kept { node, life, counter } if is_live(&self.nodes, node, life) => {
                self.nodes[node].kept = self.nodes[node].kept.max(counter);
                self.feed(node, Event::Kept { counter });
            }
            Thing::Heartbeat { from, to, message, claim } => {
                let author = self.peer(from);
                self.feed_membership(to, membership::Event::Heard { author, message });
                self.feed(to, Event::Heard { from: author, claim });
            }
            Thing::Ask { from, to, call, bytes } => {
                let message = Message::decode(&bytes).expect("what was encoded");
                let from = self.peer(from);
                self.feed(to, Event::Asked { from, call, message });
            }
            Thing::Answer { call, bytes } => {
                let Some((asker, life, asked)) = self.calls.remove(&call) else { return };
                if is_live(&self.nodes, asker, life) {
                    let answer = bytes.map(|bytes| Message::decode(&bytes).expect("what was encoded"));
                    self.feed(asker, Event::Answered { from: self.peer(asked), answer });
                }
            }
            Thing::Tell { from, to, bytes } => {
                let message = Message::decode(&bytes).expect("what was encoded");
                self.feed(to, Event::Told { from: self.peer(from), message });
            }
            Thing::Probed { node, life, peer, via, reached } if is_live(&self.nodes, node, life) => {
                self.feed_membership(node, membership::Event::Probed { peer, via, reached });
            }
            Thing::Beat { .. } | Thing::Timer { .. } | Thing::Kept { .. } | Thing::Probed { .. } => {}
        }
    }

    fn begin(&mut self, node: usize) {
        if self.nodes[node].up.is_some() {
            return;
        }
        let (seed, count) = (self.dice.seed(), self.nodes.len());
        self.nodes[node].boot += 1;
        let (me, boot, epoch) = (self.peer(node), self.nodes[node].boot, Epoch::FOUNDING);
        let kept = self.nodes[node].kept;
        let name = String::new();
        let config = membership::Config { me, founding: founding(count), epoch, boot, name, seed };
        let view = Membership::new(config);
        let mut election = Election::new(Config { me, founding: founding(count), epoch, boot, kept, seed });
        election.variant = self.variant;
        self.nodes[node].up = Some((view, election));
        self.tell_vitals(node);
        self.feed_membership(node, membership::Event::Start);
    }

    fn beat(&mut self, node: usize) {
        self.tell_vitals(node);
        self.feed_membership(node, membership::Event::Timer(membership::Timer::Beat));
        let Some((view, _)) = &self.nodes[node].up else { return };
        let alive = view.view().filter(|(_, seen)| seen.state == NodeState::Alive);
        let load = |seen: &membership::Seen| seen.last.as_ref().map_or(0, |last| last.vitals.load_centi);
        let alive = alive.map(|(peer, seen)| (*peer, load(seen))).collect();
        self.feed(node, Event::View { alive });
    }

    fn tell_vitals(&mut self, node: usize) {
        self.nodes[node].load = self.next_load(node);
        let vitals = Vitals { load_centi: self.nodes[node].load, ..Vitals::default() };
        self.feed_membership(node, membership::Event::Vitals { vitals, addrs: Vec::new() });
    }

    fn next_load(&mut self, node: usize) -> u64 {
        let (load, at) = (self.nodes[node].load, self.now.0);
        match self.shape {
            Shape::Steady => 1000 + 300 * node as u64,
            Shape::White => self.dice.below(10_001),
            Shape::Walk => (load + self.dice.below(801)).saturating_sub(400).min(10_000),
            Shape::Square => {
                let phase = (at / 1000 + 3 * node as u64) % (9 + node as u64);
                if phase < 5 { 500 } else { 9500 }
            }
            Shape::Punishing => {
                let rules = self.election(node).is_some_and(|e| e.in_office().is_some());
                (if rules { 9200 } else { 1000 }) + self.dice.below(500)
            }
            Shape::Waves => {
                let angle = at as f64 / 4000.0 + node as f64;
                (5000.0 + 4500.0 * angle.sin()) as u64
            }
        }
    }

    fn feed_membership(&mut self, node: usize, event: membership::Event) {
        let mut out = Outbox::new();
        let Some((view, election)) = &mut self.nodes[node].up else { return };
        view.handle(self.now, event, &mut out);
        let (claim, life) = (election.claim(), self.nodes[node].life);
        for action in out.drain().collect::<Vec<_>>() {
            match action {
                membership::Action::Publish(message) => self.publish(node, &message, claim),
                membership::Action::Probe { peer } => self.probe(node, None, peer),
                membership::Action::ProbeThrough { via, peer } => self.probe(node, Some(via), peer),
                membership::Action::Arm { at, .. } => {
                    self.at(at.since(self.now).0, Thing::Beat { node, life });
                }
                membership::Action::Publicise(fact) => {
                    self.views_changed = self.now;
                    if let membership::Fact::Dead(peer) = fact {
                        let dead = What::Dead(self.node(&peer));
                        self.seen.push(Seen { at: self.now, node, what: dead });
                        self.feed(node, Event::Dead { peer });
                    }
                }
            }
        }
    }

    fn publish(&mut self, from: usize, message: &membership::Message, claim: Option<Claim>) {
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            let message = message.clone();
            self.transmit(from, to, Thing::Heartbeat { from, to, message, claim });
        }
    }

    fn probe(&mut self, node: usize, via: Option<PeerId>, peer: PeerId) {
        let (target, life) = (self.node(&peer), self.nodes[node].life);
        let helper = via.map_or(node, |via| self.node(&via));
        let linked = self.are_linked(node, helper) && self.are_linked(helper, target);
        let reached = linked && self.is_up(target) && self.is_up(helper) && !self.dice.percent(self.loss);
        // What is not there may be refused at once, or not answered at all.
        let delay = if reached || self.dice.percent(50) { 1 + self.dice.below(20) } else { 500 };
        self.at(delay, Thing::Probed { node, life, peer, via, reached });
    }

    fn are_linked(&self, one: usize, other: usize) -> bool {
        self.nodes[one].side == self.nodes[other].side
    }

    fn transmit(&mut self, from: usize, to: usize, thing: Thing) {
        if self.are_linked(from, to) && !self.dice.percent(self.loss) {
            let delay = 1 + self.dice.below(self.delay_ms);
            self.at(delay, thing);
        }
    }

    fn feed(&mut self, node: usize, event: Event) {
        let mut out = Outbox::new();
        let Some((_, election)) = &mut self.nodes[node].up else { return };
        election.handle(self.now, event, &mut out);
        let life = self.nodes[node].life;
        let actions: Vec<Action> = out.drain().collect();
        if actions.iter().any(|action| matches!(action, Action::Ask { .. })) {
            self.seen.push(Seen { at: self.now, node, what: What::Stands });
        }
        for action in actions {
            match action {
                Action::Ask { to, message } => self.ask(node, self.node(&to), &message),
                Action::Answer { call, message } => {
                    self.messages += 1;
                    let Some((asker, _, _)) = self.calls.get(&call).copied() else { continue };
                    self.transmit(node, asker, Thing::Answer { call, bytes: Some(message.encode()) });
                }
                Action::Tell { to, message } => {
                    self.messages += 1;
                    let to = self.node(&to);
                    self.transmit(node, to, Thing::Tell { from: node, to, bytes: message.encode() });
                }
                // A slow disk, that is.
                Action::Keep { counter } => self.at(20, Thing::Kept { node, life, counter }),
                Action::Arm { at, timer } => {
                    self.armed.insert((node, timer), at);
                    self.at(at.since(self.now).0, Thing::Timer { node, life, timer, at });
                }
                Action::Publicise(Fact::Elected(record)) if record.coordinator == self.peer(node) => {
                    self.on_claim(node, record);
                }
                Action::Publicise(_) => {}
            }
        }
    }

    fn ask(&mut self, from: usize, to: usize, message: &Message) {
        self.messages += 1;
        self.next_call += 1;
        let call = self.next_call;
        self.calls.insert(call, (from, self.nodes[from].life, to));
        self.transmit(from, to, Thing::Ask { from, to, call, bytes: message.encode() });
        self.at(limits::ELECTION_ANSWER.0, Thing::Answer { call, bytes: None });
    }

    fn on_claim(&mut self, node: usize, record: Record) {
        let Node { boot, life, .. } = self.nodes[node];
        let claim = record.claim;
        // What a start forgets, the others may not know either; but no claim is made twice.
        let is_back = |(before, life_then): &(Claim, u64)| {
            let is_known = *life_then == life || before.counter < boot << BOOT_SHIFT;
            claim == *before || (is_known && claim < *before)
        };
        let claims = self.claims.entry(node).or_default();
        if let Some((before, _)) = claims.iter().find(|before| is_back(before)) {
            self.violation.get_or_insert(format!("node {node} claims {claim:?} after {before:?}"));
        }
        claims.push((claim, life));
        let what = What::Takes(record.claim, record.reason);
        self.seen.push(Seen { at: self.now, node, what });
    }
}
