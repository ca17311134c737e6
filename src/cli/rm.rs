//! `tintype rm`: hides objects behind a tombstone. Nothing is deleted; `undelete` brings them back.

use serde::Serialize;

use super::{context::Context, get::check_names, problem::Outcome, put::Failures};

/// `rm`.
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

/// Removes each object.
///
/// # Errors
/// No vault; names that cannot be. Single objects are told one by one.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    check_names(&args.names)?;
    let vault = context.vault().await?;
    let mut failures = Failures::new(&context.output, args.names.len() > 1);
    for name in &args.names {
        match vault.rm(name).await {
            Ok(version) => context.output.answer(&Answer { name, version, removed: true }, || {
                format!("{name}  version {version}  removed (`tintype undelete` brings it back)")
            })?,
            Err(problem) => failures.add(name, problem)?,
        }
    }
    failures.end("removed")
}
