//! **Heartbeats are bounded**: one node says no more of them than one each `limits::HEARTBEAT` by its own
//! clock, and none over `limits::GOSSIP_BYTES_MAX`.

use std::collections::BTreeMap;

use tintype::model::{Millis, limits};

use super::Checked;

#[derive(Default)]
pub struct Heartbeats {
    last: BTreeMap<usize, Millis>,
    pub count: u64,
}

impl Heartbeats {
    pub fn published(&mut self, node: usize, clock: Millis, bytes: &[u8]) -> Checked {
        self.count += 1;
        if bytes.len() > limits::GOSSIP_BYTES_MAX {
            return Err(format!("a heartbeat of {} bytes", bytes.len()));
        }
        match self.last.insert(node, clock) {
            Some(before) if clock.since(before) < limits::HEARTBEAT => {
                Err(format!("node {node} said two heartbeats within {}", clock.since(before)))
            }
            _ => Ok(()),
        }
    }

    pub fn restarted(&mut self, node: usize) {
        self.last.remove(&node);
    }
}
