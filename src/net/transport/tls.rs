//! TLS for QUIC: libp2p's certificates, our order of ciphers, and nothing that outlives a connection.
//!
//! <https://github.com/libp2p/specs/blob/master/tls/tls.md>. One self-signed certificate carries the node's
//! public key; its PeerId is the identity. It must never resume a session, send early data or log keys:
//! the verifier has to see every peer, and secrets stay in memory.

use std::sync::Arc;

use libp2p::{PeerId, identity::Keypair};
use libp2p_tls::certificate;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, SignatureScheme,
    SupportedCipherSuite,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
    quic::Suite,
    server::danger::{ClientCertVerified, ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use super::Error;
use crate::model::config::Cipher;

const ALPN: &[u8] = b"libp2p";

/// The TLS side of one identity.
#[derive(Clone)]
pub(super) struct Tls {
    client: rustls::ClientConfig,
    server: Arc<QuicServerConfig>,
    first_packets: Suite,
    own: PeerId,
}

impl Tls {
    /// A fresh certificate for this key pair and configurations around it.
    pub(super) fn new(keypair: &Keypair, cipher: Cipher) -> Result<Self, Error> {
        let (certificate, key) = certificate::generate(keypair).map_err(broken)?;
        // Not rustls' shorter ways: they refuse libp2p's critical extension.
        let key = aws_lc_rs::sign::any_ecdsa_type(&key).map_err(broken)?;
        let certified = Arc::new(CertifiedKey::new(vec![certificate], key));
        let provider = Arc::new(provider(offered(cipher, has_aes_instructions())));
        let first_packets = first_packets()?;
        let server = Arc::new(server(&provider, &certified)?);
        let server = QuicServerConfig::with_initial(server, first_packets).map_err(broken)?;
        Ok(Self {
            client: client(&provider, &certified)?,
            server: Arc::new(server),
            first_packets,
            own: keypair.public().to_peer_id(),
        })
    }

    pub(super) fn server(&self) -> Arc<QuicServerConfig> {
        self.server.clone()
    }

    /// For one dial: the certificate must be `expected`'s, if given, and never our own.
    pub(super) fn client(&self, expected: Option<PeerId>) -> Result<Arc<QuicClientConfig>, Error> {
        let mut config = self.client.clone();
        let verifier = Verifier { expected, own: Some(self.own) };
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        let config = QuicClientConfig::with_initial(Arc::new(config), self.first_packets);
        Ok(Arc::new(config.map_err(broken)?))
    }
}

/// The PeerId that the other side proved in the handshake.
pub(super) fn peer_of(connection: &quinn::Connection) -> Result<PeerId, Error> {
    let chain =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let first = chain.as_ref().and_then(|chain| chain.first());
    let first = first.ok_or_else(|| Error::Tls("the peer showed no certificate".into()))?;
    Ok(certificate::parse(first).map_err(broken)?.peer_id())
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::Tls(error.to_string())
}

fn client(provider: &Arc<CryptoProvider>, key: &Arc<CertifiedKey>) -> Result<rustls::ClientConfig, Error> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(broken)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { expected: None, own: None }))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // All peers share one server name: a resumed session would skip the verifier.
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    config.key_log = Arc::new(rustls::NoKeyLog);
    Ok(config)
}

fn server(provider: &Arc<CryptoProvider>, key: &Arc<CertifiedKey>) -> Result<rustls::ServerConfig, Error> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(broken)?
        .with_client_cert_verifier(Arc::new(Verifier { expected: None, own: None }))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    // A stock peer puts ChaCha20 first whatever its processor; our order is the faster one here.
    config.ignore_client_order = true;
    config.key_log = Arc::new(rustls::NoKeyLog);
    Ok(config)
}

/// What this machine offers and accepts, in its order. AES-128-GCM costs a third of ChaCha20 where the
/// processor has AES instructions, and much more elsewhere. One that has none offers ChaCha20 alone, because
/// the other side knows only its own processor.
fn offered(cipher: Cipher, has_aes: bool) -> &'static [CipherSuite] {
    const FAST_AES: &[CipherSuite] =
        &[CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256];
    const NO_AES: &[CipherSuite] = &[CipherSuite::TLS13_CHACHA20_POLY1305_SHA256];
    match cipher {
        Cipher::Auto if has_aes => FAST_AES,
        Cipher::Auto | Cipher::ChaCha20 => NO_AES,
    }
}

fn provider(offered: &[CipherSuite]) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let find =
        |suite| aws_lc_rs::ALL_CIPHER_SUITES.iter().find(|s: &&SupportedCipherSuite| s.suite() == suite);
    provider.cipher_suites = offered.iter().copied().filter_map(find).copied().collect();
    provider
}

/// The first packets of every connection are encrypted with AES, whatever is agreed later (RFC 9001, 5.2).
fn first_packets() -> Result<Suite, Error> {
    let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13();
    suite.and_then(|suite| suite.quic_suite()).ok_or_else(|| broken("no cipher for QUIC's first packets"))
}

/// What packets to and from this machine are encrypted with, in words for a person.
pub fn cipher_in_words(cipher: Cipher) -> &'static str {
    match (cipher, has_aes_instructions()) {
        (Cipher::Auto, true) => {
            "AES-128-GCM, and ChaCha20-Poly1305 with machines whose processor has no AES instructions"
        }
        (Cipher::Auto, false) => "ChaCha20-Poly1305, because this processor has no AES instructions",
        (Cipher::ChaCha20, _) => "ChaCha20-Poly1305, because network.cipher says so",
    }
}

fn has_aes_instructions() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// Checks libp2p certificates: one, self-signed, its key vouched for by the identity's key.
#[derive(Debug)]
struct Verifier {
    expected: Option<PeerId>,
    own: Option<PeerId>,
}

impl Verifier {
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        if !others.is_empty() {
            return Err(rustls::Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        let peer = certificate::parse(certificate).map_err(|_| bad_certificate())?.peer_id();
        if self.own == Some(peer) {
            return Err(rustls::Error::General(OWN_PEER.into()));
        }
        if self.expected.is_some_and(|expected| expected != peer) {
            return Err(rustls::Error::General(format!("{OTHER_PEER}{peer}")));
        }
        Ok(())
    }
}

/// What must hold of any bytes in place of a certificate: it is its own peer's, and signs nothing by itself.
/// Whether it is one.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) -> bool {
    let shown = CertificateDer::from(bytes);
    let check = |expected, own| Verifier { expected, own }.check(&shown, &[]);
    if check(None, None).is_err() {
        return false;
    }
    let parsed = certificate::parse(&shown).expect("it was just parsed");
    let (peer, other) = (parsed.peer_id(), PeerId::random());
    assert!(check(Some(peer), Some(other)).is_ok() && check(Some(other), None).is_err());
    assert!(check(None, Some(peer)).is_err() && check(Some(peer), Some(peer)).is_err());
    let chain = [shown.clone()];
    assert!(Verifier { expected: None, own: None }.check(&shown, &chain).is_err(), "a chain");
    for scheme in schemes() {
        let signature = &bytes[bytes.len().saturating_sub(72)..];
        assert!(parsed.verify_signature(scheme, b"said in a handshake", signature).is_err());
    }
    true
}

/// A certificate as this program shows it.
#[cfg(feature = "fuzzing")]
pub(super) fn fresh_certificate() -> Vec<u8> {
    let (certificate, _) = certificate::generate(&Keypair::generate_ed25519()).expect("it can be made");
    certificate.to_vec()
}

/// How a dial that met our own identity is known again in the text of its failure.
pub(super) const OWN_PEER: &str = "this peer has our own identity";
/// The same for a dial that met another identity than it wanted.
pub(super) const OTHER_PEER: &str = "another peer answered: ";

fn bad_certificate() -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::BadEncoding)
}

fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let certificate = certificate::parse(certificate).map_err(|_| bad_certificate())?;
    certificate
        .verify_signature(signed.scheme, message, signed.signature())
        .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadSignature))?;
    Ok(HandshakeSignatureValid::assertion())
}

fn no_tls12() -> rustls::Error {
    rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic)
}

fn schemes() -> Vec<SignatureScheme> {
    vec![
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ED25519,
    ]
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(certificate, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(certificate, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::{
        ProtocolVersion,
        quic::{ClientConnection, Connection, ServerConnection, Version},
    };

    use super::*;

    /// What one that offers this and one that accepts that agree upon.
    fn agreed(dialer: &'static [CipherSuite], listener: &'static [CipherSuite]) -> CipherSuite {
        let certified = |seed: u8| {
            let keypair = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
            let (certificate, key) = certificate::generate(&keypair).unwrap();
            Arc::new(CertifiedKey::new(vec![certificate], aws_lc_rs::sign::any_ecdsa_type(&key).unwrap()))
        };
        let client = client(&Arc::new(provider(dialer)), &certified(1)).unwrap();
        let server = server(&Arc::new(provider(listener)), &certified(2)).unwrap();
        let name = ServerName::try_from("l").unwrap();
        let client = ClientConnection::new(Arc::new(client), Version::V1, name, vec![]).unwrap();
        let server = ServerConnection::new(Arc::new(server), Version::V1, vec![]).unwrap();
        let mut sides = [Connection::Client(client), Connection::Server(server)];
        for turn in 0..20 {
            loop {
                // What is said under other keys goes in packets of its own.
                let mut said = Vec::new();
                let keys_change = sides[turn % 2].write_hs(&mut said).is_some();
                sides[1 - turn % 2].read_hs(&said).unwrap();
                if !keys_change {
                    break;
                }
            }
        }
        assert!(sides.iter().all(|side| side.protocol_version() == Some(ProtocolVersion::TLSv1_3)));
        let [one, other] = sides.map(|side| side.negotiated_cipher_suite().map(|suite| suite.suite()));
        assert_eq!(one, other);
        one.expect("they agreed")
    }

    #[test]
    fn aes_is_used_only_where_both_processors_have_instructions_for_it() {
        let (aes, none) = (offered(Cipher::Auto, true), offered(Cipher::Auto, false));
        let forced = offered(Cipher::ChaCha20, true);
        assert_eq!(agreed(aes, aes), CipherSuite::TLS13_AES_128_GCM_SHA256);
        for slow in [none, forced] {
            for (dialer, listener) in [(slow, aes), (aes, slow), (slow, slow), (none, forced)] {
                assert_eq!(agreed(dialer, listener), CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
            }
        }
    }
}
