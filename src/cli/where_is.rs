//! `tintype where`: each copy's node, and when it was last verified.

use super::{
    context::{Context, now_unix_ms},
    get::check_names,
    problem::{Halt, Outcome},
    put::Failures,
    text,
};
use crate::api::{Copy, Where};

/// `where`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Objects
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Prints where each object lies.
///
/// # Errors
/// No vault; names that cannot be. Single objects are told one by one.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    check_names(&args.names)?;
    let vault = context.vault().await?;
    let mut failures = Failures::new(&context.output, args.names.len() > 1);
    for name in &args.names {
        match vault.where_is(name).await {
            Ok(found) => print(&found, context)?,
            Err(problem) => failures.add(name, problem)?,
        }
    }
    failures.end("found")
}

fn print(found: &Where, context: &Context) -> Result<(), Halt> {
    if context.output.json() {
        return Ok(context.output.object(found)?);
    }
    context.output.line(&format!(
        "{}  version {}  {} everywhere",
        found.name,
        found.version,
        text::count(found.fewest_copies, "copy", "copies")
    ))?;
    let now = now_unix_ms();
    let rows: Vec<Vec<String>> = found.copies.iter().map(|copy| row(copy, now)).collect();
    Ok(context.output.lines(text::table(&["node", "has", "should have", "verified", "remarks"], &rows))?)
}

fn row(copy: &Copy, now_unix_ms: u64) -> Vec<String> {
    let remark = match copy {
        Copy { reachable: false, .. } => "does not answer".into(),
        Copy { bad, .. } if *bad > 0 => format!("{bad} bad: `tintype verify` mends"),
        Copy { bodies, placed, .. } if bodies < placed => "repair will bring the rest".into(),
        _ => String::new(),
    };
    let known = |number: u64| if copy.reachable { number.to_string() } else { "unknown".into() };
    let verified =
        copy.verified_unix_ms.map_or_else(|| "unknown".into(), |then| text::ago(then, now_unix_ms));
    vec![copy.node.clone(), known(copy.bodies), copy.placed.to_string(), verified, remark]
}
