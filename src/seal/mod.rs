//! Cryptography, bytes to bytes: who a user is; how chunks, manifests and registers are sealed and checked.
//!
//! Pure: no clock, no socket, no file, and no randomness of its own; salts and secrets come in as arguments.
//! Here alone keys are derived, ids are made, and a
//! [`VerifiedRegister`](crate::model::register::VerifiedRegister) is vouched for. Nothing here prints a
//! secret, and every secret is wiped when it is dropped.
//!
//! ```text
//! admission the cluster key, and the proof that one holds it
//! keys      a user's secret, the keys that follow from it, and where an object lives
//! key_file  that secret as a line of text, plain or behind a passphrase
//! chunk     pad, encrypt and name up to 1 MiB; the hot path
//! manifest  what an object version consists of: public half, sealed half, root and parts
//! register  the signed pointer to the newest manifest, its sealed entry, and the proof for listings
//! hidden    what is hidden in a picture for its owner alone
//! sealed    (private) the one authenticated encryption of sealed halves and entries
//! signature (private) the one Ed25519 check
//! ```

pub mod admission;
pub mod chunk;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod hidden;
pub mod key_file;
pub mod keys;
pub mod manifest;
pub mod register;

mod sealed;
mod signature;

#[cfg(test)]
mod vectors;
