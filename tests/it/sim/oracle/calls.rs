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
        let took = clock_ms.saturating_sub(began);
        if took > self.longest(node) {
            return Err(format!("an answer of node {node} took {took} ms"));
        }
        Ok(())
    }

    fn longest(&self, node: usize) -> u64 {
        let still = self.stood_still_ms.get(&node).copied().unwrap_or(0);
        limits::NO_QUORUM.0 + LATENESS_MS + still
    }

    /// The node stood still, or its clock jumped.
    pub fn stood_still(&mut self, node: usize, ms: u64) {
        *self.stood_still_ms.entry(node).or_default() += ms;
    }

    pub fn lost(&mut self, node: usize) {
        self.open.retain(|(of, _), _| *of != node);
        self.stood_still_ms.remove(&node);
    }

    /// None may be open for longer than its deadline, by the clock of its node.
    pub fn all_answered(&self, clock_ms: impl Fn(usize) -> u64) -> Checked {
        let is_late = |node: usize, began: u64| clock_ms(node).saturating_sub(began) > self.longest(node);
        match self.open.iter().find(|((node, _), began)| is_late(*node, **began)) {
            Some(((node, call), _)) => Err(format!("node {node} never answered {call:?}")),
            None => Ok(()),
        }
    }
}
