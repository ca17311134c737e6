//! The folders of chunks, one for each first byte of an id, and which names in them are durable.
//!
//! All are made at the start, so that no put pays for one. It knows which folder may hold a name that is not
//! yet durable, so that nobody says "have it" of a file that a power loss would take away.
//!
//! Each put syncs its own folder: a file system with a journal makes one commit of fsyncs that come together,
//! so nothing is gathered here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{DiskError, crash_point, fault::Fault, files};

/// A folder of chunks: the first byte of their ids.
pub(super) type Folder = u8;

/// The folders, and what is durable in them.
pub(super) struct Folders {
    root: PathBuf,
    fault: Arc<Fault>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Folders whose names were all durable at some moment since the start.
    synced: BTreeSet<Folder>,
    /// Renames into a folder that have begun and are not durable.
    unsynced_renames: BTreeMap<Folder, usize>,
}

/// A rename into a folder, from before it begins until it is durable or has not happened.
pub(super) struct Renaming<'a> {
    folders: &'a Folders,
    folder: Folder,
}

impl Folders {
    /// Makes those that are missing, durably.
    pub(super) fn open(root: PathBuf, fault: Arc<Fault>) -> Result<Self, DiskError> {
        let folders = Self { root, fault, state: Mutex::default() };
        for folder in 0..=Folder::MAX {
            let path = folders.path(folder);
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
                Err(error) => return Err(DiskError::io("make", path)(error)),
            }
            crash_point("disk.chunk.folder_made");
        }
        // Also when all were there: a start that was killed just here has left names that are not durable.
        files::sync_dir(&folders.root)?;
        Ok(folders)
    }

    /// Where the chunks of a folder lie.
    pub(super) fn path(&self, folder: Folder) -> PathBuf {
        self.root.join(format!("{folder:02x}"))
    }

    /// Announces a rename into a folder. Call it before the rename, and drop the answer once that is durable.
    pub(super) fn begin_rename(&self, folder: Folder) -> Renaming<'_> {
        *self.lock().unsynced_renames.entry(folder).or_default() += 1;
        Renaming { folders: self, folder }
    }

    /// Makes every name that is in the folder now durable, unless all are.
    pub(super) fn sync_if_needed(&self, folder: Folder) -> Result<(), DiskError> {
        let is_durable = {
            let state = self.lock();
            state.synced.contains(&folder) && !state.unsynced_renames.contains_key(&folder)
        };
        // A rename whose sync failed is no longer announced either: the disk has failed by then.
        if is_durable { self.fault.check() } else { self.sync(folder) }
    }

    /// Makes every name that is in the folder now durable.
    pub(super) fn sync(&self, folder: Folder) -> Result<(), DiskError> {
        if let Err(error) = files::sync_dir(&self.path(folder)) {
            return Err(self.fault.fail(error));
        }
        crash_point("disk.chunk.folder_synced");
        self.lock().synced.insert(folder);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings the chunks of an older home, which lie in two levels of folders, into one. May be interrupted, and
/// is begun again then. What lies under a name already stays, and so does what is no folder of chunks.
pub(super) fn make_one_level(root: &Path) -> Result<(), DiskError> {
    for above in (0..=Folder::MAX).map(|folder| root.join(format!("{folder:02x}"))) {
        if !above.is_dir() {
            continue;
        }
        for below in (0..=u8::MAX).map(|second| above.join(format!("{second:02x}"))) {
            let Ok(chunks) = fs::read_dir(&below) else { continue };
            for chunk in chunks {
                let chunk = chunk.map_err(DiskError::io("read", &below))?;
                let to = above.join(chunk.file_name());
                if to.symlink_metadata().is_err() {
                    fs::rename(chunk.path(), &to).map_err(DiskError::io("move", &to))?;
                }
            }
            // One that is not empty stays, which hurts nobody.
            let _ = fs::remove_dir(&below);
        }
        files::sync_dir(&above)?;
    }
    Ok(())
}

impl Drop for Renaming<'_> {
    fn drop(&mut self) {
        let mut state = self.folders.lock();
        if let Some(count) = state.unsynced_renames.get_mut(&self.folder) {
            *count -= 1;
            if *count == 0 {
                state.unsynced_renames.remove(&self.folder);
            }
        }
    }
}
