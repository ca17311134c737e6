//! The network: which way is cut, what is lost, repeated or late, and who takes whom for connected.
//!
//! It carries bytes and decides nothing. It is worse than the real one: within a connection QUIC loses,
//! repeats and reorders nothing, and here everything may be.

use std::collections::{BTreeMap, BTreeSet};

use super::dice::Dice;

/// A node or a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    Node(usize),
    Client(usize),
}

/// Two parties, the smaller first.
pub type Pair = (Party, Party);

/// How long one way may be silent before a connection is given up (`limits::QUIC_IDLE` and what it takes to
/// see it).
const IDLE_MS: u64 = 1500;

/// What the weather does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Packets lost in a thousand.
    pub lost_permille: u64,
    /// Packets repeated in a thousand.
    pub repeated_permille: u64,
    /// Packets that take long in a thousand.
    pub late_permille: u64,
    /// How late those are at most.
    pub late_ms: u64,
}

/// What is known of one pair.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    connected: bool,
    /// Since when it is other than `connected` says.
    since: Option<u64>,
    /// How long that has to last.
    patience_ms: u64,
}

/// What became of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub pair: Pair,
    pub connected: bool,
}

/// All ways between all parties.
#[derive(Default)]
pub struct Links {
    weather: Weather,
    cut: BTreeSet<(Party, Party)>,
    lines: BTreeMap<Pair, Line>,
}

impl Links {
    pub fn new(weather: Weather) -> Self {
        Self { weather, ..Self::default() }
    }

    /// Nobody hears `to` from `from` until it is mended.
    pub fn cut(&mut self, from: Party, to: Party) {
        self.cut.insert((from, to));
    }

    pub fn mend(&mut self, from: Party, to: Party) {
        self.cut.remove(&(from, to));
    }

    pub fn mend_all(&mut self) {
        self.cut.clear();
        self.weather = Weather::default();
    }

    pub fn is_cut(&self, from: Party, to: Party) -> bool {
        self.cut.contains(&(from, to))
    }

    pub fn is_connected(&self, one: Party, other: Party) -> bool {
        self.lines.get(&pair(one, other)).is_some_and(|line| line.connected)
    }

    /// When each copy of a packet arrives, from now on; none if it is lost.
    pub fn delays(&self, from: Party, to: Party, dice: &mut Dice) -> Vec<u64> {
        let weather = self.weather;
        if self.is_cut(from, to) || dice.permille(weather.lost_permille) {
            return Vec::new();
        }
        let copies = 1 + usize::from(dice.permille(weather.repeated_permille));
        let mut delays = Vec::with_capacity(copies);
        for _ in 0..copies {
            let is_late = weather.late_ms > 0 && dice.permille(weather.late_permille);
            delays.push(1 + dice.below(if is_late { weather.late_ms } else { 4 }));
        }
        delays
    }

    /// Looks at one pair, of which `both_up` says whether both can speak: what changes now.
    pub fn look(
        &mut self,
        now: u64,
        one: Party,
        other: Party,
        both_up: bool,
        dice: &mut Dice,
    ) -> Option<Change> {
        let usable = both_up && !self.is_cut(one, other) && !self.is_cut(other, one);
        let pair = pair(one, other);
        let line = self.lines.entry(pair).or_default();
        if usable == line.connected {
            line.since = None;
            return None;
        }
        let Some(since) = line.since else {
            line.since = Some(now);
            line.patience_ms = if usable { dice.between(20, 400) } else { IDLE_MS + dice.below(300) };
            return None;
        };
        if now < since + line.patience_ms {
            return None;
        }
        (line.connected, line.since) = (usable, None);
        Some(Change { pair, connected: usable })
    }

    /// A process is gone or another has come in its place: its connections are no more. Those who had one.
    pub fn forget(&mut self, party: Party) -> Vec<Party> {
        let mut had = Vec::new();
        for ((one, other), line) in &mut self.lines {
            if (*one == party || *other == party) && line.connected {
                had.push(if *one == party { *other } else { *one });
                *line = Line::default();
            }
        }
        had
    }
}

fn pair(one: Party, other: Party) -> Pair {
    (one.min(other), one.max(other))
}
