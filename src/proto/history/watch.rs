//! Polls that are answered once their task has got further: so a client hears of it at once, and seldom has
//! to ask.
//!
//! One for each task that waits or is worked on here, none longer than [`limits::TASK_POLL_HOLD`]. It answers
//! none itself.

use std::{
    collections::BTreeMap,
    mem::{Discriminant, discriminant},
};

use super::CallId;
use crate::model::{
    Millis, limits,
    task::{Place, TaskId},
};

/// A poll that is to be answered now.
pub(super) type Due = (CallId, TaskId);

/// The polls that are held.
#[derive(Debug, Default)]
pub(super) struct Watch {
    held: BTreeMap<TaskId, Held>,
}

#[derive(Debug)]
struct Held {
    call: CallId,
    /// How far the task was.
    stage: Discriminant<Place>,
    until: Millis,
}

impl Watch {
    /// Holds this poll, unless there is nothing to wait for or its client has enough of them here. Which are
    /// to be answered now: this one, or an earlier one of the same task, or both.
    pub(super) fn hold(&mut self, (call, task): Due, place: Option<Place>, now: Millis) -> Vec<Due> {
        let earlier = self.held.remove(&task).map(|held| (held.call, task));
        let waits = place.filter(|place| matches!(place, Place::Waiting { .. } | Place::Running));
        let of_client = self.held.keys().filter(|held| held.client == task.client).count();
        let Some(place) = waits.filter(|_| of_client < limits::TASK_CALLS_HELD_PER_CLIENT_MAX) else {
            return earlier.into_iter().chain([(call, task)]).collect();
        };
        let (stage, until) = (discriminant(&place), now + limits::TASK_POLL_HOLD);
        self.held.insert(task, Held { call, stage, until });
        earlier.into_iter().collect()
    }

    /// Takes out what is to be answered now: whatever has got further, or was held long enough.
    pub(super) fn due(&mut self, now: Millis, place_of: impl Fn(&TaskId) -> Option<Place>) -> Vec<Due> {
        let has_moved = |task: &TaskId, held: &Held| {
            place_of(task).is_none_or(|place| discriminant(&place) != held.stage)
        };
        let due = self.held.extract_if(.., |task, held| held.until <= now || has_moved(task, held));
        due.map(|(task, held)| (held.call, task)).collect()
    }

    /// When the first is to be answered, whatever happens.
    pub(super) fn next_at(&self) -> Option<Millis> {
        self.held.values().map(|held| held.until).min()
    }
}
