//! Uploads: read, check, seal on a blocking thread; send each chunk once, to the first holder of its
//! placement.
//!
//! Memory is bounded by [`limits::TRANSFER_BYTES_MAX`] whatever the object's size. A chunk counts only by a
//! receipt that names nodes that have it durably. What a node already has is not sent again.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc;

use super::{
    Client, Error, View,
    files::{
        media, source,
        structure::{Checker, ReadSeek},
    },
    types::{OnProgress, Progress, Put},
};
use crate::{
    disk::crash_point,
    model::{
        BodyId, Millis, PeerId, limits,
        object::{MediaType, Padding},
        rpc::{Request, Response},
    },
    net::{self, BulkError},
    proto::placement,
    seal::{
        chunk::{self, SealedChunk},
        keys::UserKeys,
        manifest::Thumbnail,
    },
};

/// How long one body is tried before the client says that it found no place.
const STORE_PATIENCE: Duration = Duration::from_secs(30);
/// Without progress for so long even a slow disk is passed over.
const SLOW_PATIENCE: Millis = Millis(4000);
/// How long nodes are asked for a body whose receipt did not come, before it is sent again.
const ARRIVED_PATIENCE: Millis = Millis(150);
/// The pause before a busy or unreachable node is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// An object whose bytes are all durable on nodes.
pub(super) struct Uploaded {
    /// Its chunks, in order.
    pub(super) chunks: Vec<SealedChunk>,
    /// Its true length.
    pub(super) bytes: u64,
    /// What it is.
    pub(super) media_type: MediaType,
    /// A small picture of it, stored too.
    pub(super) thumbnail: Option<Thumbnail>,
    /// Who has what.
    pub(super) holders: Holders,
}

/// Who has the bodies of an object durably.
#[derive(Clone, Debug, Default)]
pub(super) struct Holders {
    fewest: Option<u64>,
    nodes: std::collections::BTreeSet<PeerId>,
}

impl Holders {
    pub(super) fn add(&mut self, holders: &[PeerId]) {
        let count = holders.len() as u64;
        self.fewest = Some(self.fewest.map_or(count, |fewest| fewest.min(count)));
        self.nodes.extend(holders);
    }

    pub(super) fn merge(&mut self, other: Holders) {
        if let Some(count) = other.fewest {
            self.fewest = Some(self.fewest.map_or(count, |fewest| fewest.min(count)));
        }
        self.nodes.extend(other.nodes);
    }

    /// Fewest durable copies of any body; none if there is no body.
    pub(super) fn fewest(&self) -> Option<u64> {
        self.fewest
    }

    /// Everybody who has some of it.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &PeerId> {
        self.nodes.iter()
    }
}

/// A chunk that was read and sealed.
struct Ready {
    index: usize,
    sealed: SealedChunk,
    body: Arc<Vec<u8>>,
    true_bytes: u64,
}

/// What the reading thread says at the end.
struct ReadDone {
    bytes: u64,
    media_type: MediaType,
    thumbnail: Option<Vec<u8>>,
}

/// What all chunks of one upload share.
struct Transfer<'a> {
    client: &'a Client,
    view: &'a View,
    copies: usize,
    /// Chunks in a row that no node had.
    misses: AtomicUsize,
    acknowledged: AtomicU64,
    /// Without progress for so long a node is passed over; grows while every node is slow.
    patience_ms: AtomicU64,
    total: Option<u64>,
    progress: OnProgress<'a>,
}

impl Client {
    /// Reads, seals and stores all chunks of an object, and its thumbnail.
    pub(super) async fn upload(
        &self,
        keys: &Arc<UserKeys>,
        put: &Put,
        progress: OnProgress<'_>,
    ) -> Result<Uploaded, Error> {
        let view = self.view().await?;
        let transfer = Transfer {
            client: self,
            view,
            copies: usize::from(put.copies.max(1)),
            misses: AtomicUsize::new(0),
            acknowledged: AtomicU64::new(0),
            patience_ms: AtomicU64::new(limits::NO_PROGRESS.0),
            total: source::length(&put.source),
            progress,
        };
        let (ready_in, mut ready) = mpsc::channel(limits::TRANSFER_READY_MAX);
        let reader = Reader { keys: Arc::clone(keys), put: put.clone(), out: ready_in };
        let reading = tokio::task::spawn_blocking(move || reader.run());
        let stored = transfer.store_all(&mut ready).await;
        // A reader that waits to hand a chunk over must not wait for ever.
        ready.close();
        let read =
            reading.await.map_err(|e| Error::Refused(format!("a task of this program failed: {e}")))?;
        let (chunks, mut holders, read) = match (stored, read) {
            // The file's own trouble is the better sentence.
            (_, Err(error)) | (Err(error), Ok(_)) => return Err(error),
            (Ok((chunks, holders)), Ok(Some(read))) => (chunks, holders, read),
            (Ok(_), Ok(None)) => return Err(Error::Refused("the upload was given up".into())),
        };
        let thumbnail = match read.thumbnail {
            Some(bytes) => Some(self.store_thumbnail(keys, bytes, &transfer, &mut holders).await?),
            None => None,
        };
        Ok(Uploaded { chunks, bytes: read.bytes, media_type: read.media_type, thumbnail, holders })
    }

    async fn store_thumbnail(
        &self,
        keys: &UserKeys,
        mut bytes: Vec<u8>,
        transfer: &Transfer<'_>,
        holders: &mut Holders,
    ) -> Result<Thumbnail, Error> {
        let true_bytes = bytes.len() as u64;
        let sealed = chunk::seal(keys, &mut bytes, Padding::of_object(true_bytes));
        let stored = transfer.store(sealed.chunk.id, &Arc::new(bytes)).await?;
        holders.add(&stored);
        Ok(Thumbnail::new(sealed, true_bytes))
    }

    /// Stores one body on as many nodes as are wanted and can be had; at least one.
    pub(super) async fn store_body(
        &self,
        view: &View,
        id: BodyId,
        body: Vec<u8>,
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
        transfer.store(id, &Arc::new(body)).await
    }
}

impl Transfer<'_> {
    async fn store_all(
        &self,
        ready: &mut mpsc::Receiver<Ready>,
    ) -> Result<(Vec<SealedChunk>, Holders), Error> {
        let mut chunks: Vec<Option<SealedChunk>> = Vec::new();
        let mut holders = Holders::default();
        let mut under_way = FuturesUnordered::new();
        let mut reading = true;
        while reading || !under_way.is_empty() {
            let room = under_way.len() < limits::TRANSFER_CHUNKS_MAX;
            tokio::select! {
                next = ready.recv(), if reading && room => match next {
                    Some(next) => under_way.push(self.store_chunk(next)),
                    None => reading = false,
                },
                Some(done) = under_way.next(), if !under_way.is_empty() => {
                    let (index, sealed, stored): (usize, SealedChunk, Vec<PeerId>) = done?;
                    holders.add(&stored);
                    if chunks.len() <= index {
                        chunks.resize(index + 1, None);
                    }
                    chunks[index] = Some(sealed);
                }
            }
        }
        Ok((chunks.into_iter().flatten().collect(), holders))
    }

    async fn store_chunk(&self, ready: Ready) -> Result<(usize, SealedChunk, Vec<PeerId>), Error> {
        let holders = self.store(ready.sealed.chunk.id, &ready.body).await?;
        let done = self.acknowledged.fetch_add(ready.true_bytes, Ordering::Relaxed) + ready.true_bytes;
        (self.progress)(Progress { bytes_done: done, bytes_total: self.total });
        Ok((ready.index, ready.sealed, holders))
    }

    /// Stores a body; the answer is who has it durably.
    async fn store(&self, id: BodyId, body: &Arc<Vec<u8>>) -> Result<Vec<PeerId>, Error> {
        let order = placement::order(&self.view.members, &id);
        let mut holders = self.already_there(id, &order).await;
        let started = Instant::now();
        let mut last_error = None;
        let mut had_connection = Instant::now();
        loop {
            let patience_ms = self.patience_ms.load(Ordering::Relaxed);
            let candidates = self.client.usable(&order);
            if !candidates.is_empty() {
                had_connection = Instant::now();
            }
            // Two durable copies are asked for where two nodes are there; the third follows by itself.
            let wanted = self.copies.min(2).min(candidates.len().max(1));
            if holders.len() >= wanted && !holders.is_empty() {
                return Ok(holders);
            }
            for first in candidates.iter().filter(|peer| !holders.contains(peer)).copied().collect::<Vec<_>>()
            {
                match self.put_to(first, &order, &holders, id, body).await {
                    Ok(receipt) => add_new(&mut holders, receipt),
                    Err(error) => {
                        let may_have_it = may_have_arrived(&error);
                        last_error = Some(self.judge(first, error));
                        // A node that is only slow has it, or has passed it on: what lies there already need
                        // not go out twice.
                        if may_have_it {
                            add_new(&mut holders, self.who_has(id, &order, wanted, ARRIVED_PATIENCE).await);
                        }
                    }
                }
                if holders.len() >= wanted {
                    return Ok(holders);
                }
            }
            if !holders.is_empty() && started.elapsed() > Duration::from(limits::NO_QUORUM) {
                // Fewer than wanted, and nobody else takes it: the answer says so by its `survives`.
                return Ok(holders);
            }
            if had_connection.elapsed() > Duration::from(limits::CLIENT_PATIENCE) {
                return Err(self.client.unreachable(had_connection));
            }
            if started.elapsed() > STORE_PATIENCE {
                return Err(last_error.unwrap_or_else(|| self.client.unreachable(started)));
            }
            if holders.is_empty() && !candidates.is_empty() {
                self.grow_patience(patience_ms);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Every node was passed over: then it is not one that hangs, but disks that are slow, and giving up on
    /// them as quickly again would send everything again and never store it.
    /// Of many bodies that were passed over with the same patience only the first makes it longer.
    fn grow_patience(&self, used_ms: u64) {
        let longer = (used_ms * 2).min(SLOW_PATIENCE.0);
        let _ = self.patience_ms.compare_exchange(used_ms, longer, Ordering::Relaxed, Ordering::Relaxed);
    }

    async fn put_to(
        &self,
        first: PeerId,
        order: &[PeerId],
        holders: &[PeerId],
        id: BodyId,
        body: &Arc<Vec<u8>>,
    ) -> Result<Vec<PeerId>, BulkError> {
        let usable = self.client.usable(order);
        let missing = self.copies.saturating_sub(holders.len() + 1);
        // Placed nodes first, whether they can be reached from here or not: the first holder may reach them.
        let mut onward: Vec<PeerId> = usable.iter().filter(|p| **p != first).copied().collect();
        onward.extend(order.iter().filter(|p| !usable.contains(p)));
        onward.retain(|p| !holders.contains(p) && *p != first);
        onward.truncate(missing);
        let durable = 2usize.saturating_sub(holders.len()).clamp(1, onward.len() + 1) as u8;
        let put = net::Put { id, body: Arc::clone(body), onward, durable, first_hop: true };
        let patience = Duration::from_millis(self.patience_ms.load(Ordering::Relaxed));
        let receipt = self.client.net.bulk(first).put(put, patience).await?;
        Ok(receipt.holders)
    }

    /// What a failed put means: the node is asked last for a while, unless it is only busy.
    fn judge(&self, peer: PeerId, error: BulkError) -> Error {
        tracing::debug!(%peer, "a body was not stored: {error}");
        match error {
            BulkError::Busy => Error::Full("every node that answers has too much to do just now".into()),
            BulkError::Full => {
                self.client.shun(peer);
                Error::Full(format!("{} has no room left", self.view.name(&peer)))
            }
            BulkError::Refused(sentence) => {
                self.client.shun(peer);
                Error::Refused(sentence)
            }
            other => {
                self.client.shun(peer);
                Error::Refused(other.to_string())
            }
        }
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
            async move { (peer, self.client.ask(peer, request, patience).await) }
        };
        let mut asked: FuturesUnordered<_> = placed.map(ask).collect();
        let mut holders = Vec::new();
        while let Some((peer, answer)) = asked.next().await {
            if matches!(answer, Some(Response::Have(have)) if have == [true]) {
                holders.push(peer);
                if holders.len() >= enough {
                    break;
                }
            }
        }
        holders
    }
}

/// Whether the peer may have stored the body although no receipt came.
fn may_have_arrived(error: &BulkError) -> bool {
    matches!(error, BulkError::NoProgress(_) | BulkError::Closed)
}

fn add_new(holders: &mut Vec<PeerId>, more: Vec<PeerId>) {
    for peer in more {
        if !holders.contains(&peer) {
            holders.push(peer);
        }
    }
}

/// Reads one object, checks its structure, and seals it chunk by chunk. Blocks.
struct Reader {
    keys: Arc<UserKeys>,
    put: Put,
    out: mpsc::Sender<Ready>,
}

impl Reader {
    /// None if the sending half has given up; it has the reason.
    fn run(self) -> Result<Option<ReadDone>, Error> {
        let mut input = source::open(&self.put.source)?;
        let path = source::describe(&self.put.source);
        let mut checker = Checker::new();
        let mut head = Vec::new();
        let mut bytes = 0u64;
        for index in 0.. {
            let mut buffer = Vec::with_capacity(limits::CHUNK_BYTES);
            (&mut input)
                .take(limits::CHUNK_BYTES as u64)
                .read_to_end(&mut buffer)
                .map_err(|e| Error::File { path: path.clone(), reason: e.to_string() })?;
            if buffer.is_empty() {
                break;
            }
            if index == 0 {
                head = buffer[..buffer.len().min(media::HEAD_BYTES)].to_vec();
            }
            checker.push(&buffer);
            if let Some(broken) = checker.broken().filter(|_| !self.put.force) {
                return Err(broken_error(&path, broken));
            }
            let true_bytes = buffer.len() as u64;
            bytes += true_bytes;
            if bytes > limits::OBJECT_BYTES_MAX {
                return Err(Error::File { path, reason: "is larger than 64 GiB, the largest object".into() });
            }
            let last = buffer.len() < limits::CHUNK_BYTES;
            let padding = if last { Padding::of_object(bytes) } else { Padding::Full };
            let sealed = chunk::seal(&self.keys, &mut buffer, padding);
            crash_point("client.put.sealed");
            let ready = Ready { index, sealed, body: Arc::new(buffer), true_bytes };
            if self.out.blocking_send(ready).is_err() {
                return Ok(None);
            }
            if last {
                break;
            }
        }
        self.finish(checker, &head, bytes, &path).map(Some)
    }

    fn finish(&self, checker: Checker, head: &[u8], bytes: u64, path: &str) -> Result<ReadDone, Error> {
        if bytes == 0 {
            return Err(Error::File { path: path.to_owned(), reason: "is empty".into() });
        }
        let mut again = source::reopen(&self.put.source);
        let whole = checker.finish(again.as_mut().map(|r| &mut **r as &mut dyn ReadSeek));
        let media_type = match whole {
            Ok(()) => MediaType::parse(media::media_type(head)).unwrap_or_else(|_| MediaType::octet_stream()),
            Err(broken) if !self.put.force => return Err(broken_error(path, &broken)),
            Err(_) => MediaType::octet_stream(),
        };
        let thumbnail = (self.put.thumbnail && media_type.as_str().starts_with("image/"))
            .then(|| source::thumbnail(&self.put.source))
            .flatten();
        Ok(ReadDone { bytes, media_type, thumbnail })
    }
}

fn broken_error(path: &str, broken: &super::files::structure::Broken) -> Error {
    Error::Broken {
        path: path.to_owned(),
        format: broken.format.to_string(),
        reason: format!("{} (at byte {})", broken.reason, broken.offset),
    }
}
