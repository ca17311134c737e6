//! `tintype task ls | show | cancel` and `tintype history`: what every node knows of the tasks.
//!
//! It shows who works on what and how far it is; what a picture or a text is, no node knows after the task.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    context::Context,
    problem::{self, Halt, Outcome},
    text,
};
use crate::{
    api::{Exit, Problem, Vault},
    client::tasks::{FOLLOW_EVERY, named, short_name},
    model::{
        PeerId,
        rpc::NodeInfo,
        task::{Phase, TaskId, TaskRecord},
    },
};

/// `task`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// The tasks that have a worker and have not ended; one that waits for a free place has none yet
    Ls,
    /// One task
    Show(Which),
    /// End a task, whosever it is
    Cancel(Which),
}

#[derive(Clone, Debug, clap::Args)]
struct Which {
    /// As `task ls` shows it
    #[arg(value_name = "TASK")]
    task: String,
}

/// `history`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct HistoryArgs {
    /// Go on until Ctrl-C, a line for each change
    #[arg(short, long)]
    pub follow: bool,
}

/// The names are a promise of `--json`.
#[derive(Serialize)]
struct Answer<'a> {
    task: String,
    client: String,
    number: u64,
    kind: &'a str,
    phase: &'static str,
    worker: Option<String>,
    worker_name: Option<&'a str>,
    attempt: u64,
    claim: u64,
    bytes: u64,
}

/// Lists, shows or ends tasks.
///
/// # Errors
/// No node; no such task, or several.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    let vault = context.vault().await?;
    let workers = Workers::of(vault).await?;
    let records = vault.tasks().await?;
    match &args.what {
        What::Ls => {
            let open: Vec<&TaskRecord> = records.iter().filter(|r| !r.phase.is_closed()).collect();
            print(&open, &workers, context)?;
            if open.is_empty() {
                context.output.talk(
                    "No machine has a task in hand (one that still waits for a machine is not listed); \
                     `tintype history` shows those of the last minute.",
                );
            }
        }
        What::Show(which) => print(&[one(&records, which)?], &workers, context)?,
        What::Cancel(which) => {
            let record = one(&records, which)?;
            if record.phase.is_closed() {
                let error = format!("the task {} has ended: {}", which.task, phase(record.phase));
                return Err(Problem::failed(error, "`tintype task ls` lists those that have not").into());
            }
            vault.cancel_task(record.task).await?;
            let cancelled = TaskRecord { phase: Phase::Cancelled, ..record.clone() };
            let words = || format!("{}  cancelled", short_name(&record.task));
            context.output.answer(&answer(&cancelled, &workers), words)?;
        }
    }
    Ok(Exit::Done)
}

/// Prints every task that the nodes know.
///
/// # Errors
/// No node; with `--follow`, none any more.
pub async fn history(args: &HistoryArgs, context: &Context) -> Outcome {
    let vault = context.vault().await?;
    let workers = Workers::of(vault).await?;
    let mut known = BTreeMap::new();
    loop {
        let records = vault.tasks().await?;
        let news: Vec<&TaskRecord> =
            records.iter().filter(|record| known.get(&record.task) != Some(&record.precedence())).collect();
        print(&news, &workers, context)?;
        if !args.follow {
            if records.is_empty() {
                context.output.talk("No task is known: those that have ended are forgotten after a minute.");
            }
            return Ok(Exit::Done);
        }
        known = records.iter().map(|record| (record.task, record.precedence())).collect();
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}

/// The members by node number.
pub(super) struct Workers(Vec<(PeerId, String)>);

impl Workers {
    pub(super) async fn of(vault: &Vault) -> Result<Self, Problem> {
        let named = |node: &NodeInfo| (node.peer, node.name.clone());
        let mut nodes: Vec<(PeerId, String)> = vault.status().await?.info.nodes.iter().map(named).collect();
        nodes.sort_by_key(|(peer, _)| *peer);
        Ok(Self(nodes))
    }

    pub(super) fn of_record(&self, record: &TaskRecord) -> Option<&(PeerId, String)> {
        self.0.get(usize::from(record.worker.0))
    }
}

fn one<'a>(records: &'a [TaskRecord], which: &Which) -> Result<&'a TaskRecord, Halt> {
    let found = named(records, &which.task);
    match found.as_slice() {
        [record] => Ok(record),
        [] => Err(Problem {
            error: format!("no task {:?} is known", which.task),
            remedy: "`tintype history` lists those of the last minute".into(),
            exit: Exit::NotFound,
        }
        .into()),
        _ => {
            let full = found.iter().map(|record| full_name(&record.task)).collect::<Vec<_>>().join(" or ");
            Err(problem::usage(format!("{:?} names several tasks", which.task), format!("say {full}")).into())
        }
    }
}

fn full_name(task: &TaskId) -> String {
    format!("{}-{}", task.client, task.number)
}

fn print(records: &[&TaskRecord], workers: &Workers, context: &Context) -> Result<(), Halt> {
    if context.output.json() {
        for record in records {
            context.output.object(&answer(record, workers))?;
        }
        return Ok(());
    }
    let rows: Vec<Vec<String>> = records.iter().map(|record| row(record, workers)).collect();
    if !rows.is_empty() {
        context.output.lines(text::table(&["task", "kind", "phase", "worker", "attempt", "size"], &rows))?;
    }
    Ok(())
}

fn row(record: &TaskRecord, workers: &Workers) -> Vec<String> {
    let answer = answer(record, workers);
    vec![
        short_name(&record.task),
        record.kind.0.clone(),
        answer.phase.to_owned(),
        answer.worker_name.unwrap_or("unknown").to_owned(),
        record.rank.attempt.to_string(),
        text::size(record.payload_bytes),
    ]
}

fn answer<'a>(record: &'a TaskRecord, workers: &'a Workers) -> Answer<'a> {
    let worker = workers.of_record(record);
    Answer {
        task: short_name(&record.task),
        client: record.task.client.to_string(),
        number: record.task.number,
        kind: &record.kind.0,
        phase: phase(record.phase),
        worker: worker.map(|(peer, _)| peer.to_string()),
        worker_name: worker.map(|(_, name)| name.as_str()).filter(|name| !name.is_empty()),
        attempt: record.rank.attempt,
        claim: record.rank.claim.counter,
        bytes: record.payload_bytes,
    }
}

/// A phase in one word.
fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Assigned => "assigned",
        Phase::Started => "started",
        Phase::Finished => "finished",
        Phase::Lost => "lost",
        Phase::Abandoned => "abandoned",
        Phase::Cancelled => "cancelled",
        Phase::Acknowledged => "acknowledged",
    }
}
