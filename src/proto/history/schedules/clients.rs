//! The clients of a schedule: what the driver of an errand does.

use super::{nodes::Packet, *};
use crate::proto::errand::{self, Errand, Verdict as Ended};

/// Tasks of one client, one after the other or some at once.
const TASKS: u64 = 6;

/// What comes back to a client.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Answer { number: u64, reply: Reply },
    Gave { number: u64, end: End },
    Took { number: u64, end: End, made: Option<Rank> },
}

impl Told {
    fn number(&self) -> u64 {
        match self {
            Told::Answer { number, .. } | Told::Gave { number, .. } | Told::Took { number, .. } => *number,
        }
    }
}

/// What an errand waits for.
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
    /// Under which assignment the answer was made that was taken last.
    made: Option<Rank>,
    ended: Option<Ended>,
    was_cancelled: bool,
    was_effective: bool,
}

pub(super) struct Client {
    peer: PeerId,
    is_alive: bool,
    runs: Vec<Run>,
}

impl Client {
    pub(super) fn new(number: usize) -> Self {
        Self { peer: crate::proto::testing::peers(16)[15 - number], is_alive: true, runs: Vec::new() }
    }

    pub(super) fn die(&mut self) {
        self.is_alive = false;
    }

    fn task(&self, run: usize) -> TaskId {
        TaskId { client: self.peer, number: run as u64 }
    }

    pub(super) fn check_ended(&self) -> Checked {
        for (number, run) in self.runs.iter().enumerate().filter(|_| self.is_alive) {
            let is_well = match run.ended {
                Some(Ended::Answered) => run.was_effective,
                Some(Ended::Cancelled) => run.was_cancelled && !run.was_effective,
                _ => false,
            };
            if !is_well {
                let (task, errand, ended) = (self.task(number), &run.errand, run.ended);
                return Err(format!("{task:?} ended as {ended:?}: {errand:?}, {:?}", run.waiting));
            }
        }
        Ok(())
    }
}

impl World {
    pub(super) fn new_task(&mut self, client: usize) -> Checked {
        let it = &mut self.clients[client];
        if !it.is_alive || self.healed || it.runs.len() as u64 >= TASKS {
            return Ok(());
        }
        let run = it.runs.len();
        let (task, founding) = (it.task(run), founding(self.peers.len()));
        let errand = Errand::new(errand::Config { task, founding, give_up_at: None });
        let (waiting, wake, made, ended) = (BTreeMap::new(), None, None, None);
        let (was_cancelled, was_effective) = (false, false);
        it.runs.push(Run { errand, waiting, wake, made, ended, was_cancelled, was_effective });
        self.run_errand(client, run, errand::Event::Start)?;
        self.run_errand(client, run, errand::Event::Nodes(self.peers.clone()))?;
        let pause = self.dice.below(4000);
        self.at(pause, Thing::NewTask { client });
        Ok(())
    }

    pub(super) fn cancel(&mut self, client: usize) -> Checked {
        let Some(run) = self.clients[client].runs.len().checked_sub(1) else { return Ok(()) };
        if !self.clients[client].is_alive || self.clients[client].runs[run].ended.is_some() {
            return Ok(());
        }
        self.clients[client].runs[run].was_cancelled = true;
        if self.dice.percent(50) {
            return self.run_errand(client, run, errand::Event::Cancel);
        }
        // By somebody else, at any node that has heard of it: it may be lost, and then the task goes on.
        let (task, node) = (self.clients[client].task(run), self.some_node());
        self.feed(node, Event::Cancel { task })
    }

    pub(super) fn on_wake(&mut self, client: usize) -> Checked {
        for run in 0..self.clients[client].runs.len() {
            let now = self.now;
            let it = &mut self.clients[client].runs[run];
            if it.wake.is_some_and(|at| at <= now) {
                it.wake = None;
                self.run_errand(client, run, errand::Event::Timer(errand::Timer::Wake))?;
            }
        }
        Ok(())
    }

    pub(super) fn tell_client(&mut self, client: usize, told: Told) {
        if !self.healed && self.dice.percent(self.loss) {
            return;
        }
        let delay = 1 + self.dice.below(5);
        self.at(delay, Thing::Client { to: client, told });
    }

    pub(super) fn on_told(&mut self, client: usize, told: Told) -> Checked {
        let number = told.number();
        let Some((run, awaited)) = self.taken(client, number) else { return Ok(()) };
        let event = match (awaited, told) {
            (Awaited::Answer(from), Told::Answer { reply, .. }) => {
                errand::Event::Answered { from, reply: Some(reply) }
            }
            (Awaited::Gave(rank), Told::Gave { end, .. }) => errand::Event::Gave { rank, end },
            (Awaited::Took(rank), Told::Took { end, made, .. }) => {
                self.clients[client].runs[run].made = made;
                errand::Event::Took { rank, end }
            }
            (awaited, told) => return Err(format!("{told:?} for {awaited:?}")),
        };
        self.run_errand(client, run, event)
    }

    pub(super) fn on_patience(&mut self, client: usize, number: u64) -> Checked {
        let Some((run, awaited)) = self.taken(client, number) else { return Ok(()) };
        let end = End::Broke;
        let event = match awaited {
            Awaited::Answer(from) => errand::Event::Answered { from, reply: None },
            Awaited::Gave(rank) => errand::Event::Gave { rank, end },
            Awaited::Took(rank) => errand::Event::Took { rank, end },
        };
        self.run_errand(client, run, event)
    }

    fn taken(&mut self, client: usize, number: u64) -> Option<(usize, Awaited)> {
        let runs = self.clients[client].runs.iter_mut().enumerate();
        runs.into_iter().find_map(|(run, it)| it.waiting.remove(&number).map(|awaited| (run, awaited)))
    }

    fn run_errand(&mut self, client: usize, run: usize, event: errand::Event) -> Checked {
        if !self.clients[client].is_alive {
            return Ok(());
        }
        let mut out = Outbox::new();
        self.clients[client].runs[run].errand.handle(Millis(self.now), event, &mut out);
        for action in out.drain().collect::<Vec<_>>() {
            self.do_for(client, run, action)?;
        }
        Ok(())
    }

    fn do_for(&mut self, client: usize, run: usize, action: errand::Action) -> Checked {
        let task = self.clients[client].task(run);
        self.numbers += 1;
        let (number, now) = (self.numbers, self.now);
        let it = &mut self.clients[client].runs[run];
        if it.ended.is_some() {
            return Err(format!("{action:?} after the end"));
        }
        let (to, patience, awaited, packet) = match action {
            errand::Action::Ask { to, question } => {
                let is_submission = matches!(question, errand::Question::Submit { .. });
                let patience = if is_submission { SUBMIT_PATIENCE } else { POLL_PATIENCE };
                let packet = Packet::Ask { client, number, task, question, payload_bytes: 1000 };
                (to, patience, Awaited::Answer(to), packet)
            }
            errand::Action::Give { worker, rank } => {
                (worker, STALL, Awaited::Gave(rank), Packet::Give { client, number, task, rank })
            }
            errand::Action::Take { worker, rank } => {
                (worker, STALL, Awaited::Took(rank), Packet::Take { client, number, task, rank })
            }
            errand::Action::Effective { rank } => {
                it.was_effective = true;
                return self.checks.effective(task, rank, it.made);
            }
            errand::Action::End(verdict) => {
                it.ended = Some(verdict);
                return Ok(());
            }
            errand::Action::Publicise(_) => return Ok(()),
            errand::Action::Arm { at, .. } => {
                it.wake = Some(at.0);
                self.at(at.0.saturating_sub(now), Thing::Wake { client });
                return Ok(());
            }
        };
        // A transfer ends the one before.
        it.waiting
            .retain(|_, other| matches!(other, Awaited::Answer(_)) || matches!(awaited, Awaited::Answer(_)));
        it.waiting.insert(number, awaited);
        self.checks.wished(task, now)?;
        let to = self.peers.iter().position(|peer| *peer == to).ok_or("a question to nobody")?;
        // Of a process that is gone one hears so at once, mostly.
        let is_down = self.nodes[to].machine.is_none();
        let patience = if is_down && self.dice.percent(50) { 1 } else { patience };
        self.transmit(to, packet);
        self.at(patience, Thing::Patience { client, number });
        Ok(())
    }
}
