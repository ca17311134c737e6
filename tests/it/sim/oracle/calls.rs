//! **Nothing hangs**: every call of ChunkPaxos is answered once, within its deadline by the node's own clock.

use std::collections::BTreeMap;

use tintype::{model::limits, proto::chunkpaxos::CallId};

use super::Checked;

/// What a busy or late node may need beyond the deadline: a timer rings up to 3 ms late.
const LATENESS_MS: u64 = 20;

#[derive(Default)]
pub struct Calls {
    open: BTreeMap<(usize, CallId), u64>,
    /// How long each node stood still; its deadlines are late by as much.
    stood_still_ms: BTreeMap<usize, u64>,
    pub answered: u64,
}

impl Calls {
    pub fn asked(&mut self, node: usize, call: CallId, clock_ms: u64) {
        self.open.insert((node, call), clock_ms);
    }

    pub fn answered(&mut self, node: usize, call: CallId, clock_ms: u64) -> Checked {
        let Some(began) = self.open.remove(&(node, call)) else {
            return Err(format!("node {node} answered {call:?} twice, or nobody asked it"));
        };
        self.answered += 1;
        let still = self.stood_still_ms.get(&node).copied().unwrap_or(0);
        let took = clock_ms.saturating_sub(began);
        if took > limits::NO_QUORUM.0 + LATENESS_MS + still {
            return Err(format!("an answer of node {node} took {took} ms"));
        }
        Ok(())
    }

    /// The node stood still, or its clock jumped.
    pub fn stood_still(&mut self, node: usize, ms: u64) {
        *self.stood_still_ms.entry(node).or_default() += ms;
    }

    pub fn lost(&mut self, node: usize) {
        self.open.retain(|(of, _), _| *of != node);
        self.stood_still_ms.remove(&node);
    }

    /// Long after the last one was asked, none may be open.
    pub fn all_answered(&self) -> Checked {
        match self.open.keys().next() {
            Some((node, call)) => Err(format!("node {node} never answered {call:?}")),
            None => Ok(()),
        }
    }
}
