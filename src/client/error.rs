//! What can go wrong for a client, by what its caller can do about it.

use crate::model::BodyId;

/// Why a client could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No node answered at all.
    #[error("no node answered within {waited_ms} ms{hint}")]
    Unreachable { waited_ms: u64, hint: String },
    /// Nodes are there, and let others in all the while.
    #[error("the node is busy admitting others: no turn came within {waited_ms} ms")]
    Crowded { waited_ms: u64 },
    /// Nodes answered, but fewer than a majority of the object's acceptors.
    #[error("no majority of the nodes that decide about this object answered")]
    NoQuorum { reading: bool },
    /// The node serves no cluster yet.
    #[error("the node does not serve yet: {0}")]
    NotReady(String),
    /// Every node that we asked is busy or full.
    #[error("{0}")]
    Full(String),
    /// There is no such object, or it belongs to another user key.
    #[error("there is no object {0:?} under this user key")]
    NotFound(String),
    /// There is the object, but no such version.
    #[error("{name:?} has no version {version}")]
    NoVersion { name: String, version: u64 },
    /// It cannot be brought back, because it is there.
    #[error("{0:?} is not removed")]
    NotRemoved(String),
    /// Somebody else wrote first and the caller asked to be told.
    #[error("{name:?} is at version {current}, not at {wanted}")]
    Conflict { name: String, wanted: u64, current: u64 },
    /// The answer to a write was lost, and so many other writes came after it that none tells of it.
    #[error(
        "{name:?}: it is not known whether this became version {version}: others have written many since"
    )]
    Overtaken { name: String, version: u64 },
    /// No good copy of a body was found.
    #[error("{name:?}: no good copy of {body} was found on any node that answers")]
    BodyLost { name: String, body: BodyId },
    /// No node that answers has a body, but others may.
    #[error("{name:?}: {body} is on no node that answers; silent: {}", silent.join(", "))]
    OnSilent { name: String, body: BodyId, silent: Vec<String> },
    /// The version that a new one would follow cannot be read, so nobody knows which ones are behind it.
    #[error(
        "{name:?}: nothing was stored, because its version {version} cannot be read ({reason}) and the older \
         versions would be dropped with it"
    )]
    Unreadable { name: String, version: u64, reason: String, silent: Vec<String> },
    /// What a tombstone hides cannot be brought back: a body of it is on no node that answers.
    #[error(
        "{name:?} cannot be brought back: chunk {body} of its version {version} is on no node that answers"
    )]
    HiddenLost { name: String, version: u64, body: BodyId, silent: Vec<String> },
    /// A node answered with a register older than one that this home has already seen.
    #[error("{name:?}: {}, but this home has seen version {seen}", what_is_known(*answered))]
    Stale { name: String, answered: u64, seen: u64 },
    /// What was read does not fit its signature, tag or hash.
    #[error("{name:?} is damaged or forged: {reason}")]
    Damaged { name: String, reason: String },
    /// A file of the user's own.
    #[error("{path}: {reason}")]
    File { path: String, reason: String },
    /// A picture whose structure is broken.
    #[error("{path} says that it is {format}, but it is broken: {reason}")]
    Broken { path: String, format: String, reason: String },
    /// A text that cannot be a user's name.
    #[error("{0}")]
    UserName(String),
    /// A key file of the home.
    #[error("{reason}")]
    Key { reason: String, remedy: String },
    /// The destination exists and is another file.
    #[error("{path} exists and is another file")]
    Exists { path: String },
    /// An object name, a version or another argument that cannot be.
    #[error("{0}")]
    Usage(String),
    /// A task took longer than the user wanted to wait.
    #[error("it was not done within {} s: {waited_for}", limit_ms / 1000)]
    TimedOut { limit_ms: u64, waited_for: String, has_a_worker: bool },
    /// Somebody has cancelled the task.
    #[error("the task was cancelled")]
    Cancelled,
    /// No node knows work of this kind.
    #[error("no node here knows work of the kind {0:?}: their programs are older than this one")]
    UnknownKind(String),
    /// The node refused, in its words.
    #[error("the node refused: {0}")]
    Refused(String),
}

fn what_is_known(answered: u64) -> String {
    match answered {
        0 => "the nodes know nothing of it".into(),
        version => format!("the nodes know only version {version}"),
    }
}
