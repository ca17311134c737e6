//! An acceptor's record of one object: what lies on disk, and nothing else about the object does.
//!
//! It is the whole state, so a write that was refused is no worse than a lost message.

use serde::Serialize;

use super::{ballot::Ballot, messages::Accepted};
use crate::model::{
    codec::{self, CodecError},
    limits,
    register::{RawRegister, VerifiedRegister},
};

const VERSION: u64 = 1;

/// The longest encoded record.
pub const RECORD_BYTES_MAX: usize = limits::REGISTER_BYTES_MAX + 256;

/// What an acceptor, or a mirror, durably knows of one object. An object without one was never heard of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AcceptorRecord<V = VerifiedRegister> {
    /// The greatest ballot promised; everything below is refused.
    pub promised: Option<Ballot>,
    /// What was accepted last.
    pub accepted: Option<Accepted<V>>,
}

impl<V> AcceptorRecord<V> {
    /// A record with these contents.
    pub fn new(promised: Option<Ballot>, accepted: Option<Accepted<V>>) -> Self {
        Self { promised, accepted }
    }

    /// No promise, no value: what is not on disk.
    pub fn empty() -> Self {
        Self::new(None, None)
    }

    /// Whether it is wholly empty: no promise, no value.
    pub fn is_empty(&self) -> bool {
        self.promised.is_none() && self.accepted.is_none()
    }

    /// The greatest ballot that this acceptor has seen; a prepare needs a greater one.
    pub fn floor(&self) -> Option<Ballot> {
        self.promised.max(self.accepted.as_ref().map(|a| a.ballot))
    }

    /// Whether all in it is of the node of this ballot, from before the start that made the ballot.
    pub(super) fn is_of_earlier_start(&self, ballot: &Ballot) -> bool {
        let earlier = |b: Ballot| b.node == ballot.node && b.boot < ballot.boot;
        self.promised.is_none_or(earlier) && self.accepted.as_ref().is_none_or(|a| earlier(a.ballot))
    }

    /// Turns the register into another form: how a raw one from disk is verified.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn try_map<W, E>(self, f: impl FnOnce(V) -> Result<W, E>) -> Result<AcceptorRecord<W>, E> {
        let accepted = self.accepted.map(|a| a.try_map(f)).transpose()?;
        Ok(AcceptorRecord { promised: self.promised, accepted })
    }
}

impl<V: Serialize> AcceptorRecord<V> {
    /// The encoded form, as it lies on disk: `[1, promised or null, [ballot, value] or null]`.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&(VERSION, &self.promised, &self.accepted))
    }
}

impl AcceptorRecord<RawRegister> {
    /// Reads the encoded form. The register in it is not verified yet.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (version, promised, accepted): (u64, _, _) = codec::decode(bytes, RECORD_BYTES_MAX)?;
        codec::check_version(version, VERSION)?;
        let record = Self { promised, accepted };
        if record.is_empty() || !record.floor().is_some_and(|b| b.is_sane()) {
            return Err(CodecError::Malformed("an empty record, or a ballot out of bounds".into()));
        }
        Ok(record)
    }
}
