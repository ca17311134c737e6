//! A client of the simulator: puts, gets and removals step by step, as `client::put` and `client::get` do
//! them, with the real seals and the real fetch schedule.
//!
//! All clients are one user, so that they meet at the same objects. What a client is told goes to the
//! history; what it may not be told ends the run.

mod read;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use tintype::{
    model::{
        BodyId, Digest, Millis, ObjectId, RequestId, limits,
        member::Epoch,
        object::{MediaType, ObjectName, Padding, Predecessor, Redundancy},
        register::{Register, VerifiedRegister},
        rpc::{Request, Response},
        slots::HashSlot,
    },
    proto::{
        Outbox,
        placement::{self, Weighted},
        schedule::{self, Schedule},
    },
    seal::{
        chunk::{self, IdCheck, SealedChunk},
        keys::{UserKeys, UserSecret},
        manifest::{self, Layout, Manifest, ManifestPlan, ObjectInfo},
        register::{self, RegisterPlan},
    },
};

use super::{
    bodies::{Fetched, Stored},
    links::Party,
    oracle::{Acked, signed},
    tasks::Errands,
    world::{Packet, Thing, World},
};

/// How long a body is tried.
const STORE_PATIENCE_MS: u64 = 6000;
/// The pause before something is tried again.
const PAUSE_MS: u64 = 50;

/// One client.
pub struct SimClient {
    number: usize,
    /// Processes so far.
    pub life: u64,
    objects: usize,
    task: Option<Task>,
    /// Questions that it waits for.
    asked: BTreeMap<u64, Asked>,
    shunned: BTreeMap<usize, u64>,
    /// The newest version of each object that it was shown: an older one is an error.
    seen: BTreeMap<ObjectId, u64>,
    pub errands: Errands,
}

enum Asked {
    Rpc,
    Store { to: usize },
    Fetch { body: BodyId, from: usize },
}

/// What a client is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    Put {
        value: u64,
    },
    Get,
    Remove,
    /// The newest that the reachable nodes know (`--any`): it must be signed, and promises nothing more.
    Look,
}

/// An operation under way.
struct Task {
    goal: Goal,
    name: ObjectName,
    object: ObjectId,
    /// In the history.
    operation: usize,
    request: RequestId,
    stage: Stage,
    /// When this stage is given up.
    until: u64,
    /// Bodies to be stored, one after the other.
    waiting: Vec<(BodyId, Arc<Vec<u8>>)>,
    storing: Option<Storing>,
    /// The fewest nodes that a stored body is known to be on.
    fewest: usize,
    /// What was stored for this write: its chunk, and the manifest of the last attempt.
    bodies: Vec<BodyId>,
    sealed: Option<(SealedChunk, u64)>,
    current: Option<(VerifiedRegister, Option<Manifest>)>,
    proposed: Option<VerifiedRegister>,
    schedule: Schedule,
    conflicts: u32,
    /// How often this value was proposed.
    attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    StoringChunk,
    Reading,
    FetchingManifest(BodyId),
    FetchingChunk(BodyId),
    StoringManifest,
    Proposing,
}

struct Storing {
    id: BodyId,
    body: Arc<Vec<u8>>,
    holders: BTreeSet<usize>,
    tried: BTreeSet<usize>,
}

/// The one user.
pub fn keys() -> &'static UserKeys {
    static KEYS: OnceLock<UserKeys> = OnceLock::new();
    KEYS.get_or_init(|| UserKeys::derive(&UserSecret::from_random([7; 32].into())))
}

/// The name of an object.
pub fn name(index: usize) -> ObjectName {
    ObjectName::parse(&format!("picture-{index}.png")).expect("a name")
}

/// What a value is in bytes: its number first, then as much as the number says.
fn plain(value: u64) -> Vec<u8> {
    let length = 64 + (value.wrapping_mul(0x9e37_79b9) % 3000) as usize;
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.extend((8..length).map(|at| (at as u64 ^ value) as u8));
    bytes
}

impl SimClient {
    pub fn new(number: usize, objects: usize) -> Self {
        let (asked, shunned, seen) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { number, life: 0, objects, task: None, asked, shunned, seen, errands: Errands::default() }
    }

    fn party(&self) -> Party {
        Party::Client(self.number)
    }

    /// The newest version of an object that it was shown.
    pub fn newest_seen(&self, object: &ObjectId) -> u64 {
        self.seen.get(object).copied().unwrap_or(0)
    }

    /// Whether it is doing something.
    pub fn is_busy(&self) -> bool {
        self.task.is_some()
    }
}

impl World {
    // ---- beginning and ending ----

    pub fn client_wakes(&mut self, client: usize) {
        if self.clients[client].task.is_some() {
            return self.go_on(client);
        }
        if self.healed || self.founding.is_none() {
            return self.wake_client(client, 200);
        }
        let objects = self.clients[client].objects as u64;
        let index = self.dice.below(objects) as usize;
        let goal = match self.dice.below(100) {
            0..=44 => Goal::Put { value: self.next_number() },
            45..=56 => Goal::Remove,
            57..=60 => Goal::Look,
            _ => Goal::Get,
        };
        self.begin_task(client, index, goal);
    }

    fn wake_client(&mut self, client: usize, delay_ms: u64) {
        let life = self.clients[client].life;
        self.after(delay_ms, Thing::Wake { client, life });
    }

    pub fn begin_task(&mut self, client: usize, index: usize, goal: Goal) {
        let name = name(index);
        let object = keys().address(&name).object;
        let operation = self.oracle.history.begin(client, index, goal, self.tally.steps);
        let config = schedule::Config { window: 4, per_peer: 4 };
        let mut task = Task {
            goal,
            name,
            object,
            operation,
            request: RequestId(self.dice.bytes()),
            stage: Stage::Reading,
            until: 0,
            waiting: Vec::new(),
            storing: None,
            fewest: usize::MAX,
            bodies: Vec::new(),
            sealed: None,
            current: None,
            proposed: None,
            schedule: Schedule::new(config),
            conflicts: 0,
            attempts: 0,
        };
        if let Goal::Put { value } = goal {
            let mut bytes = plain(value);
            let length = bytes.len() as u64;
            let sealed = chunk::seal(keys(), &mut bytes, Padding::of_object(length));
            task.waiting.push((sealed.chunk.id, Arc::new(bytes)));
            task.sealed = Some((sealed, length));
            task.stage = Stage::StoringChunk;
        }
        self.tally.began += 1;
        self.clients[client].task = Some(task);
        let first = self.task(client).stage;
        self.enter(client, first);
    }

    fn task(&mut self, client: usize) -> &mut Task {
        self.clients[client].task.as_mut().expect("only called while there is one")
    }

    fn enter(&mut self, client: usize, stage: Stage) {
        let patience = match stage {
            Stage::StoringChunk | Stage::StoringManifest => STORE_PATIENCE_MS,
            Stage::Reading | Stage::Proposing => limits::CLIENT_PATIENCE.0,
            Stage::FetchingManifest(_) | Stage::FetchingChunk(_) => limits::FETCH_STALL_MAX.0,
        };
        let until = self.now + patience;
        let task = self.task(client);
        (task.stage, task.until) = (stage, until);
        self.clients[client].asked.clear();
        if let Stage::FetchingManifest(body) | Stage::FetchingChunk(body) = stage {
            return self.want_body(client, body);
        }
        self.go_on(client);
    }

    /// The task has ended; `told` is what the client was told, none = nothing for sure.
    fn end_task(&mut self, client: usize, told: Option<Told>) {
        let Some(task) = self.clients[client].task.take() else { return };
        self.clients[client].asked.clear();
        let may_have_happened = task.proposed.is_some();
        let checked = self.oracle.history.end(task.operation, self.tally.steps, told, may_have_happened);
        self.check(checked);
        match told {
            Some(_) => self.tally.succeeded += 1,
            None if may_have_happened => self.tally.unknown += 1,
            None => self.tally.failed += 1,
        }
        if let Some(Told::Wrote { version, .. } | Told::Read { version, .. } | Told::Nothing { version }) =
            told
        {
            let seen = self.clients[client].seen.entry(task.object).or_default();
            *seen = (*seen).max(version);
        }
        let pause = self.dice.between(5, 400);
        self.wake_client(client, pause);
    }

    /// The process dies; another begins, which knows what the first was shown.
    pub fn kill_client(&mut self, client: usize) {
        if let Some(task) = self.clients[client].task.take() {
            let may_have_happened = task.proposed.is_some();
            let checked = self.oracle.history.end(task.operation, self.tally.steps, None, may_have_happened);
            self.check(checked);
            self.tally.killed_clients += 1;
        }
        let c = &mut self.clients[client];
        c.life += 1;
        c.asked.clear();
        c.shunned.clear();
        let party = c.party();
        self.drop_lines(party);
        self.errands_die(client);
        let pause = self.dice.between(50, 500);
        self.wake_client(client, pause);
    }

    // ---- steps ----

    /// Goes on with whatever is to be done now and is not under way.
    fn go_on(&mut self, client: usize) {
        if self.clients[client].task.is_none() || !self.clients[client].asked.is_empty() {
            return;
        }
        let (now, task) = (self.now, self.task(client));
        let stage = task.stage;
        if now >= task.until {
            return self.give_up(client);
        }
        match stage {
            Stage::StoringChunk | Stage::StoringManifest => self.store_next(client),
            Stage::Reading => {
                let object = task.object;
                let request = match task.goal {
                    Goal::Look => Request::ReadAny { object },
                    _ => Request::Read { object },
                };
                self.ask_any(client, &request);
            }
            Stage::Proposing => {
                task.attempts += 1;
                let value = task.proposed.as_ref().expect("signed before it is proposed").to_raw();
                self.ask_any(client, &Request::Propose { value });
            }
            Stage::FetchingManifest(_) | Stage::FetchingChunk(_) => self.ring_schedule(client),
        }
    }

    fn give_up(&mut self, client: usize) {
        let task = self.task(client);
        // Whoever has it on fewer nodes than wanted says so by its answer.
        let has_some = task.storing.as_ref().is_some_and(|s| !s.holders.is_empty());
        if has_some {
            return self.body_is_stored(client);
        }
        self.end_task(client, None);
    }

    fn again_soon(&mut self, client: usize) {
        self.wake_client(client, PAUSE_MS);
    }

    /// Nodes that can be asked, those passed over lately last.
    fn usable(&self, client: usize) -> Vec<usize> {
        let c = &self.clients[client];
        let connected: Vec<usize> = self.neighbours(c.party()).into_iter().collect();
        let is_shunned = |node: &usize| c.shunned.get(node).is_some_and(|until| *until > self.now);
        let (last, mut first): (Vec<usize>, Vec<usize>) = connected.into_iter().partition(is_shunned);
        first.extend(last);
        first
    }

    fn client_asks(&mut self, client: usize, to: usize, asked: Asked, packet: impl FnOnce(u64) -> Packet) {
        let number = self.next_number();
        let c = &mut self.clients[client];
        c.asked.insert(number, asked);
        let (party, life) = (c.party(), c.life);
        self.after(limits::NO_PROGRESS.0, Thing::Expired { party, life, number });
        self.send(party, Party::Node(to), packet(number));
    }

    /// Asks the object's home if it is there, sometimes another.
    fn ask_any(&mut self, client: usize, request: &Request) {
        let usable = self.usable(client);
        if usable.is_empty() {
            return self.again_soon(client);
        }
        let object = self.task(client).object;
        let home = self.home_of(&object).filter(|home| usable[0] == *home || usable.contains(home));
        let to = match home {
            Some(home) if self.dice.permille(700) => home,
            _ => usable[self.dice.below(usable.len() as u64) as usize],
        };
        let bytes = request.encode();
        self.client_asks(client, to, Asked::Rpc, |number| Packet::Ask { number, bytes });
    }

    fn home_of(&self, object: &ObjectId) -> Option<usize> {
        let members: Vec<Weighted> = self.founding.as_ref()?.members.iter().map(Weighted::from).collect();
        let keepers = placement::keepers(Epoch::FOUNDING, &members, HashSlot::of(object));
        let home = placement::home(Epoch::FOUNDING, &keepers.acceptors, object)?;
        self.index_of(&home)
    }

    // ---- answers ----

    pub fn client_line_changed(&mut self, client: usize) {
        self.errands_hear_of_nodes(client);
        if self.clients[client].task.is_some() {
            self.again_soon(client);
        }
    }

    pub fn client_expired(&mut self, client: usize, number: u64) {
        if self.errand_expired(client, number) {
            return;
        }
        match self.clients[client].asked.remove(&number) {
            Some(Asked::Rpc) => self.again_soon(client),
            Some(Asked::Store { to }) => self.not_stored(client, to),
            Some(Asked::Fetch { body, from }) => {
                self.feed_schedule(client, ended(self.nodes[from].peer, body, schedule::End::Failed));
            }
            None => {}
        }
    }

    fn not_stored(&mut self, client: usize, to: usize) {
        let until = self.now + limits::SHUN.0;
        self.clients[client].shunned.insert(to, until);
        if let Some(storing) = &mut self.task(client).storing {
            storing.tried.insert(to);
        }
        self.go_on(client);
    }

    pub fn client_gets(&mut self, client: usize, _from: Party, packet: Packet) {
        match packet {
            Packet::Told { number, bytes } => {
                if self.clients[client].asked.remove(&number).is_some() {
                    match Response::decode(&bytes) {
                        Ok(response) => self.client_told(client, response),
                        Err(error) => self.fail(|| format!("an answer that cannot be read: {error}")),
                    }
                }
            }
            Packet::Stored { number, stored } => {
                let Some(Asked::Store { to }) = self.clients[client].asked.remove(&number) else { return };
                match stored {
                    Stored::By(holders) => {
                        if let Some(storing) = &mut self.task(client).storing {
                            storing.holders.extend(holders);
                        }
                        self.go_on(client);
                    }
                    Stored::Full | Stored::Busy => self.not_stored(client, to),
                }
            }
            Packet::Fetched { number, fetched } => {
                let Some(Asked::Fetch { body, from }) = self.clients[client].asked.remove(&number) else {
                    return;
                };
                self.body_came(client, body, from, fetched);
            }
            Packet::OfTasks(said) => self.client_hears_of_tasks(client, said),
            _ => self.fail(|| "a client got what only nodes get".into()),
        }
    }

    fn client_told(&mut self, client: usize, response: Response) {
        let stage = self.task(client).stage;
        match (stage, response) {
            (Stage::Reading, Response::Register { value }) => {
                let object = self.task(client).object;
                let value = value.map(|raw| self.verify(&raw));
                if let Some(read) = &value {
                    let checked = signed::answered(&object, read.as_ref());
                    self.check(checked);
                }
                self.register_is_read(client, value.flatten());
            }
            (Stage::Proposing, Response::Committed(commit)) => self.committed(client, commit.copies),
            (Stage::Proposing, Response::Conflict { current }) => {
                let current = current.and_then(|raw| Register::decode(&raw.0).ok());
                self.conflicted(client, current);
            }
            (_, Response::NoQuorum | Response::Busy | Response::NotReady(_)) => self.again_soon(client),
            (stage, other) => self.fail(|| format!("{stage:?} was answered by {other:?}")),
        }
    }

    fn register_is_read(&mut self, client: usize, value: Option<VerifiedRegister>) {
        let version = value.as_ref().map_or(0, |v| v.version);
        let task = self.task(client);
        let (goal, object) = (task.goal, task.object);
        let seen = self.clients[client].seen.get(&object).copied().unwrap_or(0);
        if goal == Goal::Look {
            return self.end_task(client, None);
        }
        if version < seen {
            return self.fail(|| format!("version {version} was read after {seen} had been shown"));
        }
        let Some(value) = value else {
            return match goal {
                Goal::Put { .. } => self.write_next(client, None),
                _ => self.end_task(client, Some(Told::Nothing { version: 0 })),
            };
        };
        match (goal, value.manifest, value.is_tombstone()) {
            (Goal::Get | Goal::Remove | Goal::Look, _, true) => {
                self.end_task(client, Some(Told::Nothing { version }))
            }
            (Goal::Remove, _, false) => self.write_next(client, Some((value, None))),
            (_, Some(manifest), _) => {
                self.task(client).current = Some((value, None));
                self.enter(client, Stage::FetchingManifest(manifest));
            }
            (_, None, _) => self.fail(|| "a version without a manifest".into()),
        }
    }

    fn committed(&mut self, client: usize, copies: u64) {
        let task = self.task(client);
        let Some(value) = task.proposed.clone() else { return };
        let (goal, fewest, bodies, object) = (task.goal, task.fewest, task.bodies.clone(), task.object);
        let version = value.version;
        let survives = (copies.min(fewest as u64)).saturating_sub(1).min(1);
        let acked = Acked { object, version, survives, copies, bodies };
        let stores: Vec<_> = self.nodes.iter().map(|n| (&n.store, n.is_gone)).collect();
        let is_rotting = self.plan.rots;
        let checked = self.oracle.kept.acknowledged(acked, &stores, is_rotting);
        self.check(checked);
        let value = match goal {
            Goal::Put { value } => Some(value),
            _ => None,
        };
        self.end_task(client, Some(Told::Wrote { version, value }));
    }

    fn conflicted(&mut self, client: usize, current: Option<Register>) {
        self.tally.conflicts += 1;
        let task = self.task(client);
        task.conflicts += 1;
        let version = task.proposed.as_ref().map_or(0, |value| value.version);
        if task.attempts > 1 && current.is_some_and(|current| current.has_forgotten(version)) {
            self.tally.overtaken += 1;
            return self.end_task(client, None);
        }
        // It has not happened and never will: the same request becomes another version, or none.
        (task.proposed, task.current) = (None, None);
        // The manifest of this attempt means nothing.
        task.bodies.truncate(1);
        if task.conflicts >= limits::PUT_CONFLICTS_MAX {
            return self.end_task(client, None);
        }
        self.enter(client, Stage::Reading);
    }
}

/// What a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Its write is this version; no value is a removal.
    Wrote { version: u64, value: Option<u64> },
    /// This is there.
    Read { version: u64, value: u64 },
    /// Nothing is there, at this version.
    Nothing { version: u64 },
}

fn ended(from: tintype::model::PeerId, body: BodyId, end: schedule::End) -> schedule::Event {
    schedule::Event::Ended { body, from, end }
}

fn predecessors(current: Option<&(VerifiedRegister, Option<Manifest>)>) -> Vec<Predecessor> {
    let Some((register, manifest)) = current else { return Vec::new() };
    let Some(id) = register.manifest else { return Vec::new() };
    let newest = Predecessor { version: register.version - u64::from(register.is_tombstone()), manifest: id };
    let older = manifest.iter().flat_map(|m| m.predecessors.iter().copied());
    std::iter::once(newest).chain(older).take(limits::PREDECESSORS_MAX).collect()
}
