//! The right protocol within the bounds of each scenario, the short ones always and the wide ones with
//! `EXHAUSTIVE=long`: there is no state in which something does not hold.

use super::{
    check,
    scenario::{After, Ask, Client, HOME, OTHER, Scenario, THIRD, client},
};
use crate::proto::testing::goes_far;

/// A first write by the home, with the implicit ballot, against a full round of another.
pub(super) fn duel() -> Scenario {
    Scenario::new("duel", vec![client(&[(HOME, Ask::First)]), client(&[(OTHER, Ask::Rival)])])
}

/// A first write, and two reads one after the other at two other nodes.
pub(super) fn reads() -> Scenario {
    let reader = client(&[(OTHER, Ask::Read), (THIRD, Ask::Read)]);
    Scenario::new("reads", vec![client(&[(HOME, Ask::First)]), reader])
}

/// A node proposes, dies at any time, and proposes something else; another reads.
pub(super) fn again(who: usize) -> Scenario {
    let second = Client { after: After::Restart, calls: vec![(who, Ask::Rival)] };
    let clients = vec![client(&[(who, Ask::First)]), second, client(&[(THIRD, Ask::Read)])];
    Scenario { dies: Some(who), ..Scenario::new("again", clients) }
}

/// The home writes a second version without a prepare, against another second version.
fn cached() -> Scenario {
    let home = client(&[(HOME, Ask::First), (HOME, Ask::Second)]);
    Scenario::new("cached ballot", vec![home, client(&[(OTHER, Ask::RivalSecond)])])
}

/// The home gives a first write up, and its client tries something else there.
fn given_up() -> Scenario {
    let second = Client { after: After::Client(0), calls: vec![(HOME, Ask::Rival)] };
    let clients = vec![client(&[(HOME, Ask::First)]), second, client(&[(OTHER, Ask::Read)])];
    Scenario { give_ups: 1, ..Scenario::new("given up", clients) }
}

/// A first write, and another node settles what is there.
fn settled() -> Scenario {
    let settler = client(&[(OTHER, Ask::Settle), (OTHER, Ask::Read)]);
    Scenario::new("settled", vec![client(&[(HOME, Ask::First)]), settler])
}

fn each_dies(scenario: &Scenario) -> Vec<Scenario> {
    let dies = |who| Scenario { dies: Some(who), ..scenario.clone() };
    [HOME, OTHER, THIRD].map(dies).into()
}

/// Of each the short bounds, and if asked for the wide ones.
fn must_hold(short: Vec<Scenario>, wide: impl FnOnce() -> Vec<Scenario>) {
    let wide = if goes_far() { wide() } else { Vec::new() };
    for scenario in short.into_iter().chain(wide) {
        let report = check(&scenario);
        if let Some((name, path)) = report.violation {
            panic!("{scenario:?}\nnot so: {name}\n{}", path.join("\n"));
        }
        assert!(report.unseen.is_empty(), "{scenario:?}: {:?}", report.unseen);
    }
}

#[test]
fn a_first_write_against_a_full_round() {
    let far = Scenario { home_is_first: false, ..duel() };
    let short = vec![duel(), far.clone(), Scenario { fires: 1, ..duel() }];
    must_hold(short, || {
        vec![
            Scenario { fires: 2, ..duel() },
            Scenario { fires: 2, ..far },
            Scenario { late_answers: true, ..duel() },
            Scenario { slow_disks: true, ..duel() },
        ]
    });
}

#[test]
fn a_first_write_against_a_full_round_while_a_node_dies() {
    must_hold(each_dies(&duel()), || {
        let mut wide = each_dies(&Scenario { fires: 1, ..duel() });
        wide.extend(each_dies(&Scenario { home_is_first: false, ..duel() }));
        wide.extend(each_dies(&Scenario { slow_disks: true, ..duel() }));
        wide
    });
}

#[test]
fn reads_beside_a_first_write() {
    let mut short = each_dies(&reads());
    short.extend([reads(), settled(), Scenario { fires: 1, ..reads() }]);
    must_hold(short, || {
        let mut wide = each_dies(&Scenario { fires: 1, ..reads() });
        wide.extend(each_dies(&Scenario { fires: 1, ..settled() }));
        wide
    });
}

#[test]
fn a_proposer_that_died_proposes_something_else() {
    must_hold(vec![again(HOME), again(OTHER)], || {
        let wide = |who| Scenario { fires: 1, ..again(who) };
        let slow = |who| Scenario { slow_disks: true, ..again(who) };
        vec![wide(HOME), wide(OTHER), slow(HOME), slow(OTHER)]
    });
}

#[test]
fn a_second_write_with_the_ballot_promised_before() {
    must_hold(vec![cached()], || {
        let mut wide = each_dies(&cached());
        wide.push(Scenario { fires: 1, ..cached() });
        wide.push(Scenario { home_is_first: false, fires: 1, ..cached() });
        wide
    });
}

#[test]
fn a_call_that_was_given_up() {
    must_hold(vec![given_up()], || vec![Scenario { fires: 1, ..given_up() }]);
}

#[test]
fn repair_hands_in_what_is_chosen_at_any_time() {
    must_hold(vec![Scenario { repairs: true, ..duel() }], || {
        let mut wide = each_dies(&Scenario { repairs: true, ..duel() });
        wide.push(Scenario { repairs: true, fires: 1, ..duel() });
        wide.push(Scenario { repairs: true, ..cached() });
        wide
    });
}

#[test]
fn calls_are_forwarded_to_the_home() {
    must_hold(vec![Scenario { forwards: true, fires: 1, ..duel() }], || {
        vec![
            Scenario { forwards: true, fires: 2, ..duel() },
            Scenario { forwards: true, fires: 1, ..reads() },
            Scenario { forwards: true, dies: Some(HOME), fires: 1, ..duel() },
        ]
    });
}
