//! How long a task takes whose coordinator or worker is killed in the middle: five nodes on this machine, of
//! which one or two get SIGKILL at a time.
//!
//! Each task's answer is read back; one that is lost or wrong ends the measurement. A client that is already
//! connected asks, so no start of a program is in the figures.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

use super::{
    Effort,
    figure::{Figure, median},
    hide,
};
use crate::{
    api::{Connect, Vault, Work},
    cli::{demo::nodes::Nodes, tasks::Workers},
    model::task::Phase,
    work::{Order, envelope::envelope, hide::read_back},
};

/// Two of them may be gone, and more than half are left.
const NODES: usize = 5;
/// How long the nodes may take to be whole again after a kill, and a task to get to a worker.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const ALONE: &str = "the same, nobody killed";

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victims {
    Nobody,
    /// At the moment at which the task is submitted.
    Coordinator,
    /// While it works.
    Worker,
    /// While the one works; it is not the other.
    Both,
}

/// Seconds from the kill to the answer: the median and the worst, of each kind of victim.
pub(super) async fn measure(dir: &Path, effort: Effort) -> Result<Vec<Figure>> {
    let dir = dir.join("failover");
    let mut scene = Scene::start(&dir).await?;
    let alone = median(scene.rounds(Victims::Nobody, effort.pick(3, 10)).await?);
    let mut figures = Vec::new();
    for (victims, names, rounds) in [
        (Victims::Coordinator, ["coordinator-killed", "coordinator-killed-worst"], effort.pick(3, 20)),
        (Victims::Worker, ["worker-killed", "worker-killed-worst"], effort.pick(2, 10)),
        (Victims::Both, ["both-killed", "both-killed-worst"], effort.pick(2, 10)),
    ] {
        let took = scene.rounds(victims, rounds).await?;
        let worst = took.iter().copied().fold(0.0, f64::max);
        let values = [median(took), worst];
        figures
            .extend(names.into_iter().zip(values).map(|(n, v)| Figure::new(n, "s", v).under(ALONE, alone)));
    }
    scene.vault.close().await;
    drop(scene.nodes);
    std::fs::remove_dir_all(dir)?;
    Ok(figures)
}

struct Scene {
    nodes: Nodes,
    vault: Vault,
    order: Order,
    work: Work,
}

impl Scene {
    async fn start(dir: &Path) -> Result<Self> {
        let (mut nodes, home) = Nodes::prepare(&std::env::current_exe()?, dir, NODES)?;
        nodes.start_all()?;
        let vault = Vault::open(Connect { home, nodes: nodes.addresses(), ..Connect::default() }).await?;
        let (picture, order) = tokio::task::spawn_blocking(hide::short_text).await??;
        let payload = Arc::new(envelope(&order, &picture));
        let work = Work { kind: order.kind(), payload, timeout: Some(PATIENCE), waited: Duration::ZERO };
        Ok(Self { nodes, vault, order, work })
    }

    /// The seconds of each round.
    async fn rounds(&mut self, victims: Victims, rounds: usize) -> Result<Vec<f64>> {
        let mut took = Vec::new();
        for _ in 0..2 * rounds {
            let round = self.round(victims).await.with_context(|| format!("{victims:?} killed"))?;
            took.extend(round);
            if took.len() == rounds {
                return Ok(took);
            }
        }
        bail!("most tasks were done before anybody could be killed")
    }

    /// None if the task was done before its worker could be killed.
    async fn round(&mut self, victims: Victims) -> Result<Option<f64>> {
        let coordinator = self.coordinator().await?;
        let began = Instant::now();
        let mut working = Box::pin(self.vault.work(&self.work, &|_| ()));
        let mut killed = Vec::new();
        let mut kill = |nodes: &mut Nodes, victim: usize| {
            killed.push(victim);
            nodes.kill(victim)
        };
        let mut since = began;
        let answered = match victims {
            Victims::Nobody => working.await,
            Victims::Coordinator => {
                kill(&mut self.nodes, coordinator)?;
                working.await
            }
            Victims::Worker | Victims::Both => {
                let worker = tokio::select! {
                    answered = &mut working => {
                        answered?.map_err(|sentence| anyhow!(sentence))?;
                        return Ok(None);
                    }
                    worker = worker(&self.vault, &self.nodes) => worker?,
                };
                if victims == Victims::Both {
                    // Where one machine is both, another one's death changes nothing: it is one death then.
                    kill(&mut self.nodes, coordinator)?;
                }
                if victims == Victims::Worker || worker != coordinator {
                    kill(&mut self.nodes, worker)?;
                }
                since = Instant::now();
                working.await
            }
        };
        let took = since.elapsed();
        let picture = answered?.map_err(|sentence| anyhow!(sentence))?;
        self.check(picture).await?;
        for victim in killed {
            self.nodes.restart(victim)?;
        }
        Ok(Some(took.as_secs_f64()))
    }

    async fn check(&self, picture: Vec<u8>) -> Result<()> {
        let Order::Hide { layout, payload, .. } = self.order.clone() else { bail!("not what was ordered") };
        tokio::task::spawn_blocking(move || read_back(&picture, &layout, &payload)).await??;
        Ok(())
    }

    /// Which node hands out tasks, once all are there.
    async fn coordinator(&self) -> Result<usize> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Ok(status) = self.vault.status().await
                && let Some(coordinator) = status.info.coordinator
                && status.nodes_alive == NODES as u64
            {
                return index_of(&self.nodes, &coordinator.to_string());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("the nodes are not whole again after {} s", PATIENCE.as_secs())
    }
}

/// Which node works on the only task that has not ended.
async fn worker(vault: &Vault, nodes: &Nodes) -> Result<usize> {
    loop {
        let tasks = vault.tasks().await?;
        if let Some(task) = tasks.iter().find(|task| task.phase == Phase::Started) {
            let workers = Workers::of(vault).await?;
            let (peer, _) = workers.of_record(task).context("a worker that is no member")?;
            return index_of(nodes, &peer.to_string());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn index_of(nodes: &Nodes, peer: &str) -> Result<usize> {
    nodes.all.iter().position(|node| node.peer == peer).context("a node that was not started here")
}
