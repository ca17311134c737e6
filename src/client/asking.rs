//! Asking nodes: an answer within a deadline, and no waiting for one node alone.
//!
//! A node that does not answer within 500 ms is not given up; the next one is asked beside it, and the first
//! answer that decides counts.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream::FuturesUnordered};

use super::{Client, Error};
use crate::{
    model::{
        Millis, ObjectId, PeerId, limits,
        register::VerifiedRegister,
        rpc::{Request, Response},
    },
    seal,
};

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

    /// Asks one after the other, half a second apart, until one decides; those that decide nothing (busy, no
    /// quorum, not ready) are the answer only if nobody does.
    pub(super) async fn ask_first(
        &self,
        order: &[PeerId],
        request: &Request,
        patience: Millis,
    ) -> Result<(PeerId, Response), Error> {
        let started = Instant::now();
        let deadline = tokio::time::Instant::now() + Duration::from(patience);
        let mut waiting = self.usable(order).into_iter();
        let mut asked = FuturesUnordered::new();
        let mut undecided: Option<(PeerId, Response)> = None;
        loop {
            if let Some(peer) = waiting.next() {
                let left = patience.since(Millis(started.elapsed().as_millis() as u64));
                asked.push(async move { (peer, self.ask(peer, request, left).await) });
            } else if asked.is_empty() {
                break;
            }
            let step = tokio::time::Instant::now() + Duration::from(limits::NO_PROGRESS);
            let until = if waiting.len() > 0 { step.min(deadline) } else { deadline };
            match tokio::time::timeout_at(until, asked.next()).await {
                Ok(Some((peer, Some(response)))) if decides(&response) => {
                    self.note_answer(peer);
                    return Ok((peer, response));
                }
                Ok(Some((peer, Some(response)))) => undecided = Some((peer, response)),
                Ok(Some((peer, None))) => self.shun(peer),
                Ok(None) => {}
                Err(_) if tokio::time::Instant::now() >= deadline => break,
                Err(_) => {}
            }
        }
        undecided.ok_or_else(|| self.unreachable(started))
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
        let started = Instant::now();
        let order = self.usable(&self.view().await?.askable(&object));
        let request = Request::ReadAny { object };
        let asked = order.iter().map(|peer| self.ask(*peer, &request, limits::CLIENT_PATIENCE));
        let mut newest: Option<VerifiedRegister> = None;
        let mut answers = 0;
        for response in futures::future::join_all(asked).await.into_iter().flatten() {
            let Response::Register { value } = response else { continue };
            answers += 1;
            let Some(Ok(value)) = value.map(|raw| self.own_register(object, &raw.0)) else { continue };
            if newest.as_ref().is_none_or(|n| n.version < value.version) {
                newest = Some(value);
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

    /// Notes a version that a quorum has answered or acknowledged.
    pub(super) async fn note_seen(&self, object: ObjectId, version: u64) -> Result<(), Error> {
        let founding = self.view().await?.founding;
        self.with_state(move |state| state.saw(founding, &[(object, version)])).await
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
