//! What a node's machines want of its disk and of others, carried out; and what the disk tells when it is
//! done. Every record that becomes durable passes the oracles here.

use super::*;

impl World {
    // ---- the disk ----

    /// Hands a write to the disk; says whether it was taken.
    pub fn write(&mut self, node: usize, write: Write, then: Then) -> bool {
        let life = self.nodes[node].life;
        let Ok(sync) = self.nodes[node].store.submit(write, then, &mut self.dice) else {
            self.tally.refused_writes += 1;
            return false;
        };
        let checked = self.oracle.bounds.disk_queue(self.nodes[node].store.waiting());
        self.check(checked);
        if let Some(delay) = sync {
            self.after(delay, Thing::Synced { node, life });
        }
        true
    }

    pub fn synced(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let before: BTreeMap<ObjectId, Vec<u8>> = self.nodes[node].store.contents.records.clone();
        let (group, next) = self.nodes[node].store.synced(&mut self.dice);
        if let Some(delay) = next {
            self.after(delay, Thing::Synced { node, life });
        }
        let (writes, thens): (Vec<Write>, Vec<Then>) = group.into_iter().unzip();
        self.records_are_durable(node, before, writes);
        for then in thens {
            match then {
                Then::Paxos { sends } => sends.into_iter().for_each(|send| self.send_paxos(node, send)),
                Then::Founding { sends } => {
                    sends.into_iter().for_each(|send| self.send_founding(node, send));
                }
                Then::Put(put) => self.put_is_durable(node, put),
                Then::Nothing => {}
            }
        }
    }

    /// These were written, in this order, on what was there before.
    pub(super) fn records_are_durable(
        &mut self,
        node: usize,
        mut newest: BTreeMap<ObjectId, Vec<u8>>,
        writes: Vec<Write>,
    ) {
        for write in writes {
            match write {
                Write::Record { object, bytes } => {
                    let old = newest.insert(object, bytes.clone());
                    self.on_record(node, object, old.as_deref(), &bytes);
                }
                Write::Founding(bytes) => self.on_founding_record(node, &bytes),
                Write::Fence { .. } | Write::Body { .. } => {}
            }
        }
    }

    /// A record is durable: what must hold of it.
    pub(super) fn on_record(&mut self, node: usize, object: ObjectId, old: Option<&[u8]>, new: &[u8]) {
        let old = old.and_then(|bytes| self.read_record(bytes));
        let new = self.read_record(new);
        let checked = signed::on_disk(node, &object, new.as_ref());
        self.check(checked);
        let Some(new) = new else { return };
        let checked = self.oracle.durable(node, &object, old.as_ref(), &new);
        self.check(checked);
    }

    pub(super) fn on_founding_record(&mut self, node: usize, bytes: &[u8]) {
        match FoundingRecord::decode(bytes) {
            Ok(record) => {
                let checked = self.oracle.founding.durable(node, &record);
                self.check(checked);
            }
            Err(error) => self.fail(|| format!("a founding record cannot be read: {error}")),
        }
    }

    // ---- questions ----

    pub fn ask_peer(&mut self, node: usize, peer: PeerId, request: &Request, asked: Asked, patience: Millis) {
        if let Some(to) = self.index_of(&peer) {
            self.ask(node, to, request, asked, patience);
        }
    }

    /// Asks another node; what comes of it goes to whoever `asked` says.
    pub fn ask(&mut self, node: usize, to: usize, request: &Request, asked: Asked, patience: Millis) {
        let number = self.next_number();
        self.wait_for(node, number, asked, patience);
        let packet = Packet::Ask { number, bytes: request.encode() };
        self.send(Party::Node(node), Party::Node(to), packet);
    }

    pub fn wait_for(&mut self, node: usize, number: u64, asked: Asked, patience: Millis) {
        let life = self.nodes[node].life;
        if let Some(running) = &mut self.nodes[node].running {
            running.asked.insert(number, asked);
            let waiting = running.asked.len();
            let checked = self.oracle.bounds.questions(waiting);
            self.check(checked);
        }
        self.after(patience.0, Thing::Expired { party: Party::Node(node), life, number });
    }

    pub fn tell(&mut self, node: usize, who: Party, number: u64, response: &Response) {
        let packet = Packet::Told { number, bytes: response.encode() };
        self.send(Party::Node(node), who, packet);
    }
}
