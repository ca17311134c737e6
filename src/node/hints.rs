//! Offers again what could not be passed on or was refused by this disk, until it is where it should be.
//!
//! It remembers nothing (`proto::hints` does) and decides nothing about what belongs where.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    bodies::{Bodies, RunGuard},
    event_loop::EventLoop,
    repair,
};
use crate::{
    disk::Disk,
    model::{BodyId, PeerId},
    net::NetHandle,
};

/// One round of offers.
struct Round {
    me: PeerId,
    disk: Disk,
    net: NetHandle,
    bodies: Bodies,
    /// Only one round at a time.
    running: RunGuard,
}

impl EventLoop {
    /// Offers what is due, in a task of its own.
    pub(super) fn offer_missed(&self) {
        let Some(running) = self.bodies.try_begin_offers() else { return };
        let due = self.bodies.hints().due(self.now());
        if due.is_empty() {
            return;
        }
        let round = Round {
            me: self.me,
            disk: self.disk.clone(),
            net: self.handle.clone(),
            bodies: self.bodies.clone(),
            running,
        };
        tokio::spawn(round.run(due));
    }
}

impl Round {
    async fn run(self, due: BTreeMap<PeerId, Vec<BodyId>>) {
        for (peer, ids) in due {
            if peer == self.me {
                self.take_in(ids).await;
            } else if self.net.connected().contains_key(&peer) {
                let missing = repair::offer(&self.net, peer, ids.clone()).await;
                let missing: BTreeSet<BodyId> = missing.into_iter().collect();
                let there: Vec<BodyId> = ids.into_iter().filter(|id| !missing.contains(id)).collect();
                self.bodies.hints().is_there(peer, &there);
            }
        }
        drop(self.running);
    }

    /// What this disk refused: perhaps there is room now. It may be on the others only.
    async fn take_in(&self, ids: Vec<BodyId>) {
        let mut missing = Vec::new();
        for id in ids {
            if matches!(self.disk.has_body(id).await, Ok(true)) {
                self.bodies.hints().is_there(self.me, &[id]);
            } else {
                missing.push(id);
            }
        }
        self.bodies.want(missing);
    }
}
