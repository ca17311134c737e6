//! Schedules with handovers: the right protocol holds, and each wrong one is found.

use super::*;

fn quirks(variant: Variant, objects: u8) -> Quirks {
    Quirks { variant, handovers: 3, objects, span: 4000, ..Quirks::default() }
}

fn must_hold(count: usize, objects: u8, schedules: u64) {
    let (mut activated, mut failed, mut smaller) = (0, 0, 0);
    let mut answers = BTreeMap::<&str, u64>::new();
    for seed in seeds(schedules) {
        match World::new(seed, count, quirks(Variant::Right, objects)).run() {
            Ok(world) => {
                activated += world.authority.activated;
                failed += world.authority.failed;
                smaller += u64::from(world.copies.contains_key(&1));
                world.answers.into_iter().for_each(|(kind, n)| *answers.entry(kind).or_default() += n);
            }
            Err(what) => panic!("{count} nodes, {objects} objects, SEED={seed}: {what}"),
        }
    }
    println!(
        "{count} nodes, {objects} objects, {schedules} schedules: {activated} activated, {failed} failed, \
         {smaller} with a lone acceptor, {answers:?}"
    );
    assert_eq!(activated, 3 * schedules);
    assert!(failed > schedules / 4 && answers["committed"] > schedules && answers["value"] > schedules);
}

#[test]
fn handovers_among_four_nodes_hold_what_must_hold() {
    must_hold(4, 1, 300);
}

#[test]
fn handovers_of_several_objects_among_five_nodes_hold_what_must_hold() {
    must_hold(5, 4, 200);
}

#[test]
fn handovers_among_three_nodes_hold_what_must_hold() {
    must_hold(3, 2, 100);
}

fn must_be_found(schedules: u64, quirks: Quirks) {
    println!("{:?}", find_violation(4, schedules, quirks).expect("a wrong variant that was not found"));
}

#[test]
fn a_handover_without_a_fence_is_found() {
    must_be_found(300, quirks(Variant::NoFence, 1));
}

#[test]
fn an_implicit_ballot_after_a_handover_is_found() {
    let right = quirks(Variant::ImplicitAfterHandover, 4);
    must_be_found(1000, Quirks { handovers: 4, loss: 20, ..right });
}

#[test]
fn an_install_at_the_old_ballots_is_found() {
    let right = quirks(Variant::InstallOldBallot, 4);
    must_be_found(1200, Quirks { handovers: 4, loss: 20, ..right });
}
