//! Hiding by nodes: large pictures handed to one node, and to three, over connections.
//!
//! All nodes and the client share this machine, so three nodes have no more processors than one: what it
//! shows is what the way there and back costs, and that three do not get in each other's way.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    Effort,
    figure::{Figure, median},
    hide,
};
use crate::{
    api::{Connect, Vault, Work},
    cli::demo::nodes::Nodes,
    work::{Order, envelope::envelope},
};

/// Tasks under way at once: enough for every slot of three nodes on a machine with a few processors.
const AT_ONCE: usize = 8;

/// Pictures a second by one node and by three. `ceiling` is what one processor decodes and encodes.
pub(super) async fn measure(dir: &Path, effort: Effort, ceiling: f64) -> Result<Vec<Figure>> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (picture, order) = tokio::task::spawn_blocking(hide::short_text).await??;
    let payload = Arc::new(envelope(&order, &picture));
    let mut figures = Vec::new();
    for (name, nodes) in [("hide-1-node", 1), ("hide-3-nodes", 3)] {
        let rate = with_nodes(nodes, &dir.join(name), effort, &order, &payload).await?;
        let ceiling = ceiling * processors as f64;
        figures.push(Figure::new(name, "pictures/s", rate).under("the same on every processor", ceiling));
    }
    Ok(figures)
}

async fn with_nodes(
    count: usize,
    dir: &Path,
    effort: Effort,
    order: &Order,
    payload: &Arc<Vec<u8>>,
) -> Result<f64> {
    let (mut nodes, home) = Nodes::prepare(&std::env::current_exe()?, dir, count)?;
    nodes.start_all()?;
    let vault = Vault::open(Connect { home, nodes: nodes.addresses(), ..Connect::default() }).await?;
    // The first one waits for a coordinator, too.
    one(&vault, order, payload).await?;
    let tasks = effort.pick(AT_ONCE, 3 * AT_ONCE);
    let mut rates = Vec::new();
    for _ in 0..effort.pick(2, 5) {
        let started = Instant::now();
        let all = stream::iter(0..tasks).map(|_| one(&vault, order, payload));
        all.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        rates.push(tasks as f64 / started.elapsed().as_secs_f64());
    }
    vault.close().await;
    drop(nodes);
    std::fs::remove_dir_all(dir)?;
    Ok(median(rates))
}

async fn one(vault: &Vault, order: &Order, payload: &Arc<Vec<u8>>) -> Result<()> {
    let work =
        Work { kind: order.kind(), payload: Arc::clone(payload), timeout: None, waited: Duration::ZERO };
    let answer = vault.work(&work, &|_| ()).await.context("handing a picture to a node")?;
    answer.map(drop).map_err(|sentence| anyhow!(sentence))
}
