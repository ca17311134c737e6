//! **No acknowledged put is lost**: at the moment of the answer as many disks hold it as the answer says, and
//! at the end, when everything is mended but what is gone for good, it is there.

use std::collections::{BTreeMap, BTreeSet};

use tintype::{
    model::{BodyId, ObjectId, register::RawRegister},
    proto::chunkpaxos::AcceptorRecord,
};

use super::{super::store::Store, Checked};

/// A write that was acknowledged.
#[derive(Clone, Debug)]
pub struct Acked {
    pub object: ObjectId,
    pub version: u64,
    /// How many machines may be lost.
    pub survives: u64,
    /// How many nodes have the register.
    pub copies: u64,
    /// Its chunk and manifest; a removal has none.
    pub bodies: Vec<BodyId>,
}

/// The newest version of an object that was chosen, whoever was told.
#[derive(Clone, Copy, Debug)]
pub struct Newest {
    pub version: u64,
    /// Whether a good copy of its manifest is left. It names the bodies of its predecessors: without it they
    /// are where they were, and nobody makes more copies of them.
    pub has_manifest: bool,
}

#[derive(Default)]
pub struct Kept {
    acked: Vec<Acked>,
    pub count: u64,
}

impl Kept {
    /// A client is told. `stores` are all disks, and whether the machine is gone for good.
    pub fn acknowledged(&mut self, acked: Acked, stores: &[(&Store, bool)], rots: bool) -> Checked {
        self.count += 1;
        let registers = stores.iter().filter(|(store, _)| holds_register(store, &acked)).count() as u64;
        if registers < acked.copies && !rots {
            return Err(format!("{acked:?} was acknowledged, {registers} disks hold its register"));
        }
        for body in &acked.bodies {
            let copies = stores.iter().filter(|(store, _)| store.holds(body)).count() as u64;
            if copies < acked.survives + 1 && !rots {
                return Err(format!("{acked:?} was acknowledged, {body} is on {copies} disks"));
            }
        }
        // Its only copy may have been on a machine that was lost while it was put: the answer said that it
        // survives the loss of none.
        if acked.survives > 0 || all_here(&acked, stores) {
            self.acked.push(acked);
        }
        Ok(())
    }

    /// A machine is gone for good, or a body on one has rotted: what was acknowledged as not surviving that
    /// may be lost with it.
    pub fn one_is_lost(&mut self, stores: &[(&Store, bool)]) {
        self.acked.retain(|acked| acked.survives > 0 || all_here(acked, stores));
    }

    /// The newest acknowledged version of each object.
    pub fn newest(&self) -> BTreeMap<ObjectId, u64> {
        let mut newest = BTreeMap::<ObjectId, u64>::new();
        for acked in &self.acked {
            let version = newest.entry(acked.object).or_default();
            *version = (*version).max(acked.version);
        }
        newest
    }

    /// Whether this version was acknowledged, as one that is still there.
    pub fn includes(&self, object: &ObjectId, version: u64) -> bool {
        self.acked.iter().any(|acked| acked.object == *object && acked.version == version)
    }

    /// All bodies of all that was acknowledged.
    pub fn bodies(&self) -> BTreeSet<BodyId> {
        self.acked.iter().flat_map(|acked| acked.bodies.iter().copied()).collect()
    }

    /// Everything is mended: every body that is still named by its object's chain is on enough disks.
    /// `chosen` has the newest version of each object.
    pub fn all_there(
        &self,
        stores: &[(&Store, bool)],
        copies: usize,
        chosen: &BTreeMap<ObjectId, Newest>,
    ) -> Checked {
        let mut newest = self.newest();
        for (object, version) in &mut newest {
            *version = (*version).max(chosen.get(object).map_or(0, |newest| newest.version));
        }
        let kept = tintype::model::limits::VERSIONS_KEPT as u64;
        for acked in &self.acked {
            if acked.version + kept <= newest[&acked.object] {
                continue;
            }
            let is_named = chosen.get(&acked.object).is_none_or(|newest| newest.has_manifest);
            let copies = if is_named { copies } else { copies.min(1) };
            for body in &acked.bodies {
                let there = stores.iter().filter(|(store, gone)| !gone && store.holds(body)).count();
                if there < copies {
                    return Err(format!(
                        "version {} of {} was acknowledged; of its body {body} {there} copies are left, \
                         not {copies}",
                        acked.version, acked.object
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Whether each body is on a machine that is not gone.
fn all_here(acked: &Acked, stores: &[(&Store, bool)]) -> bool {
    acked.bodies.iter().all(|body| stores.iter().any(|(store, gone)| !gone && store.holds(body)))
}

fn holds_register(store: &Store, acked: &Acked) -> bool {
    let record = store.contents.records.get(&acked.object).map(|b| AcceptorRecord::<RawRegister>::decode(b));
    let Some(Ok(record)) = record else { return false };
    let value = record.accepted.and_then(|a| tintype::model::register::Register::decode(&a.value.0).ok());
    value.is_some_and(|value| value.version >= acked.version)
}
