//! The founding with real processes: N nodes become one cluster or none, whatever dies on the way.
//!
//! Times are printed (`--nocapture`), and asserted only as far as a busy machine can be trusted with them.

use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use tintype::{
    api::{Connect, Status, Vault},
    cli::demo::nodes::Lines,
    model::{FoundingId, PeerId},
};

use crate::cluster::{Cluster, PROGRAM, finish, noise, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);

/// Nodes that were started and are looked at while they found.
struct Started {
    lines: Vec<Option<Lines>>,
    ready: Vec<bool>,
}

impl Started {
    /// Starts these nodes and waits for nothing.
    fn all(cluster: &mut Cluster, which: &[usize]) -> Self {
        let count = cluster.nodes.all.len();
        let mut started = Self { lines: (0..count).map(|_| None).collect(), ready: vec![false; count] };
        which.iter().for_each(|index| started.one(cluster, *index));
        started
    }

    fn one(&mut self, cluster: &mut Cluster, index: usize) {
        self.ready[index] = false;
        self.lines[index] = Some(cluster.nodes.spawn(index).expect("it starts"));
    }

    /// Which are ready by now.
    fn ready(&mut self) -> Vec<usize> {
        for (index, lines) in self.lines.iter().enumerate() {
            let Some(lines) = lines else { continue };
            self.ready[index] |= lines.try_iter().any(|line| line.starts_with("ready "));
        }
        (0..self.ready.len()).filter(|index| self.ready[*index]).collect()
    }

    #[track_caller]
    fn wait_ready(&mut self, cluster: &Cluster, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.ready().len() < count {
            let logs =
                || (0..self.ready.len()).map(|i| cluster.nodes.log(i)).collect::<Vec<_>>().join("\n--\n");
            assert!(Instant::now() < deadline, "only {:?} became ready:\n{}", self.ready, logs());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What one node alone says of the cluster; none if it does not answer.
pub fn status_of(cluster: &Cluster, index: usize) -> Option<Status> {
    let connect = Connect {
        home: cluster.client.clone(),
        nodes: vec![cluster.nodes.all[index].addr.clone()],
        ..Connect::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let vault = Vault::open(connect).await.ok()?;
        let status = vault.status().await.ok();
        vault.close().await;
        status
    })
}

fn founding_of(cluster: &Cluster, index: usize) -> Option<FoundingId> {
    status_of(cluster, index)?.info.founding
}

/// What `tintype status` prints when it is asked of one node alone.
fn words_of(cluster: &Cluster, index: usize) -> String {
    let addr = &cluster.nodes.all[index].addr;
    let mut status = Command::new(PROGRAM);
    status.args(["status", "--node", addr, "--home"]).arg(&cluster.client);
    let answer = finish(&mut status);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    answer.stdout
}

/// Waits until `tintype status` of one node says this.
#[track_caller]
fn wait_for_words(cluster: &Cluster, index: usize, words: &str) {
    let mut last = String::new();
    let deadline = Instant::now() + PATIENCE;
    while !last.contains(words) {
        assert!(Instant::now() < deadline, "node {index} never said {words:?}, but {last}");
        last = words_of(cluster, index);
    }
}

/// The founding that all these nodes know; it must be the same one.
#[track_caller]
fn the_one_founding(cluster: &Cluster, which: &[usize]) -> FoundingId {
    let all: BTreeSet<Option<FoundingId>> = which.iter().map(|index| founding_of(cluster, *index)).collect();
    match (all.len(), all.first()) {
        (1, Some(Some(id))) => *id,
        _ => panic!("not one founding: {all:?}"),
    }
}

/// Makes the identities of all nodes; their indices by PeerId: the first is the one that proposes.
fn by_peer(cluster: &mut Cluster) -> Vec<usize> {
    let mut peers: Vec<(PeerId, usize)> = Vec::new();
    for (index, node) in cluster.nodes.all.iter_mut().enumerate() {
        let mut init = Command::new(PROGRAM);
        let answer = finish(init.args(["init", "--json", "--quiet", "--home"]).arg(&node.home));
        let said: serde_json::Value = serde_json::from_str(&answer.stdout).expect("JSON");
        node.peer = said["peer"].as_str().expect("a PeerId").to_owned();
        peers.push((node.peer.parse().expect("a PeerId"), index));
    }
    peers.sort();
    peers.into_iter().map(|(_, index)| index).collect()
}

// ---- in order ----

#[test]
fn three_that_start_together_are_one_cluster_soon() {
    let mut cluster = Cluster::prepare(3);
    let mut started = Started::all(&mut cluster, &[0, 1, 2]);
    let since = Instant::now();
    started.wait_ready(&cluster, 3);
    let took = since.elapsed();
    println!("three nodes are ready {} ms after the last start", took.as_millis());
    assert!(took < Duration::from_secs(10), "{took:?}");
    the_one_founding(&cluster, &[0, 1, 2]);
    for index in 0..3 {
        let log = cluster.nodes.log(index);
        let peer = status_of(&cluster, index).expect("it answers").info.peer.to_string();
        assert!(!log.contains(&format!("waiting for {peer}")), "it waits for itself: {log}");
    }
}

#[test]
fn of_four_that_expect_three_one_is_left_out_and_says_so() {
    let mut cluster = Cluster::prepare(4);
    cluster.nodes.expect = 3;
    let mut started = Started::all(&mut cluster, &[0, 1, 2, 3]);
    started.wait_ready(&cluster, 3);
    let members = started.ready();
    let out = (0..4).find(|index| !members.contains(index)).expect("three of four are in");
    the_one_founding(&cluster, &members);
    wait_for_words(&cluster, out, "this node is not in it");
    assert!(cluster.nodes.log(out).contains("this node is not in it"), "{}", cluster.nodes.log(out));
    let put = {
        let file = cluster.file("x.bin", b"x");
        let mut put = Command::new(PROGRAM);
        put.arg("put").arg(file).args(["--node", &cluster.nodes.all[out].addr, "--home"]);
        finish(put.arg(&cluster.client))
    };
    assert_eq!(put.code, Some(5), "it serves nothing: {put:?}");
    assert!(put.stderr.contains("not in it"), "{put:?}");
    // It remembers that over a start, and still founds nothing, not even alone.
    cluster.nodes.kill(out).expect("killed");
    cluster.nodes.expect = 1;
    let mut again = Started::all(&mut cluster, &[out]);
    wait_for_words(&cluster, out, "this node is not in it");
    assert!(again.ready().is_empty() && founding_of(&cluster, out).is_none());
}

#[test]
fn a_set_that_is_not_complete_waits_and_says_for_whom() {
    let mut cluster = Cluster::prepare(3);
    let order = by_peer(&mut cluster);
    let (first, last) = ([order[0], order[1]], order[2]);
    let mut started = Started::all(&mut cluster, &first);
    for index in first {
        wait_for_words(&cluster, index, "Waiting for 1 more of 3 nodes");
        let words = words_of(&cluster, index);
        let here = words.lines().next().expect("a sentence");
        for other in first {
            let peer = &cluster.nodes.all[other].peer;
            assert!(here.contains(peer.as_str()), "{peer} is here: {here}");
        }
    }
    let put = cluster.run(&["put", cluster.file("x.bin", b"x").to_str().expect("a plain path")]);
    assert_eq!(put.code, Some(5), "{put:?}");
    assert!(started.ready().is_empty());
    started.one(&mut cluster, last);
    started.wait_ready(&cluster, 3);
    the_one_founding(&cluster, &[0, 1, 2]);
}

#[test]
fn different_expectations_are_named() {
    let mut cluster = Cluster::prepare(2);
    cluster.nodes.expect = 2;
    let mut started = Started::all(&mut cluster, &[0]);
    cluster.nodes.expect = 3;
    started.one(&mut cluster, 1);
    wait_for_words(&cluster, 0, "was started with --expect 3, this node with --expect 2");
    wait_for_words(&cluster, 1, "was started with --expect 2, this node with --expect 3");
    assert!(started.ready().is_empty());
    cluster.nodes.kill(1).expect("killed");
    cluster.nodes.expect = 2;
    started.one(&mut cluster, 1);
    started.wait_ready(&cluster, 2);
    the_one_founding(&cluster, &[0, 1]);
}

#[test]
fn one_alone_founds_at_once_and_with_an_old_key_looks_first() {
    let mut cluster = Cluster::prepare(1);
    let since = Instant::now();
    let mut started = Started::all(&mut cluster, &[0]);
    started.wait_ready(&cluster, 1);
    let looked = since.elapsed();
    assert!(looked >= Duration::from_secs(3), "it must look for others first: {looked:?}");
    let log = cluster.nodes.log(0);
    assert!(!log.contains("Voted") && !log.contains("votes"), "nobody else is needed: {log}");

    let mut fresh = Cluster::prepare(1);
    std::fs::remove_dir_all(fresh.nodes.all[0].home.join("keys")).expect("removed");
    let since = Instant::now();
    let mut started = Started::all(&mut fresh, &[0]);
    started.wait_ready(&fresh, 1);
    println!(
        "alone: ready after {} ms, with an old key after {} ms",
        since.elapsed().as_millis(),
        looked.as_millis()
    );
    assert!(since.elapsed() < looked, "nobody can have a key that is made just now");
}

#[test]
fn two_that_expect_nobody_and_meet_say_what_to_do() {
    let mut cluster = Cluster::prepare(2);
    cluster.nodes.expect = 1;
    let mut started = Started::all(&mut cluster, &[0, 1]);
    wait_for_words(&cluster, 0, "--expect 2");
    wait_for_words(&cluster, 1, "--expect 2");
    assert!(started.ready().is_empty());
    for index in 0..2 {
        cluster.nodes.kill(index).expect("killed");
    }
    cluster.nodes.expect = 2;
    let mut started = Started::all(&mut cluster, &[0, 1]);
    started.wait_ready(&cluster, 2);
    the_one_founding(&cluster, &[0, 1]);
}

#[test]
fn a_node_with_data_never_founds_again() {
    let mut cluster = Cluster::start(3);
    let id = the_one_founding(&cluster, &[0, 1, 2]);
    for index in 0..3 {
        cluster.nodes.kill(index).expect("killed");
    }
    cluster.nodes.expect = 1;
    let mut started = Started::all(&mut cluster, &[1]);
    let words = "1 of the 3 machines of this vault is here: this one; 2 are needed";
    wait_for(words, PATIENCE, || cluster.nodes.log(1).contains(words));
    assert!(started.ready().is_empty(), "alone it serves nobody");
    let status = status_of(&cluster, 1).expect("it answers");
    assert_eq!((status.info.founding, status.nodes_total), (Some(id), 3));
    let put = cluster.run(&["put", cluster.file("x.bin", b"x").to_str().expect("a plain path")]);
    assert_eq!(put.code, Some(5), "one of three decides nothing: {put:?}");
    let mut second = Started::all(&mut cluster, &[0]);
    second.wait_ready(&cluster, 1);
    started.wait_ready(&cluster, 1);
    cluster.put("y.bin", b"y");
}

#[test]
fn after_a_proposer_that_is_gone_for_good_the_others_start_again() {
    let mut cluster = Cluster::prepare(3);
    let order = by_peer(&mut cluster);
    let (gone, left) = (order[0], [order[1], order[2]]);
    // Both votes are in, and it dies before it founds.
    cluster.nodes.all[gone].envs = vec![("TINTYPE_CRASH_AT".into(), "node.founding.before_write:2".into())];
    let mut started = Started::all(&mut cluster, &[0, 1, 2]);
    assert!(cluster.nodes.wait_for_end(gone, PATIENCE).is_some(), "it dies");
    for index in left {
        wait_for_words(&cluster, index, "remove `data/` here (nothing is stored yet) and start again");
    }
    assert!(started.ready().is_empty());
    let key = cluster.client.join("keys/cluster.key");
    let dir = cluster.dir().to_path_buf();
    cluster.nodes.add(&dir, &key).expect("one more home");
    for index in left {
        cluster.nodes.kill(index).expect("killed");
        std::fs::remove_dir_all(cluster.nodes.all[index].home.join("data")).expect("removed");
    }
    let which = [left[0], left[1], 3];
    let mut started = Started::all(&mut cluster, &which);
    started.wait_ready(&cluster, 3);
    the_one_founding(&cluster, &which);
    cluster.put("first.bin", &noise(1, 2000));
}

/// As the sentence says, one machine after the other, while the other one still runs.
#[test]
fn data_is_removed_on_one_machine_after_the_other() {
    let mut cluster = Cluster::prepare(2);
    let mut started = Started::all(&mut cluster, &[0]);
    wait_for_words(&cluster, 0, "Waiting for 1 more of 2 nodes");
    cluster.nodes.expect = 3;
    started.one(&mut cluster, 1);
    wait_for_words(&cluster, 0, "Start all nodes with the same number");
    cluster.nodes.kill(1).expect("killed");
    std::fs::remove_dir_all(cluster.nodes.all[1].home.join("data")).expect("removed");
    cluster.nodes.expect = 2;
    started.one(&mut cluster, 1);
    started.wait_ready(&cluster, 2);
    the_one_founding(&cluster, &[0, 1]);
}

// ---- death ----

/// Starts three, of which some die at named points; then those again without that. One founding or none
/// meanwhile, exactly one in the end, and it works.
#[track_caller]
fn die_and_found(mut cluster: Cluster, deaths: &[(usize, &str)]) {
    for (index, point) in deaths {
        cluster.nodes.all[*index].envs = vec![("TINTYPE_CRASH_AT".into(), (*point).to_owned())];
    }
    let mut started = Started::all(&mut cluster, &[0, 1, 2]);
    let mut seen: BTreeSet<FoundingId> = BTreeSet::new();
    for (index, point) in deaths {
        let end = cluster.nodes.wait_for_end(*index, PATIENCE);
        let end = end.unwrap_or_else(|| panic!("it never came to {point}: {}", cluster.nodes.log(*index)));
        assert_eq!(end.code(), None, "{point}: it died of something else: {}", cluster.nodes.log(*index));
    }
    let alive = (0..3).filter(|index| deaths.iter().all(|(dead, _)| dead != index));
    seen.extend(alive.filter_map(|index| founding_of(&cluster, index)));
    assert!(seen.len() <= 1, "two foundings after {deaths:?}");
    for (index, _) in deaths {
        cluster.nodes.all[*index].envs.clear();
        started.one(&mut cluster, *index);
    }
    started.wait_ready(&cluster, 3);
    let id = the_one_founding(&cluster, &[0, 1, 2]);
    assert!(seen.iter().all(|before| *before == id), "another founding after {deaths:?}");
    let bytes = noise(7, 3000);
    cluster.put("first.bin", &bytes);
    assert_eq!(cluster.get("first.bin"), Some(bytes), "after {deaths:?}");
}

/// Runs jobs two at a time: most of each is waiting.
fn in_pairs(jobs: Vec<Box<dyn FnOnce() + Send>>) {
    let jobs = std::sync::Mutex::new(jobs);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(job) = jobs.lock().map(|mut jobs| jobs.pop()).ok().flatten() {
                    job();
                }
            });
        }
    });
}

/// What is passed before a node speaks with anybody, in the order of the list: three at a time, one on each
/// node.
fn points_of_the_start() -> Vec<&'static str> {
    let starts = ["disk.boot.", "disk.dir.", "disk.format.", "disk.key.", "disk.machine.", "disk.node_addr."];
    let passed = |point: &&&str| {
        starts.iter().any(|start| point.starts_with(start)) && **point != "disk.node_addr.removed"
    };
    tintype::disk::CRASH_POINTS.iter().filter(passed).copied().collect()
}

#[test]
fn death_at_every_point_of_the_start() {
    let points = points_of_the_start();
    assert!(points.len() > 20, "the list has other names: {points:?}");
    let jobs = points.chunks(3).map(|chunk| {
        let deaths: Vec<(usize, &'static str)> = chunk.iter().copied().enumerate().collect();
        Box::new(move || die_and_found(Cluster::prepare(3), &deaths)) as Box<dyn FnOnce() + Send>
    });
    in_pairs(jobs.collect());
}

/// At each point of the founding, on the node that proposes (`role` 0) or on the last that votes (2).
fn death_of(role: usize, points: &[&'static str]) {
    let jobs = points.iter().map(|point| {
        let point = *point;
        let job = move || {
            let mut cluster = Cluster::prepare(3);
            let victim = by_peer(&mut cluster)[role];
            die_and_found(cluster, &[(victim, point)]);
        };
        Box::new(job) as Box<dyn FnOnce() + Send>
    });
    in_pairs(jobs.collect());
}

const BATCHES: [&str; 8] = [
    "disk.batch.gathered:1",
    "disk.batch.before_commit:1",
    "disk.batch.committed:1",
    "disk.batch.answering:1",
    "disk.batch.gathered:2",
    "disk.batch.before_commit:2",
    "disk.batch.committed:2",
    "disk.batch.answering:2",
];

/// First the vote is written, then the founding.
const FOUNDING: [&str; 9] = [
    "node.founding.before_write:1",
    "node.founding.after_write:1",
    "node.founding.before_write:2",
    "node.founding.after_write:2",
    "node.founding.before_ready:1",
    "node.founding.before_send:1",
    "node.founding.before_send:3",
    "node.founding.before_send:4",
    "node.founding.before_send:5",
];

#[test]
fn death_of_the_proposer_at_every_point_of_a_write() {
    death_of(0, &BATCHES);
}

#[test]
fn death_of_a_voter_at_every_point_of_a_write() {
    death_of(2, &BATCHES);
}

#[test]
fn death_of_the_proposer_at_every_point_of_the_founding() {
    death_of(0, &FOUNDING);
}

#[test]
fn death_of_a_voter_at_every_point_of_the_founding() {
    death_of(2, &FOUNDING[..6]);
}

/// A voter dies before it votes, the proposer gives up after ten seconds, and dies while it does.
#[test]
fn death_of_the_proposer_when_it_takes_its_proposal_back() {
    let mut cluster = Cluster::prepare(3);
    let order = by_peer(&mut cluster);
    let deaths = [(order[2], "node.founding.before_write:1"), (order[0], "node.founding.abort_written:1")];
    die_and_found(cluster, &deaths);
}

/// Every point of the node's founding on the list is died at in this file.
#[test]
fn no_point_of_the_founding_is_forgotten() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/founding.rs");
    let source = std::fs::read_to_string(source).expect("this file");
    for point in tintype::disk::CRASH_POINTS.iter().filter(|point| point.starts_with("node.founding.")) {
        assert!(source.contains(&format!("\"{point}:")), "nobody dies at {point}");
    }
}
