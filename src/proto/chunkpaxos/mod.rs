//! ChunkPaxos: one register per object, agreed by the three acceptors of its hash slot. No log, no leader.
//!
//! It is CASPaxos (Rystsov, "CASPaxos: Replicated State Machines without logs", 2018, arXiv:1802.07000)
//! with a home proposer per object, an implicit first ballot, and a promise for the next round carried on
//! each accept. This machine is all roles of one node: proposer, acceptor, mirror. It must never say what
//! is not yet durable.
//!
//! # Views and handovers
//! Each hash slot has an active view: an epoch, its acceptors, its mirror. Authority hands a slot over to
//! other acceptors by [`Order`]s. Between the two orders a member, the installer, does this:
//! * **Fence.** A majority of the old acceptors writes down that it refuses everything below the new epoch.
//!   Writes become durable in order, so what they accepted before lies on disk before the fence does. From
//!   then on no round of the old view gets a majority that it had not got a word of before: nothing that the
//!   installer does not see can be chosen. Reads are refused, too: a majority of fenced acceptors still
//!   agrees long after the new view has gone on.
//! * **Scan.** The installer lists the objects of the fenced and asks a majority of them, object by object,
//!   for what it accepted: what was chosen is on one of every majority. The greatest ballot is taken, for the
//!   same reason as after a prepare.
//! * **Install.** It is accepted by a majority of the new acceptors at a ballot of the new epoch whose
//!   counter is the attempt. Not at its old ballot: there a value that only one acceptor has, at a greater
//!   ballot of the old epoch, would overtake it. It need not be the same majority for each object, since each
//!   later majority meets one of them. Then authority is told.
//! * **Activate.** Whoever hears of it uses the new view: its messages carry the new epoch, cached ballots
//!   are dropped, rounds in progress begin again with a prepare. Messages of other epochs are ignored.
//!
//! A failed attempt leaves installs behind on some new acceptors, and its messages may come late. All of them
//! have smaller counters than the install of the attempt that was activated: they never overtake what is
//! chosen, and a majority that has one of them alike is no agreement. A view that was handed over has no
//! implicit ballot: an acceptor may be empty because it has missed the install of what is chosen, and what
//! it took above that without a prepare would overtake it. An attempt belongs to one start of its installer:
//! a later start could find less than the earlier one has installed, and put something else above it. So if
//! the installer crashes, authority orders the next attempt. An acceptor takes part only in the attempt that
//! it heard of last, and in none of an epoch that it uses already.
//!
//! Orders are not kept here: authority has them durably and hands in all of them again after a restart. A
//! node that has not heard them yet lives in an old view, where a majority is fenced: it can ask, and nobody
//! answers.
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
//! * [`Action::WriteFence`] is a write like any other, with its own refusal, and must be handed in again by
//!   [`Config::fences`] at each start. [`Action::Scan`] is answered by [`Event::Scanned`].
//! * [`Event::Order`]s are handed in as authority has ordered them, all of them again at each start.
//! * [`Event::Reachable`] tells what the network knows of connections; it is a hint, and all peers begin
//!   unreachable.

mod acceptor;
mod alarms;
mod allow;
mod ballot;
#[cfg(test)]
mod essence;
#[cfg(test)]
#[allow(clippy::disallowed_types)]
mod exhaustive;
mod fence;
#[cfg(test)]
mod handover_tables;
mod installer;
mod lru;
mod messages;
mod proposer;
mod record;
mod round;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod tables;
mod view;

pub use ballot::Ballot;
pub use messages::{Accepted, Answer, Body, Command, Message, Outcome, RoundId};
pub use record::{AcceptorRecord, RECORD_BYTES_MAX};
pub use view::{Order, View};

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use self::{
    acceptor::{Acceptor, Input},
    installer::Installer,
    proposer::Proposer,
    view::{Applied, Slots},
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
        placement::{self, Weighted},
    },
};

/// What a machine is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node; a member of `founding`.
    pub me: PeerId,
    /// The members.
    pub founding: Founding,
    /// Their epoch, in which every slot begins; the others come by [`Event::Order`].
    pub epoch: Epoch,
    /// This start's boot number, durable before the machine is made.
    pub boot: u64,
    /// What earlier starts have written by [`Action::WriteFence`]: of each slot the greatest epoch.
    pub fences: BTreeMap<HashSlot, Epoch>,
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
    /// Views that were handed over have an implicit ballot, too.
    ImplicitAfterHandover,
    /// The home uses the implicit ballot again after a restart: what it wrote itself at an earlier start does
    /// not count in its empty check.
    ImplicitAgainAfterRestart,
    /// Boot number and counter of the ballots begin again at each start, and an acceptor takes a ballot that
    /// it knows already once more.
    BallotsReused,
    /// A handover installs the values at the ballots at which they were accepted, and there they count.
    InstallOldBallot,
    /// A handover scans acceptors that are not fenced.
    NoFence,
}

/// Names a call of the driver; its answer repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Authority has ordered this.
    Order(Order),
    /// A fence was not queued; none of its sends were done.
    FenceRefused {
        /// As in the action.
        slot: HashSlot,
    },
    /// The page asked for by [`Action::Scan`].
    Scanned {
        /// As in the action.
        slot: HashSlot,
        /// As in the action.
        after: Option<ObjectId>,
        /// None if the disk could not read it.
        page: Option<SlotPage>,
    },
    /// An armed timer is due.
    Timer(Timer),
}

/// The next objects of a slot that have a record on disk, in the order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotPage {
    /// As many as were read.
    pub objects: Vec<ObjectId>,
    /// Whether there are more behind the last of them; never behind none.
    pub more: bool,
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
    /// Make the fence durable, in the order of all writes, for every start to come; then do the sends.
    WriteFence {
        /// The key.
        slot: HashSlot,
        /// Replaces the epoch written before.
        to: Epoch,
        /// What may be said once it is durable; those to oneself come back as events.
        then: Vec<Send>,
    },
    /// Say which objects of this slot have a record on disk: a page of them, after this one.
    Scan {
        /// Which slot.
        slot: HashSlot,
        /// None for the first page.
        after: Option<ObjectId>,
    },
    /// Tell authority that this handover may be activated.
    Installed {
        /// As in the order.
        slot: HashSlot,
        /// As in the order.
        to: Epoch,
        /// As in the order.
        attempt: u64,
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct ChunkPaxos {
    config: Config,
    slots: Slots,
    reachable: BTreeSet<PeerId>,
    roles: Roles,
    armed: Option<Millis>,
    local: VecDeque<Local>,
    counters: Counters,
}

/// The roles; which of them count for an object is the view's.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
struct Roles {
    acceptor: Acceptor,
    proposer: Proposer,
    installer: Installer,
}

/// What one role of this node tells another, without any wire.
#[cfg_attr(test, derive(Clone))]
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
    slots: &'a mut Slots,
    reachable: &'a mut BTreeSet<PeerId>,
    local: &'a mut VecDeque<Local>,
    counters: &'a mut Counters,
    out: &'a mut Outbox<Action>,
}

impl ChunkPaxos {
    /// A machine that knows nothing yet; it needs no first event.
    pub fn new(config: Config) -> Self {
        let members: Vec<Weighted> = config.founding.members.iter().map(Weighted::from).collect();
        let slots = Slots::new(&config, |slot| placement::keepers(config.epoch, &members, slot));
        let (acceptor, proposer) = (Acceptor::new(), Proposer::new(&config));
        Self {
            config,
            slots,
            reachable: BTreeSet::new(),
            roles: Roles { acceptor, proposer, installer: Installer::default() },
            armed: None,
            local: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Takes one event in and says what to do.
    pub fn handle(&mut self, now: Millis, event: Event, out: &mut Outbox<Action>) {
        if matches!(event, Event::Timer(_)) {
            self.armed = None;
        }
        let Self { config, slots, reachable, roles, local, counters, .. } = self;
        let desk = &mut Desk { now, config, slots, reachable, local, counters, out };
        roles.on_event(event, desk);
        while let Some(local) = desk.local.pop_front() {
            match local {
                Local::Message(message) => roles.receive(desk.config.me, message, desk),
                Local::Acceptor { object, input } => roles.acceptor.submit(object, input, desk),
                Local::FirstDeclined { object, round } => {
                    roles.proposer.on_first_declined(object, round, desk);
                }
            }
        }
        let next = [roles.proposer.next_alarm(), roles.installer.next_alarm()].into_iter().flatten().min();
        if let Some(at) = next.filter(|at| self.armed.is_none_or(|armed| *at < armed)) {
            self.armed = Some(at);
            out.push(Action::Arm { at, timer: Timer::Wake });
        }
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Who keeps the registers of this slot, as far as this node was told.
    pub fn view(&self, slot: HashSlot) -> &View {
        &self.slots.get(slot).active
    }
}

impl Roles {
    fn on_event(&mut self, event: Event, desk: &mut Desk<'_>) {
        let Self { acceptor, proposer, installer } = self;
        match event {
            Event::Call { call, object, command } => {
                let object = proposed_object(&command).unwrap_or(object);
                proposer.call(call, object, command, desk);
            }
            Event::Message { from, message } => self.receive(from, message, desk),
            Event::Loaded { object, record } => {
                record.as_ref().and_then(AcceptorRecord::floor).iter().for_each(|b| proposer.observe(b));
                acceptor.loaded(object, record, desk);
            }
            Event::LoadFailed { object } => acceptor.load_failed(object, desk),
            Event::WriteRefused { object, serial } => acceptor.write_ended(object, serial, false),
            Event::Reachable { peer, reachable } => {
                proposer.on_reachable(peer, reachable, desk);
                installer.on_reachable(desk);
            }
            Event::LateAccept { object, accepted } => {
                let fits = accepted.ballot.is_sane() && accepted.value.object == object;
                if fits && desk.view(&object).keepers.holds(&desk.config.me) {
                    proposer.observe(&accepted.ballot);
                    acceptor.submit(object, Input::Late(accepted), desk);
                }
            }
            Event::Order(order) => self.on_order(order, desk),
            Event::FenceRefused { slot } => fence::refused(slot, desk),
            Event::Scanned { slot, after, page } => fence::on_scanned(slot, after, page, desk),
            Event::Timer(Timer::Wake) => {
                proposer.on_wake(desk);
                installer.on_wake(desk);
            }
        }
    }

    fn on_order(&mut self, order: Order, desk: &mut Desk<'_>) {
        let Desk { slots, config, .. } = desk;
        match slots.apply(order, |peer| config.founding.number_of(peer).is_some()) {
            Applied::Ignored => desk.counters.ignored += 1,
            Applied::Ordered(slot) => self.installer.ordered(slot, desk),
            Applied::Activated(slot) => {
                self.installer.stop(slot);
                self.acceptor.forget(slot);
                self.proposer.activated(slot, desk);
            }
        }
    }

    /// Brings a message to the role that it is for, if it may be said at all.
    fn receive(&mut self, from: PeerId, message: Message, desk: &mut Desk<'_>) {
        if !desk.allows(&from, &message) {
            desk.counters.ignored += 1;
            return;
        }
        message.body.ballots().for_each(|ballot| self.proposer.observe(ballot));
        let Message { object, round, .. } = message;
        match message.body {
            Body::Prepare { .. }
            | Body::Accept { .. }
            | Body::Query
            | Body::Mirror { .. }
            | Body::Fetch { .. }
            | Body::Install { .. } => {
                self.acceptor.submit(object, Input::Message { from, message }, desk);
            }
            Body::Written { serial } => self.acceptor.write_ended(object, serial, true),
            Body::Fence { .. } => {
                self.acceptor.forget(HashSlot::of(&object));
                fence::on_fence(from, &message, desk);
            }
            Body::FenceWritten => fence::written(HashSlot::of(&object), message.epoch, desk),
            Body::List { after, .. } => fence::on_list(from, &message, after, desk),
            Body::Forward { command } => self.proposer.on_forward(from, object, round, command, desk),
            body if body.is_of_handover() => self.installer.on_message(from, object, round, body, desk),
            body => self.proposer.on_message(from, object, round, body, desk),
        }
    }
}

fn proposed_object(command: &Command) -> Option<ObjectId> {
    match command {
        Command::Propose { value } => Some(value.object),
        _ => None,
    }
}

impl Desk<'_> {
    fn view(&self, object: &ObjectId) -> &View {
        &self.slots.of(object).active
    }

    fn home(&self, object: &ObjectId) -> Option<PeerId> {
        let view = self.view(object);
        placement::home(view.epoch, &view.keepers.acceptors, object)
    }

    fn is_home(&self, object: &ObjectId) -> bool {
        self.config.variant == Variant::EveryoneSkipsPrepare || self.home(object) == Some(self.config.me)
    }

    /// Whether this is the implicit ballot of the object's view, which needs no prepare and is the home's
    /// alone.
    fn is_implicit(&self, object: &ObjectId, ballot: &Ballot) -> bool {
        let view = self.view(object);
        self.has_implicit_ballot(view) && (ballot.epoch, ballot.counter) == (view.epoch, view.first_counter)
    }

    fn may_begin_unprepared(&self, object: &ObjectId) -> bool {
        self.is_home(object) && self.has_implicit_ballot(self.view(object))
    }

    /// None of the views that were handed over has one. An acceptor may be empty there because it has missed
    /// the install of what is chosen; another value that it takes above that without a prepare would be the
    /// greatest that the next prepare meets.
    fn has_implicit_ballot(&self, view: &View) -> bool {
        view.first_counter == 0 || self.config.variant == Variant::ImplicitAfterHandover
    }

    /// Whether what a majority has at this ballot is chosen.
    fn counts(&self, object: &ObjectId, ballot: &Ballot) -> bool {
        self.config.variant == Variant::InstallOldBallot || self.view(object).counts(ballot)
    }

    fn mirrors(&self, object: &ObjectId) -> usize {
        usize::from(self.view(object).keepers.mirror.is_some())
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
        Message { epoch: self.view(&object).epoch, object, round, body }
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
}
