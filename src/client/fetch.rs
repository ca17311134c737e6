//! Fetching bodies by the schedule of `proto`: the placement's order, hedged after half a second, in order.
//!
//! Every body is checked against its id by `net` before it is handed on. A bad copy is told to its holder,
//! which mends it; another copy is used. A body counts as lost only by answers: a node that was silent for a
//! while is asked again, within bounds.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};

use super::{Client, Error};
use crate::{
    model::{BodyId, Millis, PeerId, limits, object::ObjectName, rpc::Request},
    net::BulkError,
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
const RETRY_PAUSE: Millis = Millis(50);

/// One fetch that is under way.
type Fetch<'a> = BoxFuture<'a, (BodyId, PeerId, Result<Vec<u8>, BulkError>)>;

/// Gives the bodies of a list in its order.
pub(super) struct Fetcher<'a> {
    client: &'a Client,
    name: &'a str,
    members: Vec<placement::Weighted>,
    wanted: Vec<BodyId>,
    next_to_want: usize,
    next_to_give: usize,
    arrived: BTreeMap<BodyId, Vec<u8>>,
    schedule: Schedule,
    out: Outbox<Action>,
    under_way: FuturesUnordered<Fetch<'a>>,
    /// Bodies that nobody gave though not everybody said no, and when to ask for them again.
    again: Vec<BodyId>,
    again_at: Millis,
    last_arrival: Instant,
    wake_at: Option<Millis>,
    started: Instant,
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
            members: self.view().await?.members.clone(),
            wanted,
            next_to_want: 0,
            next_to_give: 0,
            arrived: BTreeMap::new(),
            schedule: Schedule::new(Config { window: WINDOW, per_peer: PER_PEER }),
            out: Outbox::new(),
            under_way: FuturesUnordered::new(),
            again: Vec::new(),
            again_at: Millis(0),
            last_arrival: Instant::now(),
            wake_at: None,
            started: Instant::now(),
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
        for (index, part) in parts.iter().enumerate() {
            let bytes = self.fetch_body(name.as_str(), part.id).await?;
            let opened = manifest
                .open_part(keys, index, &bytes)
                .map_err(|e| Error::Damaged { name: name.to_string(), reason: e.to_string() })?;
            chunks.extend(opened);
        }
        Ok(chunks)
    }
}

impl<'a> Fetcher<'a> {
    /// The next body of the list; none at its end.
    ///
    /// # Errors
    /// [`Error::BodyLost`]; [`Error::Unreachable`] if no node is connected any more.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let Some(id) = self.wanted.get(self.next_to_give).copied() else { return Ok(None) };
        loop {
            self.want_more();
            self.act()?;
            if let Some(body) = self.arrived.remove(&id) {
                self.next_to_give += 1;
                // The same chunk may stand in an object more than once.
                if self.wanted[self.next_to_give..self.next_to_want].contains(&id) {
                    self.arrived.insert(id, body.clone());
                }
                return Ok(Some(body));
            }
            self.wait().await;
        }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
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
        let order = placement::order(&self.members, &body);
        for peer in &order {
            let connected = self.client.net.connected().contains_key(peer);
            let usable = connected && !self.client.is_shunned(peer);
            self.feed(Event::Usable { peer: *peer, usable });
        }
        self.feed(Event::Want { body, holders: order });
    }

    /// Nobody gave it. Silence is not knowledge: whoever only failed to answer is asked again for a while.
    fn on_give_up(&mut self, body: BodyId, asked: &[(PeerId, Option<End>)]) -> Result<(), Error> {
        let connected = self.client.net.connected();
        let quiet = self.last_arrival.elapsed();
        let silent = |end: &Option<End>| matches!(end, None | Some(End::Failed));
        let may_have_it = asked.iter().any(|(peer, end)| silent(end) && connected.contains_key(peer));
        let alone = connected.is_empty();
        let patience = if alone { limits::CLIENT_PATIENCE } else { limits::FETCH_STALL_MAX };
        if (alone || may_have_it) && quiet < Duration::from(patience) {
            self.again.push(body);
            self.again_at = self.now() + RETRY_PAUSE;
            return Ok(());
        }
        match alone {
            true => Err(self.client.unreachable(self.last_arrival)),
            false => Err(Error::BodyLost { name: self.name.to_owned(), body }),
        }
    }

    fn act(&mut self) -> Result<(), Error> {
        let actions: Vec<Action> = self.out.drain().collect();
        for action in actions {
            match action {
                Action::Fetch { body, from } => self.begin(body, from),
                // Its end comes all the same and is ignored.
                Action::Cancel { .. } | Action::Done { .. } => {}
                Action::Arm { at, timer: Timer::Wake } => self.wake_at = Some(at),
                Action::GiveUp { body, asked } => self.on_give_up(body, &asked)?,
            }
        }
        Ok(())
    }

    fn begin(&mut self, body: BodyId, from: PeerId) {
        let client = self.client;
        let fetch = async move {
            let got = client.net.bulk(from).get(body, limits::NO_PROGRESS.into()).await;
            (body, from, got)
        };
        self.under_way.push(fetch.boxed());
    }

    async fn wait(&mut self) {
        let now = self.now();
        let mut until = self.wake_at.map_or(Duration::from_secs(1), |at| at.since(now).into());
        if !self.again.is_empty() {
            until = until.min(self.again_at.since(now).into());
        }
        tokio::select! {
            Some((body, from, got)) = self.under_way.next(), if !self.under_way.is_empty() => {
                self.on_end(body, from, got).await;
            }
            () = tokio::time::sleep(until) => {
                if self.wake_at.is_some_and(|at| at <= self.now()) {
                    self.wake_at = None;
                    self.feed(Event::Timer(Timer::Wake));
                }
            }
        }
    }

    async fn on_end(&mut self, body: BodyId, from: PeerId, got: Result<Vec<u8>, BulkError>) {
        let end = match got {
            Ok(bytes) => {
                // The slower of two that were asked for one body: kept, it would stay for ever.
                if self.wanted[self.next_to_give..self.next_to_want].contains(&body) {
                    self.arrived.entry(body).or_insert(bytes);
                }
                self.last_arrival = Instant::now();
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
        let check = Request::Check { bodies: vec![body], read: true };
        let _ = self.client.ask(from, &check, limits::NO_PROGRESS).await;
    }
}
