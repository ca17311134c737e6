//! Counts the bytes of the chunk files: once at the start, in the background, then with each change.
//!
//! Exact: a change in a folder that the count has not reached yet is left to the count.

use std::{
    path::Path,
    sync::{
        PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::folders::Folder;

/// The bytes of all chunk files.
pub(super) struct Count {
    bytes: AtomicU64,
    reached: RwLock<Reached>,
    stop: AtomicBool,
}

struct Reached {
    folders: Vec<bool>,
    all: bool,
}

/// While it lives, the count of the start stands still, so that a change and its count are one step.
pub(super) struct Change<'a> {
    count: &'a Count,
    reached: RwLockReadGuard<'a, Reached>,
}

impl Change<'_> {
    pub(super) fn add(&self, folder: Folder, bytes: u64) {
        if self.counts(folder) {
            self.count.bytes.fetch_add(bytes, Ordering::SeqCst);
        }
    }

    pub(super) fn remove(&self, folder: Folder, bytes: u64) {
        if self.counts(folder) {
            let less = |old: u64| Some(old.saturating_sub(bytes));
            let _ = self.count.bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        }
    }

    fn counts(&self, folder: Folder) -> bool {
        self.reached.all || self.reached.folders[usize::from(folder)]
    }
}

impl Count {
    pub(super) fn new() -> Self {
        let reached = Reached { folders: vec![false; 1 << Folder::BITS], all: false };
        Self { bytes: AtomicU64::new(0), reached: RwLock::new(reached), stop: AtomicBool::new(false) }
    }

    /// Begins a change of the files.
    pub(super) fn change(&self) -> Change<'_> {
        let reached = self.reached.read().unwrap_or_else(PoisonError::into_inner);
        Change { count: self, reached }
    }

    /// What has been counted so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Whether that is everything.
    pub(super) fn is_complete(&self) -> bool {
        self.reached.read().unwrap_or_else(PoisonError::into_inner).all
    }

    /// Ends the count of the start early.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// The count of the start. Blocks for as long as reading all folders takes.
    pub(super) fn run(&self, root: &Path) {
        for folder in 0..=Folder::MAX {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let mut reached = self.reached.write().unwrap_or_else(PoisonError::into_inner);
            self.bytes.fetch_add(bytes_in(&root.join(format!("{folder:02x}"))), Ordering::SeqCst);
            reached.folders[usize::from(folder)] = true;
        }
        self.reached.write().unwrap_or_else(PoisonError::into_inner).all = true;
    }
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .filter(|meta| meta.is_file())
        .map(|meta| meta.len())
        .sum()
}
