//! Ballots: the order of all attempts to write one register.
//!
//! A ballot is unique for ever: the boot number differs at each start of a node, the counter only grows
//! within one.

use serde_tuple::{Deserialize_tuple, Serialize_tuple};

use crate::model::{
    codec::{self, CodecError},
    member::{Epoch, NodeNumber},
};

/// The longest encoding: an array head and four integers.
const ENCODED_BYTES_MAX: usize = 40;

/// One attempt to write a register. Ordered by epoch, counter, node number, boot number, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize_tuple, Deserialize_tuple)]
pub struct Ballot {
    /// The membership in which it was made.
    pub epoch: Epoch,
    /// Grows within a process. The first of a view is the implicit ballot of the home proposer; those below
    /// it are a handover's, by its attempt.
    pub counter: u64,
    /// Whose ballot it is.
    pub node: NodeNumber,
    /// Which start of that node made it.
    pub boot: u64,
}

impl Ballot {
    /// No counter is above this; a greater one is malformed, so counting up cannot overflow.
    pub const COUNTER_MAX: u64 = 1 << 62;

    /// Whether the numbers are in their bounds.
    pub fn is_sane(&self) -> bool {
        self.counter <= Self::COUNTER_MAX
    }

    /// The encoded form, as in [`crate::model::rpc::RecordInfo::ballot`]. It does not sort as bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the encoded form.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let ballot: Self = codec::decode(bytes, ENCODED_BYTES_MAX)?;
        if !ballot.is_sane() {
            return Err(CodecError::Malformed("a ballot's counter is too great".into()));
        }
        Ok(ballot)
    }
}
