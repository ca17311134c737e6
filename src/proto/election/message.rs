//! What members say to each other about the coordinator, and why somebody stands.

use serde::{Deserialize, Serialize};

use crate::model::{
    PeerId,
    codec::{self, CodecError},
    limits,
    member::{Epoch, NodeNumber},
    task::Claim,
};

const VERSION: u64 = 1;

/// What members say to each other; each is at most [`limits::ELECTION_MESSAGE_BYTES_MAX`] encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// "I stand"; a question, answered by [`Message::Alive`].
    Election {
        /// The candidate's membership.
        epoch: Epoch,
        /// What it claims with, if nobody answers with a greater one. The asked keep it in mind, so that a
        /// candidate that restarts hears of it.
        counter: u64,
        /// Its load in hundredths of a point.
        load_centi: u64,
        /// The greatest claim that it knows.
        known: Option<Claim>,
        /// Why it stands.
        reason: Reason,
    },
    /// The answer to it.
    Alive {
        /// The membership of who answers.
        epoch: Epoch,
        /// The counter of the question, which tells a late answer from one to the question in hand.
        asked: u64,
        /// The load of who answers, in hundredths of a point.
        load_centi: u64,
        /// A counter above which a new claim has to be.
        counter: u64,
        /// The greatest claim that it knows.
        known: Option<Claim>,
        /// What it says to the candidate.
        verdict: Verdict,
    },
    /// "I am in office"; from the claimant to everybody.
    Coordinator {
        /// Its claim.
        claim: Claim,
        /// Why it stood.
        reason: Reason,
        /// The loads that it knew, in hundredths of a point, by node number.
        loads: Vec<(NodeNumber, u64)>,
    },
    /// "I stand no more": whoever agreed is free again; from a candidate that has lost or given way.
    Withdraw {
        /// The counter of the question.
        counter: u64,
    },
    /// "I leave office"; from its holder to everybody.
    Resign {
        /// The claim that ends.
        claim: Claim,
    },
}

/// What a member says to a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It does not object.
    Agrees,
    /// It objects: it is better, and stands itself.
    Better,
    /// It objects: it is in office itself, by the claim in the answer, and stays.
    InOffice,
    /// It objects: another is in office and alive as far as it knows.
    Believes,
    /// It has agreed to another, who may win by it yet; it may be asked again.
    Bound,
}

/// Why there was an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Nobody was known to be in office.
    First,
    /// This coordinator is dead.
    Death(PeerId),
    /// This coordinator said that it leaves office.
    Resignation(PeerId),
    /// This coordinator is no longer in office and did not say so: it restarted, froze or was cut off.
    Gone(PeerId),
    /// The load of the new one was clearly lower than this coordinator's, and it agreed.
    ClearlyBetter(PeerId),
    /// It was in office before: it lost sight of the majority for a while, or others know of a greater
    /// counter.
    Anew,
    /// The news of the election did not come here; its claim was heard later.
    Unheard,
}

impl Reason {
    /// Who resigned, if that is why: it does not stand right after it.
    pub(super) fn resigned(&self) -> Option<PeerId> {
        if let Self::Resignation(peer) = self { Some(*peer) } else { None }
    }
}

impl Message {
    /// The wire form: `[1, message]`.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&(VERSION, self))
    }

    /// Reads the wire form.
    ///
    /// # Errors
    /// [`CodecError`]; also if loads are not in the order of the node numbers, or more than there are
    /// members.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (version, message): (u64, Self) = codec::decode(bytes, limits::ELECTION_MESSAGE_BYTES_MAX)?;
        codec::check_version(version, VERSION)?;
        if let Self::Coordinator { loads, .. } = &message {
            let in_order = loads.is_sorted_by(|a, b| a.0 < b.0);
            if !in_order || loads.len() > limits::MEMBERS_MAX {
                return Err(CodecError::Malformed("loads are out of order or too many".into()));
            }
        }
        Ok(message)
    }
}
