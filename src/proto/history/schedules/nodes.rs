//! The nodes of a schedule: what the driver of a node does, with a picture that is only a number.

use super::{super::tests::means, *};

/// How long a node has to be silent to be suspect, and to be dead.
const SUSPECT_MS: u64 = 1200;
const DEAD_MS: u64 = 2400;

#[derive(Clone, Debug)]
pub(super) enum Packet {
    Gossip(TaskRecord),
    Reserve { from: usize, number: u64, record: TaskRecord },
    Verdict { number: u64, verdict: Verdict },
    Digest { from: usize, digest: u64 },
    Pages { to: usize },
    Records(Vec<TaskRecord>),
    Ask { client: usize, number: u64, task: TaskId, question: Question, payload_bytes: u64 },
    Give { client: usize, number: u64, task: TaskId, rank: Rank },
    Take { client: usize, number: u64, task: TaskId, rank: Rank },
}

pub(super) struct Node {
    pub(super) machine: Option<History>,
    pub(super) life: u64,
    /// Stands still from then until then.
    pub(super) frozen: Option<(u64, u64)>,
    pub(super) is_leaving: bool,
    pub(super) hold_at: u64,
    /// Of which election it has heard last.
    office: u64,
    down_since: u64,
    means: Means,
    load_centi: u64,
    /// Who it wrongly takes for dead, until when.
    pub(super) rumours: BTreeMap<usize, u64>,
    /// Assignments whose picture it would take, and whether it has it.
    pub(super) expected: BTreeMap<TaskId, (Rank, bool)>,
    pub(super) answers: BTreeMap<TaskId, Rank>,
    pub(super) running: usize,
    callers: BTreeMap<CallId, (usize, u64)>,
    /// Places that were asked for.
    reserves: BTreeMap<u64, (usize, TaskId, Rank)>,
}

impl Node {
    pub(super) fn new(dice: &mut Dice) -> Self {
        Self {
            machine: None,
            life: 0,
            frozen: None,
            is_leaving: false,
            hold_at: 0,
            office: 0,
            down_since: 0,
            means: means(1 + dice.below(2) as usize, dice.below(2) as usize),
            load_centi: dice.below(4000),
            rumours: BTreeMap::new(),
            expected: BTreeMap::new(),
            answers: BTreeMap::new(),
            running: 0,
            callers: BTreeMap::new(),
            reserves: BTreeMap::new(),
        }
    }

    pub(super) fn frozen_until(&self) -> u64 {
        self.frozen.map_or(0, |(_, until)| until)
    }

    /// For how long nothing was heard of it.
    fn silent_ms(&self, now: u64) -> u64 {
        match (&self.machine, self.frozen) {
            (None, _) => now - self.down_since,
            (_, Some((since, until))) if until > now => now - since,
            _ => 0,
        }
    }
}

impl World {
    pub(super) fn crash(&mut self, node: usize) {
        self.checks.died(node);
        let (means, load_centi, life) =
            (self.nodes[node].means.clone(), self.nodes[node].load_centi, self.nodes[node].life + 1);
        self.nodes[node] =
            Node { means, load_centi, life, down_since: self.now, ..Node::new(&mut self.dice) };
    }

    pub(super) fn restart(&mut self, node: usize) -> Checked {
        let (me, means) = (self.peers[node], self.nodes[node].means.clone());
        let founding = founding(self.peers.len());
        self.nodes[node].machine = Some(History::new(Config { me, founding, means }));
        self.feed(node, Event::Start)?;
        let (life, serial, office) = (self.nodes[node].life, self.elections, (None, self.greatest));
        self.at(300, Thing::Office { node, life, serial, office });
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            // A new connection.
            self.feed(node, Event::Differs { peer: self.peers[other] })?;
            self.feed(other, Event::Differs { peer: self.peers[node] })?;
        }
        Ok(())
    }

    /// What comes later than newer news of the same is no news.
    pub(super) fn on_office(
        &mut self,
        node: usize,
        serial: u64,
        office: (Option<Claim>, Option<Claim>),
    ) -> Checked {
        if self.nodes[node].office > serial {
            return Ok(());
        }
        self.nodes[node].office = serial;
        let (mine, greatest) = office;
        self.feed(node, Event::Office { mine, greatest })
    }

    pub(super) fn beat(&mut self, node: usize) -> Checked {
        self.at(300, Thing::Beat { node });
        let Some(machine) = &mut self.nodes[node].machine else { return Ok(()) };
        let digest = machine.digest();
        let workers = (0..self.nodes.len()).map(|other| (self.peers[other], self.worker(node, other)));
        let workers = workers.collect();
        self.feed(node, Event::Workers(workers))?;
        for to in (0..self.nodes.len()).filter(|to| *to != node) {
            self.transmit(to, Packet::Digest { from: node, digest });
        }
        Ok(())
    }

    fn worker(&self, of: usize, other: usize) -> Worker {
        let (now, it) = (self.now, &self.nodes[other]);
        let silent_ms = it.silent_ms(now);
        let is_dead = other != of
            && (silent_ms >= DEAD_MS || self.nodes[of].rumours.get(&other).is_some_and(|until| *until > now));
        let (tasks, slots) = it.machine.as_ref().map_or((0, 0), History::in_hand);
        let is_alive = !is_dead && (other == of || silent_ms < SUSPECT_MS);
        let places = it.means.places() as u64;
        Worker { is_alive, is_dead, load_centi: it.load_centi, tasks, slots, places }
    }

    // ---- the network ----

    pub(super) fn transmit(&mut self, to: usize, packet: Packet) {
        if !self.healed && self.dice.percent(self.loss) {
            return;
        }
        let copies = if matches!(packet, Packet::Gossip(_)) && self.dice.percent(10) { 2 } else { 1 };
        for _ in 0..copies {
            let slow = !self.healed && self.dice.percent(5);
            let delay = 1 + self.dice.below(if slow { 900 } else { 6 });
            self.at(delay, Thing::Node { to, packet: packet.clone() });
        }
    }

    pub(super) fn on_packet(&mut self, node: usize, packet: Packet) -> Checked {
        let Some(machine) = &mut self.nodes[node].machine else { return Ok(()) };
        match packet {
            Packet::Gossip(record) => self.feed(node, Event::Heard { record }),
            Packet::Reserve { from, number, record } => {
                let call = self.call(node);
                let before = self.order;
                let verdict = self.feed_for(node, call, Event::Reserve { call, record })?;
                let Some(Answer::Verdict(verdict)) = verdict else {
                    return Err(format!("no verdict at {before}"));
                };
                self.transmit(from, Packet::Verdict { number, verdict });
                Ok(())
            }
            Packet::Verdict { number, verdict } => self.on_place_answer(node, number, Some(verdict)),
            Packet::Digest { from, digest } if machine.digest() != digest => {
                self.feed(node, Event::Differs { peer: self.peers[from] })
            }
            Packet::Digest { .. } => Ok(()),
            Packet::Pages { to } => {
                let (mut records, mut after) = (Vec::new(), None);
                loop {
                    let (page, next) = machine.page(after);
                    records.extend(page);
                    let Some(next) = next else { break };
                    after = Some(next);
                }
                self.transmit(to, Packet::Records(records));
                Ok(())
            }
            Packet::Records(records) => {
                records.into_iter().try_for_each(|record| self.feed(node, Event::Heard { record }))
            }
            Packet::Ask { client, number, task, question, payload_bytes } => {
                self.on_question(node, (client, number), task, question, payload_bytes)
            }
            Packet::Give { client, number, task, rank } => self.on_give(node, (client, number), task, rank),
            Packet::Take { client, number, task, rank } => {
                let is_there = self.nodes[node].answers.get(&task) == Some(&rank);
                self.feed(node, Event::Sign { task })?;
                let end = if is_there { End::Done } else { End::Refused };
                self.tell_client(client, Told::Took { number, end, made: is_there.then_some(rank) });
                Ok(())
            }
        }
    }

    pub(super) fn on_place_answer(&mut self, node: usize, number: u64, verdict: Option<Verdict>) -> Checked {
        let Some((from, task, rank)) = self.nodes[node].reserves.remove(&number) else { return Ok(()) };
        self.feed(node, Event::Reserved { from: self.peers[from], task, rank, verdict })
    }

    fn on_question(
        &mut self,
        node: usize,
        from: (usize, u64),
        task: TaskId,
        question: Question,
        payload_bytes: u64,
    ) -> Checked {
        let (client, number) = from;
        let call = self.call(node);
        let reply = match question {
            Question::Submit { above, avoid } => {
                let kind = crate::model::task::TaskKind("hide".into());
                let wish = Wish { task, kind, payload_bytes, above, avoid };
                self.nodes[node].callers.insert(call, from);
                return self.feed_asked(node, call, Event::Submit { call, wish });
            }
            Question::Poll => {
                self.nodes[node].callers.insert(call, from);
                return self.feed_asked(node, call, Event::Poll { call, task });
            }
            Question::Acknowledge => {
                self.feed(node, Event::Acknowledge { task })?;
                Reply::Done
            }
            Question::Cancel => {
                self.feed(node, Event::Cancel { task })?;
                Reply::Done
            }
        };
        self.tell_client(client, Told::Answer { number, reply });
        Ok(())
    }

    fn on_give(&mut self, node: usize, from: (usize, u64), task: TaskId, rank: Rank) -> Checked {
        let (client, number) = from;
        self.feed(node, Event::Sign { task })?;
        let end = match self.nodes[node].expected.get_mut(&task) {
            Some((expected, has_it)) if *expected == rank && !*has_it => {
                *has_it = true;
                End::Done
            }
            _ => End::Refused,
        };
        self.tell_client(client, Told::Gave { number, end });
        if end == End::Done { self.feed(node, Event::Received { task, rank }) } else { Ok(()) }
    }

    pub(super) fn on_ran(&mut self, node: usize, task: TaskId, rank: Rank) -> Checked {
        let it = &mut self.nodes[node];
        it.running -= 1;
        if it.expected.get(&task).is_some_and(|(expected, _)| *expected == rank) {
            it.answers.insert(task, rank);
            self.checks.produced(task, rank);
        }
        self.feed(node, Event::Ran { task, rank, answer_bytes: 0 })
    }

    // ---- the machine ----

    fn call(&mut self, _node: usize) -> CallId {
        self.numbers += 1;
        CallId(self.numbers)
    }

    fn feed_asked(&mut self, node: usize, call: CallId, event: Event) -> Checked {
        self.checks.asked(node, call.0);
        self.feed(node, event)
    }

    /// The event of a call that is answered at once.
    fn feed_for(&mut self, node: usize, call: CallId, event: Event) -> Result<Option<Answer>, String> {
        self.checks.asked(node, call.0);
        let mut answer = None;
        for action in self.handled(node, event) {
            match action {
                Action::Answer { call: of, answer: said } if of == call => {
                    self.checks.answered(node, call.0)?;
                    answer = Some(said);
                }
                other => self.execute(node, other)?,
            }
        }
        Ok(answer)
    }

    pub(super) fn feed(&mut self, node: usize, event: Event) -> Checked {
        let actions = self.handled(node, event);
        actions.into_iter().try_for_each(|action| self.execute(node, action))?;
        self.check_node(node)
    }

    fn handled(&mut self, node: usize, event: Event) -> Vec<Action> {
        let mut out = Outbox::new();
        let Some(machine) = &mut self.nodes[node].machine else { return Vec::new() };
        machine.handle(Millis(self.now), event, &mut out);
        out.drain().collect()
    }

    fn execute(&mut self, node: usize, action: Action) -> Checked {
        let life = self.nodes[node].life;
        match action {
            Action::Answer { call, answer } => {
                self.checks.answered(node, call.0)?;
                let reply = match answer {
                    Answer::Submitted(submitted) => Reply::Submitted(submitted),
                    Answer::Standing(standing) => Reply::Standing(standing),
                    Answer::Verdict(_) => return Err("another's answer".into()),
                };
                if reply == Reply::Submitted(Submitted::Again) {
                    self.checks.again += 1;
                }
                let (client, number) = self.nodes[node].callers.remove(&call).ok_or("nobody asked that")?;
                self.tell_client(client, Told::Answer { number, reply });
            }
            Action::Reserve { to, record } => {
                self.checks.reserved(node, self.now)?;
                let to = self.index(&to).filter(|to| *to != node).ok_or("a place at nobody's")?;
                self.numbers += 1;
                let number = self.numbers;
                self.nodes[node].reserves.insert(number, (to, record.task, record.rank));
                self.transmit(to, Packet::Reserve { from: node, number, record });
                self.at(RESERVE_PATIENCE, Thing::NoPlace { node, life, number });
            }
            Action::Publish { record } => {
                for to in (0..self.nodes.len()).filter(|to| *to != node) {
                    self.transmit(to, Packet::Gossip(record.clone()));
                }
            }
            Action::Exchange { with } => {
                let with = self.index(&with).filter(|with| *with != node).ok_or("an exchange with nobody")?;
                self.transmit(with, Packet::Pages { to: node });
            }
            Action::Expect { record } => {
                self.checks.expected(node, life, record.task, record.rank)?;
                self.nodes[node].answers.remove(&record.task);
                self.nodes[node].expected.insert(record.task, (record.rank, false));
            }
            Action::Run { task, rank } => {
                let it = &mut self.nodes[node];
                it.running += 1;
                if it.expected.get(&task) != Some(&(rank, true)) {
                    return Err(format!("{task:?} runs without its picture"));
                }
                let slow = self.dice.percent(5);
                let takes = 10 + self.dice.below(if slow { 6000 } else { 700 });
                self.at(takes, Thing::Ran { node, life, task, rank });
            }
            Action::Drop { task } => {
                self.nodes[node].expected.remove(&task);
                self.nodes[node].answers.remove(&task);
            }
            Action::Outranked { counter } => {
                self.counter = self.counter.max(counter);
                if self.now > SPAN + 10_000 {
                    return Err("outranked although all know who is in office".into());
                }
                self.at(20, Thing::Election);
            }
            Action::Arm { at, timer: Timer::Tick } => {
                let delay = at.since(Millis(self.now)).0 + self.dice.below(3);
                self.at(delay, Thing::Tick { node, life });
            }
            Action::Arm { at, timer: Timer::Hold } => {
                let delay = at.since(Millis(self.now)).0 + self.dice.below(3);
                self.nodes[node].hold_at = at.0;
                self.at(delay, Thing::Hold { node, life, at: at.0 });
            }
            Action::Publicise(Moved { from, to, .. }) => self.checks.moved(from, to)?,
        }
        Ok(())
    }

    fn index(&self, peer: &PeerId) -> Option<usize> {
        self.peers.iter().position(|other| other == peer)
    }

    /// Places are bounded, and each is for the assignment that counts.
    fn check_node(&self, node: usize) -> Checked {
        let it = &self.nodes[node];
        let Some(machine) = &it.machine else { return Ok(()) };
        let (slots, places) = (it.means.slots, it.means.places());
        let (in_hand, _) = machine.in_hand();
        if it.running > slots || in_hand > (places + slots) as u64 || it.expected.len() > 2 * places {
            let held = it.expected.len();
            return Err(format!("{} run, {in_hand} in hand, {held} held, of {places}", it.running));
        }
        for (task, (rank, _)) in &it.expected {
            let standing = machine.standing(task);
            let counts = standing.record.as_ref().is_some_and(|record| {
                record.rank == *rank && record.worker == NodeNumber(node as u16) && record.phase.is_in_hand()
            });
            if !counts || standing.place.is_none() {
                return Err(format!("node {node} holds {task:?} {rank:?}, but knows {standing:?}"));
            }
        }
        Ok(())
    }
}
