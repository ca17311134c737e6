//! A machine's disk: what is durable, what is on its way there, and what rots.
//!
//! It knows of no node: a crash loses everything that was not synced, except what the disk happened to write
//! just before. One group of writes is all or nothing, as one transaction of the record file is; a body in a
//! file of its own is there whole or not at all, as after a rename.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use tintype::{
    model::{BodyId, Incarnation, ObjectId, limits, member::Epoch, slots::HashSlot},
    proto::chunkpaxos,
    seal::chunk::body_id,
};

use super::{bodies::PutId, dice::Dice};

/// What lies on a disk.
pub struct Contents {
    /// Starts so far.
    pub boot: u64,
    /// Made with the disk.
    pub incarnation: Incarnation,
    /// The encoded founding record.
    pub founding: Option<Vec<u8>>,
    /// What this acceptor refuses for ever, of each slot.
    pub fences: BTreeMap<HashSlot, Epoch>,
    /// How far its claims may have gone.
    pub claims: u64,
    /// Encoded acceptor records.
    pub records: BTreeMap<ObjectId, Vec<u8>>,
    /// Bodies, good or rotten.
    pub bodies: BTreeMap<BodyId, Arc<Vec<u8>>>,
}

/// One thing to be written.
#[derive(Clone)]
pub enum Write {
    Record { object: ObjectId, bytes: Vec<u8> },
    Founding(Vec<u8>),
    Fence { slot: HashSlot, to: Epoch },
    Body { id: BodyId, body: Arc<Vec<u8>> },
}

/// What is to be done once it is durable.
pub enum Then {
    Paxos { sends: Vec<chunkpaxos::Send> },
    Founding { sends: Vec<tintype::proto::founding::Send> },
    Put(PutId),
    Nothing,
}

/// Why a write was not taken.
pub struct Full;

/// A disk and the writer in front of it.
pub struct Store {
    pub contents: Contents,
    queue: VecDeque<(Write, Then)>,
    /// How many of the queue are in the group being synced.
    syncing: usize,
    /// Takes no more bodies.
    pub no_room: bool,
    /// Takes nothing at all.
    pub is_full: bool,
    /// Extra time of each sync.
    pub slow_ms: u64,
    /// Records that cannot be read any more.
    pub rotten: BTreeSet<ObjectId>,
}

impl Store {
    pub fn new(incarnation: Incarnation) -> Self {
        let (records, bodies) = (BTreeMap::new(), BTreeMap::new());
        Self {
            contents: Contents {
                boot: 0,
                incarnation,
                founding: None,
                fences: BTreeMap::new(),
                claims: 0,
                records,
                bodies,
            },
            queue: VecDeque::new(),
            syncing: 0,
            no_room: false,
            is_full: false,
            slow_ms: 0,
            rotten: BTreeSet::new(),
        }
    }

    /// Writes that are not durable yet.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Takes a write; the answer is how long the sync takes that begins now, if one begins.
    pub fn submit(&mut self, write: Write, then: Then, dice: &mut Dice) -> Result<Option<u64>, Full> {
        let is_body = matches!(write, Write::Body { .. });
        let is_vital = matches!(write, Write::Founding(_));
        let refused =
            self.is_full || (is_body && self.no_room) || self.queue.len() >= limits::WRITE_QUEUE_MAX;
        if refused && !is_vital {
            return Err(Full);
        }
        self.queue.push_back((write, then));
        Ok(self.begin(dice))
    }

    fn begin(&mut self, dice: &mut Dice) -> Option<u64> {
        if self.syncing > 0 || self.queue.is_empty() {
            return None;
        }
        self.syncing = self.queue.len().min(limits::WRITE_BATCH_MAX);
        Some(dice.between(1, 12) + self.slow_ms)
    }

    /// The sync has ended: what was written, what follows, and how long the next sync takes.
    pub fn synced(&mut self, dice: &mut Dice) -> (Vec<(Write, Then)>, Option<u64>) {
        let group: Vec<_> = self.queue.drain(..std::mem::take(&mut self.syncing)).collect();
        group.iter().for_each(|(write, _)| self.apply(write));
        (group, self.begin(dice))
    }

    /// The machine loses power. Of the group being synced everything is there or nothing, of each body on its
    /// own; nobody is told. The answer is what became durable all the same, how many
    /// writes were lost, and whether a group was torn.
    pub fn crash(&mut self, dice: &mut Dice) -> (Vec<Write>, u64, bool) {
        let all = self.queue.len() as u64;
        let group: Vec<_> = self.queue.drain(..self.syncing).collect();
        let committed = dice.permille(500);
        let is_torn = !group.is_empty();
        let mut kept = Vec::new();
        for (write, _) in group {
            let has_own_file = matches!(write, Write::Body { .. });
            if if has_own_file { dice.permille(500) } else { committed } {
                self.apply(&write);
                kept.push(write);
            }
        }
        self.queue.clear();
        self.syncing = 0;
        let lost = all - kept.len() as u64;
        (kept, lost, is_torn)
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Record { object, bytes } => {
                self.contents.records.insert(*object, bytes.clone());
                self.rotten.remove(object);
            }
            Write::Founding(bytes) => self.contents.founding = Some(bytes.clone()),
            Write::Fence { slot, to } => drop(self.contents.fences.insert(*slot, *to)),
            Write::Body { id, body } => drop(self.contents.bodies.insert(*id, Arc::clone(body))),
        }
    }

    /// One bit of a body turns; says whether there was one to turn.
    pub fn flip_body(&mut self, dice: &mut Dice) -> bool {
        let ids: Vec<BodyId> = self.contents.bodies.keys().copied().collect();
        let Some(id) = (!ids.is_empty()).then(|| dice.pick(&ids)) else { return false };
        let mut bytes = self.contents.bodies[&id].to_vec();
        let at = dice.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << dice.below(8);
        self.contents.bodies.insert(id, Arc::new(bytes));
        true
    }

    /// One record rots: its checksum does not fit any more.
    pub fn flip_record(&mut self, dice: &mut Dice) -> bool {
        let objects: Vec<ObjectId> = self.contents.records.keys().copied().collect();
        let Some(object) = (!objects.is_empty()).then(|| dice.pick(&objects)) else { return false };
        self.rotten.insert(object);
        true
    }

    /// A body, if a good copy is here; a bad one is moved aside.
    pub fn good_body(&mut self, id: &BodyId) -> Read {
        match self.contents.bodies.get(id) {
            None => Read::Nothing,
            Some(body) if body_id(body) == *id => Read::Good(Arc::clone(body)),
            Some(_) => {
                self.contents.bodies.remove(id);
                Read::Bad
            }
        }
    }

    /// Whether a copy is here, good or not: nobody reads it for that.
    pub fn has(&self, id: &BodyId) -> bool {
        self.contents.bodies.contains_key(id)
    }

    /// Whether a good copy is durably here; looks and changes nothing.
    pub fn holds(&self, id: &BodyId) -> bool {
        self.contents.bodies.get(id).is_some_and(|body| body_id(body) == *id)
    }
}

/// What was found where a body should be.
pub enum Read {
    Nothing,
    Good(Arc<Vec<u8>>),
    Bad,
}
