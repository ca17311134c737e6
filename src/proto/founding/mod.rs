//! The founding: how N fresh nodes agree, once and for ever, that they are the cluster.
//!
//! A vote is durable before it is said and is taken back only by its proposer's durable abort; all N votes
//! make the founding. So there are never two of one set of votes, whatever is lost, repeated or restarted.

#[cfg(test)]
mod essence;
#[cfg(test)]
#[allow(clippy::disallowed_types)]
mod exhaustive;
mod message;
mod record;
#[cfg(test)]
mod schedules;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use self::{
    message::{Message, Standing},
    record::FoundingRecord,
    status::{Status, Waiting},
};
use crate::{
    model::{
        FoundingId, Incarnation, Millis, PeerId, limits,
        member::{Founding, Member},
    },
    proto::Outbox,
};

/// What a machine is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub me: PeerId,
    /// Its disk.
    pub incarnation: Incarnation,
    /// How many nodes make the cluster; 1 to `limits::MEMBERS_MAX`.
    pub expect: usize,
    /// Whether the cluster key was there before this home's first start: then others may have it.
    pub key_was_there: bool,
    /// What disk has; none at the first start.
    pub record: Option<FoundingRecord>,
    /// Random bytes of this process, from which founding ids are made.
    pub seed: [u8; 32],
    /// [`Variant::Right`] outside of tests.
    pub variant: Variant,
}

/// The right protocol, or one that the tests must find wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// What DESIGN says: the only one that a node uses.
    #[default]
    Right,
    /// Votes and aborts are said before they are durable.
    SpeakBeforePersisting,
    /// A voter takes its vote back by itself when it has waited long.
    VoterTakesBack,
    /// A proposer aborts for a silent node even after it has written the founding.
    AbortAfterFounding,
}

/// What happens to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node listens: begin. Handed in once, first.
    Start,
    /// An admitted node (kind member) is connected.
    Connected {
        /// Who.
        peer: PeerId,
    },
    /// The last connection to it is gone.
    Disconnected {
        /// Who.
        peer: PeerId,
    },
    /// A message from an admitted node, or one sent to oneself behind a durable write.
    Message {
        /// The authenticated sender.
        from: PeerId,
        /// What it says.
        message: Message,
    },
    /// An armed timer is due.
    Timer(Timer),
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send it, or lose it.
    Send(Send),
    /// Make the record durable (it is rare, and must not be refused: a node that cannot write it must
    /// stop), then do the sends.
    Write {
        /// Replaces the one on disk.
        record: FoundingRecord,
        /// What may be said once it is durable; those to oneself come back as events.
        then: Vec<Send>,
    },
    /// Hand in this timer at or after `at`; replaces its earlier arming.
    Arm {
        /// When.
        at: Millis,
        /// Which.
        timer: Timer,
    },
    /// How it stands changed. [`Status::Ready`] is said only once the founding is durable here.
    Publicise(Status),
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// To whom.
    pub to: PeerId,
    /// What.
    pub message: Message,
}

/// The machine's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Once a second: announce, ask, repeat, give up.
    Tick,
}

/// One node's part in the founding.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct FoundingMachine {
    config: Config,
    /// The newest record, which may still be on its way to disk.
    record: FoundingRecord,
    /// Records on their way to disk. Meanwhile whatever arrives is lost: it comes again.
    in_flight: VecDeque<FoundingRecord>,
    /// The founding is durable here.
    ready: bool,
    peers: BTreeMap<PeerId, Peer>,
    /// Who has voted for this node's own proposal.
    votes: BTreeSet<PeerId>,
    began: Millis,
    /// Since when the vote of the record stands, in this process.
    voted_at: Millis,
    status: Option<Status>,
    ids: blake3::OutputReader,
}

/// What is known of another node.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    connected: bool,
    heard: Option<Heard>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Millis,
    incarnation: Incarnation,
    expect: u64,
    standing: Standing,
}

impl FoundingMachine {
    /// Takes up where the record on disk left off.
    pub fn new(config: Config) -> Self {
        let record = config.record.clone().unwrap_or_default();
        let ids = blake3::Hasher::new_keyed(&config.seed).finalize_xof();
        Self {
            ready: record.founding.is_some(),
            record,
            in_flight: VecDeque::new(),
            peers: BTreeMap::new(),
            votes: BTreeSet::new(),
            began: Millis(0),
            voted_at: Millis(0),
            status: None,
            ids,
            config,
        }
    }

    /// Takes one event in and says what to do.
    pub fn handle(&mut self, now: Millis, event: Event, out: &mut Outbox<Action>) {
        match event {
            Event::Start => {
                (self.began, self.voted_at) = (now, now);
                self.on_tick(now, out);
            }
            Event::Connected { peer } => {
                if let Some(known) = self.peer(peer) {
                    known.connected = true;
                    self.announce_to(&[peer], out);
                }
            }
            Event::Disconnected { peer } => {
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.connected = false;
                }
            }
            Event::Message { from, .. } if from == self.config.me => self.on_durable(),
            Event::Message { from, message } => self.on_message(from, message, now, out),
            Event::Timer(Timer::Tick) => self.on_tick(now, out),
        }
        self.publicise(now, out);
    }

    /// The founding, once it is durable here.
    pub fn founding(&self) -> Option<&Founding> {
        self.record.founding.as_ref().filter(|_| self.ready)
    }

    fn on_durable(&mut self) {
        if let Some(durable) = self.in_flight.pop_front() {
            self.ready = durable.founding.is_some();
        }
    }

    fn on_tick(&mut self, now: Millis, out: &mut Outbox<Action>) {
        out.push(Action::Arm { at: now + limits::FOUNDING_TICK, timer: Timer::Tick });
        if !self.in_flight.is_empty() || (self.ready && self.config.variant != Variant::AbortAfterFounding) {
            return;
        }
        if self.takes_its_vote_back(now) {
            return self.write(FoundingRecord::default(), Vec::new(), out);
        }
        let connected: Vec<PeerId> =
            self.peers.iter().filter(|(_, p)| p.connected).map(|(id, _)| *id).collect();
        self.announce_to(&connected, out);
        match self.my_proposal().cloned() {
            Some(proposal) if self.someone_is_silent(&proposal, now) => self.abort(proposal, None, out),
            Some(proposal) => self.propose_again(&proposal, out),
            None => self.consider(now, out),
        }
    }

    // ---- messages ----

    fn on_message(&mut self, from: PeerId, message: Message, now: Millis, out: &mut Outbox<Action>) {
        if let Message::Announce { incarnation, expect, standing } = &message
            && let Some(peer) = self.peer(from)
        {
            let (incarnation, expect, standing) = (*incarnation, *expect, *standing);
            peer.heard = Some(Heard { at: now, incarnation, expect, standing });
        }
        if !self.in_flight.is_empty() {
            return;
        }
        match message {
            Message::Announce { incarnation, standing, .. } => {
                self.on_announce(from, incarnation, standing, now, out);
            }
            Message::Propose { founding } => {
                if let Ok(founding) = Founding::decode(&founding) {
                    self.on_propose(from, founding, now, out);
                }
            }
            Message::Abort { id } => self.on_abort(from, id, out),
            Message::Founded { founding } => {
                if let Ok(founding) = Founding::decode(&founding) {
                    self.on_founded(from, founding, out);
                }
            }
        }
    }

    fn on_announce(
        &mut self,
        from: PeerId,
        incarnation: Incarnation,
        standing: Standing,
        now: Millis,
        out: &mut Outbox<Action>,
    ) {
        if let Some(founding) = &self.record.founding {
            if !matches!(standing, Standing::Founded { .. }) {
                let message = Message::Founded { founding: founding.encode() };
                out.push(Action::Send(Send { to: from, message }));
            }
            return;
        }
        if let Standing::Voted { id, proposer, incarnation: whose } = standing
            && proposer == self.config.me
            && whose == self.config.incarnation
            && self.my_proposal().is_none_or(|mine| mine.id != id)
        {
            // Every id that this node ever spoke was durable before; one that is not here now was aborted.
            return out.push(Action::Send(Send { to: from, message: Message::Abort { id } }));
        }
        match self.my_proposal().cloned() {
            Some(mine) => self.on_standing_of_listed(mine, Member { peer: from, incarnation }, standing, out),
            None if self.record.vote.is_none() => self.on_standing_while_pristine(standing, now, out),
            None => {}
        }
    }

    fn on_standing_of_listed(
        &mut self,
        mine: Founding,
        who: Member,
        standing: Standing,
        out: &mut Outbox<Action>,
    ) {
        if !mine.members.contains(&who) {
            return;
        }
        match standing {
            Standing::Voted { id, .. } if id == mine.id => {
                self.votes.insert(who.peer);
                if mine.members.iter().all(|m| self.votes.contains(&m.peer) || m.peer == self.config.me) {
                    self.found(mine, out);
                }
            }
            Standing::Voted { proposer, .. } if proposer < self.config.me => self.abort(mine, None, out),
            Standing::Founded { id } | Standing::LeftOut { id } if id != mine.id => {
                self.abort(mine, None, out)
            }
            _ => {}
        }
    }

    /// Who has promised nothing is in no founding, so any that it hears of has left it out.
    fn on_standing_while_pristine(&mut self, standing: Standing, now: Millis, out: &mut Outbox<Action>) {
        match standing {
            Standing::Founded { id } if self.record.left_out.is_none() => {
                self.write(
                    FoundingRecord { left_out: Some(id), ..FoundingRecord::default() },
                    Vec::new(),
                    out,
                );
            }
            _ => self.consider(now, out),
        }
    }

    fn on_propose(&mut self, from: PeerId, proposal: Founding, now: Millis, out: &mut Outbox<Action>) {
        let me = Member { peer: self.config.me, incarnation: self.config.incarnation };
        let fits = proposal.members[0].peer == from
            && proposal.members.contains(&me)
            && proposal.members.len() == self.config.expect;
        if !fits {
            return;
        }
        let free = self.record == FoundingRecord::default();
        if !free {
            return match &self.record.founding {
                Some(founding) => {
                    let message = Message::Founded { founding: founding.encode() };
                    out.push(Action::Send(Send { to: from, message }));
                }
                None => self.announce_to(&[from], out),
            };
        }
        self.voted_at = now;
        self.write(FoundingRecord { vote: Some(proposal), ..FoundingRecord::default() }, vec![from], out);
    }

    fn on_abort(&mut self, from: PeerId, id: FoundingId, out: &mut Outbox<Action>) {
        let Some(vote) = self.record.vote.as_ref().filter(|_| self.record.founding.is_none()) else { return };
        if vote.id == id && vote.members[0].peer == from {
            let connected = self.peers.iter().filter(|(_, p)| p.connected).map(|(id, _)| *id).collect();
            self.write(FoundingRecord { vote: None, ..self.record.clone() }, connected, out);
        }
    }

    fn on_founded(&mut self, from: PeerId, founding: Founding, out: &mut Outbox<Action>) {
        if self.record.founding.is_some() || founding.number_of(&from).is_none() {
            return;
        }
        let id = founding.id;
        match self.record.vote.clone() {
            Some(vote) if vote == founding => {
                self.write(
                    FoundingRecord { founding: Some(founding), ..self.record.clone() },
                    Vec::new(),
                    out,
                );
            }
            // Its proposer alone takes a vote back.
            Some(vote) if vote.members[0].peer == self.config.me => self.abort(vote, Some(id), out),
            Some(_) => {}
            None if self.record.left_out.is_none() => {
                self.write(
                    FoundingRecord { left_out: Some(id), ..FoundingRecord::default() },
                    Vec::new(),
                    out,
                );
            }
            None => {}
        }
    }

    // ---- proposing ----

    /// Proposes if it is this node's turn.
    fn consider(&mut self, now: Millis, out: &mut Outbox<Action>) {
        if self.record != FoundingRecord::default() {
            return;
        }
        if self.config.expect == 1 {
            return self.consider_alone(now, out);
        }
        let candidates = self.candidates(now);
        let undecided = self.fresh(now).any(|(_, heard)| heard.standing != Standing::Pristine);
        if undecided || candidates.len() < self.config.expect || candidates[0].peer != self.config.me {
            return;
        }
        let members: Vec<Member> = candidates.into_iter().take(self.config.expect).collect();
        let others = members.iter().map(|m| m.peer).filter(|p| *p != self.config.me).collect::<Vec<_>>();
        let proposal = Founding::new(self.next_id(), members);
        self.votes.clear();
        self.voted_at = now;
        let message = Message::Propose { founding: proposal.encode() };
        let sends = others.into_iter().map(|to| Send { to, message: message.clone() }).collect();
        self.write_and_send(FoundingRecord { vote: Some(proposal), ..FoundingRecord::default() }, sends, out);
    }

    fn consider_alone(&mut self, now: Millis, out: &mut Outbox<Action>) {
        let looked = !self.config.key_was_there || now.since(self.began) >= limits::FOUNDING_LOOK;
        if looked && self.peers.is_empty() {
            let me = Member { peer: self.config.me, incarnation: self.config.incarnation };
            let founding = Founding::new(self.next_id(), vec![me]);
            self.found(founding, out);
        }
    }

    fn propose_again(&mut self, proposal: &Founding, out: &mut Outbox<Action>) {
        for to in self.missing(proposal) {
            let message = Message::Propose { founding: proposal.encode() };
            out.push(Action::Send(Send { to, message }));
        }
    }

    /// All votes are in: the founding is written, then said.
    fn found(&mut self, founding: Founding, out: &mut Outbox<Action>) {
        let message = Message::Founded { founding: founding.encode() };
        let others = founding.members.iter().map(|m| m.peer).filter(|p| *p != self.config.me);
        let sends = others.map(|to| Send { to, message: message.clone() }).collect();
        let record =
            FoundingRecord { vote: Some(founding.clone()), founding: Some(founding), left_out: None };
        self.write_and_send(record, sends, out);
    }

    /// Durably first; never after the founding was written.
    fn abort(&mut self, proposal: Founding, left_out: Option<FoundingId>, out: &mut Outbox<Action>) {
        debug_assert!(
            self.record.founding.is_none() || self.config.variant == Variant::AbortAfterFounding,
            "a founding is never aborted"
        );
        self.votes.clear();
        let others = proposal.members.iter().map(|m| m.peer).filter(|p| *p != self.config.me);
        let sends = others.map(|to| Send { to, message: Message::Abort { id: proposal.id } }).collect();
        self.write_and_send(FoundingRecord { vote: None, founding: None, left_out }, sends, out);
    }

    /// In the right protocol only the proposer of a vote takes it back.
    fn takes_its_vote_back(&self, now: Millis) -> bool {
        let is_voter =
            self.record.vote.is_some() && self.record.founding.is_none() && self.my_proposal().is_none();
        let has_waited = now.since(self.voted_at) >= limits::FOUNDING_SILENCE;
        self.config.variant == Variant::VoterTakesBack && is_voter && has_waited
    }

    // ---- small steps ----

    /// Writes, then tells these where this node stands now.
    fn write(&mut self, record: FoundingRecord, tell: Vec<PeerId>, out: &mut Outbox<Action>) {
        let message = self.announcement(record.standing());
        let sends = tell.into_iter().map(|to| Send { to, message: message.clone() }).collect();
        self.write_and_send(record, sends, out);
    }

    fn write_and_send(&mut self, record: FoundingRecord, mut then: Vec<Send>, out: &mut Outbox<Action>) {
        then.push(Send { to: self.config.me, message: self.announcement(record.standing()) });
        if self.config.variant == Variant::SpeakBeforePersisting {
            let others = then.iter().filter(|send| send.to != self.config.me);
            others.for_each(|send| out.push(Action::Send(send.clone())));
        }
        self.record = record.clone();
        self.in_flight.push_back(record.clone());
        out.push(Action::Write { record, then });
    }

    fn announce_to(&self, peers: &[PeerId], out: &mut Outbox<Action>) {
        if !self.in_flight.is_empty() {
            return;
        }
        let message = self.announcement(self.record.standing());
        for to in peers {
            out.push(Action::Send(Send { to: *to, message: message.clone() }));
        }
    }

    fn announcement(&self, standing: Standing) -> Message {
        let expect = self.config.expect as u64;
        Message::Announce { incarnation: self.config.incarnation, expect, standing }
    }

    fn my_proposal(&self) -> Option<&Founding> {
        let mine = |vote: &&Founding| vote.members[0].peer == self.config.me;
        let is_open = self.record.founding.is_none() || self.config.variant == Variant::AbortAfterFounding;
        self.record.vote.as_ref().filter(|_| is_open).filter(mine)
    }

    fn missing(&self, proposal: &Founding) -> Vec<PeerId> {
        let voted = |peer: &PeerId| self.votes.contains(peer) || *peer == self.config.me;
        proposal.members.iter().map(|m| m.peer).filter(|peer| !voted(peer)).collect()
    }

    fn someone_is_silent(&self, proposal: &Founding, now: Millis) -> bool {
        let last = |member: &Member| {
            let heard = self.peers.get(&member.peer).and_then(|p| p.heard);
            heard
                .filter(|h| h.incarnation == member.incarnation)
                .map_or(self.voted_at, |h| h.at.max(self.voted_at))
        };
        let mut others = proposal.members.iter().filter(|m| m.peer != self.config.me);
        others.any(|member| now.since(last(member)) >= limits::FOUNDING_SILENCE)
    }

    fn fresh(&self, now: Millis) -> impl Iterator<Item = (&PeerId, &Heard)> {
        let heard = self.peers.iter().filter_map(|(id, peer)| peer.heard.as_ref().map(|heard| (id, heard)));
        heard.filter(move |(_, heard)| now.since(heard.at) <= limits::FOUNDING_FRESH)
    }

    /// The pristine nodes with the same expectation, this one among them, by PeerId.
    fn candidates(&self, now: Millis) -> Vec<Member> {
        let expect = self.config.expect as u64;
        let others = self.fresh(now).filter(|(_, h)| h.standing == Standing::Pristine && h.expect == expect);
        let mut all: Vec<Member> =
            others.map(|(peer, heard)| Member { peer: *peer, incarnation: heard.incarnation }).collect();
        all.push(Member { peer: self.config.me, incarnation: self.config.incarnation });
        all.sort();
        all
    }

    fn peer(&mut self, peer: PeerId) -> Option<&mut Peer> {
        if peer == self.config.me {
            return None;
        }
        if self.peers.len() >= limits::KNOWN_PEERS_MAX && !self.peers.contains_key(&peer) {
            // Nodes that came and went must not keep those out who are here.
            let gone = self.peers.iter().find(|(_, known)| !known.connected).map(|(peer, _)| *peer)?;
            self.peers.remove(&gone);
        }
        Some(self.peers.entry(peer).or_default())
    }

    fn next_id(&mut self) -> FoundingId {
        let mut id = FoundingId::ZERO;
        self.ids.fill(&mut id.0);
        id
    }
}
