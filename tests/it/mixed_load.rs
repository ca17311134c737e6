//! Several clients that put, get and remove the same few objects, while nodes are killed, restarted and
//! frozen by a seeded plan, also more of them than a majority can spare. All that the clients were told is
//! recorded, and every object must have been one register ([`crate::history`]).
//!
//! A run prints its seed. `TINTYPE_TEST_SECONDS=600` makes it as long, `TINTYPE_TEST_SEED=n` repeats the
//! plan: the faults, their order and length, what each client does next. When a process gets its turn is
//! the system's, so another run of a seed is a similar one and not the same one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tintype::api::{Connect, Exit, Get, Problem, Put, Source, Vault};

use crate::{
    cluster::{Cluster, finish, noise, text},
    faults::Frozen,
    history::{Answer, Failure, Operation, What, Written, check},
    inspect::{command_to, json},
};

const SECONDS: u64 = 12;
/// Clients in this process, and one more that is a process each time and is often killed.
const CLIENTS: u32 = 4;
/// Objects that all of them use at a time.
const OBJECTS: u64 = 3;
/// After so long they use others, so that first versions are contended for too.
const OBJECTS_SECONDS: u64 = 5;
/// Far above what any history of an hour needs.
const STEPS_MAX: u64 = 200_000_000;
/// A slow machine has so many times the time to do enough.
const PATIENCE_FACTOR: u64 = 6;
/// How long an object may be without an answer once all nodes run again.
const READ_AGAIN_MAX: Duration = Duration::from_secs(60);
/// Between two faults some operations succeed, or so long passes.
const GOOD_MOMENT_MAX: Duration = Duration::from_secs(10);
/// Nothing hangs: no operation takes so long, whatever is killed or frozen meanwhile.
const OPERATION_MAX: Duration = Duration::from_secs(30);

fn number_from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

// ---- values ----

/// What is put as this value: its number stands in it, and its length follows from that.
fn bytes_of(value: u64) -> Vec<u8> {
    let dice = noise(value, 17);
    let number = |at: usize| u64::from_le_bytes(dice[at..at + 8].try_into().expect("eight bytes"));
    let len = match number(1) % 400 {
        0 => 1_200_000 + number(9) % 1_000_000,
        1..16 => 70_000 + number(9) % 100_000,
        _ => 100 + number(9) % 3000,
    };
    let mut bytes = noise(value, usize::try_from(len).expect("small"));
    bytes[1..9].copy_from_slice(&value.to_le_bytes());
    bytes
}

/// Which value these bytes are; they must be exactly what was put as that.
#[track_caller]
fn value_of(bytes: &[u8]) -> u64 {
    let value = u64::from_le_bytes(bytes[1..9].try_into().expect("eight bytes"));
    assert!(bytes == bytes_of(value), "bytes that nobody put, {} of them, with {value} in them", bytes.len());
    value
}

// ---- clients ----

/// What all clients together were told so far: a slow machine gets more time and not an easier test.
#[derive(Default)]
struct Progress {
    puts: AtomicU64,
    reads: AtomicU64,
}

impl Progress {
    fn count(&self, what: &What) {
        let counter = match what {
            What::Write { value: Some(_), outcome: Written::At(_) } => &self.puts,
            What::Read(Answer::Found { .. }) => &self.reads,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Puts and reads that succeeded: so many of each.
    fn of_each(&self) -> u64 {
        self.puts.load(Ordering::Relaxed).min(self.reads.load(Ordering::Relaxed))
    }

    /// Gives the clients a good moment: on a busy machine faults alone would follow each other.
    fn wait_for_some(&self) {
        let (before, deadline) = (self.of_each(), Instant::now() + GOOD_MOMENT_MAX);
        while self.of_each() < before + 3 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// One client and what it was told.
struct Client {
    number: u32,
    progress: Arc<Progress>,
    home: PathBuf,
    nodes: Vec<String>,
    random: StdRng,
    began: Instant,
    values: u64,
    history: Vec<Operation>,
    /// How often each error was told.
    errors: BTreeMap<String, u64>,
}

/// What a client does next.
enum Next {
    Put(u64),
    Get,
    Remove,
}

impl Client {
    /// A client with a home of its own and the user of the cluster's client.
    fn new(cluster: &Cluster, number: u32, seed: u64, (began, progress): (Instant, &Arc<Progress>)) -> Self {
        let home = cluster.dir().join(format!("client-{number}"));
        copy_keys(&cluster.client.join("keys"), &home.join("keys"));
        let random = StdRng::seed_from_u64(seed);
        let (values, history, errors) = (0, Vec::new(), BTreeMap::new());
        let progress = Arc::clone(progress);
        Self {
            number,
            progress,
            home,
            nodes: cluster.nodes.addresses(),
            random,
            began,
            values,
            history,
            errors,
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).expect("a short test")
    }

    fn object(&mut self) -> String {
        let age = self.began.elapsed().as_secs() / OBJECTS_SECONDS;
        format!("{age}-{}.bin", self.random.random_range(0..OBJECTS))
    }

    fn next(&mut self) -> Next {
        match self.random.random_range(0..100) {
            0..45 => {
                self.values += 1;
                Next::Put(u64::from(self.number) << 40 | self.values)
            }
            45..88 => Next::Get,
            _ => Next::Remove,
        }
    }

    fn record(&mut self, object: String, invoked: u64, what: What) {
        let returned = Some(self.now());
        self.progress.count(&what);
        self.history.push(Operation { object, client: self.number, invoked, returned, what });
    }

    /// Whatever this error means for a person, for the history the outcome is not known. Some may never be.
    fn note(&mut self, problem: &Problem) {
        assert!(!problem.error.contains("this home has seen"), "an older answer than before: {problem:?}");
        assert!(!problem.error.contains("damaged or forged"), "{problem:?}");
        let words: Vec<&str> = problem.error.split_whitespace().filter(|word| is_plain(word)).collect();
        *self.errors.entry(words.join(" ")).or_default() += 1;
    }

    async fn open(&mut self) -> Option<Vault> {
        let connect = Connect { home: self.home.clone(), nodes: self.nodes.clone(), ..Connect::default() };
        Vault::open(connect).await.map_err(|problem| self.note(&problem)).ok()
    }

    /// Works until it is told to stop; now and then as a new client.
    fn work(mut self, stop: &AtomicBool) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            while !stop.load(Ordering::Relaxed) {
                let Some(vault) = self.open().await else { continue };
                for _ in 0..self.random.random_range(20..200) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    self.operate(&vault).await;
                }
                vault.close().await;
            }
        });
        self
    }

    async fn operate(&mut self, vault: &Vault) {
        let (object, next, invoked) = (self.object(), self.next(), self.now());
        let what = match next {
            Next::Put(value) => self.put(vault, &object, value).await,
            Next::Get => What::Read(self.get(vault, &object).await),
            Next::Remove => self.remove(vault, &object).await,
        };
        self.record(object, invoked, what);
    }

    async fn put(&mut self, vault: &Vault, object: &str, value: u64) -> What {
        let put = Put {
            source: Source::Memory(bytes_of(value).into()),
            name: object.to_owned(),
            force: false,
            if_version: None,
            copies: 3,
            thumbnail: false,
        };
        let outcome = match vault.put(put, &|_| ()).await {
            Ok(done) => Written::At(done.version),
            Err(problem) => {
                self.note(&problem);
                Written::Unknown
            }
        };
        What::Write { value: Some(value), outcome }
    }

    async fn get(&mut self, vault: &Vault, object: &str) -> Answer {
        let mut bytes = Vec::new();
        let get = Get { name: object.to_owned(), version: None, any: false };
        match vault.get_to_writer(get, &mut bytes, &|_| ()).await {
            Ok(done) => Answer::Found { version: done.version, value: Some(value_of(&bytes)) },
            Err(problem) if problem.exit == Exit::NotFound => Answer::Nothing,
            Err(problem) => {
                self.note(&problem);
                Answer::Failed
            }
        }
    }

    async fn remove(&mut self, vault: &Vault, object: &str) -> What {
        let outcome = match vault.rm(object).await {
            Ok(written) => Written::At(written.version),
            // It has looked, and there was nothing to hide.
            Err(problem) if problem.exit == Exit::NotFound => return What::Read(Answer::Nothing),
            Err(problem) => {
                self.note(&problem);
                Written::Unknown
            }
        };
        What::Write { value: None, outcome }
    }

    /// Puts and removes by the program itself, which is killed at any moment of it.
    fn work_and_die(mut self, stop: &AtomicBool) -> Self {
        let file = self.home.join("file.bin");
        while !stop.load(Ordering::Relaxed) {
            let (object, next) = (self.object(), self.next());
            let (value, args) = match next {
                Next::Get => continue,
                Next::Put(value) => {
                    std::fs::write(&file, bytes_of(value)).expect("written");
                    (Some(value), vec!["put", text(&file), "--name", &object, "--json"])
                }
                Next::Remove => (None, vec!["rm", &object, "--json"]),
            };
            let mut command = command_to(&self.home, &self.nodes, &args);
            let invoked = self.now();
            let what = if self.random.random_bool(0.5) {
                self.die_in(&mut command);
                What::Write { value, outcome: Written::Unknown }
            } else {
                self.told_by(&mut command, value)
            };
            self.record(object, invoked, what);
        }
        self
    }

    fn die_in(&mut self, command: &mut Command) {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(self.random.random_range(5..150)));
        child.kill().expect("killed");
        child.wait().expect("ended");
    }

    fn told_by(&mut self, command: &mut Command, value: Option<u64>) -> What {
        let answer = finish(command);
        assert!(!answer.stderr.contains("this home has seen"), "an older answer than before: {answer:?}");
        let outcome = match answer.code {
            Some(0) => Written::At(json(&answer)["version"].as_u64().expect("a version")),
            Some(3) => return What::Read(Answer::Nothing),
            Some(1 | 5) => Written::Unknown,
            _ => panic!("{answer:?}"),
        };
        What::Write { value, outcome }
    }
}

fn is_plain(word: &str) -> bool {
    word.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_punctuation())
}

fn copy_keys(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        match path.is_dir() {
            true => copy_keys(&path, &to),
            false => drop(std::fs::copy(path, to).expect("copied")),
        }
    }
}

// ---- faults ----

/// What befalls nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillAndStartAtOnce,
    KillAndStartLater,
    KillTwo,
    KillAll,
    Freeze,
    FreezeTwo,
}

const FAULTS: [Fault; 6] = [
    Fault::KillAndStartAtOnce,
    Fault::KillAndStartLater,
    Fault::KillTwo,
    Fault::KillAll,
    Fault::Freeze,
    Fault::FreezeTwo,
];

fn befall(cluster: &mut Cluster, fault: Fault, random: &mut StdRng) {
    let mut nodes = [0, 1, 2];
    nodes.shuffle(random);
    let millis =
        |random: &mut StdRng, from: u64, to: u64| Duration::from_millis(random.random_range(from..to));
    match fault {
        Fault::KillAndStartAtOnce => kill(cluster, &nodes[..1], Duration::ZERO),
        Fault::KillAndStartLater => kill(cluster, &nodes[..1], millis(random, 500, 3000)),
        Fault::KillTwo => kill(cluster, &nodes[..2], millis(random, 0, 1500)),
        Fault::KillAll => kill(cluster, &nodes, millis(random, 0, 500)),
        Fault::Freeze => freeze(cluster, &nodes[..1], millis(random, 200, 4000)),
        Fault::FreezeTwo => freeze(cluster, &nodes[..2], millis(random, 200, 2500)),
    }
}

fn kill(cluster: &mut Cluster, nodes: &[usize], pause: Duration) {
    nodes.iter().for_each(|node| cluster.nodes.kill(*node).expect("killed"));
    std::thread::sleep(pause);
    let started: Vec<_> =
        nodes.iter().map(|node| (*node, cluster.nodes.spawn(*node).expect("started"))).collect();
    for (node, lines) in started {
        cluster.nodes.wait_ready(node, &lines).expect("ready again");
    }
}

fn freeze(cluster: &Cluster, nodes: &[usize], pause: Duration) {
    let pid = |node: &usize| cluster.nodes.pid(*node).expect("it runs");
    let frozen: Vec<Frozen> = nodes.iter().map(|node| Frozen::freeze(pid(node))).collect();
    std::thread::sleep(pause);
    drop(frozen);
}

/// Faults one after the other, each kind as often as any other, until there were enough.
fn run_plan(
    cluster: &mut Cluster,
    random: &mut StdRng,
    progress: &Progress,
    is_enough: impl Fn() -> bool,
) -> BTreeMap<Fault, u64> {
    let mut happened = BTreeMap::new();
    loop {
        let mut deck = FAULTS;
        deck.shuffle(random);
        for fault in deck {
            std::thread::sleep(Duration::from_millis(random.random_range(100..1000)));
            progress.wait_for_some();
            if is_enough() && happened.len() == FAULTS.len() {
                return happened;
            }
            befall(cluster, fault, random);
            *happened.entry(fault).or_default() += 1;
        }
    }
}

// ---- the test ----

/// Reads every object once more. All that was acknowledged must be there, so every read must be answered: at
/// once, or when the nodes have found each other again.
fn read_all(mut reader: Client, history: &[Operation]) -> Client {
    let objects: BTreeSet<String> = history.iter().map(|operation| operation.object.clone()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let deadline = Instant::now() + READ_AGAIN_MAX;
        let vault = loop {
            match reader.open().await {
                Some(vault) => break vault,
                None => assert!(Instant::now() < deadline, "no node answers: {:?}", reader.errors),
            }
        };
        for object in objects {
            let deadline = Instant::now() + READ_AGAIN_MAX;
            loop {
                let invoked = reader.now();
                let answer = reader.get(&vault, &object).await;
                reader.record(object.clone(), invoked, What::Read(answer));
                if answer != Answer::Failed {
                    break;
                }
                assert!(Instant::now() < deadline, "{object} with all nodes up: {:?}", reader.errors);
            }
        }
        vault.close().await;
    });
    reader
}

/// How often each outcome was had.
fn outcomes(history: &[Operation]) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for operation in history {
        let kind = match operation.what {
            What::Write { value: Some(_), outcome: Written::At(_) } => "puts acknowledged",
            What::Write { value: Some(_), .. } => "puts of unknown outcome",
            What::Write { value: None, outcome: Written::At(_) } => "removals acknowledged",
            What::Write { value: None, .. } => "removals of unknown outcome",
            What::Read(Answer::Found { .. }) => "reads of a value",
            What::Read(Answer::Nothing) => "reads of nothing",
            What::Read(Answer::Failed) => "reads without an answer",
        };
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

fn longest(history: &[Operation]) -> Duration {
    let took =
        history.iter().map(|operation| operation.returned.map_or(0, |returned| returned - operation.invoked));
    Duration::from_micros(took.max().unwrap_or(0))
}

/// Works with all clients while the plan is carried out; what all of them were told.
fn record(cluster: &mut Cluster, seed: u64, seconds: u64) -> Vec<Operation> {
    let mut random = StdRng::seed_from_u64(seed);
    let (began, progress) = (Instant::now(), Arc::new(Progress::default()));
    let mut client = |number| Client::new(cluster, number, random.random(), (began, &progress));
    let clients: Vec<Client> = (0..CLIENTS).map(&mut client).collect();
    let (mortal, reader) = (client(CLIENTS), client(CLIENTS + 1));
    let is_enough = || {
        let age = began.elapsed().as_secs();
        age >= seconds && (progress.of_each() >= 2 * seconds || age >= PATIENCE_FACTOR * seconds)
    };
    let stop = AtomicBool::new(false);
    let (mut done, happened) = std::thread::scope(|scope| {
        let stop = &stop;
        let mut running: Vec<_> =
            clients.into_iter().map(|client| scope.spawn(move || client.work(stop))).collect();
        running.push(scope.spawn(move || mortal.work_and_die(stop)));
        let planned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run_plan(cluster, &mut random, &progress, is_enough)
        }));
        // Also if the plan went wrong: else the clients would work for ever.
        stop.store(true, Ordering::Relaxed);
        let done: Vec<Client> = running.into_iter().map(|run| run.join().expect("its claims")).collect();
        (done, planned.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let history: Vec<Operation> = done.iter().flat_map(|client| client.history.clone()).collect();
    done.push(read_all(reader, &history));
    println!("{} s, faults: {happened:?}", began.elapsed().as_secs());
    let mut errors: BTreeMap<String, u64> = BTreeMap::new();
    for (error, count) in done.iter().flat_map(|client| &client.errors) {
        *errors.entry(error.clone()).or_default() += count;
    }
    println!("errors: {errors:#?}");
    done.into_iter().flat_map(|client| client.history).collect()
}

/// The same history with one more answer at its end, which was right once and is not any more.
#[track_caller]
fn assert_stale_is_found(history: &[Operation]) {
    let is_old = |read: &&Operation| match read.what {
        What::Read(Answer::Found { version, .. }) => history.iter().any(|write| {
            let newer =
                matches!(write.what, What::Write { outcome: Written::At(other), .. } if other > version);
            newer && write.object == read.object
        }),
        _ => false,
    };
    let old = history.iter().find(is_old).expect("something was read and then written over");
    let end = history.iter().filter_map(|operation| operation.returned).max().unwrap_or(0);
    let stale = Operation { invoked: end + 1, returned: Some(end + 2), ..old.clone() };
    let spoiled: Vec<Operation> = history.iter().cloned().chain([stale]).collect();
    let failure = check(&spoiled, STEPS_MAX).expect_err("a stale answer");
    assert!(matches!(failure, Failure::Violation(_)), "{failure}");
}

#[test]
fn what_clients_are_told_while_nodes_die_and_freeze_is_one_register_per_object() {
    let seed = number_from_environment("TINTYPE_TEST_SEED").unwrap_or_else(rand::random);
    let seconds = number_from_environment("TINTYPE_TEST_SECONDS").unwrap_or(SECONDS);
    println!("TINTYPE_TEST_SEED={seed} TINTYPE_TEST_SECONDS={seconds}");
    let mut cluster = Cluster::start(3);
    cluster.put("first.bin", b"the user's key is made once");
    let history = record(&mut cluster, seed, seconds);
    let outcomes = outcomes(&history);
    let longest = longest(&history);
    println!("{} operations, the longest {longest:?}: {outcomes:#?}", history.len());
    let checked = check(&history, STEPS_MAX).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    println!("linearizable: {checked:?}");
    assert_stale_is_found(&history);
    // Not an empty proof: much was done, and not only on good days.
    let count = |kind: &str| outcomes.get(kind).copied().unwrap_or(0);
    for (kind, least) in [
        ("puts acknowledged", 2 * seconds),
        ("reads of a value", 2 * seconds),
        ("reads of nothing", 1),
        ("removals acknowledged", 1),
        ("puts of unknown outcome", 1),
    ] {
        assert!(count(kind) >= least, "only {} {kind} in {seconds} s, seed {seed}", count(kind));
    }
    assert!(longest < OPERATION_MAX, "an operation took {longest:?}, seed {seed}");
}
