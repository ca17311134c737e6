//! The README is run: its commands are parsed, its stories are told again by real nodes on loopback, and what
//! it shows is compared with what the program says, but for ids, times, sizes, addresses and paths.
//!
//! It is read when the test runs. Nothing here knows a command or an answer of its own.

#![allow(clippy::disallowed_methods)] // a test of a deadline reads the clock

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use clap::Parser;
use tempfile::TempDir;
use tintype::cli::args::Cli;

use crate::cluster::{PROGRAM, noise, wait_for};

/// How long a node may take until it has said what the README shows.
const PATIENCE: Duration = Duration::from_secs(30);
/// How a block says that there is more which it does not show.
const MORE: &str = "…";

/// One command of a block, and what the README shows after it.
#[derive(Clone, Debug)]
struct Step {
    /// The machine before the prompt; empty where there is one only.
    machine: String,
    command: String,
    shown: Vec<String>,
}

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    fs::read_to_string(path).expect("the README is there")
}

/// The steps of the console blocks below a heading, or of all of them.
fn steps(heading: Option<&str>) -> Vec<Step> {
    let text = readme();
    let mut steps: Vec<Step> = Vec::new();
    let (mut in_block, mut wanted) = (false, heading.is_none());
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = line == "```console";
        } else if let (false, Some(title), Some(heading)) = (in_block, line.strip_prefix("## "), heading) {
            wanted = title == heading;
        } else if !in_block || !wanted {
        } else if let Some((machine, command)) = prompt(line) {
            steps.push(Step { machine: machine.into(), command: command.into(), shown: vec![] });
        } else {
            steps.last_mut().expect("a block begins with a command").shown.push(line.to_owned());
        }
    }
    assert!(!steps.is_empty(), "no commands below {heading:?}");
    steps
}

/// `attic$ tintype up`; `# pull the plug of attic` is a step, too.
fn prompt(line: &str) -> Option<(&str, &str)> {
    if let Some(machine) = line.strip_prefix("# pull the plug of ") {
        return Some((machine, "# pull the plug"));
    }
    let (machine, command) = line.split_once("$ ")?;
    machine.chars().all(|c| c.is_ascii_lowercase()).then_some((machine, command))
}

/// A command of the program as its words; none for another program.
fn words(command: &str) -> Option<Vec<String>> {
    let rest = command
        .strip_prefix("cargo run --release -- ")
        .or_else(|| command.strip_prefix("tintype ").or((command == "tintype").then_some("")))?;
    assert!(!rest.contains(['"', '\'', '|', '>']), "the test does not know a shell's words: {command}");
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

#[track_caller]
fn parses(command: &str, words: Vec<String>) {
    let line = std::iter::once("tintype".to_owned()).chain(words);
    if let Err(error) = Cli::try_parse_from(line) {
        panic!("the README says `{command}`: {error}");
    }
}

/// What stands in backquotes and is a command of the program, outside the blocks.
fn quoted() -> Vec<String> {
    let text = readme();
    let prose: String = text.split("```").step_by(2).collect();
    prose.split('`').skip(1).step_by(2).filter(|c| words(c).is_some()).map(str::to_owned).collect()
}

#[test]
fn every_command_of_the_readme_is_one() {
    let mut commands = 0;
    let stand_ins = [(" COMMAND", " put"), (" N", " 3"), ("HOST:PORT", "127.0.0.1:4117"), ("SIZE", "5GB")];
    for command in steps(None).into_iter().map(|s| s.command).chain(quoted()) {
        let plain = stand_ins
            .iter()
            .fold(command.clone(), |c, (from, to)| if c.ends_with(from) { c.replace(from, to) } else { c });
        let Some(words) = words(&plain) else { continue };
        commands += 1;
        if !words.iter().any(|word| word == "--help") {
            parses(&command, words);
        }
    }
    assert!(commands > 50, "only {commands} commands were found");
}

/// The flags that the table names belong to the commands of their rows.
#[test]
fn every_flag_of_the_table_exists() {
    let text = readme();
    let mut flags = 0;
    for row in text.lines().filter(|line| line.starts_with("| `tintype ")) {
        let mut spans = row.split('`').skip(1).step_by(2);
        let command = words(spans.next().expect("a command")).expect("a command of ours");
        let verbs: Vec<&String> =
            command.iter().take_while(|w| w.chars().all(|c| c.is_ascii_lowercase())).collect();
        let help = Command::new(PROGRAM).args(&verbs).arg("--help").output().expect("the program starts");
        assert!(help.status.success(), "{row}");
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        for flag in
            spans.chain(command.iter().map(String::as_str)).filter(|s| s.starts_with('-') && *s != "-")
        {
            let flag = flag.split_whitespace().next().expect("a word");
            let known = help.split([' ', ',', '\n']).any(|word| word == flag);
            assert!(known, "the README gives `{}` a flag {flag}:\n{help}", verbs[0]);
            flags += 1;
        }
    }
    assert!(flags > 25, "only {flags} flags were found");
}

/// Machines of one story: a home each, all on loopback, and one folder of pictures.
struct Machines {
    dir: TempDir,
    ports: BTreeMap<String, u16>,
    nodes: BTreeMap<String, Child>,
}

impl Machines {
    fn new(names: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let pictures = dir.path().join("pictures");
        fs::create_dir_all(pictures.join("trip")).expect("made");
        for (seed, name, width) in
            [(1, "photo.png", 1000), (2, "trip/beach.png", 400), (3, "trip/hills.png", 500)]
        {
            let height = if width == 1000 { 1000 } else { 300 };
            let picture =
                image::RgbImage::from_raw(width, height, noise(seed, (width * height * 3) as usize));
            picture.expect("so many bytes").save(pictures.join(name)).expect("written");
        }
        let ports = names.iter().map(|name| ((*name).to_owned(), free_port())).collect();
        Self { dir, ports, nodes: BTreeMap::new() }
    }

    fn home(&self, machine: &str) -> PathBuf {
        self.dir.path().join(machine)
    }

    /// The program on one machine, with nothing of the tester's environment, and loopback for a network.
    fn command(&self, machine: &str, words: &[String]) -> Command {
        let mut command = Command::new(PROGRAM);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TINTYPE_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        let others: Vec<String> = self.ports.values().map(|port| format!("127.0.0.1:{port}")).collect();
        command
            .args(words)
            .current_dir(self.dir.path().join("pictures"))
            .env("TINTYPE_HOME", self.home(machine))
            .env("TINTYPE_NODE_NAME", machine)
            .env("TINTYPE_NODE_LISTEN", "127.0.0.1")
            .env("TINTYPE_NODE_PORT", self.ports[machine].to_string())
            .env("TINTYPE_NETWORK_MDNS", "false")
            .env("TINTYPE_NETWORK_BOOTSTRAP", others.join(","))
            .env("TINTYPE_LOG_LEVEL", "error")
            .env("USER", "anna")
            .env("LOGNAME", "anna")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Starts a node; what it says goes to a file.
    fn up(&mut self, machine: &str, words: &[String]) {
        let (out, err) = (self.log(machine), self.log(machine));
        let child = self.command(machine, words).stdout(out).stderr(err).spawn().expect("the program starts");
        self.nodes.insert(machine.to_owned(), child);
    }

    fn log(&self, machine: &str) -> File {
        let path = self.log_path(machine);
        File::options().create(true).append(true).open(path).expect("a log")
    }

    fn log_path(&self, machine: &str) -> PathBuf {
        self.dir.path().join(format!("{machine}.log"))
    }

    /// Both streams of a command that must succeed.
    fn run(&self, machine: &str, words: &[String]) -> String {
        let output = self.command(machine, words).output().expect("the program starts");
        let said = [output.stderr, output.stdout].concat();
        let said = String::from_utf8(said).expect("UTF-8");
        assert!(output.status.success(), "{words:?}: {said}");
        said
    }

    fn pull_the_plug(&mut self, machine: &str) {
        let mut node = self.nodes.remove(machine).expect("it runs");
        node.kill().expect("killed");
        node.wait().expect("ended");
    }

    /// The machine whose node is not started yet gets the first one's cluster key.
    fn copy_key(&self, command: &str) {
        let target = command.rsplit_once(' ').expect("scp FROM TO").1;
        let (machine, path) = target.split_once(':').expect("MACHINE:PATH");
        assert!(command.contains("/keys/cluster.key ") && path.ends_with("/keys/"), "{command}");
        let keys = self.home(machine).join("keys");
        fs::create_dir_all(&keys).expect("made");
        fs::copy(self.home("desk").join("keys/cluster.key"), keys.join("cluster.key")).expect("copied");
    }

    /// What is said, comparable: nothing in it differs from run to run.
    fn plain(&self, machine: &str, said: &str) -> Vec<String> {
        let root = self.dir.path().to_str().expect("a plain path");
        let said = said
            .replace(self.home(machine).to_str().expect("a plain path"), "/home/anna/.local/share/tintype")
            .replace(root, "/home/anna");
        comparable(said.lines())
    }

    /// Tells a story; the differences between the README and the program, all at once.
    fn tell(&mut self, steps: &[Step]) -> Vec<String> {
        let mut differences = Vec::new();
        let mut ups: Vec<&Step> = Vec::new();
        for step in steps {
            let machine = if step.machine.is_empty() { "desk" } else { step.machine.as_str() };
            match words(&step.command) {
                Some(words) if words[0] == "up" => {
                    self.up(machine, &words);
                    ups.push(step);
                    continue;
                }
                Some(words) => {
                    // What several machines say as they start is complete once the last has been started.
                    for up in ups.drain(..) {
                        self.wait_for_shown(up);
                    }
                    let mut said = self.run(machine, &words);
                    let mut difference = differs(step, &self.plain(machine, &said), &said);
                    // What `status` says is only true once the silence of a node has been noticed.
                    let deadline = Instant::now() + PATIENCE;
                    while words[0] == "status" && difference.is_some() && Instant::now() < deadline {
                        said = self.run(machine, &words);
                        difference = differs(step, &self.plain(machine, &said), &said);
                    }
                    differences.extend(difference);
                }
                None if step.command == "# pull the plug" => self.pull_the_plug(machine),
                None if step.command.starts_with("scp ") => self.copy_key(&step.command),
                None if step.command.starts_with("cmp ") => self.same_files(&step.command),
                None => assert!(
                    ["mkdir ", "sudo "].iter().any(|word| step.command.starts_with(word)),
                    "the test does not know how to run `{}`",
                    step.command
                ),
            }
        }
        differences
    }

    fn same_files(&self, command: &str) {
        let file = |name: &str| fs::read(self.dir.path().join("pictures").join(name)).expect("read");
        let names: Vec<&str> = command.split_whitespace().skip(1).collect();
        assert!(file(names[0]) == file(names[1]), "{command}");
    }

    fn wait_for_shown(&self, up: &Step) {
        let machine = if up.machine.is_empty() { "desk" } else { up.machine.as_str() };
        let said = || fs::read_to_string(self.log_path(machine)).expect("a log");
        let mut last = None;
        let shown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for("what the README shows", PATIENCE, || {
                last = differs(up, &self.plain(machine, &said()), &said());
                last.is_none()
            });
        }));
        assert!(shown.is_ok(), "{}", last.unwrap_or_default());
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for node in self.nodes.values_mut() {
            // It may have ended by itself, as after `down`.
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

fn free_port() -> u16 {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
    socket.local_addr().expect("bound").port()
}

/// How what is shown differs from what was said, lines in any order; none if they agree.
fn differs(step: &Step, said: &[String], raw: &str) -> Option<String> {
    let more = step.shown.iter().any(|line| line == MORE);
    let shown = comparable(step.shown.iter().map(String::as_str).filter(|line| *line != MORE));
    let mut rest = said.to_vec();
    let mut missing = Vec::new();
    for line in shown {
        match rest.iter().position(|said| *said == line) {
            Some(at) => drop(rest.remove(at)),
            None => missing.push(line),
        }
    }
    let agree = missing.is_empty() && (more || rest.is_empty());
    (!agree).then(|| {
        format!("`{}` says:\n{raw}\nnot said: {missing:#?}\nnot in the README: {rest:#?}\n", step.command)
    })
}

/// Lines without what differs from run to run, and without empty ones.
fn comparable<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    lines.map(comparable_line).filter(|line| !line.is_empty()).collect()
}

fn comparable_line(line: &str) -> String {
    let mut words: Vec<String> = line.split_whitespace().map(comparable_word).collect();
    for at in 1..words.len() {
        let number = words[at - 1].parse::<f64>().is_ok();
        let (size, time) = (["B", "kB", "MB", "GB", "TB"], ["ms", "s", "min", "h"]);
        if number && (size.contains(&words[at].as_str()) || time.contains(&words[at].as_str())) {
            words[at] = if size.contains(&words[at].as_str()) { "SIZE" } else { "TIME" }.into();
            words[at - 1] = "N".into();
        }
    }
    for at in 1..words.len() {
        // A client that has just gone may be counted still.
        if words[at].starts_with("client") && words[at - 1].parse::<u32>().is_ok() {
            words.splice(at - 1..=at, ["CLIENTS".into(), String::new()]);
        }
    }
    let line = words.join(" ").replace("just now", "WHEN").replace("N TIME ago", "WHEN");
    // Which nodes a put names is decided by their keys, and the third copy may be there when it answers.
    match line.split_once(" copies (").and_then(|(head, rest)| Some((head, rest.split_once(')')?.1))) {
        Some((head, tail)) => format!("{} copies{tail}", head.replace("3 of 3", "2 of 3")),
        None => line,
    }
}

fn comparable_word(word: &str) -> String {
    let load = word.split_once('.').is_some_and(|(a, b)| b.len() == 1 && a.parse::<u32>().is_ok() && b < "a");
    match word {
        _ if word.starts_with("addr=") => "addr=ADDR".into(),
        _ if word.starts_with("peer=") => "peer=PEER".into(),
        _ if word.starts_with("/ip4/") => "ADDR".into(),
        _ if word.starts_with("12D3Koo") => "PEER".into(),
        _ if load => "0.0".into(),
        _ => word.into(),
    }
}

#[test]
fn one_machine_does_what_the_readme_shows() {
    let mut machines = Machines::new(&["desk"]);
    let differences = machines.tell(&steps(Some("One machine")));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_text_is_hidden_and_revealed_as_the_readme_shows() {
    let mut machines = Machines::new(&["desk"]);
    let differences = machines.tell(&steps(Some("Hiding a text in a picture")));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn two_machines_do_what_the_readme_shows() {
    let mut machines = Machines::new(&["desk", "attic"]);
    let differences = machines.tell(&steps(Some("Two machines")));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn three_machines_do_what_the_readme_shows_and_one_may_be_lost() {
    let mut machines = Machines::new(&["desk", "attic", "nas"]);
    let differences = machines.tell(&steps(Some("Three machines")));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_comparison_notices_what_matters() {
    let line = comparable_line;
    assert_eq!(line("a.png  version 1  3.0 MB  41 ms"), line("a.png version 1  120 kB  1.2 s"));
    assert_eq!(line("x  2 of 3 copies (a, b)"), line("x 2 of 3 copies (b, a)"));
    assert_ne!(line("x  2 of 3 copies (a)"), line("x  1 of 3 copies (a)"));
    assert_ne!(line("a.png  version 1  unchanged"), line("a.png  version 2  unchanged"));
    assert_ne!(line("ready nodes=3"), line("ready nodes=2"));
    let step = Step { machine: String::new(), command: "x".into(), shown: vec!["a".into(), "b".into()] };
    assert!(differs(&step, &["b".into(), "a".into()], "").is_none());
    assert!(differs(&step, &["a".into()], "").is_some());
    assert!(differs(&step, &["a".into(), "b".into(), "c".into()], "").is_some());
}
