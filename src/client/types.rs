//! The requests and answers of a client, as its callers see them.

use std::{path::PathBuf, sync::Arc};

use crate::model::{PeerId, config::Packets, limits, rpc, task::TaskKind};

/// How to reach a cluster and as whom.
#[derive(Clone, Debug, Default)]
pub struct Connect {
    /// The home directory.
    pub home: PathBuf,
    /// Addresses given on the command line, `host:port` or a multiaddr; tried first.
    pub nodes: Vec<String>,
    /// Static bootstrap list of the configuration.
    pub bootstrap: Vec<String>,
    /// Look for nodes by mDNS too.
    pub mdns: bool,
    /// How packets are made and kept.
    pub packets: Packets,
    /// The user; none = the only one in the home.
    pub user: Option<String>,
    /// Make the named user's key if the home has no user's key at all, as a shell does.
    pub make_named: bool,
    /// The passphrase of a sealed user key, asked for only when needed.
    pub passphrase: Option<Passphrase>,
}

/// Asks a person for the passphrase of the named user.
#[derive(Clone)]
#[expect(clippy::type_complexity, reason = "one callback, named by this very type")]
pub struct Passphrase(pub Arc<dyn Fn(&str) -> std::io::Result<String> + Send + Sync>);

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// Where the bytes of an object come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, which may be read more than once.
    Path(PathBuf),
    /// Standard input, read once, of unknown length.
    Stdin,
    /// Bytes in memory, such as generated pictures.
    Memory(Arc<[u8]>),
}

/// One object to store.
#[derive(Clone, Debug)]
pub struct Put {
    /// The bytes.
    pub source: Source,
    /// The object's name, already checked.
    pub name: String,
    /// Store a broken picture all the same, as bytes.
    pub force: bool,
    /// Fail with a conflict unless this is the current version (0 = the object must not exist).
    pub if_version: Option<u64>,
    /// Copies wanted; capped by the number of members.
    pub copies: u8,
    /// Make a thumbnail of pictures that decode.
    pub thumbnail: bool,
}

/// What became of one put. Its JSON has the promised names and no others.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PutDone {
    /// The object's name.
    pub name: String,
    /// The version that holds these bytes.
    pub version: u64,
    /// The object's true size.
    pub bytes: u64,
    /// Fewest durable copies of any of its bodies when it was acknowledged.
    pub copies: u64,
    /// Copies wanted.
    pub copies_wanted: u64,
    /// Display names of nodes that have all of it.
    pub nodes: Vec<String>,
    /// How many machines may be lost for good without losing this put.
    pub survives: u64,
    /// How long it took.
    pub ms: u64,
    /// The same bytes were already the current version.
    pub unchanged: bool,
    /// Messages of the commit, the proposer's own counted; 0 if unchanged.
    pub commit_messages: u64,
    /// What a person should know of it all the same; each a sentence.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// A register that was written without storing bytes: a removal, or one taken back.
#[derive(Clone, Debug)]
pub struct Written {
    /// The new version.
    pub version: u64,
    /// What a person should know of it all the same; each a sentence.
    pub warnings: Vec<String>,
}

/// Told to a progress bar.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Bytes acknowledged (put) or written (get) so far.
    pub bytes_done: u64,
    /// All bytes, if known.
    pub bytes_total: Option<u64>,
}

/// Called with progress, often; must be quick.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// Work for a node.
#[derive(Clone, Debug)]
pub struct Work {
    /// What is to be done.
    pub kind: TaskKind,
    /// All that the worker needs: an order and a picture (`work::envelope`).
    pub payload: Arc<Vec<u8>>,
    /// How long to wait for an answer; none = for ever.
    pub timeout: Option<std::time::Duration>,
    /// How much of that is over already: the picture may have come slowly.
    pub waited: std::time::Duration,
}

/// Told a sentence whenever something else is waited for; must be quick.
pub type OnWaiting<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// One object to fetch.
#[derive(Clone, Debug)]
pub struct Get {
    /// The object's name.
    pub name: String,
    /// An older version; none = the current one.
    pub version: Option<u64>,
    /// Take the newest version that any reachable node knows.
    pub any: bool,
}

/// What became of one get.
#[derive(Clone, Debug, serde::Serialize)]
pub struct GetDone {
    /// The object's name.
    pub name: String,
    /// The version that was read.
    pub version: u64,
    /// Its true size.
    pub bytes: u64,
    /// Where it was written; none = streamed.
    pub path: Option<PathBuf>,
    /// Bytes that were already there from an earlier, interrupted run.
    pub resumed_bytes: u64,
    /// Bad copies met (and replaced by good ones from elsewhere).
    pub bad_copies: u64,
    /// The destination already held exactly this.
    pub unchanged: bool,
    /// How long it took.
    pub ms: u64,
    /// Read without a quorum: it may not be the newest.
    pub unconfirmed: bool,
}

/// The next step when the cluster answers with less than this home has seen.
pub const WHAT_TO_DO_WHEN_OLDER: &str = "start the nodes that hold the newer state; if the older one was put \
                                         back on purpose, remove the folder `state` in this home, which \
                                         forgets what was seen";

/// One line of a listing.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ObjectInfo {
    /// The object's name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Its true size.
    pub bytes: u64,
    /// Media type from its content.
    pub media_type: String,
    /// When it was put, milliseconds since 1970 by the client's clock.
    pub unix_ms: u64,
    /// Removed; only in a listing that asked for those.
    pub removed: bool,
}

/// A listing.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// By name.
    pub objects: Vec<ObjectInfo>,
    /// Some hash slot had no majority: objects may be missing.
    pub incomplete: bool,
    /// Registers that could not be opened (damaged), objects older than this home has seen them, or gone;
    /// each a sentence, at most [`limits::LISTING_FINDINGS_MAX`], then one that says how many more there are
    /// and one that says what it means.
    pub findings: Vec<String>,
}

/// All that is known of one object.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Stat {
    /// As in a listing.
    #[serde(flatten)]
    pub info: ObjectInfo,
    /// The object id, hexadecimal.
    pub object: String,
    /// Chunks of this version.
    pub chunks: u64,
    /// Stored bytes of one copy (padded).
    pub stored_bytes: u64,
    /// Whether a thumbnail is stored.
    pub thumbnail: bool,
    /// Versions that can be read, newest first.
    pub versions: Vec<u64>,
    /// The home proposer's display name.
    pub home: String,
}

/// One copy of one object on one node.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Copy {
    /// The node's display name.
    pub node: String,
    /// Its identity.
    #[serde(serialize_with = "as_text")]
    pub peer: PeerId,
    /// It answered.
    pub reachable: bool,
    /// Bodies of the object that should be there by placement.
    pub placed: u64,
    /// Bodies of the object that are there.
    pub bodies: u64,
    /// Bad bodies there.
    pub bad: u64,
    /// The oldest time at which one of its bodies was last verified, milliseconds since 1970.
    pub verified_unix_ms: Option<u64>,
}

/// Where an object lies.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Where {
    /// The object's name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Bodies of one copy.
    pub bodies: u64,
    /// Fewest copies of any body.
    pub fewest_copies: u64,
    /// Each node.
    pub copies: Vec<Copy>,
}

/// What a verification found.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Verified {
    /// Objects read.
    pub objects: u64,
    /// Of those, removed ones, which can be brought back.
    pub removed: u64,
    /// Versions of all of them.
    pub versions: u64,
    /// Copies of bodies read.
    pub copies_read: u64,
    /// Bad copies found.
    pub bad: u64,
    /// Bad copies replaced by good ones.
    pub mended: u64,
    /// Copies that placement asks for and that are missing.
    pub missing: u64,
    /// Missing copies that were put in place.
    pub restored: u64,
    /// Bodies with no good copy on any node that answers.
    pub lost: u64,
    /// Sentences, one a finding; at most [`limits::FINDINGS_MAX`], and one that says how many more there are.
    pub findings: Vec<String>,
    /// Findings that have no sentence.
    pub more_findings: u64,
    /// Nodes that did not answer.
    pub unreachable: Vec<String>,
}

impl Verified {
    /// Keeps a sentence, or counts it when there are enough.
    pub(super) fn add_finding(&mut self, sentence: String) {
        if self.findings.len() < limits::FINDINGS_MAX {
            self.findings.push(sentence);
        } else {
            self.more_findings += 1;
        }
    }
}

/// The status as `tintype status --json` prints it, with what the text needs.
#[derive(Clone, Debug)]
pub struct Status {
    /// The answering node's view.
    pub info: rpc::StatusInfo,
    /// Served, with a majority alive and nothing amiss.
    pub healthy: bool,
    /// Nodes alive.
    pub nodes_alive: u64,
    /// Nodes of the epoch.
    pub nodes_total: u64,
    /// Machines that may be lost now without losing an acknowledged picture.
    pub can_lose: Option<u64>,
}

fn as_text<S: serde::Serializer>(peer: &PeerId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_told_up_to_a_bound_and_counted_beyond() {
        let mut verified = Verified::default();
        (0..limits::FINDINGS_MAX + 3).for_each(|n| verified.add_finding(n.to_string()));
        assert_eq!((verified.findings.len(), verified.more_findings), (limits::FINDINGS_MAX, 3));
    }
}
