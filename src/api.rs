//! The one door for the command line and tests: requests in, answers or a [`Problem`] out.
//!
//! A problem is one sentence, what is wrong, and another, what to do next, with the exit code. It prints
//! nothing.

use std::{fmt, io::Write, path::Path};

pub use crate::client::{LocalUser, types::*};
use crate::{
    client::{Client, Error},
    model::{
        rpc,
        task::{TaskId, TaskRecord},
    },
};

/// Exit codes of the program. Of several files the worst counts: 1 before 5 before 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed; a missing key too.
    Failed = 1,
    /// What the shell line alone shows: an unknown flag, a bad name.
    Usage = 2,
    /// Not found; a wrong user key looks the same.
    NotFound = 3,
    /// Conflict, with `--if-version`.
    Conflict = 4,
    /// No quorum, not enough nodes, or a task that was not done in its time.
    NoQuorum = 5,
    /// Finished, with findings.
    Findings = 6,
    /// Ctrl-C.
    Interrupted = 130,
}

/// What a user's name may be.
pub const USER_NAMES: &str =
    "a user's name has 1 to 64 bytes: letters, digits and -_.@+, with no dot or dash at its beginning";

/// A user's error: what is wrong, what to do next, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// One sentence without a full stop.
    pub error: String,
    /// One sentence without a full stop; may be empty.
    pub remedy: String,
    /// The exit code.
    pub exit: Exit,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl std::error::Error for Problem {}

impl Problem {
    /// A failure (exit code 1).
    pub fn failed(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { error: error.into(), remedy: remedy.into(), exit: Exit::Failed }
    }
}

/// An open connection to a cluster, as one user.
pub struct Vault {
    client: Client,
}

impl Vault {
    /// Connects: `--node`, `data/node.addr`, remembered and bootstrap addresses and mDNS at once; the first
    /// answer wins.
    ///
    /// # Errors
    /// No node within 2 s, no cluster key, a broken key, what cannot be an address at all.
    pub async fn open(connect: Connect) -> Result<Self, Problem> {
        Ok(Self { client: Client::open(connect).await? })
    }

    /// A sentence for each `--node` whose name has no address now; the others are used.
    pub fn unresolved(&self) -> &[String] {
        self.client.unresolved()
    }

    /// Says goodbye to the nodes. Bounded.
    pub async fn close(self) {
        self.client.close().await;
    }

    /// The user's name: the named one, the only one in the home, or one made now because there is none at
    /// all; then the second value is true, so that the caller says where the key lies. Only what begins to
    /// store pictures calls this (the first `put`, a shell): all else takes the key that is there, or fails.
    ///
    /// # Errors
    /// Several users and none named; a missing, broken or sealed key.
    pub async fn user(&self) -> Result<(String, bool), Problem> {
        Ok(self.client.user().await?)
    }

    /// Stores one object.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn put(&self, put: Put, progress: OnProgress<'_>) -> Result<PutDone, Problem> {
        Ok(self.client.put(put, progress).await?)
    }

    /// Fetches one object to a file: a temporary name beside it, then renamed; goes on where an earlier run
    /// stopped.
    ///
    /// # Errors
    /// See [`Problem`]; an existing different file without `force`.
    pub async fn get_to_file(
        &self,
        get: Get,
        path: &Path,
        force: bool,
        progress: OnProgress<'_>,
    ) -> Result<GetDone, Problem> {
        Ok(self.client.get_to_file(get, path, force, progress).await?)
    }

    /// Streams one object, in order, every chunk checked before it is written.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn get_to_writer(
        &self,
        get: Get,
        writer: &mut (dyn Write + Send),
        progress: OnProgress<'_>,
    ) -> Result<GetDone, Problem> {
        Ok(self.client.get_to_writer(get, writer, progress).await?)
    }

    /// Lists the user's objects whose names begin with `prefix`; `removed` lists tombstones too.
    ///
    /// # Errors
    /// No node; without a majority of some slots the listing is `incomplete` instead.
    pub async fn list(&self, prefix: &str, removed: bool, any: bool) -> Result<Listing, Problem> {
        Ok(self.client.list(prefix, removed, any).await?)
    }

    /// The readable versions of one object, newest first.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn versions(&self, name: &str) -> Result<Vec<ObjectInfo>, Problem> {
        Ok(self.client.versions(name).await?)
    }

    /// All that is known of one object.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn stat(&self, name: &str) -> Result<Stat, Problem> {
        Ok(self.client.stat(name).await?)
    }

    /// Hides an object behind a tombstone; the answer is the tombstone's version.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn rm(&self, name: &str) -> Result<Written, Problem> {
        Ok(self.client.rm(name).await?)
    }

    /// Brings the version back that a tombstone hides, as a new one. All of it must be on nodes that answer.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn undelete(&self, name: &str) -> Result<Written, Problem> {
        Ok(self.client.undelete(name).await?)
    }

    /// Where each copy lies and when it was last verified.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn where_is(&self, name: &str) -> Result<Where, Problem> {
        Ok(self.client.where_is(name).await?)
    }

    /// Reads every body of every copy of the named objects (none = all), and mends bad and missing ones.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn verify(&self, names: &[String], progress: OnProgress<'_>) -> Result<Verified, Problem> {
        Ok(self.client.verify(names, progress).await?)
    }

    /// How the cluster is. Answers within 1 s with nodes down.
    ///
    /// # Errors
    /// No node.
    pub async fn status(&self) -> Result<Status, Problem> {
        Ok(self.client.status().await?)
    }

    /// Every node, each asked for its own counters (unreachable ones as others see them).
    ///
    /// # Errors
    /// No node.
    pub async fn nodes(&self) -> Result<Vec<rpc::NodeInfo>, Problem> {
        Ok(self.client.nodes().await?)
    }

    /// Events with a number above `after`.
    ///
    /// # Errors
    /// No node.
    pub async fn events(&self, after: u64) -> Result<Vec<rpc::EventInfo>, Problem> {
        Ok(self.client.events(after).await?)
    }

    /// Has a node do this, whichever dies meanwhile; the answer is a picture, or a sentence why there is
    /// none.
    /// `on_waiting` is told what it waits for.
    ///
    /// # Errors
    /// See [`Problem`].
    pub async fn work(
        &self,
        work: &Work,
        on_waiting: OnWaiting<'_>,
    ) -> Result<Result<Vec<u8>, String>, Problem> {
        Ok(self.client.work(work, on_waiting).await?)
    }

    /// All tasks that the nodes know.
    ///
    /// # Errors
    /// No node.
    pub async fn tasks(&self) -> Result<Vec<TaskRecord>, Problem> {
        Ok(self.client.tasks().await?)
    }

    /// Ends a task, whosever it is.
    ///
    /// # Errors
    /// No node.
    pub async fn cancel_task(&self, task: TaskId) -> Result<(), Problem> {
        Ok(self.client.cancel_task(task).await?)
    }

    /// Ends what was being done for calls of [`Vault::work`] that were dropped in the middle. Bounded.
    pub async fn cancel_own_tasks(&self) {
        self.client.cancel_what_is_left().await;
    }

    /// The last elections that a node knows of, the oldest first.
    ///
    /// # Errors
    /// No node.
    pub async fn elections(&self) -> Result<Vec<rpc::ElectionInfo>, Problem> {
        Ok(self.client.elections().await?)
    }

    /// The node that answered last; none after it failed, until another answers.
    pub fn talking_to(&self) -> Option<crate::model::PeerId> {
        self.client.talking_to()
    }

    /// Bytes that this client wrote to its streams so far, counted in `net` above QUIC.
    pub fn stream_bytes_written(&self) -> u64 {
        self.client.stream_bytes_written()
    }
}

/// The keys of a home's user, for what needs no node: the named user's or the only one's. `make`: if the home
/// has no user at all, one is made, as the first put would do it.
///
/// # Errors
/// Several users and none named; a missing, broken or sealed key.
pub async fn user_of_home(connect: Connect, make: bool) -> Result<LocalUser, Problem> {
    Ok(crate::client::user_of_home(connect, make).await?)
}

/// Stops the node that runs in this home and waits until it has let go of the home.
///
/// # Errors
/// None runs here, or it did not stop in time.
pub async fn stop_node(home: &Path) -> Result<(), Problem> {
    Ok(crate::client::stop_node(home).await?)
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (exit, remedy) = exit_and_remedy(&error);
        Problem { error: error.to_string(), remedy, exit }
    }
}

/// What helps a task that somebody works on, but that was not done in its time.
pub const MORE_TIME: &str = "give it more time with --timeout, or none to wait as long as it takes";

const PUT_ELSEWHERE: &str =
    "put it under another name with `--name`; `tintype rm` takes this one out of the listing";

/// The exit code and the next step of each error.
fn exit_and_remedy(error: &Error) -> (Exit, String) {
    let (exit, remedy): (Exit, &str) = match error {
        Error::Unreachable { .. } => {
            (Exit::NoQuorum, "start a node with `tintype up`, or name one with `--node HOST:PORT`")
        }
        Error::Crowded { .. } => (Exit::NoQuorum, "run it again in a moment, with fewer commands at once"),
        Error::NoQuorum { reading: true } => (
            Exit::NoQuorum,
            "start more of the nodes that `tintype nodes` lists, or read the newest version \
             that the reachable ones know with `--any`",
        ),
        Error::NoQuorum { reading: false } => {
            (Exit::NoQuorum, "start more of the nodes that `tintype nodes` lists, then run it again")
        }
        Error::NotReady(_) => (Exit::NoQuorum, "`tintype status` says what the node waits for"),
        Error::Full(_) => {
            (Exit::Failed, "make room on a node (`tintype status` names the full ones) and run it again")
        }
        Error::NotFound(_) => {
            (Exit::NotFound, "`tintype ls` lists what this user has; another key is named with `--as`")
        }
        Error::NoVersion { .. } => {
            (Exit::NotFound, "`tintype ls --versions NAME` lists the versions that are kept")
        }
        Error::NotRemoved(_) => (Exit::Failed, "`tintype ls --removed` lists what is removed"),
        Error::Conflict { .. } => {
            (Exit::Conflict, "look at the current version, then put again without `--if-version`")
        }
        Error::Overtaken { .. } => {
            (Exit::Failed, "look at the kept versions with `tintype ls --versions NAME`, then run it again")
        }
        Error::BodyLost { .. } => (
            Exit::Failed,
            "put the file again if you have it; `tintype get NAME --version N` reads an older version that \
             is whole",
        ),
        Error::OnSilent { silent, .. } => {
            return (Exit::NoQuorum, format!("start {} and run it again", silent.join(" and ")));
        }
        Error::Unreadable { silent, .. } if !silent.is_empty() => {
            let start = format!("start {} (`tintype nodes`) and run it again", silent.join(" and "));
            return (Exit::NoQuorum, format!("{start}; if gone for good, {PUT_ELSEWHERE}"));
        }
        Error::Unreadable { .. } => return (Exit::Failed, PUT_ELSEWHERE.into()),
        Error::HiddenLost { silent, .. } if !silent.is_empty() => {
            return (Exit::Failed, format!("start {} and run it again", silent.join(" and ")));
        }
        Error::HiddenLost { .. } => (
            Exit::Failed,
            "put the file again if you have it; `tintype get NAME --version N` reads an older version that \
             is whole",
        ),
        Error::Stale { .. } => {
            return (Exit::Failed, format!("{WHAT_TO_DO_WHEN_OLDER}; `--any` reads what is there"));
        }
        Error::Damaged { .. } => (Exit::Failed, "run `tintype verify NAME`"),
        Error::File { .. } => (Exit::Failed, "check the path and its permissions"),
        Error::Broken { .. } => (Exit::Failed, "`--force` stores it as it is, as plain bytes"),
        Error::UserName(_) => (Exit::Usage, USER_NAMES),
        Error::Key { remedy, .. } => return (Exit::Failed, remedy.clone()),
        Error::Exists { .. } => (Exit::Failed, "`--force` overwrites it, `-o` names another place"),
        Error::Usage(_) => (Exit::Usage, "see `tintype help`"),
        // Whatever it waited for: nothing is wrong with the task, and a script may try it again later.
        Error::TimedOut { has_a_worker, .. } => (Exit::NoQuorum, in_time(*has_a_worker)),
        Error::Cancelled => (Exit::Failed, "run it again if it was not meant"),
        Error::UnknownKind(_) => (Exit::Failed, "bring the nodes up to date, or give --local"),
        Error::Refused(_) => (Exit::Failed, "`tintype doctor` looks for the cause"),
    };
    (exit, remedy.to_owned())
}

/// What helps a task that was not done in its time.
fn in_time(has_a_worker: bool) -> &'static str {
    if has_a_worker { MORE_TIME } else { "start more of the nodes that `tintype nodes` lists" }
}
