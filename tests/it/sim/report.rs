//! What runs were made of, in numbers; and one run to the last message, for whoever looks for its fault.

use std::{collections::BTreeMap, fmt, io::Write};

use super::{faults::Fault, links::Party, world::Packet};

/// What was counted in one run, or in many.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub runs: u64,
    pub simulated_ms: u64,
    pub steps: u64,
    pub sent: u64,
    pub began: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub unknown: u64,
    pub conflicts: u64,
    pub overtaken: u64,
    pub killed_clients: u64,
    pub checked: u64,
    pub acknowledged: u64,
    pub receipts: u64,
    pub repairs: u64,
    pub bodies_repaired: u64,
    pub corrupt_found: u64,
    pub refused_writes: u64,
    pub forgeries_refused: u64,
    pub lost_writes: u64,
    pub torn_groups: u64,
    pub attempts: u64,
    pub handovers: u64,
    /// Tasks that clients submitted, answers that counted, tasks that went to another worker.
    pub tasks: u64,
    pub effective: u64,
    pub moved: u64,
    /// How often somebody came into office.
    pub elections: u64,
    faults: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn note(&mut self, fault: &Fault) {
        let kind = match fault {
            Fault::Kill { .. } => "kills",
            Fault::PowerCut { .. } => "power cuts",
            Fault::Cut { .. } => "one-way cuts",
            Fault::Isolate { .. } => "isolated nodes",
            Fault::Split { .. } => "splits",
            Fault::StandStill { .. } => "frozen nodes",
            Fault::SlowDisk { .. } => "slow disks",
            Fault::NoRoom { .. } => "disks without room",
            Fault::FullDisk { .. } => "full disks",
            Fault::FlipBody { .. } => "turned bits in bodies",
            Fault::FlipRecord { .. } => "turned bits in records",
            Fault::Jump { .. } => "clock jumps",
            Fault::KillClient { .. } => "killed clients",
            Fault::Forge { .. } => "forged registers",
            Fault::HandOver { .. } => "handovers begun",
            Fault::GoneForGood { .. } => "machines gone for good",
            Fault::Mend(_) => return,
        };
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Adds a run to many.
    pub fn add(&mut self, run: &Tally) {
        let sums = [
            (&mut self.runs, run.runs),
            (&mut self.simulated_ms, run.simulated_ms),
            (&mut self.steps, run.steps),
            (&mut self.sent, run.sent),
            (&mut self.began, run.began),
            (&mut self.succeeded, run.succeeded),
            (&mut self.failed, run.failed),
            (&mut self.unknown, run.unknown),
            (&mut self.conflicts, run.conflicts),
            (&mut self.overtaken, run.overtaken),
            (&mut self.killed_clients, run.killed_clients),
            (&mut self.checked, run.checked),
            (&mut self.acknowledged, run.acknowledged),
            (&mut self.receipts, run.receipts),
            (&mut self.repairs, run.repairs),
            (&mut self.bodies_repaired, run.bodies_repaired),
            (&mut self.corrupt_found, run.corrupt_found),
            (&mut self.refused_writes, run.refused_writes),
            (&mut self.forgeries_refused, run.forgeries_refused),
            (&mut self.lost_writes, run.lost_writes),
            (&mut self.torn_groups, run.torn_groups),
            (&mut self.attempts, run.attempts),
            (&mut self.handovers, run.handovers),
            (&mut self.tasks, run.tasks),
            (&mut self.effective, run.effective),
            (&mut self.moved, run.moved),
            (&mut self.elections, run.elections),
        ];
        sums.into_iter().for_each(|(sum, part)| *sum += part);
        run.faults.iter().for_each(|(kind, count)| *self.faults.entry(kind).or_default() += count);
    }

    /// How many faults of all kinds.
    pub fn faults(&self) -> u64 {
        self.faults.values().sum()
    }

    /// How many kinds of faults.
    pub fn fault_kinds(&self) -> usize {
        self.faults.len()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated_ms as f64 / 3_600_000.0;
        writeln!(f, "{} seeds, {hours:.2} simulated hours, {} messages", self.runs, self.sent)?;
        writeln!(
            f,
            "{} operations checked: {} succeeded, {} failed, {} unknown, {} of killed clients; {} conflicts, \
             {} writes overtaken, {} acknowledged",
            self.checked,
            self.succeeded,
            self.failed,
            self.unknown,
            self.killed_clients,
            self.conflicts,
            self.overtaken,
            self.acknowledged
        )?;
        writeln!(
            f,
            "{} repair runs, {} bodies fetched by them, {} bad copies found, {} writes refused, {} forgeries \
             refused",
            self.repairs,
            self.bodies_repaired,
            self.corrupt_found,
            self.refused_writes,
            self.forgeries_refused
        )?;
        writeln!(
            f,
            "{} writes lost in crashes, {} syncs torn by them; {} handovers of a slot in {} attempts",
            self.lost_writes, self.torn_groups, self.handovers, self.attempts
        )?;
        writeln!(
            f,
            "{} tasks, {} effective answers, {} moved to another worker; {} elections",
            self.tasks, self.effective, self.moved, self.elections
        )?;
        let faults: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        write!(f, "{} faults: {}", self.faults(), faults.join(", "))
    }
}

/// What happened, step by step: a hash of it always, its lines if they are wanted.
pub struct Trace {
    hash: blake3::Hasher,
    is_printed: bool,
}

impl Trace {
    pub fn new(is_printed: bool) -> Self {
        Self { hash: blake3::Hasher::new(), is_printed }
    }

    pub fn line(&mut self, now_ms: u64, text: impl FnOnce() -> String) {
        let text = text();
        self.hash.update(&now_ms.to_le_bytes()).update(text.as_bytes());
        if self.is_printed {
            say(&format!("{now_ms:>7} {text}"));
        }
    }

    pub fn packet(&mut self, now_ms: u64, from: Party, to: Party, packet: &Packet) {
        let mark;
        let (kind, number, bytes): (&str, u64, &[u8]) = match packet {
            Packet::Lane(bytes) => ("lane", 0, bytes),
            Packet::Gossip(bytes, _) => ("gossip", 0, bytes),
            Packet::OfTasks(said) => {
                mark = said.mark();
                ("tasks", mark.0, &mark.1)
            }
            Packet::Ask { number, bytes } => ("ask", *number, bytes),
            Packet::Told { number, bytes } => ("told", *number, bytes),
            Packet::Store { number, body, .. } => ("store", *number, body),
            Packet::Stored { number, .. } => ("stored", *number, &[]),
            Packet::Fetch { number, .. } => ("fetch", *number, &[]),
            Packet::Fetched { number, .. } => ("fetched", *number, &[]),
        };
        self.hash.update(&now_ms.to_le_bytes()).update(kind.as_bytes()).update(&number.to_le_bytes());
        self.hash.update(bytes);
        if self.is_printed {
            say(&format!("{now_ms:>7} {from:?} > {to:?} {}", shown(packet)));
        }
    }

    /// Names everything that happened.
    pub fn digest(&self) -> [u8; 32] {
        *self.hash.finalize().as_bytes()
    }
}

/// Says it to whoever asked for it by the environment, past the capture of the test runner.
pub fn say(text: &str) {
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn version_of(raw: &tintype::model::register::RawRegister) -> String {
    match tintype::model::register::Register::decode(&raw.0) {
        Ok(register) => format!(
            "{} v{} by {:?}, tombstone: {}",
            register.object,
            register.version,
            register.requests.last(),
            register.is_tombstone()
        ),
        Err(error) => error.to_string(),
    }
}

fn shown(packet: &Packet) -> String {
    use tintype::{
        model::{
            register::RawRegister,
            rpc::{Request, Response},
        },
        proto::chunkpaxos::Message,
    };
    match packet {
        Packet::Lane(bytes) => match Message::<RawRegister>::decode(bytes) {
            Ok((_, message)) => format!("{:?} of {} {:?}", message.round, message.object, message.body),
            Err(error) => error.to_string(),
        },
        Packet::Gossip(bytes, beside) => format!("a heartbeat of {} bytes, {beside:?}", bytes.len()),
        Packet::OfTasks(said) => format!("{said:?}"),
        Packet::Ask { number, bytes } => match Request::decode(bytes) {
            Ok(Request::Propose { value }) => format!("#{number} Propose {}", version_of(&value)),
            request => format!("#{number} {request:?}"),
        },
        Packet::Told { number, bytes } => match Response::decode(bytes) {
            Ok(Response::Register { value: Some(value) }) => {
                format!("#{number} Register {}", version_of(&value))
            }
            Ok(Response::Conflict { current: Some(value) }) => {
                format!("#{number} Conflict {}", version_of(&value))
            }
            response => format!("#{number} {response:?}"),
        },
        Packet::Store { number, id, onward, durable, .. } => {
            format!("#{number} store {id}, then {onward:?}, {durable} durable")
        }
        Packet::Stored { number, stored } => format!("#{number} {stored:?}"),
        Packet::Fetch { number, id } => format!("#{number} fetch {id}"),
        Packet::Fetched { number, .. } => format!("#{number} fetched"),
    }
}
