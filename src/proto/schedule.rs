//! The fetch schedule: which body to ask of whom next; hedge, retry, give up.
//!
//! Used by the client's get; a node, which fetches what it lacks without haste, asks one after the other.
//! It never sees bytes: the caller fetches, checks the hash and reports. It speaks no protocol of its own, so
//! it has no `Message`.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{BodyId, Millis, PeerId, limits},
    proto::Outbox,
};

/// What a schedule is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bodies being fetched at once; each by two fetches at most, the second where the first makes no
    /// progress.
    pub window: usize,
    /// Fetches in flight at once from one peer; for a hedge it may be more.
    pub per_peer: usize,
}

/// What happens to a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Fetch this too. Bodies are begun in the order in which they were wanted. One already wanted is
    /// ignored.
    Want {
        /// The body.
        body: BodyId,
        /// All members in the order of its placement (`placement::order`), or another order of preference.
        holders: Vec<PeerId>,
    },
    /// Whether this peer can be asked now; those never mentioned can.
    Usable {
        /// Who.
        peer: PeerId,
        /// False = ask it only when nobody else is left.
        usable: bool,
    },
    /// Some bytes of this fetch came.
    Progress {
        /// The body.
        body: BodyId,
        /// From whom.
        from: PeerId,
    },
    /// A fetch ended.
    Ended {
        /// The body.
        body: BodyId,
        /// From whom.
        from: PeerId,
        /// How.
        end: End,
    },
    /// No longer wanted.
    Forget {
        /// The body.
        body: BodyId,
    },
    /// An armed timer is due.
    Timer(Timer),
}

/// How a fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The whole body came and its hash is right.
    Good,
    /// The peer does not have it.
    NotHere,
    /// What came has another hash.
    Corrupt,
    /// The connection or the peer failed, or it was busy.
    Failed,
}

/// What the schedule wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Fetch the body from this peer and report [`Event::Progress`] and one [`Event::Ended`].
    Fetch {
        /// The body.
        body: BodyId,
        /// From whom.
        from: PeerId,
    },
    /// This fetch is no longer of use: stop it; its end need not be reported.
    Cancel {
        /// The body.
        body: BodyId,
        /// From whom.
        from: PeerId,
    },
    /// The body came from this peer.
    Done {
        /// The body.
        body: BodyId,
        /// From whom.
        from: PeerId,
    },
    /// All members were asked and none gave it.
    GiveUp {
        /// The body.
        body: BodyId,
        /// Who was asked, and what came of the last attempt; none = no answer.
        asked: Vec<(PeerId, Option<End>)>,
    },
    /// Hand in this timer at or after `at`; replaces its earlier arming.
    Arm {
        /// When.
        at: Millis,
        /// Which.
        timer: Timer,
    },
}

/// A schedule's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Look what has made no progress.
    Wake,
}

/// The fetches of one get.
#[derive(Debug)]
pub struct Schedule {
    config: Config,
    bodies: BTreeMap<BodyId, Wanted>,
    /// Bodies in the order in which they were wanted.
    order: BTreeMap<u64, BodyId>,
    next_number: u64,
    unusable: BTreeSet<PeerId>,
    /// Peers that made no progress lately, until when they are asked last.
    slow: BTreeMap<PeerId, Millis>,
    armed: Option<Millis>,
}

#[derive(Debug)]
struct Wanted {
    number: u64,
    holders: Vec<PeerId>,
    asked: BTreeMap<PeerId, Asked>,
    /// Fetches in flight, with the time of their last progress.
    running: BTreeMap<PeerId, Millis>,
    /// When any fetch of it made progress last.
    progress_at: Millis,
    /// When to look whether it does.
    check_at: Millis,
}

#[derive(Debug, Default)]
struct Asked {
    attempts: u32,
    /// It does not have it, or what it has is corrupt.
    useless: bool,
    last: Option<End>,
}

impl Schedule {
    /// Nothing wanted yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            bodies: BTreeMap::new(),
            order: BTreeMap::new(),
            next_number: 0,
            unusable: BTreeSet::new(),
            slow: BTreeMap::new(),
            armed: None,
        }
    }

    /// Takes one event in and says what to do.
    pub fn handle(&mut self, now: Millis, event: Event, out: &mut Outbox<Action>) {
        match event {
            Event::Want { body, holders } => self.want(body, holders, now),
            Event::Usable { peer, usable: true } => {
                self.unusable.remove(&peer);
            }
            Event::Usable { peer, usable: false } => {
                self.unusable.insert(peer);
            }
            Event::Progress { body, from } => self.on_progress(&body, &from, now),
            Event::Ended { body, from, end } => self.on_ended(body, from, end, out),
            Event::Forget { body } => self.forget(&body, out),
            Event::Timer(Timer::Wake) => {
                self.armed = None;
                self.check(now, out);
            }
        }
        self.fill(now, out);
        self.arm(out);
    }

    /// Bodies wanted and neither done nor given up: the caller bounds them.
    pub fn pending(&self) -> usize {
        self.bodies.len()
    }

    fn want(&mut self, body: BodyId, holders: Vec<PeerId>, now: Millis) {
        if self.bodies.contains_key(&body) {
            return;
        }
        self.next_number += 1;
        self.order.insert(self.next_number, body);
        let wanted = Wanted {
            number: self.next_number,
            holders,
            asked: BTreeMap::new(),
            running: BTreeMap::new(),
            progress_at: now,
            check_at: now,
        };
        self.bodies.insert(body, wanted);
    }

    fn on_progress(&mut self, body: &BodyId, from: &PeerId, now: Millis) {
        self.slow.remove(from);
        let Some(wanted) = self.bodies.get_mut(body) else { return };
        if let Some(at) = wanted.running.get_mut(from) {
            *at = now;
            wanted.progress_at = now;
            wanted.check_at = now + limits::NO_PROGRESS;
        }
    }

    fn on_ended(&mut self, body: BodyId, from: PeerId, end: End, out: &mut Outbox<Action>) {
        let Some(wanted) = self.bodies.get_mut(&body) else { return };
        let was_running = wanted.running.remove(&from).is_some();
        if end == End::Good {
            // Even from a fetch that was cancelled a moment ago.
            self.forget(&body, out);
            return out.push(Action::Done { body, from });
        }
        if was_running {
            let asked = wanted.asked.entry(from).or_default();
            asked.last = Some(end);
            asked.useless |= end != End::Failed;
        }
    }

    fn forget(&mut self, body: &BodyId, out: &mut Outbox<Action>) {
        let Some(wanted) = self.bodies.remove(body) else { return };
        self.order.remove(&wanted.number);
        let body = *body;
        wanted.running.into_keys().for_each(|from| out.push(Action::Cancel { body, from }));
    }

    /// Begins fetches of bodies that have none, in order, up to the window.
    fn fill(&mut self, now: Millis, out: &mut Outbox<Action>) {
        let mut active = self.bodies.values().filter(|wanted| !wanted.running.is_empty()).count();
        for body in self.order.values().copied().collect::<Vec<_>>() {
            if active >= self.config.window {
                return;
            }
            if self.bodies.get(&body).is_none_or(|wanted| !wanted.running.is_empty()) {
                continue;
            }
            match self.choose(&body, now, self.config.per_peer) {
                Choice::Ask(from) => {
                    active += 1;
                    self.begin(body, from, now, out);
                }
                Choice::Wait => {}
                Choice::Nobody => self.give_up(body, out),
            }
        }
    }

    /// Hedges or gives up what has made no progress.
    fn check(&mut self, now: Millis, out: &mut Outbox<Action>) {
        let stalled = self.bodies.iter().filter(|(_, w)| !w.running.is_empty() && w.check_at <= now);
        for body in stalled.map(|(body, _)| *body).collect::<Vec<_>>() {
            let Some(wanted) = self.bodies.get_mut(&body) else { continue };
            let quiet = wanted.running.iter().filter(|(_, at)| now.since(**at) >= limits::NO_PROGRESS);
            let quiet: Vec<PeerId> = quiet.map(|(peer, _)| *peer).collect();
            for peer in &quiet {
                self.slow.insert(*peer, now + limits::NO_PROGRESS + limits::NO_PROGRESS);
            }
            match self.choose(&body, now, usize::MAX) {
                Choice::Ask(from) => self.hedge(body, from, now, out),
                Choice::Wait | Choice::Nobody => self.wait_or_give_up(body, now, out),
            }
        }
    }

    fn hedge(&mut self, body: BodyId, from: PeerId, now: Millis, out: &mut Outbox<Action>) {
        let Some(wanted) = self.bodies.get_mut(&body) else { return };
        if wanted.running.len() >= 2 {
            let stalest = wanted.running.iter().min_by_key(|(_, at)| **at).map(|(peer, _)| *peer);
            if let Some(peer) = stalest {
                wanted.running.remove(&peer);
                out.push(Action::Cancel { body, from: peer });
            }
        }
        self.begin(body, from, now, out);
    }

    fn wait_or_give_up(&mut self, body: BodyId, now: Millis, out: &mut Outbox<Action>) {
        let Some(wanted) = self.bodies.get_mut(&body) else { return };
        let newest = wanted.running.values().max().copied().unwrap_or(wanted.progress_at);
        wanted.check_at = newest + limits::FETCH_STALL_MAX;
        if wanted.check_at <= now {
            self.give_up(body, out);
        }
    }

    fn give_up(&mut self, body: BodyId, out: &mut Outbox<Action>) {
        let Some(wanted) = self.bodies.get(&body) else { return };
        let asked = wanted.holders.iter().filter_map(|peer| wanted.asked.get(peer).map(|a| (*peer, a.last)));
        let asked = asked.collect();
        self.forget(&body, out);
        out.push(Action::GiveUp { body, asked });
    }

    fn begin(&mut self, body: BodyId, from: PeerId, now: Millis, out: &mut Outbox<Action>) {
        let Some(wanted) = self.bodies.get_mut(&body) else { return };
        let asked = wanted.asked.entry(from).or_default();
        asked.attempts += 1;
        asked.last = None;
        wanted.running.insert(from, now);
        wanted.check_at = now + limits::NO_PROGRESS;
        out.push(Action::Fetch { body, from });
    }

    /// Whom to ask next: first who was not asked yet, then who failed once; of each, first who seems well.
    fn choose(&self, body: &BodyId, now: Millis, per_peer: usize) -> Choice {
        let Some(wanted) = self.bodies.get(body) else { return Choice::Wait };
        let mut best: Option<((u32, bool, usize), PeerId)> = None;
        let mut someone_is_full = false;
        for (index, peer) in wanted.holders.iter().enumerate() {
            let asked = wanted.asked.get(peer);
            let attempts = asked.map_or(0, |asked| asked.attempts);
            let useless = asked.is_some_and(|asked| asked.useless);
            if useless || attempts >= limits::FETCH_ATTEMPTS_PER_PEER_MAX || wanted.running.contains_key(peer)
            {
                continue;
            }
            if self.running_from(peer) >= per_peer {
                someone_is_full = true;
                continue;
            }
            let rank = (attempts, !self.seems_well(peer, now), index);
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, *peer));
            }
        }
        match best {
            Some((_, peer)) => Choice::Ask(peer),
            None if someone_is_full || !wanted.running.is_empty() => Choice::Wait,
            None => Choice::Nobody,
        }
    }

    fn seems_well(&self, peer: &PeerId, now: Millis) -> bool {
        !self.unusable.contains(peer) && self.slow.get(peer).is_none_or(|until| *until <= now)
    }

    fn running_from(&self, peer: &PeerId) -> usize {
        self.bodies.values().filter(|wanted| wanted.running.contains_key(peer)).count()
    }

    fn arm(&mut self, out: &mut Outbox<Action>) {
        let checks = self.bodies.values().filter(|w| !w.running.is_empty()).map(|w| w.check_at);
        if let Some(at) = checks.min().filter(|at| self.armed.is_none_or(|armed| *at < armed)) {
            self.armed = Some(at);
            out.push(Action::Arm { at, timer: Timer::Wake });
        }
    }
}

enum Choice {
    Ask(PeerId),
    /// Whoever could be asked is busy.
    Wait,
    /// All were asked.
    Nobody,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::{Dice, peers, seeds};

    fn handle(schedule: &mut Schedule, now: u64, event: Event) -> Vec<Action> {
        let mut out = Outbox::new();
        schedule.handle(Millis(now), event, &mut out);
        out.drain().filter(|action| !matches!(action, Action::Arm { .. })).collect()
    }

    fn body(n: u8) -> BodyId {
        BodyId([n; 32])
    }

    fn want(n: u8) -> Event {
        Event::Want { body: body(n), holders: peers(3) }
    }

    fn ended(n: u8, from: usize, end: End) -> Event {
        Event::Ended { body: body(n), from: peers(3)[from], end }
    }

    fn fetch(n: u8, from: usize) -> Action {
        Action::Fetch { body: body(n), from: peers(3)[from] }
    }

    const WAKE: Event = Event::Timer(Timer::Wake);

    fn schedule() -> Schedule {
        Schedule::new(Config { window: 2, per_peer: 2 })
    }

    #[test]
    fn in_order_within_the_window_and_the_next_when_one_is_done() {
        let mut s = schedule();
        assert_eq!(handle(&mut s, 0, want(1)), [fetch(1, 0)]);
        assert_eq!(handle(&mut s, 0, want(2)), [fetch(2, 0)]);
        assert_eq!(handle(&mut s, 0, want(3)), []);
        let done = Action::Done { body: body(1), from: peers(3)[0] };
        assert_eq!(handle(&mut s, 5, ended(1, 0, End::Good)), [done, fetch(3, 0)]);
        assert_eq!(s.pending(), 2);
    }

    #[test]
    fn not_here_and_corrupt_go_on_to_the_next_and_in_the_end_the_body_is_named() {
        let mut s = schedule();
        handle(&mut s, 0, want(1));
        assert_eq!(handle(&mut s, 1, ended(1, 0, End::NotHere)), [fetch(1, 1)]);
        assert_eq!(handle(&mut s, 2, ended(1, 1, End::Failed)), [fetch(1, 2)]);
        assert_eq!(
            handle(&mut s, 3, ended(1, 2, End::Corrupt)),
            [fetch(1, 1)],
            "a failed one is tried again"
        );
        let asked = [(0, End::NotHere), (1, End::Failed), (2, End::Corrupt)];
        let asked = asked.map(|(n, end)| (peers(3)[n], Some(end))).to_vec();
        assert_eq!(handle(&mut s, 4, ended(1, 1, End::Failed)), [Action::GiveUp { body: body(1), asked }]);
    }

    #[test]
    fn a_silent_peer_is_hedged_and_asked_last_for_others() {
        let mut s = schedule();
        handle(&mut s, 0, want(1));
        assert_eq!(handle(&mut s, 499, WAKE), []);
        assert_eq!(handle(&mut s, 500, WAKE), [fetch(1, 1)]);
        assert_eq!(handle(&mut s, 501, want(2)), [fetch(2, 1)], "not of the silent one");
        let actions = handle(&mut s, 510, ended(1, 1, End::Good));
        let cancel = Action::Cancel { body: body(1), from: peers(3)[0] };
        assert_eq!(actions, [cancel, Action::Done { body: body(1), from: peers(3)[1] }]);
    }

    #[test]
    fn progress_keeps_a_fetch_and_nobody_waits_for_ever() {
        let mut s = schedule();
        handle(&mut s, 0, want(1));
        for now in [400, 800, 1200] {
            handle(&mut s, now, Event::Progress { body: body(1), from: peers(3)[0] });
            assert_eq!(handle(&mut s, now + 399, WAKE), []);
        }
        let mut gave_up_at = None;
        for now in (1700..20_000).step_by(100) {
            let actions = handle(&mut s, now, WAKE);
            if actions.iter().any(|a| matches!(a, Action::GiveUp { .. })) {
                gave_up_at = Some(now);
                break;
            }
        }
        let at = gave_up_at.expect("all three are silent");
        assert!((5000..12_000).contains(&at), "{at}");
    }

    #[test]
    fn who_is_not_usable_is_asked_last() {
        let mut s = schedule();
        handle(&mut s, 0, Event::Usable { peer: peers(3)[0], usable: false });
        assert_eq!(handle(&mut s, 0, want(1)), [fetch(1, 1)]);
        assert_eq!(handle(&mut s, 1, ended(1, 1, End::NotHere)), [fetch(1, 2)]);
        assert_eq!(handle(&mut s, 2, ended(1, 2, End::NotHere)), [fetch(1, 0)]);
    }

    #[test]
    fn every_body_comes_or_is_given_up_whatever_the_peers_do() {
        for seed in seeds(300) {
            let mut dice = Dice::new(seed);
            let mut s = Schedule::new(Config { window: 4, per_peer: 2 });
            let mut running = BTreeSet::new();
            let (mut settled, mut now) = (0, 0);
            let mut events: Vec<Event> = (0..20).map(want).collect();
            while settled < 20 {
                let event = events.pop().unwrap_or(WAKE);
                for action in handle(&mut s, now, event) {
                    match action {
                        Action::Fetch { body, from } => assert!(running.insert((body, from)), "SEED={seed}"),
                        Action::Cancel { body, from } => {
                            assert!(running.remove(&(body, from)), "SEED={seed}")
                        }
                        Action::Done { .. } | Action::GiveUp { .. } => settled += 1,
                        Action::Arm { .. } => {}
                    }
                }
                assert!(running.len() <= 8, "SEED={seed}: {} fetches", running.len());
                now += dice.below(80);
                assert!(now < 400_000, "SEED={seed}: {settled} of 20 settled");
                let Some((body, from)) = running.iter().nth(dice.below(8) as usize).copied() else {
                    continue;
                };
                let end = match dice.below(10) {
                    0 => End::NotHere,
                    1 => End::Corrupt,
                    2 => End::Failed,
                    3 => End::Good,
                    _ => continue,
                };
                running.remove(&(body, from));
                events.push(Event::Ended { body, from, end });
            }
            assert!(running.is_empty() && s.pending() == 0, "SEED={seed}");
        }
    }
}
