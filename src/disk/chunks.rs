//! Bodies above 64 KiB: one file each, in the folder named after the first byte of its id.
//!
//! A file gets its name only when its bytes are durable, and is acknowledged only when its name is. What is
//! read is hashed; a bad copy is moved aside, never returned, and never confused with a good one that has
//! replaced it meanwhile.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    BodyCheck, DiskError, Home, PutOutcome,
    count::Count,
    crash_point,
    fault::Fault,
    files,
    folders::{Folder, Folders},
    records::fits,
    space::Space,
};
use crate::model::{BodyId, limits};

/// Locks over ids: those of one stripe exclude each other for a rename or a second look at a bad copy.
const STRIPES: usize = 64;
const READ_BYTES: usize = 64 << 10;
/// A sector that cannot be read: the copy is as lost as a flipped one.
const EIO: i32 = 5;

/// The chunk files of a node.
pub(super) struct Chunks {
    home: Home,
    fault: Arc<Fault>,
    space: Arc<Space>,
    folders: Folders,
    stripes: Vec<Mutex<()>>,
    count: Count,
    corrupt: AtomicU64,
    temps: AtomicU64,
}

/// What lies under a chunk's name.
enum Copy {
    Missing,
    Good(File),
    Bad,
}

/// What a chunk's name leads to, unread.
enum Found {
    File(File),
    /// A folder, a link, a pipe: nobody's copy of anything. It is never opened; a pipe would not open at all.
    Other,
}

impl Chunks {
    /// Opens them; the home's lock is held, so temporary files are nobody's.
    pub(super) fn open(home: Home, space: Arc<Space>, fault: Arc<Fault>) -> Result<Self, DiskError> {
        let temps = home.chunk_temp_dir();
        for entry in fs::read_dir(&temps).map_err(DiskError::io("read", &temps))? {
            let path = entry.map_err(DiskError::io("read", &temps))?.path();
            let _ = fs::remove_file(&path);
        }
        Ok(Self {
            folders: Folders::open(home.chunks_dir(), fault.clone())?,
            home,
            fault,
            space,
            stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            count: Count::new(),
            corrupt: AtomicU64::new(0),
            temps: AtomicU64::new(0),
        })
    }

    pub(super) fn count(&self) -> &Count {
        &self.count
    }

    /// Corrupt copies found since the start.
    pub(super) fn corrupt(&self) -> u64 {
        self.corrupt.load(Ordering::SeqCst)
    }

    /// Stores a body; `other_bytes` count to the capacity too. Durable when it returns.
    pub(super) fn put(&self, id: &BodyId, body: &[u8], other_bytes: u64) -> Result<PutOutcome, DiskError> {
        self.fault.check()?;
        let outcome = match self.look(id)? {
            Copy::Good(_) => {
                self.folders.sync_if_needed(folder_of(id))?;
                return Ok(PutOutcome::Had);
            }
            Copy::Bad => PutOutcome::Mended,
            Copy::Missing => PutOutcome::Written,
        };
        let _room = self.space.take(body.len() as u64, self.count.bytes() + other_bytes)?;
        let temp = self.write_temp(id, body)?;
        let folder = folder_of(id);
        let renaming = self.folders.begin_rename(folder);
        let placed = self.place(id, &temp, body.len() as u64).and_then(|()| self.folders.sync(folder));
        drop(renaming);
        if placed.is_err() {
            let _ = fs::remove_file(&temp);
        }
        placed?;
        crash_point("disk.chunk.durable");
        Ok(outcome)
    }

    fn write_temp(&self, id: &BodyId, body: &[u8]) -> Result<PathBuf, DiskError> {
        let number = self.temps.fetch_add(1, Ordering::SeqCst);
        let temp = self.home.chunk_temp_dir().join(format!("{id}.{number}"));
        let written = self.write_and_sync(&temp, body);
        if written.is_err() {
            let _ = fs::remove_file(&temp);
        }
        written.map(|()| temp)
    }

    fn write_and_sync(&self, temp: &Path, body: &[u8]) -> Result<(), DiskError> {
        let mut file = files::create_private(temp).map_err(|error| self.write_error(temp, error))?;
        crash_point("disk.chunk.temp_created");
        file.write_all(body).map_err(|error| self.write_error(temp, error))?;
        crash_point("disk.chunk.temp_written");
        match file.sync_data() {
            Ok(()) => crash_point("disk.chunk.temp_synced"),
            Err(error) if is_full(&error) => return Err(self.space.full()),
            Err(error) => return Err(self.fault.fail(format!("fsync of {}: {error}", temp.display()))),
        }
        Ok(())
    }

    fn write_error(&self, path: &Path, error: io::Error) -> DiskError {
        if is_full(&error) { self.space.full() } else { DiskError::io("write", path)(error) }
    }

    fn place(&self, id: &BodyId, temp: &Path, len: u64) -> Result<(), DiskError> {
        let (path, folder) = (self.home.chunk_path(id), folder_of(id));
        let _stripe = self.stripe(id);
        let change = self.count.change();
        let old = path.symlink_metadata().map_or(0, |meta| meta.len());
        fs::rename(temp, &path).map_err(|error| self.write_error(&path, error))?;
        change.remove(folder, old);
        change.add(folder, len);
        crash_point("disk.chunk.placed");
        Ok(())
    }

    /// Reads and checks a body.
    pub(super) fn get(&self, id: &BodyId) -> Result<Option<Vec<u8>>, DiskError> {
        self.fault.check()?;
        let path = self.home.chunk_path(id);
        let bytes = match read_bounded(&path) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => Vec::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(EIO) => Vec::new(),
            Err(error) => return Err(DiskError::io("read", path)(error)),
        };
        if fits(id, &bytes) {
            return Ok(Some(bytes));
        }
        if self.move_aside_if_bad(id)? {
            return Err(DiskError::Corrupt { id: *id });
        }
        // A good copy has replaced the bad one since; a second bad read is the caller's to see.
        match read_bounded(&path) {
            Ok(Some(bytes)) if fits(id, &bytes) => Ok(Some(bytes)),
            _ => Err(DiskError::Corrupt { id: *id }),
        }
    }

    /// When the file was written or last found right, in milliseconds since 1970.
    pub(super) fn verified(&self, id: &BodyId) -> Result<Option<u64>, DiskError> {
        let path = self.home.chunk_path(id);
        match path.symlink_metadata() {
            Ok(meta) if !meta.is_file() => Ok(None),
            Ok(meta) => Ok(Some(meta.modified().map_or(0, unix_ms))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DiskError::io("look at", path)(error)),
        }
    }

    /// Reads and hashes; a good copy gets the present time, a bad one is moved aside.
    pub(super) fn check(&self, id: &BodyId) -> Result<BodyCheck, DiskError> {
        self.fault.check()?;
        let file = match self.look(id)? {
            Copy::Missing => return Ok(BodyCheck::Missing),
            Copy::Bad => return Ok(BodyCheck::Corrupt),
            Copy::Good(file) => file,
        };
        let now = SystemTime::now();
        // Only a note for people: a read-only file system must not make a good copy bad.
        let _ = file.set_modified(now);
        self.folders.sync_if_needed(folder_of(id))?;
        Ok(BodyCheck::Good { verified_unix_ms: unix_ms(now) })
    }

    /// What lies there; a bad copy is moved aside.
    fn look(&self, id: &BodyId) -> Result<Copy, DiskError> {
        match self.hash_copy(id)? {
            Copy::Bad if self.move_aside_if_bad(id)? => Ok(Copy::Bad),
            Copy::Bad => self.hash_copy(id),
            copy => Ok(copy),
        }
    }

    /// Hashes the file with little memory.
    fn hash_copy(&self, id: &BodyId) -> Result<Copy, DiskError> {
        let path = self.home.chunk_path(id);
        let mut file = match find(&path) {
            Ok(Found::File(file)) => file,
            Ok(Found::Other) => return Ok(Copy::Bad),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Copy::Missing),
            Err(error) => return Err(DiskError::io("open", path)(error)),
        };
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut len = 0;
        while len <= limits::BODY_BYTES_MAX {
            match file.read(&mut buffer) {
                Ok(0) if hasher.finalize().as_bytes() == &id.0 => return Ok(Copy::Good(file)),
                Ok(0) => return Ok(Copy::Bad),
                Ok(n) => {
                    hasher.update(&buffer[..n]);
                    len += n;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(EIO) => return Ok(Copy::Bad),
                Err(error) => return Err(DiskError::io("read", path)(error)),
            }
        }
        Ok(Copy::Bad)
    }

    /// Looks again under the lock of the id, so that a good copy just put in place is not taken for the bad
    /// one that it has replaced. True if a bad one was moved away.
    fn move_aside_if_bad(&self, id: &BodyId) -> Result<bool, DiskError> {
        let _stripe = self.stripe(id);
        if !matches!(self.hash_copy(id)?, Copy::Bad) {
            return Ok(false);
        }
        let path = self.home.chunk_path(id);
        let aside = self.aside(id)?;
        let change = self.count.change();
        let meta = path.symlink_metadata();
        let len = meta.as_ref().ok().filter(|meta| meta.is_file()).map_or(0, |meta| meta.len());
        crash_point("disk.quarantine.before_move");
        fs::rename(&path, &aside).map_err(DiskError::io("move aside", &path))?;
        change.remove(folder_of(id), len);
        if meta.is_ok_and(|meta| !meta.is_file()) {
            let (path, aside) = (path.display(), aside.display());
            tracing::warn!("{path} is no file: something else lay in a chunk's place, and is now {aside}");
        }
        self.corrupt.fetch_add(1, Ordering::SeqCst);
        crash_point("disk.quarantine.moved");
        Ok(true)
    }

    /// Keeps a bad small body for a look; that it is gone from its place is the writer's work.
    pub(super) fn note_bad_small(&self, id: &BodyId, bytes: &[u8]) {
        self.corrupt.fetch_add(1, Ordering::SeqCst);
        if let Ok(aside) = self.aside(id) {
            let _ = files::create_private(&aside).and_then(|mut file| file.write_all(bytes));
        }
    }

    /// A free name in the quarantine, in which the oldest copies make room.
    fn aside(&self, id: &BodyId) -> Result<PathBuf, DiskError> {
        let dir = self.home.quarantine_dir();
        let mut kept = Vec::new();
        for entry in fs::read_dir(&dir).map_err(DiskError::io("read", &dir))?.flatten() {
            let moved = entry.metadata().and_then(|meta| meta.modified()).unwrap_or(UNIX_EPOCH);
            kept.push((moved, entry.path()));
        }
        kept.sort();
        let too_many = (kept.len() + 1).saturating_sub(limits::QUARANTINE_MAX);
        // A folder goes only if it is empty: what somebody laid into it is not this program's to delete.
        let make_room = |path: &PathBuf| fs::remove_file(path).or_else(|_| fs::remove_dir(path)).is_ok();
        let removed = kept.iter().map(|(_, path)| path).filter(|path| make_room(path));
        removed.take(too_many).for_each(drop);
        Ok(dir.join(format!("{id}.{:08x}", rand::random::<u32>())))
    }

    fn stripe(&self, id: &BodyId) -> MutexGuard<'_, ()> {
        let stripe = usize::from(id.0[31]) % STRIPES;
        self.stripes[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn folder_of(id: &BodyId) -> Folder {
    id.0[0]
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Opens what lies there if it is a file, and no link to one.
fn find(path: &Path) -> io::Result<Found> {
    if !path.symlink_metadata()?.is_file() {
        return Ok(Found::Other);
    }
    File::open(path).map(Found::File)
}

/// Reads a file, none if something else lies there. One byte more than a body can have is enough to see that
/// it is none.
fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let Found::File(file) = find(path)? else { return Ok(None) };
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(limits::BODY_BYTES_MAX);
    let mut bytes = Vec::with_capacity(len + 1);
    file.take(limits::BODY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Milliseconds since 1970; 0 before.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
