//! Conducts a client: a libp2p peer that stores nothing, encrypts and signs for its user, and asks nodes.
//!
//! ```text
//! connect   keys, a fresh identity, the network on a thread of its own, the first node that answers
//! asking    rpc with a deadline; no progress for 500 ms and the next node is asked too
//! users     whose keys: the only user's, the named one's, or one made now
//! awake     the time that a client's patience is counted in
//! upload    read, check, seal, send each chunk once to the first holder of its placement
//! store     one body on as many nodes as are wanted, across this client's wire once
//! put       upload, manifest, register; conflicts; rm and undelete
//! fetch     bodies by the schedule of `proto`; get, to a file or a writer
//! list      the owner's registers from a majority of each slot
//! check     where copies lie; verify them
//! report    status, nodes, events, stopping a node
//! tasks     work handed to nodes; what they know of all tasks, and of elections
//! files     the user's own files
//! hidden    what is hidden in pictures: sealing, finding, opening
//! ```
//! It never opens a running node's `data/` (but for `data/node.addr`) and never uses `node.key`.

mod asking;
mod awake;
mod check;
mod connect;
mod error;
mod fetch;
pub mod files;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod get;
pub mod hidden;
#[cfg(test)]
mod holders;
mod list;
mod put;
mod report;
mod room;
mod store;
pub mod tasks;
pub mod types;
mod upload;
mod users;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

pub use error::Error;
pub use report::stop_node;
pub use users::{LocalUser, user_of_home};

use crate::{
    disk::{ClientState, DiskError, Home},
    model::{FoundingId, ObjectId, PeerId, member::Epoch, slots::HashSlot, task::TaskId},
    net::{NetHandle, transport},
    proto::placement::{self, SlotKeepers, Weighted},
};

/// An open client. Dropping it without [`Client::close`] lets the nodes find out by themselves.
pub struct Client {
    home: Home,
    me: PeerId,
    wanted_user: Option<String>,
    make_named: bool,
    passphrase: Option<types::Passphrase>,
    net: NetHandle,
    quic: transport::Handle,
    network: connect::NetworkThread,
    talking_to: Mutex<Option<PeerId>>,
    shunned: Mutex<BTreeMap<PeerId, Instant>>,
    /// Nodes that were waited for in vain and not connected since.
    given_up: Mutex<BTreeSet<PeerId>>,
    /// What may be under way to each node.
    rooms: room::Rooms,
    awake: Arc<awake::AwakeClock>,
    view: tokio::sync::OnceCell<View>,
    user: tokio::sync::OnceCell<users::User>,
    state: Arc<Mutex<Option<ClientState>>>,
    /// Versions to be noted in the state, and who waits for that; written by whoever has the turn.
    notes: Mutex<Vec<Note>>,
    noting: tokio::sync::Mutex<()>,
    transfers: tokio::sync::Semaphore,
    /// Tasks that nodes have in hand for this client.
    at_work: Mutex<BTreeSet<TaskId>>,
    unresolved: Vec<String>,
}

type Note = (ObjectId, u64, tokio::sync::oneshot::Sender<Result<(), Error>>);

/// The cluster as the first node described it.
#[derive(Clone, Debug)]
struct View {
    founding: FoundingId,
    members: Vec<Weighted>,
    names: BTreeMap<PeerId, String>,
}

impl View {
    fn keepers(&self, object: &ObjectId) -> SlotKeepers {
        placement::keepers(Epoch::FOUNDING, &self.members, HashSlot::of(object))
    }

    fn home(&self, object: &ObjectId) -> Option<PeerId> {
        placement::home(Epoch::FOUNDING, &self.keepers(object).acceptors, object)
    }

    /// All members: the object's home first, then its other acceptors, then the rest.
    fn askable(&self, object: &ObjectId) -> Vec<PeerId> {
        let keepers = self.keepers(object);
        let mut order: Vec<PeerId> = self.home(object).into_iter().collect();
        let all = self.members.iter().map(|m| m.peer);
        for peer in keepers.acceptors.into_iter().chain(all) {
            if !order.contains(&peer) {
                order.push(peer);
            }
        }
        order
    }

    fn name(&self, peer: &PeerId) -> String {
        self.names.get(peer).filter(|n| !n.is_empty()).cloned().unwrap_or_else(|| {
            let text = peer.to_string();
            format!("…{}", &text[text.len().saturating_sub(8)..])
        })
    }
}

impl Client {
    /// A sentence for each of the named nodes whose name has no address now.
    pub fn unresolved(&self) -> &[String] {
        &self.unresolved
    }

    /// The node that it was last answered by.
    pub fn talking_to(&self) -> Option<PeerId> {
        *self.talking_to.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_answer(&self, peer: PeerId) {
        self.talking_to.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(peer);
    }

    /// Bytes written to streams so far, counted above QUIC.
    pub fn stream_bytes_written(&self) -> u64 {
        self.quic.traffic().written
    }

    /// Asks this node last for a while.
    fn shun(&self, peer: PeerId) {
        let until = Instant::now() + std::time::Duration::from(crate::model::limits::SHUN);
        self.shunned.lock().unwrap_or_else(PoisonError::into_inner).insert(peer, until);
        let mut talking = self.talking_to.lock().unwrap_or_else(PoisonError::into_inner);
        if *talking == Some(peer) {
            *talking = None;
        }
    }

    fn is_shunned(&self, peer: &PeerId) -> bool {
        let shunned = self.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        shunned.get(peer).is_some_and(|until| *until > Instant::now())
    }

    /// Notes that these were waited for in vain: many objects must not each wait for them.
    fn give_up(&self, peers: &[PeerId]) {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).extend(peers);
    }

    /// Whether each of these was waited for in vain, and has not been connected since.
    fn has_given_up(&self, peers: &[PeerId]) -> bool {
        let given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        peers.iter().all(|peer| given_up.contains(peer))
    }

    /// It is connected: the next time that it is not, it is worth waiting for.
    fn wait_again_for(&self, peer: &PeerId) {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    /// Of `order`, those that can be asked now: connected and in good standing first.
    fn usable(&self, order: &[PeerId]) -> Vec<PeerId> {
        let connected = self.net.connected();
        let mut usable: Vec<PeerId> = order.iter().filter(|p| connected.contains_key(p)).copied().collect();
        usable.sort_by_key(|peer| self.is_shunned(peer));
        usable
    }

    /// Runs `job` on the home's memory of versions, on a blocking thread.
    async fn with_state<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut ClientState) -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, Error> {
        let state = Arc::clone(&self.state);
        let home = self.home.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let open = match state.take() {
                Some(open) => state.insert(open),
                None => state.insert(ClientState::open(&home)?),
            };
            job(open)
        });
        let done = done.await.map_err(|e| Error::Refused(format!("a task of this program failed: {e}")))?;
        done.map_err(|e| Error::Key {
            reason: format!("the home's memory of versions: {e}"),
            remedy: "check the home's permissions and its disk's room".into(),
        })
    }
}
