//! The demo's load: uploads generated pictures, kills a node half way, reads everything back byte for byte.
//!
//! It measures what a person waits for, and the longest time in which nothing was acknowledged while work was
//! pending.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::pictures::Picture;
use crate::api::{Get, Problem, Progress, Put, PutDone, Source, Vault};

/// What became of one picture.
pub struct Upload {
    /// The picture.
    pub picture: Picture,
    /// Its PNG's size.
    pub bytes: u64,
    /// How long its put took.
    pub took: Duration,
    /// The answer, or why it failed.
    pub result: Result<PutDone, Problem>,
}

/// Watches for stalls: the longest time without an acknowledged byte or commit while work is pending.
pub struct StallWatch {
    start: Instant,
    last_ms: AtomicU64,
    longest_ms: AtomicU64,
}

impl StallWatch {
    /// Starts watching: work is pending from now on.
    pub fn start() -> Self {
        Self { start: Instant::now(), last_ms: AtomicU64::new(0), longest_ms: AtomicU64::new(0) }
    }

    /// Something was acknowledged.
    pub fn progress(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.last_ms.swap(now, Ordering::Relaxed);
        self.longest_ms.fetch_max(now.saturating_sub(last), Ordering::Relaxed);
    }

    /// The longest stall so far, in milliseconds.
    pub fn longest_ms(&self) -> u64 {
        self.longest_ms.load(Ordering::Relaxed)
    }
}

/// Makes one picture on a thread of its own.
///
/// # Panics
/// If the generator does, which is a bug.
pub async fn make(picture: Picture) -> Arc<[u8]> {
    tokio::task::spawn_blocking(move || Arc::from(picture.png())).await.expect("the generator does not panic")
}

/// Uploads one picture.
pub async fn upload(
    vault: &Vault,
    picture: Picture,
    bytes: Arc<[u8]>,
    watch: &StallWatch,
    on_bytes: &(dyn Fn(u64) + Send + Sync),
) -> Upload {
    let total = bytes.len() as u64;
    let put = Put {
        source: Source::Memory(bytes),
        name: picture.name(),
        force: false,
        if_version: None,
        copies: 3,
        thumbnail: false,
    };
    let seen = AtomicU64::new(0);
    let started = Instant::now();
    let result = vault
        .put(put, &|progress: Progress| {
            let before = seen.swap(progress.bytes_done, Ordering::Relaxed);
            if progress.bytes_done > before {
                watch.progress();
                on_bytes(progress.bytes_done - before);
            }
        })
        .await;
    watch.progress();
    Upload { picture, bytes: total, took: started.elapsed(), result }
}

/// Reads one picture back and compares every byte with a fresh one from the generator.
///
/// # Errors
/// A sentence that says what is wrong.
pub async fn read_back(vault: &Vault, picture: Picture) -> Result<u64, String> {
    let wanted = make(picture).await;
    let mut compare = Compare { wanted: &wanted, at: 0, differs: None };
    let get = Get { name: picture.name(), version: None, any: false };
    let done = vault
        .get_to_writer(get, &mut compare, &|_| ())
        .await
        .map_err(|p| format!("{}: {}", picture.name(), p.error))?;
    if let Some(at) = compare.differs {
        return Err(format!("{} differs from byte {at} on", picture.name()));
    }
    if compare.at != wanted.len() {
        return Err(format!("{} has {} bytes instead of {}", picture.name(), compare.at, wanted.len()));
    }
    Ok(done.bytes)
}

/// A writer that compares instead of writing.
struct Compare<'a> {
    wanted: &'a [u8],
    at: usize,
    differs: Option<usize>,
}

impl Write for Compare<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wanted = self.wanted.get(self.at..self.at + bytes.len());
        if wanted != Some(bytes) && self.differs.is_none() {
            self.differs = Some(self.at);
        }
        self.at += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparing_finds_a_changed_a_missing_and_a_surplus_byte() {
        let mut same = Compare { wanted: b"abcd", at: 0, differs: None };
        same.write_all(b"ab").unwrap();
        same.write_all(b"cd").unwrap();
        assert_eq!((same.differs, same.at), (None, 4));
        let mut changed = Compare { wanted: b"abcd", at: 0, differs: None };
        changed.write_all(b"abXd").unwrap();
        assert_eq!(changed.differs, Some(0));
        let mut surplus = Compare { wanted: b"abcd", at: 0, differs: None };
        surplus.write_all(b"abcde").unwrap();
        assert_eq!(surplus.differs, Some(0));
    }

    #[test]
    fn a_stall_is_the_longest_time_between_two_steps() {
        let watch = StallWatch::start();
        watch.progress();
        let first = watch.longest_ms();
        watch.progress();
        assert!(watch.longest_ms() >= first);
    }
}
