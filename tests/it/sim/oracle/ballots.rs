//! **One value per ballot, and one chain of chosen values**: whatever two nodes say or write at one ballot of
//! one object is the same, and each value that a majority accepted is the one before or the next version.

use std::collections::{BTreeMap, BTreeSet};

use tintype::{
    model::{
        ObjectId, PeerId,
        member::{Epoch, Founding},
        register::VerifiedRegister,
        slots::HashSlot,
    },
    proto::{
        chunkpaxos::{AcceptorRecord, Ballot, Body, Message, View},
        placement::{self, Weighted},
    },
};

use super::Checked;

type Votes = BTreeMap<Ballot, (VerifiedRegister, BTreeSet<usize>)>;

#[derive(Default)]
pub struct Ballots {
    values: BTreeMap<(ObjectId, Ballot), Vec<u8>>,
    votes: BTreeMap<ObjectId, Votes>,
    /// Every view of each slot that was ever in use, the newest last.
    views: BTreeMap<HashSlot, Vec<View>>,
    peers: Vec<PeerId>,
}

impl Ballots {
    /// The cluster is founded: who votes on what. `peers` are the nodes by their index.
    pub fn founded(&mut self, founding: &Founding, peers: Vec<PeerId>) {
        self.peers = peers;
        let members: Vec<Weighted> = founding.members.iter().map(Weighted::from).collect();
        for slot in HashSlot::all() {
            let keepers = placement::keepers(Epoch::FOUNDING, &members, slot);
            let view = View { epoch: Epoch::FOUNDING, keepers, first_counter: 0 };
            self.views.insert(slot, vec![view]);
        }
    }

    /// Authority has put another view in use.
    pub fn activated(&mut self, slot: HashSlot, view: View) -> Checked {
        self.views.entry(slot).or_default().push(view);
        let objects: Vec<ObjectId> =
            self.votes.keys().filter(|object| HashSlot::of(object) == slot).copied().collect();
        objects.iter().try_for_each(|object| self.check_chain(object))
    }

    /// The view of a slot that is in use.
    pub fn view(&self, slot: HashSlot) -> Option<&View> {
        self.views.get(&slot)?.last()
    }

    pub fn said(&mut self, message: &Message) -> Checked {
        let accepted = match &message.body {
            Body::Accept { ballot, value, .. } | Body::Mirror { ballot, value } => Some((ballot, value)),
            Body::Promise { accepted: Some(a), .. } | Body::State { accepted: Some(a) } => {
                Some((&a.ballot, &a.value))
            }
            _ => None,
        };
        accepted.map_or(Ok(()), |(ballot, value)| self.note(&message.object, *ballot, value))
    }

    pub fn durable(&mut self, node: usize, object: &ObjectId, record: &AcceptorRecord) -> Checked {
        let Some(accepted) = &record.accepted else { return Ok(()) };
        self.note(object, accepted.ballot, &accepted.value)?;
        let votes = self.votes.entry(*object).or_default();
        let vote = votes.entry(accepted.ballot).or_insert_with(|| (accepted.value.clone(), BTreeSet::new()));
        if vote.1.insert(node) {
            return self.check_chain(object);
        }
        Ok(())
    }

    fn note(&mut self, object: &ObjectId, ballot: Ballot, value: &VerifiedRegister) -> Checked {
        let known = self.values.entry((*object, ballot)).or_insert_with(|| value.bytes().to_vec());
        if known != value.bytes() {
            return Err(format!("two values of {object} at {ballot:?}"));
        }
        Ok(())
    }

    /// Values that a majority of the acceptors of their view accepted, in the order of their ballots.
    pub fn chosen(&self, object: &ObjectId) -> Vec<(Ballot, &VerifiedRegister)> {
        let votes = self.votes.get(object).into_iter().flatten();
        let is_chosen = |ballot: &Ballot, who: &BTreeSet<usize>| {
            let views = self.views.get(&HashSlot::of(object)).into_iter().flatten();
            let mut of_it = views.filter(|view| view.epoch == ballot.epoch && view.counts(ballot));
            of_it.any(|view| {
                let voters = who.iter().filter(|node| view.keepers.acceptors.contains(&self.peers[**node]));
                voters.count() >= view.keepers.majority()
            })
        };
        let chosen = votes.filter(|(ballot, (_, who))| is_chosen(ballot, who));
        chosen.map(|(ballot, (value, _))| (*ballot, value)).collect()
    }

    fn check_chain(&self, object: &ObjectId) -> Checked {
        let chosen = self.chosen(object);
        for pair in chosen.windows(2) {
            let (before, after) = (pair[0].1, pair[1].1);
            let is_next = after.version == before.version + 1 && after.previous == before.hash();
            if before != after && !is_next {
                let of = |(ballot, value): &(Ballot, &VerifiedRegister)| (*ballot, value.version);
                return Err(format!("a fork of {object}: {:?}, then {:?}", of(&pair[0]), of(&pair[1])));
            }
        }
        match chosen.first() {
            Some((_, first)) if first.version != 1 => {
                Err(format!("the first chosen value of {object} is version {}", first.version))
            }
            _ => Ok(()),
        }
    }
}
