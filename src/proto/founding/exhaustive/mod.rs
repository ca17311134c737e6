//! Every state that four nodes, of which three are to found a cluster, can come to within stated bounds: the
//! real machine under stateright.
//!
//! **What is one state**: the machines, what lies on each disk and what waits for it, and all messages ever
//! said (none is ever taken away: each may arrive late, again, or never). **A step**: a message arrives, the
//! oldest write of a node is durable, a node ticks, a node waits so long that all others are silent to it, a
//! node dies and starts again.
//!
//! **What must hold** in each: all foundings on disks are one; all its members durably voted for it, its
//! proposer among them, so none that was aborted is ever founded; a founded disk never changes; a vote leaves
//! a disk only once its proposer's disk has it no more.
//!
//! **What is left out**, and why nothing is lost by it: what a node heard of the others is forgotten after
//! each step, since it may hear it again, and two candidates are heard of in one step; what a tick repeats
//! is said at once; a node that is down is a slow one, so death and restart are one step; once nobody dies
//! any more, writes are durable at once.
//! **Bounds**: how many deaths there are, all nodes together, how often a node waits that long, how many
//! proposals one start of a node makes.
//! **What is not checked here**: wiped disks, other numbers of nodes, and that it comes to an end.

mod node;
mod right;
mod wrong;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use stateright::{Checker, HasDiscoveries, Model, Property};

use self::node::{Node, Stepped};
use super::{FoundingRecord, Message, Standing, Variant};
use crate::proto::testing::{Met, peers};

/// The bounds of one check.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    variant: Variant,
    nodes: usize,
    expect: usize,
    deaths: u8,
    waits: u8,
    /// Of one start of a node.
    proposals: u64,
}

/// The whole, by the numbers that its parts have in the tables.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    nodes: Vec<u32>,
    /// In order.
    sent: Vec<u32>,
    deaths: u8,
    waits: u8,
    /// What a step did that must not be.
    broken: Option<&'static str>,
}

/// What happens to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// A message arrives, again perhaps.
    Deliver(u32),
    /// Two others say that they are candidates.
    Candidates(u32, u32),
    /// Its oldest write is durable.
    Sync,
    /// A second is over.
    Tick,
    /// Ten seconds are over, in which it heard of nobody.
    Wait,
    /// It dies and starts again.
    Restart,
}

/// One step of one node.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Move {
    node: usize,
    step: Step,
}

/// A message under way for ever.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sent {
    from: usize,
    to: usize,
    message: Message,
}

/// What a step does.
struct Effect {
    node: u32,
    sends: Vec<u32>,
}

/// All that was met so far, and where each step of a node leads.
struct Tables {
    nodes: Met<[u8; 32], Node>,
    sent: Met<Sent, Sent>,
    effects: HashMap<(u32, Step), Option<Arc<Effect>>>,
}

/// Bounds, and what was met within them so far.
struct Check {
    bounds: Bounds,
    tables: Mutex<Tables>,
}

/// What a check saw.
#[derive(Debug)]
struct Report {
    /// What does not hold, and the way there.
    violation: Option<(&'static str, Vec<String>)>,
    /// What was to be seen at least once and was not.
    unseen: Vec<&'static str>,
}

impl Tables {
    fn enter(&mut self, stepped: Stepped, bounds: &Bounds) -> Effect {
        let Stepped { node, sends } = stepped;
        let from = node.index;
        let all = peers(bounds.nodes);
        let mut sent = Vec::new();
        for send in sends {
            let to = all.iter().position(|peer| *peer == send.to).expect("a message to one of the nodes");
            let message = Sent { from, to, message: send.message };
            sent.push(self.sent.number(message.clone(), message));
        }
        Effect { node: self.nodes.number(node.essence(), node), sends: sent }
    }

    /// Where this step of this node leads; none if it cannot be taken within the bounds.
    fn effect(&mut self, node: u32, step: Step, bounds: &Bounds) -> Option<Arc<Effect>> {
        if let Some(known) = self.effects.get(&(node, step)) {
            return known.clone();
        }
        let stepped = self.take(node, step, bounds).filter(|s| s.node.proposals() <= bounds.proposals);
        let effect = stepped.map(|stepped| Arc::new(self.enter(stepped, bounds)));
        self.effects.insert((node, step), effect.clone());
        effect
    }

    fn take(&self, node: u32, step: Step, bounds: &Bounds) -> Option<Stepped> {
        let node = self.nodes.get(node);
        Some(match step {
            Step::Deliver(sent) => {
                let Sent { from, message, .. } = self.sent.get(sent);
                node.hear(&[(peers(bounds.nodes)[*from], message)])
            }
            Step::Candidates(..) if !node.is_pristine() => return None,
            Step::Candidates(one, other) => {
                let all = peers(bounds.nodes);
                let word = |sent: u32| (all[self.sent.get(sent).from], &self.sent.get(sent).message);
                node.hear(&[word(one), word(other)])
            }
            Step::Sync if node.writes.is_empty() => return None,
            Step::Sync => node.sync(),
            Step::Tick => node.tick(),
            Step::Wait => node.wait(),
            Step::Restart => Node::start(node.index, node.boot + 1, node.disk.clone(), bounds),
        })
    }

    fn disks(&self, state: &State) -> Vec<&FoundingRecord> {
        state.nodes.iter().map(|node| &self.nodes.get(*node).disk).collect()
    }
}

impl Check {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all_moves(&self, state: &State, tables: &Tables) -> Vec<Move> {
        let mut moves = Vec::new();
        for node in 0..state.nodes.len() {
            let mut add = |is_possible: bool, step| {
                if is_possible {
                    moves.push(Move { node, step });
                }
            };
            add(true, Step::Sync);
            add(true, Step::Tick);
            add(state.waits > 0, Step::Wait);
            add(state.deaths > 0, Step::Restart);
        }
        let to = |sent: u32| tables.sent.get(sent).to;
        moves.extend(state.sent.iter().map(|s| Move { node: to(*s), step: Step::Deliver(*s) }));
        let is_candidate = |sent: u32| {
            let message = &tables.sent.get(sent).message;
            matches!(message, Message::Announce { standing: Standing::Pristine, .. })
        };
        let candidates: Vec<u32> = state.sent.iter().copied().filter(|s| is_candidate(*s)).collect();
        for (place, one) in candidates.iter().enumerate() {
            let others = candidates[place + 1..].iter().filter(|other| to(**other) == to(*one));
            moves.extend(others.map(|other| Move { node: to(*one), step: Step::Candidates(*one, *other) }));
        }
        moves
    }

    /// Where nobody dies any more a slow disk is a slow node, which hears nothing meanwhile.
    fn sync_all(&self, tables: &mut Tables, next: &mut State) {
        for node in 0..next.nodes.len() {
            while let Some(effect) = tables.effect(next.nodes[node], Step::Sync, &self.bounds) {
                let after = &tables.nodes.get(effect.node).disk;
                let broken = Self::broken(&tables.disks(next), node, after);
                next.broken = next.broken.or(broken);
                next.nodes[node] = effect.node;
                next.say(&effect.sends);
            }
        }
    }

    /// What this change of one disk breaks.
    fn broken(before: &[&FoundingRecord], node: usize, after: &FoundingRecord) -> Option<&'static str> {
        let old = before[node];
        if old.founding.is_some() && old.founding != after.founding {
            return Some("a founded disk changes");
        }
        let vote = old.vote.as_ref().filter(|vote| after.vote.as_ref() != Some(*vote))?;
        let all = peers(before.len());
        let proposer = all.iter().position(|peer| *peer == vote.members[0].peer)?;
        let is_held = proposer != node && before[proposer].vote.as_ref() == Some(vote);
        is_held.then_some("a vote is taken back that its proposer has not aborted")
    }

    fn all_voted(&self, state: &State) -> bool {
        let tables = self.tables();
        let disks = tables.disks(state);
        let all = peers(self.bounds.nodes);
        let mut foundings = disks.iter().filter_map(|disk| disk.founding.as_ref());
        foundings.all(|founding| {
            founding.members.len() == self.bounds.expect
                && founding.members.iter().all(|member| {
                    let node = all.iter().position(|peer| *peer == member.peer);
                    node.is_some_and(|node| disks[node].vote.as_ref() == Some(founding))
                })
        })
    }

    fn one_founding(&self, state: &State) -> bool {
        let tables = self.tables();
        let disks = tables.disks(state);
        let mut foundings = disks.iter().filter_map(|disk| disk.founding.as_ref());
        let first = foundings.next();
        foundings.all(|founding| Some(founding) == first)
    }

    fn describe(&self, chosen: Move) -> String {
        let tables = self.tables();
        match chosen.step {
            Step::Deliver(sent) => {
                let Sent { from, message, .. } = tables.sent.get(sent);
                let what = match message {
                    Message::Announce { standing, .. } => format!("{standing:?}"),
                    Message::Abort { id } => format!("Abort {id:?}"),
                    Message::Propose { .. } => "Propose".into(),
                    Message::Founded { .. } => "Founded".into(),
                };
                format!("{} hears of {from}: {what}", chosen.node)
            }
            step => format!("{} {step:?}", chosen.node),
        }
    }
}

impl State {
    fn say(&mut self, sends: &[u32]) {
        for sent in sends {
            if let Err(place) = self.sent.binary_search(sent) {
                self.sent.insert(place, *sent);
            }
        }
    }
}

impl Model for Check {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        let mut tables = self.tables();
        let Bounds { deaths, waits, nodes, .. } = self.bounds;
        let mut state = State { nodes: Vec::new(), sent: Vec::new(), deaths, waits, broken: None };
        for index in 0..nodes {
            let step = Node::start(index, 1, FoundingRecord::default(), &self.bounds);
            let effect = tables.enter(step, &self.bounds);
            state.nodes.push(effect.node);
            state.say(&effect.sends);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Move>) {
        if state.broken.is_some() {
            return;
        }
        let mut tables = self.tables();
        let moves = self.all_moves(state, &tables);
        actions.extend(moves.into_iter().filter(|chosen| {
            let node = state.nodes[chosen.node];
            tables.effect(node, chosen.step, &self.bounds).is_some_and(|effect| {
                effect.node != node || effect.sends.iter().any(|s| state.sent.binary_search(s).is_err())
            })
        }));
    }

    fn next_state(&self, state: &State, chosen: Move) -> Option<State> {
        let mut tables = self.tables();
        let effect = tables.effect(state.nodes[chosen.node], chosen.step, &self.bounds)?;
        let mut next = state.clone();
        match chosen.step {
            Step::Wait => next.waits -= 1,
            Step::Restart => next.deaths -= 1,
            Step::Sync => {
                let after = &tables.nodes.get(effect.node).disk;
                next.broken = Self::broken(&tables.disks(state), chosen.node, after);
            }
            Step::Deliver(_) | Step::Candidates(..) | Step::Tick => {}
        }
        next.nodes[chosen.node] = effect.node;
        next.say(&effect.sends);
        if next.deaths == 0 {
            self.sync_all(&mut tables, &mut next);
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no step breaks a promise", |_: &Self, state: &State| state.broken.is_none()),
            Property::always("there is one founding", Self::one_founding),
            Property::always("all members of a founding voted for it", Self::all_voted),
            Property::sometimes("all members are founded", |check: &Self, state: &State| {
                let tables = check.tables();
                let founded = tables.disks(state).iter().filter(|disk| disk.founding.is_some()).count();
                founded == check.bounds.expect
            }),
            Property::sometimes("a proposal is aborted", |check: &Self, state: &State| {
                let tables = check.tables();
                state.sent.iter().any(|sent| matches!(tables.sent.get(*sent).message, Message::Abort { .. }))
            }),
        ]
    }
}

/// Goes through all states, or until something does not hold.
fn check(bounds: Bounds) -> Report {
    let (nodes, sent) = (Met::new(), Met::new());
    let tables = Mutex::new(Tables { nodes, sent, effects: HashMap::new() });
    let checker = Check { bounds, tables }.checker();
    let done = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let mut discoveries = done.discoveries();
    let of = |wanted| {
        let properties = done.model().properties().into_iter();
        properties.filter(move |p| p.expectation.discovery_is_failure() == wanted).map(|p| p.name)
    };
    let violation = of(true).find_map(|name| {
        let moves = discoveries.remove(name)?.into_actions();
        Some((name, moves.into_iter().map(|chosen| done.model().describe(chosen)).collect()))
    });
    let unseen = of(false).filter(|name| !discoveries.contains_key(name)).collect();
    let tables = done.model().tables();
    let (unique, all) = (done.unique_state_count(), done.state_count());
    println!("{bounds:?}: {unique} unique states of {all}, depth {}", done.max_depth());
    println!("  a node has {} states, {} messages", tables.nodes.count(), tables.sent.count());
    Report { violation, unseen }
}
