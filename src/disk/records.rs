//! The record file: acceptor records, small bodies, the founding, what was seen of members.
//!
//! It owns the tables and reads them in snapshots; only the durable writer writes. It never uses savepoints,
//! never deletes or renames a table, never repairs by hand: after a storage error nothing more is written.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use redb::{Database, ReadableDatabase, ReadableTable};

use super::{
    DiskError, apply, crash_point,
    fault::Fault,
    tables::{
        ACCEPTORS, BODIES, BODY_BYTES, COUNTS, FENCES, META, OWNERS, PROMISES, SEEN, VERIFIED, found,
        without_sum,
    },
};
use crate::model::{
    BodyId, Digest, Incarnation, ObjectId, OwnerKey, PeerId, codec, hello::BootMark, limits, member::Epoch,
    slots::HashSlot,
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
    /// The PeerId of the node whose disk this is.
    Identity,
    /// The port that a fresh home has picked.
    ListenPort,
    /// Peers and the addresses at which they were reached.
    KnownAddresses,
    /// The counter up to which this node's claims may have gone.
    Claims,
}

impl MetaKey {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Founding => "founding",
            Self::FoundingVote => "founding vote",
            Self::FoundingProposal => "founding proposal",
            Self::FoundingAborted => "founding aborted",
            Self::Identity => "identity",
            Self::ListenPort => "listen port",
            Self::KnownAddresses => "known addresses",
            Self::Claims => "claims",
        }
    }
}

/// What was last seen of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its last start.
    pub mark: BootMark,
    /// The most promises that it was heard to have made durable.
    pub promises: u64,
    /// Its disk.
    pub incarnation: Incarnation,
}

impl Seen {
    /// `[1, mark, promises, incarnation]`.
    pub(super) fn encode(&self) -> Vec<u8> {
        codec::encode(&(1u64, self.mark, self.promises, self.incarnation))
    }

    /// None of anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        type Parts = (u64, BootMark, u64, Incarnation);
        let (version, mark, promises, incarnation): Parts = codec::decode(bytes, SEEN_BYTES_MAX).ok()?;
        (version == 1).then_some(Self { mark, promises, incarnation })
    }
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

/// The bytes of a small body, shared with whoever else uses them.
pub(super) struct Bytes(pub(super) Arc<dyn AsRef<[u8]> + Send + Sync>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.as_ref().as_ref().len())
    }
}

/// What lay in a small body's place when it was to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Before {
    Nothing,
    /// The same body, read and hashed just then; it was not written again.
    Good,
    /// A bad copy; it was replaced.
    Bad(Vec<u8>),
}

/// Told by the writer once the transaction is made; what it says counts only if that became durable.
pub(super) type TellBefore = Arc<OnceLock<Before>>;

/// One write of a batch.
#[derive(Debug)]
pub(super) enum Op {
    Record {
        object: ObjectId,
        owner: Option<OwnerKey>,
        bytes: Vec<u8>,
    },
    Meta {
        key: MetaKey,
        value: Option<Vec<u8>>,
    },
    Fence {
        slot: HashSlot,
        epoch: Epoch,
    },
    Seen {
        peer: PeerId,
        seen: Seen,
    },
    Body {
        id: BodyId,
        bytes: Bytes,
        unix_ms: u64,
        before: TellBefore,
    },
    Verified {
        id: BodyId,
        unix_ms: u64,
    },
    DropBadBody {
        id: BodyId,
    },
    /// Rot: other bytes in the place of a small body.
    #[cfg(test)]
    Rot {
        id: BodyId,
        bytes: Vec<u8>,
    },
}

impl Op {
    /// What it holds in memory and brings to the disk, roughly.
    pub(super) fn cost_bytes(&self) -> usize {
        128 + self.payload().len()
    }

    fn payload(&self) -> &[u8] {
        match self {
            Self::Record { bytes, .. } => bytes,
            Self::Body { bytes, .. } => bytes.0.as_ref().as_ref(),
            Self::Meta { value, .. } => value.as_deref().unwrap_or_default(),
            Self::Fence { .. } | Self::Seen { .. } | Self::Verified { .. } | Self::DropBadBody { .. } => &[],
            #[cfg(test)]
            Self::Rot { bytes, .. } => bytes,
        }
    }

    /// Whether to forget it would be to break one's word.
    pub(super) fn is_promise(&self) -> bool {
        match self {
            Self::Record { .. } | Self::Fence { .. } => true,
            Self::Meta { key, .. } => {
                use MetaKey::{Claims, Identity, KnownAddresses, ListenPort};
                !matches!(key, Identity | ListenPort | KnownAddresses | Claims)
            }
            Self::Seen { .. } | Self::Body { .. } | Self::Verified { .. } | Self::DropBadBody { .. } => false,
            #[cfg(test)]
            Self::Rot { .. } => false,
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

    /// Sets the epoch below which this node's acceptor refuses everything of a hash slot.
    pub fn fence(&mut self, slot: HashSlot, epoch: Epoch) -> &mut Self {
        self.push(Op::Fence { slot, epoch })
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
    promises: AtomicU64,
    commits: AtomicU64,
}

/// What the counts are after a transaction.
pub(super) struct Counts {
    pub(super) body_bytes: u64,
    pub(super) promises: u64,
}

impl Records {
    pub(super) fn new(db: Database, fault: Arc<Fault>) -> Result<Self, DiskError> {
        let zero = || AtomicU64::new(0);
        let records = Self { db, fault, body_bytes: zero(), promises: zero(), commits: zero() };
        let counts = records.read(|txn| {
            let counts = txn.open_table(COUNTS)?;
            let count = |name| Ok::<_, redb::Error>(counts.get(name)?.map_or(0, |count| count.value()));
            Ok(Counts { body_bytes: count(BODY_BYTES)?, promises: count(PROMISES)? })
        })?;
        records.set_counts(&counts);
        Ok(records)
    }

    fn set_counts(&self, counts: &Counts) {
        self.body_bytes.store(counts.body_bytes, Ordering::SeqCst);
        self.promises.store(counts.promises, Ordering::SeqCst);
    }

    /// Bytes of small bodies.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes.load(Ordering::SeqCst)
    }

    /// Durable transactions with a promise in them, ever.
    pub(super) fn promises(&self) -> u64 {
        self.promises.load(Ordering::SeqCst)
    }

    /// Transactions since the start.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }

    /// One transaction, one fsync. An error leaves the file as it was, and the disk failed: redb itself takes
    /// no more writes after an I/O error, and what an fsync that failed has left behind nobody knows.
    pub(super) fn commit<'a>(&self, ops: impl Iterator<Item = &'a Op>) -> Result<(), DiskError> {
        let commit = || -> Result<Counts, redb::Error> {
            let txn = self.db.begin_write()?;
            let counts = apply::apply(&txn, ops)?;
            crash_point("disk.batch.before_commit");
            txn.commit()?;
            Ok(counts)
        };
        let counts = commit().map_err(|error| self.fault.fail(error))?;
        self.set_counts(&counts);
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

    /// In the order of the objects, one for each.
    pub(super) fn acceptors(&self, objects: &[ObjectId]) -> Result<Vec<Option<Vec<u8>>>, DiskError> {
        self.read(|txn| {
            let acceptors = txn.open_table(ACCEPTORS)?;
            let one = |object: &ObjectId| -> Result<Option<Vec<u8>>, redb::Error> {
                let bytes = acceptors.get(&object.0)?;
                bytes.map(|bytes| without_sum(&object.0, bytes.value())).transpose()
            };
            objects.iter().map(one).collect()
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

    pub(super) fn fences(&self) -> Result<BTreeMap<HashSlot, Epoch>, DiskError> {
        self.read(|txn| {
            let mut fences = BTreeMap::new();
            let Some(table) = found(txn.open_table(FENCES))? else { return Ok(fences) };
            for entry in table.iter()? {
                let (slot, bytes) = entry?;
                let bytes = without_sum(&[slot.value()], bytes.value())?;
                let malformed = |_| redb::Error::Corrupted("a fence is malformed".into());
                let epoch = u64::from_le_bytes(bytes.as_slice().try_into().map_err(malformed)?);
                fences.insert(HashSlot(slot.value()), Epoch(epoch));
            }
            Ok(fences)
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
        let decode =
            |(peer, seen): (Vec<u8>, Vec<u8>)| Some((PeerId::from_bytes(&peer).ok()?, Seen::decode(&seen)?));
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

pub(super) fn owner_key(owner: OwnerKey, object: ObjectId) -> [u8; 64] {
    let mut key = [0; 64];
    key[..32].copy_from_slice(&owner.0);
    key[32..].copy_from_slice(&object.0);
    key
}

/// Whether bytes fit their id.
pub(super) fn fits(id: &BodyId, bytes: &[u8]) -> bool {
    Digest(*blake3::hash(bytes).as_bytes()).0 == id.0
}
