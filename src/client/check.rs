//! Where copies lie, and whether they are good: `where` and `verify`.
//!
//! `verify` has every node read and hash every body of its own; the node itself replaces a bad copy by a good
//! one from another. Nothing is sent here but ids.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Client, Error, View,
    types::{Copy, Get, OnProgress, Progress, Verified, Where},
};
use crate::{
    model::{
        BodyId, PeerId, limits,
        rpc::{BodyState, Request, Response},
    },
    proto::placement,
    seal::manifest::Layout,
};

/// What each node says of each body; none = it did not answer.
type States = BTreeMap<PeerId, Option<BTreeMap<BodyId, BodyState>>>;

impl Client {
    /// Where each copy of an object lies and when it was last verified.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn where_is(&self, name: &str) -> Result<Where, Error> {
        let view = self.view().await?;
        let (version, bodies) = self.bodies_of(name).await?;
        let states = self.states(view, &bodies, false, &|_| ()).await;
        let copies = view.members.iter().map(|m| copy_on(view, m.peer, &states, &bodies)).collect();
        let fewest = bodies.iter().map(|id| good_copies(&states, id)).min().unwrap_or(0);
        Ok(Where {
            name: name.to_owned(),
            version,
            bodies: bodies.len() as u64,
            fewest_copies: fewest,
            copies,
        })
    }

    /// Reads every body of every copy of the named objects (none = all); bad and missing ones are mended.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn verify(&self, names: &[String], progress: OnProgress<'_>) -> Result<Verified, Error> {
        let view = self.view().await?;
        let mut verified = Verified::default();
        let all = names.is_empty();
        let names = if all { self.names_to_verify(&mut verified).await? } else { names.to_vec() };
        let connected = self.net.connected();
        let silent = view.members.iter().filter(|m| !connected.contains_key(&m.peer));
        let mut unreachable: BTreeSet<String> = silent.map(|m| view.name(&m.peer)).collect();
        let total = names.len() as u64;
        for name in &names {
            let bodies = match self.bodies_of(name).await {
                Ok((_, bodies)) => bodies,
                // One that cannot be read must not keep the others from being read.
                Err(error) if all || names.len() > 1 => {
                    verified.findings.push(error.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            };
            let states = self.states(view, &bodies, true, &|_| ()).await;
            self.add_up(view, name, &bodies, &states, &mut verified);
            unreachable.extend(states.iter().filter(|(_, s)| s.is_none()).map(|(peer, _)| view.name(peer)));
            verified.objects += 1;
            progress(Progress { bytes_done: verified.objects, bytes_total: Some(total) });
        }
        verified.unreachable = unreachable.into_iter().collect();
        Ok(verified)
    }

    /// Every name that is there. Without a majority nobody knows them all, and nothing may be called good.
    async fn names_to_verify(&self, verified: &mut Verified) -> Result<Vec<String>, Error> {
        let listing = self.list("", false, false).await?;
        if listing.incomplete && listing.objects.is_empty() {
            return Err(Error::NoQuorum { reading: true });
        }
        if listing.incomplete {
            verified.findings.push("the listing is incomplete: objects may be missing from it".into());
        }
        verified.findings.extend(listing.findings);
        Ok(listing.objects.into_iter().map(|o| o.name).collect())
    }

    fn add_up(
        &self,
        view: &View,
        name: &str,
        bodies: &BTreeSet<BodyId>,
        states: &States,
        sum: &mut Verified,
    ) {
        for id in bodies {
            let placed: Vec<PeerId> =
                placement::order(&view.members, id).into_iter().take(placement::COPIES).collect();
            for (peer, answers) in states {
                let Some(answers) = answers else { continue };
                match answers.get(id) {
                    Some(BodyState::Good { .. }) => sum.copies_read += 1,
                    Some(BodyState::Mended) => {
                        (sum.copies_read, sum.bad, sum.mended) =
                            (sum.copies_read + 1, sum.bad + 1, sum.mended + 1);
                        sum.findings
                            .push(format!("{name}: a bad copy of {id} on {} was replaced", view.name(peer)));
                    }
                    Some(BodyState::Bad) => {
                        (sum.copies_read, sum.bad) = (sum.copies_read + 1, sum.bad + 1);
                        sum.findings.push(format!(
                            "{name}: the copy of {id} on {} is bad, and no good one was found",
                            view.name(peer)
                        ));
                    }
                    Some(BodyState::Restored) => {
                        (sum.copies_read, sum.missing, sum.restored) =
                            (sum.copies_read + 1, sum.missing + 1, sum.restored + 1);
                        sum.findings
                            .push(format!("{name}: {id} was missing on {} and was fetched", view.name(peer)));
                    }
                    Some(BodyState::Missing) | None if placed.contains(peer) => sum.missing += 1,
                    Some(BodyState::Missing) | None => {}
                }
            }
            if good_copies(states, id) == 0 {
                sum.lost += 1;
                sum.findings.push(format!("{name}: no good copy of {id} on any node that answers"));
            }
        }
    }

    /// The version of an object and every body that its current version needs.
    async fn bodies_of(&self, name: &str) -> Result<(u64, BTreeSet<BodyId>), Error> {
        let version = self.open_version(&Get { name: name.to_owned(), version: None, any: false }).await?;
        let mut bodies: BTreeSet<BodyId> = version.chunks.iter().map(|c| c.chunk.id).collect();
        bodies.extend(version.manifest.info.thumbnail.as_ref().map(|t| t.id));
        bodies.extend(version.manifest_id);
        if let Layout::Parts(parts) = &version.manifest.layout {
            bodies.extend(parts.iter().map(|p| p.id));
        }
        Ok((version.version, bodies))
    }

    async fn states(
        &self,
        view: &View,
        bodies: &BTreeSet<BodyId>,
        read: bool,
        progress: OnProgress<'_>,
    ) -> States {
        let asked = view.members.iter().map(|m| async move {
            let states = self.states_on(m.peer, bodies, read).await;
            progress(Progress::default());
            (m.peer, states)
        });
        futures::future::join_all(asked).await.into_iter().collect()
    }

    async fn states_on(
        &self,
        peer: PeerId,
        bodies: &BTreeSet<BodyId>,
        read: bool,
    ) -> Option<BTreeMap<BodyId, BodyState>> {
        if !self.net.connected().contains_key(&peer) {
            return None;
        }
        let (batch, patience) = if read {
            (limits::VERIFY_IDS_MAX, limits::VERIFY_TIMEOUT)
        } else {
            (limits::OFFER_IDS_MAX, limits::CLIENT_PATIENCE)
        };
        let ids: Vec<BodyId> = bodies.iter().copied().collect();
        let mut states = BTreeMap::new();
        for batch in ids.chunks(batch) {
            let request = Request::Check { bodies: batch.to_vec(), read };
            let Response::Checked(answers) = self.ask(peer, &request, patience).await? else { return None };
            states.extend(batch.iter().copied().zip(answers));
        }
        Some(states)
    }
}

fn good_copies(states: &States, id: &BodyId) -> u64 {
    let good = |s: &BodyState| matches!(s, BodyState::Good { .. } | BodyState::Mended | BodyState::Restored);
    states.values().flatten().filter(|answers| answers.get(id).is_some_and(good)).count() as u64
}

fn copy_on(view: &View, peer: PeerId, states: &States, bodies: &BTreeSet<BodyId>) -> Copy {
    let answers = states.get(&peer).and_then(Option::as_ref);
    let placed = bodies
        .iter()
        .filter(|id| placement::order(&view.members, id).iter().take(placement::COPIES).any(|p| *p == peer));
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
