//! The one match from action to doer. Not async: it cannot wait.
//!
//! What the network or the disk refuses is a lost message or a refused write, which every machine bears.

use super::{
    Done,
    event_loop::{Durable, EventLoop, Later},
    machines::verify,
    timers::TimerKey,
};
use crate::{
    disk::{DiskError, MetaKey, WriteBatch, crash_point},
    model::{ObjectId, PeerId, hello::KnownPeer, limits, member::Epoch, rpc::Request, slots::HashSlot},
    net::{RequestNumber, Topic},
    proto::{
        chunkpaxos::{self, AcceptorRecord},
        founding, membership,
    },
};

impl EventLoop {
    pub(super) fn execute_paxos(&mut self, action: chunkpaxos::Action) {
        use chunkpaxos::Action;
        match action {
            Action::Send(send) => self.send_paxos(send),
            Action::Write { object, serial, record, then } => {
                let owner = record.accepted.as_ref().map(|a| a.value.owner);
                let mut batch = WriteBatch::new();
                batch.record(object, owner, record.encode());
                let durable = self.durable_in.clone();
                // Runs on the writer's thread, which may wait here: the loop never waits for the writer.
                let submitted = self.disk.submit(batch, move |result| {
                    let then = result.is_ok().then_some(then);
                    let _ = durable.blocking_send(Durable::ChunkPaxos { object, serial, then });
                });
                if submitted.is_err() {
                    self.later.push(Later::WriteRefused { object, serial });
                }
            }
            Action::Load { object } => {
                if !self.crew.read(object) {
                    self.later.push(Later::NotRead { object });
                }
            }
            Action::WriteFence { slot, to, then } => self.write_fence(slot, to, then),
            Action::Scan { slot, after } => self.scan_for_paxos(slot, after),
            Action::Installed { slot, to, attempt } => {
                tracing::info!(slot = slot.0, epoch = to.0, attempt, "a hash slot is on its next acceptors");
            }
            Action::Arm { at, timer } => self.timers.arm(TimerKey::ChunkPaxos(timer), at),
            Action::Answer { call, answer } => {
                if let Some(caller) = self.callers.remove(&call) {
                    self.answer(caller, answer);
                }
            }
        }
    }

    fn write_fence(&mut self, slot: HashSlot, to: Epoch, then: Vec<chunkpaxos::Send>) {
        let mut batch = WriteBatch::new();
        batch.fence(slot, to);
        let durable = self.durable_in.clone();
        let submitted = self.disk.submit(batch, move |result| {
            let then = result.is_ok().then_some(then);
            let _ = durable.blocking_send(Durable::Fence { slot, then });
        });
        if submitted.is_err() {
            self.later.push(Later::FenceRefused { slot });
        }
    }

    /// Reads a page of a slot beside the loop.
    fn scan_for_paxos(&mut self, slot: HashSlot, after: Option<ObjectId>) {
        let Ok(permit) = self.jobs.clone().try_acquire_owned() else {
            return self.later.push(Later::NotScanned { slot, after });
        };
        let (disk, done) = (self.disk.clone(), self.done_in.clone());
        tokio::spawn(async move {
            let scan = disk.scan_slot(slot, after, limits::LIST_PAGE_BYTES_MAX).await;
            let page = scan.map(|scan| chunkpaxos::SlotPage {
                objects: scan.records.iter().map(|record| record.object).collect(),
                more: scan.next.is_some(),
            });
            let page = page.map_err(|error| tracing::debug!("scanning a slot: {error}")).ok();
            // A loop that has ended asks for nothing.
            let _ = done.send(Done::Scanned { slot, after, page }).await;
            drop(permit);
        });
    }

    /// Sends on the lane, or hands to the machine what is addressed to this node.
    pub(super) fn send_paxos(&mut self, send: chunkpaxos::Send) {
        if send.to == self.me {
            self.feed_paxos(chunkpaxos::Event::Message { from: self.me, message: send.message });
        } else {
            self.counters.lane_frames_sent.bump();
            // A full lane loses the frame, as a wire would.
            let _ = self.net.send_lane(send.to, send.message.encode(self.disk.promises()));
        }
    }

    pub(super) fn execute_founding(&mut self, action: founding::Action) {
        use founding::Action;
        match action {
            Action::Send(send) => self.send_founding(send),
            Action::Write { record, then } => {
                crash_point("node.founding.before_write");
                let mut batch = WriteBatch::new();
                batch.meta(MetaKey::Founding, Some(record.encode()));
                let durable = self.durable_in.clone();
                let aborts = then.iter().any(|send| matches!(send.message, founding::Message::Abort { .. }));
                let submitted = self.disk.submit(batch, move |result| {
                    crash_point("node.founding.after_write");
                    if aborts {
                        crash_point("node.founding.abort_written");
                    }
                    let then = result.is_ok().then_some(then);
                    let _ = durable.blocking_send(Durable::Founding { then });
                });
                if submitted.is_err() {
                    self.on_durable(Durable::Founding { then: None });
                }
            }
            Action::Arm { at, timer } => self.timers.arm(TimerKey::Founding(timer), at),
            Action::Publicise(status) => self.on_founding_status(status),
        }
    }

    pub(super) fn send_founding(&mut self, send: founding::Send) {
        if send.to == self.me {
            self.feed_founding(founding::Event::Message { from: self.me, message: send.message });
            return;
        }
        crash_point("node.founding.before_send");
        let request = Request::Founding { message: serde_bytes::ByteBuf::from(send.message.encode()) };
        // Lost or not: the machine repeats what matters.
        let _ = self.net.request(send.to, request.encode(), limits::RPC_TIMEOUT.into());
    }

    pub(super) fn execute_membership(&mut self, action: membership::Action) {
        use membership::Action;
        match action {
            Action::Publish(mut message) => {
                message.promises = self.disk.promises();
                (message.claim, message.tasks_digest) = self.task_news();
                // Nobody subscribed yet, or queues full: the next heartbeat is 300 ms away.
                let _ = self.net.publish(Topic::Heartbeat, message.encode());
                self.tell_who_is_here();
            }
            Action::Probe { peer } => {
                let asked = self.net.request(peer, Request::Probe.encode(), limits::PROBE_TIMEOUT.into());
                self.note_probe(asked, peer, None);
            }
            Action::ProbeThrough { via, peer } => {
                let request = Request::ProbeThrough { peer };
                let asked = self.net.request(via, request.encode(), limits::INDIRECT_PROBE_TIMEOUT.into());
                self.note_probe(asked, peer, Some(via));
            }
            Action::Arm { at, timer } => self.timers.arm(TimerKey::Membership(timer), at),
            Action::Publicise(fact) => self.on_fact(fact),
        }
    }

    fn note_probe(
        &mut self,
        asked: Result<RequestNumber, crate::net::Busy>,
        peer: PeerId,
        via: Option<PeerId>,
    ) {
        match asked {
            Ok(request) => {
                self.probes.insert(request, (peer, via));
            }
            Err(_) => self.later.push(Later::NotProbed { peer, via }),
        }
    }

    /// Says once that the disk is full, and once that it is not any more.
    pub(super) fn look_at_space(&mut self) {
        let full = self.disk.room().err();
        if matches!(full, Some(DiskError::Capacity { .. })) && self.disk.used_bytes().is_none() {
            // How much of it is used is still being counted.
            return;
        }
        let was = self.warnings.get("disk");
        match (full, was) {
            (Some(error), None) => {
                let text = format!("this node takes no more chunks: {error}");
                self.warnings.insert("disk", text.clone());
                self.say(text);
            }
            (None, Some(_)) => {
                self.warnings.remove("disk");
                self.repair_soon();
                self.say("this node has room again and takes chunks");
            }
            _ => {}
        }
    }

    /// Writes down what is known of each member, if it is new, so that an older home is known for what it is.
    /// Of starts this is done at each; of promises every second: they are hearsay that others hold too.
    pub(super) fn keep_marks_of_members(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        let mut batch = WriteBatch::new();
        for (peer, known) in self.gate.known_peers() {
            let is_member = cluster.founding.number_of(&peer).is_some();
            if is_member && self.kept_marks.insert(peer, known) != Some(known) {
                let KnownPeer { mark, promises, incarnation } = known;
                batch.seen(peer, crate::disk::Seen { mark, promises, incarnation });
            }
        }
        if batch.is_empty() {
            return;
        }
        if let Err(error) = self.disk.submit(batch, |_| ()) {
            tracing::warn!("the members' starts were not written down: {error}");
        }
    }
}

pub(super) fn read_record(bytes: &[u8]) -> Result<AcceptorRecord, ()> {
    let raw =
        AcceptorRecord::decode(bytes).map_err(|error| tracing::error!("an acceptor record: {error}"))?;
    raw.try_map(|value| verify(&value))
}
