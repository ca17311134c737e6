//! What a node does with what it hears about tasks, as `node::tasks` does.

use tintype::{
    model::task::Submitted,
    proto::history::{Answer, Wish},
};

use super::*;

impl World {
    pub fn node_hears_of_tasks(&mut self, node: usize, from: Party, said: Said) {
        if self.tasks(node).is_none() {
            // It is not founded yet, and says so; whoever asked goes on to another.
            return self.refuse_of_tasks(node, from, &said);
        }
        match (from, said) {
            (Party::Node(peer), said) => self.hear_member(node, peer, said),
            (Party::Client(_), Said::Question { number, task, question }) => {
                self.on_question(node, from, number, task, question);
            }
            (Party::Client(_), Said::Give { number, task, rank }) => {
                self.on_give(node, from, number, task, rank)
            }
            (Party::Client(_), Said::Take { number, task, rank }) => {
                self.feed_history(node, history::Event::Sign { task });
                let answer = self.tasks(node).and_then(|tasks| tasks.answers.get(&task).copied());
                let made = answer.filter(|made| *made == rank);
                let end = if made.is_some() { End::Done } else { End::Refused };
                self.send(Party::Node(node), from, Packet::OfTasks(Said::Took { number, end, made }));
            }
            (from, said) => self.fail(|| format!("{from:?} says {said:?} to node {node}")),
        }
    }

    fn refuse_of_tasks(&mut self, node: usize, from: Party, said: &Said) {
        let end = End::Refused;
        let answer = match said {
            Said::Question { number, question: Question::Submit { .. }, .. } => {
                let submitted = Submitted::NotCoordinator { coordinator: None };
                Said::Reply { number: *number, reply: Reply::Submitted(submitted) }
            }
            Said::Question { number, .. } => {
                Said::Reply { number: *number, reply: Reply::Standing(Default::default()) }
            }
            Said::Give { number, .. } => Said::Gave { number: *number, end },
            Said::Take { number, .. } => Said::Took { number: *number, end, made: None },
            _ => return,
        };
        self.send(Party::Node(node), from, Packet::OfTasks(answer));
    }

    fn hear_member(&mut self, node: usize, peer: usize, said: Said) {
        let from = self.nodes[peer].peer;
        match said {
            Said::Election { number, message } => {
                let Ok(message) = election::Message::decode(&message) else {
                    return self.fail(|| "an election message that cannot be read".into());
                };
                let Some(number) = number else {
                    return self.feed_election(node, election::Event::Told { from, message });
                };
                let Some(tasks) = self.tasks(node) else { return };
                tasks.next_call += 1;
                let call = tasks.next_call;
                tasks.elections.insert(call, (Party::Node(peer), number));
                self.feed_election(node, election::Event::Asked { from, call, message });
                if self.tasks(node).is_some_and(|tasks| tasks.elections.contains_key(&call)) {
                    self.fail(|| format!("node {node} does not answer a candidate"));
                }
            }
            Said::Record(record) => self.feed_history(node, history::Event::Heard { record }),
            Said::Reserve { number, record } => {
                let call = self.note_call(node, Party::Node(peer), number);
                self.feed_history(node, history::Event::Reserve { call, record });
            }
            Said::Tasks { number, after } => {
                let Some(tasks) = self.tasks(node) else { return };
                let (records, next) = tasks.history.page(after);
                self.say(node, &from, Said::Page { number, records, next });
            }
            Said::ElectionAnswer { number, .. }
            | Said::Verdict { number, .. }
            | Said::Page { number, .. } => self.of_tasks_answered(node, number, Some(said)),
            said => self.fail(|| format!("node {peer} says {said:?} to node {node}")),
        }
    }

    fn note_call(&mut self, node: usize, who: Party, number: u64) -> CallId {
        let call = CallId(self.next_number());
        if let Some(tasks) = self.tasks(node) {
            tasks.submissions.insert(call, (who, number));
        }
        call
    }

    /// What came of a question to a member; none = no answer in time.
    pub fn of_tasks_answered(&mut self, node: usize, number: u64, said: Option<Said>) {
        let Some(running) = &mut self.nodes[node].running else { return };
        let Some(Asked::OfTasks(asked)) = running.asked.remove(&number) else { return };
        match (asked, said) {
            (AskedOf::Election { peer }, said) => {
                let answer = match said {
                    Some(Said::ElectionAnswer { message, .. }) => election::Message::decode(&message).ok(),
                    _ => None,
                };
                self.feed_election(node, election::Event::Answered { from: peer, answer });
            }
            (AskedOf::Place { peer, task, rank }, said) => {
                let verdict = match said {
                    Some(Said::Verdict { verdict, .. }) => Some(verdict),
                    _ if self.plan.wrong.silence_is_refusal => Some(Verdict::Full),
                    _ => None,
                };
                self.feed_history(node, history::Event::Reserved { from: peer, task, rank, verdict });
            }
            (AskedOf::Tasks { peer, after }, Some(Said::Page { records, next, .. })) => {
                for record in records {
                    self.feed_history(node, history::Event::Heard { record });
                }
                if next > after {
                    self.ask_for_tasks(node, peer, next);
                }
            }
            (AskedOf::Tasks { .. }, _) => {}
        }
    }

    fn on_question(&mut self, node: usize, from: Party, number: u64, task: TaskId, question: Question) {
        let event = match question {
            Question::Submit { above, avoid } => {
                let call = self.note_call(node, from, number);
                let kind = TaskKind("hide".into());
                let wish = Wish { task, kind, payload_bytes: 1000, above, avoid };
                return self.feed_history(node, history::Event::Submit { call, wish });
            }
            Question::Poll => {
                let call = self.note_call(node, from, number);
                return self.feed_history(node, history::Event::Poll { call, task });
            }
            Question::Acknowledge => history::Event::Acknowledge { task },
            Question::Cancel => history::Event::Cancel { task },
        };
        self.feed_history(node, event);
        let said = Said::Reply { number, reply: Reply::Done };
        self.send(Party::Node(node), from, Packet::OfTasks(said));
    }

    fn on_give(&mut self, node: usize, from: Party, number: u64, task: TaskId, rank: Rank) {
        self.feed_history(node, history::Event::Sign { task });
        let Some(tasks) = self.tasks(node) else { return };
        let end = match tasks.expected.get_mut(&task) {
            Some((expected, is_here)) if *expected == rank && !*is_here => {
                *is_here = true;
                End::Done
            }
            _ => End::Refused,
        };
        self.send(Party::Node(node), from, Packet::OfTasks(Said::Gave { number, end }));
        if end == End::Done {
            self.feed_history(node, history::Event::Received { task, rank });
        }
    }

    pub(super) fn answer_of_tasks(&mut self, node: usize, call: CallId, answer: Answer) {
        let Some(tasks) = self.tasks(node) else { return };
        let Some((who, number)) = tasks.submissions.remove(&call) else {
            return self.fail(|| format!("node {node} answers {call:?} twice, or nobody asked it"));
        };
        let coordinator = tasks.election.coordinator().map(|(peer, _)| peer);
        let said = match answer {
            Answer::Submitted(Submitted::NotCoordinator { .. }) => {
                let coordinator = coordinator.filter(|peer| *peer != self.nodes[node].peer);
                let submitted = Submitted::NotCoordinator { coordinator };
                Said::Reply { number, reply: Reply::Submitted(submitted) }
            }
            Answer::Submitted(submitted) => Said::Reply { number, reply: Reply::Submitted(submitted) },
            Answer::Standing(standing) => Said::Reply { number, reply: Reply::Standing(standing) },
            Answer::Verdict(verdict) => Said::Verdict { number, verdict },
        };
        self.send(Party::Node(node), who, Packet::OfTasks(said));
    }
}
