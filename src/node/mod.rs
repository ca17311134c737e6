//! Conducts a node: the deciders of `proto`, the disk, the network, in one loop.
//!
//! ```text
//! event_loop   the one select; events to machines, actions to `execute`
//! execute      the one match from action to doer; never async, so it cannot wait
//! machines     the machines of this node and the events that go into them
//! serve        what peers ask by rpc
//! bodies       bodies in and out: bulk, checks, mending; chunk bytes never pass the loop
//! vitals       what it tells of itself every second
//! tasks        election and history: the machines that say who works on what
//! workbench    what clients bring for tasks, and what comes of it
//! worker       one task's work, in a process of its own
//! refused      what the disk had no room for
//! repair       which copies lack where, derived from the slots
//! hints        offers again what could not be passed on
//! report       status, nodes, events, for people
//! ```
//! A promise leaves only behind its durable write. Slow work runs in bounded tasks and comes back as
//! [`Done`].

mod bodies;
mod crew;
mod event_loop;
mod events;
mod execute;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod hints;
mod load;
mod machines;
mod refused;
mod repair;
mod report;
mod serve;
mod start;
mod tasks;
mod timers;
mod vitals;
mod workbench;
pub mod worker;

use std::{net::SocketAddr, path::PathBuf};

pub use event_loop::Stopped;
pub use start::run;

use crate::{
    disk::DiskError,
    model::{
        ObjectId, PeerId,
        config::Packets,
        slots::HashSlot,
        task::{Rank, TaskId},
    },
    net::NetError,
    proto::chunkpaxos,
};

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its home.
    pub home: PathBuf,
    /// Where to listen; none = all interfaces. Its port counts only if it was given, else the home's does.
    pub listen: Option<SocketAddr>,
    /// The port of a home that was not told another and has not picked one.
    pub port: u16,
    /// Whether `port` was given by a person: then a taken port is an error.
    pub port_given: bool,
    /// Addresses of other nodes.
    pub bootstrap: Vec<String>,
    /// How many nodes found the cluster.
    pub expect: usize,
    /// Display name.
    pub name: String,
    /// Bytes of bodies that may be stored; none = what the disk has.
    pub capacity_bytes: Option<u64>,
    /// Free space below which no bodies are taken.
    pub reserve_bytes: u64,
    /// Whether to use mDNS.
    pub mdns: bool,
    /// How packets are made and kept.
    pub packets: Packets,
    /// The home was moved to this machine on purpose.
    pub moved: bool,
    /// The cluster key was there before this start: others may have it.
    pub key_was_there: bool,
    /// Tasks worked on at once; none = as many as there are processors.
    pub slots: Option<usize>,
    /// The program that becomes the process of one task, see [`worker`]; none = a thread works.
    pub worker: Option<PathBuf>,
    /// Points added to the load that it tells: a machine that is to be spared.
    pub added_load: u8,
    /// The end of its terminal stops it in order; false = SIGHUP stays what it is to this process.
    pub stop_on_hangup: bool,
}

/// What a node tells the person who started it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It listens; said once, with the first address.
    Listening {
        /// Its identity.
        peer: PeerId,
        /// A multiaddress.
        addr: String,
    },
    /// The cluster serves.
    Ready {
        /// Members.
        nodes: usize,
    },
    /// A sentence for people.
    Say(String),
}

/// Told each notice, in order; must be quick.
pub type OnNotice = Box<dyn Fn(Notice) + Send>;

/// Why a node did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The home or its disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The QUIC transport.
    #[error("the network did not start: {0}")]
    Transport(String),
    /// The UDP port is somebody else's.
    #[error("UDP port {port} is taken by another program")]
    PortTaken {
        /// Which.
        port: u16,
    },
    /// There is no cluster key, or it is broken.
    #[error("{path}: {reason}")]
    Key {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An address that is none.
    #[error("{0}")]
    Address(String),
    /// A durable record that this program cannot read.
    #[error("data/records: {0}")]
    Record(String),
    /// Other members have seen starts or promises of this node that its home does not remember.
    #[error("this home is a copy or an old backup: {0} has seen a later state of it")]
    RolledBack(PeerId),
    /// Another process with this node's identity is connected with the others, and answers.
    #[error("this home, {home}, is a copy of one on which a node is running: only one of the two may run")]
    Twin {
        /// This home.
        home: String,
    },
    /// The system gives no thread.
    #[error("no thread is to be had: {0}")]
    Threads(std::io::Error),
    /// Other members refuse this node, because it forgot its promises or exists twice.
    #[error("{0}")]
    Refused(String),
}

/// Work that a task has done for the loop. Bounded by what was begun.
pub(crate) enum Done {
    /// Where this node listens was written down for clients on this machine, as far as that was possible.
    AddressPublished { first: Option<String> },
    /// An acceptor record was read, or could not be.
    Loaded { object: ObjectId, record: Result<Option<chunkpaxos::AcceptorRecord>, ()> },
    /// A page of a hash slot was read, or could not be.
    Scanned { slot: HashSlot, after: Option<ObjectId>, page: Option<chunkpaxos::SlotPage> },
    /// A lane message was verified.
    Verified { from: PeerId, message: Box<chunkpaxos::Message> },
    /// What a client proposes has a wrong id or signature.
    BadProposal { reply: serve::Reply },
    /// How far this node may claim the office is durable.
    ClaimsKept { counter: u64 },
    /// All that a client brings for a task is here.
    PayloadHere { task: TaskId, rank: Rank },
    /// The work of a task has ended.
    Worked { task: TaskId, rank: Rank, answer_bytes: u64 },
    /// A value that a client proposes was verified.
    Proposal { value: crate::model::register::VerifiedRegister, reply: serve::Reply },
}
