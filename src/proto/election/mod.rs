//! The modified bully election: the member with the lowest load becomes coordinator. Only hints: nothing is
//! durable here, and a coordinator proposes and never grants, so that two of them do no harm.
//!
//! # The rules
//! * A claim is (epoch, counter, node number). Of all that are known the greatest alone can be in office; who
//!   hears of a greater one believes in no smaller one any more, its own among them.
//! * One believes that a claim is in office on its holder's word alone: its news, its heartbeat, its answer.
//!   The belief ends with the holder's death or resignation, and with a heartbeat of it that does not carry
//!   the claim. Hearsay only raises the greatest claim known, and ends beliefs.
//! * Who stands asks all that it sees alive. With a majority of *all* members that does not object, itself
//!   counted, it is in office and tells them. "I am better" and "I am in office" refuse a candidate at once,
//!   "I believe another in office" only counts as no consent.
//! * Who has agreed to one candidate agrees to no other while the first may win by it. Of two that stand at
//!   once the worse withdraws, by the loads that both have said, and agrees to the better; who had agreed to
//!   the worse is asked again.
//! * The best of those alive stands at once, the k-th waits k steps, a few at most; who has agreed to another
//!   waits for its news first. A lost candidacy is tried again after a random, growing, bounded wait.
//! * Whoever sees no majority, or froze, is not in office; after it, it claims anew.
//! * An office ends of free will only after its tenure.
//! * Counters of claims are greater than all that are known, at least `boot << 20`, and their last ten bits
//!   are those of the boot number: so a node that has forgotten everything never makes the same claim twice.

mod candidate;
mod message;
mod office;
mod record;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod tables;
mod voter;
#[cfg(test)]
mod wire;
#[cfg(test)]
mod world;

use std::collections::{BTreeMap, BTreeSet};

use self::{
    candidate::{Candidacy, Plan},
    record::Records,
};
pub use self::{
    message::{Message, Reason, Verdict},
    record::Record,
};
use crate::{
    model::{
        Millis, PeerId, limits,
        member::{Epoch, Founding, NodeNumber},
        task::Claim,
    },
    proto::Outbox,
};

/// Claims of one start differ from those of another in what is left over by this.
const STAMPS: u64 = 1 << 10;
/// The counters of a start begin at its boot number shifted by this.
const BOOT_SHIFT: u32 = 20;
/// So much room above the greatest counter known is kept for claims. It is asked for when another machine,
/// which was started more often, names a counter; not during an election.
const KEEP_AHEAD: u64 = 1 << 19;

/// What a machine is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node; a member of `founding`.
    pub me: PeerId,
    /// The members.
    pub founding: Founding,
    /// Their epoch.
    pub epoch: Epoch,
    /// This start's boot number.
    pub boot: u64,
    /// What [`Action::Keep`] has last written down in an earlier start: no claim of those is above it. 0 = it
    /// never has.
    pub kept: u64,
    /// Random bytes, for the waits.
    pub seed: [u8; 32],
}

/// What happens to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Who is alive, after each heartbeat of this node.
    View {
        /// Members that are alive, neither suspect nor dead, this one among them, with their loads in
        /// hundredths of a point.
        alive: BTreeMap<PeerId, u64>,
    },
    /// Membership says that this member is dead; at once.
    Dead {
        /// Who.
        peer: PeerId,
    },
    /// A heartbeat of another member, in the order of its heartbeats.
    Heard {
        /// Its author.
        from: PeerId,
        /// The claim that it carries.
        claim: Option<Claim>,
    },
    /// A member's question; always answered by one [`Action::Answer`].
    Asked {
        /// The authenticated asker.
        from: PeerId,
        /// To be named in the answer.
        call: u64,
        /// What it says.
        message: Message,
    },
    /// What came of an [`Action::Ask`].
    Answered {
        /// Who was asked.
        from: PeerId,
        /// Its answer; none if there was none in time.
        answer: Option<Message>,
    },
    /// A member said this.
    Told {
        /// The authenticated sender.
        from: PeerId,
        /// What it says.
        message: Message,
    },
    /// A client knows of a claim with this counter, and takes no smaller one for right.
    Above {
        /// Ignored if it is over half of [`Claim::COUNTER_MAX`]: clients are not believed everything.
        counter: u64,
    },
    /// This counter of [`Action::Keep`] is durable.
    Kept {
        /// Which.
        counter: u64,
    },
    /// This node is about to stop: it leaves office and stands no more.
    Leave,
    /// An armed timer is due.
    Timer(Timer),
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask this member, and report one [`Event::Answered`] within [`limits::ELECTION_ANSWER`].
    Ask {
        /// Whom.
        to: PeerId,
        /// What; a [`Message::Election`].
        message: Message,
    },
    /// Answer this call.
    Answer {
        /// Which.
        call: u64,
        /// What; a [`Message::Alive`].
        message: Message,
    },
    /// Tell this member, or lose it.
    Tell {
        /// Whom.
        to: PeerId,
        /// What; a [`Message::Coordinator`], a [`Message::Withdraw`] or a [`Message::Resign`].
        message: Message,
    },
    /// Write this counter down, durably, then report [`Event::Kept`]; if that fails, nothing. The next start
    /// is given it ([`Config::kept`]), so that it claims above whatever this one does.
    Keep {
        /// Which.
        counter: u64,
    },
    /// Hand in this timer at or after `at`; replaces its earlier arming.
    Arm {
        /// When.
        at: Millis,
        /// Which.
        timer: Timer,
    },
    /// Something that a person, or the assigner of tasks, cares about.
    Publicise(Fact),
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// What this node believes about the office.
    Office {
        /// The claim in office; none = nobody is known to be.
        claim: Option<Claim>,
        /// Whether it is this node's.
        mine: bool,
    },
    /// An election is known here. Said again when its news comes after its claim was heard.
    Elected(Record),
}

/// The machine's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Look whether this node froze.
    Tick,
    /// Stand, if nobody is in office.
    Stand,
    /// Ask again who was bound, or wait no longer for answers.
    Answers,
}

/// The election as one node sees it.
#[derive(Debug)]
pub struct Election {
    config: Config,
    /// Who is alive, with loads; this node always is.
    alive: BTreeMap<PeerId, u64>,
    /// The greatest claim known, in office or not.
    greatest: Option<Claim>,
    /// That it is in office.
    belief: Option<Belief>,
    /// The greatest claim whose holder has said that it is over.
    over: Option<Claim>,
    /// A counter that some start, some candidate, or somebody who answered has named.
    counter: u64,
    /// The next start claims above this, so that this one may claim as far.
    kept: u64,
    /// When it was asked that more be kept.
    keep_asked: Option<Millis>,
    /// It would stand, if only more were kept.
    is_held_up: bool,
    /// The same of clients, for whom a coordinator claims anew.
    wanted: u64,
    /// Why there is nobody in office, while there is nobody.
    vacancy: Reason,
    candidacy: Option<Candidacy>,
    /// To whom this node has agreed, and when: while that one may win by it, to nobody else.
    vote: Option<(PeerId, Millis)>,
    plan: Option<Plan>,
    /// Candidacies lost since somebody was in office.
    losses: u32,
    /// Heartbeats for which this node has been clearly better than the coordinator, or, in office, too busy.
    beats: u32,
    /// Since when there is no majority in view.
    minority_since: Option<Millis>,
    /// After a freeze: who was heard since. None = it does not doubt itself.
    thawing: Option<BTreeSet<PeerId>>,
    tick_due: Option<Millis>,
    leaving: bool,
    records: Records,
    dice: blake3::OutputReader,
    #[cfg(test)]
    variant: Variant,
}

/// That the greatest known claim is in office.
#[derive(Clone, Copy, Debug)]
struct Belief {
    /// Since when, without claims made anew by the same holder: its tenure.
    since: Millis,
    /// When this very claim was first heard, or made.
    claimed: Millis,
    /// When its holder last spoke to this node.
    last_word: Millis,
    /// When its holder last spoke, or was in view.
    last_sign: Millis,
}

/// The right election, or one that the tests must find wrong.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Variant {
    /// What the head of this file says.
    #[default]
    Right,
    /// Stands, wins and stays without a majority.
    WithoutMajority,
    /// Offices end of free will at any time.
    NoTenure,
    /// A greater claim of another does not end an own office.
    Stubborn,
    /// Counters do not begin with the boot number.
    ForgetsItsStarts,
}

impl Belief {
    fn new(since: Millis, now: Millis) -> Self {
        Self { since, claimed: now, last_word: now, last_sign: now }
    }
}

impl Election {
    /// Nobody is known yet, neither alive nor in office.
    pub fn new(config: Config) -> Self {
        let dice = blake3::Hasher::new_keyed(&config.seed).finalize_xof();
        let of_start = |boot: u64| boot.min(Claim::COUNTER_MAX >> BOOT_SHIFT) << BOOT_SHIFT;
        Self {
            alive: BTreeMap::from([(config.me, 0)]),
            greatest: None,
            belief: None,
            over: None,
            counter: of_start(config.boot).max(config.kept),
            kept: of_start(config.boot.saturating_add(1)).max(config.kept),
            keep_asked: None,
            is_held_up: false,
            wanted: 0,
            vacancy: Reason::First,
            candidacy: None,
            vote: None,
            plan: None,
            losses: 0,
            beats: 0,
            minority_since: None,
            thawing: None,
            tick_due: None,
            leaving: config.founding.number_of(&config.me).is_none(),
            records: Records::default(),
            dice,
            config,
            #[cfg(test)]
            variant: Variant::Right,
        }
    }

    /// Takes one event in and says what to do.
    pub fn handle(&mut self, now: Millis, event: Event, out: &mut Outbox<Action>) {
        self.watch_clock(now, out);
        self.on_event(now, event, out);
        self.keep_ahead(now, out);
    }

    fn on_event(&mut self, now: Millis, event: Event, out: &mut Outbox<Action>) {
        match event {
            Event::View { alive } => self.on_view(alive, now, out),
            Event::Dead { peer } => self.on_dead(peer, now, out),
            Event::Heard { from, claim } if self.is_other(&from) => {
                self.on_sign(from, now, out);
                self.on_heard(from, claim, now, out);
            }
            Event::Asked { from, call, message } => {
                self.on_sign(from, now, out);
                self.on_asked(from, call, message, now, out);
            }
            Event::Answered { from, answer } if self.is_other(&from) => {
                if answer.is_some() {
                    self.on_sign(from, now, out);
                }
                self.on_answered(from, answer, now, out);
            }
            Event::Told { from, message } if self.is_other(&from) => {
                self.on_sign(from, now, out);
                self.on_told(from, message, now, out);
            }
            Event::Heard { .. } | Event::Answered { .. } | Event::Told { .. } => {}
            Event::Above { counter } => {
                if counter <= Claim::COUNTER_MAX / 2 {
                    self.wanted = self.wanted.max(counter);
                    self.claim_above(now, out);
                }
            }
            Event::Kept { counter } => self.on_kept(counter, now, out),
            Event::Leave => {
                self.resign(out);
                self.leaving = true;
                self.stand_down(out);
            }
            Event::Timer(Timer::Tick) => {
                self.arm_tick(now, out);
                self.claim_above(now, out);
            }
            Event::Timer(Timer::Stand) => self.on_stand_due(now, out),
            Event::Timer(Timer::Answers) => self.on_answers_due(now, out),
        }
    }

    /// Who is believed in office.
    pub fn coordinator(&self) -> Option<(PeerId, Claim)> {
        let claim = self.claim()?;
        self.holder_of(&claim).map(|peer| (peer, claim))
    }

    /// The own claim, while this node is in office.
    pub fn in_office(&self) -> Option<Claim> {
        self.coordinator().filter(|(peer, _)| *peer == self.config.me).map(|(_, claim)| claim)
    }

    /// The claim that is believed in office; goes into every heartbeat.
    pub fn claim(&self) -> Option<Claim> {
        self.belief.and(self.greatest)
    }

    /// The last elections known here, oldest first; at most [`limits::ELECTIONS_KEPT`].
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &Record> + ExactSizeIterator {
        self.records.iter()
    }

    /// Why the coordinator is it, in words; `name` gives a member's name.
    pub fn reason(&self, name: impl Fn(&PeerId) -> String) -> Option<String> {
        self.records.of(&self.claim()?).map(|record| record.sentence(name))
    }

    // ---- the own clock ----

    /// A node that froze is out of office at once, whatever it hears first when it goes on.
    fn watch_clock(&mut self, now: Millis, out: &mut Outbox<Action>) {
        let Some(due) = self.tick_due else { return self.arm_tick(now, out) };
        if now.since(due) <= limits::SUSPECT_AFTER {
            return;
        }
        self.tick_due = Some(now);
        if self.majority() > 1 {
            self.stand_down(out);
            self.leave_office(out);
            self.thawing = Some(BTreeSet::new());
        }
    }

    fn arm_tick(&mut self, now: Millis, out: &mut Outbox<Action>) {
        let at = now + limits::HEARTBEAT;
        self.tick_due = Some(at);
        out.push(Action::Arm { at, timer: Timer::Tick });
    }

    /// Another member spoke.
    fn on_sign(&mut self, from: PeerId, now: Millis, out: &mut Outbox<Action>) {
        if !self.is_other(&from) {
            return;
        }
        if self.holder() == Some(from)
            && let Some(belief) = &mut self.belief
        {
            (belief.last_word, belief.last_sign) = (now, now);
        }
        let majority = self.majority();
        let Some(heard) = &mut self.thawing else { return };
        heard.insert(from);
        if heard.len() + 1 >= majority {
            self.thawing = None;
            self.schedule(limits::ELECTION_LOOK, now, out);
        }
    }

    // ---- small steps ----

    fn is_other(&self, peer: &PeerId) -> bool {
        *peer != self.config.me && self.config.founding.number_of(peer).is_some()
    }

    fn holder_of(&self, claim: &Claim) -> Option<PeerId> {
        self.config.founding.member(claim.node).map(|member| member.peer)
    }

    /// Whether a member of this epoch can have made it.
    fn is_sane(&self, claim: &Claim) -> bool {
        let counts = (1..=Claim::COUNTER_MAX).contains(&claim.counter);
        counts && claim.epoch == self.config.epoch && self.holder_of(claim).is_some()
    }

    fn majority(&self) -> usize {
        self.config.founding.members.len() / 2 + 1
    }

    fn sees_majority(&self) -> bool {
        self.alive.len() >= self.needed()
    }

    /// How many have to be for it.
    fn needed(&self) -> usize {
        #[cfg(test)]
        if self.variant == Variant::WithoutMajority {
            return 1;
        }
        self.majority()
    }

    fn tenure(&self) -> Millis {
        #[cfg(test)]
        if self.variant == Variant::NoTenure {
            return Millis(0);
        }
        limits::TENURE
    }

    fn own_load(&self) -> u64 {
        self.alive.get(&self.config.me).copied().unwrap_or(0)
    }

    fn others(&self) -> Vec<PeerId> {
        self.alive.keys().filter(|peer| **peer != self.config.me).copied().collect()
    }

    /// Up to `span`, at random, and at least half of it.
    fn about(&mut self, span: Millis) -> Millis {
        let mut bytes = [0; 8];
        self.dice.fill(&mut bytes);
        let half = span.0 / 2;
        Millis(half + u64::from_le_bytes(bytes) % (span.0 - half + 1))
    }
}

/// Whether the first load is so much lower than the second that an office may end for it.
fn clearly_better(load_centi: u64, than_centi: u64) -> bool {
    load_centi.saturating_add(limits::CLEARLY_BETTER_CENTI) <= than_centi
}
