//! The machines of this node, and what goes into them from every side.
//!
//! Each `feed_*` hands one event to one machine and executes what it wants done. No decision is made here.

use tokio::sync::oneshot;

use super::{
    Done, NodeError,
    crew::Unchecked,
    event_loop::{Call, Durable, EventLoop, Later},
    repair, serve,
    timers::TimerKey,
};
use crate::{
    disk::crash_point,
    model::{
        ObjectId, PeerId,
        hello::Kind,
        limits,
        member::{Epoch, Founding},
        register::{RawRegister, VerifiedRegister},
        rpc::{Request, Response},
        slots::HashSlot,
    },
    net::{self, transport::Refusal},
    proto::{
        Outbox,
        chunkpaxos::{self, CallId, ChunkPaxos},
        election::{self, Election},
        founding,
        history::{self, History},
        membership::{self, Fact, Membership},
        placement::Weighted,
    },
    seal,
};

/// The members' machines; they exist once the cluster is founded.
pub(super) struct Cluster {
    pub(super) founding: Founding,
    pub(super) members: Vec<Weighted>,
    pub(super) paxos: ChunkPaxos,
    pub(super) membership: Membership,
    pub(super) election: Election,
    pub(super) history: History,
    pub(super) paxos_out: Outbox<chunkpaxos::Action>,
    pub(super) membership_out: Outbox<membership::Action>,
}

/// Who waits for a ChunkPaxos answer.
pub(super) enum Caller {
    /// A peer that asked by rpc.
    Peer { reply: serve::Reply, wants: serve::Wants },
    /// A task of this node.
    Task(oneshot::Sender<chunkpaxos::Answer>),
}

impl EventLoop {
    // ---- founding ----

    pub(super) fn feed_founding(&mut self, event: founding::Event) {
        let mut out = std::mem::take(&mut self.founding_out);
        self.founding.handle(self.now(), event, &mut out);
        for action in out.drain() {
            self.execute_founding(action);
        }
        self.founding_out = out;
    }

    pub(super) fn on_founding_status(&mut self, status: founding::Status) {
        if let founding::Status::Ready(founding) = &status {
            crash_point("node.founding.before_ready");
            self.on_founded(founding.clone());
        } else if status != self.founding_status {
            self.say(status.sentence());
        }
        self.founding_status = status;
    }

    fn on_founded(&mut self, founding: Founding) {
        if self.cluster.is_some() {
            return;
        }
        let fences = match self.disk.fences() {
            Ok(fences) => fences,
            Err(error) => return self.fatal = Some(NodeError::Disk(error)),
        };
        let members: Vec<Weighted> = founding.members.iter().map(Weighted::from).collect();
        self.net.set_members(founding.members.iter().map(|m| m.peer).collect());
        self.gate.bind_members(founding.members.iter().map(|m| (m.peer, m.incarnation)));
        self.gate.set_founding(founding.id);
        self.bodies.set_members(members.clone());
        let paxos = ChunkPaxos::new(chunkpaxos::Config {
            me: self.me,
            founding: founding.clone(),
            epoch: Epoch::FOUNDING,
            boot: self.boot.mark.boot,
            fences,
            seed: rand::random(),
            variant: chunkpaxos::Variant::Right,
        });
        let membership = Membership::new(membership::Config {
            me: self.me,
            founding: founding.clone(),
            epoch: Epoch::FOUNDING,
            boot: self.boot.mark.boot,
            name: self.config.name.clone(),
            seed: rand::random(),
        });
        let (election, history) = self.machines_of_tasks(&founding);
        let nodes = founding.members.len();
        self.cluster = Some(Cluster {
            founding,
            members,
            paxos,
            membership,
            election,
            history,
            paxos_out: Outbox::new(),
            membership_out: Outbox::new(),
        });
        self.keep_marks_of_members();
        self.sample_tasks();
        self.feed_history(history::Event::Start);
        self.feed_membership(membership::Event::Start);
        let connected: Vec<PeerId> = self.net.peers().keys().copied().collect();
        for peer in connected {
            self.on_member_connected(peer);
        }
        self.timers.arm(TimerKey::Repair, self.now() + limits::REPAIR_AFTER_START);
        self.events.say(format!("the cluster of {nodes} is ready"));
        self.tell_ready();
    }

    // ---- ChunkPaxos ----

    pub(super) fn feed_paxos(&mut self, event: chunkpaxos::Event) {
        let now = self.now();
        let Some(cluster) = &mut self.cluster else { return };
        let mut out = std::mem::take(&mut cluster.paxos_out);
        cluster.paxos.handle(now, event, &mut out);
        for action in out.drain() {
            self.execute_paxos(action);
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.paxos_out = out;
        }
    }

    /// Asks ChunkPaxos something; `caller` gets the answer.
    pub(super) fn call_paxos(&mut self, object: ObjectId, command: chunkpaxos::Command, caller: Caller) {
        if self.cluster.is_none() || self.callers.len() >= limits::NODE_CALLS_MAX {
            let outcome = chunkpaxos::Outcome::Busy;
            self.answer(caller, chunkpaxos::Answer { outcome, messages: 0, by_home: false });
            return;
        }
        self.next_call += 1;
        let call = CallId(self.next_call);
        self.callers.insert(call, caller);
        self.feed_paxos(chunkpaxos::Event::Call { call, object, command });
    }

    pub(super) fn answer(&mut self, caller: Caller, answer: chunkpaxos::Answer) {
        match caller {
            // A task that stopped waiting is no loss.
            Caller::Task(reply) => drop(reply.send(answer)),
            Caller::Peer { reply, wants } => {
                let response = self.response_of(answer, wants);
                self.respond(reply, response);
            }
        }
    }

    // ---- membership ----

    pub(super) fn feed_membership(&mut self, event: membership::Event) {
        let now = self.now();
        let Some(cluster) = &mut self.cluster else { return };
        let mut out = std::mem::take(&mut cluster.membership_out);
        cluster.membership.handle(now, event, &mut out);
        for action in out.drain() {
            self.execute_membership(action);
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.membership_out = out;
        }
    }

    pub(super) fn on_fact(&mut self, fact: Fact) {
        let (peer, what) = match fact {
            Fact::Alive(peer) => (peer, "is here"),
            Fact::Suspect(peer) => (peer, "is silent; asking others about it"),
            Fact::Dead(peer) => (peer, "does not answer"),
            Fact::Back(peer) => (peer, "is back"),
        };
        if peer == self.me {
            return;
        }
        let name = self.name_of(&peer);
        self.say(format!("{name} {what}"));
        if matches!(fact, Fact::Dead(_)) {
            self.on_member_dead(peer);
        }
        // Who is here may lack something, and so may others of what they were to get from who is dead.
        if !matches!(fact, Fact::Suspect(_)) {
            self.repair_soon();
        }
    }

    pub(super) fn is_member(&self, peer: &PeerId) -> bool {
        self.cluster.as_ref().is_some_and(|c| c.founding.number_of(peer).is_some())
    }

    // ---- what comes in ----

    pub(super) fn on_timer(&mut self, key: TimerKey) {
        match key {
            TimerKey::Founding(timer) => self.feed_founding(founding::Event::Timer(timer)),
            TimerKey::ChunkPaxos(timer) => self.feed_paxos(chunkpaxos::Event::Timer(timer)),
            TimerKey::Membership(timer) => {
                self.sample_tasks();
                self.feed_membership(membership::Event::Timer(timer));
            }
            TimerKey::Election(timer) => self.feed_election(election::Event::Timer(timer)),
            TimerKey::History(timer) => self.on_history_timer(timer),
            TimerKey::Vitals => self.sample_vitals(),
            TimerKey::Repair => self.start_repair(),
        }
    }

    pub(super) fn on_later(&mut self, later: Later) {
        match later {
            Later::WriteRefused { object, serial } => {
                self.feed_paxos(chunkpaxos::Event::WriteRefused { object, serial });
            }
            Later::FenceRefused { slot } => self.feed_paxos(chunkpaxos::Event::FenceRefused { slot }),
            Later::NotScanned { slot, after } => {
                self.feed_paxos(chunkpaxos::Event::Scanned { slot, after, page: None });
            }
            Later::NotRead { object } => self.feed_paxos(chunkpaxos::Event::LoadFailed { object }),
            Later::Unanswered(asked) => self.on_task_answer(asked, None),
            Later::NotProbed { peer, via } => {
                self.feed_membership(membership::Event::Probed { peer, via, reached: false });
            }
        }
    }

    pub(super) fn on_durable(&mut self, durable: Durable) {
        match durable {
            Durable::ChunkPaxos { then: Some(then), .. } => {
                if self.repair.single_copy > Some(0) {
                    // It may have been the last that wanted a single copy, or one more.
                    self.timers.arm_no_later(TimerKey::Repair, self.now() + limits::RECOUNT_AFTER);
                }
                then.into_iter().for_each(|send| self.send_paxos(send));
            }
            Durable::ChunkPaxos { object, serial, then: None } => {
                self.feed_paxos(chunkpaxos::Event::WriteRefused { object, serial });
                // The others may have gone on without this record; nobody else brings it here.
                self.timers.arm_no_later(TimerKey::Repair, self.now() + limits::REPAIR_RETRY);
            }
            Durable::Fence { then: Some(then), .. } => {
                then.into_iter().for_each(|send| self.send_paxos(send));
            }
            Durable::Fence { slot, then: None } => {
                self.feed_paxos(chunkpaxos::Event::FenceRefused { slot });
            }
            Durable::Founding { then: Some(then) } => {
                then.into_iter().for_each(|send| self.send_founding(send))
            }
            Durable::Founding { then: None } => {
                self.fatal.get_or_insert(NodeError::Record("the founding could not be written".into()));
            }
        }
    }

    pub(super) fn on_done(&mut self, done: Done) {
        match done {
            Done::AddressPublished { first } => self.on_address_published(first),
            Done::Loaded { object, record: Ok(record) } => {
                self.feed_paxos(chunkpaxos::Event::Loaded { object, record });
            }
            Done::Loaded { object, record: Err(()) } => {
                self.feed_paxos(chunkpaxos::Event::LoadFailed { object });
            }
            Done::Scanned { slot, after, page } => {
                self.feed_paxos(chunkpaxos::Event::Scanned { slot, after, page });
            }
            Done::Verified { from, message } => {
                self.feed_paxos(chunkpaxos::Event::Message { from, message: *message });
            }
            done @ (Done::PayloadHere { .. } | Done::Worked { .. } | Done::ClaimsKept { .. }) => {
                self.on_work(done)
            }
            Done::BadProposal { reply } => self.refuse_proposal(reply),
            Done::Proposal { value, reply } => {
                let caller = Caller::Peer { reply, wants: serve::Wants::Commit };
                self.call_paxos(value.object, chunkpaxos::Command::Propose { value }, caller);
            }
        }
    }

    pub(super) fn on_call(&mut self, call: Call) {
        match call {
            Call::Paxos { object, command, reply } => self.call_paxos(object, command, Caller::Task(reply)),
            Call::LateAccept { object, accepted } => {
                self.feed_paxos(chunkpaxos::Event::LateAccept { object, accepted });
            }
            Call::RepairDone { lacking, single_copy, took, seen, running } => {
                self.repair.not_before = self.now() + repair::rest_after(took);
                self.repair.single_copy = Some(single_copy);
                // A member that came back meanwhile was perhaps not looked at: nothing is known then.
                self.repair.lacking = (!self.repair.runs.is_outdated()).then_some(lacking);
                let pause = self.repair.runs.ended(self.now(), lacking == 0, seen);
                self.timers.arm_no_later(TimerKey::Repair, self.now() + pause);
                drop(running);
            }
        }
    }

    fn on_rolled_back(&mut self, by: PeerId) {
        if let Err(error) = self.disk.mark_rolled_back() {
            tracing::error!("{error}");
        }
        self.fatal = Some(NodeError::RolledBack(by));
    }

    fn on_refused(&mut self, peer: Option<PeerId>, addr: &net::Multiaddr, refusal: Refusal, by_them: bool) {
        match refusal {
            // The others are right: going on would be a second node with this one's promises.
            Refusal::CopyOrOldBackup | Refusal::OtherIncarnation if by_them => {
                let members = self.cluster.as_ref().map(|c| c.founding.members.clone()).unwrap_or_default();
                if peer.is_some_and(|p| members.iter().any(|m| m.peer == p)) || self.cluster.is_none() {
                    self.fatal = Some(NodeError::Refused(format!(
                        "{refusal}; remove the home and start afresh with a new key if it is not the one \
                         that counts"
                    )));
                }
            }
            Refusal::StillConnected if by_them => self.on_another_process(peer),
            Refusal::StillConnected => self.note_foreign(peer, addr, |who| {
                format!("{who} was refused: another process with its identity runs; one of the two is a copy")
            }),
            Refusal::WrongKey => self.note_foreign(peer, addr, |who| {
                format!(
                    "{who} runs tintype with another cluster key: copy keys/cluster.key of one to the other \
                     if they belong together"
                )
            }),
            Refusal::OtherFounding => self.note_foreign(peer, addr, |who| {
                format!("{who} has this cluster key but belongs to another founding")
            }),
            Refusal::OtherIncarnation | Refusal::Emptied => self.note_foreign(peer, addr, |who| {
                format!(
                    "{who} was refused: its data/ was emptied under its old key, so it forgot its promises"
                )
            }),
            Refusal::CopyOrOldBackup | Refusal::RolledBack => self.note_foreign(peer, addr, |who| {
                format!("{who} was refused: its home is a copy or an old backup")
            }),
            _ => {}
        }
    }

    /// A killed predecessor is noticed within seconds; whoever still answers then is alive, and was first.
    fn on_another_process(&mut self, told_by: Option<PeerId>) {
        let Some(peer) = told_by.filter(|peer| self.is_member(peer)) else { return };
        let times = self.still_connected.entry(peer).or_default();
        *times += 1;
        match *times {
            limits::STILL_CONNECTED_MAX => {
                self.fatal = Some(NodeError::Twin { home: self.config.home.display().to_string() });
            }
            _ => self.say(format!(
                "{} says that another process with this home's identity is connected; trying again",
                self.name_of(&peer)
            )),
        }
    }

    /// Keeps a sentence about a machine that is not let in, for `status`; a new one is an event, too.
    fn note_foreign(
        &mut self,
        peer: Option<PeerId>,
        addr: &net::Multiaddr,
        sentence: impl FnOnce(&str) -> String,
    ) {
        let key = peer.map_or_else(|| addr.to_string(), |peer| peer.to_string());
        let who = peer.map_or_else(|| addr.to_string(), |peer| format!("{peer} at {addr}"));
        let sentence = sentence(&who);
        if self.foreign.len() >= limits::KNOWN_PEERS_MAX && !self.foreign.contains_key(&key) {
            return;
        }
        if self.foreign.insert(key, sentence.clone()).is_none() {
            self.say(sentence);
        }
    }

    pub(super) fn on_network(&mut self, event: net::Event) {
        match event {
            net::Event::Connected { peer, kind, .. } => self.on_connected(peer, kind),
            net::Event::Disconnected { peer } => self.on_disconnected(peer),
            net::Event::Request { peer, kind, token, bytes } => self.on_request(peer, kind, token, &bytes),
            net::Event::Response { request, bytes, .. } => {
                if let Some(asked) = self.tasks.asked.remove(&request) {
                    return self.on_task_answer(asked, Response::decode(&bytes).ok());
                }
                let reached = match Response::decode(&bytes) {
                    Ok(Response::Reached(reached)) => reached,
                    Ok(Response::Done) => true,
                    Ok(Response::Peers(peers)) => return self.learn_nodes(peers),
                    _ => false,
                };
                self.on_probe_answer(request, reached);
            }
            net::Event::RequestFailed { request, .. } => match self.tasks.asked.remove(&request) {
                Some(asked) => self.on_task_answer(asked, None),
                None => self.on_probe_answer(request, false),
            },
            net::Event::History { source, bytes } => self.on_gossiped_record(source, &bytes),
            net::Event::LaneFrame { peer, bytes } => self.on_lane_frame(peer, &bytes),
            net::Event::Heartbeat { source, bytes } => match membership::Message::decode(&bytes) {
                Ok(message) => {
                    self.note_promises(&source, Some(message.boot), message.promises);
                    let (claim, digest, before) = (message.claim, message.tasks_digest, self.ignored());
                    self.feed_membership(membership::Event::Heard { author: source, message });
                    if self.ignored() == before {
                        self.on_task_news(source, claim, digest);
                    }
                }
                Err(error) => self.on_malformed(source, &error.to_string()),
            },
            net::Event::Listening { .. } | net::Event::NotListening { .. } => self.on_listening(),
            net::Event::ListenerFailed { reason } => {
                self.fatal = Some(NodeError::Transport(format!("it cannot listen any more: {reason}")));
            }
            net::Event::Foreign { peer, addr, refusal, by_them } => {
                self.on_refused(peer, &addr, refusal, by_them);
            }
            net::Event::Admitted { peer, hello, .. } => {
                self.foreign.remove(&peer.to_string());
                self.still_connected.remove(&peer);
                if hello.kind == Kind::Member {
                    self.note_name(peer, &hello.name);
                }
                if hello.kind == Kind::Member && self.is_member(&peer) {
                    self.keep_marks_of_members();
                    // It may have been restarted so soon that it was never gone.
                    self.repair_soon();
                }
            }
            net::Event::RolledBack { peer, .. } => self.on_rolled_back(peer),
            net::Event::Malformed { peer, what } => self.on_malformed(peer, what),
            net::Event::Discovered { .. } => {}
        }
    }

    fn on_connected(&mut self, peer: PeerId, kind: Kind) {
        if kind == Kind::Member {
            self.feed_founding(founding::Event::Connected { peer });
            self.on_member_connected(peer);
        }
    }

    fn on_member_connected(&mut self, peer: PeerId) {
        if self.is_member(&peer) {
            self.feed_paxos(chunkpaxos::Event::Reachable { peer, reachable: true });
            self.feed_membership(membership::Event::SignOfLife { peer });
            self.feed_history(history::Event::Differs { peer });
            self.repair_soon();
            self.tell_ready();
        }
    }

    /// Somebody is here, this node perhaps, who may lack something: how much is not known until the next run
    /// has ended.
    pub(super) fn repair_soon(&mut self) {
        self.repair.lacking = None;
        self.repair.runs.quicken();
        self.timers.arm_no_later(TimerKey::Repair, self.now() + limits::REPAIR_AFTER_CONNECT);
    }

    fn on_disconnected(&mut self, peer: PeerId) {
        self.list_nonces.remove(&peer);
        self.feed_founding(founding::Event::Disconnected { peer });
        if self.is_member(&peer) {
            self.feed_paxos(chunkpaxos::Event::Reachable { peer, reachable: false });
        }
    }

    /// Before the founding everybody asks everybody whom they know: a bootstrap list may name one node only.
    pub(super) fn ask_for_nodes(&mut self) {
        let nodes: Vec<PeerId> = self.connected_nodes().into_iter().map(|(peer, _)| peer).collect();
        for peer in nodes {
            // Asked again in a second.
            let _ = self.net.request(peer, Request::Peers.encode(), limits::RPC_TIMEOUT.into());
        }
    }

    /// Nodes that another one is connected with are worth a try; admission decides as always.
    fn learn_nodes(&mut self, peers: Vec<(PeerId, String)>) {
        for (peer, addr) in peers.into_iter().take(limits::MEMBERS_MAX) {
            if peer != self.me
                && let Ok(addr) = addr.parse()
            {
                self.net.remember(peer, addr);
            }
        }
    }

    /// Connected nodes and where they are. One that called from elsewhere than it listens is tried in vain.
    pub(super) fn connected_nodes(&self) -> Vec<(PeerId, String)> {
        let peers = self.net.peers();
        let nodes = peers.iter().filter(|(_, info)| info.kind == Kind::Member);
        nodes.take(limits::MEMBERS_MAX).map(|(peer, info)| (*peer, info.addr.to_string())).collect()
    }

    fn on_probe_answer(&mut self, request: net::RequestNumber, reached: bool) {
        if let Some((peer, via)) = self.probes.remove(&request) {
            self.feed_membership(membership::Event::Probed { peer, via, reached });
        }
    }

    pub(super) fn on_malformed(&mut self, peer: PeerId, what: &str) {
        self.counters.malformed.bump();
        tracing::debug!(%peer, "malformed: {what}");
    }

    /// A frame with a register is checked beside the loop before the machine sees it.
    fn on_lane_frame(&mut self, peer: PeerId, bytes: &[u8]) {
        if !self.is_member(&peer) {
            self.on_malformed(peer, "a lane frame from no member");
            return;
        }
        let message = match chunkpaxos::Message::<RawRegister>::decode(bytes) {
            Ok((promises, message)) => {
                self.note_promises(&peer, None, promises);
                message
            }
            Err(error) => return self.on_malformed(peer, &error.to_string()),
        };
        if message.register().is_none() {
            let plain = message.try_map(|_: RawRegister| Err(()));
            let message = plain.expect("a message without a register maps without one");
            self.feed_paxos(chunkpaxos::Event::Message { from: peer, message });
            return;
        }
        // No room: the frame is lost, which the protocol bears.
        drop(self.crew.check(Unchecked::Message { from: peer, message }));
    }

    fn note_promises(&self, peer: &PeerId, boot: Option<u64>, promises: u64) {
        let members = self.cluster.iter().flat_map(|c| &c.founding.members);
        if let Some(member) = members.into_iter().find(|m| m.peer == *peer) {
            self.gate.note_promises(peer, &member.incarnation, boot, promises);
        }
    }

    fn start_repair(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        if self.now() < self.repair.not_before {
            return self.timers.arm(TimerKey::Repair, self.repair.not_before);
        }
        let Some(running) = self.bodies.try_begin_repair() else {
            self.timers.arm(TimerKey::Repair, self.now() + limits::REPAIR_RETRY);
            return;
        };
        let seen = self.repair.runs.begin(self.now());
        let views = HashSlot::all().map(|slot| (slot, cluster.paxos.view(slot)));
        let mine = views.filter(|(_, view)| view.keepers.holds(&self.me));
        let run = repair::Repair {
            me: self.me,
            members: cluster.members.clone(),
            slots: mine.map(|(slot, view)| (slot, view.clone())).collect(),
            disk: self.disk.clone(),
            net: self.handle.clone(),
            calls: self.calls_in.clone(),
            bodies: self.bodies.clone(),
            seen,
            running,
        };
        self.timers.arm(TimerKey::Repair, self.now() + limits::REPAIR_EVERY);
        tokio::spawn(run.run());
    }

    /// Heartbeats that membership has thrown away.
    fn ignored(&self) -> u64 {
        self.cluster.as_ref().map_or(0, |cluster| cluster.membership.ignored())
    }
}

/// Checks a register's bytes, id and signature.
pub(super) fn verify(raw: &RawRegister) -> Result<VerifiedRegister, ()> {
    seal::register::verify(&raw.0).map_err(|error| tracing::debug!("a register was refused: {error}"))
}
