//! What can go wrong in the transport, and how the rooms above find it again inside libp2p's errors.

use std::{io, net::SocketAddr};

use libp2p::{PeerId, TransportError, swarm::DialError};

use super::refusal::Refusal;

/// Why a listen, a dial or a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The UDP port belongs to somebody else.
    #[error("UDP port {} is taken", .0.port())]
    PortTaken(SocketAddr),
    /// The operating system said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The dial could not even start.
    #[error("cannot dial: {0}")]
    Connect(#[from] quinn::ConnectError),
    /// The connection ended.
    #[error("{0}")]
    Connection(#[from] quinn::ConnectionError),
    /// Nobody answered there within [`crate::model::limits::QUIC_HANDSHAKE_TIMEOUT`].
    #[error("no answer to the handshake in time")]
    HandshakeTimedOut,
    /// A certificate could not be made or read.
    #[error("certificate: {0}")]
    Tls(String),
    /// Another identity than the one that was dialled answered.
    #[error("another peer answered there: {0}")]
    OtherPeer(PeerId),
    /// We refused the other side.
    #[error("refused the other side: {0}")]
    Refusing(Refusal),
    /// The other side refused us.
    #[error("refused by the other side: {0}")]
    RefusedBy(Refusal),
}

impl Error {
    /// The refusal, whoever said it.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Error::Refusing(refusal) | Error::RefusedBy(refusal) => Some(*refusal),
            _ => None,
        }
    }

    /// The error inside what libp2p hands up: of a listen, a dial's transport error, or a closed connection.
    pub fn inside(error: &io::Error) -> Option<&Error> {
        error.get_ref()?.downcast_ref()
    }

    /// The errors inside a failed dial, one for each address that was tried.
    pub fn inside_dial(error: &DialError) -> Vec<&Error> {
        let DialError::Transport(tried) = error else { return Vec::new() };
        let inner = tried.iter().filter_map(|(_, error)| match error {
            TransportError::Other(error) => Error::inside(error),
            TransportError::MultiaddrNotSupported(_) => None,
        });
        inner.collect()
    }

    /// A connection's end, read as a refusal where it was one.
    pub(super) fn of_connection(error: quinn::ConnectionError) -> Self {
        use super::tls::{OTHER_PEER, OWN_PEER};
        if let Some(refusal) = Refusal::of_close(&error) {
            return Error::RefusedBy(refusal);
        }
        if let quinn::ConnectionError::TransportError(inner) = &error {
            if inner.reason.contains(OWN_PEER) {
                return Error::Refusing(Refusal::OwnPeer);
            }
            let other = inner.reason.split(OTHER_PEER).nth(1).map(|id| id.trim().parse());
            if let Some(Ok(peer)) = other {
                return Error::OtherPeer(peer);
            }
        }
        Error::Connection(error)
    }
}

impl From<Error> for TransportError<Error> {
    fn from(error: Error) -> Self {
        TransportError::Other(error)
    }
}
