//! The words of `/tintype/rpc/1`: what a client or a member may ask a node, and the answers.
//!
//! On the wire each is the array `[1, request]`. Every request is idempotent. Which kind of peer may ask
//! what is decided in `node::serve`; [`Request::members_only`] says it.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_tuple::{Deserialize_tuple, Serialize_tuple};

use super::{
    codec::{self, CodecError},
    id::{BodyId, ObjectId, OwnerKey, PeerId, ProcessId},
    limits,
    register::RawRegister,
    task::{Rank, Standing, Submitted, TaskId, TaskKind, TaskRecord, Verdict},
};

const VERSION: u64 = 1;

/// A question to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// How is the cluster, as this node sees it?
    Status,
    /// The nodes, one [`NodeInfo`] each.
    Nodes,
    /// Events for people with a number above this.
    Events { after: u64 },
    /// The current value of a register: agreed by a quorum.
    Read { object: ObjectId },
    /// The newest value that this node knows, agreed or not.
    ReadAny { object: ObjectId },
    /// Make this signed value the next version.
    Propose { value: RawRegister },
    /// A nonce for the next [`Request::List`] on this connection.
    ListNonce,
    /// One page of this node's own acceptor records of one owner.
    List(ListRequest),
    /// Which of these bodies do you have (read and hashed just now)?
    Offer { bodies: Vec<BodyId> },
    /// The state of these bodies here; `read` hashes each, and replaces from another member a bad one, and a
    /// missing one if this node is among the first `copies` of its placement.
    Check { bodies: Vec<BodyId>, read: bool, copies: u64 },
    /// Stop this node; the token is in the home's `data/node.addr`, which only its owner can read.
    Stop { token: ByteBuf },
    /// Are you there? Members only.
    Probe,
    /// Ask that peer for me whether it is there. Members only.
    ProbeThrough { peer: PeerId },
    /// A message of the founding (`proto::founding`). Nodes only.
    Founding { message: ByteBuf },
    /// One page of all acceptor records of a hash slot. Members only.
    ScanSlot { slot: u8, after: Option<ObjectId> },
    /// These bodies should be on you: fetch what you lack. Members only.
    Push { bodies: Vec<BodyId> },
    /// Which nodes are you connected with, and where? Nodes only.
    Peers,
    /// You lack registers that a majority has: look through your slots. Members only.
    Behind,
    /// A message of `proto::election`. Members only.
    Election { message: ByteBuf },
    /// A place for this task. Members only.
    Reserve { record: TaskRecord },
    /// A page of all tasks that this node knows, behind this one.
    Tasks { after: Option<TaskId> },
    /// Have this done; the client is who asks.
    Submit(SubmitRequest),
    /// How far is the task of mine with this number?
    Poll { number: u64 },
    /// I have the answer to the task of mine with this number.
    Acknowledge { number: u64 },
    /// This task shall end, whosever it is.
    Cancel { task: TaskId },
    /// The last elections that this node knows of.
    Elections,
    /// A client that does not reach you wants this done. Members only.
    SubmitFor { client: PeerId, submit: SubmitRequest },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<StatusInfo>),
    /// To [`Request::Nodes`].
    Nodes(Vec<NodeInfo>),
    /// To [`Request::Events`].
    Events(Vec<EventInfo>),
    /// To [`Request::Read`] and [`Request::ReadAny`].
    Register { value: Option<RawRegister> },
    /// The proposal is the current value, known chosen.
    Committed(Commit),
    /// Another value is current.
    Conflict { current: Option<RawRegister> },
    /// To [`Request::ListNonce`].
    Nonce(ByteBuf),
    /// To [`Request::List`] and [`Request::ScanSlot`].
    Page(RecordPage),
    /// To [`Request::Offer`]: one flag each, in order.
    Have(Vec<bool>),
    /// To [`Request::Check`]: one each, in order.
    Checked(Vec<BodyState>),
    /// Done; nothing to say.
    Done,
    /// To [`Request::ProbeThrough`].
    Reached(bool),
    /// To [`Request::Founding`].
    Founding { message: ByteBuf },
    /// No majority of acceptors answered in time.
    NoQuorum,
    /// This node serves no cluster yet; why, in words.
    NotReady(String),
    /// A queue is full: try again or go elsewhere.
    Busy,
    /// Refused, and why, in words.
    Refused(String),
    /// To [`Request::Peers`]: connected nodes and the address of each.
    Peers(Vec<(PeerId, String)>),
    /// To a [`Request::Election`] that wants an answer.
    Election { message: ByteBuf },
    /// To [`Request::Reserve`].
    Verdict(Verdict),
    /// To [`Request::Tasks`].
    Tasks(TaskPage),
    /// To [`Request::Submit`].
    Submitted(Submitted),
    /// To [`Request::Poll`].
    Standing(TaskStanding),
    /// To [`Request::Elections`], the oldest first.
    Elections(Vec<ElectionInfo>),
}

/// What a client wants done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct SubmitRequest {
    /// Unique within the client; the same again is the same task.
    pub number: u64,
    /// What is to be done.
    pub kind: TaskKind,
    /// Bytes that the client will send.
    pub payload_bytes: u64,
    /// The greatest assignment that it knows and that did not serve it.
    pub above: Option<Rank>,
    /// Workers that it would rather not have.
    pub avoid: Vec<PeerId>,
}

/// A page of task records in the order of their tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct TaskPage {
    /// The records.
    pub records: Vec<TaskRecord>,
    /// Where the next page begins, if there is one.
    pub next: Option<TaskId>,
}

/// How far a task is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct TaskStanding {
    /// What the node knows.
    pub standing: Standing,
    /// Pieces of the payload that it lacks, at most so many as fit; for a client that brings them.
    pub missing: Vec<u32>,
    /// The hashes of the answer's pieces, if it has an answer.
    pub pieces: Vec<BodyId>,
}

/// An election, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct ElectionInfo {
    /// When this node heard of it, milliseconds since 1970; for display only.
    pub unix_ms: u64,
    /// Who was elected.
    pub coordinator: PeerId,
    /// The counter of its claim.
    pub counter: u64,
    /// Why there was an election, in words.
    pub why: String,
    /// The load of each candidate then, in hundredths of a point; lower is better.
    pub scores: Vec<(PeerId, u64)>,
}

/// What a commit cost and reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct Commit {
    /// Messages of this commit, counted with the proposer's own.
    pub messages: u64,
    /// Nodes that have the register durably (acceptors, mirror).
    pub copies: u64,
}

/// A request for one page of an owner's registers on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct ListRequest {
    /// Whose.
    pub owner: OwnerKey,
    /// From [`Request::ListNonce`] on this connection.
    pub nonce: ByteBuf,
    /// Objects after this one.
    pub after: Option<ObjectId>,
    /// Ed25519 by the owner, see `seal::register::list_proof`.
    pub signature: ByteBuf,
}

/// What an acceptor holds of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct RecordInfo {
    /// The object.
    pub object: ObjectId,
    /// The accepted ballot, encoded by `proto::chunkpaxos`.
    pub ballot: ByteBuf,
    /// The accepted value.
    pub value: RawRegister,
}

/// A page of records in the order of their object ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct RecordPage {
    /// The records.
    pub records: Vec<RecordInfo>,
    /// Where the next page begins, if there is one.
    pub next: Option<ObjectId>,
}

/// One body on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyState {
    /// Not here.
    Missing,
    /// Here, and last read and found right at this wall-clock time.
    Good { verified_unix_ms: u64 },
    /// Here was a bad copy; a good one has replaced it.
    Mended,
    /// It belongs here and was not; it has been fetched.
    Restored,
    /// Here is a bad copy, and no good one was found.
    Bad,
}

/// A node's state as another sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// Heard of lately.
    Alive,
    /// Silent; being probed.
    Suspect,
    /// Silent, and no probe reached it.
    Dead,
    /// Not heard of yet.
    Unknown,
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct NodeInfo {
    /// Its identity.
    pub peer: PeerId,
    /// Its display name; empty if unknown.
    pub name: String,
    /// Addresses at which it was reached.
    pub addrs: Vec<String>,
    /// As the answering node sees it.
    pub state: NodeState,
    /// Its load in hundredths of a point, if known.
    pub load_centi: Option<u64>,
    /// Bytes that it may store, if known.
    pub capacity_bytes: Option<u64>,
    /// Bytes that it stores, if known.
    pub used_bytes: Option<u64>,
    /// `member`, or `left out`.
    pub role: String,
    /// Tasks that it has in hand, if known.
    pub tasks: Option<u64>,
    /// Tasks that it works on at once, if known.
    pub slots: Option<u64>,
    /// What it counted since its start, if it is the one answering.
    pub counters: Option<Counters>,
}

/// What a node counts from its start on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct Counters {
    /// Commits proposed here as the object's home.
    pub home_commits: u64,
    /// Commits proposed here at all.
    pub commits: u64,
    /// ChunkPaxos messages of those, the proposer's own counted.
    pub commit_messages: u64,
    /// Lane frames of ChunkPaxos sent to others.
    pub lane_frames_sent: u64,
    /// Body bytes taken from clients as first holder.
    pub first_hop_bytes: u64,
    /// Body bytes passed on to other holders.
    pub forwarded_bytes: u64,
    /// Bodies from clients declined (full, busy, no space).
    pub declined: u64,
    /// Connections refused at admission.
    pub refused: u64,
    /// Frames and messages thrown away as malformed or not allowed.
    pub malformed: u64,
    /// Corrupt copies found.
    pub corrupt_found: u64,
    /// Corrupt copies replaced.
    pub corrupt_mended: u64,
}

/// How a cluster is, as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct StatusInfo {
    /// The answering node.
    pub peer: PeerId,
    /// Its software version.
    pub software: String,
    /// The process that answers.
    pub process: ProcessId,
    /// Its boot number.
    pub boot: u64,
    /// None while it is not founded.
    pub founding: Option<super::id::FoundingId>,
    /// What it waits for while it does not serve; empty when it serves.
    pub waiting: String,
    /// All nodes of the epoch.
    pub nodes: Vec<NodeInfo>,
    /// The epoch of the membership; 0 while not founded.
    pub epoch: u64,
    /// Bodies or registers known to lack a copy; none while not known.
    pub under_repair: Option<u64>,
    /// Connected clients.
    pub clients: u64,
    /// Connections refused since the start.
    pub refused: u64,
    /// Machines of other clusters seen on the network, each a sentence.
    pub foreign: Vec<String>,
    /// Things that a person should know: a full disk, a corrupt file; each a sentence.
    pub warnings: Vec<String>,
    /// Wall clock of the node, milliseconds since 1970; for display and `doctor` only.
    pub clock_unix_ms: u64,
    /// Of the objects whose registers this node keeps: how many want fewer than two copies, where there are
    /// more nodes. None while not known.
    pub single_copy_objects: Option<u64>,
    /// Who hands out tasks, as far as this node knows.
    pub coordinator: Option<PeerId>,
    /// Why that one, in words; empty without one.
    pub coordinator_why: String,
}

/// Something that a person cares about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct EventInfo {
    /// Grows by one each.
    pub number: u64,
    /// When, milliseconds since 1970.
    pub unix_ms: u64,
    /// One sentence.
    pub text: String,
}

impl Request {
    /// Whether only nodes of the cluster may ask this.
    pub fn members_only(&self) -> bool {
        use Request::*;
        let of_the_vault = matches!(self, Founding { .. } | ScanSlot { .. } | Push { .. } | Peers | Behind);
        let of_tasks = matches!(self, Election { .. } | Reserve { .. } | SubmitFor { .. });
        of_the_vault || of_tasks || matches!(self, Probe | ProbeThrough { .. })
    }

    /// The wire form.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&(VERSION, self))
    }

    /// Reads the wire form.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (version, request): (u64, Self) = codec::decode(bytes, limits::RPC_REQUEST_BYTES_MAX)?;
        codec::check_version(version, VERSION)?;
        Ok(request)
    }
}

impl Response {
    /// The wire form.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&(VERSION, self))
    }

    /// Reads the wire form.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (version, response): (u64, Self) = codec::decode(bytes, limits::RPC_RESPONSE_BYTES_MAX)?;
        codec::check_version(version, VERSION)?;
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_responses_survive_the_wire_and_nothing_else_is_read() {
        let request =
            Request::Check { bodies: vec![BodyId([1; 32]), BodyId([2; 32])], read: true, copies: 3 };
        assert_eq!(Request::decode(&request.encode()), Ok(request.clone()));
        let response = Response::Page(RecordPage {
            records: vec![RecordInfo {
                object: ObjectId([3; 32]),
                ballot: ByteBuf::from(vec![1, 2]),
                value: RawRegister(vec![4; 9]),
            }],
            next: Some(ObjectId([5; 32])),
        });
        assert_eq!(Response::decode(&response.encode()), Ok(response));
        let mut later = request.encode();
        later[1] = 2;
        assert_eq!(Request::decode(&later), Err(CodecError::Version(2)));
        assert!(Request::decode(&[0x82, 0x01, 0xff]).is_err());
    }
}
