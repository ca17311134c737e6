//! How an order is carried out, and what is said when it was not: for every command that works on a picture.

use std::{sync::Arc, time::Duration};

use super::context::Context;
use crate::{
    api::Problem,
    work::{self, Frames, Order, WorkError},
};

/// Flags of every command that works on a picture.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Do the work in this process, without a node
    #[arg(long)]
    local: bool,
    /// Give up after so long [default: never]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    timeout: Option<u32>,
    /// Of an animated picture take the first frame
    #[arg(long)]
    pub first_frame: bool,
}

impl Args {
    /// What to do about an animated picture.
    pub fn frames(&self) -> Frames {
        if self.first_frame { Frames::First } else { Frames::Single }
    }
}

/// Carries out an order: in this process, or by a node.
///
/// # Errors
/// What keeps it from being done, `whose` picture named.
pub async fn carry_out(
    args: &Args,
    _context: &Context,
    order: Order,
    picture: Arc<Vec<u8>>,
    whose: &str,
) -> Result<Vec<u8>, Problem> {
    let working = async {
        if args.local {
            return blocking(move || work::run(&order, &picture)).await?.map_err(|e| problem(whose, &e));
        }
        Err(Problem::failed(
            "handing work to a node is not there yet",
            "give --local: then it is done in this process, without a node",
        ))
    };
    let Some(seconds) = args.timeout else { return working.await };
    let limit = Duration::from_secs(u64::from(seconds));
    tokio::time::timeout(limit, working).await.unwrap_or_else(|_| {
        let error = format!("{whose}: it was not done within {seconds} s");
        Err(Problem::failed(error, "give it more time with --timeout, or none to wait as long as it takes"))
    })
}

/// Runs something slow where it holds up nobody.
///
/// # Errors
/// It did not come to an end.
pub async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(run)
        .await
        .map_err(|error| Problem::failed(format!("a task of this program failed: {error}"), "run it again"))
}

/// What keeps work on `whose` picture from being done.
pub fn problem(whose: &str, error: &WorkError) -> Problem {
    let remedy = match error {
        WorkError::NotAPicture | WorkError::Unsupported { .. } => "give a picture of one of these formats",
        WorkError::TooManyPixels { .. } | WorkError::TooMuchMemory => "give a smaller picture",
        WorkError::Animated { .. } => "give --first-frame to take its first frame alone",
        WorkError::Damaged { .. } => "give a whole copy of it",
        WorkError::TooLong(_) => {
            "give a larger picture, or less to hide; `tintype stego info IMAGE` says what fits"
        }
        WorkError::Edge { .. } => "give another --edge",
        WorkError::Strip { .. } => "make a PNG of it first; what `hide` writes has no metadata either",
        WorkError::ReadBack | WorkError::Encode(_) => "run it again; if it happens twice, please report it",
        WorkError::Envelope(_) => "use programs of one version, or --local",
        WorkError::EnvelopeTooLarge { .. } => "give a smaller picture, or --local",
    };
    Problem::failed(format!("{whose}: {error}"), remedy)
}
