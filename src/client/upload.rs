//! Uploads: read, check, seal on a blocking thread; several chunks on their way to their holders at once.
//!
//! Memory is bounded by [`limits::TRANSFER_BYTES_MAX`] whatever the object's size. A chunk counts only by a
//! receipt that names nodes that have it durably. What a node already has is not sent again.

use std::{
    collections::BTreeSet,
    io::{Cursor, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc;

use super::{
    Client, Error,
    files::{
        media,
        source::{self, Kept},
        structure::{Checker, ReadSeek},
    },
    store::Transfer,
    types::{OnProgress, Progress, Put},
};
use crate::{
    disk::crash_point,
    model::{
        BodyId, PeerId, limits,
        object::{MediaType, Padding},
    },
    seal::{
        chunk::{self, SealedChunk},
        keys::UserKeys,
        manifest::Thumbnail,
    },
};

/// A body on its way to a node.
pub(super) type Body = (BodyId, Arc<Vec<u8>>);

/// An object that was read and sealed, whose bytes are durable on nodes but for those that wait.
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
    /// Bodies of a small object: they are stored together with its manifest.
    pub(super) waiting: Vec<Body>,
}

impl Uploaded {
    /// Chunks and thumbnail, each once.
    pub(super) fn ids(&self) -> Vec<BodyId> {
        let thumbnail = self.thumbnail.as_ref().map(|t| t.id);
        let ids: BTreeSet<BodyId> = self.chunks.iter().map(|c| c.chunk.id).chain(thumbnail).collect();
        ids.into_iter().collect()
    }
}

/// Who has the bodies of an object durably.
#[derive(Clone, Debug, Default)]
pub(super) struct Holders {
    fewest: Option<u64>,
    nodes: BTreeSet<PeerId>,
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

impl Client {
    /// Reads and seals an object and its thumbnail, and stores all of it unless it is small.
    pub(super) async fn upload(
        &self,
        keys: &Arc<UserKeys>,
        put: &Put,
        progress: OnProgress<'_>,
    ) -> Result<Uploaded, Error> {
        match source::length(&put.source) {
            Some(bytes) if bytes <= limits::SMALL_BODY_BYTES_MAX as u64 => self.seal_small(keys, put).await,
            _ => self.upload_large(keys, put, progress).await,
        }
    }

    /// An object of one chunk that is a small body: asking who has it already costs more than sending it.
    async fn seal_small(&self, keys: &Arc<UserKeys>, put: &Put) -> Result<Uploaded, Error> {
        let (ready_in, mut ready) = mpsc::channel(1);
        let keys = Arc::clone(keys);
        let max = limits::SMALL_BODY_BYTES_MAX;
        let reader = Reader { keys: Arc::clone(&keys), put: put.clone(), out: ready_in, max: Some(max) };
        let sealing = tokio::task::spawn_blocking(move || {
            let Some(read) = reader.run()? else { return Ok(None) };
            Ok(Some((read.thumbnail.map(|bytes| seal_thumbnail(&keys, bytes)), read.bytes, read.media_type)))
        });
        let sealed: Result<_, Error> = sealing.await.map_err(failed_task)?;
        let given_up = || Error::Refused("the upload was given up".into());
        let (thumbnail, bytes, media_type) = sealed?.ok_or_else(given_up)?;
        let chunk = ready.try_recv().map_err(|_| given_up())?;
        let mut waiting = vec![(chunk.sealed.chunk.id, chunk.body)];
        let thumbnail = thumbnail.map(|(thumbnail, body)| {
            waiting.push((thumbnail.id, body));
            thumbnail
        });
        let holders = Holders::default();
        Ok(Uploaded { chunks: vec![chunk.sealed], bytes, media_type, thumbnail, holders, waiting })
    }

    async fn upload_large(
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
        let reader = Reader { keys: Arc::clone(keys), put: put.clone(), out: ready_in, max: None };
        let reading = tokio::task::spawn_blocking(move || reader.run());
        let stored = transfer.store_all(&mut ready).await;
        // A reader that waits to hand a chunk over must not wait for ever.
        ready.close();
        let read = reading.await.map_err(failed_task)?;
        let (chunks, mut holders, read) = match (stored, read) {
            // The file's own trouble is the better sentence.
            (_, Err(error)) | (Err(error), Ok(_)) => return Err(error),
            (Ok((chunks, holders)), Ok(Some(read))) => (chunks, holders, read),
            (Ok(_), Ok(None)) => return Err(Error::Refused("the upload was given up".into())),
        };
        let thumbnail = match read.thumbnail {
            Some(bytes) => {
                let (thumbnail, body) = seal_thumbnail(keys, bytes);
                holders.add(&transfer.store(thumbnail.id, &body).await?);
                Some(thumbnail)
            }
            None => None,
        };
        let (bytes, media_type) = (read.bytes, read.media_type);
        Ok(Uploaded { chunks, bytes, media_type, thumbnail, holders, waiting: Vec::new() })
    }
}

fn seal_thumbnail(keys: &UserKeys, mut bytes: Vec<u8>) -> (Thumbnail, Arc<Vec<u8>>) {
    let true_bytes = bytes.len() as u64;
    let sealed = chunk::seal(keys, &mut bytes, Padding::of_object(true_bytes));
    (Thumbnail::new(sealed, true_bytes), Arc::new(bytes))
}

fn failed_task(error: tokio::task::JoinError) -> Error {
    Error::Refused(format!("a task of this program failed: {error}"))
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
}

/// Reads one object, checks its structure, and seals it chunk by chunk. Blocks.
struct Reader {
    keys: Arc<UserKeys>,
    put: Put,
    out: mpsc::Sender<Ready>,
    /// It was so small when its length was looked at: one that has grown since is not whole.
    max: Option<usize>,
}

impl Reader {
    /// None if the sending half has given up; it has the reason.
    fn run(self) -> Result<Option<ReadDone>, Error> {
        let mut input = source::open(&self.put.source)?;
        let path = source::describe(&self.put.source);
        let mut checker = Checker::new();
        let mut kept = Kept::of(&self.put.source);
        let mut head = Vec::new();
        let mut bytes = 0u64;
        for index in 0.. {
            // One byte more than it has says that it has ended, without growing the buffer.
            let mut buffer = Vec::with_capacity(self.max.map_or(limits::CHUNK_BYTES, |max| max + 1));
            (&mut input)
                .take(limits::CHUNK_BYTES as u64)
                .read_to_end(&mut buffer)
                .map_err(|e| Error::File { path: path.clone(), reason: e.to_string() })?;
            if buffer.is_empty() {
                break;
            }
            if self.max.is_some_and(|max| buffer.len() > max) {
                return Err(Error::File { path, reason: "has grown while it was read".into() });
            }
            if index == 0 {
                head = buffer[..buffer.len().min(media::HEAD_BYTES)].to_vec();
            }
            checker.push(&buffer);
            kept.push(&buffer);
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
        self.finish(checker, &kept, &head, bytes, &path).map(Some)
    }

    fn finish(
        &self,
        checker: Checker,
        kept: &Kept,
        head: &[u8],
        bytes: u64,
        path: &str,
    ) -> Result<ReadDone, Error> {
        if bytes == 0 {
            return Err(Error::File { path: path.to_owned(), reason: "is empty".into() });
        }
        let mut again = source::reopen(&self.put.source);
        let mut memory = kept.whole().map(Cursor::new);
        let again = again.as_mut().map(|r| &mut **r as &mut dyn ReadSeek);
        let again = again.or(memory.as_mut().map(|r| r as &mut dyn ReadSeek));
        let whole = checker.finish(again);
        let media_type = match whole {
            Ok(()) => MediaType::parse(media::media_type(head)).unwrap_or_else(|_| MediaType::octet_stream()),
            Err(broken) if !self.put.force => return Err(broken_error(path, &broken)),
            Err(_) => MediaType::octet_stream(),
        };
        let thumbnail = (self.put.thumbnail && media_type.as_str().starts_with("image/"))
            .then(|| source::thumbnail(&self.put.source, kept))
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
