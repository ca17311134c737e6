//! `tintype init`: a home and its keys, nothing started.

use std::path::PathBuf;

use serde::Serialize;
use zeroize::Zeroizing;

use super::{context::Context, problem::Halt, problem::Outcome};
use crate::{
    api::{Exit, Problem},
    disk::Home,
    model::PeerId,
    seal::admission::ClusterKey,
};

/// `init`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// What a home has of keys, and what of it was made just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The node's identity.
    pub peer: PeerId,
    /// The identity was made just now.
    pub node_key_made: bool,
    /// The cluster key was made just now; false = it was there, so there is a cluster to look for.
    pub cluster_key_made: bool,
}

#[derive(Serialize)]
struct Answer {
    home: PathBuf,
    peer: String,
    made: bool,
}

/// Makes what is missing and says where it lies. Nothing that is there is touched.
///
/// # Errors
/// A key file that is not one; what the operating system says.
pub fn run(_: &Args, context: &Context) -> Outcome {
    let home = &context.home;
    let keys = make_keys(home)?;
    let made = keys.node_key_made || keys.cluster_key_made;
    let answer = Answer { home: home.root().to_owned(), peer: keys.peer.to_string(), made };
    context.output.answer(&answer, || match made {
        true => format!("A home was made in {}", home.root().display()),
        false => format!("The home in {} is there already; nothing was changed", home.root().display()),
    })?;
    context.output.talk(&format!("This machine is {}.", keys.peer));
    context.output.talk(&found_together(home));
    context.output.talk("Next: `tintype up`");
    Ok(Exit::Done)
}

/// How several machines become one vault.
pub fn found_together(home: &Home) -> String {
    format!(
        "Several machines found a vault together, and it takes no more later: before the first start copy {} \
         to keys/cluster.key in the home of each, then run `tintype up --expect N` on all N of them.",
        home.cluster_key_path().display()
    )
}

/// The home's keys, made now if they are missing.
///
/// # Errors
/// A key file that is not one; what the operating system says.
pub fn make_keys(home: &Home) -> Result<Keys, Halt> {
    home.create()?;
    let (node_key, node_key_made) = home.node_key_or_new()?;
    let fresh = ClusterKey::from_bytes(rand::random());
    // A key that is there stays: it may be a copy of another machine's.
    let cluster_key_made = match home.cluster_key()? {
        Some(text) => check_cluster_key(home, &text).map(|()| false)?,
        None => home.create_cluster_key(&fresh.to_text())?,
    };
    Ok(Keys { peer: node_key.public().to_peer_id(), node_key_made, cluster_key_made })
}

fn check_cluster_key(home: &Home, text: &Zeroizing<String>) -> Result<(), Halt> {
    ClusterKey::parse(text).map(|_| ()).map_err(|error| {
        let path = home.cluster_key_path();
        Problem::failed(
            format!("{}: {error}", path.display()),
            format!("copy keys/cluster.key from another machine of the cluster to {}", path.display()),
        )
        .into()
    })
}
