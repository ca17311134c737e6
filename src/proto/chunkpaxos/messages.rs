//! What ChunkPaxos says on the wire, and the questions and answers of its callers.
//!
//! A message is generic over the form of its register: [`RawRegister`] as it was read from the wire,
//! [`VerifiedRegister`] once `seal` has checked it. Only the latter can be handed to the machine.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_tuple::{Deserialize_tuple, Serialize_tuple};

use super::ballot::Ballot;
use crate::model::{
    codec::{self, CodecError},
    id::ObjectId,
    limits,
    member::Epoch,
    register::{RawRegister, VerifiedRegister},
};

const VERSION: u64 = 1;

/// One round, or one forwarded call, of one start of a node. Its answers repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize_tuple, Deserialize_tuple)]
pub struct RoundId {
    /// The asking node's boot number, so that an answer to an earlier start is never taken for one to this.
    pub boot: u64,
    /// Grows by one with each round of that start.
    pub number: u64,
}

/// One message between two members, about one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message<V = VerifiedRegister> {
    /// The epoch of the slot's view in which it is said, or to which a handover is; of another one it is
    /// ignored.
    pub epoch: Epoch,
    /// The object. Where a whole slot is meant, the first id of that slot.
    pub object: ObjectId,
    /// What the message belongs to; an answer repeats the question's.
    pub round: RoundId,
    /// What is said.
    pub body: Body<V>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body<V = VerifiedRegister> {
    /// Promise to refuse everything below this ballot, and say what you accepted.
    Prepare { ballot: Ballot },
    /// Promised; here is what was accepted.
    Promise { ballot: Ballot, accepted: Option<Accepted<V>> },
    /// Accept this value, and promise `next` for the round after it.
    Accept { ballot: Ballot, value: V, next: Option<Ballot> },
    /// Accepted; `next` was promised too, or not.
    Accepted { ballot: Ballot, next_promised: bool },
    /// Not below `floor`; said of a prepare or an accept with `ballot`.
    Refused { ballot: Ballot, floor: Ballot },
    /// What did you accept?
    Query,
    /// The answer to a query.
    State { accepted: Option<Accepted<V>> },
    /// Keep this copy: the acceptor has it durably.
    Mirror { ballot: Ballot, value: V },
    /// The mirror has this ballot or a greater one durably.
    Mirrored { ballot: Ballot },
    /// Do this for me: you are the object's home proposer.
    Forward { command: Command<V> },
    /// The home has it in hand: be patient.
    Taken,
    /// The answer to a forwarded command.
    Answered { answer: Answer<V> },
    /// Only ever sent to oneself behind a write: that write is durable. Ignored from anyone else.
    Written { serial: u64 },
    /// By an installer, to an acceptor of the old view: refuse from now on everything below this epoch.
    Fence { attempt: u64 },
    /// It does, durably.
    Fenced,
    /// Which objects of the slot have you, after this one? Only to the fenced.
    List { attempt: u64, after: Option<ObjectId> },
    /// A page of them, in order, and whether there are more.
    Listed { objects: Vec<ObjectId>, more: bool },
    /// What did you accept? Only to the fenced.
    Fetch { attempt: u64 },
    /// The answer to that.
    Fetched { accepted: Option<Accepted<V>> },
    /// To those who keep the slot next: accept this, in the epoch to come.
    Install { attempt: u64, ballot: Ballot, value: V },
    /// Accepted, durably.
    Installed { ballot: Ballot },
    /// As [`Body::Written`], of a fence.
    FenceWritten,
}

/// What an acceptor accepted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Accepted<V = VerifiedRegister> {
    /// At which ballot.
    pub ballot: Ballot,
    /// What.
    pub value: V,
}

/// What a caller wants of an object's register.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command<V = VerifiedRegister> {
    /// Make this the next version.
    Propose { value: V },
    /// The current value, known chosen.
    Read,
    /// The newest value that the reachable nodes know, chosen or not. Never forwarded.
    ReadAny,
    /// Write the current value again in a full round, so that the acceptors agree. For repair.
    Settle,
}

/// What came of a command, and what it cost.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Answer<V = VerifiedRegister> {
    /// What came of it.
    pub outcome: Outcome<V>,
    /// ChunkPaxos messages that it cost, requests and their answers, the proposer's own counted; without
    /// the forwarding.
    pub messages: u64,
    /// Whether it was proposed by the object's home.
    pub by_home: bool,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome<V = VerifiedRegister> {
    /// The proposed value is, or was, the current one; durably on this many nodes, as far as is known now.
    Committed { copies: u64 },
    /// Another value is current, known chosen; none = the object does not exist.
    Conflict { current: Option<V> },
    /// To a read or settle: the current value. To a [`Command::ReadAny`]: the newest known one, and nothing
    /// more.
    Value { current: Option<Accepted<V>> },
    /// No majority of acceptors answered in time; a proposal may or may not have happened.
    NoQuorum,
    /// A queue is full.
    Busy,
}

impl<V> Message<V> {
    /// The register in this message, if there is one; a message never has two.
    pub fn register(&self) -> Option<&V> {
        self.body.register()
    }

    /// Turns the register in this message, if there is one, into another form: how a raw one is verified.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn try_map<W, E>(self, f: impl FnOnce(V) -> Result<W, E>) -> Result<Message<W>, E> {
        Ok(Message { epoch: self.epoch, object: self.object, round: self.round, body: self.body.try_map(f)? })
    }
}

impl<V: Serialize> Message<V> {
    /// The wire form, one lane frame: `[1, promises, epoch, object, round, body]`. With every word goes how
    /// many promises the sender's disk has made durable, ever: whoever relies on one of them knows the number
    /// that a later start of the sender must know, too ([`crate::model::hello::KnownPeer`]).
    pub fn encode(&self, promises: u64) -> Vec<u8> {
        codec::encode(&(VERSION, promises, self.epoch, self.object, self.round, &self.body))
    }
}

impl Message<RawRegister> {
    /// Reads the wire form: the sender's count of promises, and the message. The register in it is not
    /// verified yet.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<(u64, Self), CodecError> {
        let (version, promises, epoch, object, round, body): (u64, _, _, _, _, _) =
            codec::decode(bytes, limits::LANE_FRAME_BYTES_MAX)?;
        codec::check_version(version, VERSION)?;
        Ok((promises, Self { epoch, object, round, body }))
    }
}

impl<V> Body<V> {
    /// All ballots in it, those of carried values too.
    pub(super) fn ballots(&self) -> impl Iterator<Item = &Ballot> {
        let (first, second) = match self {
            Body::Prepare { ballot }
            | Body::Accepted { ballot, .. }
            | Body::Mirrored { ballot }
            | Body::Mirror { ballot, .. }
            | Body::Install { ballot, .. }
            | Body::Installed { ballot } => (Some(ballot), None),
            Body::Promise { ballot, accepted } => (Some(ballot), accepted.as_ref().map(|a| &a.ballot)),
            Body::Accept { ballot, next, .. } => (Some(ballot), next.as_ref()),
            Body::Refused { ballot, floor } => (Some(ballot), Some(floor)),
            Body::State { accepted } | Body::Fetched { accepted } => {
                (accepted.as_ref().map(|a| &a.ballot), None)
            }
            Body::Answered { answer: Answer { outcome: Outcome::Value { current }, .. } } => {
                (current.as_ref().map(|a| &a.ballot), None)
            }
            _ => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// Whether it is said between an installer and those who keep the slot, before or after.
    pub(super) fn is_of_handover(&self) -> bool {
        matches!(
            self,
            Body::Fence { .. }
                | Body::Fenced
                | Body::List { .. }
                | Body::Listed { .. }
                | Body::Fetch { .. }
                | Body::Fetched { .. }
                | Body::Install { .. }
                | Body::Installed { .. }
        )
    }

    fn register(&self) -> Option<&V> {
        match self {
            Body::Promise { accepted, .. } | Body::State { accepted } | Body::Fetched { accepted } => {
                accepted.as_ref().map(|a| &a.value)
            }
            Body::Accept { value, .. } | Body::Mirror { value, .. } | Body::Install { value, .. } => {
                Some(value)
            }
            Body::Forward { command: Command::Propose { value } } => Some(value),
            Body::Answered { answer } => answer.outcome.register(),
            _ => None,
        }
    }

    fn try_map<W, E>(self, f: impl FnOnce(V) -> Result<W, E>) -> Result<Body<W>, E> {
        Ok(match self {
            Body::Prepare { ballot } => Body::Prepare { ballot },
            Body::Promise { ballot, accepted } => {
                Body::Promise { ballot, accepted: accepted.map(|a| a.try_map(f)).transpose()? }
            }
            Body::Accept { ballot, value, next } => Body::Accept { ballot, value: f(value)?, next },
            Body::Accepted { ballot, next_promised } => Body::Accepted { ballot, next_promised },
            Body::Refused { ballot, floor } => Body::Refused { ballot, floor },
            Body::Query => Body::Query,
            Body::State { accepted } => Body::State { accepted: accepted.map(|a| a.try_map(f)).transpose()? },
            Body::Mirror { ballot, value } => Body::Mirror { ballot, value: f(value)? },
            Body::Mirrored { ballot } => Body::Mirrored { ballot },
            Body::Forward { command } => Body::Forward { command: command.try_map(f)? },
            Body::Taken => Body::Taken,
            Body::Answered { answer } => Body::Answered { answer: answer.try_map(f)? },
            Body::Written { serial } => Body::Written { serial },
            Body::Fence { attempt } => Body::Fence { attempt },
            Body::Fenced => Body::Fenced,
            Body::List { attempt, after } => Body::List { attempt, after },
            Body::Listed { objects, more } => Body::Listed { objects, more },
            Body::Fetch { attempt } => Body::Fetch { attempt },
            Body::Fetched { accepted } => {
                Body::Fetched { accepted: accepted.map(|a| a.try_map(f)).transpose()? }
            }
            Body::Install { attempt, ballot, value } => Body::Install { attempt, ballot, value: f(value)? },
            Body::Installed { ballot } => Body::Installed { ballot },
            Body::FenceWritten => Body::FenceWritten,
        })
    }
}

impl<V> Accepted<V> {
    /// Turns the register into another form.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn try_map<W, E>(self, f: impl FnOnce(V) -> Result<W, E>) -> Result<Accepted<W>, E> {
        Ok(Accepted { ballot: self.ballot, value: f(self.value)? })
    }
}

impl<V: Serialize> Serialize for Accepted<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.ballot, &self.value).serialize(serializer)
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Accepted<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (ballot, value) = Deserialize::deserialize(deserializer)?;
        Ok(Self { ballot, value })
    }
}

impl<V> Command<V> {
    /// Turns the register in this command into another form.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn try_map<W, E>(self, f: impl FnOnce(V) -> Result<W, E>) -> Result<Command<W>, E> {
        Ok(match self {
            Command::Propose { value } => Command::Propose { value: f(value)? },
            Command::Read => Command::Read,
            Command::ReadAny => Command::ReadAny,
            Command::Settle => Command::Settle,
        })
    }
}

impl<V> Answer<V> {
    fn try_map<W, E>(self, f: impl FnOnce(V) -> Result<W, E>) -> Result<Answer<W>, E> {
        Ok(Answer { outcome: self.outcome.try_map(f)?, messages: self.messages, by_home: self.by_home })
    }
}

impl<V> Outcome<V> {
    fn register(&self) -> Option<&V> {
        match self {
            Outcome::Conflict { current } => current.as_ref(),
            Outcome::Value { current } => current.as_ref().map(|a| &a.value),
            _ => None,
        }
    }

    fn try_map<W, E>(self, f: impl FnOnce(V) -> Result<W, E>) -> Result<Outcome<W>, E> {
        Ok(match self {
            Outcome::Committed { copies } => Outcome::Committed { copies },
            Outcome::Conflict { current } => Outcome::Conflict { current: current.map(f).transpose()? },
            Outcome::Value { current } => {
                Outcome::Value { current: current.map(|a| a.try_map(f)).transpose()? }
            }
            Outcome::NoQuorum => Outcome::NoQuorum,
            Outcome::Busy => Outcome::Busy,
        })
    }
}
