//! What goes wrong in a run: chosen from the seed before it begins, carried out by the world.

use tintype::proto::chunkpaxos::Variant;

use super::{
    dice::Dice,
    links::{Party, Weather},
    world::{Thing, World},
};

/// A protocol or a driver that is wrong on purpose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wrong {
    /// Of ChunkPaxos.
    pub variant: Variant,
    /// A restarted node has the boot number of its earlier start.
    pub same_boot: bool,
    /// A restarted node has lost its records and has its identity.
    pub wiped: bool,
    /// The counters of claims begin anew with each start.
    pub forgets_its_claims: bool,
    /// A coordinator takes a worker's silence for a refusal: it may have taken the task all the same.
    pub silence_is_refusal: bool,
    /// A worker's work never ends.
    pub loses_work: bool,
}

/// Something breaks, or is mended.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// A process dies and is started again.
    Kill { node: usize, down_ms: u64 },
    /// All of them at once, as when the power fails.
    PowerCut { down_ms: u64 },
    /// One way between two parties carries nothing.
    Cut { from: Party, to: Party, ms: u64 },
    /// A node hears nobody and nobody hears it.
    Isolate { node: usize, ms: u64 },
    /// Those whose bit is set do not hear the others, nor the others them.
    Split { side: u64, ms: u64 },
    /// A process stands still, and then does all at once.
    StandStill { node: usize, ms: u64 },
    /// Each sync takes so much longer.
    SlowDisk { node: usize, by_ms: u64, ms: u64 },
    /// No room for bodies.
    NoRoom { node: usize, ms: u64 },
    /// No room for anything.
    FullDisk { node: usize, ms: u64 },
    /// A bit of a body turns.
    FlipBody { node: usize },
    /// A bit of a record turns.
    FlipRecord { node: usize },
    /// A clock jumps forward, as after a sleep.
    Jump { node: usize, ms: u64 },
    /// A client's process dies.
    KillClient { client: usize },
    /// Somebody without the user's key proposes a register.
    Forge { node: usize },
    /// Authority hands the slot of an object over to other acceptors.
    HandOver { object: usize },
    /// A machine is gone with its disk.
    GoneForGood { node: usize },
    /// The end of a fault that lasts.
    Mend(Mend),
}

/// What is mended.
#[derive(Clone, Copy, Debug)]
pub enum Mend {
    Way { from: Party, to: Party },
    Disk { node: usize },
}

/// A run's size and misfortunes.
#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub clients: usize,
    pub objects: usize,
    pub start_spread_ms: u64,
    pub weather: Weather,
    pub faults: Vec<(u64, Fault)>,
    /// Bits turn in this run: fewer copies may be good than were acknowledged.
    pub rots: bool,
    /// Disks rot, or a machine is lost for good: one acceptor alone would not do.
    pub loses: bool,
    /// How long it goes on before everything is mended.
    pub span_ms: u64,
    pub wrong: Wrong,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64, wrong: Wrong) -> Self {
        let mut dice = Dice::new(seed);
        let nodes = dice.pick(&[1, 2, 3, 3, 3, 3, 4, 5]);
        let clients = dice.between(2, 4) as usize;
        let span_ms = dice.between(12_000, 30_000);
        let weather = match dice.below(4) {
            0 => Weather::default(),
            1 => Weather { lost_permille: 10, repeated_permille: 20, late_permille: 20, late_ms: 200 },
            2 => Weather { lost_permille: 40, repeated_permille: 40, late_permille: 60, late_ms: 700 },
            _ => Weather { lost_permille: 100, repeated_permille: 60, late_permille: 80, late_ms: 1500 },
        };
        let mut plan = Self {
            nodes,
            clients,
            objects: dice.pick(&[1, 2, 3, 8]),
            start_spread_ms: dice.pick(&[1, 300, 3000]),
            weather,
            faults: Vec::new(),
            rots: false,
            loses: false,
            span_ms,
            wrong,
        };
        plan.choose_ending(&mut dice);
        for _ in 0..dice.between(2, 12) {
            let (at, fault) = (dice.between(500, span_ms), plan.fault(&mut dice));
            plan.faults.push((at, fault));
        }
        plan
    }

    /// Either disks rot or a machine is lost for good: both at once may take the last good copy.
    fn choose_ending(&mut self, dice: &mut Dice) {
        let node = dice.below(self.nodes as u64) as usize;
        match dice.below(6) {
            0 if self.nodes >= 3 => {
                let at = dice.between(8000, self.span_ms);
                self.loses = true;
                self.faults.push((at, Fault::GoneForGood { node }));
            }
            1 | 2 if self.nodes >= 3 => {
                (self.rots, self.loses) = (true, true);
                for _ in 0..dice.between(1, 4) {
                    let at = dice.between(4000, self.span_ms);
                    let fault = match dice.below(3) {
                        0 => Fault::FlipRecord { node },
                        _ => Fault::FlipBody { node },
                    };
                    self.faults.push((at, fault));
                }
            }
            _ => {}
        }
    }

    fn fault(&self, dice: &mut Dice) -> Fault {
        let node = dice.below(self.nodes as u64) as usize;
        let client = dice.below(self.clients as u64) as usize;
        let ms = dice.between(100, 6000);
        match dice.below(26) {
            0..=4 => Fault::Kill { node, down_ms: dice.pick(&[1, 50, 400, 1500, 5000]) },
            5 => Fault::PowerCut { down_ms: dice.between(100, 3000) },
            6 | 7 => Fault::Cut { from: self.party(dice), to: self.party(dice), ms },
            8 | 9 => Fault::Isolate { node, ms },
            10 => Fault::Split { side: dice.below(1 << self.nodes), ms },
            11 | 12 => Fault::StandStill { node, ms: dice.pick(&[300, 1200, 3000, 10_000]) },
            13 | 14 => Fault::SlowDisk { node, by_ms: dice.pick(&[40, 200, 900, 2500]), ms },
            15 => Fault::NoRoom { node, ms },
            16 => Fault::FullDisk { node, ms },
            17 => Fault::Jump { node, ms },
            18..=20 => Fault::KillClient { client },
            21..=24 => Fault::HandOver { object: dice.below(self.objects as u64) as usize },
            _ => Fault::Forge { node },
        }
    }

    fn party(&self, dice: &mut Dice) -> Party {
        let number = dice.below((self.nodes + self.clients) as u64) as usize;
        if number < self.nodes { Party::Node(number) } else { Party::Client(number - self.nodes) }
    }
}

impl World {
    pub fn break_something(&mut self, fault: Fault) {
        if self.healed && !matches!(fault, Fault::Mend(_)) {
            return;
        }
        let now = self.now;
        self.trace.line(now, || format!("{fault:?}"));
        self.tally.note(&fault);
        match fault {
            Fault::Kill { node, down_ms } => self.kill_for(node, down_ms),
            Fault::PowerCut { down_ms } => (0..self.nodes.len()).for_each(|n| self.kill_for(n, down_ms)),
            Fault::Cut { from, to, ms } => self.cut_for(from, to, ms),
            Fault::Isolate { node, ms } => self.split_for(ms, |other| other == node),
            Fault::Split { side, ms } => self.split_for(ms, |node| side >> node & 1 == 1),
            Fault::StandStill { node, ms } => {
                let until = self.nodes[node].still_until.unwrap_or(0).max(now + ms);
                self.nodes[node].still_until = Some(until);
                self.nodes[node].held = 0;
                self.oracle.calls.stood_still(node, 2 * ms);
            }
            Fault::SlowDisk { node, by_ms, ms } => {
                self.nodes[node].store.slow_ms = by_ms;
                self.after(ms, Thing::Fault(Fault::Mend(Mend::Disk { node })));
            }
            Fault::NoRoom { node, ms } => {
                self.nodes[node].store.no_room = true;
                self.after(ms, Thing::Fault(Fault::Mend(Mend::Disk { node })));
            }
            Fault::FullDisk { node, ms } => {
                self.nodes[node].store.is_full = true;
                self.after(ms, Thing::Fault(Fault::Mend(Mend::Disk { node })));
            }
            Fault::FlipBody { node } => {
                self.nodes[node].store.flip_body(&mut self.dice);
                self.forget_what_was_never_safe();
            }
            Fault::FlipRecord { node } => drop(self.nodes[node].store.flip_record(&mut self.dice)),
            Fault::Jump { node, ms } => self.jump(node, ms),
            Fault::KillClient { client } => self.kill_client(client),
            Fault::Forge { node } => self.forge(node),
            Fault::HandOver { object } => {
                let object = self.oracle.objects().nth(object);
                object.into_iter().for_each(|object| self.order_handover(object));
            }
            Fault::GoneForGood { node } => self.lose(node),
            Fault::Mend(mend) => self.mend(mend),
        }
    }

    fn kill_for(&mut self, node: usize, down_ms: u64) {
        if self.nodes[node].running.is_some() {
            self.kill(node);
            self.after(down_ms, Thing::Start { node });
        }
    }

    fn cut_for(&mut self, from: Party, to: Party, ms: u64) {
        if from != to {
            self.links.cut(from, to);
            self.after(ms, Thing::Fault(Fault::Mend(Mend::Way { from, to })));
        }
    }

    /// Cuts both ways between those on one side and all others; clients are with whom they happen to be.
    fn split_for(&mut self, ms: u64, is_inside: impl Fn(usize) -> bool) {
        for inside in (0..self.nodes.len()).filter(|node| is_inside(*node)) {
            for other in (0..self.nodes.len()).filter(|node| !is_inside(*node)) {
                self.cut_for(Party::Node(inside), Party::Node(other), ms);
                self.cut_for(Party::Node(other), Party::Node(inside), ms);
            }
            for client in (0..self.clients.len()).filter(|client| client % 2 == 0) {
                self.cut_for(Party::Node(inside), Party::Client(client), ms);
                self.cut_for(Party::Client(client), Party::Node(inside), ms);
            }
        }
    }

    fn jump(&mut self, node: usize, ms: u64) {
        if let Some(running) = &mut self.nodes[node].running {
            running.jumped_ms += ms;
            self.oracle.calls.stood_still(node, ms);
            self.ring_all(node);
        }
    }

    fn lose(&mut self, node: usize) {
        self.kill(node);
        self.nodes[node].is_gone = true;
        self.forget_what_was_never_safe();
    }

    /// After the loss of a copy: what has no other one, and was not said to survive that, is no promise.
    fn forget_what_was_never_safe(&mut self) {
        let stores: Vec<_> = self.nodes.iter().map(|n| (&n.store, n.is_gone)).collect();
        self.oracle.kept.one_is_lost(&stores);
    }

    fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Way { from, to } => self.links.mend(from, to),
            Mend::Disk { node } => {
                let store = &mut self.nodes[node].store;
                (store.slow_ms, store.no_room, store.is_full) = (0, false, false);
            }
        }
    }

    /// Nothing breaks any more, and what is broken is mended, but for what is gone. Whoever stands still
    /// does so until its time.
    pub fn heal(&mut self) {
        (self.healed, self.healed_at) = (true, self.now);
        self.links.mend_all();
        for node in 0..self.nodes.len() {
            self.mend(Mend::Disk { node });
            self.start(node);
        }
    }
}
