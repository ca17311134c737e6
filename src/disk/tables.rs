//! The tables of the record file: making it, opening it, and the count of starts in it.
//!
//! Every value that a promise rests on carries a checksum, for redb reads pages without checking them.

use std::path::Path;

use redb::{
    Database, Key, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    TableError, Value,
};

use super::{DiskError, crash_point};
use crate::model::{Incarnation, ProcessId, hello::BootMark, limits};

pub(super) const ACCEPTORS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("acceptors");
pub(super) const OWNERS: TableDefinition<&[u8; 64], ()> = TableDefinition::new("owners");
pub(super) const BODIES: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("bodies");
pub(super) const VERIFIED: TableDefinition<&[u8; 32], u64> = TableDefinition::new("verified");
pub(super) const SEEN: TableDefinition<&[u8], &[u8]> = TableDefinition::new("seen");
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
pub(super) const COUNTS: TableDefinition<&str, u64> = TableDefinition::new("counts");
/// By hash slot. A record file of an older version has none; it is made with the first fence.
pub(super) const FENCES: TableDefinition<u8, &[u8]> = TableDefinition::new("fences");
pub(super) const STARTS: TableDefinition<u64, &[u8; 16]> = TableDefinition::new("starts");

pub(super) const INCARNATION: &str = "incarnation";
pub(super) const BOOT: &str = "boot";
pub(super) const BODY_BYTES: &str = "body bytes";
pub(super) const PROMISES: &str = "promises";
/// Of a checksum against rot, which does not choose.
const SUM_BYTES: usize = 16;

/// What the record file says of this start.
pub(super) struct Start {
    pub(super) boot: u64,
    pub(super) incarnation: Incarnation,
    /// Transactions with a promise in them, ever.
    pub(super) promises: u64,
    /// The last starts, this one included, oldest first.
    pub(super) history: Vec<BootMark>,
}

fn failed(error: impl Into<redb::Error>) -> DiskError {
    DiskError::Records(error.into().to_string().into())
}

/// Makes a record file with all its tables, durable but for its name.
pub(super) fn make_file(path: &Path, incarnation: Incarnation) -> Result<(), DiskError> {
    let db = Database::builder().set_cache_size(limits::RECORD_CACHE_BYTES).create(path).map_err(failed)?;
    make_tables(&db, incarnation)
}

/// Makes all tables; afterwards every one of them can be opened.
pub(super) fn make_tables(db: &Database, incarnation: Incarnation) -> Result<(), DiskError> {
    let make = || -> Result<(), redb::Error> {
        let txn = db.begin_write()?;
        txn.open_table(ACCEPTORS)?;
        txn.open_table(OWNERS)?;
        txn.open_table(BODIES)?;
        txn.open_table(VERIFIED)?;
        txn.open_table(SEEN)?;
        txn.open_table(STARTS)?;
        txn.open_table(FENCES)?;
        txn.open_table(COUNTS)?.insert(BOOT, 0)?;
        let incarnation = with_sum(INCARNATION.as_bytes(), &incarnation.0);
        txn.open_table(META)?.insert(INCARNATION, incarnation.as_slice())?;
        Ok(txn.commit()?)
    };
    make().map_err(failed)
}

/// Opens a record file; after a crash redb first goes back to the last whole commit.
pub(super) fn open_file(path: &Path) -> Result<Database, DiskError> {
    Database::builder().set_cache_size(limits::RECORD_CACHE_BYTES).open(path).map_err(failed)
}

/// Goes once through every entry of what promises rest on. A flipped bit may hide an entry as well as change
/// it: in a key, in a page that leads to others. An acceptor that finds nothing would promise all over again.
/// So every entry must fit its sum and be found by its key, and none may be missing. Bodies are not looked
/// at: each is checked by its hash whenever it is read, and one that is missing is fetched again.
pub(super) fn check(db: &Database) -> Result<(), DiskError> {
    let check = || -> Result<(), redb::Error> {
        let txn = db.begin_read()?;
        let acceptors = txn.open_table(ACCEPTORS)?;
        check_table(&acceptors, |object, bytes| without_sum(object.as_slice(), bytes).map(drop))?;
        check_table(&txn.open_table(OWNERS)?, |key, ()| {
            let object: &[u8; 32] = key[32..].try_into().expect("64 bytes less 32");
            if acceptors.get(object)?.is_some() { Ok(()) } else { Err(missing()) }
        })?;
        check_table(&txn.open_table(SEEN)?, |peer, bytes| without_sum(peer, bytes).map(drop))?;
        check_table(&txn.open_table(META)?, |name, bytes| without_sum(name.as_bytes(), bytes).map(drop))?;
        // A file of an older version has none.
        if let Some(fences) = found(txn.open_table(FENCES))? {
            check_table(&fences, |slot, bytes| without_sum(&[slot], bytes).map(drop))?;
        }
        check_table(&txn.open_table(COUNTS)?, |_, _| Ok(()))?;
        check_table(&txn.open_table(STARTS)?, |_, _| Ok(()))
    };
    check().map_err(failed)
}

fn check_table<K: Key + 'static, V: Value + 'static>(
    table: &ReadOnlyTable<K, V>,
    fits: impl Fn(K::SelfType<'_>, V::SelfType<'_>) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    let mut count = 0;
    for entry in table.iter()? {
        let (key, value) = entry?;
        if table.get(key.value())?.is_none() {
            return Err(missing());
        }
        fits(key.value(), value.value())?;
        count += 1;
    }
    if count == table.len()? { Ok(()) } else { Err(missing()) }
}

/// A table, if the file has it.
pub(super) fn found<T>(opened: Result<T, TableError>) -> Result<Option<T>, TableError> {
    match opened {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        opened => opened.map(Some),
    }
}

fn missing() -> redb::Error {
    redb::Error::Corrupted("an entry cannot be found".into())
}

/// Whether a start was ever counted in a record file.
pub(super) fn has_started(path: &Path) -> Result<bool, DiskError> {
    let db = open_file(path)?;
    let look = || -> Result<bool, redb::Error> {
        let counts = db.begin_read()?.open_table(COUNTS)?;
        Ok(counts.get(BOOT)?.is_some_and(|boot| boot.value() > 0))
    };
    look().map_err(failed)
}

/// Durably counts a start and forgets the oldest one too many.
pub(super) fn count_start(db: &Database, process: ProcessId) -> Result<Start, DiskError> {
    let count = || -> Result<Option<Start>, redb::Error> {
        let txn = db.begin_write()?;
        let incarnation = {
            let meta = txn.open_table(META)?;
            let bytes = meta.get(INCARNATION)?;
            let bytes = bytes.map(|bytes| without_sum(INCARNATION.as_bytes(), bytes.value())).transpose()?;
            bytes.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()).map(Incarnation)
        };
        let Some(incarnation) = incarnation else { return Ok(None) };
        let mut history = Vec::new();
        let (boot, promises) = {
            let mut counts = txn.open_table(COUNTS)?;
            let promises = counts.get(PROMISES)?.map_or(0, |promises| promises.value());
            let boot = counts.get(BOOT)?.map_or(0, |boot| boot.value()).saturating_add(1);
            counts.insert(BOOT, boot)?;
            let mut starts = txn.open_table(STARTS)?;
            starts.insert(boot, &process.0)?;
            let oldest = (boot + 1).saturating_sub(limits::BOOT_HISTORY_MAX as u64);
            starts.retain(|boot, _| boot >= oldest)?;
            for start in starts.iter()? {
                let (boot, process) = start?;
                history.push(BootMark { boot: boot.value(), process: ProcessId(*process.value()) });
            }
            (boot, promises)
        };
        crash_point("disk.boot.before_count");
        txn.commit()?;
        Ok(Some(Start { boot, incarnation, promises, history }))
    };
    count().map_err(failed)?.ok_or_else(|| DiskError::Records("it has no incarnation".into()))
}

/// redb reads pages without checking them, so every value that a promise rests on carries a sum over its key
/// and itself: a flipped bit is an error, never a wrong promise.
pub(super) fn with_sum(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SUM_BYTES + value.len());
    bytes.extend_from_slice(&sum(key, value));
    bytes.extend_from_slice(value);
    bytes
}

pub(super) fn without_sum(key: &[u8], bytes: &[u8]) -> Result<Vec<u8>, redb::Error> {
    let rotten = || redb::Error::Corrupted("a value does not fit its checksum".into());
    let (found, value) = bytes.split_at_checked(SUM_BYTES).ok_or_else(rotten)?;
    if found == sum(key, value) { Ok(value.to_vec()) } else { Err(rotten()) }
}

fn sum(key: &[u8], value: &[u8]) -> [u8; SUM_BYTES] {
    let mut sum = [0; SUM_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher.update(key).update(value).finalize_xof().fill(&mut sum);
    sum
}
