//! One listening socket: accepts connections and follows the machine's addresses.
//!
//! It must never start more admissions than there are slots, nor a handshake for an address that may be
//! forged once slots become scarce.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use futures::{FutureExt, Stream, future::BoxFuture};
use if_watch::{IfEvent, tokio::IfWatcher};
use libp2p::core::transport::{ListenerId, TransportEvent};

use super::{
    admission::{Admission, Slots},
    endpoint::multiaddr,
    error::Error,
    handle::Handle,
    quic::{self, Upgrade},
    refusal::Refusal,
};

type Event = TransportEvent<Upgrade, Error>;

/// Refusals in one turn before others get theirs.
const REFUSALS_PER_TURN: usize = 32;

/// A listening endpoint as a stream of transport events; ends after `ListenerClosed`.
pub(super) struct Listener {
    id: ListenerId,
    endpoint: quinn::Endpoint,
    local: SocketAddr,
    accept: BoxFuture<'static, Option<quinn::Incoming>>,
    /// Only for a wildcard address.
    interfaces: Option<IfWatcher>,
    pending: VecDeque<Event>,
    closed: bool,
    waker: Option<Waker>,
    handle: Handle,
    admission: Admission,
    slots: Slots,
}

impl Listener {
    pub(super) fn new(
        id: ListenerId,
        endpoint: quinn::Endpoint,
        local: SocketAddr,
        handle: Handle,
        admission: Admission,
        slots: Slots,
    ) -> Result<Self, Error> {
        let mut pending = VecDeque::new();
        let interfaces = if local.ip().is_unspecified() {
            Some(IfWatcher::new()?)
        } else {
            pending.push_back(TransportEvent::NewAddress { listener_id: id, listen_addr: multiaddr(local) });
            None
        };
        let accept = next_incoming(&endpoint);
        let (closed, waker) = (false, None);
        Ok(Self { id, endpoint, local, accept, interfaces, pending, closed, waker, handle, admission, slots })
    }

    pub(super) fn id(&self) -> ListenerId {
        self.id
    }

    pub(super) fn endpoint(&self) -> &quinn::Endpoint {
        &self.endpoint
    }

    /// Whether a dial to this address can leave from this socket.
    pub(super) fn may_dial(&self, to: SocketAddr) -> bool {
        let ip = self.local.ip();
        let reaches = ip.is_unspecified() || ip.is_loopback() == to.ip().is_loopback();
        !self.closed && self.local.is_ipv6() == to.is_ipv6() && reaches
    }

    /// Stops listening; this ends every connection of this socket, the dialled ones too.
    pub(super) fn close(&mut self, reason: Result<(), Error>) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.endpoint.close(Refusal::Leaving.var_int(), b"");
        self.handle.retire(self.local);
        self.pending.push_back(TransportEvent::ListenerClosed { listener_id: self.id, reason });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll_interfaces(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let listener_id = self.id;
        while let Some(interfaces) = self.interfaces.as_mut() {
            let Poll::Ready(event) = interfaces.poll_if_event(cx) else { return Poll::Pending };
            match event {
                Ok(IfEvent::Up(net)) => {
                    if let Some(listen_addr) = self.listen_addr(net.addr()) {
                        return Poll::Ready(TransportEvent::NewAddress { listener_id, listen_addr });
                    }
                }
                Ok(IfEvent::Down(net)) => {
                    if let Some(listen_addr) = self.listen_addr(net.addr()) {
                        return Poll::Ready(TransportEvent::AddressExpired { listener_id, listen_addr });
                    }
                }
                Err(error) => {
                    // A watcher that failed once would fail at every poll: go on with the addresses we have.
                    self.interfaces = None;
                    return Poll::Ready(TransportEvent::ListenerError { listener_id, error: error.into() });
                }
            }
        }
        Poll::Pending
    }

    fn listen_addr(&self, ip: IpAddr) -> Option<libp2p::Multiaddr> {
        let same_family = ip.is_ipv6() == self.local.is_ipv6();
        same_family.then(|| multiaddr(SocketAddr::new(ip, self.local.port())))
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        for _ in 0..REFUSALS_PER_TURN {
            let Poll::Ready(incoming) = self.accept.poll_unpin(cx) else { return Poll::Pending };
            let Some(incoming) = incoming else {
                self.close(Ok(()));
                return self.pending.pop_front().map_or(Poll::Pending, Poll::Ready);
            };
            self.accept = next_incoming(&self.endpoint);
            if let Some(event) = self.begin(incoming) {
                return Poll::Ready(event);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Begins a handshake, unless the connection is refused or has to prove its address first.
    fn begin(&self, incoming: quinn::Incoming) -> Option<Event> {
        let from = incoming.remote_address();
        if self.handle.is_closing() {
            incoming.refuse();
            return None;
        }
        if self.slots.are_scarce() && !incoming.remote_address_validated() && incoming.may_retry() {
            if incoming.retry().is_err() {
                tracing::debug!(%from, "could not ask for a proof of the address");
            }
            return None;
        }
        let Some(slot) = self.slots.take(from.ip()) else {
            incoming.refuse();
            self.admission.note(None, from, &multiaddr(from), &Error::Refusing(Refusal::Busy));
            return None;
        };
        let connecting = match incoming.accept() {
            Ok(connecting) => connecting,
            Err(error) => {
                let error = Error::of_connection(error);
                return Some(TransportEvent::ListenerError { listener_id: self.id, error });
            }
        };
        let upgrade = quic::accepted(connecting, slot, self.admission.clone(), self.handle.clone());
        Some(TransportEvent::Incoming {
            listener_id: self.id,
            upgrade: upgrade.boxed(),
            local_addr: multiaddr(self.local),
            send_back_addr: multiaddr(from),
        })
    }
}

fn next_incoming(endpoint: &quinn::Endpoint) -> BoxFuture<'static, Option<quinn::Incoming>> {
    let endpoint = endpoint.clone();
    async move { endpoint.accept().await }.boxed()
}

impl Stream for Listener {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = self.get_mut();
        if let Some(event) = this.pending.pop_front() {
            return Poll::Ready(Some(event));
        }
        if this.closed {
            return Poll::Ready(None);
        }
        // Interfaces first: an address must be known before a connection to it.
        if let Poll::Ready(event) = this.poll_interfaces(cx) {
            return Poll::Ready(Some(event));
        }
        if let Poll::Ready(event) = this.poll_accept(cx) {
            return Poll::Ready(Some(event));
        }
        this.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.handle.retire(self.local);
    }
}
