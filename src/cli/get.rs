//! `tintype get`: fetches objects, to files or to standard output.
//!
//! What is written where is decided by `client::files`, which keeps every name inside the folder that was
//! given.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use futures::{StreamExt, stream};

use super::{
    context::Context,
    problem::{self, Halt, Outcome},
    progress::{Meter, Part},
    put::{Failures, weight},
    text,
};
use crate::{
    api::{Get, GetDone, Problem, Vault},
    client::files::destination::{Destination, Target},
    model::{limits::SMALL_OBJECTS_AT_ONCE_MAX, object::ObjectName},
};

/// `get`, and `download` in the shell.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["names", "all"]))]
pub struct Args {
    /// Objects to fetch; with -r, prefixes
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Every object whose name begins with the prefix, as a tree
    #[arg(short, long, conflicts_with = "all", requires = "names")]
    recursive: bool,
    /// Every object of the user, as a tree
    #[arg(long)]
    all: bool,
    /// File or folder to write to; `-` is standard output [default: the current folder]
    #[arg(short, long, value_name = "FILE|DIR")]
    output: Option<PathBuf>,
    /// Replace files that are there and differ
    #[arg(long)]
    force: bool,
    /// Take the newest version that the reachable nodes know, without a quorum
    #[arg(long)]
    any: bool,
    /// An older version
    #[arg(long, value_name = "N", conflicts_with_all = ["recursive", "all"])]
    version: Option<u64>,
}

/// One object to fetch; the size is known if it came from a listing.
struct Wanted {
    name: String,
    bytes: Option<u64>,
}

/// Fetches every object.
///
/// # Errors
/// What stops the whole command: a destination that cannot be, no vault. Single objects are told one by one.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    let tree = args.recursive || args.all;
    let several = tree || args.names.len() > 1;
    let to = Destination::plan(args.output.as_deref(), several, tree).map_err(|e| problem::files(&e))?;
    if context.output.json() && matches!(to, Destination::Stdout) {
        let both = "--json and -o - both want standard output";
        return Err(problem::usage(both, "leave one of them out").into());
    }
    if !tree {
        check_names(&args.names)?;
        to.keep_apart(&args.names).map_err(|error| {
            problem::usage(error.to_string(), "fetch one of them in a command of its own, with -o FILE")
        })?;
    }
    let vault = context.vault().await?;
    let mut failures = Failures::new(&context.output, several);
    let wanted = wanted(args, context, vault, &mut failures).await?;
    let fetch = Fetch { args, context, vault, to: &to };
    fetch.all(wanted, &mut failures).await?;
    failures.end("fetched")
}

/// Refuses names that cannot be, before anything is asked.
///
/// # Errors
/// The first of them, as a usage error.
pub(super) fn check_names(names: &[String]) -> Result<(), Halt> {
    for name in names {
        ObjectName::parse(name).map_err(|error| {
            problem::usage(format!("{name:?}: {error}"), "see `tintype ls` for the names there are")
        })?;
    }
    Ok(())
}

async fn wanted(
    args: &Args,
    context: &Context,
    vault: &Vault,
    failures: &mut Failures<'_>,
) -> Result<Vec<Wanted>, Halt> {
    if !args.recursive && !args.all {
        return Ok(args.names.iter().map(|name| Wanted { name: name.clone(), bytes: None }).collect());
    }
    let prefixes = if args.all { vec![String::new()] } else { args.names.clone() };
    let mut wanted = Vec::new();
    for prefix in prefixes {
        let listing = vault.list(&prefix, false, args.any).await?;
        if listing.incomplete {
            context
                .output
                .warn("Not every node that knows names answered: some objects may be missing here.");
            failures.finding();
        }
        for finding in &listing.findings {
            context.output.warn(finding);
            failures.finding();
        }
        if listing.objects.is_empty() && !args.all {
            let none = format!("no object's name begins with {prefix:?}");
            failures.add(&prefix, not_found(none))?;
        }
        let objects = listing.objects.into_iter();
        wanted.extend(objects.map(|object| Wanted { name: object.name, bytes: Some(object.bytes) }));
    }
    wanted.sort_by(|one, other| one.name.cmp(&other.name));
    wanted.dedup_by(|one, other| one.name == other.name);
    Ok(wanted)
}

fn not_found(error: String) -> Problem {
    Problem {
        error,
        remedy: "see `tintype ls` for the names there are".into(),
        exit: crate::api::Exit::NotFound,
    }
}

struct Fetch<'a> {
    args: &'a Args,
    context: &'a Context,
    vault: &'a Vault,
    to: &'a Destination,
}

impl Fetch<'_> {
    async fn all(&self, wanted: Vec<Wanted>, failures: &mut Failures<'_>) -> Result<(), Halt> {
        let output = &self.context.output;
        let meter = Meter::new(output, "get", wanted.iter().filter_map(|w| w.bytes).sum());
        // Onto standard output one after the other, or the bytes would mix.
        let at_once = if matches!(self.to, Destination::Stdout) { 1 } else { SMALL_OBJECTS_AT_ONCE_MAX };
        let slots = tokio::sync::Semaphore::new(SMALL_OBJECTS_AT_ONCE_MAX);
        let transfers = wanted.into_iter().map(|wanted| {
            let (meter, slots) = (&meter, &slots);
            async move {
                let _slot = slots.acquire_many(weight(wanted.bytes)).await;
                let part = meter.part(wanted.bytes.unwrap_or(0));
                let done = self.one(&wanted.name, &part).await;
                part.end();
                (wanted.name, done)
            }
        });
        let mut finished = stream::iter(transfers).buffer_unordered(at_once);
        while let Some((name, done)) = finished.next().await {
            match done {
                Ok(done) => self.tell(&done)?,
                Err(Halt::Problem(problem)) => failures.add(&name, problem)?,
                Err(halt) => return Err(halt),
            }
        }
        Ok(())
    }

    async fn one(&self, name: &str, part: &Part<'_>) -> Result<GetDone, Halt> {
        let get = Get { name: name.to_owned(), version: self.args.version, any: self.args.any };
        let target = self.to.target(name).map_err(|error| problem::files(&error))?;
        let progress = |progress| part.update(progress);
        match target {
            Target::File(path) => Ok(self.vault.get_to_file(get, &path, self.args.force, &progress).await?),
            Target::Stdout => {
                let mut stdout = Watched::new(std::io::stdout());
                let done = self.vault.get_to_writer(get, &mut stdout, &progress).await;
                stdout.judge(done)
            }
            Target::Stream(path) => {
                let file = std::fs::OpenOptions::new().write(true).open(&path);
                let mut file = Watched::new(file.map_err(|error| cannot_open(&path, &error))?);
                let done = self.vault.get_to_writer(get, &mut file, &progress).await;
                file.judge(done)
            }
        }
    }

    fn tell(&self, done: &GetDone) -> Result<(), Halt> {
        let output = &self.context.output;
        if done.unconfirmed {
            output.warn(&format!(
                "{}: version {} is the newest that the reachable nodes know; there may be a newer one.",
                done.name, done.version
            ));
        }
        if done.bad_copies > 0 {
            let copies = text::count(done.bad_copies, "bad copy", "bad copies");
            output
                .warn(&format!("{}: {copies} met; good ones were used. `tintype verify` mends.", done.name));
        }
        match self.to {
            // Standard output holds the picture itself.
            Destination::Stdout => output.talk(&sentence(done)),
            _ => output.answer(done, || sentence(done))?,
        }
        Ok(())
    }
}

fn cannot_open(path: &Path, error: &std::io::Error) -> Problem {
    Problem::failed(format!("{}: {error}", path.display()), "check that you may write there")
}

fn sentence(done: &GetDone) -> String {
    let to = done.path.as_ref().map_or_else(String::new, |path| format!("  -> {}", text::path(path)));
    let head = format!("{}  version {}  {}{to}", done.name, done.version, text::size(done.bytes));
    match (done.unchanged, done.resumed_bytes) {
        (true, _) => format!("{head}  unchanged"),
        (false, 0) => format!("{head}  {}", text::duration(done.ms)),
        (false, resumed) => {
            format!("{head}  {} were there already  {}", text::size(resumed), text::duration(done.ms))
        }
    }
}

/// A writer that remembers whether its reader went away, which the vault can only report as a failed write.
struct Watched<W> {
    inner: W,
    reader_gone: bool,
}

impl<W> Watched<W> {
    fn new(inner: W) -> Self {
        Self { inner, reader_gone: false }
    }

    fn judge(self, done: Result<GetDone, Problem>) -> Result<GetDone, Halt> {
        if self.reader_gone { Err(Halt::ReaderGone) } else { Ok(done?) }
    }

    fn watch<T>(&mut self, result: std::io::Result<T>) -> std::io::Result<T> {
        self.reader_gone |= result.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe);
        result
    }
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes);
        self.watch(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let flushed = self.inner.flush();
        self.watch(flushed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_says_what_was_written_where() {
        let done = GetDone {
            name: "a.png".into(),
            version: 3,
            bytes: 3_400_000,
            path: Some("out/a.png".into()),
            resumed_bytes: 0,
            bad_copies: 0,
            unchanged: false,
            ms: 41,
            unconfirmed: false,
        };
        assert_eq!(sentence(&done), "a.png  version 3  3.4 MB  -> out/a.png  41 ms");
        let resumed = GetDone { resumed_bytes: 1_000_000, ..done.clone() };
        assert_eq!(
            sentence(&resumed),
            "a.png  version 3  3.4 MB  -> out/a.png  1.0 MB were there already  41 ms"
        );
        let same = GetDone { unchanged: true, path: None, ..done };
        assert_eq!(sentence(&same), "a.png  version 3  3.4 MB  unchanged");
    }

    #[test]
    fn a_pipe_that_closes_is_remembered() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut watched = Watched::new(Closed);
        assert!(watched.write(b"x").is_err());
        assert!(matches!(watched.judge(Err(Problem::failed("e", ""))), Err(Halt::ReaderGone)));
    }

    #[test]
    fn names_that_cannot_be_are_usage_errors() {
        for name in ["../x", "/x", "", "a\nb"] {
            let halt = check_names(&["fine".into(), name.into()]);
            assert!(matches!(halt, Err(Halt::Problem(p)) if p.exit == crate::api::Exit::Usage), "{name:?}");
        }
    }
}
