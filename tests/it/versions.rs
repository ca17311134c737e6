//! Versions, users, removing and bringing back, the shell, stopping and interrupting: on real nodes, by the
//! real program.

#![allow(clippy::disallowed_methods)] // a test of a deadline reads the clock

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use tintype::api::{Connect, Put, Source, Vault};

use crate::cluster::{
    Answer, Cluster, PROGRAM, ends, fields, finish, noise, objects, run_with_stdin, text, wait_for,
};

const PATIENCE: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

/// Runs the shell with these lines on a pipe.
fn shell(cluster: &Cluster, args: &[&str], lines: &str) -> Answer {
    run_with_stdin(cluster.command(&[&["shell"], args].concat()), lines.as_bytes())
}

fn bytes_of(cluster: &Cluster, version: u64) -> Option<Vec<u8>> {
    let number = version.to_string();
    let output = cluster.command(&["get", "v.bin", "--version", &number, "-o", "-"]).output().expect("runs");
    match output.status.code() {
        Some(0) => Some(output.stdout),
        Some(3) => None,
        other => panic!("{other:?}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[test]
fn sixteen_versions_are_kept_and_the_same_bytes_make_none() {
    let cluster = Cluster::start(1);
    let content = |version: u64| noise(version, 3000 + version as usize);
    let mut lines = String::from("# eighteen versions of one object\n");
    for version in 1..=18 {
        let path = cluster.file(&format!("v {version}.bin"), &content(version));
        lines += &format!("upload '{}' --name v.bin\n", text(&path));
    }
    let answer = shell(&cluster, &["anna"], &lines);
    ends(&answer, 0, &["v.bin  version 1  ", "v.bin  version 18  ", "tintype user export anna"]);
    assert_eq!(answer.stdout.lines().count(), 18, "{answer:?}");

    let versions = objects(&cluster.ok(&["ls", "--versions", "v.bin", "--json"]));
    let numbers: Vec<u64> = versions.iter().map(|v| v["version"].as_u64().expect("a number")).collect();
    assert_eq!(numbers, (3..=18).rev().collect::<Vec<_>>());
    assert!(versions.iter().all(|v| v["bytes"] == 3000 + v["version"].as_u64().expect("a number")));
    for version in [3, 11, 18] {
        assert_eq!(bytes_of(&cluster, version), Some(content(version)));
    }
    for version in [1, 2, 19] {
        assert_eq!(bytes_of(&cluster, version), None, "version {version}");
    }
    ends(&cluster.run(&["get", "v.bin", "--version", "2"]), 3, &["no version 2", "--versions"]);
    assert_eq!(cluster.get("v.bin"), Some(content(18)));

    let said = cluster.put("v.bin", &content(18));
    assert_eq!(said.trim(), "v.bin  version 18  unchanged  survives 0");
    assert_eq!(objects(&cluster.ok(&["stat", "v.bin", "--json"]))[0]["version"], 18);
    // The bytes of an older version are a new version all the same.
    let said = cluster.put("v.bin", &content(17));
    assert!(said.starts_with("v.bin  version 19  "), "{said}");

    let path = cluster.file("v.bin", &content(20));
    let put = |wanted: &str| cluster.run(&["put", text(&path), "--if-version", wanted, "--json"]);
    for wanted in ["0", "18", "20"] {
        let answer = put(wanted);
        ends(&answer, 4, &["version 19"]);
        assert_eq!(objects(&answer.stdout).pop().expect("a line")["exit"], 4);
    }
    ends(&put("19"), 0, &["\"version\":20"]);
    let fresh = cluster.run(&["put", text(&path), "--name", "new.bin", "--if-version", "0"]);
    ends(&fresh, 0, &["new.bin  version 1"]);
}

#[test]
fn what_was_removed_comes_back() {
    let cluster = Cluster::start(1);
    let (one, two) = (noise(1, 70_000), noise(2, 2 * MIB));
    cluster.put("r.bin", &one);
    cluster.put("keep.bin", &one);
    ends(&cluster.run(&["rm", "r.bin"]), 0, &["r.bin  version 2  removed", "undelete"]);
    let listing = cluster.ok(&["ls"]);
    assert!(!listing.contains("r.bin") && listing.contains("keep.bin"), "{listing}");
    assert!(cluster.ok(&["ls", "--removed"]).contains("removed"));
    assert_eq!(cluster.get("r.bin"), None);
    ends(&cluster.run(&["stat", "r.bin"]), 3, &["r.bin"]);
    ends(&cluster.run(&["rm", "r.bin"]), 3, &["r.bin"]);
    ends(&cluster.run(&["rm", "never.bin"]), 3, &["never.bin"]);
    ends(&cluster.run(&["undelete", "never.bin"]), 3, &["never.bin"]);
    ends(&cluster.run(&["undelete", "keep.bin"]), 1, &["not removed"]);

    ends(&cluster.run(&["undelete", "r.bin"]), 0, &["r.bin  version 3  is back"]);
    assert_eq!(cluster.get("r.bin"), Some(one.clone()));
    cluster.ok(&["rm", "r.bin", "keep.bin"]);
    // The same bytes, and others, after a removal.
    assert!(cluster.put("r.bin", &one).starts_with("r.bin  version 5  "));
    assert_eq!(cluster.get("r.bin"), Some(one.clone()));
    cluster.ok(&["rm", "r.bin"]);
    assert!(cluster.put("r.bin", &two).starts_with("r.bin  version 7  "));
    assert_eq!(cluster.get("r.bin"), Some(two));
    let older = cluster.command(&["get", "r.bin", "--version", "1", "-o", "-"]).output().expect("runs");
    assert_eq!(older.stdout, one);
    ends(&cluster.run(&["get", "r.bin", "--version", "2", "-o", "-"]), 3, &["no version 2"]);

    let found = objects(&cluster.ok(&["where", "r.bin", "--json"])).remove(0);
    assert_eq!((&found["version"], &found["fewest_copies"]), (&7.into(), &1.into()), "{found}");
    assert_eq!(found["copies"][0]["node"], "node-1");
    assert_eq!(found["copies"][0]["bodies"], found["bodies"]);
    assert!(found["copies"][0]["verified_unix_ms"].as_u64().is_some(), "{found}");
    let said = cluster.ok(&["verify"]);
    assert!(said.contains("2 objects (1 removed), ") && said.contains("all are good"), "{said}");
    let stat = cluster.ok(&["stat", "r.bin"]);
    for word in ["2097152 bytes", "2 chunks", "thumbnail  no", "7, 5, 3, 1", "node-1"] {
        assert!(stat.contains(word), "no {word:?} in {stat}");
    }
}

#[test]
fn each_user_has_objects_of_their_own() {
    let cluster = Cluster::start(1);
    let file = cluster.file("shared.bin", b"of anna");
    for args in [&["ls"][..], &["get", "shared.bin"], &["rm", "x"], &["verify"], &["ls", "--as", "anna"]] {
        ends(&cluster.run(args), 1, &["users", "tintype user import", "tintype user add"]);
    }
    ends(&cluster.run(&["put", text(&file), "--as", "anna"]), 1, &["anna", "user import", "user add"]);
    assert_eq!(cluster.ok(&["user", "ls"]), "", "nothing made a key");

    let first = cluster.run(&["put", text(&file)]);
    ends(&first, 0, &["Back it up now: `tintype user export ", "Without it nobody", "users"]);
    let me = objects(&cluster.ok(&["user", "ls", "--json"])).remove(0)["name"].clone();
    let me = me.as_str().expect("a name");
    assert!(!cluster.run(&["put", text(&file)]).stderr.contains("Back it up"), "said once");
    cluster.ok(&["user", "add", "bert"]);
    ends(&cluster.run(&["ls"]), 1, &["several users", "bert", me, "--as"]);
    // A wrong key and a missing object look the same.
    let (wrong, missing) = (["get", "shared.bin", "--as", "bert"], ["get", "other.bin", "--as", "bert"]);
    let (wrong, missing) = (cluster.run(&wrong), cluster.run(&missing));
    assert_eq!((wrong.code, missing.code), (Some(3), Some(3)));
    assert_eq!(wrong.stderr.replace("shared", "other"), missing.stderr);
    assert_eq!(cluster.ok(&["ls", "--as", "bert"]), "");

    let other = cluster.file("b/shared.bin", b"of bert, and longer");
    ends(&cluster.run(&["put", text(&other), "--as", "bert"]), 0, &["shared.bin  version 1"]);
    let get = |user: &str| {
        cluster.command(&["get", "shared.bin", "-o", "-", "--as", user]).output().expect("runs").stdout
    };
    assert_eq!((get(me), get("bert")), (b"of anna".to_vec(), b"of bert, and longer".to_vec()));
    cluster.ok(&["rm", "shared.bin", "--as", "bert"]);
    assert_eq!((get(me), get("bert")), (b"of anna".to_vec(), Vec::new()));

    std::fs::write(cluster.client.join("keys/users/bert.key"), "tintype-user-1:nonsense\n").expect("written");
    ends(&cluster.run(&["ls", "--as", "bert"]), 1, &["bert.key"]);
}

#[test]
fn the_shell_takes_lines_and_the_worst_counts() {
    let cluster = Cluster::start(1);
    let path = cluster.file("s p a c e.bin", &noise(4, 1000));
    let upload = format!("upload '{}'", text(&path));
    let answer = cluster.run(&["shell", "anna", "-c", &upload, "-c", "ls", "-c", "quit", "-c", "nonsense"]);
    ends(&answer, 0, &["s p a c e.bin  version 1"]);
    assert_eq!(answer.stdout.matches("s p a c e.bin").count(), 2, "{answer:?}");
    let out = cluster.dir().join("out.bin");
    let lines = format!(
        "download \"s p a c e.bin\" -o {}\n\n# a comment\nstat s\\ p\\ a\\ c\\ e.bin\nget missing.bin\nls\n",
        text(&out)
    );
    let answer = shell(&cluster, &[], &lines);
    ends(&answer, 3, &["missing.bin", "1000 bytes"]);
    assert_eq!(std::fs::read(&out).expect("a file"), noise(4, 1000));
    ends(&shell(&cluster, &[], "upload -\n"), 2, &["standard input"]);
    ends(&shell(&cluster, &[], "frobnicate\nls\n"), 2, &["frobnicate", "s p a c e.bin"]);

    let status = objects(&cluster.ok(&["status", "--json"])).remove(0);
    let promised = [
        "can_lose",
        "clients",
        "coordinator",
        "epoch",
        "foreign",
        "healthy",
        "leader",
        "nodes_alive",
        "nodes_total",
        "refused",
        "term",
        "under_repair",
    ];
    assert_eq!(fields(&status), promised);
    assert_eq!((&status["nodes_alive"], &status["epoch"]), (&1.into(), &1.into()), "{status}");
    let events = objects(&cluster.ok(&["events", "--json"]));
    assert!(!events.is_empty(), "founding is an event");
    assert!(events.iter().all(|event| fields(event) == ["number", "text", "unix_ms"]), "{events:?}");
    let mut follow = cluster.command(&["events", "--follow", "--json"]);
    let mut child = follow.stdout(Stdio::piped()).spawn().expect("the program starts");
    let told = BufReader::new(child.stdout.take().expect("a pipe")).lines().take(events.len());
    let told: Vec<String> = told.map_while(Result::ok).collect();
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert_eq!(objects(&told.join("\n")), events);
    let nodes = objects(&cluster.ok(&["nodes", "--json"]));
    let promised = ["addr", "capacity", "load", "name", "peer", "role", "slots", "state", "tasks", "used"];
    assert_eq!((nodes.len(), fields(&nodes[0])), (1, promised.to_vec()));
    let knobs = cluster.ok(&["config", "show"]);
    assert!(knobs.contains("node.port") && knobs.contains("put.copies"), "{knobs}");
}

/// A program in a home of its own, with no flag at all and no multicast.
fn alone(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).env("TINTYPE_HOME", home).env("TINTYPE_NETWORK_MDNS", "false");
    command.stdin(Stdio::null());
    command
}

#[test]
fn in_one_home_no_flag_is_needed() {
    let dir = tempfile::tempdir().expect("a folder");
    let home = dir.path().join("home");
    let file = dir.path().join("a.bin");
    std::fs::write(&file, noise(1, 100_000)).expect("written");
    let mut up = alone(&home, &["up", "--listen", "127.0.0.1:0"]);
    let mut node = up.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the node starts");
    let mut lines = BufReader::new(node.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let listening = lines.next().expect("it listens");
    assert!(listening.starts_with("listening peer=12D3"), "{listening}");
    assert_eq!(lines.next().as_deref(), Some("ready nodes=1"));

    let run = |args: &[&str]| finish(&mut alone(&home, args));
    ends(&run(&["put", text(&file)]), 0, &["a.bin  version 1"]);
    ends(&run(&["ls"]), 0, &["a.bin"]);
    ends(&run(&["status"]), 0, &["1 of 1 node"]);
    ends(&run(&[]), 0, &["1 of 1 node"]);
    let out = dir.path().join("out");
    ends(&run(&["get", "a.bin", "-o", text(&out)]), 0, &["a.bin"]);
    assert_eq!(std::fs::read(&out).expect("a file"), noise(1, 100_000));
    ends(&run(&["up"]), 1, &["runs on this home"]);

    ends(&run(&["down"]), 0, &["stopped"]);
    let status = node.wait().expect("it ended");
    assert_eq!(status.code(), Some(0), "the node was asked to stop");
    let again = run(&["down"]);
    ends(&again, 1, &["no node runs", "--home"]);
    ends(&run(&["ls"]), 5, &["no node answered"]);
    ends(&run(&[]), 0, &["tintype up"]);
}

/// Chunk files in a node's home.
fn chunk_files(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let count = |path: &Path| match path.file_name().is_some_and(|name| name == "tmp") {
        true => 0,
        false if path.is_dir() => chunk_files(path),
        false => 1,
    };
    entries.map_while(Result::ok).map(|entry| count(&entry.path())).sum()
}

#[cfg(unix)]
#[test]
fn an_interrupted_put_goes_on_where_it_stopped() {
    let cluster = Cluster::start(1);
    let bytes = noise(9, 16 * MIB);
    let mut put = cluster.command(&["put", "-", "--name", "big.bin", "--json"]);
    put.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = put.spawn().expect("the program starts");
    // Half of it comes, and then nothing for a long time: it is in the middle for sure.
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(&bytes[..10 * MIB]).expect("taken");
    let chunks = cluster.nodes.all[0].home.join("data/chunks");
    wait_for("chunks on the node", PATIENCE, || chunk_files(&chunks) >= 8);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill runs").success());
    wait_for("the end", Duration::from_secs(5), || child.try_wait().expect("asked").is_some());
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let last = objects(&String::from_utf8_lossy(&output.stdout)).pop().expect("a line");
    assert!(last["remedy"].as_str().expect("words").contains("run it again"), "{last}");
    drop(stdin);
    assert_eq!(cluster.get("big.bin"), None);

    let path = cluster.file("big.bin", &bytes);
    let connect =
        Connect { home: cluster.client.clone(), nodes: cluster.nodes.addresses(), ..Connect::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let written = runtime.block_on(async {
        let vault = Vault::open(connect).await.expect("a node");
        let put = Put {
            source: Source::Path(path),
            name: "big.bin".into(),
            force: false,
            if_version: None,
            copies: 3,
            thumbnail: false,
        };
        let done = vault.put(put, &|_| ()).await.expect("put");
        assert_eq!((done.version, done.bytes), (1, 16 * MIB as u64));
        let written = vault.stream_bytes_written();
        vault.close().await;
        written
    });
    assert!(written < 9 * MIB as u64, "{written} bytes were sent, though 8 of 16 chunks were there");
    assert_eq!(cluster.get("big.bin"), Some(bytes));
}
