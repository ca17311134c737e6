//! The end of a terminal, and SIGTERM: they end a command, a shell and a node in order, unless these were
//! started to outlive it.
//!
//! Whatever runs the tests may ignore SIGHUP itself, and its children with it; so it is set by env(1).

#![cfg(target_os = "linux")]

use std::{
    ffi::OsStr,
    fs::File,
    io::{BufReader, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use crate::{
    cluster::{Answer, Cluster, Nodes, PROGRAM, ends, finish, objects, text, wait_for},
    homes::Running,
    tasks::{coordinator, no_task_is_in_hand, picture, send, worker_at},
};

const PATIENCE: Duration = Duration::from_secs(60);
const HEEDED: &str = "--default-signal=HUP";
const IGNORED: &str = "--ignore-signal=HUP";

/// Not every system's env(1) sets signals.
fn is_possible() -> bool {
    let tried = Command::new("env").args([HEEDED, "true"]).output();
    let is_possible = tried.is_ok_and(|output| output.status.success());
    if !is_possible {
        eprintln!("SKIPPED: env(1) sets no signals here");
    }
    is_possible
}

/// The program, started with SIGHUP so.
fn started_with(how: &str, dir: &Path) -> PathBuf {
    let path = dir.join("tintype");
    let script = format!("#!/bin/sh\nexec env {how} '{PROGRAM}' \"$@\"\n");
    // Not written by this process: what another test starts meanwhile would have the file open
    // for writing, and nobody could run it.
    let write = r#"printf %s "$2" > "$1" && chmod 700 "$1""#;
    let written = Command::new("sh").args(["-c", write, "sh", text(&path), &script]).status();
    assert!(written.expect("sh runs").success());
    path
}

#[test]
fn a_node_ends_with_its_terminal_and_one_that_was_to_outlive_it_goes_on() {
    if !is_possible() {
        return;
    }
    for (how, ends_by_it) in [(HEEDED, true), (IGNORED, false)] {
        let dir = tempfile::tempdir().expect("a folder");
        let program = started_with(how, dir.path());
        let (mut nodes, client) = Nodes::prepare(&program, dir.path(), 1).expect("homes");
        nodes.start_all().expect("ready");
        let pid = nodes.pid(0).expect("it runs");
        send(pid, "HUP");
        if !ends_by_it {
            let status = ["status", "--node", &nodes.all[0].addr, "--home", text(&client)];
            ends(&finish(Command::new(PROGRAM).args(status)), 0, &[]);
            let signals = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
            let ignored = signals.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a mask");
            let ignored = u64::from_str_radix(ignored.trim(), 16).expect("a mask");
            assert_eq!(ignored & 1, 1, "it took the signal");
            send(pid, "TERM");
        }
        let ended = nodes.wait_for_end(0, PATIENCE).expect("it ends");
        assert!(ended.success(), "{how}: {ended:?}");
    }
}

#[test]
fn a_task_whose_terminal_goes_is_cancelled() {
    if !is_possible() {
        return;
    }
    let cluster = Cluster::start(1);
    coordinator(&cluster);
    let image = cluster.file("a.png", &picture(9, 2600, 2000));
    let out = cluster.dir().join("out.png");
    let hide = cluster.command(&["hide", "--text", "gone", text(&image), "-o", text(&out)]);
    let mut command = Command::new("env");
    command.arg(HEEDED).arg(hide.get_program()).args(hide.get_args());
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (began, child) = (Instant::now(), piped.spawn().expect("it runs"));
    worker_at(&cluster, "started");
    send(child.id(), "HUP");
    let output = child.wait_with_output().expect("it ends");
    ends(&Answer::of(&output, began), 130, &["the task is cancelled"]);
    assert!(!out.exists());
    let tasks = objects(&cluster.ok(&["history", "--json"]));
    assert!(tasks.len() == 1 && tasks[0]["phase"] == "cancelled", "{tasks:?}");
    no_task_is_in_hand(&cluster);
}

/// A terminal, and the end of it that a program sees.
fn terminal() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let typing = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&typing).and_then(|()| unlockpt(&typing)).expect("granted");
    let name = ptsname(&typing, Vec::new()).expect("a name");
    let seen = File::options().read(true).write(true).open(OsStr::from_bytes(name.as_bytes()));
    (typing.into(), seen.expect("opened"))
}

/// Waits until these words are shown; all that was.
fn shown_until(typing: File, words: &str) -> String {
    let (shown, to_see) = mpsc::sync_channel(64);
    // It ends with the terminal.
    std::thread::spawn(move || {
        for byte in BufReader::new(typing).bytes().map_while(Result::ok) {
            if shown.send(byte).is_err() {
                return;
            }
        }
    });
    let mut all = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while !String::from_utf8_lossy(&all).contains(words) {
        let left = deadline.saturating_duration_since(Instant::now());
        let byte = to_see.recv_timeout(left);
        all.push(byte.unwrap_or_else(|_| panic!("{words} is not shown: {}", String::from_utf8_lossy(&all))));
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn a_shell_that_waits_at_its_prompt_ends_by_a_signal_and_leaves_the_terminal_as_it_was() {
    if !is_possible() {
        return;
    }
    let cluster = Cluster::start(1);
    for name in ["TERM", "HUP"] {
        let (typing, seen) = terminal();
        let modes = || rustix::termios::tcgetattr(&seen).expect("a terminal").local_modes;
        let before = modes();
        let shell = cluster.command(&["shell"]);
        let mut command = Command::new("env");
        command.arg(HEEDED).arg(shell.get_program()).args(shell.get_args());
        let end = || seen.try_clone().expect("another");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("it runs");
        let mut shell = Running(child);
        let shown = shown_until(typing.try_clone().expect("another"), "me> ");
        let editing = modes();
        send(shell.0.id(), name);
        let mut ended = None;
        wait_for("the end of the shell", PATIENCE, || {
            ended = shell.0.try_wait().expect("it is a child");
            ended.is_some()
        });
        assert_eq!(ended.and_then(|status| status.code()), Some(130), "{name}: {shown}");
        assert_ne!(before, editing, "it edits lines itself");
        assert_eq!(before, modes(), "{name}");
    }
}
