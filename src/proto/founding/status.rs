//! How the founding stands: as data for the node, as sentences for people.

use super::{Action, FoundingMachine, message::Standing};
use crate::{
    model::{FoundingId, Millis, PeerId, limits, member::Founding},
    proto::Outbox,
};

/// How the founding stands, for people and for the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// There is a cluster and this node is a member.
    Ready(Founding),
    /// Waiting; for what.
    Waiting(Waiting),
    /// There is a cluster with this key and this node is not in it.
    LeftOut {
        /// Which.
        id: FoundingId,
    },
}

/// What a node waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Looking whether somebody else has this cluster key.
    Looking,
    /// Not enough candidates yet.
    Candidates {
        /// Those known, this node among them.
        known: Vec<PeerId>,
        /// How many are wanted.
        expect: usize,
    },
    /// Enough candidates, another should propose.
    Proposer {
        /// Who.
        peer: PeerId,
    },
    /// This node proposed, and these have not voted.
    Votes {
        /// Who.
        missing: Vec<PeerId>,
    },
    /// This node voted, and its proposer has not said what became of it.
    Outcome {
        /// Whose proposal.
        proposer: PeerId,
        /// It has been silent for long: it may be gone for good.
        silent: bool,
    },
    /// With `--expect 1`, another fresh node with this key was met.
    MetFresh {
        /// Whom.
        peer: PeerId,
    },
    /// Another candidate wants another number of nodes.
    OtherExpect {
        /// Who.
        peer: PeerId,
        /// What it says.
        theirs: u64,
        /// What this node says.
        ours: usize,
    },
}

impl Status {
    /// The status as a sentence or two: what is, and what to do if there is something.
    pub fn sentence(&self) -> String {
        match self {
            Status::Ready(founding) => format!("The cluster is ready with {} nodes.", founding.members.len()),
            Status::LeftOut { .. } => {
                "There is a cluster with this key already and this node is not in it; it stays out. To start \
                 afresh with another cluster key, use another home."
                    .into()
            }
            Status::Waiting(waiting) => waiting.sentence(),
        }
    }
}

impl Waiting {
    fn sentence(&self) -> String {
        match self {
            Waiting::Looking => "Looking for other machines with this cluster key.".into(),
            Waiting::Candidates { known, expect } => {
                let missing = expect.saturating_sub(known.len());
                format!("Waiting for {missing} more of {expect} nodes; here so far: {}.", names(known))
            }
            Waiting::Proposer { peer } => format!("Waiting for {peer} to bring the founding to its end."),
            Waiting::Votes { missing } => format!("Waiting for the votes of {}.", names(missing)),
            Waiting::Outcome { proposer, silent: false } => {
                format!("Voted; waiting for {proposer} to complete the founding.")
            }
            Waiting::Outcome { proposer, silent: true } => format!(
                "Voted for the founding of {proposer}, which is silent. Start it again; if it is gone for \
                 good, remove `data/` here (nothing is stored yet) and start again."
            ),
            Waiting::MetFresh { peer } => format!(
                "{peer} is a fresh node with the same cluster key. Start both with --expect 2 to make them \
                 one cluster."
            ),
            Waiting::OtherExpect { peer, theirs, ours } => format!(
                "{peer} was started with --expect {theirs}, this node with --expect {ours}. Start all nodes \
                 with the same number."
            ),
        }
    }
}

fn names(peers: &[PeerId]) -> String {
    peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl FoundingMachine {
    /// Says how it stands if that changed.
    pub(super) fn publicise(&mut self, now: Millis, out: &mut Outbox<Action>) {
        if self.record.founding.is_some() && !self.ready {
            // It is on its way to disk: ready in a moment, and nobody is waited for.
            return;
        }
        let status = self.status_now(now);
        if self.status.as_ref() != Some(&status) {
            self.status = Some(status.clone());
            out.push(Action::Publicise(status));
        }
    }

    fn status_now(&self, now: Millis) -> Status {
        if let Some(founding) = self.founding() {
            return Status::Ready(founding.clone());
        }
        Status::Waiting(match (&self.record.vote, self.record.left_out) {
            (Some(_), _) if self.my_proposal().is_none() => self.waiting_for_outcome(now),
            (Some(vote), _) => Waiting::Votes { missing: self.missing(vote) },
            (None, Some(id)) => return Status::LeftOut { id },
            (None, None) => match self.hearsay(now) {
                Some(id) => return Status::LeftOut { id },
                None => self.waiting_while_pristine(now),
            },
        })
    }

    /// Another node was left out: there is a cluster, which this node has not met. Not worth remembering.
    fn hearsay(&self, now: Millis) -> Option<FoundingId> {
        self.fresh(now).find_map(|(_, heard)| match heard.standing {
            Standing::LeftOut { id } => Some(id),
            _ => None,
        })
    }

    fn waiting_for_outcome(&self, now: Millis) -> Waiting {
        let Some(proposer) = self.record.vote.as_ref().map(|vote| vote.members[0].peer) else {
            return Waiting::Looking;
        };
        let heard = self.peers.get(&proposer).and_then(|p| p.heard).map_or(self.voted_at, |h| h.at);
        let silent = now.since(heard.max(self.voted_at)) >= limits::FOUNDING_SILENCE;
        Waiting::Outcome { proposer, silent }
    }

    fn waiting_while_pristine(&self, now: Millis) -> Waiting {
        let ours = self.config.expect;
        let other = self.fresh(now).find(|(_, heard)| heard.expect != ours as u64);
        if let Some((peer, heard)) = other {
            return Waiting::OtherExpect { peer: *peer, theirs: heard.expect, ours };
        }
        if ours == 1 {
            return self
                .peers
                .keys()
                .next()
                .map_or(Waiting::Looking, |peer| Waiting::MetFresh { peer: *peer });
        }
        let voted = self.fresh(now).find_map(|(_, heard)| match heard.standing {
            Standing::Voted { proposer, .. } => Some(proposer),
            _ => None,
        });
        let candidates = self.candidates(now);
        match voted {
            Some(peer) => Waiting::Proposer { peer },
            None if candidates.len() >= ours => Waiting::Proposer { peer: candidates[0].peer },
            None => Waiting::Candidates { known: candidates.iter().map(|m| m.peer).collect(), expect: ours },
        }
    }
}
