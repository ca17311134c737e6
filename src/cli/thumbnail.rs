//! `tintype thumbnail`: a small picture of a picture.

use std::path::PathBuf;

use super::{context::Context, problem::Outcome, reworked, storing, work};
use crate::{model::limits, work::Order};

/// As the parser wants it.
const EDGE_PX_MAX: i64 = limits::TASK_EDGE_PX_MAX as i64;

/// `thumbnail`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The picture; `-` is standard input
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// The longest edge in pixels, 1 to 8192; a smaller picture keeps its size
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=EDGE_PX_MAX))]
    edge: u32,
    /// The file to write; `-` is standard output [default: NAME.thumb.jpg, or .png, beside the picture]
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

/// Makes it and writes it.
///
/// # Errors
/// Not a picture; a different file.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    let order = Order::Thumbnail { edge_px: args.edge, frames: args.work.frames() };
    let files = reworked::Files {
        image: &args.image,
        output: args.output.as_deref(),
        force: args.force,
        storing: &args.storing,
        infix: "thumb",
    };
    reworked::run(files, order, &args.work, context).await
}
