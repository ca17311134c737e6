//! What clients saw, and what a versioned register may show: the specification, written without any code of
//! the machine.

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use crate::{
    model::register::VerifiedRegister,
    proto::chunkpaxos::{Command, Outcome},
};

/// The register as one would like it: one place, one call after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct OneRegister(Option<VerifiedRegister>);

/// What an answer showed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Shown {
    /// The proposed value is, or was, the current one.
    Committed,
    /// Another one is.
    Conflict(Option<VerifiedRegister>),
    /// The current one.
    Value(Option<VerifiedRegister>),
}

/// Stateright's, by client.
pub(super) type Tester = LinearizabilityTester<u64, OneRegister>;

/// All calls so far, and whether any order of them explains what was shown.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) tester: Tester,
    pub(super) is_linearizable: bool,
    /// All values that some answer has shown as current.
    pub(super) shown: Vec<VerifiedRegister>,
}

impl SequentialSpec for OneRegister {
    type Op = Command;
    type Ret = Shown;

    fn invoke(&mut self, command: &Command) -> Shown {
        let Command::Propose { value } = command else { return Shown::Value(self.0.clone()) };
        match &self.0 {
            Some(current) if current == value || remembers(current, value) => return Shown::Committed,
            Some(current) if current.version + 1 != value.version || current.hash() != value.previous => {
                return Shown::Conflict(self.0.clone());
            }
            None if value.version != 1 => return Shown::Conflict(None),
            _ => {}
        }
        self.0 = Some(value.clone());
        Shown::Committed
    }
}

/// Whether `current` is `value` or a version after it: each remembers the requests that led to it.
pub(super) fn remembers(current: &VerifiedRegister, value: &VerifiedRegister) -> bool {
    value.requests.last().is_some_and(|request| current.requests.contains(request))
}

impl History {
    pub(super) fn new() -> Self {
        let tester = LinearizabilityTester::new(OneRegister::default());
        Self { tester, is_linearizable: true, shown: Vec::new() }
    }

    pub(super) fn invoke(&self, client: u64, command: Command) -> Self {
        let mut next = self.clone();
        next.tester.on_invoke(client, command).expect("a client makes one call at a time");
        next
    }

    pub(super) fn answer(&self, client: u64, command: &Command, shown: Shown) -> Self {
        let mut next = self.clone();
        let value = match (&shown, command) {
            (Shown::Committed, Command::Propose { value }) => Some(value),
            (Shown::Conflict(value) | Shown::Value(value), _) => value.as_ref(),
            _ => None,
        };
        next.shown.extend(value.filter(|value| !self.shown.contains(value)).cloned());
        next.tester.on_return(client, shown).expect("each call is answered once");
        next.is_linearizable = next.tester.is_consistent();
        next
    }
}

impl Shown {
    /// What this outcome shows; none = that nothing is known.
    pub(super) fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Committed { .. } => Some(Shown::Committed),
            Outcome::Conflict { current } => Some(Shown::Conflict(current)),
            Outcome::Value { current } => Some(Shown::Value(current.map(|accepted| accepted.value))),
            Outcome::NoQuorum | Outcome::Busy => None,
        }
    }
}
