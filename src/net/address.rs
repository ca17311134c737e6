//! Addresses as people write them, and as the network wants them.
//!
//! `host:port` (an IP literal or a name), or a multiaddr. It opens no connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither `host:port` nor a multiaddr of a QUIC address.
    #[error("`{0}` is neither host:port nor a QUIC multiaddr")]
    Malformed(String),
    /// The name has no address.
    #[error("`{host}` has no address: {reason}")]
    Unresolved { host: String, reason: String },
}

/// One wildcard listener per family: `0.0.0.0` and `::`. A machine without IPv6 only fails the second.
pub fn listen_all(port: u16) -> Vec<Multiaddr> {
    vec![
        quic(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
        quic(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
    ]
}

/// The QUIC multiaddr of a socket address.
pub fn quic(addr: SocketAddr) -> Multiaddr {
    Multiaddr::from(addr.ip()).with(Protocol::Udp(addr.port())).with(Protocol::QuicV1)
}

/// The address with the peer id behind it.
pub fn with_peer(addr: Multiaddr, peer: PeerId) -> Multiaddr {
    addr.with(Protocol::P2p(peer))
}

/// The socket address of a QUIC multiaddr with an IP address; a peer id behind it is ignored.
pub fn socket_addr(addr: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = addr.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    let Protocol::Udp(port) = parts.next()? else { return None };
    matches!(parts.next()?, Protocol::QuicV1).then_some(SocketAddr::new(ip, port))
}

/// Splits a trailing peer id off.
pub fn split_peer(mut addr: Multiaddr) -> (Multiaddr, Option<PeerId>) {
    match addr.iter().last() {
        Some(Protocol::P2p(peer)) => {
            addr.pop();
            (addr, Some(peer))
        }
        _ => (addr, None),
    }
}

/// Reads an address as people write it; a name is looked up. Several answers are several addresses.
///
/// # Errors
/// [`AddressError`].
pub async fn resolve(text: &str) -> Result<Vec<Multiaddr>, AddressError> {
    let text = text.trim();
    if text.starts_with('/') {
        return resolve_multiaddr(text).await;
    }
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(vec![quic(addr)]);
    }
    let Some((host, port)) = text.rsplit_once(':').and_then(|(h, p)| Some((h, p.parse::<u16>().ok()?)))
    else {
        return Err(AddressError::Malformed(text.into()));
    };
    Ok(lookup(host, port).await?.into_iter().map(quic).collect())
}

async fn resolve_multiaddr(text: &str) -> Result<Vec<Multiaddr>, AddressError> {
    let malformed = || AddressError::Malformed(text.into());
    let whole: Multiaddr = text.parse().map_err(|_| malformed())?;
    let (addr, peer) = split_peer(whole);
    let bare = if socket_addr(&addr).is_some() {
        vec![addr]
    } else {
        let mut parts = addr.iter();
        let host = match parts.next() {
            Some(Protocol::Dns(h) | Protocol::Dns4(h) | Protocol::Dns6(h)) => h.into_owned(),
            _ => return Err(malformed()),
        };
        let (Some(Protocol::Udp(port)), Some(Protocol::QuicV1), None) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed());
        };
        lookup(&host, port).await?.into_iter().map(quic).collect()
    };
    Ok(bare.into_iter().map(|a| peer.map_or(a.clone(), |p| a.with(Protocol::P2p(p)))).collect())
}

async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, AddressError> {
    let unresolved = |reason: String| AddressError::Unresolved { host: host.into(), reason };
    if host.is_empty() {
        return Err(AddressError::Malformed(format!(":{port}")));
    }
    let found: Vec<_> =
        tokio::net::lookup_host((host, port)).await.map_err(|e| unresolved(e.to_string()))?.collect();
    if found.is_empty() { Err(unresolved("the answer was empty".into())) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn people_write_addresses_in_three_ways() {
        let want: Multiaddr = "/ip4/10.0.0.7/udp/4117/quic-v1".parse().unwrap();
        assert_eq!(resolve("10.0.0.7:4117").await, Ok(vec![want.clone()]));
        assert_eq!(resolve(&want.to_string()).await, Ok(vec![want.clone()]));
        let peer = PeerId::random();
        let with = want.clone().with(Protocol::P2p(peer));
        assert_eq!(resolve(&with.to_string()).await, Ok(vec![with.clone()]));
        assert_eq!(split_peer(with), (want, Some(peer)));
        assert!(resolve("localhost:9").await.unwrap().iter().any(|a| socket_addr(a).is_some()));
        assert_eq!(resolve("[::1]:9").await, Ok(vec!["/ip6/::1/udp/9/quic-v1".parse().unwrap()]));
        for bad in
            ["", "nonsense", ":", ":1", "host:", "/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4", "10.0.0.7:99999"]
        {
            assert!(matches!(resolve(bad).await, Err(AddressError::Malformed(_))), "{bad}");
        }
    }
}
