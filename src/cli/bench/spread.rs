//! How work is spread: 50 pictures of 7 to 37 MB from four clients at once, handed to three nodes on this
//! machine. Once all three are alike, and once one of them is to be spared.
//!
//! Each answer is read back; one that is lost or wrong ends the measurement. All nodes and the clients share
//! this machine, so the times say what it does, not what three machines would.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    Effort,
    figure::{Figure, median},
};
use crate::{
    api::{Connect, Vault, Work},
    cli::{
        demo::{nodes::Nodes, pictures::Picture},
        tasks::Workers,
    },
    client::hidden,
    model::task::{TaskId, TaskRecord},
    work::{Frames, Order, envelope::envelope, hide::read_back},
};

const NODES: usize = 3;
const CLIENTS: usize = 4;
/// The one that is spared.
const SPARED: usize = NODES - 1;
/// How much more load than it has the spared one tells.
const ADDED_POINTS: &str = "40";
/// How far a node's part may be from an equal share.
const UNEQUAL_MAX: f64 = 0.2;
const LEAST: &str = "the least it may be";
const MOST: &str = "the most it may be";
const ALIKE: &str = "the least with nodes alike";

/// What one round has shown.
struct Round {
    /// Seconds of each task, from the picture in the client's memory to the answer in it.
    tasks_s: Vec<f64>,
    all_s: f64,
    /// Of each node, in parts of an equal share.
    shares: Vec<f64>,
}

/// Times and shares with nodes that are alike, and the share of one that is spared.
pub(super) async fn measure(dir: &Path, effort: Effort) -> Result<Vec<Figure>> {
    let pictures = effort.pick(12, 50);
    let alike = round(&dir.join("spread"), pictures, None).await?;
    let spared = round(&dir.join("spread-spared"), pictures, Some(SPARED)).await?;
    let least = alike.shares.iter().copied().fold(f64::INFINITY, f64::min);
    let most = alike.shares.iter().copied().fold(0.0, f64::max);
    let worst = alike.tasks_s.iter().copied().fold(0.0, f64::max);
    Ok(vec![
        Figure::new("spread", "pictures/s", pictures as f64 / alike.all_s),
        Figure::new("spread-median", "s", median(alike.tasks_s)),
        Figure::new("spread-worst", "s", worst),
        Figure::new("spread-least", "of a share", least).under(LEAST, 1.0 - UNEQUAL_MAX),
        Figure::new("spread-most", "of a share", most).under(MOST, 1.0 + UNEQUAL_MAX),
        Figure::new("spread-spared", "of a share", spared.shares[SPARED]).under(ALIKE, least),
    ])
}

async fn round(dir: &Path, pictures: usize, spared: Option<usize>) -> Result<Round> {
    let (mut nodes, home) = Nodes::prepare(&std::env::current_exe()?, dir, NODES)?;
    if let Some(spared) = spared {
        nodes.all[spared].envs.push(("TINTYPE_TASKS_ADDED_LOAD".into(), ADDED_POINTS.into()));
    }
    nodes.start_all()?;
    let connect = || Connect { home: home.clone(), nodes: nodes.addresses(), ..Connect::default() };
    let mut vaults = Vec::new();
    for _ in 0..CLIENTS {
        let vault = Vault::open(connect()).await?;
        // Waits for a coordinator, too; it is not counted.
        one(&vault, Picture { seed: 1, index: 0, width: 64, height: 64 }).await?;
        vaults.push(vault);
    }
    let before: Vec<TaskId> = vaults[0].tasks().await?.iter().map(|record| record.task).collect();
    let began = Instant::now();
    let queue = stream::iter((0..pictures as u64).map(|index| Picture::new(1, index)));
    let queue = futures::lock::Mutex::new(queue);
    let clients = vaults.iter().map(|vault| async {
        let (mut tasks_s, mut records) = (Vec::new(), Vec::new());
        while let Some(picture) = { queue.lock().await.next().await } {
            tasks_s.push(one(vault, picture).await?);
            // They forget a task after a minute, and the whole may take longer.
            records.extend(vault.tasks().await?);
        }
        anyhow::Ok((tasks_s, records))
    });
    let done: Vec<(Vec<f64>, Vec<TaskRecord>)> =
        stream::iter(clients).buffer_unordered(CLIENTS).try_collect().await?;
    let all_s = began.elapsed().as_secs_f64();
    let (tasks_s, records): (Vec<_>, Vec<_>) = done.into_iter().unzip();
    let workers: BTreeMap<TaskId, TaskRecord> = records
        .concat()
        .into_iter()
        .filter(|record| !before.contains(&record.task))
        .map(|record| (record.task, record))
        .collect();
    ensure!(workers.len() == pictures, "{} of {pictures} tasks are known", workers.len());
    let members = Workers::of(&vaults[0]).await?;
    let peer = |record| members.of_record(record).map(|(peer, _)| peer.to_string());
    let workers: Vec<String> = workers.values().filter_map(peer).collect();
    let peers: Vec<String> = nodes.all.iter().map(|node| node.peer.clone()).collect();
    let shares = shares(&peers, &workers);
    for vault in vaults {
        vault.close().await;
    }
    drop(nodes);
    std::fs::remove_dir_all(dir)?;
    Ok(Round { tasks_s: tasks_s.concat(), all_s, shares })
}

/// Has a text hidden in this picture and reads it back; the answer is the seconds without reading back.
async fn one(vault: &Vault, picture: Picture) -> Result<f64> {
    let text = picture.name();
    let order = hidden::order(text.as_bytes(), None, Frames::Single);
    let prepare = move || (envelope(&order, &picture.png()), order);
    let (payload, order) = tokio::task::spawn_blocking(prepare).await?;
    let work = Work { kind: order.kind(), payload: Arc::new(payload), timeout: None, waited: Duration::ZERO };
    let began = Instant::now();
    let answer = vault.work(&work, &|_| ()).await.context("handing a picture to a node")?;
    let took = began.elapsed();
    let answer = answer.map_err(|sentence| anyhow!(sentence))?;
    let Order::Hide { layout, payload, .. } = order else { unreachable!("it was made just above") };
    tokio::task::spawn_blocking(move || read_back(&answer, &layout, &payload)).await??;
    Ok(took.as_secs_f64())
}

/// What each node did, in parts of an equal share.
fn shares(nodes: &[String], workers: &[String]) -> Vec<f64> {
    let equal = workers.len() as f64 / nodes.len() as f64;
    let count = |node| workers.iter().filter(|worker| *worker == node).count();
    nodes.iter().map(|node| count(node) as f64 / equal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_an_equal_share_and_whoever_did_nothing_has_none() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let nodes = names(&["a", "b", "c"]);
        assert_eq!(shares(&nodes, &names(&["c", "a", "b", "a", "b", "c"])), [1.0, 1.0, 1.0]);
        assert_eq!(shares(&nodes, &names(&["a", "b", "a"])), [2.0, 1.0, 0.0]);
    }
}
