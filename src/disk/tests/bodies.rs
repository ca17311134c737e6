//! Bodies: what is read is what was written, or an error; full is an answer.

use std::{
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::*;
use crate::{
    disk::{BodyCheck, PutOutcome},
    model::limits,
};

const LARGE: usize = limits::SMALL_BODY_BYTES_MAX + 1;

fn file_of(root: &Path, id: BodyId) -> PathBuf {
    Home::at(root).chunk_path(&id)
}

fn quarantined(root: &Path) -> usize {
    fs::read_dir(root.join("data/quarantine")).unwrap().count()
}

#[test]
fn chunks_of_a_home_with_two_levels_of_folders_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let bodies: Vec<_> = (0..6).map(|seed| body(seed, LARGE)).collect();
    let disk = opened(dir.path());
    on_runtime(async {
        for (id, bytes) in &bodies {
            disk.put_body(*id, bytes.clone()).await.unwrap();
        }
        disk.stop().await.unwrap();
    });
    drop(disk);
    // As it was, and as if the change had been interrupted after the first.
    for (id, _) in &bodies[1..] {
        let now = file_of(dir.path(), *id);
        let below = now.parent().unwrap().join(format!("{:02x}", id.0[1]));
        fs::create_dir_all(&below).unwrap();
        fs::rename(&now, below.join(now.file_name().unwrap())).unwrap();
    }
    let format = dir.path().join("data/format");
    fs::write(&format, "tintype-data-1\n").unwrap();
    let disk = opened(dir.path());
    on_runtime(async {
        for (id, bytes) in &bodies {
            assert_eq!(disk.get_body(*id).await.unwrap().as_ref(), Some(bytes));
        }
    });
    assert_eq!(fs::read_to_string(format).unwrap(), "tintype-data-2\n");
    let folder = file_of(dir.path(), bodies[1].0).parent().unwrap().to_owned();
    let only_files = fs::read_dir(folder).unwrap().all(|e| e.unwrap().file_type().unwrap().is_file());
    assert!(only_files, "an empty folder stayed");
}

/// Puts bytes into the record file that do not fit their id, as rot would.
async fn rot_small(disk: &Disk, id: BodyId) {
    let mut batch = crate::disk::WriteBatch::new();
    batch.push(crate::disk::records::Op::Rot { id, bytes: b"rot".to_vec() });
    disk.write(batch).await.unwrap();
}

#[test]
fn bodies_of_every_size_come_back_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [0, 1, 1000, limits::SMALL_BODY_BYTES_MAX, LARGE, limits::BODY_BYTES_MAX];
    let bodies: Vec<_> = sizes.iter().enumerate().map(|(seed, len)| body(seed as u64, *len)).collect();
    let disk = opened(dir.path());
    on_runtime(async {
        for (id, bytes) in &bodies {
            assert!(!disk.has_body(*id).await.unwrap());
            assert_eq!(disk.get_body(*id).await.unwrap(), None);
            assert_eq!(disk.check_body(*id).await.unwrap(), BodyCheck::Missing);
            assert_eq!(disk.put_body(*id, bytes.clone()).await.unwrap(), PutOutcome::Written);
            assert_eq!(disk.put_body(*id, bytes.clone()).await.unwrap(), PutOutcome::Had);
        }
        let (id, bytes) = body(99, limits::BODY_BYTES_MAX + 1);
        assert!(matches!(disk.put_body(id, bytes).await, Err(DiskError::TooLarge { .. })));
    });
    let total: usize = sizes.iter().sum();
    until("the count ends", || disk.used_bytes().is_some());
    assert_eq!(disk.used_bytes(), Some(total as u64));
    drop(disk);
    let disk = opened(dir.path());
    on_runtime(async {
        for (id, bytes) in &bodies {
            assert!(disk.has_body(*id).await.unwrap());
            assert_eq!(disk.get_body(*id).await.unwrap().as_ref(), Some(bytes));
            let BodyCheck::Good { verified_unix_ms } = disk.check_body(*id).await.unwrap() else { panic!() };
            assert!(verified_unix_ms > 1_600_000_000_000);
            assert!(disk.body_verified(*id).await.unwrap().is_some());
        }
    });
    until("the count ends", || disk.used_bytes().is_some());
    assert_eq!(disk.used_bytes(), Some(total as u64));
}

#[test]
fn a_check_notes_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    on_runtime(async {
        for len in [100, LARGE] {
            let (id, bytes) = body(1, len);
            disk.put_body(id, bytes).await.unwrap();
            if len == LARGE {
                let file = fs::File::open(file_of(dir.path(), id)).unwrap();
                file.set_modified(std::time::UNIX_EPOCH).unwrap();
                assert_eq!(disk.body_verified(id).await.unwrap(), Some(0));
            }
            let BodyCheck::Good { verified_unix_ms } = disk.check_body(id).await.unwrap() else { panic!() };
            disk.write(crate::disk::WriteBatch::new()).await.unwrap();
            assert_eq!(disk.body_verified(id).await.unwrap(), Some(verified_unix_ms));
        }
    });
}

#[test]
fn a_bad_copy_is_never_returned_and_a_good_one_replaces_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    until("the count ends", || disk.used_bytes().is_some());
    let (id, bytes) = body(1, LARGE);
    let mut flipped = bytes.clone();
    flipped[LARGE / 2] ^= 1;
    let longer = [&bytes[..], b"x"].concat();
    let rots = [bytes[..100].to_vec(), Vec::new(), flipped, longer, vec![7; limits::BODY_BYTES_MAX * 3]];
    on_runtime(async {
        disk.put_body(id, bytes.clone()).await.unwrap();
        let mut aside = 0;
        for rot in &rots {
            for way in 0..3 {
                fs::write(file_of(dir.path(), id), rot).unwrap();
                aside += 1;
                let expected = match way {
                    0 => {
                        let read = disk.get_body(id).await;
                        assert!(matches!(read, Err(DiskError::Corrupt { id: bad }) if bad == id));
                        PutOutcome::Written
                    }
                    1 => {
                        assert_eq!(disk.check_body(id).await.unwrap(), BodyCheck::Corrupt);
                        PutOutcome::Written
                    }
                    _ => PutOutcome::Mended,
                };
                assert_eq!(disk.has_body(id).await.unwrap(), way == 2);
                assert_eq!(disk.put_body(id, bytes.clone()).await.unwrap(), expected);
                assert_eq!(disk.get_body(id).await.unwrap().as_ref(), Some(&bytes));
                assert_eq!(quarantined(dir.path()), aside);
                assert_eq!(disk.corrupt_found(), aside as u64);
            }
        }
    });
}

/// What may lie in a chunk's place and is no file: a folder with something in it, a link, a pipe.
#[cfg(unix)]
fn lay_no_file(path: &Path, kind: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    match kind {
        0 => fs::create_dir_all(path.join("inside")).unwrap(),
        1 => std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        2 => std::os::unix::fs::symlink("nothing there", path).unwrap(),
        _ => assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success()),
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_file_in_a_chunks_place_is_a_bad_copy() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    until("the count ends", || disk.used_bytes().is_some());
    let (id, bytes) = body(1, LARGE);
    let path = file_of(dir.path(), id);
    let mut aside = 0;
    on_runtime(async {
        for kind in 0..4 {
            for way in 0..3 {
                lay_no_file(&path, kind);
                aside += 1;
                assert!(!disk.has_body(id).await.unwrap(), "kind {kind}");
                let expected = match way {
                    0 => {
                        let read = disk.get_body(id).await;
                        assert!(matches!(read, Err(DiskError::Corrupt { .. })), "kind {kind}: {read:?}");
                        assert_eq!(disk.get_body(id).await.unwrap(), None);
                        PutOutcome::Written
                    }
                    1 => {
                        assert_eq!(disk.check_body(id).await.unwrap(), BodyCheck::Corrupt);
                        assert_eq!(disk.check_body(id).await.unwrap(), BodyCheck::Missing);
                        PutOutcome::Written
                    }
                    _ => PutOutcome::Mended,
                };
                assert_eq!(disk.put_body(id, bytes.clone()).await.unwrap(), expected);
                assert_eq!(disk.get_body(id).await.unwrap().as_ref(), Some(&bytes));
                assert_eq!((quarantined(dir.path()), disk.corrupt_found()), (aside, aside as u64));
                fs::remove_file(&path).unwrap();
            }
        }
    });
}

#[cfg(unix)]
#[test]
fn folders_in_the_quarantine_do_not_make_it_grow() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    on_runtime(async {
        for seed in 0..limits::QUARANTINE_MAX as u64 + 9 {
            let path = file_of(dir.path(), body(seed, LARGE).0);
            match seed {
                // Somebody's: these stay, and others make room.
                0..3 => lay_no_file(&path, 0),
                _ => fs::create_dir_all(&path).unwrap(),
            }
            assert_eq!(disk.check_body(body(seed, LARGE).0).await.unwrap(), BodyCheck::Corrupt);
        }
    });
    assert_eq!(quarantined(dir.path()), limits::QUARANTINE_MAX);
    let kept = fs::read_dir(dir.path().join("data/quarantine")).unwrap().flatten();
    assert_eq!(kept.filter(|entry| entry.path().join("inside").exists()).count(), 3);
}

#[test]
fn a_bad_small_body_is_replaced_too() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    let (id, bytes) = body(1, 500);
    on_runtime(async {
        rot_small(&disk, id).await;
        assert!(matches!(disk.get_body(id).await, Err(DiskError::Corrupt { .. })));
        disk.write(crate::disk::WriteBatch::new()).await.unwrap();
        assert_eq!(disk.get_body(id).await.unwrap(), None);
        rot_small(&disk, id).await;
        assert_eq!(disk.check_body(id).await.unwrap(), BodyCheck::Corrupt);
        rot_small(&disk, id).await;
        assert_eq!(disk.put_body(id, bytes.clone()).await.unwrap(), PutOutcome::Mended);
        assert_eq!(disk.get_body(id).await.unwrap(), Some(bytes));
    });
    assert_eq!(quarantined(dir.path()), 3);
    until("the count ends", || disk.used_bytes() == Some(500));
}

#[test]
fn the_quarantine_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    on_runtime(async {
        for seed in 0..limits::QUARANTINE_MAX as u64 + 9 {
            let (id, _) = body(seed, LARGE);
            let path = file_of(dir.path(), id);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"bad").unwrap();
            assert_eq!(disk.check_body(id).await.unwrap(), BodyCheck::Corrupt);
        }
    });
    assert_eq!(quarantined(dir.path()), limits::QUARANTINE_MAX);
}

#[test]
fn a_full_disk_is_an_answer_and_the_node_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    home.create().unwrap();
    let reserve_bytes = 1 << 30;
    let (disk, _) = Disk::open(&home, DiskOptions { reserve_bytes, ..options() }).unwrap();
    disk.space().pretend_free(reserve_bytes + LARGE as u64);
    on_runtime(async {
        let (first, second) = (body(1, LARGE), body(2, LARGE));
        disk.put_body(first.0, first.1.clone()).await.unwrap();
        disk.space().pretend_free(reserve_bytes);
        let full = disk.put_body(second.0, second.1.clone()).await.unwrap_err();
        assert!(matches!(full, DiskError::Full { reserve_bytes: 0x4000_0000, .. }), "{full}");
        let small = body(3, 10);
        assert!(disk.put_body(small.0, small.1).await.unwrap_err().is_full());
        assert_eq!(disk.put_body(first.0, first.1).await.unwrap(), PutOutcome::Had);
        let mut records = crate::disk::WriteBatch::new();
        records.meta(crate::disk::MetaKey::Founding, Some(vec![1]));
        disk.write(records).await.expect("the reserve is for records");
        disk.space().pretend_free(1 << 40);
        assert_eq!(disk.put_body(second.0, second.1).await.unwrap(), PutOutcome::Written);
    });
    assert!(disk.failure().borrow().is_none());
    assert_eq!(fs::read_dir(dir.path().join("data/chunks/tmp")).unwrap().count(), 0);
}

#[test]
fn the_capacity_counts_all_bodies() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    home.create().unwrap();
    let capacity = 2 * LARGE as u64 + 100;
    let (disk, _) = Disk::open(&home, DiskOptions { capacity_bytes: Some(capacity), ..options() }).unwrap();
    until("the count ends", || disk.used_bytes().is_some());
    assert_eq!(disk.capacity_bytes(), Some(capacity));
    on_runtime(async {
        for (seed, len) in [(1, LARGE), (2, 100), (3, LARGE)] {
            let (id, bytes) = body(seed, len);
            disk.put_body(id, bytes).await.unwrap();
        }
        for len in [1, LARGE] {
            let (id, bytes) = body(9, len);
            assert!(matches!(disk.put_body(id, bytes).await, Err(DiskError::Capacity { .. })));
        }
    });
    assert_eq!(disk.used_bytes(), Some(capacity));
}

#[test]
fn those_that_come_at_once_do_not_share_the_last_room() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    home.create().unwrap();
    let capacity_bytes = Some(5 * LARGE as u64);
    let (disk, _) = Disk::open(&home, DiskOptions { capacity_bytes, ..options() }).unwrap();
    until("the count ends", || disk.used_bytes().is_some());
    let stored = on_runtime(async {
        let puts = (0..40).map(|seed| {
            // Files and records together.
            let (id, bytes) = body(seed, if seed % 2 == 0 { LARGE } else { LARGE - 1 });
            disk.put_body(id, bytes)
        });
        futures::future::join_all(puts).await.iter().filter(|put| put.is_ok()).count()
    });
    assert!(stored <= 5, "{stored} were stored");
    assert!(disk.used_bytes() <= capacity_bytes, "{:?}", disk.used_bytes());
}

#[test]
fn many_puts_and_checks_at_once_agree() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    on_runtime(async {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..60u64 {
            let disk = disk.clone();
            tasks.spawn(async move {
                let (id, bytes) = body(n % 10, LARGE + (n % 10) as usize);
                disk.put_body(id, bytes.clone()).await.unwrap();
                assert!(matches!(disk.check_body(id).await.unwrap(), BodyCheck::Good { .. }));
                assert_eq!(disk.get_body(id).await.unwrap(), Some(bytes));
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    });
    until("the count ends", || disk.used_bytes().is_some());
    assert_eq!(disk.used_bytes(), Some((0..10).map(|n| LARGE as u64 + n).sum()));
    assert_eq!(disk.corrupt_found(), 0);
}

#[test]
fn more_waiting_jobs_than_allowed_are_busy() {
    let dir = tempfile::tempdir().unwrap();
    let disk = opened(dir.path());
    let most = limits::DISK_JOBS_MAX + limits::BODY_JOBS_WAITING_MAX;
    on_runtime(async {
        let puts = (0..most as u64 + 20).map(|seed| {
            let (id, bytes) = body(seed, LARGE);
            disk.put_body(id, bytes)
        });
        let results = futures::future::join_all(puts).await;
        let busy = results.iter().filter(|result| matches!(result, Err(DiskError::Busy))).count();
        assert!((1..=20).contains(&busy), "{busy} were refused");
        assert_eq!(results.iter().filter(|result| result.is_ok()).count() + busy, most + 20);
    });
}

#[test]
fn what_a_crash_left_half_is_cleaned_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (id, bytes) = body(1, LARGE);
    let disk = opened(dir.path());
    on_runtime(disk.put_body(id, bytes)).unwrap();
    drop(disk);
    let litter = ["data/chunks/tmp/half.3", "data/.node.addr.00.tmp", "data/.records.redb.tmp"];
    litter.iter().for_each(|path| fs::write(dir.path().join(path), b"x").unwrap());
    let disk = opened(dir.path());
    litter.iter().for_each(|path| assert!(!dir.path().join(path).exists(), "{path}"));
    assert!(on_runtime(disk.has_body(id)).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_rubbish_in_a_chunk_file_is_returned(junk in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let dir = tempfile::tempdir().unwrap();
        let disk = opened(dir.path());
        let (id, _) = body(5, LARGE);
        let path = file_of(dir.path(), id);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &junk).unwrap();
        let read = on_runtime(disk.get_body(id));
        let is_corrupt = matches!(read, Err(DiskError::Corrupt { .. }));
        prop_assert!(is_corrupt);
    }
}
