//! The wrong variants: each is found, in a scenario in which the right one has nothing to be found.

use super::{
    check,
    right::{again, duel, reads},
    scenario::{HOME, OTHER, Scenario, THIRD},
};
use crate::proto::chunkpaxos::Variant;

fn must_be_found(wrong: Scenario) {
    let right = Scenario { variant: Variant::Right, wipe: false, ..wrong.clone() };
    assert_eq!(check(&right).violation, None, "the right one in {right:?}");
    let Some((name, path)) = check(&wrong).violation else { panic!("not found: {wrong:?}") };
    println!("{:?}, not so: {name}\n{}", wrong.variant, path.join("\n"));
}

#[test]
fn the_implicit_ballot_without_the_empty_check() {
    must_be_found(Scenario { variant: Variant::ImplicitWithoutEmptyCheck, ..duel() });
}

#[test]
fn two_nodes_that_both_skip_the_prepare() {
    must_be_found(Scenario { variant: Variant::EveryoneSkipsPrepare, ..duel() });
}

#[test]
fn a_bare_quorum_read() {
    must_be_found(Scenario { variant: Variant::BareQuorumRead, ..reads() });
}

#[test]
fn speaking_before_persisting() {
    let dies = Some(THIRD);
    must_be_found(Scenario { variant: Variant::SpeakBeforePersisting, dies, ..reads() });
}

#[test]
fn a_wiped_acceptor_with_the_same_identity() {
    must_be_found(Scenario { wipe: true, dies: Some(THIRD), ..reads() });
}

#[test]
fn the_implicit_ballot_again_after_a_restart() {
    must_be_found(Scenario { variant: Variant::ImplicitAgainAfterRestart, ..again(HOME) });
}

/// What random schedules do not find easily: a majority promises a ballot, its value reaches one acceptor,
/// the proposer dies, and another majority, with that acceptor not in it, lets it have the ballot once more.
#[test]
fn ballots_reused_after_a_restart() {
    must_be_found(Scenario { variant: Variant::BallotsReused, ..again(OTHER) });
}
