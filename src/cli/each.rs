//! Commands that ask the vault one thing of each named object: removing, bringing back, and looking.
//!
//! One that fails does not keep the others from it, and the worst makes the exit code.

use super::{
    context::Context,
    get::check_names,
    problem::{Halt, Outcome},
    put::Failures,
};
use crate::api::{Problem, Vault};

/// The objects of such a command.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Objects
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Asks for each, in order, and tells what came of it at once. `done` is what was not done with those that
/// failed: "removed".
///
/// # Errors
/// No vault; names that cannot be; an answer that cannot be printed. Single objects are told one by one.
pub(super) async fn each<T>(
    args: &Args,
    context: &Context,
    done: &str,
    ask: impl AsyncFn(&Vault, &str) -> Result<T, Problem>,
    tell: impl Fn(&str, T) -> Result<(), Halt>,
) -> Outcome {
    check_names(&args.names)?;
    let vault = context.vault().await?;
    let mut failures = Failures::new(&context.output, args.names.len() > 1);
    for name in &args.names {
        match ask(vault, name).await {
            Ok(answer) => tell(name, answer)?,
            Err(problem) => failures.add(name, problem)?,
        }
    }
    failures.end(done)
}
