//! Runs seeds: one after the other on each processor, and says what came of them.

use std::{
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tintype::{model::ObjectId, proto::election::Election};

use super::{
    client::{Goal, SimClient},
    faults::{Plan, Wrong},
    oracle::{
        Newest,
        claims::{Belief, Claims},
        views,
    },
    report::{Tally, Trace, say},
    world::World,
};

/// How long everything has to come to rest once nothing breaks any more: founding, reconnection, two runs of
/// repair.
const SETTLE_MS: u64 = 40_000;
/// How often it is looked whether it has.
const LOOK_EVERY_MS: u64 = 2000;
/// How long a last read may take.
const LAST_READ_MS: u64 = 10_000;
/// An election may be under way when it is looked who is in office: it is over by then.
const CLAIMS_CALM_MS: u64 = 3000;
/// How often a long run says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// What came of one seed.
pub struct Outcome {
    pub failure: Option<String>,
    pub tally: Tally,
    pub digest: [u8; 32],
}

/// Runs one seed.
pub fn run(seed: u64, wrong: Wrong) -> Outcome {
    run_and_print(seed, wrong, false)
}

fn run_and_print(seed: u64, wrong: Wrong, is_printed: bool) -> Outcome {
    let plan = Plan::of(seed, wrong);
    if is_printed {
        say(&format!("{plan:#?}"));
    }
    let span_ms = plan.span_ms;
    let mut world = World::new(seed, plan, Trace::new(is_printed));
    world.begin();
    world.run_until(span_ms);
    world.heal();
    world.verify_all();
    world.settle(span_ms + SETTLE_MS);
    world.look_at_the_end();
    let mut tally = world.tally.clone();
    (tally.runs, tally.simulated_ms) = (1, world.now);
    tally.acknowledged = world.oracle.kept.count;
    Outcome { failure: world.failure, tally, digest: world.trace.digest() }
}

impl World {
    /// Lets everything come to rest: until all is where it belongs, or the time is over.
    fn settle(&mut self, end_ms: u64) {
        while self.now < end_ms && self.failure.is_none() {
            self.run_until((self.now + LOOK_EVERY_MS).min(end_ms));
            let is_done = |client: &SimClient| !client.is_busy() && client.errands.are_over();
            let is_quiet = self.clients.iter().all(is_done);
            if is_quiet && self.plan.rots {
                // What rotted before it was acknowledged is looked at now.
                self.verify_all();
            }
            let is_founded = self.nodes.iter().all(|node| node.is_gone || node.is_ready(self.now));
            // Long enough for whoever died last to be known for dead, and who stood still last for alive.
            let stood_still = self.nodes.iter().filter_map(|node| node.still_until).max();
            let calm_since = stood_still.unwrap_or(0).max(self.healed_at);
            let is_known = self.now >= calm_since + 6000;
            let is_handed_over = self.handovers_have_ended();
            if is_quiet && is_founded && is_known && is_handed_over && self.bodies_are_there().is_ok() {
                return;
            }
        }
    }

    /// Whether every acknowledged body has its copies.
    fn bodies_are_there(&self) -> Result<(), String> {
        let stores: Vec<_> = self.nodes.iter().map(|n| (&n.store, n.is_gone)).collect();
        let alive = self.nodes.iter().filter(|node| !node.is_gone).count();
        // What is gone for good is not placed anew before authority moves it.
        let copies = if alive < self.nodes.len() { 1 } else { alive.min(3) };
        let chosen = |object: ObjectId| {
            let (_, value) = self.oracle.ballots.chosen(&object).pop()?;
            let holds = |manifest| stores.iter().any(|(store, is_gone)| !is_gone && store.holds(manifest));
            let has_manifest = value.manifest.as_ref().is_none_or(holds);
            Some((object, Newest { version: value.version, has_manifest }))
        };
        let chosen = self.oracle.objects().filter_map(chosen).collect();
        self.oracle.kept.all_there(&stores, copies, &chosen)
    }

    /// Everything is mended and has come to rest: what must be there then.
    fn look_at_the_end(&mut self) {
        if self.failure.is_some() {
            return;
        }
        let alive = self.nodes.iter().filter(|node| !node.is_gone).count();
        if self.founding.is_none() && alive == self.nodes.len() {
            return self.fail(|| "there is no founding after all".into());
        }
        if self.founding.is_none() {
            return;
        }
        if !self.handovers_have_ended() && alive == self.nodes.len() {
            return self.fail(|| "a handover has not ended".into());
        }
        self.read_all();
        self.look_at_views();
        self.look_at_tasks();
        let checked = self.bodies_are_there();
        self.check(checked);
        let checked = self.oracle.calls.all_answered(|node| self.clock(node).0);
        self.check(checked);
        match self.oracle.history.prove() {
            Ok(operations) => self.tally.checked = operations,
            Err(what) => self.fail(|| what),
        }
    }

    /// Whether the only copy of the newest version may have been on the machine that is gone, or may have
    /// rotted: nobody was told that it survives that.
    fn may_be_lost(&self, object: &ObjectId) -> bool {
        let newest = self.oracle.ballots.chosen(object).last().map(|(_, value)| value.version);
        let is_one_lost = self.plan.rots || self.nodes.iter().any(|node| node.is_gone);
        is_one_lost && newest.is_some_and(|version| !self.oracle.kept.includes(object, version))
    }

    /// Whom every node takes for alive now.
    fn look_at_views(&mut self) {
        let is_there: Vec<bool> = self.nodes.iter().map(|node| node.is_ready(self.now)).collect();
        let mut seen = Vec::new();
        for (node, of) in self.nodes.iter().enumerate() {
            let cluster = of.running.as_ref().and_then(|running| running.cluster.as_ref());
            let views = cluster.iter().flat_map(|cluster| cluster.membership.view());
            let known = views.filter_map(|(peer, seen)| Some((self.index_of(peer)?, seen.state)));
            seen.extend(known.map(|(other, state)| (node, other, state)));
        }
        for (node, other, state) in seen {
            let checked = views::settled(node, other, state, is_there[other]);
            self.check(checked);
        }
    }

    /// One coordinator, whom all follow, and no task that somebody waits for.
    fn look_at_tasks(&mut self) {
        let checked = self.oracle.tasks_end.all_ended();
        self.check(checked);
        let end = self.now + CLAIMS_CALM_MS;
        while self.failure.is_none() && self.now < end && Claims::calm(&self.beliefs()).is_err() {
            self.run_until(self.now + 100);
        }
        let checked = Claims::calm(&self.beliefs());
        self.check(checked);
    }

    fn beliefs(&self) -> Vec<Belief> {
        let tasks = self.nodes.iter().enumerate().filter_map(|(node, of)| {
            let cluster = of.running.as_ref()?.cluster.as_ref()?;
            Some((node, &cluster.tasks.election))
        });
        let belief = |(node, election): (usize, &Election)| Belief {
            node,
            claim: election.claim(),
            is_own: election.in_office().is_some(),
        };
        tasks.map(belief).collect()
    }

    /// Reads every object, which must work now, and give at least what was acknowledged.
    fn read_all(&mut self) {
        let newest = self.oracle.kept.newest();
        let objects: Vec<_> = self.oracle.objects().collect();
        for (index, object) in objects.into_iter().enumerate() {
            let before = self.tally.succeeded;
            self.begin_task(0, index, Goal::Get);
            let end = self.now + LAST_READ_MS;
            while self.clients[0].is_busy() && self.now < end && self.failure.is_none() {
                self.run_until(self.now + 100);
            }
            if self.tally.succeeded == before {
                if self.may_be_lost(&object) {
                    continue;
                }
                return self.fail(|| format!("{object} cannot be read after everything was mended"));
            }
            let seen = self.clients[0].newest_seen(&object);
            let acknowledged = newest.get(&object).copied().unwrap_or(0);
            if seen < acknowledged {
                return self.fail(|| format!("{object}: {acknowledged} was acknowledged, {seen} is there"));
            }
        }
    }
}

/// `n` are those below it, `m..n` those from another on.
fn seeds_of(text: &str) -> Option<Range<u64>> {
    let (start, end) = text.split_once("..").unwrap_or(("0", text));
    Some(start.parse().ok()?..end.parse().ok()?)
}

/// Many seeds.
pub struct Runner {
    seeds: Range<u64>,
    /// One run, to the last message.
    is_printed: bool,
    /// Somebody wants to know how far it is and what came of it.
    is_asked_for: bool,
}

impl Runner {
    /// `SEED=n` for one, `TINTYPE_SEEDS=n` for so many, `TINTYPE_SEEDS=m..n` for those, else `count`.
    pub fn from_environment(count: u64) -> Self {
        let read = |name| std::env::var(name).ok().and_then(|text: String| seeds_of(&text));
        match read("SEED") {
            Some(Range { end: seed, .. }) => {
                Self { seeds: seed..seed + 1, is_printed: true, is_asked_for: true }
            }
            None => {
                let wanted = read("TINTYPE_SEEDS");
                let is_asked_for = wanted.is_some();
                Self { seeds: wanted.unwrap_or(0..count), is_printed: false, is_asked_for }
            }
        }
    }

    /// Runs them all; panics with the seed and the reason of the first that fails.
    pub fn run_all(self) -> Tally {
        let next = AtomicU64::new(self.seeds.start);
        let (total, failure) = (Mutex::new(Tally::default()), Mutex::new(None::<(u64, String)>));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let began = Instant::now();
        let told = Mutex::new(began);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if !self.seeds.contains(&seed) || failure.lock().expect("no panic").is_some() {
                            return;
                        }
                        let outcome = run_and_print(seed, Wrong::default(), self.is_printed);
                        total.lock().expect("no panic").add(&outcome.tally);
                        if let Some(what) = outcome.failure {
                            failure.lock().expect("no panic").get_or_insert((seed, what));
                        }
                        self.tell_progress(&told, began, &total);
                    }
                });
            }
        });
        let total = total.into_inner().expect("no panic");
        let failure = failure.into_inner().expect("no panic");
        let report = format!("{total}\n{} violations", u32::from(failure.is_some()));
        if self.is_asked_for {
            say(&report);
        }
        println!("{report}");
        if let Some((seed, what)) = failure {
            panic!("SEED={seed}: {what}");
        }
        total
    }

    fn tell_progress(&self, told: &Mutex<Instant>, began: Instant, total: &Mutex<Tally>) {
        let mut told = told.lock().expect("no panic");
        if !self.is_asked_for || told.elapsed() < PROGRESS_EVERY {
            return;
        }
        *told = Instant::now();
        let total = total.lock().expect("no panic");
        say(&format!(
            "{} of {} seeds, {:.1} simulated hours, {} faults, {} operations checked, {:.0} s",
            total.runs,
            self.seeds.end - self.seeds.start,
            total.simulated_ms as f64 / 3_600_000.0,
            total.faults(),
            total.checked,
            began.elapsed().as_secs_f64()
        ));
    }
}
