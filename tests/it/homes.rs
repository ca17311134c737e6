//! Homes that cannot be used as they are: each is told in a sentence that names the file, nothing of it is
//! overwritten, and no promise is made with a forgotten past.

#![allow(clippy::disallowed_methods)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    cluster::{Answer, Cluster, PROGRAM, finish, noise, wait_for},
    inspect::{LOOK, files_below, run_at, status_at, wait_until_healthy},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// `up` on loopback, which is expected to end by itself.
fn up(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["up", "--no-mdns"]).args(args).arg("--home").arg(home).stdin(Stdio::null());
    command.env("TINTYPE_NODE_LISTEN", "127.0.0.1");
    command
}

/// Runs a command that must end by itself in time.
#[track_caller]
fn ends(command: &mut Command) -> Answer {
    let started = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    while child.try_wait().expect("asked").is_none() {
        if started.elapsed() > PATIENCE {
            child.kill().expect("killed");
            let output = child.wait_with_output().expect("read");
            panic!("it did not end: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("read");
    Answer::of(&output, started)
}

/// It fails with exit code 1 and says all of this.
#[track_caller]
fn refuses(command: &mut Command, words: &[&str]) {
    let answer = ends(command);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    for word in words {
        assert!(answer.stderr.contains(word), "{word:?} is not in: {answer:?}");
    }
    assert!(!answer.stderr.contains("panicked"), "{answer:?}");
}

fn fresh_home(dir: &Path, name: &str) -> PathBuf {
    let home = dir.join(name);
    let made = finish(Command::new(PROGRAM).args(["init", "--home"]).arg(&home));
    assert_eq!(made.code, Some(0), "{made:?}");
    home
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files_below(folder).into_iter().map(|path| (path.clone(), std::fs::read(path).expect("read"))).collect()
}

fn copy_dir(from: &Path, to: &Path) {
    for path in files_below(from) {
        let target = to.join(path.strip_prefix(from).expect("below it"));
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("made");
        std::fs::copy(&path, &target).expect("copied");
    }
}

// ---- the lock ----

#[test]
fn a_home_whose_last_node_is_still_dying_is_waited_for_and_no_longer() {
    let dir = tempfile::tempdir().expect("a folder");
    let home = fresh_home(dir.path(), "node");
    drop(Running::start(&mut up(&home, &["--listen", "127.0.0.1:0"])));
    let lock = std::fs::File::open(home.join("data/lock")).expect("opened");
    lock.try_lock().expect("nobody has it");
    // Somebody who stays: an answer, and soon.
    let answer = ends(&mut up(&home, &["--listen", "127.0.0.1:0"]));
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.stderr.contains("running on this home") && answer.took < PATIENCE / 2, "{answer:?}");
    // Somebody who goes, as a process that was killed does.
    let mut command = up(&home, &["--listen", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started");
    let stdout = child.stdout.take().expect("piped");
    let _running = Running(child);
    std::thread::sleep(Duration::from_millis(300));
    drop(lock);
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("listening ")), "it went on once the lock was free");
}

// ---- ports ----

/// A process that runs, a node or another; it ends with this.
pub struct Running(pub Child);

impl Running {
    /// Waits until it listens; the answer is the port.
    fn start(command: &mut Command) -> (Self, u16) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started");
        let stdout = child.stdout.take().expect("piped");
        let running = Self(child);
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let line = lines.into_iter().find(|line| line.starts_with("listening ")).expect("it listens");
        let port = line.split("/udp/").nth(1).and_then(|rest| rest.split('/').next()).expect("a port");
        (running, port.parse().expect("a number"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_port_that_is_taken_is_an_error_if_it_was_given_or_is_remembered() {
    let dir = tempfile::tempdir().expect("a folder");
    let home = fresh_home(dir.path(), "home");
    let taken = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let addr = taken.local_addr().expect("an address");
    let port = addr.port().to_string();
    refuses(&mut up(&home, &["--listen", &addr.to_string()]), &[&port, "taken", "--listen"]);
    refuses(up(&home, &[]).env("TINTYPE_NODE_PORT", &port), &[&port, "taken"]);
    drop(taken);
    // The usual port is somebody's, whoever has it: a fresh home picks a free one and keeps it.
    let _usual = UdpSocket::bind(("127.0.0.1", tintype::model::limits::DEFAULT_PORT));
    let (running, picked) = Running::start(&mut up(&home, &[]));
    assert_ne!(picked, tintype::model::limits::DEFAULT_PORT);
    drop(running);
    let (running, again) = Running::start(&mut up(&home, &[]));
    assert_eq!(again, picked);
    drop(running);
    let taken = UdpSocket::bind(("127.0.0.1", picked)).expect("bound");
    refuses(&mut up(&home, &[]), &[&picked.to_string(), "taken"]);
    drop(taken);
    assert_eq!(Running::start(&mut up(&home, &[])).1, picked);
}

// ---- broken files ----

#[test]
fn a_broken_file_of_a_home_is_named_and_stays_as_it_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let broken: [(&str, &[u8], &str); 9] = [
        ("keys/cluster.key", b"tintype-cluster-1:short\n", "cluster.key"),
        ("keys/cluster.key", b"\xff\xfe\x00", "cluster.key"),
        ("keys/cluster.key", b"", "cluster.key"),
        ("keys/node.key", b"tintype-node-1:zz\n", "node.key"),
        ("keys/node.key", b"", "node.key"),
        ("config/tintype.toml", b"[node\n", "tintype.toml"),
        ("config/tintype.toml", b"[node]\nreserves = 1\n", "node.reserves"),
        ("data/format", b"tintype-data-3\n", "newer"),
        ("data/format", b"something else\n", "format"),
    ];
    for (number, (file, bytes, word)) in broken.into_iter().enumerate() {
        let home = fresh_home(dir.path(), &format!("home-{number}"));
        let path = home.join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, bytes).expect("written");
        let before = contents(&home);
        let name = path.file_name().expect("a name").to_str().expect("plain");
        refuses(&mut up(&home, &["--listen", "127.0.0.1:0"]), &[name, word]);
        assert_eq!(contents(&home), before, "{file}");
    }
}

#[test]
fn a_home_whose_keys_are_gone_or_anothers_is_not_opened_for_somebody_else() {
    let mut cluster = Cluster::start(1);
    cluster.put("a.bin", b"some bytes");
    cluster.nodes.kill(0).expect("killed");
    let home = cluster.nodes.all[0].home.clone();
    let other = fresh_home(cluster.dir(), "other");
    for (name, words) in [("node.key", "missing"), ("cluster.key", "missing")] {
        let (key, aside) = (home.join("keys").join(name), home.join("aside"));
        std::fs::rename(&key, &aside).expect("moved aside");
        refuses(&mut up(&home, &["--listen", "127.0.0.1:0"]), &[name, words, "put"]);
        refuses(Command::new(PROGRAM).args(["init", "--home"]).arg(&home), &[name, words]);
        assert!(!key.exists(), "none is made in its place");
        std::fs::rename(&aside, &key).expect("moved back");
    }
    let (key, aside) = (home.join("keys/node.key"), home.join("aside"));
    std::fs::rename(&key, &aside).expect("moved aside");
    std::fs::copy(other.join("keys/node.key"), &key).expect("copied");
    refuses(&mut up(&home, &["--listen", "127.0.0.1:0"]), &["node.key", &cluster.nodes.all[0].peer, "put"]);
    std::fs::rename(&aside, &key).expect("moved back");
    cluster.nodes.restart(0).expect("it is itself again");
    assert_eq!(cluster.get("a.bin").as_deref(), Some(&b"some bytes"[..]));
}

#[test]
fn a_broken_user_key_is_named_and_stays_as_it_is() {
    let cluster = Cluster::start(1);
    cluster.put("a.bin", b"some bytes");
    let users = files_below(&cluster.client.join("keys/users"));
    let [key] = &users[..] else { panic!("one user: {users:?}") };
    let good = std::fs::read(key).expect("read");
    let name = key.file_name().expect("a name").to_str().expect("plain");
    for broken in [&b""[..], b"tintype-user-1:zz\n", b"\xff\xfe", &good[..good.len() / 2]] {
        std::fs::write(key, broken).expect("written");
        for args in [&["get", "a.bin", "-o", "-"][..], &["ls"], &["rm", "a.bin"]] {
            let answer = cluster.run(args);
            assert_eq!(answer.code, Some(1), "{answer:?}");
            assert!(answer.stderr.contains(name), "{answer:?}");
        }
        let file = cluster.file("in/b.bin", b"more");
        assert_eq!(cluster.run(&["put", file.to_str().expect("plain")]).code, Some(1));
        assert_eq!(std::fs::read(key).expect("read"), broken);
    }
    std::fs::write(key, good).expect("written");
    assert_eq!(cluster.get("a.bin").as_deref(), Some(&b"some bytes"[..]));
}

#[test]
fn a_rotten_record_file_makes_no_promise() {
    let mut cluster = Cluster::start(1);
    cluster.put("a.bin", b"some bytes");
    cluster.nodes.kill(0).expect("killed");
    let home = cluster.nodes.all[0].home.clone();
    let records = home.join("data/records.redb");
    std::fs::write(&records, b"not a record file").expect("written");
    refuses(&mut up(&home, &["--listen", "127.0.0.1:0"]), &["record"]);
    assert_eq!(std::fs::read(&records).expect("read"), b"not a record file");
    // Nor does one that lost it: the format file says that there were data.
    std::fs::remove_file(&records).expect("removed");
    refuses(&mut up(&home, &["--listen", "127.0.0.1:0"]), &["record"]);
    assert!(!records.exists(), "nothing was made in its place");
}

// ---- one home, one node, one machine ----

#[test]
fn a_home_runs_once() {
    let mut cluster = Cluster::start(1);
    let home = cluster.nodes.all[0].home.clone();
    refuses(&mut up(&home, &["--listen", "127.0.0.1:0"]), &["running on this home", "lock", "tintype down"]);
    cluster.put("a.bin", b"the first one goes on");
    assert!(cluster.nodes.wait_for_end(0, LOOK).is_none());
}

#[test]
fn a_home_that_was_moved_wants_to_be_told_so() {
    let mut cluster = Cluster::start(1);
    cluster.put("a.bin", b"moved along");
    cluster.nodes.kill(0).expect("killed");
    let home = cluster.nodes.all[0].home.clone();
    let note = home.join("data/machine");
    let elsewhere = format!("tintype-machine-1:{}\nattic\n", "7".repeat(64));
    std::fs::write(&note, &elsewhere).expect("written");
    refuses(&mut up(&home, &["--listen", "127.0.0.1:0"]), &["attic", "--moved"]);
    assert_eq!(std::fs::read_to_string(&note).expect("read"), elsewhere);
    cluster.nodes.all[0].args.push("--moved".into());
    cluster.nodes.restart(0).expect("taken over");
    assert_eq!(cluster.get("a.bin").as_deref(), Some(&b"moved along"[..]));
    cluster.nodes.all[0].args.clear();
    cluster.nodes.kill(0).expect("killed");
    cluster.nodes.restart(0).expect("it is this machine's now");
}

/// `up` for a home of the cluster's that is not one of its nodes' own.
fn up_beside(cluster: &Cluster, home: &Path) -> Command {
    let mut command = up(home, &["--listen", "127.0.0.1:0", "--expect", "3", "--name", "the-copy"]);
    for addr in cluster.nodes.addresses() {
        command.args(["--bootstrap", &addr]);
    }
    command
}

#[test]
fn a_copy_of_a_home_beside_the_original_is_refused() {
    let mut cluster = Cluster::start(3);
    let bytes = noise(1, 100_000);
    cluster.put("a.bin", &bytes);
    // Copied while nothing writes; then the original runs on.
    cluster.nodes.kill(0).expect("killed");
    let copy = cluster.dir().join("copy");
    copy_dir(&cluster.nodes.all[0].home, &copy);
    cluster.nodes.restart(0).expect("ready again");
    wait_until_healthy(&cluster);
    refuses(&mut up_beside(&cluster, &copy), &["copy or an old backup"]);
    // Nor does it help to try again, also when the original is away.
    cluster.nodes.kill(0).expect("killed");
    for _ in 0..3 {
        refuses(&mut up_beside(&cluster, &copy), &["copy or an old backup"]);
    }
    cluster.nodes.restart(0).expect("the original is as good as before");
    wait_until_healthy(&cluster);
    assert!(cluster.get("a.bin") == Some(bytes));
}

#[test]
fn an_old_backup_is_found_out_and_more_starts_do_not_help() {
    let mut cluster = Cluster::start(3);
    let (old, new) = (noise(2, 100_000), noise(3, 100_000));
    cluster.put("a.bin", &old);
    cluster.nodes.kill(0).expect("killed");
    let home = cluster.nodes.all[0].home.clone();
    let backup = cluster.dir().join("backup");
    copy_dir(&home.join("data"), &backup);
    for _ in 0..3 {
        cluster.nodes.restart(0).expect("ready again");
        wait_until_healthy(&cluster);
        cluster.nodes.kill(0).expect("killed");
    }
    cluster.put("a.bin", &new);
    std::fs::remove_dir_all(home.join("data")).expect("removed");
    copy_dir(&backup, &home.join("data"));
    // One start more than the backup lacks, so that its boot number would be a fresh one.
    for start in 0..5 {
        let _lines = cluster.nodes.spawn(0).expect("started");
        let ended = cluster.nodes.wait_for_end(0, PATIENCE);
        assert_eq!(
            ended.and_then(|status| status.code()),
            Some(1),
            "start {start}: {}",
            cluster.nodes.log(0)
        );
        assert!(home.join("data/rolled-back").exists(), "durably marked: {}", cluster.nodes.log(0));
    }
    assert!(cluster.nodes.log(0).contains("copy or an old backup"), "{}", cluster.nodes.log(0));
    assert!(cluster.get("a.bin") == Some(new));
}

/// Everything in a node's home as it is at one moment of its running.
fn copy_of_running(cluster: &Cluster, node: usize, name: &str) -> PathBuf {
    let copy = cluster.dir().join(name);
    signal(cluster, node, "STOP");
    copy_dir(&cluster.nodes.all[node].home, &copy);
    signal(cluster, node, "CONT");
    copy
}

fn signal(cluster: &Cluster, node: usize, signal: &str) {
    let pid = cluster.nodes.pid(node).expect("it runs").to_string();
    let status = Command::new("kill").args([&format!("-{signal}"), &pid]).status().expect("kill is there");
    assert!(status.success());
}

#[test]
fn a_backup_made_while_its_node_ran_is_found_out_although_only_promises_are_missing() {
    let mut cluster = Cluster::start(3);
    cluster.put("a.bin", &noise(5, 100_000));
    wait_until_healthy(&cluster);
    let backup = copy_of_running(&cluster, 0, "backup");
    let newest = noise(6, 100_000);
    for seed in [7, 8, 9] {
        cluster.put("a.bin", &noise(seed, 100_000));
    }
    cluster.put("a.bin", &newest);
    cluster.nodes.kill(0).expect("killed");
    let data = cluster.nodes.all[0].home.join("data");
    std::fs::remove_dir_all(&data).expect("removed");
    copy_dir(&backup.join("data"), &data);
    for start in 0..3 {
        let _lines = cluster.nodes.spawn(0).expect("started");
        let ended = cluster.nodes.wait_for_end(0, PATIENCE).and_then(|status| status.code());
        let log = cluster.nodes.log(0);
        assert_eq!(ended, Some(1), "start {start}: {log}");
        assert!(log.contains("copy or an old backup"), "{log}");
    }
    assert!(data.join("rolled-back").exists(), "durably marked");
    assert!(cluster.get("a.bin") == Some(newest));
}

#[test]
fn a_copy_that_lacks_nothing_does_not_push_out_the_running_original() {
    let mut cluster = Cluster::start(3);
    cluster.put("a.bin", &noise(10, 100_000));
    wait_until_healthy(&cluster);
    let copy = copy_of_running(&cluster, 0, "copy");
    wait_until_healthy(&cluster);
    refuses(&mut up_beside(&cluster, &copy), &["copy"]);
    assert!(cluster.nodes.wait_for_end(0, LOOK).is_none(), "the original goes on");
    cluster.put("b.bin", &noise(11, 100_000));
    wait_until_healthy(&cluster);
}

#[test]
fn a_node_with_an_emptied_disk_and_its_old_key_is_refused_by_name() {
    let mut cluster = Cluster::start(3);
    let bytes = noise(4, 100_000);
    cluster.put("a.bin", &bytes);
    cluster.nodes.kill(2).expect("killed");
    let home = cluster.nodes.all[2].home.clone();
    std::fs::remove_dir_all(home.join("data")).expect("removed");
    let peer = cluster.nodes.all[2].peer.clone();
    for _ in 0..2 {
        let _lines = cluster.nodes.spawn(2).expect("started");
        let ended = cluster.nodes.wait_for_end(2, PATIENCE);
        let log = cluster.nodes.log(2);
        assert_eq!(ended.and_then(|status| status.code()), Some(1), "{log}");
        assert!(log.contains("emptied"), "{log}");
    }
    wait_for("the others say who it is", PATIENCE, || {
        let said = run_at(&cluster, 0, &["status"]).stdout + &run_at(&cluster, 1, &["status"]).stdout;
        said.lines().any(|line| line.contains(&peer) && line.contains("emptied"))
    });
    wait_for("it counts as dead", PATIENCE, || status_at(&cluster, 0)["nodes_alive"] == 2);
    assert!(cluster.get("a.bin") == Some(bytes));
}
