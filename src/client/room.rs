//! How much one client may have under way to one node: what is sent and not acknowledged.
//!
//! All of it goes out twice when that node dies, and all of it lies in that node's memory meanwhile. So it
//! shrinks while acknowledgements take long, as when many clients share a node, and grows again when they
//! come quickly: the delay tells, as in TCP Vegas (Brakmo, O'Malley, Peterson, 1994). It never sends, and
//! knows no body.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::{Millis, PeerId, limits};

/// An acknowledgement that took longer says that the node has enough to do.
const SLOW: Millis = Millis(300);
/// One that came sooner says that it would take more.
const QUICK: Millis = Millis(100);
/// A whole body always fits.
const BYTES_MIN: usize = limits::BODY_BYTES_MAX;
const BYTES_MAX: usize = limits::CLIENT_UNACKNOWLEDGED_BYTES_MAX;

/// A room for each node.
#[derive(Default)]
pub(super) struct Rooms(Mutex<BTreeMap<PeerId, Arc<Room>>>);

impl Rooms {
    /// The room of a node.
    pub(super) fn of(&self, peer: PeerId) -> Arc<Room> {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(rooms.entry(peer).or_default())
    }
}

/// What may be under way to one node.
pub(super) struct Room {
    permits: Arc<Semaphore>,
    /// How large it is now, taken or free.
    bytes: AtomicUsize,
}

impl Default for Room {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(BYTES_MAX)), bytes: AtomicUsize::new(BYTES_MAX) }
    }
}

/// A part of a room that is taken; dropping it gives it back.
pub(super) struct Taken {
    room: Arc<Room>,
    permit: OwnedSemaphorePermit,
}

impl Room {
    /// Takes so many bytes if they are free; of a body longer than any room as many as there are.
    pub(super) fn try_take(self: &Arc<Self>, bytes: usize) -> Option<Taken> {
        let permit = Arc::clone(&self.permits).try_acquire_many_owned(permits(bytes)).ok()?;
        Some(Taken { room: Arc::clone(self), permit })
    }

    /// Waits for its turn.
    pub(super) async fn take(self: &Arc<Self>, bytes: usize) -> Taken {
        let permit = Arc::clone(&self.permits).acquire_many_owned(permits(bytes)).await;
        Taken { room: Arc::clone(self), permit: permit.expect("the semaphore is never closed") }
    }
}

impl Taken {
    /// Gives it back after so long, and lets the room shrink or grow by as much.
    pub(super) fn give_back(self, took: Duration) {
        let Self { room, permit } = self;
        let bytes = permit.num_permits();
        let change = |next: fn(usize, usize) -> Option<usize>| {
            room.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| next(now, bytes)).is_ok()
        };
        if took > Duration::from(SLOW) {
            if change(|now, bytes| now.checked_sub(bytes).filter(|left| *left >= BYTES_MIN)) {
                permit.forget();
            }
        } else if took < Duration::from(QUICK)
            && change(|now, bytes| Some(now + bytes).filter(|more| *more <= BYTES_MAX))
        {
            room.permits.add_permits(bytes);
        }
    }
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes.min(BYTES_MIN)).expect("a small constant at most")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn taken_at_once(room: &Arc<Room>, bytes: usize) -> Vec<Taken> {
        std::iter::from_fn(|| room.try_take(bytes)).collect()
    }

    #[test]
    fn slow_answers_make_it_small_and_quick_ones_large_again() {
        let rooms = Rooms::default();
        let room = rooms.of(PeerId::random());
        assert_eq!(taken_at_once(&room, BYTES_MIN).len(), BYTES_MAX / BYTES_MIN);
        for _ in 0..2 * BYTES_MAX / BYTES_MIN {
            room.try_take(BYTES_MIN).expect("a body always fits").give_back(after(SLOW.0 + 1));
        }
        assert_eq!(taken_at_once(&room, BYTES_MIN).len(), 1);
        room.try_take(BYTES_MIN).expect("free").give_back(after(QUICK.0));
        assert_eq!(taken_at_once(&room, BYTES_MIN).len(), 1, "neither slow nor quick");
        for _ in 0..2 * BYTES_MAX / BYTES_MIN {
            room.try_take(BYTES_MIN).expect("a body always fits").give_back(after(QUICK.0 - 1));
        }
        assert_eq!(taken_at_once(&room, BYTES_MIN).len(), BYTES_MAX / BYTES_MIN);
    }

    #[test]
    fn whatever_comes_back_in_whatever_order_a_body_fits_and_no_more_than_the_most() {
        let room = Rooms::default().of(PeerId::random());
        let mut under_way: Vec<Taken> = Vec::new();
        for step in 0..2000u64 {
            let bytes = 1 + (step * 7919) as usize % BYTES_MIN;
            match room.try_take(bytes) {
                Some(taken) => under_way.push(taken),
                None => {
                    let at = step as usize % under_way.len();
                    under_way.swap_remove(at).give_back(after(step * 31 % 500));
                }
            }
            let taken: usize = under_way.iter().map(|taken| taken.permit.num_permits()).sum();
            assert!(taken <= BYTES_MAX);
            assert_eq!(taken + room.permits.available_permits(), room.bytes.load(Ordering::Relaxed));
        }
        drop(under_way);
        assert!(room.try_take(BYTES_MIN).is_some());
    }
}
