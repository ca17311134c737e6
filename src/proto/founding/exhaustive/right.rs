//! The right founding within its bounds, the short ones always and the wide ones with `EXHAUSTIVE=long`.

use super::{Bounds, Variant, check};
use crate::proto::testing::goes_far;

/// Four nodes, of which three are wanted, and so many deaths and long waits, all nodes together.
pub(super) fn bounds(deaths: u8, waits: u8) -> Bounds {
    Bounds { variant: Variant::Right, nodes: 4, expect: 3, deaths, waits, proposals: 1 }
}

/// The short bounds, and if asked for the wide ones.
fn must_hold(short: Vec<Bounds>, wide: impl FnOnce() -> Vec<Bounds>) {
    let wide = if goes_far() { wide() } else { Vec::new() };
    for bounds in short.into_iter().chain(wide) {
        let report = check(bounds);
        if let Some((name, path)) = report.violation {
            panic!("{bounds:?}\nnot so: {name}\n{}", path.join("\n"));
        }
        assert!(report.unseen.is_empty(), "{bounds:?}: {:?}", report.unseen);
    }
}

#[test]
fn messages_are_lost_repeated_and_late() {
    must_hold(vec![bounds(0, 1)], || vec![bounds(0, 2), Bounds { proposals: 2, ..bounds(0, 1) }]);
}

#[test]
fn a_node_dies() {
    must_hold(vec![bounds(1, 0)], || vec![bounds(1, 1), bounds(2, 0)]);
}
