//! Questions of others: read off their streams, handed up, and their answers sent back in any order.
//!
//! A peer has a bounded number of questions in hand, over all its streams and until their answers begin to
//! leave; past it the answer is "busy". Answers that wait for a peer to read are bounded in bytes. A peer
//! that reads nothing for too long loses its stream, and delays nobody else: each stream has a task of its
//! own.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use libp2p::PeerId;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Heard,
    wire::{self, Malformed, Shape, Wire},
};
use crate::{
    model::{hello::Kind, limits},
    net::{
        event::{Busy, SharedCounters},
        streams::Inbound,
        transport::Gate,
    },
};

/// Reads of one stream before others have their turn.
const READS_PER_TURN: usize = 16;

/// What all served streams share.
pub(in crate::net) struct Answering {
    gate: Gate,
    counters: SharedCounters,
    heard: mpsc::Sender<Heard>,
    all_answer_bytes: Arc<AtomicUsize>,
    loads: Mutex<BTreeMap<PeerId, Weak<Load>>>,
}

/// What one peer has in hand here, over all its streams.
#[derive(Debug)]
struct Load {
    questions: AtomicUsize,
    answer_bytes: AtomicUsize,
    all_answer_bytes: Arc<AtomicUsize>,
}

impl Answering {
    pub(in crate::net) fn new(gate: Gate, counters: SharedCounters, heard: mpsc::Sender<Heard>) -> Self {
        Self { gate, counters, heard, all_answer_bytes: Arc::default(), loads: Mutex::default() }
    }

    /// Asked once per stream.
    fn load(&self, peer: PeerId) -> Arc<Load> {
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(load) = loads.get(&peer).and_then(Weak::upgrade) {
            return load;
        }
        loads.retain(|_, load| load.strong_count() > 0);
        let load = Arc::new(Load {
            questions: AtomicUsize::new(0),
            answer_bytes: AtomicUsize::new(0),
            all_answer_bytes: self.all_answer_bytes.clone(),
        });
        loads.insert(peer, Arc::downgrade(&load));
        load
    }
}

/// One of the questions that a peer may have in hand; given back when dropped.
#[derive(Debug)]
struct Place(Arc<Load>);

impl Place {
    fn take(load: &Arc<Load>) -> Option<Self> {
        take_up_to(&load.questions, 1, limits::RPC_IN_FLIGHT_MAX).then(|| Self(load.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.questions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Room for an answer that waits for its peer; given back when dropped.
#[derive(Debug)]
struct Room {
    load: Arc<Load>,
    bytes: usize,
}

impl Room {
    fn take(load: &Arc<Load>, bytes: usize) -> Option<Self> {
        if !take_up_to(&load.answer_bytes, bytes, limits::RPC_ANSWERS_PER_PEER_BYTES_MAX) {
            return None;
        }
        if !take_up_to(&load.all_answer_bytes, bytes, limits::RPC_ANSWERS_BYTES_MAX) {
            load.answer_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        Some(Self { load: load.clone(), bytes })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.load.answer_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.load.all_answer_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn take_up_to(count: &AtomicUsize, more: usize, max: usize) -> bool {
    let fits = |now: usize| now.checked_add(more).filter(|sum| *sum <= max);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
}

/// An answer on its way to the stream's task.
#[derive(Debug)]
struct Answer {
    number: u64,
    status: u8,
    bytes: Vec<u8>,
    place: Place,
    room: Option<Room>,
}

/// The right to answer one request. Dropped unused, the asker gets an error at once.
#[derive(Debug)]
pub struct ReplyToken {
    number: u64,
    /// None once it has been used.
    place: Option<Place>,
    to: mpsc::Sender<Answer>,
    counters: SharedCounters,
}

impl ReplyToken {
    /// Sends an answer. One too long, or one too many for a peer that does not take those it has, becomes
    /// "busy" for the asker; the former is an error here. Waits for nothing.
    pub(in crate::net) fn answer(mut self, bytes: Vec<u8>) -> Result<(), Busy> {
        let Some(place) = self.place.take() else { return Ok(()) };
        let too_long = bytes.len() > limits::RPC_RESPONSE_BYTES_MAX;
        if self.to.is_closed() {
            // The asker is gone: thrown away at once, and needs no room.
        } else if let Some(room) = Room::take(&place.0, bytes.len()).filter(|_| !too_long) {
            self.send(wire::ANSWER, bytes, place, Some(room));
        } else {
            self.counters.rpc_busy.bump();
            self.send(wire::BUSY, Vec::new(), place, None);
        }
        if too_long { Err(Busy::TooLong) } else { Ok(()) }
    }

    fn send(&self, status: u8, bytes: Vec<u8>, place: Place, room: Option<Room>) {
        // There is room in the queue for all who have a place. An asker that is gone is no error.
        let _ = self.to.try_send(Answer { number: self.number, status, bytes, place, room });
    }
}

impl Drop for ReplyToken {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.send(wire::NONE, Vec::new(), place, None);
        }
    }
}

/// Serves every stream that comes in; at most a few per peer do.
pub(in crate::net) async fn serve(mut inbox: mpsc::Receiver<Inbound>, answering: Arc<Answering>) {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            inbound = inbox.recv() => match inbound {
                Some(inbound) => drop(streams.spawn(serve_stream(inbound, answering.clone()))),
                None => return,
            },
            Some(_) = streams.join_next() => {}
        }
    }
}

async fn serve_stream(inbound: Inbound, answering: Arc<Answering>) {
    let peer = inbound.peer;
    let Some(kind) = answering.gate.kind(&peer) else { return };
    let Ok((stream, _place)) = inbound.greet().await else { return };
    let (to, answers) = mpsc::channel(limits::RPC_IN_FLIGHT_MAX);
    let mut serving = Serving {
        answering: &answering,
        load: answering.load(peer),
        peer,
        kind,
        wire: Wire::new(stream),
        last: None,
        to: Some(to),
        answers,
        busy: Vec::new(),
        owed: 0,
        leaving: Vec::new(),
    };
    match poll_fn(|cx| serving.poll(cx)).await {
        Ok(()) => {}
        Err(Fault::Broken(error)) => tracing::debug!(%peer, %error, "an rpc stream broke"),
        Err(Fault::Malformed(Malformed(what))) => {
            answering.counters.rpc_malformed.bump();
            // Counted, and no louder: a peer may do this as often as it likes.
            tracing::debug!(%peer, what, "an rpc stream was closed");
            // Whoever is too busy to hear of it finds it in the counter.
            let _ = answering.heard.try_send(Heard::Malformed { peer });
        }
    }
}

/// Why a stream ended before its time.
enum Fault {
    Broken(std::io::Error),
    Malformed(Malformed),
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// One stream.
struct Serving<'a> {
    answering: &'a Answering,
    load: Arc<Load>,
    peer: PeerId,
    kind: Kind,
    wire: Wire,
    /// The number of the last question.
    last: Option<u64>,
    /// For the tokens; none once the peer asks no more.
    to: Option<mpsc::Sender<Answer>>,
    answers: mpsc::Receiver<Answer>,
    /// Numbers to be answered with "busy".
    busy: Vec<u64>,
    /// Questions whose answers have not left.
    owed: usize,
    /// What the bytes on their way out hold.
    leaving: Vec<Option<Room>>,
}

impl Serving<'_> {
    /// Ready when the peer has asked its last question and has all answers.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        for _ in 0..READS_PER_TURN {
            let all_sent = self.poll_answers(cx)?.is_ready();
            if self.to.is_none() {
                let closed = if all_sent { self.wire.poll_close(cx) } else { Poll::Pending };
                return closed.map_err(Fault::from);
            }
            let got = ready!(self.wire.poll_fill(cx))?;
            if got == 0 {
                self.to = None;
                if !self.wire.input.is_empty() {
                    return Poll::Ready(Err(Malformed("rpc question cut short").into()));
                }
            }
            while let Some(question) = self.wire.input.next(Shape::Questions)? {
                self.take(question.number, question.bytes)?;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends answers while the stream takes them. Ready when no more can come.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            let mut ended = false;
            if self.wire.output.takes_more() {
                for number in self.busy.drain(..) {
                    self.wire.output.answer(number, wire::BUSY, &[]);
                    self.leaving.push(None);
                }
            }
            while self.wire.output.takes_more()
                && !ended
                && let Poll::Ready(answer) = self.answers.poll_recv(cx)
            {
                ended = answer.is_none();
                if let Some(answer) = answer {
                    self.wire.output.answer(answer.number, answer.status, &answer.bytes);
                    self.leaving.push(answer.room);
                    // Before it leaves: the peer may ask again as soon as it has read the answer.
                    drop(answer.place);
                }
            }
            if self.wire.output.is_empty() {
                return if ended { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            ready!(self.wire.poll_send(cx))?;
            self.owed -= self.leaving.len();
            self.leaving.clear();
        }
    }

    fn take(&mut self, number: u64, bytes: Vec<u8>) -> Result<(), Malformed> {
        if self.last.is_some_and(|last| number <= last) {
            return Err(Malformed("rpc numbers that do not grow"));
        }
        self.last = Some(number);
        self.owed += 1;
        if self.owed > limits::RPC_OWED_MAX {
            return Err(Malformed("more rpc questions than any may have"));
        }
        let counters = &self.answering.counters;
        counters.rpc_requests_received.bump();
        if !self.hand_up(number, bytes) {
            counters.rpc_busy.bump();
            self.busy.push(number);
        }
        Ok(())
    }

    fn hand_up(&self, number: u64, bytes: Vec<u8>) -> bool {
        let (Some(to), Some(place)) = (self.to.clone(), Place::take(&self.load)) else { return false };
        let Ok(inbox) = self.answering.heard.try_reserve() else { return false };
        let token = ReplyToken { number, place: Some(place), to, counters: self.answering.counters.clone() };
        inbox.send(Heard::Question { peer: self.peer, kind: self.kind, token, bytes });
        true
    }
}
