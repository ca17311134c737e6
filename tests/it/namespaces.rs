//! Real hosts on a real network, with an address of their own each, joined by a switch, that have nothing in
//! common but the cluster key: they find each other, and again after a cut, a move, a death.
//!
//! Hosts are network namespaces, which needs Linux, root, iproute2 and for cuts nftables; elsewhere the tests
//! say why and pass. Times are printed (`--nocapture`) and asserted as far as a busy machine can be trusted.

#![cfg(target_os = "linux")]

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    cluster::{Answer, ends, noise, objects, text, wait_for},
    inspect::json,
    lan::{Lan, new_key},
};

const PATIENCE: Duration = Duration::from_secs(90);
/// Promised are two seconds; the start of a process comes on top, and other tests run beside.
const SOON: Duration = Duration::from_secs(4);
/// Promised from the last start on are five seconds; other tests run beside.
const READY_MAX: Duration = Duration::from_secs(9);
/// Objects put and read each time a host has fallen silent.
const OBJECTS: u64 = 3;
/// The host of the client; the nodes are on 1 to 3.
const CLIENT: usize = 4;

fn names_in(nodes: &Answer) -> Vec<String> {
    let name = |node: &Value| node["name"].as_str().expect("a name").to_owned();
    let mut names: Vec<String> = objects(&nodes.stdout).iter().map(name).collect();
    names.sort();
    names
}

/// Three nodes that serve, each on a host, and hosts for clients beside them.
struct Scene {
    lan: Lan,
    key: String,
    client: PathBuf,
}

impl Scene {
    fn new(hosts: usize) -> Option<Self> {
        let mut lan = Lan::new(hosts)?;
        let key = new_key(lan.dir.path(), "made");
        let nodes: Vec<_> = (1..CLIENT).map(|host| (host, lan.up(host, &key, "3"))).collect();
        let last = Instant::now();
        lan.wait_ready(&nodes, 3);
        println!("three hosts with one key: ready {:?} after the last start", last.elapsed());
        assert!(last.elapsed() < READY_MAX, "{:?}", last.elapsed());
        let client = lan.home("client", &key);
        Some(Self { lan, key, client })
    }

    fn run(&self, args: &[&str]) -> Answer {
        self.lan.run(CLIENT, &self.client, args)
    }

    fn try_put(&self, name: &str, bytes: &[u8]) -> Answer {
        let path = self.lan.dir.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        self.run(&["put", text(&path), "--name", name])
    }

    /// Puts it; two machines must have it.
    #[track_caller]
    fn put(&self, name: &str, bytes: &[u8]) -> Duration {
        let answer = self.try_put(name, bytes);
        ends(&answer, 0, &["survives 1"]);
        answer.took
    }

    #[track_caller]
    fn is_there(&self, name: &str, bytes: &[u8]) -> Duration {
        let out = self.lan.dir.path().join("out");
        let _ = std::fs::remove_file(&out);
        let answer = self.run(&["get", name, "-o", text(&out)]);
        ends(&answer, 0, &[]);
        assert!(std::fs::read(&out).expect("read") == bytes, "{name} came back otherwise");
        answer.took
    }

    /// Waits until the cluster says that all is well.
    #[track_caller]
    fn wait_until_healthy(&self) {
        wait_for("a healthy cluster", PATIENCE, || json(&self.run(&["status", "--json"]))["healthy"] == true);
    }

    /// Waits until each node is known to be there again, whatever it still has to catch up with.
    #[track_caller]
    fn wait_until_alive(&self) {
        wait_for("all nodes", PATIENCE, || json(&self.run(&["status", "--json"]))["nodes_alive"] == 3);
    }

    #[track_caller]
    fn wait_for_copies(&self, name: &str, copies: u64) {
        wait_for(&format!("{copies} copies of {name}"), PATIENCE, || {
            json(&self.run(&["where", name, "--json"]))["fewest_copies"] == copies
        });
    }
}

/// True if it could be done; else the reason is told, and the rest of the test is not.
fn is_possible(made: Result<(), String>) -> bool {
    if let Err(reason) = &made {
        eprintln!("SKIPPED: no packets can be dropped here: {reason}");
    }
    made.is_ok()
}

#[test]
fn three_hosts_and_a_client_with_the_same_key_find_each_other() {
    let Some(scene) = Scene::new(CLIENT) else { return };
    let nodes = scene.run(&["nodes", "--json"]);
    assert_eq!(names_in(&nodes), ["host-1", "host-2", "host-3"], "{nodes:?}");
    let bytes = noise(1, 3_000_000);
    scene.put("a.bin", &bytes);
    // Another machine that has nothing but the keys.
    let other = scene.lan.home("other", &scene.key);
    copy_users(&scene.client, &other);
    let out = scene.lan.dir.path().join("out.bin");
    ends(&scene.lan.run(CLIENT, &other, &["get", "a.bin", "-o", text(&out)]), 0, &[]);
    assert_eq!(std::fs::read(&out).expect("read"), bytes);
}

fn copy_users(from: &Path, to: &Path) {
    let users = to.join("keys/users");
    std::fs::create_dir_all(&users).expect("made");
    for user in std::fs::read_dir(from.join("keys/users")).expect("users").flatten() {
        std::fs::copy(user.path(), users.join(user.file_name())).expect("copied");
    }
}

#[test]
fn two_clusters_on_one_switch_leave_each_other_alone() {
    let Some(mut lan) = Lan::new(4) else { return };
    let keys = ["one", "other"].map(|name| new_key(lan.dir.path(), name));
    let nodes: Vec<_> = (1..=4).map(|host| (host, lan.up(host, &keys[(host - 1) / 2], "2"))).collect();
    lan.wait_ready(&nodes, 2);
    let path = lan.dir.path().join("a.bin");
    std::fs::write(&path, noise(1, 100_000)).expect("written");
    for (cluster, key) in keys.iter().enumerate() {
        let first = 2 * cluster + 1;
        let client = lan.home(&format!("client-{cluster}"), key);
        let nodes = lan.run(first, &client, &["nodes", "--json"]);
        assert_eq!(names_in(&nodes), [format!("host-{first}"), format!("host-{}", first + 1)], "{nodes:?}");
        // The first version in either: they share nothing.
        ends(&lan.run(first, &client, &["put", text(&path)]), 0, &["a.bin  version 1", "survives 1"]);
        wait_for("a word about the neighbours", PATIENCE, || {
            let status = json(&lan.run(first, &client, &["status", "--json"]));
            assert_eq!((&status["nodes_total"], &status["nodes_alive"]), (&2.into(), &2.into()), "{status}");
            status["foreign"].as_array().is_some_and(|foreign| !foreign.is_empty())
        });
        // In words, with what to do; and that is all that is to be said about them.
        let words = ["runs tintype with another cluster key", "keys/cluster.key"];
        ends(&lan.run(first, &client, &["status"]), 0, &words);
        ends(&lan.run(first, &client, &["doctor"]), 6, &words);
        ends(&lan.run(first, &client, &["ls"]), 0, &["a.bin"]);
    }
    for host in 1..=4 {
        let log = lan.log(host);
        assert!(!log.contains("panicked"), "{log}");
    }
}

// ---- what goes and comes back ----

#[test]
fn a_host_that_comes_back_on_another_address_is_found_and_serves() {
    let Some(mut scene) = Scene::new(CLIENT) else { return };
    let (before, without) = (noise(1, 600_000), noise(2, 600_000));
    scene.put("before.bin", &before);
    scene.lan.kill(2);
    scene.lan.move_to(2, 52);
    scene.put("without.bin", &without);
    let (key, started) = (scene.key.clone(), Instant::now());
    let lines = scene.lan.up(2, &key, "3");
    scene.lan.wait_ready(&[(2, lines)], 3);
    println!("ready on its new address after {:?}", started.elapsed());
    scene.wait_until_healthy();
    println!("the cluster is whole after {:?}", started.elapsed());
    let addr = |node: &Value| node["addr"].as_str().unwrap_or_default().to_owned();
    let nodes = objects(&scene.run(&["nodes", "--json"]).stdout);
    let moved = nodes.iter().find(|node| node["name"] == "host-2").map(addr);
    assert!(moved.as_deref().is_some_and(|addr| addr.contains("/10.77.0.52/")), "{nodes:?}");
    scene.wait_for_copies("without.bin", 3);
    // It is one of the two that are left: whatever is read or stored now, it has its part in.
    scene.lan.kill(1);
    scene.is_there("before.bin", &before);
    scene.is_there("without.bin", &without);
    scene.put("after.bin", &without);
}

#[test]
fn a_link_that_is_down_for_ten_seconds_costs_nothing() {
    const DOWN: Duration = Duration::from_secs(10);
    let Some(mut scene) = Scene::new(CLIENT) else { return };
    let before = noise(1, 600_000);
    scene.put("before.bin", &before);
    scene.lan.plug(3, false);
    let (since, mut during) = (Instant::now(), Vec::new());
    while since.elapsed() < DOWN {
        let (name, bytes) = (format!("{}.bin", during.len()), noise(10 + during.len() as u64, 300_000));
        scene.put(&name, &bytes);
        scene.is_there(&name, &bytes);
        scene.put("before.bin", &bytes);
        during.push((name, bytes));
    }
    scene.lan.plug(3, true);
    let healed = Instant::now();
    scene.wait_until_healthy();
    println!("{} puts while a link was down; whole again after {:?}", during.len(), healed.elapsed());
    for (name, _) in &during {
        scene.wait_for_copies(name, 3);
    }
    scene.lan.kill(1);
    for (name, bytes) in &during {
        scene.is_there(name, bytes);
    }
    scene.is_there("before.bin", &during.last().expect("puts").1);
}

// ---- a host that is silent ----

/// Puts and gets right after a host has fallen silent, when nobody knows it yet: how long each took.
fn put_and_get(scene: &Scene, name: &str) -> Vec<Duration> {
    let mut took = Vec::new();
    for number in 0..OBJECTS {
        let (name, bytes) = (format!("{name}-{number}.bin"), noise(number, 400_000));
        took.push(scene.put(&name, &bytes));
        took.push(scene.is_there(&name, &bytes));
    }
    // What lies on the silent one, too.
    took.extend(
        (0..OBJECTS).map(|number| scene.is_there(&format!("before-{number}.bin"), &noise(number, 400_000))),
    );
    took
}

#[test]
fn a_host_in_a_black_hole_costs_no_more_than_one_that_was_killed() {
    let Some(mut scene) = Scene::new(CLIENT) else { return };
    let whole = put_and_get_before(&scene);
    let mut worst = Vec::new();
    // Each is the silent one once: some objects have it as their home and their first holder.
    for victim in 1..CLIENT {
        let others: Vec<usize> = (1..=CLIENT).filter(|host| *host != victim).collect();
        if !is_possible(scene.lan.part(&[victim], &others)) {
            return;
        }
        let hole = put_and_get(&scene, &format!("hole-{victim}"));
        scene.lan.switch_rules(&[]).expect("they were made before");
        scene.wait_until_alive();
        scene.lan.kill(victim);
        let killed = put_and_get(&scene, &format!("killed-{victim}"));
        let key = scene.key.clone();
        let lines = scene.lan.up(victim, &key, "3");
        scene.lan.wait_ready(&[(victim, lines)], 3);
        scene.wait_until_alive();
        worst.push((in_words(&hole), in_words(&killed)));
        let most = |took: &[Duration]| took.iter().max().copied().unwrap_or_default();
        let (hole, killed) = (most(&hole), most(&killed));
        assert!(hole < SILENT_MAX && killed < SILENT_MAX, "{worst:?}");
    }
    println!("a put or a get with all three: {}", in_words(&whole));
    for (hole, killed) in worst {
        println!("with one in a black hole: {hole}; killed: {killed}");
    }
}

/// The worst of what a put or a get may take while a host is silent and nobody knows it yet.
const SILENT_MAX: Duration = Duration::from_secs(8);

fn put_and_get_before(scene: &Scene) -> Vec<Duration> {
    (0..OBJECTS)
        .flat_map(|number| {
            let (name, bytes) = (format!("before-{number}.bin"), noise(number, 400_000));
            let took = [scene.put(&name, &bytes), scene.is_there(&name, &bytes)];
            scene.wait_for_copies(&name, 3);
            took
        })
        .collect()
}

fn in_words(took: &[Duration]) -> String {
    let mut took: Vec<u128> = took.iter().map(Duration::as_millis).collect();
    took.sort_unstable();
    format!("median {} ms, worst {} ms", took[took.len() / 2], took.last().expect("some"))
}

// ---- a minority ----

/// The first answer that comes soon; on a busy machine the third at the latest.
#[track_caller]
fn soon(mut command: impl FnMut() -> Answer) -> Answer {
    let mut slow = Vec::new();
    for _ in 0..3 {
        let answer = command();
        if answer.took < SOON {
            return answer;
        }
        slow.push(answer);
    }
    panic!("none of these came soon: {slow:?}");
}

#[test]
fn a_minority_says_so_soon_and_heals_without_loss() {
    let Some(scene) = Scene::new(CLIENT + 1) else { return };
    let (old, new, refused) = (noise(1, 300_000), noise(2, 300_000), noise(3, 300_000));
    scene.put("a.bin", &old);
    scene.put("b.bin", &old);
    scene.wait_for_copies("a.bin", 3);
    let majority = scene.lan.home("majority", &scene.key);
    copy_users(&scene.client, &majority);
    // A client that has met all of them, as the one on the other side has.
    ends(&scene.lan.run(CLIENT + 1, &majority, &["ls"]), 0, &["a.bin"]);
    if !is_possible(scene.lan.part(&[1, 2, CLIENT + 1], &[3, CLIENT])) {
        return;
    }
    for round in ["at once", "when it is known"] {
        let put = soon(|| scene.try_put("c.bin", &refused));
        ends(&put, 5, &["no majority"]);
        let get = soon(|| scene.run(&["get", "a.bin", "-o", "-"]));
        ends(&get, 5, &["no majority", "--any"]);
        let rm = soon(|| scene.run(&["rm", "b.bin"]));
        ends(&rm, 5, &["no majority"]);
        println!("no quorum, {round}: put {:?}, get {:?}, rm {:?}", put.took, get.took, rm.took);
        let out = scene.lan.dir.path().join(round);
        ends(&scene.run(&["get", "a.bin", "--any", "-o", text(&out)]), 0, &[]);
        assert!(std::fs::read(out).expect("read") == old);
        wait_for("it knows that the others are gone", PATIENCE, || {
            json(&scene.run(&["status", "--json"]))["nodes_alive"] == 1
        });
    }
    // The other side goes on.
    let path = scene.lan.dir.path().join("new");
    std::fs::write(&path, &new).expect("written");
    let put = scene.lan.run(CLIENT + 1, &majority, &["put", text(&path), "--name", "a.bin"]);
    ends(&put, 0, &["a.bin  version 2", "survives 1"]);
    scene.lan.switch_rules(&[]).expect("they were made before");
    let healed = Instant::now();
    scene.wait_until_healthy();
    println!("whole again {:?} after the cut was healed", healed.elapsed());
    scene.is_there("a.bin", &new);
    scene.is_there("b.bin", &old);
    // What was refused is not there, or it is whole.
    let out = scene.lan.dir.path().join("refused");
    let get = scene.run(&["get", "c.bin", "-o", text(&out)]);
    assert!(matches!(get.code, Some(0 | 3)), "{get:?}");
    assert!(get.code == Some(3) || std::fs::read(out).expect("read") == refused, "half of it");
    scene.put("c.bin", &refused);
    scene.is_there("c.bin", &refused);
}

// ---- work ----

/// Who hands out work, as this client hears it; 0 = nobody.
fn coordinator(scene: &Scene, host: usize, home: &Path) -> usize {
    let status = scene.lan.run(host, home, &["status", "--json"]);
    let peer = json(&status)["coordinator"].as_str().map(str::to_owned);
    let nodes = objects(&scene.lan.run(host, home, &["nodes", "--json"]).stdout);
    let is_it = |node: &&Value| peer.is_some() && node["peer"].as_str() == peer.as_deref();
    let name = nodes.iter().find(is_it).and_then(|node| node["name"].as_str()).unwrap_or_default();
    name.strip_prefix("host-").and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[test]
fn a_cut_in_two_leaves_one_side_that_works_and_in_the_end_one_coordinator() {
    let Some(scene) = Scene::new(CLIENT + 1) else { return };
    let majority = scene.lan.home("majority", &scene.key);
    wait_for("a coordinator", PATIENCE, || coordinator(&scene, CLIENT, &scene.client) != 0);
    let old = coordinator(&scene, CLIENT, &scene.client);
    // A client that has met all of them, as the one on the other side has.
    ends(&scene.lan.run(CLIENT + 1, &majority, &["status"]), 0, &[]);
    let others: Vec<usize> = (1..CLIENT).filter(|host| *host != old).chain([CLIENT + 1]).collect();
    let image = scene.lan.dir.path().join("a.png");
    std::fs::write(&image, crate::tasks::picture(1, 200, 150)).expect("written");
    let hide = |host: usize, home: &Path, name: &str, more: &[&str]| {
        let out = scene.lan.dir.path().join(name);
        let mut args = vec!["hide", "--text", name, text(&image), "-o", text(&out), "--force"];
        args.extend(more);
        scene.lan.run(host, home, &args)
    };
    if !is_possible(scene.lan.part(&[old, CLIENT], &others)) {
        return;
    }
    let cut = Instant::now();
    ends(&hide(CLIENT + 1, &majority, "there.png", &[]), 0, &[]);
    println!("work went on {:?} after the coordinator was cut off", cut.elapsed());
    wait_for("the minority's coordinator to leave office", PATIENCE, || {
        coordinator(&scene, CLIENT, &scene.client) == 0
    });
    let refused = hide(CLIENT, &scene.client, "here.png", &["--timeout", "3"]);
    ends(&refused, 5, &["no coordinator", "--local"]);
    let new = coordinator(&scene, CLIENT + 1, &majority);
    assert!(new != 0 && new != old, "{new} after {old}");
    scene.lan.switch_rules(&[]).expect("they were made before");
    let healed = Instant::now();
    wait_for("one coordinator on both sides", PATIENCE, || {
        let both = [(CLIENT, &scene.client), (CLIENT + 1, &majority)];
        let seen = both.map(|(host, home)| coordinator(&scene, host, home));
        seen[0] != 0 && seen[0] == seen[1]
    });
    println!("one coordinator {:?} after the cut was healed", healed.elapsed());
    ends(&hide(CLIENT, &scene.client, "here.png", &[]), 0, &[]);
    // What was done once is done: each task had one effect.
    let tasks = objects(&scene.run(&["history", "--json"]).stdout);
    let done = |task: &Value| task["phase"] == "acknowledged" || task["phase"] == "cancelled";
    assert!(tasks.iter().all(done), "{tasks:?}");
}
