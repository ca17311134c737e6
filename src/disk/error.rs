//! What can go wrong with a disk, each with what a person can do about it.
//!
//! Cloneable, because one failed batch is the answer to everybody who waited for it.

use std::{io, path::PathBuf, sync::Arc};

use crate::model::BodyId;

/// An operating error of this room.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DiskError {
    /// Not enough free space; nothing was written, the node goes on.
    #[error("the disk is full: {free_bytes} bytes free, {reserve_bytes} are kept in reserve")]
    Full { free_bytes: u64, reserve_bytes: u64 },
    /// The configured capacity is used up; nothing was written, the node goes on.
    #[error("the capacity is used up: {used_bytes} of {capacity_bytes} bytes")]
    Capacity { used_bytes: u64, capacity_bytes: u64 },
    /// A queue is full: later or elsewhere.
    #[error("the disk is busy")]
    Busy,
    /// The disk was stopped in order.
    #[error("the disk is stopped")]
    Closed,
    /// A write failed in a way after which nothing may be promised any more: the node must stop.
    #[error("the disk failed and this node must stop: {0}")]
    Failed(Arc<str>),
    /// The stored copy does not fit its id; it has been moved aside.
    #[error("the stored copy of {id} is corrupt")]
    Corrupt { id: BodyId },
    /// Larger than its bound; a mistake of the caller or a hostile peer.
    #[error("{what} of {len} bytes, at most {max} are allowed")]
    TooLarge { what: &'static str, len: usize, max: usize },
    /// A newer program made this; nothing was touched.
    #[error(
        "{path} has format {found}, this program knows {known}: use a newer tintype; nothing was changed"
    )]
    NewerFormat { path: PathBuf, found: u64, known: u64 },
    /// The home was made on another machine.
    #[error(
        "this home was made on {made_on}, not on this machine: if it was moved and is used nowhere else, \
         start once with --moved"
    )]
    OtherMachine { made_on: String },
    /// Another process runs a node on this home.
    #[error("another node is running on this home ({path} is locked)")]
    Locked { path: PathBuf },
    /// A member knows a start of this node that this home does not know.
    #[error(
        "this home is a copy or an old backup ({data}): its node has made promises that it does not remember"
    )]
    RolledBack { data: PathBuf },
    /// A file is not what it should be.
    #[error("{path}: {what}")]
    BadFile { path: PathBuf, what: String },
    /// A name that cannot be a file's.
    #[error("{name:?} is not a good name: {why}")]
    BadName { name: String, why: &'static str },
    /// The operating system refused.
    #[error("cannot {doing} {path}: {error}")]
    Io { doing: &'static str, path: PathBuf, error: Arc<io::Error> },
    /// The record file could not be read or opened.
    #[error("the record file: {0}")]
    Records(Arc<str>),
}

impl DiskError {
    /// Turns an [`io::Error`] into one that names what was done to which file.
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { doing, path, error: Arc::new(error) }
    }

    pub(super) fn bad_file(path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self::BadFile { path: path.into(), what: what.into() }
    }

    /// Whether the node must stop: after this no write is promised any more.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Failed(_))
    }

    /// Whether it is only a lack of space, which the node survives.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Capacity { .. })
    }
}
