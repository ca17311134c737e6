//! Death without warning in real clusters: at every named point that a put passes, and at random times.
//!
//! What was acknowledged must be whole afterwards, byte for byte; what was not is absent or whole, never
//! half.
//! A random run prints its seed; `TINTYPE_TEST_SEED` repeats it and `TINTYPE_TEST_KILLS` makes it longer.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tintype::disk::CRASH_POINTS;

use crate::{
    cluster::{Answer, Cluster, finish, noise, wait_for},
    inspect::{LOOK, chunk_files, command_to, flip_a_bit, json, wait_until_healthy},
};

/// Puts within which a node that is to die at a point must have come by it.
const PUTS_TO_DIE: u64 = 12;
/// How long a process that has reached its point may take to be gone.
const PATIENCE: Duration = Duration::from_secs(15);

// ---- which points are on which path ----

/// Where a point is passed, or why no put passes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a node, at its start.
    Start,
    /// In a node that takes a put; the numbers are how often it must come by before it dies.
    Node(&'static [u64]),
    /// In the client that puts.
    Client,
    /// In a node that finds a bad copy.
    BadCopy,
    /// Not on a put's way.
    Elsewhere(&'static str),
}

fn place(point: &str) -> Place {
    let is = |prefix: &str| point.starts_with(prefix);
    match point {
        "disk.node_addr.removed" => Place::Elsewhere("an orderly stop: everything is durable before it"),
        // The first of them is at the start already, the later ones are in puts.
        _ if is("disk.batch.") => Place::Node(&[1, 6]),
        _ if is("disk.boot.records_") => Place::Elsewhere("a home's first start: nothing is stored yet"),
        _ if is("disk.boot.") || is("disk.node_addr.") => Place::Start,
        _ if is("disk.chunk.") => Place::Node(&[1]),
        _ if is("client.") || is("disk.key.") || is("disk.client_log.") => Place::Client,
        _ if is("disk.quarantine.") => Place::BadCopy,
        _ if is("disk.format.") || is("disk.machine.") || is("disk.dir.") => {
            Place::Elsewhere("making a home: nothing is stored yet; the disk's own tests die there")
        }
        _ if is("disk.rolled_back.") => Place::Elsewhere("a home that turns out to be a copy; see homes"),
        _ if is("node.founding.") => Place::Elsewhere("the founding: nothing is stored yet"),
        _ => panic!("{point} is new: say here where it is passed"),
    }
}

// ---- what a client does, and what it knows then ----

/// A client's command line without the cluster, so that threads can have it.
#[derive(Clone)]
struct Client {
    home: PathBuf,
    addrs: Vec<String>,
    files: PathBuf,
}

impl Client {
    fn of(cluster: &Cluster) -> Self {
        Self {
            home: cluster.client.clone(),
            addrs: cluster.nodes.addresses(),
            files: cluster.dir().join("in"),
        }
    }

    /// The same with a fresh home that has the cluster key and no user yet.
    fn fresh(&self, dir: &Path) -> Self {
        let home = dir.join("home");
        std::fs::create_dir_all(home.join("keys")).expect("made");
        std::fs::copy(self.home.join("keys/cluster.key"), home.join("keys/cluster.key")).expect("copied");
        Self { home, addrs: self.addrs.clone(), files: dir.join("in") }
    }

    fn command(&self, args: &[&str]) -> Command {
        command_to(&self.home, &self.addrs, args)
    }

    fn put(&self, name: &str, bytes: &[u8], crash_at: Option<&str>) -> Answer {
        let path = self.files.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, bytes).expect("written");
        let mut command = self.command(&["put", path.to_str().expect("plain"), "--name", name, "--json"]);
        if let Some(point) = crash_at {
            command.env("TINTYPE_CRASH_AT", point);
        }
        finish(&mut command)
    }

    /// The bytes of an object; none if there is none.
    #[track_caller]
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        let output = self.command(&["get", name, "-o", "-"]).output().expect("the program runs");
        match output.status.code() {
            Some(0) => Some(output.stdout),
            Some(3) => None,
            code => panic!("get {name}: {code:?} {}", String::from_utf8_lossy(&output.stderr)),
        }
    }

    #[track_caller]
    fn is_absent_or_whole(&self, name: &str, bytes: &[u8], acknowledged: bool, why: &str) {
        match self.get(name) {
            Some(found) => assert!(found == bytes, "{why}: {name} is not what was put"),
            None => assert!(!acknowledged, "{why}: {name} was acknowledged and is gone"),
        }
    }

    /// Everything that is there, by name.
    #[track_caller]
    fn get_all(&self, dir: &Path) -> BTreeMap<String, Vec<u8>> {
        let answer = finish(&mut self.command(&["get", "--all", "-o", dir.to_str().expect("plain")]));
        assert_eq!(answer.code, Some(0), "{answer:?}");
        let files = std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("a file"));
        files
            .map(|file| {
                let name = file.file_name().into_string().expect("plain");
                (name, std::fs::read(file.path()).expect("read"))
            })
            .collect()
    }
}

fn version_in(answer: &Answer) -> u64 {
    json(answer)["version"].as_u64().unwrap_or_else(|| panic!("a version: {answer:?}"))
}

// ---- every point ----

/// Puts objects until the node that is to die has died; what was put, and whether it was acknowledged.
fn put_until_dead(
    cluster: &mut Cluster,
    client: &Client,
    victim: usize,
    point: &str,
    seed: &mut u64,
) -> BTreeMap<String, (Vec<u8>, bool)> {
    let mut put = BTreeMap::new();
    let lines = cluster.nodes.spawn(victim).expect("started");
    let alone = client.addrs.len() == 1;
    if cluster.nodes.wait_ready(victim, &lines).is_ok() {
        for _ in 0..PUTS_TO_DIE {
            *seed += 1;
            // A small one, whose chunk is a record, and one whose chunk is a file.
            let bytes = noise(*seed, if seed.is_multiple_of(3) { 5_000 } else { 150_000 });
            let name = format!("{seed}.bin");
            let answer = client.put(&name, &bytes, None);
            let acknowledged = answer.code == Some(0);
            assert!(acknowledged || alone, "{point}: two of three are alive, but: {answer:?}");
            put.insert(name, (bytes, acknowledged));
            if cluster.nodes.wait_for_end(victim, LOOK).is_some() {
                return put;
            }
        }
    }
    let ended = cluster.nodes.wait_for_end(victim, PATIENCE);
    assert!(ended.is_some_and(|status| status.code().is_none()), "{point} was not come by: {ended:?}");
    put
}

fn die_at_every_point_of_a_node(count: usize) {
    let mut cluster = Cluster::start(count);
    let client = Client::of(&cluster);
    // The first put would make the key, but the node may die before it is asked for anything.
    cluster.ok(&["user", "add", "me"]);
    let (mut seed, mut kept, mut turn) = (1000, BTreeMap::new(), 0);
    for point in CRASH_POINTS {
        let times = match place(point) {
            Place::Node(times) => times,
            // The same for one as for three.
            Place::Start if count > 1 => &[1],
            _ => continue,
        };
        for time in times {
            let victim = turn % count;
            turn += 1;
            cluster.nodes.kill(victim).expect("killed");
            let at = format!("{point}:{time}");
            cluster.nodes.all[victim].envs = vec![("TINTYPE_CRASH_AT".into(), at.clone())];
            let put = put_until_dead(&mut cluster, &client, victim, &at, &mut seed);
            cluster.nodes.all[victim].envs.clear();
            cluster.nodes.restart(victim).unwrap_or_else(|error| panic!("after {at}: {error:#}"));
            for (name, (bytes, acknowledged)) in put {
                // Those that are kept are all read at the end, once without each node.
                if !acknowledged {
                    client.is_absent_or_whole(&name, &bytes, acknowledged, &at);
                }
                if acknowledged {
                    kept.insert(name, bytes);
                }
            }
        }
    }
    assert!(!kept.is_empty(), "some puts must have been acknowledged");
    // Whatever node is lost now: once repair has finished the others have all of it.
    for lost in 0..count {
        if count > 1 {
            wait_until_healthy(&cluster);
            cluster.nodes.kill(lost).expect("killed");
        }
        let found = client.get_all(&cluster.dir().join(format!("all-{lost}")));
        for (name, bytes) in &kept {
            assert!(found.get(name) == Some(bytes), "{name} without node {lost}");
        }
        if count > 1 {
            cluster.nodes.restart(lost).expect("ready again");
        }
    }
}

#[test]
fn a_node_of_three_may_die_at_every_point() {
    die_at_every_point_of_a_node(3);
}

#[test]
fn the_only_node_may_die_at_every_point() {
    die_at_every_point_of_a_node(1);
}

#[test]
fn a_client_may_die_at_every_point() {
    let cluster = Cluster::start(1);
    let client = Client::of(&cluster);
    for (turn, point) in CRASH_POINTS.iter().enumerate() {
        if place(point) != Place::Client {
            continue;
        }
        let dir = cluster.dir().join(format!("client-{turn}"));
        let client = client.fresh(&dir);
        let bytes = noise(turn as u64, 70_000 + turn);
        let died = client.put("a.bin", &bytes, Some(point));
        assert!(died.code.is_none(), "{point} was not come by: {died:?}");
        // Before its first put a home may have no key yet, and then no answer but "no such user".
        if !users_of(&client).is_empty() {
            client.is_absent_or_whole("a.bin", &bytes, !died.stdout.is_empty(), point);
        }
        let again = client.put("a.bin", &bytes, None);
        assert_eq!(again.code, Some(0), "after {point}: {again:?}");
        assert_eq!(version_in(&again), 1, "after {point}: the same bytes are the same version");
        assert_eq!(users_of(&client).len(), 1, "after {point}");
        client.is_absent_or_whole("a.bin", &bytes, true, point);
    }
}

fn users_of(client: &Client) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(client.home.join("keys/users")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|ext| ext == "key")).collect()
}

#[test]
fn a_node_may_die_while_it_moves_a_bad_copy_aside() {
    let mut cluster = Cluster::start(3);
    let client = Client::of(&cluster);
    let bytes = noise(77, 200_000);
    cluster.put("a.bin", &bytes);
    wait_until_healthy(&cluster);
    for point in CRASH_POINTS.iter().filter(|point| place(point) == Place::BadCopy) {
        cluster.nodes.kill(1).expect("killed");
        flip_a_bit(&chunk_files(&cluster.nodes.all[1].home)[0]);
        cluster.nodes.all[1].envs = vec![("TINTYPE_CRASH_AT".into(), point.to_string())];
        cluster.nodes.restart(1).expect("ready");
        let found = cluster.run(&["verify", "a.bin"]);
        assert_eq!(found.code, Some(6), "{point}: {found:?}");
        assert!(cluster.nodes.wait_for_end(1, PATIENCE).is_some(), "{point} was not come by");
        assert!(cluster.get("a.bin").as_ref() == Some(&bytes), "{point}");
        cluster.nodes.all[1].envs.clear();
        cluster.nodes.restart(1).expect("ready");
        wait_for("all copies are good again", PATIENCE, || cluster.run(&["verify", "a.bin"]).code == Some(0));
        assert!(client.get("a.bin").as_ref() == Some(&bytes), "{point}");
    }
}

// ---- random times ----

/// What one object may be now, and the highest version that was acknowledged.
#[derive(Default)]
struct Known {
    /// None = not there, or removed. Empty = never touched.
    possible: Vec<Option<Vec<u8>>>,
    version: u64,
}

impl Known {
    fn acknowledged(&mut self, state: Option<Vec<u8>>) {
        self.possible = vec![state];
    }

    fn unknown(&mut self, state: Option<Vec<u8>>) {
        self.possible.push(state);
    }
}

/// Writes to objects of its own, one after the other, until it is told to stop.
struct Writer {
    client: Client,
    name: String,
    random: StdRng,
    known: BTreeMap<String, Known>,
    acknowledged: Arc<AtomicU64>,
    refused: u64,
}

impl Writer {
    fn new(client: Client, name: &str, seed: u64, acknowledged: Arc<AtomicU64>) -> Self {
        Self {
            client,
            name: name.into(),
            random: StdRng::seed_from_u64(seed),
            known: BTreeMap::new(),
            acknowledged,
            refused: 0,
        }
    }

    fn run(mut self, stop: &AtomicBool) -> Self {
        while !stop.load(Ordering::Relaxed) {
            let name = format!("{}-{}.bin", self.name, self.random.random_range(0..4));
            match self.random.random_range(0..10) {
                0 | 1 => self.remove(&name),
                2 => self.put(&name, 3_000_000),
                _ => self.put(&name, 100_000),
            }
        }
        self
    }

    fn put(&mut self, name: &str, at_most: usize) {
        let len = self.random.random_range(at_most / 2..at_most);
        let bytes = noise(self.random.random(), len);
        let answer = self.client.put(name, &bytes, None);
        let known =
            self.known.entry(name.into()).or_insert_with(|| Known { possible: vec![None], version: 0 });
        if answer.code != Some(0) {
            self.refused += 1;
            return known.unknown(Some(bytes));
        }
        let version = version_in(&answer);
        assert!(version > known.version, "{name}: version {version} after {}", known.version);
        known.version = version;
        known.acknowledged(Some(bytes));
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    fn remove(&mut self, name: &str) {
        let Some(known) = self.known.get_mut(name) else { return };
        let answer = finish(&mut self.client.command(&["rm", name, "--json"]));
        match answer.code {
            Some(0) => {
                let version = version_in(&answer);
                assert!(version > known.version, "{name}: version {version} after {}", known.version);
                known.version = version;
                known.acknowledged(None);
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Some(3) => assert!(known.possible.contains(&None), "{name} was acknowledged and is gone"),
            _ => {
                self.refused += 1;
                known.unknown(None);
            }
        }
    }
}

fn number_from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn kills_at_random_times_lose_nothing_that_was_acknowledged() {
    let seed = number_from_environment("TINTYPE_TEST_SEED").unwrap_or_else(rand::random);
    let kills = number_from_environment("TINTYPE_TEST_KILLS").unwrap_or(20);
    println!("TINTYPE_TEST_SEED={seed} TINTYPE_TEST_KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(3);
    cluster.put("first.bin", b"the user's key is made once");
    let client = Client::of(&cluster);
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..2)
        .map(|n| {
            let counter = Arc::clone(&acknowledged);
            let writer = Writer::new(client.clone(), &format!("w{n}"), random.random(), counter);
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || writer.run(&stop))
        })
        .collect();
    let mut started = BTreeMap::new();
    let mut killed = 0;
    // A slow machine gets more kills rather than fewer writes between them.
    while killed < kills || acknowledged.load(Ordering::Relaxed) < kills {
        killed += 1;
        assert!(killed <= kills * 5, "there must be something to lose");
        std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
        let victim = random.random_range(0..3);
        cluster.nodes.kill(victim).expect("killed");
        std::thread::sleep(Duration::from_millis(random.random_range(0..200)));
        let lines = cluster.nodes.spawn(victim).expect("started");
        if random.random_bool(0.7) {
            cluster.nodes.wait_ready(victim, &lines).expect("ready again");
        }
        started.insert(victim, lines);
    }
    stop.store(true, Ordering::Relaxed);
    let writers: Vec<Writer> = writers.into_iter().map(|w| w.join().expect("a writer's claims")).collect();
    for node in 0..3 {
        cluster.nodes.kill(node).expect("killed");
    }
    cluster.nodes.start_all().expect("all ready again");
    let refused: u64 = writers.iter().map(|w| w.refused).sum();
    println!("{} writes acknowledged, {refused} not, {killed} kills", acknowledged.load(Ordering::Relaxed));
    for (name, known) in writers.iter().flat_map(|w| &w.known) {
        check_known(&client, name, known);
    }
    let verified = cluster.run(&["verify"]);
    assert!(matches!(verified.code, Some(0 | 6)), "{verified:?}");
    wait_for("every copy is good", Duration::from_secs(20), || cluster.run(&["verify"]).code == Some(0));
}

#[track_caller]
fn check_known(client: &Client, name: &str, known: &Known) {
    let found = client.get(name);
    let is = found.as_ref().map(Vec::len);
    let possible: Vec<_> = known.possible.iter().map(|state| state.as_ref().map(Vec::len)).collect();
    assert!(known.possible.contains(&found), "{name} is {is:?}, may be {possible:?}");
    if found.is_some() {
        let stat = finish(&mut client.command(&["stat", name, "--json"]));
        assert_eq!(stat.code, Some(0), "{stat:?}");
        assert!(version_in(&stat) >= known.version, "{name}: {stat:?} after version {}", known.version);
    }
}
