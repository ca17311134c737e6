//! **Everybody is seen as they are in the end**: once nothing breaks any more, every node takes every node
//! that runs for alive, and one that is gone for dead.

use tintype::model::rpc::NodeState;

use super::Checked;

/// What one node takes another for, and whether that is there.
pub fn settled(node: usize, other: usize, state: NodeState, is_there: bool) -> Checked {
    let is_right = match is_there {
        true => state == NodeState::Alive,
        // Never heard of is no worse: it went before anybody knew it.
        false => matches!(state, NodeState::Dead | NodeState::Unknown),
    };
    if is_right {
        return Ok(());
    }
    Err(format!("node {node} takes node {other} for {state:?}; is it there: {is_there}"))
}
