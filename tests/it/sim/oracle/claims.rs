//! **A claim never goes back**: what a node claims is greater than all that it claimed before, in this life
//! and in earlier ones. And when all is calm, one is in office and all follow it.

use std::collections::BTreeMap;

use tintype::model::task::Claim;

use super::Checked;

/// What a node believes: who is in office, and whether that is itself.
#[derive(Clone, Copy, Debug)]
pub struct Belief {
    pub node: usize,
    pub claim: Option<Claim>,
    pub is_own: bool,
}

#[derive(Default)]
pub struct Claims {
    /// The last of each node, and its life then.
    last: BTreeMap<usize, (Claim, u64)>,
}

impl Claims {
    /// A node is in office by this claim.
    pub fn claimed(&mut self, node: usize, life: u64, claim: Claim) -> Checked {
        if usize::from(claim.node.0) != node {
            return Err(format!("node {node} is in office by another's {claim:?}"));
        }
        let before = self.last.insert(node, (claim, life));
        match before {
            Some((last, of)) if claim < last || (claim == last && of != life) => {
                Err(format!("node {node} claims {claim:?} in life {life}, after {last:?} in life {of}"))
            }
            _ => Ok(()),
        }
    }

    /// What all believe who live, when nothing has broken for a while.
    pub fn calm(beliefs: &[Belief]) -> Checked {
        let holders: Vec<&Belief> = beliefs.iter().filter(|belief| belief.is_own).collect();
        let [holder] = holders[..] else {
            return Err(format!("{} are in office: {beliefs:?}", holders.len()));
        };
        match beliefs.iter().find(|belief| belief.claim != holder.claim) {
            Some(Belief { node, claim, .. }) => {
                Err(format!("node {node} follows {claim:?}, not {:?} of node {}", holder.claim, holder.node))
            }
            None => Ok(()),
        }
    }
}
