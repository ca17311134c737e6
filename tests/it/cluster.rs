//! A cluster of real processes for the tests: homes in a temporary folder, the real program, loopback only.
//!
//! Everything it starts ends with it. Nothing here waits for luck: every wait has a condition and a deadline.

#![allow(clippy::disallowed_methods)] // deadlines read the clock

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
pub use tintype::cli::demo::nodes::Nodes;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tintype");

/// Some nodes and a client's home.
pub struct Cluster {
    /// The nodes.
    pub nodes: Nodes,
    /// The client's home: the cluster key, later a user's key.
    pub client: PathBuf,
    dir: TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Answer {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Cluster {
    /// Homes of `count` nodes; nothing runs yet.
    pub fn prepare(count: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (nodes, client) = Nodes::prepare(Path::new(PROGRAM), dir.path(), count).expect("homes");
        Self { nodes, client, dir }
    }

    /// `count` nodes that serve.
    pub fn start(count: usize) -> Self {
        let mut cluster = Self::prepare(count);
        cluster.nodes.start_all().expect("all nodes become ready");
        cluster
    }

    /// The folder that holds the homes; free for the test's own files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file for the test, with these bytes.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, bytes).expect("written");
        path
    }

    /// A client's command line: this client's home, all nodes named.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(args).arg("--home").arg(&self.client);
        for addr in self.nodes.addresses() {
            command.args(["--node", &addr]);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs a client's command to its end.
    pub fn run(&self, args: &[&str]) -> Answer {
        finish(&mut self.command(args))
    }

    /// Runs a client's command that must succeed; its standard output.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let answer = self.run(args);
        assert_eq!(answer.code, Some(0), "{args:?}: {answer:?}");
        answer.stdout
    }

    /// Puts bytes under a name; they must be acknowledged.
    #[track_caller]
    pub fn put(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.file(&format!("in/{name}"), bytes);
        self.ok(&["put", path.to_str().expect("a plain path"), "--name", name])
    }

    /// Reads an object back; none if it is not there.
    #[track_caller]
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        let mut command = self.command(&["get", name, "-o", "-"]);
        let output = command.output().expect("the program runs");
        match output.status.code() {
            Some(0) => Some(output.stdout),
            Some(3) => None,
            other => panic!("get {name}: {other:?} {}", String::from_utf8_lossy(&output.stderr)),
        }
    }
}

impl Answer {
    /// What a program that was started then and has ended now has said.
    pub fn of(output: &Output, started: Instant) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: started.elapsed(),
        }
    }
}

/// Runs any command to its end.
pub fn finish(command: &mut Command) -> Answer {
    let started = Instant::now();
    let output = command.output().expect("the program runs");
    Answer::of(&output, started)
}

/// Runs a command to its end with this on its standard input.
pub fn run_with_stdin(mut command: Command, input: &[u8]) -> Answer {
    let started = Instant::now();
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.expect("the program starts");
    // It may have refused without reading.
    drop(child.stdin.take().expect("a pipe").write_all(input));
    let output = child.wait_with_output().expect("the program ends");
    Answer::of(&output, started)
}

/// It ended with this exit code and said all of this, on either output.
#[track_caller]
pub fn ends(answer: &Answer, code: i32, words: &[&str]) {
    assert_eq!(answer.code, Some(code), "{answer:?}");
    for word in words {
        assert!(answer.stdout.contains(word) || answer.stderr.contains(word), "no {word:?} in {answer:?}");
    }
}

/// Every line of standard output as JSON.
#[track_caller]
pub fn objects(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

/// The names in an object, in their order.
#[track_caller]
pub fn fields(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// Bytes that nothing compresses or takes for a picture, the same for a seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut reader = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    reader.fill(&mut bytes);
    if let Some(first) = bytes.first_mut() {
        *first = 0;
    }
    bytes
}

/// Waits until `condition` holds, asking often.
#[track_caller]
pub fn wait_for(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen within {patience:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
