//! Fetching bodies by the schedule of `proto`: the placement's order, hedged after half a second, in order.
//!
//! Every body is checked against its id by `net` before it is handed on. A bad copy is told to its holder,
//! which mends it; another copy is used. A body counts as lost only by answers: a node that was silent for a
//! while is asked again, within bounds.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, Abortable, Aborted, BoxFuture},
    stream::FuturesUnordered,
};

use super::{Client, Error, View};
use crate::{
    model::{BodyId, Millis, PeerId, limits, object::ObjectName, rpc::Request},
    net::{BulkError, Progress},
    proto::{
        Outbox, placement,
        schedule::{Action, Config, End, Event, Schedule, Timer},
    },
    seal::{
        chunk::SealedChunk,
        keys::UserKeys,
        manifest::{Layout, Manifest},
    },
};

/// Bodies fetched at once by one get.
const WINDOW: usize = 16;
/// Of those from one node.
const PER_PEER: usize = 8;
/// The pause before nodes that failed to answer are asked for a body again.
const RETRY_PAUSE: Millis = Millis(100);

/// How often the schedule is told what gets on: a stall is seen at most this much too late.
const LOOK_EVERY: Millis = Millis(50);

/// One fetch that is under way.
type Fetch<'a> = BoxFuture<'a, Ended>;
/// Its end; none of what it was if it was stopped.
type Ended = Result<(BodyId, PeerId, Result<Vec<u8>, BulkError>), Aborted>;

/// What is known of a fetch while it is under way.
struct Running {
    progress: Progress,
    /// Its bytes when they were looked at last.
    bytes: u64,
    stop: AbortHandle,
}

/// Gives the bodies of a list in its order.
pub(super) struct Fetcher<'a> {
    client: &'a Client,
    name: &'a str,
    view: &'a View,
    wanted: Vec<BodyId>,
    next_to_want: usize,
    next_to_give: usize,
    arrived: BTreeMap<BodyId, Vec<u8>>,
    schedule: Schedule,
    out: Outbox<Action>,
    under_way: FuturesUnordered<Fetch<'a>>,
    running: BTreeMap<(BodyId, PeerId), Running>,
    look_at: Millis,
    /// Bodies that nobody gave though not everybody said no, and when to ask for them again.
    again: Vec<BodyId>,
    again_at: Millis,
    /// When bytes came last.
    last_sign: Millis,
    /// When it was found first after that, that somebody who is not connected may have what is wanted.
    missed_since: Option<Millis>,
    wake_at: Option<Millis>,
    /// Bad copies met.
    pub(super) bad_copies: AtomicU64,
}

impl Client {
    /// One body, small, from whoever has it.
    pub(super) async fn fetch_body(&self, name: &str, id: BodyId) -> Result<Vec<u8>, Error> {
        let mut fetcher = self.fetcher(name, vec![id]).await?;
        fetcher.next().await?.ok_or_else(|| Error::BodyLost { name: name.to_owned(), body: id })
    }

    pub(super) async fn fetcher<'a>(
        &'a self,
        name: &'a str,
        wanted: Vec<BodyId>,
    ) -> Result<Fetcher<'a>, Error> {
        Ok(Fetcher {
            client: self,
            name,
            view: self.view().await?,
            wanted,
            next_to_want: 0,
            next_to_give: 0,
            arrived: BTreeMap::new(),
            schedule: Schedule::new(Config { window: WINDOW, per_peer: PER_PEER }),
            out: Outbox::new(),
            under_way: FuturesUnordered::new(),
            running: BTreeMap::new(),
            look_at: Millis(0),
            again: Vec::new(),
            again_at: Millis(0),
            last_sign: self.awake.now(),
            missed_since: None,
            wake_at: None,
            bad_copies: AtomicU64::new(0),
        })
    }

    /// All chunks of a version, its parts fetched if it has any.
    pub(super) async fn all_chunks(
        &self,
        keys: &UserKeys,
        name: &ObjectName,
        manifest: &Manifest,
    ) -> Result<Vec<SealedChunk>, Error> {
        let parts = match &manifest.layout {
            Layout::Chunks(chunks) => return Ok(chunks.clone()),
            Layout::Parts(parts) => parts,
        };
        let mut chunks = Vec::new();
        for index in 0..parts.len() {
            chunks.extend(self.open_part(keys, name.as_str(), manifest, index).await?);
        }
        Ok(chunks)
    }

    /// Fetches one part of a manifest in parts; the answer is its chunks.
    pub(super) async fn open_part(
        &self,
        keys: &UserKeys,
        name: &str,
        manifest: &Manifest,
        index: usize,
    ) -> Result<Vec<SealedChunk>, Error> {
        let damaged = |reason: String| Error::Damaged { name: name.to_owned(), reason };
        let part = match &manifest.layout {
            Layout::Parts(parts) => parts.get(index),
            Layout::Chunks(_) => None,
        };
        let part = part.ok_or_else(|| damaged("its manifest has no such part".into()))?;
        let bytes = self.fetch_body(name, part.id).await?;
        manifest.open_part(keys, index, &bytes).map_err(|e| damaged(e.to_string()))
    }
}

impl<'a> Fetcher<'a> {
    /// The next body of the list; none at its end.
    ///
    /// # Errors
    /// [`Error::BodyLost`] if all members say so; [`Error::OnSilent`] if some say nothing;
    /// [`Error::Unreachable`] if no node is connected any more.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let Some(id) = self.wanted.get(self.next_to_give).copied() else { return Ok(None) };
        loop {
            self.want_more();
            self.act()?;
            self.take_ended().await;
            if let Some(body) = self.arrived.remove(&id) {
                self.next_to_give += 1;
                // The same chunk may stand in an object more than once.
                if self.wanted[self.next_to_give..self.next_to_want].contains(&id) {
                    self.arrived.insert(id, body.clone());
                }
                return Ok(Some(body));
            }
            self.act()?;
            self.wait().await;
        }
    }

    /// Takes what has come and lets what was begun begin, waiting for nothing. Without it fetches would stand
    /// still, and be taken for stalled, while whoever uses the bodies takes long over those that are here.
    async fn take_ended(&mut self) {
        while let Some(Some(ended)) = self.under_way.next().now_or_never() {
            self.on_ended(ended).await;
        }
    }

    fn now(&self) -> Millis {
        self.client.awake.now()
    }

    fn feed(&mut self, event: Event) {
        self.schedule.handle(self.now(), event, &mut self.out);
    }

    fn want_more(&mut self) {
        while self.next_to_want < self.wanted.len() && self.next_to_want < self.next_to_give + WINDOW {
            let body = self.wanted[self.next_to_want];
            self.next_to_want += 1;
            if !self.arrived.contains_key(&body) {
                self.want(body);
            }
        }
        if !self.again.is_empty() && self.again_at <= self.now() {
            std::mem::take(&mut self.again).into_iter().for_each(|body| self.want(body));
        }
    }

    fn want(&mut self, body: BodyId) {
        let order = placement::order(&self.view.members, &body);
        for peer in &order {
            let connected = self.client.net.connected().contains_key(peer);
            if connected {
                self.client.wait_again_for(peer);
            }
            let usable = connected && !self.client.is_shunned(peer);
            self.feed(Event::Usable { peer: *peer, usable });
        }
        self.feed(Event::Want { body, holders: order });
    }

    /// Nobody gave it. Silence is not knowledge: whoever only failed to answer is asked again for a while,
    /// and whoever is not connected is waited for, once.
    fn on_give_up(&mut self, body: BodyId, asked: &[(PeerId, Option<End>)]) -> Result<(), Error> {
        let says_no = |end: &Option<End>| matches!(end, Some(End::NotHere | End::Corrupt));
        let no: Vec<PeerId> = asked.iter().filter(|(_, end)| says_no(end)).map(|(peer, _)| *peer).collect();
        let silent = self.view.members.iter().map(|m| m.peer).filter(|peer| !no.contains(peer));
        let silent: Vec<PeerId> = silent.collect();
        if silent.is_empty() {
            return Err(Error::BodyLost { name: self.name.to_owned(), body });
        }
        let now = self.now();
        let connected = self.client.net.connected();
        let (since, patience) = match silent.iter().any(|peer| connected.contains_key(peer)) {
            true => (self.last_sign, limits::FETCH_STALL_MAX),
            false if self.client.has_given_up(&silent) => (now, Millis(0)),
            false => (*self.missed_since.get_or_insert(now), limits::CLIENT_PATIENCE),
        };
        let waited = now.since(since);
        if waited < patience {
            self.again.push(body);
            self.again_at = now + RETRY_PAUSE;
            return Ok(());
        }
        if connected.is_empty() {
            return Err(self.client.unreachable_for(waited));
        }
        self.client.give_up(&silent);
        let silent = silent.iter().map(|peer| self.view.name(peer)).collect();
        Err(Error::OnSilent { name: self.name.to_owned(), body, silent })
    }

    fn act(&mut self) -> Result<(), Error> {
        let actions: Vec<Action> = self.out.drain().collect();
        for action in actions {
            match action {
                Action::Fetch { body, from } => self.begin(body, from),
                Action::Cancel { body, from } => self.cancel(body, from),
                Action::Done { .. } => {}
                Action::Arm { at, timer: Timer::Wake } => self.wake_at = Some(at),
                Action::GiveUp { body, asked } => self.on_give_up(body, &asked)?,
            }
        }
        Ok(())
    }

    fn begin(&mut self, body: BodyId, from: PeerId) {
        let client = self.client;
        let progress = Progress::default();
        let (stop, stopped) = AbortHandle::new_pair();
        self.running.insert((body, from), Running { progress: progress.clone(), bytes: 0, stop });
        let fetch = async move {
            let got = client.net.bulk(from).get_watched(body, limits::NO_PROGRESS.into(), &progress).await;
            (body, from, got)
        };
        self.under_way.push(Abortable::new(fetch, stopped).boxed());
    }

    /// Stops a fetch that is of no more use. The stream that it shares with others stays whole.
    fn cancel(&mut self, body: BodyId, from: PeerId) {
        if let Some(running) = self.running.remove(&(body, from)) {
            running.stop.abort();
        }
    }

    fn note_sign(&mut self) {
        (self.last_sign, self.missed_since) = (self.now(), None);
    }

    /// Tells the schedule which fetches got on since the last look.
    fn note_progress(&mut self) {
        let mut moved = Vec::new();
        for (of, running) in &mut self.running {
            let bytes = running.progress.bytes();
            if std::mem::replace(&mut running.bytes, bytes) != bytes {
                moved.push(*of);
            }
        }
        if !moved.is_empty() {
            self.note_sign();
        }
        for (body, from) in moved {
            self.feed(Event::Progress { body, from });
        }
    }

    async fn wait(&mut self) {
        let now = self.now();
        let mut until = self.wake_at.map_or(Duration::from_secs(1), |at| at.since(now).into());
        if !self.again.is_empty() {
            until = until.min(self.again_at.since(now).into());
        }
        if !self.running.is_empty() {
            until = until.min(self.look_at.since(now).into());
        }
        tokio::select! {
            Some(ended) = self.under_way.next(), if !self.under_way.is_empty() => {
                self.on_ended(ended).await;
            }
            () = tokio::time::sleep(until) => self.on_time(),
        }
    }

    fn on_time(&mut self) {
        let is_due = self.wake_at.is_some_and(|at| at <= self.now());
        if is_due || self.look_at <= self.now() {
            self.look_at = self.now() + LOOK_EVERY;
            self.note_progress();
        }
        if is_due {
            self.wake_at = None;
            self.feed(Event::Timer(Timer::Wake));
        }
    }

    async fn on_ended(&mut self, ended: Ended) {
        // One that was stopped has no end to tell of.
        if let Ok((body, from, got)) = ended {
            self.running.remove(&(body, from));
            self.on_end(body, from, got).await;
        }
    }

    async fn on_end(&mut self, body: BodyId, from: PeerId, got: Result<Vec<u8>, BulkError>) {
        let end = match got {
            Ok(bytes) => {
                // The slower of two that were asked for one body: kept, it would stay for ever.
                if self.wanted[self.next_to_give..self.next_to_want].contains(&body) {
                    self.arrived.entry(body).or_insert(bytes);
                }
                self.note_sign();
                self.client.note_answer(from);
                End::Good
            }
            Err(BulkError::NotHere) => End::NotHere,
            Err(BulkError::Corrupt) => {
                self.bad_copies.fetch_add(1, Ordering::Relaxed);
                self.tell_holder(body, from).await;
                End::Corrupt
            }
            Err(BulkError::Busy) => End::Failed,
            Err(error) => {
                tracing::debug!(%from, "{body} was not fetched: {error}");
                self.client.shun(from);
                self.feed(Event::Usable { peer: from, usable: false });
                End::Failed
            }
        };
        self.feed(Event::Ended { body, from, end });
    }

    /// The holder reads its copy again and mends it.
    async fn tell_holder(&self, body: BodyId, from: PeerId) {
        // Only a bad copy is to be replaced: whether one belongs there is not known here.
        let check = Request::Check { bodies: vec![body], read: true, copies: 0 };
        let _ = self.client.ask(from, &check, limits::NO_PROGRESS).await;
    }
}

#[cfg(test)]
mod tests {
    //! Real connections on loopback; a wire is made slow, or cut, by a relay of UDP packets.

    use std::time::Instant;

    use super::*;
    use crate::client::holders::{
        CutWay, bodies_of_the_first, body, by_id, client, client_of_some, holder, id, run, slow_way,
    };

    const BODY_BYTES: usize = 500_000;

    #[test]
    fn bodies_that_come_slowly_but_steadily_are_fetched_once() {
        run(async {
            // More than there are streams to one node: one waits behind another.
            let bodies = bodies_of_the_first(3, BODY_BYTES);
            let all = by_id(&bodies);
            let (a, b) = (holder(1, &all).await, holder(2, &all).await);
            let dir = tempfile::tempdir().unwrap();
            let ways = [slow_way(a.addr).await, slow_way(b.addr).await];
            let client = client(dir.path(), &[&a, &b], &ways).await;
            let mut fetcher = client.fetcher("x", bodies.iter().map(|b| id(b)).collect()).await.unwrap();
            let begun = Instant::now();
            for body in &bodies {
                assert_eq!(fetcher.next().await.unwrap().as_ref(), Some(&**body));
            }
            assert!(begun.elapsed() > 2 * Duration::from(limits::NO_PROGRESS), "the wire was not slow");
            assert_eq!((a.asked.load(Ordering::SeqCst), b.asked.load(Ordering::SeqCst)), (3, 0));
        });
    }

    #[test]
    fn bodies_that_somebody_uses_slowly_are_fetched_once() {
        run(async {
            // The first are all there while they are used, and what follows them is begun meanwhile.
            let bodies: Vec<_> = (0..2 * WINDOW as u64).map(|seed| body(seed, 1000)).collect();
            let all = by_id(&bodies);
            let (a, b) = (holder(1, &all).await, holder(2, &all).await);
            let dir = tempfile::tempdir().unwrap();
            let client = client(dir.path(), &[&a, &b], &[a.addr, b.addr]).await;
            let mut fetcher = client.fetcher("x", bodies.iter().map(|b| id(b)).collect()).await.unwrap();
            let pause = Duration::from(limits::NO_PROGRESS) * 2 / WINDOW as u32;
            for body in &bodies {
                assert_eq!(fetcher.next().await.unwrap().as_ref(), Some(&**body));
                tokio::time::sleep(pause).await;
            }
            let asked = a.asked.load(Ordering::SeqCst) + b.asked.load(Ordering::SeqCst);
            assert_eq!(asked, bodies.len() as u64);
        });
    }

    #[test]
    fn a_body_that_does_not_come_is_asked_of_another_and_the_first_is_left_in_peace() {
        run(async {
            let bodies = bodies_of_the_first(2, BODY_BYTES);
            let all = by_id(&bodies);
            let (a, b) = (holder(1, &all).await, holder(2, &all).await);
            let dir = tempfile::tempdir().unwrap();
            let client = client(dir.path(), &[&a, &b], &[a.addr, b.addr]).await;
            a.silent.send_replace(true);
            let mut fetcher = client.fetcher("x", vec![id(&bodies[0])]).await.unwrap();
            let begun = Instant::now();
            assert_eq!(fetcher.next().await.unwrap().as_ref(), Some(&*bodies[0]));
            let took = begun.elapsed();
            let patience = Duration::from(limits::NO_PROGRESS);
            assert!(took >= patience && took < 4 * patience, "{took:?}");
            assert_eq!((a.asked.load(Ordering::SeqCst), b.asked.load(Ordering::SeqCst)), (1, 1));
            assert!(fetcher.running.is_empty(), "the fetch from the silent one was stopped");
            // It was slow with one body, not gone: its stream goes on, with that body in front.
            a.silent.send_replace(false);
            assert!(!client.is_shunned(&a.peer));
            assert_eq!(client.fetch_body("x", id(&bodies[1])).await.unwrap(), **bodies[1]);
            assert_eq!((a.asked.load(Ordering::SeqCst), b.asked.load(Ordering::SeqCst)), (2, 1));
        });
    }

    #[test]
    fn a_holder_that_is_not_connected_is_waited_for_once_and_then_named() {
        run(async {
            let bodies = bodies_of_the_first(1, BODY_BYTES);
            let (a, b) = (holder(1, &by_id(&bodies)).await, holder(2, &BTreeMap::new()).await);
            let dir = tempfile::tempdir().unwrap();
            let way = CutWay::to(a.addr).await;
            way.cut.send_replace(true);
            let client = client_of_some(dir.path(), &[&a, &b], &[way.addr, b.addr], 1).await;
            let begun = Instant::now();
            let Err(Error::OnSilent { silent, .. }) = client.fetch_body("x", id(&bodies[0])).await else {
                panic!("it is not known to be lost");
            };
            assert_eq!(silent, [client.view().await.unwrap().name(&a.peer)]);
            let patience = Duration::from(limits::CLIENT_PATIENCE);
            assert!(begun.elapsed() > patience / 2, "{:?}", begun.elapsed());
            let begun = Instant::now();
            assert!(client.fetch_body("x", id(&bodies[0])).await.is_err());
            assert!(begun.elapsed() < patience / 2, "many objects wait once: {:?}", begun.elapsed());

            // It comes back while it is waited for.
            let mut peers = client.net.watch_peers();
            way.cut.send_replace(false);
            peers.wait_for(|peers| peers.len() == 2).await.unwrap();
            assert_eq!(client.fetch_body("x", id(&bodies[0])).await.unwrap(), **bodies[0]);
            way.cut.send_replace(true);
            peers.wait_for(|peers| peers.len() == 1).await.unwrap();
            let mut fetcher = client.fetcher("x", vec![id(&bodies[0])]).await.unwrap();
            let mend = async {
                tokio::time::sleep(patience / 5).await;
                way.cut.send_replace(false);
            };
            let (got, ()) = futures::join!(fetcher.next(), mend);
            assert_eq!(got.unwrap().as_ref(), Some(&*bodies[0]));
        });
    }
}
