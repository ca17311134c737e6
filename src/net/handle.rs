//! The network for tasks beside the loop: bounded commands with answers, and the bulk pool.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    bulk::{BulkClient, BulkPool},
    event::{Busy, RequestError, SharedCounters},
    peers::Peers,
    rpc::ReplyToken,
    transport::Gate,
};
use crate::model::limits;

/// What a task wants of the network.
pub(super) enum Command {
    Request {
        peer: PeerId,
        bytes: Vec<u8>,
        timeout: Duration,
        answer: oneshot::Sender<Result<Vec<u8>, RequestError>>,
    },
    Respond {
        token: ReplyToken,
        bytes: Vec<u8>,
        done: oneshot::Sender<Result<(), Busy>>,
    },
    Dial {
        addr: Multiaddr,
    },
}

/// The network, for tasks beside the loop. Cheap to clone; every call has its own deadline.
#[derive(Clone, Debug)]
pub struct NetHandle {
    commands: mpsc::Sender<Command>,
    peers: watch::Receiver<Peers>,
    bulk: BulkPool,
    counters: SharedCounters,
    gate: Gate,
}

pub(super) fn build(
    peers: watch::Receiver<Peers>,
    bulk: BulkPool,
    counters: SharedCounters,
    gate: Gate,
) -> (NetHandle, mpsc::Receiver<Command>) {
    let (commands, receiver) = mpsc::channel(limits::NET_COMMANDS_MAX);
    (NetHandle { commands, peers, bulk, counters, gate }, receiver)
}

impl NetHandle {
    /// Asks a connected peer and waits for the answer, at most `patience` (and [`limits::RPC_TIMEOUT_MAX`]).
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request(
        &self,
        peer: PeerId,
        bytes: Vec<u8>,
        patience: Duration,
    ) -> Result<Vec<u8>, RequestError> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Request { peer, bytes, timeout: patience, answer })?;
        // The network keeps the deadline too; this one holds even if nobody polls it.
        match timeout(patience, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(RequestError::Stopped),
            Err(_) => Err(RequestError::Timeout),
        }
    }

    /// Answers a request that the loop handed to a task.
    ///
    /// # Errors
    /// [`RequestError::Stopped`] if the network is gone; [`Busy`] as [`super::Net::respond`].
    pub async fn respond(&self, token: ReplyToken, bytes: Vec<u8>) -> Result<(), RequestError> {
        let (done, answered) = oneshot::channel();
        // An answer is worth a short wait: dropped, all the work for it would be done again.
        let command = Command::Respond { token, bytes, done };
        match timeout(limits::RPC_TIMEOUT.into(), self.commands.send(command)).await {
            Ok(sent) => sent.map_err(|_| RequestError::Stopped)?,
            Err(_) => return Err(RequestError::NotSent(Busy::Full)),
        }
        answered.await.map_err(|_| RequestError::Stopped)?.map_err(RequestError::NotSent)
    }

    /// As [`super::Net::dial`].
    ///
    /// # Errors
    /// [`Busy::Full`] as [`RequestError::NotSent`], or [`RequestError::Stopped`].
    pub fn dial(&self, addr: Multiaddr) -> Result<(), RequestError> {
        self.command(Command::Dial { addr })
    }

    /// The bulk client of a peer. Opens nothing yet.
    pub fn bulk(&self, peer: PeerId) -> BulkClient {
        self.bulk.peer(peer)
    }

    /// The connected peers.
    pub fn connected(&self) -> Peers {
        self.peers.borrow().clone()
    }

    /// The connected peers, to wait for changes.
    pub fn watch_peers(&self) -> watch::Receiver<Peers> {
        self.peers.clone()
    }

    /// What the network counted.
    pub fn counters(&self) -> SharedCounters {
        self.counters.clone()
    }

    /// The gate of the transport: hellos, refusals, known marks.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    #[cfg(test)]
    pub(super) fn opener(&self) -> super::streams::Opener {
        self.bulk.opener()
    }

    pub(super) fn hang_up(&self) {
        self.bulk.hang_up(None);
    }

    pub(super) fn hang_up_on(&self, peer: PeerId) {
        self.bulk.hang_up(Some(peer));
    }

    fn command(&self, command: Command) -> Result<(), RequestError> {
        self.commands.try_send(command).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => RequestError::NotSent(Busy::Full),
            mpsc::error::TrySendError::Closed(_) => RequestError::Stopped,
        })
    }
}
