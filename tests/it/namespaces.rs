//! Zero configuration on a real network: hosts with an address of their own each, joined by a bridge, that
//! have nothing in common but the cluster key.
//!
//! Hosts are network namespaces, which needs Linux, root and iproute2; elsewhere the tests say why and pass.
//! The bridge lies in a namespace of its own too, so that nothing of this machine's network is touched, and
//! all of it ends with the test.

#![cfg(target_os = "linux")]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::{Answer, PROGRAM, ends, finish, noise, objects, text, wait_for};

/// From the last start until all serve.
const READY: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(20);

static LANS: AtomicU32 = AtomicU32::new(0);

/// Some hosts on one switch. Ends with all that runs on it.
struct Lan {
    /// Part of every name, so that no two processes and no two tests meet.
    name: String,
    hosts: usize,
    running: Vec<Child>,
    dir: TempDir,
}

impl Lan {
    /// Hosts 1 to `hosts`; none, and the reason on standard error, where that is not possible.
    fn new(hosts: usize) -> Option<Self> {
        let number = LANS.fetch_add(1, Ordering::SeqCst);
        let name = format!("tintype-{}-{number}", std::process::id());
        let dir = tempfile::tempdir().expect("a folder");
        let lan = Self { name, hosts, running: Vec::new(), dir };
        if let Err(reason) = lan.build() {
            eprintln!("SKIPPED: no network of namespaces can be made here: {reason}");
            return None;
        }
        Some(lan)
    }

    /// What a test of a network may lack is the right to make namespaces; all that follows must work then.
    fn build(&self) -> Result<(), String> {
        let switch = self.switch();
        try_ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "br0", "up"]);
        for host in 1..=self.hosts {
            let (space, port, addr) = (self.host(host), format!("port{host}"), format!("10.77.0.{host}/24"));
            ip(&["netns", "add", &space]);
            ip(&["-n", &space, "link", "set", "lo", "up"]);
            let ends = ["link", "add", "eth0", "netns", &space, "type", "veth", "peer", "name", &port];
            ip(&[&ends[..], &["netns", &switch]].concat());
            ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"]);
            ip(&["-n", &space, "addr", "add", &addr, "dev", "eth0"]);
            ip(&["-n", &space, "link", "set", "eth0", "up"]);
            // As on any LAN; nobody is there, but it is the way that multicast takes.
            ip(&["-n", &space, "route", "add", "default", "via", "10.77.0.254"]);
        }
        Ok(())
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }

    fn host(&self, host: usize) -> String {
        format!("{}-{host}", self.name)
    }

    /// A home with this cluster key and nothing else.
    fn home(&self, name: &str, key: &str) -> PathBuf {
        let home = self.dir.path().join(name);
        std::fs::create_dir_all(home.join("keys")).expect("made");
        std::fs::write(home.join("keys/cluster.key"), key).expect("written");
        home
    }

    /// The program on a host.
    fn command(&self, host: usize, home: &Path, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host(host), PROGRAM]).args(args).arg("--home").arg(home);
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, host: usize, home: &Path, args: &[&str]) -> Answer {
        finish(&mut self.command(host, home, args))
    }

    /// Starts a node on a host, with no address named; its standard output, line by line.
    fn up(&mut self, host: usize, key: &str, expect: &str) -> mpsc::Receiver<String> {
        let name = format!("host-{host}");
        let home = self.home(&name, key);
        let mut command = self.command(host, &home, &["up", "--expect", expect, "--name", &name]);
        let log = std::fs::File::create(home.join("log.txt")).expect("made");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("started");
        let stdout = child.stdout.take().expect("piped");
        self.running.push(child);
        let (tell, lines) = mpsc::sync_channel(64);
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.for_each(|line| drop(tell.try_send(line)));
        });
        lines
    }

    /// Waits until all these nodes have said that so many serve.
    fn wait_ready(&self, nodes: &[(usize, mpsc::Receiver<String>)], count: usize) {
        let deadline = Instant::now() + READY;
        let wanted = format!("ready nodes={count}");
        for (host, lines) in nodes {
            loop {
                match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(line) if line == wanted => break,
                    Ok(line) => assert!(!line.starts_with("ready"), "host {host} says {line}"),
                    Err(_) => panic!("host {host} is not ready within {READY:?}: {}", self.log(*host)),
                }
            }
        }
    }

    fn log(&self, host: usize) -> String {
        let path = self.dir.path().join(format!("host-{host}/log.txt"));
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        // What lies in a namespace goes with it. One that was not made is no loss.
        for space in (1..=self.hosts).map(|host| self.host(host)).chain([self.switch()]) {
            let _ = try_ip(&["netns", "delete", &space]);
        }
    }
}

#[track_caller]
fn ip(args: &[&str]) {
    try_ip(args).unwrap_or_else(|reason| panic!("{reason}"));
}

fn try_ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("`ip` (Debian: iproute2) does not run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("`ip {}`: {}", args.join(" "), said.trim()))
}

/// A new cluster key, as `init` makes it.
fn new_key(dir: &Path, name: &str) -> String {
    let home = dir.join(name);
    let made = finish(Command::new(PROGRAM).args(["init", "--home"]).arg(&home));
    assert_eq!(made.code, Some(0), "{made:?}");
    std::fs::read_to_string(home.join("keys/cluster.key")).expect("a key")
}

fn names_in(nodes: &Answer) -> Vec<String> {
    let name = |node: &Value| node["name"].as_str().expect("a name").to_owned();
    let mut names: Vec<String> = objects(&nodes.stdout).iter().map(name).collect();
    names.sort();
    names
}

#[test]
fn three_hosts_and_a_client_with_the_same_key_find_each_other() {
    let Some(mut lan) = Lan::new(4) else { return };
    let key = new_key(lan.dir.path(), "made");
    let nodes: Vec<_> = (1..=3).map(|host| (host, lan.up(host, &key, "3"))).collect();
    lan.wait_ready(&nodes, 3);
    let client = lan.home("client", &key);
    let nodes = lan.run(4, &client, &["nodes", "--json"]);
    assert_eq!(names_in(&nodes), ["host-1", "host-2", "host-3"], "{nodes:?}");
    let (path, out) = (lan.dir.path().join("a.bin"), lan.dir.path().join("out.bin"));
    let bytes = noise(1, 3_000_000);
    std::fs::write(&path, &bytes).expect("written");
    ends(&lan.run(4, &client, &["put", text(&path)]), 0, &["a.bin  version 1", "survives 1"]);
    // Another machine that has nothing but the keys.
    let other = lan.home("other", &key);
    let users = other.join("keys/users");
    std::fs::create_dir_all(&users).expect("made");
    for user in std::fs::read_dir(client.join("keys/users")).expect("users").flatten() {
        std::fs::copy(user.path(), users.join(user.file_name())).expect("copied");
    }
    ends(&lan.run(4, &other, &["get", "a.bin", "-o", text(&out)]), 0, &[]);
    assert_eq!(std::fs::read(&out).expect("read"), bytes);
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
            let status = lan.run(first, &client, &["status", "--json"]);
            let status = objects(&status.stdout).pop().expect("a line");
            assert_eq!((&status["nodes_total"], &status["nodes_alive"]), (&2.into(), &2.into()), "{status}");
            status["foreign"].as_array().is_some_and(|foreign| !foreign.is_empty())
        });
    }
}
