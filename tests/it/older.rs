//! An older state put back on a vault of one machine: no node can notice that, so the client's home must.

use std::path::Path;

use crate::{
    cluster::{Cluster, ends, noise, text},
    inspect::files_below,
};

fn copy_dir(from: &Path, to: &Path) {
    for path in files_below(from) {
        let target = to.join(path.strip_prefix(from).expect("below it"));
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("made");
        std::fs::copy(&path, &target).expect("copied");
    }
}

/// Stops the node, puts the older state in place of its own, and starts it again.
fn put_back(cluster: &mut Cluster, backup: &Path) {
    cluster.nodes.kill(0).expect("killed");
    let data = cluster.nodes.all[0].home.join("data");
    std::fs::remove_dir_all(&data).expect("removed");
    copy_dir(backup, &data);
    cluster.nodes.restart(0).expect("it starts again");
}

#[test]
fn a_listing_says_what_is_older_than_this_home_has_seen_or_gone() {
    let mut cluster = Cluster::start(1);
    cluster.ok(&["user", "add", "anna"]);
    cluster.ok(&["user", "add", "bert"]);
    let put = |cluster: &Cluster, user: &str, name: &str, seed: u64| {
        let path = cluster.file("in.bin", &noise(seed, 5000));
        cluster.ok(&["put", text(&path), "--name", name, "--as", user]);
    };
    for (user, name) in [("anna", "a.bin"), ("bert", "x.bin")] {
        put(&cluster, user, name, 1);
    }
    let backup = cluster.dir().join("backup");
    cluster.nodes.kill(0).expect("killed");
    copy_dir(&cluster.nodes.all[0].home.join("data"), &backup);
    cluster.nodes.restart(0).expect("it starts again");

    // One that is gone altogether, as a removed one would never be.
    put(&cluster, "anna", "b.bin", 2);
    cluster.ok(&["rm", "b.bin", "--as", "anna"]);
    put_back(&mut cluster, &backup);
    let (out, again) = (cluster.dir().join("out"), cluster.dir().join("again"));
    let means = ["(0 older, 1 gone)", "an older state was put back", "folder `state`"];
    ends(&cluster.run(&["ls", "--as", "anna"]), 6, &means);
    ends(&cluster.run(&["ls", "no such prefix", "--as", "anna"]), 6, &means);
    ends(&cluster.run(&["verify", "--as", "anna"]), 6, &means);
    ends(&cluster.run(&["get", "--all", "-o", text(&out), "--as", "anna"]), 6, &means);
    assert_eq!(std::fs::read(out.join("a.bin")).expect("a file"), noise(1, 5000));
    for args in [&["ls", "--as", "bert"][..], &["verify", "--as", "bert"], &["ls", "--any", "--as", "anna"]] {
        let answer = cluster.run(args);
        ends(&answer, 0, &[]);
        assert!(!answer.stderr.contains("older"), "{answer:?}");
    }

    // One of which an older version is there. Nothing older is taken for it.
    put(&cluster, "anna", "a.bin", 3);
    put_back(&mut cluster, &backup);
    let older =
        ["a.bin", "the nodes know only version 1, but this home has seen version 2", "(1 older, 1 gone)"];
    ends(&cluster.run(&["ls", "--as", "anna"]), 6, &older);
    let verified = cluster.run(&["verify", "--as", "anna"]);
    ends(&verified, 6, &older);
    assert_eq!(verified.stderr.matches("seen version 2").count(), 2, "each said once: {verified:?}");
    ends(&cluster.run(&["get", "--all", "-o", text(&again), "--as", "anna"]), 1, &older);
    assert!(!again.join("a.bin").exists());
    let remedy = ["start the nodes that hold the newer state", "folder `state`", "--any"];
    ends(&cluster.run(&["get", "a.bin", "-o", "-", "--as", "anna"]), 1, &remedy);
    let any = cluster.command(&["get", "a.bin", "-o", "-", "--any", "--as", "anna"]).output().expect("runs");
    assert_eq!(any.stdout, noise(1, 5000));

    // It was put back on purpose.
    std::fs::remove_dir_all(cluster.client.join("state")).expect("removed");
    for args in [
        &["ls", "--as", "anna"][..],
        &["verify", "--as", "anna"],
        &["get", "a.bin", "-o", "-", "--as", "anna"],
    ] {
        ends(&cluster.run(args), 0, &[]);
    }
}
