//! `tintype undelete`: brings back what `rm` hid.

use serde::Serialize;

use super::{context::Context, get::check_names, problem::Outcome, put::Failures};

/// `undelete`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Objects
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Serialize)]
struct Answer<'a> {
    name: &'a str,
    version: u64,
    removed: bool,
}

/// Brings each object back.
///
/// # Errors
/// No vault; names that cannot be. Single objects are told one by one.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    check_names(&args.names)?;
    let vault = context.vault().await?;
    let mut failures = Failures::new(&context.output, args.names.len() > 1);
    for name in &args.names {
        match vault.undelete(name).await {
            Ok(version) => context.output.answer(&Answer { name, version, removed: false }, || {
                format!("{name}  version {version}  is back")
            })?,
            Err(problem) => failures.add(name, problem)?,
        }
    }
    failures.end("brought back")
}
