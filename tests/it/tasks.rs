//! Work handed to nodes: real processes that hide texts in pictures while nodes die, freeze and leave.
//!
//! What a client gets is read back by the client that it was made for; who did the work is read from the
//! history that the nodes keep.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    cluster::{Answer, Cluster, ends, noise, objects, run_with_stdin, text, wait_for},
    inspect::json,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A picture of noise, as a PNG.
pub fn picture(seed: u64, width: u32, height: u32) -> Vec<u8> {
    let samples = noise(seed, (width * height * 3) as usize);
    let pixels = image::RgbImage::from_raw(width, height, samples).expect("as many samples as it wants");
    let mut png = std::io::Cursor::new(Vec::new());
    pixels.write_to(&mut png, image::ImageFormat::Png).expect("written into memory");
    png.into_inner()
}

/// One client that hides one text.
struct Hiding {
    child: Child,
    began: Instant,
    text: String,
    out: PathBuf,
}

fn hide(cluster: &Cluster, image: &str, text_to_hide: &str, more: &[&str]) -> Hiding {
    let out = cluster.dir().join(format!("{text_to_hide}.png"));
    let mut args = vec!["hide", "--text", text_to_hide, image, "-o", text(&out), "--json"];
    args.extend(more);
    let mut command = cluster.command(&args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let (began, child) = (Instant::now(), command.spawn().expect("the program runs"));
    Hiding { child, began, text: text_to_hide.to_owned(), out }
}

impl Hiding {
    /// Waits for its end; the picture must have the text in it.
    fn wait(self, cluster: &Cluster) -> Duration {
        let output = self.child.wait_with_output().expect("it ends");
        let answer = Answer::of(&output, self.began);
        ends(&answer, 0, &[]);
        assert_eq!(cluster.ok(&["reveal", text(&self.out)]), self.text);
        answer.took
    }
}

fn status(cluster: &Cluster) -> Value {
    json(&cluster.run(&["status", "--json"]))
}

/// Which node hands out work, once there is one.
pub fn coordinator(cluster: &Cluster) -> usize {
    let mut found = None;
    wait_for("a coordinator", PATIENCE, || {
        let peer = status(cluster)["coordinator"].as_str().map(str::to_owned);
        found = cluster.nodes.all.iter().position(|node| Some(&node.peer) == peer.as_ref());
        found.is_some()
    });
    found.expect("it was waited for")
}

/// Open and ended tasks by worker, and those that had more than one.
fn history(cluster: &Cluster) -> (BTreeMap<String, usize>, usize) {
    let tasks = objects(&cluster.ok(&["history", "--json"]));
    let mut by_worker = BTreeMap::new();
    for task in &tasks {
        *by_worker.entry(task["worker_name"].as_str().expect("a name").to_owned()).or_default() += 1;
    }
    (by_worker, tasks.iter().filter(|task| task["attempt"].as_u64() > Some(1)).count())
}

/// Waits until one of the tasks is at this phase; the index of its worker. The picture must be large enough
/// for a phase to last longer than looking for it takes.
pub fn worker_at(cluster: &Cluster, phase: &str) -> usize {
    let mut found = None;
    wait_for(&format!("a task that is {phase}"), PATIENCE, || {
        let tasks = objects(&cluster.ok(&["history", "--json"]));
        let name = tasks.iter().find(|task| task["phase"] == phase).map(|task| task["worker_name"].clone());
        found = name.and_then(|name| cluster.nodes.all.iter().position(|node| name == node.name.as_str()));
        found.is_some()
    });
    found.expect("it was waited for")
}

pub fn send(pid: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).status().expect("kill runs");
    assert!(sent.success());
}

fn signal(cluster: &Cluster, node: usize, name: &str) {
    send(cluster.nodes.pid(node).expect("it runs"), name);
}

/// The processes in which a node works on tasks.
fn at_work(cluster: &Cluster, node: usize) -> Vec<u32> {
    let node = cluster.nodes.pid(node).expect("it runs").to_string();
    let all = std::fs::read_dir("/proc").expect("there is a /proc").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let of_node = pids.filter(|pid| {
        // What follows the name in brackets: its state, its parent.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut words = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        words.nth(1) == Some(&node)
    });
    of_node.collect()
}

pub fn no_task_is_in_hand(cluster: &Cluster) {
    wait_for("free slots everywhere", PATIENCE, || {
        let nodes = objects(&cluster.ok(&["nodes", "--json"]));
        // Of one that is dead the last heartbeat is shown.
        nodes.iter().all(|node| node["tasks"] == 0 || node["state"] == "dead")
    });
}

#[test]
fn equal_nodes_share_the_work_and_one_that_is_to_be_spared_gets_clearly_less() {
    let mut cluster = Cluster::prepare(3);
    cluster.nodes.all[2].envs.push(("TINTYPE_TASKS_ADDED_LOAD".into(), "50".into()));
    cluster.nodes.start_all().expect("all nodes become ready");
    coordinator(&cluster);
    let image = cluster.file("a.png", &picture(1, 300, 200));
    for round in 0..6 {
        let four: Vec<Hiding> = (0..4)
            .map(|client| hide(&cluster, text(&image), &format!("text {round} {client}"), &[]))
            .collect();
        let slowest = four.into_iter().map(|hiding| hiding.wait(&cluster)).max();
        println!("four at once: {slowest:?} at most");
    }
    let (by_worker, _) = history(&cluster);
    println!("24 tasks: {by_worker:?}");
    let of = |node: usize| by_worker.get(&cluster.nodes.all[node].name).copied().unwrap_or(0);
    assert_eq!(of(0) + of(1) + of(2), 24);
    assert!(of(0).abs_diff(of(1)) <= 6, "{by_worker:?}");
    assert!(2 * of(2) <= of(0).min(of(1)), "{by_worker:?}");
    let elections = objects(&cluster.ok(&["election", "--json"]));
    assert!(!elections.is_empty());
    no_task_is_in_hand(&cluster);
}

#[test]
fn a_dead_coordinator_costs_no_task() {
    let mut cluster = Cluster::start(3);
    let image = cluster.file("a.png", &picture(2, 900, 700));
    for round in 0..2 {
        let victim = coordinator(&cluster);
        let name = |client: usize| format!("round {round} client {client}");
        let four: Vec<Hiding> =
            (0..4).map(|client| hide(&cluster, text(&image), &name(client), &[])).collect();
        worker_at(&cluster, "started");
        cluster.nodes.kill(victim).expect("killed");
        let took = four.into_iter().map(|hiding| hiding.wait(&cluster)).max();
        let next = coordinator(&cluster);
        println!("coordinator {victim} killed: four tasks took {took:?} at most; {next} is it now");
        assert_ne!(next, victim);
        cluster.nodes.restart(victim).expect("it serves again");
        wait_for("all nodes", PATIENCE, || status(&cluster)["nodes_alive"] == 3);
    }
    no_task_is_in_hand(&cluster);
}

#[test]
fn what_a_dead_or_frozen_worker_had_is_done_by_another_and_its_late_answer_counts_for_nobody() {
    let mut cluster = Cluster::start(3);
    coordinator(&cluster);
    let image = cluster.file("a.png", &picture(3, 2600, 2000));
    let hiding = hide(&cluster, text(&image), "killed", &[]);
    let worker = worker_at(&cluster, "started");
    cluster.nodes.kill(worker).expect("killed");
    println!("worker killed: {:?}", hiding.wait(&cluster));
    let (_, moved) = history(&cluster);
    assert_eq!(moved, 1, "it was given to another");
    cluster.nodes.restart(worker).expect("it serves again");
    wait_for("all nodes", PATIENCE, || status(&cluster)["nodes_alive"] == 3);

    let hiding = hide(&cluster, text(&image), "frozen", &[]);
    let worker = worker_at(&cluster, "started");
    signal(&cluster, worker, "STOP");
    println!("worker frozen: {:?}", hiding.wait(&cluster));
    signal(&cluster, worker, "CONT");
    no_task_is_in_hand(&cluster);
}

#[test]
fn a_dead_coordinator_and_a_dead_worker_at_once_cost_no_task() {
    let mut cluster = Cluster::start(5);
    let first = coordinator(&cluster);
    let image = cluster.file("a.png", &picture(8, 1600, 1200));
    let name = |client: usize| format!("both gone {client}");
    let six: Vec<Hiding> = (0..6).map(|client| hide(&cluster, text(&image), &name(client), &[])).collect();
    // A worker that is not the coordinator has something to do.
    let mut second = None;
    wait_for("another worker", PATIENCE, || {
        let tasks = objects(&cluster.ok(&["history", "--json"]));
        let open = tasks.iter().filter(|task| task["phase"] == "started" || task["phase"] == "assigned");
        let names: Vec<String> = open.map(|task| task["worker_name"].to_string()).collect();
        let busy =
            |node: &usize| names.iter().any(|name| *name == format!("{:?}", cluster.nodes.all[*node].name));
        second = (0..5).filter(|node| *node != first).find(busy);
        second.is_some()
    });
    let second = second.expect("it was waited for");
    cluster.nodes.kill(first).expect("killed");
    cluster.nodes.kill(second).expect("killed");
    let slowest = six.into_iter().map(|hiding| hiding.wait(&cluster)).max();
    println!("coordinator and worker killed: six tasks took {slowest:?} at most");
    let next = coordinator(&cluster);
    assert!(next != first && next != second);
    no_task_is_in_hand(&cluster);
}

/// Kills the process in which a task is worked on, whichever node that is at; one that was killed before is
/// not meant.
fn kill_process(cluster: &Cluster, before: u32) -> u32 {
    let mut found = None;
    wait_for("the process of a task", PATIENCE, || {
        found = (0..3).flat_map(|node| at_work(cluster, node)).find(|pid| *pid != before);
        found.is_some()
    });
    let pid = found.expect("it was waited for");
    send(pid, "KILL");
    pid
}

#[test]
fn what_kills_the_process_of_a_task_kills_no_node_and_is_tried_once_more() {
    let cluster = Cluster::start(3);
    coordinator(&cluster);
    let image = cluster.file("a.png", &picture(9, 2600, 2000));
    let hiding = hide(&cluster, text(&image), "by chance", &[]);
    let first = kill_process(&cluster, 0);
    println!("a process was killed: {:?}", hiding.wait(&cluster));
    assert_eq!(history(&cluster).1, 1, "another had a try");

    let hiding = hide(&cluster, text(&image), "too much", &[]);
    let second = kill_process(&cluster, first);
    kill_process(&cluster, second);
    let output = hiding.child.wait_with_output().expect("it ends");
    ends(&Answer::of(&output, hiding.began), 1, &["the worker failed at it"]);
    assert_eq!(status(&cluster)["nodes_alive"], 3);
    no_task_is_in_hand(&cluster);
}

#[test]
fn a_node_that_is_asked_to_stop_finishes_first_or_hands_over() {
    let mut cluster = Cluster::start(3);
    coordinator(&cluster);
    let image = cluster.file("a.png", &picture(4, 900, 700));
    let four: Vec<Hiding> =
        (0..4).map(|client| hide(&cluster, text(&image), &format!("leaving {client}"), &[])).collect();
    let worker = worker_at(&cluster, "started");
    signal(&cluster, worker, "TERM");
    let slowest = four.into_iter().map(|hiding| hiding.wait(&cluster)).max();
    println!("a worker was asked to stop: four tasks took {slowest:?} at most");
    let ended = cluster.nodes.wait_for_end(worker, PATIENCE).expect("it stops");
    assert!(ended.success(), "{ended:?}");
}

#[test]
fn a_task_can_be_cancelled_and_ends_with_its_time() {
    let cluster = Cluster::start(1);
    coordinator(&cluster);
    let image = cluster.file("a.png", &picture(5, 2600, 2000));
    let hiding = hide(&cluster, text(&image), "cancelled", &[]);
    worker_at(&cluster, "started");
    let tasks = objects(&cluster.ok(&["task", "ls", "--json"]));
    let task = tasks[0]["task"].as_str().expect("a name").to_owned();
    assert_eq!(json(&cluster.run(&["task", "show", &task, "--json"]))["kind"], "hide");
    ends(&cluster.run(&["task", "cancel", &task]), 0, &["cancelled"]);
    wait_for("the end of its process", PATIENCE, || at_work(&cluster, 0).is_empty());
    let output = hiding.child.wait_with_output().expect("it ends");
    ends(&Answer::of(&output, hiding.began), 1, &["cancelled"]);
    assert!(!hiding.out.exists());
    ends(&cluster.run(&["task", "cancel", &task]), 1, &["has ended"]);
    ends(&cluster.run(&["task", "show", "nothing-1"]), 3, &["no task"]);
    no_task_is_in_hand(&cluster);
}

#[test]
fn a_task_that_is_interrupted_is_cancelled_and_says_so() {
    let cluster = Cluster::start(1);
    coordinator(&cluster);
    let image = cluster.file("a.png", &picture(7, 2600, 2000));
    let hiding = hide(&cluster, text(&image), "interrupted", &[]);
    worker_at(&cluster, "started");
    send(hiding.child.id(), "INT");
    let output = hiding.child.wait_with_output().expect("it ends");
    let answer = Answer::of(&output, hiding.began);
    ends(&answer, 130, &["the task is cancelled"]);
    assert!(!answer.stdout.contains("where it stopped"), "{answer:?}");
    assert!(!hiding.out.exists());
    let tasks = objects(&cluster.ok(&["history", "--json"]));
    assert!(tasks.len() == 1 && tasks[0]["phase"] == "cancelled", "{tasks:?}");
    no_task_is_in_hand(&cluster);
}

#[test]
fn what_follows_ends_quietly_by_ctrl_c() {
    let cluster = Cluster::start(1);
    coordinator(&cluster);
    let image = cluster.file("a.png", &picture(8, 60, 40));
    cluster.ok(&["strip", text(&image)]);
    for args in [
        &["history", "--follow"][..],
        &["history", "--follow", "--json"],
        &["events", "--follow"],
        &["shell", "anna", "-c", "history --follow", "-c", "nonsense"],
    ] {
        let mut command = cluster.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let began = Instant::now();
        // It has asked the node, and waits for more.
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("a pipe");
        std::io::BufRead::read_line(&mut std::io::BufReader::with_capacity(1, stdout), &mut line)
            .expect("a line");
        assert!(!line.is_empty());
        send(child.id(), "INT");
        let answer = Answer::of(&child.wait_with_output().expect("it ends"), began);
        ends(&answer, 130, &[]);
        for said in [&answer.stdout, &answer.stderr] {
            assert!(!said.contains("error") && !said.contains("nonsense"), "{args:?}: {answer:?}");
        }
    }
}

#[test]
fn time_that_runs_out_is_one_exit_code_whatever_was_waited_for() {
    let mut cluster = Cluster::start(1);
    coordinator(&cluster);
    let image = cluster.file("a.png", &picture(9, 2600, 2000));
    // For a worker that has begun.
    let hiding = hide(&cluster, text(&image), "too slow", &["--timeout", "8"]);
    let worker = worker_at(&cluster, "started");
    signal(&cluster, worker, "STOP");
    let answer = Answer::of(&hiding.child.wait_with_output().expect("it ends"), hiding.began);
    ends(&answer, 5, &["a.png", "not done within 8 s"]);
    assert!(!hiding.out.exists());
    signal(&cluster, worker, "CONT");
    no_task_is_in_hand(&cluster);
    // For a picture that does not come, with a node and without one.
    for more in [&[][..], &["--local"]] {
        let arguments = [&["hide", "--text", "x", "-", "-o", "never.png", "--timeout", "1"], more].concat();
        let mut command = cluster.command(&arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut child, began) = (command.spawn().expect("started"), Instant::now());
        let open = child.stdin.take();
        let answer = Answer::of(&child.wait_with_output().expect("it ends"), began);
        ends(&answer, 5, &["standard input", "not done within 1 s", "its input is read"]);
        drop(open);
    }
    // For a node at all.
    cluster.nodes.kill(worker).expect("killed");
    ends(&cluster.run(&["strip", text(&image), "--timeout", "1"]), 5, &["--local"]);
}

#[test]
fn the_shell_does_what_the_command_line_does() {
    let cluster = Cluster::start(1);
    coordinator(&cluster);
    let image = cluster.file("a b.png", &picture(10, 60, 40));
    let path = |name: &str| text(&cluster.dir().join(name)).to_owned();
    let (hidden, small, bare) = (path("hidden.png"), path("small.jpg"), path("bare.png"));
    let lines = format!(
        "hide --text 'at nine' '{image}' -o {hidden}\nreveal {hidden}\nstego info {hidden}\n\
         thumbnail --edge 9 {hidden} -o {small}\nstrip {hidden} -o {bare}\ntask ls\nhistory\nelection\n\
         hide --local --text x {hidden} --store=kept.png\nls\n",
        image = text(&image)
    );
    let answer = run_with_stdin(cluster.command(&["shell", "anna"]), lines.as_bytes());
    let words =
        ["7 of 888 bytes hidden", "at nine\n", "7 bytes are hidden here", "9 x 6 pixels", "acknowledged"];
    ends(&answer, 0, &words);
    for name in [
        "thumbnail",
        "strip",
        "the only node",
        "stored as kept.png version 1",
        "No machine has a task in hand",
    ] {
        assert!(answer.stdout.contains(name) || answer.stderr.contains(name), "{name}: {answer:?}");
    }
    assert_eq!(answer.stderr.matches("Back it up now").count(), 1, "{answer:?}");
    for line in ["hide --text x -", "hide --file - a.png", "reveal -", "stego info -", "strip -"] {
        let answer = run_with_stdin(cluster.command(&["shell", "anna"]), format!("{line}\n").as_bytes());
        ends(&answer, 2, &["standard input"]);
    }
    let answer =
        cluster.run(&["shell", "anna", "-c", "task show nothing-1", "-c", "thumbnail --edge 0 a.png"]);
    ends(&answer, 2, &["no task", "1..=8192"]);
}

#[test]
fn a_client_that_goes_away_leaves_no_place_taken() {
    let cluster = Cluster::start(1);
    coordinator(&cluster);
    let image = cluster.file("a.png", &picture(6, 2600, 2000));
    let mut hiding = hide(&cluster, text(&image), "gone", &[]);
    worker_at(&cluster, "started");
    hiding.child.kill().expect("killed");
    hiding.child.wait().expect("it ends");
    wait_for("the end of its task", PATIENCE, || {
        objects(&cluster.ok(&["history", "--json"])).iter().all(|task| task["phase"] == "abandoned")
    });
    no_task_is_in_hand(&cluster);
}
