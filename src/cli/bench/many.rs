//! Many clients that upload at once, each a process and a user of its own: what all of them get together,
//! whether each gets its share, what the nodes need for it, and whether a put fails.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{
    Effort, MIB,
    clients::{self, Clients, Finished},
    figure::{Figure, median},
    load::{Load, Way},
};
use crate::cli::demo::nodes::Nodes;

const CLIENTS: usize = 20;
/// An edge of their pictures: 8 MB of noise as PNG.
const EDGE_PX: u32 = 1632;
/// What the slowest client's rate shall not be under, in parts of the mean: nobody starves.
const FAIRNESS_MIN: f64 = 0.5;
/// What the streams may carry for each byte of picture: each is sent once.
const SENT_MAX: f64 = 1.03;
/// What a node's process may take in all.
const NODE_MIB_MAX: f64 = 200.0;

/// How many nodes, and the names of the figures.
pub(super) struct Shape {
    nodes: usize,
    rate: &'static str,
    fairness: &'static str,
    sent: &'static str,
    memory: &'static str,
    failed: &'static str,
}

/// Three nodes.
pub(super) const THREE: Shape = Shape {
    nodes: 3,
    rate: "many-3-nodes",
    fairness: "many-3-nodes-fairness",
    sent: "many-3-nodes-sent",
    memory: "many-3-nodes-memory",
    failed: "many-3-nodes-failed",
};

/// Ten nodes.
pub(super) const TEN: Shape = Shape {
    nodes: 10,
    rate: "many-10-nodes",
    fairness: "many-10-nodes-fairness",
    sent: "many-10-nodes-sent",
    memory: "many-10-nodes-memory",
    failed: "many-10-nodes-failed",
};

/// The figures, and a sentence for each put that failed.
pub(super) struct Measured {
    pub(super) figures: Vec<Figure>,
    pub(super) failed: Vec<String>,
}

/// What one round has shown.
#[derive(Debug, PartialEq)]
struct Round {
    /// MiB/s of all clients together, from the word to the last acknowledgement of all.
    rate: f64,
    /// The slowest client's rate in parts of the mean, each from the word to its own last acknowledgement.
    fairness: f64,
    /// Bytes that the clients' streams carried, for each byte of their pictures.
    sent: f64,
}

/// Measures in a folder of its own under `dir`, which is gone afterwards. `bare` is what one bare stream
/// carries, in MiB/s.
pub(super) async fn measure(shape: &Shape, dir: &Path, effort: Effort, bare: f64) -> Result<Measured> {
    let dir = dir.join(shape.rate);
    let (mut nodes, like) = Nodes::prepare(&std::env::current_exe()?, &dir, shape.nodes)?;
    nodes.start_all()?;
    let homes: Vec<PathBuf> = (1..=CLIENTS).map(|number| dir.join(format!("client-{number}"))).collect();
    homes.iter().try_for_each(|home| clients::make_home(home, &like))?;
    let (mut rounds, mut failed) = (Vec::new(), Vec::new());
    for round in 0..effort.pick(1, 2) {
        let loads = loads(&homes, round, effort.pick(4, 6));
        let mut clients = Clients::start(&loads, &nodes.addresses()).await?;
        let all = clients.work().await?;
        clients.end().await?;
        rounds.push(Round::of(&all));
        failed.extend(all.into_iter().flat_map(|finished| finished.done.failed));
    }
    let memory = (0..shape.nodes).filter_map(|node| nodes.memory_peak_bytes(node)).max();
    drop(nodes);
    std::fs::remove_dir_all(&dir)?;
    Ok(Measured { figures: figures(shape, &rounds, memory, failed.len(), bare), failed })
}

/// A seed for each client and round: nothing that one puts is what another puts.
fn loads(homes: &[PathBuf], round: usize, count: usize) -> Vec<(PathBuf, Load)> {
    let first = (round * homes.len()) as u64;
    let load = |seed| Load { way: Way::Put, seed, count: count as u64, edge_px: EDGE_PX, copies: 3 };
    homes.iter().zip(first..).map(|(home, seed)| (home.clone(), load(seed))).collect()
}

impl Round {
    fn of(all: &[Finished]) -> Self {
        let bytes: u64 = all.iter().map(|finished| finished.done.bytes).sum();
        let sent: u64 = all.iter().map(|finished| finished.done.sent).sum();
        let last_s = all.iter().map(|finished| finished.took.as_secs_f64()).fold(0.0, f64::max);
        let rates = all.iter().map(|finished| finished.done.bytes as f64 / finished.took.as_secs_f64());
        let mean = rates.clone().sum::<f64>() / all.len() as f64;
        Self {
            rate: bytes as f64 / MIB / last_s,
            fairness: rates.fold(f64::INFINITY, f64::min) / mean,
            sent: sent as f64 / bytes as f64,
        }
    }
}

/// `memory` is unknown where the system does not say.
fn figures(shape: &Shape, rounds: &[Round], memory: Option<u64>, failed: usize, bare: f64) -> Vec<Figure> {
    let rate = median(rounds.iter().map(|round| round.rate).collect());
    // Of several rounds the least fair one: a median would hide who starved.
    let fairness = rounds.iter().map(|round| round.fairness).fold(f64::INFINITY, f64::min);
    let sent = rounds.iter().map(|round| round.sent).fold(0.0, f64::max);
    let memory = memory.map(|bytes| bytes as f64 / MIB);
    let memory =
        memory.map(|mib| Figure::new(shape.memory, "MiB", mib).under("the most it may be", NODE_MIB_MAX));
    let mut figures = vec![
        Figure::new(shape.rate, "MiB/s", rate).under("our bare stream", bare),
        Figure::new(shape.fairness, "of the mean", fairness).under("the least it may be", FAIRNESS_MIN),
        Figure::new(shape.sent, "times", sent).under("the most it may be", SENT_MAX),
    ];
    figures.extend(memory);
    figures.push(Figure::new(shape.failed, "puts", failed as f64));
    figures
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;
    use crate::cli::bench::load::Done;

    fn finished(bytes: u64, s: u64) -> Finished {
        Finished { done: Done { bytes, sent: 2 * bytes, failed: Vec::new() }, took: Duration::from_secs(s) }
    }

    #[test]
    fn all_count_until_the_last_and_each_until_its_own_end() {
        let mib = MIB as u64;
        let round = Round::of(&[finished(8 * mib, 1), finished(8 * mib, 4), finished(8 * mib, 4)]);
        assert_eq!(round, Round { rate: 6.0, fairness: 0.5, sent: 2.0 });
        let starved = Round::of(&[finished(8 * mib, 1), finished(0, 1)]);
        assert_eq!(starved.fairness, 0.0);
    }

    #[test]
    fn the_worst_round_says_how_fair_it_is() {
        let round = |rate, fairness, sent| Round { rate, fairness, sent };
        let rounds = [round(1.0, 0.9, 2.06), round(3.0, 0.4, 1.0)];
        let rows = figures(&THREE, &rounds, Some(50 << 20), 2, 4.0);
        let seen: Vec<(&str, f64, Option<f64>)> =
            rows.iter().map(|row| (row.name, row.value, row.ratio)).collect();
        let expected = [
            ("many-3-nodes", 2.0, Some(0.5)),
            ("many-3-nodes-fairness", 0.4, Some(0.8)),
            ("many-3-nodes-sent", 2.06, Some(2.0)),
            ("many-3-nodes-memory", 50.0, Some(0.25)),
            ("many-3-nodes-failed", 2.0, None),
        ];
        assert_eq!(seen, expected);
        assert_eq!(figures(&TEN, &rounds, None, 0, 4.0).len(), 4);
    }

    #[test]
    fn no_client_puts_what_another_puts_in_any_round() {
        let homes: Vec<PathBuf> = (0..CLIENTS).map(|number| PathBuf::from(number.to_string())).collect();
        let all = [loads(&homes, 0, 4), loads(&homes, 1, 4)].concat();
        let seeds: BTreeSet<u64> = all.iter().map(|(_, load)| load.seed).collect();
        assert_eq!(seeds.len(), 2 * CLIENTS);
    }
}
