//! `bench --profile`: what a byte costs in processor time, and where: the client and three nodes, each a
//! process, put and get pictures, and every second of their time is told by room.
//!
//! The totals are the system's own count and exact. The split is a sample; how much of the total it has seen
//! stands beside it. Linux only.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::{
    Effort,
    clients::{self, Clients},
    cpu,
    load::{Load, Way},
    perf::{Perf, Recorded, SAMPLES_PER_S},
    symbols,
};
use crate::cli::{context::Context, demo::nodes::Nodes, text};

const NODES: usize = 3;
/// An edge of the pictures: 30 MB of noise as PNG.
const EDGE_PX: u32 = 3162;
const GIB: f64 = (1u64 << 30) as f64;
/// Nodes that used less than this in [`REST_LOOK`] are at rest: what is to be forwarded was forwarded.
const REST_S: f64 = 0.03;
const REST_LOOK: Duration = Duration::from_millis(300);
const REST_TIMEOUT: Duration = Duration::from_secs(60);
/// Samples that stand for so much less or more than the exact time are worth a word.
const SAMPLED_OFF_MAX: f64 = 0.1;

const HEAD: [&str; 4] = ["work", "room", "client s/GiB", "nodes s/GiB"];
const TOTAL: &str = "total";
const SAMPLED: &str = "sampled in all";

/// What is done, and its name.
struct Work {
    name: &'static str,
    load: Load,
    /// Which of the client's homes: a get reads what the put of the same home has put.
    home: &'static str,
}

/// One room of one process for one work. The names of its fields are a promise of `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    name: &'static str,
    work: &'static str,
    process: &'static str,
    room: String,
    cpu_s_per_gib: f64,
}

/// Seconds by room, and in all.
#[derive(Debug, Default, PartialEq)]
struct Cost {
    total_s: f64,
    rooms: BTreeMap<String, f64>,
}

/// The processes of one work.
struct Processes {
    client: Vec<u32>,
    nodes: Vec<u32>,
}

impl Processes {
    fn all(&self) -> Vec<u32> {
        [self.client.as_slice(), &self.nodes].concat()
    }
}

/// Measures in `dir`, and prints the table or one JSON object a line.
pub(super) async fn run(dir: &Path, effort: Effort, context: &Context) -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("only Linux tells what a process costs in the way that this reads");
    }
    let (mut nodes, like) = Nodes::prepare(&std::env::current_exe()?, dir, NODES)?;
    nodes.start_all()?;
    let mut rows = Vec::new();
    for work in works(effort.pick(6, 20) as u64) {
        context.output.talk(&format!("measuring {}", work.name));
        rows.extend(measure(&work, &nodes, dir, &like, context).await?);
    }
    if context.output.json() {
        rows.iter().try_for_each(|row| context.output.object(row))?;
    } else {
        context.output.lines(text::table(&HEAD, &table(&rows)))?;
    }
    Ok(())
}

fn works(count: u64) -> [Work; 3] {
    let load = |way, seed, copies| Load { way, seed, count, edge_px: EDGE_PX, copies };
    [
        Work { name: "put-1-copy", load: load(Way::Put, 1, 1), home: "client-1" },
        Work { name: "put-3-copies", load: load(Way::Put, 2, 3), home: "client-2" },
        Work { name: "get", load: load(Way::Get, 2, 3), home: "client-2" },
    ]
}

async fn measure(work: &Work, nodes: &Nodes, dir: &Path, like: &Path, context: &Context) -> Result<Vec<Row>> {
    let home = dir.join(work.home);
    clients::make_home(&home, like)?;
    let mut clients = Clients::start(&[(home, work.load)], &nodes.addresses()).await?;
    let running = (0..nodes.all.len()).filter_map(|node| nodes.pid(node));
    let processes = Processes { client: clients.pids(), nodes: running.collect() };
    until_at_rest(&processes.nodes).await?;
    let perf = Perf::prepare(dir, &processes.all()).await;
    let mut perf = match perf {
        Ok(perf) => Some(perf),
        Err(error) => {
            context.output.warn(&format!("{error:#}. What follows is split by thread."));
            None
        }
    };
    if let Some(perf) = &mut perf {
        perf.begin().await?;
    }
    let before = Seen::now(&processes)?;
    let done = clients.work().await?.remove(0).done;
    until_at_rest(&processes.nodes).await?;
    let after = Seen::now(&processes)?;
    let recorded = match perf {
        Some(perf) => Some(perf.end().await?),
        None => None,
    };
    clients.end().await?;
    if let Some(sentence) = done.failed.first() {
        bail!("a picture failed: {sentence}");
    }
    let costs = match &recorded {
        Some(recorded) => [
            sampled(after.client_s - before.client_s, recorded, &processes.client),
            sampled(after.nodes_s - before.nodes_s, recorded, &processes.nodes),
        ],
        None => by_thread(&before, &after),
    };
    if let Some(recorded) = &recorded {
        tell_sampled(work, recorded, &costs, context);
    }
    Ok(rows(work, &costs, done.bytes as f64 / GIB))
}

/// Waits until the nodes have nothing left to do.
async fn until_at_rest(nodes: &[u32]) -> Result<()> {
    let began = Instant::now();
    let mut before = cpu::of_processes(nodes)?;
    while began.elapsed() < REST_TIMEOUT {
        tokio::time::sleep(REST_LOOK).await;
        let now = cpu::of_processes(nodes)?;
        if now - before <= REST_S {
            return Ok(());
        }
        before = now;
    }
    bail!("the nodes did not come to rest")
}

/// What the processes have cost so far.
struct Seen {
    client_s: f64,
    nodes_s: f64,
    client_threads: BTreeMap<String, f64>,
    nodes_threads: BTreeMap<String, f64>,
}

impl Seen {
    fn now(processes: &Processes) -> Result<Self> {
        Ok(Self {
            client_s: cpu::of_processes(&processes.client).context("the client")?,
            nodes_s: cpu::of_processes(&processes.nodes).context("the nodes")?,
            client_threads: cpu::by_thread(&processes.client)?,
            nodes_threads: cpu::by_thread(&processes.nodes)?,
        })
    }
}

fn by_thread(before: &Seen, after: &Seen) -> [Cost; 2] {
    let cost = |total_s: f64, before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>| {
        let since = |(name, s): (&String, &f64)| {
            let s = s - before.get(name).copied().unwrap_or(0.0);
            (s > 0.0).then(|| (format!("thread {name}"), s))
        };
        let mut rooms: BTreeMap<String, f64> = after.iter().filter_map(since).collect();
        let ended_s = total_s - rooms.values().sum::<f64>();
        rooms.insert("threads that have ended".into(), ended_s.max(0.0));
        Cost { total_s, rooms }
    };
    [
        cost(after.client_s - before.client_s, &before.client_threads, &after.client_threads),
        cost(after.nodes_s - before.nodes_s, &before.nodes_threads, &after.nodes_threads),
    ]
}

fn sampled(total_s: f64, recorded: &Recorded, pids: &[u32]) -> Cost {
    let mut rooms = BTreeMap::new();
    let mut sampled_s = 0.0;
    for sample in recorded.samples.iter().filter(|sample| pids.contains(&sample.pid)) {
        let room = symbols::room(&sample.symbol, &sample.object).to_owned();
        *rooms.entry(room).or_insert(0.0) += 1.0 / SAMPLES_PER_S;
        sampled_s += 1.0 / SAMPLES_PER_S;
    }
    rooms.insert(SAMPLED.into(), sampled_s);
    Cost { total_s, rooms }
}

/// How much of the exact time the samples stand for.
fn tell_sampled(work: &Work, recorded: &Recorded, costs: &[Cost; 2], context: &Context) {
    let total_s: f64 = costs.iter().map(|cost| cost.total_s).sum();
    let sampled_s: f64 = costs.iter().filter_map(|cost| cost.rooms.get(SAMPLED)).sum();
    let part = sampled_s / total_s;
    let sentence = format!(
        "{}: {} samples stand for {sampled_s:.2} s of {total_s:.2} s ({:.0} %); {} lost, {} not understood",
        work.name,
        recorded.samples.len(),
        part * 100.0,
        recorded.losses,
        recorded.unread,
    );
    context.output.warn(&sentence);
    if (part - 1.0).abs() > SAMPLED_OFF_MAX || recorded.losses + recorded.unread > 0 {
        context.output.warn("the rooms are less sure than they should be: the samples miss a part");
    }
}

fn rows(work: &Work, [client, nodes]: &[Cost; 2], gib: f64) -> Vec<Row> {
    let mut all = Vec::new();
    for (process, cost) in [("client", client), ("nodes", nodes)] {
        let total = (TOTAL.to_owned(), cost.total_s);
        let rooms = cost.rooms.iter().map(|(room, s)| (room.clone(), *s));
        all.extend(std::iter::once(total).chain(rooms).map(|(room, s)| Row {
            name: "profile",
            work: work.name,
            process,
            room,
            cpu_s_per_gib: s / gib,
        }));
    }
    all
}

/// Rooms as rows, dearest first, the totals in front of them.
fn table(rows: &[Row]) -> Vec<Vec<String>> {
    let mut lines: Vec<(usize, f64, Vec<String>)> = Vec::new();
    let mut works: Vec<&str> = rows.iter().map(|row| row.work).collect();
    works.dedup();
    for (at, work) in works.into_iter().enumerate() {
        let of_work = || rows.iter().filter(move |row| row.work == work);
        let rooms: BTreeSet<&str> = of_work().map(|row| row.room.as_str()).collect();
        for room in rooms {
            let cost = |process: &str| {
                let mut found = of_work().filter(|row| row.room == room && row.process == process);
                found.next().map_or(0.0, |row| row.cpu_s_per_gib)
            };
            let (client, nodes) = (cost("client"), cost("nodes"));
            let weight = match room {
                TOTAL => f64::INFINITY,
                SAMPLED => f64::MAX,
                _ => client + nodes,
            };
            let cells = [work.to_owned(), room.to_owned(), format!("{client:.2}"), format!("{nodes:.2}")];
            lines.push((at, weight, cells.to_vec()));
        }
    }
    lines.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
    lines.into_iter().map(|(_, _, cells)| cells).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::perf::Sample;

    fn work() -> Work {
        let [_, work, _] = works(1);
        work
    }

    fn sample(pid: u32, symbol: &str) -> Sample {
        Sample { pid, symbol: symbol.into(), object: "tintype".into() }
    }

    #[test]
    fn samples_become_seconds_of_the_process_that_they_were_seen_in() {
        let mut samples = vec![sample(1, "blake3::hash"); 499];
        samples.extend(vec![sample(1, "who::knows"); 499]);
        samples.extend(vec![sample(2, "blake3::hash"); 998]);
        let recorded = Recorded { samples, ..Recorded::default() };
        let client = sampled(2.5, &recorded, &[1]);
        let rounded = |room: &str| (client.rooms[room] * 1000.0).round();
        assert_eq!(
            (rounded("hash"), rounded(symbols::UNCLASSIFIED), rounded(SAMPLED)),
            (1000.0, 1000.0, 2000.0)
        );
        assert_eq!(client.total_s, 2.5);
        assert_eq!(sampled(0.0, &recorded, &[3]).rooms[SAMPLED], 0.0);
    }

    #[test]
    fn threads_that_are_gone_are_counted_too() {
        let threads = |s: f64| BTreeMap::from([("net".to_owned(), s)]);
        let seen = |client_s, s| Seen {
            client_s,
            nodes_s: 0.0,
            client_threads: threads(s),
            nodes_threads: BTreeMap::new(),
        };
        let [client, _] = by_thread(&seen(1.0, 0.5), &seen(4.0, 2.5));
        assert_eq!(client.rooms["thread net"], 2.0);
        assert_eq!(client.rooms["threads that have ended"], 1.0);
    }

    #[test]
    fn json_has_the_promised_names_and_the_table_begins_with_the_total() {
        let cost = |total_s: f64, hash_s: f64| Cost {
            total_s,
            rooms: [("hash", hash_s), ("encrypt", 0.5), (SAMPLED, 1.0)]
                .map(|(r, s)| (r.to_owned(), s))
                .into(),
        };
        let rows = rows(&work(), &[cost(2.0, 1.0), cost(4.0, 3.0)], 2.0);
        let promised = concat!(
            r#"{"name":"profile","work":"put-3-copies","process":"client","#,
            r#""room":"total","cpu_s_per_gib":1.0}"#
        );
        assert_eq!(serde_json::to_string(&rows[0]).unwrap(), promised);
        let lines = table(&rows);
        let seen: Vec<String> = lines.iter().map(|cells| cells[1..].join(" ")).collect();
        assert_eq!(
            seen,
            ["total 1.00 2.00", "sampled in all 0.50 0.50", "hash 0.50 1.50", "encrypt 0.25 0.25"]
        );
        assert!(lines.iter().all(|cells| cells.len() == HEAD.len()));
    }

    #[test]
    fn a_get_reads_what_was_put() {
        let [one, three, get] = works(5);
        assert_eq!(Load { way: Way::Get, ..three.load }, get.load);
        assert_eq!(three.home, get.home);
        assert_ne!(one.load.seed, three.load.seed);
    }
}
