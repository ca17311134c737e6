//! `tintype put`: stores files. All names are checked before a byte is sent; a file that cannot be put does
//! not keep the others from it.

use std::path::PathBuf;

use futures::{StreamExt, stream};

use super::{
    context::Context,
    output::Output,
    problem::{self, Halt, Outcome, worse},
    progress::Meter,
    text,
};
use crate::{
    api::{Exit, Problem, Put, PutDone, Vault},
    client::files::plan::{Arguments, Item, plan},
    model::{
        config::{ConfigError, Layered},
        limits::{CHUNK_BYTES, SMALL_OBJECTS_AT_ONCE_MAX, TRANSFERS_MAX},
    },
};

/// `put`, and `upload` in the shell.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Files to store; `-` is standard input and needs --name
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Folders too, with all that is in them
    #[arg(short, long)]
    recursive: bool,
    /// Goes in front of every name: `trip/`
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,
    /// The object's name, if it is not to be the file's
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Store a broken picture all the same, as bytes
    #[arg(long)]
    force: bool,
    /// Only if this is the current version (0 = only if there is none)
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    /// Copies, at most one on each machine [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    copies: Option<u8>,
}

impl Args {
    /// Lays the flags over the configuration.
    ///
    /// # Errors
    /// A value that cannot be.
    pub fn lay(&self, layers: &mut Layered) -> Result<(), ConfigError> {
        match self.copies {
            Some(copies) => layers.flag("--copies", "put.copies", i64::from(copies)),
            None => Ok(()),
        }
    }
}

/// Puts every file.
///
/// # Errors
/// What stops the whole command: names that cannot be, no vault. Single files are told one by one and make
/// the exit code.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    let arguments = Arguments {
        files: args.files.clone(),
        recursive: args.recursive,
        prefix: args.prefix.clone(),
        name: args.name.clone(),
    };
    let plan = plan(&arguments).map_err(|error| problem::files(&error))?;
    let several = plan.items.len() + plan.refused.len() > 1;
    let mut failures = Failures::new(&context.output, several);
    for refused in &plan.refused {
        let error = format!("{}: {}", text::path(refused.path.as_ref()), refused.reason);
        failures.add(&refused.path, Problem::failed(error, refused.remedy))?;
    }
    if !plan.items.is_empty() {
        let (vault, _user) = context.vault_and_user().await?;
        put_all(plan.items, args, context, vault, &mut failures).await?;
    }
    failures.end("stored")
}

async fn put_all(
    items: Vec<Item>,
    args: &Args,
    context: &Context,
    vault: &Vault,
    failures: &mut Failures<'_>,
) -> Result<(), Halt> {
    let output = &context.output;
    let meter = Meter::new(output, "put", items.iter().filter_map(|item| item.bytes).sum());
    let slots = tokio::sync::Semaphore::new(SMALL_OBJECTS_AT_ONCE_MAX);
    let transfers = items.into_iter().map(|item| {
        let (meter, slots) = (&meter, &slots);
        async move {
            let _slot = slots.acquire_many(weight(item.bytes)).await;
            let part = meter.part(item.bytes.unwrap_or(0));
            let name = item.name.clone();
            let done = vault.put(request(item, args, context), &|progress| part.update(progress)).await;
            part.end();
            (name, done)
        }
    });
    let mut finished = stream::iter(transfers).buffer_unordered(SMALL_OBJECTS_AT_ONCE_MAX);
    while let Some((name, done)) = finished.next().await {
        match done {
            Ok(done) => {
                output.answer(&done, || sentence(&done))?;
                done.warnings.iter().for_each(|warning| output.warn(warning));
            }
            Err(problem) => failures.add(&name, problem)?,
        }
    }
    Ok(())
}

fn request(item: Item, args: &Args, context: &Context) -> Put {
    let put = &context.config.config.put;
    Put {
        source: item.source,
        name: item.name,
        force: args.force,
        if_version: args.if_version,
        copies: args.copies.unwrap_or(put.copies),
        thumbnail: put.thumbnail,
    }
}

/// How many of the slots an object of this size takes: a small one takes one, two large ones take all.
pub(super) fn weight(bytes: Option<u64>) -> u32 {
    let large = (SMALL_OBJECTS_AT_ONCE_MAX / TRANSFERS_MAX) as u32;
    if bytes.is_some_and(|bytes| bytes <= CHUNK_BYTES as u64) { 1 } else { large }
}

/// `photo.png  version 2  3.4 MB  2 of 3 copies (desk, attic)  survives 1  41 ms`
fn sentence(done: &PutDone) -> String {
    if done.unchanged {
        return format!("{}  version {}  unchanged  survives {}", done.name, done.version, done.survives);
    }
    let names = done.nodes.join(", ");
    // Different bodies of one object may be on different nodes for a moment, until each is on all of them.
    let nodes = match done.nodes.len() as u64 {
        0 => String::new(),
        named if named > done.copies => format!(" (among {names})"),
        _ => format!(" ({names})"),
    };
    format!(
        "{}  version {}  {}  {} of {}{nodes}  survives {}  {}",
        done.name,
        done.version,
        text::size(done.bytes),
        done.copies,
        text::count(done.copies_wanted, "copy", "copies"),
        done.survives,
        text::duration(done.ms),
    )
}

/// Files of one command that failed: each is told at once, the worst makes the exit code.
pub(super) struct Failures<'a> {
    output: &'a Output,
    several: bool,
    failed: u64,
    worst: Exit,
}

impl<'a> Failures<'a> {
    /// None yet. `several`: the command has more than one file, so that a failure does not end it.
    pub(super) fn new(output: &'a Output, several: bool) -> Self {
        Self { output, several, failed: 0, worst: Exit::Done }
    }

    /// Tells one; if it was the only file, it ends the command.
    pub(super) fn add(&mut self, name: &str, problem: Problem) -> Result<(), Halt> {
        if !self.several {
            return Err(problem.into());
        }
        self.output.problem_of(name, &problem);
        self.failed += 1;
        self.worst = worse(self.worst, problem.exit);
        Ok(())
    }

    /// A finding that is no failure, such as an incomplete listing.
    pub(super) fn finding(&mut self) {
        self.worst = worse(self.worst, Exit::Findings);
    }

    /// All files have been tried.
    pub(super) fn end(self, verb: &str) -> Outcome {
        if self.failed == 0 {
            return Ok(self.worst);
        }
        Err(Problem {
            error: format!("{} not {verb}", text::count(self.failed, "object was", "objects were")),
            remedy: "see above for each; all others are done, so the same command may be run again".into(),
            exit: self.worst,
        }
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done() -> PutDone {
        PutDone {
            name: "photo.png".into(),
            version: 2,
            bytes: 3_400_000,
            copies: 2,
            copies_wanted: 3,
            nodes: vec!["desk".into(), "attic".into()],
            survives: 1,
            ms: 41,
            unchanged: false,
            commit_messages: 6,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn the_answer_is_the_promised_line() {
        let words = "photo.png  version 2  3.4 MB  2 of 3 copies (desk, attic)  survives 1  41 ms";
        assert_eq!(sentence(&done()), words);
        assert_eq!(
            sentence(&PutDone { unchanged: true, ..done() }),
            "photo.png  version 2  unchanged  survives 1"
        );
    }

    #[test]
    fn two_large_transfers_or_thirty_two_small_ones_run_at_once() {
        assert_eq!(weight(Some(CHUNK_BYTES as u64)), 1);
        assert_eq!(weight(None) as usize * TRANSFERS_MAX, SMALL_OBJECTS_AT_ONCE_MAX);
        assert_eq!(weight(Some(CHUNK_BYTES as u64 + 1)), weight(None));
    }

    #[test]
    fn a_single_file_fails_with_its_own_problem_and_several_with_the_worst() {
        let output = Output::new(false, true);
        let problem = |exit| Problem { error: "e".into(), remedy: String::new(), exit };
        let mut single = Failures::new(&output, false);
        let halt = single.add("a", problem(Exit::NotFound));
        assert!(matches!(halt, Err(Halt::Problem(p)) if p.exit == Exit::NotFound));
        let mut several = Failures::new(&output, true);
        several.add("a", problem(Exit::NoQuorum)).unwrap();
        several.finding();
        let halt = several.end("stored");
        assert!(
            matches!(halt, Err(Halt::Problem(p)) if p.exit == Exit::NoQuorum && p.error.starts_with("1 "))
        );
        assert_eq!(Failures::new(&output, true).end("stored").unwrap(), Exit::Done);
    }
}
