//! `tintype election`: who coordinates, why, and the last elections with the load of each candidate.

use serde::Serialize;

use super::{context::Context, problem::Outcome, text};
use crate::{
    api::Exit,
    model::{
        PeerId,
        rpc::{ElectionInfo, NodeInfo},
    },
};

/// `election`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {}

/// The names are a promise of `--json`.
#[derive(Serialize)]
struct Answer<'a> {
    unix_ms: Option<u64>,
    claim: u64,
    coordinator: String,
    name: Option<&'a str>,
    why: &'a str,
    scores: Vec<Score<'a>>,
}

#[derive(Serialize)]
struct Score<'a> {
    peer: String,
    name: Option<&'a str>,
    load: f64,
}

/// Prints the elections, the oldest first.
///
/// # Errors
/// No node.
pub async fn run(_: &Args, context: &Context) -> Outcome {
    let vault = context.vault().await?;
    let elections = vault.elections().await?;
    let nodes = vault.status().await?.info.nodes;
    if context.output.json() {
        for election in &elections {
            context.output.object(&answer(election, &nodes))?;
        }
        return Ok(Exit::Done);
    }
    if elections.is_empty() {
        context.output.talk("No election is known: more than half of the nodes have to be there for one.");
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = elections.iter().map(|election| row(election, &nodes)).collect();
    context.output.lines(text::table(&["when", "coordinator", "loads", "why"], &rows))?;
    Ok(Exit::Done)
}

fn row(election: &ElectionInfo, nodes: &[NodeInfo]) -> Vec<String> {
    let answer = answer(election, nodes);
    let shown = |score: &Score<'_>| format!("{} {:.1}", score.name.unwrap_or("unknown"), score.load);
    let loads: Vec<String> = answer.scores.iter().map(shown).collect();
    vec![
        answer.unix_ms.map_or_else(|| "unknown".into(), text::moment),
        answer.name.unwrap_or("unknown").to_owned(),
        if loads.is_empty() { "-".into() } else { loads.join(", ") },
        answer.why.to_owned(),
    ]
}

fn answer<'a>(election: &'a ElectionInfo, nodes: &'a [NodeInfo]) -> Answer<'a> {
    let name = |peer: &PeerId| {
        let node = nodes.iter().find(|node| node.peer == *peer);
        node.map(|node| node.name.as_str()).filter(|name| !name.is_empty())
    };
    let score = |(peer, load_centi): &(PeerId, u64)| Score {
        peer: peer.to_string(),
        name: name(peer),
        load: *load_centi as f64 / 100.0,
    };
    Answer {
        unix_ms: Some(election.unix_ms).filter(|at| *at > 0),
        claim: election.counter,
        coordinator: election.coordinator.to_string(),
        name: name(&election.coordinator),
        why: &election.why,
        scores: election.scores.iter().map(score).collect(),
    }
}
