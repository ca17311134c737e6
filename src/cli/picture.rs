//! The picture that a command is given, and the file that it writes: read whole and bounded, written whole or
//! not at all, and never over something else.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use super::{
    output::Output,
    problem::{self, Halt},
    text,
    work::blocking,
};
use crate::{
    api::Problem,
    client::{
        self,
        files::destination::{Existing, PartFile, existing},
    },
    model::limits::TASK_PAYLOAD_BYTES_MAX,
};

/// Endings of formats that change what is hidden, or may.
const LOSSY: [(&str, &str); 12] = [
    ("jpg", "JPEG"),
    ("jpeg", "JPEG"),
    ("jfif", "JPEG"),
    ("jpe", "JPEG"),
    ("jif", "JPEG"),
    ("webp", "WebP"),
    ("gif", "GIF"),
    ("heic", "HEIC"),
    ("heif", "HEIF"),
    ("avif", "AVIF"),
    ("jxl", "JPEG XL"),
    ("jp2", "JPEG 2000"),
];

/// Where a result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file.
    File(PathBuf),
}

impl Target {
    /// Reads `-o`; without it, a file of this name beside `image`.
    ///
    /// # Errors
    /// Usage: standard output, and JSON on it too; a result beside standard input, or beside a file whose
    /// name is not UTF-8.
    pub fn plan(
        given: Option<&Path>,
        image: &Path,
        beside: impl FnOnce(&str) -> String,
        output: &Output,
    ) -> Result<Self, Problem> {
        match given {
            Some(path) if path == Path::new("-") && output.json() => {
                Err(problem::usage("--json and -o - both want standard output", "leave one of them out"))
            }
            Some(path) if path == Path::new("-") => Ok(Self::Stdout),
            Some(path) => Ok(Self::File(path.to_owned())),
            None if image == Path::new("-") => {
                Err(problem::usage("a picture on standard input has no name to write beside", "give -o FILE"))
            }
            None => {
                // Made into text by force, two names could become one, and one result replace another.
                let stem = image.file_stem().unwrap_or_default().to_str();
                let stem = stem.ok_or_else(|| {
                    let error = format!("{}: its name is not UTF-8", text::path(image));
                    problem::usage(error, "say where the result goes: -o FILE")
                })?;
                Ok(Self::File(image.with_file_name(beside(stem))))
            }
        }
    }

    /// Refuses a name that promises a format in which hidden bytes do not survive.
    ///
    /// # Errors
    /// Usage.
    pub fn hold_lossless(&self) -> Result<(), Problem> {
        let Self::File(path) = self else { return Ok(()) };
        hold_lossless(path, "-o ")
    }

    /// Refuses, before the work, what [`Target::write`] would refuse after it: a file that is there, a folder
    /// that is missing or may not be written in.
    ///
    /// # Errors
    /// What the file system says; a file, without `force`.
    pub async fn hold_place(&self, force: bool) -> Result<(), Problem> {
        let Self::File(path) = self else { return Ok(()) };
        let path = path.clone();
        let held = blocking(move || hold_place(&path, force)).await?;
        held.map_err(|error| match &error {
            // Whether it differs from what will be made is not known yet.
            client::Error::Exists { path } => {
                Problem { error: format!("{path} exists already"), ..problem::files(&error) }
            }
            _ => problem::files(&error),
        })
    }

    /// Writes the bytes. A different file is replaced only with `force`; the same bytes are left as they are.
    ///
    /// # Errors
    /// What the file system says; a different file.
    pub async fn write(&self, bytes: Vec<u8>, force: bool) -> Result<(), Halt> {
        match self {
            Self::Stdout => Ok(to_stdout(&bytes)?),
            Self::File(path) => {
                let path = path.clone();
                let written = blocking(move || write_file(&path, &bytes, force)).await?;
                Ok(written.map_err(|error| problem::files(&error))?)
            }
        }
    }

    /// As JSON has it.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Stdout => None,
            Self::File(path) => Some(path),
        }
    }
}

/// Bytes as they are.
///
/// # Errors
/// As standard output says; a closed pipe among them.
pub fn to_stdout(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Reads a file, or `-` for standard input, whole.
///
/// # Errors
/// What the file system says; more bytes than a task may have.
pub async fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    let (path, shown) = (path.to_owned(), name(path));
    let read = blocking(move || read_whole(&path)).await?;
    let bytes = read.map_err(|error| {
        Problem::failed(format!("{shown}: {error}"), "check that it exists and that you may read it")
    })?;
    if bytes.len() as u64 > TASK_PAYLOAD_BYTES_MAX {
        let error = format!("{shown}: it has more than {} MiB", TASK_PAYLOAD_BYTES_MAX >> 20);
        return Err(Problem::failed(error, "give a smaller file"));
    }
    Ok(bytes)
}

/// What a person calls a file that was given.
pub fn name(path: &Path) -> String {
    if path == Path::new("-") { "standard input".into() } else { text::path(path) }
}

fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = TASK_PAYLOAD_BYTES_MAX + 1;
    if path == Path::new("-") {
        io::stdin().lock().take(most).read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    let file = File::open(path)?;
    let len = file.metadata()?.len().min(most);
    bytes.reserve_exact(usize::try_from(len).unwrap_or(0) + 1);
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn failed(path: &Path, reason: impl ToString) -> client::Error {
    client::Error::File { path: path.display().to_string(), reason: reason.to_string() }
}

/// Where a path that the user named leads; none if it is no file but takes what it is given. A link stays
/// one.
fn place(path: &Path) -> Result<Option<PathBuf>, client::Error> {
    match fs::metadata(path) {
        Ok(about) if about.is_dir() => Err(failed(path, "it is a folder")),
        Ok(about) if !about.is_file() => Ok(None),
        Ok(_) => fs::canonicalize(path).map(Some).map_err(|error| failed(path, error)),
        Err(_) => Ok(Some(path.to_owned())),
    }
}

/// Refuses a name that promises another format than PNG; `option` is what such a name is given with.
///
/// # Errors
/// Usage.
pub fn hold_lossless(path: &Path, option: &str) -> Result<(), Problem> {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let (shown, png) = (text::path(path), text::path(&path.with_extension("png")));
    if let Some((_, format)) = LOSSY.iter().find(|(lossy, _)| *lossy == ending) {
        return Err(problem::usage(
            format!("{shown}: {format} changes the pixels, which would destroy what is hidden in them"),
            format!("write a PNG: {option}{png}"),
        ));
    }
    match ending.as_str() {
        "bmp" | "tif" | "tiff" => Err(problem::usage(
            format!("{shown}: what is written is a PNG, whatever it is called"),
            format!("call it one: {option}{png}"),
        )),
        _ => Ok(()),
    }
}

fn hold_place(path: &Path, force: bool) -> Result<(), client::Error> {
    let Some(path) = place(path)? else { return Ok(()) };
    if fs::symlink_metadata(&path).is_ok() {
        hold_force(&path, force)?;
    }
    // Whether a file can be made here is best told by making it.
    let (mut part, _) = PartFile::open(&path)?;
    let about = part.file().metadata().map_err(|error| failed(&path, error))?;
    // What an interrupted `get` has left here is still of use to it.
    if about.len() == 0 { part.remove() } else { Ok(()) }
}

fn write_file(path: &Path, bytes: &[u8], force: bool) -> Result<(), client::Error> {
    let Some(path) = &place(path)? else {
        let mut stream = fs::OpenOptions::new().write(true).open(path).map_err(|e| failed(path, e))?;
        return stream.write_all(bytes).map_err(|error| failed(path, error));
    };
    match existing(path, bytes.len() as u64)? {
        Existing::Nothing => {}
        Existing::SameLength(mut file) => {
            let mut there = Vec::with_capacity(bytes.len());
            file.read_to_end(&mut there).map_err(|error| failed(path, error))?;
            if there == bytes {
                return Ok(());
            }
            hold_force(path, force)?;
        }
        Existing::Other => hold_force(path, force)?,
    }
    let (mut part, _) = PartFile::open(path)?;
    let filled =
        part.keep(0).and_then(|()| part.file().write_all(bytes).map_err(|error| failed(path, error)));
    match filled {
        Ok(()) => part.finish(force),
        Err(error) => {
            // It is of no use to anybody; what matters is why.
            let _ = part.remove();
            Err(error)
        }
    }
}

fn hold_force(path: &Path, force: bool) -> Result<(), client::Error> {
    if force { Ok(()) } else { Err(client::Error::Exists { path: path.display().to_string() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_goes_beside_its_picture_or_where_it_is_told() {
        let output = Output::new(false, true);
        let plan = |given: Option<&str>, image: &str| {
            Target::plan(given.map(Path::new), Path::new(image), |stem| format!("{stem}.hidden.png"), &output)
        };
        assert_eq!(plan(None, "trip/a.b.jpg"), Ok(Target::File("trip/a.b.hidden.png".into())));
        assert_eq!(plan(Some("x.png"), "a.jpg"), Ok(Target::File("x.png".into())));
        assert_eq!(plan(Some("-"), "a.jpg"), Ok(Target::Stdout));
        assert!(plan(None, "-").is_err());
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            let odd = Path::new(std::ffi::OsStr::from_bytes(b"trip/\xff.jpg"));
            let beside = |given| Target::plan(given, odd, |stem| format!("{stem}.hidden.png"), &output);
            let refused = beside(None).unwrap_err();
            assert!(refused.error.contains("not UTF-8") && refused.remedy.contains("-o FILE"), "{refused:?}");
            assert_eq!(beside(Some(Path::new("x.png"))), Ok(Target::File("x.png".into())));
        }
        let json = Output::new(true, true);
        assert!(Target::plan(Some(Path::new("-")), Path::new("a"), |_| String::new(), &json).is_err());
    }

    #[test]
    fn formats_that_lose_what_is_hidden_are_refused_with_the_reason() {
        for name in ["a.jpg", "a.JPEG", "a.webp", "a.gif", "a.heic"] {
            let problem = Target::File(name.into()).hold_lossless().expect_err(name);
            assert!(problem.error.contains("destroy") && problem.remedy.contains("a.png"), "{problem:?}");
        }
        assert!(Target::File("a.bmp".into()).hold_lossless().is_err());
        for name in ["a.png", "a.PNG", "a"] {
            Target::File(name.into()).hold_lossless().expect("fine");
        }
        Target::Stdout.hold_lossless().expect("fine");
    }

    #[test]
    fn a_different_file_is_never_replaced_without_force() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.png");
        write_file(&path, b"one", false).expect("new");
        write_file(&path, b"one", false).expect("the same");
        for other in [&b"two"[..], b"longer"] {
            assert!(matches!(write_file(&path, other, false), Err(client::Error::Exists { .. })));
            assert_eq!(fs::read(&path).expect("read"), b"one");
        }
        write_file(&path, b"longer", true).expect("forced");
        assert_eq!(fs::read(&path).expect("read"), b"longer");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1, "nothing is left beside it");
        assert!(write_file(dir.path(), b"x", true).is_err());
        assert!(write_file(&dir.path().join("no/such/a.png"), b"x", false).is_err());
    }

    #[test]
    fn what_cannot_be_written_is_refused_before_there_is_anything_to_write() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.png");
        hold_place(&path, false).expect("there is room");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 0, "looking leaves nothing");
        fs::write(&path, "one").expect("written");
        assert!(matches!(hold_place(&path, false), Err(client::Error::Exists { .. })));
        hold_place(&path, true).expect("forced");
        assert_eq!(fs::read(&path).expect("read"), b"one");
        for force in [false, true] {
            assert!(hold_place(dir.path(), force).is_err());
            let error = hold_place(&dir.path().join("no/a.png"), force).expect_err("no folder");
            assert!(error.to_string().contains("there is no folder"), "{error}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(dir.path().join("gone"), dir.path().join("link")).expect("made");
            assert!(hold_place(&dir.path().join("link"), false).is_err());
            hold_place(Path::new("/dev/null"), false).expect("it takes all");
            // What an interrupted `get` has left is not taken away.
            let part = dir.path().join(".b.png.tintype-part");
            fs::write(&part, "half").expect("written");
            hold_place(&dir.path().join("b.png"), false).expect("there is room");
            assert_eq!(fs::read(&part).expect("read"), b"half");
        }
    }
}
