//! Why a connection is refused at admission, and how that travels: as the close code of the connection.
//!
//! Codes are part of the protocol: a number is never given a second meaning. A code that arrives before
//! the other side has proved its key is a hint from a stranger; nothing durable may follow from it.

use quinn::VarInt;

/// Why one end does not want the other. The close code on the wire is [`Refusal::code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// 0x7401: what came first is not the magic of this protocol.
    #[error("it does not speak tintype's admission")]
    NotTintype,
    /// 0x7402: the hello is malformed, or says what cannot be.
    #[error("its hello is malformed")]
    BadHello,
    /// 0x7403: no protocol version in common.
    #[error("it speaks another protocol version: update the older of the two")]
    Version,
    /// 0x7404: the proof does not fit this cluster's key.
    #[error("it has another cluster key")]
    WrongKey,
    /// 0x7405: too many connections are in admission, in all or from that address.
    #[error("too many connections are being admitted: try again")]
    Busy,
    /// 0x7406: the admission was not done in time.
    #[error("the admission took too long")]
    TimedOut,
    /// 0x7407: the refused one runs with an older start than was seen, or an equal one of another process.
    #[error("this home is a copy or an old backup")]
    CopyOrOldBackup,
    /// 0x7408: the refused one has a known key on an emptied disk: it forgot its promises.
    #[error("this home was emptied and has forgotten its promises: it cannot come back under its old key")]
    OtherIncarnation,
    /// 0x7409: both are founded, and not together.
    #[error("it belongs to another founding of a cluster")]
    OtherFounding,
    /// 0x740a: the *speaker's* own home has been put back to an older state.
    #[error("the home of the one that refuses was rolled back to an older state")]
    RolledBack,
    /// 0x740b: both ends have the same identity.
    #[error("both ends have the same identity: a node met itself or a copy of its home")]
    OwnPeer,
    /// 0x740c: this kind of admission is not offered.
    #[error("joining with a ticket is not offered yet")]
    NotOffered,
    /// 0x740d: the *speaker's* own home was emptied: the other side knows its key with another incarnation.
    #[error("the home of the one that refuses was emptied under its old key")]
    Emptied,
    /// 0x740e: a look was answered; this is how it ends.
    #[error("the look was answered")]
    LookAnswered,
    /// 0x740f: the process is about to end.
    #[error("it is leaving")]
    Leaving,
    /// 0x7410: another process with the identity of the refused one is connected and answers.
    #[error("another process with this home's identity is running")]
    StillConnected,
}

impl Refusal {
    /// All of them, in the order of their codes.
    pub const ALL: [Refusal; 16] = [
        Refusal::NotTintype,
        Refusal::BadHello,
        Refusal::Version,
        Refusal::WrongKey,
        Refusal::Busy,
        Refusal::TimedOut,
        Refusal::CopyOrOldBackup,
        Refusal::OtherIncarnation,
        Refusal::OtherFounding,
        Refusal::RolledBack,
        Refusal::OwnPeer,
        Refusal::NotOffered,
        Refusal::Emptied,
        Refusal::LookAnswered,
        Refusal::Leaving,
        Refusal::StillConnected,
    ];

    /// The QUIC application close code.
    pub fn code(self) -> u32 {
        0x7401 + self as u32
    }

    /// The refusal of a close code.
    pub fn from_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| u64::from(refusal.code()) == code)
    }

    pub(super) fn var_int(self) -> VarInt {
        VarInt::from_u32(self.code())
    }

    /// Closes a connection with this reason.
    pub(super) fn close(self, connection: &quinn::Connection) {
        connection.close(self.var_int(), self.to_string().as_bytes());
    }

    /// The refusal that ended a connection from the other side, if one did.
    pub(super) fn of_close(error: &quinn::ConnectionError) -> Option<Self> {
        match error {
            quinn::ConnectionError::ApplicationClosed(close) => {
                Self::from_code(close.error_code.into_inner())
            }
            // What quinn's endpoint says when our listener refuses before any handshake.
            quinn::ConnectionError::ConnectionClosed(close)
                if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
            {
                Some(Self::Busy)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_code_of_its_own_and_is_found_by_it() {
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::from_code(u64::from(refusal.code())), Some(refusal));
        }
        assert_eq!(Refusal::WrongKey.code(), 0x7404);
        assert_eq!(Refusal::Leaving.code(), 0x740f);
        assert_eq!(Refusal::from_code(0), None);
    }
}
