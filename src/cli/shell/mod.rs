//! `tintype shell`: the same commands, one after the other over one connection.
//!
//! ```text
//! alice> upload photo.png
//! ```
//! At a terminal it edits, remembers and completes lines; on a pipe, or with `-c`, it runs what it is given
//! and the worst result is its exit code.

mod editor;
mod words;

use std::{
    io::{BufRead, IsTerminal},
    path::Path,
    time::Duration,
};

use clap::{Parser, error::ErrorKind};
use tokio::sync::mpsc;

use super::{
    context::{Context, interrupted},
    get, ls,
    problem::{self, Halt, Outcome, usage, worse},
    put, rm, stat, status, undelete, verify, where_is,
};
use crate::api::Exit;
use editor::{Prompt, Typed};

/// Names for completion are fetched before a prompt, but a person does not wait longer than this for them.
const NAMES_PATIENCE: Duration = Duration::from_millis(500);
/// Names kept for completion.
const NAMES_MAX: usize = 20_000;

/// `shell`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The user [default: the only one in the home]
    #[arg(value_name = "USER")]
    pub user: Option<String>,
    /// Run this line and end; may be given several times
    #[arg(short = 'c', value_name = "LINE")]
    commands: Vec<String>,
}

/// One line.
#[derive(Debug, Parser)]
#[command(name = "tintype shell", no_binary_name = true, disable_help_flag = false)]
#[command(override_usage = "COMMAND [ARGUMENTS]", help_template = "{subcommands}")]
enum Line {
    /// Store files
    #[command(alias = "put")]
    Upload(put::Args),
    /// Fetch objects
    #[command(alias = "get")]
    Download(get::Args),
    /// List objects
    Ls(ls::Args),
    /// All that is known of an object
    Stat(stat::Args),
    /// Remove objects (`undelete` brings them back)
    Rm(rm::Args),
    /// Bring removed objects back
    Undelete(undelete::Args),
    /// Where each copy of an object lies
    Where(where_is::Args),
    /// Read every copy, report bad ones and mend them
    Verify(verify::Args),
    /// How the vault is
    Status(status::Args),
    /// Leave
    #[command(alias = "exit")]
    Quit,
}

/// What a line came to.
enum Done {
    Quit,
    Ended(Outcome),
}

/// Runs the shell until `quit`, the end of its input, or, on a pipe, Ctrl-C.
///
/// # Errors
/// No vault, no user; the terminal.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    let ready = tokio::select! {
        biased;
        () = interrupted() => return Err(problem::interrupted().into()),
        ready = context.vault_and_user() => ready,
    };
    let (_, user) = ready?;
    if args.commands.is_empty() && std::io::stdin().is_terminal() && context.output.stdout_is_terminal() {
        return at_terminal(&user, context).await;
    }
    tokio::select! {
        biased;
        () = interrupted() => Err(problem::interrupted().into()),
        outcome = script(args, context) => outcome,
    }
}

/// Runs lines that nobody types: all of them, and the worst result counts.
async fn script(args: &Args, context: &Context) -> Outcome {
    let mut worst = Exit::Done;
    let from_pipe = args.commands.is_empty();
    let mut lines =
        if from_pipe { Lines::of_stdin()? } else { Lines::Given(args.commands.clone().into_iter()) };
    while let Some(line) = lines.next().await? {
        match execute(&line, from_pipe, context).await {
            Done::Quit => break,
            Done::Ended(Ok(exit)) => worst = worse(worst, exit),
            Done::Ended(Err(Halt::Problem(problem))) => {
                context.output.problem(&problem);
                worst = worse(worst, problem.exit);
            }
            Done::Ended(Err(halt)) => return Err(halt),
        }
    }
    Ok(worst)
}

async fn at_terminal(user: &str, context: &Context) -> Outcome {
    context.output.talk("`help` shows the commands; `quit` or Ctrl-D leaves.");
    let history = context.home.root().join("shell.history");
    let mut prompt = Prompt::start(format!("{user}> "), history)?;
    let mut objects = names(context).await.unwrap_or_default();
    loop {
        let line = match prompt.read(&objects).await {
            Typed::Line(line) => line,
            Typed::Interrupted => continue,
            Typed::End => return Ok(Exit::Done),
            Typed::Failed(why) => {
                let error = format!("the terminal cannot be read: {why}");
                return Err(crate::api::Problem::failed(error, "use -c, or pipe the lines in").into());
            }
        };
        let done = tokio::select! {
            biased;
            () = interrupted() => Done::Ended(Err(problem::interrupted().into())),
            done = execute(&line, false, context) => done,
        };
        match done {
            Done::Quit => return Ok(Exit::Done),
            Done::Ended(Ok(_)) => {}
            Done::Ended(Err(Halt::Problem(problem))) => context.output.problem(&problem),
            Done::Ended(Err(halt)) => return Err(halt),
        }
        if changes_names(&line) {
            objects = names(context).await.unwrap_or(objects);
        }
    }
}

fn changes_names(line: &str) -> bool {
    let first = line.split_whitespace().next().unwrap_or_default();
    ["upload", "put", "rm", "undelete"].contains(&first)
}

/// The user's objects, for completion; none if the vault has something better to do.
async fn names(context: &Context) -> Option<Vec<String>> {
    let vault = context.vault().await.ok()?;
    let listing = tokio::time::timeout(NAMES_PATIENCE, vault.list("", false, false)).await.ok()?.ok()?;
    Some(listing.objects.into_iter().take(NAMES_MAX).map(|object| object.name).collect())
}

/// Runs one line. `stdin_has_lines`: so a picture cannot come from there.
async fn execute(line: &str, stdin_has_lines: bool, context: &Context) -> Done {
    let command = match parse(line) {
        Ok(Some(command)) => command,
        Ok(None) => return Done::Ended(Ok(Exit::Done)),
        Err(problem) => return Done::Ended(told(problem, context)),
    };
    let interactive = std::io::stdin().is_terminal();
    if let Line::Upload(args) = &command
        && (stdin_has_lines || interactive)
        && args.files.iter().any(|file| file == Path::new("-"))
    {
        let why = "`-` cannot be uploaded here: standard input carries the commands";
        return Done::Ended(Err(usage(why, "use `tintype put - --name NAME` outside the shell").into()));
    }
    Done::Ended(match &command {
        Line::Upload(args) => put::run(args, context).await,
        Line::Download(args) => get::run(args, context).await,
        Line::Ls(args) => ls::run(args, context).await,
        Line::Stat(args) => stat::run(args, context).await,
        Line::Rm(args) => rm::run(args, context).await,
        Line::Undelete(args) => undelete::run(args, context).await,
        Line::Where(args) => where_is::run(args, context).await,
        Line::Verify(args) => verify::run(args, context).await,
        Line::Status(args) => status::run(args, context).await,
        Line::Quit => return Done::Quit,
    })
}

/// Why a line is not a command.
enum NotACommand {
    Words(words::WordsError),
    Clap(Box<clap::Error>),
}

/// A line as a command; an empty line or a comment is none.
fn parse(line: &str) -> Result<Option<Line>, NotACommand> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let words = words::words(line).map_err(NotACommand::Words)?;
    Line::try_parse_from(words).map(Some).map_err(|error| NotACommand::Clap(Box::new(error)))
}

/// Help is an answer; all else is a usage error.
fn told(not: NotACommand, context: &Context) -> Outcome {
    let error = match not {
        NotACommand::Words(error) => {
            return Err(usage(error.to_string(), "close it, or put a backslash before it").into());
        }
        NotACommand::Clap(error) => error,
    };
    let text = error.to_string();
    let text = text.trim_end();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) {
        context.output.lines(text.lines().map(str::to_owned))?;
        return Ok(Exit::Done);
    }
    let first = text.lines().next().unwrap_or("this is no command").trim_start_matches("error: ");
    Err(usage(first, "`help` shows the commands, `help COMMAND` its arguments").into())
}

/// Lines of a script.
enum Lines {
    Given(std::vec::IntoIter<String>),
    Stdin(mpsc::Receiver<std::io::Result<String>>),
}

impl Lines {
    /// Standard input, read on a thread of its own, one line ahead.
    fn of_stdin() -> Result<Self, Halt> {
        let (send, lines) = mpsc::channel(1);
        std::thread::Builder::new().name("stdin".into()).spawn(move || {
            for line in std::io::stdin().lock().lines() {
                if send.blocking_send(line).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self::Stdin(lines))
    }

    async fn next(&mut self) -> Result<Option<String>, Halt> {
        match self {
            Self::Given(lines) => Ok(lines.next()),
            Self::Stdin(lines) => match lines.recv().await {
                None => Ok(None),
                Some(Ok(line)) => Ok(Some(line)),
                Some(Err(error)) => {
                    let why = format!("standard input cannot be read as lines of text: {error}");
                    Err(usage(why, "pipe one command a line, in UTF-8").into())
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Line {
        match parse(line) {
            Ok(Some(command)) => command,
            Ok(None) => panic!("{line} is nothing"),
            Err(NotACommand::Words(error)) => panic!("{line}: {error}"),
            Err(NotACommand::Clap(error)) => panic!("{line}: {error}"),
        }
    }

    #[test]
    fn lines_are_the_commands_of_the_command_line() {
        assert!(matches!(parsed("upload 'my photo.png' --prefix trip/"), Line::Upload(args)
            if args.files == [Path::new("my photo.png")]));
        assert!(matches!(parsed("put x"), Line::Upload(_)));
        assert!(matches!(parsed("download a b -o out"), Line::Download(args) if args.names == ["a", "b"]));
        assert!(matches!(parsed("exit"), Line::Quit));
        assert!(matches!(parse("   "), Ok(None)) && matches!(parse("# nothing"), Ok(None)));
    }

    #[test]
    fn every_completed_command_is_one() {
        let given = |name: &str| match name {
            "upload" | "download" | "stat" | "rm" | "undelete" | "where" => format!("{name} x"),
            name => name.to_owned(),
        };
        for line in editor::COMMANDS.iter().filter(|name| **name != "help").map(|name| given(name)) {
            parsed(&line);
        }
        for line in ["help", "help upload"] {
            let Err(NotACommand::Clap(error)) = parse(line) else { panic!("{line} is a command") };
            assert_eq!(error.kind(), ErrorKind::DisplayHelp);
        }
    }

    #[test]
    fn only_commands_that_change_names_ask_for_them_again() {
        assert!(
            changes_names(" upload x") && changes_names("rm x") && !changes_names("ls") && !changes_names("")
        );
    }
}
