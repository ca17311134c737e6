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
    time::Duration,
};

use clap::{Parser, error::ErrorKind};
use tokio::sync::mpsc;

use super::{
    args::Command,
    context::Context,
    dispatch, election, get, hide, ls,
    problem::{self, Halt, Leaves, Outcome, usage, worse},
    put, reveal, rm,
    signals::{Interruption, interrupted, told_to_end},
    stat, status, stego, strip, tasks, thumbnail, undelete, verify, where_is,
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
    /// Hide a text or a file in a picture
    Hide(hide::Args),
    /// Show what is hidden in a picture
    Reveal(reveal::Args),
    /// What fits into a picture, and whether something seems hidden
    Stego(stego::Args),
    /// Make a small picture of a picture
    Thumbnail(thumbnail::Args),
    /// Take the metadata out of a picture
    Strip(strip::Args),
    /// The tasks that nodes have in hand
    Task(tasks::Args),
    /// All tasks that the nodes know; `--follow` goes on until Ctrl-C
    History(tasks::HistoryArgs),
    /// Who coordinates, why, and the last elections
    Election(election::Args),
    /// How the vault is
    Status(status::Args),
    /// Leave
    #[command(alias = "exit")]
    Quit,
}

impl Line {
    /// The same on the command line; none = leave.
    fn command(self) -> Option<Command> {
        Some(match self {
            Self::Upload(args) => Command::Put(args),
            Self::Download(args) => Command::Get(args),
            Self::Ls(args) => Command::Ls(args),
            Self::Stat(args) => Command::Stat(args),
            Self::Rm(args) => Command::Rm(args),
            Self::Undelete(args) => Command::Undelete(args),
            Self::Where(args) => Command::Where(args),
            Self::Verify(args) => Command::Verify(args),
            Self::Hide(args) => Command::Hide(args),
            Self::Reveal(args) => Command::Reveal(args),
            Self::Stego(args) => Command::Stego(args),
            Self::Thumbnail(args) => Command::Thumbnail(args),
            Self::Strip(args) => Command::Strip(args),
            Self::Task(args) => Command::Task(args),
            Self::History(args) => Command::History(args),
            Self::Election(args) => Command::Election(args),
            Self::Status(args) => Command::Status(args),
            Self::Quit => return None,
        })
    }
}

/// What a line came to.
enum Done {
    Quit,
    Ended(Outcome),
    /// By whom.
    Interrupted(Interruption, Outcome),
}

/// Runs the shell until `quit`, the end of its input, a signal to end, or, on a pipe, Ctrl-C.
///
/// # Errors
/// No vault, no user; the terminal.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    let ready = tokio::select! {
        biased;
        _ = interrupted() => return problem::interrupted(Leaves::Nothing),
        ready = context.vault_and_user() => ready,
    };
    let (_, user) = ready?;
    if args.commands.is_empty() && std::io::stdin().is_terminal() && context.output.stdout_is_terminal() {
        return at_terminal(&user, context).await;
    }
    script(args, context).await
}

/// Runs lines that nobody types: all of them, and the worst result counts.
async fn script(args: &Args, context: &Context) -> Outcome {
    let mut worst = Exit::Done;
    let from_pipe = args.commands.is_empty();
    let mut lines =
        if from_pipe { Lines::of_stdin()? } else { Lines::Given(args.commands.clone().into_iter()) };
    loop {
        let line = tokio::select! {
            biased;
            _ = interrupted() => return problem::interrupted(Leaves::Nothing),
            line = lines.next() => line?,
        };
        let Some(line) = line else { return Ok(worst) };
        match execute(&line, from_pipe, context).await {
            Done::Quit => return Ok(worst),
            Done::Interrupted(_, outcome) => return outcome,
            Done::Ended(Ok(exit)) => worst = worse(worst, exit),
            Done::Ended(Err(Halt::Problem(problem))) => {
                context.output.problem(&problem);
                worst = worse(worst, problem.exit);
            }
            Done::Ended(Err(halt)) => return Err(halt),
        }
    }
}

async fn at_terminal(user: &str, context: &Context) -> Outcome {
    context.output.talk("`help` shows the commands; `quit` or Ctrl-D leaves.");
    let history = context.home.root().join("shell.history");
    let mut prompt = Prompt::start(format!("{user}> "), history)?;
    let mut objects = names(context).await.unwrap_or_default();
    loop {
        let typed = tokio::select! {
            biased;
            () = told_to_end() => return problem::interrupted(Leaves::Nothing),
            typed = prompt.read(&objects) => typed,
        };
        let line = match typed {
            Typed::Line(line) => line,
            Typed::Interrupted => continue,
            Typed::End => return Ok(Exit::Done),
            Typed::Failed(why) => {
                let error = format!("the terminal cannot be read: {why}");
                return Err(crate::api::Problem::failed(error, "use -c, or pipe the lines in").into());
            }
        };
        match execute(&line, false, context).await {
            Done::Quit => return Ok(Exit::Done),
            Done::Interrupted(Interruption::Told, outcome) => return outcome,
            Done::Ended(Ok(_)) | Done::Interrupted(_, Ok(_)) => {}
            Done::Ended(Err(Halt::Problem(problem))) | Done::Interrupted(_, Err(Halt::Problem(problem))) => {
                context.output.problem(&problem);
            }
            Done::Ended(Err(halt)) | Done::Interrupted(_, Err(halt)) => return Err(halt),
        }
        if changes_names(&line) {
            objects = names(context).await.unwrap_or(objects);
        }
    }
}

fn changes_names(line: &str) -> bool {
    let first = line.split_whitespace().next().unwrap_or_default();
    ["upload", "put", "rm", "undelete"].contains(&first) || (first == "hide" && line.contains("--store"))
}

/// The user's objects, for completion; none if the vault has something better to do.
async fn names(context: &Context) -> Option<Vec<String>> {
    let vault = context.vault().await.ok()?;
    let listing = tokio::time::timeout(NAMES_PATIENCE, vault.list("", false, false)).await.ok()?.ok()?;
    Some(listing.objects.into_iter().take(NAMES_MAX).map(|object| object.name).collect())
}

/// Runs one line until it is done or Ctrl-C is pressed. `stdin_has_lines`: so a picture cannot come from
/// there.
async fn execute(line: &str, stdin_has_lines: bool, context: &Context) -> Done {
    let command = match parse(line) {
        Ok(Some(line)) => line.command(),
        Ok(None) => return Done::Ended(Ok(Exit::Done)),
        Err(problem) => return Done::Ended(told(problem, context)),
    };
    let Some(command) = command else { return Done::Quit };
    if command.reads_stdin() && (stdin_has_lines || std::io::stdin().is_terminal()) {
        let why = "`-` cannot be read here: standard input carries the commands";
        return Done::Ended(Err(usage(why, "give a file, or run this one outside the shell").into()));
    }
    tokio::select! {
        biased;
        by = interrupted() => {
            context.cancel_tasks().await;
            Done::Interrupted(by, problem::interrupted(command.leaves()))
        }
        outcome = dispatch(Some(&command), context) => Done::Ended(outcome),
    }
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
    use std::path::Path;

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
        assert!(matches!(parsed("hide --text 'at nine' a.png --local").command(), Some(Command::Hide(args))
            if args.image == Path::new("a.png")));
        assert!(matches!(parsed("history -f").command(), Some(Command::History(args)) if args.follow));
        assert!(matches!(parsed("stego info a.png").command(), Some(Command::Stego(_))));
        assert!(matches!(parsed("task cancel abc-1").command(), Some(Command::Task(_))));
        assert!(matches!(parse("   "), Ok(None)) && matches!(parse("# nothing"), Ok(None)));
    }

    #[test]
    fn every_completed_command_is_one() {
        let given = |name: &str| match name {
            "upload" | "download" | "stat" | "rm" | "undelete" | "where" | "reveal" | "strip" => {
                format!("{name} x")
            }
            "hide" => "hide --text x y".into(),
            "stego" => "stego info x".into(),
            "thumbnail" => "thumbnail --edge 9 x".into(),
            "task" => "task ls".into(),
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
        assert!(changes_names("hide --store --text x a.png") && !changes_names("hide --text x a.png"));
    }
}
