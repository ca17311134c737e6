//! Every node state, message and history that was met, once each, and where each step of a node leads.
//!
//! A step of one node depends on that node alone, so the real machine takes it once; in the many states of
//! the whole that share the node it is looked up.

use std::{collections::HashMap, sync::Arc};

use super::{
    history::{History, Shown, Tester},
    node::{Node, Stepped, Word},
    scenario::{Cluster, Scenario, client_of},
};
use crate::proto::{
    chunkpaxos::{AcceptorRecord, Body, Command, Outcome, RoundId},
    testing::Met,
};

/// What happens to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// A message arrives, again perhaps.
    Deliver(u32),
    /// Its oldest write is durable.
    Sync,
    /// Its timer rings.
    Fire,
    /// Its timer rings when all calls are past their deadlines.
    GiveUp,
    /// It dies and starts again.
    Restart { fast_disk: bool },
    /// A client makes its next call.
    Call { client: usize, number: usize },
    /// It will not propose again.
    Retire,
}

/// A message under way for ever.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sent {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) word: Word,
}

impl Sent {
    /// A call for the home: it begins a new round each time that it arrives, so it arrives once.
    pub(super) fn is_forward(&self) -> bool {
        matches!(&self.word, Word::Lane(message) if matches!(message.body, Body::Forward { .. }))
    }
}

/// What a step does.
pub(super) struct Effect {
    pub(super) node: u32,
    pub(super) sends: Vec<u32>,
    /// By client: what was shown, none = that nothing is known.
    pub(super) answers: Vec<(usize, Option<Shown>)>,
}

/// All that was met so far; what is named by a number is never changed.
pub(super) struct Tables {
    cluster: Cluster,
    scenario: Scenario,
    pub(super) nodes: Met<[u8; 32], Node>,
    pub(super) sent: Met<Sent, Sent>,
    pub(super) histories: Met<Tester, History>,
    effects: HashMap<(u32, Step), Option<Arc<Effect>>>,
}

impl Tables {
    pub(super) fn new(cluster: Cluster, scenario: Scenario) -> Self {
        Self {
            cluster,
            scenario,
            nodes: Met::new(),
            sent: Met::new(),
            histories: Met::new(),
            effects: HashMap::new(),
        }
    }

    pub(super) fn node_number(&mut self, node: Node) -> u32 {
        self.nodes.number(node.essence(), node)
    }

    pub(super) fn sent_number(&mut self, mut sent: Sent) -> u32 {
        if let Word::Lane(message) = &mut sent.word
            && let Body::Answered { answer } = &mut message.body
        {
            // What a call cost decides nothing.
            answer.messages = 0;
        }
        self.sent.number(sent.clone(), sent)
    }

    pub(super) fn history_number(&mut self, history: History) -> u32 {
        self.histories.number(history.tester.clone(), history)
    }

    /// Where this step of this node leads; none if it cannot be taken.
    pub(super) fn effect(&mut self, node: u32, step: Step) -> Option<Arc<Effect>> {
        if let Some(known) = self.effects.get(&(node, step)) {
            return known.clone();
        }
        let effect = self.take(node, step).map(|stepped| Arc::new(self.enter(stepped)));
        self.effects.insert((node, step), effect.clone());
        effect
    }

    fn take(&self, node: u32, step: Step) -> Option<Stepped> {
        let node = self.nodes.get(node);
        let object = self.cluster.object;
        match step {
            Step::Deliver(sent) => {
                let Sent { from, word, .. } = self.sent.get(sent);
                node.hear(self.cluster.peers[*from], word.clone(), object)
            }
            Step::Sync => (!node.writes.is_empty()).then(|| node.sync(object)),
            Step::Fire => node.fire(object),
            Step::GiveUp => node.give_up(object),
            Step::Restart { fast_disk } => {
                let boot = node.boot + 1;
                let machine = self.cluster.machine(&self.scenario, node.index, boot);
                Some(node.restart(machine, boot, self.scenario.wipe, fast_disk))
            }
            Step::Call { client, number } => {
                let command = self.cluster.command(&self.scenario, client, number);
                node.call(crate::proto::chunkpaxos::CallId(client as u64), command, object)
            }
            Step::Retire => Some(node.retire()),
        }
    }

    fn enter(&mut self, stepped: Stepped) -> Effect {
        let Stepped { node, sends, answers } = stepped;
        let from = node.index;
        let sends = sends.into_iter().map(|send| {
            let to = self.cluster.index(&send.to);
            self.sent_number(Sent { from, to, word: Word::Lane(send.message) })
        });
        let sends = sends.collect();
        let answer = |(call, outcome): (_, Outcome)| (client_of(call), Shown::of(outcome));
        let answers = answers.into_iter().map(answer).collect();
        Effect { node: self.node_number(node), sends, answers }
    }

    /// What a client's call asks for.
    pub(super) fn command(&self, client: usize, number: usize) -> Command {
        self.cluster.command(&self.scenario, client, number)
    }

    /// Whether this message can lead to nothing any more, so that it is as good as lost: an answer to a round
    /// that is over (the machine takes its ballot's number from it and nothing else), a question of such a
    /// round, a request of such a round below what its acceptor has durably seen.
    pub(super) fn is_dead(&self, nodes: &[u32; 3], sent: u32) -> bool {
        let Sent { from, to, word } = self.sent.get(sent);
        let Word::Lane(message) = word else { return false };
        let is_heard_by = |who: usize, round: RoundId| {
            let node = self.nodes.get(nodes[who]);
            node.machine.waits_for(round)
        };
        let keeper = self.nodes.get(nodes[*to]);
        match &message.body {
            Body::Query => !is_heard_by(*from, message.round),
            Body::Prepare { ballot } => {
                self.scenario.forgets_requests()
                    && !is_heard_by(*from, message.round)
                    && keeper.is_past(ballot, None)
            }
            Body::Accept { ballot, value, .. } => {
                self.scenario.forgets_requests()
                    && !is_heard_by(*from, message.round)
                    && keeper.is_past(ballot, Some(value))
            }
            Body::Forward { .. } => false,
            _ => !self.scenario.late_answers && !is_heard_by(*to, message.round),
        }
    }

    /// The repair messages of a state in which a majority has durably accepted the same.
    pub(super) fn repairs(&mut self, nodes: &[u32; 3]) -> Vec<u32> {
        let accepted: Vec<_> = nodes.iter().map(|n| self.nodes.get(*n).accepted().cloned()).collect();
        let mut found = Vec::new();
        for (from, to, third) in [(0, 1, 2), (1, 2, 0), (2, 0, 1)] {
            if let (Some(one), true) = (&accepted[from], accepted[from] == accepted[to]) {
                let sent = Sent { from, to: third, word: Word::Repair(one.clone()) };
                found.push(self.sent_number(sent));
            }
        }
        found
    }

    /// What lies on the disks of these nodes.
    pub(super) fn disks(&self, nodes: &[u32; 3]) -> [Option<&AcceptorRecord>; 3] {
        nodes.map(|n| self.nodes.get(n).disk.as_ref())
    }
}
