//! Clients that wait for a place, at the coordinator, in the order in which they came.
//!
//! Each is answered after [`limits::TASK_LINE_HOLD`] at the latest, place or no place, and keeps its turn if
//! it asks again soon. It answers none itself, and never knows whether there is a place.

use std::collections::BTreeMap;

use super::{CallId, assign::Wish};
use crate::model::{Millis, limits, task::TaskId};

/// Whose turn it is: the least first.
pub(super) type Turn = u64;

/// Who waits.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: BTreeMap<Turn, Waiter>,
    turns: Turn,
}

#[derive(Debug)]
struct Waiter {
    wish: Wish,
    state: State,
    /// When it is to be answered; once it was, when its turn is forgotten.
    until: Millis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waits(CallId),
    /// A worker is sought for it.
    Sought,
    /// It was told that there is none, and is expected to ask again.
    Answered,
}

/// What is left of the calls of one that is to wait.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Its earlier call, to which nobody listens any more.
    pub(super) earlier: Option<CallId>,
    /// This call, if it cannot wait, or not any longer.
    pub(super) refused: Option<CallId>,
}

impl Line {
    /// Lets this one wait, in its old place if it has waited before.
    pub(super) fn wait(&mut self, call: CallId, wish: Wish, now: Millis) -> Left {
        let turn = self.turn_of(&wish.task);
        if turn.is_none() && self.waiting.len() >= limits::TASKS_IN_LINE_MAX {
            return Left { earlier: None, refused: Some(call) };
        }
        let turn = turn.unwrap_or_else(|| {
            self.turns += 1;
            self.turns
        });
        let before = self.waiting.remove(&turn);
        let (was, until) = before.map_or((State::Answered, now), |before| (before.state, before.until));
        let until = if was == State::Sought { until } else { now + limits::TASK_LINE_HOLD };
        let of_client = self.waiting.values().filter(|waiter| waiter.waits_for(&wish)).count();
        let may_wait = until > now && of_client < limits::TASK_CALLS_HELD_PER_CLIENT_MAX;
        let waiter = match may_wait {
            true => Waiter { wish, state: State::Waits(call), until },
            false => Waiter { wish, state: State::Answered, until: now + limits::TASK_TURN_KEPT },
        };
        self.waiting.insert(turn, waiter);
        Left { earlier: was.call(), refused: Some(call).filter(|_| !may_wait) }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether somebody else waits whose turn it is before this task's.
    pub(super) fn is_before(&self, task: &TaskId) -> bool {
        let own = self.turn_of(task);
        self.next(0).is_some_and(|(turn, _)| own.is_none_or(|own| turn < own))
    }

    /// The first behind this turn that waits for an answer.
    pub(super) fn next(&self, after: Turn) -> Option<(Turn, &Wish)> {
        let mut behind = self.waiting.range(after + 1..);
        let next = behind.find(|(_, waiter)| waiter.state.call().is_some());
        next.map(|(turn, waiter)| (*turn, &waiter.wish))
    }

    /// A worker is sought for this task, if it waits here; its call, to which nobody listens any more.
    pub(super) fn seek(&mut self, task: &TaskId, now: Millis) -> Option<CallId> {
        let turn = self.turn_of(task)?;
        let waiter = self.waiting.get_mut(&turn)?;
        if waiter.state == State::Sought {
            return None;
        }
        waiter.until = now + limits::TASK_LINE_HOLD;
        std::mem::replace(&mut waiter.state, State::Sought).call()
    }

    /// A worker is sought for this one; its call and what it wants.
    pub(super) fn take(&mut self, turn: Turn) -> Option<(CallId, Wish)> {
        let waiter = self.waiting.get_mut(&turn)?;
        let call = waiter.state.call()?;
        waiter.state = State::Sought;
        Some((call, waiter.wish.clone()))
    }

    /// It waits no more; its call, if it has not been answered.
    pub(super) fn remove(&mut self, task: &TaskId) -> Option<CallId> {
        self.waiting.remove(&self.turn_of(task)?)?.state.call()
    }

    /// Takes out the calls that were held long enough, and forgets those who have not asked again.
    pub(super) fn due(&mut self, now: Millis) -> Vec<CallId> {
        let mut due = Vec::new();
        self.waiting.retain(|_, waiter| match waiter.state {
            State::Waits(call) if waiter.until <= now => {
                (waiter.state, waiter.until) = (State::Answered, now + limits::TASK_TURN_KEPT);
                due.push(call);
                true
            }
            State::Answered => waiter.until > now,
            State::Waits(_) | State::Sought => true,
        });
        due
    }

    /// Sends all away; the calls of those who wait for an answer.
    pub(super) fn clear(&mut self) -> Vec<CallId> {
        std::mem::take(&mut self.waiting).into_values().filter_map(|waiter| waiter.state.call()).collect()
    }

    /// When somebody is to be answered or forgotten.
    pub(super) fn next_at(&self) -> Option<Millis> {
        let timed = self.waiting.values().filter(|waiter| waiter.state != State::Sought);
        timed.map(|waiter| waiter.until).min()
    }

    fn turn_of(&self, task: &TaskId) -> Option<Turn> {
        self.waiting.iter().find(|(_, waiter)| waiter.wish.task == *task).map(|(turn, _)| *turn)
    }
}

impl Waiter {
    /// Whether a call of the same client waits here.
    fn waits_for(&self, wish: &Wish) -> bool {
        self.wish.task.client == wish.task.client && self.state.call().is_some()
    }
}

impl State {
    fn call(self) -> Option<CallId> {
        match self {
            Self::Waits(call) => Some(call),
            Self::Sought | Self::Answered => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{task, wish},
        *,
    };

    fn waits(line: &mut Line, call: u64, number: u64, now: u64) -> Left {
        line.wait(CallId(call), wish(number), Millis(now))
    }

    #[test]
    fn who_came_first_is_first_also_after_asking_again() {
        let mut line = Line::default();
        assert_eq!(waits(&mut line, 1, 1, 0), Left::default());
        assert_eq!(waits(&mut line, 2, 2, 10), Left::default());
        assert!(line.is_before(&task(2)) && line.is_before(&task(3)) && !line.is_before(&task(1)));
        assert_eq!(line.due(Millis(399)), []);
        assert_eq!(line.due(Millis(400)), [CallId(1)]);
        assert_eq!(line.next(0).map(|(_, wish)| wish.task), Some(task(2)));
        assert_eq!(waits(&mut line, 3, 1, 405), Left::default(), "it asks again");
        assert_eq!(line.next(0).map(|(_, wish)| wish.task), Some(task(1)));
        assert_eq!(line.due(Millis(410)), [CallId(2)]);
        assert_eq!(
            line.due(Millis(410 + limits::TASK_TURN_KEPT.0)),
            [CallId(3)],
            "the other's turn is forgotten"
        );
        assert_eq!(waits(&mut line, 4, 2, 1500), Left::default());
        assert_eq!(line.next(0).map(|(turn, _)| turn), Some(3), "it is a new one now");
    }

    #[test]
    fn who_is_sought_for_keeps_its_turn_and_its_time() {
        let mut line = Line::default();
        waits(&mut line, 1, 1, 0);
        waits(&mut line, 2, 2, 0);
        let (turn, _) = line.next(0).expect("two wait");
        assert_eq!(line.take(turn).map(|(call, wish)| (call, wish.task)), Some((CallId(1), task(1))));
        assert_eq!(line.take(turn).map(|(call, _)| call), None);
        assert_eq!(waits(&mut line, 1, 1, 300), Left::default());
        assert_eq!(line.due(Millis(400)), [CallId(1), CallId(2)], "its time did not begin anew");
        waits(&mut line, 3, 1, 450);
        let (turn, _) = line.next(0).expect("one waits");
        line.take(turn);
        assert_eq!(line.next_at(), Some(Millis(400) + limits::TASK_TURN_KEPT), "the other's");
        let late = waits(&mut line, 3, 1, 900);
        assert_eq!(late, Left { earlier: None, refused: Some(CallId(3)) });
        assert_eq!(line.remove(&task(1)), None);
    }

    #[test]
    fn one_client_fills_no_line_and_a_line_has_an_end() {
        let mut line = Line::default();
        for number in 0..limits::TASKS_IN_LINE_MAX as u64 {
            let is_held = (number as usize) < limits::TASK_CALLS_HELD_PER_CLIENT_MAX;
            assert_eq!(waits(&mut line, number, number, 0).refused.is_none(), is_held, "{number}");
        }
        let beyond = waits(&mut line, 9999, 9999, 0);
        assert_eq!(beyond.refused, Some(CallId(9999)));
        let again = waits(&mut line, 9999, 0, 0);
        assert_eq!(again, Left { earlier: Some(CallId(0)), refused: None });
        assert_eq!(line.clear().len(), limits::TASK_CALLS_HELD_PER_CLIENT_MAX);
        assert_eq!(line.next_at(), None);
    }
}
