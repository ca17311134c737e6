//! Links on a bad day: small packets only, lost packets, slow wires, small buffers, processors without AES.
//!
//! Each time what is put comes back, nothing acknowledged is lost, and slowness is not taken for death.
//! Where a test needs hosts of its own it says why and passes if they cannot be made.

#![cfg(target_os = "linux")]

use std::{
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    cluster::{Answer, Cluster, ends, noise, objects, text, wait_for},
    lan::{Carried, Lan, new_key},
};

/// Far above what the slowest of these transfers needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// The host of the client; the nodes are on 1 to 3.
const CLIENT: usize = 4;

/// Three nodes that serve, each on a host, and a client on a fourth.
struct Scene {
    lan: Lan,
    client: PathBuf,
}

impl Scene {
    fn new() -> Option<Self> {
        let mut lan = Lan::new(CLIENT)?;
        let key = new_key(lan.dir.path(), "made");
        (1..=CLIENT).for_each(|host| lan.single_packets(host));
        let nodes: Vec<_> = (1..CLIENT).map(|host| (host, lan.up(host, &key, "3"))).collect();
        lan.wait_ready(&nodes, 3);
        let client = lan.home("client", &key);
        Some(Self { lan, client })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.lan.dir.path().join(name)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("written");
        path
    }

    fn run(&self, args: &[&str]) -> Answer {
        self.lan.run(CLIENT, &self.client, args)
    }

    /// Puts it; it must be acknowledged by two machines.
    #[track_caller]
    fn put(&self, name: &str, bytes: &[u8]) -> Duration {
        let path = self.file(name, bytes);
        let answer = self.run(&["put", text(&path), "--name", name]);
        ends(&answer, 0, &["survives 1"]);
        answer.took
    }

    /// Reads it back; it must be what was put.
    #[track_caller]
    fn get(&self, name: &str, bytes: &[u8]) -> Duration {
        let out = self.path(&format!("{name}.out"));
        let answer = self.run(&["get", name, "-o", text(&out)]);
        if std::env::var("TINTYPE_LOG_LEVEL").is_ok() {
            eprintln!("GET {}", answer.stderr);
        }
        ends(&answer, 0, &[]);
        assert!(same(&out, bytes), "{name} came back otherwise");
        answer.took
    }

    /// Starts a command of the client.
    fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.lan.command(CLIENT, &self.client, args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started")
    }

    /// Waits until the client's link has carried so much in all since then.
    #[track_caller]
    fn wait_carried(&self, since: Carried, bytes: u64) {
        wait_for("bytes on the wire", PATIENCE, || {
            let now = self.lan.carried(CLIENT);
            now.sent + now.received >= since.sent + since.received + bytes
        });
    }

    #[track_caller]
    fn status(&self) -> Value {
        let answer = self.run(&["status", "--json"]);
        assert_eq!(answer.code, Some(0), "{answer:?}");
        objects(&answer.stdout).pop().expect("a line")
    }
}

fn end(child: Child, started: Instant) -> Answer {
    Answer::of(&child.wait_with_output().expect("it ends"), started)
}

fn times(carried: u64, payload: usize) -> f64 {
    carried as f64 / payload as f64
}

// ---- small packets only ----

/// A switch port that passes on IP packets up to 1280 bytes and says nothing of the others.
const SMALL_ONLY: &str = "meta length > 1280 drop";

#[test]
fn a_path_that_silently_takes_small_packets_only_carries_everything() {
    let Some(scene) = Scene::new() else { return };
    let large = noise(1, 24_000_000);
    let path = scene.file("shrinks.bin", &large);
    let before = scene.lan.carried(CLIENT);
    let (putting, started) = (scene.spawn(&["put", text(&path)]), Instant::now());
    scene.wait_carried(before, 4_000_000);
    scene.lan.switch_rules(&[SMALL_ONLY]).expect("rules");
    let answer = end(putting, started);
    eprintln!("shrunk during put: {:?} {}", answer.took, answer.stderr);
    ends(&answer, 0, &["survives 1"]);
    let small = noise(2, 4_000_000);
    let put = scene.put("small.bin", &small);
    let get = scene.get("small.bin", &small);
    eprintln!("small from the start: put {put:?} get {get:?}");
    scene.lan.switch_rules(&["accept"]).expect("rules");
    let out = scene.path("shrinks.out");
    let before = scene.lan.carried(CLIENT);
    let (getting, started) = (scene.spawn(&["get", "shrinks.bin", "-o", text(&out)]), Instant::now());
    scene.wait_carried(before, 4_000_000);
    scene.lan.switch_rules(&[SMALL_ONLY]).expect("rules");
    let answer = end(getting, started);
    eprintln!("shrunk during get: {:?} {}", answer.took, answer.stderr);
    ends(&answer, 0, &[]);
    assert!(std::fs::read(&out).expect("read") == large);
}

// ---- lost packets ----

#[test]
fn one_packet_in_a_hundred_is_lost_and_nothing_else_is() {
    let Some(scene) = Scene::new() else { return };
    scene.lan.switch_rules(&["numgen random mod 100 < 1 drop"]).expect("rules");
    let bytes = noise(3, 30_000_000);
    let before = scene.lan.carried(CLIENT);
    let put = scene.put("a.bin", &bytes);
    let middle = scene.lan.carried(CLIENT);
    let get = scene.get("a.bin", &bytes);
    let after = scene.lan.carried(CLIENT);
    eprintln!(
        "1% lost: put {put:?} x{:.2} get {get:?} x{:.2}",
        times(middle.sent - before.sent, bytes.len()),
        times(after.received - middle.received, bytes.len())
    );
    eprintln!("{}", scene.status());
}

// ---- slow wires ----

fn slow(rate: &str, slow_host: usize, len: usize) {
    let Some(scene) = Scene::new() else { return };
    scene.lan.limit_rate(slow_host, rate);
    let bytes = noise(4, len);
    let path = scene.file("a.bin", &bytes);
    let before = scene.lan.carried(CLIENT);
    let (putting, started) = (scene.spawn(&["put", text(&path)]), Instant::now());
    scene.wait_carried(before, len as u64 / 3);
    let status = scene.run(&["status", "--json"]);
    eprintln!("{rate} on {slow_host} status {:?} {:?}", status.took, status.code);
    let answer = end(putting, started);
    let middle = scene.lan.carried(CLIENT);
    eprintln!(
        "{rate} on {slow_host}: put {:?} x{:.2} {}{}",
        answer.took,
        times(middle.sent - before.sent, len),
        answer.stdout,
        answer.stderr
    );
    let get = scene.get("a.bin", &bytes);
    let after = scene.lan.carried(CLIENT);
    eprintln!("{rate} on {slow_host}: get {get:?} x{:.2}", times(after.received - middle.received, len));
    eprintln!("{}", scene.status());
}

#[test]
fn a_client_at_100_mbit() {
    slow("100mbit", CLIENT, 10_000_000);
}

#[test]
fn a_client_at_10_mbit() {
    slow("10mbit", CLIENT, 10_000_000);
}

#[test]
fn a_node_at_100_mbit() {
    slow("100mbit", 2, 10_000_000);
}

#[test]
fn a_node_at_10_mbit() {
    slow("10mbit", 2, 10_000_000);
}

// ---- machines ----

fn cluster_with(envs: &[(usize, &str, &str)]) -> Cluster {
    let mut cluster = Cluster::prepare(3);
    for (node, name, value) in envs {
        cluster.nodes.all[*node].envs.push((name.to_string(), value.to_string()));
    }
    cluster.nodes.start_all().expect("ready");
    cluster
}

fn put_and_get(cluster: &Cluster, name: &str, bytes: &[u8], env: Option<(&str, &str)>) -> [Answer; 2] {
    let path = cluster.file(&format!("in/{name}"), bytes);
    let out = cluster.dir().join(format!("{name}.out"));
    let run = |args: &[&str]| {
        let mut command = cluster.command(args);
        command.envs(env);
        let answer = crate::cluster::finish(&mut command);
        ends(&answer, 0, &[]);
        answer
    };
    let put = run(&["put", text(&path), "--name", name]);
    let get = run(&["get", name, "-o", text(&out)]);
    assert!(same(&out, bytes), "{name} came back otherwise");
    [put, get]
}

fn same(path: &Path, bytes: &[u8]) -> bool {
    std::fs::read(path).expect("read") == bytes
}

#[test]
fn the_smallest_udp_buffers_lose_nothing() {
    let knob = ("TINTYPE_NETWORK_UDP_BUFFER", "0");
    let cluster = cluster_with(&[(0, knob.0, knob.1), (1, knob.0, knob.1), (2, knob.0, knob.1)]);
    let bytes = noise(5, 30_000_000);
    let [put, get] = put_and_get(&cluster, "a.bin", &bytes, Some(knob));
    eprintln!("smallest buffers: put {:?} get {:?}", put.took, get.took);
}

#[test]
fn a_processor_without_aes_talks_with_all_others() {
    let knob = ("TINTYPE_NETWORK_CIPHER", "chacha20");
    let cluster = cluster_with(&[(0, knob.0, knob.1)]);
    let bytes = noise(6, 3_000_000);
    for (name, env) in [("plain.bin", None), ("forced.bin", Some(knob))] {
        let [put, get] = put_and_get(&cluster, name, &bytes, env);
        eprintln!("{name}: put {:?} get {:?}", put.took, get.took);
    }
}
