//! Asking a stranger what it is: tintype or not, which version, whose name, founded or fresh, which key.
//!
//! It needs no key and no node, and leaves nothing behind. What comes back is what the other side *says*;
//! only its PeerId is certain.

use libp2p::{Multiaddr, PeerId, identity::Keypair};

use super::{
    admission,
    endpoint::{self, Setup},
    error::Error,
    quic,
    refusal::Refusal,
    tls,
};
use crate::{
    model::{config::Packets, hello::Hello},
    seal::admission::ClusterTag,
};

/// The answer to a look.
#[derive(Clone, Debug)]
pub struct Looked {
    /// The identity that answered; the handshake proves it.
    pub peer: PeerId,
    /// Its display name.
    pub name: String,
    /// Its software version.
    pub software: String,
    /// Whether it belongs to a founded cluster.
    pub founded: bool,
    /// The public tag of its cluster key; another tag is another key.
    pub tag: Option<ClusterTag>,
}

/// Looks at whoever listens there; at most the handshake's and the admission's time.
///
/// # Errors
/// [`Error::HandshakeTimedOut`] or [`Error::Connection`] if nobody answers, [`Error::RefusedBy`] with
/// [`Refusal::Busy`] if it has no time, [`Error::OtherPeer`] if the address names another PeerId.
pub async fn look(addr: &Multiaddr) -> Result<Looked, Error> {
    let invalid =
        || std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("not a QUIC address: {addr}"));
    let (to, expected) = endpoint::socket_addr(addr).ok_or_else(invalid)?;
    let setup = Setup::new(&Keypair::generate_ed25519(), Packets::default())?;
    let (endpoint, _) = setup.dialing(to)?;
    let connecting = endpoint.connect_with(setup.dial_config(expected)?, to, "l")?;
    let connection = quic::handshake(connecting).await?;
    let peer = tls::peer_of(&connection)?;
    let hello = admission::ask_look(&connection).await?;
    Refusal::LookAnswered.close(&connection);
    Ok(looked(peer, hello))
}

fn looked(peer: PeerId, hello: Hello) -> Looked {
    let tag = <[u8; 8]>::try_from(hello.ticket.as_slice()).ok().map(ClusterTag);
    Looked { peer, name: hello.name, software: hello.software, founded: hello.founding.is_some(), tag }
}
