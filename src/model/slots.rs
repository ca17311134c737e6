//! Hash slots: 256 groups of registers, each with acceptors of its own.

use super::id::ObjectId;

/// How many hash slots there are.
pub const SLOT_COUNT: usize = 256;

/// One of the 256 groups of registers: the first byte of the object id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct HashSlot(pub u8);

impl HashSlot {
    /// The slot of an object.
    pub fn of(object: &ObjectId) -> Self {
        Self(object.0[0])
    }

    /// All slots, in order.
    pub fn all() -> impl Iterator<Item = HashSlot> {
        (0..=u8::MAX).map(HashSlot)
    }
}
