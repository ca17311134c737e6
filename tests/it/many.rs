//! Several clients at once, each a process and a user of its own: nobody is turned away, and nobody gets what
//! another has put. And the client process that `bench` starts many of.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    cluster::{Cluster, PROGRAM, noise, wait_for},
    inspect::alone,
};

const CLIENTS: usize = 6;
const FILES: usize = 2;
/// Several chunks, the last one short.
const FILE_BYTES: usize = (3 << 20) + 1234;

/// One of several users, with a home of his own.
struct User {
    home: PathBuf,
    nodes: Vec<String>,
}

impl User {
    fn new(cluster: &Cluster, number: usize) -> Self {
        let home = cluster.dir().join(format!("user-{number}"));
        std::fs::create_dir_all(home.join("keys")).expect("a home");
        std::fs::copy(cluster.client.join("keys/cluster.key"), home.join("keys/cluster.key")).expect("a key");
        Self { home, nodes: cluster.nodes.addresses() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(args).arg("--home").arg(&self.home);
        for node in &self.nodes {
            command.args(["--node", node]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

fn done(child: Child) -> Output {
    let output = child.wait_with_output().expect("the program ends");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What user `number` keeps under the name that all users use.
fn bytes_of(number: usize, file: usize) -> Vec<u8> {
    noise((number * FILES + file) as u64, FILE_BYTES)
}

#[test]
fn clients_that_put_at_once_all_get_their_own_bytes_back() {
    let cluster = Cluster::start(3);
    let users: Vec<User> = (0..CLIENTS).map(|number| User::new(&cluster, number)).collect();
    let puts: Vec<Command> = users
        .iter()
        .enumerate()
        .map(|(number, user)| {
            let mut put = user.command(&["put"]);
            (0..FILES).for_each(|file| {
                let name = format!("from-{number}/{file}.bin");
                put.arg(cluster.file(&name, &bytes_of(number, file)));
            });
            put
        })
        .collect();
    // All are started before any is waited for.
    let running: Vec<Child> =
        puts.into_iter().map(|mut put| put.spawn().expect("the program starts")).collect();
    running.into_iter().for_each(|put| drop(done(put)));
    for (number, user) in users.iter().enumerate() {
        for file in 0..FILES {
            let get = user.command(&["get", &format!("{file}.bin"), "-o", "-"]).spawn();
            let output = done(get.expect("the program starts"));
            assert!(output.stdout == bytes_of(number, file), "user {number} got other bytes");
        }
    }
}

/// So many commands that are started together, as a script or a file manager does. More of them in a build
/// without optimization say more about two cores than about turns.
const COMMANDS: usize = 40;

#[test]
fn many_commands_at_once_from_one_address_all_get_their_turn() {
    let _alone = alone();
    for (nodes, args) in [(1, ["get", "one.bin", "-o", "-"].as_slice()), (3, &["ls"])] {
        let cluster = Cluster::start(nodes);
        let bytes = noise(1, 5000);
        cluster.put("one.bin", &bytes);
        let running: Vec<Child> = (0..COMMANDS)
            .map(|_| {
                let mut command = cluster.command(args);
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
                command.spawn().expect("the program starts")
            })
            .collect();
        for child in running {
            let said = done(child).stdout;
            let is_right = said == bytes || String::from_utf8_lossy(&said).contains("one.bin");
            assert!(is_right, "{nodes} nodes: {args:?} gave other bytes");
        }
        let status = cluster.ok(&["status", "--json"]);
        let status: Value = serde_json::from_str(status.lines().next().expect("a line")).expect("JSON");
        assert_eq!(status["refused"], 0, "{nodes} nodes: who waits for a turn is no attacker");
    }
}

/// A client process as `bench` starts it.
fn load(cluster: &Cluster, number: usize, way: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let load = format!(r#"{{"way":"{way}","seed":{number},"count":2,"edge_px":400,"copies":3}}"#);
    let mut child = User::new(cluster, number).command(&["bench", "--load", &load]).spawn().expect("starts");
    let mut said = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    said.read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    (child, said)
}

fn work(child: &mut Child, said: &mut BufReader<std::process::ChildStdout>) -> Value {
    child.stdin.as_mut().expect("a pipe").write_all(b"g").expect("it listens");
    let mut line = String::new();
    said.read_line(&mut line).expect("a line");
    serde_json::from_str(&line).expect("JSON")
}

#[test]
fn a_load_puts_and_gets_what_it_says_and_lives_as_long_as_it_is_held() {
    let cluster = Cluster::start(3);
    for way in ["Put", "Get"] {
        let (mut child, mut said) = load(&cluster, 7, way);
        let done = work(&mut child, &mut said);
        assert_eq!(done["failed"], serde_json::json!([]), "{way}");
        // Two pictures of 400 x 400 pixels, 3 bytes each.
        assert!((960_000..980_000).contains(&done["bytes"].as_u64().expect("a number")), "{way}: {done}");
        assert_eq!(child.try_wait().expect("it can be asked"), None, "{way}: it has ended by itself");
        drop(child.stdin.take());
        assert_eq!(child.wait().expect("it ends").code(), Some(0), "{way}");
    }
}

#[test]
fn a_load_that_failed_says_so_and_one_that_nobody_holds_ends() {
    let mut cluster = Cluster::start(3);
    let (mut child, mut said) = load(&cluster, 1, "Put");
    let (mut forgotten, _) = load(&cluster, 2, "Put");
    drop(forgotten.stdin.take());
    wait_for("the end of a load that nobody holds", Duration::from_secs(20), || {
        forgotten.try_wait().expect("it can be asked").is_some()
    });
    for node in 0..3 {
        cluster.nodes.kill(node).expect("killed");
    }
    let done = work(&mut child, &mut said);
    assert_eq!(done["bytes"], 0);
    assert_eq!(done["failed"].as_array().map(Vec::len), Some(2), "{done}");
    drop(child.stdin.take());
    child.wait().expect("it ends");
}
