//! What three real node processes on this machine do for a client: questions, small and large objects,
//! commits.
//!
//! All three and the client share this machine, so every byte of a put with three copies is sent three times
//! and stored three times by the same processors: the ratios say so.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, future, stream};
use zeroize::Zeroizing;

use super::{
    Effort, MIB, Name,
    figure::{Figure, median},
    group_commit::{self, Work},
    local,
    wire::{self, Wire},
};
use crate::{
    api::{Connect, Get, Put, Source, Vault},
    cli::demo::{nodes::Nodes, pictures::Picture},
    disk::Home,
    model::{
        Digest, PeerId, RequestId,
        limits::{CLIENT_PATIENCE, RPC_IN_FLIGHT_MAX, SMALL_OBJECTS_AT_ONCE_MAX, TRANSFERS_MAX},
        member::Epoch,
        object::{MediaType, ObjectName},
        register::VerifiedRegister,
        rpc::{Request, Response},
        slots::HashSlot,
    },
    net::{Multiaddr, address},
    proto::placement::{self, Weighted},
    seal::{
        admission::ClusterKey,
        keys::{UserKeys, UserSecret},
        manifest::ObjectInfo,
        register::{self, RegisterPlan},
    },
};

const NODES: usize = 3;
/// Of a small object: an icon or a thumbnail.
pub(super) const SMALL_BYTES: usize = 20_000;
/// An edge of the large pictures: 30 MB of noise as PNG.
const EDGE_PX: u32 = 3162;
/// What one of them takes at most.
const LARGE_BYTES_MAX: usize = 32 << 20;
/// Clients of `commits`: each a connection of its own would be one more thread; these share two.
const COMMITTERS: usize = 2;
const _: () = assert!(group_commit::CALLERS / COMMITTERS <= RPC_IN_FLIGHT_MAX);

/// Three nodes and a client. Dropping it ends the processes.
pub(super) struct Cluster {
    vault: Vault,
    key: ClusterKey,
    addrs: Vec<Multiaddr>,
    seed: u64,
    /// Pictures that were put, with their bytes.
    stored: Vec<Picture>,
    /// Where the processes have their homes.
    dir: PathBuf,
    /// So that no two rounds put the same objects.
    made: usize,
    _nodes: Nodes,
}

impl Cluster {
    /// Starts the processes, with homes under `dir`.
    pub(super) async fn start(dir: &Path) -> Result<Self> {
        let (mut nodes, home) = Nodes::prepare(&std::env::current_exe()?, dir, NODES)?;
        nodes.start_all()?;
        let key = Home::at(&home).cluster_key()?.context("the homes have no cluster key")?;
        let mut addrs = Vec::new();
        for node in nodes.addresses() {
            addrs.extend(address::resolve(&node).await?);
        }
        let connect = Connect { home, nodes: nodes.addresses(), ..Connect::default() };
        Ok(Self {
            vault: Vault::open(connect).await?,
            key: ClusterKey::parse(&key)?,
            addrs,
            seed: rand::random_range(1..1_000_000),
            stored: Vec::new(),
            dir: dir.to_owned(),
            made: 0,
            _nodes: nodes,
        })
    }

    /// Says goodbye; the processes end, and what they have stored is gone.
    pub(super) async fn stop(self) -> Result<()> {
        let Self { vault, dir, _nodes: nodes, .. } = self;
        vault.close().await;
        drop(nodes);
        Ok(std::fs::remove_dir_all(dir)?)
    }

    /// Measures one of the figures that need nodes. `bare` is what one bare stream carries, in MiB/s.
    pub(super) async fn measure(&mut self, name: Name, effort: Effort, bare: f64) -> Result<Figure> {
        match name {
            Name::Rpc => self.rpc(effort).await,
            Name::SmallPuts => self.small_puts(effort).await,
            Name::Put1Copy => self.put("put-1-copy", 1, effort, bare).await,
            Name::Put3Copies => self.put("put-3-copies", 3, effort, bare).await,
            Name::Get => self.get(effort, bare).await,
            Name::Commits => self.commits(effort).await,
            Name::BareStream
            | Name::Seal
            | Name::Disk
            | Name::Hide
            | Name::Failover
            | Name::Spread
            | Name::Lane
            | Name::Gossip => {
                bail!("this needs no nodes")
            }
            Name::Many3Nodes | Name::Many10Nodes => bail!("this has nodes of its own"),
        }
    }

    async fn rpc(&self, effort: Effort) -> Result<Figure> {
        let count = effort.pick(200, 1000);
        let mut rates = Vec::new();
        for _ in 0..effort.pick(3, 9) {
            let started = Instant::now();
            for _ in 0..count {
                self.vault.status().await?;
            }
            rates.push(count as f64 / started.elapsed().as_secs_f64());
        }
        let echoing = tokio::task::spawn_blocking(move || wire::udp_echo(effort));
        let echo = echoing.await.context("measuring an echo")??;
        Ok(Figure::new("rpc", "1/s", median(rates)).under("a bare UDP echo", echo))
    }

    async fn small_puts(&mut self, effort: Effort) -> Result<Figure> {
        let count = effort.pick(320, 1000);
        let mut rates = Vec::new();
        for _ in 0..effort.pick(3, 10) {
            let puts: Vec<Put> = (0..count).map(|_| self.small_put()).collect();
            let started = Instant::now();
            let all = stream::iter(puts).map(|put| self.vault.put(put, &|_| ()));
            all.buffer_unordered(SMALL_OBJECTS_AT_ONCE_MAX).try_collect::<Vec<_>>().await?;
            rates.push(count as f64 / started.elapsed().as_secs_f64());
        }
        let dir = self.dir.clone();
        let ceiling =
            tokio::task::spawn_blocking(move || group_commit::ceiling(&dir, Work::SmallPut, effort));
        let ceiling = ceiling.await.context("measuring the ceiling")??;
        Ok(Figure::new("small-puts", "objects/s", median(rates)).under("group commit with bodies", ceiling))
    }

    fn small_put(&mut self) -> Put {
        self.made += 1;
        memory_put(format!("bench/small/{}", self.made), local::noise(SMALL_BYTES), 3)
    }

    async fn put(&mut self, name: &'static str, copies: u8, effort: Effort, bare: f64) -> Result<Figure> {
        let mut rates = Vec::new();
        let count = effort.pick(4, 36);
        for _ in 0..3 {
            let dir = self.dir.clone();
            let room = count * LARGE_BYTES_MAX * usize::from(copies);
            let touched = tokio::task::spawn_blocking(move || local::touch_memory(&dir, room));
            touched.await.context("writing a file")??;
            rates.push(self.put_pictures(count, copies).await?);
        }
        Ok(Figure::new(name, "MiB/s", median(rates)).under("our bare stream", bare))
    }

    /// MiB/s of a client that puts so many pictures, as many at once as it may.
    async fn put_pictures(&mut self, count: usize, copies: u8) -> Result<f64> {
        let mut puts = Vec::new();
        for _ in 0..count {
            let index = self.stored.len() as u64;
            let picture = Picture { seed: self.seed, index, width: EDGE_PX, height: EDGE_PX };
            let png = tokio::task::spawn_blocking(move || picture.png()).await.context("making a picture")?;
            puts.push(memory_put(picture.name(), png, copies));
            self.stored.push(picture);
        }
        let started = Instant::now();
        let all = stream::iter(puts).map(|put| self.vault.put(put, &|_| ()));
        let done = all.buffer_unordered(TRANSFERS_MAX).try_collect::<Vec<_>>().await?;
        let bytes: u64 = done.iter().map(|done| done.bytes).sum();
        Ok(bytes as f64 / MIB / started.elapsed().as_secs_f64())
    }

    async fn get(&mut self, effort: Effort, bare: f64) -> Result<Figure> {
        let count = effort.pick(4, 12);
        while self.stored.len() < count {
            self.put_pictures(TRANSFERS_MAX, 3).await?;
        }
        let mut rates = Vec::new();
        for round in 0..3 {
            let pictures = (0..count).map(|at| self.stored[(round * count + at) % self.stored.len()]);
            let started = Instant::now();
            let all = stream::iter(pictures).map(|picture| self.get_one(picture.name()));
            let bytes: u64 =
                all.buffer_unordered(TRANSFERS_MAX).try_collect::<Vec<u64>>().await?.iter().sum();
            rates.push(bytes as f64 / MIB / started.elapsed().as_secs_f64());
        }
        Ok(Figure::new("get", "MiB/s", median(rates)).under("our bare stream", bare))
    }

    async fn get_one(&self, name: String) -> Result<u64> {
        let get = Get { name, version: None, any: false };
        Ok(self.vault.get_to_writer(get, &mut std::io::sink(), &|_| ()).await?.bytes)
    }

    /// First writes, each sent to its home: a signed register and nothing else.
    async fn commits(&mut self, effort: Effort) -> Result<Figure> {
        let clients = self.committers().await?;
        let members = self.members().await?;
        let count = effort.pick(1280, 6400);
        let mut rates = Vec::new();
        for _ in 0..effort.pick(3, 5) {
            let first = self.made;
            self.made += count;
            let signing = tokio::task::spawn_blocking(move || signed(first, count));
            let values = signing.await.context("signing")??;
            let sends: Vec<(PeerId, Vec<u8>)> =
                values.iter().map(|value| proposal(&members, value)).collect::<Result<_>>()?;
            let started = Instant::now();
            // Each client with its share: with a slow home all of them may wait for the same node.
            let shares = sends.chunks(count.div_ceil(clients.len())).zip(&clients).map(|(share, client)| {
                let all = stream::iter(share).map(|(home, request)| propose(client, *home, request.clone()));
                all.buffer_unordered(group_commit::CALLERS / COMMITTERS).try_collect::<Vec<()>>()
            });
            future::try_join_all(shares).await?;
            rates.push(count as f64 / started.elapsed().as_secs_f64());
        }
        let dir = self.dir.clone();
        let ceiling = tokio::task::spawn_blocking(move || group_commit::ceiling(&dir, Work::Commit, effort));
        let ceiling = ceiling.await.context("measuring group commit")??;
        Ok(Figure::new("commits", "1/s", median(rates)).under("group commit", ceiling))
    }

    async fn committers(&self) -> Result<Vec<Wire>> {
        let mut clients = Vec::new();
        for _ in 0..COMMITTERS {
            let client = Wire::dialing(&self.key, self.addrs.clone()).await?;
            client.connected(NODES).await?;
            clients.push(client);
        }
        Ok(clients)
    }

    async fn members(&self) -> Result<Vec<Weighted>> {
        let nodes = self.vault.status().await?.info.nodes;
        Ok(nodes.iter().map(|n| Weighted { peer: n.peer, weight: 1 }).collect())
    }
}

fn memory_put(name: String, bytes: Vec<u8>, copies: u8) -> Put {
    Put {
        source: Source::Memory(Arc::from(bytes)),
        name,
        force: false,
        if_version: None,
        copies,
        thumbnail: false,
    }
}

/// Values of version 1 that point to no manifest, so that nothing but the register is stored.
fn signed(first: usize, count: usize) -> Result<Vec<VerifiedRegister>> {
    let keys = UserKeys::derive(&UserSecret::from_random(Zeroizing::new(rand::random())));
    let mut values = Vec::with_capacity(count);
    for number in first..first + count {
        let info = ObjectInfo {
            name: ObjectName::parse(&format!("bench/commit/{number}"))?,
            media_type: MediaType::octet_stream(),
            bytes: 0,
            unix_ms: 0,
            thumbnail: None,
        };
        let plan = RegisterPlan {
            info: &info,
            version: 1,
            previous: Digest::ZERO,
            manifest: None,
            tombstone: true,
            fence: 0,
            requests: vec![RequestId(rand::random())],
        };
        values.push(register::sign(&keys, &plan)?);
    }
    Ok(values)
}

/// Where a value is proposed, and the question.
fn proposal(members: &[Weighted], value: &VerifiedRegister) -> Result<(PeerId, Vec<u8>)> {
    let keepers = placement::keepers(Epoch::FOUNDING, members, HashSlot::of(&value.object));
    let home = placement::home(Epoch::FOUNDING, &keepers.acceptors, &value.object);
    let home = home.context("the cluster has no members")?;
    Ok((home, Request::Propose { value: value.to_raw() }.encode()))
}

async fn propose(client: &Wire, home: PeerId, request: Vec<u8>) -> Result<()> {
    let answer = client.net.request(home, request, CLIENT_PATIENCE.into()).await?;
    match Response::decode(&answer)? {
        Response::Committed(_) => Ok(()),
        other => bail!("a node did not commit: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_values_are_first_versions_of_different_objects() {
        let values = signed(0, 3).unwrap();
        let objects: std::collections::BTreeSet<_> = values.iter().map(|value| value.object).collect();
        assert_eq!(objects.len(), 3);
        assert!(values.iter().all(|value| value.version == 1 && value.manifest.is_none()));
    }

    #[test]
    fn a_value_is_proposed_at_a_member() {
        let peers: Vec<PeerId> =
            (0..3).map(|_| libp2p_identity::Keypair::generate_ed25519().public().to_peer_id()).collect();
        let members: Vec<Weighted> = peers.iter().map(|peer| Weighted { peer: *peer, weight: 1 }).collect();
        let value = signed(0, 1).unwrap().remove(0);
        let (home, request) = proposal(&members, &value).unwrap();
        assert!(peers.contains(&home));
        assert_eq!(Request::decode(&request), Ok(Request::Propose { value: value.to_raw() }));
        assert!(proposal(&[], &value).is_err());
    }

    #[test]
    fn the_large_picture_has_thirty_megabytes() {
        let picture = Picture { seed: 1, index: 0, width: EDGE_PX, height: EDGE_PX };
        assert_eq!(picture.png_bytes() / 1_000_000, 30);
    }
}
