//! `tintype rm`: hides objects behind a tombstone. Nothing is deleted; `undelete` brings them back.

use serde::Serialize;

pub use super::each::Args;
use super::{
    context::Context,
    each::each,
    problem::{Halt, Outcome},
};
use crate::api::{Vault, Written};

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
    let ask = async |vault: &Vault, name: &str| vault.rm(name).await;
    let words = "removed (`tintype undelete` brings it back)";
    each(args, context, "removed", ask, |name, written| tell(context, name, &written, true, words)).await
}

/// The answer of a removal or of one taken back.
pub(super) fn tell(
    context: &Context,
    name: &str,
    written: &Written,
    removed: bool,
    words: &str,
) -> Result<(), Halt> {
    let Written { version, warnings } = written;
    let answer = Answer { name, version: *version, removed };
    context.output.answer(&answer, || format!("{name}  version {version}  {words}"))?;
    warnings.iter().for_each(|warning| context.output.warn(warning));
    Ok(())
}
