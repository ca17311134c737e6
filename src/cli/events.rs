//! `tintype events`: what happened, one sentence each; `--follow` goes on as it happens.

use std::time::Duration;

use super::{context::Context, problem::Halt, problem::Outcome, text};
use crate::{
    api::{Exit, Vault},
    model::rpc::EventInfo,
};

/// How often a follower asks: soon enough for a person, cheap enough to be forgotten in a terminal.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// `events`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Go on until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
}

/// Prints the events.
///
/// # Errors
/// No node; with `--follow`, none any more.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    let vault = context.vault().await?;
    let mut last = news(vault, context, 0).await?;
    if !args.follow {
        return Ok(Exit::Done);
    }
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        last = news(vault, context, last).await?;
    }
}

/// Prints what came after `last`, and answers with the number of the last one.
async fn news(vault: &Vault, context: &Context, last: u64) -> Result<u64, Halt> {
    let events = vault.events(last).await?;
    for event in &events {
        print(event, context)?;
    }
    Ok(events.iter().map(|event| event.number).fold(last, u64::max))
}

fn print(event: &EventInfo, context: &Context) -> Result<(), Halt> {
    let object = serde_json::json!({ "number": event.number, "unix_ms": event.unix_ms, "text": event.text });
    Ok(context.output.answer(&object, || format!("{}  {}", text::moment(event.unix_ms), event.text))?)
}
