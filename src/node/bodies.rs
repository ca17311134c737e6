//! Bodies in and out: bulk requests, forwarding to further holders, checks, and mending from other members.
//!
//! Chunk bytes never pass the node's loop. A body is acknowledged only once it is durable where the answer
//! says. A bad copy is never given out; a good one replaces it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, Semaphore, mpsc, watch};

use super::{refused::Refused, workbench::Workbench};

use crate::{
    disk::{BodyCheck, Disk, DiskError, PutOutcome},
    model::{
        BodyId, PeerId, limits,
        object::ManifestBody,
        rpc::{BodyState, Counters},
    },
    net::{BulkAnswer, BulkCall, BulkError, BulkRequest, NetHandle, Put},
    proto::{
        hints::Hints,
        placement::{self, Weighted},
    },
};

/// How often a holder that says "busy" is asked again before another is taken.
const BUSY_TRIES: u32 = 20;
/// The pause between two of those.
const BUSY_PAUSE: Duration = Duration::from_millis(15);

macro_rules! counters {
    ($($name:ident),*) => {
        /// What this node counts from its start on; see [`Counters`].
        #[derive(Debug, Default)]
        pub(super) struct NodeCounters { $(pub(super) $name: Counter),* }
    };
}

counters!(
    lane_frames_sent,
    first_hop_bytes,
    forwarded_bytes,
    declined,
    malformed,
    corrupt_found,
    corrupt_mended
);

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn bump(&self) {
        self.add(1);
    }

    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl NodeCounters {
    /// Fills in what this room counts.
    pub(super) fn fill(&self, counters: &mut Counters) {
        counters.lane_frames_sent = self.lane_frames_sent.get();
        counters.first_hop_bytes = self.first_hop_bytes.get();
        counters.forwarded_bytes = self.forwarded_bytes.get();
        counters.declined = self.declined.get();
        counters.malformed = self.malformed.get();
        counters.corrupt_found = self.corrupt_found.get();
        counters.corrupt_mended = self.corrupt_mended.get();
    }
}

/// A node's bodies. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bodies(Arc<Shared>);

struct Shared {
    me: PeerId,
    disk: Disk,
    net: NetHandle,
    workbench: Workbench,
    counters: Arc<NodeCounters>,
    members: watch::Sender<Vec<Weighted>>,
    first_hop: Arc<Semaphore>,
    forwarded: Arc<Semaphore>,
    shunned: Mutex<BTreeMap<PeerId, Instant>>,
    wanted: Mutex<BTreeSet<BodyId>>,
    fetching: AtomicU64,
    wake: Notify,
    repairing: Arc<AtomicBool>,
    offering: Arc<AtomicBool>,
    missed: AtomicBool,
    hints: Mutex<Hints>,
    refused: Mutex<Refused>,
    single: AtomicBool,
    stopped: AtomicBool,
}

/// A run of repair, or a round of offers. However its task ends, by a panic too, the next one may begin then.
#[derive(Debug)]
pub(super) struct RunGuard(Arc<AtomicBool>);

impl RunGuard {
    fn begin(runs: &Arc<AtomicBool>) -> Option<Self> {
        let has_begun = runs.swap(true, Ordering::Relaxed);
        (!has_begun).then(|| Self(Arc::clone(runs)))
    }
}

impl Drop for RunGuard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A body's bytes, shared between the disk and the wire.
struct Shareable(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shareable {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Bodies {
    /// Begins to serve bulk requests and to fetch what others say belongs here.
    pub(super) fn start(
        me: PeerId,
        disk: Disk,
        net: NetHandle,
        counters: Arc<NodeCounters>,
        served: (mpsc::Receiver<BulkCall>, Workbench),
    ) -> Self {
        let (calls, workbench) = served;
        let bodies = Self(Arc::new(Shared {
            me,
            disk,
            net,
            workbench,
            counters,
            members: watch::channel(Vec::new()).0,
            first_hop: Arc::new(Semaphore::new(limits::FIRST_HOP_MAX)),
            forwarded: Arc::new(Semaphore::new(limits::FORWARDED_MAX)),
            shunned: Mutex::default(),
            wanted: Mutex::default(),
            fetching: AtomicU64::new(0),
            wake: Notify::new(),
            repairing: Arc::default(),
            offering: Arc::default(),
            missed: AtomicBool::new(false),
            hints: Mutex::default(),
            refused: Mutex::default(),
            single: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }));
        tokio::spawn(bodies.clone().serve(calls));
        tokio::spawn(bodies.clone().fetch_wanted());
        bodies
    }

    pub(super) fn set_members(&self, members: Vec<Weighted>) {
        self.0.members.send_replace(members);
    }

    pub(super) fn stop(&self) {
        self.0.stopped.store(true, Ordering::Relaxed);
        self.0.wake.notify_waiters();
    }

    /// Begins a repair run, unless one has begun and not ended. It ends when the guard is dropped.
    pub(super) fn try_begin_repair(&self) -> Option<RunGuard> {
        RunGuard::begin(&self.0.repairing)
    }

    /// Begins a round of offers, likewise.
    pub(super) fn try_begin_offers(&self) -> Option<RunGuard> {
        RunGuard::begin(&self.0.offering)
    }

    fn members(&self) -> Vec<Weighted> {
        self.0.members.borrow().clone()
    }

    fn order(&self, id: &BodyId) -> Vec<PeerId> {
        placement::order(&self.members(), id)
    }

    /// Whether a body of so many copies belongs here.
    fn belongs_here(&self, id: &BodyId, copies: u64) -> bool {
        let copies = usize::try_from(copies).unwrap_or(usize::MAX);
        self.order(id).iter().take(copies).any(|peer| *peer == self.0.me)
    }

    // ---- serving bulk ----

    async fn serve(self, mut calls: mpsc::Receiver<BulkCall>) {
        while let Some(call) = calls.recv().await {
            let bodies = self.clone();
            match call.request {
                BulkRequest::Put { first_hop, .. } => {
                    let pool = if first_hop { &self.0.first_hop } else { &self.0.forwarded };
                    let pool = Arc::clone(pool);
                    // Its place in the network's memory bounds how many wait.
                    drop(tokio::spawn(async move {
                        let permit = pool.acquire_owned().await;
                        bodies.serve_put(call).await;
                        drop(permit);
                    }));
                }
                BulkRequest::Get { id } => drop(tokio::spawn(async move {
                    let answer = bodies.serve_get(id).await;
                    let _ = call.reply.send(answer);
                })),
                BulkRequest::Give { piece, .. } => drop(tokio::spawn(async move {
                    let answer = bodies.0.workbench.give(call.peer, piece, &call.body).await;
                    let _ = call.reply.send(answer);
                })),
                BulkRequest::Take { piece } => {
                    let _ = call.reply.send(self.0.workbench.take(call.peer, piece));
                }
            }
        }
    }

    async fn serve_get(&self, id: BodyId) -> BulkAnswer {
        match self.0.disk.get_body(id).await {
            Ok(Some(body)) => BulkAnswer::Body(Arc::new(body)),
            Ok(None) => BulkAnswer::NotHere,
            Err(DiskError::Corrupt { .. }) => {
                self.0.counters.corrupt_found.bump();
                tracing::warn!("the copy of {id} here was corrupt and has been moved aside");
                self.want(vec![id]);
                BulkAnswer::Corrupt
            }
            Err(_) => BulkAnswer::Busy,
        }
    }

    /// Stores here and passes on; answers once as many are durable as were asked for, then goes on to the
    /// rest.
    async fn serve_put(&self, call: BulkCall) {
        let BulkRequest::Put { id, onward, durable, first_hop, .. } = call.request else { return };
        if self.members().is_empty() {
            let _ = call.reply.send(BulkAnswer::Refused("this node belongs to no cluster yet".into()));
            return;
        }
        if first_hop {
            self.0.counters.first_hop_bytes.add(call.body.len() as u64);
        }
        if first_hop && onward.is_empty() && wants_single_copy(&call.body) {
            self.0.single.store(true, Ordering::Relaxed);
        }
        let body = Arc::new(call.body);
        let onward = self.sane_onward(onward, call.peer);
        let here = self.0.disk.put_body(id, Shareable(Arc::clone(&body)));
        let wanted = usize::from(durable.max(1));
        let mut rest = onward.into_iter();
        let there = self.forward_until(id, &body, &mut rest, wanted - 1);
        let (here, mut holders) = futures::join!(here, there);
        let refusal = self.note_put(id, body.len() as u64, here, &mut holders);
        // One that failed here or there is made up for by the next in line.
        if holders.len() < wanted {
            let more = self.forward_until(id, &body, &mut rest, wanted - holders.len()).await;
            holders.extend(more);
        }
        let answer = match refusal {
            Some(refusal) if holders.is_empty() => refusal,
            _ => BulkAnswer::Stored { holders },
        };
        let _ = call.reply.send(answer);
        let remaining = rest.len();
        self.forward_until(id, &body, &mut rest, remaining).await;
    }

    /// Further holders must be members, others than this node and the one that sent it, each once.
    fn sane_onward(&self, onward: Vec<PeerId>, from: PeerId) -> Vec<PeerId> {
        let members = self.members();
        let mut seen = BTreeSet::from([self.0.me, from]);
        let mut sane: Vec<PeerId> =
            onward.into_iter().filter(|p| members.iter().any(|m| m.peer == *p) && seen.insert(*p)).collect();
        sane.sort_by_key(|peer| self.is_shunned(peer));
        sane
    }

    /// One that failed is passed over for a while: many bodies must not each wait for it.
    fn shun(&self, peer: PeerId) {
        let until = Instant::now() + Duration::from(limits::SHUN);
        self.0.shunned.lock().unwrap_or_else(PoisonError::into_inner).insert(peer, until);
    }

    fn is_shunned(&self, peer: &PeerId) -> bool {
        let shunned = self.0.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        shunned.get(peer).is_some_and(|until| *until > Instant::now())
    }

    /// Counts what came of the own put; the answer is what to say if nobody else has it.
    fn note_put(
        &self,
        id: BodyId,
        len: u64,
        here: Result<PutOutcome, DiskError>,
        holders: &mut Vec<PeerId>,
    ) -> Option<BulkAnswer> {
        match here {
            Ok(outcome) => {
                if outcome == PutOutcome::Mended {
                    self.0.counters.corrupt_found.bump();
                    self.0.counters.corrupt_mended.bump();
                }
                holders.insert(0, self.0.me);
                None
            }
            Err(error) => {
                self.0.counters.declined.bump();
                // What belongs here lies elsewhere now, and nobody else notes that it is missing here.
                self.note_missed(self.0.me, id);
                tracing::debug!("a body was declined: {error}");
                if !error.is_full() {
                    return Some(BulkAnswer::Busy);
                }
                self.refused().note(id, len);
                Some(BulkAnswer::Full)
            }
        }
    }

    /// Passes a body on to one after the other of `onward` until `wanted` have it durably.
    async fn forward_until(
        &self,
        id: BodyId,
        body: &Arc<Vec<u8>>,
        onward: &mut std::vec::IntoIter<PeerId>,
        wanted: usize,
    ) -> Vec<PeerId> {
        let mut holders = Vec::new();
        while holders.len() < wanted {
            let Some(peer) = onward.next() else { break };
            if self.forward(id, body, peer).await {
                holders.push(peer);
            }
        }
        holders
    }

    /// A holder was passed over. Its object may not be agreed on yet, so that no run of repair would see it.
    fn note_missed(&self, peer: PeerId, id: BodyId) {
        self.0.missed.store(true, Ordering::Relaxed);
        self.hints().note(peer, id);
    }

    /// The copies that were missed.
    pub(super) fn hints(&self) -> MutexGuard<'_, Hints> {
        self.0.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a holder was passed over since this was last asked: then some body lacks a copy.
    pub(super) fn take_missed(&self) -> bool {
        self.0.missed.swap(false, Ordering::Relaxed)
    }

    /// As [`Bodies::take_missed`], which will say it again.
    pub(super) fn has_missed(&self) -> bool {
        self.0.missed.load(Ordering::Relaxed)
    }

    /// Whether a manifest that wants a single copy came in since this was last asked.
    pub(super) fn take_single(&self) -> bool {
        self.0.single.swap(false, Ordering::Relaxed)
    }

    async fn forward(&self, id: BodyId, body: &Arc<Vec<u8>>, peer: PeerId) -> bool {
        let forwarded = self.try_forward(id, body, peer).await;
        if !forwarded {
            self.note_missed(peer, id);
        }
        forwarded
    }

    async fn try_forward(&self, id: BodyId, body: &Arc<Vec<u8>>, peer: PeerId) -> bool {
        if !self.0.net.connected().contains_key(&peer) || self.is_shunned(&peer) {
            return false;
        }
        let put = Put { id, body: Arc::clone(body), onward: Vec::new(), durable: 1, first_hop: false };
        for _ in 0..BUSY_TRIES {
            match self.0.net.bulk(peer).put(put.clone(), limits::FORWARD_PATIENCE.into()).await {
                Ok(receipt) => {
                    self.0.counters.forwarded_bytes.add(body.len() as u64);
                    return receipt.holders.contains(&peer);
                }
                Err(BulkError::Busy) => tokio::time::sleep(BUSY_PAUSE).await,
                Err(error) => {
                    tracing::debug!(%peer, "a body was not passed on: {error}");
                    self.shun(peer);
                    return false;
                }
            }
        }
        false
    }

    // ---- checking and mending ----

    /// Whether a good copy is here, read and hashed just now.
    pub(super) async fn has_good(&self, id: BodyId) -> bool {
        matches!(self.0.disk.check_body(id).await, Ok(BodyCheck::Good { .. }))
    }

    /// The state of each body; with `read` each is read and hashed, and a bad one, or a missing one that
    /// belongs here if there are to be so many copies, is fetched from another member.
    pub(super) async fn check(&self, ids: &[BodyId], read: bool, copies: u64) -> Vec<BodyState> {
        let mut states = Vec::with_capacity(ids.len());
        for id in ids {
            states.push(if read { self.check_one(*id, copies).await } else { self.look_at(*id).await });
        }
        states
    }

    async fn look_at(&self, id: BodyId) -> BodyState {
        match self.0.disk.body_verified(id).await {
            Ok(Some(verified_unix_ms)) => BodyState::Good { verified_unix_ms },
            _ => BodyState::Missing,
        }
    }

    async fn check_one(&self, id: BodyId, copies: u64) -> BodyState {
        match self.0.disk.check_body(id).await {
            Ok(BodyCheck::Good { verified_unix_ms }) => BodyState::Good { verified_unix_ms },
            Ok(BodyCheck::Corrupt) => {
                self.0.counters.corrupt_found.bump();
                if self.fetch(id).await {
                    self.0.counters.corrupt_mended.bump();
                    BodyState::Mended
                } else {
                    BodyState::Bad
                }
            }
            Ok(BodyCheck::Missing) => {
                let may_come = self.belongs_here(&id, copies) && self.is_worth_fetching(id).await;
                if may_come && self.fetch(id).await { BodyState::Restored } else { BodyState::Missing }
            }
            Err(error) => {
                tracing::warn!("checking {id}: {error}");
                BodyState::Bad
            }
        }
    }

    /// Fetches a good copy from another member, in the order of placement, and stores it.
    pub(super) async fn fetch(&self, id: BodyId) -> bool {
        for peer in self.order(&id) {
            if peer == self.0.me || !self.0.net.connected().contains_key(&peer) {
                continue;
            }
            match self.0.net.bulk(peer).get(id, limits::NO_PROGRESS.into()).await {
                Ok(body) => return self.take_in(id, body).await,
                Err(error) => tracing::debug!(%peer, "{id} was not fetched: {error}"),
            }
        }
        false
    }

    async fn take_in(&self, id: BodyId, body: Vec<u8>) -> bool {
        let len = body.len() as u64;
        let stored = self.0.disk.put_body(id, body).await;
        match &stored {
            Ok(_) => self.refused().is_here(&id),
            Err(error) => {
                if error.is_full() {
                    // That it takes no more it says once, for all of them.
                    self.refused().note(id, len);
                    tracing::debug!("a fetched body was not stored: {error}");
                } else {
                    tracing::warn!("a fetched body was not stored: {error}");
                }
            }
        }
        stored.is_ok()
    }

    fn refused(&self) -> MutexGuard<'_, Refused> {
        self.0.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is not here, and was not refused for want of room that there still is not.
    async fn is_worth_fetching(&self, id: BodyId) -> bool {
        if matches!(self.0.disk.has_body(id).await, Ok(true)) {
            return false;
        }
        let wanted = self.refused().room_wanted(&id);
        wanted.is_none_or(|len| self.0.disk.room_for(len).is_ok())
    }

    /// Fetches a body's bytes from here or from any member.
    pub(super) async fn read(&self, id: BodyId) -> Option<Vec<u8>> {
        if let Ok(Some(body)) = self.0.disk.get_body(id).await {
            return Some(body);
        }
        for peer in self.order(&id) {
            if peer != self.0.me
                && let Ok(body) = self.0.net.bulk(peer).get(id, limits::NO_PROGRESS.into()).await
            {
                return Some(body);
            }
        }
        None
    }

    // ---- what belongs here and may be missing ----

    /// Notes bodies that should be here; a task fetches those that are not. False if too many wait.
    pub(super) fn want(&self, ids: Vec<BodyId>) -> bool {
        let mut wanted = self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.len() + ids.len() > limits::REPAIR_WANTED_MAX {
            return false;
        }
        wanted.extend(ids);
        drop(wanted);
        self.0.wake.notify_one();
        true
    }

    /// Bodies that wait to be looked at, or are being fetched.
    pub(super) fn wanted_count(&self) -> u64 {
        let waiting = self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        waiting + self.0.fetching.load(Ordering::Relaxed)
    }

    async fn fetch_wanted(self) {
        let permits = Arc::new(Semaphore::new(limits::REPAIR_FETCHES_MAX));
        loop {
            let next = self.next_wanted();
            let Some(id) = next else {
                if self.0.stopped.load(Ordering::Relaxed) {
                    return;
                }
                self.0.wake.notified().await;
                continue;
            };
            self.0.fetching.fetch_add(1, Ordering::Relaxed);
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let bodies = self.clone();
            tokio::spawn(async move {
                if bodies.is_worth_fetching(id).await {
                    bodies.fetch(id).await;
                }
                bodies.0.fetching.fetch_sub(1, Ordering::Relaxed);
                drop(permit);
            });
        }
    }

    fn next_wanted(&self) -> Option<BodyId> {
        self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner).pop_first()
    }
}

/// Whether this is a manifest whose owner wants one copy. Of a chunk the first bytes tell that it is none.
fn wants_single_copy(body: &[u8]) -> bool {
    ManifestBody::decode(body).is_ok_and(|manifest| manifest.wants_single_copy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_repair_runs_at_a_time_and_one_that_panicked_has_ended() {
        let runs = Arc::default();
        let run = RunGuard::begin(&runs).expect("none runs");
        assert!(RunGuard::begin(&runs).is_none());
        assert!(RunGuard::begin(&runs).is_none(), "to ask is not to begin, nor to end");
        let panicked = std::thread::spawn(move || {
            let _run = run;
            panic!("a bug in a run, on purpose");
        });
        assert!(panicked.join().is_err());
        let run = RunGuard::begin(&runs).expect("it has ended");
        drop(run);
        assert!(RunGuard::begin(&runs).is_some());
    }
}
