//! Tasks: who works on what. What every node knows of each task, the coordinator's choice of a worker, and
//! the worker's places.
//!
//! Nothing here is durable, and no record says what a picture or a text is. Every node knows every task;
//! records replace each other upwards only ([`TaskRecord::precedence`]), so that whoever has heard the same
//! agrees, in whatever order. An assignment is no promise that it is the only one: two coordinators may each
//! make one. Only the client makes an answer count, and it takes one, of the greatest assignment that it
//! knows (`proto::errand`).
//!
//! # How a task travels
//! 1. A client submits it ([`Event::Submit`]). The coordinator asks the best worker for a place
//!    ([`Action::Reserve`]); when it has one, the assignment is known ([`Action::Publish`]) and answered.
//! 2. The client brings the picture to the worker, which is told to expect it ([`Action::Expect`]) and says
//!    when it is whole ([`Event::Received`]). With a slot free, work begins ([`Action::Run`]).
//! 3. The client asks the worker how far it is ([`Event::Poll`]), takes the answer and acknowledges it
//!    ([`Event::Acknowledge`]); then everybody forgets it after a while.
//!
//! # Driving it
//! See [`crate::proto`] for the rules common to all machines. In particular here:
//! * Every call ([`Event::Submit`], [`Event::Reserve`], [`Event::Poll`]) is answered by exactly one
//!   [`Action::Answer`]; that of a submission after at most as many reservations as there are members, or
//!   after [`limits::TASK_LINE_HOLD`] in the line of those who wait for a place; that of a poll when the
//!   task has got further, or after [`limits::TASK_POLL_HOLD`].
//! * Every [`Action::Reserve`] to another node is answered by [`Event::Reserved`], with no verdict if none
//!   came in time. It is never addressed to this node.
//! * Heard records come from members only, and are handed in as they are.

mod assign;
#[cfg(test)]
mod assign_tests;
mod book;
mod line;
mod places;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;

pub use assign::{Wish, Worker};
pub use places::Means;

use self::{
    assign::{Assigner, Desk, Found, Said},
    book::Book,
    places::Places,
    watch::Watch,
};
use crate::{
    model::{
        Millis, PeerId, limits,
        member::{Founding, NodeNumber},
        task::{Claim, Phase, Rank, Standing, Submitted, TaskId, TaskRecord, Verdict},
    },
    proto::Outbox,
};

/// What a machine is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node; a member of `founding`.
    pub me: PeerId,
    /// The members.
    pub founding: Founding,
    /// What this node can do.
    pub means: Means,
}

/// Names a call of the driver; its answer repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What happens to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Begin. Handed in once, first.
    Start,
    /// How the members are now, this node among them. Handed in after each heartbeat, and when one dies.
    Workers(BTreeMap<PeerId, Worker>),
    /// The claims that count: this node's own while it is in office, and the greatest that is known.
    Office {
        /// Own.
        mine: Option<Claim>,
        /// The greatest known.
        greatest: Option<Claim>,
    },
    /// A client wants work done.
    Submit {
        /// Repeated by the answer.
        call: CallId,
        /// What it wants.
        wish: Wish,
    },
    /// A coordinator wants a place here.
    Reserve {
        /// Repeated by the answer.
        call: CallId,
        /// For this.
        record: TaskRecord,
    },
    /// What came of [`Action::Reserve`].
    Reserved {
        /// Who was asked.
        from: PeerId,
        /// For which task.
        task: TaskId,
        /// For which assignment.
        rank: Rank,
        /// None if no answer came in time.
        verdict: Option<Verdict>,
    },
    /// A member knows this.
    Heard {
        /// As it says.
        record: TaskRecord,
    },
    /// A member has another [`History::digest`] in its heartbeat than this node, or there is a new
    /// connection to it.
    Differs {
        /// Who.
        peer: PeerId,
    },
    /// All of a task's payload is here.
    Received {
        /// Which.
        task: TaskId,
        /// Of which assignment.
        rank: Rank,
    },
    /// The work of [`Action::Run`] has ended, well or not.
    Ran {
        /// Which.
        task: TaskId,
        /// Of which assignment.
        rank: Rank,
        /// How long its answer is.
        answer_bytes: u64,
    },
    /// A client asks how far its task is.
    Poll {
        /// Repeated by the answer.
        call: CallId,
        /// Which.
        task: TaskId,
    },
    /// The client of a task has sent some of its payload, or has fetched some of its answer.
    Sign {
        /// Which.
        task: TaskId,
    },
    /// The client has its answer.
    Acknowledge {
        /// Which.
        task: TaskId,
    },
    /// Somebody wants it to end.
    Cancel {
        /// Which.
        task: TaskId,
    },
    /// This node is to stop: no more tasks; those that have not begun go to others.
    Leave,
    /// An armed timer is due.
    Timer(Timer),
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The answer to a call.
    Answer {
        /// Which.
        call: CallId,
        /// What.
        answer: Answer,
    },
    /// Ask this member for a place, and report [`Event::Reserved`].
    Reserve {
        /// Whom.
        to: PeerId,
        /// For what.
        record: TaskRecord,
    },
    /// Tell all members by gossip, or lose it.
    Publish {
        /// What.
        record: TaskRecord,
    },
    /// Ask this member for all that it knows, and report each as [`Event::Heard`].
    Exchange {
        /// Whom.
        with: PeerId,
    },
    /// A client will bring a payload. Anything of an earlier assignment of the task is to be forgotten.
    Expect {
        /// Whose, and how many bytes.
        record: TaskRecord,
    },
    /// Do the work, and report [`Event::Ran`].
    Run {
        /// Which.
        task: TaskId,
        /// Of which assignment.
        rank: Rank,
    },
    /// Forget payload and answer of this task.
    Drop {
        /// Which.
        task: TaskId,
    },
    /// An assignment is known that was made under a greater claim than this coordinator's, or the same one's
    /// of an earlier time: the election shall go above it.
    Outranked {
        /// The counter of that claim.
        counter: u64,
    },
    /// Hand in this timer at or after `at`; replaces its earlier arming.
    Arm {
        /// When.
        at: Millis,
        /// Which.
        timer: Timer,
    },
    /// Something that a person may care about: a task was moved to this worker.
    Publicise(Moved),
}

/// A task that somebody else works on now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Which.
    pub task: TaskId,
    /// Who had it.
    pub from: NodeNumber,
    /// Who has it.
    pub to: NodeNumber,
}

/// The answers to calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Event::Submit`]. Who the coordinator is, is for the driver to say.
    Submitted(Submitted),
    /// To [`Event::Reserve`].
    Verdict(Verdict),
    /// To [`Event::Poll`].
    Standing(Standing),
}

/// The machine's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Look what became of the tasks.
    Tick,
    /// Answer those who have waited long enough.
    Hold,
}

/// Who is to be asked for a place, and for what.
type Asks = Vec<(PeerId, TaskRecord)>;

/// All that one node knows and does of tasks.
#[derive(Debug)]
pub struct History {
    config: Config,
    my_number: NodeNumber,
    book: Book,
    assigner: Assigner,
    places: Places,
    watch: Watch,
    /// When [`Timer::Hold`] is due.
    hold_at: Option<Millis>,
    workers: BTreeMap<PeerId, Worker>,
    greatest: Option<Claim>,
    /// When this node asked each member last for what it knows.
    exchanged: BTreeMap<PeerId, Millis>,
}

impl History {
    /// A machine that knows of no task.
    pub fn new(config: Config) -> Self {
        // One that is not a member works for nobody: no record has this number.
        let my_number = config.founding.number_of(&config.me).unwrap_or(NodeNumber(u16::MAX));
        let places = Places::new(config.means.clone());
        Self {
            config,
            my_number,
            book: Book::default(),
            assigner: Assigner::default(),
            places,
            watch: Watch::default(),
            hold_at: None,
            workers: BTreeMap::new(),
            greatest: None,
            exchanged: BTreeMap::new(),
        }
    }

    /// Takes one event in and says what to do.
    pub fn handle(&mut self, now: Millis, event: Event, out: &mut Outbox<Action>) {
        self.on_event(now, event, out);
        self.assign(now, out, Assigner::serve_line);
        self.answer_polls(now, out);
        self.arm_hold(out);
    }

    fn on_event(&mut self, now: Millis, event: Event, out: &mut Outbox<Action>) {
        match event {
            Event::Start => out.push(Action::Arm { at: now + limits::TASK_TICK, timer: Timer::Tick }),
            Event::Workers(workers) => {
                self.workers = workers;
                self.assign(now, out, Assigner::place_orphans);
            }
            Event::Office { mine, greatest } => {
                // Nobody in office is no reason to forget who was: those before count no more.
                self.greatest = self.greatest.max(greatest).max(mine);
                self.assigner.set_office(mine, out);
                self.assign(now, out, Assigner::place_orphans);
            }
            Event::Submit { call, wish } => {
                self.assign(now, out, |assigner, desk| assigner.submit(call, wish, desk));
            }
            Event::Reserve { call, record } => {
                let verdict = self.on_reserve(record, now, out);
                out.push(Action::Answer { call, answer: Answer::Verdict(verdict) });
            }
            Event::Reserved { from, task, rank, verdict } => {
                self.on_reserved(Said { from, task, rank, verdict }, now, out);
            }
            Event::Heard { record } => self.on_heard(record, now, out),
            Event::Differs { peer } => self.on_differs(peer, now, out),
            Event::Received { task, rank } => {
                if self.places.received(&task, rank, now) {
                    self.say_phase(&task, rank, Phase::Started, now, out);
                    self.run_next(out);
                }
            }
            Event::Ran { task, rank, answer_bytes } => {
                if self.places.ran(&task, rank, answer_bytes) {
                    self.say_phase(&task, rank, Phase::Finished, now, out);
                }
                self.run_next(out);
            }
            Event::Poll { call, task } => {
                self.places.sign(&task, now);
                let due = self.watch.hold((call, task), self.places.place(&task), now);
                self.answer_all(due, out);
            }
            Event::Sign { task } => self.places.sign(&task, now),
            Event::Acknowledge { task } => self.end(&task, Phase::Acknowledged, now, out),
            Event::Cancel { task } => self.end(&task, Phase::Cancelled, now, out),
            Event::Leave => self.leave(now, out),
            Event::Timer(Timer::Tick) => self.tick(now, out),
            Event::Timer(Timer::Hold) => self.hold_at = None,
        }
    }

    // ---- what others may ask ----

    /// A page of all records behind this task, and where the next begins.
    pub fn page(&self, after: Option<TaskId>) -> (Vec<TaskRecord>, Option<TaskId>) {
        self.book.page(after)
    }

    /// Names the open tasks and how far they are; equal where two nodes know the same.
    pub fn digest(&mut self) -> u64 {
        self.book.digest()
    }

    /// Tasks that this node has in hand, and how many it works on at once.
    pub fn in_hand(&self) -> (u64, u64) {
        (self.places.active() as u64, self.places.means().slots as u64)
    }

    /// How many tasks it has in hand at most.
    pub fn places(&self) -> u64 {
        self.places.means().places() as u64
    }

    /// Whether nothing is left that somebody waits for here.
    pub fn is_idle(&self) -> bool {
        self.places.is_empty()
    }

    /// How far a task is, as far as this node knows.
    pub fn standing(&self, task: &TaskId) -> Standing {
        Standing { record: self.book.get(task).cloned(), place: self.places.place(task) }
    }

    // ---- coordinator ----

    /// Lets the assigner do something, then asks for the places that it wants: here at once.
    fn assign(
        &mut self,
        now: Millis,
        out: &mut Outbox<Action>,
        job: impl FnOnce(&mut Assigner, &mut Desk<'_>),
    ) {
        let mut asks = Asks::new();
        self.with_desk(now, out, &mut asks, job);
        self.ask_all(asks, now, out);
    }

    /// Arms the timer for whoever is to be answered first, if that has changed.
    fn arm_hold(&mut self, out: &mut Outbox<Action>) {
        let next = [self.assigner.next_at(), self.watch.next_at()].into_iter().flatten().min();
        if let Some(at) = next.filter(|_| next != self.hold_at) {
            out.push(Action::Arm { at, timer: Timer::Hold });
        }
        self.hold_at = next.or(self.hold_at);
    }

    fn on_reserved(&mut self, said: Said, now: Millis, out: &mut Outbox<Action>) {
        let mut asks = Asks::new();
        self.on_verdict(said, now, out, &mut asks);
        self.ask_all(asks, now, out);
    }

    fn ask_all(&mut self, mut asks: Asks, now: Millis, out: &mut Outbox<Action>) {
        while let Some((to, record)) = asks.pop() {
            if to != self.config.me {
                out.push(Action::Reserve { to, record });
                continue;
            }
            let (task, rank) = (record.task, record.rank);
            let verdict = Some(self.on_reserve(record, now, out));
            self.on_verdict(Said { from: to, task, rank, verdict }, now, out, &mut asks);
        }
    }

    fn with_desk(
        &mut self,
        now: Millis,
        out: &mut Outbox<Action>,
        asks: &mut Asks,
        job: impl FnOnce(&mut Assigner, &mut Desk<'_>),
    ) {
        let Self { assigner, book, workers, config, .. } = self;
        let number_of = |peer: &PeerId| config.founding.number_of(peer);
        job(assigner, &mut Desk { now, book, workers, number_of: &number_of, asks, out });
    }

    fn on_verdict(&mut self, said: Said, now: Millis, out: &mut Outbox<Action>, asks: &mut Asks) {
        let (task, mut found) = (said.task, None);
        self.with_desk(now, out, asks, |assigner, desk| found = assigner.reserved(said, desk));
        match found {
            Some(Found::Worker { record, former }) => {
                if let Some(from) = former.filter(|worker| *worker != record.worker) {
                    out.push(Action::Publicise(Moved { task, from, to: record.worker }));
                }
                self.join(record.clone(), now, out);
                out.push(Action::Publish { record });
            }
            // The worker that has taken it shall hear why it need not wait.
            Some(Found::TooLate) => {
                out.extend(self.book.get(&task).map(|known| Action::Publish { record: known.clone() }));
            }
            None => {}
        }
    }

    // ---- worker ----

    fn on_reserve(&mut self, record: TaskRecord, now: Millis, out: &mut Outbox<Action>) -> Verdict {
        let is_for_me = record.is_sane() && record.worker == self.my_number;
        let is_outdated = self.greatest.is_some_and(|greatest| record.rank.claim < greatest);
        if !is_for_me || is_outdated || record.phase != Phase::Assigned {
            return Verdict::Outdated;
        }
        if self.places.rank(&record.task) == Some(record.rank) {
            return Verdict::Taken;
        }
        let known = self.book.get(&record.task);
        if known.is_some_and(|known| known.precedence() >= record.precedence()) {
            return Verdict::Outdated;
        }
        let verdict = self.places.judge(&record);
        if verdict == Verdict::Taken && !self.book.has_room_for(&record.task) {
            return Verdict::Full;
        }
        if verdict == Verdict::Taken {
            self.places.take(&record, now);
            self.book.join(record.clone(), now);
            out.push(Action::Expect { record });
        }
        verdict
    }

    fn answer_polls(&mut self, now: Millis, out: &mut Outbox<Action>) {
        let due = self.watch.due(now, |task| self.places.place(task));
        self.answer_all(due, out);
    }

    fn answer_all(&self, due: Vec<watch::Due>, out: &mut Outbox<Action>) {
        for (call, task) in due {
            out.push(Action::Answer { call, answer: Answer::Standing(self.standing(&task)) });
        }
    }

    fn run_next(&mut self, out: &mut Outbox<Action>) {
        while let Some((task, rank)) = self.places.next() {
            out.push(Action::Run { task, rank });
        }
    }

    /// Says how far an assignment of this node is.
    fn say_phase(&mut self, task: &TaskId, rank: Rank, phase: Phase, now: Millis, out: &mut Outbox<Action>) {
        let Some(known) = self.book.get(task).filter(|known| known.rank == rank) else { return };
        let record = TaskRecord { phase, ..known.clone() };
        if self.learn(record.clone(), now) {
            out.push(Action::Publish { record });
        }
    }

    fn give_up(&mut self, task: &TaskId, phase: Phase, now: Millis, out: &mut Outbox<Action>) {
        if let Some(rank) = self.places.rank(task) {
            self.say_phase(task, rank, phase, now, out);
        }
        if self.places.free(task, None) {
            out.push(Action::Drop { task: *task });
        }
    }

    fn leave(&mut self, now: Millis, out: &mut Outbox<Action>) {
        self.places.leave();
        for task in self.places.not_begun() {
            self.give_up(&task, Phase::Lost, now, out);
        }
    }

    // ---- what is known ----

    fn on_heard(&mut self, record: TaskRecord, now: Millis, out: &mut Outbox<Action>) {
        let is_known = self.config.founding.member(record.worker).is_some();
        if record.is_sane() && is_known && self.join(record.clone(), now, out) {
            let is_mine = record.worker == self.my_number && record.phase.is_in_hand();
            if is_mine && self.places.rank(&record.task) != Some(record.rank) {
                // An earlier start of this node had it.
                self.say_phase(&record.task, record.rank, Phase::Lost, now, out);
            }
            self.assign(now, out, Assigner::place_orphans);
        }
    }

    /// Takes a record in; a place for what does not count any more is free again.
    fn join(&mut self, record: TaskRecord, now: Millis, out: &mut Outbox<Action>) -> bool {
        let (task, rank, is_over) = (record.task, record.rank, record.phase.is_closed());
        if !self.learn(record, now) {
            return false;
        }
        if self.places.free(&task, Some(rank).filter(|_| !is_over)) {
            out.push(Action::Drop { task });
        }
        true
    }

    /// Takes a record into the book; whether it was news.
    fn learn(&mut self, record: TaskRecord, now: Millis) -> bool {
        let frees_a_place = !matches!(record.phase, Phase::Assigned | Phase::Started);
        let is_news = self.book.join(record, now);
        if is_news && frees_a_place {
            self.assigner.on_freed();
        }
        is_news
    }

    fn end(&mut self, task: &TaskId, phase: Phase, now: Millis, out: &mut Outbox<Action>) {
        let mut sought = None;
        self.with_desk(now, out, &mut Asks::new(), |assigner, desk| {
            sought = assigner.end(task, phase, desk);
        });
        // A worker that was asked just now hears of the end under the assignment that it was asked for.
        let known = self.book.get(task);
        let record = match (sought, known) {
            (Some(sought), None) => sought,
            (_, Some(known)) if !known.phase.is_final() => TaskRecord { phase, ..known.clone() },
            _ => return,
        };
        if self.join(record.clone(), now, out) {
            out.push(Action::Publish { record });
        }
    }

    fn on_differs(&mut self, peer: PeerId, now: Millis, out: &mut Outbox<Action>) {
        let last = self.exchanged.get(&peer);
        let is_due = last.is_none_or(|last| now.since(*last) >= limits::TASK_EXCHANGE_EVERY);
        if is_due && peer != self.config.me && self.config.founding.number_of(&peer).is_some() {
            self.exchanged.insert(peer, now);
            out.push(Action::Exchange { with: peer });
        }
    }

    fn tick(&mut self, now: Millis, out: &mut Outbox<Action>) {
        for task in self.places.silent(now) {
            self.give_up(&task, Phase::Abandoned, now, out);
        }
        self.assigner.look_again();
        self.assign(now, out, Assigner::place_orphans);
        self.book.forget_old(now);
        out.push(Action::Arm { at: now + limits::TASK_TICK, timer: Timer::Tick });
    }
}
