//! What a node durably knows of the founding: its vote, the founding, or that it was left out.

use serde_bytes::ByteBuf;

use super::message::Standing;
use crate::model::{
    FoundingId,
    codec::{self, CodecError},
    limits,
    member::Founding,
};

const VERSION: u64 = 1;

/// What a node durably knows of the founding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FoundingRecord {
    /// The vote given and not taken back: the proposed founding. Its proposer is its first member.
    pub vote: Option<Founding>,
    /// The founding, if there is one; then it never changes.
    pub founding: Option<Founding>,
    /// A founding with the same cluster key that left this node out.
    pub left_out: Option<FoundingId>,
}

impl FoundingRecord {
    /// The encoded form, as it lies on disk: `[1, vote or null, founding or null, left out or null]`.
    pub fn encode(&self) -> Vec<u8> {
        let bytes = |founding: &Option<Founding>| founding.as_ref().map(|f| ByteBuf::from(f.encode()));
        codec::encode(&(VERSION, bytes(&self.vote), bytes(&self.founding), self.left_out))
    }

    /// Reads the encoded form.
    ///
    /// # Errors
    /// [`CodecError`]; a node whose record cannot be read does not know what it promised and must not start.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        type Parts = (u64, Option<ByteBuf>, Option<ByteBuf>, Option<FoundingId>);
        let (version, vote, founding, left_out): Parts =
            codec::decode(bytes, 2 * limits::FOUNDING_MESSAGE_BYTES_MAX)?;
        codec::check_version(version, VERSION)?;
        let read = |bytes: Option<ByteBuf>| bytes.map(|b| Founding::decode(&b)).transpose();
        Ok(Self { vote: read(vote)?, founding: read(founding)?, left_out })
    }

    /// Where a node with this record stands.
    pub(super) fn standing(&self) -> Standing {
        match (&self.founding, &self.vote, self.left_out) {
            (Some(founding), _, _) => Standing::Founded { id: founding.id },
            (None, Some(vote), _) => Standing::Voted {
                id: vote.id,
                proposer: vote.members[0].peer,
                incarnation: vote.members[0].incarnation,
            },
            (None, None, Some(id)) => Standing::LeftOut { id },
            (None, None, None) => Standing::Pristine,
        }
    }
}
