//! `/tintype/rpc/1`: questions and answers over one long-lived stream per peer and direction.
//!
//! A question is a length (u32, big endian), a number (u64, big endian) and that many bytes; an answer is a
//! length, the number of its question, a status byte and that many bytes. The numbers of a stream grow;
//! answers come in any order. Longer messages are refused, never cut. Whoever breaks this loses the stream.
//! What the bytes mean is not known here.
//!
//! ```text
//! asking      questions of this process      answering   questions of others
//! wire        frames, and bytes that wait to go out
//! ```

mod answering;
mod asking;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod wire;

use libp2p::PeerId;

pub use answering::ReplyToken;
pub(super) use answering::{Answering, serve};
pub(super) use asking::{Answered, Asker, Asking};

use crate::model::hello::Kind;

/// Something for the owner of the network.
#[derive(Debug)]
pub(super) enum Heard {
    /// A peer asks.
    Question { peer: PeerId, kind: Kind, token: ReplyToken, bytes: Vec<u8> },
    /// A peer broke the framing, asking or answering.
    Malformed { peer: PeerId },
}
