//! A client's part in tasks: the real errand, and what `client::tasks` does for it.

use tintype::proto::errand::{self, Errand, Verdict as Ended};

use super::*;

/// How long a client waits for an answer, and for a transfer that does not move.
const ASK_PATIENCE_MS: u64 = 300;
const STALL_MS: u64 = 500;
/// Tasks of one client at once.
const AT_ONCE: usize = 2;

#[derive(Clone, Copy, Debug)]
enum Awaited {
    Answer(PeerId),
    Gave(Rank),
    Took(Rank),
}

struct Run {
    errand: Errand,
    waiting: BTreeMap<u64, Awaited>,
    wake: Option<u64>,
    /// Under which assignment the answer was made that came last.
    made: Option<Rank>,
}

/// The tasks of one client's process.
#[derive(Default)]
pub struct Errands {
    runs: BTreeMap<TaskId, Run>,
    begun: u64,
}

impl Errands {
    /// Whether it waits for nothing.
    pub fn are_over(&self) -> bool {
        self.runs.is_empty()
    }
}

impl World {
    /// A client has another task, unless it has enough.
    pub fn next_errand(&mut self, client: usize) {
        if self.healed {
            return;
        }
        let (pause, life) = (self.dice.between(1000, 9000), self.clients[client].life);
        self.after(pause, Thing::Errand { client, life });
        let Some(founding) = self.founding.clone() else { return };
        let errands = &mut self.clients[client].errands;
        if errands.runs.len() >= AT_ONCE {
            return;
        }
        errands.begun += 1;
        let task = TaskId { client: identity(client, life), number: errands.begun };
        let errand = Errand::new(errand::Config { task, founding, give_up_at: None });
        let (waiting, wake, made) = (BTreeMap::new(), None, None);
        errands.runs.insert(task, Run { errand, waiting, wake, made });
        self.tally.tasks += 1;
        self.oracle.tasks_end.begun(client, task);
        self.feed_errand(client, task, errand::Event::Start);
        let nodes = self.nodes_of(client);
        self.feed_errand(client, task, errand::Event::Nodes(nodes));
    }

    /// The process dies: nobody waits for its tasks any more.
    pub fn errands_die(&mut self, client: usize) {
        self.clients[client].errands = Errands::default();
        self.oracle.tasks_end.client_died(client);
        let (pause, life) = (self.dice.between(500, 6000), self.clients[client].life);
        self.after(pause, Thing::Errand { client, life });
    }

    /// The nodes that a client is connected with, each client beginning with another.
    fn nodes_of(&self, client: usize) -> Vec<PeerId> {
        let mut nodes: Vec<PeerId> =
            self.neighbours(Party::Client(client)).iter().map(|node| self.nodes[*node].peer).collect();
        let first = client % nodes.len().max(1);
        nodes.rotate_left(first);
        nodes
    }

    pub fn errands_hear_of_nodes(&mut self, client: usize) {
        let nodes = self.nodes_of(client);
        for task in self.tasks_of(client) {
            self.feed_errand(client, task, errand::Event::Nodes(nodes.clone()));
        }
    }

    fn tasks_of(&self, client: usize) -> Vec<TaskId> {
        self.clients[client].errands.runs.keys().copied().collect()
    }

    pub fn errands_wake(&mut self, client: usize) {
        let now = self.now;
        for task in self.tasks_of(client) {
            let Some(run) = self.clients[client].errands.runs.get_mut(&task) else { continue };
            if run.wake.is_some_and(|at| at <= now) {
                run.wake = None;
                self.feed_errand(client, task, errand::Event::Timer(errand::Timer::Wake));
            }
        }
    }

    /// An answer to a client.
    pub fn client_hears_of_tasks(&mut self, client: usize, said: Said) {
        let number = match said {
            Said::Reply { number, .. } | Said::Gave { number, .. } | Said::Took { number, .. } => number,
            said => return self.fail(|| format!("client {client} is told {said:?}")),
        };
        let Some((task, awaited)) = self.awaited(client, number) else { return };
        let event = match (awaited, said) {
            (Awaited::Answer(from), Said::Reply { reply, .. }) => {
                errand::Event::Answered { from, reply: Some(reply) }
            }
            (Awaited::Gave(rank), Said::Gave { end, .. }) => errand::Event::Gave { rank, end },
            (Awaited::Took(rank), Said::Took { end, made, .. }) => {
                if let Some(run) = self.clients[client].errands.runs.get_mut(&task) {
                    run.made = made;
                }
                errand::Event::Took { rank, end }
            }
            (awaited, said) => return self.fail(|| format!("{awaited:?} is answered by {said:?}")),
        };
        self.feed_errand(client, task, event);
    }

    /// Nobody has answered a question of this number; says whether it was one about tasks.
    pub fn errand_expired(&mut self, client: usize, number: u64) -> bool {
        let Some((task, awaited)) = self.awaited(client, number) else { return false };
        let end = End::Broke;
        let event = match awaited {
            Awaited::Answer(from) => errand::Event::Answered { from, reply: None },
            Awaited::Gave(rank) => errand::Event::Gave { rank, end },
            Awaited::Took(rank) => errand::Event::Took { rank, end },
        };
        self.feed_errand(client, task, event);
        true
    }

    fn awaited(&mut self, client: usize, number: u64) -> Option<(TaskId, Awaited)> {
        let mut runs = self.clients[client].errands.runs.iter_mut();
        runs.find_map(|(task, run)| Some((*task, run.waiting.remove(&number)?)))
    }

    fn feed_errand(&mut self, client: usize, task: TaskId, event: errand::Event) {
        let (now, mut out) = (Millis(self.now), Outbox::new());
        let Some(run) = self.clients[client].errands.runs.get_mut(&task) else { return };
        run.errand.handle(now, event, &mut out);
        for action in out.drain().collect::<Vec<_>>() {
            self.execute_errand(client, task, action);
        }
    }

    fn execute_errand(&mut self, client: usize, task: TaskId, action: errand::Action) {
        use errand::Action;
        let number = self.next_number();
        match action {
            Action::Ask { to, question } => {
                let said = Said::Question { number, task, question };
                self.await_for(client, task, to, (number, Awaited::Answer(to)), said);
            }
            Action::Give { worker, rank } => {
                let said = Said::Give { number, task, rank };
                self.await_for(client, task, worker, (number, Awaited::Gave(rank)), said);
            }
            Action::Take { worker, rank } => {
                let said = Said::Take { number, task, rank };
                self.await_for(client, task, worker, (number, Awaited::Took(rank)), said);
            }
            Action::Effective { rank } => {
                let made = self.clients[client].errands.runs.get(&task).and_then(|run| run.made);
                self.tally.effective += 1;
                let checked = self.oracle.effects.effective(task, rank, made);
                self.check(checked);
            }
            Action::End(verdict) => {
                self.clients[client].errands.runs.remove(&task);
                if verdict != Ended::Answered {
                    return self.fail(|| format!("{task:?} ended as {verdict:?}"));
                }
                self.oracle.tasks_end.ended(&task);
            }
            Action::Publicise(_) => {}
            Action::Arm { at, .. } => {
                let (life, wait) = (self.clients[client].life, at.0.saturating_sub(self.now));
                if let Some(run) = self.clients[client].errands.runs.get_mut(&task) {
                    run.wake = Some(at.0);
                    self.after(wait, Thing::ErrandWakes { client, life });
                }
            }
        }
    }

    fn await_for(&mut self, client: usize, task: TaskId, to: PeerId, awaited: (u64, Awaited), said: Said) {
        let (number, awaited) = awaited;
        let Some(to) = self.index_of(&to) else { return self.fail(|| "a question to nobody".into()) };
        let is_transfer = !matches!(awaited, Awaited::Answer(_));
        if let Some(run) = self.clients[client].errands.runs.get_mut(&task) {
            // A transfer ends the one before.
            run.waiting.retain(|_, other| !is_transfer || matches!(other, Awaited::Answer(_)));
            run.waiting.insert(number, awaited);
        }
        let checked = self.oracle.tasks_end.wished(task, self.now);
        self.check(checked);
        let (one, other) = (Party::Client(client), Party::Node(to));
        let patience = match is_transfer {
            // Without a connection one hears so at once.
            _ if !self.links.is_connected(one, other) => 1,
            true => STALL_MS,
            false => ASK_PATIENCE_MS,
        };
        let life = self.clients[client].life;
        self.after(patience, Thing::Expired { party: one, life, number });
        self.send(one, other, Packet::OfTasks(said));
    }
}

/// A client's identity is made with its process.
fn identity(client: usize, life: u64) -> PeerId {
    let seed = *blake3::hash(&[&(client as u64).to_le_bytes()[..], &life.to_le_bytes()].concat()).as_bytes();
    let keys = libp2p_identity::Keypair::ed25519_from_bytes(seed).expect("32 bytes are a key");
    keys.public().to_peer_id()
}
