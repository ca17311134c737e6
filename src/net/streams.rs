//! Long-lived streams: opened with a deadline, accepted into a bounded queue or refused with a reason.
//!
//! The accepting side speaks first, one byte: ready, or why not. So an opener always knows whether somebody
//! reads, and an end of file before the greeting is an error. It knows nothing of what the streams carry.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered,
};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{
        Endpoint,
        transport::PortUse,
        upgrade::{InboundUpgrade, ReadyUpgrade, UpgradeInfo},
    },
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId,
        FromSwarm, NetworkBehaviour, NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    event::SharedCounters,
    places::{Place, Roster, Tally},
};
use crate::model::limits;

/// Frames between members.
pub(super) const LANE: StreamProtocol = StreamProtocol::new("/tintype/lane/1");
/// Questions and answers.
pub(super) const RPC: StreamProtocol = StreamProtocol::new("/tintype/rpc/1");
/// Bodies.
pub(super) const BULK: StreamProtocol = StreamProtocol::new("/tintype/bulk/1");

/// gossipsub's names. It takes them itself on a node's connection; whoever else asks is told no, and counted.
const GOSSIP: [StreamProtocol; 4] = [
    StreamProtocol::new("/meshsub/1.3.0"),
    StreamProtocol::new("/meshsub/1.2.0"),
    StreamProtocol::new("/meshsub/1.1.0"),
    StreamProtocol::new("/meshsub/1.0.0"),
];

const READY: u8 = 1;

/// Why the other side did not take a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too many streams, or its queue is full.
    #[error("it is busy")]
    Busy,
    /// The protocol is for members.
    #[error("it does not count this peer as a member")]
    NotMember,
    /// It does not serve this protocol.
    #[error("it does not serve this")]
    NotServing,
}

impl Refusal {
    fn code(self) -> u8 {
        match self {
            Self::Busy => 2,
            Self::NotMember => 3,
            Self::NotServing => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Busy, Self::NotMember, Self::NotServing].into_iter().find(|r| r.code() == code)
    }
}

/// Why a stream could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No connection with this peer.
    #[error("not connected")]
    NotConnected,
    /// Too many opens are waiting on this side.
    #[error("too many streams are being opened")]
    Busy,
    /// No greeting before the deadline.
    #[error("no answer in time")]
    Timeout,
    /// The peer does not speak the protocol.
    #[error("the peer does not speak this protocol")]
    Unsupported,
    /// The stream or its connection broke before the greeting.
    #[error("the connection closed")]
    Closed,
    /// The peer said no, and why.
    #[error("the peer refused: {0}")]
    Refused(Refusal),
    /// The greeting was none.
    #[error("the peer's greeting is malformed")]
    Malformed,
}

type Opened = oneshot::Sender<Result<Stream, OpenError>>;

/// A wish for a stream, on its way to the connection.
#[derive(Debug)]
pub struct Order {
    peer: PeerId,
    protocol: StreamProtocol,
    opened: Opened,
}

/// Opens streams; cheap to clone, usable from any task.
#[derive(Clone, Debug)]
pub struct Opener {
    orders: mpsc::Sender<Order>,
}

impl Opener {
    /// Opens a stream and waits for the other side's greeting, at most `patience`.
    pub(super) async fn open(
        &self,
        peer: PeerId,
        protocol: StreamProtocol,
        patience: Duration,
    ) -> Result<Stream, OpenError> {
        timeout(patience, self.open_and_greet(peer, protocol)).await.unwrap_or(Err(OpenError::Timeout))
    }

    async fn open_and_greet(&self, peer: PeerId, protocol: StreamProtocol) -> Result<Stream, OpenError> {
        let mut stream = self.open_silent(peer, protocol).await?;
        // The negotiation is lazy: the proposal itself leaves with the first flush.
        stream.flush().await.map_err(|e| greeting_error(&e))?;
        let mut greeting = [0];
        stream.read_exact(&mut greeting).await.map_err(|e| greeting_error(&e))?;
        self::greeting(greeting[0]).map(|()| stream)
    }

    /// Opens a stream without waiting for a word of the other side.
    pub(super) async fn open_silent(
        &self,
        peer: PeerId,
        protocol: StreamProtocol,
    ) -> Result<Stream, OpenError> {
        let (opened, answer) = oneshot::channel();
        self.orders.try_send(Order { peer, protocol, opened }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => OpenError::Busy,
            mpsc::error::TrySendError::Closed(_) => OpenError::Closed,
        })?;
        answer.await.map_err(|_| OpenError::Closed)?
    }
}

/// What the first byte of the other side means.
pub(super) fn greeting(code: u8) -> Result<(), OpenError> {
    match code {
        READY => Ok(()),
        code => Err(Refusal::from_code(code).map_or(OpenError::Malformed, OpenError::Refused)),
    }
}

/// What an error instead of that byte means.
pub(super) fn greeting_error(error: &io::Error) -> OpenError {
    // A refused protocol shows at the first read only, as this kind: multistream-select's `NegotiationError`.
    let refused = error.get_ref().is_some_and(|inner| inner.to_string().contains("negotiation failed"));
    if refused { OpenError::Unsupported } else { OpenError::Closed }
}

/// An inbound stream that was taken in, not yet greeted.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) peer: PeerId,
    stream: Stream,
    place: Place,
}

impl Inbound {
    /// Says ready. The place must live as long as the stream is used.
    pub(super) async fn greet(self) -> io::Result<(Stream, Place)> {
        let Self { mut stream, place, .. } = self;
        let patience = limits::STREAM_OPEN_TIMEOUT.into();
        timeout(patience, async {
            stream.write_all(&[READY]).await?;
            stream.flush().await
        })
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
        Ok((stream, place))
    }
}

/// One protocol that is served here.
struct Served {
    protocol: StreamProtocol,
    members_only: bool,
    per_peer_max: usize,
    tally: Tally,
    inbox: mpsc::Sender<Inbound>,
}

/// What all connections share.
pub(super) struct Shared {
    served: Vec<Served>,
    roster: Arc<Roster>,
    counters: SharedCounters,
}

impl Shared {
    /// Takes a stream in, or gives it back with the reason why not.
    fn take_in(&self, peer: PeerId, protocol: &StreamProtocol, stream: Stream) -> Option<(Stream, Refusal)> {
        if GOSSIP.contains(protocol) {
            return Some((stream, Refusal::NotMember));
        }
        let Some(served) = self.served.iter().find(|s| s.protocol == *protocol) else {
            return Some((stream, Refusal::NotServing));
        };
        if served.members_only && !self.roster.has(&peer) {
            return Some((stream, Refusal::NotMember));
        }
        let Some(place) = Place::take(&served.tally, peer, served.per_peer_max) else {
            return Some((stream, Refusal::Busy));
        };
        match served.inbox.try_send(Inbound { peer, stream, place }) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(inbound)) => Some((inbound.stream, Refusal::Busy)),
            Err(mpsc::error::TrySendError::Closed(inbound)) => Some((inbound.stream, Refusal::NotServing)),
        }
    }
}

/// Inbound streams, by protocol.
pub(super) struct Inboxes {
    pub(super) lane: mpsc::Receiver<Inbound>,
    pub(super) rpc: mpsc::Receiver<Inbound>,
    pub(super) bulk: mpsc::Receiver<Inbound>,
}

/// The behaviour: passes orders to the newest connection of a peer.
pub(super) struct Behaviour {
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
    to_poke: Vec<(PeerId, ConnectionId)>,
    connections: BTreeMap<PeerId, Vec<ConnectionId>>,
}

/// Makes the behaviour, its opener and the queues of what comes in. `serve` is false for a client.
pub(super) fn build(
    roster: Arc<Roster>,
    counters: SharedCounters,
    serve: bool,
) -> (Behaviour, Opener, Inboxes) {
    let (lane_tx, lane) = mpsc::channel(limits::STREAM_INBOX_MAX);
    let (rpc_tx, rpc) = mpsc::channel(limits::STREAM_INBOX_MAX);
    let (bulk_tx, bulk) = mpsc::channel(limits::STREAM_INBOX_MAX);
    let (orders_tx, orders) = mpsc::channel(limits::NET_COMMANDS_MAX);
    let entry = |protocol, members_only, per_peer_max, inbox| Served {
        protocol,
        members_only,
        per_peer_max,
        tally: Tally::default(),
        inbox,
    };
    let served = vec![
        entry(LANE, true, limits::LANES_PER_PEER_MAX, lane_tx),
        entry(RPC, false, limits::RPC_STREAMS_PER_PEER_MAX, rpc_tx),
        entry(BULK, false, limits::BULK_STREAMS_PER_PEER_MAX, bulk_tx),
    ];
    let served = if serve { served } else { Vec::new() };
    let shared = Arc::new(Shared { served, roster, counters });
    let behaviour = Behaviour { shared, orders, to_poke: Vec::new(), connections: BTreeMap::new() };
    (behaviour, Opener { orders: orders_tx }, Inboxes { lane, rpc, bulk })
}

/// What a connection's part is told.
#[derive(Debug)]
pub(super) enum Word {
    /// Open a stream.
    Open(Order),
    /// Nothing: the connection only runs all its handlers once.
    Poke,
}

impl Behaviour {
    /// Makes every connection run its handlers once. gossipsub's handler of a second connection is woken by
    /// nothing until it has a stream of its own: when the first connection goes, it would send no more.
    pub(super) fn poke(&mut self) {
        let all = self.connections.iter().flat_map(|(peer, ids)| ids.iter().map(|id| (*peer, *id)));
        self.to_poke = all.collect();
    }

    fn handler(&self, peer: PeerId) -> Handler {
        Handler {
            peer,
            shared: self.shared.clone(),
            queue: VecDeque::new(),
            opening: 0,
            refusals: FuturesUnordered::new(),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = std::convert::Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(e) => {
                self.connections.entry(e.peer_id).or_default().push(e.connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                if let Some(ids) = self.connections.get_mut(&peer_id) {
                    ids.retain(|id| *id != connection_id);
                    if ids.is_empty() {
                        self.connections.remove(&peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        while let Some((peer_id, id)) = self.to_poke.pop() {
            let known = self.connections.get(&peer_id).is_some_and(|ids| ids.contains(&id));
            if known {
                let handler = NotifyHandler::One(id);
                return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event: Word::Poke });
            }
        }
        while let Poll::Ready(Some(order)) = self.orders.poll_recv(cx) {
            // The newest connection: an older one may be dead already and not know it.
            match self.connections.get(&order.peer).and_then(|ids| ids.last()) {
                Some(id) => {
                    return Poll::Ready(ToSwarm::NotifyHandler {
                        peer_id: order.peer,
                        handler: NotifyHandler::One(*id),
                        event: Word::Open(order),
                    });
                }
                None => drop(order.opened.send(Err(OpenError::NotConnected))),
            }
        }
        Poll::Pending
    }
}

/// The protocols offered to inbound streams.
pub(super) struct Offer(Vec<StreamProtocol>);

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (Stream, StreamProtocol);
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        std::future::ready(Ok((stream, protocol)))
    }
}

/// One connection's part.
pub(super) struct Handler {
    peer: PeerId,
    shared: Arc<Shared>,
    queue: VecDeque<Order>,
    opening: usize,
    refusals: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Handler {
    fn inbound(&mut self, stream: Stream, protocol: &StreamProtocol) {
        let Some((stream, refusal)) = self.shared.take_in(self.peer, protocol, stream) else { return };
        self.shared.counters.streams_refused.bump();
        if refusal == Refusal::NotMember {
            self.shared.counters.streams_refused_not_member.bump();
        }
        // Past the bound the stream only closes: counted above, and no greeting is an error to the opener.
        if self.refusals.len() < limits::STREAMS_OPENING_MAX {
            self.refusals.push(say_no(stream, refusal).boxed());
        }
    }
}

async fn say_no(mut stream: Stream, refusal: Refusal) {
    let said = async {
        stream.write_all(&[refusal.code()]).await?;
        stream.close().await
    };
    // If it cannot be said, the connection is breaking, and the opener learns that instead.
    let _ = timeout(limits::STREAM_OPEN_TIMEOUT.into(), said).await;
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Word;
    type ToBehaviour = std::convert::Infallible;
    type InboundProtocol = Offer;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opened;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        let served = self.shared.served.iter().map(|s| s.protocol.clone());
        let refused = GOSSIP.into_iter().filter(|_| !self.shared.served.is_empty());
        let protocols = served.chain(refused).collect();
        SubstreamProtocol::new(Offer(protocols), ()).with_timeout(limits::STREAM_OPEN_TIMEOUT.into())
    }

    fn on_behaviour_event(&mut self, word: Word) {
        let Word::Open(order) = word else { return };
        if self.queue.len() + self.opening >= limits::STREAMS_OPENING_MAX {
            drop(order.opened.send(Err(OpenError::Busy)));
        } else {
            self.queue.push_back(order);
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<Offer, ReadyUpgrade<StreamProtocol>, (), Opened>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, name),
                ..
            }) => {
                self.inbound(stream, &name);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info }) => {
                self.opening -= 1;
                // An opener that has given up drops the stream here.
                let _ = info.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.opening -= 1;
                let _ = info.send(Err(match error {
                    StreamUpgradeError::Timeout => OpenError::Timeout,
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Io(_) => OpenError::Closed,
                    StreamUpgradeError::Apply(never) => match never {},
                }));
            }
            _ => {}
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, Opened, Self::ToBehaviour>> {
        while let Poll::Ready(Some(())) = self.refusals.poll_next_unpin(cx) {}
        while let Some(order) = self.queue.pop_front() {
            if order.opened.is_closed() {
                continue;
            }
            self.opening += 1;
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(order.protocol), order.opened)
                .with_timeout(limits::STREAM_OPEN_TIMEOUT.into());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }
}
