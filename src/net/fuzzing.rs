//! What must hold of any bytes that come over the network, before they mean anything.
//!
//! For fuzzers and property tests only: no program is built with it. It opens no socket.

use super::{address, lane};
pub use super::{
    bulk::fuzzing::bulk,
    rpc::fuzzing::rpc_frames,
    transport::fuzzing::{admission, certificate, fresh_certificate, hello},
};
use crate::model::limits;

/// How many bytes come at once, in turn: wherever a stream is cut, it means the same.
pub(super) const STEPS: [usize; 3] = [usize::MAX, 1, 7];

/// The bytes of a lane: the frames in it, and where they break the rules nothing behind that.
pub fn lane_frames(bytes: &[u8]) -> Vec<Vec<u8>> {
    let whole = lane::cut(bytes, STEPS[0]);
    for step in &STEPS[1..] {
        assert!(lane::cut(bytes, *step) == whole, "other frames in pieces of {step}");
    }
    let written: Vec<u8> = whole.iter().flat_map(|frame| lane::framed(frame)).collect();
    assert!(bytes.starts_with(&written), "frames that nobody sent");
    assert!(whole.iter().all(|frame| frame.len() <= limits::LANE_FRAME_BYTES_MAX));
    whole
}

/// Addresses as people write them and as others announce them. Names are not looked up.
pub fn addresses(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(addr) = text.parse::<libp2p::Multiaddr>() else { return false };
    let again: libp2p::Multiaddr = addr.to_string().parse().expect("what was printed is read");
    assert_eq!(again, addr, "another address");
    let (bare, peer) = address::split_peer(addr.clone());
    assert_eq!(peer.map_or(bare.clone(), |peer| address::with_peer(bare.clone(), peer)), addr);
    if let Some(socket) = address::socket_addr(&bare) {
        assert_eq!(address::socket_addr(&address::quic(socket)), Some(socket));
    }
    true
}
