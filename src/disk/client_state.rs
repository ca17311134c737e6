//! What a client remembers of clusters: addresses that worked, and the highest version seen of each
//! object, with its owner, so that one that is gone can be missed.
//!
//! A log of lines, each with its own checksum, under an advisory lock: several clients may use it at once,
//! and a crash in the middle of a line costs that line. Nothing but the client reads or writes it. When it
//! has many more lines than it needs it is written anew, under a new mark in its first line.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    time::{Duration, Instant},
};

use super::{
    DiskError, Home,
    crash::{Steps, steps},
    crash_point, files,
};
use crate::model::{FoundingId, ObjectId, OwnerKey, ProcessId, limits};

const VERSION: u64 = 1;
const HEAD: &str = "tintype-client-";
const HEAD_BYTES_MAX: u64 = 128;
const ADDR_BYTES_MAX: usize = 256;
/// More than every line that is ever kept, each at its longest.
const LOG_BYTES_MAX: u64 = 64 << 20;
const LOCK_PAUSE: Duration = Duration::from_millis(2);
const STEPS: Steps = steps!("disk.client_log");

type Key = (FoundingId, ObjectId);

/// The open state of a client's home. Every call blocks for a short file access.
pub struct ClientState {
    home: Home,
    lock: File,
    known: Known,
}

/// What the log says, up to `read_bytes`.
#[derive(Default)]
struct Known {
    /// The mark in the first line; another one means another log.
    mark: String,
    read_bytes: u64,
    lines: usize,
    seen: BTreeMap<Key, Seen>,
    by_age: BTreeMap<u64, Key>,
    clock: u64,
    /// The latest first.
    addresses: Vec<String>,
}

#[derive(Clone, Copy)]
struct Seen {
    owner: OwnerKey,
    version: u64,
    /// When the version was last raised.
    age: u64,
}

impl ClientState {
    /// Opens or makes it. A damaged line is skipped.
    ///
    /// # Errors
    /// [`DiskError::NewerFormat`], [`DiskError::Busy`] if another process holds the lock for 2 s, or an I/O
    /// error.
    pub fn open(home: &Home) -> Result<Self, DiskError> {
        files::make_dir(&home.state_dir(), true)?;
        let path = home.client_lock_path();
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(DiskError::io("open", path))?;
        let mut state = Self { home: home.clone(), lock, known: Known::default() };
        state.locked(|_| Ok(()))?;
        Ok(state)
    }

    /// The highest version of an object that any client of this home has seen in a quorum read or written.
    ///
    /// # Errors
    /// [`DiskError::Busy`] if another process holds the lock for 2 s, or an I/O error.
    pub fn highest(&mut self, founding: FoundingId, object: ObjectId) -> Result<Option<u64>, DiskError> {
        self.locked(|state| Ok(state.known.highest(&(founding, object))))
    }

    /// All objects of one owner of which a version is remembered, and the highest of each.
    ///
    /// # Errors
    /// As [`ClientState::highest`].
    pub fn all_of(
        &mut self,
        founding: FoundingId,
        owner: OwnerKey,
    ) -> Result<BTreeMap<ObjectId, u64>, DiskError> {
        let (first, last) = ((founding, ObjectId::ZERO), (founding, ObjectId([u8::MAX; ObjectId::LEN])));
        self.locked(|state| {
            let owned = state.known.seen.range(first..=last).filter(|(_, seen)| seen.owner == owner);
            Ok(owned.map(|((_, object), seen)| (*object, seen.version)).collect())
        })
    }

    /// Notes versions of one owner's objects, from quorum reads and acknowledged writes. Durable when it
    /// returns; lower ones change nothing.
    ///
    /// # Errors
    /// As [`ClientState::highest`].
    pub fn saw(
        &mut self,
        founding: FoundingId,
        owner: OwnerKey,
        seen: &[(ObjectId, u64)],
    ) -> Result<(), DiskError> {
        self.locked(|state| {
            let is_news = |&(object, version): &(ObjectId, u64)| {
                state.known.highest(&(founding, object)).is_none_or(|known| known < version)
            };
            let news = seen.iter().copied().filter(is_news);
            let lines =
                news.map(|(object, version)| seen_line(&(founding, object), &owner, version)).collect();
            state.append(lines)
        })
    }

    /// Addresses that worked, the latest first.
    ///
    /// # Errors
    /// As [`ClientState::highest`].
    pub fn addresses(&mut self) -> Result<Vec<String>, DiskError> {
        self.locked(|state| Ok(state.known.addresses.clone()))
    }

    /// Notes an address that worked. One that no line can hold is not remembered.
    ///
    /// # Errors
    /// As [`ClientState::highest`].
    pub fn remember_address(&mut self, addr: &str) -> Result<(), DiskError> {
        if !is_addr(addr) {
            return Ok(());
        }
        self.locked(|state| match state.known.addresses.first() {
            Some(first) if first == addr => Ok(()),
            _ => state.append(vec![address_line(addr)]),
        })
    }

    /// Runs `work` alone among all clients of this home, knowing all that they have written.
    fn locked<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, DiskError>) -> Result<T, DiskError> {
        let path = self.home.client_lock_path();
        let deadline = Instant::now() + Duration::from(limits::CLIENT_LOCK_TIMEOUT);
        loop {
            match self.lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => return Err(DiskError::Busy),
                Err(TryLockError::Error(error)) => return Err(DiskError::io("lock", path)(error)),
            }
        }
        let result = self.catch_up().and_then(|()| work(self));
        self.lock.unlock().map_err(DiskError::io("unlock", path))?;
        result
    }

    /// Reads what others have written since, or all of a log that is new.
    fn catch_up(&mut self) -> Result<(), DiskError> {
        let path = self.home.client_log_path();
        if path.symlink_metadata().is_err() {
            return self.write_anew();
        }
        let mut file = File::open(&path).map_err(DiskError::io("open", &path))?;
        let len = file.metadata().map_err(DiskError::io("look at", &path))?.len();
        if len > LOG_BYTES_MAX {
            return Err(DiskError::bad_file(path, "too large for what a client remembers"));
        }
        let mark = read_mark(&mut file, &path)?;
        if mark != self.known.mark || len < self.known.read_bytes {
            self.known = Known { mark, ..Known::default() };
        }
        if len == self.known.read_bytes {
            return Ok(());
        }
        let mut news = Vec::new();
        let read = file.seek(SeekFrom::Start(self.known.read_bytes));
        let read = read.and_then(|_| file.take(LOG_BYTES_MAX).read_to_end(&mut news));
        read.map_err(DiskError::io("read", &path))?;
        self.known.learn(&news);
        Ok(())
    }

    fn append(&mut self, lines: Vec<String>) -> Result<(), DiskError> {
        if lines.is_empty() {
            return Ok(());
        }
        let path = self.home.client_log_path();
        let mut text = lines.concat();
        let len = path.metadata().map_err(DiskError::io("look at", &path))?.len();
        if len > self.known.read_bytes {
            // Somebody died in the middle of a line: it ends here.
            text.insert(0, '\n');
        }
        let appended = (|| {
            let mut file = OpenOptions::new().append(true).open(&path)?;
            crash_point("disk.client_log.before_append");
            let (first, second) = text.as_bytes().split_at(text.len() / 2);
            file.write_all(first)?;
            crash_point("disk.client_log.half_appended");
            file.write_all(second)?;
            crash_point("disk.client_log.appended");
            file.sync_data()
        })();
        appended.map_err(DiskError::io("write", &path))?;
        crash_point("disk.client_log.append_durable");
        self.catch_up()?;
        let needed = self.known.seen.len() + self.known.addresses.len();
        if self.known.lines > needed + limits::CLIENT_LOG_SPARE_LINES { self.write_anew() } else { Ok(()) }
    }

    /// Puts a log in place that has only what is needed.
    fn write_anew(&mut self) -> Result<(), DiskError> {
        files::remove_temps(&self.home.state_dir(), true);
        let text = format!("{HEAD}{VERSION} {}\n{}", ProcessId(rand::random()), self.known.lines());
        files::replace(&self.home.client_log_path(), text.as_bytes(), &STEPS)?;
        self.catch_up()
    }
}

impl Known {
    fn highest(&self, key: &Key) -> Option<u64> {
        self.seen.get(key).map(|seen| seen.version)
    }

    /// Lines that say all of it again.
    fn lines(&self) -> String {
        let seen = self.by_age.values().filter_map(|key| Some((key, self.seen.get(key)?)));
        let seen = seen.map(|(key, seen)| seen_line(key, &seen.owner, seen.version));
        let addresses = self.addresses.iter().rev().map(|addr| address_line(addr));
        seen.chain(addresses).collect()
    }

    /// Takes whole lines; what follows the last line's end is not yet, or will never be, a line.
    fn learn(&mut self, bytes: &[u8]) {
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else { return };
        for line in bytes[..end].split(|byte| *byte == b'\n') {
            self.lines += 1;
            if let Some(line) = std::str::from_utf8(line).ok().and_then(checked) {
                self.learn_line(line);
            }
        }
        self.read_bytes += end as u64 + 1;
    }

    fn learn_line(&mut self, line: &str) {
        let words: Vec<&str> = line.splitn(5, ' ').collect();
        match words[..] {
            ["seen", founding, owner, object, version] => {
                let key = FoundingId::from_hex(founding).zip(ObjectId::from_hex(object));
                if let (Some(key), Some(owner), Ok(version)) =
                    (key, OwnerKey::from_hex(owner), version.parse())
                {
                    self.learn_seen(key, owner, version);
                }
            }
            ["addr", addr] if is_addr(addr) => {
                self.addresses.retain(|known| known != addr);
                self.addresses.insert(0, addr.to_string());
                self.addresses.truncate(limits::CLIENT_ADDRESSES_MAX);
            }
            _ => {}
        }
    }

    fn learn_seen(&mut self, key: Key, owner: OwnerKey, version: u64) {
        self.clock += 1;
        if let Some(known) = self.seen.get(&key).copied() {
            if known.version >= version {
                return;
            }
            self.by_age.remove(&known.age);
        }
        self.seen.insert(key, Seen { owner, version, age: self.clock });
        self.by_age.insert(self.clock, key);
        if self.seen.len() > limits::CLIENT_SEEN_MAX
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.seen.remove(&oldest);
        }
    }
}

/// The mark of a log that this program can read; empty if its first line is damaged.
fn read_mark(file: &mut File, path: &Path) -> Result<String, DiskError> {
    let mut head = Vec::new();
    file.take(HEAD_BYTES_MAX).read_to_end(&mut head).map_err(DiskError::io("read", path))?;
    let newer = |found| DiskError::NewerFormat { path: path.into(), found, known: VERSION };
    mark_of(&head).map_err(newer)
}

/// The mark in the first bytes of a log; the error is a version that is too new.
fn mark_of(head: &[u8]) -> Result<String, u64> {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let words = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(HEAD)?.split_once(' '));
    let Some((found, mark)) = words.and_then(|(n, mark)| Some((n.parse::<u64>().ok()?, mark))) else {
        return Ok(String::new());
    };
    if found > VERSION { Err(found) } else { Ok(mark.to_string()) }
}

/// What must hold of any bytes in the log, as they are and with the right checksum behind each line. Whether
/// something is remembered of those.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(128)];
    assert!(mark_of(head).map_or_else(|newer| newer > VERSION, |mark| mark.len() <= head.len()));
    let mended: String = String::from_utf8_lossy(bytes).lines().map(with_sum).collect();
    let some = [bytes, mended.as_bytes()].map(|log| {
        let mut known = Known::default();
        known.learn(log);
        assert!(known.read_bytes <= log.len() as u64 && known.seen.len() == known.by_age.len());
        assert!(known.addresses.len() <= limits::CLIENT_ADDRESSES_MAX);
        let mut again = Known::default();
        again.learn(known.lines().as_bytes());
        assert_eq!(again.lines(), known.lines(), "what is remembered is not what was written");
        assert_eq!((again.seen.len(), &again.addresses), (known.seen.len(), &known.addresses));
        for (key, seen) in &known.seen {
            assert_eq!(again.highest(key), Some(seen.version));
        }
        !known.lines().is_empty()
    });
    some[1]
}

fn seen_line(key: &Key, owner: &OwnerKey, version: u64) -> String {
    with_sum(&format!("seen {} {owner} {} {version}", key.0, key.1))
}

fn address_line(addr: &str) -> String {
    with_sum(&format!("addr {addr}"))
}

fn with_sum(line: &str) -> String {
    format!("{line} {}\n", sum(line))
}

/// The line without its checksum, if that is right.
fn checked(line: &str) -> Option<&str> {
    let (line, found) = line.rsplit_once(' ')?;
    (sum(line) == found).then_some(line)
}

fn sum(line: &str) -> String {
    blake3::hash(line.as_bytes()).to_hex()[..16].to_string()
}

fn is_addr(addr: &str) -> bool {
    !addr.is_empty() && addr.len() <= ADDR_BYTES_MAX && addr.bytes().all(|byte| byte.is_ascii_graphic())
}
