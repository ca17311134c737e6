//! Authority as the simulator has it, until there is one: an ordered list that every node hears in its order,
//! late, and from the first again after a restart. It activates only what was installed.

use tintype::{
    model::{ObjectId, PeerId, member::Epoch, slots::HashSlot},
    proto::{
        chunkpaxos::{self, Order, View},
        placement::{self, SlotKeepers, Weighted},
    },
};

use super::{
    links::Party,
    world::{Thing, World},
};

/// How often it looks whether a handover goes on.
const LOOK_EVERY_MS: u64 = 250;
/// How long an attempt may take before the next is ordered.
const ATTEMPT_MS: u64 = 4000;

/// The list, and the handover that was ordered last.
#[derive(Default)]
pub struct Authority {
    orders: Vec<Order>,
    doing: Option<Doing>,
}

#[derive(Clone)]
struct Doing {
    slot: HashSlot,
    to: Epoch,
    attempt: u64,
    keepers: SlotKeepers,
    is_installed: bool,
    give_up: u64,
}

impl World {
    /// Hands the slot of an object over to other acceptors, unless one is being handed over.
    pub fn order_handover(&mut self, object: ObjectId) {
        let Some(founding) = &self.founding else { return };
        if self.authority.doing.is_some() || founding.members.len() < 2 {
            return;
        }
        let members: Vec<PeerId> = founding.members.iter().map(|member| member.peer).collect();
        let slot = HashSlot::of(&object);
        let now = self.oracle.ballots.view(slot).cloned();
        let Some(View { epoch, .. }) = now else { return };
        let keepers = self.next_keepers(&members);
        self.attempt(slot, Epoch(epoch.0 + 1), 1, keepers);
        self.after(LOOK_EVERY_MS, Thing::Decide);
    }

    fn attempt(&mut self, slot: HashSlot, to: Epoch, attempt: u64, keepers: SlotKeepers) {
        let alive: Vec<usize> = (0..self.nodes.len()).filter(|n| !self.nodes[*n].is_gone).collect();
        let installer = self.dice.pick(&alive);
        let (peer, boot) = (self.nodes[installer].peer, self.nodes[installer].store.contents.boot);
        let keepers_ordered = keepers.clone();
        self.authority.orders.push(Order::Handover {
            slot,
            to,
            attempt,
            installer: peer,
            boot,
            keepers: keepers_ordered,
        });
        let give_up = self.now + ATTEMPT_MS;
        self.authority.doing = Some(Doing { slot, to, attempt, keepers, is_installed: false, give_up });
        self.tally.attempts += 1;
        self.tell_all();
    }

    /// Looks how the handover goes.
    pub fn decide(&mut self) {
        let Some(doing) = self.authority.doing.clone() else { return };
        self.after(LOOK_EVERY_MS, Thing::Decide);
        let Doing { slot, to, attempt, keepers, is_installed, give_up } = doing;
        if is_installed {
            self.authority.orders.push(Order::Activate { slot, to, attempt });
            self.authority.doing = None;
            self.tally.handovers += 1;
            let view = View { epoch: to, keepers, first_counter: attempt + 1 };
            let checked = self.oracle.ballots.activated(slot, view);
            self.check(checked);
            return self.tell_all();
        }
        if give_up <= self.now {
            let alive = self.nodes.iter().filter(|node| !node.is_gone).map(|node| node.peer);
            let alive: Vec<PeerId> = alive.collect();
            let is_possible = keepers.acceptors.iter().all(|peer| alive.contains(peer));
            let keepers = if is_possible { keepers } else { self.next_keepers(&alive) };
            self.attempt(slot, to, attempt + 1, keepers);
        }
    }

    /// Who keeps the slot next: any three, or one and a mirror, where no disk rots and no machine is lost.
    fn next_keepers(&mut self, members: &[PeerId]) -> SlotKeepers {
        let subject = HashSlot(self.dice.below(256) as u8);
        let weighted: Vec<Weighted> =
            members.iter().map(|peer| Weighted { peer: *peer, weight: 1 }).collect();
        let mut keepers = placement::keepers(Epoch::FOUNDING, &weighted, subject);
        if keepers.acceptors.len() > 1 && !self.plan.loses && self.dice.permille(250) {
            keepers.mirror = keepers.acceptors.pop();
            keepers.acceptors.truncate(1);
        }
        keepers
    }

    /// Whether nothing is being handed over and every node has heard all.
    pub fn handovers_have_ended(&self) -> bool {
        let heard = |node: &super::node::Node| {
            node.is_gone || node.running.as_ref().is_some_and(|r| r.orders == self.authority.orders.len())
        };
        self.authority.doing.is_none() && self.nodes.iter().all(heard)
    }

    /// An installer says that it is done; of an attempt that was given up it does not count.
    pub fn installed(&mut self, slot: HashSlot, to: Epoch, attempt: u64) {
        let is_it = |doing: &&mut Doing| (doing.slot, doing.to, doing.attempt) == (slot, to, attempt);
        if let Some(doing) = self.authority.doing.as_mut().filter(is_it) {
            doing.is_installed = true;
        }
    }

    fn tell_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.hear_soon(node));
    }

    /// A node hears the next order after a while.
    pub fn hear_soon(&mut self, node: usize) {
        let (life, slow) = (self.nodes[node].life, self.dice.permille(200));
        let delay = self.dice.between(1, if slow { 1500 } else { 20 });
        self.after(delay, Thing::Order { node, life });
    }

    pub fn hear_order(&mut self, node: usize) {
        let Some(running) = &mut self.nodes[node].running else { return };
        if running.cluster.is_none() {
            return;
        }
        let Some(order) = self.authority.orders.get(running.orders).cloned() else { return };
        running.orders += 1;
        let is_last = running.orders == self.authority.orders.len();
        let now = self.now;
        self.trace.line(now, || format!("{:?} hears {order:?}", Party::Node(node)));
        let is_handed_over = matches!(order, Order::Activate { .. });
        self.feed_paxos(node, chunkpaxos::Event::Order(order));
        if is_handed_over {
            self.repair_soon(node);
        }
        if !is_last {
            self.hear_soon(node);
        }
    }
}
