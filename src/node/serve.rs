//! What peers ask by rpc, and what they are told.
//!
//! Requests for members count only from PeerIds in the member list. A request that needs the disk or a
//! signature check goes to a bounded task; when there is no room for one the answer is "busy".

use serde_bytes::ByteBuf;

use super::{
    bodies::Bodies,
    crew::Unchecked,
    event_loop::{EventLoop, Stopping},
    machines::Caller,
    timers::TimerKey,
};
use crate::{
    disk::{Disk, RecordScan},
    model::{
        ObjectId, PeerId, codec,
        hello::Kind,
        limits,
        register::RawRegister,
        rpc::{Commit, ListRequest, RecordInfo, RecordPage, Request, Response},
        slots::HashSlot,
        task::TaskId,
    },
    net::{NetHandle, ReplyToken},
    proto::{
        chunkpaxos::{self, AcceptorRecord, Command, Outcome},
        founding, history,
    },
    seal,
};

/// The right to answer one peer.
pub(crate) struct Reply(ReplyToken);

/// What a caller wants to hear of a ChunkPaxos answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// What its proposal became.
    Commit,
    /// The value.
    Value,
}

impl EventLoop {
    pub(super) fn respond(&mut self, reply: Reply, response: Response) {
        // A peer that left does not hear it.
        let _ = self.net.respond(reply.0, response.encode());
    }

    pub(super) fn on_request(&mut self, peer: PeerId, kind: Kind, token: ReplyToken, bytes: &[u8]) {
        let reply = Reply(token);
        let request = match Request::decode(bytes) {
            Ok(request) => request,
            Err(error) => {
                self.on_malformed(peer, &error.to_string());
                return self.respond(reply, Response::Refused(format!("malformed request: {error}")));
            }
        };
        if request.members_only() && !self.may_ask_as_member(&peer, kind, &request) {
            self.on_malformed(peer, "a member's request from somebody else");
            return self.respond(reply, Response::Refused("that is for members".into()));
        }
        match request {
            Request::Status => self.respond_status(reply),
            Request::Nodes => {
                let nodes = self.nodes();
                self.respond(reply, Response::Nodes(nodes));
            }
            Request::Events { after } => {
                let events = self.events.after(after);
                self.respond(reply, Response::Events(events));
            }
            Request::Probe => self.respond(reply, Response::Done),
            Request::Peers => {
                let peers = self.connected_nodes();
                self.respond(reply, Response::Peers(peers));
            }
            Request::Founding { message } => self.on_founding_message(peer, reply, &message),
            Request::Stop { token } => self.on_stop(reply, &token),
            request if self.cluster.is_none() => {
                drop(request);
                let sentence = self.founding_status.sentence();
                self.respond(reply, Response::NotReady(sentence));
            }
            request => self.on_cluster_request(peer, reply, request),
        }
    }

    /// The cluster's key makes a node, the founding a member. The founding's own messages are for every node:
    /// one that was left out learns it from them. Before a founding nothing else is served anyway.
    fn may_ask_as_member(&self, peer: &PeerId, kind: Kind, request: &Request) -> bool {
        let for_every_node = self.cluster.is_none() || matches!(request, Request::Founding { .. });
        kind == Kind::Member && (for_every_node || self.is_member(peer))
    }

    /// Requests that only a founded node serves.
    fn on_cluster_request(&mut self, peer: PeerId, reply: Reply, request: Request) {
        let by_peer = |wants| move |reply| Caller::Peer { reply, wants };
        match request {
            Request::Read { object } => {
                self.call_paxos(object, Command::Read, by_peer(Wants::Value)(reply));
            }
            Request::ReadAny { object } => {
                self.call_paxos(object, Command::ReadAny, by_peer(Wants::Value)(reply));
            }
            Request::Propose { value } => self.on_propose(reply, value),
            Request::ListNonce => {
                let nonce: [u8; 32] = rand::random();
                // Its end takes it away again; one that has ended already would leave it for ever.
                if self.net.peers().contains_key(&peer) {
                    self.list_nonces.insert(peer, nonce);
                }
                self.respond(reply, Response::Nonce(ByteBuf::from(nonce.to_vec())));
            }
            Request::List(list) => self.on_list(peer, reply, &list),
            Request::Offer { bodies } if bodies.len() <= limits::OFFER_IDS_MAX => {
                let own = self.bodies.clone();
                self.in_task(reply, async move { Response::Have(own.have(&bodies).await) });
            }
            Request::Check { bodies, read, copies } if bodies.len() <= limits::OFFER_IDS_MAX => {
                if read && bodies.len() > limits::VERIFY_IDS_MAX {
                    return self.respond(reply, Response::Refused("too many bodies to read at once".into()));
                }
                let own = self.bodies.clone();
                self.in_task(reply, async move { Response::Checked(own.check(&bodies, read, copies).await) });
            }
            Request::Push { bodies } if bodies.len() <= limits::OFFER_IDS_MAX => {
                let lacking = self.bodies.want(bodies);
                self.respond(reply, if lacking { Response::Done } else { Response::Busy });
            }
            Request::Behind => {
                self.timers.arm_no_later(TimerKey::Repair, self.now() + limits::REPAIR_AFTER_CONNECT);
                self.respond(reply, Response::Done);
            }
            Request::ScanSlot { slot, after } => {
                let disk = self.disk.clone();
                self.in_task(reply, async move { scan_slot(&disk, HashSlot(slot), after).await });
            }
            Request::ProbeThrough { peer: other } => self.on_probe_through(reply, other),
            request => self.on_task_request(peer, reply, request),
        }
    }

    fn on_task_request(&mut self, peer: PeerId, reply: Reply, request: Request) {
        let own = |number| TaskId { client: peer, number };
        match request {
            Request::Election { message } => self.on_election_message(peer, reply, &message),
            Request::Reserve { record } => self.on_reserve(reply, record),
            Request::Tasks { after } => {
                let page = self.task_page(after);
                self.respond(reply, page);
            }
            Request::Elections => {
                let elections = self.elections();
                self.respond(reply, elections);
            }
            Request::Submit(request) => self.on_submit(peer, reply, request, true),
            Request::SubmitFor { client, submit } => self.on_submit(client, reply, submit, false),
            Request::Poll { number } => self.on_poll(own(number), reply),
            Request::Acknowledge { number } => {
                self.feed_history(history::Event::Acknowledge { task: own(number) });
                self.respond(reply, Response::Done);
            }
            Request::Cancel { task } => {
                self.feed_history(history::Event::Cancel { task });
                self.respond(reply, Response::Done);
            }
            _ => self.respond(reply, Response::Refused("too many ids in one request".into())),
        }
    }

    /// Runs a job beside the loop and answers when it is done; busy if too many run.
    pub(super) fn in_task(&mut self, reply: Reply, job: impl Future<Output = Response> + Send + 'static) {
        let Ok(permit) = self.jobs.clone().try_acquire_owned() else {
            return self.respond(reply, Response::Busy);
        };
        let net = self.handle.clone();
        tokio::spawn(async move {
            answer_from_task(&net, reply, job.await).await;
            drop(permit);
        });
    }

    /// What a ChunkPaxos answer says to a peer.
    pub(super) fn response_of(&self, answer: chunkpaxos::Answer, wants: Wants) -> Response {
        match response_of(answer, wants) {
            Response::NoQuorum if wants == Wants::Commit => self.why_nothing_was_written(),
            response => response,
        }
    }

    /// No majority has written a value down. If this node could not either, that is most likely why.
    fn why_nothing_was_written(&self) -> Response {
        match self.disk.room_for_records() {
            Err(error) if error.is_full() => Response::Refused(format!(
                "there is no room left on the node to write it down, because {error}; make room there and run \
                 it again"
            )),
            _ => Response::NoQuorum,
        }
    }

    fn on_propose(&mut self, reply: Reply, value: RawRegister) {
        if let Some(Unchecked::Proposal { reply, .. }) = self.crew.check(Unchecked::Proposal { value, reply })
        {
            self.respond(reply, Response::Busy);
        }
    }

    pub(super) fn refuse_proposal(&mut self, reply: Reply) {
        self.respond(reply, Response::Refused("the register's id or signature is wrong".into()));
    }

    fn on_list(&mut self, peer: PeerId, reply: Reply, list: &ListRequest) {
        let expected = self.list_nonces.get(&peer);
        let fresh = expected.is_some_and(|nonce| nonce.as_slice() == list.nonce.as_slice());
        let client_boot = self.gate.hello(&peer).map_or(0, |hello| hello.mark.boot);
        let claim = seal::register::ListClaim {
            client: &peer,
            client_boot,
            server: &self.me,
            server_boot: self.boot.mark.boot,
            nonce: &list.nonce,
            after: list.after,
        };
        if !fresh || !seal::register::verify_list_proof(&list.owner, &claim, &list.signature) {
            return self.respond(reply, Response::Refused("the listing is not signed by its owner".into()));
        }
        let disk = self.disk.clone();
        let (owner, after) = (list.owner, list.after);
        self.in_task(reply, async move {
            match disk.scan_owner(owner, after, limits::LIST_PAGE_BYTES_MAX).await {
                Ok(scan) => Response::Page(page_of(scan)),
                Err(_) => Response::Busy,
            }
        });
    }

    fn on_founding_message(&mut self, peer: PeerId, reply: Reply, message: &[u8]) {
        match founding::Message::decode(message) {
            Ok(message) => {
                self.respond(reply, Response::Done);
                self.feed_founding(founding::Event::Message { from: peer, message });
            }
            Err(error) => {
                self.on_malformed(peer, &error.to_string());
                self.respond(reply, Response::Refused(format!("malformed: {error}")));
            }
        }
    }

    fn on_stop(&mut self, reply: Reply, token: &[u8]) {
        let ours =
            <&[u8; 32]>::try_from(token).is_ok_and(|t| seal::admission::same_proof(t, &self.stop_token));
        if !ours {
            return self.respond(reply, Response::Refused("that is not this node's stop token".into()));
        }
        self.respond(reply, Response::Done);
        Stopping::ask(&self.stop);
    }

    fn on_probe_through(&mut self, reply: Reply, other: PeerId) {
        let net = self.handle.clone();
        self.in_task(reply, async move {
            let answer = net.request(other, Request::Probe.encode(), limits::PROBE_TIMEOUT.into()).await;
            Response::Reached(answer.is_ok())
        });
    }

    fn respond_status(&mut self, reply: Reply) {
        let status = self.status();
        self.respond(reply, Response::Status(Box::new(status)));
    }
}

async fn answer_from_task(net: &NetHandle, reply: Reply, response: Response) {
    // A peer that left does not hear it.
    let _ = net.respond(reply.0, response.encode()).await;
}

/// The same, by the answer alone.
fn response_of(answer: chunkpaxos::Answer, wants: Wants) -> Response {
    match answer.outcome {
        Outcome::Committed { copies } => Response::Committed(Commit { messages: answer.messages, copies }),
        Outcome::Conflict { current } => Response::Conflict { current: current.map(|v| v.to_raw()) },
        Outcome::Value { current } if wants == Wants::Value => {
            Response::Register { value: current.map(|a| a.value.to_raw()) }
        }
        Outcome::Value { .. } => Response::Refused("no answer to that".into()),
        Outcome::NoQuorum => Response::NoQuorum,
        Outcome::Busy => Response::Busy,
    }
}

async fn scan_slot(disk: &Disk, slot: HashSlot, after: Option<ObjectId>) -> Response {
    match disk.scan_slot(slot, after, limits::LIST_PAGE_BYTES_MAX).await {
        Ok(scan) => Response::Page(page_of(scan)),
        Err(error) => {
            tracing::debug!("scanning a slot: {error}");
            Response::Busy
        }
    }
}

/// A page of the accepted values; records that hold only a promise are left out.
pub(super) fn page_of(scan: RecordScan) -> RecordPage {
    let accepted = |bytes: &[u8]| -> Result<Option<(Vec<u8>, RawRegister)>, codec::CodecError> {
        let record = AcceptorRecord::decode(bytes)?;
        Ok(record.accepted.map(|a| (a.ballot.encode(), a.value)))
    };
    let mut records = Vec::with_capacity(scan.records.len());
    for stored in scan.records {
        match accepted(&stored.bytes) {
            Ok(Some((ballot, value))) => {
                records.push(RecordInfo { object: stored.object, ballot: ByteBuf::from(ballot), value });
            }
            Ok(None) => {}
            Err(error) => tracing::error!("the record of {}: {error}", stored.object),
        }
    }
    RecordPage { records, next: scan.next }
}

impl Bodies {
    /// For an offer: only a copy read and hashed just now counts.
    async fn have(&self, ids: &[crate::model::BodyId]) -> Vec<bool> {
        let mut have = Vec::with_capacity(ids.len());
        for id in ids {
            have.push(self.has_good(*id).await);
        }
        have
    }
}
