//! Bulk, `/tintype/bulk/1`: bodies over a few long-lived streams, framed, pipelined, checked.
//!
//! Each frame is a length (u32, big endian), a header (a CBOR array, version first), and, where the header
//! announces one, a body of exactly that many bytes. A body is hashed as it comes in; one whose hash is not
//! its id is never handed up and never acknowledged as stored. Requests carry a number, answers come in any
//! order. "No more bytes" never means "complete".
//!
//! It decides nothing about storage: who stores, and when it is durable, says the node, by its reply.

mod client;
mod framing;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod server;
mod wire;

use std::{sync::Arc, time::Duration};

use libp2p::PeerId;
use tokio::sync::oneshot;

pub use client::{BulkClient, BulkPool, Progress};
pub(super) use server::{Server, serve};
pub use wire::{BulkReply, BulkRequest, Piece};

use super::streams::OpenError;
use crate::model::{BodyId, hello::Kind};

/// A bulk request that came in, for the node to serve. Dropping it answers "refused".
#[derive(Debug)]
pub struct BulkCall {
    /// Who asks.
    pub peer: PeerId,
    /// What the peer was admitted as.
    pub kind: Kind,
    /// What it wants.
    pub request: BulkRequest,
    /// The body of a put or a give, already checked against its id; else empty.
    pub body: Vec<u8>,
    /// The answer. A body in it must have the id that was asked for.
    pub reply: oneshot::Sender<BulkAnswer>,
}

/// The node's answer to a [`BulkCall`].
#[derive(Debug)]
pub enum BulkAnswer {
    /// Put: these nodes have the body durably. Give: it is in memory, and the list says nothing.
    Stored { holders: Vec<PeerId> },
    /// Get, take: the body.
    Body(Arc<Vec<u8>>),
    /// Get, take: not here.
    NotHere,
    /// Put: no space.
    Full,
    /// Too much to do just now.
    Busy,
    /// The body is not what its id says.
    Corrupt,
    /// Refused, and why, in words (at most 256 bytes are sent).
    Refused(String),
}

/// One body to store, and where it goes on to.
#[derive(Clone, Debug)]
pub struct Put {
    /// Its id.
    pub id: BodyId,
    /// The bytes: shared, so that a second try costs no copy.
    pub body: Arc<Vec<u8>>,
    /// Further holders wanted, in order. The receiver passes the body on.
    pub onward: Vec<PeerId>,
    /// Durable copies wanted before the answer, the receiver's own counted.
    pub durable: u8,
    /// Whether this is the client's wire (counted by the receiver), not one between nodes.
    pub first_hop: bool,
}

/// Who has a body durably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The nodes, the answering one first.
    pub holders: Vec<PeerId>,
}

/// Why a bulk call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BulkError {
    /// No stream could be had.
    #[error("no stream: {0}")]
    Open(#[from] OpenError),
    /// Nothing moved for the given patience: go elsewhere.
    #[error("no progress for {0:?}")]
    NoProgress(Duration),
    /// The stream broke before the answer; the peer may have stored the body or not.
    #[error("the stream broke")]
    Closed,
    /// The peer does not have it.
    #[error("not here")]
    NotHere,
    /// The peer has no space.
    #[error("no space there")]
    Full,
    /// The peer, or the pool on this side, has too much to do.
    #[error("busy")]
    Busy,
    /// The bytes that came (or, as the peer says, that went) are not what the id says.
    #[error("the body is corrupt")]
    Corrupt,
    /// The peer refused, and why.
    #[error("refused: {0}")]
    Refused(String),
    /// The peer broke the protocol.
    #[error("malformed answer: {0}")]
    Malformed(String),
    /// The body is larger than any may be.
    #[error("body too long")]
    TooLong,
}
