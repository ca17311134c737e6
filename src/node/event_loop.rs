//! The one select of a node: stop, finished work, timers, calls, network, in this order.
//!
//! Nothing here waits but the select. The network comes last, so after every few turns it is looked at first:
//! a flood of finished work must not starve the heartbeats that it carries.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use futures::FutureExt;
use libp2p_identity::Keypair;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::{
    Done, NodeConfig, NodeError, Notice, OnNotice,
    bodies::{Bodies, NodeCounters, RunGuard},
    crew::Crew,
    events::Events,
    load::Sampler,
    machines::{Caller, Cluster},
    repair, report,
    tasks::{Asked, Tasks},
    timers::{TimerKey, Timers},
    workbench::Workbench,
};
use crate::{
    disk::{Boot, Disk, MetaKey, NodeAddr},
    model::{Millis, ObjectId, PeerId, hello::KnownPeer, limits, member::Member, slots::HashSlot},
    net::{BulkCall, Net, NetHandle, RequestNumber, transport::Gate},
    proto::{
        Outbox,
        chunkpaxos::{self, CallId},
        founding::{self, FoundingMachine, FoundingRecord},
        repair::Seen,
    },
};

/// Turns between two looks at the network, whatever else is pending.
const TURNS_PER_LOOK: u32 = 16;

/// Finished pieces of work taken in one turn: a turn looks at everything that can happen, which is not cheap.
const DONE_AT_ONCE: usize = 32;

/// Why a node's loop ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was asked to: a signal, or `tintype down`.
    Asked,
}

/// Whether a node is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopping {
    /// It is not.
    No,
    /// Once the tasks in hand are done.
    Orderly,
    /// At once.
    Now,
}

impl Stopping {
    /// Who asks twice does not want to wait.
    pub(super) fn ask(stop: &watch::Sender<Self>) {
        stop.send_modify(|was| *was = if *was == Self::No { Self::Orderly } else { Self::Now });
    }
}

/// A call from a task beside the loop.
pub(super) enum Call {
    /// Something of a register.
    Paxos { object: ObjectId, command: chunkpaxos::Command, reply: oneshot::Sender<chunkpaxos::Answer> },
    /// Repair found an agreed value.
    LateAccept { object: ObjectId, accepted: chunkpaxos::Accepted },
    /// A repair run has ended.
    RepairDone { lacking: u64, single_copy: u64, took: Millis, seen: Seen, running: RunGuard },
}

/// All that a started node is made of.
pub(super) struct Parts {
    pub(super) config: NodeConfig,
    pub(super) disk: Disk,
    pub(super) boot: Boot,
    pub(super) net: Net,
    pub(super) gate: Gate,
    pub(super) bulk_calls: mpsc::Receiver<BulkCall>,
    pub(super) record: Option<FoundingRecord>,
    pub(super) key_was_there: bool,
    pub(super) notice: OnNotice,
}

/// A durable write that is done, or failed: what may be said now.
pub(super) enum Durable {
    /// ChunkPaxos: on success these sends, else the refusal.
    ChunkPaxos { object: ObjectId, serial: u64, then: Option<Vec<chunkpaxos::Send>> },
    /// ChunkPaxos, the fence of a slot: on success these sends, else the refusal.
    Fence { slot: HashSlot, then: Option<Vec<chunkpaxos::Send>> },
    /// The founding's; a failure stops the node.
    Founding { then: Option<Vec<founding::Send>> },
}

/// What a machine must be told, but not from within itself: the next turn begins with it. Never more than the
/// actions of one turn.
pub(super) enum Later {
    /// The disk's queue is full: this write was not taken.
    WriteRefused { object: ObjectId, serial: u64 },
    /// The readers' queue is full: this record was not read.
    NotRead { object: ObjectId },
    /// The disk's queue is full: this fence was not taken.
    FenceRefused { slot: HashSlot },
    /// The tasks are too many: this page was not read.
    NotScanned { slot: HashSlot, after: Option<ObjectId> },
    /// The network's queue is full: this was not asked.
    Unanswered(Asked),
    /// The network's queue is full: this probe was not sent.
    NotProbed { peer: PeerId, via: Option<PeerId> },
}

/// A running node.
pub(super) struct EventLoop {
    pub(super) config: NodeConfig,
    pub(super) me: PeerId,
    pub(super) boot: Boot,
    pub(super) disk: Disk,
    pub(super) net: Net,
    pub(super) handle: NetHandle,
    pub(super) gate: Gate,
    pub(super) notice: OnNotice,
    pub(super) founding: FoundingMachine,
    pub(super) founding_status: founding::Status,
    pub(super) founding_out: Outbox<founding::Action>,
    pub(super) cluster: Option<Cluster>,
    pub(super) callers: BTreeMap<CallId, Caller>,
    pub(super) next_call: u64,
    pub(super) probes: BTreeMap<RequestNumber, (PeerId, Option<PeerId>)>,
    pub(super) list_nonces: BTreeMap<PeerId, [u8; 32]>,
    pub(super) timers: Timers,
    pub(super) events: Events,
    pub(super) sampler: Sampler,
    pub(super) counters: Arc<NodeCounters>,
    pub(super) bodies: Bodies,
    pub(super) crew: Crew,
    pub(super) tasks: Tasks,
    pub(super) workbench: Workbench,
    pub(super) foreign: BTreeMap<String, String>,
    /// Display names heard last, of nodes that may be gone.
    pub(super) names: BTreeMap<PeerId, String>,
    pub(super) warnings: BTreeMap<&'static str, String>,
    /// Members by how often they refused us for another process with our identity.
    pub(super) still_connected: BTreeMap<PeerId, u32>,
    /// What was last written down of each member.
    pub(super) kept_marks: BTreeMap<PeerId, KnownPeer>,
    pub(super) repair: repair::LastRun,
    pub(super) stop_token: [u8; 32],
    pub(super) jobs: Arc<Semaphore>,
    pub(super) stop: watch::Sender<Stopping>,
    pub(super) fatal: Option<NodeError>,
    pub(super) done_in: mpsc::Sender<Done>,
    pub(super) durable_in: mpsc::Sender<Durable>,
    pub(super) calls_in: mpsc::Sender<Call>,
    pub(super) later: Vec<Later>,
    started: Instant,
    announced: bool,
    was_ready: bool,
    told_to_wait: bool,
    queues: Option<Queues>,
}

/// The loop's inboxes, apart from the state so that both can be borrowed.
struct Queues {
    done: mpsc::Receiver<Done>,
    durable: mpsc::Receiver<Durable>,
    calls: mpsc::Receiver<Call>,
    stop: watch::Receiver<Stopping>,
    disk_failure: watch::Receiver<Option<crate::disk::DiskError>>,
}

impl EventLoop {
    pub(super) fn new(parts: Parts, keypair: &Keypair) -> Result<Self, NodeError> {
        let Parts { config, disk, boot, net, gate, bulk_calls, record, key_was_there, notice } = parts;
        let me = keypair.public().to_peer_id();
        let (done_in, done) = mpsc::channel(limits::NODE_TASKS_MAX + 1);
        // Room for all that the disk has in hand. If the loop is slower still, the writer waits for it and
        // the disk says busy; the loop itself never waits for the writer.
        let (durable_in, durable) = mpsc::channel(limits::WRITE_QUEUE_MAX + limits::WRITE_BATCH_MAX + 1);
        let (calls_in, calls) = mpsc::channel(limits::NODE_CALLS_MAX);
        let (stop, stop_out) = watch::channel(Stopping::No);
        let founding = founding_machine(me, &config, &boot, record, key_was_there);
        let handle = net.handle();
        let counters = Arc::new(NodeCounters::default());
        let workbench = Workbench::new(done_in.clone(), config.worker.clone());
        let served = (bulk_calls, workbench.clone());
        let bodies = Bodies::start(me, disk.clone(), handle.clone(), Arc::clone(&counters), served);
        let disk_failure = disk.failure();
        let crew = Crew::start(&disk, &counters, &done_in).map_err(NodeError::Threads)?;
        // For people: without it they read a piece of a PeerId.
        let names = report::read_names(disk.meta(MetaKey::KnownAddresses).ok().flatten().as_deref());
        Ok(Self {
            me,
            boot,
            disk,
            handle,
            net,
            gate,
            notice,
            founding,
            founding_status: founding::Status::Waiting(founding::Waiting::Looking),
            founding_out: Outbox::new(),
            cluster: None,
            callers: BTreeMap::new(),
            next_call: 0,
            probes: BTreeMap::new(),
            list_nonces: BTreeMap::new(),
            timers: Timers::default(),
            events: Events::default(),
            sampler: Sampler::new(config.added_load),
            counters,
            bodies,
            crew,
            tasks: Tasks::default(),
            workbench,
            foreign: BTreeMap::new(),
            names,
            warnings: BTreeMap::new(),
            still_connected: BTreeMap::new(),
            kept_marks: BTreeMap::new(),
            repair: repair::LastRun::default(),
            stop_token: rand::random(),
            jobs: Arc::new(Semaphore::new(limits::NODE_TASKS_MAX)),
            stop,
            fatal: None,
            done_in,
            durable_in,
            calls_in,
            later: Vec::new(),
            started: Instant::now(),
            announced: false,
            was_ready: false,
            told_to_wait: false,
            queues: Some(Queues { done, durable, calls, stop: stop_out, disk_failure }),
            config,
        })
    }

    /// Runs until it is asked to stop or cannot go on.
    pub(super) async fn run(mut self) -> Result<Stopped, NodeError> {
        let mut queues = self.queues.take().expect("taken only here, once");
        let signals =
            tokio::spawn(super::start::stop_on_signal(self.stop.clone(), self.config.stop_on_hangup));
        self.begin();
        let mut turn = 0u32;
        while self.fatal.is_none() {
            let stopping = *queues.stop.borrow();
            if stopping != Stopping::No {
                self.leave();
            }
            if stopping == Stopping::Now || self.has_left() {
                break;
            }
            turn = turn.wrapping_add(1);
            if turn.is_multiple_of(TURNS_PER_LOOK)
                && let Some(event) = self.net.next().now_or_never()
            {
                self.on_network(event);
            }
            self.turn(&mut queues).await;
        }
        signals.abort();
        // Nobody reads them any more, and the disk's writer must not wait for a reader while it is to stop.
        drop(queues);
        self.end().await
    }

    async fn turn(&mut self, queues: &mut Queues) {
        for later in std::mem::take(&mut self.later) {
            self.on_later(later);
        }
        let left = self.timers.next_at().map_or(Millis(3_600_000), |at| at.since(self.now()));
        tokio::select! {
            biased;
            _ = queues.stop.changed() => {}
            Ok(()) = queues.disk_failure.changed() => {
                let failure = queues.disk_failure.borrow().clone();
                self.fatal = failure.map(NodeError::Disk);
            }
            Some(durable) = queues.durable.recv() => {
                self.on_durable(durable);
                for _ in 1..DONE_AT_ONCE {
                    let Ok(durable) = queues.durable.try_recv() else { break };
                    self.on_durable(durable);
                }
            }
            Some(done) = queues.done.recv() => {
                self.on_done(done);
                for _ in 1..DONE_AT_ONCE {
                    let Ok(done) = queues.done.try_recv() else { break };
                    self.on_done(done);
                }
            }
            () = passed(left) => {
                let now = self.now();
                while let Some(key) = self.timers.take_due(now) {
                    self.on_timer(key);
                }
            }
            Some(call) = queues.calls.recv() => self.on_call(call),
            event = self.net.next() => self.on_network(event),
        }
    }

    /// Milliseconds since this process began its loop: the clock of every machine.
    pub(super) fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Tells the person who started the node.
    pub(super) fn tell(&self, notice: Notice) {
        (self.notice)(notice);
    }

    /// A sentence for the events and the person.
    pub(super) fn say(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.tell(Notice::Say(text.clone()));
        self.events.say(text);
    }

    /// Says once that the cluster serves: that a majority of it is here. Never before it has said where this
    /// node listens.
    pub(super) fn tell_ready(&mut self) {
        let Some(cluster) = self.cluster.as_ref().filter(|_| self.announced && !self.was_ready) else {
            return;
        };
        let nodes = cluster.founding.members.len();
        if self.members_here(cluster) > nodes / 2 {
            self.was_ready = true;
            self.tell(Notice::Ready { nodes });
        }
    }

    /// Members that can be spoken to, this node among them.
    fn members_here(&self, cluster: &Cluster) -> usize {
        let peers = self.net.peers();
        let here = |m: &&Member| m.peer == self.me || peers.contains_key(&m.peer);
        cluster.founding.members.iter().filter(here).count()
    }

    /// A node that cannot serve for so long says what it waits for.
    pub(super) fn tell_what_it_waits_for(&mut self) {
        let Some(cluster) = self.cluster.as_ref().filter(|_| !self.was_ready) else { return };
        if self.told_to_wait || self.now() < limits::READY_PATIENCE {
            return;
        }
        self.told_to_wait = true;
        let (here, all) = (self.members_here(cluster), cluster.founding.members.len());
        let needed = all / 2 + 1;
        self.say(format!(
            "{here} of the {all} machines of this vault {}; {needed} are needed to read and to store",
            if here == 1 { "is here: this one" } else { "are here" }
        ));
    }

    fn begin(&mut self) {
        self.feed_founding(founding::Event::Start);
        self.timers.arm(TimerKey::Vitals, self.now());
    }

    /// An address more or less: tells clients on this machine where the node is.
    pub(super) fn on_listening(&mut self) {
        let mut addrs: Vec<String> = self.net.listening().iter().map(ToString::to_string).collect();
        addrs.sort_by_key(|a| !a.contains("/127.0.0.1/"));
        let first = addrs.first().cloned();
        let addr =
            NodeAddr { peer: self.me, process: self.boot.mark.process, stop_token: self.stop_token, addrs };
        let (disk, done) = (self.disk.clone(), self.done_in.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = disk.publish_addr(&addr) {
                tracing::warn!("clients on this machine will not find this node by itself: {error}");
            }
            // A loop that has ended tells nobody.
            let _ = done.blocking_send(Done::AddressPublished { first });
        });
    }

    /// Says once that it listens, and not before clients on this machine can find it: whoever waits for that
    /// word comes at once.
    pub(super) fn on_address_published(&mut self, first: Option<String>) {
        if let Some(addr) = first.filter(|_| !self.announced) {
            self.announced = true;
            self.tell(Notice::Listening { peer: self.me, addr: format!("{addr}/p2p/{}", self.me) });
            self.tell_ready();
        }
    }

    /// Leaves in order: peers know, the disk is flushed, the address is gone.
    async fn end(mut self) -> Result<Stopped, NodeError> {
        self.workbench.clear();
        self.disk.retract_addr();
        self.keep_marks_of_members();
        let noted = self.disk.write(self.known()).await;
        self.bodies.stop();
        self.net.close().await;
        let stopped = self.disk.stop().await;
        if let Some(fatal) = self.fatal.take() {
            return Err(fatal);
        }
        if let Err(error) = noted {
            // A hint for the next start; a full disk has no room for it.
            tracing::warn!("where others were was not written down: {error}");
        }
        stopped?;
        Ok(Stopped::Asked)
    }
}

fn founding_machine(
    me: PeerId,
    config: &NodeConfig,
    boot: &Boot,
    record: Option<FoundingRecord>,
    key_was_there: bool,
) -> FoundingMachine {
    FoundingMachine::new(founding::Config {
        me,
        incarnation: boot.incarnation,
        expect: config.expect,
        key_was_there,
        record,
        seed: rand::random(),
        variant: founding::Variant::Right,
    })
}

/// Waits so long; not at all if it is nothing. A sleep of no length is hardly ever over when it is first
/// looked at, so that in a busy loop whatever stands behind it would go first.
async fn passed(left: Millis) {
    if left > Millis(0) {
        tokio::time::sleep(left.into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_due_goes_before_what_stands_behind_it() {
        // The runtime's clock is looked at only between tasks: let it grow old.
        let since = Instant::now();
        while since.elapsed().as_millis() < 5 {}
        assert!(passed(Millis(0)).now_or_never().is_some());
        assert!(passed(Millis(1000)).now_or_never().is_none());
    }
}
