//! The words of bulk and their encoding: headers only, a body is raw bytes behind its header.

use serde_tuple::{Deserialize_tuple, Serialize_tuple};

use crate::model::{
    BodyId,
    codec::{self, CodecError},
    limits,
    task::Rank,
};
use libp2p::PeerId;

const VERSION: u64 = 1;

/// Peers named in one header: onward holders, or holders in a receipt. Many times what placement wants.
pub(super) const HOLDERS_MAX: usize = 16;

/// What a peer wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkRequest {
    /// Store the body that follows this header.
    Put {
        /// Its id.
        id: BodyId,
        /// Its length in bytes.
        len: u64,
        /// Further holders wanted, in order.
        onward: Vec<PeerId>,
        /// Durable copies wanted before the answer, the receiver's own counted.
        durable: u8,
        /// Whether the body comes over its owner's wire.
        first_hop: bool,
    },
    /// Send that body.
    Get {
        /// Its id.
        id: BodyId,
    },
    /// Keep the body that follows in memory: a piece of what a task of the asker works on.
    Give {
        /// Which piece.
        piece: Piece,
        /// Its length in bytes.
        len: u64,
    },
    /// Send that piece of the answer to a task of the asker.
    Take {
        /// Which piece.
        piece: Piece,
    },
}

/// A piece of a task's payload or answer, of at most [`limits::BODY_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct Piece {
    /// The number of the task; its client is who asks.
    pub task: u64,
    /// The assignment that it belongs to.
    pub rank: Rank,
    /// Which piece, from 0.
    pub index: u32,
    /// The hash of its bytes.
    pub id: BodyId,
}

/// An answer's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkReply {
    /// These nodes have it durably.
    Stored { holders: Vec<PeerId> },
    /// The body follows, of this length.
    Body { len: u64 },
    /// Not here.
    NotHere,
    /// No space.
    Full,
    /// Too much to do.
    Busy,
    /// The body was not what its id says.
    Corrupt,
    /// Refused, and why.
    Refused(String),
    /// No answer yet, to any call: there is work in hand, so do not give up. Its number is 0.
    Working,
}

impl BulkRequest {
    /// The id asked about.
    pub fn id(&self) -> BodyId {
        match self {
            Self::Put { id, .. } | Self::Get { id } => *id,
            Self::Give { piece, .. } | Self::Take { piece } => piece.id,
        }
    }

    /// Bytes of the body behind this header.
    pub fn body_len(&self) -> u64 {
        match self {
            Self::Put { len, .. } | Self::Give { len, .. } => *len,
            Self::Get { .. } | Self::Take { .. } => 0,
        }
    }
}

impl BulkReply {
    /// Bytes of the body behind this header.
    pub fn body_len(&self) -> u64 {
        match self {
            Self::Body { len } => *len,
            _ => 0,
        }
    }
}

/// A request's header on the wire: kind 1 is a put, 2 a get, whose last four fields are zero or empty.
type RequestArray = (u64, u64, u8, BodyId, u64, Vec<PeerId>, u8, bool);
/// A request's header about a task: kind 3 is a give, 4 a take, whose length is zero.
type PieceArray = (u64, u64, u8, Piece, u64);
/// An answer's: kinds 1 to 8 in the order of [`BulkReply`]; length, holders and reason where they belong.
type ReplyArray = (u64, u64, u8, u64, Vec<PeerId>, String);

/// A request's header with its length in front, ready for the wire.
pub(super) fn encode_request(number: u64, request: &BulkRequest) -> Vec<u8> {
    let array: RequestArray = match request.clone() {
        BulkRequest::Put { id, len, onward, durable, first_hop } => {
            (VERSION, number, 1, id, len, onward, durable, first_hop)
        }
        BulkRequest::Get { id } => (VERSION, number, 2, id, 0, Vec::new(), 0, false),
        BulkRequest::Give { piece, len } => return encode_piece((VERSION, number, 3, piece, len)),
        BulkRequest::Take { piece } => return encode_piece((VERSION, number, 4, piece, 0)),
    };
    framed(&codec::encode(&array))
}

fn encode_piece(array: PieceArray) -> Vec<u8> {
    framed(&codec::encode(&array))
}

/// Reads a request's header without its length. The two shapes differ in their number of fields.
pub(super) fn decode_request(bytes: &[u8]) -> Result<(u64, BulkRequest), CodecError> {
    decode_of_body(bytes).or_else(|error| decode_of_piece(bytes).map_err(|_| error))
}

fn decode_of_piece(bytes: &[u8]) -> Result<(u64, BulkRequest), CodecError> {
    let (version, number, kind, piece, len): PieceArray =
        codec::decode(bytes, limits::BULK_HEADER_BYTES_MAX)?;
    codec::check_version(version, VERSION)?;
    match kind {
        3 => Ok((number, BulkRequest::Give { piece, len })),
        4 if len == 0 => Ok((number, BulkRequest::Take { piece })),
        _ => Err(CodecError::Malformed("bulk request of a task".into())),
    }
}

fn decode_of_body(bytes: &[u8]) -> Result<(u64, BulkRequest), CodecError> {
    let (version, number, kind, id, len, onward, durable, first_hop): RequestArray =
        codec::decode(bytes, limits::BULK_HEADER_BYTES_MAX)?;
    codec::check_version(version, VERSION)?;
    let request = match kind {
        1 => BulkRequest::Put { id, len, onward, durable, first_hop },
        2 if (len, onward.len(), durable, first_hop) == (0, 0, 0, false) => BulkRequest::Get { id },
        _ => return Err(CodecError::Malformed("bulk request".into())),
    };
    Ok((number, request))
}

/// An answer's header with its length in front, ready for the wire.
pub(super) fn encode_reply(number: u64, reply: &BulkReply) -> Vec<u8> {
    let (mut len, mut holders, mut reason) = (0, Vec::new(), String::new());
    let kind = match reply {
        BulkReply::Stored { holders: of } => {
            holders.clone_from(of);
            1
        }
        BulkReply::Body { len: of } => {
            len = *of;
            2
        }
        BulkReply::NotHere => 3,
        BulkReply::Full => 4,
        BulkReply::Busy => 5,
        BulkReply::Corrupt => 6,
        BulkReply::Refused(why) => {
            reason.clone_from(why);
            7
        }
        BulkReply::Working => 8,
    };
    let array: ReplyArray = (VERSION, number, kind, len, holders, reason);
    framed(&codec::encode(&array))
}

/// Reads an answer's header without its length.
pub(super) fn decode_reply(bytes: &[u8]) -> Result<(u64, BulkReply), CodecError> {
    let (version, number, kind, len, holders, reason): ReplyArray =
        codec::decode(bytes, limits::BULK_HEADER_BYTES_MAX)?;
    codec::check_version(version, VERSION)?;
    let fields = (len > 0, !holders.is_empty(), !reason.is_empty());
    let reply = match (kind, fields) {
        (1, (false, _, false)) => BulkReply::Stored { holders },
        (2, (_, false, false)) => BulkReply::Body { len },
        (3, (false, false, false)) => BulkReply::NotHere,
        (4, (false, false, false)) => BulkReply::Full,
        (5, (false, false, false)) => BulkReply::Busy,
        (6, (false, false, false)) => BulkReply::Corrupt,
        (7, (false, false, _)) => BulkReply::Refused(reason),
        (8, (false, false, false)) if number == 0 => BulkReply::Working,
        _ => return Err(CodecError::Malformed("bulk answer".into())),
    };
    Ok((number, reply))
}

fn framed(header: &[u8]) -> Vec<u8> {
    debug_assert!(header.len() <= limits::BULK_HEADER_BYTES_MAX);
    let mut framed = Vec::with_capacity(4 + header.len());
    framed.extend_from_slice(&(header.len() as u32).to_be_bytes());
    framed.extend_from_slice(header);
    framed
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;
    use crate::model::{
        member::{Epoch, NodeNumber},
        task::Claim,
    };

    const VECTORS: &str = include_str!("../../../tests/vectors/bulk.txt");

    fn peer(byte: u8) -> PeerId {
        Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes").public().to_peer_id()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_recorded_headers_stay_what_they_are() {
        let id = BodyId([7; 32]);
        let put = BulkRequest::Put { id, len: 1 << 20, onward: vec![peer(1)], durable: 2, first_hop: true };
        let get = BulkRequest::Get { id };
        let stored = BulkReply::Stored { holders: vec![peer(1), peer(2)] };
        let claim = Claim { epoch: Epoch(1), counter: 5, node: NodeNumber(2) };
        let piece = Piece { task: 9, rank: Rank { claim, attempt: 3 }, index: 7, id };
        let (give, take) = (BulkRequest::Give { piece, len: 65_536 }, BulkRequest::Take { piece });
        let found = [
            ("put", hex(&encode_request(1, &put))),
            ("get", hex(&encode_request(300, &get))),
            ("give", hex(&encode_request(2, &give))),
            ("take", hex(&encode_request(3, &take))),
            ("stored", hex(&encode_reply(1, &stored))),
            ("body", hex(&encode_reply(300, &BulkReply::Body { len: 65_536 }))),
            ("not_here", hex(&encode_reply(2, &BulkReply::NotHere))),
            ("full", hex(&encode_reply(2, &BulkReply::Full))),
            ("busy", hex(&encode_reply(2, &BulkReply::Busy))),
            ("corrupt", hex(&encode_reply(2, &BulkReply::Corrupt))),
            ("refused", hex(&encode_reply(2, &BulkReply::Refused("why".into())))),
            ("working", hex(&encode_reply(0, &BulkReply::Working))),
        ];
        let lines: Vec<_> = VECTORS.lines().filter(|l| !l.starts_with('#')).collect();
        assert_eq!(lines, found.map(|(name, hex)| format!("{name} = {hex}")));
        for request in [put, get, give, take] {
            assert_eq!(decode_request(&encode_request(1, &request)[4..]), Ok((1, request)));
        }
        assert_eq!(decode_reply(&encode_reply(1, &stored)[4..]), Ok((1, stored)));
    }

    #[test]
    fn the_largest_headers_fit() {
        let many = vec![peer(1); HOLDERS_MAX];
        let put = BulkRequest::Put {
            id: BodyId([7; 32]),
            len: u64::MAX,
            onward: many.clone(),
            durable: u8::MAX,
            first_hop: true,
        };
        let refused = BulkReply::Refused("x".repeat(limits::BULK_REASON_BYTES_MAX));
        for framed in [
            encode_request(u64::MAX, &put),
            encode_reply(u64::MAX, &BulkReply::Stored { holders: many }),
            encode_reply(u64::MAX, &refused),
        ] {
            assert!(framed.len() <= 4 + limits::BULK_HEADER_BYTES_MAX);
        }
        let later = codec::encode(&(2u64, 1u64, 5u8, 0u64, Vec::<PeerId>::new(), String::new()));
        assert_eq!(decode_reply(&later), Err(CodecError::Version(2)));
    }
}
