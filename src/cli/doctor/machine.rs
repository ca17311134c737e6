//! What `doctor` finds about the disk and the limits of this machine.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use super::Report;
use crate::{cli::text, disk::Home};

/// Written to measure the disk: long enough to see past its cache's first moment, short enough to wait for.
const MEASURE_BYTES: usize = 16 << 20;
const MEASURE_BLOCK_BYTES: usize = 1 << 20;
/// Small durable writes measured; the worst but one is judged.
const SYNCS: usize = 8;
/// A put waits for two of these in series; beyond this a person feels each.
const SYNC_MS_MAX: u64 = 100;
/// Below this a picture of 20 MB takes more than a second to become durable.
const WRITE_BYTES_PER_S_MIN: u64 = 20_000_000;
/// Room for pictures above the reserve that is worth starting with.
const ROOM_BYTES_MIN: u64 = 5_000_000_000;
/// Open files that a node, its clients and its chunk files need together, amply.
const DESCRIPTORS_MIN: u64 = 1024;

/// How many files this process may have open.
pub(super) fn descriptors() -> Report {
    let limits = fs::read_to_string("/proc/self/limits").ok();
    match limits.as_deref().and_then(descriptor_limit) {
        None => Report::hint("open files", "this platform does not tell the limit", ""),
        Some(limit) if limit >= DESCRIPTORS_MIN => Report::good("open files", format!("{limit} are allowed")),
        Some(limit) => Report::finding(
            "open files",
            format!("only {limit} are allowed: a node with many connections would refuse some"),
            format!("raise it before `tintype up`: ulimit -n {DESCRIPTORS_MIN}"),
        ),
    }
}

/// The soft limit in `/proc/self/limits`.
fn descriptor_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Free space, and how fast writing and making durable are, where the pictures lie.
pub(super) fn disk(home: &Home, reserve_bytes: u64) -> Vec<Report> {
    let place = place(home);
    let mut reports = vec![match fs4::available_space(&place) {
        Ok(free) => space(&place, free, reserve_bytes),
        Err(error) => {
            Report::hint("disk space", format!("{}: {error}", place.display()), "check that it exists")
        }
    }];
    match measure(&place) {
        Ok(measured) => reports.push(speed(&place, measured)),
        Err(error) => reports.push(Report::finding(
            "disk speed",
            format!("nothing can be written in {}: {error}", place.display()),
            "make room, or give tintype another home with --home",
        )),
    }
    reports
}

/// Where data lies, or will: the nearest folder that is there. Nothing is made.
fn place(home: &Home) -> PathBuf {
    let data = home.data_dir();
    let there = data.ancestors().find(|folder| folder.is_dir());
    there.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

fn space(place: &Path, free: u64, reserve: u64) -> Report {
    let words = format!("{} free in {}", text::size(free), place.display());
    if free < reserve {
        return Report::finding(
            "disk space",
            format!("{words}, less than the reserve of {}: this node takes no pictures", text::size(reserve)),
            "make room on this disk, or lower node.reserve",
        );
    }
    match free - reserve < ROOM_BYTES_MIN {
        true => Report::hint(
            "disk space",
            format!("{words}, {} of it in reserve", text::size(reserve)),
            "make room soon",
        ),
        false => Report::good("disk space", words),
    }
}

/// What the disk did.
#[derive(Clone, Copy, Debug)]
struct Measured {
    bytes_per_s: u64,
    sync_ms: u64,
}

fn speed(place: &Path, measured: Measured) -> Report {
    let Measured { bytes_per_s, sync_ms } = measured;
    let words =
        format!("{}/s written durably, {sync_ms} ms for a small durable write", text::size(bytes_per_s));
    match bytes_per_s >= WRITE_BYTES_PER_S_MIN && sync_ms <= SYNC_MS_MAX {
        true => Report::good("disk speed", words),
        false => Report::finding(
            "disk speed",
            format!("{words} in {}: every put waits for it", place.display()),
            "use an SSD for the home (--home), or another disk; a busy disk may do better later",
        ),
    }
}

/// Writes a file that is gone when this returns.
fn measure(place: &Path) -> io::Result<Measured> {
    let mut file = Scratch::create(place)?;
    let block = vec![0xa5; MEASURE_BLOCK_BYTES];
    let start = Instant::now();
    for _ in 0..MEASURE_BYTES / MEASURE_BLOCK_BYTES {
        file.file.write_all(&block)?;
    }
    file.file.sync_data()?;
    let took = start.elapsed().as_secs_f64().max(1e-6);
    let mut syncs = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let start = Instant::now();
        file.file.write_all(&block[..4096])?;
        file.file.sync_data()?;
        syncs.push(start.elapsed().as_millis() as u64);
    }
    syncs.sort_unstable();
    Ok(Measured { bytes_per_s: (MEASURE_BYTES as f64 / took) as u64, sync_ms: syncs[SYNCS - 2] })
}

/// A file that does not outlive this: on Unix it has no name from the start, so not even a kill leaves it.
struct Scratch {
    file: File,
    path: PathBuf,
}

impl Scratch {
    fn create(place: &Path) -> io::Result<Self> {
        let path = place.join(format!(".tintype-doctor-{}", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        if cfg!(unix) {
            fs::remove_file(&path)?;
        }
        Ok(Self { file, path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !cfg!(unix) {
            // There is nobody to tell, and the next run would meet the same name only by chance.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Verdict;

    #[test]
    fn the_measurement_leaves_nothing_behind_and_makes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path().join("not there yet"));
        let reports = disk(&home, 0);
        assert_eq!(reports.len(), 2);
        assert!(reports[1].text.contains("/s written durably"), "{reports:?}");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn too_little_space_is_a_finding_and_little_a_hint() {
        let here = Path::new("/here");
        assert_eq!(space(here, 10, 11).verdict, Verdict::Finding);
        assert_eq!(space(here, ROOM_BYTES_MIN, 1).verdict, Verdict::Hint);
        assert_eq!(space(here, ROOM_BYTES_MIN + 1, 1).verdict, Verdict::Good);
    }

    #[test]
    fn a_slow_disk_is_a_finding() {
        let here = Path::new("/here");
        let fast = Measured { bytes_per_s: WRITE_BYTES_PER_S_MIN, sync_ms: SYNC_MS_MAX };
        assert_eq!(speed(here, fast).verdict, Verdict::Good);
        assert_eq!(speed(here, Measured { sync_ms: SYNC_MS_MAX + 1, ..fast }).verdict, Verdict::Finding);
        assert_eq!(speed(here, Measured { bytes_per_s: 1, ..fast }).verdict, Verdict::Finding);
    }

    #[test]
    fn the_limit_of_open_files_is_the_soft_one() {
        let text =
            "Max processes 1 2 processes\nMax open files            1024            524288      files\n";
        assert_eq!(descriptor_limit(text), Some(1024));
        assert_eq!(descriptor_limit("Max open files unlimited unlimited files"), Some(u64::MAX));
        assert_eq!(descriptor_limit(""), None);
    }
}
