//! Files and directories that are wholly there or not at all, also after a power loss.
//!
//! It knows nothing of what is in them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{DiskError, crash::Steps, crash_point};

/// How long a temporary file of a shared directory may be somebody's work.
const TEMP_AGE: Duration = Duration::from_secs(60);

/// Writes a file that only its owner can read, unless there is one. False if there was one.
pub(super) fn write_new(path: &Path, bytes: &[u8], steps: &Steps) -> Result<bool, DiskError> {
    if path.symlink_metadata().is_ok() {
        return Ok(false);
    }
    let temp = write_temp(path, bytes, steps)?;
    let placed = place_new(&temp, path);
    crash_point(steps.placed);
    if !matches!(placed, Ok(true)) {
        let _ = fs::remove_file(&temp);
    }
    sync_dir(parent(path))?;
    crash_point(steps.durable);
    placed.map_err(DiskError::io("write", path))
}

/// A hard link fails if the name is taken, a rename does not; file systems without links get the rename.
fn place_new(temp: &Path, path: &Path) -> io::Result<bool> {
    match fs::hard_link(temp, path) {
        Ok(()) => fs::remove_file(temp).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(_) if path.symlink_metadata().is_ok() => Ok(false),
        Err(_) => fs::rename(temp, path).map(|()| true),
    }
}

/// Writes a file that only its owner can read, in place of whatever was there.
pub(super) fn replace(path: &Path, bytes: &[u8], steps: &Steps) -> Result<(), DiskError> {
    let temp = write_temp(path, bytes, steps)?;
    let placed = fs::rename(&temp, path).map_err(DiskError::io("write", path));
    crash_point(steps.placed);
    if placed.is_err() {
        let _ = fs::remove_file(&temp);
    }
    placed?;
    sync_dir(parent(path))?;
    crash_point(steps.durable);
    Ok(())
}

fn write_temp(path: &Path, bytes: &[u8], steps: &Steps) -> Result<PathBuf, DiskError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temp = parent(path).join(format!(".{name}.{:016x}.tmp", rand::random::<u64>()));
    let written = (|| {
        let mut file = create_private(&temp)?;
        crash_point(steps.temp_created);
        file.write_all(bytes)?;
        crash_point(steps.temp_written);
        file.sync_all()?;
        crash_point(steps.temp_synced);
        Ok(())
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temp);
    }
    written.map(|()| temp).map_err(DiskError::io("write", path))
}

/// A new file that only its owner can read.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// An open file of at most `max` bytes, read whole; none if there is none.
pub(super) fn read(path: &Path, max: usize) -> Result<Option<Vec<u8>>, DiskError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DiskError::io("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(DiskError::io("read", path))?;
    if bytes.len() > max {
        return Err(DiskError::bad_file(path, format!("larger than {max} bytes")));
    }
    Ok(Some(bytes))
}

/// As [`read`], and UTF-8.
pub(super) fn read_text(path: &Path, max: usize) -> Result<Option<String>, DiskError> {
    let Some(bytes) = read(path, max)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|_| DiskError::bad_file(path, "not text"))
}

/// Makes a directory and what is missing above it, each durable. True if it was made now.
pub(super) fn make_dir(path: &Path, private: bool) -> Result<bool, DiskError> {
    if path.is_dir() {
        return Ok(false);
    }
    let above = parent(path);
    if above != path {
        make_dir(above, false)?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, if private { 0o700 } else { 0o777 });
    let made = match builder.create(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => false,
        Err(error) => return Err(DiskError::io("make", path)(error)),
    };
    crash_point("disk.dir.made");
    sync_dir(above)?;
    crash_point("disk.dir.durable");
    Ok(made)
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), DiskError> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    File::open(path).and_then(|dir| dir.sync_all()).map_err(DiskError::io("sync", path))
}

/// Removes temporary files that a crash has left; where several processes write, only old ones.
pub(super) fn remove_temps(dir: &Path, alone: bool) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_temp = name.to_string_lossy().starts_with('.') && name.to_string_lossy().ends_with(".tmp");
        let age = entry.metadata().and_then(|m| m.modified()).map(|t| t.elapsed().unwrap_or_default());
        if is_temp && (alone || age.is_ok_and(|age| age > TEMP_AGE)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The directory that holds `path`.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => path,
    }
}
