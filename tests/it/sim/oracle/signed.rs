//! **No unsigned register**: neither a disk nor a reader is ever given one that the object's owner has not
//! signed, whoever proposes it and whatever rots.

use tintype::{
    model::{ObjectId, register::VerifiedRegister},
    proto::chunkpaxos::AcceptorRecord,
};

use super::Checked;

/// A node's disk holds this record now; none = it does not read as one with a good signature.
pub fn on_disk(node: usize, object: &ObjectId, read: Option<&AcceptorRecord>) -> Checked {
    let Some(record) = read else {
        return Err(format!("node {node} holds a register of {object} that nobody signed"));
    };
    let of = record.accepted.as_ref().map(|accepted| accepted.value.object);
    match of {
        Some(other) if other != *object => Err(format!("node {node} holds {other} in the place of {object}")),
        _ => Ok(()),
    }
}

/// A reader was answered with this; none = its signature is wrong.
pub fn answered(object: &ObjectId, read: Option<&VerifiedRegister>) -> Checked {
    match read {
        Some(value) if value.object == *object => Ok(()),
        Some(value) => Err(format!("a reader of {object} was given {}", value.object)),
        None => Err(format!("a reader of {object} was given a register that nobody signed")),
    }
}
