//! Connecting: keys, a fresh identity for this process, the network, and the first node that answers.
//!
//! The network runs on a current-thread runtime of its own, so that a slow standard output or a picture being
//! decoded never delays a keep-alive.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use libp2p_identity::Keypair;
use tokio::sync::{oneshot, watch};

use super::{
    Client, Error, View,
    awake::{self, AwakeClock},
    types::Connect,
};
use crate::{
    disk::Home,
    model::{
        Millis, PeerId,
        hello::{BootMark, Kind},
        limits,
        rpc::{Request, Response},
    },
    net::{
        Event, Multiaddr, Net, NetConfig, NetHandle,
        address::{self, AddressError},
        transport::{self, Gate, Keys, Me, OwnStarts, Refusal},
    },
    proto::placement::Weighted,
    seal::admission::{ClientRight, ClusterKey},
};

/// How long a second member is waited for: several handshakes on a busy LAN.
const PAIR_PATIENCE: Duration = Duration::from_millis(150);
/// How long the rest is waited for after that: one handshake.
const REST_PATIENCE: Duration = Duration::from_millis(20);

/// The thread that the network runs on.
pub(super) struct NetworkThread {
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Why peers were refused and names were not found, for the sentence when nobody answers.
    hints: Arc<Mutex<Vec<String>>>,
}

/// What the network thread hands back once it runs.
type Started = Result<(NetHandle, transport::Handle), String>;

impl NetworkThread {
    /// Ends it; at most [`limits::CLIENT_EXIT_PATIENCE`] for the farewell.
    fn end(&self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic there has been reported by the hook already.
            let _ = thread.join();
        }
    }

    fn hint(&self) -> String {
        let hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        hints.first().map(|hint| format!(" ({hint})")).unwrap_or_default()
    }
}

impl Drop for NetworkThread {
    fn drop(&mut self) {
        self.end();
    }
}

impl Client {
    /// Connects to the first node that answers.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Unreachable`] after two seconds, [`Error::Crowded`] after ten at a node that
    /// is admitting others, [`Error::Usage`] for what is no address. A name
    /// that has no address now is no error as long as another address was given.
    pub async fn open(connect: Connect) -> Result<Self, Error> {
        let home = Home::at(&connect.home);
        let keys = client_keys(&home)?;
        let (config, unresolved) = net_config(&connect, &home).await?;
        let awake = Arc::new(AwakeClock::start());
        let (network, started) = start_network(keys, config, unresolved.clone(), Arc::clone(&awake));
        let started = started.await.map_err(|_| Error::Refused("the network did not start".into()))?;
        let (net, quic) = started.map_err(Error::Refused)?;
        let me = quic.gate().me().peer;
        let client = Self {
            home,
            me,
            wanted_user: connect.user,
            make_named: connect.make_named,
            passphrase: connect.passphrase,
            net,
            quic,
            network,
            talking_to: Mutex::new(None),
            shunned: Mutex::default(),
            given_up: Mutex::default(),
            rooms: super::room::Rooms::default(),
            awake,
            view: tokio::sync::OnceCell::new(),
            user: tokio::sync::OnceCell::new(),
            state: Arc::default(),
            notes: Mutex::default(),
            noting: tokio::sync::Mutex::default(),
            transfers: tokio::sync::Semaphore::new(limits::SMALL_OBJECTS_AT_ONCE_MAX),
            at_work: Mutex::default(),
            unresolved,
        };
        client.wait_for_a_node().await?;
        Ok(client)
    }

    /// Says goodbye to the nodes.
    pub async fn close(self) {
        self.cancel_what_is_left().await;
        let network = self.network;
        // Joining blocks; the runtime may have other work.
        let _ = tokio::task::spawn_blocking(move || network.end()).await;
    }

    async fn wait_for_a_node(&self) -> Result<(), Error> {
        let (started, began) = (Instant::now(), self.awake.now());
        let mut peers = self.net.watch_peers();
        loop {
            if let Some(peer) = peers.borrow_and_update().keys().next() {
                self.note_answer(*peer);
                return Ok(());
            }
            let left = self.admission_patience(limits::CLIENT_PATIENCE).since(self.awake.since(began));
            let step = Duration::from(left).min(awake::LOOK_EVERY);
            let changed = tokio::time::timeout(step, peers.changed()).await;
            if left == Millis(0) || matches!(changed, Ok(Err(_))) {
                return Err(self.unreachable(started));
            }
        }
    }

    /// The patience with nodes that say nothing; more while one of them says that our turn will come.
    pub(super) fn admission_patience(&self, with_silence: Millis) -> Millis {
        if self.quic.gate().is_in_line() { with_silence.max(limits::ADMISSION_TURN) } else { with_silence }
    }

    pub(super) fn unreachable(&self, since: Instant) -> Error {
        self.unreachable_for(Millis(super::put::millis(since)))
    }

    pub(super) fn unreachable_for(&self, waited: Millis) -> Error {
        let gate = self.quic.gate();
        let was_put_off = gate.is_in_line() || gate.refused().contains_key(&Refusal::Busy);
        if was_put_off && self.net.connected().is_empty() {
            return Error::Crowded { waited_ms: waited.0 };
        }
        Error::Unreachable { waited_ms: waited.0, hint: self.network.hint() }
    }

    /// The cluster: asked of the first node that answers, then kept; every other member is dialed.
    pub(super) async fn view(&self) -> Result<&View, Error> {
        self.view.get_or_try_init(|| self.learn_view()).await
    }

    async fn learn_view(&self) -> Result<View, Error> {
        let started = Instant::now();
        let (_, response) = self.ask_first(&[], &Request::Status, limits::CLIENT_PATIENCE).await?;
        let Response::Status(status) = response else { return Err(self.unreachable(started)) };
        let Some(founding) = status.founding else { return Err(Error::NotReady(status.waiting)) };
        let mut view = View { founding, members: Vec::new(), names: Default::default() };
        for node in &status.nodes {
            view.members.push(Weighted { peer: node.peer, weight: 1 });
            view.names.insert(node.peer, node.name.clone());
            self.dial_node(&node.peer, &node.addrs).await;
        }
        self.wait_for_members(&view).await;
        self.remember_addresses().await;
        Ok(view)
    }

    async fn dial_node(&self, peer: &PeerId, addrs: &[String]) {
        if self.net.connected().contains_key(peer) {
            return;
        }
        for addr in addrs.iter().take(limits::KNOWN_ADDRESSES_MAX) {
            if let Ok(addr) = addr.parse::<Multiaddr>() {
                let (bare, _) = address::split_peer(addr);
                // Full = so many are being dialed that one less makes no difference.
                let _ = self.net.dial(address::with_peer(bare, *peer));
            }
        }
    }

    /// Gives the others a moment to be connected too: a put wants two of them at once. One that is down must
    /// not hold up every command; one that says that our turn will come is waited for.
    async fn wait_for_members(&self, view: &View) {
        let mut peers = self.net.watch_peers();
        for (count, patience) in [(2, PAIR_PATIENCE), (usize::MAX, REST_PATIENCE)] {
            let count = count.min(view.members.len());
            let reached = |connected: &crate::net::Peers| {
                view.members.iter().filter(|m| connected.contains_key(&m.peer)).count() >= count
            };
            let began = self.awake.now();
            // For the second one only: what two can do needs no third.
            while tokio::time::timeout(patience, peers.wait_for(reached)).await.is_err()
                && (count <= 2 && self.quic.gate().is_in_line())
                && self.awake.since(began) < limits::CLIENT_PATIENCE
            {}
        }
    }

    async fn remember_addresses(&self) {
        let addrs: Vec<String> = self.net.connected().values().map(|info| info.addr.to_string()).collect();
        let known = self.with_state(|state| state.addresses()).await.unwrap_or_default();
        for addr in addrs {
            if !known.contains(&addr) {
                // Only a hint for the next time.
                let _ = self.with_state(move |state| state.remember_address(&addr)).await;
            }
        }
    }
}

fn client_keys(home: &Home) -> Result<ClientRight, Error> {
    let path = home.root().join("keys").join("cluster.key");
    let remedy = || {
        "copy keys/cluster.key from a machine of the cluster into this home, or start a cluster here with \
         `tintype up`"
            .to_owned()
    };
    let bad = |reason: String| Error::Key { reason, remedy: remedy() };
    match home.cluster_key() {
        Ok(Some(text)) => ClusterKey::parse(&text)
            .map(|key| key.client_right())
            .map_err(|e| bad(format!("{}: {e}", path.display()))),
        Ok(None) => Err(bad(format!("there is no cluster key at {}", path.display()))),
        Err(error) => Err(bad(error.to_string())),
    }
}

/// Where to look for nodes, and a sentence for each named one that has no address now. Addresses that a
/// person named are the only ones then.
async fn net_config(connect: &Connect, home: &Home) -> Result<(NetConfig, Vec<String>), Error> {
    let mut config = NetConfig { packets: connect.packets, ..NetConfig::client() };
    if !connect.nodes.is_empty() {
        let (found, unresolved) = resolve_named(&connect.nodes).await?;
        config.bootstrap = found;
        return Ok((config, unresolved));
    }
    if let Ok(Some(node)) = home.node_addr() {
        config.bootstrap.extend(node.addrs.iter().filter_map(|a| a.parse::<Multiaddr>().ok()));
    }
    for text in &connect.bootstrap {
        if let Ok(found) = address::resolve(text).await {
            config.bootstrap.extend(found);
        }
    }
    let home = home.clone();
    let remembered = tokio::task::spawn_blocking(move || {
        crate::disk::ClientState::open(&home).and_then(|mut state| state.addresses())
    });
    if let Ok(Ok(remembered)) = remembered.await {
        let fresh = remembered.iter().take(limits::KNOWN_ADDRESSES_MAX).filter_map(|a| a.parse().ok());
        config.bootstrap.extend(fresh);
    }
    config.mdns = connect.mdns;
    Ok((config, Vec::new()))
}

/// Looks all up at once. A name that nobody knows holds up the others for half a second at most.
async fn resolve_named(nodes: &[String]) -> Result<(Vec<Multiaddr>, Vec<String>), Error> {
    let started = Instant::now();
    let mut waiting: BTreeSet<&String> = nodes.iter().collect();
    let mut lookups: FuturesUnordered<_> =
        nodes.iter().map(|text| async move { (text, address::resolve(text).await) }).collect();
    let (mut found, mut unresolved) = (Vec::new(), Vec::new());
    loop {
        let patience = if found.is_empty() { limits::CLIENT_PATIENCE } else { limits::NO_PROGRESS };
        let left = Duration::from(patience).saturating_sub(started.elapsed());
        let Ok(next) = tokio::time::timeout(left, lookups.next()).await else { break };
        let Some((text, result)) = next else { break };
        waiting.remove(text);
        match result {
            Ok(addrs) => found.extend(addrs),
            Err(error @ AddressError::Malformed(_)) => return Err(Error::Usage(error.to_string())),
            Err(error @ AddressError::Unresolved { .. }) => unresolved.push(error.to_string()),
        }
    }
    unresolved.extend(waiting.iter().map(|text| format!("`{text}` has no address: nobody said one in time")));
    if found.is_empty() {
        let waited_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        return Err(Error::Unreachable { waited_ms, hint: format!(" ({})", unresolved.join("; ")) });
    }
    Ok((found, unresolved))
}

fn start_network(
    keys: ClientRight,
    config: NetConfig,
    hints: Vec<String>,
    awake: Arc<AwakeClock>,
) -> (NetworkThread, oneshot::Receiver<Started>) {
    let (stop, stopped) = watch::channel(false);
    let (tell, started) = oneshot::channel();
    let hints = Arc::new(Mutex::new(hints));
    let hints_in = Arc::clone(&hints);
    let thread = std::thread::Builder::new().name("net".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(run_network(keys, config, stopped, tell, hints_in, &awake)),
            Err(error) => drop(tell.send(Err(format!("no runtime for the network: {error}")))),
        }
    });
    (NetworkThread { stop, thread: Mutex::new(thread.ok()), hints }, started)
}

async fn run_network(
    keys: ClientRight,
    config: NetConfig,
    mut stopped: watch::Receiver<bool>,
    tell: oneshot::Sender<Started>,
    hints: Arc<Mutex<Vec<String>>>,
    awake: &AwakeClock,
) {
    let mut look = tokio::time::interval(awake::LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut net, quic) = match open_network(keys, config) {
        Ok(open) => open,
        Err(error) => return drop(tell.send(Err(error))),
    };
    if tell.send(Ok((net.handle(), quic.clone()))).is_err() {
        return;
    }
    while !*stopped.borrow_and_update() {
        tokio::select! {
            changed = stopped.changed() => if changed.is_err() { break },
            _ = look.tick() => drop(awake.now()),
            event = net.next() => {
                if let Event::Foreign { addr, refusal, .. } = event {
                    let mut hints = hints.lock().unwrap_or_else(PoisonError::into_inner);
                    if hints.len() < limits::KNOWN_ADDRESSES_MAX {
                        hints.push(format!("{addr}: {refusal}"));
                    }
                }
            }
        }
    }
    net.close().await;
}

fn open_network(keys: ClientRight, config: NetConfig) -> Result<(Net, transport::Handle), String> {
    let keypair = Keypair::generate_ed25519();
    let me = Me {
        peer: keypair.public().to_peer_id(),
        kind: Kind::Client,
        mark: BootMark { boot: 0, process: crate::model::ProcessId(rand::random()) },
        promises: 0,
        incarnation: None,
        founding: None,
        name: String::new(),
    };
    let (gate, gate_events) = Gate::new(me, Keys::Client(keys), OwnStarts::default(), []);
    let (net, _no_bulk_calls) =
        Net::start(config, &keypair, gate, gate_events).map_err(|e| format!("the network: {e}"))?;
    let quic = net.transport().clone();
    Ok((net, quic))
}
