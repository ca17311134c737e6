//! `tintype where`: each copy's node, and when it was last verified.

pub use super::each::Args;
use super::{
    context::{Context, now_unix_ms},
    each::each,
    problem::{Halt, Outcome},
    text,
};
use crate::api::{Copy, Vault, Where};

/// Prints where each object lies.
///
/// # Errors
/// No vault; names that cannot be. Single objects are told one by one.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    let ask = async |vault: &Vault, name: &str| vault.where_is(name).await;
    each(args, context, "found", ask, |_, found| print(&found, context)).await
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
