//! Listings: the owner's registers from every node, agreed by a majority of each slot's acceptors.
//!
//! The owner signs each page's request. An object whose majority disagrees is read in full; a slot without a
//! majority makes the listing incomplete, and it says so. What is older than this home has seen it, or gone,
//! is a finding: an older state was put back, and a listing must not hide that.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_bytes::ByteBuf;

use super::{
    Client, Error, View,
    put::parse_name,
    types::{Get, Listing, ObjectInfo, Stat, WHAT_TO_DO_WHEN_OLDER},
};
use crate::{
    model::{
        Millis, ObjectId, PeerId, limits,
        register::VerifiedRegister,
        rpc::{ListRequest, RecordInfo, RecordPage, Request, Response},
    },
    proto::chunkpaxos::Ballot,
    seal::{
        keys::UserKeys,
        manifest,
        register::{self, ListClaim},
    },
};

/// The pause before those are asked that could not be asked, or did not answer.
const LIST_AGAIN: Duration = Duration::from_millis(50);

/// One node's records of the owner.
type Records = BTreeMap<ObjectId, (Ballot, RecordInfo)>;

/// What a listing found that is not as it should be, in sentences, bounded.
#[derive(Default)]
struct Findings {
    sentences: Vec<String>,
    more: u64,
    /// Objects that are older than this home has seen them.
    older: u64,
    /// Objects that this home has seen and that no node of a majority knows.
    gone: u64,
}

impl Findings {
    fn add(&mut self, sentence: String) {
        if self.sentences.len() < limits::LISTING_FINDINGS_MAX {
            self.sentences.push(sentence);
        } else {
            self.more += 1;
        }
    }

    fn add_older(&mut self, error: &Error) {
        self.older += 1;
        self.add(error.to_string());
    }

    fn add_gone(&mut self, object: &ObjectId, seen: u64) {
        self.gone += 1;
        self.add(format!(
            "object {object}: this home has seen version {seen}, and the nodes know nothing of it"
        ));
    }

    fn end(mut self) -> Vec<String> {
        if self.more > 0 {
            self.sentences.push(format!("and {} more like these", self.more));
        }
        if self.older + self.gone > 0 {
            self.sentences.push(format!(
                "The vault answers with less than this home has seen ({} older, {} gone): an older state was \
                 put back, or nodes were restored from a backup. {WHAT_TO_DO_WHEN_OLDER}",
                self.older, self.gone
            ));
        }
        self.sentences
    }
}

impl Client {
    /// Lists objects whose names begin with `prefix`.
    ///
    /// # Errors
    /// [`Error`]; a missing majority is not one, it makes the listing incomplete. Objects that are older than
    /// this home has seen them, or gone, are findings, unless `any`; those that are gone whatever the prefix,
    /// because nobody knows their names.
    pub async fn list(&self, prefix: &str, removed: bool, any: bool) -> Result<Listing, Error> {
        let keys = self.keys().await?;
        let view = self.view().await?;
        // Before anybody is asked: what others note meanwhile is no measure for the answers.
        let (founding, owner) = (view.founding, keys.owner());
        let seen = match any {
            true => BTreeMap::new(),
            false => self.with_state(move |state| state.all_of(founding, owner)).await?,
        };
        let asked = std::time::Instant::now();
        let scans = self.list_nodes(view, &keys, any).await;
        if scans.is_empty() {
            return Err(self.unreachable(asked));
        }
        let mut listing =
            Listing { incomplete: !any && lacks_a_majority(view, &scans), ..Listing::default() };
        let mut findings = Findings::default();
        let objects: BTreeSet<ObjectId> = scans.values().flat_map(|r| r.keys().copied()).collect();
        // One wait for a quorum that is not there is enough, and the nodes were waited for already.
        let mut no_quorum = listing.incomplete;
        for &object in &objects {
            if no_quorum && !has_a_majority(view, &scans, &object) {
                continue;
            }
            match self.agreed(view, &scans, object, any).await {
                Ok(Some(register)) => match opened(&keys, &register, seen.get(&object).copied()) {
                    Opened::Good(info) => keep(info, prefix, removed, &mut listing),
                    Opened::Older(info, error) => {
                        findings.add_older(&error);
                        keep(info, prefix, removed, &mut listing);
                    }
                    Opened::Damaged(sentence) => findings.add(sentence),
                },
                Ok(None) => gone(&seen, &object, &mut findings),
                Err(error @ (Error::NoQuorum { .. } | Error::Unreachable { .. })) => {
                    tracing::debug!("{object}: {error}");
                    listing.incomplete = true;
                    no_quorum = true;
                }
                Err(error) => findings.add(error.to_string()),
            }
        }
        // A majority that knows nothing of it is an answer; without one the listing is incomplete already.
        let unlisted = seen.keys().filter(|object| !objects.contains(object));
        let unlisted = unlisted.filter(|object| has_a_majority(view, &scans, object));
        unlisted.for_each(|object| gone(&seen, object, &mut findings));
        listing.findings = findings.end();
        listing.objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listing)
    }

    /// The readable versions of one object, newest first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn versions(&self, name: &str) -> Result<Vec<ObjectInfo>, Error> {
        let name = parse_name(name)?;
        let keys = self.keys().await?;
        let not_found = || Error::NotFound(name.to_string());
        let current = self.open_current(&keys, &name).await?.ok_or_else(not_found)?;
        let newest = current.manifest.ok_or_else(not_found)?;
        let removed = current.register.is_tombstone();
        let mut versions = vec![info_of(&newest.info, newest.version, removed)];
        for older in &newest.predecessors {
            match self.open_manifest(&keys, &name, older.version, older.manifest).await {
                Ok(manifest) => versions.push(info_of(&manifest.info, manifest.version, false)),
                Err(error) => tracing::warn!("version {}: {error}", older.version),
            }
        }
        Ok(versions)
    }

    /// All that is known of one object.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn stat(&self, name: &str) -> Result<Stat, Error> {
        let version = self.open_version(&Get { name: name.to_owned(), version: None, any: false }).await?;
        let object = version.manifest.object;
        let view = self.view().await?;
        let older = version.manifest.predecessors.iter().map(|p| p.version);
        Ok(Stat {
            info: info_of(&version.manifest.info, version.version, false),
            object: object.to_string(),
            chunks: version.chunks.len() as u64,
            stored_bytes: version.chunks.iter().map(|c| c.chunk.padded_bytes).sum(),
            thumbnail: version.manifest.info.thumbnail.is_some(),
            versions: std::iter::once(version.version).chain(older).collect(),
            home: view.home(&object).map(|peer| view.name(&peer)).unwrap_or_default(),
        })
    }

    /// What a majority of the object's acceptors agree on; else a read in full.
    async fn agreed(
        &self,
        view: &View,
        scans: &BTreeMap<PeerId, Records>,
        object: ObjectId,
        any: bool,
    ) -> Result<Option<VerifiedRegister>, Error> {
        let keepers = view.keepers(&object);
        let all = scans.values().filter_map(|records| records.get(&object));
        let Some(newest) = all.max_by_key(|(ballot, _)| *ballot) else { return Ok(None) };
        let agreeing = keepers
            .acceptors
            .iter()
            .filter(|peer| scans.get(peer).and_then(|r| r.get(&object)).is_some_and(|(b, _)| *b == newest.0))
            .count();
        if any || agreeing >= keepers.majority() {
            return self.own_register(object, &newest.1.value.0).map(Some);
        }
        Ok(self.read_register(object, false).await?.value)
    }

    /// The records of all who can be asked. While they are no majority, those that come meanwhile are asked
    /// too: a machine on which many commands run needs its time to be connected.
    async fn list_nodes(&self, view: &View, keys: &UserKeys, any: bool) -> BTreeMap<PeerId, Records> {
        let began = self.awake.now();
        // The time since the start of a command counts, not that of a shell.
        let patience = limits::CLIENT_PATIENCE.since(began).max(limits::NO_PROGRESS);
        let (mut scans, mut answer_within) = (BTreeMap::new(), limits::NO_PROGRESS);
        loop {
            // Not beyond the patience: who is gone answers never.
            let left = self.admission_patience(patience).since(self.awake.since(began));
            let answer_in = answer_within.min(left.max(limits::NO_PROGRESS));
            let missing = view.members.iter().map(|m| m.peer).filter(|peer| !scans.contains_key(peer));
            let asked =
                missing.map(|peer| async move { Some((peer, self.list_node(keys, peer, answer_in).await?)) });
            let answers = futures::future::join_all(asked.collect::<Vec<_>>()).await;
            scans.extend(answers.into_iter().flatten());
            let enough = if any { !scans.is_empty() } else { !lacks_a_majority(view, &scans) };
            let patience = if scans.is_empty() { limits::CLIENT_PATIENCE } else { patience };
            if enough || self.awake.since(began) >= self.admission_patience(patience) {
                return scans;
            }
            // Who is late is not helped by being asked more often.
            answer_within = (answer_within + answer_within).min(limits::CLIENT_PATIENCE);
            tokio::time::sleep(LIST_AGAIN).await;
        }
    }

    /// All pages of one node; none if it does not answer.
    async fn list_node(&self, keys: &UserKeys, peer: PeerId, answer_within: Millis) -> Option<Records> {
        if !self.net.connected().contains_key(&peer) || self.is_shunned(&peer) {
            return None;
        }
        let server_boot = self.quic.gate().hello(&peer)?.mark.boot;
        let Response::Nonce(nonce) = self.ask(peer, &Request::ListNonce, answer_within).await? else {
            return None;
        };
        let mut records = Records::new();
        let mut after: Option<ObjectId> = None;
        loop {
            let claim = ListClaim {
                client: &self.me,
                client_boot: 0,
                server: &peer,
                server_boot,
                nonce: &nonce,
                after,
            };
            let signature = ByteBuf::from(register::list_proof(keys, &claim));
            let request =
                Request::List(ListRequest { owner: keys.owner(), nonce: nonce.clone(), after, signature });
            let Response::Page(page) = self.ask(peer, &request, limits::CLIENT_PATIENCE).await? else {
                return None;
            };
            let RecordPage { records: page, next } = page;
            for record in page {
                records.insert(record.object, (Ballot::decode(&record.ballot).ok()?, record));
            }
            // A node that goes round in circles is not asked for ever.
            if next.is_none() || next <= after {
                return Some(records);
            }
            after = next;
        }
    }
}

/// One agreed register, opened.
enum Opened {
    Good(ObjectInfo),
    /// This home has seen a newer one.
    Older(ObjectInfo, Error),
    Damaged(String),
}

fn opened(keys: &UserKeys, register: &VerifiedRegister, seen: Option<u64>) -> Opened {
    let info = match register::open_entry(keys, register) {
        Ok(info) => info_of(&info, register.version, register.is_tombstone()),
        Err(error) => return Opened::Damaged(format!("object {}: {error}", register.object)),
    };
    match seen.filter(|seen| *seen > info.version) {
        None => Opened::Good(info),
        Some(seen) => {
            let stale = Error::Stale { name: info.name.clone(), answered: info.version, seen };
            Opened::Older(info, stale)
        }
    }
}

fn keep(info: ObjectInfo, prefix: &str, removed: bool, listing: &mut Listing) {
    if info.name.starts_with(prefix) && (removed || !info.removed) {
        listing.objects.push(info);
    }
}

fn gone(seen: &BTreeMap<ObjectId, u64>, object: &ObjectId, findings: &mut Findings) {
    if let Some(version) = seen.get(object) {
        findings.add_gone(object, *version);
    }
}

/// Whether some hash slot has fewer than a majority of its acceptors among those that answered.
fn lacks_a_majority(view: &View, scans: &BTreeMap<PeerId, Records>) -> bool {
    (0..=u8::MAX).any(|slot| !has_a_majority(view, scans, &ObjectId([slot; 32])))
}

/// Whether a majority of an object's acceptors is among those that answered.
fn has_a_majority(view: &View, scans: &BTreeMap<PeerId, Records>, object: &ObjectId) -> bool {
    let keepers = view.keepers(object);
    keepers.acceptors.iter().filter(|peer| scans.contains_key(peer)).count() >= keepers.majority()
}

fn info_of(info: &manifest::ObjectInfo, version: u64, removed: bool) -> ObjectInfo {
    ObjectInfo {
        name: info.name.to_string(),
        version,
        bytes: info.bytes,
        media_type: info.media_type.to_string(),
        unix_ms: info.unix_ms,
        removed,
    }
}
