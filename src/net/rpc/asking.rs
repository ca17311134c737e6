//! Questions of this process: one stream and one task per peer, shared by all who ask.
//!
//! The stream is opened at the first question, which does not wait for the greeting. When it breaks, what
//! waits on it fails at once, and the next question opens another. Every question is told exactly one thing:
//! whatever drops it says that the stream broke.

use std::{
    collections::{BTreeMap, VecDeque},
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::{PeerId, Stream};
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    Heard,
    wire::{self, Malformed, Shape, Wire},
};
use crate::{
    model::limits,
    net::{
        event::{Busy, RequestError, RequestNumber, SharedCounters},
        streams::{self, OpenError, Opener, RPC, Refusal},
    },
};

/// Reads of one stream before others have their turn.
const READS_PER_TURN: usize = 16;
/// Questions given up for so long that their places are taken again. One more, and the stream is of no use.
const FORGOTTEN_MAX: usize = limits::RPC_OWED_MAX;

/// The end of a question of the network's owner.
#[derive(Debug)]
pub(in crate::net) struct Answered {
    pub(in crate::net) peer: PeerId,
    pub(in crate::net) request: RequestNumber,
    pub(in crate::net) result: Result<Vec<u8>, RequestError>,
}

/// Who waits for an answer.
#[derive(Debug)]
pub(in crate::net) enum Asker {
    /// The owner of the network, who has kept a place for it.
    Loop(mpsc::OwnedPermit<Answered>),
    /// A task.
    Task(oneshot::Sender<Result<Vec<u8>, RequestError>>),
}

/// A question, until it was told how it ended.
#[derive(Debug)]
struct Question {
    peer: PeerId,
    number: u64,
    asker: Option<Asker>,
}

impl Question {
    fn tell(&mut self, result: Result<Vec<u8>, RequestError>) {
        match self.asker.take() {
            Some(Asker::Loop(place)) => {
                let (peer, request) = (self.peer, RequestNumber(self.number));
                place.send(Answered { peer, request, result });
            }
            // A task that gave up has dropped its end.
            Some(Asker::Task(task)) => drop(task.send(result)),
            None => {}
        }
    }

    /// Whether nobody waits any more.
    fn is_over(&self) -> bool {
        match &self.asker {
            Some(Asker::Loop(_)) => false,
            Some(Asker::Task(task)) => task.is_closed(),
            None => true,
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.tell(Err(RequestError::Closed));
    }
}

/// One of the questions that may be in flight with a peer; given back when dropped.
#[derive(Debug)]
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A question on its way to the stream's task.
#[derive(Debug)]
struct Job {
    // In front, so that it is dropped first: who is told may ask again at once.
    slot: Slot,
    question: Question,
    bytes: Vec<u8>,
    asked: Instant,
    patience: Duration,
}

/// Asks every connected peer. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub(in crate::net) struct Asking {
    opener: Opener,
    counters: SharedCounters,
    heard: mpsc::Sender<Heard>,
    runtime: runtime::Handle,
    lines: Arc<Mutex<Lines>>,
}

#[derive(Debug, Default)]
struct Lines {
    last: u64,
    peers: BTreeMap<PeerId, Line>,
}

/// A connected peer.
#[derive(Debug, Default)]
struct Line {
    in_flight: Arc<AtomicUsize>,
    /// To the task of the stream, once there was a question. Dropped, it ends the task.
    jobs: Option<mpsc::Sender<Job>>,
}

impl Asking {
    /// Must be called inside the runtime on which the streams are to run.
    pub(in crate::net) fn new(opener: Opener, counters: SharedCounters, heard: mpsc::Sender<Heard>) -> Self {
        Self { opener, counters, heard, runtime: runtime::Handle::current(), lines: Arc::default() }
    }

    /// The peer can be asked from now on.
    pub(in crate::net) fn connected(&self, peer: PeerId) {
        self.lock().peers.entry(peer).or_default();
    }

    /// Gives up what waits for a peer, or for all, who cannot be asked any more.
    pub(in crate::net) fn hang_up(&self, peer: Option<PeerId>) {
        let mut lines = self.lock();
        match peer {
            Some(peer) => drop(lines.peers.remove(&peer)),
            None => lines.peers.clear(),
        }
    }

    /// Sends a question to a connected peer. On error the asker hears nothing from here.
    pub(in crate::net) fn begin(
        &self,
        peer: PeerId,
        bytes: Vec<u8>,
        patience: Duration,
        asker: Asker,
    ) -> Result<RequestNumber, Busy> {
        if bytes.len() > limits::RPC_REQUEST_BYTES_MAX {
            return Err(Busy::TooLong);
        }
        let asked = Instant::now();
        let mut lines = self.lock();
        let Lines { last, peers } = &mut *lines;
        let line = peers.get_mut(&peer).ok_or(Busy::NotConnected)?;
        // Only grows under the lock.
        if line.in_flight.load(Ordering::Relaxed) >= limits::RPC_IN_FLIGHT_MAX {
            return Err(Busy::Full);
        }
        line.in_flight.fetch_add(1, Ordering::Relaxed);
        let slot = Slot(line.in_flight.clone());
        *last += 1;
        let question = Question { peer, number: *last, asker: Some(asker) };
        let patience = patience.min(limits::RPC_TIMEOUT_MAX.into());
        self.pass_on(peer, line, Job { question, bytes, asked, patience, slot });
        self.counters.rpc_requests_sent.bump();
        Ok(RequestNumber(*last))
    }

    /// Gives the question to the task of the stream, or to a new one if that has ended.
    fn pass_on(&self, peer: PeerId, line: &mut Line, job: Job) {
        let unsent = match &line.jobs {
            Some(jobs) => jobs.try_send(job).err().map(mpsc::error::TrySendError::into_inner),
            None => Some(job),
        };
        let Some(job) = unsent else { return };
        let (jobs, todo) = mpsc::channel(limits::RPC_IN_FLIGHT_MAX);
        jobs.try_send(job).expect("a new queue has room and a reader");
        line.jobs = Some(jobs);
        self.runtime.spawn(run_line(self.clone(), peer, todo));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run_line(asking: Asking, peer: PeerId, jobs: mpsc::Receiver<Job>) {
    let Asking { opener, counters, heard, .. } = asking;
    let opening = async move { opener.open_silent(peer, RPC).await }.boxed();
    let now = Instant::now();
    let mut stream = Asked {
        jobs,
        stage: Stage::Opening(opening),
        since: now,
        greeted: false,
        unsent: VecDeque::new(),
        calls: BTreeMap::new(),
        forgotten: 0,
        alarm: None,
    };
    let end = poll_fn(|cx| stream.poll(cx)).await;
    tracing::debug!(%peer, ?end, "an rpc stream ended");
    if let RequestError::Malformed(_) = end {
        counters.rpc_malformed.bump();
        // Whoever is too busy to hear of it finds it in the counter.
        let _ = heard.try_send(Heard::Malformed { peer });
    }
    stream.end(&end);
}

enum Stage {
    Opening(BoxFuture<'static, Result<Stream, OpenError>>),
    Open(Wire),
}

/// A question that was taken off the queue.
struct Call {
    // In front, so that it is dropped first: who is told may ask again at once.
    slot: Option<Slot>,
    question: Question,
    /// When its asker is told that there is no answer.
    due: Instant,
    /// When its place is given to another, answered or not.
    forgotten_at: Instant,
}

impl Call {
    /// When something is to be done about it.
    fn next(&self) -> Option<Instant> {
        if self.question.asker.is_some() {
            Some(self.due)
        } else {
            self.slot.as_ref().map(|_| self.forgotten_at)
        }
    }
}

/// One stream, and what was asked on it.
struct Asked {
    jobs: mpsc::Receiver<Job>,
    stage: Stage,
    since: Instant,
    /// Whether the other side has said that it is ready. Questions go out before.
    greeted: bool,
    unsent: VecDeque<(u64, Vec<u8>)>,
    calls: BTreeMap<u64, Call>,
    forgotten: usize,
    /// Not after the first deadline. It may be before: an answer moves it not.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Asked {
    /// Ready when the stream is of no more use, with what its questions are to be told.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RequestError> {
        match self.try_poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(never)) => match never {},
            Poll::Ready(Err(end)) => Poll::Ready(end),
        }
    }

    fn try_poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<std::convert::Infallible, RequestError>> {
        self.take_jobs(cx)?;
        self.expire(cx)?;
        if let Stage::Opening(opening) = &mut self.stage {
            let stream = ready!(opening.as_mut().poll(cx)).map_err(of_opening)?;
            self.stage = Stage::Open(Wire::new(stream));
        }
        self.send(cx)?;
        for _ in 0..READS_PER_TURN {
            ready!(self.read(cx))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn take_jobs(&mut self, cx: &mut Context<'_>) -> Result<(), RequestError> {
        while let Poll::Ready(job) = self.jobs.poll_recv(cx) {
            // The peer is gone, or the network.
            let Job { question, bytes, asked, patience, slot } = job.ok_or(RequestError::Closed)?;
            let (number, due) = (question.number, asked + patience);
            let forgotten_at = asked + Duration::from(limits::RPC_TIMEOUT_MAX);
            self.wake_at(due);
            self.unsent.push_back((number, bytes));
            self.calls.insert(number, Call { question, due, forgotten_at, slot: Some(slot) });
        }
        Ok(())
    }

    fn wake_at(&mut self, at: Instant) {
        match &mut self.alarm {
            Some(alarm) if alarm.deadline() <= at => {}
            Some(alarm) => alarm.as_mut().reset(at),
            None => self.alarm = Some(Box::pin(sleep_until(at))),
        }
    }

    /// Gives up what has run out of time.
    fn expire(&mut self, cx: &mut Context<'_>) -> Result<(), RequestError> {
        while let Some(alarm) = &mut self.alarm
            && alarm.as_mut().poll(cx).is_ready()
        {
            let now = Instant::now();
            let mut late = false;
            for call in self.calls.values_mut() {
                if call.question.asker.is_some() && call.due <= now {
                    call.question.tell(Err(RequestError::Timeout));
                    late = true;
                }
                if call.slot.is_some() && call.forgotten_at <= now {
                    call.slot = None;
                    self.forgotten += 1;
                }
            }
            let patience = Duration::from(limits::STREAM_OPEN_TIMEOUT);
            let in_vain = late && !self.greeted && now - self.since >= patience;
            if in_vain || self.forgotten > FORGOTTEN_MAX {
                return Err(RequestError::Closed);
            }
            self.alarm = None;
            if let Some(next) = self.calls.values().filter_map(Call::next).min() {
                self.wake_at(next);
            }
        }
        Ok(())
    }

    /// Sends questions while the stream takes them.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), RequestError> {
        let Stage::Open(wire) = &mut self.stage else { return Ok(()) };
        loop {
            while wire.output.takes_more()
                && let Some((number, bytes)) = self.unsent.pop_front()
            {
                if self.calls.get(&number).is_some_and(|call| !call.question.is_over()) {
                    wire.output.question(number, &bytes);
                } else if let Some(call) = self.calls.remove(&number) {
                    self.forgotten -= usize::from(call.slot.is_none());
                }
            }
            if wire.output.is_empty() {
                return Ok(());
            }
            match wire.poll_send(cx) {
                Poll::Ready(sent) => sent.map_err(|_| RequestError::Closed)?,
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Reads once.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        let Stage::Open(wire) = &mut self.stage else { return Poll::Pending };
        let got = ready!(wire.poll_fill(cx));
        if !self.greeted {
            read_greeting(wire, got.as_ref().err())?;
            self.greeted = true;
        }
        while let Some(answer) = wire.input.next(Shape::Answers).map_err(malformed)? {
            let result = match (answer.status, answer.bytes.is_empty()) {
                (wire::ANSWER, _) => Ok(answer.bytes),
                (wire::BUSY, true) => Err(RequestError::PeerBusy),
                (wire::NONE, true) => Err(RequestError::Closed),
                _ => return Poll::Ready(Err(malformed(Malformed("unknown rpc status")))),
            };
            let Some(mut call) = self.calls.remove(&answer.number) else {
                return Poll::Ready(Err(malformed(Malformed("an answer to no question"))));
            };
            self.forgotten -= usize::from(call.slot.take().is_none());
            call.question.tell(result);
        }
        match got {
            Ok(0) if !wire.input.is_empty() => Poll::Ready(Err(malformed(Malformed("rpc answer cut short")))),
            Ok(0) | Err(_) => Poll::Ready(Err(RequestError::Closed)),
            Ok(_) => Poll::Ready(Ok(())),
        }
    }

    /// Tells all who still wait.
    fn end(mut self, end: &RequestError) {
        self.jobs.close();
        while let Ok(mut job) = self.jobs.try_recv() {
            drop(job.slot);
            job.question.tell(Err(end.clone()));
        }
        for mut call in self.calls.into_values() {
            drop(call.slot);
            call.question.tell(Err(end.clone()));
        }
    }
}

fn read_greeting(wire: &mut Wire, error: Option<&io::Error>) -> Result<(), RequestError> {
    if let Some(error) = error {
        return Err(of_opening(streams::greeting_error(error)));
    }
    let code = wire.input.byte().ok_or(RequestError::Closed)?;
    streams::greeting(code).map_err(of_opening)
}

fn malformed(Malformed(what): Malformed) -> RequestError {
    RequestError::Malformed(what.into())
}

fn of_opening(error: OpenError) -> RequestError {
    match error {
        OpenError::NotConnected => Busy::NotConnected.into(),
        OpenError::Busy => Busy::Full.into(),
        OpenError::Timeout => RequestError::Timeout,
        OpenError::Unsupported | OpenError::Refused(Refusal::NotServing | Refusal::NotMember) => {
            RequestError::Unsupported
        }
        OpenError::Refused(Refusal::Busy) => RequestError::PeerBusy,
        OpenError::Closed => RequestError::Closed,
        OpenError::Malformed => RequestError::Malformed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that is still being opened, and questions on it.
    struct Scene {
        stream: Asked,
        jobs: mpsc::Sender<Job>,
        in_flight: Arc<AtomicUsize>,
        number: u64,
    }

    type Told = oneshot::Receiver<Result<Vec<u8>, RequestError>>;

    impl Scene {
        fn new(since: Instant, greeted: bool) -> Self {
            let (jobs, todo) = mpsc::channel(limits::RPC_IN_FLIGHT_MAX);
            let stream = Asked {
                jobs: todo,
                stage: Stage::Opening(futures::future::pending().boxed()),
                since,
                greeted,
                unsent: VecDeque::new(),
                calls: BTreeMap::new(),
                forgotten: 0,
                alarm: None,
            };
            Self { stream, jobs, in_flight: Arc::default(), number: 0 }
        }

        fn ask(&mut self, asked: Instant, patience: Duration) -> Told {
            let (asker, told) = oneshot::channel();
            self.number += 1;
            self.in_flight.fetch_add(1, Ordering::Relaxed);
            let question =
                Question { peer: PeerId::random(), number: self.number, asker: Some(Asker::Task(asker)) };
            let slot = Slot(self.in_flight.clone());
            self.jobs.try_send(Job { question, bytes: vec![1], asked, patience, slot }).unwrap();
            told
        }

        /// One look; none if the stream is still of use.
        async fn look(&mut self) -> Option<RequestError> {
            // Once more after the timer's next tick: it knows whole milliseconds.
            self.stream.poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready();
            tokio::time::sleep(Duration::from_millis(3)).await;
            match self.stream.poll(&mut Context::from_waker(std::task::Waker::noop())) {
                Poll::Ready(end) => Some(end),
                Poll::Pending => None,
            }
        }

        fn in_flight(&self) -> usize {
            self.in_flight.load(Ordering::Relaxed)
        }
    }

    const LONG: Duration = Duration::from_secs(10);

    fn ago(time: impl Into<Duration>) -> Instant {
        Instant::now().checked_sub(time.into()).expect("the machine runs for a while")
    }

    #[tokio::test]
    async fn a_stream_that_cannot_be_opened_holds_no_question_past_its_deadline() {
        let mut scene = Scene::new(Instant::now(), false);
        let mut long = scene.ask(Instant::now(), LONG);
        let short = scene.ask(Instant::now(), Duration::from_millis(1));
        assert_eq!(scene.look().await, None);
        assert_eq!(short.await, Ok(Err(RequestError::Timeout)));
        assert_eq!(scene.in_flight(), 2, "the other side may still answer it");
        // So late that nobody believes in it any more.
        scene.stream.since = ago(limits::STREAM_OPEN_TIMEOUT);
        let other = scene.ask(Instant::now(), Duration::ZERO);
        assert!(long.try_recv().is_err());
        let mut queued = None;
        assert_eq!(
            {
                let end = scene.look().await;
                queued.replace(scene.ask(Instant::now(), LONG));
                end
            },
            Some(RequestError::Closed)
        );
        assert_eq!(other.await, Ok(Err(RequestError::Timeout)));
        let in_flight = scene.in_flight.clone();
        scene.stream.end(&RequestError::PeerBusy);
        assert_eq!(long.await, Ok(Err(RequestError::PeerBusy)));
        assert_eq!(queued.unwrap().await, Ok(Err(RequestError::PeerBusy)), "nor is one behind it forgotten");
        assert_eq!(in_flight.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_peer_that_never_answers_gives_places_back_late_and_not_for_ever() {
        let mut scene = Scene::new(Instant::now(), true);
        for round in 1..=FORGOTTEN_MAX + 1 {
            let told = scene.ask(ago(limits::RPC_TIMEOUT_MAX), LONG);
            let end = scene.look().await;
            assert_eq!(told.await, Ok(Err(RequestError::Timeout)));
            assert_eq!(scene.in_flight(), 0);
            assert_eq!(end.is_some(), round > FORGOTTEN_MAX, "{round}: {end:?}");
        }
    }

    #[tokio::test]
    async fn a_question_is_told_one_thing_whatever_becomes_of_its_stream() {
        let mut scene = Scene::new(Instant::now(), true);
        let (taken, waiting) = (scene.ask(Instant::now(), LONG), scene.ask(Instant::now(), LONG));
        assert_eq!(scene.look().await, None);
        let behind = scene.ask(Instant::now(), LONG);
        let in_flight = scene.in_flight.clone();
        drop(scene);
        for told in [taken, waiting, behind] {
            assert_eq!(told.await, Ok(Err(RequestError::Closed)));
        }
        assert_eq!(in_flight.load(Ordering::Relaxed), 0);
    }
}
