//! libp2p's `Transport` over quinn: listens, dials, and lets only admitted connections out.
//!
//! A dial leaves from a listening socket of the same family where there is one, so that peers see one
//! address of us; else from one shared socket per family. Hole punching is not offered.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::SelectAll};
use libp2p::{
    Multiaddr, PeerId, Transport, TransportError,
    core::{
        Endpoint as Role,
        transport::{DialOpts, ListenerId, PortUse, TransportEvent},
    },
    identity::Keypair,
};
use tokio::time::Instant;

use super::{
    TransportConfig,
    admission::{self, Admission, Slots},
    endpoint::{self, Setup},
    error::Error,
    gate::Gate,
    handle::Handle,
    listener::Listener,
    muxer::Muxer,
    refusal::Refusal,
    tls,
};
use crate::model::limits;

/// What comes out of a dial or an accepted connection.
pub(super) type Upgrade = BoxFuture<'static, Result<(PeerId, Muxer), Error>>;

/// The transport of one identity.
pub(super) struct Quic {
    setup: Setup,
    admission: Admission,
    handle: Handle,
    slots: Slots,
    listeners: SelectAll<Listener>,
    /// One shared socket per family (true: IPv6) for dials while nothing listens.
    dialers: BTreeMap<bool, (quinn::Endpoint, SocketAddr)>,
    waker: Option<Waker>,
}

impl Quic {
    pub(super) fn new(
        keypair: &Keypair,
        gate: Gate,
        config: TransportConfig,
        handle: Handle,
    ) -> Result<Self, Error> {
        Ok(Self {
            setup: Setup::new(keypair, config.packets)?,
            admission: Admission { gate, required: config.admission, turn: config.admission_turn.into() },
            handle,
            slots: Slots::new(config.admissions_max, config.admissions_per_address_max),
            listeners: SelectAll::new(),
            dialers: BTreeMap::new(),
            waker: None,
        })
    }

    fn dialer(&mut self, to: SocketAddr, port_use: PortUse) -> Result<Dialer, Error> {
        if port_use == PortUse::New {
            let (endpoint, info) = self.setup.dialing(to)?;
            return Ok(Dialer { endpoint, register: Some(info) });
        }
        if let Some(listener) = self.listeners.iter().find(|listener| listener.may_dial(to)) {
            return Ok(Dialer { endpoint: listener.endpoint().clone(), register: None });
        }
        if let Some((endpoint, _)) = self.dialers.get(&to.is_ipv6()) {
            return Ok(Dialer { endpoint: endpoint.clone(), register: None });
        }
        let (endpoint, info) = self.setup.dialing(to)?;
        self.handle.register(endpoint.clone(), None, info);
        self.dialers.insert(to.is_ipv6(), (endpoint.clone(), info.local));
        Ok(Dialer { endpoint, register: None })
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Drop for Quic {
    fn drop(&mut self) {
        self.dialers.values().for_each(|(_, local)| self.handle.retire(*local));
    }
}

/// Where a dial leaves from.
struct Dialer {
    endpoint: quinn::Endpoint,
    /// Set for a socket of this dial alone: it becomes known to the handle with its first connection.
    register: Option<super::SocketInfo>,
}

impl Transport for Quic {
    type Output = (PeerId, Muxer);
    type Error = Error;
    type ListenerUpgrade = Upgrade;
    type Dial = Upgrade;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<Error>> {
        let Some((at, _)) = endpoint::socket_addr(&addr) else {
            return Err(TransportError::MultiaddrNotSupported(addr));
        };
        let (endpoint, info) = self.setup.listening(at)?;
        let listener = Listener::new(
            id,
            endpoint.clone(),
            info.local,
            self.handle.clone(),
            self.admission.clone(),
            self.slots.clone(),
        )?;
        self.handle.register(endpoint, Some(id), info);
        self.listeners.push(listener);
        // From now on dials leave from the listening socket; the shared one goes with its connections.
        if let Some((_, local)) = self.dialers.remove(&at.is_ipv6()) {
            self.handle.retire(local);
        }
        self.wake();
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let found = self.listeners.iter_mut().find(|listener| listener.id() == id);
        found.map(|listener| listener.close(Ok(()))).is_some()
    }

    fn dial(&mut self, addr: Multiaddr, options: DialOpts) -> Result<Upgrade, TransportError<Error>> {
        let hole_punching = options.role == Role::Listener && options.port_use == PortUse::New;
        let Some((to, expected)) = endpoint::socket_addr(&addr)
            .filter(|(to, _)| !hole_punching && to.port() != 0 && !to.ip().is_unspecified())
        else {
            return Err(TransportError::MultiaddrNotSupported(addr));
        };
        if self.handle.is_closing() {
            return Err(Error::Refusing(Refusal::Leaving).into());
        }
        let dial = Dial {
            config: self.setup.dial_config(expected)?,
            dialer: self.dialer(to, options.port_use)?,
            to,
            addr,
            admission: self.admission.clone(),
            handle: self.handle.clone(),
            met: None,
        };
        Ok(dial.run().boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        if let Poll::Ready(Some(event)) = self.listeners.poll_next_unpin(cx) {
            return Poll::Ready(event);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// One dial; it does nothing before it is polled.
struct Dial {
    config: quinn::ClientConfig,
    dialer: Dialer,
    to: SocketAddr,
    addr: Multiaddr,
    admission: Admission,
    handle: Handle,
    /// Who answered, once TLS has proved it.
    met: Option<PeerId>,
}

impl Dial {
    async fn run(mut self) -> Result<(PeerId, Muxer), Error> {
        let (mut pause, began) = (Duration::from(limits::BUSY_PAUSE), Instant::now());
        let mut in_line = None;
        loop {
            let result = self.once().await;
            match &result {
                Err(Error::RefusedBy(Refusal::Busy)) if began.elapsed() < self.admission.turn => {}
                Err(error) => {
                    self.admission.note(self.met, self.to, &self.addr, error);
                    return result;
                }
                Ok(_) => return result,
            }
            in_line.get_or_insert_with(|| self.admission.gate.stand_in_line());
            // Those refused together shall not come back together.
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
            pause = (pause * 2).min(limits::BUSY_PAUSE_MAX.into());
        }
    }

    async fn once(&mut self) -> Result<(PeerId, Muxer), Error> {
        // The name only fills TLS's field: identity is the certificate's key.
        let connecting = self.dialer.endpoint.connect_with(self.config.clone(), self.to, "l")?;
        if let Some(info) = self.dialer.register.take() {
            let local = info.local;
            self.handle.register(self.dialer.endpoint.clone(), None, info);
            self.handle.retire(local);
        }
        let connection = handshake(connecting).await?;
        let peer = tls::peer_of(&connection)?;
        self.met = Some(peer);
        let presence = self.admission.offer(&connection, peer, &self.addr).await?;
        endpoint::widen(&connection);
        Ok((peer, Muxer::new(connection, self.handle.clone(), presence)))
    }
}

/// Waits for the QUIC and TLS handshake, bounded.
pub(super) async fn handshake(connecting: quinn::Connecting) -> Result<quinn::Connection, Error> {
    let patience = Duration::from(limits::QUIC_HANDSHAKE_TIMEOUT);
    match tokio::time::timeout(patience, connecting).await {
        Ok(done) => done.map_err(Error::of_connection),
        Err(_) => Err(Error::HandshakeTimedOut),
    }
}

/// The listener's half: handshake, admission, streams. The slot is held until it is over.
pub(super) async fn accepted(
    connecting: quinn::Connecting,
    slot: admission::Slot,
    admission: Admission,
    handle: Handle,
) -> Result<(PeerId, Muxer), Error> {
    let from = connecting.remote_address();
    let addr = endpoint::multiaddr(from);
    let mut met = None;
    let result = async {
        let connection = handshake(connecting).await?;
        let peer = tls::peer_of(&connection)?;
        met = Some(peer);
        let presence = admission.receive(&connection, peer, &addr).await?;
        endpoint::widen(&connection);
        Ok((peer, Muxer::new(connection, handle, presence)))
    }
    .await;
    drop(slot);
    if let Err(error) = &result {
        admission.note(met, from, &addr, error);
    }
    result
}
