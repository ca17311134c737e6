//! `tintype demo`: three real nodes, generated pictures, a killed node, every byte read back, and the report.
//!
//! All on this machine. It ends with exit code 0 only if every promise held. It tidies up after itself, also
//! when it is interrupted, unless `--keep`.

mod load;
pub mod nodes;
pub mod pictures;
pub mod place;
mod report;
mod story;

use std::path::PathBuf;

use super::{context::Context, problem::Outcome};
use crate::api::{Exit, Problem};

/// `demo`. With `--node` the same load runs on a cluster that is up, and nothing is killed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pictures to generate, 7 to 37 MB each
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = images())]
    pub images: u64,
    /// What the pictures are made from; the same number makes the same bytes [default: a new one, printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Where the homes of the three nodes go; not on a memory disk [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the homes where they are when it is done
    #[arg(long)]
    pub keep: bool,
}

fn images() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=10_000)
}

/// Runs the demo.
///
/// # Errors
/// What keeps it from running; promises that did not hold are an exit code.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    let connect = context.connect();
    let options = story::Options {
        images: args.images,
        // Small enough to be typed again.
        seed: args.seed.unwrap_or_else(|| rand::random_range(1..1_000_000)),
        dir: args.dir.clone(),
        keep: args.keep,
        connect,
    };
    let say = |sentence: &str| context.output.talk(sentence);
    let story = story::run(&options, &say);
    let report = tokio::select! {
        report = story => report,
        _ = super::signals::interrupted() => return Ok(Exit::Interrupted),
    };
    let report = report.map_err(|error| match error.downcast::<Problem>() {
        Ok(problem) => problem,
        Err(error) => Problem::failed(format!("{error:#}"), "see `tintype demo --help`"),
    })?;
    context.output.answer(&report, || report.text())?;
    Ok(if report.held() { Exit::Done } else { Exit::Failed })
}
