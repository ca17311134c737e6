//! A get: to a file, by a part file that an interrupted run goes on with, or streamed in order to a writer.
//!
//! Every chunk is checked against its id and its padding before a byte of it is written. A different existing
//! file is never replaced without `force`.

use std::{
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    Client, Error,
    files::destination::{self, Existing, PartFile},
    put::{Opened, millis, parse_name},
    types::{Get, GetDone, OnProgress, Progress},
};
use crate::{
    model::{BodyId, limits, object::ObjectName},
    seal::{
        chunk::{self, IdCheck, SealedChunk},
        keys::UserKeys,
        manifest::Manifest,
    },
};

/// One version of an object, ready to be read.
pub(super) struct Version {
    pub(super) name: ObjectName,
    pub(super) version: u64,
    pub(super) manifest: Manifest,
    pub(super) manifest_id: Option<BodyId>,
    pub(super) chunks: Vec<SealedChunk>,
    pub(super) unconfirmed: bool,
}

impl Client {
    /// Fetches one object to a file.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Exists`] for a different file without `force`.
    pub async fn get_to_file(
        &self,
        get: Get,
        path: &Path,
        force: bool,
        progress: OnProgress<'_>,
    ) -> Result<GetDone, Error> {
        let started = Instant::now();
        let version = self.open_version(&get).await?;
        let keys = self.keys().await?;
        match destination::existing(path, version.manifest.info.bytes)? {
            Existing::SameLength(file) => {
                let (same, chunks) = same_prefix(Arc::clone(&keys), version.chunks.clone(), file).await?;
                if same == chunks {
                    let bytes = version.manifest.info.bytes;
                    progress(Progress { bytes_done: bytes, bytes_total: Some(bytes) });
                    let mut done = self.get_done(&version, Some(path), started);
                    (done.unchanged, done.resumed_bytes) = (true, bytes);
                    return Ok(done);
                }
                if !force {
                    return Err(Error::Exists { path: path.display().to_string() });
                }
            }
            Existing::Other if !force => return Err(Error::Exists { path: path.display().to_string() }),
            Existing::Other | Existing::Nothing => {}
        }
        let (mut part, left) = PartFile::open(path)?;
        let kept = if left > 0 { self.keep_good_prefix(&keys, &version, &mut part).await? } else { 0 };
        let bad = self.stream(&version, kept, part.file(), progress).await?;
        part.finish(force)?;
        let mut done = self.get_done(&version, Some(path), started);
        done.resumed_bytes = (kept * limits::CHUNK_BYTES) as u64;
        done.bad_copies = bad;
        Ok(done)
    }

    /// Streams one object, in order.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get_to_writer(
        &self,
        get: Get,
        writer: &mut (dyn Write + Send),
        progress: OnProgress<'_>,
    ) -> Result<GetDone, Error> {
        let started = Instant::now();
        let version = self.open_version(&get).await?;
        let bad = self.stream(&version, 0, writer, progress).await?;
        let mut done = self.get_done(&version, None, started);
        done.bad_copies = bad;
        Ok(done)
    }

    /// Finds the wanted version and opens its manifest.
    pub(super) async fn open_version(&self, get: &Get) -> Result<Version, Error> {
        let name = parse_name(&get.name)?;
        let keys = self.keys().await?;
        let not_found = || Error::NotFound(name.to_string());
        let register = self.read_current(&keys, &name, get.any).await?.ok_or_else(not_found)?;
        let newest = Opened::manifest_version(&register);
        let wanted = match get.version {
            None if register.is_tombstone() => return Err(not_found()),
            None => newest,
            Some(version) => version,
        };
        let no_version = || Error::NoVersion { name: name.to_string(), version: wanted };
        let manifest = self.open_manifest_of(&keys, &name, &register).await?.ok_or_else(not_found)?;
        let (manifest, manifest_id) = if wanted == newest {
            (manifest, register.manifest)
        } else {
            let older = manifest.predecessors.iter().find(|p| p.version == wanted).ok_or_else(no_version)?;
            (self.open_manifest(&keys, &name, wanted, older.manifest).await?, Some(older.manifest))
        };
        let chunks = self.all_chunks(&keys, &name, &manifest).await?;
        Ok(Version { name, version: wanted, manifest, manifest_id, chunks, unconfirmed: get.any })
    }

    /// Writes the chunks from number `first` on; the answer is how many bad copies were met.
    async fn stream(
        &self,
        version: &Version,
        first: usize,
        writer: &mut (dyn Write + Send),
        progress: OnProgress<'_>,
    ) -> Result<u64, Error> {
        let name = version.name.as_str();
        let total = version.manifest.info.bytes;
        let wanted = version.chunks[first..].iter().map(|c| c.chunk.id).collect();
        let mut fetcher = self.fetcher(name, wanted).await?;
        let mut done = (first * limits::CHUNK_BYTES) as u64;
        for (index, sealed) in version.chunks.iter().enumerate().skip(first) {
            let Some(mut body) = fetcher.next().await? else {
                return Err(Error::BodyLost { name: name.to_owned(), body: sealed.chunk.id });
            };
            let true_bytes = version.manifest.chunk_true_bytes(index as u64);
            let damaged =
                |e: chunk::ChunkError| Error::Damaged { name: name.to_owned(), reason: e.to_string() };
            let plain = chunk::open(sealed, &mut body, true_bytes, IdCheck::Done).map_err(damaged)?;
            writer
                .write_all(plain)
                .map_err(|e| Error::File { path: format!("writing {name}"), reason: e.to_string() })?;
            done += plain.len() as u64;
            progress(Progress { bytes_done: done, bytes_total: Some(total) });
        }
        writer.flush().map_err(|e| Error::File { path: format!("writing {name}"), reason: e.to_string() })?;
        Ok(fetcher.bad_copies.load(Ordering::Relaxed))
    }

    /// Cuts a part file to the whole chunks that it holds rightly; the answer is how many.
    async fn keep_good_prefix(
        &self,
        keys: &Arc<UserKeys>,
        version: &Version,
        part: &mut PartFile,
    ) -> Result<usize, Error> {
        let io = |e: std::io::Error| Error::File { path: "the part file".into(), reason: e.to_string() };
        let mut again = part.file().try_clone().map_err(io)?;
        again.seek(SeekFrom::Start(0)).map_err(io)?;
        let (same, _) = same_prefix(Arc::clone(keys), version.chunks.clone(), again).await?;
        // The last chunk may be short: it is fetched again rather than trusted by its length.
        let same = same.min(version.chunks.len().saturating_sub(1));
        part.keep((same * limits::CHUNK_BYTES) as u64)?;
        Ok(same)
    }

    fn get_done(&self, version: &Version, path: Option<&Path>, started: Instant) -> GetDone {
        GetDone {
            name: version.name.to_string(),
            version: version.version,
            bytes: version.manifest.info.bytes,
            path: path.map(Path::to_path_buf),
            resumed_bytes: 0,
            bad_copies: 0,
            unchanged: false,
            ms: millis(started),
            unconfirmed: version.unconfirmed,
        }
    }
}

/// How many chunks from the start a file holds rightly, and how many there are: each is sealed again, so that
/// nothing has to be fetched to compare.
async fn same_prefix(
    keys: Arc<UserKeys>,
    chunks: Vec<SealedChunk>,
    mut file: impl Read + Send + 'static,
) -> Result<(usize, usize), Error> {
    let count = chunks.len();
    let compared = tokio::task::spawn_blocking(move || {
        let mut same = 0;
        let mut total = 0u64;
        for sealed in &chunks {
            let mut buffer = Vec::with_capacity(limits::CHUNK_BYTES);
            let read = (&mut file).take(limits::CHUNK_BYTES as u64).read_to_end(&mut buffer);
            if read.is_err() || buffer.is_empty() {
                break;
            }
            total += buffer.len() as u64;
            let last = buffer.len() < limits::CHUNK_BYTES;
            let padding = if last {
                crate::model::object::Padding::of_object(total)
            } else {
                crate::model::object::Padding::Full
            };
            if chunk::seal(&keys, &mut buffer, padding).chunk.id != sealed.chunk.id {
                break;
            }
            same += 1;
        }
        same
    });
    let same = compared.await.map_err(|e| Error::Refused(format!("a task of this program failed: {e}")))?;
    Ok((same, count))
}
