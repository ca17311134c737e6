//! The command line as data: flags that every command takes, and the list of commands.
//!
//! Each command's own flags live in that command's file. Nothing here runs anything.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, error::ErrorKind};

use super::{
    bench, completions, config, demo, doctor, down, election, events, get, hide, init, ls, nodes,
    output::Output, problem::Leaves, put, reveal, rm, service, shell, stat, status, stego, strip, tasks,
    thumbnail, undelete, up, user, verify, where_is,
};
use crate::api::{Exit, Problem};

/// The machines you already own, as one encrypted vault for pictures.
#[derive(Debug, Parser)]
#[command(name = "tintype", version)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 no quorum, not enough \
    nodes or not done within --timeout, 6 finished with findings, 130 interrupted."
)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do; none = status, or the next three steps.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags that every command takes.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Globals {
    /// The home: keys/, config/ and data/ [default: the platform's data directory]
    #[arg(long, global = true, value_name = "DIR", env = "TINTYPE_HOME", hide_env_values = true)]
    pub home: Option<PathBuf>,
    /// Configuration file instead of config/tintype.toml in the home
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A node to ask, host:port or a multiaddr; may be given several times
    #[arg(long = "node", global = true, value_name = "ADDR")]
    pub nodes: Vec<String>,
    /// The user whose key is used
    #[arg(long = "as", global = true, value_name = "USER", env = "TINTYPE_USER", hide_env_values = true)]
    pub user: Option<String>,
    /// One JSON object a line instead of words
    #[arg(long, global = true)]
    pub json: bool,
    /// No talk and no progress bars on stderr
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Do not ask, do it
    #[arg(long, global = true)]
    pub yes: bool,
    /// What to log on stderr: error, warn, info, debug or trace [env: RUST_LOG]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// How the vault is: healthy or not, how many nodes, which may be lost now
    Status(status::Args),
    /// Make a home and its keys, start nothing (`up` does it too)
    Init(init::Args),
    /// Start a node on this machine, in this terminal
    Up(up::Args),
    /// Stop the node that runs in this home
    Down(down::Args),
    /// Store files
    Put(put::Args),
    /// Fetch objects
    Get(get::Args),
    /// List objects
    Ls(ls::Args),
    /// All that is known of an object
    Stat(stat::Args),
    /// Remove objects (`undelete` brings them back)
    Rm(rm::Args),
    /// Bring removed objects back
    Undelete(undelete::Args),
    /// Read every copy, report bad ones and mend them
    Verify(verify::Args),
    /// Where each copy of an object lies, and when it was last verified
    Where(where_is::Args),
    /// Hide a text or a file in a picture
    Hide(hide::Args),
    /// Show what is hidden in a picture
    Reveal(reveal::Args),
    /// What fits into a picture, and whether something seems hidden
    Stego(stego::Args),
    /// Make a small picture of a picture
    Thumbnail(thumbnail::Args),
    /// Take the metadata out of a picture: where, when and with what it was taken
    Strip(strip::Args),
    /// The tasks that nodes have in hand
    Task(tasks::Args),
    /// All tasks that the nodes know, ended ones of the last minute among them
    History(tasks::HistoryArgs),
    /// Who coordinates, why, and the last elections
    Election(election::Args),
    /// Every node of the vault
    Nodes(nodes::Args),
    /// Check this machine and its network, and say what to mend
    Doctor(doctor::Args),
    /// What happened: nodes joined, lost, back, repairs
    Events(events::Args),
    /// The configuration in force
    Config(config::Args),
    /// Users and their keys
    User(user::Args),
    /// Type commands one after the other over one connection
    Shell(shell::Args),
    /// Three nodes, generated pictures, a killed node, the report; all on this machine
    Demo(demo::Args),
    /// Measure this machine and this vault
    Bench(bench::Args),
    /// Completion script for a shell
    Completions(completions::Args),
    /// Start the node with this machine
    Service(service::Args),
}

impl Command {
    /// What Ctrl-C leaves of it.
    pub fn leaves(&self) -> Leaves {
        match self {
            Self::Put(_) | Self::Get(_) => Leaves::Parts,
            Self::Hide(_) | Self::Thumbnail(_) | Self::Strip(_) => Leaves::CancelledTask,
            Self::Events(args) if args.follow => Leaves::Finished,
            Self::History(args) if args.follow => Leaves::Finished,
            _ => Leaves::Nothing,
        }
    }

    /// Whether it is told to read standard input.
    pub fn reads_stdin(&self) -> bool {
        let is_stdin = |path: &PathBuf| path.as_os_str() == "-";
        match self {
            Self::Put(args) => args.files.iter().any(is_stdin),
            Self::Hide(args) => [Some(&args.image), args.file.as_ref()].into_iter().flatten().any(is_stdin),
            Self::Reveal(args) => is_stdin(&args.image),
            Self::Stego(args) => is_stdin(args.image()),
            Self::Thumbnail(args) => is_stdin(&args.image),
            Self::Strip(args) => is_stdin(&args.image),
            _ => false,
        }
    }
}

/// Prints what clap has to say: help and version are answers, all else is a usage error.
pub fn refuse(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A pager that was closed early is no failure.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--json") {
        let text = error.to_string();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or("the command line makes no sense");
        Output::new(true, false).problem(&Problem {
            error: first.trim_start_matches("error: ").to_owned(),
            remedy: "see `tintype --help`".into(),
            exit: Exit::Usage,
        });
    } else {
        let _ = error.print();
    }
    ExitCode::from(Exit::Usage as u8)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> Cli {
        Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    #[test]
    fn the_arguments_contradict_nothing() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_may_stand_before_and_after_the_command() {
        for line in [
            "tintype --json --home /h ls --node a:1 --node b:2",
            "tintype ls --json --home /h --node a:1 --node b:2",
        ] {
            let cli = parsed(line);
            assert!(cli.globals.json && matches!(cli.command, Some(Command::Ls(_))), "{line}");
            assert_eq!(cli.globals.home, Some(PathBuf::from("/h")));
            assert_eq!(cli.globals.nodes, ["a:1", "b:2"]);
        }
    }

    #[test]
    fn ctrl_c_ends_what_follows_and_cancels_tasks() {
        for (line, leaves) in [
            ("put a", Leaves::Parts),
            ("hide --text x a.png", Leaves::CancelledTask),
            ("strip --local a.png", Leaves::CancelledTask),
            ("history", Leaves::Nothing),
            ("history -f", Leaves::Finished),
            ("events --follow", Leaves::Finished),
        ] {
            let command = parsed(&format!("tintype {line}")).command.expect("a command");
            assert_eq!(command.leaves(), leaves, "{line}");
        }
    }

    #[test]
    fn what_reads_standard_input_is_known() {
        for (line, reads) in [
            ("put a - --name x", true),
            ("hide --text x -", true),
            ("hide --file - a.png", true),
            ("hide --file f a.png -o -", false),
            ("reveal -", true),
            ("stego info -", true),
            ("strip -", true),
            ("thumbnail --edge 8192 -", true),
            ("thumbnail --edge 1 a", false),
            ("get a -o -", false),
        ] {
            let command = parsed(&format!("tintype {line}")).command.expect("a command");
            assert_eq!(command.reads_stdin(), reads, "{line}");
        }
    }

    #[test]
    fn without_a_command_there_is_none() {
        assert!(parsed("tintype").command.is_none());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "tintype frobnicate",
            "tintype put",
            "tintype get",
            "tintype get --all x",
            "tintype get -r",
            "tintype put a --copies 0",
            "tintype put a --if-version x",
            "tintype up --expect 0",
            "tintype up --listen nowhere",
            "tintype ls --nonsense",
            "tintype stat",
            "tintype hide a.png",
            "tintype hide --text x",
            "tintype hide --text x --file y a.png",
            "tintype hide --text x a.png --timeout 0",
            "tintype reveal",
            "tintype stego a.png",
            "tintype thumbnail a.png",
            "tintype thumbnail --edge 0 a.png",
            "tintype thumbnail --edge 8193 a.png",
            "tintype thumbnail --edge -1 a.png",
        ] {
            let refused = Cli::try_parse_from(line.split_whitespace());
            assert_eq!(refused.map(|_| ()).map_err(|e| e.exit_code()), Err(2), "{line}");
        }
    }
}
