//! What follows from the keepers' records of one object: who is behind, and whether the newest value is
//! agreed or has to be settled by a full round. And how soon a run of repair is followed by the next.
//!
//! It decides and nothing else: scanning, asking and writing are the driver's. It never takes for chosen what
//! a majority of the acceptors does not hold at one ballot.

use std::collections::BTreeMap;

use super::chunkpaxos::{Ballot, View};
use crate::model::{Millis, ObjectId, PeerId, limits, register::RawRegister, slots::HashSlot};

/// What the keepers of one slot hold of one object: the ballot that each accepted last.
#[derive(Clone, Debug)]
pub struct Reports<'a> {
    /// This node; a keeper of the slot, with a vote or as its mirror.
    pub me: PeerId,
    /// What this node's own disk holds.
    pub mine: Option<Ballot>,
    /// The acceptors that were read, this node among them if it votes; at least a majority.
    pub acceptors: &'a [(PeerId, Option<Ballot>)],
    /// Who keeps the slot, and from which ballot on a majority of them is an agreement.
    pub view: &'a View,
}

/// What is to be done about the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// No majority holds the newest value: a full round decides.
    Settle,
    /// The newest value is chosen, and is here.
    Keep,
    /// The newest value is chosen, and has to be taken over here.
    TakeOver,
}

/// What the reports say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The greatest ballot that anyone reported, this node's own disk left out if it does not vote.
    pub newest: Option<Ballot>,
    /// Other acceptors that lack it.
    pub behind: Vec<PeerId>,
    /// Somebody lacks it, perhaps only this node.
    pub someone_is_behind: bool,
    /// What to do here.
    pub next: Next,
}

/// Looks at one object.
pub fn judge(reports: &Reports<'_>) -> Verdict {
    let newest = reports.acceptors.iter().filter_map(|(_, ballot)| *ballot).max();
    let behind = |ballot: &Option<Ballot>| *ballot != newest;
    let lacks: Vec<PeerId> = reports.acceptors.iter().filter(|(_, b)| behind(b)).map(|(p, _)| *p).collect();
    let agreeing = reports.acceptors.len() - lacks.len();
    // Below the install of a handover a majority may agree on what a failed attempt has left there.
    let is_chosen = newest.is_some_and(|ballot| reports.view.counts(&ballot));
    let next = if !is_chosen || agreeing < reports.view.keepers.majority() {
        Next::Settle
    } else if reports.mine >= newest {
        Next::Keep
    } else {
        Next::TakeOver
    };
    let someone_is_behind = behind(&reports.mine) || !lacks.is_empty();
    let behind = lacks.into_iter().filter(|peer| *peer != reports.me).collect();
    Verdict { newest, behind, someone_is_behind, next }
}

/// One keeper's records of a slot.
pub type SlotRecords = BTreeMap<ObjectId, (Ballot, RawRegister)>;

/// What the keepers of a slot hold of it, in short: any other record of any of them makes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotDigest([u8; 32]);

/// Puts what they hold in short.
pub fn digest<'a>(held: impl IntoIterator<Item = (PeerId, &'a SlotRecords)>) -> SlotDigest {
    let mut hasher = blake3::Hasher::new();
    for (peer, records) in held {
        // Who holds nothing was read, too.
        hasher.update(&peer.to_bytes()).update(&(records.len() as u64).to_le_bytes());
        for (object, (ballot, _)) in records {
            hasher.update(&object.0);
            for number in [ballot.epoch.0, ballot.counter, u64::from(ballot.node.0), ballot.boot] {
                hasher.update(&number.to_le_bytes());
            }
        }
    }
    SlotDigest(*hasher.finalize().as_bytes())
}

/// What a run has seen of the slots: of those that are as they were, the next need not look at the bodies.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    slots: BTreeMap<HashSlot, (SlotDigest, u64)>,
}

impl Seen {
    /// The slot was looked at; so many of its objects want a single copy.
    pub fn note(&mut self, slot: HashSlot, digest: SlotDigest, single_copy: u64) {
        self.slots.insert(slot, (digest, single_copy));
    }

    /// How many want a single copy, if the slot is as it was.
    pub fn if_unchanged(&self, slot: HashSlot, digest: SlotDigest) -> Option<u64> {
        let (was, single_copy) = self.slots.get(&slot)?;
        (*was == digest).then_some(*single_copy)
    }
}

/// How soon a run is followed by the next, and what that need not look at again.
///
/// Who dies forgets what it was to pass on, and no run sees that as long as its object is not agreed on,
/// which may take as long as a large picture takes to come. So runs follow that are ever further apart: a
/// copy is missed for about as long as its put went on after that, up to [`limits::REPAIR_EVERY`]. They look
/// at the slots that have changed since. The first after something happened or lacked looks at all, and so
/// does one in each [`limits::REPAIR_EVERY`].
#[derive(Debug)]
pub struct Runs {
    /// From one whole run to the next that nothing else calls for.
    pause: Millis,
    /// When that one is due. Others that come before it change nothing about it.
    due_at: Millis,
    seen: Seen,
    /// When the last run began that looks at all.
    full_at: Millis,
    is_outdated: bool,
}

impl Default for Runs {
    /// As after a start: what was under way before it is not known.
    fn default() -> Self {
        Self {
            pause: limits::REPAIR_RETRY,
            due_at: Millis(0),
            seen: Seen::default(),
            full_at: Millis(0),
            is_outdated: false,
        }
    }
}

impl Runs {
    /// Something happened by which copies may lack.
    pub fn quicken(&mut self) {
        *self = Self { is_outdated: true, ..Self::default() };
    }

    /// Whether something happened since the last run began.
    pub fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// A run begins: what it need not look at.
    pub fn begin(&mut self, now: Millis) -> Seen {
        self.is_outdated = false;
        let seen = std::mem::take(&mut self.seen);
        if !seen.slots.is_empty() && now.since(self.full_at) < limits::REPAIR_LOOKS_AGAIN {
            return seen;
        }
        self.full_at = now;
        Seen::default()
    }

    /// A run has ended, `is_whole` = without finding that something lacks. The answer is the pause before the
    /// next.
    pub fn ended(&mut self, now: Millis, is_whole: bool, seen: Seen) -> Millis {
        if !is_whole || self.is_outdated {
            self.seen = Seen::default();
            return limits::REPAIR_RETRY;
        }
        if self.due_at <= now {
            self.due_at = now + self.pause;
            self.pause = (self.pause + self.pause).min(limits::REPAIR_EVERY);
        }
        self.seen = seen;
        self.due_at.min(self.full_at + limits::REPAIR_EVERY).since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::member::{Epoch, NodeNumber},
        proto::{placement::SlotKeepers, testing::peers},
    };

    fn ballot(counter: u64) -> Option<Ballot> {
        Some(Ballot { epoch: Epoch::FOUNDING, counter, node: NodeNumber(0), boot: 1 })
    }

    /// Of three acceptors, this node the first: what each holds, and what follows.
    fn judged(held: [Option<Option<u64>>; 3], mine: Option<u64>) -> Verdict {
        let peers = peers(3);
        let read =
            peers.iter().zip(held).filter_map(|(peer, held)| held.map(|h| (*peer, h.and_then(ballot))));
        let acceptors: Vec<_> = read.collect();
        let view = view(&peers, None, 0);
        judge(&Reports { me: peers[0], mine: mine.and_then(ballot), acceptors: &acceptors, view: &view })
    }

    fn view(acceptors: &[PeerId], mirror: Option<PeerId>, first_counter: u64) -> View {
        let keepers = SlotKeepers { acceptors: acceptors.to_vec(), mirror };
        View { epoch: Epoch::FOUNDING, keepers, first_counter }
    }

    #[test]
    fn what_a_majority_holds_at_one_ballot_is_chosen_and_nothing_else_is() {
        let peers = peers(3);
        let all = judged([Some(Some(5)), Some(Some(5)), Some(Some(5))], Some(5));
        assert_eq!((all.next, all.someone_is_behind, all.behind), (Next::Keep, false, vec![]));
        let one_lacks = judged([Some(Some(5)), Some(Some(5)), Some(None)], Some(5));
        assert_eq!((one_lacks.next, one_lacks.behind), (Next::Keep, vec![peers[2]]));
        let i_lack = judged([Some(Some(4)), Some(Some(5)), Some(Some(5))], Some(4));
        assert_eq!((i_lack.next, i_lack.behind, i_lack.someone_is_behind), (Next::TakeOver, vec![], true));
        let two_of_two = judged([Some(Some(5)), Some(Some(5)), None], Some(5));
        assert_eq!((two_of_two.next, two_of_two.someone_is_behind), (Next::Keep, false));
        let newest_in_minority = judged([Some(Some(4)), Some(Some(5)), Some(Some(4))], Some(4));
        assert_eq!(newest_in_minority.next, Next::Settle, "an older majority is not the newest value");
        assert_eq!(newest_in_minority.behind, [peers[2]]);
        let unread_could_agree = judged([Some(Some(4)), Some(Some(5)), None], Some(4));
        assert_eq!(unread_could_agree.next, Next::Settle);
    }

    #[test]
    fn a_mirror_counts_for_nobody_and_takes_over_what_its_acceptor_has() {
        let peers = peers(2);
        let acceptors = [(peers[0], ballot(3))];
        let view = view(&peers[..1], Some(peers[1]), 0);
        let of = |mine| judge(&Reports { me: peers[1], mine, acceptors: &acceptors, view: &view });
        assert_eq!(of(None).next, Next::TakeOver);
        assert_eq!(of(ballot(2)).next, Next::TakeOver);
        assert_eq!((of(ballot(3)).next, of(ballot(3)).someone_is_behind), (Next::Keep, false));
        assert_eq!(of(ballot(4)).next, Next::Keep, "a mirror never goes back");
    }

    #[test]
    fn what_a_failed_handover_left_on_a_majority_is_settled_and_not_believed() {
        let peers = peers(3);
        let view = view(&peers, None, 3);
        let of = |counter| {
            let acceptors: Vec<_> = peers.iter().map(|peer| (*peer, ballot(counter))).collect();
            judge(&Reports { me: peers[0], mine: ballot(counter), acceptors: &acceptors, view: &view }).next
        };
        assert_eq!((of(1), of(2), of(3)), (Next::Settle, Next::Keep, Next::Keep));
    }

    const SLOT: HashSlot = HashSlot(7);

    /// What a run sees that finds this counter in the slot.
    fn seen(counter: u64) -> Seen {
        let mut seen = Seen::default();
        seen.note(SLOT, held(counter), 2);
        seen
    }

    /// Runs on their own clock: each takes no time.
    #[derive(Default)]
    struct Bench {
        runs: Runs,
        now: Millis,
    }

    impl Bench {
        /// One run, which nothing happens during; whether it looks at all, and the pause after it in seconds.
        fn run(&mut self, is_whole: bool) -> (bool, u64) {
            let is_full = self.runs.begin(self.now).if_unchanged(SLOT, held(1)) != Some(2);
            (is_full, self.runs.ended(self.now, is_whole, seen(1)).0 / 1000)
        }

        /// So many whole runs, each when it is due: the pauses after them, and which of them look at all.
        fn whole(&mut self, count: usize) -> (Vec<u64>, Vec<bool>) {
            let mut one = || {
                let (is_full, pause) = self.run(true);
                self.wait(pause);
                (pause, is_full)
            };
            (0..count).map(|_| one()).unzip()
        }

        fn wait(&mut self, seconds: u64) {
            self.now = self.now + Millis(seconds * 1000);
        }
    }

    #[test]
    fn what_happened_is_looked_at_again_and_again_ever_later_and_what_lacks_is_soon() {
        let mut bench = Bench::default();
        let (pauses, are_full) = bench.whole(10);
        assert_eq!(pauses, [3, 6, 12, 24, 48, 96, 192, 384, 600, 600]);
        let full = [true, false, false, false, false, false, true, true, true, true];
        assert_eq!(are_full, full, "no longer than ten minutes apart");
        assert_eq!(bench.run(false), (true, 3));
        bench.wait(3);
        assert_eq!(bench.run(true), (true, 600), "what was lacking is there: nothing else has happened");
        bench.runs.quicken();
        assert_eq!(bench.whole(2), (vec![3, 6], vec![true, false]));
        assert_eq!(bench.run(false), (false, 3));
        bench.wait(3);
        assert_eq!(bench.whole(2), (vec![12, 24], vec![true, false]));
        let _ = bench.runs.begin(bench.now);
        bench.runs.quicken();
        assert!(bench.runs.is_outdated());
        assert_eq!(bench.runs.ended(bench.now, true, seen(1)), limits::REPAIR_RETRY, "it came too late");
        bench.wait(3);
        assert_eq!(bench.whole(2), (vec![3, 6], vec![true, false]));
    }

    #[test]
    fn runs_that_something_else_calls_for_leave_the_others_where_they_were() {
        let mut bench = Bench::default();
        bench.whole(4);
        assert_eq!(bench.run(true).1, 48);
        for left in (0..48).rev() {
            bench.wait(1);
            let pause = bench.run(true).1;
            assert_eq!(pause, if left == 0 { 96 } else { left });
        }
        // Of those that are called for every ten seconds few look at all, and never none for ten minutes.
        let full = (0..600).filter(|_| {
            bench.wait(10);
            bench.run(true).0
        });
        let full = full.count();
        assert!((10..=40).contains(&full), "{full} of 600");
        let (pause, at) = (bench.run(true).1, bench.now);
        assert!((bench.runs.full_at + limits::REPAIR_EVERY).since(at).0 / 1000 >= pause);
    }

    fn records(held: &[(ObjectId, Ballot)]) -> SlotRecords {
        held.iter().map(|(object, ballot)| (*object, (*ballot, RawRegister(Vec::new())))).collect()
    }

    /// One record of one keeper.
    fn held(counter: u64) -> SlotDigest {
        let ballot = ballot(counter).expect("one");
        digest([(peers(1)[0], &records(&[(ObjectId([1; 32]), ballot)]))])
    }

    #[test]
    fn only_a_whole_run_after_which_nothing_happened_spares_the_next_what_has_not_changed() {
        let now = Millis(5);
        let knows = |runs: &mut Runs| runs.begin(now).if_unchanged(SLOT, held(7)) == Some(2);
        let mut runs = Runs::default();
        assert!(!knows(&mut runs), "the first run looks at all");
        runs.ended(now, true, seen(7));
        let next = runs.begin(now);
        assert_eq!((next.if_unchanged(SLOT, held(7)), next.if_unchanged(SLOT, held(8))), (Some(2), None));
        assert!(!knows(&mut runs), "that run did not end");
        runs.ended(now, true, seen(7));
        runs.ended(now, false, seen(7));
        assert!(!knows(&mut runs), "something lacked");
        runs.ended(now, true, seen(7));
        runs.quicken();
        assert!(!knows(&mut runs), "something happened");
        runs.quicken();
        runs.ended(now, true, seen(7));
        assert!(!knows(&mut runs), "something happened while it ran");
    }

    #[test]
    fn every_record_of_every_keeper_is_in_the_digest() {
        let (peers, objects) = (peers(2), [ObjectId([1; 32]), ObjectId([2; 32])]);
        let ballots = [ballot(3), ballot(4)].map(|ballot| ballot.expect("one"));
        let other_epoch = Ballot { epoch: Epoch(9), ..ballots[0] };
        let other_node = Ballot { node: NodeNumber(9), ..ballots[0] };
        let other_boot = Ballot { boot: 9, ..ballots[0] };
        let one = |ballot| vec![(objects[0], ballot)];
        let held = [
            vec![],
            vec![(peers[0], vec![])],
            vec![(peers[0], one(ballots[0]))],
            vec![(peers[0], one(ballots[0])), (peers[1], vec![])],
            vec![(peers[1], one(ballots[0]))],
            vec![(peers[0], vec![(objects[1], ballots[0])])],
            vec![(peers[0], one(ballots[1]))],
            vec![(peers[0], one(other_epoch))],
            vec![(peers[0], one(other_node))],
            vec![(peers[0], one(other_boot))],
            vec![(peers[0], one(ballots[0])), (peers[1], one(ballots[0]))],
        ];
        let mut digests = Vec::new();
        for of_all in held {
            let of_all: Vec<_> = of_all.into_iter().map(|(peer, held)| (peer, records(&held))).collect();
            let digest = digest(of_all.iter().map(|(peer, records)| (*peer, records)));
            assert!(!digests.contains(&digest), "{of_all:?}");
            digests.push(digest);
        }
    }
}
