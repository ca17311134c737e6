//! The simulator: whole nodes and clients in one thread, in a world whose every choice comes from a seed.
//!
//! Each node is all machines of `proto`, wired as the real driver wires them, with the real encodings on
//! disk and wire and the real seals; each client puts, gets and removes step by step, and has tasks done by
//! the workers that elected coordinators find. The network loses,
//! repeats, reorders and delays, and is cut one way or both; disks lose what was not synced, rot, fill up and
//! slow down; clocks drift and jump; processes die, stand still, and machines are lost for good. What must
//! hold is in `oracle`, one file each.
//!
//! `SEED=n` repeats one run and prints it to the last message; `TINTYPE_SEEDS=n` runs so many, `m..n` those:
//! `TINTYPE_SEEDS=100000 cargo test --release sim`.
//!
//! It is not the real driver (`node::event_loop`), transport or disk: those are met by real processes in the
//! other modules of these tests.

mod authority;
mod bodies;
mod client;
mod dice;
mod faults;
mod foe;
mod links;
mod node;
mod oracle;
mod repair;
mod report;
mod run;
mod serve;
mod store;
mod tasks;
mod world;

use tintype::proto::chunkpaxos::Variant;

use faults::Wrong;
use run::{Runner, run};

/// Seeds of one `cargo test`.
const SEEDS: u64 = 600;

/// Seeds beyond those that have found something once, and what.
const FOUND: [(u64, &str); 10] = [
    (29108, "a first write without a prepare, after a handover, overtook what its writer had missed"),
    (383, "a reservation sent again came to a worker's next process, which took a place for it (no bug)"),
    (1397, "repair looked among the founding's acceptors after a hash slot was handed over to others"),
    (1659, "after a power cut a node claimed below what a machine with more starts had once taught it"),
    (
        20731,
        "both of two were about to stand when they did not see each other for a moment, and never did again",
    ),
    (5262, "a chunk missed a holder, and repair ran before its object was agreed on and not after that"),
    (86315, "who was to pass a chunk on died, started and ran its repair before its object was agreed on"),
    (2648, "the only copy rotted of what was acknowledged as surviving no loss (no bug)"),
    (2789, "the same, and its version could not be read (no bug)"),
    (1627, "what reached a process that stood still was heard by its successor, after a power cut (no bug)"),
];

#[test]
fn what_must_hold_holds_for_every_seed() {
    let tally = Runner::from_environment(SEEDS).run_all();
    if tally.runs >= SEEDS {
        assert!(tally.fault_kinds() >= 15, "{tally}");
        assert!(tally.succeeded > 20 * tally.runs && tally.acknowledged > 5 * tally.runs, "{tally}");
        assert!(
            tally.corrupt_found > 0 && tally.bodies_repaired > 0 && tally.forgeries_refused > 0,
            "{tally}"
        );
        assert!(tally.effective > 3 * tally.runs && tally.moved > tally.runs / 4, "{tally}");
        assert!(tally.elections > tally.runs, "{tally}");
    }
}

#[test]
fn seeds_that_have_found_something_once_find_nothing() {
    for (seed, what) in FOUND {
        assert_eq!(run(seed, Wrong::default()).failure, None, "seed {seed}, which found: {what}");
    }
}

#[test]
fn a_seed_repeats_its_run_to_the_last_message() {
    for seed in [3, 17, 40] {
        let (one, other) = (run(seed, Wrong::default()), run(seed, Wrong::default()));
        assert_eq!(one.digest, other.digest, "seed {seed}");
        assert!(one.tally.sent > 100, "seed {seed}: {}", one.tally);
    }
    assert_ne!(run(3, Wrong::default()).digest, run(4, Wrong::default()).digest);
}

/// A wrong protocol is found within so many seeds, where the right one holds. All that are known are found
/// next to the protocol, too, by schedules of one object (`proto::chunkpaxos`).
#[track_caller]
fn is_found(wrong: Wrong, seeds: u64) {
    let found = (0..seeds).find_map(|seed| run(seed, wrong).failure.map(|what| (seed, what)));
    let (seed, what) = found.expect("a wrong protocol that was not found");
    assert_eq!(run(seed, Wrong::default()).failure, None, "not what is wrong was found");
    println!("{wrong:?}: seed {seed}: {what}");
}

#[test]
fn the_implicit_ballot_without_the_empty_check_is_found() {
    is_found(Wrong { variant: Variant::ImplicitWithoutEmptyCheck, ..Wrong::default() }, 300);
}

#[test]
fn speaking_before_persisting_is_found() {
    is_found(Wrong { variant: Variant::SpeakBeforePersisting, ..Wrong::default() }, 300);
}

#[test]
fn a_handover_that_scans_without_a_fence_is_found() {
    is_found(Wrong { variant: Variant::NoFence, ..Wrong::default() }, 400);
}

#[test]
fn counters_that_begin_anew_with_each_start_are_found() {
    is_found(Wrong { forgets_its_claims: true, ..Wrong::default() }, 300);
}

#[test]
fn a_coordinator_that_takes_silence_for_a_refusal_is_found() {
    is_found(Wrong { silence_is_refusal: true, ..Wrong::default() }, 300);
}

#[test]
fn a_worker_whose_work_never_ends_is_found() {
    is_found(Wrong { loses_work: true, ..Wrong::default() }, 20);
}

#[test]
fn a_wiped_acceptor_with_the_same_identity_is_found() {
    is_found(Wrong { wiped: true, ..Wrong::default() }, 300);
}
