//! Schedules within the founding's view: the right protocol holds, and each wrong one is found.

use super::*;

fn must_hold(count: usize, schedules: u64) {
    let mut answers = BTreeMap::<&str, u64>::new();
    let mut copies = BTreeMap::<u64, u64>::new();
    for seed in seeds(schedules) {
        match World::new(seed, count, Quirks::default()).run() {
            Ok(world) => {
                world.answers.into_iter().for_each(|(kind, n)| *answers.entry(kind).or_default() += n);
                world.copies.into_iter().for_each(|(kind, n)| *copies.entry(kind).or_default() += n);
            }
            Err(what) => panic!("{count} nodes, SEED={seed}: {what}"),
        }
    }
    println!("{count} nodes, {schedules} schedules: {answers:?}, copies {copies:?}");
    assert!(answers["committed"] > schedules && answers["conflict"] > 0 && answers["value"] > schedules);
    // Three acceptors answer at two copies; with a mirror there are two copies or, while it is away, one.
    let expected: &[u64] = match count {
        1 => &[1],
        2 => &[1, 2],
        _ => &[2],
    };
    assert_eq!(copies.keys().copied().collect::<Vec<_>>(), expected);
}

fn must_be_found(schedules: u64, quirks: Quirks) {
    println!("{:?}", find_violation(3, schedules, quirks).expect("a wrong variant that was not found"));
}

fn of(variant: Variant) -> Quirks {
    Quirks { variant, ..Quirks::default() }
}

#[test]
fn three_nodes_hold_what_must_hold() {
    must_hold(3, 1200);
}

#[test]
fn more_nodes_than_acceptors_hold_what_must_hold() {
    must_hold(5, 300);
}

#[test]
fn an_acceptor_and_a_mirror_hold_what_must_hold() {
    must_hold(2, 300);
}

#[test]
fn one_node_holds_what_must_hold() {
    must_hold(1, 100);
}

#[test]
fn the_implicit_ballot_without_the_empty_check_is_found() {
    must_be_found(2000, of(Variant::ImplicitWithoutEmptyCheck));
}

#[test]
fn the_implicit_ballot_again_after_a_restart_is_found() {
    must_be_found(2000, of(Variant::ImplicitAgainAfterRestart));
}

#[test]
fn speaking_before_persisting_is_found() {
    must_be_found(2000, of(Variant::SpeakBeforePersisting));
}

#[test]
fn two_nodes_that_both_skip_the_prepare_are_found() {
    must_be_found(2000, of(Variant::EveryoneSkipsPrepare));
}

#[test]
fn a_bare_quorum_read_is_found() {
    must_be_found(2000, of(Variant::BareQuorumRead));
}

#[test]
fn a_wiped_acceptor_with_the_same_identity_is_found() {
    must_be_found(2000, Quirks { wipe: true, ..Quirks::default() });
}

#[test]
fn a_boot_number_used_twice_is_found() {
    must_be_found(1000, Quirks { same_boot: true, crashes: 60, loss: 30, ..Quirks::default() });
}

#[test]
fn ballots_reused_after_a_restart_are_found() {
    // Only a restart while an object is new can meet its own first ballots.
    let early = |span, crashes| Quirks { span, crashes, loss: 20, ..of(Variant::BallotsReused) };
    let mut found = [early(700, 14), early(400, 10), early(1500, 25)].into_iter();
    let found = found.find_map(|quirks| find_violation(3, 1500, quirks));
    println!("{:?}", found.expect("a wrong variant that was not found"));
}
