//! Nodes that are full, rotten, gone, silent or frozen: what was acknowledged stays, what cannot be known is
//! said, and nothing hangs.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    cluster::{Answer, Cluster, ends, finish, noise, wait_for},
    inspect::{
        LOOK, alone, chunk_files, command_to, flip_a_bit, json, run_at, status_at, wait_for_copies,
        wait_until_healthy,
    },
};

/// An answer that must come within two seconds, and the start of a process on a busy machine.
const SOON: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);

/// Puts bytes; the answer as JSON, which must be an acknowledgement.
#[track_caller]
fn put(cluster: &Cluster, name: &str, bytes: &[u8]) -> Value {
    let answer = try_put(cluster, name, bytes);
    assert_eq!(answer.code, Some(0), "put {name}: {answer:?}");
    json(&answer)
}

/// Puts bytes, which must be acknowledged at once, and as what survives one loss soon: on a busy machine a
/// second holder may be too slow for the first answer, and the same put again counts anew.
#[track_caller]
fn put_twofold(cluster: &Cluster, name: &str, bytes: &[u8]) {
    wait_for(&format!("{name} survives a loss"), PATIENCE, || put(cluster, name, bytes)["survives"] == 1);
}

/// Runs a command that answers soon; on a busy machine at the latest the fourth time.
#[track_caller]
fn soon(mut command: impl FnMut() -> Answer) -> Answer {
    let answers = (0..4).map(|_| command());
    let mut slow = Vec::new();
    for answer in answers {
        if answer.took < SOON {
            return answer;
        }
        slow.push(answer);
    }
    panic!("none of these came soon: {slow:?}");
}

fn try_put(cluster: &Cluster, name: &str, bytes: &[u8]) -> Answer {
    let path = cluster.file(&format!("in/{name}"), bytes);
    cluster.run(&["put", path.to_str().expect("plain"), "--name", name, "--json"])
}

/// The bytes must be these. Not printed if they are not.
#[track_caller]
fn is(cluster: &Cluster, name: &str, bytes: &[u8]) {
    let found = cluster.get(name);
    assert!(found.as_deref() == Some(bytes), "{name}: {:?} bytes", found.map(|f| f.len()));
}

/// What `get --any` writes, and what it says beside it.
#[track_caller]
fn get_any(cluster: &Cluster, name: &str) -> (Vec<u8>, String) {
    let to = cluster.dir().join("any.out");
    let _ = std::fs::remove_file(&to);
    let answer = cluster.run(&["get", name, "--any", "-o", to.to_str().expect("plain")]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    (std::fs::read(to).expect("written"), answer.stderr + &answer.stdout)
}

// ---- disks ----

#[test]
fn a_node_without_room_is_passed_over_and_says_so() {
    let mut cluster = Cluster::prepare(3);
    cluster.nodes.all[0].envs.push(("TINTYPE_NODE_RESERVE".into(), "1000000 TB".into()));
    for node in &mut cluster.nodes.all {
        node.envs.push(("TINTYPE_LOG_LEVEL".into(), "warn,tintype::node=debug".into()));
    }
    cluster.nodes.start_all().expect("a full node starts too");
    for n in 0..4 {
        let name = format!("{n}.bin");
        let bytes = noise(n, 1_300_000);
        put_twofold(&cluster, &name, &bytes);
        is(&cluster, &name, &bytes);
    }
    assert!(chunk_files(&cluster.nodes.all[0].home).is_empty(), "it has kept its reserve");
    assert!(cluster.nodes.wait_for_end(0, LOOK).is_none(), "it stays up");
    let said = run_at(&cluster, 0, &["status"]).stdout;
    assert!(said.contains("takes no more chunks") && said.contains("full"), "{said}");
    // The others tell it in each run what belongs on it. It has fetched each body once: none again.
    let fetches_no_more = |_| {
        let fetched = fetched_for_nothing(&cluster);
        wait_for_runs(&cluster, 3);
        fetched_for_nothing(&cluster) == fetched
    };
    // What took too long to come in the first runs comes in one of the next.
    assert!((0..5).any(fetches_no_more), "{} fetches", fetched_for_nothing(&cluster));
}

#[test]
fn what_only_one_machine_has_is_never_called_safe() {
    let mut cluster = Cluster::prepare(3);
    for full in 1..3 {
        cluster.nodes.all[full].envs.push(("TINTYPE_NODE_RESERVE".into(), "1000000 TB".into()));
    }
    cluster.nodes.start_all().expect("full nodes start too");
    wait_for("a vault that is known to be whole", PATIENCE, || status_at(&cluster, 0)["under_repair"] == 0);
    let said = put(&cluster, "a.bin", &noise(9, 1_300_000));
    assert_eq!(said["survives"], 0, "{said}");
    for _ in 0..20 {
        let status = status_at(&cluster, 0);
        assert!(status["under_repair"] != 0 && status["healthy"] == false, "{status}");
    }
}

/// Waits until another node has ended so many runs of repair more.
fn wait_for_runs(cluster: &Cluster, more: usize) {
    let ended = || cluster.nodes.log(1).matches("a run of repair has ended").count();
    let before = ended();
    wait_for("runs of repair", 4 * PATIENCE, || ended() >= before + more);
}

/// How often the first node has fetched what it had no room for.
fn fetched_for_nothing(cluster: &Cluster) -> usize {
    cluster.nodes.log(0).matches("a fetched body was not stored").count()
}

/// A file system of its own, gone when it is dropped.
struct Small(PathBuf);

impl Small {
    /// None if this account or machine does not allow it.
    fn mount(at: &Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(at).expect("made");
        let size = format!("size={megabytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output().ok()?;
        mounted.status.success().then(|| Self(at.to_owned()))
    }

    /// Fills it to the last byte; the answer is the file that does.
    fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        let mut file = std::fs::File::create(&filler).expect("made");
        let block = vec![7; 1 << 16];
        let full = (0..1 << 16).find_map(|_| std::io::Write::write_all(&mut file, &block).err());
        assert_eq!(full.map(|error| error.kind()), Some(std::io::ErrorKind::StorageFull));
        filler
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_disk_that_is_full_to_the_last_byte_stops_nothing() {
    let _alone = alone();
    let mut cluster = Cluster::prepare(3);
    let home = cluster.nodes.all[0].home.clone();
    let data = home.join("data");
    let Some(small) = Small::mount(&data, 64) else {
        println!("not tested: mounting a file system is not allowed here");
        return;
    };
    cluster.nodes.all[0].envs.push(("TINTYPE_NODE_RESERVE".into(), "0".into()));
    cluster.nodes.start_all().expect("ready");
    let before = noise(1, 2_500_000);
    put(&cluster, "before.bin", &before);
    let filler = small.fill();
    let during = noise(2, 2_500_000);
    put_twofold(&cluster, "during.bin", &during);
    put_twofold(&cluster, "before.bin", &during);
    is(&cluster, "during.bin", &during);
    is(&cluster, "before.bin", &during);
    wait_for("it says that it is full", PATIENCE, || {
        run_at(&cluster, 0, &["status"]).stdout.contains("takes no more chunks")
    });
    assert!(cluster.nodes.wait_for_end(0, LOOK).is_none(), "it stays up");
    std::fs::remove_file(filler).expect("room again");
    wait_for_copies(&cluster, "during.bin", 3);
    wait_until_healthy(&cluster);
    // Also what it could not write down while it was full: it is one of the two that are left.
    cluster.nodes.kill(1).expect("killed");
    is(&cluster, "before.bin", &during);
    cluster.nodes.kill(0).expect("killed");
    drop(small);
}

#[test]
fn the_only_node_says_that_its_disk_is_full_and_serves_again_when_it_is_not() {
    let mut cluster = Cluster::prepare(1);
    let data = cluster.nodes.all[0].home.join("data");
    let Some(small) = Small::mount(&data, 48) else {
        println!("not tested: mounting a file system is not allowed here");
        return;
    };
    cluster.nodes.all[0].envs.push(("TINTYPE_NODE_RESERVE".into(), "0".into()));
    cluster.nodes.start_all().expect("ready");
    let (before, small_one) = (noise(1, 1_500_000), noise(2, 900));
    put(&cluster, "before.bin", &before);
    put(&cluster, "small.bin", &small_one);
    let filler = small.fill();
    // Chunks, what is a record, and a record alone: each is refused in a sentence, and the node stays up.
    for (name, len) in [("large.bin", 2_000_000), ("before.bin", 1_000_000), ("tiny.bin", 700)] {
        let refused = try_put(&cluster, name, &noise(3, len));
        ends(&refused, 1, &["no room left", "tintype status"]);
    }
    ends(&cluster.run(&["rm", "small.bin"]), 1, &["no room left", "the disk is full", "make room"]);
    is(&cluster, "before.bin", &before);
    is(&cluster, "small.bin", &small_one);
    assert_eq!(cluster.get("large.bin"), None);
    assert!(cluster.nodes.wait_for_end(0, LOOK).is_none(), "it stays up: {}", cluster.nodes.log(0));
    // Killed, it starts all the same, and says all of that again.
    cluster.nodes.kill(0).expect("killed");
    cluster.nodes.restart(0).expect("ready on a full disk");
    is(&cluster, "before.bin", &before);
    ends(&cluster.run(&["rm", "small.bin"]), 1, &["no room left", "the disk is full"]);
    std::fs::remove_file(filler).expect("room again");
    wait_for("a put is taken again", PATIENCE, || {
        try_put(&cluster, "before.bin", &noise(4, 1_400_000)).code == Some(0)
    });
    is(&cluster, "before.bin", &noise(4, 1_400_000));
    cluster.ok(&["rm", "small.bin"]);
    assert_eq!(cluster.get("small.bin"), None);
    // And nothing of it was only in memory.
    cluster.nodes.kill(0).expect("killed");
    cluster.nodes.restart(0).expect("ready again");
    is(&cluster, "before.bin", &noise(4, 1_400_000));
    assert_eq!(cluster.get("small.bin"), None);
    cluster.nodes.kill(0).expect("killed");
    drop(small);
}

#[test]
fn bad_copies_are_never_returned_and_are_mended() {
    let mut cluster = Cluster::start(3);
    let bytes = noise(3, 2_300_000);
    put(&cluster, "a.bin", &bytes);
    wait_for_copies(&cluster, "a.bin", 3);
    // Each node has one bad copy of another chunk, so that whoever is asked first, somebody errs.
    let homes: Vec<PathBuf> = cluster.nodes.all.iter().map(|node| node.home.clone()).collect();
    let good: Vec<Vec<u8>> = chunk_files(&homes[0]).iter().map(|f| std::fs::read(f).expect("read")).collect();
    assert_eq!(good.len(), 3);
    let cut = std::fs::File::options().write(true).open(&chunk_files(&homes[0])[0]).expect("open");
    cut.set_len(1000).expect("cut");
    flip_a_bit(&chunk_files(&homes[1])[1]);
    flip_a_bit(&chunk_files(&homes[2])[2]);
    is(&cluster, "a.bin", &bytes);
    let found = cluster.run(&["verify"]);
    wait_for("all copies are good on every disk", PATIENCE, || {
        homes.iter().all(|home| {
            let files = chunk_files(home);
            let same =
                files.iter().zip(&good).filter(|(f, good)| std::fs::read(f).ok().as_ref() == Some(*good));
            same.count() == good.len()
        })
    });
    // What the read met was mended before already; the rest is `verify`'s.
    assert!(matches!(found.code, Some(0 | 6)), "{found:?}");
    assert_eq!(cluster.run(&["verify"]).code, Some(0));
    // One more that no read has met.
    flip_a_bit(&chunk_files(&homes[1])[0]);
    let found = cluster.run(&["verify", "--json"]);
    assert_eq!(found.code, Some(6), "{found:?}");
    assert_eq!((&json(&found)["bad"], &json(&found)["mended"]), (&1.into(), &1.into()), "{found:?}");
    assert_eq!(cluster.run(&["verify"]).code, Some(0));
    // All copies of one chunk: an error that names it, and not a byte of it.
    let lost = chunk_files(&homes[0])[1].file_name().expect("a name").to_str().expect("hex").to_owned();
    homes.iter().for_each(|home| flip_a_bit(&chunk_files(home)[1]));
    let to = cluster.dir().join("lost.out");
    let answer = cluster.run(&["get", "a.bin", "-o", to.to_str().expect("plain")]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.stderr.contains("a.bin") && answer.stderr.contains(&lost), "{answer:?}");
    assert!(!to.exists(), "nothing half under its name");
    let found = cluster.run(&["verify"]);
    assert!(found.code == Some(6) && found.stderr.contains(&lost), "{found:?}");
    // Put again, it is whole again.
    put(&cluster, "a.bin", &bytes);
    is(&cluster, "a.bin", &bytes);
    for node in 0..3 {
        assert!(cluster.nodes.wait_for_end(node, LOOK).is_none());
    }
}

#[test]
fn a_folder_in_the_place_of_a_chunk_is_named_and_replaced_by_the_chunk() {
    let cluster = Cluster::start(3);
    let bytes = noise(7, 1_000_000);
    put(&cluster, "a.bin", &bytes);
    wait_for_copies(&cluster, "a.bin", 3);
    let files: Vec<PathBuf> =
        cluster.nodes.all.iter().map(|node| chunk_files(&node.home).remove(0)).collect();
    let good = std::fs::read(&files[0]).expect("read");
    // On two of three: what the read does not meet, `verify` does.
    for file in &files[..2] {
        std::fs::remove_file(file).expect("removed");
        std::fs::create_dir_all(file.join("inside")).expect("made");
    }
    is(&cluster, "a.bin", &bytes);
    let found = cluster.run(&["verify"]);
    assert!(matches!(found.code, Some(0 | 6)), "{found:?}");
    wait_for("the chunk is on both again", PATIENCE, || {
        files[..2].iter().all(|file| std::fs::read(file).is_ok_and(|bytes| bytes == good))
    });
    assert_eq!(cluster.run(&["verify"]).code, Some(0));
    for node in 0..2 {
        let (home, log) = (&cluster.nodes.all[node].home, cluster.nodes.log(node));
        assert!(log.contains("is no file: something else lay in a chunk's place"), "{log}");
        let aside = std::fs::read_dir(home.join("data/quarantine")).expect("read").flatten();
        assert_eq!(aside.filter(|entry| entry.path().join("inside").is_dir()).count(), 1);
    }
}

// ---- restart and repair ----

#[test]
fn the_name_of_a_member_that_is_gone_survives_a_restart_of_who_is_asked() {
    let mut cluster = Cluster::start(3);
    wait_until_healthy(&cluster);
    cluster.nodes.kill(2).expect("killed");
    let names = |cluster: &Cluster| {
        let said = run_at(cluster, 0, &["nodes", "--json"]);
        let lines = said.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let mut names: Vec<String> = lines.map(|node| node["name"].as_str().expect("one").into()).collect();
        names.sort();
        names
    };
    // Once without warning, so that it was written down as it was heard; once in order.
    for kill in [true, false] {
        if kill {
            cluster.nodes.kill(0).expect("killed");
        } else {
            let home = &cluster.nodes.all[0].home;
            let down = finish(command_to(home, &[], &["down"]).env("TINTYPE_NETWORK_MDNS", "false"));
            assert_eq!(down.code, Some(0), "{down:?}");
            assert!(cluster.nodes.wait_for_end(0, PATIENCE).is_some());
        }
        cluster.nodes.restart(0).expect("ready again");
        assert_eq!(names(&cluster), ["node-1", "node-2", "node-3"]);
    }
}

#[test]
fn what_a_node_missed_is_on_it_again_soon_after_its_restart() {
    let mut cluster = Cluster::start(3);
    let old = noise(10, 200_000);
    put(&cluster, "a.bin", &old);
    put(&cluster, "b.bin", &old);
    cluster.nodes.kill(2).expect("killed");
    let new = noise(11, 1_500_000);
    put_twofold(&cluster, "a.bin", &new);
    put_twofold(&cluster, "c.bin", &new);
    cluster.ok(&["rm", "b.bin"]);
    cluster.nodes.restart(2).expect("ready again");
    for name in ["a.bin", "c.bin"] {
        wait_for_copies(&cluster, name, 3);
    }
    wait_until_healthy(&cluster);
    // The registers too: now it is one of two, and with the other it is the majority.
    cluster.nodes.kill(0).expect("killed");
    is(&cluster, "a.bin", &new);
    is(&cluster, "c.bin", &new);
    assert_eq!(cluster.get("b.bin"), None);
    cluster.nodes.kill(1).expect("killed");
    // Alone it knows the newest of each by itself.
    assert!(get_any(&cluster, "a.bin").0 == new);
    assert!(get_any(&cluster, "c.bin").0 == new);
    assert_eq!(cluster.run(&["get", "b.bin", "--any", "-o", "-"]).code, Some(3));
}

#[test]
fn a_chunk_file_that_was_removed_comes_back() {
    let mut cluster = Cluster::start(3);
    let bytes = noise(12, 900_000);
    put(&cluster, "a.bin", &bytes);
    wait_for_copies(&cluster, "a.bin", 3);
    let chunk = chunk_files(&cluster.nodes.all[1].home)[0].clone();
    let good = std::fs::read(&chunk).expect("read");
    std::fs::remove_file(&chunk).expect("removed");
    let found = cluster.run(&["verify", "--json"]);
    assert_eq!(found.code, Some(6), "{found:?}");
    assert_eq!((&json(&found)["missing"], &json(&found)["restored"]), (&1.into(), &1.into()), "{found:?}");
    assert!(std::fs::read(&chunk).expect("it is back") == good);
    // And by repair alone, at the node's start.
    cluster.nodes.kill(1).expect("killed");
    std::fs::remove_file(&chunk).expect("removed");
    cluster.nodes.restart(1).expect("ready again");
    wait_for("repair brings it back", PATIENCE, || std::fs::read(&chunk).is_ok_and(|bytes| bytes == good));
}

// ---- too few nodes ----

#[test]
fn without_a_majority_every_command_says_so_soon() {
    let _alone = alone();
    let mut cluster = Cluster::start(3);
    let bytes = noise(20, 400_000);
    // Several, so that a listing must not wait for each.
    for name in ["a.bin", "c.bin", "d.bin", "e.bin"] {
        put(&cluster, name, &bytes);
        wait_for_copies(&cluster, name, 3);
    }
    cluster.nodes.kill(1).expect("killed");
    cluster.nodes.kill(2).expect("killed");
    // At once, while the node may still believe in the others; and once more when it knows.
    for _ in 0..2 {
        let put = soon(|| try_put(&cluster, "b.bin", &noise(21, 100_000)));
        assert_eq!(put.code, Some(5), "{put:?}");
        let get = soon(|| cluster.run(&["get", "a.bin", "-o", "-"]));
        assert_eq!(get.code, Some(5), "{get:?}");
        assert!(get.stderr.contains("--any"), "{get:?}");
        let rm = soon(|| cluster.run(&["rm", "a.bin"]));
        assert_eq!(rm.code, Some(5), "{rm:?}");
        let verify = cluster.run(&["verify"]);
        assert_eq!(verify.code, Some(5), "nobody knows what there is: {verify:?}");
        let ls = soon(|| cluster.run(&["ls"]));
        assert!(matches!(ls.code, Some(5 | 6)), "{ls:?}");
        let (found, said) = get_any(&cluster, "a.bin");
        assert!(found == bytes);
        assert!(said.contains("any") || said.contains("quorum") || said.contains("majority"), "{said}");
        assert!(cluster.ok(&["ls", "--any"]).contains("a.bin"));
        let status = soon(|| cluster.run(&["status", "--json"]));
        assert_eq!(status.code, Some(0), "{status:?}");
        wait_for("it knows that the others are gone", PATIENCE, || {
            status_at(&cluster, 0)["nodes_alive"] == 1
        });
        let status = status_at(&cluster, 0);
        assert_eq!((&status["healthy"], &status["nodes_total"]), (&false.into(), &3.into()), "{status}");
        let said = cluster.ok(&["status"]);
        assert!(said.contains("Not healthy: 1 of 3 nodes answers (silent: node-"), "{said}");
        assert!(said.contains("2 are needed to read and to store"), "{said}");
    }
    // The refused writes are not there, or are whole.
    cluster.nodes.restart(1).expect("ready again");
    is(&cluster, "a.bin", &bytes);
}

/// Puts objects until each of two nodes is the home of one; their names, by the node's number.
fn one_object_of_each_home(cluster: &Cluster, bytes: &[u8]) -> [String; 2] {
    let mut names = [None, None];
    for n in 0..64 {
        let name = format!("{n}.bin");
        put_twofold(cluster, &name, bytes);
        let home = json(&cluster.run(&["stat", &name, "--json"]))["home"].clone();
        let node = cluster.nodes.all.iter().position(|node| home == node.name).expect("one of them");
        names[node].get_or_insert(name);
        if let [Some(one), Some(other)] = &names {
            return [one.clone(), other.clone()];
        }
    }
    panic!("one of two nodes is never a home");
}

#[test]
fn two_members_are_an_acceptor_and_a_mirror() {
    let _alone = alone();
    let mut cluster = Cluster::start(2);
    let old = noise(30, 100_000);
    let [of_first, of_second] = one_object_of_each_home(&cluster, &old);
    cluster.nodes.kill(1).expect("killed");
    // The first's object has lost its mirror: it may be written, and the answer says what that is worth.
    let new = noise(31, 100_000);
    is(&cluster, &of_first, &old);
    assert_eq!(put(&cluster, &of_first, &new)["survives"], 0);
    is(&cluster, &of_first, &new);
    // The second's has lost its acceptor: only the mirror knows it now.
    let refused = soon(|| try_put(&cluster, &of_second, &new));
    assert_eq!(refused.code, Some(5), "{refused:?}");
    let get = soon(|| cluster.run(&["get", &of_second, "-o", "-"]));
    assert!(get.code == Some(5) && get.stderr.contains("--any"), "{get:?}");
    assert!(get_any(&cluster, &of_second).0 == old);
    cluster.nodes.restart(1).expect("ready again");
    // The same bytes once more: acknowledged by what is on both now, not by what was then.
    wait_for("the mirror is counted on again", PATIENCE, || {
        let again = put(&cluster, &of_first, &new);
        assert_eq!(again["unchanged"], true, "{again}");
        again["survives"] == 1
    });
    cluster.nodes.kill(0).expect("killed");
    assert!(get_any(&cluster, &of_first).0 == new);
    cluster.nodes.restart(0).expect("ready again");
    wait_for_copies(&cluster, &of_first, 2);
    wait_until_healthy(&cluster);
    is(&cluster, &of_first, &new);
    is(&cluster, &of_second, &old);
    put_twofold(&cluster, &of_second, &new);
    // The mirror has caught up with what it missed.
    cluster.nodes.kill(0).expect("killed");
    assert!(get_any(&cluster, &of_first).0 == new);
}

// ---- a frozen node ----

/// A node that is stopped in its tracks, and goes on when this is dropped.
pub struct Frozen(u32);

impl Frozen {
    /// Stops it.
    pub fn freeze(pid: u32) -> Self {
        signal(pid, "-STOP");
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal(self.0, "-CONT");
    }
}

fn signal(pid: u32, signal: &str) {
    let sent = Command::new("kill").args([signal, &pid.to_string()]).status().expect("`kill` runs");
    assert!(sent.success() || std::thread::panicking(), "kill {signal} {pid}");
}

#[test]
fn a_frozen_node_costs_no_put_and_no_get() {
    let _alone = alone();
    let mut cluster = Cluster::start(3);
    let bytes = noise(40, 1_200_000);
    put(&cluster, "before.bin", &bytes);
    for victim in 0..3 {
        let frozen = Frozen::freeze(cluster.nodes.pid(victim).expect("it runs"));
        for n in 0..3 {
            let name = format!("{victim}-{n}.bin");
            let bytes = noise(41 + n, 300_000);
            let answer = try_put(&cluster, &name, &bytes);
            assert_eq!(answer.code, Some(0), "node {victim} is frozen: {answer:?}");
            put_twofold(&cluster, &name, &bytes);
            is(&cluster, &name, &bytes);
        }
        is(&cluster, "before.bin", &bytes);
        drop(frozen);
        wait_until_healthy(&cluster);
    }
    assert!((0..3).all(|node| cluster.nodes.wait_for_end(node, LOOK).is_none()));
}
