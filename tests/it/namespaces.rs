//! Zero configuration on a real network: hosts with an address of their own each, joined by a bridge, that
//! have nothing in common but the cluster key.
//!
//! Hosts are network namespaces, which needs Linux, root and iproute2; elsewhere the tests say why and pass.

#![cfg(target_os = "linux")]

use std::time::Duration;

use serde_json::Value;

use crate::{
    cluster::{Answer, ends, noise, objects, text, wait_for},
    lan::{Lan, new_key},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn names_in(nodes: &Answer) -> Vec<String> {
    let name = |node: &Value| node["name"].as_str().expect("a name").to_owned();
    let mut names: Vec<String> = objects(&nodes.stdout).iter().map(name).collect();
    names.sort();
    names
}

#[test]
fn three_hosts_and_a_client_with_the_same_key_find_each_other() {
    let Some(mut lan) = Lan::new(4) else { return };
    let key = new_key(lan.dir.path(), "made");
    let nodes: Vec<_> = (1..=3).map(|host| (host, lan.up(host, &key, "3"))).collect();
    lan.wait_ready(&nodes, 3);
    let client = lan.home("client", &key);
    let nodes = lan.run(4, &client, &["nodes", "--json"]);
    assert_eq!(names_in(&nodes), ["host-1", "host-2", "host-3"], "{nodes:?}");
    let (path, out) = (lan.dir.path().join("a.bin"), lan.dir.path().join("out.bin"));
    let bytes = noise(1, 3_000_000);
    std::fs::write(&path, &bytes).expect("written");
    ends(&lan.run(4, &client, &["put", text(&path)]), 0, &["a.bin  version 1", "survives 1"]);
    // Another machine that has nothing but the keys.
    let other = lan.home("other", &key);
    let users = other.join("keys/users");
    std::fs::create_dir_all(&users).expect("made");
    for user in std::fs::read_dir(client.join("keys/users")).expect("users").flatten() {
        std::fs::copy(user.path(), users.join(user.file_name())).expect("copied");
    }
    ends(&lan.run(4, &other, &["get", "a.bin", "-o", text(&out)]), 0, &[]);
    assert_eq!(std::fs::read(&out).expect("read"), bytes);
}

#[test]
fn two_clusters_on_one_switch_leave_each_other_alone() {
    let Some(mut lan) = Lan::new(4) else { return };
    let keys = ["one", "other"].map(|name| new_key(lan.dir.path(), name));
    let nodes: Vec<_> = (1..=4).map(|host| (host, lan.up(host, &keys[(host - 1) / 2], "2"))).collect();
    lan.wait_ready(&nodes, 2);
    let path = lan.dir.path().join("a.bin");
    std::fs::write(&path, noise(1, 100_000)).expect("written");
    for (cluster, key) in keys.iter().enumerate() {
        let first = 2 * cluster + 1;
        let client = lan.home(&format!("client-{cluster}"), key);
        let nodes = lan.run(first, &client, &["nodes", "--json"]);
        assert_eq!(names_in(&nodes), [format!("host-{first}"), format!("host-{}", first + 1)], "{nodes:?}");
        // The first version in either: they share nothing.
        ends(&lan.run(first, &client, &["put", text(&path)]), 0, &["a.bin  version 1", "survives 1"]);
        wait_for("a word about the neighbours", PATIENCE, || {
            let status = lan.run(first, &client, &["status", "--json"]);
            let status = objects(&status.stdout).pop().expect("a line");
            assert_eq!((&status["nodes_total"], &status["nodes_alive"]), (&2.into(), &2.into()), "{status}");
            status["foreign"].as_array().is_some_and(|foreign| !foreign.is_empty())
        });
    }
}
