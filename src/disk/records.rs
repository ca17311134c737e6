//! The record file: acceptor records, small bodies, the founding, what was seen of members.
//!
//! It owns the tables and reads them in snapshots; only the durable writer writes. It never uses savepoints,
//! never deletes or renames a table, never repairs by hand: after a storage error nothing more is written.

use std::{
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};

use super::{
    DiskError, crash_point,
    fault::Fault,
    tables::{ACCEPTORS, BODIES, BODY_BYTES, COUNTS, META, OWNERS, SEEN, VERIFIED, with_sum, without_sum},
};
use crate::model::{
    BodyId, Digest, Incarnation, ObjectId, OwnerKey, PeerId, codec, hello::BootMark, limits, slots::HashSlot,
};

const SEEN_BYTES_MAX: usize = 256;

/// The node's own durable values; their bytes belong to whoever writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetaKey {
    /// The founding, once it is made.
    Founding,
    /// The vote given and not taken back.
    FoundingVote,
    /// The proposal of this node that is neither made nor aborted.
    FoundingProposal,
    /// Founding ids that this node has aborted.
    FoundingAborted,
    /// The port that a fresh home has picked.
    ListenPort,
    /// Peers and the addresses at which they were reached.
    KnownAddresses,
}

impl MetaKey {
    fn name(self) -> &'static str {
        match self {
            Self::Founding => "founding",
            Self::FoundingVote => "founding vote",
            Self::FoundingProposal => "founding proposal",
            Self::FoundingAborted => "founding aborted",
            Self::ListenPort => "listen port",
            Self::KnownAddresses => "known addresses",
        }
    }
}

/// What was last seen of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its last start.
    pub mark: BootMark,
    /// Its disk.
    pub incarnation: Incarnation,
}

/// An acceptor record as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// The object.
    pub object: ObjectId,
    /// What `proto` gave.
    pub bytes: Vec<u8>,
}

/// One page of a scan, in the order of the object ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordScan {
    /// The records.
    pub records: Vec<StoredRecord>,
    /// If there are more: what to pass as `after` for the next page.
    pub next: Option<ObjectId>,
}

/// One write of a batch.
#[derive(Debug)]
pub(super) enum Op {
    Record { object: ObjectId, owner: Option<OwnerKey>, bytes: Vec<u8> },
    Meta { key: MetaKey, value: Option<Vec<u8>> },
    Seen { peer: PeerId, seen: Seen },
    Body { id: BodyId, bytes: Vec<u8>, unix_ms: u64 },
    Verified { id: BodyId, unix_ms: u64 },
    DropBadBody { id: BodyId },
}

impl Op {
    /// What it holds in memory and brings to the disk, roughly.
    pub(super) fn cost_bytes(&self) -> usize {
        128 + self.payload().len()
    }

    fn payload(&self) -> &[u8] {
        match self {
            Self::Record { bytes, .. } | Self::Body { bytes, .. } => bytes,
            Self::Meta { value, .. } => value.as_deref().unwrap_or_default(),
            Self::Seen { .. } | Self::Verified { .. } | Self::DropBadBody { .. } => &[],
        }
    }

    fn check(&self) -> Result<(), DiskError> {
        let (what, max) = match self {
            Self::Record { .. } => ("an acceptor record", limits::RECORD_BYTES_MAX),
            Self::Body { .. } => ("a small body", limits::SMALL_BODY_BYTES_MAX),
            _ => ("a value", limits::META_BYTES_MAX),
        };
        let len = self.payload().len();
        if len <= max { Ok(()) } else { Err(DiskError::TooLarge { what, len, max }) }
    }
}

/// Writes that become durable together or not at all.
#[derive(Debug, Default)]
pub struct WriteBatch {
    pub(super) ops: Vec<Op>,
}

impl WriteBatch {
    /// An empty one. Submitted empty it is a barrier: done when everything before it is durable.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the acceptor record of an object. `owner` as soon as it is known: then the record is found by
    /// [`super::Disk::scan_owner`], from then on.
    pub fn record(&mut self, object: ObjectId, owner: Option<OwnerKey>, bytes: Vec<u8>) -> &mut Self {
        self.push(Op::Record { object, owner, bytes })
    }

    /// Sets or clears one of the node's own values.
    pub fn meta(&mut self, key: MetaKey, value: Option<Vec<u8>>) -> &mut Self {
        self.push(Op::Meta { key, value })
    }

    /// Notes what was seen of a member.
    pub fn seen(&mut self, peer: PeerId, seen: Seen) -> &mut Self {
        self.push(Op::Seen { peer, seen })
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub(super) fn push(&mut self, op: Op) -> &mut Self {
        self.ops.push(op);
        self
    }

    pub(super) fn check(&self) -> Result<(), DiskError> {
        let (len, max) = (self.ops.len(), limits::WRITE_BATCH_MAX);
        if len > max {
            return Err(DiskError::TooLarge { what: "a batch", len, max });
        }
        self.ops.iter().try_for_each(Op::check)
    }
}

/// The open record file.
pub(super) struct Records {
    db: Database,
    fault: Arc<Fault>,
    body_bytes: AtomicU64,
    commits: AtomicU64,
}

impl Records {
    pub(super) fn new(db: Database, fault: Arc<Fault>) -> Result<Self, DiskError> {
        let records = Self { db, fault, body_bytes: AtomicU64::new(0), commits: AtomicU64::new(0) };
        let bytes = records.read(|txn| Ok(txn.open_table(COUNTS)?.get(BODY_BYTES)?.map(|n| n.value())))?;
        records.body_bytes.store(bytes.unwrap_or(0), Ordering::SeqCst);
        Ok(records)
    }

    /// Bytes of small bodies.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes.load(Ordering::SeqCst)
    }

    /// Transactions since the start.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }

    /// One transaction, one fsync. An error leaves the file as it was, and the disk failed: redb itself takes
    /// no more writes after an I/O error, and what an fsync that failed has left behind nobody knows.
    pub(super) fn commit<'a>(&self, ops: impl Iterator<Item = &'a Op>) -> Result<(), DiskError> {
        let commit = || -> Result<u64, redb::Error> {
            let txn = self.db.begin_write()?;
            let body_bytes = apply(&txn, ops)?;
            crash_point("disk.batch.before_commit");
            txn.commit()?;
            Ok(body_bytes)
        };
        let body_bytes = commit().map_err(|error| self.fault.fail(error))?;
        self.body_bytes.store(body_bytes, Ordering::SeqCst);
        self.commits.fetch_add(1, Ordering::SeqCst);
        crash_point("disk.batch.committed");
        Ok(())
    }

    /// A snapshot. An error in reading fails the disk: what was read before it may be wrong too.
    fn read<T>(
        &self,
        read: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, DiskError> {
        self.fault.check()?;
        let result = self.db.begin_read().map_err(redb::Error::from).and_then(|txn| read(&txn));
        result.map_err(|error| self.fault.fail(error))
    }

    pub(super) fn acceptor(&self, object: &ObjectId) -> Result<Option<Vec<u8>>, DiskError> {
        self.read(|txn| {
            let acceptors = txn.open_table(ACCEPTORS)?;
            let bytes = acceptors.get(&object.0)?;
            bytes.map(|bytes| without_sum(&object.0, bytes.value())).transpose()
        })
    }

    pub(super) fn meta(&self, key: MetaKey) -> Result<Option<Vec<u8>>, DiskError> {
        self.read(|txn| {
            let meta = txn.open_table(META)?;
            let bytes = meta.get(key.name())?;
            bytes.map(|bytes| without_sum(key.name().as_bytes(), bytes.value())).transpose()
        })
    }

    /// A small body and when it was last found right, not hashed.
    pub(super) fn body(&self, id: &BodyId) -> Result<Option<Vec<u8>>, DiskError> {
        self.read(|txn| Ok(txn.open_table(BODIES)?.get(&id.0)?.map(|bytes| bytes.value().to_vec())))
    }

    /// When a small body was last found right; none if it is not here.
    pub(super) fn body_verified(&self, id: &BodyId) -> Result<Option<u64>, DiskError> {
        self.read(|txn| {
            if txn.open_table(BODIES)?.get(&id.0)?.is_none() {
                return Ok(None);
            }
            Ok(Some(txn.open_table(VERIFIED)?.get(&id.0)?.map_or(0, |time| time.value())))
        })
    }

    pub(super) fn all_seen(&self) -> Result<Vec<(PeerId, Seen)>, DiskError> {
        let raw = self.read(|txn| {
            let mut raw = Vec::new();
            for entry in txn.open_table(SEEN)?.iter()? {
                let (peer, seen) = entry?;
                raw.push((peer.value().to_vec(), without_sum(peer.value(), seen.value())?));
            }
            Ok(raw)
        })?;
        let decode = |(peer, seen): (Vec<u8>, Vec<u8>)| {
            let peer = PeerId::from_bytes(&peer).ok()?;
            let seen = codec::decode::<(u64, BootMark, Incarnation)>(&seen, SEEN_BYTES_MAX).ok()?;
            (seen.0 == 1).then_some((peer, Seen { mark: seen.1, incarnation: seen.2 }))
        };
        let bad = || DiskError::Records("what was seen of a member is malformed".into());
        raw.into_iter().map(|entry| decode(entry).ok_or_else(bad)).collect()
    }

    pub(super) fn scan_slot(
        &self,
        slot: HashSlot,
        after: Option<ObjectId>,
        max_bytes: usize,
    ) -> Result<RecordScan, DiskError> {
        let (mut first, mut last) = ([0; 32], [0xff; 32]);
        (first[0], last[0]) = (slot.0, slot.0);
        let from = match &after {
            Some(after) if after.0 >= last => return Ok(RecordScan::default()),
            Some(after) if after.0 >= first => Bound::Excluded(&after.0),
            _ => Bound::Included(&first),
        };
        self.read(|txn| {
            let acceptors = txn.open_table(ACCEPTORS)?;
            let mut page = Page::new(max_bytes);
            for entry in acceptors.range::<&[u8; 32]>((from, Bound::Included(&last)))? {
                let (object, bytes) = entry?;
                if !page.add(ObjectId(*object.value()), bytes.value())? {
                    break;
                }
            }
            Ok(page.scan)
        })
    }

    pub(super) fn scan_owner(
        &self,
        owner: OwnerKey,
        after: Option<ObjectId>,
        max_bytes: usize,
    ) -> Result<RecordScan, DiskError> {
        let (first, last) = (owner_key(owner, ObjectId::ZERO), owner_key(owner, ObjectId([0xff; 32])));
        let after = after.map(|after| owner_key(owner, after));
        let from = match &after {
            Some(after) if *after >= last => return Ok(RecordScan::default()),
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(&first),
        };
        self.read(|txn| {
            let (owners, acceptors) = (txn.open_table(OWNERS)?, txn.open_table(ACCEPTORS)?);
            let mut page = Page::new(max_bytes);
            for entry in owners.range::<&[u8; 64]>((from, Bound::Included(&last)))? {
                let (key, _) = entry?;
                let mut object = [0; 32];
                object.copy_from_slice(&key.value()[32..]);
                let Some(bytes) = acceptors.get(&object)? else { continue };
                if !page.add(ObjectId(object), bytes.value())? {
                    break;
                }
            }
            Ok(page.scan)
        })
    }
}

/// A page being filled.
struct Page {
    scan: RecordScan,
    room_bytes: usize,
}

impl Page {
    fn new(room_bytes: usize) -> Self {
        Self { scan: RecordScan::default(), room_bytes }
    }

    /// False if the record is left for the next page.
    fn add(&mut self, object: ObjectId, bytes: &[u8]) -> Result<bool, redb::Error> {
        let bytes = without_sum(&object.0, bytes)?;
        let cost = ObjectId::LEN + bytes.len();
        if cost > self.room_bytes && !self.scan.records.is_empty() {
            self.scan.next = self.scan.records.last().map(|record| record.object);
            return Ok(false);
        }
        self.room_bytes = self.room_bytes.saturating_sub(cost);
        self.scan.records.push(StoredRecord { object, bytes });
        Ok(true)
    }
}

fn owner_key(owner: OwnerKey, object: ObjectId) -> [u8; 64] {
    let mut key = [0; 64];
    key[..32].copy_from_slice(&owner.0);
    key[32..].copy_from_slice(&object.0);
    key
}

/// Whether bytes fit their id.
pub(super) fn fits(id: &BodyId, bytes: &[u8]) -> bool {
    Digest(*blake3::hash(bytes).as_bytes()).0 == id.0
}

/// Applies all of a transaction and returns the bytes of small bodies after it.
fn apply<'a>(txn: &WriteTransaction, ops: impl Iterator<Item = &'a Op>) -> Result<u64, redb::Error> {
    let mut counts = txn.open_table(COUNTS)?;
    let mut body_bytes = counts.get(BODY_BYTES)?.map_or(0, |bytes| bytes.value());
    let before = body_bytes;
    for op in ops {
        match op {
            Op::Record { object, owner, bytes } => {
                txn.open_table(ACCEPTORS)?.insert(&object.0, with_sum(&object.0, bytes).as_slice())?;
                if let Some(owner) = owner {
                    txn.open_table(OWNERS)?.insert(&owner_key(*owner, *object), ())?;
                }
            }
            Op::Meta { key, value: Some(value) } => {
                let value = with_sum(key.name().as_bytes(), value);
                txn.open_table(META)?.insert(key.name(), value.as_slice())?;
            }
            Op::Meta { key, value: None } => {
                txn.open_table(META)?.remove(key.name())?;
            }
            Op::Seen { peer, seen } => {
                let value = codec::encode(&(1u64, seen.mark, seen.incarnation));
                let peer = peer.to_bytes();
                txn.open_table(SEEN)?.insert(peer.as_slice(), with_sum(&peer, &value).as_slice())?;
            }
            Op::Body { id, bytes, unix_ms } => {
                let mut bodies = txn.open_table(BODIES)?;
                let old = bodies.insert(&id.0, bytes.as_slice())?.map_or(0, |old| old.value().len() as u64);
                body_bytes = (body_bytes + bytes.len() as u64).saturating_sub(old);
                txn.open_table(VERIFIED)?.insert(&id.0, unix_ms)?;
            }
            Op::Verified { id, unix_ms } => {
                txn.open_table(VERIFIED)?.insert(&id.0, unix_ms)?;
            }
            Op::DropBadBody { id } => {
                let dropped = drop_bad_body(txn, id)?;
                body_bytes = body_bytes.saturating_sub(dropped);
            }
        }
    }
    if body_bytes != before {
        counts.insert(BODY_BYTES, body_bytes)?;
    }
    Ok(body_bytes)
}

/// Removes a small body, but only if it is bad now: a good copy may have replaced it meanwhile.
fn drop_bad_body(txn: &WriteTransaction, id: &BodyId) -> Result<u64, redb::Error> {
    let mut bodies = txn.open_table(BODIES)?;
    let is_bad = bodies.get(&id.0)?.is_some_and(|bytes| !fits(id, bytes.value()));
    if !is_bad {
        return Ok(0);
    }
    let len = bodies.remove(&id.0)?.map_or(0, |bytes| bytes.value().len() as u64);
    txn.open_table(VERIFIED)?.remove(&id.0)?;
    Ok(len)
}
