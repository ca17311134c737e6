//! The network for tasks beside the loop: questions and bodies past it, bounded commands to it.

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
    rpc::{Asker, Asking, ReplyToken},
    transport::Gate,
};
use crate::model::limits;

/// What a task wants of the network.
pub(super) enum Command {
    Dial { addr: Multiaddr },
}

/// The network, for tasks beside the loop. Cheap to clone; every call has its own deadline.
#[derive(Clone, Debug)]
pub struct NetHandle {
    commands: mpsc::Sender<Command>,
    peers: watch::Receiver<Peers>,
    asking: Asking,
    bulk: BulkPool,
    counters: SharedCounters,
    gate: Gate,
}

pub(super) fn build(
    peers: watch::Receiver<Peers>,
    asking: Asking,
    bulk: BulkPool,
    counters: SharedCounters,
    gate: Gate,
) -> (NetHandle, mpsc::Receiver<Command>) {
    let (commands, receiver) = mpsc::channel(limits::NET_COMMANDS_MAX);
    (NetHandle { commands, peers, asking, bulk, counters, gate }, receiver)
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
        if self.commands.is_closed() {
            return Err(RequestError::Stopped);
        }
        let (answer, answered) = oneshot::channel();
        self.asking.begin(peer, bytes, patience, Asker::Task(answer))?;
        // The stream's task keeps the deadline too; this one holds even if its runtime hangs.
        match timeout(patience, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(RequestError::Stopped),
            Err(_) => Err(RequestError::Timeout),
        }
    }

    /// Answers a request that the loop handed to a task. An asker that is gone is no error.
    ///
    /// # Errors
    /// [`Busy`] as [`super::Net::respond`].
    pub async fn respond(&self, token: ReplyToken, bytes: Vec<u8>) -> Result<(), RequestError> {
        Ok(token.answer(bytes)?)
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
        self.asking.hang_up(None);
        self.bulk.hang_up(None);
    }

    pub(super) fn hang_up_on(&self, peer: PeerId) {
        self.asking.hang_up(Some(peer));
        self.bulk.hang_up(Some(peer));
    }

    fn command(&self, command: Command) -> Result<(), RequestError> {
        self.commands.try_send(command).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => RequestError::NotSent(Busy::Full),
            mpsc::error::TrySendError::Closed(_) => RequestError::Stopped,
        })
    }
}
