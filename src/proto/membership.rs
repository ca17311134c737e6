//! Who is here: a view made of the members' own heartbeats, confirmed by probes. Only hints: nothing
//! durable, and a dead node loses its tasks, never its vote.

use std::collections::{BTreeMap, BTreeSet};

use serde_tuple::{Deserialize_tuple, Serialize_tuple};

use crate::{
    model::{
        Incarnation, Millis, PeerId,
        codec::{self, CodecError},
        limits,
        member::{Epoch, Founding},
        rpc::NodeState,
        task::Claim,
    },
    proto::Outbox,
};

/// Of the heartbeat's format: version 2 has tasks and claims.
const VERSION: u64 = 2;

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
    /// For people.
    pub name: String,
    /// Random bytes, for the choice of those who probe for us.
    pub seed: [u8; 32],
}

/// What a member says of itself every 300 ms, by gossip. Under 1 KiB encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct Message {
    version: u64,
    /// Who speaks; counts only if the gossip's author is the same.
    pub node: PeerId,
    /// Its disk.
    pub incarnation: Incarnation,
    /// Its start.
    pub boot: u64,
    /// Grows within a start.
    pub sequence: u64,
    /// How many promises its disk has made durable, ever; put in by the conductor as the heartbeat leaves,
    /// and of no meaning here. See [`crate::model::hello::KnownPeer`].
    pub promises: u64,
    /// Its membership.
    pub epoch: Epoch,
    /// Its load and room.
    pub vitals: Vitals,
    /// The claim to be the coordinator that it goes by; put in by the conductor, and of no meaning here. See
    /// [`crate::proto::election`].
    pub claim: Option<Claim>,
    /// Names the tasks that it knows; put in by the conductor, too. See [`crate::proto::history`].
    pub tasks_digest: u64,
    /// For people.
    pub name: String,
    /// Addresses at which it listens; for display.
    pub addrs: Vec<String>,
}

/// How a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct Vitals {
    /// Load in hundredths of a point, 0 to 10,000; lower is better.
    pub load_centi: u64,
    /// Bytes that it stores.
    pub used_bytes: u64,
    /// Bytes that it may store.
    pub capacity_bytes: u64,
    /// Tasks that it has in hand.
    pub tasks: u64,
    /// Tasks that it works on at once.
    pub slots: u64,
    /// Tasks that it has in hand at most.
    pub places: u64,
}

impl Message {
    /// The encoded form; at most [`limits::GOSSIP_BYTES_MAX`], for which trailing addresses are left out.
    pub fn encode(&self) -> Vec<u8> {
        let mut shorter = self.clone();
        loop {
            let bytes = codec::encode(&shorter);
            if bytes.len() <= limits::GOSSIP_BYTES_MAX || shorter.addrs.pop().is_none() {
                return bytes;
            }
        }
    }

    /// Reads the encoded form.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let message: Self = codec::decode(bytes, limits::GOSSIP_BYTES_MAX)?;
        codec::check_version(message.version, VERSION)?;
        if message.name.len() > limits::DISPLAY_NAME_BYTES_MAX
            || message.addrs.len() > limits::KNOWN_ADDRESSES_MAX
        {
            return Err(CodecError::Malformed("a long name or too many addresses".into()));
        }
        Ok(message)
    }
}

/// What happens to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node listens: begin. Handed in once, first.
    Start,
    /// A heartbeat whose author gossip has authenticated.
    Heard {
        /// The author, not who passed it on.
        author: PeerId,
        /// What it says.
        message: Message,
    },
    /// Any other sign of life straight from this peer: a lane frame, a fresh connection, an answer.
    SignOfLife {
        /// From whom.
        peer: PeerId,
    },
    /// What came of a probe.
    Probed {
        /// Who was probed.
        peer: PeerId,
        /// Through whom; none = directly.
        via: Option<PeerId>,
        /// Whether it answered.
        reached: bool,
    },
    /// This node's own state changed, for the next heartbeat.
    Vitals {
        /// Load and room.
        vitals: Vitals,
        /// Where it listens.
        addrs: Vec<String>,
    },
    /// An armed timer is due.
    Timer(Timer),
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Publish this heartbeat by gossip.
    Publish(Message),
    /// Ask this member whether it is there (`Request::Probe`), and report [`Event::Probed`].
    Probe {
        /// Whom.
        peer: PeerId,
    },
    /// Ask `via` whether it reaches `peer` (`Request::ProbeThrough`), and report [`Event::Probed`].
    ProbeThrough {
        /// Through whom.
        via: PeerId,
        /// Whom.
        peer: PeerId,
    },
    /// Hand in this timer at or after `at`; replaces its earlier arming.
    Arm {
        /// When.
        at: Millis,
        /// Which.
        timer: Timer,
    },
    /// Something that a person cares about.
    Publicise(Fact),
}

/// A change in the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Heard for the first time.
    Alive(PeerId),
    /// Silent; being probed.
    Suspect(PeerId),
    /// Silent, and no probe reached it.
    Dead(PeerId),
    /// Heard again after it was suspect or dead.
    Back(PeerId),
}

/// The machine's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Send a heartbeat and look who is silent.
    Beat,
}

/// One member as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Alive, suspect, dead, or never heard of.
    pub state: NodeState,
    /// The last heartbeat, if any.
    pub last: Option<Message>,
}

/// The view of one node.
#[derive(Debug)]
pub struct Membership {
    config: Config,
    entries: BTreeMap<PeerId, Entry>,
    sequence: u64,
    vitals: Vitals,
    addrs: Vec<String>,
    /// When the timer was to ring.
    beat_due: Option<Millis>,
    /// Until then this node was late itself, and accuses nobody.
    doubts_itself_until: Millis,
    ignored: u64,
    dice: blake3::OutputReader,
}

#[derive(Debug)]
struct Entry {
    seen: Seen,
    last_life: Millis,
    probe: Option<Probing>,
}

/// A suspicion being checked.
#[derive(Debug)]
struct Probing {
    indirect: bool,
    began: Millis,
    /// Through whom no answer has come yet; none = directly.
    outstanding: BTreeSet<Option<PeerId>>,
}

impl Membership {
    /// Nobody has been heard of yet but this node.
    pub fn new(config: Config) -> Self {
        let unknown = || Seen { state: NodeState::Unknown, last: None };
        let entry = |_| Entry { seen: unknown(), last_life: Millis(0), probe: None };
        let mut entries: BTreeMap<PeerId, Entry> =
            config.founding.members.iter().map(|m| (m.peer, entry(m))).collect();
        if let Some(own) = entries.get_mut(&config.me) {
            own.seen.state = NodeState::Alive;
        }
        let dice = blake3::Hasher::new_keyed(&config.seed).finalize_xof();
        Self {
            config,
            entries,
            sequence: 0,
            vitals: Vitals::default(),
            addrs: Vec::new(),
            beat_due: None,
            doubts_itself_until: Millis(0),
            ignored: 0,
            dice,
        }
    }

    /// Takes one event in and says what to do.
    pub fn handle(&mut self, now: Millis, event: Event, out: &mut Outbox<Action>) {
        match event {
            Event::Start => {
                self.entries.values_mut().for_each(|entry| entry.last_life = now);
                self.beat(now, out);
            }
            Event::Heard { author, message } => self.on_heard(author, message, now, out),
            Event::SignOfLife { peer } => self.on_life(peer, now, out),
            Event::Probed { peer, via, reached } => self.on_probed(peer, via, reached, now, out),
            Event::Vitals { vitals, addrs } => {
                self.vitals = vitals;
                self.addrs = addrs;
                self.addrs.truncate(limits::KNOWN_ADDRESSES_MAX);
            }
            Event::Timer(Timer::Beat) => self.on_beat(now, out),
        }
    }

    /// Every member with its state, this node among them, by PeerId.
    pub fn view(&self) -> impl Iterator<Item = (&PeerId, &Seen)> {
        self.entries.iter().map(|(peer, entry)| (peer, &entry.seen))
    }

    /// Whether this member counts as usable: heard of, and neither suspect nor dead.
    pub fn is_alive(&self, peer: &PeerId) -> bool {
        self.entries.get(peer).is_some_and(|entry| entry.seen.state == NodeState::Alive)
    }

    /// Heartbeats thrown away: not a member, another incarnation, not newer.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    // ---- signs of life ----

    fn on_heard(&mut self, author: PeerId, message: Message, now: Millis, out: &mut Outbox<Action>) {
        let member = self.config.founding.members.iter().find(|member| member.peer == author);
        let known = member.is_some_and(|member| member.incarnation == message.incarnation);
        let newer = self.entries.get(&author).is_some_and(|entry| {
            let last = entry.seen.last.as_ref();
            last.is_none_or(|last| (message.boot, message.sequence) > (last.boot, last.sequence))
        });
        let fits = message.node == author && author != self.config.me && message.epoch == self.config.epoch;
        if !(known && newer && fits) {
            self.ignored += 1;
            return;
        }
        if let Some(entry) = self.entries.get_mut(&author) {
            entry.seen.last = Some(message);
        }
        self.on_life(author, now, out);
    }

    fn on_life(&mut self, peer: PeerId, now: Millis, out: &mut Outbox<Action>) {
        let Some(entry) = self.entries.get_mut(&peer).filter(|_| peer != self.config.me) else { return };
        entry.last_life = now;
        entry.probe = None;
        let before = std::mem::replace(&mut entry.seen.state, NodeState::Alive);
        match before {
            NodeState::Alive => {}
            NodeState::Unknown => out.push(Action::Publicise(Fact::Alive(peer))),
            NodeState::Suspect | NodeState::Dead => out.push(Action::Publicise(Fact::Back(peer))),
        }
    }

    fn on_probed(
        &mut self,
        peer: PeerId,
        via: Option<PeerId>,
        reached: bool,
        now: Millis,
        out: &mut Outbox<Action>,
    ) {
        let Some(probe) = self.entries.get_mut(&peer).and_then(|entry| entry.probe.as_mut()) else { return };
        if !probe.outstanding.remove(&via) {
            return;
        }
        if reached {
            return self.on_life(peer, now, out);
        }
        if probe.outstanding.is_empty() {
            self.on_probe_failed(peer, now, out);
        }
    }

    // ---- silence ----

    fn on_beat(&mut self, now: Millis, out: &mut Outbox<Action>) {
        let lateness = self.beat_due.map_or(Millis(0), |due| now.since(due));
        if lateness > limits::OWN_LATENESS_MAX {
            self.doubts_itself_until = now + limits::SUSPECT_AFTER;
        }
        self.beat(now, out);
        if now < self.doubts_itself_until {
            return;
        }
        let silent = self.entries.iter().filter(|(peer, entry)| {
            **peer != self.config.me
                && entry.probe.is_none()
                && entry.seen.state != NodeState::Dead
                && now.since(entry.last_life) >= limits::SUSPECT_AFTER
        });
        let silent: Vec<PeerId> = silent.map(|(peer, _)| *peer).collect();
        silent.into_iter().for_each(|peer| self.suspect(peer, now, out));
        let overdue = self.entries.iter().filter(|(_, entry)| {
            entry.probe.as_ref().is_some_and(|probe| now.since(probe.began) >= limits::PROBE_TIMEOUT)
        });
        let overdue: Vec<PeerId> = overdue.map(|(peer, _)| *peer).collect();
        overdue.into_iter().for_each(|peer| self.on_probe_failed(peer, now, out));
    }

    fn suspect(&mut self, peer: PeerId, now: Millis, out: &mut Outbox<Action>) {
        let Some(entry) = self.entries.get_mut(&peer) else { return };
        entry.seen.state = NodeState::Suspect;
        entry.probe = Some(Probing { indirect: false, began: now, outstanding: BTreeSet::from([None]) });
        out.push(Action::Publicise(Fact::Suspect(peer)));
        out.push(Action::Probe { peer });
    }

    /// After the direct probe the indirect ones; after those it is dead.
    fn on_probe_failed(&mut self, peer: PeerId, now: Millis, out: &mut Outbox<Action>) {
        let helpers = self.helpers(&peer);
        let Some(entry) = self.entries.get_mut(&peer) else { return };
        let Some(probe) = entry.probe.take() else { return };
        if probe.indirect || helpers.is_empty() {
            entry.seen.state = NodeState::Dead;
            return out.push(Action::Publicise(Fact::Dead(peer)));
        }
        let outstanding = helpers.iter().map(|via| Some(*via)).collect();
        entry.probe = Some(Probing { indirect: true, began: now, outstanding });
        helpers.into_iter().for_each(|via| out.push(Action::ProbeThrough { via, peer }));
    }

    /// Members that live, in random order: those who probe for us.
    fn helpers(&mut self, suspect: &PeerId) -> Vec<PeerId> {
        let alive = self.entries.iter().filter(|(peer, entry)| {
            **peer != self.config.me && *peer != suspect && entry.seen.state == NodeState::Alive
        });
        let mut alive: Vec<(u64, PeerId)> = alive.map(|(peer, _)| (0, *peer)).collect();
        for (rank, _) in &mut alive {
            let mut bytes = [0; 8];
            self.dice.fill(&mut bytes);
            *rank = u64::from_le_bytes(bytes);
        }
        alive.sort();
        alive.into_iter().take(limits::INDIRECT_PROBES).map(|(_, peer)| peer).collect()
    }

    fn beat(&mut self, now: Millis, out: &mut Outbox<Action>) {
        self.sequence += 1;
        let own = self.config.founding.members.iter().find(|member| member.peer == self.config.me);
        let message = Message {
            version: VERSION,
            node: self.config.me,
            incarnation: own.map_or(Incarnation::ZERO, |member| member.incarnation),
            boot: self.config.boot,
            sequence: self.sequence,
            promises: 0,
            epoch: self.config.epoch,
            vitals: self.vitals,
            claim: None,
            tasks_digest: 0,
            name: shortened(&self.config.name),
            addrs: self.addrs.clone(),
        };
        if let Some(entry) = self.entries.get_mut(&self.config.me) {
            entry.last_life = now;
            entry.seen.last = Some(message.clone());
        }
        out.push(Action::Publish(message));
        let at = now + limits::HEARTBEAT;
        self.beat_due = Some(at);
        out.push(Action::Arm { at, timer: Timer::Beat });
    }
}

fn shortened(name: &str) -> String {
    let end = name.floor_char_boundary(limits::DISPLAY_NAME_BYTES_MAX);
    name[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::member::NodeNumber,
        proto::testing::{founding, hex, incarnation, peers},
    };

    fn machine(count: usize) -> Membership {
        let founding = founding(count);
        let config = Config {
            me: peers(count)[0],
            founding,
            epoch: Epoch::FOUNDING,
            boot: 3,
            name: "desk".into(),
            seed: [1; 32],
        };
        Membership::new(config)
    }

    fn handle(machine: &mut Membership, now: u64, event: Event) -> Vec<Action> {
        let mut out = Outbox::new();
        machine.handle(Millis(now), event, &mut out);
        let quiet = |action: &Action| !matches!(action, Action::Publish(_) | Action::Arm { .. });
        out.drain().filter(quiet).collect()
    }

    fn heard(count: usize, from: usize, boot: u64, sequence: u64) -> Event {
        let node = peers(count)[from];
        let message = Message {
            version: VERSION,
            node,
            incarnation: incarnation(&node),
            boot,
            sequence,
            promises: 300,
            epoch: Epoch::FOUNDING,
            vitals: Vitals {
                load_centi: 2000,
                used_bytes: 7,
                capacity_bytes: 9,
                tasks: 1,
                slots: 2,
                places: 4,
            },
            claim: Some(Claim { epoch: Epoch::FOUNDING, counter: 5, node: NodeNumber(1) }),
            tasks_digest: 77,
            name: "attic".into(),
            addrs: vec!["/ip4/127.0.0.1/udp/4117/quic-v1".into()],
        };
        Event::Heard { author: node, message }
    }

    fn beat(machine: &mut Membership, from: u64, to: u64) -> Vec<(u64, Action)> {
        let mut all = Vec::new();
        for now in (from..=to).step_by(300) {
            all.extend(
                handle(machine, now, Event::Timer(Timer::Beat)).into_iter().map(|action| (now, action)),
            );
        }
        all
    }

    #[test]
    fn silence_is_suspected_probed_directly_then_through_two_and_only_then_dead() {
        let mut view = machine(4);
        handle(&mut view, 0, Event::Start);
        let p = peers(4);
        for (from, peer) in p.iter().enumerate().skip(1) {
            assert_eq!(handle(&mut view, 0, heard(4, from, 1, 1)), [Action::Publicise(Fact::Alive(*peer))]);
        }
        let mut all = Vec::new();
        for round in 1..12 {
            for from in [1, 2] {
                handle(&mut view, round * 300 - 1, heard(4, from, 1, 1 + round));
            }
            all.extend(beat(&mut view, round * 300, round * 300));
        }
        let suspect = (1200, Action::Publicise(Fact::Suspect(p[3])));
        assert_eq!(all[..2], [suspect, (1200, Action::Probe { peer: p[3] })]);
        let through: BTreeSet<PeerId> = all[2..4]
            .iter()
            .map(|(at, action)| match action {
                Action::ProbeThrough { via, peer } if *peer == p[3] && *at == 1800 => *via,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(through, BTreeSet::from([p[1], p[2]]));
        assert_eq!(all[4..], [(2400, Action::Publicise(Fact::Dead(p[3])))]);
        assert!(!view.is_alive(&p[3]) && view.is_alive(&p[1]));
        assert_eq!(
            handle(&mut view, 4000, Event::SignOfLife { peer: p[3] }),
            [Action::Publicise(Fact::Back(p[3]))]
        );
    }

    #[test]
    fn one_probe_that_reaches_it_is_enough() {
        for via in [None, Some(1)] {
            let mut view = machine(3);
            let p = peers(3);
            handle(&mut view, 0, Event::Start);
            handle(&mut view, 0, heard(3, 1, 1, 1));
            handle(&mut view, 0, heard(3, 2, 1, 1));
            beat(&mut view, 300, 900);
            handle(&mut view, 1000, heard(3, 1, 1, 2));
            beat(&mut view, 1200, 1200);
            if via.is_some() {
                let actions =
                    handle(&mut view, 1201, Event::Probed { peer: p[2], via: None, reached: false });
                assert_eq!(actions, [Action::ProbeThrough { via: p[1], peer: p[2] }]);
            }
            let stranger = Event::Probed { peer: p[2], via: Some(p[0]), reached: true };
            assert!(handle(&mut view, 1202, stranger).is_empty(), "nobody asked it");
            let reached = Event::Probed { peer: p[2], via: via.map(|v: usize| p[v]), reached: true };
            assert_eq!(handle(&mut view, 1203, reached), [Action::Publicise(Fact::Back(p[2]))]);
        }
    }

    #[test]
    fn a_late_node_doubts_itself_first() {
        let mut view = machine(3);
        handle(&mut view, 0, Event::Start);
        handle(&mut view, 0, heard(3, 1, 1, 1));
        handle(&mut view, 0, heard(3, 2, 1, 1));
        assert!(beat(&mut view, 5000, 5000).is_empty(), "it slept for five seconds");
        handle(&mut view, 5100, heard(3, 1, 1, 2));
        let later = beat(&mut view, 5300, 6200);
        let accused: Vec<&Action> = later.iter().map(|(_, action)| action).collect();
        assert_eq!(
            accused,
            [&Action::Publicise(Fact::Suspect(peers(3)[2])), &Action::Probe { peer: peers(3)[2] }]
        );
        assert_eq!(later[0].0, 6200);
    }

    #[test]
    fn only_a_members_own_newer_heartbeat_counts() {
        let mut view = machine(3);
        handle(&mut view, 0, Event::Start);
        handle(&mut view, 0, heard(3, 1, 2, 5));
        let Event::Heard { message, .. } = heard(3, 2, 1, 1) else { unreachable!("it was made so") };
        let by_another = Event::Heard { author: peers(3)[1], message: message.clone() };
        let wiped = Message { incarnation: Incarnation([9; 16]), ..message.clone() };
        let stranger = Message { node: peers(5)[4], ..message };
        let bad = [
            heard(3, 1, 2, 5),
            heard(3, 1, 1, 9),
            by_another,
            Event::Heard { author: peers(3)[2], message: wiped },
            Event::Heard { author: stranger.node, message: stranger },
        ];
        for (index, event) in bad.into_iter().enumerate() {
            assert!(handle(&mut view, 1, event).is_empty());
            assert_eq!(view.ignored(), index as u64 + 1);
        }
        handle(&mut view, 2, heard(3, 1, 3, 1));
        assert_eq!(view.ignored(), 5);
        let seen: Vec<NodeState> = view.view().map(|(_, seen)| seen.state).collect();
        assert_eq!(seen, [NodeState::Alive, NodeState::Alive, NodeState::Unknown]);
    }

    #[test]
    fn a_heartbeat_fits_into_gossip_and_survives_it() {
        let Event::Heard { mut message, .. } = heard(2, 1, 1, 1) else { unreachable!("it was made so") };
        assert_eq!(Message::decode(&message.encode()), Ok(message.clone()));
        assert_eq!(include_str!("../../tests/vectors/heartbeat.txt").trim_end(), hex(&message.encode()));
        message.addrs = vec!["a".repeat(300); limits::KNOWN_ADDRESSES_MAX];
        let fitted = Message::decode(&message.encode()).expect("what was encoded");
        assert_eq!(fitted.addrs.len(), 3, "three of 300 bytes and the rest fit into 1 KiB");
        message.addrs = vec!["a".into(); limits::KNOWN_ADDRESSES_MAX + 1];
        assert!(Message::decode(&message.encode()).is_err());
    }
}
