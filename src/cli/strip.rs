//! `tintype strip`: a picture without metadata, its pixels untouched.

use std::path::PathBuf;

use super::{context::Context, problem::Outcome, reworked, storing, work};
use crate::work::Order;

/// `strip`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The picture; `-` is standard input
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// The file to write; `-` is standard output [default: NAME.stripped.EXT beside the picture]
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    /// Whether it is stored.
    #[command(flatten)]
    storing: storing::Args,
    /// How the work is done.
    #[command(flatten)]
    work: work::Args,
}

/// Strips it and writes it.
///
/// # Errors
/// Not a picture; a format that is not taken apart; a different file.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    let files = reworked::Files {
        image: &args.image,
        output: args.output.as_deref(),
        force: args.force,
        storing: &args.storing,
        infix: "stripped",
    };
    reworked::run(files, Order::Strip, &args.work, context).await
}
