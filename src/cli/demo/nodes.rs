//! Real node processes on loopback, each with a home in one folder: the demo's three, and those of the tests.
//!
//! Everything started here is ended here, by its own process id, also when its owner stops half way.

use std::{
    io::{BufRead, BufReader},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How long a node may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// One node process and where it lives.
pub struct Node {
    /// Its display name.
    pub name: String,
    /// Its home.
    pub home: PathBuf,
    /// `host:port`, the same over restarts.
    pub addr: String,
    /// Its identity, as it printed it.
    pub peer: String,
    /// More arguments for `up`.
    pub args: Vec<String>,
    /// More environment for it.
    pub envs: Vec<(String, String)>,
    child: Option<Child>,
}

/// Several nodes of one cluster.
pub struct Nodes {
    program: PathBuf,
    /// How many found the cluster: `--expect` of those that are started from now on.
    pub expect: usize,
    /// The nodes, in the order of their names.
    pub all: Vec<Node>,
}

/// What a node that was started says on standard output, line by line, until it ends.
pub type Lines = mpsc::Receiver<String>;

impl Nodes {
    /// Makes `count` homes under `dir` that share one cluster key, and one more for a client. `program` is
    /// this program's own path.
    ///
    /// # Errors
    /// A folder or file that cannot be made.
    pub fn prepare(program: &Path, dir: &Path, count: usize) -> Result<(Self, PathBuf)> {
        let client = dir.join("client");
        run_to_end(Command::new(program).args(["init", "--quiet", "--home"]).arg(&client))?;
        let mut nodes = Self { program: program.to_path_buf(), expect: count, all: Vec::new() };
        for _ in 0..count {
            nodes.add(dir, &client.join("keys/cluster.key"))?;
        }
        Ok((nodes, client))
    }

    /// Makes one more home that has the cluster key.
    ///
    /// # Errors
    /// A folder or file that cannot be made.
    pub fn add(&mut self, dir: &Path, cluster_key: &Path) -> Result<()> {
        let name = format!("node-{}", self.all.len() + 1);
        let home = dir.join(&name);
        std::fs::create_dir_all(home.join("keys"))?;
        std::fs::copy(cluster_key, home.join("keys/cluster.key"))?;
        let addr = format!("127.0.0.1:{}", free_port()?);
        self.all.push(Node {
            name,
            home,
            addr,
            peer: String::new(),
            args: vec![],
            envs: vec![],
            child: None,
        });
        Ok(())
    }

    /// Starts all and waits until each serves; the answer is the time from the last start on.
    ///
    /// # Errors
    /// A node that does not become ready in time.
    pub fn start_all(&mut self) -> Result<Duration> {
        let mut waiting = Vec::new();
        for index in 0..self.all.len() {
            waiting.push(self.spawn(index)?);
        }
        let started = Instant::now();
        for (index, lines) in waiting.into_iter().enumerate() {
            self.wait_ready(index, &lines)?;
        }
        Ok(started.elapsed())
    }

    /// Starts one again and waits until it serves.
    ///
    /// # Errors
    /// If it does not become ready in time.
    pub fn restart(&mut self, index: usize) -> Result<()> {
        let lines = self.spawn(index)?;
        self.wait_ready(index, &lines)
    }

    /// The process id of one that runs.
    pub fn pid(&self, index: usize) -> Option<u32> {
        self.all[index].child.as_ref().map(Child::id)
    }

    /// The most memory that one's process had so far, in bytes; none if it does not run, or where the system
    /// does not say.
    pub fn memory_peak_bytes(&self, index: usize) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid(index)?)).ok()?;
        memory_peak_bytes(&status)
    }

    /// Waits until one has ended by itself; none if it does not in time.
    pub fn wait_for_end(&mut self, index: usize, patience: Duration) -> Option<std::process::ExitStatus> {
        let deadline = Instant::now() + patience;
        let child = self.all[index].child.as_mut()?;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = child.try_wait() {
                self.all[index].child = None;
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// What one wrote on standard error so far, over all its starts.
    pub fn log(&self, index: usize) -> String {
        std::fs::read_to_string(self.all[index].home.join("log.txt")).unwrap_or_default()
    }

    /// Kills one without warning (SIGKILL).
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self, index: usize) -> Result<()> {
        if let Some(mut child) = self.all[index].child.take() {
            child.kill().context("killing a node")?;
            child.wait()?;
        }
        Ok(())
    }

    /// Addresses of all, for `--node`.
    pub fn addresses(&self) -> Vec<String> {
        self.all.iter().map(|n| n.addr.clone()).collect()
    }

    /// Starts one and does not wait.
    ///
    /// # Errors
    /// If it cannot be started at all.
    pub fn spawn(&mut self, index: usize) -> Result<Lines> {
        let others: Vec<String> =
            self.all.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, n)| n.addr.clone()).collect();
        let node = &mut self.all[index];
        let log = std::fs::File::options().create(true).append(true).open(node.home.join("log.txt"))?;
        let mut command = Command::new(&self.program);
        let expect = self.expect.to_string();
        command.args(["up", "--no-mdns", "--expect", &expect, "--name", &node.name, "--listen", &node.addr]);
        command.args(&node.args).envs(node.envs.iter().cloned());
        for other in &others {
            command.args(["--bootstrap", other]);
        }
        command.arg("--home").arg(&node.home);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .spawn()
            .with_context(|| format!("starting {}", node.name))?;
        let stdout = child.stdout.take().context("the node's standard output")?;
        node.child = Some(child);
        let (sender, lines) = mpsc::sync_channel(64);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(lines)
    }

    /// Waits until one serves.
    ///
    /// # Errors
    /// With its log, if it does not in time.
    pub fn wait_ready(&mut self, index: usize, lines: &Lines) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = lines.recv_timeout(left) else {
                bail!("{} did not become ready; its log says:\n{}", self.all[index].name, self.log(index));
            };
            if let Some(rest) = line.strip_prefix("listening peer=") {
                self.all[index].peer = rest.split(' ').next().unwrap_or_default().to_owned();
            }
            if line.starts_with("ready ") {
                return Ok(());
            }
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in &mut self.all {
            if let Some(mut child) = node.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

fn run_to_end(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().context("running this program")?;
    if !output.status.success() {
        bail!("`init` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The peak that Linux tells of a process, in its words: see proc_pid_status(5).
fn memory_peak_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// A UDP port that is free now. Somebody else may take it before the node does; then the node says so.
fn free_port() -> Result<u16> {
    Ok(UdpSocket::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_found_among_what_linux_tells() {
        let status = "Name:\ttintype\nVmPeak:\t  90000 kB\nVmHWM:\t   19112 kB\nVmRSS:\t   18000 kB\n";
        assert_eq!(memory_peak_bytes(status), Some(19112 << 10));
        assert_eq!(memory_peak_bytes("VmRSS:\t 1 kB\n"), None);
        assert_eq!(memory_peak_bytes("VmHWM:\t many kB\n"), None);
    }
}
