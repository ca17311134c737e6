//! `tintype nodes`: every node, one a line.

use serde::Serialize;

use super::{context::Context, problem::Outcome, text};
use crate::{
    api::Exit,
    model::rpc::{NodeInfo, NodeState},
};

/// `nodes`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {}

/// The promised names.
#[derive(Serialize)]
struct Answer<'a> {
    peer: String,
    name: Option<&'a str>,
    addr: Option<&'a str>,
    state: &'static str,
    load: Option<f64>,
    capacity: Option<u64>,
    used: Option<u64>,
    role: &'a str,
    tasks: Option<u64>,
    slots: Option<u64>,
}

/// Prints every node.
///
/// # Errors
/// No node.
pub async fn run(_: &Args, context: &Context) -> Outcome {
    let nodes = context.vault().await?.nodes().await?;
    if context.output.json() {
        for node in &nodes {
            context.output.object(&answer(node))?;
        }
    } else {
        context.output.lines(table(&nodes))?;
    }
    Ok(Exit::Done)
}

/// The nodes as a table.
pub(super) fn table(nodes: &[NodeInfo]) -> Vec<String> {
    let rows: Vec<Vec<String>> = nodes.iter().map(row).collect();
    let head = ["name", "state", "role", "load", "tasks", "used", "capacity", "address", "peer"];
    text::table(&head, &rows)
}

fn row(node: &NodeInfo) -> Vec<String> {
    let unknown = || "unknown".to_owned();
    let not_told = || "-".to_owned();
    let Answer { load, capacity, used, addr, tasks, slots, .. } = answer(node);
    vec![
        if node.name.is_empty() { unknown() } else { node.name.clone() },
        state(node.state).to_owned(),
        node.role.clone(),
        load.map_or_else(not_told, |load| format!("{load:.1}")),
        tasks.zip(slots).map_or_else(not_told, |(tasks, slots)| format!("{tasks} of {slots}")),
        used.map_or_else(not_told, text::size),
        capacity.map_or_else(not_told, text::size),
        addr.map_or_else(unknown, str::to_owned),
        node.peer.to_string(),
    ]
}

fn answer(node: &NodeInfo) -> Answer<'_> {
    Answer {
        peer: node.peer.to_string(),
        name: Some(node.name.as_str()).filter(|name| !name.is_empty()),
        addr: node.addrs.first().map(String::as_str),
        state: state(node.state),
        load: node.load_centi.map(|centi| centi as f64 / 100.0),
        capacity: node.capacity_bytes,
        used: node.used_bytes,
        role: &node.role,
        tasks: node.tasks,
        slots: node.slots,
    }
}

/// A state in one word.
pub(super) fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Alive => "alive",
        NodeState::Suspect => "suspect",
        NodeState::Dead => "dead",
        NodeState::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PeerId;

    #[test]
    fn json_has_the_promised_names_and_null_for_the_unknown() {
        let node = NodeInfo {
            peer: PeerId::random(),
            name: String::new(),
            addrs: vec![],
            state: NodeState::Dead,
            load_centi: Some(4300),
            capacity_bytes: None,
            used_bytes: Some(7),
            role: "member".into(),
            tasks: Some(1),
            slots: None,
            counters: None,
        };
        let json = serde_json::to_value(answer(&node)).expect("JSON");
        let names: Vec<&str> = json.as_object().expect("an object").keys().map(String::as_str).collect();
        let mut promised =
            ["peer", "name", "addr", "state", "load", "capacity", "used", "role", "tasks", "slots"];
        promised.sort_unstable();
        assert_eq!(names, promised);
        assert_eq!((&json["name"], &json["addr"], &json["capacity"]), (&().into(), &().into(), &().into()));
        assert_eq!((&json["load"], &json["state"]), (&43.0.into(), &"dead".into()));
        let unheard = NodeInfo { load_centi: None, used_bytes: None, ..node };
        let words: Vec<String> = row(&unheard);
        assert_eq!(words[..8], ["unknown", "dead", "member", "-", "-", "-", "-", "unknown"]);
    }
}
