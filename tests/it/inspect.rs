//! Looks into a cluster from outside: what one node says, what its disk holds, whether all is whole.
//!
//! It changes nothing.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;

use crate::cluster::{Answer, Cluster, PROGRAM, finish, wait_for};

/// Long enough to see whether a process has ended already.
pub const LOOK: Duration = Duration::from_millis(30);

static ALONE: Mutex<()> = Mutex::new(());

/// Held by tests that measure time, so that they do not measure each other.
pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client's command line with its own home and only these nodes named.
pub fn command_to(home: &Path, addrs: &[String], args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).arg("--home").arg(home).stdin(Stdio::null());
    for addr in addrs {
        command.args(["--node", addr]);
    }
    command
}

/// Runs a client's command with only one node named.
pub fn run_at(cluster: &Cluster, node: usize, args: &[&str]) -> Answer {
    let addr = cluster.nodes.all[node].addr.clone();
    finish(&mut command_to(&cluster.client, &[addr], args))
}

/// The last line of an answer as JSON; null if it is none.
pub fn json(answer: &Answer) -> Value {
    let line = answer.stdout.trim().lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_default()
}

/// What one node says of the cluster.
pub fn status_at(cluster: &Cluster, node: usize) -> Value {
    json(&run_at(cluster, node, &["status", "--json"]))
}

/// Waits until every node says that all answer and nothing waits to be repaired.
#[track_caller]
pub fn wait_until_healthy(cluster: &Cluster) {
    for node in 0..cluster.nodes.all.len() {
        let mut said = Value::Null;
        let deadline = Duration::from_secs(90);
        let is_healthy = || {
            said = status_at(cluster, node);
            said["healthy"] == true
        };
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for("a healthy cluster", deadline, is_healthy);
        }));
        if waited.is_err() {
            panic!("node {node} says {said}; its log: {}", cluster.nodes.log(node));
        }
    }
}

/// Waits until as many whole copies of an object are there.
#[track_caller]
pub fn wait_for_copies(cluster: &Cluster, name: &str, copies: u64) {
    wait_for(&format!("{copies} copies of {name}"), Duration::from_secs(40), || {
        json(&cluster.run(&["where", name, "--json"]))["fewest_copies"] == copies
    });
}

/// The chunk files of a node's home, in the order of their names.
pub fn chunk_files(home: &Path) -> Vec<PathBuf> {
    files_below(&home.join("data/chunks"))
}

/// All files below a folder, in the order of their paths.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// Flips one bit in the middle of a file.
pub fn flip_a_bit(path: &Path) {
    let mut bytes = std::fs::read(path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("written");
}
