//! The network: the only room with libp2p.
//!
//! [`Net`] owns the swarm and hides it. Its owner (a node's loop, a client's task) polls [`Net::next`] and
//! calls synchronous methods that never wait; tasks beside the loop hold a [`NetHandle`]. Chunk bytes never
//! pass through the loop: bulk streams run in tasks of their own. So do those of rpc: the loop sees the
//! questions of others and the answers to its own; frames, deadlines and bounds are kept beside it.
//!
//! Everything here is bounded. Full is an answer ([`Busy`]), never a wait, and libp2p's own unbounded queues
//! are never given more than what is counted here first.
//!
//! ```text
//! transport   QUIC and admission             discovery   whom to dial, when
//! behaviour   what runs on each connection   peers       who is connected, which connections are too many
//! streams     opened, accepted or refused    lane        frames between members
//! rpc         questions and answers          bulk        bodies
//! gossip      heartbeats, task records       nodes_only  who has a part in gossip
//! places      members, and places taken      turn        what happened, as events
//! handle      the network for tasks beside the loop
//! one_stream  gossip streams, counted
//! ```

pub mod address;
pub mod bare;
mod behaviour;
pub mod bulk;
mod discovery;
mod event;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gossip;
mod handle;
mod lane;
mod nodes_only;
mod one_stream;
mod peers;
mod places;
mod rpc;
mod streams;
#[cfg(test)]
mod tests;
pub mod transport;
mod turn;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use behaviour::Behaviour;
use discovery::{Attempt, Discovery, Source};
use futures::StreamExt;
use libp2p::{PeerId, Swarm, identity::Keypair, swarm::ConnectionId};
use peers::Table;
use places::Roster;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, Sleep, sleep},
};
use transport::{Gate, GateEvent};

pub use libp2p::Multiaddr;

pub use bulk::{
    BulkAnswer, BulkCall, BulkClient, BulkError, BulkPool, BulkRequest, Piece, Progress, Put, Receipt,
};
pub use event::{
    Busy, Counters, Event, NetConfig, NetError, PeerInfo, RequestError, RequestNumber, Role, SharedCounters,
};
pub use gossip::Topic;
pub use handle::NetHandle;
pub use peers::Peers;
pub use rpc::ReplyToken;
pub use streams::{OpenError, Refusal as StreamRefusal};

use crate::model::limits;

/// How often duplicates and half-deaf peers are looked for.
const TICK: Duration = Duration::from_millis(500);
/// A half-deaf peer is dialed again only when both sides have surely noticed the end of the old connection.
const HALF_DEAF_HOLD: Duration = Duration::from_millis(2 * limits::QUIC_IDLE.0);
/// Refusals that were told once; past it they are forgotten, and told once more.
const FOREIGN_TOLD_MAX: usize = 1024;

/// Answers to the loop's own questions that it has not taken: as many as all peers together may owe.
const ANSWERED_MAX: usize = limits::RPC_IN_FLIGHT_MAX * limits::CONNECTIONS_MAX as usize;
/// Rounds of small messages taken together, before others have their turn.
const DRAINED_MAX: usize = 32;

type Told = BTreeSet<(Option<PeerId>, Option<Multiaddr>, transport::Refusal)>;

/// The network of one process. Poll [`Net::next`] all the time: nothing moves otherwise, bulk bytes excepted.
pub struct Net {
    swarm: Swarm<Behaviour>,
    role: Role,
    gate: Gate,
    gate_events: mpsc::Receiver<GateEvent>,
    transport: transport::Handle,
    counters: SharedCounters,
    roster: Arc<Roster>,
    table: Table,
    discovery: Discovery,
    dials: BTreeMap<ConnectionId, Attempt>,
    asking: rpc::Asking,
    /// Kept by whoever asks from the loop, so that each answer has a place.
    answered_in: mpsc::Sender<rpc::Answered>,
    answered: mpsc::Receiver<rpc::Answered>,
    heard: mpsc::Receiver<rpc::Heard>,
    lanes: lane::Lanes,
    frames: mpsc::Receiver<lane::Received>,
    commands: mpsc::Receiver<handle::Command>,
    handle: NetHandle,
    ready: VecDeque<Event>,
    told: Told,
    next_tick: Instant,
    alarm: Pin<Box<Sleep>>,
    // Dropped with the network: that ends the tasks that serve streams.
    _serving: JoinSet<()>,
}

impl Net {
    /// Starts listening and dialing. Call it inside the current-thread runtime that will poll it.
    ///
    /// `gate` and `gate_events` are from [`Gate::new`]; the gate's identity is the key pair's. The second
    /// part of the answer takes the bulk requests that peers send here; a client may drop it.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn start(
        config: NetConfig,
        keypair: &Keypair,
        gate: Gate,
        gate_events: mpsc::Receiver<GateEvent>,
    ) -> Result<(Self, mpsc::Receiver<BulkCall>), NetError> {
        let bounds = transport::TransportConfig { packets: config.packets, ..Default::default() };
        let (boxed, transport) = transport::build(keypair, gate.clone(), bounds)?;
        let counters = SharedCounters::default();
        let roster = Arc::new(Roster::default());
        let serve = config.role == Role::Node;
        let (streams, opener, inboxes) = streams::build(roster.clone(), counters.clone(), serve);
        let who = (gate.clone(), roster.clone());
        let mut swarm = behaviour::swarm(&config, keypair, boxed, streams, counters.clone(), who)?;
        listen(&mut swarm, &transport, &config.listen)?;

        let mut serving = JoinSet::new();
        let (frames_tx, frames) = mpsc::channel(limits::LANE_INBOX_MAX);
        serving.spawn(lane::serve(inboxes.lane, roster.clone(), counters.clone(), frames_tx));
        let (calls_tx, calls) = mpsc::channel(limits::BULK_SERVED_MAX + limits::BULK_SERVED_MEMBERS_MAX);
        let server = bulk::Server::new(calls_tx, gate.clone(), counters.clone(), config.bulk_stall);
        serving.spawn(bulk::serve(inboxes.bulk, Arc::new(server)));

        let (heard_in, heard) = mpsc::channel(limits::RPC_INBOX_MAX);
        let answering = rpc::Answering::new(gate.clone(), counters.clone(), heard_in.clone());
        serving.spawn(rpc::serve(inboxes.rpc, Arc::new(answering)));
        let asking = rpc::Asking::new(opener.clone(), counters.clone(), heard_in);
        let (answered_in, answered) = mpsc::channel(ANSWERED_MAX);

        let table = Table::new();
        let (handle, commands) = handle::build(
            table.watch(),
            asking.clone(),
            BulkPool::new(opener.clone(), counters.clone()),
            counters.clone(),
            gate.clone(),
        );
        let mut net = Self {
            discovery: Discovery::new(*swarm.local_peer_id(), serve),
            swarm,
            role: config.role,
            asking,
            answered_in,
            answered,
            heard,
            gate,
            gate_events,
            transport,
            lanes: lane::Lanes::new(opener, counters.clone()),
            counters,
            roster,
            table,
            dials: BTreeMap::new(),
            frames,
            commands,
            handle,
            ready: VecDeque::new(),
            told: Told::new(),
            next_tick: Instant::now() + TICK,
            alarm: Box::pin(sleep(TICK)),
            _serving: serving,
        };
        net.learn_configured(config.bootstrap, config.remembered);
        Ok((net, calls))
    }

    fn learn_configured(&mut self, bootstrap: Vec<Multiaddr>, remembered: Vec<(PeerId, Multiaddr)>) {
        let now = Instant::now();
        for addr in bootstrap {
            self.discovery.learn(now, None, addr, Source::Given);
        }
        for (peer, addr) in remembered {
            self.discovery.learn(now, Some(peer), addr, Source::Worked);
        }
    }

    /// What happened next. Cancel-safe: an event is lost only if it was returned.
    pub async fn next(&mut self) -> Event {
        loop {
            self.drain_gate();
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            let wake = self.wake();
            if self.alarm.deadline() != wake {
                self.alarm.as_mut().reset(wake);
            }
            tokio::select! {
                Some(event) = self.gate_events.recv() => self.on_gate(event),
                Some(command) = self.commands.recv() => self.on_command(command),
                Some(received) = self.frames.recv() => {
                    self.on_frame(received);
                    self.drain();
                }
                Some(heard) = self.heard.recv() => {
                    self.on_heard(heard);
                    self.drain();
                }
                Some(answered) = self.answered.recv() => {
                    self.on_answered(answered);
                    self.drain();
                }
                event = self.swarm.select_next_some() => {
                    // Admission speaks before the swarm does; it must also be heard before.
                    self.drain_gate();
                    self.on_swarm(event);
                }
                () = &mut self.alarm => self.on_time(Instant::now()),
            }
        }
    }

    /// Takes what else waits: one look at everything costs more than a small message.
    fn drain(&mut self) {
        for _ in 0..DRAINED_MAX {
            let before = self.ready.len();
            if let Ok(answered) = self.answered.try_recv() {
                self.on_answered(answered);
            }
            if let Ok(heard) = self.heard.try_recv() {
                self.on_heard(heard);
            }
            if let Ok(received) = self.frames.try_recv() {
                self.on_frame(received);
            }
            if self.ready.len() == before {
                return;
            }
        }
    }

    /// The own identity.
    pub fn local_peer(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    /// A handle for tasks beside the loop.
    pub fn handle(&self) -> NetHandle {
        self.handle.clone()
    }

    /// The members of the epoch: whose lanes and heartbeats count. Until it is called nobody's do.
    pub fn set_members(&mut self, members: BTreeSet<PeerId>) {
        self.roster.set(members);
        let roster = self.roster.clone();
        self.lanes.retain(|peer| roster.has(peer));
    }

    /// Puts a frame on the member's lane. It may still be lost, like any message.
    ///
    /// # Errors
    /// [`Busy`]: the frame was dropped and counted.
    pub fn send_lane(&mut self, peer: PeerId, frame: Vec<u8>) -> Result<(), Busy> {
        if self.role == Role::Client || !self.roster.has(&peer) {
            return self.lanes.refuse(Busy::NotMember);
        }
        if self.table.kind(&peer).is_none() {
            return self.lanes.refuse(Busy::NotConnected);
        }
        self.lanes.send(peer, frame)
    }

    /// Asks a connected peer. Exactly one [`Event::Response`] or [`Event::RequestFailed`] follows, at the
    /// latest when `timeout` (at most [`limits::RPC_TIMEOUT_MAX`]) has passed.
    ///
    /// # Errors
    /// [`Busy`]: nothing was sent and nothing follows.
    pub fn request(
        &mut self,
        peer: PeerId,
        bytes: Vec<u8>,
        timeout: Duration,
    ) -> Result<RequestNumber, Busy> {
        let place = self.answered_in.clone().try_reserve_owned().map_err(|_| Busy::Full)?;
        self.asking.begin(peer, bytes, timeout, rpc::Asker::Loop(place))
    }

    /// Answers a request. An asker that is gone is no error.
    ///
    /// # Errors
    /// [`Busy::TooLong`]: the asker is told "busy"; page large answers.
    pub fn respond(&mut self, token: ReplyToken, bytes: Vec<u8>) -> Result<(), Busy> {
        token.answer(bytes)
    }

    /// Publishes something to all members. Nothing depends on its being heard. Two equal ones are two.
    ///
    /// # Errors
    /// [`Busy`]: nobody is subscribed yet (`NotConnected`), all queues are full, or it is too long.
    pub fn publish(&mut self, topic: Topic, bytes: Vec<u8>) -> Result<(), Busy> {
        let behaviour = self.swarm.behaviour_mut();
        let Some(gossip) = behaviour.gossip.as_mut() else { return Err(Busy::NotMember) };
        let published = gossip::publish(gossip, topic, bytes);
        behaviour.streams.poke();
        published
    }

    /// Learns an address (a trailing peer id counts) and dials it as discovery sees fit: at once, if it is
    /// without peer id. It is kept and tried again like a bootstrap address.
    pub fn dial(&mut self, addr: Multiaddr) {
        self.discovery.learn(Instant::now(), None, addr, Source::Given);
    }

    /// Learns an address that somebody else knows to have worked.
    pub fn remember(&mut self, peer: PeerId, addr: Multiaddr) {
        self.discovery.learn(Instant::now(), Some(peer), addr, Source::Worked);
    }

    /// Closes all connections with a peer; discovery may connect it again after a while.
    pub fn disconnect(&mut self, peer: PeerId) {
        self.discovery.hold(&peer, Instant::now() + HALF_DEAF_HOLD);
        // Not connected is what is wanted.
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    /// The connected peers.
    pub fn peers(&self) -> Peers {
        self.table.public()
    }

    /// Addresses at which this process listens now.
    pub fn listening(&self) -> Vec<Multiaddr> {
        self.swarm.listeners().cloned().collect()
    }

    /// Addresses at which peers were reached, or that somebody gave with a peer id, for the home to remember.
    pub fn worked(&self) -> Vec<(PeerId, Multiaddr)> {
        self.discovery.worked()
    }

    /// The gate of the transport: hellos, refusals, known marks.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Bytes, sockets and connections of the transport.
    pub fn transport(&self) -> &transport::Handle {
        &self.transport
    }

    /// Closes every connection properly and stops. Takes at most [`limits::EXIT_PATIENCE`], a client's at
    /// most [`limits::CLIENT_EXIT_PATIENCE`].
    pub async fn close(self) {
        self.handle.hang_up();
        self.transport.close(transport::Refusal::Leaving).await;
    }

    fn wake(&self) -> Instant {
        let dial = self.discovery.wake().filter(|_| self.dials.len() < limits::DIALS_MAX);
        dial.map_or(self.next_tick, |dial| dial.min(self.next_tick))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.handle.hang_up();
    }
}

/// Listens at each address. IPv6 may be missing on a machine: its wildcard alone is no error then.
fn listen(
    swarm: &mut Swarm<Behaviour>,
    transport: &transport::Handle,
    addrs: &[Multiaddr],
) -> Result<(), NetError> {
    let mut chosen = None;
    for addr in addrs {
        let Some(mut socket) = address::socket_addr(addr) else {
            return Err(NetError::Listen { addr: addr.clone(), reason: "not a QUIC address".into() });
        };
        let second_wildcard = socket.ip().is_unspecified() && chosen.is_some();
        if let Some(port) = chosen.filter(|_| second_wildcard && socket.port() == 0) {
            socket.set_port(port);
        }
        match transport::listen_on(swarm, transport, address::quic(socket)) {
            Ok(port) => chosen = Some(port),
            Err(error) if second_wildcard && socket.is_ipv6() => {
                tracing::info!(%error, "not listening on IPv6")
            }
            Err(transport::Error::PortTaken(taken)) => {
                return Err(NetError::PortTaken { port: taken.port() });
            }
            Err(error) => return Err(NetError::Listen { addr: addr.clone(), reason: error.to_string() }),
        }
    }
    Ok(())
}
