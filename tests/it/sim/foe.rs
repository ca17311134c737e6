//! Somebody who holds the cluster's key and not the user's: proposes registers that the user has not signed,
//! as a client does and as a member does.

use tintype::{
    model::{
        ObjectId,
        member::{Epoch, NodeNumber},
        register::RawRegister,
        rpc::Request,
    },
    proto::chunkpaxos::{AcceptorRecord, Ballot, Body, Message, RoundId},
};

use super::{
    links::Party,
    world::{Packet, World},
};

impl World {
    /// Takes a register that is there, turns a bit, and tries to have it accepted.
    pub fn forge(&mut self, node: usize) {
        let Some((object, mut value)) = self.some_register() else { return };
        let at = self.dice.below(value.0.len() as u64) as usize;
        value.0[at] ^= 1 << self.dice.below(8);
        if self.dice.permille(500) {
            let packet =
                Packet::Ask { number: self.next_number(), bytes: Request::Propose { value }.encode() };
            return self.send(Party::Client(0), Party::Node(node), packet);
        }
        let from = self.dice.below(self.nodes.len() as u64) as usize;
        let number = self.founding.as_ref().and_then(|f| f.number_of(&self.nodes[from].peer));
        let node_number = number.unwrap_or(NodeNumber(0));
        let ballot = Ballot { epoch: Epoch::FOUNDING, counter: 1_000_000, node: node_number, boot: 9 };
        let round = RoundId { boot: 9, number: 9 };
        let body = Body::Accept { ballot, value, next: None };
        let message: Message<RawRegister> = Message { epoch: Epoch::FOUNDING, object, round, body };
        self.send(Party::Node(from), Party::Node(node), Packet::Lane(message.encode(0)));
    }

    fn some_register(&self) -> Option<(ObjectId, RawRegister)> {
        let records = self.nodes.iter().flat_map(|node| &node.store.contents.records);
        let mut accepted = records.filter_map(|(object, bytes)| {
            let record = AcceptorRecord::<RawRegister>::decode(bytes).ok()?;
            Some((*object, record.accepted?.value))
        });
        accepted.next()
    }
}
