//! The one place that knows whether the disk has failed: then every later call fails and the node stops.
//!
//! After a failed fsync nobody can say what is on the disk, so nothing is tried again.

use tokio::sync::watch;

use super::DiskError;

/// Set once, never cleared.
pub(super) struct Fault(watch::Sender<Option<DiskError>>);

impl Fault {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Fails if the disk has failed.
    pub(super) fn check(&self) -> Result<(), DiskError> {
        match &*self.0.borrow() {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }

    /// Marks the disk as failed; the first reason stays.
    pub(super) fn fail(&self, why: impl std::fmt::Display) -> DiskError {
        let error = DiskError::Failed(why.to_string().into());
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert_with(|| error.clone());
            is_first
        });
        error
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<DiskError>> {
        self.0.subscribe()
    }
}
