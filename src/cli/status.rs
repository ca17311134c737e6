//! `tintype status`: one sentence first: healthy or not, how many nodes, which may be lost now. And bare
//! `tintype`: the same if a node runs here, else the next three steps.

use serde::Serialize;

use super::{context::Context, nodes, output::Output, problem::Halt, problem::Outcome, text};
use crate::{
    api::{Exit, Status},
    model::rpc::{NodeState, StatusInfo},
};

/// `status`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {}

/// The promised names; unknown is null.
#[derive(Serialize)]
struct Answer<'a> {
    healthy: bool,
    nodes_alive: u64,
    nodes_total: u64,
    can_lose: Option<u64>,
    coordinator: Option<String>,
    leader: Option<String>,
    term: Option<u64>,
    epoch: Option<u64>,
    under_repair: Option<u64>,
    clients: u64,
    refused: u64,
    foreign: &'a [String],
}

/// Prints how the vault is.
///
/// # Errors
/// No node.
pub async fn run(_: &Args, context: &Context) -> Outcome {
    let status = context.vault().await?.status().await?;
    print(&status, &context.output)?;
    Ok(Exit::Done)
}

/// Status if a node runs here, else what to do next.
///
/// # Errors
/// As stdout says.
pub async fn bare(context: &Context) -> Outcome {
    // A node that was killed leaves its address behind, so the address alone proves nothing.
    if context.home.node_addr()?.is_some()
        && let Ok(vault) = context.vault().await
        && let Ok(status) = vault.status().await
    {
        print(&status, &context.output)?;
        return Ok(Exit::Done);
    }
    let home = context.home.root().display().to_string();
    if context.output.json() {
        context
            .output
            .object(&serde_json::json!({ "running": false, "home": home, "next": NEXT_COMMANDS }))?;
    } else {
        context.output.lines(next_steps(&home))?;
    }
    Ok(Exit::Done)
}

/// With so many nodes each knows every object.
const COPIES: u64 = 3;

const NEXT_COMMANDS: [&str; 3] = ["tintype up", "tintype put photo.png", "tintype get photo.png"];

fn next_steps(home: &str) -> Vec<String> {
    let [up, put, get] = NEXT_COMMANDS;
    vec![
        format!("No node runs in {home}. The next three steps:"),
        format!("  1. {up:<24}start a node, in this terminal"),
        format!("  2. {put:<24}store a picture, in a second terminal"),
        format!("  3. {get:<24}fetch it, here or from another machine of the vault"),
        "To see what a vault withstands first, on this machine alone: tintype demo".into(),
        "All commands: tintype --help".into(),
    ]
}

fn print(status: &Status, output: &Output) -> Result<(), Halt> {
    if output.json() {
        return Ok(output.object(&answer(status))?);
    }
    output.line(&sentence(status))?;
    let info = &status.info;
    if !info.nodes.is_empty() {
        output.line("")?;
        output.lines(nodes::table(&info.nodes))?;
        output.line("")?;
    }
    if let Some(sentence) = coordinator(info) {
        output.line(&sentence)?;
    }
    let repair = info.under_repair.map_or_else(|| "unknown".into(), |number| number.to_string());
    let epoch = if info.epoch == 0 { "none yet".into() } else { info.epoch.to_string() };
    output.line(&format!(
        "epoch {epoch}, under repair {repair}, {}, {} refused, answered by {} {}",
        text::count(info.clients, "client", "clients"),
        info.refused,
        info.peer,
        info.software
    ))?;
    let remarks = info.warnings.iter().chain(&info.foreign);
    Ok(output.lines(remarks.map(|sentence| format!("! {sentence}")))?)
}

fn answer(status: &Status) -> Answer<'_> {
    let info = &status.info;
    Answer {
        healthy: status.healthy,
        nodes_alive: status.nodes_alive,
        nodes_total: status.nodes_total,
        can_lose: status.can_lose,
        coordinator: info.coordinator.map(|peer| peer.to_string()),
        leader: None,
        term: None,
        epoch: Some(info.epoch).filter(|epoch| *epoch > 0),
        under_repair: info.under_repair,
        clients: info.clients,
        refused: info.refused,
        foreign: &info.foreign,
    }
}

/// Who hands out work, and why that one.
fn coordinator(info: &StatusInfo) -> Option<String> {
    info.founding?;
    let Some(peer) = info.coordinator else {
        let alive = info.nodes.iter().filter(|node| node.state == NodeState::Alive).count();
        let text = match 2 * alive > info.nodes.len() {
            true => "Nobody hands out work just now: an election takes a second.",
            false => "Nobody hands out work: more than half of the nodes have to be there for that.",
        };
        return Some(text.into());
    };
    let who = info.nodes.iter().find(|node| node.peer == peer).map_or("unknown", name);
    let why =
        if info.coordinator_why.is_empty() { String::new() } else { format!(": {}", info.coordinator_why) };
    Some(format!("{who} hands out work{why}"))
}

/// Healthy or not, how many nodes, which may be lost now.
fn sentence(status: &Status) -> String {
    let Status { info, healthy, nodes_alive, nodes_total, can_lose } = status;
    if !info.waiting.is_empty() {
        return format!("Not serving yet: {}.", info.waiting.trim_end_matches('.'));
    }
    let silent: Vec<&str> =
        info.nodes.iter().filter(|node| node.state != NodeState::Alive).map(name).collect();
    let silent = if silent.is_empty() { String::new() } else { format!(" (silent: {})", silent.join(", ")) };
    let nodes = text::count(*nodes_total, "node", "nodes");
    if let Some(needed) = needed(*nodes_alive, *nodes_total) {
        let answer = if *nodes_alive == 1 { "answers" } else { "answer" };
        return format!("Not healthy: {nodes_alive} of {nodes} {answer}{silent}, {needed}.");
    }
    let verdict = if *healthy { "Healthy" } else { "Not healthy" };
    let answer = if *nodes_total == 1 { "answers" } else { "answer" };
    let single = info.single_copy_objects.unwrap_or(0);
    let lose = match (can_lose, nodes_total) {
        (None, _) => "how many machines may be lost now is not known yet".into(),
        (Some(0), _) if *healthy && *nodes_total > 1 && single > 0 => single_copy(single, *nodes_total),
        (Some(0), 1) => "every picture is on this machine alone, so it must not be lost".into(),
        (Some(0), _) => "no further machine may be lost now".into(),
        (Some(1), _) => "any one machine may be lost now without losing a picture".into(),
        (Some(number), _) => format!("any {number} machines may be lost now without losing a picture"),
    };
    format!("{verdict}: {nodes_alive} of {nodes} {answer}{silent}; {lose}.")
}

/// What is needed where fewer than a majority are alive; none where that is not so.
fn needed(alive: u64, total: u64) -> Option<String> {
    let majority = total / 2 + 1;
    match total {
        _ if alive >= majority => None,
        // Each decides about its half of the pictures alone.
        2 => Some("both are needed to read and to store every picture: start the other".into()),
        0..=COPIES => Some(format!("{majority} are needed to read and to store: start more of them")),
        // Which ones is another question.
        _ => Some(format!("at least {majority} are needed to read and to store: start more of them")),
    }
}

/// What the owner's own wish costs: each of these objects is lost with one machine.
fn single_copy(objects: u64, nodes: u64) -> String {
    // Of more nodes than copies, no single one knows of every object.
    let least = if nodes > COPIES { "at least " } else { "" };
    let were = if objects == 1 { "was" } else { "were" };
    format!(
        "but {least}{} {were} stored with one copy on purpose, so the loss of one machine may lose a picture: \
         `tintype put --copies 3` of the same file makes more copies",
        text::count(objects, "object", "objects")
    )
}

fn name(node: &crate::model::rpc::NodeInfo) -> &str {
    if node.name.is_empty() { "one whose name is not known" } else { &node.name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PeerId, ProcessId, rpc::NodeInfo, rpc::StatusInfo};

    fn node(name: &str, state: NodeState) -> NodeInfo {
        NodeInfo {
            peer: PeerId::random(),
            name: name.into(),
            addrs: vec![],
            state,
            load_centi: None,
            capacity_bytes: None,
            used_bytes: None,
            role: "member".into(),
            tasks: None,
            slots: None,
            counters: None,
        }
    }

    fn status(nodes: Vec<NodeInfo>, can_lose: Option<u64>) -> Status {
        let alive = nodes.iter().filter(|n| n.state == NodeState::Alive).count() as u64;
        Status {
            healthy: alive == nodes.len() as u64,
            nodes_alive: alive,
            nodes_total: nodes.len() as u64,
            can_lose,
            info: StatusInfo {
                peer: PeerId::random(),
                software: "0.1.0".into(),
                process: ProcessId::ZERO,
                boot: 1,
                founding: None,
                waiting: String::new(),
                nodes,
                epoch: 1,
                under_repair: None,
                clients: 2,
                refused: 3,
                foreign: vec!["a stranger".into()],
                warnings: vec![],
                clock_unix_ms: 0,
                single_copy_objects: Some(0),
                coordinator: None,
                coordinator_why: String::new(),
            },
        }
    }

    #[test]
    fn the_first_sentence_says_health_number_and_what_may_be_lost() {
        let three = || {
            vec![
                node("desk", NodeState::Alive),
                node("attic", NodeState::Alive),
                node("nas", NodeState::Alive),
            ]
        };
        assert_eq!(
            sentence(&status(three(), Some(1))),
            "Healthy: 3 of 3 nodes answer; any one machine may be lost now without losing a picture."
        );
        let mut nodes = three();
        nodes[1].state = NodeState::Dead;
        assert_eq!(
            sentence(&status(nodes, Some(0))),
            "Not healthy: 2 of 3 nodes answer (silent: attic); no further machine may be lost now."
        );
        let mut nodes = three();
        (nodes[1].state, nodes[2].state) = (NodeState::Dead, NodeState::Unknown);
        assert_eq!(
            sentence(&status(nodes, Some(0))),
            "Not healthy: 1 of 3 nodes answers (silent: attic, nas), 2 are needed to read and to store: start \
             more of them."
        );
        assert_eq!(
            sentence(&status(vec![node("desk", NodeState::Alive), node("nas", NodeState::Dead)], Some(0))),
            "Not healthy: 1 of 2 nodes answers (silent: nas), both are needed to read and to store every \
             picture: start the other."
        );
        assert_eq!(
            sentence(&status(vec![node("desk", NodeState::Alive)], Some(0))),
            "Healthy: 1 of 1 node answers; every picture is on this machine alone, so it must not be lost."
        );
        let mut single = status(three(), Some(0));
        single.info.single_copy_objects = Some(2);
        let said = sentence(&single);
        assert!(
            said.starts_with("Healthy: 3 of 3 nodes answer; but 2 objects were stored with one"),
            "{said}"
        );
        let mut waiting = status(vec![], None);
        waiting.info.waiting = "it waits for 2 more machines".into();
        assert_eq!(sentence(&waiting), "Not serving yet: it waits for 2 more machines.");
    }

    #[test]
    fn json_has_the_promised_names_and_null_for_the_unknown() {
        let status = status(vec![node("desk", NodeState::Alive)], None);
        let json = serde_json::to_value(answer(&status)).expect("JSON");
        let names: Vec<&str> = json.as_object().expect("an object").keys().map(String::as_str).collect();
        let mut promised = [
            "healthy",
            "nodes_alive",
            "nodes_total",
            "can_lose",
            "coordinator",
            "leader",
            "term",
            "epoch",
            "under_repair",
            "clients",
            "refused",
            "foreign",
        ];
        promised.sort_unstable();
        assert_eq!(names, promised);
        for unknown in ["can_lose", "coordinator", "leader", "term", "under_repair"] {
            assert!(json[unknown].is_null(), "{unknown}");
        }
        assert_eq!((&json["epoch"], &json["refused"]), (&1.into(), &3.into()));
    }
}
