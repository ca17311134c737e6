//! One task as its client sees it: find the coordinator, bring the picture to the worker, ask, take the
//! answer, and begin again with another worker when one does not serve.
//!
//! It makes at most one answer count, and only one of the greatest assignment that it knows. It never gives
//! up by itself, except when told to or after the time that the user set. Driven by `client::tasks`; it sees
//! no picture and knows no connection.
//!
//! # Driving it
//! Every [`Action::Ask`] is answered by exactly one [`Event::Answered`], with no reply if none came in time.
//! [`Action::Give`] and [`Action::Take`] end what was being given or taken before, and are answered by
//! [`Event::Gave`] and [`Event::Took`]; answers that come for an earlier assignment are ignored.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::{
    model::{
        Millis, PeerId, limits,
        member::Founding,
        task::{Phase, Place, Rank, Standing, Submitted, TaskId, TaskRecord},
    },
    proto::Outbox,
};

/// What a machine is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The task.
    pub task: TaskId,
    /// Who belongs to the cluster.
    pub founding: Founding,
    /// When to give up; none = never.
    pub give_up_at: Option<Millis>,
}

/// What happens to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "each is handed in and gone")]
pub enum Event {
    /// Begin. Handed in once, first.
    Start,
    /// The nodes that can be spoken to now, the preferred ones first.
    Nodes(Vec<PeerId>),
    /// What a node answered.
    Answered {
        /// Who was asked.
        from: PeerId,
        /// What it said; none = nothing in time.
        reply: Option<Reply>,
    },
    /// How bringing the picture went.
    Gave {
        /// Under which assignment.
        rank: Rank,
        /// What came of it.
        end: End,
    },
    /// How fetching the answer went.
    Took {
        /// Under which assignment.
        rank: Rank,
        /// What came of it.
        end: End,
    },
    /// Nobody wants it any more.
    Cancel,
    /// An armed timer is due.
    Timer(Timer),
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Well.
    Done,
    /// The worker refused it: this assignment is not one that it knows, or not any more.
    Refused,
    /// Nothing moved, or the connection broke.
    Broke,
}

/// A question to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Have this done.
    Submit {
        /// The greatest assignment known, which did not serve.
        above: Option<Rank>,
        /// Workers that did not serve.
        avoid: Vec<PeerId>,
    },
    /// How far is it?
    Poll,
    /// The answer is here.
    Acknowledge,
    /// It shall end.
    Cancel,
}

/// What a node can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Question::Submit`].
    Submitted(Submitted),
    /// To [`Question::Poll`].
    Standing(Standing),
    /// To the others.
    Done,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask this node, and report [`Event::Answered`].
    Ask {
        /// Whom.
        to: PeerId,
        /// What.
        question: Question,
    },
    /// Bring the payload to this worker, what it lacks of it, and report [`Event::Gave`].
    Give {
        /// To whom.
        worker: PeerId,
        /// Under which assignment.
        rank: Rank,
    },
    /// Fetch the answer from this worker, and report [`Event::Took`].
    Take {
        /// From whom.
        worker: PeerId,
        /// Of which assignment.
        rank: Rank,
    },
    /// The answer taken under this assignment is the one that counts. Said at most once.
    Effective {
        /// Which.
        rank: Rank,
    },
    /// It is over. Said once, last.
    End(Verdict),
    /// What it waits for has changed.
    Publicise(Waiting),
    /// Hand in this timer at or after `at`; replaces its earlier arming.
    Arm {
        /// When.
        at: Millis,
        /// Which.
        timer: Timer,
    },
}

/// How a task ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// With an answer, good or bad; it was said to be effective before.
    Answered,
    /// Somebody has cancelled it.
    Cancelled,
    /// It took longer than the user wanted to wait.
    TimedOut,
    /// No node knows work of this kind.
    UnknownKind,
}

/// What a client waits for, for the person who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// No node answers.
    NoNode,
    /// The nodes that answer have no coordinator: less than half of them are there.
    NoCoordinator,
    /// All places of all workers are taken.
    Busy {
        /// Tasks in hand.
        tasks: u64,
        /// Tasks that can be.
        places: u64,
    },
    /// The picture is on its way to this worker.
    Giving(PeerId),
    /// It waits its turn there.
    Queued {
        /// Where.
        worker: PeerId,
        /// So many come first.
        ahead: u64,
    },
    /// This worker works.
    Working(PeerId),
    /// The answer is on its way.
    Taking(PeerId),
    /// This worker does not serve; another is sought.
    Moving(PeerId),
}

/// The machine's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Look what is next.
    Wake,
}

/// The first time between two polls, and the longest: most tasks take less than a second. A worker answers
/// a poll when there is something to say (`proto::history`); this is for one that answers at once.
const POLL_FIRST: Millis = Millis(30);
const POLL_LONGEST: Millis = limits::TASK_POLL_HOLD;
/// The pause before a coordinator that could not say is asked again.
const AGAIN: Millis = Millis(100);
/// The first time between two questions to a full cluster, and the longest: a coordinator lets a client wait
/// in line, and keeps its turn if it asks again soon.
const BUSY_FIRST: Millis = Millis(200);
const BUSY_LONGEST: Millis = limits::TASK_LINE_HOLD;
/// The longest pause of one that no worker serves.
const MOVE_LONGEST: Millis = Millis(2000);
/// A worker that did not serve is passed over at once; each next within this time waits longer, so that a
/// cluster that does not serve at all is not asked without end.
const MOVES_FORGOTTEN: Millis = Millis(10_000);
/// Transfers of one assignment that may lead nowhere without being broken.
const SETBACKS_MAX: u32 = 8;
/// Questions in a row that a worker may leave unanswered: with the patience of each, half a second and more.
const STRIKES: u32 = 2;

/// One task of one client.
#[derive(Debug)]
pub struct Errand {
    config: Config,
    nodes: Vec<PeerId>,
    /// The greatest assignment that it knows.
    known: Option<TaskRecord>,
    /// Workers that did not serve; the longest ago first.
    avoid: Vec<PeerId>,
    stage: Stage,
    /// Whom it asked and who has not answered.
    asked: Option<PeerId>,
    /// When it did.
    asked_at: Millis,
    /// Who did not know the coordinator, since one was last found.
    fruitless: BTreeSet<PeerId>,
    coordinator: Option<PeerId>,
    pause: Millis,
    strikes: u32,
    /// Transfers of this assignment that led nowhere.
    setbacks: u32,
    /// Workers that did not serve of late, and when the last did not.
    moves: u32,
    moved_at: Option<Millis>,
    waiting: Option<Waiting>,
    /// When the pause ends.
    next_at: Option<Millis>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Seeking,
    Giving,
    Polling,
    Taking,
    Over,
}

impl Errand {
    /// A task that nobody has heard of.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            nodes: Vec::new(),
            known: None,
            avoid: Vec::new(),
            stage: Stage::Seeking,
            asked: None,
            asked_at: Millis(0),
            fruitless: BTreeSet::new(),
            coordinator: None,
            pause: BUSY_FIRST,
            strikes: 0,
            setbacks: 0,
            moves: 0,
            moved_at: None,
            waiting: None,
            next_at: None,
        }
    }

    /// Takes one event in and says what to do.
    pub fn handle(&mut self, now: Millis, event: Event, out: &mut Outbox<Action>) {
        if self.stage == Stage::Over {
            return;
        }
        match event {
            Event::Start => self.go_on(now, out),
            Event::Nodes(nodes) => self.on_nodes(nodes, now, out),
            Event::Answered { from, reply } => self.on_answer(from, reply, now, out),
            Event::Gave { rank, end } => self.on_gave(rank, end, now, out),
            Event::Took { rank, end } => self.on_took(rank, end, now, out),
            Event::Cancel => self.give_up(Verdict::Cancelled, out),
            Event::Timer(Timer::Wake) => {
                self.next_at = None;
                if self.config.give_up_at.is_some_and(|at| at <= now) {
                    return self.give_up(Verdict::TimedOut, out);
                }
                self.go_on(now, out);
            }
        }
        self.arm(out);
    }

    /// The worker of the assignment that counts, if there is one.
    pub fn worker(&self) -> Option<PeerId> {
        let known = self.known.as_ref()?;
        self.config.founding.member(known.worker).map(|member| member.peer)
    }

    // ---- what is next ----

    fn go_on(&mut self, now: Millis, out: &mut Outbox<Action>) {
        if self.asked.is_some() || self.next_at.is_some_and(|at| at > now) {
            return;
        }
        match self.stage {
            Stage::Seeking => self.seek(now, out),
            Stage::Polling => match self.worker() {
                Some(worker) => self.ask(worker, Question::Poll, now, out),
                None => {
                    self.stage = Stage::Seeking;
                    self.seek(now, out);
                }
            },
            Stage::Giving | Stage::Taking | Stage::Over => {}
        }
    }

    fn seek(&mut self, now: Millis, out: &mut Outbox<Action>) {
        let coordinator = self.coordinator.filter(|peer| self.nodes.contains(peer));
        let next = coordinator.or_else(|| self.nodes.iter().find(|n| !self.fruitless.contains(n)).copied());
        let Some(to) = next else {
            let waiting = if self.nodes.is_empty() { Waiting::NoNode } else { Waiting::NoCoordinator };
            self.say(waiting, out);
            self.fruitless.clear();
            return self.pause_for(BUSY_FIRST, now);
        };
        let above = self.known.as_ref().map(|known| known.rank);
        self.ask(to, Question::Submit { above, avoid: self.avoid.clone() }, now, out);
    }

    /// This worker does not serve: another is sought.
    fn move_from(&mut self, worker: PeerId, now: Millis, out: &mut Outbox<Action>) {
        self.stage = Stage::Seeking;
        (self.strikes, self.pause, self.next_at) = (0, BUSY_FIRST, None);
        self.avoid.retain(|peer| *peer != worker);
        self.avoid.push(worker);
        if self.avoid.len() > limits::TASK_AVOID_MAX {
            self.avoid.remove(0);
        }
        self.say(Waiting::Moving(worker), out);
        if self.moved_at.is_none_or(|at| now.since(at) >= MOVES_FORGOTTEN) {
            self.moves = 0;
        }
        if let Some(doublings) = self.moves.checked_sub(1) {
            self.pause_for(Millis(AGAIN.0 << doublings.min(10)).min(MOVE_LONGEST), now);
        }
        (self.moves, self.moved_at) = (self.moves + 1, Some(now));
        self.go_on(now, out);
    }

    // ---- answers ----

    fn on_nodes(&mut self, nodes: Vec<PeerId>, now: Millis, out: &mut Outbox<Action>) {
        let were_none = self.nodes.is_empty();
        self.fruitless.retain(|peer| nodes.contains(peer));
        self.nodes = nodes;
        if were_none && self.stage == Stage::Seeking {
            self.next_at = None;
            self.go_on(now, out);
        }
    }

    fn on_answer(&mut self, from: PeerId, reply: Option<Reply>, now: Millis, out: &mut Outbox<Action>) {
        if self.asked != Some(from) {
            return;
        }
        self.asked = None;
        match (self.stage, reply) {
            (Stage::Seeking, Some(Reply::Submitted(submitted))) => {
                self.on_submitted(from, submitted, now, out);
            }
            (Stage::Seeking, _) => {
                self.fruitless.insert(from);
                self.coordinator = self.coordinator.filter(|peer| *peer != from);
                self.go_on(now, out);
            }
            (Stage::Polling, Some(Reply::Standing(standing))) => {
                self.strikes = 0;
                self.on_standing(from, standing, now, out);
            }
            (Stage::Polling, _) => self.on_silence(from, now, out),
            _ => self.go_on(now, out),
        }
    }

    fn on_submitted(&mut self, from: PeerId, said: Submitted, now: Millis, out: &mut Outbox<Action>) {
        match said {
            Submitted::Assigned(record) => {
                (self.coordinator, self.pause) = (Some(from), BUSY_FIRST);
                self.fruitless.clear();
                if self.adopt(record, out) {
                    return;
                }
                // It knows less than this client does; told so, it will go above that.
                self.pause_for(AGAIN, now);
            }
            Submitted::Closed(_) => self.end(Verdict::Cancelled, out),
            Submitted::NotCoordinator { coordinator } => {
                self.fruitless.insert(from);
                let is_news = |peer: &PeerId| !self.fruitless.contains(peer);
                self.coordinator = coordinator.filter(is_news);
                self.go_on(now, out);
            }
            Submitted::Busy { tasks, places } => {
                (self.coordinator, self.fruitless) = (Some(from), BTreeSet::new());
                self.say(Waiting::Busy { tasks, places }, out);
                self.ask_after_pause(BUSY_LONGEST, now, out);
            }
            Submitted::Again => {
                self.coordinator = Some(from);
                self.pause_for(AGAIN, now);
            }
            Submitted::UnknownKind => self.give_up(Verdict::UnknownKind, out),
        }
    }

    /// Goes by this assignment from now on, if it counts at least as much as the one that is known.
    fn adopt(&mut self, record: TaskRecord, out: &mut Outbox<Action>) -> bool {
        let counts = self.known.as_ref().is_none_or(|known| record.rank >= known.rank);
        let Some(member) = self.config.founding.member(record.worker).filter(|_| counts) else {
            return false;
        };
        let (worker, rank) = (member.peer, record.rank);
        self.known = Some(record);
        (self.stage, self.strikes, self.setbacks, self.next_at) = (Stage::Giving, 0, 0, None);
        self.say(Waiting::Giving(worker), out);
        out.push(Action::Give { worker, rank });
        true
    }

    fn on_gave(&mut self, rank: Rank, end: End, now: Millis, out: &mut Outbox<Action>) {
        if self.stage != Stage::Giving || !self.is_known(rank) {
            return;
        }
        match (end, self.worker()) {
            (End::Broke, Some(worker)) => self.move_from(worker, now, out),
            // Refused: perhaps it is finished already, or given to somebody else; the worker knows.
            _ => self.begin_polling(now, out),
        }
    }

    /// Asks the worker how far it is: at once, unless that has led nowhere before.
    fn begin_polling(&mut self, now: Millis, out: &mut Outbox<Action>) {
        (self.stage, self.pause, self.strikes) = (Stage::Polling, POLL_FIRST, 0);
        if self.setbacks > 0 {
            self.pause_for(AGAIN, now);
        }
        self.go_on(now, out);
    }

    fn on_standing(&mut self, from: PeerId, standing: Standing, now: Millis, out: &mut Outbox<Action>) {
        let Some(known) = &self.known else { return };
        match standing.record {
            Some(record) if record.phase == Phase::Cancelled => self.end(Verdict::Cancelled, out),
            Some(record) if record.rank > known.rank && record.phase.is_in_hand() => {
                if !self.adopt(record, out) {
                    self.move_from(from, now, out);
                }
            }
            Some(record) if record.rank == known.rank => match standing.place {
                Some(place) => self.on_place(from, place, now, out),
                None => self.move_from(from, now, out),
            },
            // It was restarted, or is about to stop, or has given the task up.
            _ => self.move_from(from, now, out),
        }
    }

    fn on_place(&mut self, worker: PeerId, place: Place, now: Millis, out: &mut Outbox<Action>) {
        let Some(rank) = self.known.as_ref().map(|known| known.rank) else { return };
        match place {
            Place::Receiving if self.is_set_back() => self.move_from(worker, now, out),
            Place::Receiving => {
                self.stage = Stage::Giving;
                self.say(Waiting::Giving(worker), out);
                out.push(Action::Give { worker, rank });
            }
            Place::Waiting { ahead } => {
                self.say(Waiting::Queued { worker, ahead }, out);
                self.ask_after_pause(POLL_LONGEST, now, out);
            }
            Place::Running => {
                self.say(Waiting::Working(worker), out);
                self.ask_after_pause(POLL_LONGEST, now, out);
            }
            Place::Done => {
                self.stage = Stage::Taking;
                self.say(Waiting::Taking(worker), out);
                out.push(Action::Take { worker, rank });
            }
        }
    }

    fn on_silence(&mut self, worker: PeerId, now: Millis, out: &mut Outbox<Action>) {
        self.strikes += 1;
        if self.strikes >= STRIKES {
            return self.move_from(worker, now, out);
        }
        self.pause_for(AGAIN, now);
    }

    /// A transfer has led nowhere; whether that happened too often.
    fn is_set_back(&mut self) -> bool {
        self.setbacks += 1;
        self.setbacks > SETBACKS_MAX
    }

    fn on_took(&mut self, rank: Rank, end: End, now: Millis, out: &mut Outbox<Action>) {
        if self.stage != Stage::Taking || !self.is_known(rank) {
            return;
        }
        let Some(worker) = self.worker() else { return };
        match end {
            End::Done => {
                out.push(Action::Effective { rank });
                self.acknowledge(out);
                self.end(Verdict::Answered, out);
            }
            End::Refused if !self.is_set_back() => self.begin_polling(now, out),
            End::Refused | End::Broke => self.move_from(worker, now, out),
        }
    }

    // ---- the end ----

    /// Tells everybody: whoever was asked may have passed it on, and any may be seeking a place for it.
    fn give_up(&mut self, verdict: Verdict, out: &mut Outbox<Action>) {
        let worker = self.worker();
        let others = self.nodes.iter().copied().filter(|peer| Some(*peer) != worker);
        out.extend(worker.into_iter().chain(others).map(|to| Action::Ask { to, question: Question::Cancel }));
        self.end(verdict, out);
    }

    /// Tells the worker and one other node: if the worker is gone, everybody knows all the same.
    fn acknowledge(&mut self, out: &mut Outbox<Action>) {
        let worker = self.worker();
        let mut others = self.coordinator.into_iter().chain(self.nodes.iter().copied());
        let other = others.find(|peer| Some(*peer) != worker);
        let both = worker.into_iter().chain(other);
        out.extend(both.map(|to| Action::Ask { to, question: Question::Acknowledge }));
    }

    fn end(&mut self, verdict: Verdict, out: &mut Outbox<Action>) {
        self.stage = Stage::Over;
        out.push(Action::End(verdict));
    }

    // ---- small things ----

    fn is_known(&self, rank: Rank) -> bool {
        self.known.as_ref().is_some_and(|known| known.rank == rank)
    }

    fn ask(&mut self, to: PeerId, question: Question, now: Millis, out: &mut Outbox<Action>) {
        (self.asked, self.asked_at, self.next_at) = (Some(to), now, None);
        out.push(Action::Ask { to, question });
    }

    fn say(&mut self, waiting: Waiting, out: &mut Outbox<Action>) {
        if self.waiting.as_ref() != Some(&waiting) {
            self.waiting = Some(waiting.clone());
            out.push(Action::Publicise(waiting));
        }
    }

    /// Asks again so long after the last question: at once, if the answer took its time.
    fn ask_after_pause(&mut self, longest: Millis, now: Millis, out: &mut Outbox<Action>) {
        self.next_at = Some(self.asked_at + self.pause);
        self.pause = Millis(self.pause.0 * 2).min(longest);
        self.go_on(now, out);
    }

    fn pause_for(&mut self, pause: Millis, now: Millis) {
        self.next_at = Some(now + pause);
    }

    fn arm(&self, out: &mut Outbox<Action>) {
        let next = [self.next_at, self.config.give_up_at].into_iter().flatten().min();
        if let Some(at) = next.filter(|_| self.stage != Stage::Over) {
            out.push(Action::Arm { at, timer: Timer::Wake });
        }
    }
}
