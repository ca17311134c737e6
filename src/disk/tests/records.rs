//! The durable writer and the records: order, grouping, bounds, and what a failed fsync does.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use super::*;
use crate::{
    disk::{
        MetaKey, RecordScan, Seen, WriteBatch,
        fault::Fault,
        records::Records,
        space::Space,
        tables::{check, make_tables},
        writer::Writer,
    },
    model::{
        Incarnation, ObjectId, OwnerKey, PeerId, ProcessId, hello::BootMark, limits, member::Epoch,
        slots::HashSlot,
    },
};

fn object(slot: u8, n: u8) -> ObjectId {
    let mut id = [n; 32];
    id[0] = slot;
    ObjectId(id)
}

fn record(slot: u8, n: u8) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.record(object(slot, n), Some(OwnerKey([n % 2; 32])), vec![n; 10]);
    batch
}

/// Keeps the writer busy until the returned sender is dropped.
fn hold_writer(disk: &Disk) -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let hold = move |_| {
        tell.send(()).unwrap();
        let _ = held.recv();
    };
    disk.submit(WriteBatch::new(), hold).unwrap();
    told.recv().unwrap();
    release
}

#[test]
fn what_waits_shares_one_commit_in_the_order_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    let release = hold_writer(&disk);
    let before = disk.commits();
    let order = Arc::new(Mutex::new(Vec::new()));
    for n in 0..100u8 {
        let order = order.clone();
        disk.submit(record(n, n), move |result| order.lock().unwrap().push((n, result.is_ok()))).unwrap();
    }
    drop(release);
    on_runtime(disk.write(WriteBatch::new())).unwrap();
    assert_eq!(*order.lock().unwrap(), (0..100u8).map(|n| (n, true)).collect::<Vec<_>>());
    assert_eq!(disk.commits() - before, 1);
}

#[test]
fn the_last_write_of_many_wins_and_big_queues_take_several_commits() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    let release = hold_writer(&disk);
    let before = disk.commits();
    let count = 3 * limits::WRITE_BATCH_MAX + 1;
    for n in 0..count {
        let mut batch = WriteBatch::new();
        batch.record(object(1, 1), None, (n as u64).to_le_bytes().to_vec());
        disk.submit(batch, |result| result.unwrap()).unwrap();
    }
    drop(release);
    on_runtime(async {
        disk.write(WriteBatch::new()).await.unwrap();
        let last = disk.acceptors_now(&[object(1, 1)]).unwrap().remove(0).unwrap();
        assert_eq!(last, (count as u64 - 1).to_le_bytes());
    });
    assert_eq!(disk.commits() - before, 4);
}

#[test]
fn a_full_queue_is_an_answer_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    let release = hold_writer(&disk);
    let mut taken = 0;
    let (tell, told) = mpsc::channel();
    loop {
        let tell = tell.clone();
        match disk.submit(record(1, (taken % 200) as u8), move |result| tell.send(result.is_ok()).unwrap()) {
            Ok(()) => taken += 1,
            Err(DiskError::Busy) => break,
            Err(other) => panic!("{other}"),
        }
    }
    drop(tell);
    assert_eq!(taken, limits::WRITE_QUEUE_MAX);
    drop(release);
    assert_eq!(told.iter().filter(|ok| *ok).count(), taken);
    on_runtime(disk.write(record(1, 1))).unwrap();
}

#[test]
fn the_queue_is_bounded_in_bytes_too_and_in_what_one_record_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    let release = hold_writer(&disk);
    let mut taken = 0;
    let big = || {
        let mut batch = WriteBatch::new();
        (0..100).for_each(|n| _ = batch.record(object(2, n), None, vec![0; limits::RECORD_BYTES_MAX]));
        batch
    };
    while disk.submit(big(), |_| ()).is_ok() {
        taken += 1;
    }
    assert!(taken * 100 * limits::RECORD_BYTES_MAX <= limits::WRITE_QUEUE_BYTES_MAX && taken > 10);
    drop(release);
    let mut batch = WriteBatch::new();
    batch.record(object(1, 1), None, vec![0; limits::RECORD_BYTES_MAX + 1]);
    assert!(matches!(on_runtime(disk.write(batch)), Err(DiskError::TooLarge { .. })));
    let mut batch = WriteBatch::new();
    (0..=limits::WRITE_BATCH_MAX).for_each(|_| _ = batch.meta(MetaKey::Founding, None));
    assert!(matches!(on_runtime(disk.write(batch)), Err(DiskError::TooLarge { .. })));
}

#[test]
fn scans_go_page_by_page_through_a_slot_and_an_owner() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    on_runtime(async {
        for slot in [0, 7, 255] {
            for n in 0..20 {
                disk.write(record(slot, n)).await.unwrap();
            }
        }
        let mut unowned = WriteBatch::new();
        unowned.record(object(7, 99), None, vec![9]);
        disk.write(unowned).await.unwrap();
        for slot in [0, 7, 255] {
            let (mut after, mut found) = (None, Vec::new());
            loop {
                let page: RecordScan = disk.scan_slot(HashSlot(slot), after, 100).await.unwrap();
                assert!(page.records.len() <= 2);
                found.extend(page.records.into_iter().map(|record| record.object));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            let mut expected: Vec<_> = (0..20).map(|n| object(slot, n)).collect();
            expected.extend((slot == 7).then(|| object(7, 99)));
            assert_eq!(found, expected);
        }
        let strange = disk.scan_slot(HashSlot(7), Some(object(255, 1)), 1000).await.unwrap();
        assert_eq!(strange, RecordScan::default());
        let (mut after, mut found) = (None, 0);
        loop {
            let page = disk.scan_owner(OwnerKey([1; 32]), after, 500).await.unwrap();
            assert!(page.records.iter().all(|record| record.bytes[0] % 2 == 1));
            found += page.records.len();
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, 30);
        let nobody = disk.scan_owner(OwnerKey([5; 32]), Some(object(255, 255)), 500).await.unwrap();
        assert_eq!(nobody, RecordScan::default());
    });
}

#[test]
fn everything_is_there_after_a_stop_and_nothing_is_taken_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    let (peer, other) = (PeerId::random(), PeerId::random());
    let mark = |boot| BootMark { boot, process: ProcessId([boot as u8; 16]) };
    let seen = |boot| Seen { mark: mark(boot), promises: 7, incarnation: Incarnation([1; 16]) };
    let mut batch = WriteBatch::new();
    batch.meta(MetaKey::Founding, Some(vec![1, 2])).meta(MetaKey::FoundingVote, Some(vec![3]));
    batch.seen(peer, seen(1)).seen(other, seen(2)).seen(peer, seen(3));
    let (tell, told) = mpsc::channel();
    disk.submit(batch, move |result| tell.send(result).unwrap()).unwrap();
    on_runtime(disk.stop()).unwrap();
    told.try_recv().unwrap().unwrap();
    assert!(matches!(disk.submit(WriteBatch::new(), |_| ()), Err(DiskError::Closed)));
    assert!(matches!(on_runtime(disk.get_body(body(1, 10).0)), Err(DiskError::Closed)));
    on_runtime(disk.stop()).unwrap();
    drop(disk);
    let disk = opened(dir.path());
    assert_eq!(disk.meta(MetaKey::Founding).unwrap(), Some(vec![1, 2]));
    let mut all = disk.all_seen().unwrap();
    all.sort_by_key(|(_, seen)| seen.mark);
    assert_eq!(all, [(other, seen(2)), (peer, seen(3))]);
    let mut batch = WriteBatch::new();
    batch.meta(MetaKey::FoundingVote, None);
    on_runtime(disk.write(batch)).unwrap();
    assert_eq!(disk.meta(MetaKey::FoundingVote).unwrap(), None);
}

/// A disk whose fsync can be made to fail.
#[derive(Debug)]
struct Failing {
    inner: redb::backends::InMemoryBackend,
    fails: Arc<AtomicBool>,
}

impl redb::StorageBackend for Failing {
    fn len(&self) -> Result<u64, io::Error> {
        self.inner.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.inner.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.inner.set_len(len)
    }
    fn sync_data(&self) -> Result<(), io::Error> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("the platter fell off"));
        }
        self.inner.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.inner.write(offset, data)
    }
}

#[test]
fn a_failed_fsync_acknowledges_nothing_ever_again() {
    let dir = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let inner = redb::backends::InMemoryBackend::new();
    let db = redb::Database::builder().create_with_backend(Failing { inner, fails: fails.clone() }).unwrap();
    make_tables(&db, Incarnation::ZERO).unwrap();
    let fault = Arc::new(Fault::new());
    let watch = fault.watch();
    let records = Arc::new(Records::new(db, fault.clone()).unwrap());
    let space = Arc::new(Space::new(dir.path().into(), 0, None));
    let writer = Writer::start(records.clone(), space, fault).unwrap();
    let write = |n| {
        let (tell, told) = mpsc::channel();
        writer.submit(record(1, n), move |result| tell.send(result).unwrap()).map(|()| told.recv().unwrap())
    };
    write(1).unwrap().unwrap();
    assert!(watch.borrow().is_none());
    fails.store(true, Ordering::SeqCst);
    let error = write(2).unwrap().unwrap_err();
    assert!(error.is_fatal() && error.to_string().contains("platter"), "{error}");
    assert!(watch.borrow().as_ref().is_some_and(DiskError::is_fatal));
    fails.store(false, Ordering::SeqCst);
    assert!(write(3).unwrap_err().is_fatal(), "the disk may be well again, but nobody knows what is on it");
    assert!(records.acceptors(&[object(1, 1)]).unwrap_err().is_fatal());
}

/// The record file with these bytes; only they matter here, so it lies in memory.
fn in_memory(file: &[u8]) -> Result<redb::Database, DiskError> {
    let memory = redb::backends::InMemoryBackend::new();
    redb::StorageBackend::set_len(&memory, file.len() as u64).expect("memory");
    redb::StorageBackend::write(&memory, 0, file).expect("memory");
    let opened = redb::Database::builder().create_with_backend(memory);
    opened.map_err(|error| DiskError::Records(error.to_string().into()))
}

#[test]
fn a_flipped_bit_in_a_record_is_an_error_and_never_another_promise() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    let promise: Vec<u8> = (0..200u8).collect();
    let mut batch = WriteBatch::new();
    batch.record(object(1, 1), None, promise.clone());
    on_runtime(disk.write(batch)).unwrap();
    drop(disk);
    let path = dir.path().join("data/records.redb");
    let mut file = std::fs::read(&path).unwrap();
    let copies: Vec<usize> = (0..file.len() - 200).filter(|at| file[*at..].starts_with(&promise)).collect();
    assert!(!copies.is_empty());
    copies.iter().for_each(|at| file[at + 77] ^= 4);
    std::fs::write(&path, &file).unwrap();
    let refused = open(dir.path()).err().expect("a start finds it").to_string();
    assert!(refused.starts_with("the record file: ") && refused.contains("checksum"), "{refused}");
    // One that has come later is found when it is read.
    let fault = Arc::new(Fault::new());
    let records = Records::new(in_memory(&file).unwrap(), fault.clone()).unwrap();
    assert!(records.acceptors(&[object(1, 1)]).unwrap_err().is_fatal());
    assert!(fault.watch().borrow().is_some(), "the node must stop");
}

#[test]
fn no_room_for_records_is_told_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let db = redb::Database::builder()
        .create_with_backend(redb::backends::InMemoryBackend::new())
        .expect("in memory");
    make_tables(&db, Incarnation::ZERO).unwrap();
    let fault = Arc::new(Fault::new());
    let records = Arc::new(Records::new(db, fault.clone()).unwrap());
    let space = Arc::new(Space::new(dir.path().into(), 0, None));
    space.pretend_free(limits::RECORD_FLOOR_BYTES - 1);
    let writer = Writer::start(records.clone(), space.clone(), fault.clone()).unwrap();
    let (tell, told) = mpsc::channel();
    writer.submit(record(1, 1), move |result| tell.send(result).unwrap()).unwrap();
    assert!(told.recv().unwrap().unwrap_err().is_full());
    assert_eq!(records.acceptors(&[object(1, 1)]).unwrap(), [None]);
    fault.check().unwrap();
    space.pretend_free(1 << 40);
    let (tell, told) = mpsc::channel();
    writer.submit(record(1, 1), move |result| tell.send(result).unwrap()).unwrap();
    told.recv().unwrap().unwrap();
}

#[test]
fn fences_are_there_at_the_next_start_and_count_as_promises() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    assert_eq!(disk.fences().unwrap(), BTreeMap::new());
    let before = disk.promises();
    let fence = |slot, epoch| {
        let mut batch = WriteBatch::new();
        batch.fence(HashSlot(slot), Epoch(epoch));
        on_runtime(disk.write(batch)).unwrap();
    };
    [(7, 2), (255, 3), (7, 4)].into_iter().for_each(|(slot, epoch)| fence(slot, epoch));
    assert_eq!(disk.promises(), before + 3);
    on_runtime(disk.stop()).unwrap();
    drop(disk);
    let expected = [(HashSlot(7), Epoch(4)), (HashSlot(255), Epoch(3))].into();
    assert_eq!(opened(dir.path()).fences().unwrap(), expected);
}

#[test]
fn a_record_file_of_an_older_version_has_no_fences_and_takes_them() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    on_runtime(disk.stop()).unwrap();
    drop(disk);
    let file = Home::at(dir.path()).records_path();
    let db = redb::Database::open(&file).unwrap();
    let txn = db.begin_write().unwrap();
    assert!(txn.delete_table(crate::disk::tables::FENCES).unwrap());
    txn.commit().unwrap();
    drop(db);
    let disk = opened(dir.path());
    assert_eq!(disk.fences().unwrap(), BTreeMap::new());
    let mut batch = WriteBatch::new();
    batch.fence(HashSlot(1), Epoch(2));
    on_runtime(disk.write(batch)).unwrap();
    assert_eq!(disk.fences().unwrap(), [(HashSlot(1), Epoch(2))].into());
}

/// What became of the records in a file with one flipped bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum AfterFlip {
    /// It is not opened, or not read.
    Refused,
    /// redb does not bear it; the process ends.
    Died,
    /// Whole.
    Right,
    /// Older than it was, and with a count of promises that tells it to every member.
    Older,
    /// Something is missing, and nobody notices.
    Wrong,
}

fn after_flip(file: &[u8], promises: u64, records: &[(ObjectId, Vec<u8>)]) -> AfterFlip {
    let objects: Vec<ObjectId> = records.iter().map(|(object, _)| *object).collect();
    let look = || -> Result<AfterFlip, DiskError> {
        let db = in_memory(file)?;
        check(&db)?;
        let opened = Records::new(db, Arc::new(Fault::new()))?;
        let found = opened.acceptors(&objects)?;
        let is_whole = found.iter().flatten().eq(records.iter().map(|(_, bytes)| bytes));
        Ok(match is_whole {
            true => AfterFlip::Right,
            false if opened.promises() < promises => AfterFlip::Older,
            false => AfterFlip::Wrong,
        })
    };
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(look)) {
        Ok(became) => became.unwrap_or(AfterFlip::Refused),
        Err(_) => AfterFlip::Died,
    }
}

/// Bits all over the file, and one in every place where a record's name stands.
fn places_to_flip(file: &[u8], records: &[(ObjectId, Vec<u8>)]) -> Vec<usize> {
    let is_used = |at: &usize| file[at / 4096 * 4096..].iter().take(4096).any(|byte| *byte != 0);
    let all_over = (13..file.len()).step_by(4001).filter(is_used);
    let names = records.iter().step_by(20).flat_map(|(object, _)| {
        let stands = |at: &usize| file[*at] == object.0[0] && file[*at..].starts_with(&object.0);
        (0..file.len() - ObjectId::LEN).filter(stands).map(|at| at + 17)
    });
    all_over.chain(names).collect()
}

#[test]
fn no_flipped_bit_makes_a_record_vanish() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    let records: Vec<(ObjectId, Vec<u8>)> =
        (1..=255u8).map(|n| (object(n, n.wrapping_mul(7)), vec![n; 300])).collect();
    for some in records.chunks(64) {
        let mut batch = WriteBatch::new();
        for (object, bytes) in some {
            batch.record(*object, None, bytes.clone());
        }
        on_runtime(disk.write(batch)).unwrap();
    }
    let (path, promises) = (dir.path().join("data/records.redb"), disk.promises());
    // As a killed process leaves it, and as one that ended in order does.
    let killed = std::fs::read(&path).unwrap();
    drop(disk);
    for (name, file) in [("killed", killed), ("ended", std::fs::read(&path).unwrap())] {
        let mut counts = std::collections::BTreeMap::new();
        for at in places_to_flip(&file, &records) {
            let mut flipped = file.clone();
            flipped[at] ^= 1 << (at % 8);
            let became = after_flip(&flipped, promises, &records);
            assert_ne!(became, AfterFlip::Wrong, "bit {} of byte {at} of {name}", at % 8);
            *counts.entry(became).or_insert(0) += 1;
        }
        println!("{name}: {counts:?}");
        assert!(counts[&AfterFlip::Refused] + counts.get(&AfterFlip::Older).unwrap_or(&0) >= 10);
    }
}
