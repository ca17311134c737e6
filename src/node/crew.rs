//! Threads that do the loop's slow work on registers: reading acceptor records and checking signatures.
//!
//! They take whatever waits in one go, so that a busy node pays for one wake-up and one snapshot of the
//! records where an idle one pays for each. Queues are bounded and full is an answer. They decide nothing.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use tokio::sync::mpsc;

use super::{Done, bodies::NodeCounters, execute::read_record, machines::verify, serve::Reply};
use crate::{
    disk::Disk,
    model::{ObjectId, PeerId, limits, register::RawRegister},
    proto::chunkpaxos::Message,
};

/// Registers checked at a time by one thread: few, so that the others get some too.
const CHECKS_AT_ONCE: usize = 4;
/// Records read in one snapshot.
const READS_AT_ONCE: usize = 128;

/// Something with a register that nobody has checked.
pub(super) enum Unchecked {
    /// A member's message.
    Message { from: PeerId, message: Message<RawRegister> },
    /// A client's proposal.
    Proposal { value: RawRegister, reply: Reply },
}

/// The threads. Dropping it ends them.
pub(super) struct Crew {
    checks: Option<SyncSender<Unchecked>>,
    reads: Option<SyncSender<ObjectId>>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Starts the threads; what they have done goes to `done`.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(
        disk: &Disk,
        counters: &Arc<NodeCounters>,
        done: &mpsc::Sender<Done>,
    ) -> std::io::Result<Self> {
        let (checks, unchecked) = sync_channel(limits::NODE_TASKS_MAX);
        let (reads, wanted) = sync_channel(limits::NODE_TASKS_MAX);
        let unchecked = Arc::new(Mutex::new(unchecked));
        let mut threads = Vec::new();
        for _ in 0..checkers() {
            let (unchecked, counters, done) = (Arc::clone(&unchecked), Arc::clone(counters), done.clone());
            threads.push(thread("check", move || check_all(&unchecked, &counters, &done))?);
        }
        let (disk, done) = (disk.clone(), done.clone());
        threads.push(thread("read", move || read_all(&wanted, &disk, &done))?);
        Ok(Self { checks: Some(checks), reads: Some(reads), threads })
    }

    /// Queues a check; what there is no room for comes back.
    pub(super) fn check(&self, unchecked: Unchecked) -> Option<Unchecked> {
        let queue = self.checks.as_ref().expect("only dropping takes it");
        match queue.try_send(unchecked) {
            Ok(()) => None,
            Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => Some(back),
        }
    }

    /// Queues the reading of a record. False if there is no room.
    pub(super) fn read(&self, object: ObjectId) -> bool {
        self.reads.as_ref().expect("only dropping takes it").try_send(object).is_ok()
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        (self.checks, self.reads) = (None, None);
        for thread in self.threads.drain(..) {
            // A panic there has been reported by the hook already.
            let _ = thread.join();
        }
    }
}

fn checkers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(limits::DISK_JOBS_MAX)
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(work)
}

/// Waits for one and takes what waits behind it, so many at most; none at the end.
fn take<T>(queue: &Receiver<T>, max: usize) -> Vec<T> {
    let Ok(first) = queue.recv() else { return Vec::new() };
    let mut taken = vec![first];
    taken.extend(queue.try_iter().take(max - 1));
    taken
}

fn check_all(queue: &Mutex<Receiver<Unchecked>>, counters: &NodeCounters, done: &mpsc::Sender<Done>) {
    loop {
        // Whoever waits for the lock would only wait for the same queue.
        let taken = take(&queue.lock().unwrap_or_else(PoisonError::into_inner), CHECKS_AT_ONCE);
        if taken.is_empty() {
            return;
        }
        for unchecked in taken {
            if let Some(checked) = check(unchecked, counters)
                && done.blocking_send(checked).is_err()
            {
                return;
            }
        }
    }
}

fn check(unchecked: Unchecked, counters: &NodeCounters) -> Option<Done> {
    match unchecked {
        Unchecked::Message { from, message } => match message.try_map(|raw| verify(&raw)) {
            Ok(message) => Some(Done::Verified { from, message: Box::new(message) }),
            Err(()) => {
                counters.malformed.bump();
                None
            }
        },
        Unchecked::Proposal { value, reply } => Some(match verify(&value) {
            Ok(value) => Done::Proposal { value, reply },
            Err(()) => {
                counters.malformed.bump();
                Done::BadProposal { reply }
            }
        }),
    }
}

fn read_all(queue: &Receiver<ObjectId>, disk: &Disk, done: &mpsc::Sender<Done>) {
    loop {
        let wanted = take(queue, READS_AT_ONCE);
        if wanted.is_empty() {
            return;
        }
        let records = disk.acceptors_now(&wanted);
        let failed = records.as_ref().err().cloned();
        if let Some(error) = &failed {
            tracing::debug!("reading records: {error}");
        }
        let mut records = records.unwrap_or_default().into_iter();
        for object in wanted {
            let record = match records.next() {
                Some(Some(bytes)) => read_record(&bytes).map(Some),
                Some(None) => Ok(None),
                None => Err(()),
            };
            if done.blocking_send(Done::Loaded { object, record }).is_err() {
                return;
            }
        }
    }
}
