//! What must hold in every schedule: one value per ballot, promises that only grow, no word of a fenced
//! acceptor, one chain of chosen values through all views, and answers that fit it.

use super::*;

/// All that is known of the registers from outside.
pub(super) struct Checks {
    founding: Founding,
    /// The views that authority has activated: who votes, and from which counter on.
    views: BTreeMap<Epoch, (SlotKeepers, u64)>,
    objects: BTreeMap<ObjectId, Seen>,
    /// Of a protocol that installs at the old ballots nobody can say by whom and in which view a ballot was
    /// accepted; only what callers see is looked at then.
    only_answers: bool,
}

/// What was seen of one object.
#[derive(Default)]
struct Seen {
    /// Everything that any acceptor ever durably accepted.
    accepted: BTreeMap<Ballot, (VerifiedRegister, BTreeSet<usize>)>,
    values: BTreeMap<Ballot, VerifiedRegister>,
    /// The greatest version that some answer has shown.
    shown: Option<VerifiedRegister>,
}

impl Checks {
    pub(super) fn new(founding: Founding, keepers: SlotKeepers, variant: Variant) -> Self {
        let views = [(Epoch::FOUNDING, (keepers, 0))].into();
        let only_answers = variant == Variant::InstallOldBallot;
        Self { founding, views, objects: BTreeMap::new(), only_answers }
    }

    /// From now on what a majority of these accepts in this epoch is chosen.
    pub(super) fn activated(&mut self, to: Epoch, keepers: SlotKeepers, attempt: u64) -> Checked {
        self.views.insert(to, (keepers, attempt));
        let objects: Vec<ObjectId> = self.objects.keys().copied().collect();
        objects.iter().try_for_each(|object| self.check_chain(object))
    }

    pub(super) fn shown(&self, object: &ObjectId) -> u64 {
        self.objects.get(object).and_then(|seen| seen.shown.as_ref()).map_or(0, |value| value.version)
    }

    pub(super) fn last_chosen(&self, object: &ObjectId) -> Option<Accepted> {
        let (ballot, value) = self.chosen(object).last().copied()?;
        Some(Accepted { ballot: *ballot, value: value.clone() })
    }

    /// A ballot carries one value for ever.
    pub(super) fn note_value(
        &mut self,
        object: ObjectId,
        ballot: Ballot,
        value: &VerifiedRegister,
    ) -> Checked {
        let seen = self.objects.entry(object).or_default();
        if seen.values.entry(ballot).or_insert_with(|| value.clone()) != value {
            return Err(format!("two values at {ballot:?}"));
        }
        Ok(())
    }

    /// A node has a new record on disk, and this fence.
    pub(super) fn on_record(
        &mut self,
        node: usize,
        object: ObjectId,
        old: Option<&AcceptorRecord>,
        record: &AcceptorRecord,
        fence: Option<Epoch>,
    ) -> Checked {
        let ballot = |r: &AcceptorRecord| r.accepted.as_ref().map(|a| a.ballot);
        if old.is_some_and(|old| old.floor() > record.floor() || ballot(old) > ballot(record)) {
            return Err(format!("node {node} went back from {old:?} to {record:?}"));
        }
        let Some(accepted) = &record.accepted else { return Ok(()) };
        if old.and_then(ballot) == Some(accepted.ballot) {
            return Ok(());
        }
        if !self.only_answers && fence.is_some_and(|fence| accepted.ballot.epoch < fence) {
            return Err(format!("node {node} accepted {:?} behind its fence at {fence:?}", accepted.ballot));
        }
        self.note_value(object, accepted.ballot, &accepted.value)?;
        let seen = self.objects.entry(object).or_default();
        let new = || (accepted.value.clone(), BTreeSet::new());
        seen.accepted.entry(accepted.ballot).or_insert_with(new).1.insert(node);
        self.check_chain(&object)
    }

    fn chosen(&self, object: &ObjectId) -> Vec<(&Ballot, &VerifiedRegister)> {
        let is_chosen = |ballot: &Ballot, who: &BTreeSet<usize>| {
            self.views.get(&ballot.epoch).is_some_and(|(keepers, from)| {
                let is_vote = |n: &&usize| keepers.acceptors.contains(&self.founding.members[**n].peer);
                ballot.counter >= *from && who.iter().filter(is_vote).count() >= keepers.majority()
            })
        };
        let accepted = self.objects.get(object).into_iter().flat_map(|seen| &seen.accepted);
        let chosen = accepted.filter(|(ballot, (_, who))| is_chosen(ballot, who));
        chosen.map(|(ballot, (value, _))| (ballot, value)).collect()
    }

    /// In the order of their ballots, each chosen value is the one before or came after it.
    fn check_chain(&self, object: &ObjectId) -> Checked {
        if self.only_answers {
            return Ok(());
        }
        let chosen = self.chosen(object);
        for pair in chosen.windows(2) {
            if !self.descends(object, pair[1].1, Some(pair[0].1)) {
                return Err(format!("a fork: {:?} then {:?}", pair[0], pair[1]));
            }
        }
        match chosen.first() {
            Some((_, first)) if !self.descends(object, first, None) => {
                Err("the first chosen value does not come from a version 1".into())
            }
            _ => Ok(()),
        }
    }

    /// Whether `value` is `ancestor`, or was proposed as a later version of it; none = of nothing. What lies
    /// between need not have been chosen by itself: somebody saw it in a promise and built on it.
    fn descends(
        &self,
        object: &ObjectId,
        value: &VerifiedRegister,
        ancestor: Option<&VerifiedRegister>,
    ) -> bool {
        let Some(seen) = self.objects.get(object) else { return false };
        let mut at = value;
        while Some(at) != ancestor {
            if at.version == 1 {
                return ancestor.is_none();
            }
            let is_before = |v: &&VerifiedRegister| v.hash() == at.previous && v.version + 1 == at.version;
            let Some(before) = seen.values.values().find(is_before) else { return false };
            at = before;
        }
        true
    }

    /// What is shown is chosen, not older than what was shown before the call began, and of one chain with
    /// all that was ever shown.
    pub(super) fn on_shown(
        &mut self,
        kind: &str,
        object: ObjectId,
        shown: Option<&VerifiedRegister>,
        version_at_begin: u64,
    ) -> Checked {
        let version = shown.map_or(0, |value| value.version);
        if kind != "committed" && version < version_at_begin {
            return Err(format!("{kind}: version {version} after {version_at_begin} had been shown"));
        }
        let Some(shown) = shown else { return Ok(()) };
        let fits = |value: &VerifiedRegister| {
            value == shown || kind == "committed" && self.descends(&object, value, Some(shown))
        };
        if !self.only_answers && !self.chosen(&object).iter().any(|(_, value)| fits(value)) {
            return Err(format!("{kind}: {shown:?} was never chosen"));
        }
        let last = self.objects.get(&object).and_then(|seen| seen.shown.as_ref());
        let is_older = last.is_some_and(|last| self.descends(&object, last, Some(shown)));
        if !is_older && !self.descends(&object, shown, last) {
            return Err(format!("{kind}: {shown:?} beside {last:?}"));
        }
        if !is_older {
            self.objects.entry(object).or_default().shown = Some(shown.clone());
        }
        Ok(())
    }
}
