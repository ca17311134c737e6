//! What must hold of any bytes that other nodes send to the machines, or that lie on a disk for them.
//!
//! For fuzzers and property tests only: no program is built with it. What decodes is handed to a machine,
//! too: whatever a member says, it is ignored or answered, never a panic.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::LazyLock,
};

use super::{
    Outbox,
    chunkpaxos::{self, AcceptorRecord, Ballot, ChunkPaxos},
    election::{self, Election},
    founding::{self, FoundingMachine, FoundingRecord},
    history::{self, History},
    membership::{self, Membership},
    placement::SlotKeepers,
};
use crate::model::{
    FoundingId, Incarnation, Millis, ObjectId, PeerId, codec,
    fuzzing::canonical,
    limits,
    member::{Epoch, Founding, Member, NodeNumber},
    register::{RawRegister, VerifiedRegister},
    slots::HashSlot,
    task::{Claim, Phase, TaskKind, TaskRecord},
};

/// Events that one message may lead to before it has to be quiet.
const STEPS_MAX: usize = 256;

/// Three nodes; the first is the one that hears.
static CLUSTER: LazyLock<Founding> = LazyLock::new(|| {
    let member = |number: u64| {
        let seed = *blake3::hash(&number.to_le_bytes()).as_bytes();
        let keys = libp2p_identity::Keypair::ed25519_from_bytes(seed).expect("32 bytes are a key");
        let peer = keys.public().to_peer_id();
        let hash = blake3::hash(&peer.to_bytes());
        let (head, _) = hash.as_bytes().split_first_chunk::<16>().expect("a hash has 32 bytes");
        Member { peer, incarnation: Incarnation(*head) }
    };
    Founding::new(FoundingId([1; 16]), (0..3).map(member).collect())
});

/// The peer that hears and the one that speaks.
fn two() -> (PeerId, PeerId) {
    (CLUSTER.members[0].peer, CLUSTER.members[1].peer)
}

// ---- ChunkPaxos ----

/// The frames of a lane, one after the other: messages, whose registers `verify` checks before the machine
/// hears of them. Whether it heard of any.
pub fn lane_messages(frames: &[&[u8]], verify: impl Fn(&RawRegister) -> Option<VerifiedRegister>) -> bool {
    let messages: Vec<_> = frames.iter().filter_map(|frame| lane_message(frame, &verify)).collect();
    let some = !messages.is_empty();
    if some {
        hear(messages);
    }
    some
}

fn lane_message(
    bytes: &[u8],
    verify: impl Fn(&RawRegister) -> Option<VerifiedRegister>,
) -> Option<chunkpaxos::Message> {
    type Raw = chunkpaxos::Message<RawRegister>;
    let encode = |(promises, message): &(u64, Raw)| message.encode(*promises);
    let (promises, message) = canonical(bytes, Raw::decode, encode)?;
    let carries = message.register().is_some();
    let mut asked = 0;
    let verified = message.try_map(|raw| {
        asked += 1;
        verify(&raw).ok_or(())
    });
    assert_eq!(asked, usize::from(carries), "a register that nobody verifies, or one that is there twice");
    let message = verified.ok()?;
    assert_eq!(message.encode(promises), bytes, "a verified register is written in another way");
    Some(message)
}

/// Lets a fresh machine hear these, and do what it wants done; all its writes and reads succeed.
fn hear(messages: Vec<chunkpaxos::Message>) {
    use chunkpaxos::{Action, Event};
    let (me, from) = two();
    let mut machine = ChunkPaxos::new(chunkpaxos::Config {
        me,
        founding: CLUSTER.clone(),
        epoch: Epoch::FOUNDING,
        boot: 3,
        fences: Default::default(),
        seed: [1; 32],
        variant: chunkpaxos::Variant::Right,
    });
    let steps_max = STEPS_MAX * (1 + messages.len());
    // A handover of the first message's slot is under way, to wherever that message says.
    let mut events: VecDeque<Event> =
        messages.first().map(|first| order(first, me, from)).into_iter().collect();
    events.extend(messages.into_iter().map(|message| Event::Message { from, message }));
    let mut disk = BTreeMap::new();
    let mut out = Outbox::new();
    for step in 0.. {
        let Some(event) = events.pop_front() else { return };
        assert!(step < steps_max, "a few messages, and no end of it");
        machine.handle(Millis(step as u64), event, &mut out);
        for action in out.drain() {
            match action {
                Action::Load { object } => {
                    let record = disk.get(&object).cloned();
                    events.push_back(Event::Loaded { object, record });
                }
                Action::Write { object, record, then, .. } => {
                    assert!(record.encode().len() <= chunkpaxos::RECORD_BYTES_MAX);
                    disk.insert(object, record);
                    let own = then.into_iter().filter(|send| send.to == me);
                    events.extend(own.map(|send| Event::Message { from: me, message: send.message }));
                }
                Action::WriteFence { then, .. } => {
                    let own = then.into_iter().filter(|send| send.to == me);
                    events.extend(own.map(|send| Event::Message { from: me, message: send.message }));
                }
                Action::Scan { slot, after } => {
                    let is_next = |object: &&ObjectId| HashSlot::of(object) == slot && Some(**object) > after;
                    let objects = disk.keys().filter(is_next).copied().collect();
                    let page = Some(chunkpaxos::SlotPage { objects, more: false });
                    events.push_back(Event::Scanned { slot, after, page });
                }
                Action::Send(send) => assert_ne!(send.to, me),
                Action::Arm { .. } | Action::Answer { .. } | Action::Installed { .. } => {}
            }
        }
    }
}

/// That the message's slot goes to these two, in the epoch that the message says.
fn order(message: &chunkpaxos::Message, me: PeerId, from: PeerId) -> chunkpaxos::Event {
    chunkpaxos::Event::Order(chunkpaxos::Order::Handover {
        slot: HashSlot::of(&message.object),
        to: message.epoch,
        attempt: 1,
        installer: from,
        boot: 3,
        keepers: SlotKeepers { acceptors: vec![me], mirror: Some(from) },
    })
}

/// What lies on disk for the acceptor and the founding, and the ballot that travels in listings.
pub fn stored_records(bytes: &[u8]) -> bool {
    type Raw = AcceptorRecord<RawRegister>;
    let record = canonical(bytes, Raw::decode, Raw::encode);
    if let Some(record) = &record {
        assert!(!record.is_empty() && record.floor().is_some_and(|ballot| ballot.is_sane()));
    }
    let ballot = canonical(bytes, Ballot::decode, Ballot::encode);
    assert!(ballot.is_none_or(|ballot| ballot.is_sane()));
    let founding = canonical(bytes, FoundingRecord::decode, FoundingRecord::encode);
    if let Some(founding) = &founding {
        let mut machine = founding_machine(Some(founding.clone()));
        let mut out = Outbox::new();
        machine.handle(Millis(0), founding::Event::Start, &mut out);
    }
    record.is_some() || ballot.is_some() || founding.is_some()
}

// ---- the founding ----

/// What a node with the cluster key says about the founding.
pub fn founding_message(bytes: &[u8]) -> bool {
    let Some(message) = canonical(bytes, founding::Message::decode, founding::Message::encode) else {
        return false;
    };
    let (me, from) = two();
    let mut machine = founding_machine(None);
    let mut out = Outbox::new();
    let said = founding::Event::Message { from, message };
    let tick = founding::Event::Timer(founding::Timer::Tick);
    let mut own = 0;
    for (at, event) in [
        (0, founding::Event::Start),
        (1, founding::Event::Connected { peer: from }),
        (2, said.clone()),
        (3, said.clone()),
        (4000, tick.clone()),
        (4001, said),
        (20_000, tick),
    ] {
        machine.handle(Millis(at), event, &mut out);
        for action in out.drain() {
            match action {
                founding::Action::Send(send) => {
                    assert!(
                        send.to != me && send.message.encode().len() <= limits::FOUNDING_MESSAGE_BYTES_MAX
                    );
                }
                founding::Action::Write { record, then } => {
                    assert_eq!(FoundingRecord::decode(&record.encode()), Ok(record));
                    own += then.iter().filter(|send| send.to == me).count();
                }
                founding::Action::Arm { .. } | founding::Action::Publicise(_) => {}
            }
        }
        // Its writes succeed.
        for _ in 0..std::mem::take(&mut own) {
            let message = founding::Message::Abort { id: FoundingId::ZERO };
            machine.handle(Millis(at), founding::Event::Message { from: me, message }, &mut out);
        }
    }
    true
}

fn founding_machine(record: Option<FoundingRecord>) -> FoundingMachine {
    let own = &CLUSTER.members[0];
    FoundingMachine::new(founding::Config {
        me: own.peer,
        incarnation: own.incarnation,
        expect: CLUSTER.members.len(),
        key_was_there: false,
        record,
        variant: founding::Variant::Right,
        seed: [1; 32],
    })
}

// ---- heartbeats ----

/// A heartbeat, whose author gossip has checked.
pub fn heartbeat(bytes: &[u8]) -> bool {
    let Some(message) = canonical(bytes, membership::Message::decode, membership::Message::encode) else {
        return false;
    };
    assert!(bytes.len() <= limits::GOSSIP_BYTES_MAX && message.addrs.len() <= limits::KNOWN_ADDRESSES_MAX);
    let mut view = Membership::new(membership::Config {
        me: CLUSTER.members[0].peer,
        founding: CLUSTER.clone(),
        epoch: Epoch::FOUNDING,
        boot: 3,
        name: "desk".into(),
        seed: [1; 32],
    });
    let mut out = Outbox::new();
    let author = message.node;
    let is_member = CLUSTER.number_of(&author).is_some();
    // Another member passes it off as its own.
    let other = CLUSTER.members.iter().find(|member| member.peer != author).expect("there are three");
    let mut forged = message.clone();
    forged.incarnation = other.incarnation;
    let forged = membership::Event::Heard { author: other.peer, message: forged };
    let heard = || membership::Event::Heard { author, message: message.clone() };
    for (at, event) in [
        (0, membership::Event::Start),
        (1, forged),
        (2, heard()),
        (3, heard()),
        (400, membership::Event::Timer(membership::Timer::Beat)),
        (4000, membership::Event::Timer(membership::Timer::Beat)),
    ] {
        view.handle(Millis(at), event, &mut out);
    }
    assert!(view.ignored() >= 2, "one heartbeat counts twice, or as another's");
    assert!(is_member || !view.is_alive(&author), "a stranger is alive");
    // It knows of itself without any gossip, and believes none about itself.
    assert!(author != CLUSTER.members[0].peer || view.ignored() == 3, "it hears itself");
    assert_eq!(view.view().count(), CLUSTER.members.len());
    true
}

// ---- the election ----

/// What a member says about the coordinator, asked and told, to a node out of office and to one in office.
pub fn election(bytes: &[u8]) -> bool {
    use election::{Event, Message, Timer};
    let Some(message) = canonical(bytes, Message::decode, Message::encode) else { return false };
    assert!(bytes.len() <= limits::ELECTION_MESSAGE_BYTES_MAX);
    let (me, from) = two();
    let alive: BTreeMap<PeerId, u64> = CLUSTER.members.iter().map(|member| (member.peer, 2000)).collect();
    for is_elected in [false, true] {
        let (founding, epoch) = (CLUSTER.clone(), Epoch::FOUNDING);
        let mut machine =
            Election::new(election::Config { me, founding, epoch, boot: 3, kept: 0, seed: [1; 32] });
        let asked = || Event::Asked { from, call: 9, message: message.clone() };
        let told = || Event::Told { from, message: message.clone() };
        let answered = || Event::Answered { from, answer: Some(message.clone()) };
        hear_election(&mut machine, 0, Event::View { alive: alive.clone() });
        hear_election(&mut machine, 300, Event::Timer(Timer::Tick));
        // It asks now; the other agrees, or says what was read.
        let asks = hear_election(&mut machine, 900, Event::Timer(Timer::Stand));
        let counter = asks.expect("it is the best, or the second or third and waits no longer");
        if is_elected {
            let verdict = election::Verdict::Agrees;
            let (asked, known, load_centi) = (counter, None, 1);
            let agrees = Message::Alive { epoch, asked, load_centi, counter, known, verdict };
            hear_election(&mut machine, 901, Event::Answered { from, answer: Some(agrees) });
            assert!(machine.in_office().is_some(), "two of three agree");
        }
        for (at, event) in [
            (902, answered()),
            (903, asked()),
            (904, told()),
            (905, asked()),
            (1200, Event::Timer(Timer::Answers)),
            (1201, Event::View { alive: alive.clone() }),
            (1202, Event::Dead { peer: from }),
            (1203, told()),
            (1204, Event::Leave),
            (1205, asked()),
        ] {
            hear_election(&mut machine, at, event);
            let held = machine.claim();
            assert!(held.is_none_or(|claim| claim.epoch == epoch && claim.counter > 0));
            assert!(held.is_none() || machine.reason(PeerId::to_string).is_some_and(|text| !text.is_empty()));
            assert!(machine.records().len() <= limits::ELECTIONS_KEPT);
        }
        assert_eq!(machine.in_office(), None, "it has left");
    }
    true
}

/// Hands in one event; the counter of the question, if the machine asks one.
fn hear_election(machine: &mut Election, at: u64, event: election::Event) -> Option<u64> {
    use election::{Action, Message};
    let (me, is_question) = (two().0, matches!(event, election::Event::Asked { .. }));
    let (mut counter, mut answers) = (None, 0);
    let mut out = Outbox::new();
    machine.handle(Millis(at), event, &mut out);
    for action in out.drain() {
        let message = match action {
            Action::Ask { to, message } | Action::Tell { to, message } => {
                assert_ne!(to, me, "it talks to itself");
                message
            }
            Action::Answer { call, message } => {
                assert_eq!(call, 9);
                answers += 1;
                message
            }
            Action::Keep { counter } => {
                assert!(counter <= crate::model::task::Claim::COUNTER_MAX);
                continue;
            }
            Action::Arm { .. } | Action::Publicise(_) => continue,
        };
        if let Message::Election { counter: asked, .. } = message {
            counter = Some(asked);
        }
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }
    assert_eq!(answers, usize::from(is_question), "one answer to each question");
    counter
}

// ---- tasks ----

/// A record of a task as gossip carries it, heard and asked for a place for, by a worker that is the
/// coordinator, too.
pub fn task_record(bytes: &[u8]) -> bool {
    use history::{Action, Event};
    let decode = |bytes: &[u8]| codec::decode::<(u64, TaskRecord)>(bytes, limits::GOSSIP_BYTES_MAX);
    let Some((_, record)) = canonical(bytes, decode, codec::encode) else { return false };
    let (me, from) = two();
    let kinds = [record.kind.clone(), TaskKind("hide".into())].into();
    let means = history::Means { slots: 1, queue: 1, kinds };
    let mut machine = History::new(history::Config { me, founding: CLUSTER.clone(), means });
    let claim = Claim { epoch: Epoch::FOUNDING, counter: 1 << 20, node: NodeNumber(0) };
    let worker = history::Worker {
        is_alive: true,
        is_dead: false,
        load_centi: record.payload_bytes,
        tasks: record.rank.attempt,
        slots: record.rank.claim.counter,
        places: record.task.number,
    };
    let is_dead = history::Worker { is_alive: false, is_dead: true, ..worker.clone() };
    let workers = |other: &history::Worker| {
        Event::Workers([(me, worker.clone()), (from, other.clone())].into_iter().collect())
    };
    let (task, rank) = (record.task, record.rank);
    let wish = history::Wish {
        task,
        kind: record.kind.clone(),
        payload_bytes: record.payload_bytes,
        above: Some(rank),
        avoid: vec![task.client; 20],
    };
    let lost = TaskRecord { phase: Phase::Lost, ..record.clone() };
    let call = history::CallId;
    let events = [
        Event::Start,
        Event::Heard { record: record.clone() },
        Event::Reserve { call: call(1), record: record.clone() },
        Event::Received { task, rank },
        Event::Ran { task, rank, answer_bytes: 7 },
        Event::Office { mine: Some(claim), greatest: Some(rank.claim) },
        workers(&worker),
        Event::Submit { call: call(2), wish: wish.clone() },
        Event::Heard { record: lost },
        workers(&is_dead),
        Event::Reserved { from, task, rank, verdict: None },
        Event::Submit { call: call(3), wish },
        Event::Poll { call: call(4), task },
        Event::Cancel { task },
        Event::Office { mine: None, greatest: None },
    ];
    let (mut answered, mut out) = (BTreeSet::new(), Outbox::new());
    for (at, event) in events.into_iter().enumerate() {
        machine.handle(Millis(at as u64), event, &mut out);
        for action in out.drain() {
            match action {
                Action::Answer { call, .. } => assert!(answered.insert(call), "answered twice"),
                Action::Reserve { to, record } => assert!(to != me && record.is_sane()),
                Action::Publish { record } => assert!(record.is_sane()),
                _ => {}
            }
        }
        let (in_hand, _) = machine.in_hand();
        assert!(in_hand <= machine.places() + 1);
    }
    assert_eq!(answered.len(), 4, "one answer to each call");
    let known = machine.standing(&task).record;
    assert!(known.is_none_or(|known| known.is_sane()), "it believes what no node can have said");
    true
}
