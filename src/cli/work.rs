//! How an order is carried out, and what is said when it was not: for every command that works on a picture.

use std::{sync::Arc, time::Duration};

use super::{context::Context, problem::Halt, progress::Spinner};
use crate::{
    api::{Problem, Work},
    model::limits,
    work::{self, Frames, Order, WorkError, envelope::envelope},
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
    context: &Context,
    order: Order,
    picture: Arc<Vec<u8>>,
    whose: &str,
) -> Result<Vec<u8>, Halt> {
    let limit = args.timeout.map(|seconds| Duration::from_secs(u64::from(seconds)));
    if !args.local {
        return by_a_node(context, order, picture, whose, limit).await;
    }
    let working = blocking(move || work::run(&order, &picture));
    let worked = match limit {
        Some(limit) => tokio::time::timeout(limit, working).await.map_err(|_| too_slow(whose, limit))?,
        None => working.await,
    };
    Ok(worked?.map_err(|error| problem(whose, &error))?)
}

async fn by_a_node(
    context: &Context,
    order: Order,
    picture: Arc<Vec<u8>>,
    whose: &str,
    timeout: Option<Duration>,
) -> Result<Vec<u8>, Halt> {
    let kind = order.kind();
    let payload = blocking(move || Arc::new(envelope(&order, &picture))).await?;
    if payload.len() as u64 > limits::TASK_PAYLOAD_BYTES_MAX {
        let error = WorkError::EnvelopeTooLarge { bytes: payload.len() as u64 };
        return Err(problem(whose, &error).into());
    }
    let vault = context.vault().await.map_err(or_here)?;
    let spinner = Spinner::new(&context.output, whose);
    let worked = vault.work(&Work { kind, payload, timeout }, &|waiting| spinner.say(waiting)).await;
    drop(spinner);
    Ok(worked?.map_err(|sentence| {
        Problem::failed(format!("{whose}: {sentence}"), "look at the picture, or try it here with --local")
    })?)
}

/// Who has no node can do it all the same.
fn or_here(halt: Halt) -> Halt {
    match halt {
        Halt::Problem(problem) => {
            let remedy = format!("{}; or do it here, without a node, with --local", problem.remedy);
            Halt::Problem(Problem { remedy, ..problem })
        }
        other => other,
    }
}

fn too_slow(whose: &str, limit: Duration) -> Problem {
    let error = format!("{whose}: it was not done within {} s", limit.as_secs());
    Problem::failed(error, "give it more time with --timeout, or none to wait as long as it takes")
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
