//! What must hold of any bytes that a node has noted about others for its next start.
//!
//! For fuzzers and property tests only: no program is built with it.

use super::report;
use crate::model::fuzzing::settled_bytes;

/// Addresses that worked and names: hints, so whatever is damaged is nothing.
pub fn known_peers(bytes: &[u8]) -> bool {
    let (addresses, names) = settled_bytes(
        bytes,
        |bytes| (report::read_addresses(Some(bytes)), report::read_names(Some(bytes))),
        |(addresses, names)| report::write_known(addresses, names),
    );
    !addresses.is_empty() || !names.is_empty()
}
