//! Death at every step of every write path, in a real process: what was acknowledged is there, nothing is
//! half.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::Path,
    process::{Command, Output},
};

use super::*;
use crate::{
    disk::{CRASH_POINTS, ClientState, MetaKey, NodeAddr, Seen, WriteBatch, records::fits},
    model::{FoundingId, Incarnation, ObjectId, OwnerKey, PeerId, ProcessId, hello::BootMark, limits},
};

const CHILD: &str = "disk::tests::crash::child";
const CHILD_ROOT: &str = "TINTYPE_TEST_CHILD_ROOT";
const LARGE: usize = limits::SMALL_BODY_BYTES_MAX + 1;
const CLUSTER: FoundingId = FoundingId([1; 16]);
const LAST_ACK: &str = "end";

fn object(n: u8) -> ObjectId {
    ObjectId([n; 32])
}

/// Every write path of the room once; each acknowledgement is passed on at once.
fn workload(root: &Path, ack: &mut dyn FnMut(String)) -> Result<(), DiskError> {
    let home = Home::at(root.join("home"));
    home.create()?;
    home.node_key_or_new()?;
    ack("node key".into());
    home.create_cluster_key("tintype-cluster-1:x")?;
    ack("cluster key".into());
    home.create_user_key("alice", "tintype-user-1:x")?;
    ack("user key".into());
    let machine = |name: &str, moved| DiskOptions { machine: Some(name.into()), moved, ..options() };
    let (disk, boot) = Disk::open(&home, machine("desk", true))?;
    ack(format!("boot {} {}", boot.mark.boot, boot.incarnation));
    on_runtime(store(&disk, &home, ack))?;
    disk.publish_addr(&NodeAddr::new(PeerId::random(), ProcessId::ZERO, vec!["/ip4/127.0.0.1".into()]))?;
    ack("addr".into());
    disk.retract_addr();
    on_runtime(disk.stop())?;
    drop(disk);
    let (_, boot) = Disk::open(&home, machine("attic", true))?;
    ack(format!("boot {} {}", boot.mark.boot, boot.incarnation));
    let old = Home::at(root.join("old"));
    match Disk::open(&old, options()) {
        Ok((disk, _)) => disk.mark_rolled_back()?,
        Err(DiskError::RolledBack { .. }) => {}
        Err(error) => return Err(error),
    }
    ack("rolled back".into());
    let mut client = ClientState::open(&home)?;
    for version in 1..=3 {
        client.saw(CLUSTER, OwnerKey([1; 32]), &[(object(1), version)])?;
        ack(format!("saw {version}"));
    }
    client.remember_address("/ip4/10.0.0.1")?;
    ack(LAST_ACK.into());
    Ok(())
}

async fn store(disk: &Disk, home: &Home, ack: &mut dyn FnMut(String)) -> Result<(), DiskError> {
    for n in 1..=3u8 {
        let mut batch = WriteBatch::new();
        batch.record(object(n), Some(OwnerKey([1; 32])), vec![n; 50]);
        batch.record(object(n + 100), None, vec![n; 50]);
        disk.write(batch).await?;
        ack(format!("record {n}"));
    }
    let mut founding = WriteBatch::new();
    let mark = BootMark { boot: 1, process: ProcessId::ZERO };
    founding.meta(MetaKey::FoundingVote, Some(vec![1])).meta(MetaKey::Founding, Some(vec![2]));
    founding.seen(PeerId::random(), Seen { mark, promises: 1, incarnation: Incarnation::ZERO });
    disk.write(founding).await?;
    ack("founding".into());
    for seed in 0..6 {
        let (id, bytes) = body(seed, length(seed));
        disk.put_body(id, bytes).await?;
        ack(format!("body {seed}"));
    }
    let (id, bytes) = body(50, LARGE);
    let path = home.chunk_path(&id);
    fs::create_dir_all(path.parent().expect("it has a folder")).expect("the test's own folder");
    fs::write(path, b"rot").expect("the test's own file");
    disk.put_body(id, bytes).await?;
    ack("body 50".into());
    Ok(())
}

fn length(seed: u64) -> usize {
    if seed.is_multiple_of(3) { 900 } else { LARGE }
}

/// What `acks` promised must be so.
fn verify(root: &Path, acks: &[&str]) {
    let home = Home::at(root.join("home"));
    check_home(&home, acks);
    if acks.contains(&"rolled back") {
        let old = Disk::open(&Home::at(root.join("old")), options());
        assert!(matches!(old, Err(DiskError::RolledBack { .. })));
    }
    let seen = acks.iter().rev().find_map(|ack| ack.strip_prefix("saw ")?.parse::<u64>().ok());
    let mut client = ClientState::open(&home).unwrap();
    assert!(client.highest(CLUSTER, object(1)).unwrap() >= seen);
    let _ = home.node_addr().expect("whole or not there");
    let options = DiskOptions { machine: Some("desk".into()), moved: true, ..options() };
    home.create().unwrap();
    // As every start does it: what was not made before the death is made now.
    home.node_key_or_new().unwrap();
    home.create_cluster_key("tintype-cluster-1:x").unwrap();
    let (disk, boot) = Disk::open(&home, options).unwrap();
    for ack in acks.iter().filter_map(|ack| ack.strip_prefix("boot ")) {
        let (number, incarnation) = ack.split_once(' ').unwrap();
        assert!(boot.mark.boot > number.parse().unwrap(), "a boot number came twice");
        assert_eq!(boot.incarnation.to_string(), incarnation);
    }
    on_runtime(check_disk(&disk, acks));
}

fn check_home(home: &Home, acks: &[&str]) {
    let node = home.node_key().unwrap();
    let cluster = home.cluster_key().unwrap();
    let user = home.user_key("alice").unwrap();
    for (ack, is_there) in
        [("node key", node.is_some()), ("cluster key", cluster.is_some()), ("user key", user.is_some())]
    {
        assert!(is_there || !acks.contains(&ack), "{ack} is gone");
    }
    assert!(cluster.is_none_or(|text| text.as_str() == "tintype-cluster-1:x"));
    assert!(user.is_none_or(|text| text.as_str() == "tintype-user-1:x"));
}

async fn check_disk(disk: &Disk, acks: &[&str]) {
    for n in 1..=3u8 {
        let one = disk.acceptors_now(&[object(n)]).unwrap().remove(0);
        let other = disk.acceptors_now(&[object(n + 100)]).unwrap().remove(0);
        assert_eq!(one, other, "half a batch");
        assert!(one.is_none() || one == Some(vec![n; 50]));
        assert!(one.is_some() || !acks.contains(&format!("record {n}").as_str()), "record {n} is gone");
    }
    let vote = disk.meta(MetaKey::FoundingVote).unwrap();
    assert_eq!(vote.is_some(), disk.meta(MetaKey::Founding).unwrap().is_some());
    assert_eq!(vote.is_some(), !disk.all_seen().unwrap().is_empty());
    assert!(vote.is_some() || !acks.contains(&"founding"));
    for ack in acks.iter().filter_map(|ack| ack.strip_prefix("body ")) {
        let seed = ack.parse().unwrap();
        let (id, bytes) = body(seed, if seed == 50 { LARGE } else { length(seed) });
        assert_eq!(disk.get_body(id).await.unwrap(), Some(bytes), "body {seed}");
    }
    check_files(disk.home());
}

/// No file under a chunk's name may be half; the one exception the workload has made itself.
fn check_files(home: &Home) {
    let rotten = body(50, LARGE).0;
    let mut folders = vec![home.chunks_dir()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let id = BodyId::from_hex(entry.file_name().to_str().unwrap()).expect("no temporary files stay");
            let bytes = fs::read(entry.path()).unwrap();
            assert!(fits(&id, &bytes) || (id == rotten && bytes == b"rot"), "{id} is half");
        }
    }
}

/// Not a test: what the child process does.
#[test]
#[ignore = "run by the tests of this file in a process of its own"]
fn child() {
    let Ok(root) = std::env::var(CHILD_ROOT) else { return };
    let mut say = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nACK {line}").and_then(|()| out.flush()).expect("the parent listens");
    };
    workload(Path::new(&root), &mut say).expect("the workload runs");
}

fn run_child(root: &Path, crash_at: Option<&str>) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([CHILD, "--exact", "--ignored", "--nocapture", "--test-threads=1"]).env(CHILD_ROOT, root);
    match crash_at {
        Some(point) => command.env("TINTYPE_CRASH_AT", point),
        None => command.env_remove("TINTYPE_CRASH_AT"),
    };
    command.output().unwrap()
}

fn acks(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| line.strip_prefix("ACK ")).map(str::to_string).collect()
}

/// Dies at `point`, looks, runs on the same home to its end, and looks again.
fn die_at(point: &str, time: u32) {
    let dir = tempfile::tempdir().unwrap();
    let killed = run_child(dir.path(), Some(&format!("{point}:{time}")));
    let promised = acks(&killed);
    let was_reached = !promised.iter().any(|ack| ack == LAST_ACK);
    assert!(was_reached || time > 1, "{point} was never reached");
    let stderr = String::from_utf8_lossy(&killed.stderr);
    assert!(!was_reached || killed.status.code().is_none(), "{point}: {stderr}");
    verify(dir.path(), &promised.iter().map(String::as_str).collect::<Vec<_>>());
    let after = run_child(dir.path(), None);
    let mut promised_after = acks(&after);
    let stderr = String::from_utf8_lossy(&after.stderr);
    assert!(after.status.success(), "after {point}:{time}: {stderr}");
    promised_after.extend(promised);
    verify(dir.path(), &promised_after.iter().map(String::as_str).collect::<Vec<_>>());
}

fn die_at_share(share: usize) {
    let mine = CRASH_POINTS.iter().filter(|point| point.starts_with("disk."));
    for point in mine.skip(share).step_by(4) {
        (1..=3).for_each(|time| die_at(point, time));
    }
}

#[test]
fn death_at_every_point_loses_nothing_1() {
    die_at_share(0);
}

#[test]
fn death_at_every_point_loses_nothing_2() {
    die_at_share(1);
}

#[test]
fn death_at_every_point_loses_nothing_3() {
    die_at_share(2);
}

#[test]
fn death_at_every_point_loses_nothing_4() {
    die_at_share(3);
}

#[test]
fn every_point_in_the_source_is_on_the_list_and_none_else() {
    let mut found = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("disk/crash.rs") && !path.ends_with("disk/tests/crash.rs") {
                collect_points(&fs::read_to_string(&path).unwrap(), &mut found);
            }
        }
    }
    let listed: BTreeSet<String> = CRASH_POINTS.iter().map(|name| name.to_string()).collect();
    assert_eq!(found, listed);
    assert!(CRASH_POINTS.is_sorted());
}

fn collect_points(source: &str, found: &mut BTreeSet<String>) {
    let names = |call: &str| -> Vec<String> {
        let call = format!("{call}(");
        let after = source.split(&call).skip(1);
        let quoted = after.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
        quoted.map(str::to_string).collect()
    };
    found.extend(names("crash_point"));
    for name in names("steps!") {
        let steps = ["temp_created", "temp_written", "temp_synced", "placed", "durable"];
        found.extend(steps.map(|step| format!("{name}.{step}")));
    }
}
