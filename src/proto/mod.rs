//! The deciders that talk by messages: consensus on registers, who is alive, the founding, placement,
//! fetching, who works on what.
//!
//! Everything here is a machine without input or output of its own. It owns no clock, socket, file, task or
//! randomness: the driver (`node::event_loop`, `client::get`, `client::tasks`) hands in time and random
//! seeds. Every machine
//! is `fn handle(&mut self, now: Millis, event: Event, out: &mut Outbox<Action>)` with the same five words,
//! qualified by module: `Config`, `Event`, `Action`, `Message`, `Timer`.
//!
//! # How a driver drives a machine
//! The machines are separate; nothing in one calls another. After each `handle` the driver drains the outbox
//! **in order**:
//! * `Send { to, message }`: put it on the wire, or lose it. Never addressed to this node, except inside a
//!   `Write`.
//! * `Write { record, then, .. }`: make `record` durable, replacing the older one of the same key, then do
//!   the sends in `then`. Writes become durable in the order in which they were issued. A send in `then`
//!   addressed to this node is not put on any wire: it comes back as `Event::Message { from: me, .. }` once
//!   the write is durable. A write that was refused (queue full) is reported where the machine has an event
//!   for it, and none of its sends are done.
//! * `Arm { at, timer }`: hand in `Event::Timer(timer)` at or after `at`. Arming a timer replaces an
//!   earlier arming of an equal timer. A machine never has more armed timers than its `Timer` has values.
//! * everything else is described at the action.
//!
//! Bad input is ignored or answered, never a panic and never an error type.

pub mod chunkpaxos;
pub mod election;
pub mod errand;
pub mod founding;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod hints;
pub mod history;
pub mod membership;
pub mod placement;
pub mod repair;
pub mod schedule;
#[cfg(test)]
pub(crate) mod testing;

/// What a machine wants done, in order.
#[derive(Debug)]
pub struct Outbox<A> {
    actions: Vec<A>,
}

impl<A> Outbox<A> {
    /// An empty one.
    pub fn new() -> Self {
        Self { actions: Vec::new() }
    }

    /// Adds one action.
    pub fn push(&mut self, action: A) {
        self.actions.push(action);
    }

    /// Adds these, in order.
    pub fn extend(&mut self, actions: impl IntoIterator<Item = A>) {
        self.actions.extend(actions);
    }

    /// Takes all actions out, in order.
    pub fn drain(&mut self) -> std::vec::Drain<'_, A> {
        self.actions.drain(..)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }
}

impl<A> Default for Outbox<A> {
    fn default() -> Self {
        Self::new()
    }
}
