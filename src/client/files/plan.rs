//! What a `put` will send: its arguments as a checked list of sources and object names.
//!
//! It opens files only to see that they can be read. Everything that would stop the whole command is found
//! here, before anything is sent; it sends nothing and prints nothing itself.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io,
    path::{Path, PathBuf},
};

use super::destination::is_part_name;
use crate::{
    client::{Error, types::Source},
    model::{
        limits,
        object::{NameError, ObjectName},
    },
};

/// Folders inside folders that are followed: more than any file system's path takes, so a loop ends.
const FOLDER_DEPTH_MAX: usize = 256;

/// The arguments of one `put`.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// Files and folders as given; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// Take folders, with all that is in them.
    pub recursive: bool,
    /// Goes in front of every name, as it is: `trip/` makes `trip/photo.png`.
    pub prefix: String,
    /// The name of a single source; standard input needs it. The prefix goes in front of it too.
    pub name: Option<String>,
}

/// One object to store.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where its bytes come from: a path or standard input.
    pub source: Source,
    /// Its name, checked, in normal form, with the prefix.
    pub name: String,
    /// Its size when it was looked at; none for standard input. It may change until it is read, so whoever
    /// reads counts too.
    pub bytes: Option<u64>,
}

/// A file that is not put, while the others are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The path as a person can read it.
    pub path: String,
    /// Half a sentence.
    pub reason: String,
    /// What to do about it, half a sentence too.
    pub remedy: &'static str,
}

/// What one `put` will do.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// To be sent, in the order of the arguments, folders by name.
    pub items: Vec<Item>,
    /// Not to be sent: each is to be told, and makes the exit code 1.
    pub refused: Vec<Refused>,
}

/// Looks at every argument. Symbolic links to files are followed; inside folders those to folders are not,
/// and neither these nor special files are put.
///
/// # Errors
/// [`Error::Usage`]: nothing may be sent (two files with one name, a name or prefix given that cannot be,
/// `--name` with several sources, standard input without a name or twice, no file at all).
pub fn plan(arguments: &Arguments) -> Result<Plan, Error> {
    check_shape(arguments)?;
    let mut walk = Walk { arguments, plan: Plan::default(), given: BTreeMap::new() };
    for path in &arguments.files {
        walk.argument(path)?;
    }
    Ok(walk.plan)
}

/// What the command line alone shows.
fn check_shape(arguments: &Arguments) -> Result<(), Error> {
    let usage = |text: &str| Err(Error::Usage(text.into()));
    let stdins = arguments.files.iter().filter(|path| is_stdin(path)).count();
    match (&arguments.name, arguments.files.len()) {
        (_, 0) => return usage("no file is named"),
        (Some(_), 2..) => return usage("--name goes with one file only"),
        (None, _) if stdins > 0 => {
            return usage("standard input has no name of its own: give one with --name");
        }
        _ => {}
    }
    if let Some(name) = &arguments.name {
        object_name(arguments, name).map_err(|error| bad_name(name, error))?;
    }
    // A prefix is good if a name after it can be.
    object_name(arguments, "x").map_err(|error| bad_name(&arguments.prefix, error))?;
    Ok(())
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn object_name(arguments: &Arguments, name: &str) -> Result<ObjectName, NameError> {
    ObjectName::parse(&format!("{}{name}", arguments.prefix))
}

fn bad_name(name: &str, error: NameError) -> Error {
    Error::Usage(format!("{name:?} cannot be a name: {error}"))
}

struct Walk<'a> {
    arguments: &'a Arguments,
    plan: Plan,
    /// The names so far, and the path of each.
    given: BTreeMap<String, String>,
}

impl Walk<'_> {
    fn argument(&mut self, path: &Path) -> Result<(), Error> {
        if is_stdin(path) {
            let name = self.arguments.name.clone().unwrap_or_default();
            return self.keep(path, Source::Stdin, &name, None);
        }
        let about = match fs::metadata(path) {
            Ok(about) => about,
            Err(error) => return self.refuse(path, reason(&error), LOOK),
        };
        if about.is_dir() && !self.arguments.recursive {
            return self.refuse(path, "it is a folder", "give -r to put all that is in it");
        }
        if about.is_dir() && self.arguments.name.is_some() {
            return Err(Error::Usage("--name goes with a file, not with a folder".into()));
        }
        if let (Some(name), false) = (&self.arguments.name, about.is_dir()) {
            return self.file(path, &about, name);
        }
        let own_name = match own_name(path) {
            Ok(Some(name)) => name,
            Ok(None) => return self.refuse(path, "it has no name of its own", RENAME),
            Err(error) => return self.refuse(path, reason(&error), LOOK),
        };
        // The command line itself is wrong, as with every other name that cannot be.
        let not_utf8 = || Error::Usage(format!("{} cannot be put: {NOT_UTF8}", path.display()));
        let name = own_name.to_str().ok_or_else(not_utf8)?;
        if about.is_dir() {
            return self.folder(path, name, 0);
        }
        object_name(self.arguments, name).map_err(|error| bad_name(name, error))?;
        self.file(path, &about, name)
    }

    fn folder(&mut self, path: &Path, name: &str, depth: usize) -> Result<(), Error> {
        if depth == FOLDER_DEPTH_MAX {
            return self.refuse(path, "folders lie too deep in each other here", "name a folder inside");
        }
        let listed = fs::read_dir(path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let mut entries = match listed {
            Ok(entries) => entries,
            Err(error) => return self.refuse(path, reason(&error), LOOK),
        };
        entries.sort_by_key(|entry| entry.file_name());
        for entry in entries {
            let path = entry.path();
            let own_name = entry.file_name();
            let Some(own_name) = own_name.to_str() else {
                self.refuse(&path, NOT_UTF8, RENAME)?;
                continue;
            };
            if is_part_name(own_name) {
                tracing::debug!("{}: passed over, a get has not finished it", path.display());
                continue;
            }
            let name = format!("{name}/{own_name}");
            match (entry.file_type(), fs::metadata(&path)) {
                (Ok(kind), _) if kind.is_dir() => self.folder(&path, &name, depth + 1)?,
                (_, Ok(about)) if about.is_dir() => {
                    self.refuse(&path, "it is a link to a folder", "name the folder itself")?;
                }
                (_, Ok(about)) => self.file(&path, &about, &name)?,
                (_, Err(error)) => self.refuse(&path, reason(&error), LOOK)?,
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, about: &Metadata, name: &str) -> Result<(), Error> {
        if !about.is_file() {
            return self.refuse(
                path,
                "it is neither a file nor a folder",
                "`-` puts what comes on standard input",
            );
        }
        if about.len() == 0 {
            return self.refuse(path, "it is empty", "look whether it was copied whole");
        }
        if about.len() > limits::OBJECT_BYTES_MAX {
            return self.refuse(path, "it is larger than 64 GiB, the largest object", "cut it into parts");
        }
        if let Err(error) = File::open(path) {
            return self.refuse(path, reason(&error), LOOK);
        }
        self.keep(path, Source::Path(path.to_owned()), name, Some(about.len()))
    }

    fn keep(&mut self, path: &Path, source: Source, name: &str, bytes: Option<u64>) -> Result<(), Error> {
        let name = match object_name(self.arguments, name) {
            Ok(name) => String::from(name),
            Err(error) => return self.refuse(path, format!("it cannot be a name: {error}"), RENAME),
        };
        let shown = path.display().to_string();
        if let Some(other) = self.given.insert(name.clone(), shown.clone()) {
            let sentence = format!("{other} and {shown} would both be {name:?}: nothing was sent");
            return Err(Error::Usage(sentence));
        }
        self.plan.items.push(Item { source, name, bytes });
        Ok(())
    }

    /// Refusing one file is no error of the plan; the answer is for `return`.
    fn refuse(&mut self, path: &Path, reason: impl Into<String>, remedy: &'static str) -> Result<(), Error> {
        self.plan.refused.push(Refused { path: path.display().to_string(), reason: reason.into(), remedy });
        Ok(())
    }
}

const LOOK: &str = "check the path and that you may read it";
const RENAME: &str = "rename it, or give a single file another name with --name";
const NOT_UTF8: &str = "its name is not UTF-8";

/// The last name in a path; `.` and `..` are looked up.
fn own_name(path: &Path) -> io::Result<Option<std::ffi::OsString>> {
    if let Some(name) = path.file_name() {
        return Ok(Some(name.to_owned()));
    }
    Ok(path.canonicalize()?.file_name().map(ToOwned::to_owned))
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::PermissionDenied => "it may not be read".into(),
        _ => format!("it cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().expect("inside")).expect("made");
            fs::write(path, "bytes").expect("written");
        }
        dir
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.items.iter().map(|item| item.name.as_str()).collect()
    }

    fn of(dir: &tempfile::TempDir, files: &[&str]) -> Arguments {
        let files = files.iter().map(|file| dir.path().join(file)).collect();
        Arguments { files, ..Arguments::default() }
    }

    #[test]
    fn files_have_their_base_name_and_folders_their_path() {
        let dir = folder_with(&["a.png", "trip/c.png", "trip/b/d.png"]);
        let plan = plan(&Arguments { recursive: true, ..of(&dir, &["trip", "a.png"]) }).expect("good");
        assert_eq!(names(&plan), ["trip/b/d.png", "trip/c.png", "a.png"]);
        assert_eq!((plan.refused.len(), plan.items[0].bytes), (0, Some(5)));
    }

    #[test]
    fn what_a_get_has_not_finished_is_no_picture() {
        let dir = folder_with(&["trip/.c.png.tintype-part", "trip/c.png", "trip/x.tintype-part"]);
        let plan = plan(&Arguments { recursive: true, ..of(&dir, &["trip"]) }).expect("good");
        assert_eq!(names(&plan), ["trip/c.png", "trip/x.tintype-part"]);
        assert!(plan.refused.is_empty(), "{:?}", plan.refused);
    }

    #[test]
    fn dots_are_looked_up_and_prefixes_go_in_front() {
        let dir = folder_with(&["trip/c.png"]);
        let arguments =
            Arguments { recursive: true, prefix: "2024/".into(), ..of(&dir, &["trip/../trip/."]) };
        assert_eq!(names(&plan(&arguments).expect("good")), ["2024/trip/c.png"]);
        let named = Arguments { name: Some("Cafe\u{301}.png".into()), ..of(&dir, &["trip/c.png"]) };
        assert_eq!(names(&plan(&named).expect("good")), ["Caf\u{e9}.png"]);
    }

    #[test]
    fn bad_files_are_refused_by_name_and_the_others_go_on() {
        let dir = folder_with(&["good.png", "folder/x"]);
        fs::write(dir.path().join("empty"), "").expect("written");
        let huge = File::create(dir.path().join("huge")).expect("made");
        huge.set_len(limits::OBJECT_BYTES_MAX + 1).expect("a sparse file");
        let plan = plan(&of(&dir, &["missing", "folder", "empty", "huge", "good.png"])).expect("good");
        assert_eq!(names(&plan), ["good.png"]);
        let words = ["no such file", "folder", "empty", "64 GiB"];
        assert_eq!(plan.refused.len(), words.len());
        for (refused, word) in plan.refused.iter().zip(words) {
            assert!(refused.reason.contains(word) && !refused.remedy.is_empty(), "{refused:?}");
        }
    }

    #[test]
    fn two_files_with_one_name_stop_everything() {
        let dir = folder_with(&["a/x.png", "b/x.png"]);
        let error = plan(&of(&dir, &["a/x.png", "b/x.png"])).expect_err("one name");
        assert!(matches!(error, Error::Usage(_)), "{error}");
        // Two spellings of one text are one name.
        let dir = folder_with(&["a/Cafe\u{301}", "b/Caf\u{e9}"]);
        plan(&of(&dir, &["a/Cafe\u{301}", "b/Caf\u{e9}"])).expect_err("one name");
    }

    #[test]
    fn what_the_shell_line_shows_stops_everything() {
        let dir = folder_with(&["a", "b"]);
        let named = |name: &str, files: &[&str]| Arguments { name: Some(name.into()), ..of(&dir, files) };
        let stdin = || vec![PathBuf::from("-")];
        let prefixed = |prefix: &str| Arguments { prefix: prefix.into(), ..of(&dir, &["a"]) };
        let wrong = [
            Arguments::default(),
            Arguments { files: stdin(), ..Arguments::default() },
            named("x", &["a", "b"]),
            named("../x", &["a"]),
            named("/x", &["a"]),
            named("a\nb", &["a"]),
            named(&"x".repeat(limits::NAME_BYTES_MAX + 1), &["a"]),
            Arguments { recursive: true, ..named("x", &["."]) },
            prefixed("../"),
            prefixed("/"),
        ];
        for arguments in wrong {
            let error = plan(&arguments).expect_err("usage");
            assert!(matches!(error, Error::Usage(_)), "{arguments:?}: {error}");
        }
        let good = Arguments { files: stdin(), name: Some("x".into()), ..Arguments::default() };
        let plan = plan(&good).expect("good");
        assert!(matches!(plan.items[0].source, Source::Stdin) && plan.items[0].bytes.is_none());
    }

    #[cfg(unix)]
    #[test]
    fn links_special_files_and_odd_names_in_folders() {
        use std::os::unix::{ffi::OsStringExt, fs::symlink, net::UnixListener};
        let dir = folder_with(&["d/a.png", "elsewhere/b.png"]);
        let inside = |name: &str| dir.path().join("d").join(name);
        symlink("../elsewhere/b.png", inside("file-link")).expect("linked");
        symlink("../elsewhere", inside("folder-link")).expect("linked");
        symlink("nowhere", inside("dangling")).expect("linked");
        symlink(".", inside("loop")).expect("linked");
        let _socket = UnixListener::bind(inside("socket")).expect("bound");
        let odd = std::ffi::OsString::from_vec(b"odd-\xff".to_vec());
        fs::write(dir.path().join("d").join(odd), "x").expect("written");
        fs::write(inside("line\nend"), "x").expect("written");
        let plan = plan(&Arguments { recursive: true, ..of(&dir, &["d"]) }).expect("good");
        assert_eq!(names(&plan), ["d/a.png", "d/file-link"]);
        assert_eq!(plan.refused.len(), 6, "{:?}", plan.refused);
        assert!(plan.refused.iter().any(|refused| refused.reason == NOT_UTF8));
    }
}
