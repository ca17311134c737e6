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

impl Rank {
    /// The largest attempt that counts: far above all that a coordinator can reach.
    pub const ATTEMPT_MAX: u64 = 1 << 40;

    /// Whether it is one that a coordinator can have given.
    pub fn is_sane(&self) -> bool {
        let counts = (1..=Claim::COUNTER_MAX).contains(&self.claim.counter);
        counts && (1..=Self::ATTEMPT_MAX).contains(&self.attempt)
    }
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
    /// The worker has it no more: it was restarted, or is about to stop. Somebody else should have it.
    Lost,
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

    /// Whether nothing is left to be done about the task, as far as this assignment tells.
    pub fn is_closed(self) -> bool {
        self.is_final() || self == Self::Abandoned
    }

    /// Whether a worker has it in hand.
    pub fn is_in_hand(self) -> bool {
        matches!(self, Self::Assigned | Self::Started | Self::Finished)
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
        self.rank.is_sane() && self.kind.is_sane() && self.payload_bytes <= limits::TASK_PAYLOAD_BYTES_MAX
    }
}

/// What a worker says when a coordinator wants a place for a task.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// It has one; the client may come.
    Taken,
    /// All its places are taken, or what they hold is too much already.
    Full,
    /// It does not know work of this kind: its program is older.
    UnknownKind,
    /// It knows a greater claim, or an assignment of this task that is as great.
    Outdated,
    /// It is about to stop.
    Leaving,
}

/// What a client is told that wants work done.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Submitted {
    /// This worker waits for it.
    Assigned(TaskRecord),
    /// It has ended.
    Closed(Phase),
    /// This node is not the coordinator; that one is, as far as it knows.
    NotCoordinator { coordinator: Option<PeerId> },
    /// Every place that could be had is taken: come again.
    Busy { tasks: u64, places: u64 },
    /// Just now it cannot be said: come again at once.
    Again,
    /// No node here knows work of this kind.
    UnknownKind,
}

/// How far a worker is with a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Place {
    /// It waits for the picture, or the rest of it.
    Receiving,
    /// It has the picture; so many come first.
    Waiting { ahead: u64 },
    /// It works.
    Running,
    /// It has an answer.
    Done,
}

/// What a node knows of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize_tuple, Deserialize_tuple)]
pub struct Standing {
    /// The greatest assignment that it has heard of.
    pub record: Option<TaskRecord>,
    /// How far it is itself, if it is the worker.
    pub place: Option<Place>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(counter: u64, attempt: u64, phase: Phase) -> TaskRecord {
        let claim = Claim { epoch: Epoch::FOUNDING, counter, node: NodeNumber(0) };
        let key = libp2p_identity::Keypair::ed25519_from_bytes([7; 32]).expect("32 bytes");
        TaskRecord {
            task: TaskId { client: key.public().to_peer_id(), number: 1 },
            kind: TaskKind("hide".into()),
            payload_bytes: 7,
            rank: Rank { claim, attempt },
            worker: NodeNumber(1),
            phase,
        }
    }

    #[test]
    fn what_replaces_what() {
        let rising = [
            record(1, 1, Phase::Assigned),
            record(1, 1, Phase::Started),
            record(1, 1, Phase::Finished),
            record(1, 1, Phase::Lost),
            record(1, 1, Phase::Abandoned),
            record(1, 2, Phase::Assigned),
            record(2, 1, Phase::Assigned),
            record(1, 1, Phase::Cancelled),
            record(1, 1, Phase::Acknowledged),
        ];
        let precedence: Vec<_> = rising.iter().map(TaskRecord::precedence).collect();
        assert!(precedence.is_sorted(), "an end that a client wants counts against later attempts");
    }

    /// Everything that stands in messages, by name; with each name of an enum once.
    fn encoded() -> Vec<(String, Vec<u8>)> {
        use crate::model::codec::encode;
        let started = record(1 << 20, 3, Phase::Started);
        let mut all =
            vec![("task".to_owned(), encode(&started.task)), ("rank".into(), encode(&started.rank))];
        let phases = [Phase::Assigned, Phase::Started, Phase::Finished, Phase::Lost];
        for phase in phases.into_iter().chain([Phase::Abandoned, Phase::Cancelled, Phase::Acknowledged]) {
            all.push((format!("record-{phase:?}"), encode(&record(1 << 20, 3, phase))));
        }
        let [taken, full, unknown] = [Verdict::Taken, Verdict::Full, Verdict::UnknownKind];
        for verdict in [taken, full, unknown, Verdict::Outdated, Verdict::Leaving] {
            all.push((format!("verdict-{verdict:?}"), encode(&verdict)));
        }
        let submitted = [
            ("assigned", Submitted::Assigned(started.clone())),
            ("closed", Submitted::Closed(Phase::Cancelled)),
            ("elsewhere", Submitted::NotCoordinator { coordinator: Some(started.task.client) }),
            ("nowhere", Submitted::NotCoordinator { coordinator: None }),
            ("busy", Submitted::Busy { tasks: 300, places: 8 }),
            ("again", Submitted::Again),
            ("unknown-kind", Submitted::UnknownKind),
        ];
        all.extend(submitted.iter().map(|(name, said)| (format!("submitted-{name}"), encode(said))));
        let places = [None, Some(Place::Receiving), Some(Place::Waiting { ahead: 2 })];
        for place in places.into_iter().chain([Some(Place::Running), Some(Place::Done)]) {
            let standing = Standing { record: Some(started.clone()), place };
            let place = place.map_or("nowhere".into(), |place| format!("{place:?}"));
            let name: String = place.chars().take_while(|letter| letter.is_alphabetic()).collect();
            all.push((format!("standing-{name}"), encode(&standing)));
        }
        all.push(("standing-unknown".into(), encode(&Standing::default())));
        all
    }

    #[test]
    fn the_encodings_are_those_of_the_file() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let made: Vec<String> =
            encoded().iter().map(|(name, bytes)| format!("{name} = {}", hex(bytes))).collect();
        let file: Vec<&str> = include_str!("../../tests/vectors/task.txt").lines().collect();
        assert!(file == made, "task.txt does not say what was made, which is:\n{}\n", made.join("\n"));
        for (name, bytes) in encoded().iter().filter(|(name, _)| name.starts_with("record")) {
            let read: TaskRecord = crate::model::codec::decode(bytes, limits::GOSSIP_BYTES_MAX).expect(name);
            assert!(read.is_sane());
        }
    }

    #[test]
    fn a_page_of_the_largest_records_is_as_small_as_it_is_said_to_be() {
        let claim = Claim { epoch: Epoch(u64::MAX), counter: Claim::COUNTER_MAX, node: NodeNumber(u16::MAX) };
        let small = record(1, 1, Phase::Acknowledged);
        let largest = TaskRecord {
            task: TaskId { number: u64::MAX, ..small.task },
            kind: TaskKind("h".repeat(limits::TASK_KIND_BYTES_MAX)),
            payload_bytes: limits::TASK_PAYLOAD_BYTES_MAX,
            rank: Rank { claim, attempt: Rank::ATTEMPT_MAX },
            worker: NodeNumber(u16::MAX),
            ..small
        };
        assert!(largest.is_sane());
        let page = vec![largest; limits::TASK_PAGE_RECORDS_MAX];
        assert!(crate::model::codec::encode(&page).len() < 64 << 10);
    }

    #[test]
    fn what_no_node_can_have_made_is_not_sane() {
        assert!(record(1, 1, Phase::Assigned).is_sane());
        assert!(!record(0, 1, Phase::Assigned).is_sane() && !record(1, 0, Phase::Assigned).is_sane());
        assert!(!record(Claim::COUNTER_MAX + 1, 1, Phase::Assigned).is_sane());
        assert!(!record(1, Rank::ATTEMPT_MAX + 1, Phase::Assigned).is_sane());
        let too_much = limits::TASK_PAYLOAD_BYTES_MAX + 1;
        assert!(!TaskRecord { payload_bytes: too_much, ..record(1, 1, Phase::Assigned) }.is_sane());
        let of_kind =
            |kind: &str| TaskRecord { kind: TaskKind(kind.into()), ..record(1, 1, Phase::Assigned) };
        assert!(of_kind("strip-all").is_sane());
        assert!(!of_kind("").is_sane() && !of_kind("Hide").is_sane() && !of_kind(&"h".repeat(25)).is_sane());
    }
}
