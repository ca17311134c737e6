//! The nouns that two rooms or more need, and how each is encoded.
//!
//! Plain data: no clock, no socket, no file, no task, no randomness. It depends on no other room.

pub mod codec;
pub mod config;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod hello;
pub mod id;
pub mod limits;
pub mod member;
pub mod object;
pub mod register;
pub mod rpc;
pub mod slots;
pub mod task;
pub mod time;

pub use id::{BodyId, Digest, FoundingId, Incarnation, ObjectId, OwnerKey, PeerId, ProcessId, RequestId};
pub use time::Millis;

#[cfg(test)]
mod vectors;
