//! The transport: QUIC over `quinn`, wire-compatible with libp2p-quic, with admission built in.
//!
//! A connection that leaves this room belongs to a peer that proved its key and passed the [`Gate`]'s
//! rules; nothing above ever meets a stranger. This is the only place that knows sockets, TLS and the
//! admission exchange. It must never hand out a connection before admission, resume a TLS session, send
//! early data, or let a half-written stream look complete.
//!
//! ```text
//! endpoint   sockets, QUIC configuration          gate       who is let in, and what is known of them
//! tls        certificate, ciphers, verifier       admission  the exchange on a fresh connection
//! quic       libp2p's Transport: listen, dial     refusal    reasons and their close codes
//! listener   accepted connections, interfaces     look       asking a stranger what it is
//! muxer      streams of one connection            handle     counters, and the orderly exit
//! ```
//!
//! Use: `build(&keypair, gate, TransportConfig::default())`, give the transport to `Swarm::new`, call
//! [`listen_everywhere`] or `swarm.listen_on`, keep the [`Handle`] and end with [`Handle::close`].

mod admission;
mod endpoint;
mod error;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod gate;
mod handle;
mod listener;
mod look;
mod muxer;
mod quic;
mod refusal;
mod tls;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

use libp2p::{
    Multiaddr, PeerId, Swarm, Transport,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
    swarm::NetworkBehaviour,
};

pub use error::Error;
pub use gate::{Gate, GateEvent, Keys, Me, OwnStarts};
pub use handle::{Handle, SocketInfo, Traffic};
pub use look::{Looked, look};
pub use refusal::Refusal;
pub use tls::cipher_in_words;

pub use crate::model::hello::KnownPeer;
use crate::model::{Millis, config::Packets, limits};

/// What libp2p's swarm is made with.
pub type SwarmTransport = Boxed<(PeerId, StreamMuxerBox)>;

/// Bounds of the transport; the defaults are those of [`limits`].
#[derive(Clone, Copy, Debug)]
pub struct TransportConfig {
    /// Connections in admission at once; one more is refused at once.
    pub admissions_max: usize,
    /// The same from one IP address.
    pub admissions_per_address_max: usize,
    /// How long a dial is tried again where others are being admitted.
    pub admission_turn: Millis,
    /// False is for talking with a peer that has no admission to pass: a plain libp2p program in a test of
    /// wire compatibility. Then *everybody* gets in and nothing is recorded; a node never sets it.
    pub admission: bool,
    /// How packets are made and kept.
    pub packets: Packets,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            admissions_max: limits::ADMISSIONS_MAX,
            admissions_per_address_max: limits::ADMISSIONS_PER_ADDRESS_MAX,
            admission_turn: limits::ADMISSION_TURN,
            admission: true,
            packets: Packets::default(),
        }
    }
}

/// Makes the transport of one identity, and the handle on all that it opens.
///
/// The gate's [`Me::peer`] must be the identity of `keypair`, and [`Me::mark`] must be durable in the home
/// before anybody hears of it. Needs a tokio runtime with time and I/O when used, not here.
///
/// # Errors
/// If the certificate cannot be made.
///
/// # Panics
/// If the gate is another identity's: every proof would be refused.
pub fn build(keypair: &Keypair, gate: Gate, config: TransportConfig) -> io::Result<(SwarmTransport, Handle)> {
    assert_eq!(gate.me().peer, keypair.public().to_peer_id(), "the gate is of another identity");
    let handle = Handle::new(gate.clone());
    let quic = quic::Quic::new(keypair, gate, config, handle.clone()).map_err(io::Error::other)?;
    let boxed = quic.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed();
    Ok((boxed, handle))
}

/// Listens on one UDP port of every interface, IPv4 and IPv6; 0 picks a free port. Returns the port.
///
/// IPv6 may be missing on this machine: that is logged and no error.
///
/// # Errors
/// [`Error::PortTaken`] if another socket has the IPv4 port, else [`Error::Io`].
pub fn listen_everywhere<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    handle: &Handle,
    port: u16,
) -> Result<u16, Error> {
    let all_v4 = endpoint::multiaddr((Ipv4Addr::UNSPECIFIED, port).into());
    let listener = swarm.listen_on(all_v4).map_err(unpack)?;
    let port = handle.port_of(listener).unwrap_or(port);
    let all_v6 = endpoint::multiaddr((Ipv6Addr::UNSPECIFIED, port).into());
    if let Err(error) = swarm.listen_on(all_v6).map_err(unpack) {
        tracing::info!(%error, port, "not listening on IPv6");
    }
    Ok(port)
}

/// Listens on one address, `/ip4/…/udp/…/quic-v1` or its IPv6 form.
///
/// # Errors
/// [`Error::PortTaken`] if another socket has the port, else [`Error::Io`].
pub fn listen_on<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    handle: &Handle,
    addr: Multiaddr,
) -> Result<u16, Error> {
    let listener = swarm.listen_on(addr).map_err(unpack)?;
    handle.port_of(listener).ok_or_else(|| Error::Io(io::ErrorKind::NotConnected.into()))
}

fn unpack(error: libp2p::TransportError<io::Error>) -> Error {
    match error {
        libp2p::TransportError::MultiaddrNotSupported(addr) => Error::Io(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("not an address to listen on: {addr}"),
        )),
        libp2p::TransportError::Other(error) => match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => Error::Io(error),
        },
    }
}
