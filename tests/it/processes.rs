//! Real processes that are killed, frozen, cut off in the middle of a put, or whose record file rots.
//!
//! Beside it: `faults` has full disks, bad chunk files and short freezes, `crashes` death at every named
//! point, `mixed_load` many faults under load, with its history proved.

use std::{
    io::Write,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    cluster::{Cluster, noise, text, wait_for},
    faults::Frozen,
    founding::status_of,
    inspect::{LOOK, json, run_at, wait_for_copies, wait_until_healthy},
};

/// Heartbeats go out three times a second; a connection of a killed process is given up after 1.5 s, and one
/// on which gossip has not begun after some seconds more.
const HEARD_WITHIN: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(90);
/// Longer than any command takes that has lost its node.
const NO_HANG: Duration = Duration::from_secs(60);

fn is_there(cluster: &Cluster, name: &str, bytes: &[u8]) {
    let found = cluster.get(name);
    assert!(found.as_deref() == Some(bytes), "{name}: {:?} bytes", found.map(|found| found.len()));
}

// ---- killed and restarted: gossip heals ----

/// What one node says that another has room for. It knows that from the other's heartbeats alone, and only
/// from those that it has heard since its own start.
fn room_heard(cluster: &Cluster, listener: usize, speaker: usize) -> Option<(u64, u64)> {
    let status = status_of(cluster, listener)?;
    let peer = &cluster.nodes.all[speaker].peer;
    let node = status.info.nodes.into_iter().find(|node| node.peer.to_string() == *peer)?;
    Some((node.capacity_bytes?, node.used_bytes?))
}

fn pairs_with(node: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..3).filter(move |other| *other != node).flat_map(move |other| [(node, other), (other, node)])
}

/// Kills it and starts it again with a capacity that nobody has heard of before; then everybody must hear it,
/// and it everybody, again and again.
fn restart_and_be_heard(cluster: &mut Cluster, node: usize, gone: Duration, capacity_mb: u64) {
    cluster.nodes.kill(node).expect("killed");
    std::thread::sleep(gone);
    cluster.nodes.all[node].args = vec!["--capacity".into(), format!("{capacity_mb} MB")];
    cluster.nodes.restart(node).expect("ready again");
    let started = Instant::now();
    let capacity = capacity_mb * 1_000_000;
    wait_for("heartbeats both ways", HEARD_WITHIN, || {
        pairs_with(node).all(|(listener, speaker)| {
            let room = room_heard(cluster, listener, speaker);
            room.is_some_and(|(heard, _)| speaker != node || heard == capacity)
        })
    });
    println!("gone for {gone:?}: heard both ways {:?} after it was ready", started.elapsed());
    // Not only the first one: what they say next is heard, too.
    let name = format!("{capacity_mb}.bin");
    cluster.put(&name, &noise(capacity_mb, 400_000));
    wait_for_copies(cluster, &name, 3);
    wait_for("what changed to be heard", HEARD_WITHIN, || {
        pairs_with(node).all(|(listener, speaker)| {
            let own = room_heard(cluster, speaker, speaker).map(|(_, used)| used);
            own.is_some() && room_heard(cluster, listener, speaker).map(|(_, used)| used) == own
        })
    });
    wait_until_healthy(cluster);
}

#[test]
fn heartbeats_of_a_node_that_is_killed_and_back_within_a_second_are_heard() {
    let mut cluster = Cluster::start(3);
    wait_until_healthy(&cluster);
    for (node, gone_ms) in [(0, 0), (1, 600), (2, 0), (0, 300)] {
        let capacity = 1000 + 10 * node as u64 + gone_ms;
        restart_and_be_heard(&mut cluster, node, Duration::from_millis(gone_ms), capacity);
    }
}

#[test]
fn heartbeats_of_a_node_that_is_killed_and_back_after_fifteen_seconds_are_heard() {
    let mut cluster = Cluster::start(3);
    wait_until_healthy(&cluster);
    restart_and_be_heard(&mut cluster, 1, Duration::from_secs(15), 2000);
}

// ---- frozen ----

#[test]
fn a_node_that_is_frozen_for_ten_seconds_is_missed_by_nobody_and_comes_back() {
    const FROZEN: Duration = Duration::from_secs(10);
    let mut cluster = Cluster::start(3);
    cluster.put("old.bin", &noise(1, 300_000));
    cluster.put("gone.bin", &noise(2, 300_000));
    wait_until_healthy(&cluster);
    let victim = 0;
    let frozen = Frozen::freeze(cluster.nodes.pid(victim).expect("it runs"));
    let since = Instant::now();
    let mut during = Vec::new();
    cluster.ok(&["rm", "gone.bin"]);
    while since.elapsed() < FROZEN {
        let (name, bytes) = (format!("{}.bin", during.len()), noise(10 + during.len() as u64, 250_000));
        cluster.put(&name, &bytes);
        is_there(&cluster, &name, &bytes);
        // A version over one that the frozen node has.
        cluster.put("old.bin", &bytes);
        during.push((name, bytes));
    }
    drop(frozen);
    let woken = Instant::now();
    wait_until_healthy(&cluster);
    println!(
        "frozen for {FROZEN:?}, {} puts meanwhile; whole again after {:?}",
        during.len(),
        woken.elapsed()
    );
    assert!(cluster.nodes.wait_for_end(victim, LOOK).is_none(), "{}", cluster.nodes.log(victim));
    for (name, _) in &during {
        wait_for_copies(&cluster, name, 3);
    }
    // It knows what it missed: now it is one of the two that are left.
    cluster.nodes.kill(1).expect("killed");
    for (name, bytes) in &during {
        is_there(&cluster, name, bytes);
    }
    is_there(&cluster, "old.bin", &during.last().expect("puts").1);
    assert_eq!(cluster.get("gone.bin"), None);
}

// ---- a client that is killed ----

fn kill(mut child: Child) {
    child.kill().expect("killed");
    child.wait().expect("ended");
}

#[test]
fn a_client_that_is_killed_in_a_put_leaves_it_whole_or_absent() {
    const ROUNDS: u64 = 8;
    let cluster = Cluster::start(3);
    let mut known = noise(0, 3_500_000);
    let started = Instant::now();
    cluster.put("a.bin", &known);
    // How long it takes here and now, so that they die all over it.
    let whole_ms = u64::try_from(started.elapsed().as_millis()).expect("short");
    let mut random = StdRng::seed_from_u64(7);
    let (mut absent, mut there) = (0, 0);
    for round in 1..=ROUNDS {
        let bytes = noise(round, 3_500_000 + round as usize);
        let path = cluster.file("a.bin", &bytes);
        let mut command = cluster.command(&["put", text(&path)]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(random.random_range(whole_ms / 10..whole_ms + 50)));
        kill(child);
        let since = Instant::now();
        let found = cluster.get("a.bin").expect("a version is always there");
        assert!(found == known || found == bytes, "round {round}: a third thing, {} bytes", found.len());
        if found == bytes {
            there += 1
        } else {
            absent += 1
        }
        // The same file again; what was on its way for the dead one does no harm.
        let again = json(&cluster.run(&["put", text(&path), "--json"]));
        assert_eq!(again["survives"], 1, "round {round}: {again}");
        is_there(&cluster, "a.bin", &bytes);
        assert!(since.elapsed() < NO_HANG, "round {round}: {:?}", since.elapsed());
        known = bytes;
    }
    println!("killed {ROUNDS} times in a put of {whole_ms} ms: {absent} times absent, {there} times whole");
    // In the middle for sure: half of it has come, and the rest never will.
    let bytes = noise(99, 16 << 20);
    let mut put = cluster.command(&["put", "-", "--name", "half.bin"]);
    put.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = put.spawn().expect("it starts");
    child.stdin.as_mut().expect("a pipe").write_all(&bytes[..12 << 20]).expect("it is taken");
    kill(child);
    assert_eq!(cluster.get("half.bin"), None);
    cluster.put("half.bin", &bytes);
    is_there(&cluster, "half.bin", &bytes);
    assert_eq!(cluster.run(&["verify"]).code, Some(0));
}

// ---- a record file that rots ----

/// Flips one bit in each of some pages that are in use.
fn rot(path: &Path, random: &mut StdRng, bits: usize) {
    let mut bytes = std::fs::read(path).expect("read");
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    for _ in 0..bits {
        let at = used[random.random_range(0..used.len())];
        bytes[at] ^= 1 << random.random_range(0..8);
    }
    std::fs::write(path, bytes).expect("written");
}

/// What became of a node whose record file has rotted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rotten {
    Serves,
    /// It has not even counted the start.
    Refused,
    /// After a kill a bad last commit looks as if it had never been made; but others have heard of it.
    Older,
}

/// Starts a node whose record file has rotted: it serves, or it ends and says why.
#[track_caller]
fn start_rotten(cluster: &mut Cluster, node: usize) -> Rotten {
    let (before, deadline) = (cluster.nodes.log(node).len(), Instant::now() + PATIENCE);
    let lines = cluster.nodes.spawn(node).expect("started");
    loop {
        if lines.try_iter().any(|line| line.starts_with("ready ")) {
            return Rotten::Serves;
        }
        let Some(status) = cluster.nodes.wait_for_end(node, LOOK) else {
            assert!(Instant::now() < deadline, "neither ready nor ended: {}", cluster.nodes.log(node));
            continue;
        };
        let said = cluster.nodes.log(node)[before..].to_owned();
        assert!(!status.success(), "{status}: {said}");
        if said.contains("copy or an old backup") {
            return Rotten::Older;
        }
        // Where a page makes no sense at all redb gives up by itself, and a panic is what is said.
        assert!(said.contains("record file") || said.contains("redb"), "{status}: {said}");
        return Rotten::Refused;
    }
}

#[test]
fn a_rotten_record_file_costs_its_node_and_nobody_else() {
    let mut cluster = Cluster::start(3);
    let objects: Vec<(String, Vec<u8>)> =
        (0..8).map(|n| (format!("{n}.bin"), noise(n, 2000 + 9000 * n as usize))).collect();
    for (name, bytes) in &objects {
        cluster.put(name, bytes);
    }
    wait_until_healthy(&cluster);
    cluster.nodes.kill(0).expect("killed");
    let records = cluster.nodes.all[0].home.join("data/records.redb");
    let mut good = std::fs::read(&records).expect("read");
    let mut random = StdRng::seed_from_u64(3);
    let mut became = Vec::new();
    while became.len() < 5 && became.last() != Some(&Rotten::Older) {
        std::fs::write(&records, &good).expect("written");
        rot(&records, &mut random, 2);
        became.push(start_rotten(&mut cluster, 0));
        for (name, bytes) in &objects[..3] {
            is_there(&cluster, name, bytes);
        }
        let bytes = noise(100 + became.len() as u64, 3000);
        cluster.put("during.bin", &bytes);
        is_there(&cluster, "during.bin", &bytes);
        if cluster.nodes.pid(0).is_some() {
            cluster.nodes.kill(0).expect("killed");
            good = std::fs::read(&records).expect("read");
        }
    }
    println!("starts with two flipped bits: {became:?}");
    if became.last() == Some(&Rotten::Older) {
        return all_are_there(&cluster, &objects);
    }
    // A start that was refused has changed nothing, so what was good before is good now.
    std::fs::write(&records, &good).expect("written");
    cluster.nodes.restart(0).expect("ready again");
    wait_until_healthy(&cluster);
    // While it runs: what it has in memory it goes on with, what it reads is checked.
    rot(&records, &mut random, 40);
    for (name, bytes) in &objects {
        is_there(&cluster, name, bytes);
        let alone = run_at(&cluster, 0, &["get", name, "--any", "-o", "-"]);
        let same = alone.stdout == String::from_utf8_lossy(bytes);
        assert!(alone.code != Some(0) || same, "{name}: other bytes");
    }
    cluster.put("during.bin", &objects[3].1);
    cluster.nodes.kill(0).expect("killed or gone");
    println!("after forty more: {:?}", start_rotten(&mut cluster, 0));
    all_are_there(&cluster, &objects);
    is_there(&cluster, "during.bin", &objects[3].1);
}

fn all_are_there(cluster: &Cluster, objects: &[(String, Vec<u8>)]) {
    objects.iter().for_each(|(name, bytes)| is_there(cluster, name, bytes));
}
