//! `tintype ls`: lists objects, or the versions of one.

use super::{
    context::Context,
    problem::{Halt, Outcome},
    text,
};
use crate::{
    api::{Exit, ObjectInfo},
    cli::{context::now_unix_ms, get::check_names},
};

/// `ls`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Only names that begin so; with --versions, one object's name
    #[arg(value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,
    /// The readable versions of the named object, newest first
    #[arg(long, requires = "prefix", conflicts_with_all = ["removed", "any"])]
    versions: bool,
    /// Removed objects too
    #[arg(long)]
    removed: bool,
    /// What the reachable nodes know, without a quorum
    #[arg(long)]
    any: bool,
}

/// Prints the listing.
///
/// # Errors
/// No node; with `--versions`, no such object.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    if args.versions {
        check_names(std::slice::from_ref(&args.prefix))?;
        let versions = context.vault().await?.versions(&args.prefix).await?;
        print(&versions, context)?;
        return Ok(Exit::Done);
    }
    let listing = context.vault().await?.list(&args.prefix, args.removed, args.any).await?;
    print(&listing.objects, context)?;
    for finding in &listing.findings {
        context.output.warn(finding);
    }
    if listing.objects.is_empty() && !listing.incomplete {
        context.output.talk(match args.prefix.is_empty() {
            true => "Nothing is stored yet: `tintype put photo.png`",
            false => "No name begins so.",
        });
    }
    if listing.incomplete {
        context
            .output
            .warn("The listing is incomplete: not every node that knows names answered (`tintype status`).");
    }
    Ok(if listing.incomplete || !listing.findings.is_empty() { Exit::Findings } else { Exit::Done })
}

fn print(objects: &[ObjectInfo], context: &Context) -> Result<(), Halt> {
    if context.output.json() {
        for object in objects {
            context.output.object(object)?;
        }
        return Ok(());
    }
    let now = now_unix_ms();
    let rows: Vec<Vec<String>> = objects.iter().map(|object| row(object, now)).collect();
    if !rows.is_empty() {
        context.output.lines(text::table(&["name", "version", "size", "type", "put"], &rows))?;
    }
    Ok(())
}

fn row(object: &ObjectInfo, now_unix_ms: u64) -> Vec<String> {
    let removed = if object.removed { "  removed" } else { "" };
    vec![
        object.name.clone(),
        object.version.to_string(),
        text::size(object.bytes),
        object.media_type.clone(),
        format!("{}{removed}", text::ago(object.unix_ms, now_unix_ms)),
    ]
}
