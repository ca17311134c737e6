//! What is kept of an object beside its current version: the versions behind it, what `rm` hid, and as many
//! copies as its owner asked for. On real nodes, by the real program.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use crate::{
    cluster::{Answer, Cluster, PROGRAM, finish, noise, wait_for},
    inspect::{chunk_files, flip_a_bit, json, status_at, wait_until_healthy},
};

const PATIENCE: Duration = Duration::from_secs(30);

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[track_caller]
fn ends(answer: &Answer, code: i32, words: &[&str]) {
    assert_eq!(answer.code, Some(code), "{answer:?}");
    for word in words {
        assert!(answer.stdout.contains(word) || answer.stderr.contains(word), "no {word:?} in {answer:?}");
    }
}

/// Puts bytes; the chunk files that this made on the first node.
#[track_caller]
fn put_noting_files(cluster: &Cluster, name: &str, bytes: &[u8]) -> Vec<PathBuf> {
    let home = &cluster.nodes.all[0].home;
    let before: BTreeSet<PathBuf> = chunk_files(home).into_iter().collect();
    cluster.put(name, bytes);
    chunk_files(home).into_iter().filter(|file| !before.contains(file)).collect()
}

/// The id of the chunk that a file holds.
fn id_of(file: &Path) -> &str {
    file.file_name().and_then(|name| name.to_str()).expect("an id")
}

/// Puts bytes with so many copies; the answer.
#[track_caller]
fn put_copies(cluster: &Cluster, name: &str, bytes: &[u8], copies: &str) -> Value {
    let path = cluster.file(&format!("in/{name}"), bytes);
    let answer = cluster.run(&["put", text(&path), "--name", name, "--copies", copies, "--json"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    json(&answer)
}

/// Puts objects with one copy each until one lies on a single node, manifest and chunk: name and node.
#[track_caller]
fn put_on_one_node(cluster: &Cluster, bytes: &[u8]) -> (String, usize) {
    for n in 0..64 {
        let name = format!("single-{n}.bin");
        put_copies(cluster, &name, bytes, "1");
        let found = json(&cluster.run(&["where", &name, "--json"]));
        let has_all = |copy: &&Value| copy["bodies"] == found["bodies"];
        if let Some(copy) = found["copies"].as_array().expect("nodes").iter().find(has_all) {
            let node = cluster.nodes.all.iter().position(|node| copy["node"] == node.name);
            return (name, node.expect("one of them"));
        }
    }
    panic!("no object of two bodies lies on one node");
}

#[test]
fn verify_reads_the_versions_behind_and_what_was_removed() {
    let cluster = Cluster::start(1);
    let (one, two) = (noise(1, 100_000), noise(2, 100_000));
    let old = put_noting_files(&cluster, "a.bin", &one).remove(0);
    put_noting_files(&cluster, "a.bin", &two);
    // Shared with the first version, so asked about once.
    cluster.put("a.bin", &one);
    let good = cluster.run(&["verify", "--json"]);
    ends(&good, 0, &[]);
    let good = json(&good);
    assert_eq!(
        (&good["objects"], &good["versions"], &good["copies_read"]),
        (&1.into(), &3.into(), &5.into())
    );
    cluster.put("a.bin", &noise(3, 100_000));

    let whole = std::fs::read(&old).expect("read");
    flip_a_bit(&old);
    for args in [&["verify", "--json"][..], &["verify", "a.bin", "--json"]] {
        let found = cluster.run(args);
        ends(&found, 6, &["a.bin version 3", id_of(&old)]);
        assert_eq!(json(&found)["lost"], 1, "{found:?}");
        std::fs::write(&old, &whole).expect("written");
        flip_a_bit(&old);
    }
    std::fs::write(&old, &whole).expect("written");
    ends(&cluster.run(&["verify"]), 0, &["1 object, 4 versions: ", "all are good"]);

    cluster.ok(&["rm", "a.bin"]);
    ends(&cluster.run(&["verify"]), 0, &["1 object (1 removed), 4 versions: ", "all are good"]);
    std::fs::remove_file(&old).expect("removed");
    for args in [&["verify"][..], &["verify", "a.bin"]] {
        ends(&cluster.run(args), 6, &["a.bin version 3", id_of(&old)]);
    }
    ends(&cluster.run(&["verify", "never.bin"]), 3, &["never.bin"]);
}

#[test]
fn a_version_behind_that_cannot_be_read_keeps_no_other_from_it() {
    let mut cluster = Cluster::start(3);
    let (name, node) = put_on_one_node(&cluster, &noise(1, 100_000));
    put_copies(&cluster, &name, &noise(2, 100_000), "3");
    wait_for("three copies", PATIENCE, || {
        json(&cluster.run(&["where", &name, "--json"]))["fewest_copies"] == 3
    });
    cluster.nodes.kill(node).expect("killed");
    let found = cluster.run(&["verify", &name, "--json"]);
    ends(&found, 6, &["version 1 cannot be read"]);
    let found = json(&found);
    assert_eq!(
        (&found["versions"], &found["copies_read"], &found["lost"]),
        (&2.into(), &4.into(), &1.into())
    );
}

#[test]
fn what_is_lost_is_not_brought_back_and_what_is_there_is() {
    let mut cluster = Cluster::start(3);
    let (lost, there) = (noise(1, 100_000), noise(2, 100_000));
    for (name, bytes) in [("lost.bin", &lost), ("there.bin", &there)] {
        put_copies(&cluster, name, bytes, "3");
        wait_for("three copies", PATIENCE, || {
            json(&cluster.run(&["where", name, "--json"]))["fewest_copies"] == 3
        });
    }
    let homes: Vec<PathBuf> = cluster.nodes.all.iter().map(|node| node.home.clone()).collect();
    cluster.ok(&["rm", "lost.bin", "there.bin"]);
    let kept = chunk_files(&homes[0]).into_iter().map(|file| (std::fs::read(&file).expect("read"), file));
    let kept: Vec<(Vec<u8>, PathBuf)> = kept.collect();
    // Which of the two files is which shows only when one of them is gone.
    let (whole, gone) = &kept[0];
    for home in &homes {
        let file = chunk_files(home).into_iter().find(|file| id_of(file) == id_of(gone));
        std::fs::remove_file(file.expect("a copy on every node")).expect("removed");
    }
    let answer = cluster.run(&["undelete", "lost.bin", "there.bin"]);
    ends(&answer, 1, &["cannot be brought back", id_of(gone), "is back"]);
    let is_back = |name: &str| answer.stdout.contains(&format!("{name}  version 3  is back"));
    assert_ne!(is_back("lost.bin"), is_back("there.bin"), "{answer:?}");
    let (lost, bytes) = match is_back("lost.bin") {
        true => ("there.bin", there),
        false => ("lost.bin", lost),
    };
    assert_eq!(cluster.get(lost), None, "it is still removed");

    // One copy is enough, and who could not be asked is named.
    std::fs::write(chunk_path(&homes[1], gone), whole).expect("written");
    cluster.nodes.kill(2).expect("killed");
    ends(&cluster.run(&["undelete", lost]), 0, &["is back", "not asked, because silent: "]);
    assert!(cluster.get(lost).as_deref() == Some(&bytes[..]));
}

/// Where a node keeps the chunk that lies at `file` on another.
fn chunk_path(home: &Path, file: &Path) -> PathBuf {
    let below: Vec<_> = file.iter().rev().take(2).collect();
    home.join("data/chunks").join(below.into_iter().rev().collect::<PathBuf>())
}

/// Bodies of an object that are on nodes, and that should be.
fn on_nodes(cluster: &Cluster, name: &str) -> (u64, u64) {
    let found = json(&cluster.run(&["where", name, "--json"]));
    let sum = |field: &str| {
        let nodes = found["copies"].as_array().expect("nodes").iter();
        nodes.map(|copy| copy[field].as_u64().expect("a number")).sum()
    };
    (sum("bodies"), sum("placed"))
}

#[track_caller]
fn wait_until_may_lose(cluster: &Cluster, machines: u64) {
    for node in 0..cluster.nodes.all.len() {
        wait_for(&format!("node {node} says that {machines} may be lost"), PATIENCE, || {
            status_at(cluster, node)["can_lose"] == machines
        });
    }
}

#[test]
fn one_copy_stays_one_copy_until_more_are_wanted() {
    let cluster = Cluster::start(3);
    wait_until_healthy(&cluster);
    wait_until_may_lose(&cluster, 1);
    let bytes = noise(1, 2_300_000);
    let done = put_copies(&cluster, "s.bin", &bytes, "1");
    assert_eq!((&done["copies_wanted"], &done["survives"]), (&1.into(), &0.into()), "{done}");
    wait_until_may_lose(&cluster, 0);
    let said = cluster.ok(&["status"]);
    assert!(said.contains("Healthy: 3 of 3 nodes answer; but 1 object was stored with one copy"), "{said}");

    // Three chunks and the manifest: nothing is missing, and looking brings nothing anywhere.
    assert_eq!(on_nodes(&cluster, "s.bin"), (4, 4));
    let found = cluster.run(&["verify", "--json"]);
    ends(&found, 0, &[]);
    assert_eq!((&json(&found)["copies_read"], &json(&found)["missing"]), (&4.into(), &0.into()), "{found:?}");
    assert_eq!(on_nodes(&cluster, "s.bin"), (4, 4));
    let again = put_copies(&cluster, "s.bin", &bytes, "1");
    assert_eq!((&again["unchanged"], &again["survives"]), (&true.into(), &0.into()), "{again}");

    for (version, copies, on) in [(2, "2", (8, 8)), (3, "3", (12, 12))] {
        let more = put_copies(&cluster, "s.bin", &bytes, copies);
        assert_eq!((&more["unchanged"], &more["version"]), (&false.into(), &version.into()), "{more}");
        assert_eq!(more["survives"], 1, "{more}");
        // The last copy of the manifest is passed on after the answer.
        wait_for("more copies", PATIENCE, || on_nodes(&cluster, "s.bin") == on);
    }
    wait_until_may_lose(&cluster, 1);
    let fewer = put_copies(&cluster, "s.bin", &bytes, "1");
    assert_eq!((&fewer["unchanged"], &fewer["version"]), (&false.into(), &4.into()), "{fewer}");
    wait_until_may_lose(&cluster, 0);
    ends(&cluster.run(&["verify"]), 0, &["all are good"]);
}

#[test]
fn what_cannot_be_read_can_be_removed_and_is_not_written_over() {
    let mut cluster = Cluster::start(3);
    let bytes = noise(1, 100_000);
    let (name, node) = put_on_one_node(&cluster, &bytes);
    cluster.nodes.kill(node).expect("killed");
    let other = cluster.file("other.bin", &noise(2, 1000));
    let put = cluster.run(&["put", text(&other), "--name", &name]);
    let silent = cluster.nodes.all[node].name.clone();
    let says = [&name, "version 1 cannot be read", "older versions", "tintype nodes", "--name"];
    ends(&put, 5, &says);
    ends(&put, 5, &[&format!("start {silent} ")]);
    let get = cluster.run(&["get", &name, "-o", "-"]);
    ends(&get, 5, &["is on no node that answers", &format!("silent: {silent}"), &format!("start {silent} ")]);
    ends(&cluster.run(&["rm", &name]), 0, &["version 2  removed"]);
    assert_eq!(cluster.get(&name), None);
    assert!(!cluster.ok(&["ls"]).contains(&name));
    ends(&cluster.run(&["undelete", &name]), 5, &[&name, &format!("start {silent} ")]);
    cluster.nodes.restart(node).expect("ready again");
    ends(&cluster.run(&["undelete", &name]), 0, &["version 3  is back"]);
    assert!(cluster.get(&name).as_deref() == Some(&bytes[..]));
}

#[cfg(unix)]
#[test]
fn a_home_that_cannot_remember_takes_nothing_back() {
    let cluster = Cluster::start(1);
    cluster.put("a.bin", &noise(1, 1000));
    let next = cluster.file("next.bin", &noise(2, 1000));
    // Nothing can be written to any file from here on, as on a full disk.
    let full = |args: &[&str]| {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh", PROGRAM]).args(args);
        shell.arg("--home").arg(&cluster.client).stdin(std::process::Stdio::null());
        for addr in cluster.nodes.addresses() {
            shell.args(["--node", &addr]);
        }
        finish(&mut shell)
    };
    let noted = "could not be noted in this home";
    let put = ["put", text(&next), "--name", "a.bin"];
    ends(&full(&put), 0, &["a.bin  version 2  ", noted]);
    assert!(cluster.get("a.bin").as_deref() == Some(&noise(2, 1000)[..]));
    ends(&full(&["rm", "a.bin"]), 0, &["a.bin  version 3  removed", noted]);
    // Reading notes what was read, now that there is room.
    assert_eq!(cluster.get("a.bin"), None);
    ends(&full(&["undelete", "a.bin"]), 0, &["a.bin  version 4  is back", noted]);
}

#[test]
fn of_four_nodes_each_knows_that_a_single_copy_is_somewhere() {
    let cluster = Cluster::start(4);
    wait_until_healthy(&cluster);
    wait_until_may_lose(&cluster, 1);
    put_copies(&cluster, "s.bin", &noise(1, 1000), "1");
    // One of them keeps nothing of the object, not even its register.
    wait_until_may_lose(&cluster, 0);
    let said = cluster.ok(&["status"]);
    assert!(said.contains("but at least 1 object was stored with one copy"), "{said}");
}
