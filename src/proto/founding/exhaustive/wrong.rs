//! Wrong variants of the founding: each is found, within bounds in which the right one has nothing to be
//! found.

use super::{Bounds, Variant, check, right::bounds};

fn must_be_found(variant: Variant, bounds: Bounds) {
    assert_eq!(check(bounds).violation, None, "the right one within {bounds:?}");
    let wrong = Bounds { variant, ..bounds };
    let Some((name, path)) = check(wrong).violation else { panic!("not found: {wrong:?}") };
    println!("{variant:?}, not so: {name}\n{}", path.join("\n"));
}

#[test]
fn a_vote_said_before_it_is_durable() {
    must_be_found(Variant::SpeakBeforePersisting, bounds(1, 0));
}

#[test]
fn a_voter_that_takes_its_vote_back() {
    must_be_found(Variant::VoterTakesBack, bounds(0, 1));
}

#[test]
fn an_abort_after_the_founding() {
    must_be_found(Variant::AbortAfterFounding, bounds(0, 1));
}
