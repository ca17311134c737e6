//! A node's part in tasks: the election, the history of tasks and the work, wired as the real driver wires
//! them. A picture is only a number here; an answer names the assignment under which it was made.

mod errands;
mod serve;

use std::collections::BTreeMap;

use tintype::{
    model::{
        Millis, PeerId, limits,
        member::{Epoch, Founding},
        rpc::NodeState,
        task::{Claim, Rank, TaskId, TaskKind, TaskRecord, Verdict},
    },
    proto::{
        Outbox,
        election::{self, Election},
        errand::{End, Question, Reply},
        history::{self, CallId, History, Means, Worker},
    },
};

pub use self::errands::Errands;
use super::{
    links::Party,
    node::{Asked, TimerKey},
    world::{Packet, Thing, World},
};

/// Tasks that a node works on at once, and that wait behind them.
const SLOTS: usize = 2;
const QUEUE: usize = 2;
/// How long a coordinator waits for a worker's word.
const RESERVE_PATIENCE: Millis = Millis(500);

/// What nodes and clients say to each other about tasks.
#[derive(Clone, Debug)]
pub enum Said {
    /// Of the election; with a number it wants an answer.
    Election {
        number: Option<u64>,
        message: Vec<u8>,
    },
    ElectionAnswer {
        number: u64,
        message: Vec<u8>,
    },
    /// Gossip.
    Record(TaskRecord),
    Reserve {
        number: u64,
        record: TaskRecord,
    },
    Verdict {
        number: u64,
        verdict: Verdict,
    },
    Tasks {
        number: u64,
        after: Option<TaskId>,
    },
    Page {
        number: u64,
        records: Vec<TaskRecord>,
        next: Option<TaskId>,
    },
    Question {
        number: u64,
        task: TaskId,
        question: Question,
    },
    Reply {
        number: u64,
        reply: Reply,
    },
    Give {
        number: u64,
        task: TaskId,
        rank: Rank,
    },
    Gave {
        number: u64,
        end: End,
    },
    Take {
        number: u64,
        task: TaskId,
        rank: Rank,
    },
    Took {
        number: u64,
        end: End,
        made: Option<Rank>,
    },
}

impl Said {
    /// Its number, and some bytes that tell it from others; to write all of it out takes long.
    pub fn mark(&self) -> (u64, Vec<u8>) {
        let of_rank = |rank: &Rank| [rank.claim.counter.to_le_bytes(), rank.attempt.to_le_bytes()].concat();
        match self {
            Said::Election { number, message } => (number.unwrap_or(0), message.clone()),
            Said::ElectionAnswer { number, message } => (*number, message.clone()),
            Said::Record(record) => (record.task.number, of_rank(&record.rank)),
            Said::Reserve { number, record } => (*number, of_rank(&record.rank)),
            Said::Give { number, rank, .. } | Said::Take { number, rank, .. } => (*number, of_rank(rank)),
            Said::Page { number, records, .. } => (*number, records.len().to_le_bytes().to_vec()),
            Said::Verdict { number, .. }
            | Said::Tasks { number, .. }
            | Said::Question { number, .. }
            | Said::Reply { number, .. }
            | Said::Gave { number, .. }
            | Said::Took { number, .. } => (*number, Vec::new()),
        }
    }
}

/// What a heartbeat says of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    pub claim: Option<Claim>,
    pub digest: u64,
    pub tasks: u64,
    pub slots: u64,
    pub places: u64,
}

/// A question of a node about tasks.
#[derive(Clone, Debug)]
pub enum AskedOf {
    Election { peer: PeerId },
    Place { peer: PeerId, task: TaskId, rank: Rank },
    Tasks { peer: PeerId, after: Option<TaskId> },
}

/// The machines of one node's process, and what they work with.
pub struct Tasks {
    pub election: Election,
    pub history: History,
    /// What the last heartbeat of each other node said.
    heard: BTreeMap<PeerId, Beside>,
    /// Pictures that are expected, under which assignment, and whether they are here.
    expected: BTreeMap<TaskId, (Rank, bool)>,
    answers: BTreeMap<TaskId, Rank>,
    running: usize,
    submissions: BTreeMap<CallId, (Party, u64)>,
    elections: BTreeMap<u64, (Party, u64)>,
    next_call: u64,
}

impl Tasks {
    pub fn new(me: PeerId, founding: Founding, boot: u64, kept: u64, seed: [u8; 32]) -> Self {
        let means = Means { slots: SLOTS, queue: QUEUE, kinds: vec![TaskKind("hide".into())] };
        let config = history::Config { me, founding: founding.clone(), means };
        let epoch = Epoch::FOUNDING;
        Self {
            election: Election::new(election::Config { me, founding, epoch, boot, kept, seed }),
            history: History::new(config),
            heard: BTreeMap::new(),
            expected: BTreeMap::new(),
            answers: BTreeMap::new(),
            running: 0,
            submissions: BTreeMap::new(),
            elections: BTreeMap::new(),
            next_call: 0,
        }
    }

    /// What the next heartbeat says.
    pub fn beside(&mut self) -> Beside {
        let (tasks, slots) = self.history.in_hand();
        let (claim, digest) = (self.election.claim(), self.history.digest());
        Beside { claim, digest, tasks, slots, places: self.history.places() }
    }
}

impl World {
    pub fn tasks(&mut self, node: usize) -> Option<&mut Tasks> {
        let cluster = self.nodes[node].running.as_mut()?.cluster.as_mut()?;
        Some(&mut cluster.tasks)
    }

    // ---- who is here ----

    /// Hands both machines who is alive: after each heartbeat, and when somebody dies.
    pub fn tell_who_is_here(&mut self, node: usize) {
        let me = self.nodes[node].peer;
        let Some(cluster) = self.nodes[node].running.as_mut().and_then(|r| r.cluster.as_mut()) else {
            return;
        };
        let own = cluster.tasks.beside();
        let mut workers = BTreeMap::new();
        for (peer, seen) in cluster.membership.view() {
            let beside = if *peer == me { Some(own) } else { cluster.tasks.heard.get(peer).copied() };
            let beside = beside.unwrap_or_default();
            let worker = Worker {
                is_alive: seen.state == NodeState::Alive && seen.last.is_some(),
                is_dead: seen.state == NodeState::Dead,
                load_centi: seen.last.as_ref().map_or(0, |last| last.vitals.load_centi),
                tasks: beside.tasks,
                slots: beside.slots,
                places: beside.places,
            };
            workers.insert(*peer, worker);
        }
        let alive = workers.iter().filter(|(_, worker)| worker.is_alive);
        let alive = alive.map(|(peer, worker)| (*peer, worker.load_centi)).collect();
        self.feed_election(node, election::Event::View { alive });
        self.feed_history(node, history::Event::Workers(workers));
    }

    pub fn member_is_dead(&mut self, node: usize, peer: PeerId) {
        self.feed_election(node, election::Event::Dead { peer });
        self.tell_who_is_here(node);
    }

    /// A heartbeat that membership has taken in.
    pub fn hear_beside(&mut self, node: usize, from: PeerId, beside: Beside) {
        let Some(tasks) = self.tasks(node) else { return };
        tasks.heard.insert(from, beside);
        let differs = tasks.history.digest() != beside.digest;
        self.feed_election(node, election::Event::Heard { from, claim: beside.claim });
        if differs {
            self.feed_history(node, history::Event::Differs { peer: from });
        }
    }

    // ---- the election ----

    pub fn feed_election(&mut self, node: usize, event: election::Event) {
        let (clock, mut out) = (self.clock(node), Outbox::new());
        let Some(tasks) = self.tasks(node) else { return };
        tasks.election.handle(clock, event, &mut out);
        for action in out.drain().collect::<Vec<_>>() {
            self.execute_election(node, action);
        }
    }

    fn execute_election(&mut self, node: usize, action: election::Action) {
        use election::Action;
        match action {
            Action::Ask { to, message } => {
                let number = self.next_number();
                let asked = Asked::OfTasks(AskedOf::Election { peer: to });
                self.wait_for(node, number, asked, limits::ELECTION_ANSWER);
                self.say(node, &to, Said::Election { number: Some(number), message: message.encode() });
            }
            Action::Answer { call, message } => {
                let asked = self.tasks(node).and_then(|tasks| tasks.elections.remove(&call));
                let Some((who, number)) = asked else {
                    return self.fail(|| format!("node {node} answers a candidate that did not ask"));
                };
                let answer = Said::ElectionAnswer { number, message: message.encode() };
                self.send(Party::Node(node), who, Packet::OfTasks(answer));
            }
            Action::Tell { to, message } => {
                self.say(node, &to, Said::Election { number: None, message: message.encode() });
            }
            // A full disk takes nothing, and it asks again.
            Action::Keep { .. } if self.nodes[node].store.is_full => {}
            Action::Keep { counter } => {
                let contents = &mut self.nodes[node].store.contents;
                contents.claims = contents.claims.max(counter);
                self.feed_election(node, election::Event::Kept { counter });
            }
            Action::Arm { at, timer } => self.arm(node, TimerKey::Election(timer), at),
            Action::Publicise(election::Fact::Office { claim, mine }) => {
                let own = claim.filter(|_| mine);
                if let Some(claim) = own {
                    let life = self.nodes[node].life;
                    self.tally.elections += 1;
                    let checked = self.oracle.claims.claimed(node, life, claim);
                    self.check(checked);
                }
                self.feed_history(node, history::Event::Office { mine: own, greatest: claim });
            }
            Action::Publicise(election::Fact::Elected(_)) => {}
        }
    }

    /// Says something to another member.
    fn say(&mut self, node: usize, to: &PeerId, said: Said) {
        match self.index_of(to).filter(|to| *to != node) {
            Some(to) => self.send(Party::Node(node), Party::Node(to), Packet::OfTasks(said)),
            None => self.fail(|| format!("node {node} says {said:?} to nobody")),
        }
    }

    // ---- the history of tasks ----

    pub fn feed_history(&mut self, node: usize, event: history::Event) {
        let (clock, mut out) = (self.clock(node), Outbox::new());
        let Some(tasks) = self.tasks(node) else { return };
        tasks.history.handle(clock, event, &mut out);
        let actions: Vec<_> = out.drain().collect();
        let checked = self.oracle.bounds.actions(actions.len());
        self.check(checked);
        for action in actions {
            self.execute_history(node, action);
        }
        self.look_at_places(node);
    }

    fn execute_history(&mut self, node: usize, action: history::Action) {
        use history::Action;
        match action {
            Action::Answer { call, answer } => self.answer_of_tasks(node, call, answer),
            Action::Reserve { to, record } => {
                let number = self.next_number();
                let (task, rank) = (record.task, record.rank);
                let asked = Asked::OfTasks(AskedOf::Place { peer: to, task, rank });
                self.wait_for(node, number, asked, RESERVE_PATIENCE);
                self.say(node, &to, Said::Reserve { number, record });
            }
            Action::Publish { record } => {
                for peer in self.neighbours(Party::Node(node)) {
                    let said = Said::Record(record.clone());
                    self.send(Party::Node(node), Party::Node(peer), Packet::OfTasks(said));
                }
            }
            Action::Exchange { with } => self.ask_for_tasks(node, with, None),
            Action::Expect { record } => {
                let life = self.nodes[node].life;
                let checked = self.oracle.effects.given(node, life, record.task, record.rank);
                self.check(checked);
                if let Some(tasks) = self.tasks(node) {
                    tasks.answers.remove(&record.task);
                    tasks.expected.insert(record.task, (record.rank, false));
                }
            }
            Action::Run { task, rank } => self.run_task(node, task, rank),
            Action::Drop { task } => {
                if let Some(tasks) = self.tasks(node) {
                    tasks.expected.remove(&task);
                    tasks.answers.remove(&task);
                }
            }
            Action::Outranked { counter } => self.feed_election(node, election::Event::Above { counter }),
            Action::Arm { at, timer } => self.arm(node, TimerKey::History(timer), at),
            Action::Publicise(_) => self.tally.moved += 1,
        }
    }

    fn ask_for_tasks(&mut self, node: usize, with: PeerId, after: Option<TaskId>) {
        let number = self.next_number();
        let asked = Asked::OfTasks(AskedOf::Tasks { peer: with, after });
        self.wait_for(node, number, asked, limits::RPC_TIMEOUT);
        self.say(node, &with, Said::Tasks { number, after });
    }

    // ---- the work ----

    fn run_task(&mut self, node: usize, task: TaskId, rank: Rank) {
        let life = self.nodes[node].life;
        let slow = self.dice.permille(50);
        let takes = self.dice.between(5, if slow { 4000 } else { 500 });
        let Some(tasks) = self.tasks(node) else { return };
        tasks.running += 1;
        let (running, has_it) = (tasks.running, tasks.expected.get(&task) == Some(&(rank, true)));
        if running > SLOTS || !has_it {
            return self.fail(|| format!("node {node} is to run {task:?}: {running} run, picture: {has_it}"));
        }
        if !self.plan.wrong.loses_work {
            self.after(takes, Thing::Worked { node, life, task, rank });
        }
    }

    pub fn worked(&mut self, node: usize, task: TaskId, rank: Rank) {
        let Some(tasks) = self.tasks(node) else { return };
        tasks.running -= 1;
        if tasks.expected.get(&task).is_some_and(|(expected, _)| *expected == rank) {
            tasks.answers.insert(task, rank);
            self.oracle.effects.made(task, rank);
        }
        self.feed_history(node, history::Event::Ran { task, rank, answer_bytes: 0 });
    }

    /// Places are bounded, and each is for an assignment that counts.
    fn look_at_places(&mut self, node: usize) {
        let Some(tasks) = self.tasks(node) else { return };
        let (in_hand, _) = tasks.history.in_hand();
        let held = tasks.expected.len();
        let counts = |(task, (rank, _)): (&TaskId, &(Rank, bool))| {
            let standing = tasks.history.standing(task);
            let record = standing.record.filter(|record| record.rank == *rank && record.phase.is_in_hand());
            record.is_some() && standing.place.is_some()
        };
        let all_count = tasks.expected.iter().all(counts);
        let is_bounded = in_hand <= (2 * SLOTS + QUEUE) as u64 && held <= 2 * (SLOTS + QUEUE);
        if !all_count || !is_bounded {
            self.fail(|| format!("node {node} has {in_hand} in hand, holds {held}; all count: {all_count}"));
        }
    }
}
