//! Repair on a node of the simulator: scans, `proto::repair`'s judgement, and what follows from it, as
//! `node::repair` does. Slots that no object of the run is in are left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tintype::{
    model::{
        BodyId, ObjectId, PeerId, limits,
        object::{BodyPublic, ManifestBody, Redundancy},
        register::{RawRegister, VerifiedRegister},
        rpc::{BodyState, RecordPage, Request, Response},
        slots::HashSlot,
    },
    proto::{
        chunkpaxos::{self, Accepted, Ballot, Command, Outcome, View},
        placement,
        repair::{self, Next, Reports, Seen, SlotRecords},
    },
};

use super::{
    links::Party,
    node::{Asked, Caller, TimerKey},
    world::World,
};

/// One run over the slots of this node.
pub struct Run {
    slots: VecDeque<HashSlot>,
    /// The slot that is looked at.
    at: Option<(HashSlot, View)>,
    waiting: BTreeSet<usize>,
    scans: Vec<(PeerId, SlotRecords)>,
    mine: SlotRecords,
    /// Objects being settled by a full round.
    settling: BTreeSet<ObjectId>,
    /// Not all objects of the slot have been looked at yet.
    judging: bool,
    placed: BTreeMap<usize, BTreeSet<BodyId>>,
    /// Members that have not said yet what they have.
    checking: usize,
    behind: BTreeSet<PeerId>,
    lacking: u64,
    /// What it need not look at again, and what it has seen.
    seen: Seen,
    seen_now: Seen,
}

impl World {
    pub fn repair_soon(&mut self, node: usize) {
        if let Some(running) = &mut self.nodes[node].running {
            running.repairs.quicken();
        }
        let at = self.clock(node) + limits::REPAIR_AFTER_CONNECT;
        self.arm_no_later(node, TimerKey::Repair, at);
    }

    pub fn start_repair(&mut self, node: usize) {
        let clock = self.clock(node);
        let slots: BTreeSet<HashSlot> = self.oracle.objects().map(|object| HashSlot::of(&object)).collect();
        let Some(running) = self.nodes[node].running.as_mut().filter(|r| r.cluster.is_some()) else { return };
        if running.repair.is_some() {
            return self.arm(node, TimerKey::Repair, clock + limits::REPAIR_RETRY);
        }
        running.repair = Some(Run {
            slots: slots.into_iter().collect(),
            at: None,
            waiting: BTreeSet::new(),
            scans: Vec::new(),
            mine: SlotRecords::new(),
            settling: BTreeSet::new(),
            judging: false,
            placed: BTreeMap::new(),
            checking: 0,
            behind: BTreeSet::new(),
            lacking: 0,
            seen: running.repairs.begin(clock),
            seen_now: Seen::default(),
        });
        self.tally.repairs += 1;
        self.arm(node, TimerKey::Repair, clock + limits::REPAIR_EVERY);
        self.next_slot(node);
    }

    fn next_slot(&mut self, node: usize) {
        loop {
            let me = self.nodes[node].peer;
            let Some(running) = &mut self.nodes[node].running else { return };
            let (Some(run), Some(cluster)) = (&mut running.repair, &running.cluster) else { return };
            let Some(slot) = run.slots.pop_front() else { return self.check_placed(node) };
            let view = cluster.paxos.view(slot);
            if !view.keepers.holds(&me) {
                continue;
            }
            let keepers = view.keepers.clone();
            run.at = Some((slot, view.clone()));
            run.scans.clear();
            let mine = records_of(self.scan_slot(node, slot));
            let others: Vec<usize> = keepers
                .acceptors
                .iter()
                .filter_map(|peer| self.index_of(peer))
                .filter(|peer| *peer != node)
                .collect();
            if let Some(run) = self.run(node) {
                run.waiting = others.iter().copied().collect();
                run.mine = mine;
            }
            for peer in &others {
                let request = Request::ScanSlot { slot: slot.0, after: None };
                self.ask(node, *peer, &request, Asked::Scan { peer: *peer }, limits::RPC_TIMEOUT);
            }
            if others.is_empty() {
                self.slot_is_scanned(node);
            }
            return;
        }
    }

    fn run(&mut self, node: usize) -> Option<&mut Run> {
        self.nodes[node].running.as_mut()?.repair.as_mut()
    }

    pub fn scanned(&mut self, node: usize, peer: usize, page: Option<RecordPage>) {
        let id = self.nodes[peer].peer;
        let Some(run) = self.run(node) else { return };
        if !run.waiting.remove(&peer) {
            return;
        }
        if let Some(page) = page {
            run.scans.push((id, records_of(page)));
        }
        if run.waiting.is_empty() {
            self.slot_is_scanned(node);
        }
    }

    fn slot_is_scanned(&mut self, node: usize) {
        let me = self.nodes[node].peer;
        let Some(run) = self.run(node) else { return };
        let Some((slot, view)) = run.at.clone() else { return };
        if view.keepers.acceptors.contains(&me) {
            run.scans.push((me, run.mine.clone()));
        }
        if run.scans.len() < view.keepers.majority() {
            return self.next_slot(node);
        }
        let read = run.scans.iter().map(|(peer, records)| (*peer, records));
        let digest = repair::digest(read.chain([(me, &run.mine)]));
        run.seen_now.note(slot, digest, 0);
        if run.seen.if_unchanged(slot, digest).is_some() {
            return self.next_slot(node);
        }
        run.judging = true;
        let (scans, mine) = (std::mem::take(&mut run.scans), std::mem::take(&mut run.mine));
        let objects: BTreeSet<ObjectId> = scans.iter().flat_map(|(_, s)| s.keys().copied()).collect();
        for object in objects {
            let ballot = |records: &SlotRecords| records.get(&object).map(|(ballot, _)| *ballot);
            let acceptors: Vec<_> = scans.iter().map(|(peer, records)| (*peer, ballot(records))).collect();
            let verdict =
                repair::judge(&Reports { me, mine: ballot(&mine), acceptors: &acceptors, view: &view });
            if let Some(run) = self.run(node) {
                run.behind.extend(&verdict.behind);
                run.lacking += u64::from(verdict.someone_is_behind);
            }
            let newest = scans.iter().filter_map(|(_, s)| s.get(&object)).max_by_key(|(b, _)| *b);
            match (verdict.next, newest) {
                (Next::Settle, _) => {
                    if let Some(run) = self.run(node) {
                        run.settling.insert(object);
                    }
                    self.call_paxos(node, object, Command::Settle, Caller::Repair { object });
                }
                (Next::Keep, _) => {
                    let raw = mine.get(&object).map(|(_, raw)| raw.clone());
                    self.place_raw(node, raw);
                }
                (Next::TakeOver, Some((ballot, raw))) => self.take_over(node, object, *ballot, raw),
                (Next::TakeOver, None) => {}
            }
        }
        if let Some(run) = self.run(node) {
            run.judging = false;
        }
        self.go_on_with_repair(node);
    }

    fn take_over(&mut self, node: usize, object: ObjectId, ballot: Ballot, raw: &RawRegister) {
        let Some(value) = self.verify(raw) else { return };
        let accepted = Accepted { ballot, value: value.clone() };
        self.feed_paxos(node, chunkpaxos::Event::LateAccept { object, accepted });
        self.place(node, &value);
    }

    pub fn settled(&mut self, node: usize, object: ObjectId, outcome: Outcome) {
        if let Some(run) = self.run(node) {
            run.settling.remove(&object);
        }
        match outcome {
            Outcome::Value { current: Some(current) } => self.place(node, &current.value),
            _ => {
                if let Some(run) = self.run(node) {
                    run.lacking += 1;
                }
            }
        }
        self.go_on_with_repair(node);
    }

    fn go_on_with_repair(&mut self, node: usize) {
        let is_done = |run: &mut Run| run.settling.is_empty() && run.waiting.is_empty() && !run.judging;
        if self.run(node).is_some_and(is_done) {
            self.next_slot(node);
        }
    }

    // ---- bodies ----

    fn place_raw(&mut self, node: usize, raw: Option<RawRegister>) {
        if let Some(value) = raw.and_then(|raw| self.verify(&raw)) {
            self.place(node, &value);
        }
    }

    /// Notes where every body of a value belongs: its manifest, its chunks, and those of the versions kept.
    fn place(&mut self, node: usize, value: &VerifiedRegister) {
        let mut queue: Vec<BodyId> = value.manifest.into_iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(manifest) = queue.pop() {
            if !seen.insert(manifest) {
                continue;
            }
            let Some(bytes) = self.body_of(node, &manifest) else {
                // It is looked at in the next run.
                self.lacks(node);
                self.want(node, vec![manifest]);
                continue;
            };
            let Ok(body) = ManifestBody::decode(&bytes) else {
                return self.fail(|| "a manifest that cannot be read was stored".into());
            };
            let copies = copies_of(&body);
            self.place_body(node, manifest, copies);
            body.referenced().for_each(|id| self.place_body(node, id, copies));
            if Some(manifest) == value.manifest {
                queue.extend(body.predecessors().iter().map(|p| p.manifest));
            }
        }
    }

    fn lacks(&mut self, node: usize) {
        if let Some(run) = self.run(node) {
            run.lacking += 1;
        }
    }

    fn place_body(&mut self, node: usize, id: BodyId, copies: usize) {
        for peer in self.order_of(node, &id).into_iter().take(copies) {
            if peer != node {
                if let Some(run) = self.run(node) {
                    run.placed.entry(peer).or_default().insert(id);
                }
            } else if !self.nodes[node].store.has(&id) {
                self.lacks(node);
                self.want(node, vec![id]);
            }
        }
    }

    /// All slots were looked at: now the others say what they have.
    fn check_placed(&mut self, node: usize) {
        let Some(run) = self.run(node) else { return };
        let placed = std::mem::take(&mut run.placed);
        run.checking = placed.len();
        if placed.is_empty() {
            return self.repair_ended(node);
        }
        for (peer, bodies) in placed {
            let bodies: Vec<BodyId> = bodies.into_iter().collect();
            let request = Request::Check { bodies: bodies.clone(), read: false, copies: 0 };
            let asked = Asked::Check { peer, bodies, for_run: true };
            self.ask(node, peer, &request, asked, limits::RPC_TIMEOUT);
        }
    }

    /// One of them has said it, or nothing in time.
    pub fn run_has_checked(&mut self, node: usize, lacking: u64) {
        let Some(run) = self.run(node) else { return };
        run.lacking += lacking;
        run.checking -= 1;
        if run.checking == 0 {
            self.repair_ended(node);
        }
    }

    fn repair_ended(&mut self, node: usize) {
        let clock = self.clock(node);
        let Some(running) = &mut self.nodes[node].running else { return };
        let Some(run) = running.repair.take() else { return };
        let pause = running.repairs.ended(clock, run.lacking == 0, run.seen_now);
        for peer in run.behind {
            self.ask_peer(node, peer, &Request::Behind, Asked::Other, limits::RPC_TIMEOUT);
        }
        self.arm_no_later(node, TimerKey::Repair, clock + pause);
    }
}

impl World {
    /// A member has said which of its bodies it has, or nothing: it is told to fetch the others. The answer
    /// is how many these are, none of one that is gone.
    pub fn checked(
        &mut self,
        node: usize,
        peer: usize,
        bodies: Vec<BodyId>,
        answer: Option<Response>,
    ) -> u64 {
        let (missing, there): (Vec<BodyId>, Vec<BodyId>) = match answer {
            Some(Response::Checked(states)) if states.len() == bodies.len() => {
                let is_missing = |state: &BodyState| matches!(state, BodyState::Missing | BodyState::Bad);
                let all = bodies.into_iter().zip(states);
                let (missing, there): (Vec<_>, Vec<_>) = all.partition(|(_, state)| is_missing(state));
                let ids = |some: Vec<(BodyId, BodyState)>| some.into_iter().map(|(id, _)| id).collect();
                (ids(missing), ids(there))
            }
            _ => (bodies, Vec::new()),
        };
        let id = self.nodes[peer].peer;
        if let Some(running) = &mut self.nodes[node].running {
            running.hints.is_there(id, &there);
        }
        if missing.is_empty() || !self.links.is_connected(Party::Node(node), Party::Node(peer)) {
            return 0;
        }
        let lacking = missing.len() as u64;
        self.ask(node, peer, &Request::Push { bodies: missing }, Asked::Other, limits::RPC_TIMEOUT);
        lacking
    }
}

fn records_of(page: RecordPage) -> SlotRecords {
    let read = |info: tintype::model::rpc::RecordInfo| {
        let ballot = Ballot::decode(&info.ballot).expect("a ballot of ours");
        (info.object, (ballot, info.value))
    };
    page.records.into_iter().map(read).collect()
}

fn copies_of(body: &ManifestBody) -> usize {
    match &body.public {
        BodyPublic::Manifest(public) => {
            let Redundancy::Copies(copies) = public.redundancy;
            copies as usize
        }
        BodyPublic::Part(_) => placement::COPIES,
    }
}
