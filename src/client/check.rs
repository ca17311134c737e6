//! Where copies lie, and whether they are good: `where` and `verify`.
//!
//! `verify` has every node read and hash every body of its own; the node itself replaces a bad copy by a good
//! one from another. Nothing is sent here but ids. It covers all that can still be read or brought back: the
//! current version, those kept behind it, and the same of a removed object.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Client, Error, View,
    put::{Opened, parse_name},
    types::{Copy, Get, OnProgress, Progress, Verified, Where},
};
use crate::{
    model::{
        BodyId, PeerId, limits,
        object::{ObjectName, Redundancy},
        register::VerifiedRegister,
        rpc::{BodyState, Request, Response},
    },
    proto::placement,
    seal::{
        keys::UserKeys,
        manifest::{Layout, Manifest},
    },
};

/// How a node looks at its copies.
#[derive(Clone, Copy, Debug)]
enum Look {
    /// What is on its disk is believed to be good.
    Believe,
    /// Each is read and hashed, and mended; one of the first `copies` nodes of its placement that lacks it
    /// fetches it.
    Read { copies: usize },
}

/// What each node says of each body; none = it did not answer.
type States = BTreeMap<PeerId, Option<BTreeMap<BodyId, BodyState>>>;

/// One run of `verify`.
struct Run<'a> {
    view: &'a View,
    sum: Verified,
    unreachable: BTreeSet<String>,
}

/// Whether bodies are to be had at all.
pub(super) struct Somewhere {
    /// The first that no node has that answers.
    pub(super) lost: Option<BodyId>,
    /// Nodes that could not be asked.
    pub(super) silent: Vec<String>,
}

/// The versions of one object that can be read or brought back.
#[derive(Default)]
struct Kept {
    /// Those whose manifest opens, with its id, newest first.
    versions: Vec<(BodyId, Manifest)>,
    /// Manifests that nobody gave, or that do not open, and the version of each.
    unreadable: Vec<(u64, BodyId)>,
}

/// Bodies of one object that have been asked about. Half an id tells a million of them apart, and the largest
/// object with sixteen versions has as many.
#[derive(Default)]
struct Asked(BTreeSet<u128>);

impl Asked {
    /// Whether this one is new; from now on it is not.
    fn is_new(&mut self, id: &BodyId) -> bool {
        let (half, _) = id.as_bytes().split_first_chunk::<16>().expect("an id has 32 bytes");
        self.0.insert(u128::from_le_bytes(*half))
    }
}

impl Client {
    /// Where each copy of an object's current version lies and when it was last verified.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn where_is(&self, name: &str) -> Result<Where, Error> {
        let view = self.view().await?;
        let version = self.open_version(&Get { name: name.to_owned(), version: None, any: false }).await?;
        let copies = copies_of(&version.manifest);
        let mut bodies: BTreeSet<BodyId> = version.chunks.iter().map(|c| c.chunk.id).collect();
        bodies.extend(version.manifest_id);
        bodies.extend(beside_chunks(&version.manifest));
        let ids: Vec<BodyId> = bodies.into_iter().collect();
        let states = self.states(view, &ids, Look::Believe).await;
        let on_nodes = view.members.iter().map(|m| copy_on(view, m.peer, &states, &ids, copies)).collect();
        Ok(Where {
            name: name.to_owned(),
            version: version.version,
            bodies: ids.len() as u64,
            fewest_copies: ids.iter().map(|id| good_copies(&states, id)).min().unwrap_or(0),
            copies: on_nodes,
        })
    }

    /// Reads every body of every copy of every kept version of the named objects (none = all, removed ones
    /// too, because they can be brought back); bad and missing ones are mended.
    ///
    /// Memory: one manifest part and the ids of one object, whatever there is to read.
    ///
    /// # Errors
    /// [`Error`]; [`Error::NotFound`] for a name that never was. What cannot be read is a finding.
    pub async fn verify(&self, names: &[String], progress: OnProgress<'_>) -> Result<Verified, Error> {
        let view = self.view().await?;
        let mut run = Run { view, sum: Verified::default(), unreachable: BTreeSet::new() };
        let all = names.is_empty();
        let names = if all { self.names_to_verify(&mut run.sum).await? } else { names.to_vec() };
        let connected = self.net.connected();
        let silent = view.members.iter().filter(|m| !connected.contains_key(&m.peer));
        run.unreachable.extend(silent.map(|m| view.name(&m.peer)));
        let total = names.len() as u64;
        for (done, name) in (1..).zip(&names) {
            match self.verify_object(name, &mut run).await {
                Ok(()) => {}
                // One that cannot be looked at must not keep the others from being read.
                Err(error) if all || names.len() > 1 => {
                    let sentence = error.to_string();
                    // The listing may have said just that.
                    if !run.sum.findings.contains(&sentence) {
                        run.sum.add_finding(sentence);
                    }
                }
                Err(error) => return Err(error),
            }
            progress(Progress { bytes_done: done, bytes_total: Some(total) });
        }
        if run.sum.more_findings > 0 {
            run.sum.findings.push(format!("and {} more like these", run.sum.more_findings));
        }
        run.sum.unreachable = run.unreachable.into_iter().collect();
        Ok(run.sum)
    }

    /// Looks for each of these bodies on some node. A few are read and hashed; of many it is believed that
    /// what lies on a disk is good, because reading a large object everywhere takes minutes.
    ///
    /// # Errors
    /// No node.
    pub(super) async fn look_for(&self, ids: &[BodyId], copies: usize) -> Result<Somewhere, Error> {
        let view = self.view().await?;
        let few = ids.len() <= limits::VERIFY_IDS_MAX;
        let look = if few { Look::Read { copies } } else { Look::Believe };
        let mut silent = BTreeSet::new();
        let mut lost = None;
        for group in ids.chunks(limits::OFFER_IDS_MAX) {
            let states = self.states(view, group, look).await;
            let unasked = states.iter().filter(|(_, answers)| answers.is_none());
            silent.extend(unasked.map(|(peer, _)| view.name(peer)));
            lost = lost.or_else(|| group.iter().find(|id| good_copies(&states, id) == 0).copied());
        }
        Ok(Somewhere { lost, silent: silent.into_iter().collect() })
    }

    /// Every name that is there or can be brought back. Without a majority nobody knows them all, and nothing
    /// may be called good.
    async fn names_to_verify(&self, verified: &mut Verified) -> Result<Vec<String>, Error> {
        let listing = self.list("", true, false).await?;
        if listing.incomplete && listing.objects.is_empty() {
            return Err(Error::NoQuorum { reading: true });
        }
        if listing.incomplete {
            verified.add_finding("the listing is incomplete: objects may be missing from it".into());
        }
        listing.findings.into_iter().for_each(|finding| verified.add_finding(finding));
        Ok(listing.objects.into_iter().map(|o| o.name).collect())
    }

    async fn verify_object(&self, name: &str, run: &mut Run<'_>) -> Result<(), Error> {
        let name = parse_name(name)?;
        let keys = self.keys().await?;
        let register = self.read_current(&keys, &name, false).await?;
        let register = register.ok_or_else(|| Error::NotFound(name.to_string()))?;
        let mut kept = self.kept(&keys, &name, &register, &mut run.sum).await?;
        run.sum.objects += 1;
        run.sum.removed += u64::from(register.is_tombstone());
        run.sum.versions += (kept.versions.len() + kept.unreadable.len()) as u64;
        let label = |version: u64| match version == register.version {
            true => name.to_string(),
            false => format!("{name} version {version}"),
        };
        // A body that versions share is asked about once, for the one that wants most copies.
        kept.versions.sort_by_key(|(_, manifest)| std::cmp::Reverse(copies_of(manifest)));
        let mut asked = Asked::default();
        for (id, manifest) in &kept.versions {
            let label = label(manifest.version);
            self.verify_version(&keys, &label, *id, manifest, &mut asked, run).await?;
        }
        for (version, id) in kept.unreadable {
            // Nobody knows how many copies are wanted, so none is missing; that none is good can be known.
            let fresh: Vec<BodyId> = Some(id).filter(|id| asked.is_new(id)).into_iter().collect();
            self.verify_bodies(&label(version), &fresh, 0, run).await;
        }
        Ok(())
    }

    /// Opens the manifest that a register names, and those of the versions behind it.
    async fn kept(
        &self,
        keys: &UserKeys,
        name: &ObjectName,
        register: &VerifiedRegister,
        sum: &mut Verified,
    ) -> Result<Kept, Error> {
        let mut kept = Kept::default();
        let newest = register.manifest.map(|id| (Opened::manifest_version(register), id));
        let mut queue: Vec<(u64, BodyId)> = newest.into_iter().collect();
        while let Some((version, id)) = queue.pop() {
            match self.open_manifest(keys, name, version, id).await {
                Ok(manifest) => {
                    // Only the newest lists all the others; theirs are among them.
                    if Some((version, id)) == newest {
                        queue.extend(manifest.predecessors.iter().rev().map(|p| (p.version, p.manifest)));
                    }
                    kept.versions.push((id, manifest));
                }
                Err(error @ (Error::BodyLost { .. } | Error::OnSilent { .. } | Error::Damaged { .. })) => {
                    sum.add_finding(format!("version {version} cannot be read: {error}"));
                    kept.unreadable.push((version, id));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(kept)
    }

    async fn verify_version(
        &self,
        keys: &UserKeys,
        label: &str,
        id: BodyId,
        manifest: &Manifest,
        asked: &mut Asked,
        run: &mut Run<'_>,
    ) -> Result<(), Error> {
        let copies = copies_of(manifest);
        let mut fresh: Vec<BodyId> = std::iter::once(id).chain(beside_chunks(manifest)).collect();
        if let Layout::Chunks(chunks) = &manifest.layout {
            fresh.extend(chunks.iter().map(|c| c.chunk.id));
        }
        fresh.retain(|id| asked.is_new(id));
        self.verify_bodies(label, &fresh, copies, run).await;
        let Layout::Parts(parts) = &manifest.layout else { return Ok(()) };
        for index in 0..parts.len() {
            match self.open_part(keys, label, manifest, index).await {
                Ok(chunks) => {
                    let ids = chunks.iter().map(|c| c.chunk.id).filter(|id| asked.is_new(id));
                    self.verify_bodies(label, &ids.collect::<Vec<_>>(), copies, run).await;
                }
                Err(error @ (Error::BodyLost { .. } | Error::OnSilent { .. } | Error::Damaged { .. })) => {
                    run.sum.add_finding(format!("a part of the manifest cannot be read: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Has every node read these bodies, a bounded number at a time, and adds up what they say.
    async fn verify_bodies(&self, label: &str, ids: &[BodyId], copies: usize, run: &mut Run<'_>) {
        for group in ids.chunks(limits::OFFER_IDS_MAX) {
            let states = self.states(run.view, group, Look::Read { copies }).await;
            for id in group {
                add_up(run.view, label, id, copies, &states, &mut run.sum);
            }
            let silent = states.iter().filter(|(_, answers)| answers.is_none());
            run.unreachable.extend(silent.map(|(peer, _)| run.view.name(peer)));
        }
    }

    /// Has each of the first `copies` nodes of its placement fetch what it lacks of these bodies. Whoever
    /// does not answer is left to repair.
    pub(super) async fn bring_copies(&self, view: &View, ids: &[BodyId], copies: usize) {
        for group in ids.chunks(limits::OFFER_IDS_MAX) {
            let states = self.states(view, group, Look::Believe).await;
            let fetching = states.iter().filter_map(|(peer, answers)| {
                let answers = answers.as_ref()?;
                let lacks = |id: &&BodyId| {
                    answers.get(id) == Some(&BodyState::Missing) && belongs(view, id, copies, peer)
                };
                let lacking: Vec<BodyId> = group.iter().filter(lacks).copied().collect();
                Some(async move { self.states_on(*peer, &lacking, Look::Read { copies }).await })
            });
            futures::future::join_all(fetching).await;
        }
    }

    async fn states(&self, view: &View, ids: &[BodyId], look: Look) -> States {
        let asked = view.members.iter().map(|m| async move {
            let states = self.states_on(m.peer, ids, look).await;
            (m.peer, states)
        });
        futures::future::join_all(asked).await.into_iter().collect()
    }

    async fn states_on(
        &self,
        peer: PeerId,
        ids: &[BodyId],
        look: Look,
    ) -> Option<BTreeMap<BodyId, BodyState>> {
        if !self.net.connected().contains_key(&peer) {
            return None;
        }
        let (batch, patience, read, copies) = match look {
            Look::Read { copies } => (limits::VERIFY_IDS_MAX, limits::VERIFY_TIMEOUT, true, copies as u64),
            Look::Believe => (limits::OFFER_IDS_MAX, limits::CLIENT_PATIENCE, false, 0),
        };
        let mut states = BTreeMap::new();
        for batch in ids.chunks(batch) {
            let request = Request::Check { bodies: batch.to_vec(), read, copies };
            let Response::Checked(answers) = self.ask(peer, &request, patience).await? else { return None };
            states.extend(batch.iter().copied().zip(answers));
        }
        Some(states)
    }
}

/// What the nodes say of one body, of which `copies` are wanted.
fn add_up(view: &View, label: &str, id: &BodyId, copies: usize, states: &States, sum: &mut Verified) {
    for (peer, answers) in states {
        let Some(answers) = answers else { continue };
        let node = || view.name(peer);
        match answers.get(id) {
            Some(BodyState::Good { .. }) => sum.copies_read += 1,
            Some(BodyState::Mended) => {
                (sum.copies_read, sum.bad, sum.mended) = (sum.copies_read + 1, sum.bad + 1, sum.mended + 1);
                sum.add_finding(format!("{label}: a bad copy of {id} on {} was replaced", node()));
            }
            Some(BodyState::Bad) => {
                (sum.copies_read, sum.bad) = (sum.copies_read + 1, sum.bad + 1);
                let words = "is bad, and no good one was found";
                sum.add_finding(format!("{label}: the copy of {id} on {} {words}", node()));
            }
            Some(BodyState::Restored) => {
                (sum.copies_read, sum.missing, sum.restored) =
                    (sum.copies_read + 1, sum.missing + 1, sum.restored + 1);
                sum.add_finding(format!("{label}: {id} was missing on {} and was fetched", node()));
            }
            Some(BodyState::Missing) | None if belongs(view, id, copies, peer) => sum.missing += 1,
            Some(BodyState::Missing) | None => {}
        }
    }
    if good_copies(states, id) == 0 {
        sum.lost += 1;
        sum.add_finding(format!("{label}: no good copy of {id} on any node that answers"));
    }
}

/// Whether a node is among those that a body of so many copies belongs on.
fn belongs(view: &View, id: &BodyId, copies: usize, peer: &PeerId) -> bool {
    placement::order(&view.members, id).iter().take(copies).any(|placed| placed == peer)
}

/// How many copies of each of its bodies a version's owner wants.
pub(super) fn copies_of(manifest: &Manifest) -> usize {
    let Redundancy::Copies(copies) = manifest.redundancy;
    usize::try_from(copies).unwrap_or(placement::COPIES)
}

/// The bodies of a version that are neither its manifest nor its chunks: thumbnail and parts.
fn beside_chunks(manifest: &Manifest) -> impl Iterator<Item = BodyId> + '_ {
    let parts = match &manifest.layout {
        Layout::Parts(parts) => parts.as_slice(),
        Layout::Chunks(_) => &[],
    };
    let thumbnail = manifest.info.thumbnail.as_ref().map(|t| t.id);
    parts.iter().map(|p| p.id).chain(thumbnail)
}

fn good_copies(states: &States, id: &BodyId) -> u64 {
    let good = |s: &BodyState| matches!(s, BodyState::Good { .. } | BodyState::Mended | BodyState::Restored);
    states.values().flatten().filter(|answers| answers.get(id).is_some_and(good)).count() as u64
}

fn copy_on(view: &View, peer: PeerId, states: &States, ids: &[BodyId], copies: usize) -> Copy {
    let answers = states.get(&peer).and_then(Option::as_ref);
    let placed = ids.iter().filter(|id| belongs(view, id, copies, &peer));
    let mut copy = Copy {
        node: view.name(&peer),
        peer,
        reachable: answers.is_some(),
        placed: placed.count() as u64,
        bodies: 0,
        bad: 0,
        verified_unix_ms: None,
    };
    for state in answers.into_iter().flat_map(BTreeMap::values) {
        match state {
            BodyState::Good { verified_unix_ms } => {
                copy.bodies += 1;
                let oldest = copy.verified_unix_ms.unwrap_or(u64::MAX).min(*verified_unix_ms);
                copy.verified_unix_ms = Some(oldest);
            }
            BodyState::Mended | BodyState::Restored => copy.bodies += 1,
            BodyState::Bad => copy.bad += 1,
            BodyState::Missing => {}
        }
    }
    copy
}
