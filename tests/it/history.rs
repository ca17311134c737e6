//! What clients did to objects and what they were told; and whether each object can have been one register.
//!
//! The checker looks for an order of an object's operations that keeps the order of time and in which every
//! answer is right (J. M. Wing and C. Gong, "Testing and Verifying Concurrent Objects", 1993), as G. Lowe
//! does in "Testing for Linearizability" (2017): operations take effect just in time, when an answer needs
//! it, and no state is looked at twice. Objects are checked one by one, which is enough: linearizability is
//! local.
//! A version belongs to one write. So a write whose version is known, by its own answer or by somebody who
//! read it, has one place; only writes that nobody answered and nobody saw may be anywhere, and of these one
//! of each kind is as good as another.
//!
//! It knows no process, no clock and no file: times are numbers. What it cannot decide within its steps is a
//! failure, never a pass.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Operations shown around the one that cannot be.
const SHOWN_MAX: usize = 24;

/// One operation of one client on one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which object.
    pub object: String,
    /// Who did it.
    pub client: u32,
    /// When it was begun, in any unit that only grows.
    pub invoked: u64,
    /// When its answer was there; none if none came. Of a write whose outcome is unknown it says nothing.
    pub returned: Option<u64>,
    /// What it did and what came of it.
    pub what: What,
}

/// What an operation did and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A value that no other operation of the history writes; none = a tombstone.
    Write { value: Option<u64>, outcome: Written },
    /// A look at the current state.
    Read(Answer),
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is this version.
    At(u64),
    /// Nobody said: it takes effect once or never, at any time after it was begun.
    Unknown,
    /// It has surely had no effect and never will.
    Refused,
}

/// What a read was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The current version; no value = it is a tombstone.
    Found { version: u64, value: Option<u64> },
    /// There is nothing, or a tombstone.
    Nothing,
    /// Nothing at all: it says nothing.
    Failed,
}

/// What a history that is linearizable was made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Objects.
    pub objects: usize,
    /// Operations, all of them.
    pub operations: usize,
    /// States that were looked at.
    pub steps: u64,
}

/// Why a history did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No order of this object's operations explains what was answered.
    Violation(Violation),
    /// The steps were not enough to know.
    OutOfSteps { object: String, steps_max: u64 },
    /// This is no history: an answer without its time, or before its question, or a value written twice.
    Malformed { object: String, reason: String },
}

/// Operations that cannot all be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Of which object.
    pub object: String,
    /// What cannot be, in words.
    pub reason: String,
    /// What happened, in the order of time; true = those that cannot be.
    pub operations: Vec<(bool, Operation)>,
}

/// Proves that every object of this history is linearizable, in at most so many steps for all of them.
///
/// # Errors
/// [`Failure`]: a violation, too few steps, or what is no history.
pub fn check(history: &[Operation], steps_max: u64) -> Result<Checked, Failure> {
    let mut objects: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        objects.entry(&operation.object).or_default().push(operation);
    }
    let mut checked = Checked { objects: objects.len(), operations: history.len(), steps: 0 };
    for (name, mut operations) in objects {
        operations.sort_by_key(|operation| (operation.invoked, operation.returned));
        let object = Object::new(name, operations)?;
        object.search(&mut checked.steps, steps_max)?;
    }
    Ok(checked)
}

/// What may be true at one moment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    /// 0 = nothing was ever written.
    version: u64,
    value: Option<u64>,
    /// How many of the writes that nobody saw have taken effect: values, tombstones.
    unseen_used: [usize; 2],
    /// Reads under way whose answer was right at some moment since they were begun.
    read: BTreeSet<usize>,
}

/// The operations of one object, by the time of their beginning.
struct Object<'a> {
    name: &'a str,
    operations: Vec<&'a Operation>,
    /// Whose version is known.
    write_of: BTreeMap<u64, usize>,
    /// Unanswered writes of an unknown version, in the order of time: values, tombstones.
    unseen: [Vec<usize>; 2],
}

impl<'a> Object<'a> {
    fn new(name: &'a str, operations: Vec<&'a Operation>) -> Result<Self, Failure> {
        let mut object = Self { name, operations, write_of: BTreeMap::new(), unseen: Default::default() };
        object.check_form()?;
        let versions = object.versions_of_values()?;
        for (at, operation) in object.operations.iter().enumerate() {
            let What::Write { value, outcome } = operation.what else { continue };
            let seen = value.and_then(|value| versions.get(&value).map(|(version, _)| *version));
            let version = match outcome {
                Written::At(version) => Some(version),
                Written::Unknown => seen,
                Written::Refused => continue,
            };
            let Some(version) = version else {
                object.unseen[usize::from(value.is_none())].push(at);
                continue;
            };
            if let Some(other) = object.write_of.insert(version, at) {
                return Err(object.violation(&[other, at], format!("two writes are version {version}")));
            }
        }
        Ok(object)
    }

    fn check_form(&self) -> Result<(), Failure> {
        let mut written = BTreeSet::new();
        for operation in &self.operations {
            let malformed = |reason: &str| {
                let reason = format!("{reason}: {operation}");
                Err(Failure::Malformed { object: self.name.to_owned(), reason })
            };
            if operation.returned.is_some_and(|returned| returned < operation.invoked) {
                return malformed("an answer before its question");
            }
            if operation.needs_a_place() && operation.returned.is_none() {
                return malformed("an answer without its time");
            }
            let What::Write { value: Some(value), .. } = operation.what else { continue };
            if !written.insert(value) {
                return malformed("a value that was written before");
            }
        }
        Ok(())
    }

    /// Which version each value was said to be, and by whom: its writer or a reader.
    fn versions_of_values(&self) -> Result<BTreeMap<u64, (u64, usize)>, Failure> {
        let written = self.operations.iter().filter_map(|operation| match operation.what {
            What::Write { value, outcome } if outcome != Written::Refused => value,
            _ => None,
        });
        let written: BTreeSet<u64> = written.collect();
        let mut versions: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
        for (at, operation) in self.operations.iter().enumerate() {
            let (version, value) = match operation.what {
                What::Write { value: Some(value), outcome: Written::At(version) } => (version, value),
                What::Read(Answer::Found { version, value: Some(value) }) => {
                    if !written.contains(&value) {
                        let reason = format!("value {value} was read and nobody can have written it");
                        return Err(self.violation(&[at], reason));
                    }
                    (version, value)
                }
                _ => continue,
            };
            let (before, other) = *versions.entry(value).or_insert((version, at));
            if before != version {
                let reason = format!("value {value} is said to be version {before} and version {version}");
                return Err(self.violation(&[other, at], reason));
            }
        }
        Ok(versions)
    }

    /// Goes through the answers in the order of time; before each, the writes that it needs take effect.
    fn search(&self, steps: &mut u64, steps_max: u64) -> Result<(), Failure> {
        let needs_a_place = |at: &usize| self.operations[*at].needs_a_place();
        let mut answers: Vec<usize> = (0..self.operations.len()).filter(needs_a_place).collect();
        answers.sort_by_key(|at| self.operations[*at].returned);
        let first = State { version: 0, value: None, unseen_used: [0, 0], read: BTreeSet::new() };
        let mut states = BTreeSet::from([first]);
        let (mut begun, mut open) = (0, BTreeSet::new());
        for at in answers {
            let now = self.operations[at].returned.unwrap_or(u64::MAX);
            while self.operations.get(begun).is_some_and(|operation| operation.invoked <= now) {
                if matches!(self.operations[begun].what, What::Read(_)) {
                    open.insert(begun);
                }
                begun += 1;
            }
            let before = states;
            states = self.place(at, now, &before, &open, (steps, steps_max))?;
            if states.is_empty() {
                return Err(self.violation(&[at], self.why_not(at, &before)));
            }
            open.remove(&at);
        }
        Ok(())
    }

    /// All states in which the answer `at` was right at some moment of its time.
    fn place(
        &self,
        at: usize,
        now: u64,
        before: &BTreeSet<State>,
        open: &BTreeSet<usize>,
        (steps, steps_max): (&mut u64, u64),
    ) -> Result<BTreeSet<State>, Failure> {
        let mut todo: Vec<State> = before.iter().cloned().collect();
        let (mut looked_at, mut placed) = (BTreeSet::new(), BTreeSet::new());
        while let Some(mut state) = todo.pop() {
            if *steps >= steps_max {
                return Err(Failure::OutOfSteps { object: self.name.to_owned(), steps_max });
            }
            *steps += 1;
            // A read changes nothing: as soon as its answer is right it may as well be over.
            let right: Vec<usize> =
                open.iter().copied().filter(|read| self.is_right(*read, &state)).collect();
            state.read.extend(right);
            if self.is_placed(at, &state) {
                state.read.remove(&at);
                placed.insert(state);
            } else if looked_at.insert(state.clone()) {
                todo.extend(self.next(&state, now));
            }
        }
        Ok(placed)
    }

    fn is_placed(&self, at: usize, state: &State) -> bool {
        match self.operations[at].what {
            What::Write { outcome: Written::At(version), .. } => version <= state.version,
            _ => state.read.contains(&at),
        }
    }

    fn is_right(&self, read: usize, state: &State) -> bool {
        match self.operations[read].what {
            What::Read(Answer::Found { version, value }) => {
                (version, value) == (state.version, state.value) && version > 0
            }
            What::Read(Answer::Nothing) => state.value.is_none(),
            _ => false,
        }
    }

    /// What one more write, begun by now, makes of a state.
    fn next(&self, state: &State, now: u64) -> Vec<State> {
        let version = state.version + 1;
        let is_begun = |at: &usize| self.operations[*at].invoked <= now;
        let value_of = |at: usize| match self.operations[at].what {
            What::Write { value, .. } => value,
            What::Read(_) => None,
        };
        if let Some(at) = self.write_of.get(&version) {
            let after = is_begun(at).then(|| State { version, value: value_of(*at), ..state.clone() });
            return after.into_iter().collect();
        }
        let next_unseen = |kind: usize| {
            let at = *self.unseen[kind].get(state.unseen_used[kind]).filter(|at| is_begun(at))?;
            let mut after = State { version, value: value_of(at), ..state.clone() };
            after.unseen_used[kind] += 1;
            Some(after)
        };
        [0, 1].into_iter().filter_map(next_unseen).collect()
    }

    fn why_not(&self, at: usize, before: &BTreeSet<State>) -> String {
        let states: Vec<String> = before.iter().take(4).map(State::to_string).collect();
        let more = if before.len() > states.len() { ", or others" } else { "" };
        format!(
            "no order of the operations explains the answer of client {}; before it the object was {}{more}",
            self.operations[at].client,
            states.join(" or ")
        )
    }

    /// These operations and what happened around them.
    fn violation(&self, wrong: &[usize], reason: String) -> Failure {
        let last = wrong.iter().max().copied().unwrap_or(0);
        let end = self.operations[last].returned.unwrap_or(u64::MAX);
        let around = (0..self.operations.len()).filter(|at| self.operations[*at].invoked <= end);
        let mut shown: Vec<usize> = around.collect();
        shown.drain(..shown.len().saturating_sub(SHOWN_MAX));
        let shown: BTreeSet<usize> = shown.into_iter().chain(wrong.iter().copied()).collect();
        let operations = shown.iter().map(|at| (wrong.contains(at), self.operations[*at].clone())).collect();
        Failure::Violation(Violation { object: self.name.to_owned(), reason, operations })
    }
}

impl Operation {
    /// Whether it was answered with something that must have been right at some moment.
    fn needs_a_place(&self) -> bool {
        match self.what {
            What::Write { outcome, .. } => matches!(outcome, Written::At(_)),
            What::Read(answer) => answer != Answer::Failed,
        }
    }
}

// ---- in words ----

fn value_in_words(value: Option<u64>) -> String {
    value.map_or_else(|| "a tombstone".into(), |value| format!("value {value}"))
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            0 => f.write_str("never written"),
            version => write!(f, "version {version}, {}", value_in_words(self.value)),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let returned = self.returned.map_or_else(|| "never".into(), |returned| returned.to_string());
        write!(f, "{} to {returned}, client {}: ", self.invoked, self.client)?;
        match self.what {
            What::Write { value, outcome } => {
                write!(f, "write {} -> ", value_in_words(value))?;
                match outcome {
                    Written::At(version) => write!(f, "version {version}"),
                    Written::Unknown => f.write_str("unknown"),
                    Written::Refused => f.write_str("refused"),
                }
            }
            What::Read(Answer::Found { version, value }) => {
                write!(f, "read -> version {version}, {}", value_in_words(value))
            }
            What::Read(Answer::Nothing) => f.write_str("read -> nothing is there"),
            What::Read(Answer::Failed) => f.write_str("read -> failed"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "object {:?} is not linearizable: {}", self.object, self.reason)?;
        for (wrong, operation) in &self.operations {
            writeln!(f, "{} {operation}", if *wrong { ">>" } else { "  " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(violation) => violation.fmt(f),
            Self::OutOfSteps { object, steps_max } => {
                write!(f, "nobody knows: at object {object:?} all {steps_max} steps were used up")
            }
            Self::Malformed { object, reason } => {
                write!(f, "object {object:?}: this is no history: {reason}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Known good and known bad histories, and small random ones against a checker that tries every order.

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    const ENOUGH: u64 = 100_000;

    fn operation(client: u32, (invoked, returned): (u64, u64), what: What) -> Operation {
        Operation { object: "a".into(), client, invoked, returned: Some(returned), what }
    }

    fn put(client: u32, time: (u64, u64), value: u64, version: u64) -> Operation {
        operation(client, time, What::Write { value: Some(value), outcome: Written::At(version) })
    }

    fn rm(client: u32, time: (u64, u64), version: u64) -> Operation {
        operation(client, time, What::Write { value: None, outcome: Written::At(version) })
    }

    fn unknown(client: u32, invoked: u64, value: Option<u64>) -> Operation {
        let what = What::Write { value, outcome: Written::Unknown };
        Operation { object: "a".into(), client, invoked, returned: None, what }
    }

    fn get(client: u32, time: (u64, u64), version: u64, value: u64) -> Operation {
        operation(client, time, What::Read(Answer::Found { version, value: Some(value) }))
    }

    fn nothing(client: u32, time: (u64, u64)) -> Operation {
        operation(client, time, What::Read(Answer::Nothing))
    }

    #[track_caller]
    fn good(history: &[Operation]) {
        if let Err(failure) = check(history, ENOUGH) {
            panic!("{failure}");
        }
        assert!(every_order(history), "the slow checker disagrees");
    }

    /// It is found, and said with these words.
    #[track_caller]
    fn bad(history: &[Operation], words: &[&str]) {
        let failure = check(history, ENOUGH).expect_err("a violation");
        assert!(matches!(failure, Failure::Violation(_)), "{failure}");
        let said = failure.to_string();
        for word in words.iter().chain(&["object \"a\"", ">> "]) {
            assert!(said.contains(word), "no {word:?} in {said}");
        }
        assert!(!every_order(history), "the slow checker disagrees");
    }

    #[test]
    fn what_can_have_been_one_register_passes() {
        good(&[]);
        good(&[nothing(1, (1, 2)), put(1, (3, 4), 7, 1), get(2, (5, 6), 1, 7)]);
        // During a write either answer is right, and a reader that comes later may not go back.
        good(&[
            put(1, (1, 2), 7, 1),
            put(1, (3, 9), 8, 2),
            get(2, (4, 5), 1, 7),
            get(3, (5, 6), 2, 8),
            get(2, (6, 7), 2, 8),
        ]);
        // Two at once, in the order of their versions and not of their answers.
        good(&[put(1, (1, 9), 7, 2), put(2, (2, 4), 8, 1), get(3, (10, 11), 2, 7)]);
        good(&[put(1, (1, 2), 7, 1), rm(1, (3, 4), 2), nothing(2, (5, 6)), put(1, (7, 8), 9, 3)]);
        let removed = What::Read(Answer::Found { version: 2, value: None });
        good(&[put(1, (1, 2), 7, 1), rm(1, (3, 6), 2), operation(2, (4, 5), removed)]);
        // One instant is no order.
        good(&[put(1, (1, 5), 7, 1), nothing(2, (5, 6)), get(3, (5, 5), 1, 7)]);
    }

    #[test]
    fn a_write_that_nobody_answered_happened_once_at_some_time_or_never() {
        good(&[unknown(1, 1, Some(7)), nothing(2, (2, 3))]);
        good(&[unknown(1, 1, Some(7)), nothing(2, (2, 3)), get(2, (50, 51), 1, 7)]);
        // Seen only by the number that it has taken.
        good(&[put(2, (1, 2), 6, 1), unknown(1, 3, Some(7)), put(2, (4, 5), 8, 3)]);
        good(&[put(2, (1, 2), 6, 1), unknown(1, 3, None), nothing(2, (4, 5)), put(2, (6, 7), 8, 3)]);
        good(&[put(2, (1, 2), 6, 1), unknown(1, 3, None), unknown(3, 3, Some(7)), put(2, (6, 7), 8, 4)]);
        // It may have been told that it failed, long ago.
        let mut late = unknown(1, 1, Some(7));
        late.returned = Some(2);
        good(&[late, nothing(2, (3, 4)), get(2, (5, 6), 1, 7)]);
        bad(
            &[unknown(1, 1, Some(7)), get(2, (2, 3), 1, 7), get(2, (4, 5), 2, 7)],
            &["version 1 and version 2"],
        );
        bad(&[put(2, (1, 2), 6, 1), put(2, (4, 5), 8, 3), unknown(1, 6, Some(7))], &["4 to 5", "version 3"]);
        bad(&[put(2, (1, 2), 6, 1), unknown(1, 3, Some(7)), put(2, (4, 5), 8, 4)], &["4 to 5"]);
    }

    #[test]
    fn what_was_refused_and_reads_that_failed_say_nothing() {
        let refused = What::Write { value: Some(7), outcome: Written::Refused };
        let failed = operation(3, (2, 3), What::Read(Answer::Failed));
        let refused = operation(1, (1, 2), refused);
        good(&[refused.clone(), failed, nothing(2, (4, 5)), put(2, (6, 7), 8, 1)]);
        bad(&[refused.clone(), get(2, (4, 5), 1, 7)], &["value 7", "nobody can have written it"]);
        bad(&[put(2, (3, 4), 6, 1), refused, put(2, (5, 6), 8, 3)], &["5 to 6"]);
    }

    #[test]
    fn planted_violations_are_found() {
        let first = put(1, (1, 2), 7, 1);
        let second = put(1, (3, 4), 8, 2);
        // A stale read.
        bad(&[first.clone(), second.clone(), get(2, (5, 6), 1, 7)], &["5 to 6", "version 2, value 8"]);
        // An acknowledged write that is lost.
        bad(&[first.clone(), nothing(2, (5, 6))], &["5 to 6", "nothing is there"]);
        bad(&[first.clone(), second.clone(), put(2, (5, 6), 9, 2)], &["two writes are version 2"]);
        // A value that was never written.
        bad(&[first.clone(), get(2, (5, 6), 1, 99)], &["value 99", "nobody can have written it"]);
        // Before it was begun.
        bad(&[get(2, (1, 2), 1, 7), put(1, (3, 4), 7, 1)], &["1 to 2"]);
        // A fork: two readers see two histories.
        bad(
            &[first.clone(), unknown(1, 3, Some(8)), get(2, (5, 6), 2, 8), put(3, (5, 7), 9, 2)],
            &["two writes are version 2"],
        );
        // Back to the value before, after the unanswered write was seen.
        bad(
            &[first.clone(), unknown(1, 3, Some(8)), get(2, (5, 6), 2, 8), get(3, (7, 8), 1, 7)],
            &["7 to 8", "version 2, value 8"],
        );
        // A tombstone that was seen, and what it hid is back.
        bad(
            &[first.clone(), unknown(1, 3, None), nothing(2, (5, 6)), get(3, (7, 8), 1, 7)],
            &["7 to 8", "a tombstone"],
        );
        bad(&[first.clone(), rm(1, (3, 4), 2), get(3, (7, 8), 1, 7)], &["7 to 8"]);
        // Two readers that do not agree on the order of two writes at the same time.
        bad(
            &[
                first,
                put(2, (3, 20), 8, 2),
                put(3, (3, 20), 9, 3),
                get(4, (4, 5), 3, 9),
                get(5, (6, 7), 2, 8),
            ],
            &["6 to 7"],
        );
    }

    #[test]
    fn objects_are_checked_one_by_one_and_the_wrong_one_is_named() {
        let of = |name: &str, operation: Operation| Operation { object: name.into(), ..operation };
        let history = [
            of("b", put(1, (1, 2), 7, 1)),
            of("c", put(1, (3, 4), 7, 1)),
            of("b", get(1, (5, 6), 1, 7)),
            of("c", nothing(1, (7, 8))),
        ];
        let checked = check(&history[..3], ENOUGH).expect("right");
        assert_eq!((checked.objects, checked.operations), (2, 3));
        let said = check(&history, ENOUGH).expect_err("one is wrong").to_string();
        assert!(said.starts_with("object \"c\" is not linearizable"), "{said}");
        assert!(said.contains(">> 7 to 8, client 1: read -> nothing is there"), "{said}");
        assert_eq!(said.lines().count(), 3, "only what happened to it: {said}");
    }

    #[test]
    fn steps_that_run_out_are_no_pass() {
        let history: Vec<Operation> = (1..=50).map(|n| put(1, (2 * n, 2 * n + 1), n, n)).collect();
        let steps = check(&history, ENOUGH).expect("right").steps;
        assert!((50..=150).contains(&steps), "{steps}");
        assert!(check(&history, steps).is_ok());
        for few in [0, 1, steps - 1] {
            let failure = check(&history, few).expect_err("too few");
            assert_eq!(failure, Failure::OutOfSteps { object: "a".into(), steps_max: few });
            assert!(failure.to_string().contains("nobody knows"), "{failure}");
        }
    }

    #[test]
    fn many_unanswered_writes_cost_few_steps() {
        let mut history = Vec::new();
        for n in 0..300 {
            history.push(unknown(1, 10 * n + 1, Some(10_000 + n)));
            history.push(unknown(2, 10 * n + 1, None));
            // Of the two one has happened, nobody knows which.
            history.push(put(3, (10 * n + 3, 10 * n + 4), n, 2 * n + 2));
            history.push(get(4, (10 * n + 5, 10 * n + 6), 2 * n + 2, n));
        }
        let checked = check(&history, 3_000_000).expect("right");
        println!("{checked:?}");
        history.push(get(4, (4000, 4001), 2, 0));
        assert!(matches!(check(&history, 3_000_000), Err(Failure::Violation(_))));
    }

    #[test]
    fn what_is_no_history_is_not_judged() {
        let mut without_time = put(1, (1, 2), 7, 1);
        without_time.returned = None;
        let twice = [put(1, (1, 2), 7, 1), put(1, (3, 4), 7, 2)];
        for history in [&[without_time][..], &[put(1, (2, 1), 7, 1)], &twice] {
            let failure = check(history, ENOUGH).expect_err("it is none");
            assert!(matches!(failure, Failure::Malformed { .. }), "{failure}");
        }
    }

    // ---- against every order ----

    /// Whether any order of any choice of the unanswered writes is right. Slow, and by the definition.
    fn every_order(history: &[Operation]) -> bool {
        let says = |operation: &&Operation| {
            !matches!(
                operation.what,
                What::Read(Answer::Failed) | What::Write { outcome: Written::Refused, .. }
            )
        };
        let history: Vec<&Operation> = history.iter().filter(says).collect();
        goes_on(&history, &mut vec![false; history.len()], (0, None))
    }

    fn is_unknown(operation: &Operation) -> bool {
        matches!(operation.what, What::Write { outcome: Written::Unknown, .. })
    }

    fn goes_on(history: &[&Operation], done: &mut [bool], (version, value): (u64, Option<u64>)) -> bool {
        let left = || (0..history.len()).filter(|at| !done[*at]);
        if left().all(|at| is_unknown(history[at])) {
            return true;
        }
        // Whatever is over before another begins comes before it.
        let is_next = |at: &usize| {
            let before = |other: &Operation| {
                !is_unknown(other) && other.returned.is_some_and(|end| end < history[*at].invoked)
            };
            !left().any(|other| before(history[other]))
        };
        let ready: Vec<usize> = left().filter(is_next).collect();
        ready.into_iter().any(|at| {
            let after = match history[at].what {
                What::Write { value, outcome } => {
                    let right = match outcome {
                        Written::At(wanted) => wanted == version + 1,
                        _ => true,
                    };
                    right.then_some((version + 1, value))
                }
                What::Read(Answer::Found { version: wanted, value: found }) => {
                    (wanted > 0 && (wanted, found) == (version, value)).then_some((version, value))
                }
                What::Read(_) => value.is_none().then_some((version, value)),
            };
            let Some(after) = after else { return false };
            done[at] = true;
            let right = goes_on(history, done, after);
            done[at] = false;
            right
        })
    }

    /// What clients of a right register were told; then perhaps one answer is changed.
    fn random_history(random: &mut StdRng) -> Vec<Operation> {
        let (mut version, mut value) = (0, None);
        let mut history = Vec::new();
        let count = random.random_range(1..=7);
        for at in 0..count {
            // It takes effect at this moment, and its time reaches beyond it on both sides.
            let moment = 10 * (at + 1);
            let time = (moment - random.random_range(0..25).min(moment), moment + random.random_range(0..25));
            let client = at as u32;
            let next = random.random_bool(0.7).then_some(at + 100);
            let write = |outcome| What::Write { value: next, outcome };
            match random.random_range(0..10) {
                0..3 => {
                    (version, value) = (version + 1, next);
                    history.push(operation(client, time, write(Written::At(version))));
                }
                3..6 => {
                    if random.random_bool(0.6) {
                        (version, value) = (version + 1, next);
                    }
                    history.push(unknown(client, time.0, next));
                }
                6 => history.push(operation(client, time, write(Written::Refused))),
                7 if value.is_none() => history.push(nothing(client, time)),
                7 => history.push(operation(client, time, What::Read(Answer::Failed))),
                _ if version == 0 => history.push(nothing(client, time)),
                _ => {
                    history.push(operation(client, time, What::Read(Answer::Found { version, value })));
                }
            }
        }
        if random.random_bool(0.6) {
            spoil(random, &mut history);
        }
        history
    }

    fn spoil(random: &mut StdRng, history: &mut [Operation]) {
        let at = random.random_range(0..history.len());
        let (other_version, other_value) = (random.random_range(1..4), random.random_range(100..107));
        match &mut history[at].what {
            What::Write { outcome: Written::At(version), .. } => *version = other_version,
            What::Write { outcome, .. } => {
                *outcome = if *outcome == Written::Refused { Written::Unknown } else { Written::Refused };
            }
            What::Read(answer) => {
                *answer = match random.random_range(0..3) {
                    0 => Answer::Nothing,
                    1 => Answer::Found { version: other_version, value: None },
                    _ => Answer::Found { version: other_version, value: Some(other_value) },
                };
            }
        }
    }

    #[test]
    fn small_random_histories_are_judged_as_by_trying_every_order() {
        let mut verdicts = [0; 2];
        for seed in 0..6000 {
            let history = random_history(&mut StdRng::seed_from_u64(seed));
            let slow = every_order(&history);
            let fast = check(&history, ENOUGH);
            assert!(!matches!(fast, Err(Failure::OutOfSteps { .. } | Failure::Malformed { .. })), "{fast:?}");
            assert_eq!(fast.is_ok(), slow, "seed {seed}: {history:#?}");
            verdicts[usize::from(slow)] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 1000), "bad, good: {verdicts:?}");
    }
}
