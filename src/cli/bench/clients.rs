//! Client processes that begin at the same moment. It starts them, gives them the word, hears what they have
//! done, and ends them, also when its owner stops half way.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;

use super::load::{Done, GO, Load, READY};

/// How long the clients may take to make their pictures and to connect; a debug build is slow.
const READY_TIMEOUT: Duration = Duration::from_secs(180);
/// How long all of their work may take.
const WORK_TIMEOUT: Duration = Duration::from_secs(900);
/// A client says two lines in its life.
const LINES_PER_CLIENT: usize = 4;

/// Clients that are, or were, at work. Dropping it ends them.
pub(super) struct Clients {
    all: Vec<Client>,
    said: mpsc::Receiver<Said>,
}

struct Client {
    process: Child,
    orders: Option<ChildStdin>,
    log: PathBuf,
}

/// A line of a client; none when it says no more.
struct Said {
    client: usize,
    at: Instant,
    line: Option<String>,
}

/// What a client has done, and how long after the word its last picture was.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    /// What it said.
    pub(super) done: Done,
    /// From the word, which all were given at the same moment.
    pub(super) took: Duration,
}

/// Makes a client's home that has the cluster key of another home.
pub(super) fn make_home(home: &Path, like: &Path) -> Result<()> {
    std::fs::create_dir_all(home.join("keys"))?;
    std::fs::copy(like.join("keys/cluster.key"), home.join("keys/cluster.key"))?;
    Ok(())
}

impl Clients {
    /// Starts one for each (home, load) and waits until all are ready.
    pub(super) async fn start(loads: &[(PathBuf, Load)], nodes: &[String]) -> Result<Self> {
        let (tell, said) = mpsc::channel(LINES_PER_CLIENT * loads.len().max(1));
        let mut clients = Self { all: Vec::new(), said };
        for (home, load) in loads {
            clients.spawn(home, *load, nodes, tell.clone())?;
        }
        let ready = tokio::time::timeout(READY_TIMEOUT, clients.lines()).await;
        for (client, (_, line)) in ready.context("the clients did not become ready")??.iter().enumerate() {
            if line != READY {
                bail!("{}", clients.ended(client));
            }
        }
        Ok(clients)
    }

    fn spawn(&mut self, home: &Path, load: Load, nodes: &[String], tell: mpsc::Sender<Said>) -> Result<()> {
        let log = home.join("log.txt");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "--load", &serde_json::to_string(&load)?, "--home"]).arg(home);
        for node in nodes {
            command.args(["--node", node]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut process = command.spawn().context("starting a client")?;
        let (orders, stdout) = (process.stdin.take(), process.stdout.take());
        let client = self.all.len();
        self.all.push(Client { process, orders, log });
        let stdout = BufReader::new(stdout.context("a client's output is piped")?);
        std::thread::Builder::new().name("bench-client".into()).spawn(move || {
            let lines = stdout.lines().map_while(Result::ok).map(Some);
            for line in lines.chain([None]) {
                if tell.blocking_send(Said { client, at: Instant::now(), line }).is_err() {
                    break;
                }
            }
        })?;
        Ok(())
    }

    /// The process ids, in the order of the loads.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.all.iter().map(|client| client.process.id()).collect()
    }

    /// Gives all the word and waits until each has said what it has done, in the order of the loads. They
    /// live on.
    pub(super) async fn work(&mut self) -> Result<Vec<Finished>> {
        let began = Instant::now();
        for client in &mut self.all {
            client.orders.as_mut().context("a client was ended")?.write_all(GO)?;
        }
        let lines = tokio::time::timeout(WORK_TIMEOUT, self.lines()).await;
        let mut all = Vec::new();
        for (at, line) in lines.context("the clients did not end their work")?? {
            let done = serde_json::from_str(&line).context("a client said something else")?;
            all.push(Finished { done, took: at.duration_since(began) });
        }
        Ok(all)
    }

    /// The next line of each, and when it came.
    async fn lines(&mut self) -> Result<Vec<(Instant, String)>> {
        let mut lines: Vec<Option<(Instant, String)>> = vec![None; self.all.len()];
        while lines.iter().any(Option::is_none) {
            let said = self.said.recv().await.context("the clients say nothing more")?;
            match said.line {
                Some(line) => lines[said.client] = Some((said.at, line)),
                None => bail!("{}", self.ended(said.client)),
            }
        }
        Ok(lines.into_iter().flatten().collect())
    }

    fn ended(&self, client: usize) -> String {
        let log = std::fs::read_to_string(&self.all[client].log).unwrap_or_default();
        format!("a client ended too early; it says: {}", log.trim())
    }

    /// Lets them end by themselves, and waits until they have.
    pub(super) async fn end(mut self) -> Result<()> {
        self.all.iter_mut().for_each(|client| drop(client.orders.take()));
        let mut left = self.all.len();
        while left > 0 {
            let said = tokio::time::timeout(READY_TIMEOUT, self.said.recv()).await;
            let said = said.context("the clients did not end")?.context("the clients say nothing more")?;
            left -= usize::from(said.line.is_none());
        }
        Ok(())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for client in &mut self.all {
            // It has ended by itself, or there is nothing to be had from it any more.
            let _ = client.process.kill();
            let _ = client.process.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_home_has_the_cluster_key_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (like, home) = (dir.path().join("like"), dir.path().join("clients/1"));
        std::fs::create_dir_all(like.join("keys/users")).unwrap();
        std::fs::write(like.join("keys/cluster.key"), b"key").unwrap();
        make_home(&home, &like).unwrap();
        assert_eq!(std::fs::read(home.join("keys/cluster.key")).unwrap(), b"key");
        assert_eq!(std::fs::read_dir(home.join("keys")).unwrap().count(), 1);
    }
}
