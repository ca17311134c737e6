//! Election and history on this node: what goes into the two machines, and what they want done.
//!
//! It decides nothing. Pictures pass by it (`workbench`), and nothing of them is in any event here.

use std::collections::{BTreeMap, VecDeque};

use serde_bytes::ByteBuf;

use super::{
    Done,
    event_loop::{EventLoop, Later},
    events::unix_ms,
    serve::Reply,
    timers::TimerKey,
    vitals::processors,
};
use crate::{
    disk::{MetaKey, WriteBatch},
    model::{
        Millis, PeerId, codec, limits,
        member::{Epoch, Founding},
        rpc::{ElectionInfo, NodeState, Request, Response, SubmitRequest, TaskPage, TaskStanding},
        task::{Claim, Rank, Standing, Submitted, TaskId, TaskKind, TaskRecord, Verdict},
    },
    net::{RequestNumber, Topic},
    proto::{
        election::{self, Election, Fact},
        history::{self, Answer, CallId, History, Means, Moved, Wish, Worker},
    },
    work::Order,
};

/// What was asked of another member, and its answer is waited for.
pub(super) enum Asked {
    /// Whether this node may be coordinator.
    Election { to: PeerId },
    /// Told; whether it came there matters only to a node that is about to stop.
    Told,
    /// A place.
    Reserve { to: PeerId, task: TaskId, rank: Rank },
    /// All tasks that it knows, behind this one.
    Exchange { with: PeerId, after: Option<TaskId> },
}

/// What the loop keeps for the two machines.
#[derive(Default)]
pub(super) struct Tasks {
    pub(super) asked: BTreeMap<RequestNumber, Asked>,
    elections: BTreeMap<u64, Reply>,
    callers: BTreeMap<CallId, TaskCaller>,
    next_call: u64,
    /// When this node heard of each claim, for people.
    heard_of: VecDeque<(Claim, u64)>,
    /// What it said last about who is in office.
    said: Option<(Claim, bool)>,
    /// It is to stop, and waits no longer than this.
    leaving_until: Option<Millis>,
}

/// Who waits for an answer of the history.
struct TaskCaller {
    reply: Reply,
    /// A submission that may go on to the coordinator, if this node is not it.
    onward: Option<Request>,
}

/// A record on the wire of gossip.
type Gossiped = (u64, TaskRecord);
const GOSSIP_VERSION: u64 = 1;

impl EventLoop {
    // ---- the machines ----

    fn election(&mut self) -> Option<&mut Election> {
        self.cluster.as_mut().map(|cluster| &mut cluster.election)
    }

    fn history(&mut self) -> Option<&mut History> {
        self.cluster.as_mut().map(|cluster| &mut cluster.history)
    }

    pub(super) fn feed_election(&mut self, event: election::Event) {
        let (now, mut out) = (self.now(), crate::proto::Outbox::new());
        let Some(election) = self.election() else { return };
        election.handle(now, event, &mut out);
        out.drain().for_each(|action| self.execute_election(action));
    }

    pub(super) fn feed_history(&mut self, event: history::Event) {
        let (now, mut out) = (self.now(), crate::proto::Outbox::new());
        let Some(history) = self.history() else { return };
        history.handle(now, event, &mut out);
        out.drain().for_each(|action| self.execute_history(action));
    }

    fn execute_election(&mut self, action: election::Action) {
        use election::Action;
        match action {
            Action::Ask { to, message } => {
                self.ask_member(to, message.encode(), limits::ELECTION_ANSWER, Asked::Election { to });
            }
            Action::Tell { to, message } => {
                // Nobody waits for the answer but a node that is to stop, and that shall not wait long.
                self.ask_member(to, message.encode(), limits::ELECTION_ANSWER, Asked::Told);
            }
            Action::Answer { call, message } => {
                if let Some(reply) = self.tasks.elections.remove(&call) {
                    let message = ByteBuf::from(message.encode());
                    self.respond(reply, Response::Election { message });
                }
            }
            Action::Keep { counter } => self.keep_claims(counter),
            Action::Arm { at, timer } => self.timers.arm(TimerKey::Election(timer), at),
            Action::Publicise(Fact::Office { claim, mine }) => self.on_office(claim, mine),
            Action::Publicise(Fact::Elected(record)) => self.note_election(record.claim),
        }
    }

    /// The two machines of a founding that is new to this start.
    pub(super) fn machines_of_tasks(&self, founding: &Founding) -> (Election, History) {
        let election = Election::new(election::Config {
            me: self.me,
            founding: founding.clone(),
            epoch: Epoch::FOUNDING,
            boot: self.boot.mark.boot,
            kept: self.claims_kept(),
            seed: rand::random(),
        });
        let slots = self.config.slots.unwrap_or_else(processors).max(1);
        let means = Means { slots, queue: slots, kinds: Order::KINDS.map(|k| TaskKind(k.into())).to_vec() };
        let history = History::new(history::Config { me: self.me, founding: founding.clone(), means });
        (election, history)
    }

    /// How far the claims of earlier starts may have gone.
    fn claims_kept(&self) -> u64 {
        // A disk that cannot be read ends the node elsewhere.
        let bytes = self.disk.meta(MetaKey::Claims).ok().flatten();
        bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
    }

    fn keep_claims(&self, counter: u64) {
        let mut batch = WriteBatch::new();
        batch.meta(MetaKey::Claims, Some(counter.to_be_bytes().to_vec()));
        let (disk, done) = (self.disk.clone(), self.done_in.clone());
        tokio::spawn(async move {
            match disk.write(batch).await {
                // A loop that has ended needs no office.
                Ok(_) => drop(done.send(Done::ClaimsKept { counter }).await),
                // It asks again; until then others may be coordinator.
                Err(error) => tracing::debug!("how far claims may go was not written down: {error}"),
            }
        });
    }

    fn execute_history(&mut self, action: history::Action) {
        use history::Action;
        match action {
            Action::Answer { call, answer } => self.answer_task(call, answer),
            Action::Reserve { to, record } => {
                let (task, rank) = (record.task, record.rank);
                let request = Request::Reserve { record }.encode();
                let asked = self.net.request(to, request, limits::TASK_RESERVE_PATIENCE.into());
                self.note_asked(asked, Asked::Reserve { to, task, rank });
            }
            Action::Publish { record } => {
                let gossiped: Gossiped = (GOSSIP_VERSION, record);
                // Nobody hears it, or queues are full: they ask when they see that they know less.
                let _ = self.net.publish(Topic::History, codec::encode(&gossiped));
            }
            Action::Exchange { with } => self.ask_for_tasks(with, None),
            Action::Expect { record } => self.workbench.expect(&record),
            Action::Run { task, rank } => self.workbench.run(task, rank),
            Action::Drop { task } => self.workbench.drop_task(&task),
            Action::Outranked { counter } => self.feed_election(election::Event::Above { counter }),
            Action::Arm { at, timer } => self.timers.arm(TimerKey::History(timer), at),
            Action::Publicise(moved) => self.on_moved(&moved),
        }
    }

    // ---- questions to other members ----

    fn ask_member(&mut self, to: PeerId, message: Vec<u8>, patience: Millis, asked: Asked) {
        let request = Request::Election { message: ByteBuf::from(message) };
        let number = self.net.request(to, request.encode(), patience.into());
        self.note_asked(number, asked);
    }

    fn ask_for_tasks(&mut self, with: PeerId, after: Option<TaskId>) {
        let request = Request::Tasks { after };
        let number = self.net.request(with, request.encode(), limits::RPC_TIMEOUT.into());
        self.note_asked(number, Asked::Exchange { with, after });
    }

    fn note_asked(&mut self, number: Result<RequestNumber, crate::net::Busy>, asked: Asked) {
        match number {
            Ok(number) => drop(self.tasks.asked.insert(number, asked)),
            // Not from within the machine that asks.
            Err(_) => self.later.push(Later::Unanswered(asked)),
        }
    }

    /// What came of a question; none = no answer.
    pub(super) fn on_task_answer(&mut self, asked: Asked, answer: Option<Response>) {
        match (asked, answer) {
            (Asked::Election { to }, answer) => {
                let answer = match answer {
                    Some(Response::Election { message }) => election::Message::decode(&message).ok(),
                    _ => None,
                };
                self.feed_election(election::Event::Answered { from: to, answer });
            }
            (Asked::Reserve { to, task, rank }, answer) => {
                let verdict = match answer {
                    Some(Response::Verdict(verdict)) => Some(verdict),
                    // One that is older than all tasks refuses what it cannot read.
                    Some(Response::Refused(_)) => Some(Verdict::UnknownKind),
                    _ => None,
                };
                self.feed_history(history::Event::Reserved { from: to, task, rank, verdict });
            }
            (Asked::Exchange { with, after }, Some(Response::Tasks(page))) => {
                for record in page.records {
                    self.feed_history(history::Event::Heard { record });
                }
                // One that goes round in circles is not asked for ever.
                if page.next > after {
                    self.ask_for_tasks(with, page.next);
                }
            }
            (Asked::Told | Asked::Exchange { .. }, _) => {}
        }
    }

    // ---- what members say ----

    pub(super) fn on_election_message(&mut self, from: PeerId, reply: Reply, message: &[u8]) {
        let message = match election::Message::decode(message) {
            Ok(message) => message,
            Err(error) => {
                self.on_malformed(from, &error.to_string());
                return self.respond(reply, Response::Refused(format!("malformed: {error}")));
            }
        };
        if !matches!(message, election::Message::Election { .. }) {
            self.respond(reply, Response::Done);
            return self.feed_election(election::Event::Told { from, message });
        }
        self.tasks.next_call += 1;
        let call = self.tasks.next_call;
        self.tasks.elections.insert(call, reply);
        self.feed_election(election::Event::Asked { from, call, message });
    }

    pub(super) fn on_gossiped_record(&mut self, source: PeerId, bytes: &[u8]) {
        match codec::decode::<Gossiped>(bytes, limits::GOSSIP_BYTES_MAX) {
            Ok((GOSSIP_VERSION, record)) => self.feed_history(history::Event::Heard { record }),
            Ok(_) => self.on_malformed(source, "a task record of another version"),
            Err(error) => self.on_malformed(source, &error.to_string()),
        }
    }

    /// A heartbeat that membership has taken in: the claim and the tasks that it tells of.
    pub(super) fn on_task_news(&mut self, from: PeerId, claim: Option<Claim>, digest: u64) {
        self.feed_election(election::Event::Heard { from, claim });
        if self.history().is_some_and(|history| history.digest() != digest) {
            self.feed_history(history::Event::Differs { peer: from });
        }
    }

    /// What the next heartbeat tells of the two machines.
    pub(super) fn task_news(&mut self) -> (Option<Claim>, u64) {
        let claim = self.election().and_then(|election| election.claim());
        (claim, self.history().map_or(0, History::digest))
    }

    /// Hands both machines who is here, after each heartbeat and when somebody dies.
    pub(super) fn tell_who_is_here(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        let mut workers = BTreeMap::new();
        for (peer, seen) in cluster.membership.view() {
            let vitals = seen.last.as_ref().map(|last| last.vitals).unwrap_or_default();
            let worker = Worker {
                is_alive: seen.state == NodeState::Alive && seen.last.is_some(),
                is_dead: seen.state == NodeState::Dead,
                load_centi: vitals.load_centi,
                tasks: vitals.tasks,
                slots: vitals.slots,
                places: vitals.places,
            };
            workers.insert(*peer, worker);
        }
        let alive = workers.iter().filter(|(_, worker)| worker.is_alive);
        let alive = alive.map(|(peer, worker)| (*peer, worker.load_centi)).collect();
        self.feed_election(election::Event::View { alive });
        self.feed_history(history::Event::Workers(workers));
    }

    pub(super) fn on_member_dead(&mut self, peer: PeerId) {
        self.feed_election(election::Event::Dead { peer });
        self.tell_who_is_here();
    }

    // ---- what clients ask ----

    fn new_task_call(&mut self, reply: Reply, onward: Option<Request>) -> Option<CallId> {
        if self.tasks.callers.len() >= limits::NODE_CALLS_MAX {
            self.respond(reply, Response::Busy);
            return None;
        }
        self.tasks.next_call += 1;
        let call = CallId(self.tasks.next_call);
        self.tasks.callers.insert(call, TaskCaller { reply, onward });
        Some(call)
    }

    /// `may_go_on`: to the coordinator, if this node is not it; the client may not reach that one.
    pub(super) fn on_submit(
        &mut self,
        client: PeerId,
        reply: Reply,
        request: SubmitRequest,
        may_go_on: bool,
    ) {
        let onward = may_go_on.then(|| Request::SubmitFor { client, submit: request.clone() });
        let SubmitRequest { number, kind, payload_bytes, above, avoid } = request;
        let is_sane = kind.is_sane()
            && (1..=limits::TASK_PAYLOAD_BYTES_MAX).contains(&payload_bytes)
            && avoid.len() <= limits::TASK_AVOID_MAX;
        if !is_sane {
            return self.respond(reply, Response::Refused("that is no task".into()));
        }
        let Some(call) = self.new_task_call(reply, onward) else { return };
        let wish = Wish { task: TaskId { client, number }, kind, payload_bytes, above, avoid };
        self.feed_history(history::Event::Submit { call, wish });
    }

    pub(super) fn on_reserve(&mut self, reply: Reply, record: TaskRecord) {
        let Some(call) = self.new_task_call(reply, None) else { return };
        self.feed_history(history::Event::Reserve { call, record });
    }

    pub(super) fn on_poll(&mut self, task: TaskId, reply: Reply) {
        let Some(call) = self.new_task_call(reply, None) else { return };
        self.feed_history(history::Event::Poll { call, task });
    }

    fn answer_task(&mut self, call: CallId, answer: Answer) {
        let Some(TaskCaller { reply, onward }) = self.tasks.callers.remove(&call) else { return };
        let response = match answer {
            Answer::Submitted(Submitted::NotCoordinator { .. }) => {
                let coordinator = self.election().and_then(|e| e.coordinator()).map(|(peer, _)| peer);
                let coordinator = coordinator.filter(|peer| *peer != self.me);
                if let (Some(coordinator), Some(onward)) = (coordinator, onward) {
                    return self.pass_on(coordinator, reply, &onward);
                }
                Response::Submitted(Submitted::NotCoordinator { coordinator })
            }
            Answer::Submitted(submitted) => Response::Submitted(submitted),
            Answer::Verdict(verdict) => Response::Verdict(verdict),
            Answer::Standing(standing) => Response::Standing(self.with_pieces(standing)),
        };
        self.respond(reply, response);
    }

    /// Asks the coordinator on behalf of a client; if that does not answer, the client may try it itself.
    fn pass_on(&mut self, coordinator: PeerId, reply: Reply, onward: &Request) {
        let (net, bytes) = (self.handle.clone(), onward.encode());
        self.in_task(reply, async move {
            let answer = net.request(coordinator, bytes, limits::TASK_ONWARD_PATIENCE.into()).await;
            match answer.ok().and_then(|bytes| Response::decode(&bytes).ok()) {
                Some(response @ Response::Submitted(_)) => response,
                _ => Response::Submitted(Submitted::NotCoordinator { coordinator: Some(coordinator) }),
            }
        });
    }

    fn with_pieces(&self, standing: Standing) -> TaskStanding {
        let task = standing.record.as_ref().filter(|_| standing.place.is_some()).map(|record| record.task);
        let (missing, pieces) = task.map(|task| self.workbench.pieces(&task)).unwrap_or_default();
        TaskStanding { standing, missing, pieces }
    }

    pub(super) fn task_page(&mut self, after: Option<TaskId>) -> Response {
        let (records, next) = self.history().map(|history| history.page(after)).unwrap_or_default();
        Response::Tasks(TaskPage { records, next })
    }

    pub(super) fn elections(&mut self) -> Response {
        let heard_of = self.tasks.heard_of.clone();
        let me = &*self;
        let Some(cluster) = &me.cluster else { return Response::Elections(Vec::new()) };
        let info = |record: &election::Record| ElectionInfo {
            unix_ms: heard_of.iter().rev().find(|(claim, _)| *claim == record.claim).map_or(0, |(_, at)| *at),
            coordinator: record.coordinator,
            counter: record.claim.counter,
            why: record.sentence(|peer| me.name_of(peer)),
            scores: record.loads.clone(),
        };
        Response::Elections(cluster.election.records().map(info).collect())
    }

    // ---- work ----

    pub(super) fn on_work(&mut self, done: Done) {
        match done {
            Done::PayloadHere { task, rank } => self.feed_history(history::Event::Received { task, rank }),
            Done::Worked { task, rank, answer_bytes } => {
                self.feed_history(history::Event::Ran { task, rank, answer_bytes });
            }
            Done::ClaimsKept { counter } => self.feed_election(election::Event::Kept { counter }),
            _ => {}
        }
    }

    pub(super) fn on_history_timer(&mut self, timer: history::Timer) {
        for task in self.workbench.take_touched() {
            self.feed_history(history::Event::Sign { task });
        }
        self.feed_history(history::Event::Timer(timer));
    }

    // ---- leaving ----

    /// This node is to stop: others take over what it has not begun, and its office.
    pub(super) fn leave(&mut self) {
        if self.tasks.leaving_until.is_some() {
            return;
        }
        self.tasks.leaving_until = Some(self.now() + limits::TASK_LEAVE_PATIENCE);
        self.feed_election(election::Event::Leave);
        self.feed_history(history::Event::Leave);
        if !self.has_left() {
            self.say("finishing the tasks that are in hand; once more Ctrl-C stops at once");
        }
    }

    /// Whether nobody waits for this node any more, or for too long.
    pub(super) fn has_left(&self) -> bool {
        let Some(until) = self.tasks.leaving_until else { return false };
        let is_idle = self.cluster.as_ref().is_none_or(|cluster| cluster.history.is_idle());
        let has_told = !self.tasks.asked.values().any(|asked| matches!(asked, Asked::Told));
        (is_idle && has_told) || self.now() >= until
    }

    // ---- for people ----

    fn on_office(&mut self, claim: Option<Claim>, mine: bool) {
        let own = claim.filter(|_| mine);
        self.feed_history(history::Event::Office { mine: own, greatest: claim });
        if let Some(claim) = claim {
            self.note_election(claim);
        }
        let said = claim.map(|claim| (claim, mine));
        if self.tasks.said == said {
            return;
        }
        self.tasks.said = said;
        let coordinator = self.election().and_then(|election| election.coordinator());
        match coordinator {
            Some((peer, _)) => {
                let name = self.name_of(&peer);
                self.events.say(format!("{name} is the coordinator"));
            }
            None => self.events.say("there is no coordinator"),
        }
    }

    fn note_election(&mut self, claim: Claim) {
        if self.tasks.heard_of.iter().any(|(known, _)| *known == claim) {
            return;
        }
        if self.tasks.heard_of.len() >= limits::ELECTIONS_KEPT {
            self.tasks.heard_of.pop_front();
        }
        self.tasks.heard_of.push_back((claim, unix_ms()));
    }

    fn on_moved(&mut self, moved: &Moved) {
        let Some(cluster) = &self.cluster else { return };
        let name = |number| {
            let member = cluster.founding.member(number);
            member.map_or_else(|| "nobody".to_owned(), |member| self.name_of(&member.peer))
        };
        let text = format!("{} works on a task that {} had", name(moved.to), name(moved.from));
        self.events.say(text);
    }
}
