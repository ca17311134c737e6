//! Starts a node: home, keys, disk, gate, transport, network; then hands over to the loop.
//!
//! Whatever is wrong is found here, before anything is promised, and named with its file.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use super::{
    NodeConfig, NodeError, OnNotice,
    event_loop::{EventLoop, Parts, Stopped, Stopping},
    report,
};
use crate::{
    disk::{Boot, Disk, DiskError, DiskOptions, Home, MetaKey, Seen},
    model::{PeerId, hello::Kind},
    net::{
        Multiaddr, Net, NetConfig, address,
        transport::{Gate, GateEvent, Keys, KnownPeer, Me, OwnStarts},
    },
    proto::founding::FoundingRecord,
    seal::admission::ClusterKey,
};

/// How long a home that is locked is tried again: longer than a killed process takes to be gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Runs a node until it is asked to stop.
///
/// # Errors
/// [`NodeError`], each with the file or the address that is wrong.
pub async fn run(config: NodeConfig, notice: OnNotice) -> Result<Stopped, NodeError> {
    let home = Home::at(&config.home);
    home.create()?;
    let (cluster_key, found) = cluster_key(&home)?;
    let key_was_there = found && config.key_was_there;
    let (keypair, _) = home.node_key_or_new()?;
    let me = keypair.public().to_peer_id();
    let options = DiskOptions {
        moved: config.moved,
        reserve_bytes: config.reserve_bytes,
        capacity_bytes: config.capacity_bytes,
        machine: None,
    };
    let (disk, boot) = open_disk(&home, options).await?;
    check_identity(&home, &disk, me).await?;
    let record = founding_record(&disk)?;
    let (gate, gate_events) = gate(&config, &disk, &boot, me, &cluster_key)?;
    let listen = listen_addresses(&config, &disk).await?;
    let net_config = net_config(&config, &disk, listen).await?;
    let (net, bulk_calls) = Net::start(net_config, &keypair, gate.clone(), gate_events)?;
    let parts = Parts { config, disk, boot, net, gate, bulk_calls, record, key_was_there, notice };
    let event_loop = EventLoop::new(parts, &keypair)?;
    event_loop.run().await
}

/// Opens the disk. A process that was killed a moment ago may still hold its lock while it dies.
async fn open_disk(home: &Home, options: DiskOptions) -> Result<(Disk, Boot), DiskError> {
    let mut tries_left = LOCK_PATIENCE.as_millis() / LOCK_PAUSE.as_millis();
    loop {
        match Disk::open(home, options.clone()) {
            Err(DiskError::Locked { .. }) if tries_left > 0 => tries_left -= 1,
            opened => return opened,
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

/// What this disk has promised, it has promised under one identity.
async fn check_identity(home: &Home, disk: &Disk, me: PeerId) -> Result<(), NodeError> {
    let Some(bytes) = disk.meta(MetaKey::Identity)? else {
        let mut batch = crate::disk::WriteBatch::new();
        batch.meta(MetaKey::Identity, Some(me.to_bytes()));
        return Ok(disk.write(batch).await?);
    };
    match PeerId::from_bytes(&bytes) {
        Ok(owner) if owner == me => Ok(()),
        Ok(owner) => Err(NodeError::Key {
            path: home.node_key_path().display().to_string(),
            reason: format!("this is the key of {me}, but the data here are those of {owner}"),
        }),
        Err(error) => Err(NodeError::Record(format!("the identity: {error}"))),
    }
}

/// The cluster key of this home, made now if there is none. True if it was there before.
fn cluster_key(home: &Home) -> Result<(ClusterKey, bool), NodeError> {
    let path = home.root().join("keys/cluster.key").display().to_string();
    let parse = |text: &str| {
        ClusterKey::parse(text).map_err(|e| NodeError::Key { path: path.clone(), reason: e.to_string() })
    };
    if let Some(text) = home.cluster_key()? {
        return Ok((parse(&text)?, true));
    }
    let key = ClusterKey::from_bytes(rand::random());
    if home.create_cluster_key(&key.to_text())? {
        return Ok((key, false));
    }
    let text = home
        .cluster_key()?
        .ok_or_else(|| NodeError::Key { path: path.clone(), reason: "vanished".into() })?;
    Ok((parse(&text)?, true))
}

fn founding_record(disk: &Disk) -> Result<Option<FoundingRecord>, NodeError> {
    let Some(bytes) = disk.meta(MetaKey::Founding)? else { return Ok(None) };
    FoundingRecord::decode(&bytes).map(Some).map_err(|e| NodeError::Record(format!("the founding: {e}")))
}

fn gate(
    config: &NodeConfig,
    disk: &Disk,
    boot: &Boot,
    peer: PeerId,
    key: &ClusterKey,
) -> Result<(Gate, tokio::sync::mpsc::Receiver<GateEvent>), NodeError> {
    let me = Me {
        peer,
        kind: Kind::Member,
        mark: boot.mark,
        promises: boot.promises,
        incarnation: Some(boot.incarnation),
        founding: founding_record(disk)?.and_then(|r| r.founding).map(|f| f.id),
        name: config.name.clone(),
    };
    let known = disk.all_seen()?.into_iter().map(|(peer, Seen { mark, promises, incarnation })| {
        (peer, KnownPeer { mark, promises, incarnation })
    });
    Ok(Gate::new(me, Keys::Cluster(key.clone()), OwnStarts::new(disk.starts()), known))
}

/// Where to listen. A fresh home that finds its port taken picks a free one and keeps it.
async fn listen_addresses(config: &NodeConfig, disk: &Disk) -> Result<Vec<Multiaddr>, NodeError> {
    let ip = config.listen.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |addr| addr.ip());
    let remembered =
        disk.meta(MetaKey::ListenPort)?.and_then(|b| Some(u16::from_be_bytes(b.try_into().ok()?)));
    let any = |port| SocketAddr::from((ip, port));
    let port = match remembered {
        _ if config.port_given => config.port,
        Some(port) => port,
        None if is_free(any(config.port)) => config.port,
        None => free_port(ip).map_err(|e| NodeError::Transport(format!("no UDP port is to be had: {e}")))?,
    };
    require_free(any(port))?;
    if remembered.is_none() && !config.port_given {
        let mut batch = crate::disk::WriteBatch::new();
        batch.meta(MetaKey::ListenPort, Some(port.to_be_bytes().to_vec()));
        disk.write(batch).await?;
    }
    if config.listen.is_some() {
        return Ok(vec![address::quic(any(port))]);
    }
    let mut addrs = address::listen_all(port);
    if !is_free(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
        addrs.truncate(1);
    }
    Ok(addrs)
}

fn is_free(addr: SocketAddr) -> bool {
    UdpSocket::bind(addr).is_ok()
}

fn require_free(addr: SocketAddr) -> Result<(), NodeError> {
    match UdpSocket::bind(addr) {
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
            Err(NodeError::PortTaken { port: addr.port() })
        }
        Err(e) => Err(NodeError::Address(format!("cannot listen at {addr}: {e}"))),
        Ok(_) => Ok(()),
    }
}

fn free_port(ip: IpAddr) -> std::io::Result<u16> {
    Ok(UdpSocket::bind((ip, 0))?.local_addr()?.port())
}

async fn net_config(
    config: &NodeConfig,
    disk: &Disk,
    listen: Vec<Multiaddr>,
) -> Result<NetConfig, NodeError> {
    let mut net = NetConfig::node(listen);
    for text in &config.bootstrap {
        match address::resolve(text).await {
            Ok(addrs) => net.bootstrap.extend(addrs),
            Err(address::AddressError::Malformed(text)) => {
                return Err(NodeError::Address(format!(
                    "bootstrap address {text:?} is neither host:port nor a multiaddr"
                )));
            }
            // A name that does not resolve now may do so later; the ladder's other steps go on meanwhile.
            Err(error) => tracing::warn!("{error}"),
        }
    }
    net.remembered = report::read_addresses(disk.meta(MetaKey::KnownAddresses)?.as_deref());
    net.mdns = config.mdns;
    net.packets = config.packets;
    Ok(net)
}

/// Asks the node to stop on Ctrl-C, SIGTERM, or, if it is to, when its terminal goes; the second time at
/// once.
pub(super) async fn stop_on_signal(stop: tokio::sync::watch::Sender<Stopping>, on_hangup: bool) {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
        // To ask for a signal takes it, also from who ignores it.
        let mut hang_up = on_hangup.then(|| signal(SignalKind::hangup()).ok()).flatten();
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                Some(()) = async { hang_up.as_mut()?.recv().await } => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            Stopping::ask(&stop);
        }
    }
    #[cfg(not(unix))]
    while tokio::signal::ctrl_c().await.is_ok() {
        Stopping::ask(&stop);
    }
}
