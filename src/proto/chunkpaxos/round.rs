//! One round of a proposer for one call: its phase, what came in, and what follows from it.
//!
//! Here are only the decisions; sending and answering are the proposer's.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ballot::Ballot,
    messages::{Accepted, Command, RoundId},
};
use crate::model::{Millis, PeerId, register::VerifiedRegister};

/// A round in progress.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Round {
    pub(super) id: RoundId,
    pub(super) phase: Phase,
    /// When something must be done without any message.
    pub(super) wake: Millis,
}

/// What a round waits for.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) enum Phase {
    /// A lost duel: waiting for a random while.
    Backoff,
    /// Answers to a query.
    Query { states: Reports },
    /// Promises.
    Prepare { ballot: Ballot, promises: Reports, refused: BTreeSet<PeerId> },
    /// Acceptances.
    Accept(Writing),
}

/// The accept phase.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) ballot: Ballot,
    pub(super) value: VerifiedRegister,
    pub(super) next: Option<Ballot>,
    /// Who accepted, and whether `next` was promised too.
    pub(super) accepted: BTreeMap<PeerId, bool>,
    pub(super) refused: BTreeSet<PeerId>,
    pub(super) mirrored: bool,
    /// When a majority had accepted.
    pub(super) chosen_at: Option<Millis>,
    pub(super) ending: Ending,
}

/// What is answered once the value being written is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The proposal is done.
    Commit,
    /// The proposal does not follow the written value.
    Conflict,
    /// The written value is what was asked for.
    Current,
}

/// What acceptors said that they had accepted.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
pub(super) struct Reports(pub(super) BTreeMap<PeerId, Option<Accepted>>);

/// What the reports of a majority say.
#[derive(Debug)]
pub(super) struct Current {
    /// The greatest accepted ballot and its value.
    pub(super) accepted: Option<Accepted>,
    /// How many reported exactly this.
    pub(super) reporters: usize,
    /// A majority reported it, so it is chosen, or nothing ever was.
    pub(super) agreed: bool,
}

/// What becomes of a command, given the current value.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Write this.
    Write(VerifiedRegister),
    /// It is done already: the current value, or one that knows of this request.
    Already,
    /// The proposal does not follow the current value.
    Conflict,
    /// Only the current value was asked for.
    Report,
    /// The current value is to be written again in any case.
    Rewrite,
}

impl Reports {
    /// What they say together, once there are enough for a majority. `counts`: whether what a majority has at
    /// this ballot is chosen.
    pub(super) fn current(&self, majority: usize, counts: impl Fn(&Ballot) -> bool) -> Option<Current> {
        if self.0.len() < majority {
            return None;
        }
        let greatest = self.0.values().flatten().max_by_key(|a| a.ballot);
        let ballot = greatest.map(|a| a.ballot);
        let reporters = self.0.values().filter(|a| a.as_ref().map(|a| a.ballot) == ballot).count();
        let agreed = reporters >= majority && ballot.is_none_or(|ballot| counts(&ballot));
        Some(Current { accepted: greatest.cloned(), reporters, agreed })
    }

    /// What a majority reported alike, though another may have reported a greater ballot: it was chosen,
    /// and what was chosen after it was not when the first of them was asked.
    pub(super) fn agreement(&self, majority: usize, counts: impl Fn(&Ballot) -> bool) -> Option<Current> {
        let mut votes = BTreeMap::<Option<Ballot>, usize>::new();
        for accepted in self.0.values() {
            *votes.entry(accepted.as_ref().map(|a| a.ballot)).or_default() += 1;
        }
        let chosen = |b: &Option<Ballot>| b.as_ref().is_none_or(&counts);
        let (ballot, reporters) = votes.into_iter().find(|(b, votes)| *votes >= majority && chosen(b))?;
        let accepted = self.0.values().flatten().find(|a| Some(a.ballot) == ballot).cloned();
        Some(Current { accepted, reporters, agreed: true })
    }
}

impl Writing {
    /// Nobody has accepted yet.
    pub(super) fn new(ballot: Ballot, value: VerifiedRegister, next: Option<Ballot>, ending: Ending) -> Self {
        Self {
            ballot,
            value,
            next,
            accepted: BTreeMap::new(),
            refused: BTreeSet::new(),
            mirrored: false,
            chosen_at: None,
            ending,
        }
    }
}

/// What becomes of a command when this is the current value.
pub(super) fn verdict(command: &Command, current: Option<&VerifiedRegister>) -> Verdict {
    match command {
        Command::Propose { value } => match current {
            Some(current) if is_done(value, current) => Verdict::Already,
            _ if follows(value, current) => Verdict::Write(value.clone()),
            _ => Verdict::Conflict,
        },
        Command::Settle => Verdict::Rewrite,
        Command::Read | Command::ReadAny => Verdict::Report,
    }
}

/// Whether `value` is the next version after `current`.
pub(super) fn follows(value: &VerifiedRegister, current: Option<&VerifiedRegister>) -> bool {
    match current {
        None => value.version == 1,
        Some(current) => {
            current.version.checked_add(1) == Some(value.version) && value.previous == current.hash()
        }
    }
}

/// Whether `current` is `value`, or came after it: it remembers the last requests.
fn is_done(value: &VerifiedRegister, current: &VerifiedRegister) -> bool {
    value == current || value.requests.last().is_some_and(|request| current.requests.contains(request))
}
