//! Where the demo's homes lie: on a real disk with room enough, and gone at the end.

use std::{
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// Copies of each picture, and the part that records and half-written files take beside them.
const COPIES: u64 = 3;
/// Room that must be left beside the pictures: the nodes' own reserve, and records.
const SPARE_BYTES: u64 = 2 << 30;

/// Room that pictures of that size take on the nodes of a demo.
pub fn room_of_pictures(bytes: u64) -> u64 {
    bytes * COPIES
}

/// Chooses the folder and says beforehand what it must have. `bytes` is all that will lie there, every copy
/// counted.
///
/// # Errors
/// It lies in memory (tmpfs), has too little room, or cannot be made.
pub fn choose(wanted: Option<&Path>, bytes: u64) -> Result<PathBuf> {
    let parent = match wanted {
        Some(dir) => dir.to_path_buf(),
        None => default_parent(),
    };
    std::fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let parent = parent.canonicalize()?;
    if in_memory(&parent) {
        bail!(
            "{} lies in memory (tmpfs), where nothing is durable: name a folder on a disk with --dir",
            parent.display()
        );
    }
    let needed = needed(bytes);
    let free =
        fs4::available_space(&parent).with_context(|| format!("free space of {}", parent.display()))?;
    if free < needed {
        bail!(
            "{} has {:.1} GB free and {:.1} GB are needed: name another folder with --dir, or ask for less",
            parent.display(),
            free as f64 / 1e9,
            needed as f64 / 1e9
        );
    }
    let dir = parent.join(format!("tintype-demo-{}", std::process::id()));
    std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

fn needed(bytes: u64) -> u64 {
    bytes.saturating_add(SPARE_BYTES)
}

/// The system's temporary folder, or, where that lies in memory, the one that survives a restart.
fn default_parent() -> PathBuf {
    let temporary = std::env::temp_dir();
    let lasting = Path::new("/var/tmp");
    if in_memory(&temporary) && lasting.is_dir() { lasting.to_path_buf() } else { temporary }
}

/// Whether a folder lies on tmpfs or ramfs. Only Linux says so; elsewhere the answer is no.
fn in_memory(dir: &Path) -> bool {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mounts") else { return false };
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    memory_mount(&mounts, &dir)
}

fn memory_mount(mounts: &str, dir: &Path) -> bool {
    let mut best: Option<(usize, bool)> = None;
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(point), Some(kind)) = (words.next(), words.next()) else { continue };
        let point = point.replace("\\040", " ");
        if dir.starts_with(&point) && best.is_none_or(|(len, _)| point.len() >= len) {
            best = Some((point.len(), matches!(kind, "tmpfs" | "ramfs")));
        }
    }
    best.is_some_and(|(_, memory)| memory)
}

/// Removes the demo's folder when it goes out of scope.
pub struct RemoveAtEnd(pub PathBuf);

impl Drop for RemoveAtEnd {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Flips one byte in the middle of the first stored chunk file under `chunks`; the answer is which.
///
/// # Errors
/// There is none.
pub fn flip_a_byte(chunks: &Path) -> Result<PathBuf> {
    let file = first_file(chunks)?.with_context(|| format!("no chunk under {}", chunks.display()))?;
    let mut open = std::fs::File::options().read(true).write(true).open(&file)?;
    let middle = open.metadata()?.len() / 2;
    let mut byte = [0u8; 1];
    open.seek(SeekFrom::Start(middle))?;
    open.read_exact(&mut byte)?;
    open.seek(SeekFrom::Start(middle))?;
    open.write_all(&[byte[0] ^ 0x40])?;
    Ok(file)
}

fn first_file(dir: &Path) -> Result<Option<PathBuf>> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(dir)?.map(|e| e.map(|e| e.path())).collect::<std::io::Result<_>>()?;
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            if let Some(file) = first_file(&entry)? {
                return Ok(Some(file));
            }
        } else if entry.file_name().is_some_and(|n| n.len() == 64) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_decides() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/real ext4 rw 0 0\n";
        assert!(!memory_mount(mounts, Path::new("/home/x")));
        assert!(memory_mount(mounts, Path::new("/tmp/demo")));
        assert!(!memory_mount(mounts, Path::new("/tmp/real/demo")));
        assert!(!memory_mount(mounts, Path::new("/tmpfoo")));
    }

    #[test]
    fn the_copies_of_pictures_are_counted_and_what_is_counted_already_is_not() {
        assert_eq!(needed(room_of_pictures(10)), COPIES * 10 + SPARE_BYTES);
        assert_eq!(needed(10), 10 + SPARE_BYTES);
    }

    #[test]
    fn a_flipped_byte_is_exactly_one() {
        let dir = tempfile::tempdir().unwrap();
        let name = "a".repeat(64);
        std::fs::create_dir_all(dir.path().join("ab")).unwrap();
        std::fs::write(dir.path().join("ab").join(&name), [7u8; 100]).unwrap();
        let file = flip_a_byte(dir.path()).unwrap();
        let differing = std::fs::read(file).unwrap().iter().filter(|b| **b != 7).count();
        assert_eq!(differing, 1);
        assert!(flip_a_byte(&dir.path().join("ab/none")).is_err());
    }
}
