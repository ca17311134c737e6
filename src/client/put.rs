//! A put from file to answer; rm and undelete.
//!
//! Chunks and the manifest first, then the register: a crash leaves litter, never a hole. One request id is
//! kept through retries and conflicts, so a retry is known for one. Nodes never sign for a user.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    Client, Error, View,
    asking::undecided_error,
    check::{Somewhere, copies_of},
    files::source,
    types::{OnProgress, Progress, Put, PutDone, Written},
    upload::{Body, Holders, Uploaded},
};
use crate::{
    disk::crash_point,
    model::{
        BodyId, Digest, Millis, PeerId, RequestId, limits,
        object::{ObjectName, Predecessor, Redundancy},
        register::{Register, VerifiedRegister},
        rpc::{Commit, Request, Response},
    },
    seal::{
        chunk::SealedChunk,
        keys::UserKeys,
        manifest::{self, EncodedBody, Layout, Manifest, ManifestPlan, ObjectInfo},
        register::{self, RegisterPlan},
    },
};

/// The current version of an object, opened.
pub(super) struct Opened {
    pub(super) register: VerifiedRegister,
    /// None if the object is removed for good.
    pub(super) manifest: Option<Manifest>,
}

impl Opened {
    /// The version that the manifest is of: a tombstone hides the one before it.
    pub(super) fn manifest_version(register: &VerifiedRegister) -> u64 {
        register.version - u64::from(register.is_tombstone())
    }

    /// Whether its owner wants exactly so many copies of it.
    fn wants(&self, copies: u8) -> bool {
        self.manifest.as_ref().is_some_and(|m| copies_of(m) == usize::from(copies))
    }

    fn wants_less(&self, copies: u8) -> bool {
        self.manifest.as_ref().is_some_and(|m| copies_of(m) < usize::from(copies))
    }

    /// What a version after this one lists as readable, newest first.
    fn predecessors(&self) -> Vec<Predecessor> {
        let Some(id) = self.register.manifest else { return Vec::new() };
        let newest = Predecessor { version: Self::manifest_version(&self.register), manifest: id };
        let older = self.manifest.iter().flat_map(|m| m.predecessors.iter().copied());
        std::iter::once(newest).chain(older).take(limits::PREDECESSORS_MAX).collect()
    }
}

/// What became of a proposed value.
enum Fate {
    Committed(Commit),
    /// Another value is current, and this one never was.
    Conflict,
    /// Another value is current, and so much later that nobody knows whether this one was.
    Overtaken,
}

/// One write of a register: what it shall say, whatever version it becomes.
struct Write<'a> {
    client: &'a Client,
    view: &'a View,
    keys: &'a UserKeys,
    name: &'a ObjectName,
    request: RequestId,
}

impl Client {
    /// Stores one object.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn put(&self, put: Put, progress: OnProgress<'_>) -> Result<PutDone, Error> {
        let started = Instant::now();
        let name = parse_name(&put.name)?;
        let keys = self.keys_or_new().await?;
        let view = self.view().await?;
        let _transfer = self.transfer(&put).await?;
        let write = Write::new(self, view, &keys, &name);
        // What is current is asked for while the chunks are on their way.
        let (uploaded, current) =
            futures::future::try_join(self.upload(&keys, &put, progress), write.current()).await?;
        let mut done = write.commit_upload(&put, uploaded, current).await?;
        done.ms = millis(started);
        progress(Progress { bytes_done: done.bytes, bytes_total: Some(done.bytes) });
        Ok(done)
    }

    /// A place among the transfers: a large object takes the memory of many small ones.
    async fn transfer(&self, put: &Put) -> Result<tokio::sync::SemaphorePermit<'_>, Error> {
        let small = source::length(&put.source).is_some_and(|bytes| bytes <= limits::CHUNK_BYTES as u64);
        let weight = if small { 1 } else { limits::SMALL_OBJECTS_AT_ONCE_MAX / limits::TRANSFERS_MAX };
        let weight = u32::try_from(weight).expect("a small constant");
        self.transfers.acquire_many(weight).await.map_err(|_| Error::Refused("stopping".into()))
    }

    /// Hides an object behind a tombstone; the answer is the tombstone's version.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, or it is removed already.
    pub async fn rm(&self, name: &str) -> Result<Written, Error> {
        let name = parse_name(name)?;
        let keys = self.keys().await?;
        Write::new(self, self.view().await?, &keys, &name).remove().await
    }

    /// Brings back the version that a tombstone hides, as a new one, once each of its bodies is known to be
    /// on some node. Nodes that could not be asked are only a warning then.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotRemoved`], or [`Error::HiddenLost`].
    pub async fn undelete(&self, name: &str) -> Result<Written, Error> {
        let name = parse_name(name)?;
        let keys = self.keys().await?;
        Write::new(self, self.view().await?, &keys, &name).undelete().await
    }

    /// The current version of an object with its manifest; none if there never was one.
    pub(super) async fn open_current(
        &self,
        keys: &UserKeys,
        name: &ObjectName,
    ) -> Result<Option<Opened>, Error> {
        let Some(register) = self.read_current(keys, name, false).await? else { return Ok(None) };
        let manifest = self.open_manifest_of(keys, name, &register).await?;
        Ok(Some(Opened { register, manifest }))
    }

    /// The current register of an object, not older than what this home has seen; none if there never was
    /// one.
    pub(super) async fn read_current(
        &self,
        keys: &UserKeys,
        name: &ObjectName,
        any: bool,
    ) -> Result<Option<VerifiedRegister>, Error> {
        let object = keys.address(name).object;
        let seen = if any { 0 } else { self.seen_before(object).await? };
        let current = self.read_register(object, any).await?;
        let answered = current.value.as_ref().map_or(0, |value| value.version);
        if !current.unconfirmed {
            self.check_fresh(name.as_str(), object, answered, seen).await?;
        }
        Ok(current.value)
    }

    /// The manifest that a register names; none if it names none.
    pub(super) async fn open_manifest_of(
        &self,
        keys: &UserKeys,
        name: &ObjectName,
        register: &VerifiedRegister,
    ) -> Result<Option<Manifest>, Error> {
        let Some(id) = register.manifest else { return Ok(None) };
        let version = Opened::manifest_version(register);
        self.open_manifest(keys, name, version, id).await.map(Some)
    }

    /// Fetches and opens one version's manifest.
    pub(super) async fn open_manifest(
        &self,
        keys: &UserKeys,
        name: &ObjectName,
        version: u64,
        id: BodyId,
    ) -> Result<Manifest, Error> {
        let object = keys.address(name).object;
        let bytes = self.fetch_body(name.as_str(), id).await?;
        manifest::open(keys, &object, version, &id, &bytes)
            .map_err(|e| Error::Damaged { name: name.to_string(), reason: e.to_string() })
    }
}

impl<'a> Write<'a> {
    fn new(client: &'a Client, view: &'a View, keys: &'a UserKeys, name: &'a ObjectName) -> Self {
        Self { client, view, keys, name, request: RequestId(rand::random()) }
    }

    async fn register(&self) -> Result<Option<VerifiedRegister>, Error> {
        self.client.read_current(self.keys, self.name, false).await
    }

    /// What a new version follows: without its manifest the versions behind it would be dropped.
    async fn current(&self) -> Result<Option<Opened>, Error> {
        let Some(register) = self.register().await? else { return Ok(None) };
        let opened = self.client.open_manifest_of(self.keys, self.name, &register).await;
        let version = Opened::manifest_version(&register);
        let unreadable = |reason, silent| {
            let name = self.name.to_string();
            Error::Unreadable { name, version, reason, silent }
        };
        let manifest = opened.map_err(|error| match error {
            Error::BodyLost { body, .. } => unreadable(format!("no node has {body}"), Vec::new()),
            Error::OnSilent { body, silent, .. } => {
                let reason = format!("{body} is on no node that answers; silent: {}", silent.join(", "));
                unreadable(reason, silent)
            }
            Error::Damaged { reason, .. } => unreadable(reason, Vec::new()),
            other => other,
        })?;
        Ok(Some(Opened { register, manifest }))
    }

    /// Makes it the next version; `current` is what the first try goes by.
    async fn commit_upload(
        &self,
        put: &Put,
        mut uploaded: Uploaded,
        current: Option<Opened>,
    ) -> Result<PutDone, Error> {
        let copies = put.copies.max(1);
        let mut current = Some(current);
        for _ in 0..limits::PUT_CONFLICTS_MAX {
            let current = match current.take() {
                Some(current) => current,
                None => self.current().await?,
            };
            self.check_wanted_version(put, current.as_ref())?;
            if let Some(opened) = &current
                && Self::is_the_same(opened, &uploaded)
                && opened.wants(copies)
            {
                self.store_with(&mut uploaded, Vec::new(), copies).await?;
                match self.confirm(opened, &uploaded, copies).await? {
                    Some(done) => return Ok(done),
                    None => continue,
                }
            }
            // What lies on fewer nodes than are wanted now is not sent again by being put again.
            let raises =
                current.as_ref().is_some_and(|c| Self::is_the_same(c, &uploaded) && c.wants_less(copies));
            let version = current.as_ref().map_or(1, |c| c.register.version + 1);
            let (bodies, info) = self.plan(version, current.as_ref(), &uploaded, copies)?;
            let manifest = bodies.last().map(|b| b.id);
            let mut holders = self.store_with(&mut uploaded, bodies, copies).await?;
            holders.merge(uploaded.holders.clone());
            crash_point("client.put.manifest_stored");
            let value = self.sign(&info, version, current.as_ref().map(|c| &c.register), manifest, false)?;
            if let Some(commit) = self.commit(&value).await? {
                let warnings = self.note(&value).await;
                if raises {
                    self.client.bring_copies(self.view, &uploaded.ids(), usize::from(copies)).await;
                }
                let done = self.done(version, &uploaded, copies, commit, &holders);
                return Ok(PutDone { warnings, ..done });
            }
        }
        Err(self.too_many())
    }

    /// An object that is there already, acknowledged by what is durable now: an earlier put of it may have
    /// met fewer nodes. None if it is not current any more.
    async fn confirm(
        &self,
        opened: &Opened,
        uploaded: &Uploaded,
        copies: u8,
    ) -> Result<Option<PutDone>, Error> {
        let mut holders = uploaded.holders.clone();
        if let Some(id) = opened.register.manifest {
            let manifest = Arc::new(self.client.fetch_body(self.name.as_str(), id).await?);
            let stored = self.client.store_body(self.view, id, &manifest, usize::from(copies)).await?;
            holders.add(&stored);
        }
        let Fate::Committed(commit) = self.propose(&opened.register).await? else { return Ok(None) };
        let mut done = self.done(opened.register.version, uploaded, copies, commit, &holders);
        (done.unchanged, done.commit_messages) = (true, 0);
        Ok(Some(done))
    }

    /// Whether the current version holds exactly these bytes.
    fn is_the_same(current: &Opened, uploaded: &Uploaded) -> bool {
        let Some(manifest) = current.manifest.as_ref().filter(|_| !current.register.is_tombstone()) else {
            return false;
        };
        if manifest.info.bytes != uploaded.bytes || manifest.info.media_type != uploaded.media_type {
            return false;
        }
        // Parts of a huge manifest would have to be counted copy by copy before "unchanged" could be said; a
        // new version stores no chunk twice.
        let Layout::Chunks(chunks) = &manifest.layout else { return false };
        chunks.iter().map(|c| c.chunk.id).eq(uploaded.chunks.iter().map(|c| c.chunk.id))
    }

    fn check_wanted_version(&self, put: &Put, current: Option<&Opened>) -> Result<(), Error> {
        let current = current.map_or(0, |c| c.register.version);
        match put.if_version {
            Some(wanted) if wanted != current => {
                Err(Error::Conflict { name: self.name.to_string(), wanted, current })
            }
            _ => Ok(()),
        }
    }

    fn plan(
        &self,
        version: u64,
        current: Option<&Opened>,
        uploaded: &Uploaded,
        copies: u8,
    ) -> Result<(Vec<EncodedBody>, ObjectInfo), Error> {
        let info = ObjectInfo {
            name: self.name.clone(),
            media_type: uploaded.media_type.clone(),
            bytes: uploaded.bytes,
            unix_ms: unix_ms(),
            thumbnail: uploaded.thumbnail.clone(),
        };
        let plan = ManifestPlan {
            info: info.clone(),
            chunks: uploaded.chunks.clone(),
            predecessors: current.map(Opened::predecessors).unwrap_or_default(),
            redundancy: Redundancy::Copies(u64::from(copies)),
        };
        let bodies = manifest::seal(self.keys, version, &plan).map_err(|e| Error::Usage(e.to_string()))?;
        Ok((bodies, info))
    }

    /// Stores a manifest's bodies, and with them those of the object that wait: none of them means anything
    /// before the register names it. The answer is who has the manifest.
    async fn store_with(
        &self,
        uploaded: &mut Uploaded,
        manifest: Vec<EncodedBody>,
        copies: u8,
    ) -> Result<Holders, Error> {
        let waiting = std::mem::take(&mut uploaded.waiting);
        let (of_object, of_manifest) =
            futures::future::try_join(self.store(waiting, copies), self.store_bodies(manifest, copies))
                .await?;
        uploaded.holders.merge(of_object);
        crash_point("client.put.chunks_stored");
        Ok(of_manifest)
    }

    async fn store_bodies(&self, bodies: Vec<EncodedBody>, copies: u8) -> Result<Holders, Error> {
        self.store(bodies.into_iter().map(|body| (body.id, Arc::new(body.bytes))).collect(), copies).await
    }

    async fn store(&self, bodies: Vec<Body>, copies: u8) -> Result<Holders, Error> {
        let stored =
            bodies.iter().map(|(id, body)| self.client.store_body(self.view, *id, body, usize::from(copies)));
        let mut holders = Holders::default();
        for nodes in futures::future::try_join_all(stored).await? {
            holders.add(&nodes);
        }
        Ok(holders)
    }

    fn sign(
        &self,
        info: &ObjectInfo,
        version: u64,
        before: Option<&VerifiedRegister>,
        manifest: Option<BodyId>,
        tombstone: bool,
    ) -> Result<VerifiedRegister, Error> {
        let plan = RegisterPlan {
            info,
            version,
            previous: before.map_or(Digest::ZERO, VerifiedRegister::hash),
            manifest,
            tombstone,
            fence: before.map_or(0, |b| b.fence),
            requests: register::requests_with(before.map_or(&[], |b| &b.requests), self.request),
        };
        register::sign(self.keys, &plan).map_err(|e| Error::Usage(e.to_string()))
    }

    /// Proposes a new value until its fate is known; none = another value is current, and this never was.
    async fn commit(&self, value: &VerifiedRegister) -> Result<Option<Commit>, Error> {
        match self.propose(value).await? {
            Fate::Committed(commit) => Ok(Some(commit)),
            Fate::Conflict => Ok(None),
            Fate::Overtaken => Err(Error::Overtaken { name: self.name.to_string(), version: value.version }),
        }
    }

    /// Proposes a value until its fate is known.
    async fn propose(&self, value: &VerifiedRegister) -> Result<Fate, Error> {
        let order = self.view.askable(&value.object);
        let request = Request::Propose { value: value.to_raw() };
        let awake = &self.client.awake;
        let began = awake.now();
        crash_point("client.put.before_propose");
        let mut asked_before = false;
        let mut said = None;
        loop {
            let left = limits::CLIENT_PATIENCE.since(awake.since(began));
            let asked = self.client.ask_first(&order, &request, left).await;
            let undecided = match asked {
                Ok((_, Response::Committed(commit))) => {
                    crash_point("client.put.proposed");
                    return Ok(Fate::Committed(commit));
                }
                Ok((_, Response::Conflict { current })) => {
                    // If only one node was asked, and had no time to lose another, its word is enough.
                    let asked_once = !asked_before && awake.since(began) < limits::HOME_PATIENCE;
                    let current = current.and_then(|raw| Register::decode(&raw.0).ok());
                    let tells = current.is_none_or(|current| !current.has_forgotten(value.version));
                    return Ok(if asked_once || tells { Fate::Conflict } else { Fate::Overtaken });
                }
                // Asked again, it might be done after this command has said that it was refused.
                Ok((_, refused @ Response::Refused(_))) => return Err(undecided_error(refused, false)),
                Ok((_, other)) => undecided_error(other, false),
                Err(error) => error,
            };
            // Silence when it was asked again, for the rest of the time, takes back nothing that was said.
            if !matches!(undecided, Error::Unreachable { .. }) {
                said = Some(undecided.clone());
            }
            if awake.since(began) + Millis(200) >= limits::CLIENT_PATIENCE {
                return Err(said.unwrap_or(undecided));
            }
            // The same bytes again: the same request id makes it one put.
            asked_before = true;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Remembers what was committed. It stays committed if this home cannot: then that is what is said.
    async fn note(&self, value: &VerifiedRegister) -> Vec<String> {
        let Err(error) = self.client.note_seen(value.object, value.version).await else { return Vec::new() };
        let (name, version) = (self.name, value.version);
        vec![format!(
            "{name}: version {version} is there, but could not be noted in this home, which would not notice \
             if an older one were answered later: {error}"
        )]
    }

    fn too_many(&self) -> Error {
        Error::Full(format!("{:?} is being written by too many others just now", self.name.as_str()))
    }

    async fn remove(&self) -> Result<Written, Error> {
        for _ in 0..limits::PUT_CONFLICTS_MAX {
            // What is hidden need not be read for that: it may be just what is damaged.
            let current = self.register().await?.filter(|register| !register.is_tombstone());
            let current = current.ok_or_else(|| Error::NotFound(self.name.to_string()))?;
            let info = self.entry(&current)?;
            let version = current.version + 1;
            let value = self.sign(&info, version, Some(&current), current.manifest, true)?;
            if self.commit(&value).await?.is_some() {
                return Ok(Written { version, warnings: self.note(&value).await });
            }
        }
        Err(self.too_many())
    }

    async fn undelete(&self) -> Result<Written, Error> {
        for _ in 0..limits::PUT_CONFLICTS_MAX {
            let current = self.client.open_current(self.keys, self.name).await?;
            let current = current.ok_or_else(|| Error::NotFound(self.name.to_string()))?;
            if !current.register.is_tombstone() {
                return Err(Error::NotRemoved(self.name.to_string()));
            }
            let hidden = current.manifest.as_ref().ok_or_else(|| Error::NotFound(self.name.to_string()))?;
            let chunks = self.client.all_chunks(self.keys, self.name, hidden).await?;
            let mut warnings = self.check_hidden(hidden, &chunks).await?;
            let version = current.register.version + 1;
            let plan = ManifestPlan {
                info: hidden.info.clone(),
                chunks,
                predecessors: current.predecessors(),
                redundancy: hidden.redundancy,
            };
            let bodies =
                manifest::seal(self.keys, version, &plan).map_err(|e| Error::Usage(e.to_string()))?;
            let manifest = bodies.last().map(|b| b.id);
            let Redundancy::Copies(copies) = hidden.redundancy;
            self.store_bodies(bodies, u8::try_from(copies).unwrap_or(3)).await?;
            let value = self.sign(&hidden.info, version, Some(&current.register), manifest, false)?;
            if self.commit(&value).await?.is_some() {
                warnings.extend(self.note(&value).await);
                return Ok(Written { version, warnings });
            }
        }
        Err(self.too_many())
    }

    /// Refuses to bring back what is lost; the answer is what a person should know all the same.
    async fn check_hidden(&self, hidden: &Manifest, chunks: &[SealedChunk]) -> Result<Vec<String>, Error> {
        let thumbnail = hidden.info.thumbnail.as_ref().map(|t| t.id);
        let ids: BTreeSet<BodyId> = chunks.iter().map(|c| c.chunk.id).chain(thumbnail).collect();
        let ids: Vec<BodyId> = ids.into_iter().collect();
        let Somewhere { lost, silent } = self.client.look_for(&ids, copies_of(hidden)).await?;
        let name = self.name.to_string();
        match lost {
            Some(body) => Err(Error::HiddenLost { name, version: hidden.version, body, silent }),
            None if silent.is_empty() => Ok(Vec::new()),
            None => Ok(vec![format!(
                "{name}: all of it is on the nodes that answer; not asked, because silent: {}",
                silent.join(", ")
            )]),
        }
    }

    fn entry(&self, current: &VerifiedRegister) -> Result<ObjectInfo, Error> {
        register::open_entry(self.keys, current)
            .map_err(|e| Error::Damaged { name: self.name.to_string(), reason: e.to_string() })
    }

    fn done(
        &self,
        version: u64,
        uploaded: &Uploaded,
        copies: u8,
        commit: Commit,
        holders: &Holders,
    ) -> PutDone {
        let of_bodies = holders.fewest().unwrap_or(0);
        let fewest = of_bodies.min(commit.copies);
        let mut nodes: Vec<String> = holders.nodes().map(|peer: &PeerId| self.view.name(peer)).collect();
        nodes.sort();
        PutDone {
            name: self.name.to_string(),
            version,
            bytes: uploaded.bytes,
            copies: of_bodies,
            copies_wanted: u64::from(copies).min(self.view.members.len() as u64),
            nodes,
            survives: fewest.saturating_sub(1).min(1),
            ms: 0,
            unchanged: false,
            commit_messages: commit.messages,
            warnings: Vec::new(),
        }
    }
}

pub(super) fn parse_name(name: &str) -> Result<ObjectName, Error> {
    ObjectName::parse(name).map_err(|e| Error::Usage(format!("{name:?} cannot be a name: {e}")))
}

/// The wall clock, for display only.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
