//! Repair is derived, not remembered: what the slots say should be there, and is not.
//!
//! Every acceptor or mirror scans its slots from a majority, takes over what is agreed, has disagreement
//! settled by a full round, and tells every placed member which bodies belong on it; that member fetches
//! what it lacks. Before its object is agreed on, nobody's slot says that a body should be anywhere: what was
//! missed until then `node::hints` offers, or the next run sees, which follows soon. It deletes nothing and
//! decides nothing: `proto::repair` and ChunkPaxos do.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    bodies::{Bodies, RunGuard},
    event_loop::{Call, EventLoop},
    machines::verify,
    serve,
    timers::TimerKey,
};
use crate::{
    disk::Disk,
    model::{
        BodyId, Millis, ObjectId, PeerId, limits,
        object::{BodyPublic, ManifestBody, Redundancy},
        register::{RawRegister, Register, VerifiedRegister},
        rpc::{BodyState, RecordPage, Request, Response},
        slots::HashSlot,
    },
    net::NetHandle,
    proto::{
        chunkpaxos::{Accepted, Ballot, Command, Outcome, View},
        placement::{self, Weighted},
        repair::{self, Next, Reports, Runs, Seen, SlotRecords},
    },
};

/// One run over all slots of this node.
pub(super) struct Repair {
    pub(super) me: PeerId,
    pub(super) members: Vec<Weighted>,
    /// The slots that this node keeps.
    pub(super) slots: Vec<(HashSlot, View)>,
    pub(super) disk: Disk,
    pub(super) net: NetHandle,
    pub(super) calls: mpsc::Sender<Call>,
    pub(super) bodies: Bodies,
    /// The slots of which it need not look at the bodies again.
    pub(super) seen: Seen,
    /// Only one run at a time.
    pub(super) running: RunGuard,
}

/// What the loop knows of repair.
#[derive(Default)]
pub(super) struct LastRun {
    /// Copies that the last run missed; none = no run has ended since somebody came.
    pub(super) lacking: Option<u64>,
    /// Objects that want a single copy.
    pub(super) single_copy: Option<u64>,
    /// How soon it is followed by the next, and what that need not look at.
    pub(super) runs: Runs,
    /// It takes a part of the time only, however much there is always to be looked at again.
    pub(super) not_before: Millis,
}

/// What a run found out so far.
#[derive(Default)]
struct Found {
    /// Bodies that belong on each member.
    placed: BTreeMap<PeerId, Vec<BodyId>>,
    /// Members that lack a register or have an older one.
    behind: BTreeSet<PeerId>,
    /// Manifests looked at in this run.
    manifests: BTreeSet<BodyId>,
    /// Registers and manifests that could not be read, and copies that somebody who answers lacks.
    lacking: u64,
    /// Objects that are there and want a single copy.
    single_copy: u64,
    /// The slots.
    seen: Seen,
}

impl Repair {
    /// Runs once and reports to the loop.
    pub(super) async fn run(self) {
        let began = Instant::now();
        let mut found = Found::default();
        for (slot, view) in &self.slots {
            self.repair_slot(*slot, view, &mut found).await;
            self.push(&mut found, limits::OFFER_IDS_MAX).await;
        }
        self.push(&mut found, 1).await;
        self.tell_those_behind(&found).await;
        let took = Millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        let Found { lacking, single_copy, manifests, seen, .. } = found;
        tracing::debug!(lacking, manifests = manifests.len(), took_ms = took.0, "a run of repair has ended");
        // The next run begins when the loop knows what came of this one.
        let running = self.running;
        let _ = self.calls.send(Call::RepairDone { lacking, single_copy, took, seen, running }).await;
    }

    /// A member whose write was refused or whose messages were lost does not know that it lacks something.
    async fn tell_those_behind(&self, found: &Found) {
        for peer in &found.behind {
            // Told again by the next run.
            let _ = self.net.request(*peer, Request::Behind.encode(), limits::RPC_TIMEOUT.into()).await;
        }
    }

    async fn repair_slot(&self, slot: HashSlot, view: &View, found: &mut Found) {
        let keepers = &view.keepers;
        let Some(mine) = self.scan_own(slot).await else {
            found.lacking += 1;
            return;
        };
        let mut scans: Vec<(PeerId, SlotRecords)> = Vec::new();
        for acceptor in keepers.acceptors.iter().filter(|peer| **peer != self.me) {
            if let Some(records) = self.scan(*acceptor, slot).await {
                scans.push((*acceptor, records));
            }
        }
        let voted_here = keepers.acceptors.contains(&self.me);
        if voted_here {
            scans.push((self.me, mine.clone()));
        }
        if scans.len() < keepers.majority() {
            // Without a majority nothing is known; it is looked at again when somebody comes back.
            return;
        }
        // Its own twice if it votes: of a mirror they are not among the others.
        let read = scans.iter().map(|(peer, records)| (*peer, records));
        let digest = repair::digest(read.chain([(self.me, &mine)]));
        let before = found.single_copy;
        match self.seen.if_unchanged(slot, digest) {
            Some(single_copy) => found.single_copy += single_copy,
            None => self.repair_objects(&scans, &mine, view, found).await,
        }
        found.seen.note(slot, digest, found.single_copy - before);
    }

    /// Looks at each object of a slot and at its bodies.
    async fn repair_objects(
        &self,
        scans: &[(PeerId, SlotRecords)],
        mine: &SlotRecords,
        view: &View,
        found: &mut Found,
    ) {
        let objects: BTreeSet<ObjectId> = scans.iter().flat_map(|(_, s)| s.keys().copied()).collect();
        for object in objects {
            let ballot = |records: &SlotRecords| records.get(&object).map(|(ballot, _)| *ballot);
            let acceptors: Vec<_> = scans.iter().map(|(peer, records)| (*peer, ballot(records))).collect();
            let verdict =
                repair::judge(&Reports { me: self.me, mine: ballot(mine), acceptors: &acceptors, view });
            found.behind.extend(&verdict.behind);
            if verdict.someone_is_behind {
                found.lacking += 1;
                tracing::debug!(%object, newest = ?verdict.newest, "an acceptor is behind");
            }
            let newest = scans.iter().filter_map(|(_, records)| records.get(&object));
            let newest = newest.max_by_key(|(ballot, _)| *ballot);
            match self.follow(object, verdict.next, newest, mine.get(&object)).await {
                Some(value) => self.place(&value, found).await,
                None => found.lacking += 1,
            }
        }
    }

    /// Does what the verdict says; the answer is the agreed value.
    async fn follow(
        &self,
        object: ObjectId,
        next: Next,
        newest: Option<&(Ballot, RawRegister)>,
        mine: Option<&(Ballot, RawRegister)>,
    ) -> Option<Register> {
        match next {
            Next::Settle => self.settle(object).await.map(|value| (*value).clone()),
            // What this disk has was checked before it was written, and nothing is left to do about it.
            Next::Keep => Register::decode(&mine?.1.0).ok(),
            Next::TakeOver => {
                let (ballot, raw) = newest?;
                let value = self.verified(raw).await?;
                let register = (*value).clone();
                let accepted = Accepted { ballot: *ballot, value };
                let _ = self.calls.send(Call::LateAccept { object, accepted }).await;
                Some(register)
            }
        }
    }

    async fn settle(&self, object: ObjectId) -> Option<VerifiedRegister> {
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call::Paxos { object, command: Command::Settle, reply }).await.ok()?;
        match answer.await.ok()?.outcome {
            Outcome::Value { current } => current.map(|a| a.value),
            _ => None,
        }
    }

    async fn verified(&self, raw: &RawRegister) -> Option<VerifiedRegister> {
        let raw = raw.clone();
        tokio::task::spawn_blocking(move || verify(&raw)).await.ok()?.ok()
    }

    // ---- bodies ----

    /// Notes where every body of a value belongs: its manifest, its chunks, and those of the versions kept.
    async fn place(&self, value: &Register, found: &mut Found) {
        let mut queue: Vec<BodyId> = value.manifest.into_iter().collect();
        while let Some(manifest) = queue.pop() {
            if !found.manifests.insert(manifest) {
                continue;
            }
            let Some(body) = self.read_manifest(manifest).await else {
                found.lacking += 1;
                continue;
            };
            let copies = copies_of(&body);
            self.place_body(manifest, copies, found).await;
            for id in body.referenced() {
                self.place_body(id, copies, found).await;
            }
            if let BodyPublic::Manifest(public) = &body.public {
                for part in &public.parts {
                    self.place_part(part.id, copies, found).await;
                }
            }
            // Only the newest manifest lists its predecessors in full; theirs are among them.
            if Some(manifest) == value.manifest {
                found.single_copy += u64::from(!value.is_tombstone() && body.wants_single_copy());
                queue.extend(body.predecessors().iter().map(|p| p.manifest));
            }
        }
    }

    async fn place_part(&self, part: BodyId, copies: usize, found: &mut Found) {
        let Some(body) = self.read_manifest(part).await else {
            found.lacking += 1;
            return;
        };
        for id in body.referenced() {
            self.place_body(id, copies, found).await;
        }
    }

    async fn read_manifest(&self, id: BodyId) -> Option<ManifestBody> {
        let bytes = self.bodies.read(id).await?;
        ManifestBody::decode(&bytes).map_err(|error| tracing::warn!("the manifest {id}: {error}")).ok()
    }

    async fn place_body(&self, id: BodyId, copies: usize, found: &mut Found) {
        for peer in placement::order(&self.members, &id).into_iter().take(copies) {
            if peer != self.me {
                found.placed.entry(peer).or_default().push(id);
            } else if !matches!(self.disk.has_body(id).await, Ok(true)) {
                tracing::debug!(%id, "a body that belongs here is missing");
                found.lacking += 1;
                found.placed.entry(peer).or_default().push(id);
            }
        }
    }

    /// Tells each member what belongs on it, once at least `at_least` ids are together.
    async fn push(&self, found: &mut Found, at_least: usize) {
        for (peer, ids) in &mut found.placed {
            while ids.len() >= at_least && !ids.is_empty() {
                let batch: Vec<BodyId> = ids.drain(..ids.len().min(limits::OFFER_IDS_MAX)).collect();
                if *peer == self.me {
                    self.bodies.want(batch);
                    continue;
                }
                if !self.net.connected().contains_key(peer) {
                    continue;
                }
                found.lacking += offer(&self.net, *peer, batch).await.len() as u64;
            }
        }
    }

    // ---- scanning ----

    async fn scan_own(&self, slot: HashSlot) -> Option<SlotRecords> {
        let mut records = SlotRecords::new();
        let mut after = None;
        loop {
            let scan = self.disk.scan_slot(slot, after, limits::LIST_PAGE_BYTES_MAX).await.ok()?;
            let page = serve::page_of(scan);
            after = page.next;
            add_page(&mut records, page)?;
            if after.is_none() {
                return Some(records);
            }
        }
    }

    async fn scan(&self, peer: PeerId, slot: HashSlot) -> Option<SlotRecords> {
        if !self.net.connected().contains_key(&peer) {
            return None;
        }
        let mut records = SlotRecords::new();
        let mut after = None;
        loop {
            let request = Request::ScanSlot { slot: slot.0, after };
            let answer = self.net.request(peer, request.encode(), limits::RPC_TIMEOUT.into()).await.ok()?;
            let Ok(Response::Page(page)) = Response::decode(&answer) else { return None };
            let next = page.next;
            add_page(&mut records, page)?;
            if next.is_none() {
                return Some(records);
            }
            // A peer that goes round in circles is not asked for ever.
            if next <= after {
                return None;
            }
            after = next;
        }
    }
}

/// Has a member fetch which of these it does not have; the answer is which those are, all if it does not say.
pub(super) async fn offer(net: &NetHandle, peer: PeerId, bodies: Vec<BodyId>) -> Vec<BodyId> {
    let missing = missing_on(net, peer, bodies).await;
    if !missing.is_empty() {
        let request = Request::Push { bodies: missing.clone() };
        if let Err(error) = net.request(peer, request.encode(), limits::RPC_TIMEOUT.into()).await {
            tracing::debug!(%peer, "it was not told what belongs on it: {error}");
        }
    }
    missing
}

async fn missing_on(net: &NetHandle, peer: PeerId, bodies: Vec<BodyId>) -> Vec<BodyId> {
    let request = Request::Check { bodies, read: false, copies: 0 };
    let answer = net.request(peer, request.encode(), limits::RPC_TIMEOUT.into()).await;
    let Request::Check { bodies, .. } = request else { return Vec::new() };
    match answer.map(|bytes| Response::decode(&bytes)) {
        Ok(Ok(Response::Checked(states))) if states.len() == bodies.len() => {
            let missing = |state: &BodyState| matches!(state, BodyState::Missing | BodyState::Bad);
            let all = bodies.into_iter().zip(&states);
            all.filter(|(_, state)| missing(state)).map(|(id, _)| id).collect()
        }
        _ => bodies,
    }
}

/// How long repair rests after a run.
pub(super) fn rest_after(took: Millis) -> Millis {
    Millis(took.0.saturating_mul(limits::REPAIR_REST)).min(limits::REPAIR_REST_MAX.max(took))
}

impl EventLoop {
    /// The first object that wants a single copy has come: nobody may go on saying that a machine may be
    /// lost.
    pub(super) fn recount_everywhere(&mut self) {
        self.repair.single_copy = None;
        self.timers.arm_no_later(TimerKey::Repair, self.now() + limits::REPAIR_AFTER_CONNECT);
        let Some(cluster) = &self.cluster else { return };
        let others: Vec<PeerId> = cluster.members.iter().map(|m| m.peer).filter(|p| *p != self.me).collect();
        for peer in others {
            // One that does not hear it counts at its next run.
            let _ = self.net.request(peer, Request::Behind.encode(), limits::RPC_TIMEOUT.into());
        }
    }
}

fn add_page(records: &mut SlotRecords, page: RecordPage) -> Option<()> {
    for record in page.records {
        records.insert(record.object, (Ballot::decode(&record.ballot).ok()?, record.value));
    }
    Some(())
}

fn copies_of(body: &ManifestBody) -> usize {
    match &body.public {
        BodyPublic::Manifest(public) => {
            let Redundancy::Copies(copies) = public.redundancy;
            usize::try_from(copies).unwrap_or(placement::COPIES)
        }
        BodyPublic::Part(_) => placement::COPIES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_for_its_share_and_never_so_long_that_somebody_waits_for_it() {
        let most = limits::REPAIR_REST_MAX;
        assert_eq!(rest_after(Millis(0)), Millis(0));
        assert_eq!(rest_after(Millis(100)), Millis(100 * limits::REPAIR_REST));
        assert_eq!(rest_after(Millis(most.0 - 1)), most);
        assert_eq!(rest_after(Millis(60_000)), Millis(60_000), "of a long run, half of the time");
        assert_eq!(rest_after(Millis(u64::MAX)), Millis(u64::MAX));
    }
}
