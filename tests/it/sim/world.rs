//! The world of one run: the queue of what happens next, the clock, the network, and who is told.
//!
//! One thing happens at a time, in an order that the seed alone decides. It asks no clock and starts no
//! thread; the first thing that must not be ends the run.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tintype::{
    model::{
        BodyId, Incarnation, ObjectId, PeerId,
        member::Founding,
        register::{RawRegister, VerifiedRegister},
        slots::HashSlot,
        task::{Rank, TaskId},
    },
    seal,
};

use super::{
    authority::Authority,
    bodies::{Fetched, Stored},
    client::SimClient,
    dice::Dice,
    faults::{Fault, Plan},
    links::{Links, Party},
    node::{Node, TimerKey},
    oracle::Oracle,
    report::{Tally, Trace},
    tasks::{Beside, Said},
};

/// What crosses the network. All but bodies in the real encoding.
#[derive(Clone)]
pub enum Packet {
    /// A frame of the lane between two members.
    Lane(Vec<u8>),
    /// A heartbeat, and what it says of tasks.
    Gossip(Vec<u8>, Beside),
    /// Anything else about tasks.
    OfTasks(Said),
    /// An rpc question.
    Ask { number: u64, bytes: Vec<u8> },
    /// Its answer.
    Told { number: u64, bytes: Vec<u8> },
    /// Store this and pass it on.
    Store { number: u64, id: BodyId, body: Arc<Vec<u8>>, onward: Vec<usize>, durable: usize },
    /// What came of it.
    Stored { number: u64, stored: Stored },
    /// Give me this body.
    Fetch { number: u64, id: BodyId },
    /// What came of that.
    Fetched { number: u64, fetched: Fetched },
}

/// What happens at some time.
pub enum Thing {
    /// A packet arrives.
    Arrive { from: Party, to: Party, packet: Packet },
    /// What reached a node while it stood still goes on, unless its process has ended meanwhile.
    Held { node: usize, life: u64, thing: Box<Thing> },
    /// A timer of a node's machine rings.
    Ring { node: usize, life: u64, key: TimerKey },
    /// A group of writes is durable.
    Synced { node: usize, life: u64 },
    /// A record was read.
    Loaded { node: usize, life: u64, object: ObjectId },
    /// A page of a slot was read for a handover.
    Scanned { node: usize, life: u64, slot: HashSlot, after: Option<ObjectId> },
    /// A node hears an order of authority.
    Order { node: usize, life: u64 },
    /// Authority looks how its handover goes.
    Decide,
    /// Nobody answers any more.
    Expired { party: Party, life: u64, number: u64 },
    /// Look who is connected with whom.
    LookAtLinks,
    /// Something breaks, or is mended.
    Fault(Fault),
    /// A process begins.
    Start { node: usize },
    /// A client thinks.
    Wake { client: usize, life: u64 },
    /// A client has another task for the cluster.
    Errand { client: usize, life: u64 },
    /// A client's tasks go on.
    ErrandWakes { client: usize, life: u64 },
    /// A worker has done its work.
    Worked { node: usize, life: u64, task: TaskId, rank: Rank },
}

/// How often connections are looked at.
const LOOK_EVERY_MS: u64 = 100;
/// What happens in a run at most; more is an endless loop.
const STEPS_MAX: u64 = 4_000_000;
/// What one process is owed while it stands still; more is lost.
const HELD_MAX: usize = 4096;

/// One run.
pub struct World {
    pub plan: Plan,
    pub dice: Dice,
    pub now: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), Thing>,
    pub nodes: Vec<Node>,
    pub clients: Vec<SimClient>,
    pub links: Links,
    pub authority: Authority,
    pub oracle: Oracle,
    pub tally: Tally,
    pub trace: Trace,
    /// The founding, once some node has it.
    pub founding: Option<Founding>,
    /// Nothing breaks any more.
    pub healed: bool,
    pub healed_at: u64,
    pub failure: Option<String>,
    numbers: u64,
    verified: BTreeMap<[u8; 32], Option<VerifiedRegister>>,
}

impl World {
    pub fn new(seed: u64, plan: Plan, trace: Trace) -> Self {
        let mut dice = Dice::new(seed ^ 0x7469_6e74_7970_6521);
        let peers = peers(plan.nodes);
        let nodes = peers.into_iter().map(|peer| Node::new(peer, Incarnation(dice.bytes()), &mut dice));
        let nodes: Vec<Node> = nodes.collect();
        let oracle = Oracle::new(plan.objects, nodes.len());
        let clients = (0..plan.clients).map(|n| SimClient::new(n, plan.objects)).collect();
        let links = Links::new(plan.weather);
        Self {
            plan,
            dice,
            now: 0,
            order: 0,
            queue: BTreeMap::new(),
            nodes,
            clients,
            links,
            authority: Authority::default(),
            oracle,
            tally: Tally::default(),
            trace,
            founding: None,
            healed: false,
            healed_at: 0,
            failure: None,
            numbers: 0,
            verified: BTreeMap::new(),
        }
    }

    /// The first thing that must not be.
    pub fn fail(&mut self, what: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.failure = Some(format!("at {} ms: {}", self.now, what()));
        }
    }

    pub fn check(&mut self, checked: Result<(), String>) {
        if let Err(what) = checked {
            self.fail(|| what);
        }
    }

    /// A name for a question, used once.
    pub fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub fn after(&mut self, delay_ms: u64, thing: Thing) {
        self.order += 1;
        self.queue.insert((self.now + delay_ms, self.order), thing);
    }

    /// Begins: every node is started, every client thinks, and what the plan wants broken will be.
    pub fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            let delay = self.dice.below(self.plan.start_spread_ms.max(1));
            self.after(delay, Thing::Start { node });
        }
        for client in 0..self.clients.len() {
            let delay = self.dice.between(200, 1500);
            self.after(delay, Thing::Wake { client, life: 0 });
            self.after(2 * delay, Thing::Errand { client, life: 0 });
        }
        for (at, fault) in self.plan.faults.clone() {
            self.after(at, Thing::Fault(fault));
        }
        self.after(0, Thing::LookAtLinks);
    }

    /// Lets everything happen until then, or until something is wrong.
    pub fn run_until(&mut self, end_ms: u64) {
        while self.failure.is_none() {
            let Some(entry) = self.queue.first_entry() else { break };
            if entry.key().0 > end_ms {
                break;
            }
            self.now = entry.key().0;
            let thing = entry.remove();
            self.tally.steps += 1;
            if self.tally.steps > STEPS_MAX {
                return self.fail(|| "it never comes to rest".into());
            }
            self.step(thing);
        }
        self.now = self.now.max(end_ms);
    }

    fn step(&mut self, thing: Thing) {
        if let Some((node, until)) = self.stands_still(&thing) {
            let (delay, life) = (until - self.now, self.nodes[node].life);
            return self.after(delay, Thing::Held { node, life, thing: Box::new(thing) });
        }
        match thing {
            Thing::Held { node, life, thing } if self.lives(node, life) => self.step(*thing),
            Thing::Arrive { from, to, packet } => self.arrive(from, to, packet),
            Thing::Ring { node, life, key } if self.lives(node, life) => self.ring(node, key),
            Thing::Synced { node, life } if self.lives(node, life) => self.synced(node),
            Thing::Loaded { node, life, object } if self.lives(node, life) => self.loaded(node, object),
            Thing::Scanned { node, life, slot, after } if self.lives(node, life) => {
                self.scanned_for_paxos(node, slot, after);
            }
            Thing::Order { node, life } if self.lives(node, life) => self.hear_order(node),
            Thing::Decide => self.decide(),
            Thing::Expired { party: Party::Node(node), life, number } if self.lives(node, life) => {
                self.expired(node, number);
            }
            Thing::Expired { party: Party::Client(client), life, number }
                if self.clients[client].life == life =>
            {
                self.client_expired(client, number);
            }
            Thing::LookAtLinks => self.look_at_links(),
            Thing::Fault(fault) => self.break_something(fault),
            Thing::Start { node } => self.start(node),
            Thing::Wake { client, life } if self.clients[client].life == life => self.client_wakes(client),
            Thing::Errand { client, life } if self.clients[client].life == life => self.next_errand(client),
            Thing::ErrandWakes { client, life } if self.clients[client].life == life => {
                self.errands_wake(client);
            }
            Thing::Worked { node, life, task, rank } if self.lives(node, life) => {
                self.worked(node, task, rank);
            }
            _ => {}
        }
    }

    fn lives(&self, node: usize, life: u64) -> bool {
        self.nodes[node].life == life && self.nodes[node].running.is_some()
    }

    /// Until when whoever this happens to stands still: what reaches it meanwhile reaches it then.
    fn stands_still(&mut self, thing: &Thing) -> Option<(usize, u64)> {
        let node = match thing {
            Thing::Arrive { to: Party::Node(node), .. }
            | Thing::Ring { node, .. }
            | Thing::Synced { node, .. }
            | Thing::Loaded { node, .. }
            | Thing::Scanned { node, .. }
            | Thing::Order { node, .. }
            | Thing::Worked { node, .. }
            | Thing::Expired { party: Party::Node(node), .. } => *node,
            _ => return None,
        };
        let until = self.nodes[node].still_until.filter(|until| *until > self.now)?;
        self.nodes[node].held += 1;
        // A full socket loses what comes after.
        let is_lost = matches!(thing, Thing::Arrive { .. }) && self.nodes[node].held > HELD_MAX;
        (!is_lost).then_some((node, until))
    }

    // ---- the network ----

    /// Puts a packet on the wire, if the two take each other for connected.
    pub fn send(&mut self, from: Party, to: Party, packet: Packet) {
        if !self.links.is_connected(from, to) {
            return;
        }
        self.tally.sent += 1;
        for delay in self.links.delays(from, to, &mut self.dice) {
            let thing = Thing::Arrive { from, to, packet: packet.clone() };
            match (to, &packet) {
                // A reservation goes by rpc, over a connection, and ends with whoever was to hear it. All
                // else here may come to the next process, which is harsher than QUIC is.
                (Party::Node(node), Packet::OfTasks(Said::Reserve { .. })) => {
                    let life = self.nodes[node].life;
                    self.after(delay, Thing::Held { node, life, thing: Box::new(thing) });
                }
                _ => self.after(delay, thing),
            }
        }
    }

    fn arrive(&mut self, from: Party, to: Party, packet: Packet) {
        if self.links.is_cut(from, to) {
            return;
        }
        let (now, trace) = (self.now, &mut self.trace);
        trace.packet(now, from, to, &packet);
        match to {
            Party::Node(node) if self.nodes[node].running.is_some() => self.node_gets(node, from, packet),
            Party::Node(_) => {}
            Party::Client(client) => self.client_gets(client, from, packet),
        }
    }

    fn look_at_links(&mut self) {
        self.after(LOOK_EVERY_MS, Thing::LookAtLinks);
        let nodes = (0..self.nodes.len()).map(Party::Node);
        let clients = (0..self.clients.len()).map(Party::Client);
        let parties: Vec<Party> = nodes.chain(clients).collect();
        for (index, one) in parties.iter().enumerate() {
            for other in &parties[index + 1..] {
                if matches!((one, other), (Party::Client(_), Party::Client(_))) {
                    continue;
                }
                let up = self.is_up(*one) && self.is_up(*other);
                if let Some(change) = self.links.look(self.now, *one, *other, up, &mut self.dice) {
                    self.tell_of_line(change.pair.0, change.pair.1, change.connected);
                }
            }
        }
    }

    fn is_up(&self, party: Party) -> bool {
        match party {
            Party::Node(node) => {
                let node = &self.nodes[node];
                node.running.is_some() && node.still_until.is_none_or(|until| until <= self.now)
            }
            Party::Client(_) => true,
        }
    }

    fn tell_of_line(&mut self, one: Party, other: Party, connected: bool) {
        let now = self.now;
        self.trace.line(now, || format!("{one:?} and {other:?} are connected: {connected}"));
        for (party, peer) in [(one, other), (other, one)] {
            match (party, peer) {
                (Party::Node(node), Party::Node(peer)) => self.line_changed(node, peer, connected),
                (Party::Client(client), Party::Node(_)) => self.client_line_changed(client),
                _ => {}
            }
        }
    }

    /// A process has ended or begun: its old connections end, whoever had one is told.
    pub fn drop_lines(&mut self, party: Party) {
        for other in self.links.forget(party) {
            self.tell_of_line(party, other, false);
        }
    }

    // ---- who is who ----

    pub fn index_of(&self, peer: &PeerId) -> Option<usize> {
        self.nodes.iter().position(|node| node.peer == *peer)
    }

    /// Nodes that this party is connected with.
    pub fn neighbours(&self, party: Party) -> BTreeSet<usize> {
        (0..self.nodes.len()).filter(|node| self.links.is_connected(party, Party::Node(*node))).collect()
    }

    /// The real check of a register, remembered: the same bytes are checked once.
    pub fn verify(&mut self, raw: &RawRegister) -> Option<VerifiedRegister> {
        let hash = *blake3::hash(&raw.0).as_bytes();
        let check = || seal::register::verify(&raw.0).ok();
        self.verified.entry(hash).or_insert_with(check).clone()
    }
}

/// Distinct peers, sorted, the same each time.
fn peers(count: usize) -> Vec<PeerId> {
    let peer = |n: u64| {
        let seed = *blake3::hash(&n.to_le_bytes()).as_bytes();
        let keys = libp2p_identity::Keypair::ed25519_from_bytes(seed).expect("32 bytes are a key");
        keys.public().to_peer_id()
    };
    let mut peers: Vec<PeerId> = (0..count as u64).map(peer).collect();
    peers.sort();
    peers
}
