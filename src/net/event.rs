//! What the network tells its owner, and the small words that calls into it use.
//!
//! Nothing here does anything: no socket, no task, no decision.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use libp2p::{Multiaddr, PeerId};

use super::transport::Refusal;
use crate::model::{
    config::Packets,
    hello::{BootMark, Hello, Kind},
};

/// The number of one outgoing request, unique within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestNumber(pub u64);

/// Something that happened on the network.
#[derive(Debug)]
pub enum Event {
    /// The first connection with an admitted peer stands.
    Connected { peer: PeerId, kind: Kind, addr: Multiaddr },
    /// The last connection with the peer is gone.
    Disconnected { peer: PeerId },
    /// A peer asks; answer with [`super::Net::respond`] or [`super::NetHandle::respond`].
    Request { peer: PeerId, kind: Kind, token: super::ReplyToken, bytes: Vec<u8> },
    /// The answer to a request made with [`super::Net::request`].
    Response { peer: PeerId, request: RequestNumber, bytes: Vec<u8> },
    /// A request made with [`super::Net::request`] that has no answer.
    RequestFailed { peer: PeerId, request: RequestNumber, error: RequestError },
    /// A frame of a member's lane.
    LaneFrame { peer: PeerId, bytes: Vec<u8> },
    /// A heartbeat whose source signed it and is a member. Its sequence is not checked here.
    Heartbeat { source: PeerId, bytes: Vec<u8> },
    /// A task record that a member has signed. Whether it is news is not checked here.
    History { source: PeerId, bytes: Vec<u8> },
    /// An address at which this node listens; one per interface.
    Listening { addr: Multiaddr },
    /// An address at which this node listens no more.
    NotListening { addr: Multiaddr },
    /// A listener is gone for good, and why.
    ListenerFailed { reason: String },
    /// A peer was found by mDNS. A hint: nobody vouches for it.
    Discovered { peer: PeerId, addr: Multiaddr },
    /// A peer was let in; another connection of it may stand already. A member's mark is to be kept durably.
    Admitted { peer: PeerId, hello: Arc<Hello>, newer_start: bool },
    /// A peer has seen a start of this node that its home does not remember: stop for good.
    RolledBack { peer: PeerId, seen: BootMark },
    /// A peer was refused at admission, by us or by it; once per peer (or address) and reason.
    Foreign { peer: Option<PeerId>, addr: Multiaddr, refusal: Refusal, by_them: bool },
    /// A peer broke a protocol; what it said was thrown away. At most one per peer and second.
    Malformed { peer: PeerId, what: &'static str },
}

/// Why a call was not even begun. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// A bounded queue is full, or too much is in flight with this peer.
    #[error("too much in flight with this peer")]
    Full,
    /// There is no connection with this peer.
    #[error("not connected")]
    NotConnected,
    /// More bytes than the protocol allows.
    #[error("message too long")]
    TooLong,
    /// This protocol is for members, and the peer (or this process) is none.
    #[error("not a member")]
    NotMember,
}

/// Why a request has no answer. The peer may have acted on it or not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not sent.
    #[error(transparent)]
    NotSent(#[from] Busy),
    /// No answer before the deadline.
    #[error("no answer in time")]
    Timeout,
    /// The peer has too much to do.
    #[error("the peer is busy")]
    PeerBusy,
    /// The connection broke.
    #[error("the connection closed")]
    Closed,
    /// The peer does not speak this protocol.
    #[error("the peer does not speak this protocol")]
    Unsupported,
    /// The answer was malformed or too long.
    #[error("malformed answer: {0}")]
    Malformed(String),
    /// This process is stopping its network.
    #[error("the network is stopped")]
    Stopped,
}

/// An admitted peer that is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// What it was admitted as.
    pub kind: Kind,
    /// Where it is reached, or came from.
    pub addr: Multiaddr,
    /// Whether this process opened the (first) connection.
    pub dialed: bool,
}

impl PeerInfo {
    /// The address as a socket address, if it is a plain IP address and port.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        super::address::socket_addr(&self.addr)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the network counted since its start. All only grow.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: Counter,)* }

        impl Counters {
            /// Name and value of each, for logs and tests.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// Lane frames handed to a lane's queue.
    lane_frames_sent,
    /// Lane frames received.
    lane_frames_received,
    /// Lane frames dropped: full queue, broken or refused lane. Each is a lost message.
    lane_frames_dropped,
    /// Lanes closed because the peer sent a malformed or oversize frame.
    lane_malformed,
    /// Rpc requests received.
    rpc_requests_received,
    /// Rpc requests sent.
    rpc_requests_sent,
    /// Rpc requests answered with busy because too many of that peer were in flight.
    rpc_busy,
    /// Rpc messages refused as malformed or oversize, in either direction.
    rpc_malformed,
    /// Inbound streams refused, with a reason, before they were used.
    streams_refused,
    /// Inbound streams refused because the peer may not open them.
    streams_refused_not_member,
    /// Bulk streams closed because the peer broke the framing or its bounds.
    bulk_malformed,
    /// Bodies whose hash was not their id, in either direction.
    bulk_corrupt,
    /// Bodies that ended early.
    bulk_short,
    /// Bulk requests answered with busy.
    bulk_busy,
    /// Bulk streams closed because the peer stopped moving in the middle of a body.
    bulk_stalled,
    /// Body bytes received.
    bulk_bytes_received,
    /// Body bytes sent.
    bulk_bytes_sent,
    /// Heartbeats refused: not a member, unsigned, or too long. Streams of them begun anew, after one with
    /// something on it that could not be read.
    gossip_refused,
    /// Peers cut off and redialed because they were half-deaf.
    gossip_half_deaf,
    /// Times that the own topics were announced again after a peer's restart.
    gossip_reannounced,
    /// Dials that failed.
    dials_failed,
    /// Dials begun.
    dials,
    /// Connections closed as duplicates.
    duplicates_closed,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn bump(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What this process is on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A node: gossips, serves bulk, takes part in lanes.
    Node,
    /// A client: dials, asks, and serves nothing.
    Client,
}

/// How the network is set up.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Node or client.
    pub role: Role,
    /// Where to listen, `/ip4/…/udp/…/quic-v1`; empty for a client. See [`super::address::listen_all`].
    pub listen: Vec<Multiaddr>,
    /// Addresses that somebody wrote down; with or without a peer id. Tried for ever.
    pub bootstrap: Vec<Multiaddr>,
    /// Addresses that worked before.
    pub remembered: Vec<(PeerId, Multiaddr)>,
    /// Whether to look for nodes by mDNS, and to be found.
    pub mdns: bool,
    /// How packets are made and kept.
    pub packets: Packets,
    /// How long a bulk stream served here may stand still in the middle of a body.
    pub bulk_stall: Duration,
}

impl NetConfig {
    /// A node that listens there; no bootstrap, no mDNS.
    pub fn node(listen: Vec<Multiaddr>) -> Self {
        Self {
            role: Role::Node,
            listen,
            bootstrap: Vec::new(),
            remembered: Vec::new(),
            mdns: false,
            packets: Packets::default(),
            bulk_stall: Duration::from_secs(5),
        }
    }

    /// A client: no listening, no mDNS.
    pub fn client() -> Self {
        Self { role: Role::Client, ..Self::node(Vec::new()) }
    }
}

/// Why the network did not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The UDP port belongs to another program (or another node).
    #[error("UDP port {port} is taken")]
    PortTaken { port: u16 },
    /// An address to listen at cannot be had.
    #[error("cannot listen at {addr}: {reason}")]
    Listen { addr: Multiaddr, reason: String },
    /// The transport could not be built.
    #[error("cannot build the transport: {0}")]
    Transport(#[from] std::io::Error),
    /// A part of libp2p refused its configuration, which is a bug.
    #[error("cannot configure the network: {0}")]
    Configuration(String),
}

/// Shared counters.
pub type SharedCounters = Arc<Counters>;
