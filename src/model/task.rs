//! The nouns of tasks: who asks, who assigns, who works, and how far it is.
//!
//! Plain data that gossip, rpc and the deciders share. What a picture or a text is never stands here: it
//! goes from the client to the worker and nowhere else.

use serde::{Deserialize, Serialize};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};

use super::{
    id::PeerId,
    limits,
    member::{Epoch, NodeNumber},
};

/// A task: one piece of work that one client wants. Submitting it again is the same task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize_tuple, Deserialize_tuple)]
pub struct TaskId {
    /// Who wants it; a client's identity is made with its process.
    pub client: PeerId,
    /// Unique within the client.
    pub number: u64,
}

/// A node's claim to be the coordinator. The greater one counts; two coordinators do no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize_tuple, Deserialize_tuple)]
pub struct Claim {
    /// The membership in which it was made.
    pub epoch: Epoch,
    /// Greater than that of every claim that the claimant knew.
    pub counter: u64,
    /// Who claims it; settles a tie.
    pub node: NodeNumber,
}

impl Claim {
    /// The largest counter that counts: far above all that elections can reach.
    pub const COUNTER_MAX: u64 = 1 << 60;
}

/// How great an assignment is: only the greatest of a task counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize_tuple, Deserialize_tuple)]
pub struct Rank {
    /// Whose assignment.
    pub claim: Claim,
    /// From 1; grows with each worker that the task is given to.
    pub attempt: u64,
}

/// How far an assignment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// A worker has a place for it and waits for the picture.
    Assigned,
    /// The worker has the picture.
    Started,
    /// The worker has an answer, good or bad, and waits for the client to take it.
    Finished,
    /// The worker gave it up: its client is gone.
    Abandoned,
    /// Somebody has cancelled it: no assignment of it counts any more.
    Cancelled,
    /// The client has its answer: no assignment of it counts any more.
    Acknowledged,
}

impl Phase {
    /// Whether the task has ended, whatever else is heard of it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Cancelled | Self::Acknowledged)
    }

    /// Whether nothing is left to be done under this assignment.
    pub fn is_closed(self) -> bool {
        self.is_final() || self == Self::Abandoned
    }
}

/// What is to be done, by name: a node that does not know the name says so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskKind(pub String);

impl TaskKind {
    /// Whether it may stand in a record: short, and lower-case letters only.
    pub fn is_sane(&self) -> bool {
        let fits = (1..=limits::TASK_KIND_BYTES_MAX).contains(&self.0.len());
        fits && self.0.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    }
}

/// What every node knows of a task.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize_tuple, Deserialize_tuple)]
pub struct TaskRecord {
    /// Which.
    pub task: TaskId,
    /// What is to be done.
    pub kind: TaskKind,
    /// Bytes that the client sends to the worker.
    pub payload_bytes: u64,
    /// Whose assignment this is, and which.
    pub rank: Rank,
    /// Who works.
    pub worker: NodeNumber,
    /// How far it is.
    pub phase: Phase,
}

impl TaskRecord {
    /// The order in which records of one task replace each other: an end that is final, then the greater
    /// assignment, then the later phase. So whatever order they are heard in, everybody ends with the same.
    pub fn precedence(&self) -> (bool, Rank, Phase) {
        (self.phase.is_final(), self.rank, self.phase)
    }

    /// Whether it is one that a node can have made.
    pub fn is_sane(&self) -> bool {
        let claim = self.rank.claim;
        let counts = (1..=Claim::COUNTER_MAX).contains(&claim.counter) && self.rank.attempt > 0;
        counts && self.kind.is_sane() && self.payload_bytes <= limits::TASK_PAYLOAD_BYTES_MAX
    }
}
