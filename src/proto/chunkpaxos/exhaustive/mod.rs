//! Every state that three acceptors, two of them proposing, can come to within stated bounds: the real
//! machine under stateright.
//!
//! **What is one state**: the three machines, what lies on each disk and what waits for it, all messages
//! ever said (none is ever taken away: each may arrive late, again, or never), and the calls so far.
//! **A step**: a message arrives, the oldest write of a node is durable, a timer rings (early, against the
//! others' clocks, or so late that all calls are past their deadlines), the node that may die dies and
//! starts again, a client makes its next call.
//!
//! **What must hold** in each: the calls are linearizable against [`history::OneRegister`]; what any answer
//! showed is, or is remembered by, the greatest accepted value of every majority of disks; a ballot carries
//! one value.
//!
//! **What is left out**, and why nothing is lost by it: a node that is down is a slow one, so death and
//! restart are one step; on a node that cannot die (any more) a slow disk is a slow message, so there writes
//! are durable at once, unless the scenario says `slow_disks`; an answer to a round that is over gives the
//! machine nothing but a greater number to count on from, and is lost unless the scenario says
//! `late_answers`; a node that will make no call is looked at as an acceptor only.
//! **What bounds it besides**: no more than two writes wait for one disk, reading a record takes no time,
//! and a forwarded call arrives once.
//! **What is not checked here**: more than one object, two members with a mirror, full disks, a handover,
//! and anything beyond the bounds of the scenarios.

mod history;
mod node;
mod right;
mod scenario;
mod tables;
mod wrong;

use std::sync::{Mutex, MutexGuard, PoisonError};

use stateright::{Checker, HasDiscoveries, Model, Path, Property};

use self::{
    history::{History, remembers},
    node::{Node, Word},
    scenario::{After, Cluster, Scenario},
    tables::{Effect, Sent, Step, Tables},
};
use super::Accepted;

/// The whole, by the numbers that its parts have in the tables.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    nodes: [u32; 3],
    /// In order.
    sent: Vec<u32>,
    history: u32,
    clients: Vec<Progress>,
    may_die: bool,
    fires: u8,
    give_ups: u8,
}

/// Where a client is in its list of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Progress {
    /// It may make this call.
    Next(usize),
    /// It waits for the answer to this one.
    Waits(usize),
    /// It will never know what became of a call.
    Lost,
}

/// One step of one node.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Move {
    node: usize,
    step: Step,
}

/// A scenario and what was met in it so far.
struct Check {
    scenario: Scenario,
    cluster: Cluster,
    tables: Mutex<Tables>,
}

/// What a check saw.
#[derive(Debug)]
struct Report {
    unique_states: usize,
    states: usize,
    depth: usize,
    /// What does not hold, and the way there.
    violation: Option<(&'static str, Vec<String>)>,
    /// What was to be seen at least once and was not.
    unseen: Vec<&'static str>,
}

impl Check {
    fn new(scenario: Scenario) -> Self {
        let cluster = || Cluster::new(&scenario);
        let tables = Mutex::new(Tables::new(cluster(), scenario.clone()));
        Self { cluster: cluster(), tables, scenario }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a move leads; none if it cannot be made.
    fn effect(&self, tables: &mut Tables, state: &State, chosen: Move) -> Option<std::sync::Arc<Effect>> {
        tables.effect(state.nodes[chosen.node], chosen.step)
    }

    /// The next call of a client, if it may make one.
    fn next_call(&self, state: &State, client: usize) -> Option<Move> {
        let Progress::Next(number) = state.clients[client] else { return None };
        let is_due = match self.scenario.clients[client].after {
            After::Start => true,
            After::Restart => !state.may_die,
            After::Client(other) => match state.clients[other] {
                Progress::Next(next) => next == self.scenario.clients[other].calls.len(),
                Progress::Waits(_) => false,
                Progress::Lost => true,
            },
        };
        let (node, _) = *self.scenario.clients[client].calls.get(number).filter(|_| is_due)?;
        Some(Move { node, step: Step::Call { client, number } })
    }

    fn all_moves(&self, state: &State) -> Vec<Move> {
        let mut moves: Vec<Move> =
            (0..state.clients.len()).filter_map(|client| self.next_call(state, client)).collect();
        let tables = self.tables();
        for node in 0..3 {
            let known = tables.nodes.get(state.nodes[node]);
            let works = !known.machine.is_idle();
            let mut add = |is_possible: bool, step| {
                if is_possible {
                    moves.push(Move { node, step });
                }
            };
            add(!known.writes.is_empty(), Step::Sync);
            add(state.fires > 0 && works && known.has_timer(), Step::Fire);
            add(state.give_ups > 0 && works && known.has_timer(), Step::GiveUp);
            let fast_disk = !self.scenario.slow_disks;
            add(state.may_die && self.scenario.dies == Some(node), Step::Restart { fast_disk });
        }
        let to = |sent: u32| tables.sent.get(sent).to;
        moves.extend(state.sent.iter().map(|s| Move { node: to(*s), step: Step::Deliver(*s) }));
        moves
    }

    fn apply(&self, tables: &mut Tables, state: &State, chosen: Move, effect: &Effect) -> State {
        let mut next = state.clone();
        match chosen.step {
            Step::Fire => next.fires -= 1,
            Step::GiveUp => next.give_ups -= 1,
            Step::Restart { .. } => {
                next.may_die = false;
                for (client, progress) in next.clients.iter_mut().enumerate() {
                    if let Progress::Waits(number) = *progress
                        && self.scenario.clients[client].calls[number].0 == chosen.node
                    {
                        *progress = Progress::Lost;
                    }
                }
            }
            Step::Call { client, number } => {
                next.clients[client] = Progress::Waits(number);
                let command = tables.command(client, number);
                let history = tables.histories.get(next.history).invoke(client as u64, command);
                next.history = tables.history_number(history);
            }
            Step::Deliver(sent) if tables.sent.get(sent).is_forward() => next.sent.retain(|s| *s != sent),
            Step::Deliver(_) | Step::Sync | Step::Retire => {}
        }
        next.nodes[chosen.node] = effect.node;
        next.say(&effect.sends);
        self.answer(tables, &mut next, effect);
        self.settle(tables, &mut next, chosen.node);
        next
    }

    fn answer(&self, tables: &mut Tables, next: &mut State, effect: &Effect) {
        for (client, shown) in &effect.answers {
            let Progress::Waits(number) = next.clients[*client] else { continue };
            let Some(shown) = shown else {
                next.clients[*client] = Progress::Lost;
                continue;
            };
            let command = tables.command(*client, number);
            let before = tables.histories.get(next.history);
            let history = before.answer(*client as u64, &command, shown.clone());
            next.history = tables.history_number(history);
            next.clients[*client] = Progress::Next(number + 1);
        }
    }

    /// Forgets what can do nothing any more.
    fn settle(&self, tables: &mut Tables, next: &mut State, changed: usize) {
        let will_call = |(client, progress): (usize, &Progress)| {
            let calls = &self.scenario.clients[client].calls;
            match progress {
                Progress::Next(from) | Progress::Waits(from) => {
                    calls[*from..].iter().any(|(node, _)| *node == changed)
                }
                Progress::Lost => false,
            }
        };
        let node = tables.nodes.get(next.nodes[changed]);
        let is_done = node.machine.is_idle() && !next.clients.iter().enumerate().any(will_call);
        if is_done
            && !node.retired
            && !self.scenario.forwards
            && let Some(retired) = tables.effect(next.nodes[changed], Step::Retire)
        {
            next.nodes[changed] = retired.node;
        }
        if self.scenario.repairs {
            let repairs = tables.repairs(&next.nodes);
            next.say(&repairs);
        }
        let nodes = next.nodes;
        next.sent.retain(|sent| !tables.is_dead(&nodes, *sent));
    }

    fn greatest_holds_what_was_shown(&self, state: &State) -> bool {
        let tables = self.tables();
        let shown = &tables.histories.get(state.history).shown;
        let disks = tables.disks(&state.nodes).map(|disk| disk.and_then(|disk| disk.accepted.as_ref()));
        let greatest = |a: usize, b: usize| disks[a].into_iter().chain(disks[b]).max_by_key(|x| x.ballot);
        [greatest(0, 1), greatest(1, 2), greatest(2, 0)].iter().all(|greatest| {
            shown.iter().all(|value| greatest.is_some_and(|accepted| remembers(&accepted.value, value)))
        })
    }

    fn one_value_a_ballot(&self, state: &State) -> bool {
        let tables = self.tables();
        let disks = tables.disks(&state.nodes).map(|disk| disk.and_then(|disk| disk.accepted.as_ref()));
        let differ = |a: Option<&Accepted>, b: Option<&Accepted>| {
            a.zip(b).is_some_and(|(a, b)| a.ballot == b.ballot && a.value != b.value)
        };
        !differ(disks[0], disks[1]) && !differ(disks[1], disks[2]) && !differ(disks[2], disks[0])
    }

    fn describe(&self, chosen: Move) -> String {
        let who = ["home", "other", "third"];
        let tables = self.tables();
        let what = match chosen.step {
            Step::Deliver(sent) => {
                let Sent { from, word, .. } = tables.sent.get(sent);
                match word {
                    Word::Lane(message) => format!("hears of {}: {:?}", who[*from], message.body),
                    Word::Repair(accepted) => format!("is repaired: {accepted:?}"),
                }
            }
            Step::Call { client, number } => {
                format!("is asked by client {client}: {:?}", self.scenario.clients[client].calls[number].1)
            }
            step => format!("{step:?}"),
        };
        format!("{} {what}", who[chosen.node])
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
        let nodes = [0, 1, 2].map(|index| {
            let machine = self.cluster.machine(&self.scenario, index, 1);
            let fast_disk = self.scenario.has_fast_disk(index);
            tables.node_number(Node::new(index, self.cluster.peers[index], machine, 1, fast_disk))
        });
        let Scenario { dies, fires, give_ups, .. } = self.scenario;
        let mut state = State {
            nodes,
            sent: Vec::new(),
            history: tables.history_number(History::new()),
            clients: vec![Progress::Next(0); self.scenario.clients.len()],
            may_die: dies.is_some(),
            fires,
            give_ups,
        };
        (0..3).for_each(|node| self.settle(&mut tables, &mut state, node));
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Move>) {
        let moves = self.all_moves(state);
        let mut tables = self.tables();
        actions.extend(moves.into_iter().filter(|chosen| {
            self.effect(&mut tables, state, *chosen).is_some_and(|effect| {
                let is_heard = effect.node != state.nodes[chosen.node] || !effect.answers.is_empty();
                is_heard || effect.sends.iter().any(|sent| state.sent.binary_search(sent).is_err())
            })
        }));
    }

    fn next_state(&self, state: &State, chosen: Move) -> Option<State> {
        let mut tables = self.tables();
        let effect = self.effect(&mut tables, state, chosen)?;
        let next = self.apply(&mut tables, state, chosen, &effect);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the calls are linearizable", |check: &Self, state: &State| {
                check.tables().histories.get(state.history).is_linearizable
            }),
            Property::always("what was shown is kept", Self::greatest_holds_what_was_shown),
            Property::always("a ballot carries one value", Self::one_value_a_ballot),
            Property::sometimes("every call is answered", |check: &Self, state: &State| {
                let calls = |client: usize| check.scenario.clients[client].calls.len();
                let is_done = |(n, progress): (usize, &Progress)| *progress == Progress::Next(calls(n));
                state.clients.iter().enumerate().all(is_done)
            }),
        ]
    }
}

/// Goes through all states, or until something does not hold.
fn check(scenario: &Scenario) -> Report {
    let checker = Check::new(scenario.clone()).checker();
    let done = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let model = done.model();
    let mut discoveries = done.discoveries();
    let always = ["the calls are linearizable", "what was shown is kept", "a ballot carries one value"];
    let violation = always.into_iter().find_map(|name| {
        let path: Path<State, Move> = discoveries.remove(name)?;
        Some((name, path.into_actions().into_iter().map(|chosen| model.describe(chosen)).collect()))
    });
    let unseen = ["every call is answered"].into_iter().filter(|name| !discoveries.contains_key(name));
    let report = Report {
        unique_states: done.unique_state_count(),
        states: done.state_count(),
        depth: done.max_depth(),
        violation,
        unseen: unseen.collect(),
    };
    let tables = model.tables();
    println!(
        "{}, {:?}: {} unique states of {}, depth {}; a node has {} states, {} messages, {} histories",
        scenario.name,
        scenario.variant,
        report.unique_states,
        report.states,
        report.depth,
        tables.nodes.count(),
        tables.sent.count(),
        tables.histories.count(),
    );
    drop(tables);
    report
}
