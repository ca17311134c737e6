//! The answering side of bulk: takes requests off the streams, checks bodies, hands calls up, sends answers.
//!
//! A body is in memory only under one of the node's places, for which a request waits; a peer that stops
//! moving in the middle of a body loses its stream and gives its places back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{
    AsyncReadExt, StreamExt,
    future::{self, BoxFuture},
    io::{ReadHalf, WriteHalf},
    stream::FuturesUnordered,
};
use libp2p::{PeerId, Stream};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use super::{
    BulkAnswer, BulkCall,
    framing::{self, Fault},
    wire::{self, BulkReply, BulkRequest},
};
use crate::{
    model::{BodyId, hello::Kind, limits},
    net::{
        event::SharedCounters,
        places::{Place, Tally},
        streams::Inbound,
        transport::Gate,
    },
};

/// A body that is not there after so many times the patience with a single piece is given up. By then its
/// sender has given it up too.
const BODY_STALLS_MAX: u32 = 6;

/// What all served streams share.
pub(in crate::net) struct Server {
    calls: mpsc::Sender<BulkCall>,
    gate: Gate,
    counters: SharedCounters,
    stall: Duration,
    places: Arc<Semaphore>,
    places_for_members: Arc<Semaphore>,
    places_of: Tally,
}

/// The right to hold one body in memory.
struct Held {
    _place: OwnedSemaphorePermit,
    _place_of_peer: Place,
}

/// A request on its way to its answer.
struct Awaited {
    number: u64,
    wanted: BodyId,
    len: usize,
    answer: Answer,
    _slot: OwnedSemaphorePermit,
    held: Option<Held>,
}

enum Answer {
    Known(BulkReply),
    FromNode(oneshot::Receiver<BulkAnswer>),
}

struct Answered {
    number: u64,
    reply: BulkReply,
    body: Option<Arc<Vec<u8>>>,
    awaited: Awaited,
}

impl Server {
    pub(in crate::net) fn new(
        calls: mpsc::Sender<BulkCall>,
        gate: Gate,
        counters: SharedCounters,
        stall: Duration,
    ) -> Self {
        let places = Arc::new(Semaphore::new(limits::BULK_SERVED_MAX));
        let places_for_members = Arc::new(Semaphore::new(limits::BULK_SERVED_MEMBERS_MAX));
        Self { calls, gate, counters, stall, places, places_for_members, places_of: Tally::default() }
    }

    /// A place for one request, in the order in which they came; none if the peer has too many already, or
    /// if none becomes free in time.
    async fn hold(&self, peer: PeerId, kind: Kind, intake: &Intake) -> Option<Held> {
        let place_of_peer = Place::take(&self.places_of, peer, limits::BULK_SERVED_PER_PEER_MAX)?;
        let places = if kind == Kind::Member { &self.places_for_members } else { &self.places };
        let mut waiting =
            std::pin::pin!(timeout(limits::BULK_PLACE_PATIENCE.into(), Arc::clone(places).acquire_owned()));
        let place = loop {
            match timeout(limits::BULK_WORKING_EVERY.into(), &mut waiting).await {
                Ok(place) => break place.ok()?.ok()?,
                // Whoever waits shall not take this node for a dead one.
                Err(_) => intake.moved.notify_one(),
            }
        };
        Some(Held { _place: place, _place_of_peer: place_of_peer })
    }

    fn count(&self, peer: PeerId, fault: &Fault) {
        match fault {
            Fault::Malformed(what) => {
                self.counters.bulk_malformed.bump();
                // Counted, and no louder: a peer may do this as often as it likes.
                tracing::debug!(%peer, what, "a bulk stream was closed");
            }
            Fault::Short => self.counters.bulk_short.bump(),
            Fault::Stalled => self.counters.bulk_stalled.bump(),
            Fault::Io(error) => tracing::debug!(%peer, %error, "a bulk stream broke"),
        }
    }
}

/// Serves every stream that comes in; at most a few per peer do.
pub(in crate::net) async fn serve(mut inbox: mpsc::Receiver<Inbound>, server: Arc<Server>) {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            inbound = inbox.recv() => match inbound {
                Some(inbound) => drop(streams.spawn(serve_stream(inbound, server.clone()))),
                None => return,
            },
            Some(_) = streams.join_next() => {}
        }
    }
}

async fn serve_stream(inbound: Inbound, server: Arc<Server>) {
    let peer = inbound.peer;
    let Some(kind) = server.gate.kind(&peer) else { return };
    let Ok((stream, _place)) = inbound.greet().await else { return };
    let (from_peer, to_peer) = stream.split();
    let (awaited_tx, awaited_rx) = mpsc::channel(limits::BULK_REQUESTS_PER_STREAM_MAX);
    let intake = Arc::new(Intake::default());
    let reading = Reading {
        server: &server,
        peer,
        kind,
        from_peer,
        awaited: awaited_tx,
        slots: Arc::new(Semaphore::new(limits::BULK_REQUESTS_PER_STREAM_MAX)),
        intake: intake.clone(),
    };
    let reading = std::pin::pin!(reading.run());
    let writing = std::pin::pin!(write_answers(&server, to_peer, awaited_rx, &intake));
    let result = match future::select(reading, writing).await {
        // The peer has finished asking: its last answers are still on their way.
        future::Either::Left((Ok(()), writing)) => writing.await,
        future::Either::Left((Err(fault), _)) | future::Either::Right((Err(fault), _)) => Err(fault),
        future::Either::Right((Ok(()), _)) => Ok(()),
    };
    if let Err(fault) = result {
        server.count(peer, &fault);
    }
}

struct Reading<'a> {
    server: &'a Server,
    peer: PeerId,
    kind: Kind,
    from_peer: ReadHalf<Stream>,
    awaited: mpsc::Sender<Awaited>,
    slots: Arc<Semaphore>,
    intake: Arc<Intake>,
}

/// What comes in on a stream.
#[derive(Default)]
struct Intake {
    /// Bytes of bodies that came, or were announced, and are not acknowledged.
    unacknowledged: AtomicUsize,
    /// Told of every piece, and while the next request waits for its place.
    moved: Notify,
}

impl Reading<'_> {
    async fn run(mut self) -> Result<(), Fault> {
        loop {
            let slot = self.slots.clone().acquire_owned().await.expect("the semaphore is never closed");
            let Some(header) = framing::read_header(&mut self.from_peer, self.server.stall).await? else {
                return Ok(());
            };
            let (number, request) =
                wire::decode_request(&header).map_err(|_| Fault::Malformed("request header"))?;
            let len = self.admit(&request)?;
            let held = self.server.hold(self.peer, self.kind, &self.intake).await;
            let wanted = request.id();
            let answer = match &held {
                Some(_) => self.take(request, len).await?,
                None => {
                    framing::skip(&mut self.from_peer, len, self.server.stall).await?;
                    self.busy()
                }
            };
            let awaited = Awaited { number, wanted, len, answer, _slot: slot, held };
            if self.awaited.send(awaited).await.is_err() {
                return Ok(());
            }
        }
    }

    fn admit(&self, request: &BulkRequest) -> Result<usize, Fault> {
        let len = usize::try_from(request.body_len()).unwrap_or(usize::MAX);
        if len > limits::BODY_BYTES_MAX {
            return Err(Fault::Malformed("body too long"));
        }
        if let BulkRequest::Put { onward, .. } = request
            && onward.len() > wire::HOLDERS_MAX
        {
            return Err(Fault::Malformed("too many holders"));
        }
        let before = self.intake.unacknowledged.fetch_add(len, Ordering::Relaxed);
        if before + len > limits::BULK_UNACKNOWLEDGED_BYTES_MAX {
            return Err(Fault::Malformed("more bytes than the window"));
        }
        Ok(len)
    }

    async fn take(&mut self, request: BulkRequest, len: usize) -> Result<Answer, Fault> {
        let mut body = Vec::new();
        if matches!(request, BulkRequest::Put { .. } | BulkRequest::Give { .. }) {
            body = vec![0; len];
            let moved = |_| self.intake.moved.notify_one();
            let stall = self.server.stall;
            let reading = framing::read_body(&mut self.from_peer, &mut body, stall, moved);
            // One that drips moves all the time and would have its place for ever.
            let hash = timeout(BODY_STALLS_MAX * stall, reading).await.map_err(|_| Fault::Stalled)??;
            self.server.counters.bulk_bytes_received.add(len as u64);
            if hash != request.id() {
                self.server.counters.bulk_corrupt.bump();
                return Ok(Answer::Known(BulkReply::Corrupt));
            }
        }
        let (reply, answer) = oneshot::channel();
        let call = BulkCall { peer: self.peer, kind: self.kind, request, body, reply };
        match self.server.calls.try_send(call) {
            Ok(()) => Ok(Answer::FromNode(answer)),
            Err(_) => Ok(self.busy()),
        }
    }

    fn busy(&self) -> Answer {
        self.server.counters.bulk_busy.bump();
        Answer::Known(BulkReply::Busy)
    }
}

/// Sends answers as they become known, in any order, until no more are to come.
async fn write_answers(
    server: &Server,
    mut to_peer: WriteHalf<Stream>,
    mut awaited: mpsc::Receiver<Awaited>,
    intake: &Intake,
) -> Result<(), Fault> {
    let mut coming: FuturesUnordered<BoxFuture<'_, Answered>> = FuturesUnordered::new();
    let mut more = true;
    let mut said_working = 0;
    let mut comes_in = false;
    while more || !coming.is_empty() {
        let mut answered = tokio::select! {
            next = awaited.recv(), if more => {
                match next {
                    Some(next) => coming.push(Box::pin(next.resolve())),
                    None => more = false,
                }
                continue;
            }
            Some(answered) = coming.next() => answered,
            () = intake.moved.notified(), if !comes_in => {
                comes_in = true;
                continue;
            }
            // A slow wire or disk is no dead peer: who waits shall not go elsewhere with the same bytes. On a
            // slow wire all of a body may have left its sender long before it is here.
            () = tokio::time::sleep(limits::BULK_WORKING_EVERY.into()),
                if comes_in || (!coming.is_empty() && said_working < limits::BULK_WORKING_MAX) =>
            {
                said_working = if std::mem::take(&mut comes_in) { 0 } else { said_working + 1 };
                let header = wire::encode_reply(0, &BulkReply::Working);
                framing::write_pieces(&mut to_peer, &header, server.stall, |_| {}).await?;
                framing::flush(&mut to_peer, server.stall).await?;
                continue;
            }
        };
        (said_working, comes_in) = (0, false);
        // Given back before the answer leaves: the peer may use the room as soon as it has read the answer.
        intake.unacknowledged.fetch_sub(answered.awaited.len, Ordering::Relaxed);
        if answered.body.is_none() {
            answered.awaited.held = None;
        }
        let header = wire::encode_reply(answered.number, &answered.reply);
        framing::write_pieces(&mut to_peer, &header, server.stall, |_| {}).await?;
        if let Some(body) = &answered.body {
            let writing = framing::write_pieces(&mut to_peer, body, server.stall, |_| {});
            timeout(BODY_STALLS_MAX * server.stall, writing).await.map_err(|_| Fault::Stalled)??;
            server.counters.bulk_bytes_sent.add(body.len() as u64);
        }
        framing::flush(&mut to_peer, server.stall).await?;
    }
    Ok(())
}

impl Awaited {
    async fn resolve(mut self) -> Answered {
        let (reply, body) = match &mut self.answer {
            Answer::Known(reply) => (reply.clone(), None),
            Answer::FromNode(answer) => match answer.await {
                Ok(answer) => to_reply(answer),
                Err(_) => (BulkReply::Refused("not served".into()), None),
            },
        };
        tracing::trace!(wanted = %self.wanted, ?reply, "bulk answer");
        Answered { number: self.number, reply, body, awaited: self }
    }
}

fn to_reply(answer: BulkAnswer) -> (BulkReply, Option<Arc<Vec<u8>>>) {
    let reply = match answer {
        BulkAnswer::Body(body) if body.len() <= limits::BODY_BYTES_MAX => {
            return (BulkReply::Body { len: body.len() as u64 }, Some(body));
        }
        BulkAnswer::Body(_) => BulkReply::Refused("too long to send".into()),
        BulkAnswer::Stored { mut holders } => {
            holders.truncate(wire::HOLDERS_MAX);
            BulkReply::Stored { holders }
        }
        BulkAnswer::NotHere => BulkReply::NotHere,
        BulkAnswer::Full => BulkReply::Full,
        BulkAnswer::Busy => BulkReply::Busy,
        BulkAnswer::Corrupt => BulkReply::Corrupt,
        BulkAnswer::Refused(why) => BulkReply::Refused(shortened(why)),
    };
    (reply, None)
}

fn shortened(mut why: String) -> String {
    let mut end = why.len().min(limits::BULK_REASON_BYTES_MAX);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    why.truncate(end);
    why
}
