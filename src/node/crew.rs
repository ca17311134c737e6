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

/// Jobs taken at a time by one thread: few, so that the others get some too.
const JOBS_AT_ONCE: usize = 8;

/// One piece of work. Both kinds wait in one queue, so that what comes together costs one wake-up.
enum Job {
    Read(ObjectId),
    Check(Unchecked),
}

/// Something with a register that nobody has checked.
pub(super) enum Unchecked {
    /// A member's message.
    Message { from: PeerId, message: Message<RawRegister> },
    /// A client's proposal.
    Proposal { value: RawRegister, reply: Reply },
}

/// The threads. Dropping it ends them.
pub(super) struct Crew {
    jobs: Option<SyncSender<Job>>,
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
        let (jobs, todo) = sync_channel(limits::NODE_TASKS_MAX);
        let todo = Arc::new(Mutex::new(todo));
        let mut threads = Vec::new();
        for _ in 0..size() {
            let hand = Hand {
                todo: Arc::clone(&todo),
                disk: disk.clone(),
                counters: Arc::clone(counters),
                done: done.clone(),
            };
            threads.push(std::thread::Builder::new().name("check".into()).spawn(move || hand.run())?);
        }
        Ok(Self { jobs: Some(jobs), threads })
    }

    /// Queues a check; what there is no room for comes back.
    pub(super) fn check(&self, unchecked: Unchecked) -> Option<Unchecked> {
        match self.queue(Job::Check(unchecked)) {
            Some(Job::Check(back)) => Some(back),
            _ => None,
        }
    }

    /// Queues the reading of a record. False if there is no room.
    pub(super) fn read(&self, object: ObjectId) -> bool {
        self.queue(Job::Read(object)).is_none()
    }

    fn queue(&self, job: Job) -> Option<Job> {
        match self.jobs.as_ref().expect("only dropping takes it").try_send(job) {
            Ok(()) => None,
            Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => Some(back),
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A panic there has been reported by the hook already.
            let _ = thread.join();
        }
    }
}

fn size() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(limits::DISK_JOBS_MAX)
}

/// What one thread has to work with.
struct Hand {
    todo: Arc<Mutex<Receiver<Job>>>,
    disk: Disk,
    counters: Arc<NodeCounters>,
    done: mpsc::Sender<Done>,
}

/// The loop has ended.
struct Ended;

impl Hand {
    fn run(self) {
        while let Some(jobs) = self.take() {
            if self.work(jobs).is_err() {
                return;
            }
        }
    }

    /// Waits for one and takes what waits behind it, so many at most; none at the end.
    fn take(&self) -> Option<Vec<Job>> {
        // Whoever waits for the lock would only wait for the same queue.
        let todo = self.todo.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = vec![todo.recv().ok()?];
        taken.extend(todo.try_iter().take(JOBS_AT_ONCE - 1));
        Some(taken)
    }

    /// Reads first: they are quick, and all in one snapshot.
    fn work(&self, jobs: Vec<Job>) -> Result<(), Ended> {
        let (mut wanted, mut unchecked) = (Vec::new(), Vec::new());
        for job in jobs {
            match job {
                Job::Read(object) => wanted.push(object),
                Job::Check(one) => unchecked.push(one),
            }
        }
        if !wanted.is_empty() {
            self.read(wanted)?;
        }
        unchecked
            .into_iter()
            .filter_map(|one| check(one, &self.counters))
            .try_for_each(|done| self.tell(done))
    }

    fn tell(&self, done: Done) -> Result<(), Ended> {
        self.done.blocking_send(done).map_err(|_| Ended)
    }

    /// All in one snapshot.
    fn read(&self, wanted: Vec<ObjectId>) -> Result<(), Ended> {
        let records = self.disk.acceptors_now(&wanted);
        if let Err(error) = &records {
            tracing::debug!("reading records: {error}");
        }
        let mut records = records.unwrap_or_default().into_iter();
        wanted.into_iter().try_for_each(|object| {
            let record = match records.next() {
                Some(Some(bytes)) => read_record(&bytes).map(Some),
                Some(None) => Ok(None),
                None => Err(()),
            };
            self.tell(Done::Loaded { object, record })
        })
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
