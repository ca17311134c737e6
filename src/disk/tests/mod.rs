//! Tests of the disk room: real files, real deaths.

mod bodies;
mod client;
mod crash;
mod home;
mod records;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{Boot, Disk, DiskError, DiskOptions, Home};
use crate::model::BodyId;

/// A made-up body and its id; different for each `seed`, of any length.
fn body(seed: u64, len: usize) -> (BodyId, Vec<u8>) {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_derive_key("tintype test body")
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    (BodyId(*blake3::hash(&bytes).as_bytes()), bytes)
}

fn options() -> DiskOptions {
    DiskOptions { reserve_bytes: 0, machine: Some("desk".into()), ..DiskOptions::default() }
}

fn open(root: &Path) -> Result<(Disk, Boot), DiskError> {
    let home = Home::at(root);
    home.create()?;
    Disk::open(&home, options())
}

/// A process that another test starts just now holds every lock of this one until it is another program.
fn opened(root: &Path) -> Disk {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match open(root) {
            Err(DiskError::Locked { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            opened => return opened.expect("the home opens").0,
        }
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}
