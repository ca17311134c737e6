//! `tintype completions`: a script that completes commands and flags in a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{args::Cli, context::Context, problem::Outcome};
use crate::api::Exit;

/// `completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// As stdout says.
pub fn run(args: &Args, context: &Context) -> Outcome {
    // Into memory first: the generator panics when a pipe closes.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tintype", &mut script);
    let script = String::from_utf8_lossy(&script);
    context.output.line(script.trim_end())?;
    Ok(Exit::Done)
}
