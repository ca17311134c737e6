//! Storing one body on as many nodes as are wanted: whom to give it, who has it, when to go elsewhere.
//!
//! The bytes go over this client's wire once, as far as that is to be had: what one node has, the others
//! fetch from it. What one client has under way to one node is bounded, because all of it goes out twice when
//! that node dies.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};

use super::{Client, Error, View, room::Taken, types::OnProgress};
use crate::{
    model::{
        BodyId, Millis, PeerId, limits,
        rpc::{BodyState, Request, Response},
    },
    net::{self, BulkError},
    proto::placement,
};

/// How long one body is tried before the client says that it found no place.
const STORE_PATIENCE: Millis = Millis(30_000);
/// Without progress for so long even a slow disk is passed over.
const SLOW_PATIENCE: Millis = Millis(4000);
/// How long nodes are asked for a body whose receipt did not come, before it is sent again.
const ARRIVED_PATIENCE: Millis = Millis(150);
/// How long a node may take to fetch a body from another that has it, before it is sent again: it may ask one
/// that is gone first.
const BRING_PATIENCE: Millis = Millis(800);
/// The pause before a busy or unreachable node is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// What all chunks of one upload share.
pub(super) struct Transfer<'a> {
    pub(super) client: &'a Client,
    pub(super) view: &'a View,
    pub(super) copies: usize,
    /// Chunks in a row that no node had.
    pub(super) misses: AtomicUsize,
    /// True bytes of chunks that are durable.
    pub(super) acknowledged: AtomicU64,
    /// Without progress for so long a node is passed over; grows while every node is slow.
    pub(super) patience_ms: AtomicU64,
    /// True bytes in all, if known.
    pub(super) total: Option<u64>,
    pub(super) progress: OnProgress<'a>,
}

/// A body on its way to its holders.
struct Storing<'a> {
    id: BodyId,
    body: &'a Arc<Vec<u8>>,
    order: Vec<PeerId>,
    holders: Vec<PeerId>,
    /// Who had no room when asked last.
    full: BTreeSet<PeerId>,
    last_error: Option<Error>,
}

/// Why a node did not take a body.
struct Missed {
    error: Error,
    /// It may have it all the same.
    may_have_it: bool,
    /// It has no room.
    full: bool,
}

impl Client {
    /// Stores one body on as many nodes as are wanted and can be had; at least one.
    pub(super) async fn store_body(
        &self,
        view: &View,
        id: BodyId,
        body: &Arc<Vec<u8>>,
        copies: usize,
    ) -> Result<Vec<PeerId>, Error> {
        let transfer = Transfer {
            client: self,
            view,
            copies,
            misses: AtomicUsize::new(limits::TRANSFER_CHUNKS_MAX),
            acknowledged: AtomicU64::new(0),
            patience_ms: AtomicU64::new(limits::NO_PROGRESS.0),
            total: None,
            progress: &|_| (),
        };
        transfer.store(id, body).await
    }

    /// Waits for room for so many more bytes under way to a node, over all transfers. None if the node was
    /// passed over or lost meanwhile: then they are better off elsewhere. It never waits for ever: whoever
    /// has the room gives it back at the end of its call, which has a deadline, and waits for nobody's.
    async fn room_at(&self, peer: PeerId, bytes: usize) -> Option<Taken> {
        let room = self.rooms.of(peer);
        if let Some(taken) = room.try_take(bytes) {
            return Some(taken);
        }
        let was_shunned = self.is_shunned(&peer);
        let taken = room.take(bytes).await;
        let is_passed_over = !was_shunned && self.is_shunned(&peer);
        (!is_passed_over && self.net.connected().contains_key(&peer)).then_some(taken)
    }
}

impl Transfer<'_> {
    /// Stores a body; the answer is who has it durably.
    pub(super) async fn store(&self, id: BodyId, body: &Arc<Vec<u8>>) -> Result<Vec<PeerId>, Error> {
        let order = placement::order(&self.view.members, &id);
        let holders = self.already_there(id, &order).await;
        let mut storing = Storing { id, body, order, holders, full: BTreeSet::new(), last_error: None };
        let awake = &self.client.awake;
        let started = awake.now();
        let mut had_connection = started;
        loop {
            let patience_ms = self.patience_ms.load(Ordering::Relaxed);
            let candidates = self.client.usable(&storing.order);
            // Two durable copies are asked for where two nodes are there; the third follows by itself.
            let wanted = self.copies.min(2).min(candidates.len().max(1));
            if storing.has(wanted) || self.try_each(&candidates, wanted, &mut storing).await {
                return Ok(storing.holders);
            }
            let took = awake.since(started);
            if !storing.holders.is_empty() && (storing.nobody_else(&candidates) || took > limits::NO_QUORUM) {
                // Fewer than wanted, and nobody else takes it: the answer says so by its `survives`.
                return Ok(storing.holders);
            }
            if candidates.is_empty() && awake.since(had_connection) > limits::CLIENT_PATIENCE {
                return Err(self.client.unreachable_for(awake.since(had_connection)));
            }
            // One that cannot be asked just now may have room.
            let all_asked = candidates.len() == storing.order.len() || took > limits::CLIENT_PATIENCE;
            let is_full = !candidates.is_empty() && storing.nobody_else(&candidates) && all_asked;
            if is_full || took > STORE_PATIENCE {
                return Err(storing.last_error.unwrap_or_else(|| self.client.unreachable_for(took)));
            }
            if !candidates.is_empty() {
                had_connection = awake.now();
                if storing.holders.is_empty() {
                    self.grow_patience(patience_ms);
                }
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Gives the body to one after the other until as many as are wanted have it; says whether they do.
    async fn try_each(&self, candidates: &[PeerId], wanted: usize, storing: &mut Storing<'_>) -> bool {
        let mut asked_to_fetch = false;
        for first in candidates {
            if storing.holders.contains(first) {
                continue;
            }
            if !storing.holders.is_empty() && !std::mem::replace(&mut asked_to_fetch, true) {
                let more = wanted - storing.holders.len();
                storing.add(self.bring(storing, more).await);
                if storing.has(wanted) {
                    return true;
                }
                if storing.holders.contains(first) {
                    continue;
                }
            }
            match self.put_to(*first, storing).await {
                Ok(receipt) => {
                    storing.full.remove(first);
                    storing.add(receipt.unwrap_or_default());
                }
                Err(missed) => {
                    match missed.full {
                        true => storing.full.insert(*first),
                        false => storing.full.remove(first),
                    };
                    storing.last_error = Some(missed.error);
                    // A node that is only slow has it, or has passed it on: what lies there already need not
                    // go out twice.
                    if missed.may_have_it {
                        let order = &storing.order;
                        storing.add(self.who_has(storing.id, order, wanted, ARRIVED_PATIENCE).await);
                    }
                }
            }
            if storing.has(wanted) {
                return true;
            }
        }
        false
    }

    /// Every node was passed over: then it is not one that hangs, but disks that are slow, and giving up on
    /// them as quickly again would send everything again and never store it.
    /// Of many bodies that were passed over with the same patience only the first makes it longer.
    fn grow_patience(&self, used_ms: u64) {
        let longer = (used_ms * 2).min(SLOW_PATIENCE.0);
        let _ = self.patience_ms.compare_exchange(used_ms, longer, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Gives the body to one node, which passes it on; the answer is who has it durably. None if it was not
    /// sent, because the node was passed over while this waited for its turn.
    async fn put_to(&self, first: PeerId, storing: &Storing<'_>) -> Result<Option<Vec<PeerId>>, Missed> {
        let Some(room) = self.client.room_at(first, storing.body.len()).await else { return Ok(None) };
        let Storing { id, body, order, holders, .. } = storing;
        let usable = self.client.usable(order);
        let missing = self.copies.saturating_sub(holders.len() + 1);
        // Placed nodes first, whether they can be reached from here or not: the first holder may reach them.
        let mut onward: Vec<PeerId> = usable.iter().filter(|p| **p != first).copied().collect();
        onward.extend(order.iter().filter(|p| !usable.contains(p)));
        onward.retain(|p| !holders.contains(p) && *p != first);
        onward.truncate(missing);
        let durable = 2usize.saturating_sub(holders.len()).clamp(1, onward.len() + 1) as u8;
        let put = net::Put { id: *id, body: Arc::clone(body), onward, durable, first_hop: true };
        let patience = Duration::from_millis(self.patience_ms.load(Ordering::Relaxed));
        let began = Instant::now();
        let stored = self.client.net.bulk(first).put(put, patience).await;
        // Before the room is given back: who waits for it must know that the node was passed over.
        let stored = stored.map_err(|error| self.judge(first, error));
        // A quick refusal says nothing of how much the node would take.
        match &stored {
            Ok(_) => room.give_back(began.elapsed()),
            Err(_) => drop(room),
        }
        stored.map(|receipt| Some(receipt.holders))
    }

    /// What a failed put means: the node is asked last for a while, unless it is only busy.
    fn judge(&self, peer: PeerId, error: BulkError) -> Missed {
        tracing::debug!(%peer, "a body was not stored: {error}");
        let may_have_it = matches!(error, BulkError::NoProgress(_) | BulkError::Closed);
        let full = matches!(error, BulkError::Full);
        if error != BulkError::Busy {
            self.client.shun(peer);
        }
        let error = match error {
            BulkError::Busy => Error::Full("every node that answers has too much to do just now".into()),
            BulkError::Full => Error::Full(format!("{} has no room left", self.view.name(&peer))),
            BulkError::Refused(sentence) => Error::Refused(sentence),
            other => Error::Refused(other.to_string()),
        };
        Missed { error, may_have_it, full }
    }

    /// While an upload looks like one that was begun before: who has this chunk already.
    async fn already_there(&self, id: BodyId, order: &[PeerId]) -> Vec<PeerId> {
        // An interrupted upload leaves gaps among the chunks that were under way, never wider than these.
        if self.misses.load(Ordering::Relaxed) >= limits::TRANSFER_CHUNKS_MAX {
            return Vec::new();
        }
        let holders = self.who_has(id, order, usize::MAX, limits::NO_PROGRESS).await;
        match holders.is_empty() {
            true => drop(self.misses.fetch_add(1, Ordering::Relaxed)),
            false => self.misses.store(0, Ordering::Relaxed),
        }
        holders
    }

    /// Of the nodes where the body belongs, those that say they have it, read and hashed just now. Waits no
    /// longer once there are `enough`.
    async fn who_has(&self, id: BodyId, order: &[PeerId], enough: usize, patience: Millis) -> Vec<PeerId> {
        let request = Request::Offer { bodies: vec![id] };
        let placed = self.client.usable(order).into_iter().take(self.copies);
        let ask = |peer: PeerId| {
            let request = &request;
            async move {
                let answer = self.client.ask(peer, request, patience).await;
                (peer, matches!(answer, Some(Response::Have(have)) if have == [true]))
            }
        };
        first_that_do(placed.map(ask), enough).await
    }

    /// Has the nodes where the body belongs and is not fetch it from those that have it. Waits no longer once
    /// `enough` have. Of those that cannot, each costs a small question, and its bytes may still be sent.
    async fn bring(&self, storing: &Storing<'_>, enough: usize) -> Vec<PeerId> {
        let request = Request::Check { bodies: vec![storing.id], read: true, copies: self.copies as u64 };
        let placed = &storing.order[..self.copies.min(storing.order.len())];
        let lacking = self.client.usable(placed).into_iter().filter(|p| !storing.holders.contains(p));
        let ask = |peer: PeerId| {
            let request = &request;
            async move {
                let answer = self.client.ask(peer, request, BRING_PATIENCE).await;
                let Some(Response::Checked(states)) = answer else { return (peer, false) };
                let has = |s: &BodyState| {
                    matches!(s, BodyState::Good { .. } | BodyState::Restored | BodyState::Mended)
                };
                (peer, states.first().is_some_and(has))
            }
        };
        first_that_do(lacking.map(ask), enough).await
    }
}

/// Who said yes, of all who were asked; waits no longer once `enough` did.
async fn first_that_do(
    asked: impl Iterator<Item = impl Future<Output = (PeerId, bool)>>,
    enough: usize,
) -> Vec<PeerId> {
    let mut asked: FuturesUnordered<_> = asked.collect();
    let mut yes = Vec::new();
    while let Some((peer, said_yes)) = asked.next().await {
        if said_yes {
            yes.push(peer);
        }
        if yes.len() >= enough {
            break;
        }
    }
    yes
}

impl Storing<'_> {
    fn add(&mut self, more: Vec<PeerId>) {
        for peer in more {
            if !self.holders.contains(&peer) {
                self.holders.push(peer);
            }
        }
    }

    fn has(&self, wanted: usize) -> bool {
        !self.holders.is_empty() && self.holders.len() >= wanted
    }

    /// Whether all that can be asked have it or have no room.
    fn nobody_else(&self, candidates: &[PeerId]) -> bool {
        candidates.iter().all(|peer| self.holders.contains(peer) || self.full.contains(peer))
    }
}

#[cfg(test)]
mod tests {
    //! Real connections on loopback to holders of a few lines.

    use std::collections::BTreeMap;

    use super::*;
    use crate::client::holders::{
        CutWay, Holder, bodies_of_the_first, body, client, client_of_some, holder, id, run,
    };

    async fn two() -> (Holder, Holder) {
        (holder(1, &BTreeMap::new()).await, holder(2, &BTreeMap::new()).await)
    }

    async fn store(client: &Client, body: &Arc<Vec<u8>>, copies: usize) -> Result<Vec<PeerId>, Error> {
        client.store_body(client.view().await.unwrap(), id(body), body, copies).await
    }

    #[test]
    fn what_goes_out_twice_when_a_node_dies_is_bounded() {
        run(async {
            let (a, b) = two().await;
            let dir = tempfile::tempdir().unwrap();
            let way = CutWay::to(a.addr).await;
            let client = client(dir.path(), &[&a, &b], &[way.addr, b.addr]).await;
            // As many as two transfers have on their way, all of them to one that takes them and then dies.
            let bodies = bodies_of_the_first(2 * limits::TRANSFER_CHUNKS_MAX, limits::CHUNK_BYTES);
            a.silent.send_replace(true);
            let before = client.stream_bytes_written();
            let dying = async {
                let (mut seen, mut quiet) = (before, 0);
                while seen == before || quiet < 5 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    let now = client.stream_bytes_written();
                    (quiet, seen) = (if now == seen { quiet + 1 } else { 0 }, now);
                }
                way.cut.send_replace(true);
                Instant::now()
            };
            let storing = async {
                let stored =
                    futures::future::join_all(bodies.iter().map(|body| store(&client, body, 1))).await;
                (stored, Instant::now())
            };
            let (died, (stored, done)) = futures::join!(dying, storing);
            assert!(stored.iter().all(|s| *s.as_ref().unwrap() == [b.peer]));
            assert_eq!(b.bodies.lock().unwrap().len(), bodies.len());
            let twice = client.stream_bytes_written() - before - (bodies.len() * limits::CHUNK_BYTES) as u64;
            assert!(twice > 0 && twice <= (4 << 20) + (64 << 10), "{twice} bytes went out twice");
            // Who waited for a turn there went elsewhere when the first gave up.
            let took = done.saturating_duration_since(died);
            assert!(took < 3 * Duration::from(limits::NO_PROGRESS), "{took:?}");
        });
    }

    #[test]
    fn what_one_node_has_is_fetched_by_the_other_and_not_sent_again() {
        run(async {
            let (a, b) = two().await;
            let dir = tempfile::tempdir().unwrap();
            let client = client(dir.path(), &[&a, &b], &[a.addr, b.addr]).await;
            let body = body(1, limits::CHUNK_BYTES);
            let before = client.stream_bytes_written();
            let mut stored = store(&client, &body, 2).await.unwrap();
            stored.sort();
            let mut both = [a.peer, b.peer];
            both.sort();
            assert_eq!(stored, both);
            let written = client.stream_bytes_written() - before;
            assert!(written < body.len() as u64 + (64 << 10), "{written}");
        });
    }

    #[test]
    fn full_is_an_answer_once_all_have_given_it() {
        run(async {
            let (a, b) = two().await;
            let dir = tempfile::tempdir().unwrap();
            for holder in [&a, &b] {
                holder.full.store(true, Ordering::SeqCst);
            }
            let body = body(1, 1000);
            let asked = client(&dir.path().join("both"), &[&a, &b], &[a.addr, b.addr]).await;
            let begun = Instant::now();
            assert!(matches!(store(&asked, &body, 2).await, Err(Error::Full(_))));
            assert!(begun.elapsed() < Duration::from(limits::NO_PROGRESS), "{:?}", begun.elapsed());

            // One that is not connected may have room: it is waited for, and not for long.
            let way = CutWay::to(b.addr).await;
            way.cut.send_replace(true);
            let ways = [a.addr, way.addr];
            let asked = client_of_some(&dir.path().join("one"), &[&a, &b], &ways, 1).await;
            let begun = Instant::now();
            assert!(matches!(store(&asked, &body, 2).await, Err(Error::Full(_))));
            let patience = Duration::from(limits::CLIENT_PATIENCE);
            assert!(
                begun.elapsed() > patience / 2 && begun.elapsed() < 2 * patience,
                "{:?}",
                begun.elapsed()
            );
        });
    }
}
