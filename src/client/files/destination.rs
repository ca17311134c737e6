//! Where a `get` writes, and how: a part file beside the destination, renamed when it is whole.
//!
//! An object's name never leads out of the folder that the user gave, and a different existing file is never
//! replaced unless the caller says so. It does not know what the bytes should be: the caller compares.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions, TryLockError},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::{
    client::Error,
    model::{limits, object::ObjectName},
};

/// How often a part file is opened anew because another process finished it meanwhile.
const OPEN_ATTEMPTS_MAX: usize = 16;
/// The longest file name of common file systems.
const FILE_NAME_BYTES_MAX: usize = 255;
const PART_SUFFIX: &str = ".tintype-part";

/// Where the objects of one `get` go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output, one after the other (`-o -`).
    Stdout,
    /// One file (`-o FILE`).
    File(PathBuf),
    /// Into this existing folder, each under its base name (`-o DIR`; without `-o` the current one).
    Folder(PathBuf),
    /// A tree under this folder, which is made if it is missing (`--all` and `-r`).
    Tree(PathBuf),
}

/// Where one object goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A device or pipe that exists: open it and write in order.
    Stream(PathBuf),
    /// A file: use [`existing`] and [`PartFile`].
    File(PathBuf),
}

/// What stands at a destination already.
#[derive(Debug)]
pub enum Existing {
    /// Nothing.
    Nothing,
    /// A regular file of the wanted length, open for reading: compare it.
    SameLength(File),
    /// Something else.
    Other,
}

/// A half-written destination: `.NAME.tintype-part` beside it, locked against other processes while this
/// lives.
#[derive(Debug)]
pub struct PartFile {
    file: File,
    part: PathBuf,
    path: PathBuf,
}

impl Destination {
    /// Reads `-o`. `tree` is `--all` or `-r`; `several` is more than one object named.
    ///
    /// # Errors
    /// [`Error::Usage`]: several objects into one file, or a tree onto standard output or a file.
    pub fn plan(output: Option<&Path>, several: bool, tree: bool) -> Result<Self, Error> {
        let output = output.unwrap_or(Path::new("."));
        let is_stdout = output.as_os_str() == "-";
        if tree {
            return match fs::metadata(output) {
                _ if is_stdout => Err(Error::Usage("a whole tree does not go onto standard output".into())),
                Ok(about) if !about.is_dir() => {
                    Err(Error::Usage(format!("{} is not a folder", output.display())))
                }
                _ => Ok(Self::Tree(output.to_owned())),
            };
        }
        if is_stdout {
            return Ok(Self::Stdout);
        }
        if output.is_dir() {
            return Ok(Self::Folder(output.to_owned()));
        }
        if several {
            let shown = output.display();
            return Err(Error::Usage(format!(
                "several objects do not go into one file: {shown} is no folder"
            )));
        }
        if ends_in_slash(output) {
            return Err(Error::Usage(format!("there is no folder {}", output.display())));
        }
        Ok(Self::File(output.to_owned()))
    }

    /// Refuses two objects that would be written to one path, before either is fetched.
    ///
    /// # Errors
    /// [`Error::Usage`] with the two names.
    pub fn keep_apart(&self, names: &[String]) -> Result<(), Error> {
        // Names of a tree differ, and so do their paths; standard output takes all.
        let Self::Folder(folder) = self else { return Ok(()) };
        let mut given: BTreeMap<&str, &str> = BTreeMap::new();
        for name in names {
            let last = name.rsplit('/').next().unwrap_or(name);
            if let Some(other) = given.insert(last, name) {
                let path = folder.join(last);
                return Err(Error::Usage(format!(
                    "{other:?} and {name:?} would both be written to {}: nothing was fetched",
                    path.display()
                )));
            }
        }
        Ok(())
    }

    /// Where the object of this name goes. Makes the folders of a tree.
    ///
    /// # Errors
    /// [`Error::File`]: the name leads outside or cannot be a file here, or a folder cannot be made.
    pub fn target(&self, name: &str) -> Result<Target, Error> {
        match self {
            Self::Stdout => Ok(Target::Stdout),
            Self::File(path) => given_file(path),
            Self::Folder(folder) => {
                let steps = steps(name)?;
                Ok(Target::File(folder.join(steps[steps.len() - 1])))
            }
            Self::Tree(root) => in_tree(root, name).map(Target::File),
        }
    }
}

fn ends_in_slash(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// A file that the user named himself: a link is followed, so that it stays a link.
fn given_file(path: &Path) -> Result<Target, Error> {
    match fs::metadata(path) {
        Ok(about) if about.is_file() => Ok(Target::File(fs::canonicalize(path).map_err(|e| file(path, &e))?)),
        Ok(about) if about.is_dir() => Err(refused(path, "it is a folder")),
        Ok(_) => Ok(Target::Stream(path.to_owned())),
        Err(_) => Ok(Target::File(path.to_owned())),
    }
}

/// The steps of an object's name, each fit to be a file name on this machine.
fn steps(name: &str) -> Result<Vec<&str>, Error> {
    let checked = ObjectName::parse(name).is_ok_and(|checked| checked.as_str() == name);
    let steps: Vec<&str> = name.split('/').collect();
    // An object with the name of a part file would be taken for one, written over and renamed away.
    let is_bad = |step: &&str| !is_file_name(step, cfg!(windows)) || is_part_name(step);
    if !checked || steps.iter().any(is_bad) {
        return Err(refused(Path::new(name), "this name cannot be a file here: give one with -o"));
    }
    Ok(steps)
}

/// Whether this is what this program calls a file that it is still writing.
pub fn is_part_name(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(PART_SUFFIX)
}

/// Whether one step of a name is a file name, and nothing more than that.
fn is_file_name(step: &str, windows: bool) -> bool {
    const DEVICES: [&str; 4] = ["CON", "PRN", "AUX", "NUL"];
    if step.len() > FILE_NAME_BYTES_MAX || matches!(step, "" | "." | "..") || step.contains(['/', '\0']) {
        return false;
    }
    if !windows {
        return true;
    }
    let stem = step.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let is_port = stem.len() == 4 && (stem.starts_with("COM") || stem.starts_with("LPT"));
    let is_device =
        DEVICES.contains(&stem.as_str()) || (is_port && stem.ends_with(|last: char| last.is_ascii_digit()));
    let is_cut = step.ends_with(['.', ' ']);
    let is_odd = step.contains(['\\', ':', '*', '?', '"', '<', '>', '|']);
    !(is_device || is_cut || is_odd)
}

/// The place of a name under `root`. Folders are made one by one, and a link on the way may not lead out.
fn in_tree(root: &Path, name: &str) -> Result<PathBuf, Error> {
    let steps = steps(name)?;
    fs::create_dir_all(root).map_err(|error| file(root, &error))?;
    let real_root = fs::canonicalize(root).map_err(|error| file(root, &error))?;
    let mut folder = real_root.clone();
    let (last, folders) = steps.split_last().expect("a name has a step");
    for step in folders {
        folder.push(step);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(file(&folder, &error)),
            _ => {}
        }
        let real = fs::canonicalize(&folder).map_err(|error| file(&folder, &error))?;
        if !real.starts_with(&real_root) {
            return Err(refused(&folder, "it is a link that leads out of the folder"));
        }
        if !real.is_dir() {
            return Err(refused(&folder, "it is a file where a folder is needed"));
        }
        folder = real;
    }
    Ok(folder.join(last))
}

/// Looks at a destination before a byte is fetched: `bytes` is the object's size.
///
/// # Errors
/// [`Error::File`] if it cannot be looked at.
pub fn existing(path: &Path, bytes: u64) -> Result<Existing, Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Existing::Nothing),
        Err(error) => Err(file(path, &error)),
        Ok(about) if about.is_file() && about.len() == bytes => {
            File::open(path).map(Existing::SameLength).map_err(|error| file(path, &error))
        }
        Ok(_) => Ok(Existing::Other),
    }
}

impl PartFile {
    /// Opens or makes the part file of `path` and locks it. The second value is how many bytes an earlier run
    /// left: a whole number of chunks, which the caller verifies from the start and cuts with [`Self::keep`].
    ///
    /// # Errors
    /// [`Error::File`]: another process is writing it, or it cannot be made.
    pub fn open(path: &Path) -> Result<(Self, u64), Error> {
        let part = part_path(path)?;
        for _ in 0..OPEN_ATTEMPTS_MAX {
            let opened = open_regular(&part).map_err(|error| cannot_make(path, &part, &error))?;
            match opened.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(refused(path, "another command is writing it"));
                }
                Err(TryLockError::Error(error)) => return Err(file(path, &error)),
            }
            // Whoever held the lock before may have renamed or removed the file that we opened.
            if !is_still_at(&opened, &part).map_err(|error| file(path, &error))? {
                continue;
            }
            let about = opened.metadata().map_err(|error| file(path, &error))?;
            if has_another_name(&about) {
                fs::remove_file(&part).map_err(|error| file(path, &error))?;
                continue;
            }
            let whole = about.len() - about.len() % limits::CHUNK_BYTES as u64;
            return Ok((Self { file: opened, part, path: path.to_owned() }, whole));
        }
        Err(refused(path, "other commands keep finishing it"))
    }

    /// The open file, for reading and writing in place.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Cuts it to its first `bytes` and stands at their end: what follows was not verified.
    ///
    /// # Errors
    /// [`Error::File`], as the file system says.
    pub fn keep(&mut self, bytes: u64) -> Result<(), Error> {
        let cut = self.file.set_len(bytes).and_then(|()| self.file.seek(SeekFrom::Start(bytes)));
        cut.map(|_| ()).map_err(|error| file(&self.path, &error))
    }

    /// Makes it durable and gives it its final name. Without `force` an existing file is never replaced.
    ///
    /// # Errors
    /// [`Error::Exists`]: a file appeared there meanwhile; the part file stays. [`Error::File`] otherwise.
    pub fn finish(self, force: bool) -> Result<(), Error> {
        let Self { file: part_file, part, path } = self;
        part_file.sync_all().map_err(|error| file(&path, &error))?;
        if !is_still_at(&part_file, &part).map_err(|error| file(&path, &error))? {
            return Err(refused(&part, "somebody replaced it"));
        }
        let named = if force { fs::rename(&part, &path) } else { rename_new(&part, &path) };
        match named {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists { path: path.display().to_string() });
            }
            Err(error) => return Err(file(&path, &error)),
        }
        sync_folder(&path).map_err(|error| file(&path, &error))
    }

    /// Gives up and removes it, because what it holds is of no use to a later run.
    ///
    /// # Errors
    /// [`Error::File`], as the file system says.
    pub fn remove(self) -> Result<(), Error> {
        fs::remove_file(&self.part).map_err(|error| file(&self.path, &error))
    }
}

/// Writes a new file that only its owner can read: whole and durable, or not at all. What is there already is
/// never replaced.
///
/// # Errors
/// [`Error::Exists`]; [`Error::File`], as the file system says.
pub fn write_new_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(Error::Exists { path: path.display().to_string() });
    }
    if path.file_name().is_none() {
        return Err(refused(path, "it has no file name"));
    }
    let part = path.with_file_name(format!(".{:016x}{PART_SUFFIX}", rand::random::<u64>()));
    let written = fill_private(&part, bytes).and_then(|()| rename_new(&part, path));
    if written.is_err() {
        // What is left of it is of no use, and it may be half a key.
        let _ = fs::remove_file(&part);
    }
    match written.and_then(|()| sync_folder(path)) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Error::Exists { path: path.display().to_string() })
        }
        Err(error) => Err(file(path, &error)),
    }
}

fn fill_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut open = options.open(path)?;
    open.write_all(bytes)?;
    open.sync_all()
}

/// `.NAME.tintype-part` beside the destination; a name too long for that is replaced by its hash.
fn part_path(path: &Path) -> Result<PathBuf, Error> {
    let Some(name) = path.file_name() else { return Err(refused(path, "it has no file name")) };
    let mut part = OsString::from(".");
    if name.len() + 1 + PART_SUFFIX.len() > FILE_NAME_BYTES_MAX {
        part.push(blake3::hash(name.as_encoded_bytes()).to_hex().as_str());
    } else {
        part.push(name);
    }
    part.push(PART_SUFFIX);
    Ok(path.with_file_name(part))
}

/// Opens a regular file for reading and writing, made if missing; never through a link, never a pipe.
fn open_regular(path: &Path) -> io::Result<File> {
    match fs::symlink_metadata(path) {
        Ok(about) if !about.is_file() => return Err(io::Error::other("it is no regular file")),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match OpenOptions::new().read(true).write(true).create_new(true).open(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made,
            }
        }
        Err(error) => return Err(error),
    }
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// Whether the open file is the one that the path leads to, itself and not through a link.
fn is_still_at(open: &File, path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(there) => Ok(is_same(&open.metadata()?, &there)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// A crash between the two steps of [`rename_new`] leaves the finished file under both names: writing into
/// the part file would then destroy it.
#[cfg(unix)]
fn has_another_name(about: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    about.nlink() > 1
}

#[cfg(not(unix))]
fn has_another_name(_about: &Metadata) -> bool {
    false
}

/// Where files have no number that can be asked for, an open file cannot be renamed away either.
#[cfg(not(unix))]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    one.is_file() && other.is_file()
}

/// Gives a file a new name that nothing has yet: in one step where the file system knows hard links.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    if cfg!(unix) {
        match fs::hard_link(from, to) {
            Ok(()) => return fs::remove_file(from),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => {}
        }
    }
    if fs::symlink_metadata(to).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)
}

/// A rename is durable once its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Why the part file of `path` cannot be made, about the path that the user knows.
fn cannot_make(path: &Path, part: &Path, error: &io::Error) -> Error {
    match (error.kind(), path.parent()) {
        (io::ErrorKind::NotFound, Some(folder)) if !folder.exists() => {
            refused(path, format!("there is no folder {}", folder.display()))
        }
        // What is in the way is not at the path itself.
        (io::ErrorKind::Other, _) => refused(path, format!("{}: {error}", part.display())),
        _ => file(path, error),
    }
}

fn file(path: &Path, error: &io::Error) -> Error {
    refused(path, error.to_string())
}

fn refused(path: &Path, reason: impl Into<String>) -> Error {
    Error::File { path: path.display().to_string(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn two_objects_never_go_to_one_path() {
        let dir = temporary();
        let folder = Destination::plan(Some(dir.path()), true, false).expect("a folder");
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        folder.keep_apart(&names(&["a/x.png", "b/y.png", "z.png"])).expect("apart");
        for two in [&["a/x.png", "b/x.png"][..], &["x.png", "b/x.png"], &["x.png", "y.png", "x.png"]] {
            let error = folder.keep_apart(&names(two)).expect_err("one path");
            assert!(matches!(&error, Error::Usage(words) if words.contains("x.png")), "{error}");
            Destination::Stdout.keep_apart(&names(two)).expect("one after the other");
        }
    }

    #[test]
    fn a_new_private_file_is_whole_and_replaces_nothing() {
        let dir = temporary();
        let path = dir.path().join("anna.key");
        write_new_private(&path, b"secret").expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"secret");
        assert!(matches!(write_new_private(&path, b"other"), Err(Error::Exists { .. })));
        assert_eq!(fs::read(&path).expect("read"), b"secret");
        let nowhere = dir.path().join("no/folder/anna.key");
        assert!(matches!(write_new_private(&nowhere, b"x"), Err(Error::File { .. })));
        assert_eq!(files_in(dir.path()), ["anna.key"]);
    }

    fn temporary() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    fn files_in(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .expect("listed")
            .map(|entry| entry.expect("read").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_output_argument_is_read_as_a_person_means_it() {
        let dir = temporary();
        let (folder, new) = (dir.path(), dir.path().join("new.png"));
        let slash = dir.path().join("none/");
        let plan = Destination::plan;
        assert_eq!(plan(None, true, false).expect("good"), Destination::Folder(".".into()));
        assert_eq!(plan(Some(folder), false, false).expect("good"), Destination::Folder(folder.into()));
        assert_eq!(plan(Some(&new), false, false).expect("good"), Destination::File(new.clone()));
        assert_eq!(plan(Some(Path::new("-")), true, false).expect("good"), Destination::Stdout);
        assert_eq!(plan(Some(&new), true, true).expect("good"), Destination::Tree(new.clone()));
        plan(Some(&new), true, false).expect_err("several into one file");
        plan(Some(&slash), false, false).expect_err("no such folder");
        plan(Some(Path::new("-")), true, true).expect_err("a tree onto standard output");
        fs::write(&new, "x").expect("written");
        plan(Some(&new), true, true).expect_err("a tree into a file");
    }

    #[test]
    fn a_name_is_its_base_name_or_its_tree() {
        let dir = temporary();
        let folder = Destination::Folder(dir.path().into());
        assert_eq!(folder.target("a/b.png").expect("good"), Target::File(dir.path().join("b.png")));
        let tree = Destination::Tree(dir.path().join("out"));
        let Target::File(path) = tree.target("a/b/c.png").expect("good") else { panic!("a file") };
        assert!(path.ends_with("out/a/b/c.png") && path.parent().expect("a folder").is_dir());
        fs::write(path, "x").expect("written");
        tree.target("a/b/c.png/d").expect_err("a file where a folder is needed");
        tree.target("a/.c.png.tintype-part").expect_err("the name of a part file");
    }

    #[test]
    fn no_name_leads_outside() {
        let dir = temporary();
        for destination in [Destination::Tree(dir.path().join("in")), Destination::Folder(dir.path().into())]
        {
            for name in ["../x", "/etc/x", "a/../../x", "a//x", "", ".", "..", "a/", "a\0b", "a\nb", "a/./x"]
            {
                destination.target(name).expect_err(name);
            }
            destination.target(&"x".repeat(300)).expect_err("too long for a file");
        }
        for step in ["CON", "nul.txt", "COM1", "lpt9.png", "a\\b", "c:x", "x.", "x ", "..\\x"] {
            assert!(!is_file_name(step, true), "{step}");
        }
        assert!(is_file_name("a\\b: what?", false) && is_file_name("CONE.png", true));
    }

    #[cfg(unix)]
    #[test]
    fn links_inside_a_tree_may_not_lead_out() {
        use std::os::unix::fs::symlink;
        let dir = temporary();
        let (root, outside) = (dir.path().join("in"), dir.path().join("outside"));
        fs::create_dir_all(root.join("real")).expect("made");
        fs::create_dir(&outside).expect("made");
        symlink(&outside, root.join("out")).expect("linked");
        symlink("real", root.join("inner")).expect("linked");
        symlink(outside.join("new"), root.join("dangling")).expect("linked");
        let tree = Destination::Tree(root.clone());
        tree.target("out/x").expect_err("leads out");
        tree.target("dangling/x").expect_err("leads nowhere");
        let Target::File(inner) = tree.target("inner/x").expect("stays inside") else { panic!("a file") };
        assert!(inner.ends_with("in/real/x"));
        // A link in the place of the file itself is replaced, never followed.
        let Target::File(last) = tree.target("dangling").expect("inside") else { panic!("a file") };
        assert!(matches!(existing(&last, 3).expect("looked at"), Existing::Other));
        let (mut part, _) = PartFile::open(&last).expect("opened");
        part.file().write_all(b"new").expect("written");
        part.finish(true).expect("renamed");
        assert_eq!(fs::read(root.join("dangling")).expect("read"), b"new");
        assert!(files_in(&outside).is_empty());
        // And the part file is no way out either.
        symlink(outside.join("victim"), root.join(".y.tintype-part")).expect("linked");
        PartFile::open(&root.join("y")).expect_err("a link");
        assert!(files_in(&outside).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn a_given_link_stays_a_link_and_a_device_is_a_stream() {
        let dir = temporary();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "x").expect("written");
        std::os::unix::fs::symlink(&real, &link).expect("linked");
        let Target::File(path) = Destination::File(link).target("n").expect("good") else { panic!("a file") };
        assert!(path.ends_with("real"));
        let null = PathBuf::from("/dev/null");
        assert_eq!(Destination::File(null.clone()).target("n").expect("good"), Target::Stream(null));
    }

    #[test]
    fn an_interrupted_part_is_resumed_by_whole_chunks_and_cut_where_it_is_bad() {
        let dir = temporary();
        let path = dir.path().join("photo.png");
        let (mut part, resumed) = PartFile::open(&path).expect("opened");
        assert_eq!(resumed, 0);
        part.file().write_all(&vec![7; 2 * limits::CHUNK_BYTES + 10]).expect("written");
        drop(part);
        let (mut part, resumed) = PartFile::open(&path).expect("opened");
        assert_eq!(resumed, 2 * limits::CHUNK_BYTES as u64);
        let mut first = [0; 4];
        part.file().read_exact(&mut first).expect("read");
        assert_eq!(first, [7; 4]);
        part.keep(limits::CHUNK_BYTES as u64).expect("cut");
        part.file().write_all(b"end").expect("written");
        part.finish(false).expect("renamed");
        let bytes = fs::read(&path).expect("read");
        assert_eq!((bytes.len(), &bytes[limits::CHUNK_BYTES..]), (limits::CHUNK_BYTES + 3, &b"end"[..]));
        assert_eq!(files_in(dir.path()), ["photo.png"]);
    }

    #[test]
    fn an_existing_file_is_replaced_only_by_force() {
        let dir = temporary();
        let path = dir.path().join("photo.png");
        fs::write(&path, "old").expect("written");
        assert!(matches!(existing(&path, 3).expect("looked at"), Existing::SameLength(_)));
        assert!(matches!(existing(&path, 4).expect("looked at"), Existing::Other));
        assert!(matches!(existing(&dir.path().join("none"), 4).expect("looked at"), Existing::Nothing));
        let (mut part, _) = PartFile::open(&path).expect("opened");
        part.file().write_all(b"new").expect("written");
        assert!(matches!(part.finish(false), Err(Error::Exists { .. })));
        assert_eq!(fs::read(&path).expect("read"), b"old");
        let (mut part, _) = PartFile::open(&path).expect("opened again");
        part.keep(0).expect("cut");
        part.file().write_all(b"new").expect("written");
        part.finish(true).expect("renamed");
        assert_eq!(fs::read(&path).expect("read"), b"new");
    }

    #[test]
    fn two_gets_of_one_object_do_not_write_one_file() {
        let dir = temporary();
        let path = dir.path().join("photo.png");
        let (part, _) = PartFile::open(&path).expect("opened");
        assert!(matches!(PartFile::open(&path), Err(Error::File { .. })), "locked");
        part.remove().expect("removed");
        let (part, resumed) = PartFile::open(&path).expect("free again");
        assert_eq!(resumed, 0);
        drop(part);
        // Somebody takes the file away under the lock: what is then finished is not that file.
        let (part, _) = PartFile::open(&path).expect("opened");
        fs::remove_file(dir.path().join(".photo.png.tintype-part")).expect("removed");
        fs::write(dir.path().join(".photo.png.tintype-part"), "other").expect("written");
        part.finish(false).expect_err("replaced");
        assert!(!path.exists());
    }

    /// A kill between linking the final name and removing the part's: the next get must not write into both.
    #[cfg(unix)]
    #[test]
    fn a_part_file_left_linked_to_a_finished_file_is_not_written_again() {
        let dir = temporary();
        let (path, part_path) = (dir.path().join("photo.png"), dir.path().join(".photo.png.tintype-part"));
        fs::write(&path, "finished").expect("written");
        fs::hard_link(&path, &part_path).expect("linked");
        let (mut part, resumed) = PartFile::open(&path).expect("opened");
        assert_eq!(resumed, 0);
        part.keep(0).expect("cut");
        part.file().write_all(b"other").expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"finished");
    }

    #[test]
    fn what_cannot_be_written_is_told_by_the_name_that_the_user_gave() {
        let dir = temporary();
        let path = dir.path().join("none/x.png");
        let said = PartFile::open(&path).expect_err("no folder").to_string();
        assert!(said.contains("none/x.png: there is no folder") && !said.contains("part"), "{said}");
        fs::write(dir.path().join("file"), "x").expect("written");
        let said = PartFile::open(&dir.path().join("file/x.png")).expect_err("no folder").to_string();
        assert!(said.contains("file/x.png: ") && !said.contains("part"), "{said}");
        // Only what is in the way of the part file itself has its name.
        fs::create_dir(dir.path().join(".y.png.tintype-part")).expect("made");
        let said = PartFile::open(&dir.path().join("y.png")).expect_err("a folder").to_string();
        assert!(said.contains("y.png: ") && said.contains(".y.png.tintype-part: it is no regular"), "{said}");
    }

    #[test]
    fn long_names_have_part_files_too() {
        let dir = temporary();
        let path = dir.path().join("x".repeat(FILE_NAME_BYTES_MAX));
        let (part, _) = PartFile::open(&path).expect("opened");
        part.finish(false).expect("renamed");
        assert!(path.exists());
    }
}
