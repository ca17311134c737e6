//! The handle: what the transport counted, what its sockets got, and the orderly exit.
//!
//! It keeps track of every endpoint, so that none outlives the exit, and forgets those that have no
//! listener and no connection any more, so that their sockets close. It must never keep a connection alive.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use libp2p::core::transport::ListenerId;

use super::{gate::Gate, refusal::Refusal};
use crate::model::{hello::Kind, limits};

/// Bytes on all streams of all connections since the start, above QUIC: admission, headers and repeats
/// by the rooms above are in, packet overhead and QUIC's own resends are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Written to streams.
    pub written: u64,
    /// Read from streams.
    pub read: u64,
}

/// One UDP socket and the buffers that the system really gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketInfo {
    /// Where it is bound.
    pub local: SocketAddr,
    /// Whether it listens, or only dials.
    pub listens: bool,
    /// Its receive buffer as the system gave it; compare with [`limits::UDP_BUFFER_BYTES`].
    pub receive_buffer_bytes: usize,
    /// Its send buffer.
    pub send_buffer_bytes: usize,
}

/// On everything that one transport opens. Clones are the same handle.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    gate: Gate,
    endpoints: Mutex<Vec<Entry>>,
    written: AtomicU64,
    read: AtomicU64,
    closing: AtomicBool,
}

#[derive(Debug)]
struct Entry {
    endpoint: quinn::Endpoint,
    listener: Option<ListenerId>,
    retired: bool,
    info: SocketInfo,
}

impl Handle {
    pub(super) fn new(gate: Gate) -> Self {
        Self(Arc::new(Shared {
            gate,
            endpoints: Mutex::default(),
            written: AtomicU64::new(0),
            read: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        }))
    }

    /// The gate of this transport.
    pub fn gate(&self) -> &Gate {
        &self.0.gate
    }

    /// Bytes on streams so far.
    pub fn traffic(&self) -> Traffic {
        Traffic { written: self.0.written.load(Ordering::Relaxed), read: self.0.read.load(Ordering::Relaxed) }
    }

    /// The sockets in use, for `doctor`.
    pub fn sockets(&self) -> Vec<SocketInfo> {
        self.endpoints().iter().map(|entry| entry.info).collect()
    }

    /// Connections of all endpoints, those in handshake and admission included.
    pub fn open_connections(&self) -> usize {
        self.endpoints().iter().map(|entry| entry.endpoint.open_connections()).sum()
    }

    /// Closes every connection with this reason, refuses new ones, and waits until the peers know: at most
    /// [`limits::EXIT_PATIENCE`], a client [`limits::CLIENT_EXIT_PATIENCE`]. The last thing to do before the
    /// process ends; simply dropping the swarm may send nothing.
    pub async fn close(&self, reason: Refusal) {
        self.0.closing.store(true, Ordering::Relaxed);
        let endpoints: Vec<_> = self.endpoints().iter().map(|entry| entry.endpoint.clone()).collect();
        for endpoint in &endpoints {
            endpoint.close(reason.var_int(), reason.to_string().as_bytes());
        }
        let patience = match self.0.gate.me().kind {
            Kind::Member => limits::EXIT_PATIENCE,
            _ => limits::CLIENT_EXIT_PATIENCE,
        };
        let idle = futures::future::join_all(endpoints.iter().map(quinn::Endpoint::wait_idle));
        if tokio::time::timeout(Duration::from(patience), idle).await.is_err() {
            tracing::debug!("left before every connection had drained");
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.0.closing.load(Ordering::Relaxed)
    }

    pub(super) fn count_written(&self, bytes: usize) {
        self.0.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_read(&self, bytes: usize) {
        self.0.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn port_of(&self, listener: ListenerId) -> Option<u16> {
        let endpoints = self.endpoints();
        endpoints.iter().find(|entry| entry.listener == Some(listener)).map(|entry| entry.info.local.port())
    }

    pub(super) fn register(&self, endpoint: quinn::Endpoint, listener: Option<ListenerId>, info: SocketInfo) {
        self.endpoints().push(Entry { endpoint, listener, retired: false, info });
    }

    /// No new connection will begin on the endpoint bound there; it goes when its last one has gone.
    pub(super) fn retire(&self, local: SocketAddr) {
        let mut endpoints = self.endpoints();
        endpoints.iter_mut().filter(|entry| entry.info.local == local).for_each(|entry| entry.retired = true);
        sweep(&mut endpoints);
    }

    fn endpoints(&self) -> MutexGuard<'_, Vec<Entry>> {
        let mut endpoints = self.0.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        sweep(&mut endpoints);
        endpoints
    }
}

/// Forgets, at every look, who is retired and has no connection any more.
fn sweep(endpoints: &mut Vec<Entry>) {
    endpoints.retain(|entry| !entry.retired || entry.endpoint.open_connections() > 0);
}
