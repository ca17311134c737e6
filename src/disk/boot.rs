//! Opening `data/`: the lock, the format, the machine, the incarnation, and the count of this start.
//!
//! A start exists only once its boot number is durable. Nothing here overwrites a home that it does not
//! understand, that another node runs on, or that belongs to another machine.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
};

use super::{
    DiskError, Home, ballast,
    crash::{Steps, steps},
    crash_point, files, folders,
    tables::{self, Start},
};
use crate::model::{Incarnation, ProcessId, hello::BootMark, limits};

/// The version of everything in `data/`. Of 1 the chunks lay in two levels of folders.
const FORMAT: u64 = 2;
const TWO_LEVELS: u64 = 1;
const FORMAT_PREFIX: &str = "tintype-data-";
const MACHINE_PREFIX: &str = "tintype-machine-1:";
const FORMAT_STEPS: Steps = steps!("disk.format");
const MACHINE_STEPS: Steps = steps!("disk.machine");
const ROLLED_BACK_STEPS: Steps = steps!("disk.rolled_back");

/// How to open a node's disk.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// The home was moved here on purpose (`up --moved`): take it over.
    pub moved: bool,
    /// Free space below which no bodies are taken.
    pub reserve_bytes: u64,
    /// Bytes of bodies that may be stored; none = what the disk has.
    pub capacity_bytes: Option<u64>,
    /// Stands for this machine; none = ask the operating system.
    pub machine: Option<String>,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            moved: false,
            reserve_bytes: limits::DEFAULT_RESERVE_BYTES,
            capacity_bytes: None,
            machine: None,
        }
    }
}

/// Who this start of this disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The durable boot number and the random mark of this process.
    pub mark: BootMark,
    /// Made with `data/`.
    pub incarnation: Incarnation,
    /// How many promises the disk had made durable before this start ([`super::Disk::promises`]).
    pub promises: u64,
    /// Whether this is the first start of this `data/`.
    pub first_start: bool,
    /// Whether the home was made on another machine and has been taken over just now.
    pub moved: bool,
}

/// An open `data/`: nobody else opens it while `lock` lives.
pub(super) struct Opened {
    pub(super) lock: File,
    pub(super) db: redb::Database,
    pub(super) start: Start,
    pub(super) boot: Boot,
}

/// Opens `data/`, or makes it, and counts this start.
pub(super) fn open(home: &Home, options: &DiskOptions) -> Result<Opened, DiskError> {
    format(home)?;
    files::make_dir(&home.data_dir(), true)?;
    let lock = lock(&home.lock_path())?;
    crash_point("disk.boot.locked");
    let format = format(home)?;
    let is_new = format.is_none();
    files::remove_temps(&home.data_dir(), true);
    ballast::let_go_if_full(&home.ballast_path(), &home.data_dir());
    if home.rolled_back_path().symlink_metadata().is_ok() {
        return Err(DiskError::RolledBack { data: home.data_dir() });
    }
    check_records(home, is_new)?;
    let moved = check_machine(home, options, is_new)?;
    for dir in [home.chunks_dir(), home.chunk_temp_dir(), home.quarantine_dir()] {
        files::make_dir(&dir, true)?;
    }
    if is_new {
        make_records(home)?;
    }
    if format == Some(TWO_LEVELS) {
        folders::make_one_level(&home.chunks_dir())?;
    }
    if format != Some(FORMAT) {
        // Last: who finds a format later and no record file knows that promises were lost.
        let text = format!("{FORMAT_PREFIX}{FORMAT}\n");
        files::replace(&home.format_path(), text.as_bytes(), &FORMAT_STEPS)?;
    }
    let db = tables::open_file(&home.records_path())?;
    tables::check(&db)?;
    crash_point("disk.boot.opened");
    let process = ProcessId(rand::random());
    let start = tables::count_start(&db, process)?;
    crash_point("disk.boot.counted");
    ballast::lay(&home.ballast_path(), &home.data_dir());
    let boot = Boot {
        mark: BootMark { boot: start.boot, process },
        incarnation: start.incarnation,
        promises: start.promises,
        first_start: start.boot == 1,
        moved,
    };
    Ok(Opened { lock, db, start, boot })
}

/// The record file and the format belong together, but for a first start that did not get far.
fn check_records(home: &Home, is_new: bool) -> Result<(), DiskError> {
    let path = home.records_path();
    match path.symlink_metadata().is_ok() {
        false if !is_new => Err(DiskError::bad_file(path, "missing, although this node has run before")),
        true if is_new && tables::has_started(&path)? => {
            Err(DiskError::bad_file(home.format_path(), "missing, although there is data"))
        }
        _ => Ok(()),
    }
}

/// The record file is born whole, with its incarnation in it, and only then gets its name.
fn make_records(home: &Home) -> Result<(), DiskError> {
    let path = home.records_path();
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let temp = home.data_dir().join(".records.redb.tmp");
    tables::make_file(&temp, Incarnation(rand::random()))?;
    crash_point("disk.boot.records_made");
    std::fs::rename(&temp, &path).map_err(DiskError::io("write", &path))?;
    crash_point("disk.boot.records_placed");
    files::sync_dir(&home.data_dir())?;
    crash_point("disk.boot.records_durable");
    Ok(())
}

fn lock(path: &Path) -> Result<File, DiskError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(DiskError::io("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DiskError::Locked { path: path.into() }),
        Err(TryLockError::Error(error)) => Err(DiskError::io("lock", path)(error)),
    }
}

/// The format of what lies there; none of nothing, an error if this program does not know it.
fn format(home: &Home) -> Result<Option<u64>, DiskError> {
    let path = home.format_path();
    let Some(text) = files::read_text(&path, limits::NOTE_FILE_BYTES_MAX)? else { return Ok(None) };
    let number = text.trim_end().strip_prefix(FORMAT_PREFIX).and_then(|number| number.parse::<u64>().ok());
    match number {
        Some(TWO_LEVELS | FORMAT) => Ok(number),
        Some(found) if found > FORMAT => Err(DiskError::NewerFormat { path, found, known: FORMAT }),
        _ => Err(DiskError::bad_file(path, "not a format that tintype has written")),
    }
}

/// True if the home came from elsewhere and was taken over.
fn check_machine(home: &Home, options: &DiskOptions, is_new: bool) -> Result<bool, DiskError> {
    let path = home.machine_path();
    let here = machine_text(options.machine.as_deref());
    let noted = files::read_text(&path, limits::NOTE_FILE_BYTES_MAX)?;
    let made_on = match &noted {
        Some(noted) if first_line(noted) == first_line(&here) => return Ok(false),
        Some(noted) => noted.lines().nth(1).unwrap_or("another machine").chars().take(80).collect(),
        None => "an unknown machine".to_string(),
    };
    let was_elsewhere = noted.is_some() || !is_new;
    if was_elsewhere && !options.moved {
        return Err(DiskError::OtherMachine { made_on });
    }
    files::replace(&path, here.as_bytes(), &MACHINE_STEPS)?;
    Ok(was_elsewhere)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// A machine id is not for other eyes, so only its hash is noted; the host name is for people.
fn machine_text(given: Option<&str>) -> String {
    let host = sysinfo::System::host_name().unwrap_or_else(|_| "another machine".into());
    let id = match given {
        Some(given) => given.to_string(),
        None => machine_id().unwrap_or_else(|| host.clone()),
    };
    let hash = blake3::derive_key("tintype 1 machine", id.as_bytes());
    format!("{MACHINE_PREFIX}{}\n{host}\n", crate::model::Digest(hash))
}

fn machine_id() -> Option<String> {
    let text = files::read_text(Path::new("/etc/machine-id"), limits::NOTE_FILE_BYTES_MAX).ok()??;
    let id = text.trim();
    (!id.is_empty() && id != "uninitialized").then(|| id.to_string())
}

/// Makes every later start fail, also of a process that has never heard why.
pub(super) fn mark_rolled_back(home: &Home) -> Result<(), DiskError> {
    let text = b"A member of the cluster knows a start of this node that this home does not know.\n";
    files::replace(&home.rolled_back_path(), text, &ROLLED_BACK_STEPS)
}
