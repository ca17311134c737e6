//! Who keeps each hash slot: the view in use here, and the one that authority has ordered next.
//!
//! A view is used for proposing and for voting only while it is the active one; the ordered one is only
//! prepared. It changes by orders alone, never by what a peer says.

use std::sync::Arc;

use crate::{
    model::{
        ObjectId, PeerId,
        member::Epoch,
        slots::{HashSlot, SLOT_COUNT},
    },
    proto::placement::SlotKeepers,
};

/// What authority orders of one hash slot. It has them durably and hands them to every member in its order,
/// and after a restart again from the first: the same order twice does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Hand the slot over: `installer` fences, scans and installs. Replaces an earlier attempt.
    Handover {
        /// Which one.
        slot: HashSlot,
        /// Greater than that of the view in use.
        to: Epoch,
        /// From 1; grows by one with each attempt at this epoch.
        attempt: u64,
        /// Who does it, a member.
        installer: PeerId,
        /// Which start of it. A later one does not take the attempt up again: it could find less than this
        /// one had installed already, and authority cannot tell what it was told by which.
        boot: u64,
        /// Who keeps the slot afterwards, all of them members.
        keepers: SlotKeepers,
    },
    /// Use what was installed. Ordered only after the installer of this attempt, still the last one ordered,
    /// has said [`super::Action::Installed`].
    Activate {
        /// As in the handover.
        slot: HashSlot,
        /// As in the handover.
        to: Epoch,
        /// As in the handover.
        attempt: u64,
    },
}

/// Who keeps a slot in one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// In every message and ballot of this view.
    pub epoch: Epoch,
    /// Acceptors and mirror.
    pub keepers: SlotKeepers,
    /// Above every install of this epoch, below all that is prepared. In the first epoch, which has none, it
    /// is the counter of the implicit ballot.
    pub first_counter: u64,
}

impl View {
    /// Whether what a majority of this view's acceptors has at this ballot is chosen: from the install on
    /// that was activated. What failed attempts have left on them lies below it, and so does what they had
    /// before.
    pub fn counts(&self, ballot: &super::Ballot) -> bool {
        (ballot.epoch, ballot.counter) >= (self.epoch, self.first_counter.saturating_sub(1))
    }
}

/// A handover that was ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) to: Epoch,
    pub(super) attempt: u64,
    pub(super) installer: PeerId,
    pub(super) boot: u64,
    pub(super) keepers: SlotKeepers,
}

/// What this acceptor refuses for ever: everything of the slot below this epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fence {
    pub(super) to: Epoch,
    pub(super) is_durable: bool,
    pub(super) is_being_written: bool,
}

/// One page that was asked of the disk, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) after: Option<ObjectId>,
    pub(super) to: PeerId,
    pub(super) epoch: Epoch,
    pub(super) round: super::RoundId,
}

/// All that this node knows of one slot.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) active: View,
    pub(super) pending: Option<Pending>,
    pub(super) fence: Option<Fence>,
    pub(super) listing: Option<Listing>,
}

/// What came of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// It was known, is outdated, or makes no sense.
    Ignored,
    /// A handover is to be done.
    Ordered(HashSlot),
    /// The slot's view is a new one.
    Activated(HashSlot),
}

/// All slots; shared until one changes, for tests hold very many machines.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Slots(Arc<Vec<Slot>>);

impl Slot {
    /// Whether this node votes on the slot in this epoch now. A fenced acceptor does not: neither writes nor
    /// reads, for what it shows could miss what is chosen after the handover.
    pub(super) fn serves(&self, epoch: Epoch) -> bool {
        self.active.epoch == epoch && !self.refuses(epoch)
    }

    /// Whether this acceptor's fence for a handover to this epoch is on disk.
    pub(super) fn is_fenced(&self, to: Epoch) -> bool {
        self.fence.is_some_and(|fence| fence.is_durable && fence.to >= to)
    }

    /// Whether this acceptor has promised to refuse what is of this epoch.
    pub(super) fn refuses(&self, epoch: Epoch) -> bool {
        self.fence.is_some_and(|fence| fence.to > epoch)
    }

    fn accepts_handover(&self, to: Epoch, attempt: u64) -> bool {
        let is_newer = self.pending.as_ref().is_none_or(|p| (to, attempt) > (p.to, p.attempt));
        to > self.active.epoch && is_newer && (1..super::Ballot::COUNTER_MAX).contains(&attempt)
    }
}

impl Slots {
    /// All slots in the founding's view, with the fences that earlier starts have made durable.
    pub(super) fn new(config: &super::Config, keepers: impl Fn(HashSlot) -> SlotKeepers) -> Self {
        let slot = |slot| {
            let active = View { epoch: config.epoch, keepers: keepers(slot), first_counter: 0 };
            let fence = config.fences.get(&slot).map(|to| Fence {
                to: *to,
                is_durable: true,
                is_being_written: false,
            });
            Slot { active, pending: None, fence, listing: None }
        };
        let slots: Vec<Slot> = HashSlot::all().map(slot).collect();
        debug_assert_eq!(slots.len(), SLOT_COUNT);
        Self(Arc::new(slots))
    }

    pub(super) fn get(&self, slot: HashSlot) -> &Slot {
        &self.0[usize::from(slot.0)]
    }

    pub(super) fn get_mut(&mut self, slot: HashSlot) -> &mut Slot {
        &mut Arc::make_mut(&mut self.0)[usize::from(slot.0)]
    }

    pub(super) fn of(&self, object: &ObjectId) -> &Slot {
        self.get(HashSlot::of(object))
    }

    /// Takes an order in.
    pub(super) fn apply(&mut self, order: Order, is_member: impl Fn(&PeerId) -> bool) -> Applied {
        match order {
            Order::Handover { slot: at, to, attempt, installer, boot, keepers } => {
                let slot = self.get_mut(at);
                let fits = make_sense(&keepers, &is_member) && is_member(&installer);
                if !fits || !slot.accepts_handover(to, attempt) {
                    return Applied::Ignored;
                }
                slot.pending = Some(Pending { to, attempt, installer, boot, keepers });
                slot.listing = None;
                Applied::Ordered(at)
            }
            Order::Activate { slot: at, to, attempt } => {
                let slot = self.get_mut(at);
                let Some(pending) = slot.pending.take_if(|p| (p.to, p.attempt) == (to, attempt)) else {
                    return Applied::Ignored;
                };
                slot.active = View { epoch: to, keepers: pending.keepers, first_counter: attempt + 1 };
                slot.listing = None;
                Applied::Activated(at)
            }
        }
    }
}

fn make_sense(keepers: &SlotKeepers, is_member: impl Fn(&PeerId) -> bool) -> bool {
    let mut all: Vec<&PeerId> = keepers.acceptors.iter().chain(&keepers.mirror).collect();
    let (count, known) = (all.len(), all.iter().all(|peer| is_member(peer)));
    all.sort();
    all.dedup();
    !keepers.acceptors.is_empty() && known && all.len() == count
}
