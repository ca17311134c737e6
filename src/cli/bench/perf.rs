//! Linux' `perf`, which looks many times a second in which function some processes are.
//!
//! It is told when to begin and when to end, so that nothing but what is measured is counted. It is ended
//! with its owner.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;

/// Samples a second of processor time: not in step with timers that go by round numbers.
pub(super) const SAMPLES_PER_S: f64 = 499.0;
/// How long it may take to obey.
const PATIENCE: Duration = Duration::from_secs(20);

/// A recording that may run. Dropping it ends it.
pub(super) struct Perf {
    process: Child,
    orders: Option<ChildStdin>,
    answers: mpsc::Receiver<()>,
    data: PathBuf,
}

/// One look: which process, and in which function of which object file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) pid: u32,
    pub(super) symbol: String,
    pub(super) object: String,
}

/// What was recorded.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorded {
    pub(super) samples: Vec<Sample>,
    /// Reports of perf that it has lost samples.
    pub(super) losses: usize,
    /// Lines that nobody understood.
    pub(super) unread: usize,
}

impl Perf {
    /// Prepares to look at these processes; it does not look yet.
    ///
    /// # Errors
    /// A sentence with its remedy: there is no perf, or it may not look.
    pub(super) async fn prepare(dir: &Path, pids: &[u32]) -> Result<Self> {
        let data = dir.join("perf.data");
        let log = dir.join("perf.log");
        let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
        let mut command = Command::new("perf");
        command.args(["record", "-D", "-1", "--control=fd:0,1", "-e", "cpu-clock", "-F"]);
        command.arg(SAMPLES_PER_S.to_string()).args(["-p", &pids.join(","), "-o"]).arg(&data);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let Ok(mut process) = command.spawn() else {
            bail!("there is no `perf` here; it says more by function: install it (Debian: linux-perf)");
        };
        let (orders, stdout) = (process.stdin.take(), process.stdout.take().context("it is piped")?);
        let (tell, answers) = mpsc::channel(4);
        let mut perf = Self { process, orders, answers, data };
        std::thread::Builder::new().name("bench-perf".into()).spawn(move || {
            for _ in BufReader::new(stdout).lines().map_while(Result::ok) {
                if tell.blocking_send(()).is_err() {
                    break;
                }
            }
        })?;
        // It answers once it has found the processes.
        if perf.order("disable").await.is_err() {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let said = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it says nothing");
            bail!("`perf` cannot look ({said}): run this as root, or `sysctl kernel.perf_event_paranoid=1`");
        }
        Ok(perf)
    }

    /// Looks from now on.
    pub(super) async fn begin(&mut self) -> Result<()> {
        self.order("enable").await
    }

    /// Looks no more; the answer is what was seen.
    pub(super) async fn end(mut self) -> Result<Recorded> {
        self.order("disable").await?;
        self.order("stop").await?;
        drop(self.orders.take());
        let data = self.data.clone();
        let reading = tokio::task::spawn_blocking(move || {
            // It writes the rest down before it ends.
            self.process.wait()?;
            read(&data)
        });
        reading.await.context("reading the samples")?
    }

    async fn order(&mut self, word: &str) -> Result<()> {
        let orders = self.orders.as_mut().context("it was ended")?;
        orders.write_all(format!("{word}\n").as_bytes())?;
        let answer = tokio::time::timeout(PATIENCE, self.answers.recv()).await;
        answer.context("perf does not answer")?.context("perf has ended")
    }
}

impl Drop for Perf {
    fn drop(&mut self) {
        // It has ended by itself, or nobody wants to know any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read(data: &Path) -> Result<Recorded> {
    let mut command = Command::new("perf");
    command.args(["script", "--no-inline", "--show-lost-events", "-F", "pid,ip,sym,dso", "-i"]).arg(data);
    let output = command.stdin(Stdio::null()).output().context("running perf")?;
    if !output.status.success() {
        bail!("perf cannot read what it wrote: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

fn parse(text: &str) -> Recorded {
    let mut recorded = Recorded::default();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match sample(line) {
            Some(sample) => recorded.samples.push(sample),
            None if line.contains("PERF_RECORD_LOST") => recorded.losses += 1,
            None => recorded.unread += 1,
        }
    }
    recorded
}

/// `  3802  ffffffff82203877 _raw_spin_lock ([kernel.kallsyms])`. A function's name may have blanks in it.
fn sample(line: &str) -> Option<Sample> {
    let (pid, rest) = line.trim_start().split_once(' ')?;
    let (address, rest) = rest.trim_start().split_once(' ')?;
    u64::from_str_radix(address, 16).ok()?;
    let (symbol, object) = rest.trim_end().strip_suffix(')')?.rsplit_once(" (")?;
    Some(Sample { pid: pid.parse().ok()?, symbol: symbol.trim().into(), object: object.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_perf_are_understood() {
        let text = concat!(
            "  3802  ffffffff82203877 _raw_spin_lock ([kernel.kallsyms])\n",
            "12128      55e99a11a670 <tokio::time::sleep::Sleep as core::future::future::Future>::poll ",
            "(/opt/my tools/tintype)\n",
            "\n",
            "  7      7f238cf2c350 [unknown] ([unknown])\n",
            "tintype 12 [001] 1.0: PERF_RECORD_LOST lost 5\n",
            "what is this\n",
        );
        let recorded = parse(text);
        let of =
            |pid, symbol: &str, object: &str| Sample { pid, symbol: symbol.into(), object: object.into() };
        let expected = [
            of(3802, "_raw_spin_lock", "[kernel.kallsyms]"),
            of(
                12128,
                "<tokio::time::sleep::Sleep as core::future::future::Future>::poll",
                "/opt/my tools/tintype",
            ),
            of(7, "[unknown]", "[unknown]"),
        ];
        assert_eq!(recorded.samples, expected);
        assert_eq!((recorded.losses, recorded.unread), (1, 1));
    }
}
