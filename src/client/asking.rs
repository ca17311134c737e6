//! Asking nodes: an answer within a deadline, and no waiting for one node alone.
//!
//! A node that does not answer within 500 ms is not given up; the next one is asked beside it, and the first
//! answer that decides counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::PoisonError,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::{Client, Error};
use crate::{
    model::{
        Millis, ObjectId, PeerId, limits,
        register::VerifiedRegister,
        rpc::{Request, Response},
    },
    seal,
};

/// How often it is looked who is connected and whether patience is over.
const LOOK_EVERY: Millis = Millis(50);
/// The pause before a node that gave no answer, or is busy or not ready, is asked again.
const ASK_AGAIN: Millis = Millis(100);

/// A register as it was read.
#[derive(Clone, Debug)]
pub(super) struct Current {
    /// The value; none = there is no such object.
    pub(super) value: Option<VerifiedRegister>,
    /// No quorum vouches for it.
    pub(super) unconfirmed: bool,
}

impl Client {
    /// Asks one node. `None` = no answer.
    pub(super) async fn ask(&self, peer: PeerId, request: &Request, patience: Millis) -> Option<Response> {
        let answer = self.net.request(peer, request.encode(), patience.into()).await;
        match answer {
            Ok(bytes) => Response::decode(&bytes).ok(),
            Err(error) => {
                tracing::debug!(%peer, "no answer: {error}");
                None
            }
        }
    }

    /// Asks one after the other, half a second apart, until one decides; with an empty `order` whoever is
    /// connected. Those that decide nothing (busy, no quorum, not ready) are the answer only if nobody does;
    /// who is busy is asked again for longer than who is silent is waited for.
    /// Who could not be asked, because connections are gone, is waited for until the patience is over.
    pub(super) async fn ask_first(
        &self,
        order: &[PeerId],
        request: &Request,
        patience: Millis,
    ) -> Result<(PeerId, Response), Error> {
        let (started, began) = (Instant::now(), self.awake.now());
        let mut asked = FuturesUnordered::new();
        let mut round = Round::default();
        loop {
            let now = self.awake.now();
            let left = round.patience(patience).since(now.since(began));
            if left == Millis(0) {
                break;
            }
            let everybody = if order.is_empty() { self.anybody() } else { order.to_vec() };
            if let Some(peer) = round.next(now, &self.usable(&everybody)) {
                asked.push(async move { (peer, self.ask(peer, request, left).await) });
            } else if asked.is_empty() && round.is_settled(&everybody) {
                break;
            }
            let step = Duration::from(left.min(LOOK_EVERY));
            tokio::select! {
                Some((peer, answer)) = asked.next(), if !asked.is_empty() => match answer {
                    Some(response) if decides(&response) => {
                        self.note_answer(peer);
                        return Ok((peer, response));
                    }
                    Some(response) => round.on_undecided(self.awake.now(), peer, response),
                    None => {
                        self.shun(peer);
                        round.on_silence(self.awake.now(), peer);
                    }
                },
                () = tokio::time::sleep(step) => {}
            }
        }
        round.undecided().ok_or_else(|| self.unreachable(started))
    }

    fn anybody(&self) -> Vec<PeerId> {
        self.net.connected().keys().copied().collect()
    }

    /// The current register of an object; with `any` the newest that the reachable nodes know.
    pub(super) async fn read_register(&self, object: ObjectId, any: bool) -> Result<Current, Error> {
        if any {
            return self.read_any(object).await;
        }
        let order = self.view().await?.askable(&object);
        let (_, response) =
            self.ask_first(&order, &Request::Read { object }, limits::CLIENT_PATIENCE).await?;
        match response {
            Response::Register { value } => {
                let value = value.map(|raw| self.own_register(object, &raw.0)).transpose()?;
                Ok(Current { value, unconfirmed: false })
            }
            other => Err(undecided_error(other, true)),
        }
    }

    async fn read_any(&self, object: ObjectId) -> Result<Current, Error> {
        let (started, began) = (Instant::now(), self.awake.now());
        let order = self.view().await?.askable(&object);
        let request = Request::ReadAny { object };
        let mut newest: Option<VerifiedRegister> = None;
        let mut answers = 0;
        loop {
            let left = limits::CLIENT_PATIENCE.since(self.awake.since(began));
            if answers > 0 || left == Millis(0) {
                break;
            }
            let usable = self.usable(&order);
            let asked = usable.iter().map(|peer| self.ask(*peer, &request, left));
            for response in futures::future::join_all(asked).await.into_iter().flatten() {
                let Response::Register { value } = response else { continue };
                answers += 1;
                let Some(Ok(value)) = value.map(|raw| self.own_register(object, &raw.0)) else { continue };
                if newest.as_ref().is_none_or(|n| n.version < value.version) {
                    newest = Some(value);
                }
            }
            if answers == 0 {
                tokio::time::sleep(LOOK_EVERY.into()).await;
            }
        }
        if answers == 0 {
            return Err(self.unreachable(started));
        }
        Ok(Current { value: newest, unconfirmed: true })
    }

    /// Checks a register that a node sent: its signature, and that it is the object that was asked for.
    pub(super) fn own_register(&self, object: ObjectId, bytes: &[u8]) -> Result<VerifiedRegister, Error> {
        let damaged = |reason: String| Error::Damaged { name: object.to_string(), reason };
        let register = seal::register::verify(bytes).map_err(|e| damaged(e.to_string()))?;
        if register.object != object {
            return Err(damaged("a node answered with another object".into()));
        }
        Ok(register)
    }

    /// The highest version that this home has seen. Taken before a question is asked: what another process of
    /// this home notes meanwhile is no measure for the answer.
    pub(super) async fn seen_before(&self, object: ObjectId) -> Result<u64, Error> {
        let founding = self.view().await?.founding;
        Ok(self.with_state(move |state| state.highest(founding, object)).await?.unwrap_or(0))
    }

    /// Refuses a quorum's answer that is older than what this home had seen before, and notes it otherwise.
    pub(super) async fn check_fresh(
        &self,
        name: &str,
        object: ObjectId,
        answered: u64,
        seen: u64,
    ) -> Result<(), Error> {
        if answered < seen {
            return Err(Error::Stale { name: name.to_owned(), answered, seen });
        }
        if answered > seen { self.note_seen(object, answered).await } else { Ok(()) }
    }

    /// Notes a version that a quorum has answered or acknowledged. Who comes while others are written down
    /// is written down with all who wait: one fsync for all of them.
    pub(super) async fn note_seen(&self, object: ObjectId, version: u64) -> Result<(), Error> {
        let (founding, owner) = (self.view().await?.founding, self.keys().await?.owner());
        let (tell, mut told) = oneshot::channel();
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push((object, version, tell));
        let _turn = self.noting.lock().await;
        match told.try_recv() {
            Ok(result) => return result,
            Err(TryRecvError::Empty) => {}
            // Whoever had the turn went away in the middle of it: nobody knows what of his was written.
            Err(TryRecvError::Closed) => {
                return self.with_state(move |state| state.saw(founding, owner, &[(object, version)])).await;
            }
        }
        let notes = std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner));
        let seen: Vec<_> = notes.iter().map(|(object, version, _)| (*object, *version)).collect();
        let result = self.with_state(move |state| state.saw(founding, owner, &seen)).await;
        for (_, _, tell) in notes {
            // One that gave up has its version noted all the same.
            let _ = tell.send(result.clone());
        }
        result
    }
}

/// Who is asked when, and what came of it.
#[derive(Default)]
struct Round {
    asked: BTreeSet<PeerId>,
    undecided: BTreeMap<PeerId, Response>,
    /// When to ask somebody again.
    again_at: BTreeMap<PeerId, Millis>,
    next_at: Millis,
}

impl Round {
    /// Whom to ask now, of those that can be.
    fn next(&mut self, now: Millis, usable: &[PeerId]) -> Option<PeerId> {
        if now < self.next_at {
            return None;
        }
        let is_due = |peer: &PeerId| self.again_at.get(peer).is_none_or(|at| *at <= now);
        let next = *usable.iter().find(|peer| !self.asked.contains(peer) && is_due(peer))?;
        self.asked.insert(next);
        self.next_at = now + limits::NO_PROGRESS;
        Some(next)
    }

    /// More than with silent nodes while one says that it is busy.
    fn patience(&self, with_silence: Millis) -> Millis {
        let is_busy = self.undecided.values().any(|response| matches!(response, Response::Busy));
        if is_busy { with_silence.max(limits::BUSY_PATIENCE) } else { with_silence }
    }

    fn on_silence(&mut self, now: Millis, peer: PeerId) {
        self.asked.remove(&peer);
        self.again_at.insert(peer, now + ASK_AGAIN);
        self.next_at = now;
    }

    fn on_undecided(&mut self, now: Millis, peer: PeerId, response: Response) {
        self.on_silence(now, peer);
        self.undecided.insert(peer, response);
    }

    /// Whether waiting for others is of no use: a node has looked for a majority itself, for as long as there
    /// is patience; or all have answered what will be no other in a moment. Who is busy will have time.
    fn is_settled(&self, everybody: &[PeerId]) -> bool {
        let no_quorum = self.undecided.values().any(|response| matches!(response, Response::NoQuorum));
        let lasting = |peer| self.undecided.get(peer).is_some_and(|r| !matches!(r, Response::Busy));
        let all = everybody.iter().all(lasting);
        no_quorum || (all && !everybody.is_empty())
    }

    /// The answer if nobody decided.
    fn undecided(self) -> Option<(PeerId, Response)> {
        self.undecided.into_iter().max_by_key(|(_, response)| matches!(response, Response::NoQuorum))
    }
}

fn decides(response: &Response) -> bool {
    !matches!(response, Response::Busy | Response::NoQuorum | Response::NotReady(_))
}

/// What an answer that decides nothing means for the caller.
pub(super) fn undecided_error(response: Response, reading: bool) -> Error {
    match response {
        Response::NoQuorum => Error::NoQuorum { reading },
        Response::NotReady(sentence) => Error::NotReady(sentence),
        Response::Busy => Error::Full("every node that answers has too much to do just now".into()),
        Response::Refused(sentence) => Error::Refused(sentence),
        _ => Error::Refused("a node gave an answer that does not fit the question".into()),
    }
}

#[cfg(test)]
mod tests {
    //! The order of asking, and real connections on loopback that come and go.

    use std::collections::BTreeMap;

    use libp2p_identity::Keypair;

    use super::*;
    use crate::client::holders::{CutWay, client, holder, run};

    fn peers() -> [PeerId; 3] {
        [1, 2, 3].map(|n| Keypair::ed25519_from_bytes([n; 32]).unwrap().public().to_peer_id())
    }

    #[test]
    fn who_was_silent_is_asked_again_and_who_knows_of_no_majority_settles_it() {
        let (p, mut round) = (peers(), Round::default());
        assert_eq!(round.next(Millis(0), &p), Some(p[0]));
        assert_eq!(round.next(Millis(100), &p), None);
        assert_eq!(round.next(limits::NO_PROGRESS, &p), Some(p[1]));
        round.on_silence(Millis(600), p[0]);
        assert_eq!(round.next(Millis(600), &p), Some(p[2]));
        round.on_silence(Millis(610), p[1]);
        round.on_undecided(Millis(620), p[2], Response::Busy);
        assert_eq!(round.next(Millis(620), &p), None);
        assert!(!round.is_settled(&p), "two have said nothing");
        assert_eq!(round.patience(limits::CLIENT_PATIENCE), limits::BUSY_PATIENCE, "one has no time now");
        assert_eq!(round.next(Millis(620) + ASK_AGAIN, &p), Some(p[0]));
        round.on_undecided(Millis(730), p[0], Response::NoQuorum);
        assert!(round.is_settled(&p));
        assert_eq!(round.undecided().map(|(peer, _)| peer), Some(p[0]));
        let mut round = Round::default();
        for peer in p {
            assert_eq!(round.next(Millis(0), &[peer]), Some(peer));
            round.on_undecided(Millis(0), peer, Response::NotReady(String::new()));
        }
        assert!(round.is_settled(&p), "all have answered");
        assert_eq!(round.patience(limits::CLIENT_PATIENCE), limits::CLIENT_PATIENCE);
        round.on_undecided(Millis(0), p[1], Response::Busy);
        assert!(!round.is_settled(&p), "one has too much to do just now");
        assert!(!Round::default().is_settled(&[]), "there is nobody to answer yet");
    }

    #[test]
    fn a_node_that_can_be_reached_again_soon_is_waited_for_and_no_longer() {
        run(async {
            let a = holder(1, &BTreeMap::new()).await;
            let dir = tempfile::tempdir().unwrap();
            let way = CutWay::to(a.addr).await;
            let client = client(dir.path(), &[&a], &[way.addr]).await;
            let mut connected = client.net.watch_peers();
            let request = Request::Read { object: ObjectId([1; 32]) };
            for order in [vec![], vec![a.peer]] {
                way.cut.send_replace(true);
                connected.wait_for(|peers| peers.is_empty()).await.unwrap();
                let mend = async {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    way.cut.send_replace(false);
                };
                let asking = client.ask_first(&order, &request, limits::CLIENT_PATIENCE);
                let (answer, ()) = futures::join!(asking, mend);
                assert!(matches!(answer, Ok((_, Response::Register { value: None }))), "{answer:?}");
            }
            way.cut.send_replace(true);
            connected.wait_for(|peers| peers.is_empty()).await.unwrap();
            let begun = Instant::now();
            let answer = client.ask_first(&[], &request, Millis(700)).await;
            assert!(matches!(answer, Err(Error::Unreachable { waited_ms: 650.., .. })), "{answer:?}");
            assert!(begun.elapsed() < Duration::from_secs(2));
        });
    }
}
