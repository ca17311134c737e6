//! What went wrong, for a person: errors of lower rooms as a sentence and a remedy, and the worst of several.
//!
//! Only errors that the command line meets itself are translated here; those of the vault come as
//! [`Problem`].

use std::io;

use crate::{
    api::{Exit, Problem, USER_NAMES},
    client,
    disk::DiskError,
    model::config::ConfigError,
};

/// Why a command ends early.
#[derive(Debug)]
pub enum Halt {
    /// To be told.
    Problem(Problem),
    /// Whoever read our answers has gone: nobody is left to be told anything, which is fine.
    ReaderGone,
}

/// How a command ended.
pub type Outcome = Result<Exit, Halt>;

impl From<Problem> for Halt {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// An error while an answer was being written to stdout.
impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Problem::failed(
                format!("the answer could not be written to standard output: {error}"),
                "look where standard output goes (a full disk?) and run it again",
            )
            .into(),
        }
    }
}

impl From<DiskError> for Halt {
    fn from(error: DiskError) -> Self {
        disk(&error).into()
    }
}

impl From<ConfigError> for Halt {
    fn from(error: ConfigError) -> Self {
        Problem::failed(error.to_string(), error.remedy()).into()
    }
}

/// An error of the home's files.
pub fn disk(error: &DiskError) -> Problem {
    let remedy = match error {
        DiskError::BadFile { path, .. } => {
            format!("put back a good copy of {}, or move it away", path.display())
        }
        DiskError::BadName { .. } => {
            return usage(error.to_string(), USER_NAMES);
        }
        DiskError::Io { path, .. } => {
            format!("check that {} exists and may be read and written by you", path.display())
        }
        DiskError::Full { .. } => "make room on the disk, or lower node.reserve in the configuration".into(),
        DiskError::Capacity { .. } => "raise node.capacity in the configuration".into(),
        DiskError::Locked { .. } => {
            "stop it with `tintype down`, or give this one another home with --home".into()
        }
        DiskError::Busy => "try again in a moment".into(),
        DiskError::Failed(_) => "check the disk; what was acknowledged is on the other nodes too".into(),
        // These sentences end with their remedy.
        _ => String::new(),
    };
    Problem::failed(error.to_string(), remedy)
}

/// An error of the user's own files and arguments.
pub fn files(error: &client::Error) -> Problem {
    match error {
        client::Error::Usage(_) => usage(error.to_string(), "run it with --help to see how it is used"),
        client::Error::Exists { .. } => {
            Problem::failed(error.to_string(), "give --force to replace it, or another place with -o")
        }
        _ => Problem::failed(
            error.to_string(),
            "check that it exists, that you may read and write there, and that the disk has room",
        ),
    }
}

/// A usage error (exit code 2).
pub fn usage(error: impl Into<String>, remedy: impl Into<String>) -> Problem {
    Problem { error: error.into(), remedy: remedy.into(), exit: Exit::Usage }
}

/// What Ctrl-C leaves of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// What was sent or fetched so far: the same command goes on from there.
    Parts,
    /// A task that is cancelled.
    CancelledTask,
    /// Nothing that matters.
    Nothing,
    /// It would have gone on for ever: this is how it is meant to end, so nothing is wrong.
    Finished,
}

/// How a command ends by Ctrl-C: always with the same exit code, and with a sentence if it was in the middle.
pub fn interrupted(leaves: Leaves) -> Outcome {
    let remedy = match leaves {
        Leaves::Finished => return Ok(Exit::Interrupted),
        Leaves::Parts => "run it again to go on where it stopped",
        Leaves::CancelledTask => "the task is cancelled; run it again to do it from the beginning",
        Leaves::Nothing => "run it again",
    };
    let (error, remedy) = ("interrupted".into(), remedy.into());
    Err(Problem { error, remedy, exit: Exit::Interrupted }.into())
}

/// The worse of two: 1 before 5 before 6, the others between, interruption before all.
pub fn worse(one: Exit, other: Exit) -> Exit {
    let rank = |exit| match exit {
        Exit::Done => 0,
        Exit::Findings => 1,
        Exit::NotFound => 2,
        Exit::Conflict => 3,
        Exit::NoQuorum => 4,
        Exit::Usage => 5,
        Exit::Failed => 6,
        Exit::Interrupted => 7,
    };
    if rank(other) > rank(one) { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_files_the_worst_counts() {
        let worst = |exits: &[Exit]| exits.iter().copied().fold(Exit::Done, worse);
        assert_eq!(worst(&[]), Exit::Done);
        assert_eq!(worst(&[Exit::Done, Exit::Findings, Exit::Done]), Exit::Findings);
        assert_eq!(worst(&[Exit::Findings, Exit::NoQuorum]), Exit::NoQuorum);
        assert_eq!(worst(&[Exit::NoQuorum, Exit::Failed, Exit::Findings]), Exit::Failed);
        assert_eq!(worst(&[Exit::NotFound, Exit::Findings]), Exit::NotFound);
        assert_eq!(worst(&[Exit::Failed, Exit::Interrupted]), Exit::Interrupted);
    }

    #[test]
    fn only_what_was_in_the_middle_says_that_it_was_interrupted() {
        for (leaves, words) in [
            (Leaves::Parts, "where it stopped"),
            (Leaves::CancelledTask, "cancelled"),
            (Leaves::Nothing, "run it again"),
        ] {
            let Err(Halt::Problem(problem)) = interrupted(leaves) else { panic!("{leaves:?} says nothing") };
            assert!(problem.exit == Exit::Interrupted && problem.remedy.contains(words), "{problem:?}");
        }
        assert!(matches!(interrupted(Leaves::Finished), Ok(Exit::Interrupted)));
    }

    #[test]
    fn a_reader_that_went_away_is_no_problem() {
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(matches!(Halt::from(gone), Halt::ReaderGone));
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(matches!(Halt::from(full), Halt::Problem(problem) if problem.exit == Exit::Failed));
    }
}
