//! Handing work to a node: drives `proto::errand` over real connections, one task at a time.
//!
//! It decides nothing about where a task goes or whose answer counts. Pieces of picture and answer pass here,
//! and nothing of them is kept after the task.

mod transfer;

use std::{
    collections::BTreeSet,
    sync::{
        PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};

use self::transfer::Pieces;
use super::{
    Client, Error, View,
    asking::undecided_error,
    types::{OnWaiting, Work},
};
use crate::{
    model::{
        BodyId, Incarnation, Millis, PeerId,
        hello::Kind,
        limits,
        member::{Founding, Member},
        rpc::{ElectionInfo, Request, Response, SubmitRequest},
        task::{Rank, TaskId, TaskRecord},
    },
    proto::{
        Outbox,
        errand::{self, Action, End, Errand, Event, Question, Reply, Timer, Verdict, Waiting},
    },
    work::answer,
};

/// What a node may take to say where a task goes: it may ask some workers that are silent first.
const SUBMIT_PATIENCE: Millis = Millis(1000);
/// What a node may take to say how far a task is.
const POLL_PATIENCE: Millis = limits::NO_PROGRESS;
/// How long the last words of a task may take: nobody waits for their answers.
const FAREWELL: Millis = Millis(500);
/// What a listing of tasks may take.
const LIST_PATIENCE: Millis = Millis(900);

/// Numbers the tasks of this process.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// What happens to a running task.
enum Happened {
    Event(Event),
    /// What a worker said of its pieces, and then what it said to the machine.
    Standing {
        missing: Vec<u32>,
        pieces: Vec<BodyId>,
        event: Event,
    },
    /// What a worker sent.
    Taken {
        rank: Rank,
        answer: Option<Result<Vec<u8>, String>>,
        end: End,
    },
}

/// One task on its way.
struct Running<'a> {
    client: &'a Client,
    view: &'a View,
    work: &'a Work,
    task: TaskId,
    errand: Errand,
    pieces: Pieces,
    asking: FuturesUnordered<BoxFuture<'a, Happened>>,
    /// What is being given or taken.
    transfer: Option<BoxFuture<'a, Happened>>,
    /// Of the answer, as the worker has named them.
    named: Vec<BodyId>,
    taken: Option<(Rank, Result<Vec<u8>, String>)>,
    /// A worker's process has come to no end: for want of memory perhaps, or by somebody's hand. Another is
    /// tried; if that does no better, it is the picture.
    has_failed_once: bool,
    effective: Option<Result<Vec<u8>, String>>,
    wake_at: Option<Millis>,
    ended: Option<Verdict>,
    waiting: Option<Waiting>,
}

impl Client {
    /// Has a node do this, whichever dies meanwhile, and gives its answer: a picture, or a sentence why there
    /// is none.
    ///
    /// # Errors
    /// [`Error::TimedOut`], [`Error::Cancelled`], [`Error::UnknownKind`]; no node at the beginning.
    pub async fn work(
        &self,
        work: &Work,
        on_waiting: OnWaiting<'_>,
    ) -> Result<Result<Vec<u8>, String>, Error> {
        let view = self.view().await?;
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let task = TaskId { client: self.me, number };
        let now = self.awake.now();
        let left = work.timeout.map(|limit| limit.saturating_sub(work.waited).as_millis());
        let give_up_at = left.map(|left_ms| now + Millis(u64::try_from(left_ms).unwrap_or(u64::MAX)));
        let config = errand::Config { task, founding: founding_of(view), give_up_at };
        let running = Running {
            client: self,
            view,
            work,
            task,
            errand: Errand::new(config),
            pieces: Pieces::of(&work.payload),
            asking: FuturesUnordered::new(),
            transfer: None,
            named: Vec::new(),
            taken: None,
            has_failed_once: false,
            effective: None,
            wake_at: None,
            ended: None,
            waiting: None,
        };
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner).insert(task);
        let worked = running.run(on_waiting).await;
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner).remove(&task);
        worked
    }

    /// All tasks that the nodes know, ended ones of the last minute among them.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn tasks(&self) -> Result<Vec<TaskRecord>, Error> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (_, response) = self.ask_first(&[], &Request::Tasks { after }, LIST_PATIENCE).await?;
            let page = match response {
                Response::Tasks(page) => page,
                other => return Err(undecided_error(other, true)),
            };
            all.extend(page.records);
            if page.next <= after || all.len() > limits::TASKS_KNOWN_MAX {
                return Ok(all);
            }
            after = page.next;
        }
    }

    /// Says that a task shall end; to every node that can be reached, for one may not have heard of it.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn cancel_task(&self, task: TaskId) -> Result<(), Error> {
        let request = Request::Cancel { task };
        let nodes = self.nodes_here(self.view().await?);
        let asked = nodes.iter().map(|peer| self.ask(*peer, &request, LIST_PATIENCE));
        let answers = futures::future::join_all(asked).await;
        let is_heard = answers.iter().flatten().any(|answer| *answer == Response::Done);
        if is_heard { Ok(()) } else { Err(self.unreachable_for(LIST_PATIENCE)) }
    }

    /// Who stops waiting in the middle, by Ctrl-C, wants nothing done: no node shall keep a picture for that.
    /// Bounded.
    pub async fn cancel_what_is_left(&self) {
        let left = std::mem::take(&mut *self.at_work.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(view) = self.view.get().filter(|_| !left.is_empty()) else { return };
        let nodes = self.nodes_here(view);
        let all = left.into_iter().flat_map(|task| nodes.iter().map(move |node| (task, *node)));
        let told = all.map(|(task, node)| async move {
            self.ask(node, &Request::Cancel { task }, FAREWELL).await;
        });
        futures::future::join_all(told).await;
    }

    /// The last elections that a node knows of, the oldest first.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn elections(&self) -> Result<Vec<ElectionInfo>, Error> {
        match self.ask_first(&[], &Request::Elections, LIST_PATIENCE).await? {
            (_, Response::Elections(elections)) => Ok(elections),
            (_, other) => Err(undecided_error(other, true)),
        }
    }

    /// Members that can be spoken to, those in good standing first.
    fn nodes_here(&self, view: &View) -> Vec<PeerId> {
        let connected = self.net.connected();
        let is_here = |peer: &PeerId| connected.get(peer).is_some_and(|info| info.kind == Kind::Member);
        let mut nodes: Vec<PeerId> = view.members.iter().map(|m| m.peer).filter(is_here).collect();
        nodes.sort_by_key(|peer| (self.is_shunned(peer), Some(*peer) != self.talking_to()));
        nodes
    }
}

/// The members by node number; their disks do not matter here.
fn founding_of(view: &View) -> Founding {
    let member = |peer| Member { peer, incarnation: Incarnation::ZERO };
    Founding::new(view.founding, view.members.iter().map(|m| member(m.peer)).collect())
}

impl Running<'_> {
    async fn run(mut self, on_waiting: OnWaiting<'_>) -> Result<Result<Vec<u8>, String>, Error> {
        let mut peers = self.client.net.watch_peers();
        let nodes = self.client.nodes_here(self.view);
        self.feed(Event::Nodes(nodes), on_waiting);
        self.feed(Event::Start, on_waiting);
        while self.ended.is_none() {
            let left = self.wake_at.map_or(Millis(1000), |at| at.since(self.client.awake.now()));
            let happened = tokio::select! {
                Some(happened) = self.asking.next(), if !self.asking.is_empty() => happened,
                happened = ended(&mut self.transfer) => happened,
                Ok(()) = peers.changed() => {
                    Happened::Event(Event::Nodes(self.client.nodes_here(self.view)))
                }
                () = tokio::time::sleep(left.into()) => {
                    if self.wake_at.is_none_or(|at| at > self.client.awake.now()) {
                        continue;
                    }
                    self.wake_at = None;
                    Happened::Event(Event::Timer(Timer::Wake))
                }
            };
            self.on(happened, on_waiting);
        }
        self.say_farewell().await;
        self.outcome()
    }

    fn on(&mut self, happened: Happened, on_waiting: OnWaiting<'_>) {
        let event = match happened {
            Happened::Event(event) => event,
            Happened::Standing { missing, pieces, event } => {
                self.pieces.lack(&missing);
                self.named = pieces;
                event
            }
            Happened::Taken { rank, answer: Some(Err(said)), .. }
                if said == answer::WORKER_FAILED && !self.has_failed_once =>
            {
                self.has_failed_once = true;
                Event::Took { rank, end: End::Broke }
            }
            Happened::Taken { rank, answer, end } => {
                self.taken = answer.map(|answer| (rank, answer));
                Event::Took { rank, end }
            }
        };
        self.feed(event, on_waiting);
    }

    fn feed(&mut self, event: Event, on_waiting: OnWaiting<'_>) {
        let (now, mut out) = (self.client.awake.now(), Outbox::new());
        self.errand.handle(now, event, &mut out);
        for action in out.drain() {
            match action {
                Action::Ask { to, question } => self.ask(to, question),
                Action::Give { worker, rank } => self.give(worker, rank),
                Action::Take { worker, rank } => self.take(worker, rank),
                Action::Effective { rank } => {
                    self.effective = self.taken.take_if(|(of, _)| *of == rank).map(|(_, answer)| answer);
                }
                Action::End(verdict) => self.ended = Some(verdict),
                Action::Publicise(waiting) => {
                    on_waiting(&sentence(&waiting, self.view));
                    self.waiting = Some(waiting);
                }
                Action::Arm { at, timer: Timer::Wake } => self.wake_at = Some(at),
            }
        }
    }

    /// What was said last shall be heard, but is not waited for long.
    async fn say_farewell(&mut self) {
        self.transfer = None;
        let said = async { while self.asking.next().await.is_some() {} };
        // Nodes that did not hear it find out by themselves.
        let _ = tokio::time::timeout(FAREWELL.into(), said).await;
    }

    fn outcome(self) -> Result<Result<Vec<u8>, String>, Error> {
        match (self.ended, self.effective) {
            (Some(Verdict::Answered), Some(answer)) => Ok(answer),
            (Some(Verdict::TimedOut), _) => {
                let waited_for = self.waiting.as_ref().map(|waiting| sentence(waiting, self.view));
                let waited_for = waited_for.unwrap_or_else(|| "no node has said anything yet".into());
                let limit = self.work.timeout.unwrap_or_default();
                let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                // Where all places are taken there are nodes enough.
                let is_busy = matches!(self.waiting, Some(Waiting::Busy { .. }));
                let has_a_worker = is_busy || self.errand.worker().is_some();
                Err(Error::TimedOut { limit_ms, waited_for, has_a_worker })
            }
            (Some(Verdict::UnknownKind), _) => Err(Error::UnknownKind(self.work.kind.0.clone())),
            _ => Err(Error::Cancelled),
        }
    }

    // ---- questions ----

    fn ask(&mut self, to: PeerId, question: Question) {
        let (client, number) = (self.client, self.task.number);
        let (request, patience) = match question {
            Question::Submit { above, avoid } => {
                let payload_bytes = self.work.payload.len() as u64;
                let kind = self.work.kind.clone();
                let submit = SubmitRequest { number, kind, payload_bytes, above, avoid };
                (Request::Submit(submit), SUBMIT_PATIENCE)
            }
            Question::Poll => (Request::Poll { number }, POLL_PATIENCE),
            Question::Acknowledge => (Request::Acknowledge { number }, POLL_PATIENCE),
            Question::Cancel => (Request::Cancel { task: self.task }, POLL_PATIENCE),
        };
        self.asking.push(Box::pin(async move {
            let answer = client.ask(to, &request, patience).await;
            let event = |reply| Event::Answered { from: to, reply };
            match answer {
                Some(Response::Submitted(submitted)) => {
                    Happened::Event(event(Some(Reply::Submitted(submitted))))
                }
                Some(Response::Standing(told)) => Happened::Standing {
                    missing: told.missing,
                    pieces: told.pieces,
                    event: event(Some(Reply::Standing(told.standing))),
                },
                Some(Response::Done) => Happened::Event(event(Some(Reply::Done))),
                _ => Happened::Event(event(None)),
            }
        }));
    }

    // ---- transfers ----

    fn give(&mut self, worker: PeerId, rank: Rank) {
        let bulk = self.client.net.bulk(worker);
        let giving = self.pieces.give(bulk, self.task.number, rank);
        self.transfer =
            Some(Box::pin(async move { Happened::Event(Event::Gave { rank, end: giving.await }) }));
    }

    fn take(&mut self, worker: PeerId, rank: Rank) {
        let bulk = self.client.net.bulk(worker);
        let taking = transfer::take(bulk, self.task.number, rank, std::mem::take(&mut self.named));
        self.transfer = Some(Box::pin(async move {
            match taking.await {
                Ok(answer) => Happened::Taken { rank, answer: Some(answer), end: End::Done },
                Err(end) => Happened::Taken { rank, answer: None, end },
            }
        }));
    }
}

/// The end of what is being given or taken; never, if nothing is.
async fn ended<'a>(transfer: &mut Option<BoxFuture<'a, Happened>>) -> Happened {
    let Some(running) = transfer else { return std::future::pending().await };
    let happened = running.await;
    *transfer = None;
    happened
}

/// What a task waits for, in words.
fn sentence(waiting: &Waiting, view: &View) -> String {
    match waiting {
        Waiting::NoNode => "no node answers; waiting for one".into(),
        Waiting::NoCoordinator => {
            "the nodes that answer have no coordinator: waiting for more than half of them".into()
        }
        Waiting::Busy { tasks, places } => format!("all {places} places are taken ({tasks} tasks); waiting"),
        Waiting::Giving(worker) => format!("sending it to {}", view.name(worker)),
        Waiting::Queued { worker, ahead } => format!("{} has {ahead} before it", view.name(worker)),
        Waiting::Working(worker) => format!("{} works on it", view.name(worker)),
        Waiting::Taking(worker) => format!("{} has done it; fetching it", view.name(worker)),
        Waiting::Moving(worker) => format!("{} does not serve; looking for another", view.name(worker)),
    }
}

/// How a person names a task: the end of its client's identity and its number.
pub fn short_name(task: &TaskId) -> String {
    let client = task.client.to_string();
    format!("{}-{}", &client[client.len().saturating_sub(8)..], task.number)
}

/// The tasks that a person can mean by this.
pub fn named<'a>(records: &'a [TaskRecord], text: &str) -> Vec<&'a TaskRecord> {
    let full = |task: &TaskId| format!("{}-{}", task.client, task.number);
    let fits = |record: &&TaskRecord| short_name(&record.task) == text || full(&record.task) == text;
    let mut seen = BTreeSet::new();
    records.iter().filter(fits).filter(|record| seen.insert(record.task)).collect()
}

/// How long this client waits for a listing that follows.
pub const FOLLOW_EVERY: Duration = Duration::from_millis(300);
