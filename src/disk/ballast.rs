//! The ballast: a file of nothing that keeps room for the next start of a node whose disk is full.
//!
//! To open a record file after a kill, and to count the start in it, takes some pages. A disk without a free
//! byte has none, so a start that finds it full lets the ballast go first. While a node runs, its ballast
//! stays: the records have a reserve of their own, and what is stored must not eat the next start. It holds
//! nothing that anybody reads; to remove it by hand costs this room and nothing else.

use std::{
    fs::{self, File},
    path::Path,
};

use fs4::FileExt;

use crate::model::limits;

/// Lets the ballast go if the disk has less room than a start needs.
pub(super) fn let_go_if_full(path: &Path, dir: &Path) {
    let free_bytes = fs4::available_space(dir).unwrap_or(u64::MAX);
    if free_bytes < limits::BALLAST_BYTES && fs::remove_file(path).is_ok() {
        tracing::warn!(free_bytes, "the disk is full: this start uses the room that was kept for it");
    }
}

/// Lays it if it is not there and the disk has room for it and for the records. Only a precaution: a failure
/// costs a start on a full disk, no more.
pub(super) fn lay(path: &Path, dir: &Path) {
    let is_there = path.metadata().is_ok_and(|about| about.len() == limits::BALLAST_BYTES);
    let free_bytes = fs4::available_space(dir).unwrap_or(0);
    if is_there || free_bytes < limits::BALLAST_BYTES + limits::RECORD_FLOOR_BYTES {
        return;
    }
    // Allocated, not only so long: a hole would keep no room.
    let laid = File::create(path).and_then(|file| file.allocate(limits::BALLAST_BYTES));
    if let Err(error) = laid {
        tracing::debug!(%error, "no room was kept for the next start");
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_laid_once_and_kept_while_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ballast");
        lay(&path, dir.path());
        let laid = fs::metadata(&path).unwrap();
        assert_eq!(laid.len(), limits::BALLAST_BYTES);
        lay(&path, dir.path());
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), laid.modified().unwrap());
        let_go_if_full(&path, dir.path());
        assert!(path.exists(), "this disk is not full");
    }
}
