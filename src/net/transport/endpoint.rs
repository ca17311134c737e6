//! Sockets and the QUIC configuration around them; addresses in both spellings.
//!
//! The stateless reset key comes from the identity (RFC 9000, 10.3): a node that crashed and came back on
//! the same port can tell its peers at their next packet that the old connections are gone. For that to
//! work connection ids must not be checked against a random key of the process, hence our own generator.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use libp2p::{Multiaddr, PeerId, identity::Keypair, multiaddr::Protocol};
use quinn::{ConnectionId, ConnectionIdGenerator, VarInt, crypto::HmacKey};
use socket2::{Domain, Socket, Type};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    error::Error,
    handle::SocketInfo,
    tls::{Tls, cipher_in_words},
};
use crate::model::{config::Packets, limits};

const RESET_DOMAIN: &[u8] = b"tintype 1 stateless reset";
const CONNECTION_ID_BYTES: usize = 8;

/// Everything that the endpoints of one identity are made with.
#[derive(Clone)]
pub(super) struct Setup {
    tls: Tls,
    reset_key: Arc<ResetKey>,
    buffer_bytes: usize,
    transport: Arc<quinn::TransportConfig>,
}

impl Setup {
    pub(super) fn new(keypair: &Keypair, packets: Packets) -> Result<Self, Error> {
        let secret = keypair.derive_secret(RESET_DOMAIN);
        let secret =
            secret.ok_or_else(|| Error::Tls("this kind of identity has no secret to derive from".into()))?;
        tracing::debug!("packets are encrypted with {}", cipher_in_words(packets.cipher));
        Ok(Self {
            tls: Tls::new(keypair, packets.cipher)?,
            reset_key: Arc::new(ResetKey(Zeroizing::new(secret))),
            buffer_bytes: packets.udp_buffer_bytes,
            transport: Arc::new(transport_config()),
        })
    }

    /// Binds a socket and starts an endpoint that listens on it.
    pub(super) fn listening(&self, at: SocketAddr) -> Result<(quinn::Endpoint, SocketInfo), Error> {
        let mut server = quinn::ServerConfig::with_crypto(self.tls.server());
        server.transport_config(self.transport.clone());
        server.migration(false);
        self.endpoint(at, Some(server))
    }

    /// An endpoint that only dials, on a free port of the family of `to`.
    pub(super) fn dialing(&self, to: SocketAddr) -> Result<(quinn::Endpoint, SocketInfo), Error> {
        let at = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        self.endpoint(at, None)
    }

    /// The configuration of one dial.
    pub(super) fn dial_config(&self, expected: Option<PeerId>) -> Result<quinn::ClientConfig, Error> {
        let mut client = quinn::ClientConfig::new(self.tls.client(expected)?);
        client.transport_config(self.transport.clone());
        Ok(client)
    }

    fn endpoint(
        &self,
        at: SocketAddr,
        server: Option<quinn::ServerConfig>,
    ) -> Result<(quinn::Endpoint, SocketInfo), Error> {
        let (socket, info) = bind(at, server.is_some(), self.buffer_bytes)?;
        let mut config = quinn::EndpointConfig::new(self.reset_key.clone());
        config.cid_generator(|| Box::new(RandomIds));
        config.supported_versions(vec![1]);
        let runtime = Arc::new(quinn::TokioRuntime);
        Ok((quinn::Endpoint::new(config, server, socket, runtime)?, info))
    }
}

/// Small until admission: who is not admitted can make us hold one window's worth and no more.
fn transport_config() -> quinn::TransportConfig {
    let mut config = quinn::TransportConfig::default();
    config.max_concurrent_uni_streams(VarInt::from_u32(0));
    config.max_concurrent_bidi_streams(VarInt::from_u32(1));
    config.datagram_receive_buffer_size(None);
    config.receive_window(VarInt::from_u32(limits::ADMISSION_WINDOW_BYTES));
    config.stream_receive_window(VarInt::from_u32(limits::QUIC_STREAM_WINDOW_BYTES));
    config.keep_alive_interval(Some(Duration::from(limits::QUIC_KEEP_ALIVE)));
    let idle_ms = u32::try_from(limits::QUIC_IDLE.0).unwrap_or(u32::MAX);
    config.max_idle_timeout(Some(VarInt::from_u32(idle_ms).into()));
    config.allow_spin(false);
    config.mtu_discovery_config(Some(quinn::MtuDiscoveryConfig::default()));
    config
}

/// Opens the windows of an admitted connection.
pub(super) fn widen(connection: &quinn::Connection) {
    connection.set_receive_window(VarInt::from_u32(limits::QUIC_CONNECTION_WINDOW_BYTES));
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(limits::QUIC_STREAMS_MAX));
}

fn bind(at: SocketAddr, listens: bool, buffer_bytes: usize) -> Result<(UdpSocket, SocketInfo), Error> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // The system caps what it gives; a refusal costs speed and nothing else.
    for (what, set) in [
        ("receive", socket.set_recv_buffer_size(buffer_bytes)),
        ("send", socket.set_send_buffer_size(buffer_bytes)),
    ] {
        if let Err(error) = set {
            tracing::debug!(%error, "the {what} buffer of a UDP socket stays as it is");
        }
    }
    socket.bind(&at.into()).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Error::PortTaken(at),
        _ => Error::Io(error),
    })?;
    // Linux reports twice what it was asked for, the other half being for its own bookkeeping.
    let doubled = if cfg!(target_os = "linux") { 2 } else { 1 };
    let receive_buffer_bytes = socket.recv_buffer_size()? / doubled;
    let send_buffer_bytes = socket.send_buffer_size()? / doubled;
    let socket: UdpSocket = socket.into();
    let local = socket.local_addr()?;
    Ok((socket, SocketInfo { local, listens, receive_buffer_bytes, send_buffer_bytes }))
}

/// The multiaddress of a socket: `/ip4/…/udp/…/quic-v1`.
pub(super) fn multiaddr(addr: SocketAddr) -> Multiaddr {
    Multiaddr::from(addr.ip()).with(Protocol::Udp(addr.port())).with(Protocol::QuicV1)
}

/// The socket address and PeerId in a QUIC multiaddress; None for any other.
pub(super) fn socket_addr(addr: &Multiaddr) -> Option<(SocketAddr, Option<PeerId>)> {
    let mut parts = addr.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    let (Protocol::Udp(port), Protocol::QuicV1) = (parts.next()?, parts.next()?) else { return None };
    let peer = match (parts.next(), parts.next()) {
        (None, _) => None,
        (Some(Protocol::P2p(peer)), None) => Some(peer),
        _ => return None,
    };
    Some((SocketAddr::new(ip, port), peer))
}

/// Signs stateless reset tokens.
struct ResetKey(Zeroizing<[u8; 32]>);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        signature.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), quinn::crypto::CryptoError> {
        let right: bool = blake3::keyed_hash(&self.0, data).as_bytes().ct_eq(signature).into();
        if right { Ok(()) } else { Err(quinn::crypto::CryptoError) }
    }
}

/// Random connection ids, every one of the right length taken for ours: see the head of this file.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; CONNECTION_ID_BYTES]>())
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_quic_addresses_are_ours() {
        let peer = Keypair::generate_ed25519().public().to_peer_id();
        let plain: SocketAddr = "127.0.0.1:4117".parse().unwrap();
        assert_eq!(socket_addr(&multiaddr(plain)), Some((plain, None)));
        let v6: SocketAddr = "[::1]:1".parse().unwrap();
        assert_eq!(socket_addr(&multiaddr(v6).with(Protocol::P2p(peer))), Some((v6, Some(peer))));
        for other in [
            "/ip4/127.0.0.1/udp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/127.0.0.1/udp/1/quic",
            "/dns4/a/udp/1/quic-v1",
            "/ip4/127.0.0.1/udp/1/quic-v1/p2p-circuit",
        ] {
            assert_eq!(socket_addr(&other.parse().unwrap()), None, "{other}");
        }
    }

    #[test]
    fn a_reset_token_is_the_same_after_a_restart_and_differs_between_identities() {
        let sign = |keypair: &Keypair| {
            let mut token = [0; 32];
            Setup::new(keypair, Packets::default()).unwrap().reset_key.sign(b"id", &mut token);
            token
        };
        let (one, two) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        assert_eq!(sign(&one), sign(&one));
        assert_ne!(sign(&one), sign(&two));
    }
}
