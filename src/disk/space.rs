//! How much room there is: the reserve, the capacity, and what is free, asked for rarely.
//!
//! Full is an answer to one caller; it never stops the node.

use std::{
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::DiskError;
use crate::model::limits;

/// The free space of the file system that holds the data.
pub(super) struct Space {
    dir: PathBuf,
    reserve_bytes: u64,
    capacity_bytes: Option<u64>,
    /// Bytes of bodies that have their room and are not counted yet.
    being_written: AtomicU64,
    free: Mutex<Free>,
}

/// Room that was taken for a body and counts to the capacity until the body itself does.
pub(super) struct Room<'a> {
    space: &'a Space,
    len: u64,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.space.being_written.fetch_sub(self.len, Ordering::SeqCst);
    }
}

/// What was free, and what has been promised since.
#[derive(Clone, Copy)]
struct Free {
    bytes: u64,
    taken_bytes: u64,
    asked: Option<Instant>,
    /// What a test says is free, whatever the file system says.
    #[cfg(test)]
    pretended: Option<u64>,
}

impl Space {
    pub(super) fn new(dir: PathBuf, reserve_bytes: u64, capacity_bytes: Option<u64>) -> Self {
        let free = Free {
            bytes: 0,
            taken_bytes: 0,
            asked: None,
            #[cfg(test)]
            pretended: None,
        };
        let free = Mutex::new(free);
        Self { dir, reserve_bytes, capacity_bytes, being_written: AtomicU64::new(0), free }
    }

    /// Takes room for a body, or says why there is none. Keep the room until the body is counted: many that
    /// come at once must not each find the same last bytes free.
    pub(super) fn take(&self, len: u64, used_bytes: u64) -> Result<Room<'_>, DiskError> {
        let before = self.being_written.fetch_add(len, Ordering::SeqCst);
        let room = Room { space: self, len };
        self.check_capacity(len, used_bytes + before)?;
        self.take_free(len, self.reserve_bytes)?;
        Ok(room)
    }

    fn check_capacity(&self, len: u64, used_bytes: u64) -> Result<(), DiskError> {
        match self.capacity_bytes {
            Some(capacity_bytes) if used_bytes + len > capacity_bytes => {
                Err(DiskError::Capacity { used_bytes, capacity_bytes })
            }
            _ => Ok(()),
        }
    }

    /// Whether there is room for a body. It is not taken, not for a moment: others may find it meanwhile.
    pub(super) fn look(&self, len: u64, used_bytes: u64) -> Result<(), DiskError> {
        self.check_capacity(len, used_bytes + self.being_written.load(Ordering::SeqCst))?;
        self.find_free(len, self.reserve_bytes).map(drop)
    }

    /// Takes room for a transaction, or says that there is none before it is begun.
    pub(super) fn check_records(&self, len: u64) -> Result<(), DiskError> {
        // A changed page is written anew, with the pages above it.
        self.take_free(len * 2, limits::RECORD_FLOOR_BYTES)
    }

    fn take_free(&self, len: u64, reserve_bytes: u64) -> Result<(), DiskError> {
        self.find_free(len, reserve_bytes)?.taken_bytes += len;
        Ok(())
    }

    /// What is free, which is so much.
    fn find_free(&self, len: u64, reserve_bytes: u64) -> Result<MutexGuard<'_, Free>, DiskError> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = free.asked.is_some_and(|asked| {
            asked.elapsed() < Duration::from(limits::FREE_SPACE_MAX_AGE)
                && free.taken_bytes < limits::FREE_SPACE_MAX_TAKEN_BYTES
        });
        if !is_fresh {
            self.ask(&mut free)?;
        }
        let free_bytes = free.bytes.saturating_sub(free.taken_bytes);
        if free_bytes < reserve_bytes.saturating_add(len) {
            return Err(DiskError::Full { free_bytes, reserve_bytes });
        }
        Ok(free)
    }

    fn ask(&self, free: &mut Free) -> Result<(), DiskError> {
        let bytes =
            fs4::available_space(&self.dir).map_err(DiskError::io("ask the free space of", &self.dir))?;
        #[cfg(test)]
        let bytes = free.pretended.unwrap_or(bytes);
        free.bytes = bytes;
        free.taken_bytes = 0;
        free.asked = Some(Instant::now());
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn pretend_free(&self, bytes: u64) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.pretended = Some(bytes);
        free.asked = None;
    }

    /// The error for a write that met a full disk; what was known is asked for again.
    pub(super) fn full(&self) -> DiskError {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.asked = None;
        let free_bytes = fs4::available_space(&self.dir).unwrap_or(0);
        DiskError::Full { free_bytes, reserve_bytes: self.reserve_bytes }
    }

    /// What may be stored when `used_bytes` are.
    pub(super) fn capacity_bytes(&self, used_bytes: u64) -> Option<u64> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.asked.is_none_or(|asked| asked.elapsed() >= Duration::from(limits::FREE_SPACE_MAX_AGE)) {
            self.ask(&mut free).ok()?;
        }
        let room = free.bytes.saturating_sub(free.taken_bytes).saturating_sub(self.reserve_bytes);
        let all = used_bytes.saturating_add(room);
        Some(self.capacity_bytes.map_or(all, |capacity| capacity.min(all)))
    }
}
