//! The bounds of one check: who calls what where, what may go wrong and how often.

use std::{collections::BTreeMap, sync::OnceLock};

use crate::{
    model::{Millis, ObjectId, PeerId, member::Epoch, register::VerifiedRegister, slots::HashSlot},
    proto::{
        Outbox,
        chunkpaxos::{CallId, ChunkPaxos, Command, Config, Event, Variant},
        placement,
        testing::{founding, peers, register},
    },
};

/// The object's home.
pub(super) const HOME: usize = 0;
/// The other node that proposes.
pub(super) const OTHER: usize = 1;
/// The third acceptor.
pub(super) const THIRD: usize = 2;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// A first version.
    First,
    /// Another first version.
    Rival,
    /// A second version, after [`Ask::First`].
    Second,
    /// Another second version after it.
    RivalSecond,
    /// The current value.
    Read,
    /// The current value, written again.
    Settle,
}

/// What must have happened before a client begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Nothing.
    Start,
    /// The restart.
    Restart,
    /// All calls of this client.
    Client(usize),
}

/// One client: its calls, one after the other, each at a node.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) after: After,
    pub(super) calls: Vec<(usize, Ask)>,
}

/// The bounds of one check.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) variant: Variant,
    pub(super) clients: Vec<Client>,
    /// The node that may die, once.
    pub(super) dies: Option<usize>,
    /// How often any timer may ring.
    pub(super) fires: u8,
    /// How often a node may be so slow that its calls pass their deadlines.
    pub(super) give_ups: u8,
    /// A restarted node has an empty disk and the same identity.
    pub(super) wipe: bool,
    /// Writes take time on every node, not only on one that may die.
    pub(super) slow_disks: bool,
    /// Nodes see each other, and forward calls to the home.
    pub(super) forwards: bool,
    /// What is chosen may be handed to any node by repair, at any time after.
    pub(super) repairs: bool,
    /// Answers to rounds that are over arrive, too.
    pub(super) late_answers: bool,
    /// The other proposer's node number is above the home's.
    pub(super) home_is_first: bool,
}

/// Three nodes, one object and the values that clients propose.
pub(super) struct Cluster {
    pub(super) object: ObjectId,
    /// By index: home, other, third.
    pub(super) peers: [PeerId; 3],
    values: [VerifiedRegister; 4],
}

pub(super) fn client_of(call: CallId) -> usize {
    call.0 as usize
}

/// A client that begins at any time.
pub(super) fn client(calls: &[(usize, Ask)]) -> Client {
    Client { after: After::Start, calls: calls.to_vec() }
}

impl Scenario {
    pub(super) fn new(name: &'static str, clients: Vec<Client>) -> Self {
        Self {
            name,
            variant: Variant::Right,
            clients,
            dies: None,
            fires: 0,
            give_ups: 0,
            wipe: false,
            slow_disks: false,
            forwards: false,
            repairs: false,
            late_answers: false,
            home_is_first: true,
        }
    }

    /// Whether a request that an acceptor refuses now is refused for ever.
    pub(super) fn forgets_requests(&self) -> bool {
        !self.wipe && self.variant != Variant::ImplicitWithoutEmptyCheck
    }

    pub(super) fn has_fast_disk(&self, node: usize) -> bool {
        !self.slow_disks && self.dies != Some(node)
    }
}

impl Cluster {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let all = peers(3);
        let home = if scenario.home_is_first { all[0] } else { all[2] };
        let others: Vec<PeerId> = all.iter().copied().filter(|peer| *peer != home).collect();
        let fresh = fresh();
        let is_its = |object: &ObjectId| {
            let keepers = &fresh.view(HashSlot::of(object)).keepers;
            placement::home(Epoch::FOUNDING, &keepers.acceptors, object) == Some(home)
        };
        let object = (0..=255).map(|n| ObjectId([n; 32])).find(is_its).expect("an object of this home");
        let first = register(object, None, 1);
        let rival = register(object, None, 2);
        let second = register(object, Some(&first), 3);
        let rival_second = register(object, Some(&first), 4);
        Self { object, peers: [home, others[0], others[1]], values: [first, rival, second, rival_second] }
    }

    pub(super) fn index(&self, peer: &PeerId) -> usize {
        self.peers.iter().position(|p| p == peer).expect("a message to one of the three")
    }

    pub(super) fn command(&self, scenario: &Scenario, client: usize, number: usize) -> Command {
        let propose = |n: usize| Command::Propose { value: self.values[n].clone() };
        match scenario.clients[client].calls[number].1 {
            Ask::First => propose(0),
            Ask::Rival => propose(1),
            Ask::Second => propose(2),
            Ask::RivalSecond => propose(3),
            Ask::Read => Command::Read,
            Ask::Settle => Command::Settle,
        }
    }

    /// A machine that has just started.
    pub(super) fn machine(&self, scenario: &Scenario, node: usize, boot: u64) -> ChunkPaxos {
        let mut machine = fresh().clone();
        (machine.config.me, machine.config.boot) = (self.peers[node], boot);
        machine.config.variant = scenario.variant;
        for peer in self.peers.iter().filter(|_| scenario.forwards) {
            let event = Event::Reachable { peer: *peer, reachable: true };
            machine.handle(Millis(0), event, &mut Outbox::new());
        }
        machine
    }
}

/// A new machine of some node; but for its name it is that of any other, and to find all slots takes long.
fn fresh() -> &'static ChunkPaxos {
    static FRESH: OnceLock<ChunkPaxos> = OnceLock::new();
    FRESH.get_or_init(|| {
        let (founding, epoch) = (founding(3), Epoch::FOUNDING);
        let me = founding.members[0].peer;
        let (fences, variant) = (BTreeMap::new(), Variant::Right);
        ChunkPaxos::new(Config { me, founding, epoch, boot: 1, fences, seed: [7; 32], variant })
    })
}
