//! What clients remember: together, after a death, and of a log full of rubbish.

use std::{fs, io::Write};

use proptest::prelude::*;

use super::*;
use crate::{
    disk::ClientState,
    model::{FoundingId, ObjectId, OwnerKey, limits},
};

const CLUSTER: FoundingId = FoundingId([1; 16]);
const ANNA: OwnerKey = OwnerKey([7; 32]);
const BERT: OwnerKey = OwnerKey([8; 32]);

fn object(n: u32) -> ObjectId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    ObjectId(id)
}

#[test]
fn the_highest_version_is_remembered_per_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    let mut state = ClientState::open(&home).unwrap();
    let mut beside = ClientState::open(&home).unwrap();
    assert_eq!(state.highest(CLUSTER, object(1)).unwrap(), None);
    state.saw(CLUSTER, ANNA, &[(object(1), 3), (object(2), 1), (object(1), 2)]).unwrap();
    beside.saw(CLUSTER, ANNA, &[(object(1), 2), (object(2), 5)]).unwrap();
    state.saw(FoundingId([2; 16]), ANNA, &[(object(1), 9)]).unwrap();
    for known in [&mut state, &mut beside, &mut ClientState::open(&home).unwrap()] {
        assert_eq!(known.highest(CLUSTER, object(1)).unwrap(), Some(3));
        assert_eq!(known.highest(CLUSTER, object(2)).unwrap(), Some(5));
        assert_eq!(known.highest(FoundingId([2; 16]), object(1)).unwrap(), Some(9));
    }
    assert!(!home.data_dir().exists());
}

#[test]
fn whose_objects_were_seen_is_remembered_too() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    let mut state = ClientState::open(&home).unwrap();
    state.saw(CLUSTER, ANNA, &[(object(1), 3), (object(2), 1)]).unwrap();
    state.saw(CLUSTER, BERT, &[(object(3), 9)]).unwrap();
    state.saw(FoundingId([2; 16]), ANNA, &[(object(4), 9)]).unwrap();
    state.saw(CLUSTER, ANNA, &[(object(2), 5)]).unwrap();
    // Once more from a log that was written anew.
    let raised: Vec<_> = (10..=limits::CLIENT_LOG_SPARE_LINES as u64 + 20).map(|v| (object(3), v)).collect();
    for _ in 0..2 {
        for known in [&mut state, &mut ClientState::open(&home).unwrap()] {
            let of_anna = known.all_of(CLUSTER, ANNA).unwrap();
            assert_eq!(of_anna, [(object(1), 3), (object(2), 5)].into());
            assert_eq!(known.all_of(CLUSTER, BERT).unwrap().into_keys().collect::<Vec<_>>(), [object(3)]);
            assert_eq!(known.all_of(FoundingId([3; 16]), ANNA).unwrap(), [].into());
        }
        state.saw(CLUSTER, BERT, &raised).unwrap();
    }
}

#[test]
fn addresses_are_few_and_the_latest_is_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = ClientState::open(&Home::at(dir.path())).unwrap();
    for n in 0..limits::CLIENT_ADDRESSES_MAX + 5 {
        state.remember_address(&format!("/ip4/10.0.0.{n}/udp/4117/quic-v1")).unwrap();
    }
    state.remember_address("/ip4/10.0.0.20/udp/4117/quic-v1").unwrap();
    state.remember_address("not an\naddress").unwrap();
    let known = ClientState::open(&Home::at(dir.path())).unwrap().addresses().unwrap();
    assert_eq!(known.len(), limits::CLIENT_ADDRESSES_MAX);
    assert_eq!(known[0], "/ip4/10.0.0.20/udp/4117/quic-v1");
    assert_eq!(known[1], format!("/ip4/10.0.0.{}/udp/4117/quic-v1", limits::CLIENT_ADDRESSES_MAX + 4));
}

#[test]
fn many_clients_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..6u32 {
            let home = &home;
            scope.spawn(move || {
                let mut state = ClientState::open(home).unwrap();
                for n in 0..20u32 {
                    state
                        .saw(CLUSTER, ANNA, &[(object(thread), u64::from(n) + 1), (object(99), u64::from(n))])
                        .unwrap();
                }
            });
        }
    });
    let mut state = ClientState::open(&home).unwrap();
    for thread in 0..6 {
        assert_eq!(state.highest(CLUSTER, object(thread)).unwrap(), Some(20));
    }
    assert_eq!(state.highest(CLUSTER, object(99)).unwrap(), Some(19));
}

#[test]
fn a_log_that_grows_is_written_anew_and_keeps_what_counts() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    let mut state = ClientState::open(&home).unwrap();
    let mut beside = ClientState::open(&home).unwrap();
    beside.saw(CLUSTER, ANNA, &[(object(0), 7)]).unwrap();
    let versions: Vec<_> = (1..=limits::CLIENT_LOG_SPARE_LINES as u64 + 10).map(|v| (object(1), v)).collect();
    state.saw(CLUSTER, ANNA, &versions).unwrap();
    let len = fs::metadata(home.client_log_path()).unwrap().len();
    assert!(len < 1000, "{len} bytes for two objects");
    for known in [&mut state, &mut beside] {
        assert_eq!(known.highest(CLUSTER, object(0)).unwrap(), Some(7));
        assert_eq!(known.highest(CLUSTER, object(1)).unwrap(), Some(versions.len() as u64));
    }
}

#[test]
fn the_objects_remembered_are_bounded_and_the_oldest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = ClientState::open(&Home::at(dir.path())).unwrap();
    let most = limits::CLIENT_SEEN_MAX as u32;
    let all: Vec<_> = (0..most).map(|n| (object(n), 1)).collect();
    state.saw(CLUSTER, ANNA, &all).unwrap();
    state.saw(CLUSTER, ANNA, &[(object(0), 2), (object(most), 1)]).unwrap();
    let mut state = ClientState::open(&Home::at(dir.path())).unwrap();
    assert_eq!(state.highest(CLUSTER, object(0)).unwrap(), Some(2));
    assert_eq!(state.highest(CLUSTER, object(1)).unwrap(), None);
    assert_eq!(state.highest(CLUSTER, object(most)).unwrap(), Some(1));
}

#[test]
fn a_torn_line_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    let mut state = ClientState::open(&home).unwrap();
    state.saw(CLUSTER, ANNA, &[(object(1), 3)]).unwrap();
    let mut log = fs::OpenOptions::new().append(true).open(home.client_log_path()).unwrap();
    log.write_all(b"seen 0101010101").unwrap();
    state.saw(CLUSTER, ANNA, &[(object(2), 4)]).unwrap();
    for known in [&mut state, &mut ClientState::open(&home).unwrap()] {
        assert_eq!(known.highest(CLUSTER, object(1)).unwrap(), Some(3));
        assert_eq!(known.highest(CLUSTER, object(2)).unwrap(), Some(4));
    }
}

#[test]
fn a_frozen_client_makes_the_others_say_busy() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    let mut state = ClientState::open(&home).unwrap();
    let frozen = fs::File::open(home.client_lock_path()).unwrap();
    frozen.lock().unwrap();
    assert!(matches!(state.highest(CLUSTER, object(1)), Err(DiskError::Busy)));
    drop(frozen);
    assert_eq!(state.highest(CLUSTER, object(1)).unwrap(), None);
}

#[test]
fn a_newer_log_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    fs::create_dir_all(home.state_dir()).unwrap();
    fs::write(home.client_log_path(), "tintype-client-2 00\n").unwrap();
    assert!(matches!(ClientState::open(&home), Err(DiskError::NewerFormat { found: 2, .. })));
    assert_eq!(fs::read_to_string(home.client_log_path()).unwrap(), "tintype-client-2 00\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_log_of_rubbish_never_panics_and_can_be_written_on(
        junk in proptest::collection::vec(any::<u8>(), 0..600),
        at in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        ClientState::open(&home).unwrap().saw(CLUSTER, ANNA, &[(object(1), 3)]).unwrap();
        let mut log = fs::read(home.client_log_path()).unwrap();
        let at = at.index(log.len());
        log.splice(at..(at + junk.len() / 2).min(log.len()), junk);
        prop_assume!(!log.starts_with(b"tintype-client-") || log.starts_with(b"tintype-client-1 "));
        fs::write(home.client_log_path(), log).unwrap();
        let mut state = ClientState::open(&home).unwrap();
        prop_assert!(state.highest(CLUSTER, object(1)).unwrap().is_none_or(|version| version == 3));
        state.saw(CLUSTER, ANNA, &[(object(2), 4)]).unwrap();
        prop_assert_eq!(ClientState::open(&home).unwrap().highest(CLUSTER, object(2)).unwrap(), Some(4));
    }
}
