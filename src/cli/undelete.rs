//! `tintype undelete`: brings back what `rm` hid.

pub use super::each::Args;
use super::{context::Context, each::each, problem::Outcome, rm::tell};
use crate::api::Vault;

/// Brings each object back.
///
/// # Errors
/// No vault; names that cannot be. Single objects are told one by one.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    let ask = async |vault: &Vault, name: &str| vault.undelete(name).await;
    let tell = |name: &str, written| tell(context, name, &written, false, "is back");
    each(args, context, "brought back", ask, tell).await
}
