//! `tintype down`: stops the node of this home.

use super::{context::Context, problem::Outcome};
use crate::api::{self, Exit};

/// `down`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Asks the node to stop and waits until it has let go of the home.
///
/// # Errors
/// None runs here, or it did not stop in time.
pub async fn run(_: &Args, context: &Context) -> Outcome {
    api::stop_node(context.home.root()).await?;
    context
        .output
        .answer(&serde_json::json!({ "stopped": true }), || "The node of this home has stopped".into())?;
    Ok(Exit::Done)
}
