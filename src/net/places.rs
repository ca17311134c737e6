//! Shared by all connections: who counts as a member, and how many places each peer has taken.
//!
//! Short locks, no waiting.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use libp2p::PeerId;

/// Who counts as a member, shared by everything that asks.
#[derive(Debug, Default)]
pub(super) struct Roster(RwLock<BTreeSet<PeerId>>);

impl Roster {
    pub(super) fn set(&self, members: BTreeSet<PeerId>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = members;
    }

    /// Before there are members any node may be one.
    pub(super) fn may_gossip(&self, peer: &PeerId) -> bool {
        let members = self.0.read().unwrap_or_else(PoisonError::into_inner);
        members.is_empty() || members.contains(peer)
    }

    pub(super) fn has(&self, peer: &PeerId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(peer)
    }
}

/// How many streams of one protocol a peer has open here.
pub(super) type Tally = Arc<Mutex<BTreeMap<PeerId, usize>>>;

/// One counted place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    peer: PeerId,
    tally: Tally,
}

impl Place {
    /// Takes one of `max` places of that peer.
    pub(super) fn take(tally: &Tally, peer: PeerId, max: usize) -> Option<Self> {
        let mut counts = tally.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Self { peer, tally: tally.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}
