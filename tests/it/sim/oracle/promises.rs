//! **Promises are monotone, and said only once they are durable**: an acceptor's record never goes back, over
//! all its starts, and what leaves a node is backed by its disk.

use tintype::{
    model::register::RawRegister,
    proto::chunkpaxos::{AcceptorRecord, Body, Message},
};

use super::Checked;

/// A record takes the place of another.
pub fn monotone(node: usize, old: Option<&AcceptorRecord>, new: &AcceptorRecord) -> Checked {
    let Some(old) = old else { return Ok(()) };
    let ballot = |record: &AcceptorRecord| record.accepted.as_ref().map(|a| a.ballot);
    if old.floor() > new.floor() || ballot(old) > ballot(new) {
        return Err(format!("node {node} went back on a promise: from {old:?} to {new:?}"));
    }
    Ok(())
}

/// A promise or an acceptance is said: the disk must hold it, or something greater.
pub fn backed(node: usize, message: &Message, stored: Option<&AcceptorRecord<RawRegister>>) -> Checked {
    let floor = stored.and_then(AcceptorRecord::floor);
    let accepted = stored.and_then(|record| record.accepted.as_ref()).map(|a| a.ballot);
    let is_backed = match &message.body {
        Body::Promise { ballot, .. } => floor >= Some(*ballot),
        Body::Accepted { ballot, .. } | Body::Mirrored { ballot } => accepted >= Some(*ballot),
        Body::State { accepted: Some(said) } => accepted >= Some(said.ballot),
        _ => true,
    };
    if is_backed {
        return Ok(());
    }
    Err(format!(
        "node {node} said what is not durable: {:?} with {floor:?}, {accepted:?} on disk",
        message.body
    ))
}
