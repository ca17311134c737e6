//! The user's own files: what a `put` reads and where a `get` writes.
//!
//! The only place outside `disk` that opens files, and only those that the user named. It knows no network,
//! no keys and nothing of the home; everything here blocks and belongs on a blocking thread.

pub mod destination;
pub mod media;
pub mod plan;
pub mod source;
pub mod structure;
pub mod thumbnail;
