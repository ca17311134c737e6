//! Random schedules of whole clusters: nodes and clients over a network that loses, repeats and is late, with
//! deaths, restarts without memory, freezes, wrong rumours of deaths, and offices that come and go as they
//! like; and what must hold in every one of them.

mod checks;
mod clients;
mod nodes;

use std::collections::BTreeMap;

use self::{
    checks::Checks,
    clients::{Client, Told},
    nodes::{Node, Packet},
};
use super::{tests::claim, *};
use crate::proto::{
    errand::{End, Question, Reply},
    testing::{Dice, founding, seeds},
};

type Checked = Result<(), String>;

/// When faults end.
const SPAN: u64 = 20_000;
/// By then every task of a living client has ended.
const TASKS_END: u64 = SPAN + 60_000;
/// By then everybody has forgotten everything: a place without a client, an assignment in its stead, the
/// memory of the end, and some more.
const ALL_FORGOTTEN: u64 = TASKS_END + 140_000;
/// What happens in a schedule at most; more is an endless loop.
const STEPS_MAX: u64 = 500_000;
/// How long whoever asks a member for a place waits.
const RESERVE_PATIENCE: u64 = 500;
/// How long a client waits for an answer, and for a transfer that does not move.
const SUBMIT_PATIENCE: u64 = 1000;
const POLL_PATIENCE: u64 = 500;
const STALL: u64 = 500;

#[derive(Debug)]
enum Thing {
    /// A packet comes to a node.
    Node {
        to: usize,
        packet: Packet,
    },
    /// Something comes back to a client.
    Client {
        to: usize,
        told: Told,
    },
    /// A client waits no longer.
    Patience {
        client: usize,
        number: u64,
    },
    /// A node waits no longer for a place.
    NoPlace {
        node: usize,
        life: u64,
        number: u64,
    },
    Tick {
        node: usize,
        life: u64,
    },
    /// A timer that was armed for this time, if it was not armed for another since.
    Hold {
        node: usize,
        life: u64,
        at: u64,
    },
    Wake {
        client: usize,
    },
    Beat {
        node: usize,
    },
    Ran {
        node: usize,
        life: u64,
        task: TaskId,
        rank: Rank,
    },
    Crash {
        node: usize,
    },
    Restart {
        node: usize,
    },
    Freeze {
        node: usize,
        ms: u64,
    },
    Leave {
        node: usize,
    },
    Rumour {
        node: usize,
        about: usize,
        ms: u64,
    },
    Election,
    Office {
        node: usize,
        life: u64,
        serial: u64,
        office: (Option<Claim>, Option<Claim>),
    },
    NewTask {
        client: usize,
    },
    Cancel {
        client: usize,
    },
    ClientDies {
        client: usize,
    },
}

struct World {
    dice: Dice,
    now: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), Thing>,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    peers: Vec<PeerId>,
    /// Questions and transfers of clients, and questions between nodes, each with its number.
    numbers: u64,
    loss: u64,
    healed: bool,
    counter: u64,
    elections: u64,
    steps: u64,
    greatest: Option<Claim>,
    checks: Checks,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let count = 1 + dice.below(5) as usize;
        let clients = 1 + dice.below(4);
        let loss = [0, 2, 10, 30][dice.below(4) as usize];
        let nodes = (0..count).map(|_| Node::new(&mut dice)).collect();
        Self {
            now: 0,
            order: 0,
            queue: BTreeMap::new(),
            nodes,
            clients: (0..clients as usize).map(Client::new).collect(),
            peers: founding(count).members.iter().map(|member| member.peer).collect(),
            numbers: 0,
            loss,
            healed: false,
            counter: 0,
            elections: 0,
            steps: 0,
            greatest: None,
            checks: Checks::default(),
            dice,
        }
    }

    fn at(&mut self, delay: u64, thing: Thing) {
        self.order += 1;
        self.queue.insert((self.now + delay, self.order), thing);
    }

    /// Puts something at a time of the faulty part.
    fn some_time(&mut self, thing: Thing) {
        let delay = self.dice.below(SPAN);
        self.at(delay, thing);
    }

    fn some_node(&mut self) -> usize {
        self.dice.below(self.nodes.len() as u64) as usize
    }

    fn run(mut self) -> Result<Self, String> {
        self.plan()?;
        self.run_until(SPAN)?;
        self.heal()?;
        self.run_until(TASKS_END)?;
        for client in &self.clients {
            client.check_ended()?;
        }
        self.run_until(ALL_FORGOTTEN)?;
        self.check_all_forgotten()?;
        Ok(self)
    }

    fn plan(&mut self) -> Checked {
        for node in 0..self.nodes.len() {
            self.restart(node)?;
            self.at(node as u64 * 70, Thing::Beat { node });
        }
        self.at(0, Thing::Election);
        for _ in 0..self.dice.below(6) {
            self.some_time(Thing::Election);
            let node = self.some_node();
            self.some_time(Thing::Crash { node });
        }
        for _ in 0..self.dice.below(4) {
            let (node, ms) = (self.some_node(), 200 + self.dice.below(8000));
            self.some_time(Thing::Freeze { node, ms });
            let (node, about, ms) = (self.some_node(), self.some_node(), self.dice.below(3000));
            self.some_time(Thing::Rumour { node, about, ms });
        }
        if self.dice.percent(30) {
            let node = self.some_node();
            self.some_time(Thing::Leave { node });
        }
        for client in 0..self.clients.len() {
            let at = self.dice.below(3000);
            self.at(at, Thing::NewTask { client });
            if self.dice.percent(25) {
                self.some_time(Thing::ClientDies { client });
            }
            if self.dice.percent(30) {
                self.some_time(Thing::Cancel { client });
            }
        }
        Ok(())
    }

    fn run_until(&mut self, end: u64) -> Checked {
        while let Some(entry) = self.queue.first_entry() {
            let (at, _) = *entry.key();
            if at > end {
                break;
            }
            let thing = entry.remove();
            self.now = at;
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err(format!("it never comes to rest: {thing:?}"));
            }
            self.step(thing)?;
        }
        self.now = end;
        Ok(())
    }

    /// Nothing goes wrong any more: everybody is up, one is in office, and all know it.
    fn heal(&mut self) -> Checked {
        (self.healed, self.loss) = (true, 0);
        for node in 0..self.nodes.len() {
            self.nodes[node].rumours.clear();
            if self.nodes[node].machine.is_none() || self.nodes[node].is_leaving {
                self.crash(node);
                self.restart(node)?;
            }
        }
        self.elect();
        Ok(())
    }

    fn step(&mut self, thing: Thing) -> Checked {
        if let Some(until) = self.frozen_until(&thing) {
            // It happens when the node stands still no more.
            self.at(until.max(self.now + 1) - self.now, thing);
            return Ok(());
        }
        let is_now = |world: &Self, node: usize, life: u64| world.nodes[node].life == life;
        match thing {
            Thing::Node { to, packet } => self.on_packet(to, packet),
            Thing::Client { to, told } => self.on_told(to, told),
            Thing::Patience { client, number } => self.on_patience(client, number),
            Thing::NoPlace { node, life, number } if is_now(self, node, life) => {
                self.on_place_answer(node, number, None)
            }
            Thing::Tick { node, life } if is_now(self, node, life) => {
                self.feed(node, Event::Timer(Timer::Tick))
            }
            Thing::Hold { node, life, at } if is_now(self, node, life) => {
                if self.nodes[node].hold_at != at {
                    return Ok(());
                }
                self.feed(node, Event::Timer(Timer::Hold))
            }
            Thing::Wake { client } => self.on_wake(client),
            Thing::Beat { node } => self.beat(node),
            Thing::Ran { node, life, task, rank } if is_now(self, node, life) => {
                self.on_ran(node, task, rank)
            }
            Thing::Crash { node } if !self.healed => {
                self.crash(node);
                let down = self.dice.below(5000);
                self.at(down, Thing::Restart { node });
                Ok(())
            }
            Thing::Restart { node } if self.nodes[node].machine.is_none() => self.restart(node),
            Thing::Freeze { node, ms } if !self.healed => {
                let until = self.now + ms;
                self.nodes[node].frozen = Some((self.now, until.max(self.nodes[node].frozen_until())));
                Ok(())
            }
            Thing::Leave { node } if !self.healed => {
                self.nodes[node].is_leaving = true;
                self.feed(node, Event::Leave)
            }
            Thing::Rumour { node, about, ms } if !self.healed && node != about => {
                self.nodes[node].rumours.insert(about, self.now + ms);
                Ok(())
            }
            Thing::Election if !self.healed => {
                self.elect();
                Ok(())
            }
            Thing::Office { node, life, serial, office } if is_now(self, node, life) => {
                self.on_office(node, serial, office)
            }
            Thing::NewTask { client } => self.new_task(client),
            Thing::Cancel { client } if !self.healed => self.cancel(client),
            Thing::ClientDies { client } if !self.healed => {
                self.clients[client].die();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn frozen_until(&self, thing: &Thing) -> Option<u64> {
        let node = match thing {
            Thing::Node { to: node, .. }
            | Thing::NoPlace { node, .. }
            | Thing::Tick { node, .. }
            | Thing::Hold { node, .. }
            | Thing::Beat { node }
            | Thing::Ran { node, .. }
            | Thing::Office { node, .. } => *node,
            _ => return None,
        };
        self.nodes[node].frozen.map(|(_, until)| until).filter(|until| *until > self.now)
    }

    /// Somebody comes into office, or two at once, or nobody; each hears so after a while. A claim is never
    /// used twice.
    fn elect(&mut self) {
        let holders = if self.healed { 1 } else { [1, 1, 1, 0, 2][self.dice.below(5) as usize] };
        let mut held = BTreeMap::new();
        for _ in 0..holders {
            self.counter += 1;
            let node = self.some_node();
            let number = NodeNumber(node as u16);
            held.insert(node, Claim { node: number, ..claim(self.counter) });
        }
        self.elections += 1;
        let (greatest, serial) = (held.values().max().copied(), self.elections);
        self.greatest = self.greatest.max(greatest);
        for node in 0..self.nodes.len() {
            let mine = held.get(&node).copied();
            let delay = self.dice.below(if self.healed { 50 } else { 800 });
            let life = self.nodes[node].life;
            self.at(delay, Thing::Office { node, life, serial, office: (mine, self.greatest) });
        }
    }

    fn check_all_forgotten(&mut self) -> Checked {
        self.checks.check_answered()?;
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let Some(machine) = &mut node.machine else { return Err(format!("node {number} is down")) };
            let left = machine.page(None).0;
            if !left.is_empty() || !machine.is_idle() || machine.in_hand().0 > 0 {
                return Err(format!("node {number} still knows {left:?}"));
            }
            if !node.expected.is_empty() || !node.answers.is_empty() || node.running > 0 {
                return Err(format!("node {number} still holds a picture, or works"));
            }
        }
        Ok(())
    }
}

#[test]
fn what_must_hold_in_random_schedules() {
    let (mut sum, mut runs) = (Checks::default(), 0);
    for seed in seeds(250) {
        match World::new(seed).run() {
            Ok(world) => sum.add(&world.checks),
            Err(what) => panic!("SEED={seed}: {what}"),
        }
        runs += 1;
    }
    if runs >= 100 {
        // Otherwise nothing was tried.
        assert!(sum.effective > 5 * runs && sum.moved > runs && sum.again > runs / 10, "{sum:?}");
    }
}
