//! A client whose nodes come and go, and one that is stopped itself: nothing that will be well again in a
//! moment is a failure, and what will not is said soon.

#![allow(clippy::disallowed_methods)] // a test of a deadline reads the clock

use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use crate::{
    cluster::{Answer, Cluster, ends, finish, noise, text},
    inspect::{alone, chunk_files},
};

fn signal(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("`kill` runs");
    assert!(sent.success(), "kill {signal}");
}

/// A folder of so many files.
fn folder(cluster: &Cluster, name: &str, files: u64, len: usize) -> PathBuf {
    for number in 0..files {
        cluster.file(&format!("{name}/{number}.bin"), &noise(number, len));
    }
    cluster.dir().join(name)
}

/// Each is stored, and reads back.
#[track_caller]
fn all_are_there(cluster: &Cluster, name: &str, files: u64, len: usize) {
    let out = cluster.dir().join(format!("{name}.out"));
    cluster.ok(&["get", "-r", &format!("{name}/"), "-o", text(&out)]);
    for number in 0..files {
        let found = std::fs::read(out.join(format!("{name}/{number}.bin"))).expect("it was fetched");
        assert!(found == noise(number, len), "{name}/{number}.bin");
    }
}

#[test]
fn a_client_that_was_stopped_for_a_while_goes_on() {
    let _alone = alone();
    let cluster = Cluster::start(3);
    let (files, len) = (40, 700_000);
    let root = folder(&cluster, "many", files, len);
    let mut command = cluster.command(&["put", "-r", text(&root), "--json"]);
    let mut put = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(put.stdout.take().expect("a pipe")).lines();
    assert!(lines.next().is_some(), "the first is stored");
    // Longer than its connections live, and than it waits for anybody.
    signal(&put, "-STOP");
    std::thread::sleep(Duration::from_secs(3));
    signal(&put, "-CONT");
    assert_eq!(1 + lines.count() as u64, files);
    let mut said = String::new();
    put.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert_eq!(put.wait().expect("it ends").code(), Some(0), "{said}");
    all_are_there(&cluster, "many", files, len);
}

#[test]
fn nodes_that_are_killed_and_restarted_in_turn_fail_no_put() {
    let _alone = alone();
    let mut cluster = Cluster::start(3);
    let root = folder(&cluster, "rolling", 25, 200_000);
    let stop = AtomicBool::new(false);
    let command =
        |number: u32| cluster.command(&["put", "-r", text(&root), "--prefix", &format!("{number}/")]);
    let commands: Vec<Command> = (0..100).map(command).collect();
    let answers = std::thread::scope(|scope| {
        let puts = scope.spawn(|| {
            let running = commands.into_iter().take_while(|_| !stop.load(Ordering::Relaxed));
            running.map(|mut command| finish(&mut command)).collect::<Vec<Answer>>()
        });
        // The next is killed as soon as the last serves again, whoever has noticed that.
        for node in [0, 1, 2, 0, 1, 2] {
            cluster.nodes.kill(node).expect("killed");
            cluster.nodes.restart(node).expect("ready again");
        }
        stop.store(true, Ordering::Relaxed);
        puts.join().expect("it ends")
    });
    let failed: Vec<&Answer> = answers.iter().filter(|answer| answer.code != Some(0)).collect();
    assert!(failed.is_empty(), "{} of {} failed: {failed:#?}", failed.len(), answers.len());
}

#[test]
fn where_every_node_is_full_a_put_says_so_at_once() {
    let _alone = alone();
    let mut cluster = Cluster::prepare(2);
    for node in &mut cluster.nodes.all {
        node.envs.push(("TINTYPE_NODE_RESERVE".into(), "1000000 TB".into()));
    }
    cluster.nodes.start_all().expect("full nodes start too");
    for (name, len) in [("small.bin", 1000), ("large.bin", 2_500_000)] {
        let file = cluster.file(name, &noise(1, len));
        let put = cluster.run(&["put", text(&file)]);
        ends(&put, 1, &["has no room left", "tintype status"]);
        assert!(put.took < Duration::from_secs(3), "{put:?}");
    }
    assert!(cluster.nodes.all.iter().all(|node| chunk_files(&node.home).is_empty()));
}
