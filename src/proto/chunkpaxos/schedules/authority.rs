//! Authority as the schedules have it: an ordered list that every node hears in its order, late, and from the
//! first again after a restart. It activates only what was installed, and gives up attempts now and then.

use super::*;

/// The list, and where it stands.
pub(super) struct Authority {
    pub(super) slot: HashSlot,
    peers: Vec<PeerId>,
    orders: Vec<Order>,
    /// Who keeps the slot now.
    keepers: SlotKeepers,
    epoch: Epoch,
    doing: Option<Doing>,
    left: u64,
    pub(super) activated: u64,
    pub(super) failed: u64,
}

/// The handover that was ordered last.
#[derive(Clone)]
struct Doing {
    to: Epoch,
    attempt: u64,
    keepers: SlotKeepers,
    is_installed: bool,
    give_up: Millis,
}

impl Authority {
    pub(super) fn new(slot: HashSlot, peers: Vec<PeerId>, keepers: SlotKeepers, handovers: u64) -> Self {
        Self {
            slot,
            peers,
            orders: Vec::new(),
            keepers,
            epoch: Epoch::FOUNDING,
            doing: None,
            left: handovers,
            activated: 0,
            failed: 0,
        }
    }

    /// Who keeps the slot next: three with one changed, any three, or one and a mirror.
    fn next_keepers(&self, dice: &mut Dice) -> SlotKeepers {
        let mut others: Vec<PeerId> =
            self.peers.iter().filter(|peer| !self.keepers.acceptors.contains(peer)).copied().collect();
        let mut acceptors = self.keepers.acceptors.clone();
        let is_small = acceptors.len() < 3;
        if others.is_empty() || dice.percent(if is_small { 80 } else { 25 }) {
            acceptors = self.peers.clone();
            shuffle(&mut acceptors, dice);
            acceptors.truncate(3);
        } else if is_small || dice.percent(30) {
            shuffle(&mut acceptors, dice);
            acceptors.truncate(1);
            let mirror = self.peers.iter().find(|peer| !acceptors.contains(peer)).copied();
            return SlotKeepers { acceptors, mirror };
        } else {
            shuffle(&mut others, dice);
            let gone = dice.below(acceptors.len() as u64) as usize;
            acceptors[gone] = others[0];
        }
        SlotKeepers { acceptors, mirror: None }
    }
}

fn shuffle(peers: &mut [PeerId], dice: &mut Dice) {
    for last in (1..peers.len()).rev() {
        peers.swap(last, dice.below(last as u64 + 1) as usize);
    }
}

impl World {
    /// Authority begins a handover, gives an attempt up, or activates what was installed.
    pub(super) fn decide(&mut self) -> Checked {
        let again = 20 + self.dice.below(200);
        self.at(again, Thing::Decide);
        let now = self.now;
        match self.authority.doing.clone() {
            Some(doing) if doing.is_installed => self.activate(doing)?,
            Some(doing) if doing.give_up <= now => {
                self.authority.failed += 1;
                let keepers = match self.dice.percent(70) {
                    true => doing.keepers,
                    false => self.authority.next_keepers(&mut self.dice),
                };
                self.hand_over(doing.to, doing.attempt + 1, keepers);
            }
            None if self.authority.left > 0 && (self.healed || self.dice.percent(30)) => {
                self.authority.left -= 1;
                let keepers = self.authority.next_keepers(&mut self.dice);
                self.hand_over(Epoch(self.authority.epoch.0 + 1), 1, keepers);
            }
            _ => return Ok(()),
        }
        for node in 0..self.nodes.len() {
            self.hear_soon(node);
        }
        Ok(())
    }

    fn hand_over(&mut self, to: Epoch, attempt: u64, keepers: SlotKeepers) {
        let slot = self.authority.slot;
        let node = self.some_node();
        let (installer, boot) = (self.authority.peers[node], self.nodes[node].boot);
        // When all is well an attempt is given the time that it needs.
        let patience = if self.healed { 2000 } else { 100 + self.dice.below(900) };
        let give_up = self.now + Millis(patience);
        self.authority.orders.push(Order::Handover {
            slot,
            to,
            attempt,
            installer,
            boot,
            keepers: keepers.clone(),
        });
        self.authority.doing = Some(Doing { to, attempt, keepers, is_installed: false, give_up });
    }

    fn activate(&mut self, doing: Doing) -> Checked {
        let Doing { to, attempt, keepers, .. } = doing;
        let authority = &mut self.authority;
        authority.orders.push(Order::Activate { slot: authority.slot, to, attempt });
        (authority.epoch, authority.keepers, authority.doing) = (to, keepers.clone(), None);
        authority.activated += 1;
        self.checks.activated(to, keepers, attempt)
    }

    /// An installer says that it is done; of an attempt that was given up it does not count.
    pub(super) fn installed(&mut self, slot: HashSlot, to: Epoch, attempt: u64) -> Checked {
        if slot != self.authority.slot {
            return Err(format!("{slot:?} was handed over and not asked for"));
        }
        if let Some(doing) = self.authority.doing.as_mut().filter(|d| (d.to, d.attempt) == (to, attempt)) {
            doing.is_installed = true;
        }
        Ok(())
    }

    fn hear_soon(&mut self, node: usize) {
        let slow = !self.healed && self.dice.percent(20);
        let delay = 1 + self.dice.below(if slow { 900 } else { 20 });
        let life = self.nodes[node].life;
        self.at(delay, Thing::Order { node, life });
    }

    /// The list once more: at once, or bit by bit.
    pub(super) fn hear_orders_again(&mut self, node: usize) -> Checked {
        let at_once = self.dice.percent(50);
        for _ in 0..self.authority.orders.len() {
            match at_once {
                true => self.next_order(node)?,
                false => self.hear_soon(node),
            }
        }
        Ok(())
    }

    pub(super) fn next_order(&mut self, node: usize) -> Checked {
        let Some(order) = self.authority.orders.get(self.nodes[node].orders).cloned() else { return Ok(()) };
        if self.nodes[node].machine.is_none() {
            return Ok(());
        }
        self.nodes[node].orders += 1;
        self.feed(node, Event::Order(order))
    }

    /// After healing every handover comes to its end, and everybody knows.
    pub(super) fn handovers_end(&mut self) -> Checked {
        for _ in 0..10 {
            let Authority { doing, left, orders, .. } = &self.authority;
            let all = self.nodes.iter().all(|node| node.orders == orders.len());
            if doing.is_none() && *left == 0 && all {
                return Ok(());
            }
            let end = self.now + Millis(1000);
            self.run_until(end)?;
        }
        Err("a handover does not end".into())
    }
}
