//! Who belongs to the cluster: the founding and the member list of an epoch.

use serde_tuple::{Deserialize_tuple, Serialize_tuple};

use super::{
    codec::{self, CodecError},
    id::{FoundingId, Incarnation, PeerId},
};

/// A member's place in the member list; part of every ballot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct NodeNumber(pub u16);

/// One member: a key, and the incarnation of the disk that knows its promises.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize_tuple, Deserialize_tuple)]
pub struct Member {
    /// The member's libp2p identity.
    pub peer: PeerId,
    /// Random, made with its `data/`.
    pub incarnation: Incarnation,
}

/// What founded the cluster: epoch 1. The node number of a member is its index.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize_tuple, Deserialize_tuple)]
pub struct Founding {
    version: u64,
    /// Names this cluster for ever.
    pub id: FoundingId,
    /// Sorted by PeerId.
    pub members: Vec<Member>,
}

/// The number of a membership; only authority raises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch that a founding begins.
    pub const FOUNDING: Epoch = Epoch(1);
}

impl Founding {
    /// A founding of `members`, which are put in order here.
    pub fn new(id: FoundingId, mut members: Vec<Member>) -> Self {
        members.sort();
        Self { version: 1, id, members }
    }

    /// The node number of `peer`, if it is a member.
    pub fn number_of(&self, peer: &PeerId) -> Option<NodeNumber> {
        let index = self.members.iter().position(|m| m.peer == *peer)?;
        u16::try_from(index).ok().map(NodeNumber)
    }

    /// The member with this number.
    pub fn member(&self, number: NodeNumber) -> Option<&Member> {
        self.members.get(usize::from(number.0))
    }

    /// The encoded form.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the encoded form.
    ///
    /// # Errors
    /// [`CodecError`] if it is malformed, of another version, unsorted, or names a peer twice.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let founding: Self = codec::decode(bytes, super::limits::FOUNDING_BYTES_MAX)?;
        codec::check_version(founding.version, 1)?;
        if !founding.members.windows(2).all(|w| w[0].peer < w[1].peer) || founding.members.is_empty() {
            return Err(CodecError::Malformed("members are not sorted and distinct".into()));
        }
        Ok(founding)
    }
}
