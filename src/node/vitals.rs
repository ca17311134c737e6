//! What a node tells of itself every second: its load, its room, its tasks; and what it looks at then.
//!
//! It decides nothing; who has least to do is judged elsewhere.

use super::{event_loop::EventLoop, timers::TimerKey};
use crate::{
    model::{Millis, limits},
    proto::membership,
};

impl EventLoop {
    /// What the next heartbeat tells of this node.
    pub(super) fn sample_tasks(&mut self) {
        let history = self.cluster.as_ref().map(|cluster| &cluster.history);
        let ((tasks, slots), places) = history.map(|h| (h.in_hand(), h.places())).unwrap_or_default();
        let vitals = membership::Vitals {
            load_centi: self.sampler.load(tasks, slots),
            used_bytes: self.disk.used_bytes().unwrap_or(0),
            capacity_bytes: self.disk.capacity_bytes().unwrap_or(0),
            tasks,
            slots,
            places,
        };
        let addrs = self.addresses();
        self.feed_membership(membership::Event::Vitals { vitals, addrs });
    }

    /// Samples the machine for the next heartbeat, and looks whether the disk has room.
    pub(super) fn sample_vitals(&mut self) {
        self.sampler.sample();
        self.sample_tasks();
        self.look_at_space();
        self.keep_marks_of_members();
        self.tell_what_it_waits_for();
        if self.cluster.is_none() {
            self.ask_for_nodes();
        }
        if self.bodies.take_missed() {
            self.repair.lacking = None;
            self.repair.runs.quicken();
            self.timers.arm_no_later(TimerKey::Repair, self.now() + limits::REPAIR_RETRY);
        }
        self.offer_missed();
        if self.bodies.take_single() && self.repair.single_copy.unwrap_or(0) == 0 {
            self.recount_everywhere();
        }
        self.timers.arm(TimerKey::Vitals, self.now() + Millis(1000));
    }
}

/// As many as this machine lets this process have; one if it does not say.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
