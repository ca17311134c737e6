//! Makes names in folders durable, many at a time.
//!
//! Whoever comes while a round of fsyncs runs shares the next round. It knows which folders hold a name that
//! is not yet durable, so that nobody says "have it" of a file that a power loss would take away.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{DiskError, crash_point, fault::Fault, files};

/// A folder of chunks: the first two bytes of their ids.
pub(super) type Folder = u16;

/// Fsyncs at once in a round: enough to meet in one commit of the file system's journal.
const SYNC_THREADS: usize = 4;

/// The fsyncs of folders, in rounds.
pub(super) struct Folders {
    root: PathBuf,
    fault: Arc<Fault>,
    state: Mutex<State>,
    round_over: Condvar,
}

#[derive(Default)]
struct State {
    /// To be synced in the next round.
    waiting: BTreeSet<Folder>,
    /// The number of the next round.
    next_round: u64,
    /// Rounds below this number are over.
    over: u64,
    is_running: bool,
    /// Folders that were durable at some moment since the start, with their own names.
    synced: BTreeSet<Folder>,
    /// Upper folders whose own name is durable.
    synced_above: BTreeSet<u8>,
    /// Renames into a folder that have begun and are not durable.
    unsynced_renames: BTreeMap<Folder, usize>,
}

impl Folders {
    pub(super) fn new(root: PathBuf, fault: Arc<Fault>) -> Self {
        Self { root, fault, state: Mutex::default(), round_over: Condvar::new() }
    }

    /// Where the chunks of a folder lie.
    pub(super) fn path(&self, folder: Folder) -> PathBuf {
        let [first, second] = folder.to_be_bytes();
        self.path_above(first).join(format!("{second:02x}"))
    }

    fn path_above(&self, first: u8) -> PathBuf {
        self.root.join(format!("{first:02x}"))
    }

    /// Announces a rename into a folder, makes the folder if need be. Call it before the rename.
    pub(super) fn begin_rename(&self, folder: Folder) -> io::Result<()> {
        let is_known = {
            let mut state = self.lock();
            *state.unsynced_renames.entry(folder).or_default() += 1;
            state.synced.contains(&folder)
        };
        if is_known {
            return Ok(());
        }
        let path = self.path(folder);
        let made = std::fs::create_dir_all(&path);
        crash_point("disk.chunk.folder_made");
        if made.is_err() {
            self.end_rename(folder);
        }
        made
    }

    /// The rename is durable, or has not happened.
    pub(super) fn end_rename(&self, folder: Folder) {
        let mut state = self.lock();
        if let Some(count) = state.unsynced_renames.get_mut(&folder) {
            *count -= 1;
            if *count == 0 {
                state.unsynced_renames.remove(&folder);
            }
        }
    }

    /// Makes every name that is in the folder now durable, unless all are.
    pub(super) fn sync_if_needed(&self, folder: Folder) -> Result<(), DiskError> {
        let is_durable = {
            let state = self.lock();
            state.synced.contains(&folder) && !state.unsynced_renames.contains_key(&folder)
        };
        if is_durable { Ok(()) } else { self.sync(folder) }
    }

    /// Makes every name that is in the folder now durable.
    pub(super) fn sync(&self, folder: Folder) -> Result<(), DiskError> {
        let mut state = self.lock();
        state.waiting.insert(folder);
        let mine = state.next_round;
        while state.over <= mine {
            if state.is_running {
                state = self.round_over.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else {
                state = self.run_round(state);
            }
        }
        drop(state);
        // A round that failed has failed the disk.
        self.fault.check()
    }

    fn run_round<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let folders = std::mem::take(&mut state.waiting);
        let round = state.next_round;
        state.next_round += 1;
        state.is_running = true;
        let fresh: BTreeSet<Folder> = folders.difference(&state.synced).copied().collect();
        let above: BTreeSet<u8> = fresh.iter().map(|folder| folder.to_be_bytes()[0]).collect();
        let mut dirs: Vec<PathBuf> = folders.iter().map(|folder| self.path(*folder)).collect();
        dirs.extend(above.iter().map(|first| self.path_above(*first)));
        dirs.extend((!above.is_subset(&state.synced_above)).then(|| self.root.clone()));
        drop(state);
        let result = self.sync_all(&dirs);
        let mut state = self.lock();
        match result {
            Ok(()) => {
                state.synced.extend(fresh);
                state.synced_above.extend(above);
            }
            Err(error) => drop(self.fault.fail(error)),
        }
        state.is_running = false;
        state.over = round + 1;
        self.round_over.notify_all();
        state
    }

    /// All at once: file systems with a journal make one commit of fsyncs that come together.
    fn sync_all(&self, dirs: &[PathBuf]) -> Result<(), DiskError> {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(dir) = dirs.get(next.fetch_add(1, Ordering::Relaxed)) {
                files::sync_dir(dir)?;
                crash_point("disk.chunk.folder_synced");
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let helpers = dirs.len().min(SYNC_THREADS).saturating_sub(1);
            let helpers: Vec<_> = (0..helpers).map(|_| scope.spawn(work)).collect();
            let mine = work();
            let theirs = helpers.into_iter().map(|helper| helper.join().expect("an fsync does not panic"));
            theirs.fold(mine, Result::and)
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
