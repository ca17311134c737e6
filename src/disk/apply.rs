//! Applies a batch inside one transaction of the record file.
//!
//! Each table is opened once, when the first write needs it. Nothing here commits, and nothing is told before
//! its caller has.

use redb::{Key, ReadableTable, Table, TableDefinition, Value, WriteTransaction};

use super::{
    records::{Before, Counts, Op, fits, owner_key},
    tables::{
        ACCEPTORS, BODIES, BODY_BYTES, COUNTS, FENCES, META, OWNERS, PROMISES, SEEN, VERIFIED, with_sum,
    },
};
use crate::model::BodyId;

/// Applies all of it and returns the counts after it.
pub(super) fn apply<'a>(
    txn: &WriteTransaction,
    ops: impl Iterator<Item = &'a Op>,
) -> Result<Counts, redb::Error> {
    let mut counts = txn.open_table(COUNTS)?;
    let count = |name| -> Result<u64, redb::Error> { Ok(counts.get(name)?.map_or(0, |n| n.value())) };
    let before = Counts { body_bytes: count(BODY_BYTES)?, promises: count(PROMISES)? };
    let mut tables = Tables::new(txn, before.body_bytes);
    let mut promised = false;
    for op in ops {
        promised |= op.is_promise();
        tables.apply(op)?;
    }
    let after = Counts { body_bytes: tables.body_bytes, promises: before.promises + u64::from(promised) };
    if after.body_bytes != before.body_bytes {
        counts.insert(BODY_BYTES, after.body_bytes)?;
    }
    if promised {
        counts.insert(PROMISES, after.promises)?;
    }
    Ok(after)
}

type Slot<'txn, K, V> = Option<Table<'txn, K, V>>;

struct Tables<'txn> {
    txn: &'txn WriteTransaction,
    acceptors: Slot<'txn, &'static [u8; 32], &'static [u8]>,
    owners: Slot<'txn, &'static [u8; 64], ()>,
    bodies: Slot<'txn, &'static [u8; 32], &'static [u8]>,
    verified: Slot<'txn, &'static [u8; 32], u64>,
    body_bytes: u64,
}

impl<'txn> Tables<'txn> {
    fn new(txn: &'txn WriteTransaction, body_bytes: u64) -> Self {
        Self { txn, acceptors: None, owners: None, bodies: None, verified: None, body_bytes }
    }

    fn apply(&mut self, op: &Op) -> Result<(), redb::Error> {
        match op {
            Op::Record { object, owner, bytes } => {
                let acceptors = opened(&mut self.acceptors, self.txn, ACCEPTORS)?;
                acceptors.insert(&object.0, with_sum(&object.0, bytes).as_slice())?;
                if let Some(owner) = owner {
                    let owners = opened(&mut self.owners, self.txn, OWNERS)?;
                    owners.insert(&owner_key(*owner, *object), ())?;
                }
            }
            Op::Meta { key, value: Some(value) } => {
                let value = with_sum(key.name().as_bytes(), value);
                self.txn.open_table(META)?.insert(key.name(), value.as_slice())?;
            }
            Op::Meta { key, value: None } => {
                self.txn.open_table(META)?.remove(key.name())?;
            }
            Op::Fence { slot, epoch } => {
                let value = with_sum(&[slot.0], &epoch.0.to_le_bytes());
                self.txn.open_table(FENCES)?.insert(slot.0, value.as_slice())?;
            }
            Op::Seen { peer, seen } => {
                let value = seen.encode();
                let peer = peer.to_bytes();
                self.txn.open_table(SEEN)?.insert(peer.as_slice(), with_sum(&peer, &value).as_slice())?;
            }
            Op::Body { id, bytes, unix_ms, before } => {
                let found = self.put_body(id, bytes.0.as_ref().as_ref())?;
                self.verify(id, *unix_ms)?;
                // Nobody else tells it: a batch is applied once.
                let _ = before.set(found);
            }
            Op::Verified { id, unix_ms } => self.verify(id, *unix_ms)?,
            Op::DropBadBody { id } => self.drop_bad_body(id)?,
            #[cfg(test)]
            Op::Rot { id, bytes } => self.replace_body(id, bytes)?,
        }
        Ok(())
    }

    fn verify(&mut self, id: &BodyId, unix_ms: u64) -> Result<(), redb::Error> {
        opened(&mut self.verified, self.txn, VERIFIED)?.insert(&id.0, unix_ms)?;
        Ok(())
    }

    /// Writes a small body unless a good copy is there.
    fn put_body(&mut self, id: &BodyId, bytes: &[u8]) -> Result<Before, redb::Error> {
        let before = match opened(&mut self.bodies, self.txn, BODIES)?.get(&id.0)? {
            None => Before::Nothing,
            Some(old) if fits(id, old.value()) => return Ok(Before::Good),
            Some(old) => Before::Bad(old.value().to_vec()),
        };
        self.replace_body(id, bytes)?;
        Ok(before)
    }

    fn replace_body(&mut self, id: &BodyId, bytes: &[u8]) -> Result<(), redb::Error> {
        let bodies = opened(&mut self.bodies, self.txn, BODIES)?;
        let old = bodies.insert(&id.0, bytes)?.map_or(0, |old| old.value().len() as u64);
        self.body_bytes = (self.body_bytes + bytes.len() as u64).saturating_sub(old);
        Ok(())
    }

    /// Removes a small body, but only if it is bad now: a good copy may have replaced it meanwhile.
    fn drop_bad_body(&mut self, id: &BodyId) -> Result<(), redb::Error> {
        let bodies = opened(&mut self.bodies, self.txn, BODIES)?;
        let is_bad = bodies.get(&id.0)?.is_some_and(|bytes| !fits(id, bytes.value()));
        if is_bad {
            let len = bodies.remove(&id.0)?.map_or(0, |bytes| bytes.value().len() as u64);
            opened(&mut self.verified, self.txn, VERIFIED)?.remove(&id.0)?;
            self.body_bytes = self.body_bytes.saturating_sub(len);
        }
        Ok(())
    }
}

fn opened<'slot, 'txn, K: Key + 'static, V: Value + 'static>(
    slot: &'slot mut Slot<'txn, K, V>,
    txn: &'txn WriteTransaction,
    table: TableDefinition<K, V>,
) -> Result<&'slot mut Table<'txn, K, V>, redb::Error> {
    match slot {
        Some(open) => Ok(open),
        None => Ok(slot.insert(txn.open_table(table)?)),
    }
}
