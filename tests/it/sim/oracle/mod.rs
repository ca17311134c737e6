//! What must hold, whatever happens: one file for each.
//!
//! An oracle looks at what the world does and changes nothing. The first sentence that it answers with ends
//! the run.

pub mod ballots;
pub mod bounds;
pub mod calls;
pub mod claims;
pub mod effects;
pub mod founding;
pub mod heartbeats;
pub mod history;
pub mod kept;
pub mod promises;
pub mod signed;
pub mod tasks_end;
pub mod views;

use tintype::{
    model::{ObjectId, register::RawRegister},
    proto::chunkpaxos::{AcceptorRecord, Message},
};

use super::client;
pub use kept::{Acked, Newest};

/// All of them.
pub struct Oracle {
    objects: Vec<ObjectId>,
    pub ballots: ballots::Ballots,
    pub bounds: bounds::Bounds,
    pub calls: calls::Calls,
    pub claims: claims::Claims,
    pub effects: effects::Effects,
    pub founding: founding::Foundings,
    pub heartbeats: heartbeats::Heartbeats,
    pub history: history::Histories,
    pub kept: kept::Kept,
    pub tasks_end: tasks_end::TasksEnd,
}

pub type Checked = Result<(), String>;

impl Oracle {
    pub fn new(objects: usize, nodes: usize) -> Self {
        let of = |index| client::keys().address(&client::name(index)).object;
        Self {
            objects: (0..objects).map(of).collect(),
            ballots: ballots::Ballots::default(),
            bounds: bounds::Bounds::default(),
            calls: calls::Calls::default(),
            claims: claims::Claims::default(),
            effects: effects::Effects::default(),
            founding: founding::Foundings::new(nodes),
            heartbeats: heartbeats::Heartbeats::default(),
            history: history::Histories::default(),
            kept: kept::Kept::default(),
            tasks_end: tasks_end::TasksEnd::default(),
        }
    }

    /// The objects of the run.
    pub fn objects(&self) -> impl Iterator<Item = ObjectId> + '_ {
        self.objects.iter().copied()
    }

    /// A node's process has ended: nobody waits for its answers any more.
    pub fn calls_lost(&mut self, node: usize) {
        self.calls.lost(node);
        self.heartbeats.restarted(node);
    }

    /// A node says this to another, while its disk holds `stored` of the object.
    pub fn says(&mut self, node: usize, message: &Message, stored: Option<&[u8]>) -> Checked {
        let stored = stored.map(AcceptorRecord::<RawRegister>::decode).transpose();
        let stored = stored.map_err(|error| format!("a record cannot be read: {error}"))?;
        promises::backed(node, message, stored.as_ref())?;
        self.ballots.said(message)
    }

    /// A record is durable on a node's disk in the place of `old`.
    pub fn durable(
        &mut self,
        node: usize,
        object: &ObjectId,
        old: Option<&AcceptorRecord>,
        new: &AcceptorRecord,
    ) -> Checked {
        promises::monotone(node, old, new)?;
        self.ballots.durable(node, object, new)
    }
}

mod tests;
