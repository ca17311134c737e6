//! `/tintype/rpc/1`: questions and answers, each on a stream of its own, with a bound and a deadline.
//!
//! A request is a length (u32, big endian) and that many bytes; an answer is a status byte, a length and that
//! many bytes. Longer ones are refused, never cut. What the bytes mean is not known here.

use std::{collections::BTreeMap, io, time::Duration};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{
    PeerId, StreamProtocol,
    request_response::{
        self, Config, InboundRequestId, Message, OutboundFailure, OutboundRequestId, ProtocolSupport,
        ResponseChannel,
    },
};
use tokio::{sync::oneshot, time::Instant};

use super::event::{Busy, Event, RequestError, RequestNumber, SharedCounters};
use super::transport::Gate;
use crate::model::limits;

pub(super) type Behaviour = request_response::Behaviour<Codec>;
type RpcEvent = request_response::Event<Vec<u8>, Reply>;

const ANSWER: u8 = 1;
const BUSY: u8 = 2;

/// Streams of one connection, both ways together: what honest peers have in flight, and as many refusals.
const STREAMS_MAX: usize = 4 * limits::RPC_IN_FLIGHT_MAX;

/// What goes back.
#[derive(Debug)]
pub(super) enum Reply {
    Answer(Vec<u8>),
    Busy,
}

/// The wire form.
#[derive(Clone, Debug)]
pub(super) struct Codec {
    /// libp2p tells nobody of a request that could not be read: it is counted here.
    counters: SharedCounters,
}

pub(super) fn build(counters: SharedCounters) -> Behaviour {
    let config = Config::default()
        .with_request_timeout(limits::RPC_TIMEOUT_MAX.into())
        .with_max_concurrent_streams(STREAMS_MAX);
    let protocol = StreamProtocol::new("/tintype/rpc/1");
    Behaviour::with_codec(Codec { counters }, [(protocol, ProtocolSupport::Full)], config)
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Reply;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let request = read_to_the_end(io, limits::RPC_REQUEST_BYTES_MAX).await;
        if request.as_ref().is_err_and(is_malformed) {
            self.counters.rpc_malformed.bump();
        }
        request
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Reply>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut status = [0];
        io.read_exact(&mut status).await?;
        let body = read_to_the_end(io, limits::RPC_RESPONSE_BYTES_MAX).await?;
        match (status[0], body) {
            (ANSWER, body) => Ok(Reply::Answer(body)),
            (BUSY, body) if body.is_empty() => Ok(Reply::Busy),
            _ => Err(malformed("unknown status")),
        }
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_framed(io, &[], &request).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, reply: Reply) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        match reply {
            Reply::Answer(body) => write_framed(io, &[ANSWER], &body).await,
            Reply::Busy => write_framed(io, &[BUSY], &[]).await,
        }
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

async fn write_framed<T: AsyncWrite + Unpin>(io: &mut T, status: &[u8], body: &[u8]) -> io::Result<()> {
    let mut framed = Vec::with_capacity(5 + body.len());
    framed.extend_from_slice(status);
    framed.extend_from_slice(&(body.len() as u32).to_be_bytes());
    framed.extend_from_slice(body);
    io.write_all(&framed).await
}

/// Reads a length, that many bytes, and the end of the stream; anything else is malformed.
async fn read_to_the_end<T: AsyncRead + Unpin>(io: &mut T, max: usize) -> io::Result<Vec<u8>> {
    let mut len = [0; 4];
    io.read_exact(&mut len).await?;
    let len = u32::from_be_bytes(len) as usize;
    if len > max {
        return Err(malformed("message too long"));
    }
    let mut body = Vec::new();
    // Grows with what really comes, and reads one byte too many if there is one.
    io.take(len as u64 + 1).read_to_end(&mut body).await?;
    match body.len().cmp(&len) {
        std::cmp::Ordering::Equal => Ok(body),
        std::cmp::Ordering::Less => Err(malformed("message cut short")),
        std::cmp::Ordering::Greater => Err(malformed("bytes behind the message")),
    }
}

/// The right to answer one request. Dropped unused, the asker gets an error at once.
#[derive(Debug)]
pub struct ReplyToken {
    id: InboundRequestId,
    channel: ResponseChannel<Reply>,
}

/// Who waits for an answer.
pub(super) enum Asker {
    /// The owner of the network, by an event.
    Loop,
    /// A task.
    Task(oneshot::Sender<Result<Vec<u8>, RequestError>>),
}

struct Call {
    peer: PeerId,
    number: RequestNumber,
    deadline: Instant,
    /// None once the deadline has passed: answered, but its slot is still taken inside libp2p.
    asker: Option<Asker>,
}

/// What is in flight: libp2p's own queues have no bound, so nothing enters them that is not counted here.
pub(super) struct InFlight {
    counters: SharedCounters,
    gate: Gate,
    next: u64,
    calls: BTreeMap<OutboundRequestId, Call>,
    deadlines: BTreeMap<(Instant, RequestNumber), OutboundRequestId>,
    out: BTreeMap<PeerId, usize>,
    serving: BTreeMap<InboundRequestId, Serving>,
}

/// A request that was handed up, until its answer has left or cannot leave any more.
struct Serving {
    peer: PeerId,
    /// Of the answer, while it waits for the peer to take it; 0 before.
    answer_bytes: usize,
}

impl InFlight {
    pub(super) fn new(counters: SharedCounters, gate: Gate) -> Self {
        Self {
            counters,
            gate,
            next: 0,
            calls: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            out: BTreeMap::new(),
            serving: BTreeMap::new(),
        }
    }

    /// Sends a request to a connected peer. On error the asker gets nothing from here.
    pub(super) fn begin(
        &mut self,
        rpc: &mut Behaviour,
        peer: PeerId,
        bytes: Vec<u8>,
        patience: Duration,
        asker: Asker,
    ) -> Result<RequestNumber, (Busy, Asker)> {
        if bytes.len() > limits::RPC_REQUEST_BYTES_MAX {
            return Err((Busy::TooLong, asker));
        }
        if !rpc.is_connected(&peer) {
            return Err((Busy::NotConnected, asker));
        }
        let out = self.out.entry(peer).or_default();
        if *out >= limits::RPC_IN_FLIGHT_MAX {
            return Err((Busy::Full, asker));
        }
        *out += 1;
        self.next += 1;
        let number = RequestNumber(self.next);
        let deadline = Instant::now() + patience.min(limits::RPC_TIMEOUT_MAX.into());
        let id = rpc.send_request(&peer, bytes);
        self.deadlines.insert((deadline, number), id);
        self.calls.insert(id, Call { peer, number, deadline, asker: Some(asker) });
        self.counters.rpc_requests_sent.bump();
        Ok(number)
    }

    /// When the next call runs out of time.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first_key_value().map(|((at, _), _)| *at)
    }

    /// Gives up one call whose deadline has passed. Call again until it says false.
    pub(super) fn expire_one(&mut self, now: Instant, out: &mut impl FnMut(Event)) -> bool {
        let Some(entry) = self.deadlines.first_entry() else { return false };
        if entry.key().0 > now {
            return false;
        }
        let id = entry.remove();
        if let Some(call) = self.calls.get_mut(&id)
            && let Some(asker) = call.asker.take()
        {
            tell(asker, call.peer, call.number, Err(RequestError::Timeout), out);
        }
        true
    }

    /// Takes an event of the behaviour.
    pub(super) fn on_event(&mut self, rpc: &mut Behaviour, event: RpcEvent, out: &mut impl FnMut(Event)) {
        match event {
            RpcEvent::Message {
                peer, message: Message::Request { request_id, request, channel }, ..
            } => {
                self.on_request(rpc, peer, request_id, request, channel, out);
            }
            RpcEvent::Message { message: Message::Response { request_id, response }, .. } => {
                let result = match response {
                    Reply::Answer(bytes) => Ok(bytes),
                    Reply::Busy => Err(RequestError::PeerBusy),
                };
                self.finish(request_id, result, out);
            }
            RpcEvent::OutboundFailure { request_id, error, .. } => {
                let error = self.outbound_error(error);
                self.finish(request_id, Err(error), out);
            }
            RpcEvent::InboundFailure { request_id, .. } => {
                self.serving.remove(&request_id);
            }
            RpcEvent::ResponseSent { request_id, .. } => {
                self.serving.remove(&request_id);
            }
        }
    }

    fn on_request(
        &mut self,
        rpc: &mut Behaviour,
        peer: PeerId,
        id: InboundRequestId,
        bytes: Vec<u8>,
        channel: ResponseChannel<Reply>,
        out: &mut impl FnMut(Event),
    ) {
        self.counters.rpc_requests_received.bump();
        // At most a few dozen per peer and a few hundred peers: counting is cheaper than keeping count.
        let serving = self.serving.values().filter(|s| s.peer == peer).count();
        let kind = self.gate.kind(&peer).filter(|_| serving < limits::RPC_IN_FLIGHT_MAX);
        let Some(kind) = kind else {
            self.counters.rpc_busy.bump();
            // If the asker is gone there is nobody to tell.
            let _ = rpc.send_response(channel, Reply::Busy);
            return;
        };
        self.serving.insert(id, Serving { peer, answer_bytes: 0 });
        out(Event::Request { peer, kind, token: ReplyToken { id, channel }, bytes });
    }

    /// Sends an answer. One too long, or one too many for a peer that does not take those it has, becomes
    /// "busy" for the asker; the former is an error here.
    pub(super) fn respond(
        &mut self,
        rpc: &mut Behaviour,
        token: ReplyToken,
        bytes: Vec<u8>,
    ) -> Result<(), Busy> {
        let too_long = bytes.len() > limits::RPC_RESPONSE_BYTES_MAX;
        let reply = if too_long || !self.has_room_for(token.id, bytes.len()) {
            self.counters.rpc_busy.bump();
            Reply::Busy
        } else {
            Reply::Answer(bytes)
        };
        // An asker that is gone is no error.
        let _ = rpc.send_response(token.channel, reply);
        if too_long { Err(Busy::TooLong) } else { Ok(()) }
    }

    /// Takes room for an answer. That of an asker that is gone is thrown away at once and needs none.
    fn has_room_for(&mut self, id: InboundRequestId, len: usize) -> bool {
        let Some(peer) = self.serving.get(&id).map(|s| s.peer) else { return true };
        let waiting = |of: Option<PeerId>| -> usize {
            let those = self.serving.values().filter(|s| of.is_none_or(|of| s.peer == of));
            those.map(|s| s.answer_bytes).sum()
        };
        let fits = waiting(Some(peer)) + len <= limits::RPC_ANSWERS_PER_PEER_BYTES_MAX
            && waiting(None) + len <= limits::RPC_ANSWERS_BYTES_MAX;
        if fits && let Some(serving) = self.serving.get_mut(&id) {
            serving.answer_bytes = len;
        }
        fits
    }

    fn outbound_error(&self, error: OutboundFailure) -> RequestError {
        match error {
            OutboundFailure::Timeout => RequestError::Timeout,
            OutboundFailure::ConnectionClosed | OutboundFailure::DialFailure => RequestError::Closed,
            OutboundFailure::UnsupportedProtocols => RequestError::Unsupported,
            OutboundFailure::Io(e) if is_malformed(&e) => {
                self.counters.rpc_malformed.bump();
                RequestError::Malformed(e.to_string())
            }
            OutboundFailure::Io(_) => RequestError::Closed,
        }
    }

    fn finish(
        &mut self,
        id: OutboundRequestId,
        result: Result<Vec<u8>, RequestError>,
        out: &mut impl FnMut(Event),
    ) {
        let Some(call) = self.calls.remove(&id) else { return };
        self.deadlines.remove(&(call.deadline, call.number));
        if let Some(count) = self.out.get_mut(&call.peer) {
            *count -= 1;
            if *count == 0 {
                self.out.remove(&call.peer);
            }
        }
        if let Some(asker) = call.asker {
            tell(asker, call.peer, call.number, result, out);
        }
    }
}

fn is_malformed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn tell(
    asker: Asker,
    peer: PeerId,
    request: RequestNumber,
    result: Result<Vec<u8>, RequestError>,
    out: &mut impl FnMut(Event),
) {
    match (asker, result) {
        // A task that gave up has dropped its end.
        (Asker::Task(task), result) => drop(task.send(result)),
        (Asker::Loop, Ok(bytes)) => out(Event::Response { peer, request, bytes }),
        (Asker::Loop, Err(error)) => out(Event::RequestFailed { peer, request, error }),
    }
}
