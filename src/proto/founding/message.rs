//! What nodes say to each other about the founding.

use crate::model::{
    FoundingId, Incarnation, PeerId,
    codec::{self, CodecError},
    limits,
};

const VERSION: u64 = 1;

/// What nodes say to each other until they are founded, and a founded one to a late one. Each is one
/// `Request::Founding`, answered by `Response::Done`; a lost one is repeated by the machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Message {
    /// What I durably am: a candidate, a voter, a member. It is also the vote, and the question what became
    /// of it.
    Announce {
        /// The speaker's disk.
        incarnation: Incarnation,
        /// The speaker's `--expect`.
        expect: u64,
        /// Where it stands.
        standing: Standing,
    },
    /// Vote for this; from its first member.
    Propose {
        /// The encoded founding.
        #[serde(with = "serde_bytes")]
        founding: Vec<u8>,
    },
    /// This proposal is dead for ever; from its proposer.
    Abort {
        /// Which.
        id: FoundingId,
    },
    /// This is the founding.
    Founded {
        /// The encoded founding.
        #[serde(with = "serde_bytes")]
        founding: Vec<u8>,
    },
}

/// Where a node durably stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Standing {
    /// It has promised nothing.
    Pristine,
    /// It has voted.
    Voted {
        /// For which proposal.
        id: FoundingId,
        /// Whose.
        proposer: PeerId,
        /// The proposer's disk: another one of the same key knows nothing of this proposal.
        incarnation: Incarnation,
    },
    /// It is a member.
    Founded {
        /// Of which cluster.
        id: FoundingId,
    },
    /// It was left out of one.
    LeftOut {
        /// Of which.
        id: FoundingId,
    },
}

impl Message {
    /// The wire form: `[1, message]`.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&(VERSION, self))
    }

    /// Reads the wire form.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (version, message): (u64, Self) = codec::decode(bytes, limits::FOUNDING_MESSAGE_BYTES_MAX)?;
        codec::check_version(version, VERSION)?;
        Ok(message)
    }
}
