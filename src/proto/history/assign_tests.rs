//! Each rule of a coordinator by itself: who gets a task, who gets it next, what the client is told.

use super::{
    tests::{Bench, answers, claim, dead, idle, means, rank, record, task, wish},
    *,
};
use crate::model::task::TaskKind;

fn loaded(load_centi: u64) -> Worker {
    Worker { load_centi, ..idle() }
}

fn suspect() -> Worker {
    Worker { is_alive: false, ..idle() }
}

/// In office, but no worker itself.
fn office(others: &[Worker]) -> Bench {
    let mut workers = vec![suspect()];
    workers.extend_from_slice(others);
    Bench::in_office(&workers)
}

/// Submits it, lets the first that is asked take it, and says who that was.
fn given_to(bench: &mut Bench, number: u64) -> usize {
    let (_, actions) = bench.submit(wish(number));
    let asked = bench.asked(&actions);
    assert_eq!(asked.len(), 1, "{actions:?}");
    let actions = bench.reserved(&asked[0], Some(Verdict::Taken));
    let assigned = TaskRecord { ..asked[0].1.clone() };
    assert_eq!(answers(&actions)[0].1, Submitted::Assigned(assigned.clone()));
    assert!(actions.contains(&Action::Publish { record: assigned }), "{actions:?}");
    asked[0].0
}

// ---- which worker ----

#[test]
fn the_choice_of_a_worker() {
    let full = |load_centi| Worker { tasks: 2, load_centi, ..idle() };
    for (what, workers, expected) in [
        ("the least loaded", [loaded(4000), loaded(1000), loaded(2500)], 2),
        ("of those within a band the first", [loaded(900), loaded(0), loaded(500)], 2),
        ("who is dead is not asked", [loaded(5000), dead(), dead()], 1),
        ("who is suspect neither", [suspect(), loaded(9000), suspect()], 2),
        ("own tasks are no load of the machine's", [full(3000), loaded(2000), loaded(9000)], 1),
    ] {
        let mut bench = office(&workers);
        let (_, actions) = bench.submit(wish(1));
        assert_eq!(bench.asked(&actions)[0].0, expected, "{what}");
    }
}

#[test]
fn a_free_slot_counts_more_than_a_low_load() {
    let mut bench = office(&[loaded(0), loaded(6000)]);
    let given: Vec<usize> = (1..=6).map(|number| given_to(&mut bench, number)).collect();
    assert_eq!(given, [1, 1, 2, 2, 1, 1], "then there is a line, and load counts again");
}

#[test]
fn who_is_avoided_is_asked_last_of_all() {
    let mut bench = office(&[loaded(0), loaded(9000), Worker { slots: 0, ..loaded(9900) }]);
    let avoid = vec![bench.peers[1]];
    let (call, actions) = bench.submit(Wish { avoid, ..wish(1) });
    let mut order = Vec::new();
    let mut asked = bench.asked(&actions);
    while let Some(next) = asked.pop() {
        order.push(next.0);
        let actions = bench.reserved(&next, Some(Verdict::Full));
        asked = bench.asked(&actions);
    }
    let actions = bench.hold(limits::TASK_LINE_HOLD.0);
    assert_eq!(answers(&actions), [(call.0, Submitted::Busy { tasks: 0, places: 12 })]);
    assert_eq!(order, [2, 3, 1]);
}

#[test]
fn idle_workers_get_equal_shares_and_a_loaded_one_clearly_less() {
    for slots in [1, 2, 4, 8, 16] {
        let worker = |load_centi| Worker { slots, places: 2 * slots, load_centi, ..idle() };
        let mut bench = office(&[worker(0), worker(300), worker(0), worker(5000)]);
        let mut shares = [0u64; 5];
        // As many at a time as the idle ones have slots; all end before the next come.
        for round in 0..20 {
            let numbers: Vec<u64> = (0..3 * slots).map(|n| 1 + round * 100 + n).collect();
            numbers.iter().for_each(|number| shares[given_to(&mut bench, *number)] += 1);
            numbers.iter().for_each(|number| drop(bench.run(Event::Acknowledge { task: task(*number) })));
        }
        let fair = (shares[1] + shares[2] + shares[3]) / 3;
        for share in &shares[1..4] {
            assert!(share.abs_diff(fair) * 5 <= fair, "{slots} slots: {shares:?}");
        }
        assert!(shares[4] * 2 < fair, "{slots} slots: {shares:?}");
    }
}

#[test]
fn a_coordinator_that_works_asks_itself_like_any_other() {
    let mut bench = Bench::in_office(&[idle(), loaded(9000)]);
    let (call, actions) = bench.submit(wish(1));
    let mine = record(1, rank(1, 1), 0);
    assert!(actions.contains(&Action::Expect { record: mine.clone() }));
    assert_eq!(answers(&actions), [(call.0, Submitted::Assigned(mine))]);
    assert_eq!(bench.machine.in_hand(), (1, 2));
}

// ---- what a client is told ----

#[test]
fn only_who_is_in_office_assigns() {
    let mut bench = Bench::new(2, means(2, 2));
    bench.workers(&[idle(), idle()]);
    let (call, actions) = bench.submit(wish(1));
    assert_eq!(answers(&actions), [(call.0, Submitted::NotCoordinator { coordinator: None })]);
    assert_eq!(actions.len(), 1);
}

#[test]
fn a_search_ends_with_the_office() {
    let mut bench = office(&[idle()]);
    let (call, actions) = bench.submit(wish(1));
    let asked = bench.asked(&actions);
    let left = bench.run(Event::Office { mine: None, greatest: Some(claim(2)) });
    assert_eq!(answers(&left), [(call.0, Submitted::Again)]);
    assert_eq!(bench.reserved(&asked[0], Some(Verdict::Taken)), [], "too late");
    assert_eq!(bench.phase(1), None);
}

#[test]
fn a_repeated_submission_is_the_same_task() {
    let mut bench = office(&[idle(), idle()]);
    let (first, actions) = bench.submit(wish(1));
    let asked = bench.asked(&actions);
    let (second, actions) = bench.submit(wish(1));
    assert_eq!(answers(&actions), [(first.0, Submitted::Again)], "nobody listens there any more");
    assert_eq!(bench.asked(&actions), []);
    let actions = bench.reserved(&asked[0], Some(Verdict::Taken));
    let assigned = Submitted::Assigned(asked[0].1.clone());
    assert_eq!(answers(&actions), [(second.0, assigned.clone())]);
    let (third, actions) = bench.submit(wish(1));
    assert_eq!(actions, [Action::Answer { call: third, answer: Answer::Submitted(assigned) }]);
}

#[test]
fn what_a_client_is_told_of_a_task_that_is_known() {
    let known = record(1, rank(1, 3), 1);
    let at = |phase| TaskRecord { phase, ..known.clone() };
    let (served, moved) = (Some(known.clone()), None);
    let peers = Bench::new(3, means(1, 0)).peers;
    let of = |n: usize| vec![peers[n]];
    // Phase; the greatest that the client knows; whom it avoids; whether it is told that assignment.
    for (phase, above, avoid, told) in [
        (Phase::Assigned, None, vec![], &served),
        (Phase::Started, Some(rank(1, 2)), vec![], &served),
        (Phase::Finished, Some(rank(1, 2)), of(2), &served),
        (Phase::Finished, Some(rank(1, 3)), vec![], &served),
        (Phase::Assigned, Some(rank(1, 3)), of(1), &moved),
        (Phase::Assigned, None, of(1), &moved),
        (Phase::Assigned, Some(rank(1, 3)), of(2), &moved),
        (Phase::Assigned, Some(rank(1, 4)), vec![], &moved),
        (Phase::Lost, None, vec![], &moved),
        (Phase::Abandoned, None, vec![], &moved),
    ] {
        let mut bench = office(&[idle(), idle()]);
        bench.run(Event::Office { mine: None, greatest: None });
        bench.hear(&at(phase));
        let mut actions = bench.office(1);
        while let Some(asked) = bench.asked(&actions).pop() {
            actions = bench.reserved(&asked, Some(Verdict::Full));
        }
        let wish = Wish { above, avoid: avoid.clone(), ..wish(1) };
        let (call, actions) = bench.submit(wish);
        let case = format!("{phase:?}, above {above:?}, avoiding {avoid:?}");
        match told {
            Some(_) => assert_eq!(answers(&actions), [(call.0, Submitted::Assigned(at(phase)))], "{case}"),
            None => {
                let next = rank(1, above.map_or(3, |above| above.attempt.max(3)) + 1);
                assert_eq!(bench.asked(&actions)[0].1.rank, next, "{case}");
            }
        }
    }
    for phase in [Phase::Cancelled, Phase::Acknowledged] {
        let mut bench = office(&[idle()]);
        bench.hear(&at(phase));
        let (call, actions) = bench.submit(wish(1));
        assert_eq!(answers(&actions), [(call.0, Submitted::Closed(phase))]);
    }
}

#[test]
fn a_client_that_knows_a_greater_claim_makes_the_coordinator_go_above_it() {
    let mut bench = office(&[idle()]);
    let (call, actions) = bench.submit(Wish { above: Some(rank(7, 2)), ..wish(1) });
    assert!(actions.contains(&Action::Outranked { counter: 7 }));
    assert_eq!(answers(&actions), [(call.0, Submitted::Again)]);
    bench.office(8);
    let (_, actions) = bench.submit(Wish { above: Some(rank(7, 2)), ..wish(1) });
    assert_eq!(bench.asked(&actions)[0].1.rank, rank(8, 3));
}

#[test]
fn what_a_client_cannot_know_or_want_is_bounded() {
    for above in [rank(1, u64::MAX), rank(1, 0), rank(u64::MAX, 1), rank(0, 1)] {
        let mut bench = office(&[idle()]);
        let (_, actions) = bench.submit(Wish { above: Some(above), ..wish(1) });
        assert_eq!(bench.asked(&actions)[0].1.rank, rank(1, 1), "{above:?}");
    }
    let mut bench = office(&[idle()]);
    let paint = Wish { kind: TaskKind("Paint!".into()), ..wish(8) };
    let (call, actions) = bench.submit(paint);
    assert_eq!(answers(&actions), [(call.0, Submitted::UnknownKind)]);
    let (call, actions) = bench.submit(Wish { payload_bytes: u64::MAX, ..wish(9) });
    assert_eq!(answers(&actions), [(call.0, Submitted::Closed(Phase::Abandoned))]);
}

#[test]
fn a_kind_is_unknown_only_if_nobody_can_know_it() {
    let verdicts = |workers: &[Worker], verdicts: &[Option<Verdict>]| {
        let mut bench = office(workers);
        // The coordinator itself is no worker here.
        let mut all = vec![dead()];
        all.extend_from_slice(workers);
        bench.workers(&all);
        let (_, mut actions) = bench.submit(wish(1));
        for verdict in verdicts {
            let asked = bench.asked(&actions);
            actions = bench.reserved(&asked[0], verdict.clone());
        }
        actions.extend(bench.hold(limits::TASK_LINE_HOLD.0));
        answers(&actions)[0].1.clone()
    };
    let unknown = || Some(Verdict::UnknownKind);
    let both = [idle(), idle()];
    assert_eq!(verdicts(&both, &[unknown(), unknown()]), Submitted::UnknownKind);
    assert_eq!(verdicts(&[idle(), dead()], &[unknown()]), Submitted::UnknownKind);
    let busy = Submitted::Busy { tasks: 0, places: 8 };
    assert_eq!(verdicts(&both, &[unknown(), Some(Verdict::Full)]), busy, "that one may know it");
    assert_eq!(verdicts(&both, &[None, unknown()]), busy);
    assert!(matches!(verdicts(&[idle(), suspect()], &[unknown()]), Submitted::Busy { .. }));
}

#[test]
fn so_many_tasks_and_no_more() {
    let mut bench = office(&[idle()]);
    for number in 0..limits::TASKS_PER_CLIENT_MAX as u64 {
        bench.hear(&record(number, rank(1, 1), 1));
    }
    bench.submit(wish(1 << 30));
    let actions = bench.hold(limits::TASK_LINE_HOLD.0);
    assert!(matches!(answers(&actions)[..], [(_, Submitted::Busy { .. })]), "the client has too many");
    let avoid = vec![bench.peers[1]];
    let (_, actions) = bench.submit(Wish { above: Some(rank(1, 1)), avoid, ..wish(7) });
    assert_eq!(bench.asked(&actions).len(), 1, "but each of those can be moved");

    let mut bench = office(&[idle()]);
    for number in 0..limits::TASKS_PLACING_MAX as u64 {
        assert_eq!(answers(&bench.submit(wish(number)).1), []);
    }
    bench.submit(wish(1 << 30));
    let actions = bench.hold(limits::TASK_LINE_HOLD.0);
    assert!(matches!(answers(&actions)[..], [(_, Submitted::Busy { .. })]), "too many are being placed");
}

// ---- the line ----

/// One place at the only worker, and it is taken.
fn full() -> (Bench, TaskRecord) {
    let mut bench = office(&[Worker { slots: 1, places: 1, ..idle() }]);
    let (_, actions) = bench.submit(wish(1));
    let asked = bench.asked(&actions).remove(0);
    bench.reserved(&asked, Some(Verdict::Taken));
    (bench, asked.1)
}

/// Submits it, and has the worker refuse it.
fn refused(bench: &mut Bench, number: u64) -> CallId {
    let (call, actions) = bench.submit(wish(number));
    let asked = bench.asked(&actions);
    let actions = bench.reserved(&asked[0], Some(Verdict::Full));
    assert_eq!(actions, [], "it waits in line");
    call
}

#[test]
fn a_place_goes_to_who_came_first_as_soon_as_it_is_free() {
    let (mut bench, taken) = full();
    let first = refused(&mut bench, 2);
    let (_, actions) = bench.submit(wish(3));
    assert_eq!(actions, [], "others are before it, and nobody is asked in vain");
    let actions = bench.hear(&TaskRecord { phase: Phase::Finished, ..taken });
    let asked = bench.asked(&actions);
    assert_eq!(asked.iter().map(|(_, record)| record.task).collect::<Vec<_>>(), [task(2)]);
    let actions = bench.reserved(&asked[0], Some(Verdict::Taken));
    assert_eq!(answers(&actions), [(first.0, Submitted::Assigned(asked[0].1.clone()))]);
}

#[test]
fn a_turn_is_kept_by_who_asks_again_soon() {
    let (mut bench, taken) = full();
    let first = refused(&mut bench, 2);
    bench.now += 100;
    bench.submit(wish(3));
    let told = bench.hold(limits::TASK_LINE_HOLD.0 - 100);
    assert_eq!(answers(&told), [(first.0, Submitted::Busy { tasks: 0, places: 1 })]);
    bench.now += 50;
    let (_, actions) = bench.submit(wish(2));
    let asked = bench.asked(&actions);
    assert_eq!(asked.len(), 1, "its turn, and the worker may have a place by now");
    bench.reserved(&asked[0], Some(Verdict::Full));
    let actions = bench.hear(&TaskRecord { phase: Phase::Acknowledged, ..taken });
    assert_eq!(bench.asked(&actions)[0].1.task, task(2));
}

#[test]
fn a_line_ends_with_the_office_and_by_cancelling() {
    let (mut bench, _) = full();
    let (second, third) = (refused(&mut bench, 2), bench.submit(wish(3)).0);
    let actions = bench.run(Event::Cancel { task: task(2) });
    assert_eq!(answers(&actions), [(second.0, Submitted::Closed(Phase::Cancelled))]);
    let actions = bench.run(Event::Office { mine: None, greatest: Some(claim(2)) });
    assert_eq!(answers(&actions), [(third.0, Submitted::Again)]);
    assert_eq!(bench.hold(limits::TASK_LINE_HOLD.0), []);
}

// ---- reservations ----

#[test]
fn the_same_assignment_is_never_given_to_two() {
    let mut bench = office(&[idle(), idle()]);
    let (_, actions) = bench.submit(wish(1));
    let first = bench.asked(&actions);
    let actions = bench.reserved(&first[0], Some(Verdict::Full));
    let second = bench.asked(&actions);
    assert_eq!(second[0].1.rank, rank(1, 1), "the first has not taken it");
    bench.reserved(&second[0], None);
    let actions = bench.hold(limits::TASK_LINE_HOLD.0);
    assert!(matches!(answers(&actions)[..], [(_, Submitted::Busy { .. })]));
    // That one may have taken it all the same.
    let (_, actions) = bench.submit(wish(1));
    let third = bench.asked(&actions);
    assert_eq!(third[0].1.rank, rank(1, 2));
    // Nor when the office is left in the middle, and entered again.
    bench.run(Event::Office { mine: None, greatest: Some(claim(1)) });
    bench.office(1);
    let (_, actions) = bench.submit(wish(1));
    assert_eq!(bench.asked(&actions)[0].1.rank, rank(1, 3));
    bench.office(2);
    let (_, actions) = bench.submit(wish(1));
    assert_eq!(bench.asked(&actions)[0].1.rank, rank(2, 1));
}

#[test]
fn an_unanswered_question_makes_the_next_one_greater() {
    let mut bench = office(&[idle(), idle()]);
    let (call, actions) = bench.submit(wish(1));
    let first = bench.asked(&actions);
    let actions = bench.reserved(&first[0], None);
    let second = bench.asked(&actions);
    assert_eq!((second[0].1.rank, second[0].0 != first[0].0), (rank(1, 2), true));
    assert_eq!(bench.reserved(&first[0], Some(Verdict::Taken)), [], "too late");
    let actions = bench.reserved(&second[0], Some(Verdict::Taken));
    assert_eq!(answers(&actions), [(call.0, Submitted::Assigned(second[0].1.clone()))]);
}

#[test]
fn what_has_become_known_meanwhile_counts_more() {
    let greater = record(1, rank(3, 1), 2);
    let at = |phase| TaskRecord { phase, ..greater.clone() };
    for (known, told) in [
        (at(Phase::Started), Submitted::Assigned(at(Phase::Started))),
        (at(Phase::Lost), Submitted::Again),
        (at(Phase::Cancelled), Submitted::Closed(Phase::Cancelled)),
    ] {
        let mut bench = office(&[idle(), idle()]);
        let (call, actions) = bench.submit(wish(1));
        let asked = bench.asked(&actions);
        bench.hear(&known);
        let actions = bench.reserved(&asked[0], Some(Verdict::Taken));
        let news = Action::Publish { record: known };
        assert_eq!(actions, [Action::Answer { call, answer: Answer::Submitted(told) }, news]);
    }
}

#[test]
fn who_gives_up_while_a_place_is_sought_is_not_given_one() {
    let mut bench = office(&[idle()]);
    let (call, actions) = bench.submit(wish(1));
    let asked = bench.asked(&actions);
    let actions = bench.run(Event::Cancel { task: task(1) });
    let cancelled = TaskRecord { phase: Phase::Cancelled, ..asked[0].1.clone() };
    assert_eq!(answers(&actions), [(call.0, Submitted::Closed(Phase::Cancelled))]);
    assert_eq!(actions.last(), Some(&Action::Publish { record: cancelled.clone() }));
    assert_eq!(bench.reserved(&asked[0], Some(Verdict::Taken)), []);
    // The worker, which has taken it, hears so and is free again; or it hears so first.
    let mut worker = Bench::new(1, means(1, 0));
    let (taken, over) = (record(1, rank(1, 1), 0), TaskRecord { worker: NodeNumber(0), ..cancelled });
    assert_eq!(worker.reserve(&taken).0, Verdict::Taken);
    worker.hear(&over);
    assert!(worker.machine.is_idle());
    assert_eq!(worker.reserve(&taken).0, Verdict::Outdated);
}

// ---- orphans ----

#[test]
fn the_tasks_of_a_dead_worker_go_to_others() {
    let mut bench = office(&[idle(), idle()]);
    for (number, phase) in [(1, Phase::Assigned), (2, Phase::Started), (3, Phase::Finished)] {
        bench.hear(&TaskRecord { phase, ..record(number, rank(1, 1), 1) });
    }
    for (number, phase) in [(4, Phase::Abandoned), (5, Phase::Cancelled), (6, Phase::Acknowledged)] {
        bench.hear(&TaskRecord { phase, ..record(number, rank(1, 1), 1) });
    }
    assert_eq!(bench.workers(&[suspect(), suspect(), idle()]), [], "it may come back");
    let actions = bench.workers(&[suspect(), dead(), idle()]);
    let asked = bench.asked(&actions);
    let mut moved: Vec<u64> = asked.iter().map(|(_, record)| record.task.number).collect();
    moved.sort();
    assert_eq!(moved, [1, 2, 3]);
    for next in &asked {
        assert_eq!((next.0, next.1.rank, next.1.phase), (2, rank(1, 2), Phase::Assigned));
        let actions = bench.reserved(next, Some(Verdict::Taken));
        let task = next.1.task;
        let (from, to) = (NodeNumber(1), NodeNumber(2));
        let expected =
            [Action::Publicise(Moved { task, from, to }), Action::Publish { record: next.1.clone() }];
        assert_eq!(actions, expected);
    }
    assert_eq!(bench.workers(&[suspect(), dead(), idle()]), []);
}

#[test]
fn an_orphan_may_come_to_the_coordinator_itself_or_back_to_a_restarted_worker() {
    let mut bench = Bench::in_office(&[idle(), idle()]);
    bench.hear(&record(1, rank(1, 1), 1));
    let actions = bench.workers(&[idle(), dead()]);
    let moved = Moved { task: task(1), from: NodeNumber(1), to: NodeNumber(0) };
    assert!(actions.contains(&Action::Publicise(moved)), "{actions:?}");
    let mut bench = office(&[idle()]);
    bench.hear(&record(1, rank(1, 1), 1));
    let actions = bench.hear(&TaskRecord { phase: Phase::Lost, ..record(1, rank(1, 1), 1) });
    let asked = bench.asked(&actions);
    assert_eq!((asked[0].0, asked[0].1.rank), (1, rank(1, 2)), "there is no other");
    assert_eq!(bench.reserved(&asked[0], Some(Verdict::Taken)).len(), 1, "it was not moved");
}

#[test]
fn an_orphan_without_a_place_is_tried_again_at_the_next_tick() {
    let mut bench = office(&[idle(), idle()]);
    let lost = TaskRecord { phase: Phase::Lost, ..record(1, rank(1, 1), 1) };
    let mut asked = {
        let actions = bench.hear(&lost);
        bench.asked(&actions)
    };
    let mut questions = 0;
    while let Some(next) = asked.pop() {
        questions += 1;
        let actions = bench.reserved(&next, Some(Verdict::Full));
        asked = bench.asked(&actions);
    }
    assert_eq!(questions, 2);
    assert_eq!(bench.hear(&record(2, rank(1, 1), 1)), [], "news are no reason to ask all again");
    assert_eq!(bench.workers(&[suspect(), idle(), idle()]), []);
    let actions = bench.wait(limits::TASK_TICK.0);
    assert_eq!(bench.asked(&actions).len(), 1);
    // A client that asks for it is not kept waiting.
    let mut bench = office(&[idle()]);
    let actions = bench.hear(&lost);
    let asked = bench.asked(&actions);
    bench.reserved(&asked[0], Some(Verdict::Full));
    let (_, actions) = bench.submit(wish(1));
    assert_eq!(bench.asked(&actions).len(), 1);
}

#[test]
fn a_new_coordinator_takes_over_orphans_under_its_own_claim() {
    let mut bench = office(&[idle(), idle()]);
    bench.run(Event::Office { mine: None, greatest: Some(claim(5)) });
    for (number, rank) in [(1, rank(9, 1)), (2, rank(5, 4)), (3, rank(8, 1))] {
        bench.hear(&TaskRecord { phase: Phase::Lost, ..record(number, rank, 1) });
    }
    let actions = bench.office(6);
    assert_eq!(bench.asked(&actions)[0].1.rank, rank(6, 5));
    assert_eq!(bench.asked(&actions).len(), 1);
    let outranked = actions.iter().filter(|action| matches!(action, Action::Outranked { .. }));
    let greatest = Action::Outranked { counter: 9 };
    assert_eq!(outranked.collect::<Vec<_>>(), [&greatest], "the greatest of them, once");
}
