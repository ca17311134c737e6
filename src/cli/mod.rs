//! The command line: daemon, client and tool in one binary, one file per command.
//!
//! Answers go to stdout, talk to stderr. It decides nothing about the vault: every command is a few calls of
//! `api` and sentences about what came back.

pub mod args;
pub mod bench;
pub mod completions;
pub mod config;
pub mod context;
pub mod demo;
pub mod doctor;
pub mod down;
mod each;
pub mod election;
pub mod events;
pub mod get;
pub mod hide;
pub mod init;
pub mod ls;
pub mod nodes;
pub mod output;
pub mod passphrase;
pub mod picture;
pub mod problem;
pub mod progress;
pub mod put;
pub mod reveal;
mod reworked;
pub mod rm;
pub mod service;
pub mod shell;
pub mod signals;
pub mod stat;
pub mod status;
pub mod stego;
pub mod storing;
pub mod strip;
pub mod tasks;
pub mod text;
pub mod thumbnail;
pub mod undelete;
pub mod up;
pub mod user;
pub mod verify;
pub mod where_is;
pub mod work;
mod worker;

use std::{ffi::OsString, process::ExitCode, time::Duration};

use clap::Parser;

use crate::api::{Exit, Problem};
use args::{Cli, Command};
use context::Context;
use output::Output;
use problem::{Halt, Leaves, Outcome};

/// How long work that cannot be interrupted (a read of a terminal) may hold up the end of the program.
const SHUTDOWN_PATIENCE: Duration = Duration::from_millis(50);

/// The whole program: parses, runs, tells what went wrong, and answers with the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    leave_no_image_of_memory();
    if let Some(exit) = worker::run(&arguments) {
        return exit;
    }
    die_with_a_sentence();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return args::refuse(&error, &arguments),
    };
    let output = Output::new(cli.globals.json, cli.globals.quiet);
    let outcome = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let outcome = runtime.block_on(run(cli, &output));
            runtime.shutdown_timeout(SHUTDOWN_PATIENCE);
            outcome
        }
        Err(error) => Err(Problem::failed(
            format!("the operating system gives this program no event queue: {error}"),
            "close other programs, or raise the limit of open files (`ulimit -n`)",
        )
        .into()),
    };
    finish(outcome, &output)
}

/// Tells the error, if there is one, as the last line.
fn finish(outcome: Outcome, output: &Output) -> ExitCode {
    let exit = match outcome {
        Ok(exit) => exit,
        Err(Halt::ReaderGone) => Exit::Done,
        Err(Halt::Problem(problem)) => {
            output.problem(&problem);
            problem.exit
        }
    };
    ExitCode::from(exit as u8)
}

/// Runs one command until it is done or Ctrl-C is pressed.
async fn run(cli: Cli, output: &Output) -> Outcome {
    let context = Context::new(&cli.globals, cli.command.as_ref(), output.clone())?;
    let outcome = match cli.command.as_ref() {
        // These two know what to do about Ctrl-C themselves.
        Some(Command::Up(args)) => up::run(args, &context).await,
        Some(Command::Shell(args)) => shell::run(args, &context).await,
        command => tokio::select! {
            biased;
            _ = signals::interrupted() => {
                problem::interrupted(command.map_or(Leaves::Nothing, Command::leaves))
            }
            outcome = dispatch(command, &context) => outcome,
        },
    };
    context.close().await;
    outcome
}

/// Runs one command, of the command line or of the shell.
async fn dispatch(command: Option<&Command>, context: &Context) -> Outcome {
    let Some(command) = command else { return status::bare(context).await };
    match command {
        Command::Status(args) => status::run(args, context).await,
        Command::Init(args) => init::run(args, context),
        Command::Up(_) | Command::Shell(_) => unreachable!("both are run before"),
        Command::Down(args) => down::run(args, context).await,
        Command::Put(args) => put::run(args, context).await,
        Command::Get(args) => get::run(args, context).await,
        Command::Ls(args) => ls::run(args, context).await,
        Command::Stat(args) => stat::run(args, context).await,
        Command::Rm(args) => rm::run(args, context).await,
        Command::Undelete(args) => undelete::run(args, context).await,
        Command::Verify(args) => verify::run(args, context).await,
        Command::Where(args) => where_is::run(args, context).await,
        Command::Hide(args) => hide::run(args, context).await,
        Command::Reveal(args) => reveal::run(args, context).await,
        Command::Stego(args) => stego::run(args, context).await,
        Command::Thumbnail(args) => thumbnail::run(args, context).await,
        Command::Strip(args) => strip::run(args, context).await,
        Command::Task(args) => tasks::run(args, context).await,
        Command::History(args) => tasks::history(args, context).await,
        Command::Election(args) => election::run(args, context).await,
        Command::Nodes(args) => nodes::run(args, context).await,
        Command::Doctor(args) => doctor::run(args, context).await,
        Command::Events(args) => events::run(args, context).await,
        Command::Config(args) => config::run(args, context),
        Command::User(args) => user::run(args, context),
        Command::Completions(args) => completions::run(args, context),
        Command::Service(args) => service::run(args, context),
        Command::Demo(args) => demo::run(args, context).await,
        Command::Bench(args) => bench::run(args, context).await,
    }
}

/// Keys and pictures are in the memory of every command: whatever ends it, the system shall write none of
/// that into a file. For the processes that it starts, too.
fn leave_no_image_of_memory() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // Less is always allowed; a system without such files has no such limit.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// A bug must not go on with half a thought: say what happened, then stop at once. A node that dies so is a
/// crash like any other, and its disk is made for that.
fn die_with_a_sentence() {
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map_or_else(String::new, |l| format!(" ({}:{})", l.file(), l.line()));
        let what = panic.payload_as_str().unwrap_or("no reason given");
        let what = text::sanitised(what);
        // A closed stderr must not turn this into a second panic.
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!(
                "error: tintype met a bug of its own and stops, so that nothing wrong is written: \
                 {what}{at}\n\
                 start it again; if it happens twice, please report these lines\n"
            ),
        );
        std::process::abort();
    }));
}
