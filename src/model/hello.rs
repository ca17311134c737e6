//! The hello: what each side of a fresh connection says of itself inside the admission exchange.
//!
//! It is bytes on the wire exactly once; the admission proof covers those bytes: they are never re-encoded.
//! All its kinds exist from the start: a ticket needs no new format.

use serde_bytes::ByteBuf;
use serde_tuple::{Deserialize_tuple, Serialize_tuple};

use super::{
    codec::{self, CodecError},
    id::{FoundingId, Incarnation, ProcessId},
    limits,
};

/// The protocol version that this program speaks: the only one so far.
pub const PROTOCOL_VERSION: u64 = 1;

/// Which end of the connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Side {
    /// The end that opened the connection.
    Dialer,
    /// The end that accepted it.
    Listener,
}

/// What the speaker wants to be on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Kind {
    /// A node that holds the cluster key.
    Member,
    /// A peer that stores nothing and holds the client right.
    Client,
    /// A machine that joins with a ticket (later).
    Ticket,
    /// Somebody who only asks what this is; gets an answer and is closed.
    Look,
}

impl From<Side> for u8 {
    fn from(side: Side) -> u8 {
        match side {
            Side::Dialer => 1,
            Side::Listener => 2,
        }
    }
}

impl TryFrom<u8> for Side {
    type Error = &'static str;
    fn try_from(byte: u8) -> Result<Self, Self::Error> {
        match byte {
            1 => Ok(Side::Dialer),
            2 => Ok(Side::Listener),
            _ => Err("unknown side"),
        }
    }
}

impl From<Kind> for u8 {
    fn from(kind: Kind) -> u8 {
        match kind {
            Kind::Member => 1,
            Kind::Client => 2,
            Kind::Ticket => 3,
            Kind::Look => 4,
        }
    }
}

impl TryFrom<u8> for Kind {
    type Error = &'static str;
    fn try_from(byte: u8) -> Result<Self, Self::Error> {
        match byte {
            1 => Ok(Kind::Member),
            2 => Ok(Kind::Client),
            3 => Ok(Kind::Ticket),
            4 => Ok(Kind::Look),
            _ => Err("unknown kind"),
        }
    }
}

/// One start of a node: its durable boot number and the random mark of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize_tuple, Deserialize_tuple)]
pub struct BootMark {
    /// A counter fsynced at each start; 0 for a client.
    pub boot: u64,
    /// Random at each start.
    pub process: ProcessId,
}

/// What is known of a member: told to it in a hello, and kept durably by those who met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct KnownPeer {
    /// The last start seen.
    pub mark: BootMark,
    /// The most promises that it was heard to have made durable. A disk that knows of fewer was put back,
    /// even if it was copied in the middle of that start.
    pub promises: u64,
    /// The incarnation of its disk. With it an emptied home is told from one that was put back.
    pub incarnation: Incarnation,
}

/// What one side says of itself. At most [`limits::HELLO_BYTES_MAX`] encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct Hello {
    /// The format of this hello; 1.
    pub format: u64,
    /// The lowest and the highest protocol version that the speaker understands.
    pub versions: (u64, u64),
    /// Which end speaks.
    pub side: Side,
    /// What it wants to be.
    pub kind: Kind,
    /// This start of the speaker.
    pub mark: BootMark,
    /// How many promises its disk had made durable when this process opened it; 0 for a client.
    pub promises: u64,
    /// What the speaker has last seen of the one spoken to, if anything.
    pub known: Option<KnownPeer>,
    /// The incarnation of the speaker's disk; none for a client.
    pub incarnation: Option<Incarnation>,
    /// The speaker's cluster, if it is founded; all zeros in the answer to a [`Kind::Look`].
    pub founding: Option<FoundingId>,
    /// Optional abilities, one bit each; unknown bits are ignored.
    pub features: u64,
    /// A display name, for people.
    pub name: String,
    /// The speaker's software version, for people.
    pub software: String,
    /// The id of the ticket, for [`Kind::Ticket`]; in the answer to a [`Kind::Look`] the public tag of the
    /// cluster key; else empty.
    pub ticket: ByteBuf,
}

impl Hello {
    /// The encoded form.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the encoded form.
    ///
    /// # Errors
    /// [`CodecError`] if it is malformed, too long, or of a format or protocol range unknown here.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let hello: Self = codec::decode(bytes, limits::HELLO_BYTES_MAX)?;
        codec::check_version(hello.format, 1)?;
        let (low, high) = hello.versions;
        if !(low..=high).contains(&PROTOCOL_VERSION) {
            return Err(CodecError::Version(high));
        }
        if hello.name.len() > limits::DISPLAY_NAME_BYTES_MAX
            || hello.software.len() > limits::DISPLAY_NAME_BYTES_MAX
        {
            return Err(CodecError::Malformed("name too long".into()));
        }
        Ok(hello)
    }
}
