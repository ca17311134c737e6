//! The ceiling of `commits`: nothing but the durable writer, in three processes on the disk of the nodes,
//! with records as large as theirs and 64 callers each. That of `small-puts`: the same with an object's
//! bodies before each record, and as many callers as there are puts at once.
//!
//! Each process says when it is ready, waits for a byte, and answers with its rate; so all three write at the
//! same time. A commit is durable on all three nodes, so the rate of one process is that of commits.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Effort, cluster::SMALL_BYTES, figure::median, local};
use crate::{
    disk::{Disk, DiskOptions, Home, WriteBatch},
    model::{ObjectId, OwnerKey, limits::SMALL_OBJECTS_AT_ONCE_MAX},
    seal::chunk,
};

/// How many wait for a write at a time, as many as there are clients in `commits`.
pub(super) const CALLERS: usize = 64;
/// Bytes of an acceptor record with a register of an object with a short name in it.
const RECORD_BYTES: usize = 900;
/// Bytes of the sealed manifest of an object of one chunk.
const MANIFEST_BYTES: usize = 800;
const PROCESSES: usize = 3;

/// What is written over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A record.
    Commit,
    /// A small object's chunk and manifest together, then its record.
    SmallPut,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::SmallPut => "put",
        }
    }

    fn callers(self) -> usize {
        match self {
            Self::Commit => CALLERS,
            Self::SmallPut => SMALL_OBJECTS_AT_ONCE_MAX,
        }
    }
}

/// Commits a second of three durable writers on the disk of `dir`, median of a few rounds.
pub(super) fn ceiling(dir: &Path, work: Work, effort: Effort) -> Result<f64> {
    let mut rates = Vec::new();
    for round in 0..effort.pick(1, 3) {
        let mut writers = Vec::new();
        for number in 0..PROCESSES {
            let home = dir.join(format!("writer-{}-{round}-{number}", work.name()));
            writers.push(Writer::start(&home, work, effort)?);
        }
        writers.iter_mut().try_for_each(Writer::wait_ready)?;
        writers.iter_mut().try_for_each(Writer::go)?;
        let each = writers.iter_mut().map(Writer::rate).collect::<Result<Vec<f64>>>()?;
        rates.push(each.iter().sum::<f64>() / PROCESSES as f64);
    }
    Ok(median(rates))
}

/// One process that writes. Dropping it ends it.
struct Writer {
    process: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Writer {
    fn start(home: &Path, work: Work, effort: Effort) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "--durable-writer"]).arg(home).args(effort.quick.then_some("--quick"));
        command.args((work == Work::SmallPut).then_some("--with-bodies"));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let answers = BufReader::new(process.stdout.take().context("its output is piped")?);
        Ok(Self { process, answers })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line)
    }

    fn wait_ready(&mut self) -> Result<()> {
        anyhow::ensure!(self.line()?.trim() == "ready", "a durable writer did not start");
        Ok(())
    }

    fn go(&mut self) -> Result<()> {
        Ok(self.process.stdin.take().context("it was told before")?.write_all(b"g")?)
    }

    fn rate(&mut self) -> Result<f64> {
        self.line()?.trim().parse().context("a durable writer said no rate")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It has ended by itself, or there is nothing to be had from it any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What each of the processes does.
pub(super) async fn serve(home: &Path, work: Work, effort: Effort) -> Result<()> {
    let home = Home::at(home);
    let opening = tokio::task::spawn_blocking(move || {
        home.create()?;
        Disk::open(&home, DiskOptions::default())
    });
    let (disk, _) = opening.await.context("opening a home")??;
    println!("ready");
    std::io::stdout().flush()?;
    let waiting = tokio::task::spawn_blocking(|| std::io::stdin().read_exact(&mut [0]));
    waiting.await.context("waiting")??;
    println!("{}", write_for(&disk, work, Duration::from_secs(effort.pick(2, 4) as u64)).await?);
    Ok(disk.stop().await?)
}

/// Writes a second, each record in a batch of its own, so many at once.
async fn write_for(disk: &Disk, work: Work, how_long: Duration) -> Result<f64> {
    let since = Instant::now();
    let callers = (0..work.callers()).map(|_| async {
        let mut count = 0u64;
        while since.elapsed() < how_long {
            if work == Work::SmallPut {
                let bodies = [local::noise(SMALL_BYTES), local::noise(MANIFEST_BYTES)];
                let stored = bodies.map(|body| disk.put_body(chunk::body_id(&body), body));
                futures::future::try_join_all(stored).await?;
            }
            let mut batch = WriteBatch::new();
            batch.record(ObjectId(rand::random()), Some(OwnerKey([7; 32])), vec![7; RECORD_BYTES]);
            disk.write(batch).await?;
            count += 1;
        }
        Ok::<u64, crate::disk::DiskError>(count)
    });
    let counts = futures::future::try_join_all(callers).await?;
    Ok(counts.iter().sum::<u64>() as f64 / since.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_counted_is_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.create().unwrap();
        let (disk, _) = Disk::open(&home, DiskOptions::default()).unwrap();
        assert!(write_for(&disk, Work::Commit, Duration::from_millis(50)).await.unwrap() > 0.0);
        let found = disk.scan_owner(OwnerKey([7; 32]), None, 1 << 20).await.unwrap();
        assert!(found.records.len() >= CALLERS);
        assert!(found.records.iter().all(|record| record.bytes.len() == RECORD_BYTES));
        assert!(write_for(&disk, Work::SmallPut, Duration::from_millis(50)).await.unwrap() > 0.0);
        assert!(disk.used_bytes().is_some_and(|used| used >= (SMALL_BYTES + MANIFEST_BYTES) as u64));
    }
}
