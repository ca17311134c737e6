//! Blocking work off the async threads: so many at once, so many waiting, then `Busy`.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Semaphore;

use super::DiskError;

/// A bounded set of blocking threads of one kind.
pub(super) struct Jobs {
    permits: Arc<Semaphore>,
    at_once: usize,
    waiting: AtomicUsize,
    waiting_max: usize,
}

/// One who waits; leaves the count also when its future is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Jobs {
    pub(super) fn new(at_once: usize, waiting_max: usize) -> Self {
        let permits = Arc::new(Semaphore::new(at_once));
        Self { permits, at_once, waiting: AtomicUsize::new(0), waiting_max }
    }

    /// Runs `work` on a blocking thread. A caller that goes away leaves work that has begun running.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, DiskError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, DiskError> + Send + 'static,
    {
        let permit = {
            let waiting = self.waiting.fetch_add(1, Ordering::SeqCst);
            let _waiting = Waiting(&self.waiting);
            if waiting >= self.waiting_max + self.at_once {
                return Err(DiskError::Busy);
            }
            self.permits.clone().acquire_owned().await.map_err(|_| DiskError::Closed)?
        };
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        match task.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(DiskError::Closed),
        }
    }

    /// Takes no more, and waits for what runs.
    pub(super) async fn close(&self) {
        let count = u32::try_from(self.at_once).expect("a handful of threads");
        if let Ok(all) = self.permits.acquire_many(count).await {
            self.permits.close();
            drop(all);
        }
    }
}
