//! The one handle to a node's disk: bodies, records, marks. Cheap to clone.
//!
//! It decides what is a file and what a record, bounds how much waits, and never blocks an async task:
//! every `async` call does its work on blocking threads, of which each kind has a bounded number.

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::{oneshot, watch};

use super::{
    Boot, DiskError, DiskOptions, Home, MetaKey, NodeAddr, RecordScan, Seen, WriteBatch, boot,
    chunks::{Chunks, unix_ms},
    crash::{Steps, steps},
    crash_point,
    fault::Fault,
    files,
    jobs::Jobs,
    records::{Before, Bytes, Op, Records, TellBefore, fits},
    space::Space,
    writer::Writer,
};
use crate::model::{
    BodyId, ObjectId, OwnerKey, PeerId, hello::BootMark, limits, member::Epoch, slots::HashSlot,
};

const NODE_ADDR_STEPS: Steps = steps!("disk.node_addr");

/// What a put found. In each case the body is durable here when it is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// It was not here.
    Written,
    /// It was here, and was read and hashed just now.
    Had,
    /// A corrupt copy was here and has been replaced.
    Mended,
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyCheck {
    /// Not here.
    Missing,
    /// Here, read and hashed just now, and durable.
    Good { verified_unix_ms: u64 },
    /// A corrupt copy was here; it has been moved aside.
    Corrupt,
}

/// A node's open disk.
#[derive(Clone)]
pub struct Disk {
    inner: Arc<Inner>,
}

struct Inner {
    home: Home,
    fault: Arc<Fault>,
    space: Arc<Space>,
    chunks: Arc<Chunks>,
    records: Arc<Records>,
    writer: Writer,
    history: Vec<BootMark>,
    put_jobs: Jobs,
    read_jobs: Jobs,
    record_jobs: Jobs,
    stopped: AtomicBool,
    /// Last, so that it is freed last: the home is this process's until everything else is closed.
    _lock: File,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.chunks.count().stop();
        self.writer.stop();
    }
}

impl Disk {
    /// Locks the home, checks that it is this machine's and of a known format, and durably counts this start.
    /// Blocks; call it before the runtime is busy or from a blocking thread.
    ///
    /// # Errors
    /// [`DiskError::Locked`], [`DiskError::NewerFormat`], [`DiskError::OtherMachine`],
    /// [`DiskError::RolledBack`], or what the operating system says.
    pub fn open(home: &Home, options: DiskOptions) -> Result<(Disk, Boot), DiskError> {
        let opened = boot::open(home, &options)?;
        let fault = Arc::new(Fault::new());
        let space = Space::new(home.data_dir(), options.reserve_bytes, options.capacity_bytes);
        let space = Arc::new(space);
        let chunks = Arc::new(Chunks::open(home.clone(), space.clone(), fault.clone())?);
        let records = Arc::new(Records::new(opened.db, fault.clone())?);
        let writer = Writer::start(records.clone(), space.clone(), fault.clone())?;
        start_count(home, &chunks)?;
        let jobs = || Jobs::new(limits::DISK_JOBS_MAX, limits::BODY_JOBS_WAITING_MAX);
        let inner = Inner {
            home: home.clone(),
            fault,
            space,
            chunks,
            records,
            writer,
            history: opened.start.history,
            put_jobs: jobs(),
            read_jobs: jobs(),
            record_jobs: Jobs::new(limits::DISK_JOBS_MAX, limits::RECORD_JOBS_WAITING_MAX),
            stopped: AtomicBool::new(false),
            _lock: opened.lock,
        };
        Ok((Disk { inner: Arc::new(inner) }, opened.boot))
    }

    /// The starts of this home that it remembers, this one among them.
    pub fn starts(&self) -> Vec<BootMark> {
        self.inner.history.clone()
    }

    /// Whether there is room for another body, the largest.
    ///
    /// # Errors
    /// As [`Disk::room_for`].
    pub fn room(&self) -> Result<(), DiskError> {
        self.room_for(limits::BODY_BYTES_MAX as u64)
    }

    /// Whether there is room for a body of so many bytes.
    ///
    /// # Errors
    /// [`DiskError::Full`], [`DiskError::Capacity`].
    pub fn room_for(&self, len: u64) -> Result<(), DiskError> {
        self.inner.space.look(len, self.used_bytes().unwrap_or(0))
    }

    /// Whether there is room to write down a promise, which needs less than a body.
    ///
    /// # Errors
    /// [`DiskError::Full`].
    pub fn room_for_records(&self) -> Result<(), DiskError> {
        self.inner.space.check_records(0)
    }

    /// The home.
    pub fn home(&self) -> &Home {
        &self.inner.home
    }

    /// Turns to `Some` once, when the disk has failed and the node must stop.
    pub fn failure(&self) -> watch::Receiver<Option<DiskError>> {
        self.inner.fault.watch()
    }

    /// Ends in order: everything submitted before is made durable, later calls get [`DiskError::Closed`].
    /// The home's lock is free once the last clone is dropped.
    ///
    /// # Errors
    /// [`DiskError::Failed`] if the disk had failed.
    pub async fn stop(&self) -> Result<(), DiskError> {
        self.inner.stopped.store(true, Ordering::SeqCst);
        self.inner.chunks.count().stop();
        self.inner.put_jobs.close().await;
        self.inner.read_jobs.close().await;
        let inner = self.inner.clone();
        let ended = tokio::task::spawn_blocking(move || inner.writer.stop()).await;
        self.inner.record_jobs.close().await;
        ended.map_err(|_| DiskError::Closed)?;
        self.inner.fault.check()
    }

    // ---- bodies ----

    /// Stores a body that the caller has checked against `id`. Durable when it returns.
    ///
    /// # Errors
    /// [`DiskError::Full`], [`DiskError::Capacity`], [`DiskError::Busy`], [`DiskError::TooLarge`],
    /// [`DiskError::Failed`].
    pub async fn put_body<B>(&self, id: BodyId, body: B) -> Result<PutOutcome, DiskError>
    where
        B: AsRef<[u8]> + Send + Sync + 'static,
    {
        self.check_open()?;
        let (len, max) = (body.as_ref().len(), limits::BODY_BYTES_MAX);
        if len > max {
            return Err(DiskError::TooLarge { what: "a body", len, max });
        }
        if len <= limits::SMALL_BODY_BYTES_MAX {
            return self.put_small(id, body).await;
        }
        let inner = self.inner.clone();
        let put = move || inner.chunks.put(&id, body.as_ref(), inner.records.body_bytes());
        self.inner.put_jobs.run(put).await
    }

    /// Reads a body and checks it against its id.
    ///
    /// # Errors
    /// [`DiskError::Corrupt`] if the copy was bad (it is moved aside), [`DiskError::Busy`], or an I/O error.
    pub async fn get_body(&self, id: BodyId) -> Result<Option<Vec<u8>>, DiskError> {
        self.check_open()?;
        let inner = self.inner.clone();
        let read = move || match inner.records.body(&id)? {
            Some(bytes) if fits(&id, &bytes) => Ok(Some(bytes)),
            Some(bytes) => {
                inner.drop_bad_small(&id, &bytes);
                Err(DiskError::Corrupt { id })
            }
            None => inner.chunks.get(&id),
        };
        self.inner.read_jobs.run(read).await
    }

    /// Whether there is a copy, unread: a hint, never an answer to an offer.
    ///
    /// # Errors
    /// [`DiskError::Busy`] or an I/O error.
    pub async fn has_body(&self, id: BodyId) -> Result<bool, DiskError> {
        Ok(self.body_verified(id).await?.is_some())
    }

    /// Reads and hashes a body without returning it; notes the time if it is good.
    ///
    /// # Errors
    /// [`DiskError::Busy`] or an I/O error.
    pub async fn check_body(&self, id: BodyId) -> Result<BodyCheck, DiskError> {
        self.check_open()?;
        let inner = self.inner.clone();
        self.inner.read_jobs.run(move || inner.check(&id)).await
    }

    /// When the body was last written or found right, in milliseconds since 1970; none if it is not here.
    ///
    /// # Errors
    /// [`DiskError::Busy`] or an I/O error.
    pub async fn body_verified(&self, id: BodyId) -> Result<Option<u64>, DiskError> {
        self.check_open()?;
        let inner = self.inner.clone();
        let look = move || match inner.records.body_verified(&id)? {
            None => inner.chunks.verified(&id),
            some => Ok(some),
        };
        self.inner.record_jobs.run(look).await
    }

    /// Bytes of bodies stored here; none while the first count after the start still runs.
    pub fn used_bytes(&self) -> Option<u64> {
        let count = self.inner.chunks.count();
        count.is_complete().then(|| count.bytes() + self.inner.records.body_bytes())
    }

    /// Bytes that may be stored here: the configured capacity, else what is used plus what is free above the
    /// reserve. None while not known.
    pub fn capacity_bytes(&self) -> Option<u64> {
        self.inner.space.capacity_bytes(self.used_bytes()?)
    }

    /// Corrupt copies moved aside since the start.
    pub fn corrupt_found(&self) -> u64 {
        self.inner.chunks.corrupt()
    }

    // ---- records ----

    /// Transactions of the durable writer since the start: one fsync each.
    pub fn commits(&self) -> u64 {
        self.inner.records.commits()
    }

    /// Hands a batch to the durable writer; never blocks. Batches become durable in the order of their
    /// submission, each wholly or not at all. `on_durable` runs on the writer's thread and must only pass the
    /// result on. When this returns an error, `on_durable` is not called and nothing is written.
    ///
    /// # Errors
    /// [`DiskError::Busy`] when the queue is full, [`DiskError::TooLarge`], [`DiskError::Closed`],
    /// [`DiskError::Failed`].
    pub fn submit<F>(&self, batch: WriteBatch, on_durable: F) -> Result<(), DiskError>
    where
        F: FnOnce(Result<(), DiskError>) + Send + 'static,
    {
        self.check_open()?;
        self.inner.writer.submit(batch, on_durable)
    }

    /// As [`Disk::submit`], and waits until the batch is durable.
    ///
    /// # Errors
    /// As [`Disk::submit`]; [`DiskError::Full`] if there was no room for records either.
    pub async fn write(&self, batch: WriteBatch) -> Result<(), DiskError> {
        let (tell, told) = oneshot::channel();
        self.submit(batch, move |result| drop(tell.send(result)))?;
        told.await.unwrap_or(Err(DiskError::Closed))
    }

    /// The acceptor records of these objects, as `proto` gave them, in their order and in one snapshot.
    /// Blocks for the reads.
    ///
    /// # Errors
    /// [`DiskError::Records`], [`DiskError::Closed`], [`DiskError::Failed`].
    pub fn acceptors_now(&self, objects: &[ObjectId]) -> Result<Vec<Option<Vec<u8>>>, DiskError> {
        self.check_open()?;
        self.inner.records.acceptors(objects)
    }

    /// The records of a hash slot after `after`, in the order of their ids: as many as fit into `max_bytes`
    /// (32 counted extra for each), at least one if there is one.
    ///
    /// # Errors
    /// [`DiskError::Busy`], [`DiskError::Records`], [`DiskError::Failed`].
    pub async fn scan_slot(
        &self,
        slot: HashSlot,
        after: Option<ObjectId>,
        max_bytes: usize,
    ) -> Result<RecordScan, DiskError> {
        self.check_open()?;
        let inner = self.inner.clone();
        self.inner.record_jobs.run(move || inner.records.scan_slot(slot, after, max_bytes)).await
    }

    /// The same for the records of one owner, of all slots.
    ///
    /// # Errors
    /// As [`Disk::scan_slot`].
    pub async fn scan_owner(
        &self,
        owner: OwnerKey,
        after: Option<ObjectId>,
        max_bytes: usize,
    ) -> Result<RecordScan, DiskError> {
        self.check_open()?;
        let inner = self.inner.clone();
        self.inner.record_jobs.run(move || inner.records.scan_owner(owner, after, max_bytes)).await
    }

    /// One of the node's own durable values. Blocks for one cached read.
    ///
    /// # Errors
    /// [`DiskError::Records`], [`DiskError::Failed`].
    pub fn meta(&self, key: MetaKey) -> Result<Option<Vec<u8>>, DiskError> {
        self.inner.records.meta(key)
    }

    /// The fences written, by hash slot. Blocks for a few cached reads.
    ///
    /// # Errors
    /// [`DiskError::Records`], [`DiskError::Failed`].
    pub fn fences(&self) -> Result<BTreeMap<HashSlot, Epoch>, DiskError> {
        self.inner.records.fences()
    }

    /// How many transactions with a promise in them (acceptor records, fences, the founding's votes) were
    /// ever made durable here. Read after such a write is done it counts that one; told to others, it is how
    /// they know a home that was put back to an older state.
    pub fn promises(&self) -> u64 {
        self.inner.records.promises()
    }

    /// What was last durably seen of each member. Blocks for a few cached reads.
    ///
    /// # Errors
    /// [`DiskError::Records`], [`DiskError::Failed`].
    pub fn all_seen(&self) -> Result<Vec<(PeerId, Seen)>, DiskError> {
        self.inner.records.all_seen()
    }

    // ---- this start ----

    /// Marks the home durably: no start on it succeeds any more. Blocks for an fsync.
    ///
    /// # Errors
    /// What the operating system says; stop all the same.
    pub fn mark_rolled_back(&self) -> Result<(), DiskError> {
        boot::mark_rolled_back(&self.inner.home)
    }

    /// Writes `data/node.addr`, so that clients on this machine find the node: again after each change of the
    /// addresses. Blocks for an fsync.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn publish_addr(&self, addr: &NodeAddr) -> Result<(), DiskError> {
        files::replace(&self.inner.home.node_addr_path(), addr.to_text().as_bytes(), &NODE_ADDR_STEPS)
    }

    /// Removes `data/node.addr` at an orderly stop.
    pub fn retract_addr(&self) {
        let _ = std::fs::remove_file(self.inner.home.node_addr_path());
        crash_point("disk.node_addr.removed");
    }

    // ---- how ----

    #[cfg(test)]
    pub(super) fn space(&self) -> &Space {
        &self.inner.space
    }

    fn check_open(&self) -> Result<(), DiskError> {
        if self.inner.stopped.load(Ordering::SeqCst) { Err(DiskError::Closed) } else { Ok(()) }
    }

    async fn put_small<B>(&self, id: BodyId, body: B) -> Result<PutOutcome, DiskError>
    where
        B: AsRef<[u8]> + Send + Sync + 'static,
    {
        let _room = match self.inner.space.take(body.as_ref().len() as u64, self.inner.body_bytes()) {
            Ok(room) => room,
            Err(full) => {
                // What is here already needs no room.
                let inner = self.inner.clone();
                let old = self.inner.record_jobs.run(move || inner.records.body(&id)).await?;
                let had = old.is_some_and(|old| fits(&id, &old));
                return if had { Ok(PutOutcome::Had) } else { Err(full) };
            }
        };
        let before = TellBefore::default();
        let mut batch = WriteBatch::new();
        batch.push(Op::Body {
            id,
            bytes: Bytes(Arc::new(body)),
            unix_ms: unix_ms(SystemTime::now()),
            before: before.clone(),
        });
        self.write(batch).await?;
        match before.get() {
            Some(Before::Good) => Ok(PutOutcome::Had),
            Some(Before::Bad(old)) => {
                self.inner.chunks.note_bad_small(&id, old);
                Ok(PutOutcome::Mended)
            }
            Some(Before::Nothing) | None => Ok(PutOutcome::Written),
        }
    }
}

impl Inner {
    /// Bytes of all bodies, as far as they are counted.
    fn body_bytes(&self) -> u64 {
        self.chunks.count().bytes() + self.records.body_bytes()
    }

    fn check(&self, id: &BodyId) -> Result<BodyCheck, DiskError> {
        let Some(bytes) = self.records.body(id)? else { return self.chunks.check(id) };
        if !fits(id, &bytes) {
            self.drop_bad_small(id, &bytes);
            return Ok(BodyCheck::Corrupt);
        }
        let verified_unix_ms = unix_ms(SystemTime::now());
        let mut batch = WriteBatch::new();
        batch.push(Op::Verified { id: *id, unix_ms: verified_unix_ms });
        // Only a note for people: if the queue is full it is not written.
        let _ = self.writer.submit(batch, drop);
        Ok(BodyCheck::Good { verified_unix_ms })
    }

    /// If the queue is full the bad copy stays, and is found again.
    fn drop_bad_small(&self, id: &BodyId, bytes: &[u8]) {
        self.chunks.note_bad_small(id, bytes);
        let mut batch = WriteBatch::new();
        batch.push(Op::DropBadBody { id: *id });
        let _ = self.writer.submit(batch, drop);
    }
}

/// Counts the chunk files on a thread of its own, which ends with the disk.
fn start_count(home: &Home, chunks: &Arc<Chunks>) -> Result<(), DiskError> {
    let (root, chunks) = (home.chunks_dir(), Arc::downgrade(chunks));
    let count = move || {
        if let Some(chunks) = Weak::upgrade(&chunks) {
            chunks.count().run(&root);
        }
    };
    let thread = std::thread::Builder::new().name("count-chunks".into()).spawn(count);
    thread.map(drop).map_err(DiskError::io("count", home.chunks_dir()))
}
