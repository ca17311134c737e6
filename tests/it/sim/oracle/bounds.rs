//! **No unbounded queue**: what one event makes a machine want, what waits for a disk, what is asked and not
//! answered, what is being fetched.

use tintype::model::limits;

use super::Checked;

/// What one event may set off at most: every call of an object's queue answered, and a round for each.
const ACTIONS_MAX: usize = 16 * limits::PAXOS_CALLS_PER_OBJECT_MAX;
/// Questions of one node that nobody has answered yet: scans, probes and passed-on bodies together.
const QUESTIONS_MAX: usize = limits::RPC_IN_FLIGHT_MAX * 8;
/// Bodies that one get fetches at once.
const FETCHES_MAX: usize = 8;

/// The greatest that was seen of each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    pub actions: usize,
    pub disk_queue: usize,
    pub questions: usize,
    pub fetches: usize,
}

impl Bounds {
    pub fn actions(&mut self, count: usize) -> Checked {
        bounded("actions of one event", &mut self.actions, count, ACTIONS_MAX)
    }

    pub fn disk_queue(&mut self, count: usize) -> Checked {
        bounded("writes waiting for a disk", &mut self.disk_queue, count, limits::WRITE_QUEUE_MAX)
    }

    pub fn questions(&mut self, count: usize) -> Checked {
        bounded("questions without an answer", &mut self.questions, count, QUESTIONS_MAX)
    }

    pub fn fetches(&mut self, count: usize) -> Checked {
        bounded("bodies being fetched by one get", &mut self.fetches, count, FETCHES_MAX)
    }
}

fn bounded(what: &str, greatest: &mut usize, count: usize, most: usize) -> Checked {
    *greatest = (*greatest).max(count);
    if count > most { Err(format!("{count} {what}; at most {most} may be")) } else { Ok(()) }
}
