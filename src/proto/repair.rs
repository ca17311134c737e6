//! What follows from the keepers' records of one object: who is behind, and whether the newest value is
//! agreed or has to be settled by a full round. And how soon a run of repair is followed by the next.
//!
//! It decides and nothing else: scanning, asking and writing are the driver's. It never takes for chosen what
//! a majority of the acceptors does not hold at one ballot.

use super::chunkpaxos::{Ballot, View};
use crate::model::{Millis, PeerId, limits};

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

/// How soon a run is followed by the next.
///
/// Who dies forgets what it was to pass on, and no run sees that as long as its object is not agreed on,
/// which may take as long as a large picture takes to come. So runs follow that are ever further apart: a
/// copy is missed for about as long as its put went on after that, up to [`limits::REPAIR_EVERY`].
#[derive(Debug)]
pub struct Pace {
    pause: Millis,
}

impl Default for Pace {
    /// As after a start: what was under way before it is not known.
    fn default() -> Self {
        Self { pause: limits::REPAIR_RETRY }
    }
}

impl Pace {
    /// Something happened by which copies may lack that no register asks for yet.
    pub fn quicken(&mut self) {
        self.pause = limits::REPAIR_RETRY;
    }

    /// The pause after a run that has ended; `is_whole` = it found nothing that lacks.
    pub fn pause_after(&mut self, is_whole: bool) -> Millis {
        if !is_whole {
            return limits::REPAIR_RETRY;
        }
        let pause = self.pause;
        self.pause = (pause + pause).min(limits::REPAIR_EVERY);
        pause
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

    #[test]
    fn what_happened_is_looked_at_again_and_again_ever_later_and_what_lacks_is_soon() {
        let mut pace = Pace::default();
        let pauses = |pace: &mut Pace, runs: usize| -> Vec<u64> {
            (0..runs).map(|_| pace.pause_after(true).0 / 1000).collect()
        };
        assert_eq!(pauses(&mut pace, 10), [3, 6, 12, 24, 48, 96, 192, 384, 600, 600]);
        assert_eq!(pace.pause_after(false), limits::REPAIR_RETRY);
        assert_eq!(pauses(&mut pace, 1), [600], "what was lacking is there: nothing else has happened");
        pace.quicken();
        assert_eq!(pauses(&mut pace, 2), [3, 6]);
        assert_eq!(pace.pause_after(false), limits::REPAIR_RETRY);
        assert_eq!(pauses(&mut pace, 1), [12]);
        pace.quicken();
        assert_eq!(pauses(&mut pace, 1), [3]);
    }
}
