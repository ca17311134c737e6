//! An acceptor of the old view in a handover: fences itself, and lists what it has.
//!
//! A fence is kept in memory from the moment it is asked for, and said only once it is durable. It is never
//! lowered or lifted; a view of its epoch or a later one is simply not behind it.

use super::{
    Action, Desk, Send, SlotPage,
    messages::{Body, Message, RoundId},
    view::{Fence, Listing},
};
use crate::model::{ObjectId, PeerId, limits, member::Epoch, slots::HashSlot};

/// The id that stands for a whole slot in a message.
pub(super) fn first_of(slot: HashSlot) -> ObjectId {
    let mut id = [0; 32];
    id[0] = slot.0;
    ObjectId(id)
}

/// Refuses what is older, from now on, and says so once that is durable.
pub(super) fn on_fence(from: PeerId, asked: &Message, desk: &mut Desk<'_>) {
    let (to, slot) = (asked.epoch, HashSlot::of(&asked.object));
    let me = desk.config.me;
    let answer = |body| Message { epoch: to, object: asked.object, round: asked.round, body };
    let fenced = Send { to: from, message: answer(Body::Fenced) };
    let state = desk.slots.get_mut(slot);
    if state.is_fenced(to) {
        return desk.send(fenced);
    }
    // Asked before the disk has answered: whoever asks once more then hears it.
    if state.fence.is_some_and(|fence| fence.is_being_written && fence.to >= to) {
        return;
    }
    let to = state.fence.map_or(to, |fence| fence.to.max(to));
    state.fence = Some(Fence { to, is_durable: false, is_being_written: true });
    desk.counters.sent += u64::from(from != me);
    let round = RoundId { boot: desk.config.boot, number: 0 };
    let written = Message { epoch: to, object: asked.object, round, body: Body::FenceWritten };
    desk.out.push(Action::WriteFence { slot, to, then: vec![Send { to: me, message: written }, fenced] });
}

/// The fence is on disk.
pub(super) fn written(slot: HashSlot, to: Epoch, desk: &mut Desk<'_>) {
    if let Some(fence) = desk.slots.get_mut(slot).fence.as_mut().filter(|fence| fence.to == to) {
        *fence = Fence { to, is_durable: true, is_being_written: false };
    }
}

/// The fence is not on disk; it holds all the same, and is written when it is asked for again.
pub(super) fn refused(slot: HashSlot, desk: &mut Desk<'_>) {
    if let Some(fence) = &mut desk.slots.get_mut(slot).fence {
        fence.is_being_written = false;
    }
}

/// Asks the disk for the page, unless it is being read.
pub(super) fn on_list(from: PeerId, asked: &Message, after: Option<ObjectId>, desk: &mut Desk<'_>) {
    let slot = HashSlot::of(&asked.object);
    let listing = Listing { after, to: from, epoch: asked.epoch, round: asked.round };
    let old = desk.slots.get_mut(slot).listing.replace(listing);
    if old.is_none_or(|old| old.after != after) {
        desk.out.push(Action::Scan { slot, after });
    }
}

/// Says what the disk has; nothing if it could not be read, for then the installer asks again.
pub(super) fn on_scanned(
    slot: HashSlot,
    after: Option<ObjectId>,
    page: Option<SlotPage>,
    desk: &mut Desk<'_>,
) {
    let Some(listing) = desk.slots.get_mut(slot).listing.take_if(|listing| listing.after == after) else {
        return;
    };
    let Some(SlotPage { mut objects, more }) = page else { return };
    let more = more || objects.len() > limits::HANDOVER_PAGE_OBJECTS_MAX;
    objects.truncate(limits::HANDOVER_PAGE_OBJECTS_MAX);
    let Listing { to, epoch, round, .. } = listing;
    let body = Body::Listed { objects, more };
    desk.send(Send { to, message: Message { epoch, object: first_of(slot), round, body } });
}
