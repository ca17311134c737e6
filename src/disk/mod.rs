//! The only room that touches the home's files and redb.
//!
//! It owns where things lie (`home`), who this disk is (`boot`), the acceptor records and small bodies
//! (`records`, one durable `writer`), the large bodies (`chunks`), and what a client remembers
//! (`client_state`). It must never say that something is stored before it is durable, never return bytes that
//! do not fit their id, never overwrite what it does not understand, and never delete anything that was
//! acknowledged.

mod apply;
mod ballast;
mod boot;
mod chunks;
mod client_state;
mod count;
mod crash;
mod error;
mod fault;
mod files;
mod folders;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod home;
mod jobs;
mod node_addr;
mod records;
mod space;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

pub use boot::{Boot, DiskOptions};
pub use client_state::ClientState;
pub use crash::{CRASH_POINTS, crash_point};
pub use error::DiskError;
pub use handle::{BodyCheck, Disk, PutOutcome};
pub use home::Home;
pub use node_addr::NodeAddr;
pub use records::{MetaKey, RecordScan, Seen, StoredRecord, WriteBatch};
