//! The asking side of bulk: a pool of a few streams per peer, shared by all who ask.
//!
//! A stream is opened at the first call and kept. One on which nothing moves while a call waits is given up
//! with all its calls, so that their callers go elsewhere at once.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{
    AsyncReadExt,
    io::{ReadHalf, WriteHalf},
};
use libp2p::{PeerId, Stream};
use tokio::{
    runtime,
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::{
    BulkError, Put, Receipt,
    framing::{self, Fault},
    wire::{self, BulkReply, BulkRequest, Piece},
};
use crate::{
    model::{BodyId, limits},
    net::{
        event::{Counter, SharedCounters},
        streams::{BULK, Opener},
    },
};

/// How finely the patience of a call is measured: it gives up after this many quiet steps.
const QUIET_STEPS: u32 = 5;

/// All bulk streams of this process that it opened itself. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BulkPool {
    opener: Opener,
    counters: SharedCounters,
    runtime: runtime::Handle,
    peers: Arc<Mutex<BTreeMap<PeerId, Vec<Arc<Line>>>>>,
}

/// Puts to and gets from one peer. Cheap to clone; all clones share the peer's streams.
#[derive(Clone, Debug)]
pub struct BulkClient {
    pool: BulkPool,
    peer: PeerId,
}

/// One stream and its task.
#[derive(Debug)]
struct Line {
    jobs: mpsc::Sender<Job>,
    flow: Arc<Flow>,
    task: AbortHandle,
}

/// What moves on a stream.
#[derive(Debug, Default)]
struct Flow {
    /// Counts every piece: while it grows, there is progress.
    moved: AtomicU64,
    /// Bytes of bodies that came in, counted piece by piece.
    coming: AtomicU64,
    /// Told when a caller gave up before its answer.
    abandoned: Notify,
    /// Calls that are not answered yet.
    calls: AtomicUsize,
    sent: Counter,
    received: Counter,
}

impl Flow {
    fn mark(&self) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether a get gets on, for whoever decides when to ask somebody else too. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<OnceLock<Begun>>);

#[derive(Debug)]
struct Begun {
    flow: Arc<Flow>,
    before: u64,
}

impl Progress {
    /// Bytes of bodies that came in on the stream of this get since it began: its own, or of those that it
    /// waits behind. That the other side says "working" is not among them. Costs two loads.
    pub fn bytes(&self) -> u64 {
        let came = |begun: &Begun| begun.flow.coming.load(Ordering::Relaxed) - begun.before;
        self.0.get().map_or(0, came)
    }

    fn begin(&self, flow: &Arc<Flow>) {
        let before = flow.coming.load(Ordering::Relaxed);
        // One that was used for another get before stays with that one.
        let _ = self.0.set(Begun { flow: Arc::clone(flow), before });
    }
}

#[derive(Debug)]
struct Job {
    request: BulkRequest,
    body: Arc<Vec<u8>>,
    reply: oneshot::Sender<Result<Answer, BulkError>>,
}

#[derive(Debug)]
enum Answer {
    Reply(BulkReply),
    Body(Vec<u8>),
}

/// A call that is on the wire.
struct Pending {
    wanted: Option<BodyId>,
    reply: oneshot::Sender<Result<Answer, BulkError>>,
    _window: OwnedSemaphorePermit,
    _slot: OwnedSemaphorePermit,
}

type PendingCalls = Mutex<BTreeMap<u64, Pending>>;

impl BulkPool {
    /// Must be called inside the runtime on which the streams are to run.
    pub(in crate::net) fn new(opener: Opener, counters: SharedCounters) -> Self {
        Self { opener, counters, runtime: runtime::Handle::current(), peers: Arc::default() }
    }

    /// The client for a peer. Opens nothing yet: streams are opened at the first call and kept.
    pub fn peer(&self, peer: PeerId) -> BulkClient {
        BulkClient { pool: self.clone(), peer }
    }

    /// The opener, for tests that speak to a peer by hand.
    #[cfg(test)]
    pub(in crate::net) fn opener(&self) -> Opener {
        self.opener.clone()
    }

    /// Gives up all streams to a peer, or to all: their calls fail at once.
    pub(in crate::net) fn hang_up(&self, peer: Option<PeerId>) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = match peer {
            Some(peer) => peers.remove(&peer).into_iter().collect::<Vec<_>>(),
            None => std::mem::take(&mut *peers).into_values().collect(),
        };
        gone.iter().flatten().for_each(|line| line.task.abort());
    }

    /// The least busy stream to the peer, or a new one while there may be more.
    fn line(&self, peer: PeerId) -> Arc<Line> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = peers.entry(peer).or_default();
        lines.retain(|line| !line.jobs.is_closed());
        let calls = |line: &Arc<Line>| line.flow.calls.load(Ordering::Relaxed);
        let least = lines.iter().min_by_key(|line| calls(line)).cloned();
        match least {
            Some(line) if calls(&line) == 0 || lines.len() >= limits::BULK_STREAMS_OPENED_MAX => line,
            _ => {
                let line = Arc::new(self.start_line(peer));
                lines.push(line.clone());
                line
            }
        }
    }

    fn start_line(&self, peer: PeerId) -> Line {
        let (jobs, todo) = mpsc::channel(limits::BULK_REQUESTS_PER_STREAM_MAX);
        let flow = Arc::new(Flow::default());
        let task = run_line(self.clone(), peer, todo, flow.clone());
        Line { jobs, flow, task: self.runtime.spawn(task).abort_handle() }
    }
}

impl BulkClient {
    /// The peer.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Stores a body there. Waits for room in the window, for the bytes to go out, and for the answer; gives
    /// up when nothing at all moved on the stream for `patience`. Dropping the future gives the call up.
    ///
    /// # Errors
    /// [`BulkError`]; after [`BulkError::Closed`] and [`BulkError::NoProgress`] the peer may have stored it.
    pub async fn put(&self, put: Put, patience: Duration) -> Result<Receipt, BulkError> {
        if put.body.len() > limits::BODY_BYTES_MAX || put.onward.len() > wire::HOLDERS_MAX {
            return Err(BulkError::TooLong);
        }
        let request = BulkRequest::Put {
            id: put.id,
            len: put.body.len() as u64,
            onward: put.onward,
            durable: put.durable,
            first_hop: put.first_hop,
        };
        let line = self.pool.line(self.peer);
        match call(&line, request, put.body, patience).await? {
            Answer::Reply(BulkReply::Stored { holders }) => Ok(Receipt { holders }),
            Answer::Reply(other) => Err(refusal(other)),
            Answer::Body(_) => Err(BulkError::Malformed("a body where a receipt belongs".into())),
        }
    }

    /// Fetches a body, checked against its id.
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn get(&self, id: BodyId, patience: Duration) -> Result<Vec<u8>, BulkError> {
        self.get_watched(id, patience, &Progress::default()).await
    }

    /// As [`BulkClient::get`], and `progress`, a fresh one, says meanwhile whether it gets on. Dropping the
    /// future gives the get up and hurts no other: what is on its way is read and thrown away.
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn get_watched(
        &self,
        id: BodyId,
        patience: Duration,
        progress: &Progress,
    ) -> Result<Vec<u8>, BulkError> {
        let line = self.pool.line(self.peer);
        progress.begin(&line.flow);
        match call(&line, BulkRequest::Get { id }, Arc::default(), patience).await? {
            Answer::Body(body) => Ok(body),
            Answer::Reply(other) => Err(refusal(other)),
        }
    }

    /// Brings a piece of what a task of this process works on. As [`BulkClient::put`].
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn give(&self, piece: Piece, body: Arc<Vec<u8>>, patience: Duration) -> Result<(), BulkError> {
        if body.len() > limits::BODY_BYTES_MAX {
            return Err(BulkError::TooLong);
        }
        let request = BulkRequest::Give { piece, len: body.len() as u64 };
        let line = self.pool.line(self.peer);
        match call(&line, request, body, patience).await? {
            Answer::Reply(BulkReply::Stored { .. }) => Ok(()),
            Answer::Reply(other) => Err(refusal(other)),
            Answer::Body(_) => Err(BulkError::Malformed("a body where a receipt belongs".into())),
        }
    }

    /// Fetches a piece of the answer to a task of this process, checked against its hash. As
    /// [`BulkClient::get`].
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn take(&self, piece: Piece, patience: Duration) -> Result<Vec<u8>, BulkError> {
        let line = self.pool.line(self.peer);
        match call(&line, BulkRequest::Take { piece }, Arc::default(), patience).await? {
            Answer::Body(body) => Ok(body),
            Answer::Reply(other) => Err(refusal(other)),
        }
    }

    /// Body bytes (sent, received) over this peer's streams that are open now.
    pub fn traffic(&self) -> (u64, u64) {
        let peers = self.pool.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = peers.get(&self.peer).into_iter().flatten();
        lines.fold((0, 0), |(s, r), line| (s + line.flow.sent.get(), r + line.flow.received.get()))
    }

    /// Streams to this peer that are open or being opened.
    #[cfg(test)]
    pub(in crate::net) fn streams(&self) -> usize {
        let peers = self.pool.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.get(&self.peer).into_iter().flatten().filter(|line| !line.jobs.is_closed()).count()
    }
}

async fn call(
    line: &Line,
    request: BulkRequest,
    body: Arc<Vec<u8>>,
    patience: Duration,
) -> Result<Answer, BulkError> {
    line.flow.calls.fetch_add(1, Ordering::Relaxed);
    let mut counted = Counted { flow: &line.flow, ended: false };
    let (reply, answer) = oneshot::channel();
    let asking = async {
        line.jobs.send(Job { request, body, reply }).await.map_err(|_| BulkError::Closed)?;
        answer.await.map_err(|_| BulkError::Closed)?
    };
    let called = timeout(limits::BULK_CALL_TIMEOUT.into(), watched(asking, &line.flow.moved, patience)).await;
    counted.ended = true;
    match called {
        Ok(Some(result)) => result,
        Ok(None) => {
            // Nothing moved for anybody on this stream: nobody else should wait for it either.
            line.task.abort();
            Err(BulkError::NoProgress(patience))
        }
        Err(_) => Err(BulkError::NoProgress(limits::BULK_CALL_TIMEOUT.into())),
    }
}

/// A call in hand. Dropped before its end, it leaves a question on the stream that nobody watches.
struct Counted<'a> {
    flow: &'a Flow,
    ended: bool,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.flow.calls.fetch_sub(1, Ordering::Relaxed);
        if !self.ended {
            self.flow.abandoned.notify_one();
        }
    }
}

fn refusal(reply: BulkReply) -> BulkError {
    match reply {
        BulkReply::NotHere => BulkError::NotHere,
        BulkReply::Full => BulkError::Full,
        BulkReply::Busy => BulkError::Busy,
        BulkReply::Corrupt => BulkError::Corrupt,
        BulkReply::Refused(why) => BulkError::Refused(why),
        BulkReply::Stored { .. } | BulkReply::Body { .. } | BulkReply::Working => {
            BulkError::Malformed("an answer to another question".into())
        }
    }
}

/// Waits as long as something moves; none when nothing did for `patience`.
async fn watched<T>(work: impl Future<Output = T>, moved: &AtomicU64, patience: Duration) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut seen = moved.load(Ordering::Relaxed);
    let mut quiet = 0;
    loop {
        if let Ok(done) = timeout(patience / QUIET_STEPS, &mut work).await {
            return Some(done);
        }
        let now = moved.load(Ordering::Relaxed);
        quiet = if now == seen { quiet + 1 } else { 0 };
        seen = now;
        if quiet >= QUIET_STEPS {
            return None;
        }
    }
}

async fn run_line(pool: BulkPool, peer: PeerId, mut jobs: mpsc::Receiver<Job>, flow: Arc<Flow>) {
    let stream = match pool.opener.open(peer, BULK, limits::STREAM_OPEN_TIMEOUT.into()).await {
        Ok(stream) => stream,
        Err(error) => {
            jobs.close();
            while let Some(job) = jobs.recv().await {
                // A caller that gave up needs no answer.
                let _ = job.reply.send(Err(BulkError::Open(error)));
            }
            return;
        }
    };
    flow.mark();
    let (from_peer, to_peer) = stream.split();
    let pending = PendingCalls::default();
    let writing = std::pin::pin!(write_jobs(to_peer, &mut jobs, &pending, &flow, &pool.counters));
    let reading = std::pin::pin!(read_answers(from_peer, &pending, &flow, &pool.counters));
    let result = tokio::select! {
        result = writing => result,
        result = reading => result,
        () = watch_abandoned(&pending, &flow) => {
            tracing::debug!(%peer, "a bulk stream stands still and was given up");
            return;
        }
    };
    if let Err(Fault::Malformed(what)) = result {
        pool.counters.bulk_malformed.bump();
        tracing::warn!(%peer, what, "a bulk stream was closed");
        let calls = std::mem::take(&mut *pending.lock().unwrap_or_else(PoisonError::into_inner));
        for call in calls.into_values() {
            let _ = call.reply.send(Err(BulkError::Malformed(what.into())));
        }
    }
}

/// Ends when nothing moves any more while an answer is owed that its caller no longer waits for: left open,
/// such a stream would cost the next caller the same wait again.
async fn watch_abandoned(pending: &PendingCalls, flow: &Flow) {
    let patience = Duration::from(limits::NO_PROGRESS);
    let is_owed = || {
        let pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.values().any(|call| call.reply.is_closed())
    };
    loop {
        flow.abandoned.notified().await;
        let answered = async {
            while is_owed() {
                sleep(patience / QUIET_STEPS).await;
            }
        };
        if watched(answered, &flow.moved, patience).await.is_none() {
            return;
        }
    }
}

/// Sends requests in the order of asking, as far as the window lets them.
async fn write_jobs(
    mut to_peer: WriteHalf<Stream>,
    jobs: &mut mpsc::Receiver<Job>,
    pending: &PendingCalls,
    flow: &Flow,
    counters: &SharedCounters,
) -> Result<(), Fault> {
    let window = Arc::new(Semaphore::new(limits::BULK_UNACKNOWLEDGED_BYTES_MAX));
    let slots = Arc::new(Semaphore::new(limits::BULK_ASKED_PER_STREAM_MAX));
    // The callers watch for progress; this only ends a write that nobody waits for any more.
    let patience = limits::BULK_CALL_TIMEOUT.into();
    let mut number = 0;
    while let Some(job) = jobs.recv().await {
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let len = u32::try_from(job.body.len()).expect("a body is at most BODY_BYTES_MAX");
        let room = window.clone().acquire_many_owned(len).await.expect("the semaphore is never closed");
        if job.reply.is_closed() {
            continue;
        }
        number += 1;
        let header = wire::encode_request(number, &job.request);
        let wants_body = matches!(job.request, BulkRequest::Get { .. } | BulkRequest::Take { .. });
        let wanted = wants_body.then(|| job.request.id());
        let call = Pending { wanted, reply: job.reply, _window: room, _slot: slot };
        pending.lock().unwrap_or_else(PoisonError::into_inner).insert(number, call);
        let moved = |_: usize| flow.mark();
        framing::write_pieces(&mut to_peer, &header, patience, moved).await?;
        framing::write_pieces(&mut to_peer, &job.body, patience, moved).await?;
        framing::flush(&mut to_peer, patience).await?;
        flow.sent.add(u64::from(len));
        counters.bulk_bytes_sent.add(u64::from(len));
    }
    Ok(())
}

async fn read_answers(
    mut from_peer: ReadHalf<Stream>,
    pending: &PendingCalls,
    flow: &Flow,
    counters: &SharedCounters,
) -> Result<(), Fault> {
    let patience = limits::BULK_CALL_TIMEOUT.into();
    loop {
        let Some(header) = framing::read_header(&mut from_peer, patience).await? else { return Ok(()) };
        flow.mark();
        let (number, reply) = wire::decode_reply(&header).map_err(|_| Fault::Malformed("answer header"))?;
        if reply == BulkReply::Working {
            continue;
        }
        let call = pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        let Some(call) = call else { return Err(Fault::Malformed("an answer to no question")) };
        let answer = match (reply, call.wanted) {
            (BulkReply::Body { len }, Some(id)) => {
                read_wanted(&mut from_peer, id, len, flow, counters).await?
            }
            (BulkReply::Body { .. }, None) => return Err(Fault::Malformed("a body where a receipt belongs")),
            (reply, _) => Ok(Answer::Reply(reply)),
        };
        // A caller that gave up needs no answer.
        let _ = call.reply.send(answer);
    }
}

async fn read_wanted(
    from_peer: &mut ReadHalf<Stream>,
    id: BodyId,
    len: u64,
    flow: &Flow,
    counters: &SharedCounters,
) -> Result<Result<Answer, BulkError>, Fault> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > limits::BODY_BYTES_MAX {
        return Err(Fault::Malformed("body too long"));
    }
    let mut body = vec![0; len];
    let moved = |bytes: usize| {
        flow.mark();
        flow.coming.fetch_add(bytes as u64, Ordering::Relaxed);
    };
    let hash = framing::read_body(from_peer, &mut body, limits::BULK_CALL_TIMEOUT.into(), moved).await;
    if matches!(hash, Err(Fault::Short)) {
        counters.bulk_short.bump();
    }
    let hash = hash?;
    flow.received.add(len as u64);
    counters.bulk_bytes_received.add(len as u64);
    if hash == id {
        return Ok(Ok(Answer::Body(body)));
    }
    counters.bulk_corrupt.bump();
    Ok(Err(BulkError::Corrupt))
}
