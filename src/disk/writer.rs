//! The one durable writer: a thread that takes everything that waits, commits it, and says so.
//!
//! First come, first durable. There is no timer: while one commit runs the next batch gathers. It never says
//! that a write is durable before its commit has returned, and after a failed commit it commits nothing more.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use super::{
    DiskError, WriteBatch, crash_point,
    fault::Fault,
    records::{Op, Records},
    space::Space,
};
use crate::model::limits;

type Callback = Box<dyn FnOnce(Result<(), DiskError>) + Send>;

/// Told exactly once, whatever happens to the write.
struct Done(Option<Callback>);

impl Done {
    fn tell(mut self, result: Result<(), DiskError>) {
        if let Some(callback) = self.0.take() {
            callback(result);
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(callback) = self.0.take() {
            callback(Err(DiskError::Closed));
        }
    }
}

struct Write {
    ops: Vec<Op>,
    bytes: usize,
    done: Done,
}

enum Job {
    Write(Write),
    Stop,
}

/// The way to the writer's thread.
pub(super) struct Writer {
    queue: SyncSender<Job>,
    queued_bytes: Arc<AtomicUsize>,
    fault: Arc<Fault>,
    stopping: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(
        records: Arc<Records>,
        space: Arc<Space>,
        fault: Arc<Fault>,
    ) -> Result<Self, DiskError> {
        let (queue, jobs) = sync_channel(limits::WRITE_QUEUE_MAX);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let worker = Worker {
            jobs,
            held: None,
            queued_bytes: queued_bytes.clone(),
            records,
            space,
            fault: fault.clone(),
        };
        let thread = std::thread::Builder::new().name("durable-writer".into()).spawn(move || worker.run());
        let thread = thread.map_err(|error| DiskError::Records(error.to_string().into()))?;
        let thread = Mutex::new(Some(thread));
        Ok(Self { queue, queued_bytes, fault, stopping: AtomicBool::new(false), thread })
    }

    /// Queues a batch; `done` is not called if this returns an error.
    pub(super) fn submit<F>(&self, batch: WriteBatch, done: F) -> Result<(), DiskError>
    where
        F: FnOnce(Result<(), DiskError>) + Send + 'static,
    {
        self.fault.check()?;
        batch.check()?;
        if self.stopping.load(Ordering::SeqCst) {
            return Err(DiskError::Closed);
        }
        let bytes = batch.ops.iter().map(Op::cost_bytes).sum::<usize>();
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::SeqCst);
        if queued + bytes > limits::WRITE_QUEUE_BYTES_MAX {
            self.queued_bytes.fetch_sub(bytes, Ordering::SeqCst);
            return Err(DiskError::Busy);
        }
        let job = Job::Write(Write { ops: batch.ops, bytes, done: Done(Some(Box::new(done))) });
        let (job, error) = match self.queue.try_send(job) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(job)) => (job, DiskError::Busy),
            Err(TrySendError::Disconnected(job)) => (job, DiskError::Closed),
        };
        self.queued_bytes.fetch_sub(bytes, Ordering::SeqCst);
        if let Job::Write(mut write) = job {
            write.done.0 = None;
        }
        Err(error)
    }

    /// Commits what was queued before and ends the thread. Blocks.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A callback may hold the last handle: the thread cannot wait for itself, it ends with its queue.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = self.queue.send(Job::Stop);
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Worker {
    jobs: Receiver<Job>,
    /// Taken from the queue, too much for the last batch.
    held: Option<Write>,
    queued_bytes: Arc<AtomicUsize>,
    records: Arc<Records>,
    space: Arc<Space>,
    fault: Arc<Fault>,
}

/// If the thread dies of a bug, the node must not go on as if it wrote.
struct DeathWatch(Arc<Fault>);

impl Drop for DeathWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("the durable writer died");
        }
    }
}

impl Worker {
    fn run(mut self) {
        let _watch = DeathWatch(self.fault.clone());
        let mut is_last = false;
        while !is_last {
            let (batch, stop) = self.gather();
            is_last = stop;
            self.write(batch);
        }
        // What came after the stop is told `Closed` when the queue is dropped.
    }

    /// Waits for one write and takes everything behind it that fits. True if it is the last batch.
    fn gather(&mut self) -> (Vec<Write>, bool) {
        let first = match self.held.take() {
            Some(write) => write,
            None => match self.jobs.recv() {
                Ok(Job::Write(write)) => write,
                Ok(Job::Stop) | Err(_) => return (Vec::new(), true),
            },
        };
        let (mut ops, mut bytes) = (first.ops.len(), first.bytes);
        let mut batch = vec![first];
        while batch.len() < limits::WRITE_QUEUE_MAX {
            match self.jobs.try_recv() {
                Ok(Job::Write(write)) => {
                    ops += write.ops.len();
                    bytes += write.bytes;
                    if ops > limits::WRITE_BATCH_MAX || bytes > limits::WRITE_BATCH_BYTES_MAX {
                        self.held = Some(write);
                        break;
                    }
                    batch.push(write);
                }
                Ok(Job::Stop) => return (batch, true),
                Err(_) => break,
            }
        }
        (batch, false)
    }

    fn write(&self, batch: Vec<Write>) {
        let bytes = batch.iter().map(|write| write.bytes).sum::<usize>();
        let result = self.commit(&batch, bytes);
        self.queued_bytes.fetch_sub(bytes, Ordering::SeqCst);
        for write in batch {
            crash_point("disk.batch.answering");
            write.done.tell(result.clone());
        }
    }

    fn commit(&self, batch: &[Write], bytes: usize) -> Result<(), DiskError> {
        self.fault.check()?;
        if batch.iter().all(|write| write.ops.is_empty()) {
            return Ok(());
        }
        self.space.check_records(bytes as u64)?;
        crash_point("disk.batch.gathered");
        self.records.commit(batch.iter().flat_map(|write| &write.ops))
    }
}
