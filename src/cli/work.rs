//! How an order is carried out, and what is said when it was not: for every command that works on a picture.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{context::Context, problem::Halt, progress::Spinner};
use crate::{
    api::{Exit, MORE_TIME, Problem, Work},
    model::limits,
    work::{self, Frames, Order, WorkError, answer, envelope::envelope},
};

/// Flags of every command that works on a picture.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Do the work in this process, without a node
    #[arg(long)]
    local: bool,
    /// Give up after so long, with exit code 5, whatever it waits for [default: never]
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

    /// The time begins now.
    pub fn limit(&self) -> Limit {
        Limit { began: Instant::now(), span: self.timeout.map(|s| Duration::from_secs(u64::from(s))) }
    }
}

/// How long a command may take in all: the input may come slowly, too.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    began: Instant,
    /// None = for ever.
    span: Option<Duration>,
}

impl Limit {
    /// What is left of it.
    fn left(&self) -> Option<Duration> {
        self.span.map(|span| span.saturating_sub(self.began.elapsed()))
    }

    /// Waits for this, and no longer than that; `what` is what it waits for then.
    ///
    /// # Errors
    /// The time has run out.
    pub async fn hold<T>(
        &self,
        whose: &str,
        what: &str,
        waited_for: impl Future<Output = T>,
    ) -> Result<T, Problem> {
        let (Some(left), Some(span)) = (self.left(), self.span) else { return Ok(waited_for.await) };
        tokio::time::timeout(left, waited_for).await.map_err(|_| too_slow(whose, span, what))
    }
}

/// What is to be done with which picture.
pub struct Job<'a> {
    /// What is to be done.
    pub order: Order,
    /// With which picture.
    pub picture: Arc<Vec<u8>>,
    /// What a person calls it.
    pub whose: &'a str,
    /// A vault is needed for something else, too.
    pub needs_vault: bool,
}

/// Carries out an order: in this process, or by a node.
///
/// # Errors
/// What keeps it from being done, with the picture's name.
pub async fn carry_out(args: &Args, limit: &Limit, context: &Context, job: Job<'_>) -> Result<Vec<u8>, Halt> {
    if !args.local {
        return by_a_node(context, job, limit).await;
    }
    let Job { order, picture, whose, .. } = job;
    let working = blocking(move || work::run(&order, &picture));
    let worked = limit.hold(whose, "this process works on it", working).await?;
    Ok(worked?.map_err(|error| problem(whose, &error))?)
}

async fn by_a_node(context: &Context, job: Job<'_>, limit: &Limit) -> Result<Vec<u8>, Halt> {
    let Job { order, picture, whose, needs_vault } = job;
    let kind = order.kind();
    let payload = blocking(move || Arc::new(envelope(&order, &picture))).await?;
    if payload.len() as u64 > limits::TASK_PAYLOAD_BYTES_MAX {
        let error = WorkError::EnvelopeTooLarge { bytes: payload.len() as u64 };
        return Err(problem(whose, &error).into());
    }
    let vault = context.vault().await.map_err(|halt| match halt {
        Halt::Problem(problem) => or_here(problem, needs_vault).into(),
        other => other,
    })?;
    let spinner = Spinner::new(&context.output, whose);
    let work = Work { kind, payload, timeout: limit.span, waited: limit.began.elapsed() };
    let worked = vault.work(&work, &|waiting| spinner.say(waiting)).await;
    drop(spinner);
    let worked = worked.map_err(|problem| {
        let named = Problem { error: format!("{whose}: {}", problem.error), ..problem };
        // What nodes have refused or ended is told as it is; where they are missing or slow, none is needed.
        if named.exit == Exit::NoQuorum { or_here(named, needs_vault) } else { named }
    })?;
    Ok(worked.map_err(|sentence| refused(whose, &sentence))?)
}

/// Who has no node can do it all the same, if nothing else wants one and the command makes sense.
fn or_here(problem: Problem, needs_vault: bool) -> Problem {
    if needs_vault || problem.exit == Exit::Usage {
        return problem;
    }
    let remedy = format!("{}; or do it here, without a node, with --local", problem.remedy);
    Problem { remedy, ..problem }
}

/// What only a worker says: anything else that it says is of the picture, and is said here, too.
const OF_WORKERS: [&str; 3] =
    ["the task is not understood here", answer::WORKER_FAILED, answer::TOO_LARGE_TO_SEND];

/// A worker's sentence why there is no new picture.
fn refused(whose: &str, sentence: &str) -> Problem {
    let remedy = match OF_WORKERS.iter().any(|own| sentence.contains(own)) {
        true => "do it here, without a node, with --local",
        false => "give a whole copy of the picture, or another one",
    };
    Problem::failed(format!("{whose}: {sentence}"), remedy)
}

fn too_slow(whose: &str, limit: Duration, what: &str) -> Problem {
    Problem {
        error: format!("{whose}: it was not done within {} s: {what}", limit.as_secs()),
        remedy: MORE_TIME.into(),
        exit: Exit::NoQuorum,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_is_named_only_where_it_helps() {
        let of_worker = WorkError::Envelope("version 2".into()).to_string();
        assert!(refused("a.png", &of_worker).remedy.contains("--local"));
        let of_picture = [
            WorkError::NotAPicture,
            WorkError::TooMuchMemory,
            WorkError::ReadBack,
            WorkError::Animated { format: "GIF" },
            WorkError::Damaged { format: "PNG", reason: "unexpected end of file".into() },
            WorkError::Unsupported { format: "TIFF", reason: "CMYK".into() },
        ];
        for error in of_picture {
            let refused = refused("a.png", &error.to_string());
            assert!(!refused.remedy.contains("--local"), "{refused:?}");
            assert!(!problem("a.png", &error).remedy.contains("--local"), "{error}");
        }
        let no_node = || Problem { error: "e".into(), remedy: "start one".into(), exit: Exit::NoQuorum };
        assert!(or_here(no_node(), false).remedy.ends_with("--local"));
        assert_eq!(or_here(no_node(), true), no_node(), "what is to be stored needs nodes");
        // Time that has run out is told apart from a bad picture, here and there.
        for has_a_worker in [true, false] {
            let waited_for = "no node answers".to_owned();
            let late = crate::client::Error::TimedOut { limit_ms: 3000, waited_for, has_a_worker };
            let late = Problem::from(late);
            assert_eq!(
                (late.exit, late.error.as_str()),
                (Exit::NoQuorum, "it was not done within 3 s: no node answers")
            );
        }
        assert_eq!(too_slow("a.png", Duration::from_secs(3), "it comes").exit, Exit::NoQuorum);
        let typo = Problem { exit: Exit::Usage, ..no_node() };
        assert_eq!(or_here(typo.clone(), false), typo);
    }
}
