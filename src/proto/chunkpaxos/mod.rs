//! ChunkPaxos: one register per object, agreed by the three acceptors of its hash slot. No log, no leader.
//!
//! It is CASPaxos (Rystsov, "CASPaxos: Replicated State Machines without logs", 2018, arXiv:1802.07000)
//! with a home proposer per object, an implicit first ballot, and a promise for the next round carried on
//! each accept. This machine is all roles of one node: proposer, acceptor, mirror. It must never say what
//! is not yet durable.
//!
//! # Driving it
//! See [`crate::proto`] for the rules common to all machines. In particular here:
//! * Registers enter verified: decode a frame with `Message::<RawRegister>::decode`, turn it with
//!   [`Message::try_map`] and `seal`, then hand it in. `from` is the authenticated PeerId of the connection.
//! * [`Action::Load`] is answered by [`Event::Loaded`] (`None` = nothing on disk) or, if the record cannot
//!   be read, by [`Event::LoadFailed`]. It is only issued while no write of that object is in flight.
//! * [`Action::Write`] that cannot be queued is answered by [`Event::WriteRefused`], and its sends are
//!   dropped.
//! * Every [`Event::Call`] is answered by exactly one [`Action::Answer`], at the latest
//!   [`limits::NO_QUORUM`](crate::model::limits::NO_QUORUM) later.
//! * [`Event::Reachable`] tells what the network knows of connections; it is a hint, and all peers begin
//!   unreachable.

mod acceptor;
mod alarms;
mod ballot;
mod lru;
mod messages;
mod proposer;
mod record;
mod round;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod tables;

pub use ballot::Ballot;
pub use messages::{Accepted, Answer, Body, Command, Message, Outcome, RoundId};
pub use record::{AcceptorRecord, RECORD_BYTES_MAX};

use std::collections::VecDeque;

use self::{
    acceptor::{Acceptor, Input},
    proposer::Proposer,
};
use crate::{
    model::{
        Millis, ObjectId, PeerId,
        member::{Epoch, Founding, NodeNumber},
        register::VerifiedRegister,
        slots::HashSlot,
    },
    proto::{
        Outbox,
        placement::{self, SlotKeepers, Weighted},
    },
};

/// What a machine is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node; a member of `founding`.
    pub me: PeerId,
    /// The members.
    pub founding: Founding,
    /// Their epoch.
    pub epoch: Epoch,
    /// This start's boot number, durable before the machine is made.
    pub boot: u64,
    /// Random bytes, for the back-off of duelling proposers.
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
    /// The home uses the implicit ballot, and acceptors take it, without the check that the record is empty.
    ImplicitWithoutEmptyCheck,
    /// Replies leave before the write is durable.
    SpeakBeforePersisting,
    /// Every node takes itself for the home, so that two skip the prepare.
    EveryoneSkipsPrepare,
    /// A read takes the greatest ballot of a majority without asking whether they agree.
    BareQuorumRead,
    /// The home uses the implicit ballot again after a restart: what it wrote itself at an earlier start does
    /// not count in its empty check.
    ImplicitAgainAfterRestart,
    /// Boot number and counter of the ballots begin again at each start, and an acceptor takes a ballot that
    /// it knows already once more.
    BallotsReused,
    /// A handover installs the values at the ballots at which they were accepted.
    InstallOldBallot,
    /// A handover scans acceptors that are not fenced.
    NoFence,
}

/// Names a call of the driver; its answer repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// What happens to the machine.
#[derive(Clone, Debug)]
pub enum Event {
    /// Somebody wants something of a register.
    Call {
        /// Repeated by the answer; unique among the unanswered.
        call: CallId,
        /// The object. A proposed value's object must be this one.
        object: ObjectId,
        /// What is wanted.
        command: Command,
    },
    /// A message arrived, or one sent to oneself behind a write that is durable now.
    Message {
        /// The authenticated sender.
        from: PeerId,
        /// Its register was verified.
        message: Message,
    },
    /// The record asked for by [`Action::Load`]; none = there is none on disk.
    Loaded {
        /// The object.
        object: ObjectId,
        /// Its register was verified.
        record: Option<AcceptorRecord>,
    },
    /// The record asked for could not be read: this acceptor says nothing about the object. Unlike "none",
    /// this is no knowledge at all.
    LoadFailed {
        /// The object.
        object: ObjectId,
    },
    /// A write was not queued; none of its sends were done.
    WriteRefused {
        /// The object.
        object: ObjectId,
        /// As in the action.
        serial: u64,
    },
    /// Whether there is a connection to this peer.
    Reachable {
        /// The member.
        peer: PeerId,
        /// Whether a message to it would leave.
        reachable: bool,
    },
    /// Repair found this accepted at the same ballot by a majority of the object's acceptors, so it is
    /// chosen: keep it if it is newer than what is here. Also used on a mirror.
    LateAccept {
        /// The object.
        object: ObjectId,
        /// Where and what; the caller vouches that a majority agreed (of two members: the acceptor has it).
        accepted: Accepted,
    },
    /// An armed timer is due.
    Timer(Timer),
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put it on the peer's lane, or lose it.
    Send(Send),
    /// Make the record durable, then do the sends.
    Write {
        /// The key of the record.
        object: ObjectId,
        /// Grows with each write of this process.
        serial: u64,
        /// The whole new state.
        record: AcceptorRecord,
        /// What may be said once it is durable; those to oneself come back as events.
        then: Vec<Send>,
    },
    /// Read the record of this object from disk.
    Load {
        /// The object.
        object: ObjectId,
    },
    /// Hand in this timer at or after `at`; replaces its earlier arming.
    Arm {
        /// When.
        at: Millis,
        /// Which.
        timer: Timer,
    },
    /// The answer to a call.
    Answer {
        /// Which.
        call: CallId,
        /// What came of it and what it cost.
        answer: Answer,
    },
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// To whom.
    pub to: PeerId,
    /// What.
    pub message: Message<VerifiedRegister>,
}

/// The machine's timers: one, for the earliest of all that it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Look what is due.
    Wake,
}

/// What was counted since the start; see [`crate::model::rpc::Counters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Commits proposed here as the object's home.
    pub home_commits: u64,
    /// Commits proposed here at all.
    pub commits: u64,
    /// Messages of those, the proposer's own counted.
    pub commit_messages: u64,
    /// Messages handed to the network.
    pub sent: u64,
    /// Messages thrown away: from no member, another epoch, out of place.
    pub ignored: u64,
}

/// All ChunkPaxos roles of one node.
#[derive(Debug)]
pub struct ChunkPaxos {
    config: Config,
    slots: Vec<SlotKeepers>,
    acceptor: Acceptor,
    proposer: Proposer,
    local: VecDeque<Local>,
    counters: Counters,
}

/// What one role of this node tells another, without any wire.
#[derive(Debug)]
enum Local {
    /// A message to oneself.
    Message(Message),
    /// To the acceptor.
    Acceptor { object: ObjectId, input: Input },
    /// To the proposer: the implicit ballot cannot be used.
    FirstDeclined { object: ObjectId, round: RoundId },
}

/// What a role may look at and write to while it handles one event.
struct Desk<'a> {
    now: Millis,
    config: &'a Config,
    slots: &'a [SlotKeepers],
    local: &'a mut VecDeque<Local>,
    counters: &'a mut Counters,
    out: &'a mut Outbox<Action>,
}

impl ChunkPaxos {
    /// A machine that knows nothing yet; it needs no first event.
    pub fn new(config: Config) -> Self {
        let members: Vec<Weighted> = config.founding.members.iter().map(Weighted::from).collect();
        let slots = HashSlot::all().map(|slot| placement::keepers(config.epoch, &members, slot)).collect();
        let proposer = Proposer::new(&config);
        let (local, counters) = (VecDeque::new(), Counters::default());
        Self { config, slots, acceptor: Acceptor::new(), proposer, local, counters }
    }

    /// Takes one event in and says what to do.
    pub fn handle(&mut self, now: Millis, event: Event, out: &mut Outbox<Action>) {
        let Self { config, slots, acceptor, proposer, local, counters } = self;
        let desk = &mut Desk { now, config, slots, local, counters, out };
        match event {
            Event::Call { call, object, command } => {
                let object = proposed_object(&command).unwrap_or(object);
                proposer.call(call, object, command, desk);
            }
            Event::Message { from, message } => receive(acceptor, proposer, from, message, desk),
            Event::Loaded { object, record } => {
                record.as_ref().and_then(AcceptorRecord::floor).iter().for_each(|b| proposer.observe(b));
                acceptor.loaded(object, record, desk);
            }
            Event::LoadFailed { object } => acceptor.load_failed(object, desk),
            Event::WriteRefused { object, serial } => acceptor.write_ended(object, serial, false),
            Event::Reachable { peer, reachable } => proposer.on_reachable(peer, reachable, desk),
            Event::LateAccept { object, accepted } => {
                let fits = accepted.ballot.is_sane() && accepted.value.object == object;
                if fits && desk.keepers(&object).holds(&desk.config.me) {
                    proposer.observe(&accepted.ballot);
                    acceptor.submit(object, Input::Late(accepted), desk);
                }
            }
            Event::Timer(Timer::Wake) => proposer.on_wake(desk),
        }
        while let Some(local) = desk.local.pop_front() {
            match local {
                Local::Message(message) => receive(acceptor, proposer, desk.config.me, message, desk),
                Local::Acceptor { object, input } => acceptor.submit(object, input, desk),
                Local::FirstDeclined { object, round } => proposer.on_first_declined(object, round, desk),
            }
        }
        proposer.arm(desk);
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Who keeps the registers of this slot.
    pub fn keepers(&self, slot: HashSlot) -> &SlotKeepers {
        &self.slots[usize::from(slot.0)]
    }
}

/// Brings a message to the role that it is for, if it may be said at all.
fn receive(
    acceptor: &mut Acceptor,
    proposer: &mut Proposer,
    from: PeerId,
    message: Message,
    desk: &mut Desk<'_>,
) {
    if !desk.allows(&from, &message) {
        desk.counters.ignored += 1;
        return;
    }
    message.body.ballots().for_each(|ballot| proposer.observe(ballot));
    let Message { object, round, body, .. } = message;
    match body {
        Body::Prepare { .. } | Body::Accept { .. } | Body::Query | Body::Mirror { .. } => {
            acceptor.submit(object, Input::Message { from, round, body }, desk);
        }
        Body::Written { serial } => acceptor.write_ended(object, serial, true),
        Body::Forward { command } => proposer.on_forward(from, object, round, command, desk),
        body => proposer.on_message(from, object, round, body, desk),
    }
}

fn proposed_object(command: &Command) -> Option<ObjectId> {
    match command {
        Command::Propose { value } => Some(value.object),
        _ => None,
    }
}

impl Desk<'_> {
    fn keepers(&self, object: &ObjectId) -> &SlotKeepers {
        &self.slots[usize::from(HashSlot::of(object).0)]
    }

    fn home(&self, object: &ObjectId) -> Option<PeerId> {
        placement::home(self.config.epoch, &self.keepers(object).acceptors, object)
    }

    fn is_home(&self, object: &ObjectId) -> bool {
        self.config.variant == Variant::EveryoneSkipsPrepare || self.home(object) == Some(self.config.me)
    }

    fn mirrors(&self, object: &ObjectId) -> usize {
        usize::from(self.keepers(object).mirror.is_some())
    }

    fn my_number(&self) -> Option<NodeNumber> {
        self.config.founding.number_of(&self.config.me)
    }

    /// The boot number of this start's ballots.
    fn ballot_boot(&self) -> u64 {
        if self.config.variant == Variant::BallotsReused { 1 } else { self.config.boot }
    }

    fn proposer_of(&self, ballot: &Ballot) -> Option<PeerId> {
        self.config.founding.member(ballot.node).map(|member| member.peer)
    }

    fn message(&self, object: ObjectId, round: RoundId, body: Body) -> Message {
        Message { epoch: self.config.epoch, object, round, body }
    }

    fn say(&mut self, to: PeerId, object: ObjectId, round: RoundId, body: Body) {
        let message = self.message(object, round, body);
        self.send(Send { to, message });
    }

    fn send(&mut self, send: Send) {
        if send.to == self.config.me {
            self.local.push_back(Local::Message(send.message));
        } else {
            self.counters.sent += 1;
            self.out.push(Action::Send(send));
        }
    }

    /// Whether this member may say this to this node.
    fn allows(&self, from: &PeerId, message: &Message) -> bool {
        let Message { epoch, object, body, .. } = message;
        let known = *epoch == self.config.epoch && self.config.founding.number_of(from).is_some();
        let sane = body.ballots().all(|ballot| ballot.is_sane() && ballot.epoch <= self.config.epoch);
        if !known || !sane || message.register().is_some_and(|value| value.object != *object) {
            return false;
        }
        let me = &self.config.me;
        let keepers = self.keepers(object);
        match body {
            Body::Prepare { ballot } => {
                !ballot.is_implicit() && self.is_its(from, ballot) && keepers.acceptors.contains(me)
            }
            Body::Accept { ballot, value, next } => {
                let implicit = ballot.is_implicit();
                let anyone = self.config.variant == Variant::EveryoneSkipsPrepare;
                let may_skip = value.version == 1 && (anyone || self.home(object) == Some(*from));
                let fits = |n: &Ballot| n > ballot && n.node == ballot.node && n.boot == ballot.boot;
                self.is_its(from, ballot)
                    && keepers.acceptors.contains(me)
                    && (!implicit || may_skip)
                    && next.as_ref().is_none_or(fits)
            }
            Body::Query => keepers.holds(me),
            Body::Mirror { .. } => keepers.mirror == Some(*me) && keepers.acceptors.contains(from),
            Body::Forward { command: Command::ReadAny } => false,
            Body::Written { .. } => from == me,
            _ => true,
        }
    }

    fn is_its(&self, from: &PeerId, ballot: &Ballot) -> bool {
        ballot.epoch == self.config.epoch && self.proposer_of(ballot) == Some(*from)
    }
}
