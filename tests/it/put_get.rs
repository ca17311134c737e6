//! Putting, listing and getting on real nodes.

use crate::cluster::{Cluster, noise};

#[test]
fn one_node_keeps_what_it_is_given() {
    let cluster = Cluster::start(1);
    let bytes = noise(1, 300_000);
    let said = cluster.put("a.bin", &bytes);
    assert!(said.contains("a.bin  version 1") && said.contains("survives 0"), "{said}");
    assert_eq!(cluster.get("a.bin"), Some(bytes));
    assert!(cluster.ok(&["ls"]).contains("a.bin"));
}

#[test]
fn three_nodes_survive_the_loss_of_one() {
    let mut cluster = Cluster::start(3);
    let bytes = noise(2, 3_000_000);
    let said = cluster.put("b.bin", &bytes);
    assert!(said.contains("survives 1"), "{said}");
    cluster.nodes.kill(0).expect("killed");
    assert_eq!(cluster.get("b.bin"), Some(bytes.clone()));
    let said = cluster.put("c.bin", &bytes);
    assert!(said.contains("survives 1"), "{said}");
}
