//! The home and the start: who may open what, and what is never overwritten.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::{
    disk::NodeAddr,
    model::{PeerId, ProcessId, limits},
};

#[test]
fn keys_are_made_once_and_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("deep/home"));
    assert!(home.create().unwrap());
    assert!(!home.create().unwrap());
    let (key, made) = home.node_key_or_new().unwrap();
    assert!(made);
    let (again, made) = home.node_key_or_new().unwrap();
    assert!(!made);
    assert_eq!(key.public().to_peer_id(), again.public().to_peer_id());
    assert!(home.create_cluster_key("tintype-cluster-1:one").unwrap());
    assert!(!home.create_cluster_key("tintype-cluster-1:two").unwrap());
    assert_eq!(home.cluster_key().unwrap().unwrap().as_str(), "tintype-cluster-1:one");
    assert!(home.create_user_key("zoë", "secret").unwrap());
    assert!(home.create_user_key("alice", "secret").unwrap());
    assert!(!home.create_user_key("alice", "other").unwrap());
    assert_eq!(home.users().unwrap(), ["alice", "zoë"]);
    assert_eq!(home.user_key("bob").unwrap(), None);
    for name in ["", ".hidden", "../alice", "a/b", "a\0b", "-x", &"x".repeat(65)] {
        assert!(matches!(home.create_user_key(name, "s"), Err(DiskError::BadName { .. })), "{name:?}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &str| fs::metadata(home.root().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("keys"), 0o700);
        assert_eq!(mode("keys/node.key"), 0o600);
        assert_eq!(mode("keys/users/alice.key"), 0o600);
    }
    let names: Vec<_> =
        fs::read_dir(home.root().join("keys")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "no temporary files stay: {names:?}");
}

#[test]
fn two_processes_that_make_a_key_at_once_agree_on_one() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    home.create().unwrap();
    let make = || home.node_key_or_new().unwrap();
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|(_, made)| *made).count(), 1);
    assert!(results.iter().all(|(key, _)| key.public() == results[0].0.public()));
}

#[test]
fn each_start_counts_and_the_incarnation_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, first) = open(dir.path()).unwrap();
    assert!(first.first_start);
    assert_eq!(first.mark.boot, 1);
    drop(disk);
    let (disk, second) = open(dir.path()).unwrap();
    assert!(!second.first_start);
    assert_eq!(second.mark.boot, 2);
    assert_eq!(second.incarnation, first.incarnation);
    assert!(disk.starts() == [first.mark, second.mark]);
    drop(disk);
    fs::remove_dir_all(dir.path().join("data")).unwrap();
    let (_disk, emptied) = open(dir.path()).unwrap();
    assert!(emptied.first_start);
    assert_ne!(emptied.incarnation, first.incarnation);
}

#[test]
fn the_history_is_bounded_and_keeps_the_last_starts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records");
    crate::disk::tables::make_file(&path, crate::model::Incarnation::ZERO).unwrap();
    let db = crate::disk::tables::open_file(&path).unwrap();
    let most = limits::BOOT_HISTORY_MAX as u64;
    let start = |n: u64| {
        let mut process = [0; 16];
        process[..8].copy_from_slice(&n.to_le_bytes());
        crate::disk::tables::count_start(&db, ProcessId(process)).unwrap()
    };
    (1..most + 5).for_each(|n| _ = start(n));
    let last = start(most + 5);
    assert_eq!(last.boot, most + 5);
    assert_eq!(last.history.len(), limits::BOOT_HISTORY_MAX);
    assert_eq!(last.history[0].boot, 6);
    assert_eq!(last.history.last().unwrap().boot, most + 5);
}

#[test]
fn a_home_has_one_node() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    assert!(matches!(open(dir.path()), Err(DiskError::Locked { .. })));
    drop(disk);
    opened(dir.path());
}

#[test]
fn a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("format"), "tintype-data-3\n").unwrap();
    let error = open(dir.path()).err().unwrap();
    assert!(matches!(error, DiskError::NewerFormat { found: 3, known: 2, .. }), "{error}");
    assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "nothing was added");
    assert_eq!(fs::read_to_string(data.join("format")).unwrap(), "tintype-data-3\n");
    fs::write(data.join("format"), "rubbish").unwrap();
    assert!(matches!(open(dir.path()), Err(DiskError::BadFile { .. })));
}

#[test]
fn data_without_its_format_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(opened(dir.path()));
    fs::remove_file(dir.path().join("data/format")).unwrap();
    assert!(matches!(open(dir.path()), Err(DiskError::BadFile { .. })));
}

#[test]
fn a_home_of_another_machine_wants_to_be_told() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, first) = open(dir.path()).unwrap();
    drop(disk);
    let elsewhere = DiskOptions { machine: Some("attic".into()), ..options() };
    let home = Home::at(dir.path());
    let refused = Disk::open(&home, elsewhere.clone()).err().unwrap();
    assert!(matches!(refused, DiskError::OtherMachine { .. }), "{refused}");
    let (disk, boot) = Disk::open(&home, DiskOptions { moved: true, ..elsewhere.clone() }).unwrap();
    assert!(boot.moved && boot.mark.boot == first.mark.boot + 1);
    drop(disk);
    let (disk, boot) = Disk::open(&home, elsewhere).unwrap();
    assert!(!boot.moved);
    drop(disk);
    assert!(matches!(open(dir.path()), Err(DiskError::OtherMachine { .. })));
}

#[test]
fn a_home_that_was_rolled_back_never_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    disk.mark_rolled_back().unwrap();
    drop(disk);
    for _ in 0..3 {
        assert!(matches!(open(dir.path()), Err(DiskError::RolledBack { .. })));
    }
}

#[test]
fn clients_find_the_running_node() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    let home = disk.home().clone();
    assert_eq!(home.node_addr().unwrap(), None);
    let addrs = vec!["/ip4/127.0.0.1/udp/4117/quic-v1".to_string(), "/ip6/::1/udp/4117/quic-v1".to_string()];
    let addr = NodeAddr::new(PeerId::random(), ProcessId([3; 16]), addrs);
    disk.publish_addr(&addr).unwrap();
    assert_eq!(home.node_addr().unwrap(), Some(addr.clone()));
    let mut odd = addr.clone();
    odd.addrs = vec!["two\nlines".into(), "/ok".into()];
    disk.publish_addr(&odd).unwrap();
    assert_eq!(home.node_addr().unwrap().unwrap().addrs, ["/ok"]);
    disk.retract_addr();
    assert_eq!(home.node_addr().unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_small_file_of_a_home_makes_it_panic(
        junk in proptest::collection::vec(any::<u8>(), 0..300),
        keep in 0usize..40,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.create().unwrap();
        fs::create_dir_all(home.data_dir()).unwrap();
        let with = |head: &str| [&head.as_bytes()[..keep.min(head.len())], &junk[..]].concat();
        fs::write(dir.path().join("keys/node.key"), with("tintype-node-1:00112233")).unwrap();
        fs::write(dir.path().join("keys/cluster.key"), &junk).unwrap();
        fs::write(dir.path().join("data/node.addr"), with("tintype-node-addr-1\npeer 12D3KooW")).unwrap();
        let _ = home.node_key();
        let _ = home.node_key_or_new();
        prop_assert_eq!(fs::read(dir.path().join("keys/node.key")).unwrap(), with("tintype-node-1:00112233"));
        let _ = (home.cluster_key(), home.node_addr());
        fs::write(dir.path().join("data/machine"), &junk).unwrap();
        prop_assert!(Disk::open(&home, options()).is_err());
        fs::remove_file(dir.path().join("data/machine")).unwrap();
        fs::write(dir.path().join("data/format"), with("tintype-data-2")).unwrap();
        let _ = Disk::open(&home, options());
    }

    #[test]
    fn a_record_file_of_rubbish_is_an_error(junk in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let dir = tempfile::tempdir().unwrap();
        drop(opened(dir.path()));
        fs::write(dir.path().join("data/records.redb"), &junk).unwrap();
        prop_assert!(open(dir.path()).is_err());
        prop_assert_eq!(fs::read(dir.path().join("data/records.redb")).unwrap(), junk);
    }
}
