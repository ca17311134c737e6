//! Every decoder that meets foreign bytes, tried with what nobody should send.
//!
//! The functions are those of `tintype::fuzzing`, which the fuzz targets in `fuzz/` call too; here they get
//! the committed seeds, what is made of those by flipped bits, cuts, splices and wrong lengths, and random
//! bytes. A run is the same each time; `TINTYPE_TEST_SEED` makes another one, `PROPTEST_CASES` a longer one.

mod seeds;

use std::{fs, path::PathBuf};

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};
use tintype::fuzzing::{TARGETS, Target, named};

/// Cases for each target, where `PROPTEST_CASES` does not say another number.
const CASES: u32 = 2000;
/// Of those that take a millisecond each.
const SLOW_CASES: u32 = 600;
const SLOW: [&str; 4] = ["lane", "configuration", "envelope", "hidden"];

/// One thing that is done to good bytes.
#[derive(Clone, Debug)]
enum Change {
    FlipBit(Index, u8),
    SetByte(Index, u8),
    Cut(Index),
    Remove(Index, u8),
    Insert(Index, Vec<u8>),
    /// A piece of another seed in this place.
    Splice(Index, Index, Index, u8),
    Repeat(Index, u8),
    /// A number of one, two, four or eight bytes, big endian, as lengths are.
    Number(Index, u64, u8),
    /// A CBOR head with this length.
    Head(Index, u8, u64),
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<Index>;
    let number = prop_oneof![
        Just(0u64),
        Just(1),
        Just(u64::from(u8::MAX)),
        Just(u64::from(u16::MAX)),
        Just(u64::from(u32::MAX)),
        Just(u64::MAX),
        Just(1 << 20),
        0u64..5000,
        any::<u64>(),
    ];
    let few = proptest::collection::vec(any::<u8>(), 0..12);
    prop_oneof![
        (place(), 0u8..8).prop_map(|(at, bit)| Change::FlipBit(at, bit)),
        (place(), any::<u8>()).prop_map(|(at, byte)| Change::SetByte(at, byte)),
        place().prop_map(Change::Cut),
        (place(), any::<u8>()).prop_map(|(at, len)| Change::Remove(at, len)),
        (place(), few).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (place(), place(), place(), any::<u8>()).prop_map(|(at, s, from, n)| Change::Splice(at, s, from, n)),
        (place(), any::<u8>()).prop_map(|(at, len)| Change::Repeat(at, len)),
        (place(), number.clone(), 0u8..4).prop_map(|(at, number, size)| Change::Number(at, number, size)),
        (place(), 0u8..8, number).prop_map(|(at, major, number)| Change::Head(at, major, number)),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let end = bytes.len();
        // One past the last byte is a place, too.
        let place = |at: &Index| at.index(end + 1);
        match self {
            Change::FlipBit(at, bit) if end > 0 => bytes[at.index(end)] ^= 1 << bit,
            Change::SetByte(at, byte) if end > 0 => bytes[at.index(end)] = *byte,
            Change::FlipBit(..) | Change::SetByte(..) => {}
            Change::Cut(at) => bytes.truncate(place(at)),
            Change::Remove(at, len) => drop(bytes.drain(place(at)..end.min(place(at) + usize::from(*len)))),
            Change::Insert(at, new) => drop(bytes.splice(place(at)..place(at), new.iter().copied())),
            Change::Splice(at, seed, from, len) => {
                let other = &seeds[seed.index(seeds.len())];
                let from = from.index(other.len() + 1);
                let piece = &other[from..other.len().min(from + usize::from(*len))];
                put(bytes, place(at), piece);
            }
            Change::Repeat(at, len) => {
                let piece = bytes[place(at)..end.min(place(at) + usize::from(*len))].to_vec();
                drop(bytes.splice(place(at)..place(at), piece));
            }
            Change::Number(at, number, size) => {
                put(bytes, place(at), &number.to_be_bytes()[8 - (1 << size)..]);
            }
            Change::Head(at, major, number) => {
                let head = [&[major << 5 | 27][..], &number.to_be_bytes()].concat();
                let head = if *number < 24 { vec![major << 5 | *number as u8] } else { head };
                put(bytes, place(at), &head);
            }
        }
    }
}

/// Writes over what is there, and past its end.
fn put(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    let end = bytes.len().min(at + new.len());
    drop(bytes.splice(at..end, new.iter().copied()));
}

fn folder(target: &Target) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target.name)
}

/// The committed inputs of a target with their names, in order.
fn committed(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = folder(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let name = |path: &PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), fs::read(path).expect("readable"))).collect()
}

/// Random bytes, or a seed with changes; never longer than the target wants.
fn input(seeds: Vec<Vec<u8>>, max: usize) -> impl Strategy<Value = Vec<u8>> {
    let random = proptest::collection::vec(any::<u8>(), 0..300.min(max));
    let changes = proptest::collection::vec(change(), 0..6);
    let changed = (any::<Index>(), changes).prop_map(move |(seed, changes)| {
        let mut bytes = seeds[seed.index(seeds.len())].clone();
        changes.iter().for_each(|change| change.apply(&mut bytes, &seeds));
        bytes.truncate(max);
        bytes
    });
    prop_oneof![1 => random, 7 => changed]
}

/// All seeds, then the changed ones. What fails is said so that it can be kept.
fn hold(name: &str) {
    let target = named(name);
    let committed = committed(target);
    for (file, bytes) in &committed {
        println!("{name}: {file}");
        let read = (target.run)(bytes);
        // What was found may be either.
        let wanted = if file.starts_with("found-") { read } else { !file.starts_with("near-") };
        assert_eq!(read, wanted, "{name}/{file}: whether something is read of it");
    }
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().expect("a number"));
    let usual = if SLOW.contains(&name) { SLOW_CASES } else { CASES };
    let cases = number("PROPTEST_CASES").map_or(usual, |cases| cases.try_into().expect("not too many"));
    let seed = number("TINTYPE_TEST_SEED").unwrap_or(0);
    let mut rng = [0; 32];
    rng[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &rng);
    let seeds = committed.into_iter().map(|(_, bytes)| bytes).collect();
    let outcome = TestRunner::new_with_rng(config, rng).run(&input(seeds, target.input_bytes_max), |bytes| {
        (target.run)(&bytes);
        Ok(())
    });
    if let Err(TestError::Fail(reason, bytes)) = outcome {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{name}, TINTYPE_TEST_SEED={seed} PROPTEST_CASES={cases}: {reason}\nkeep as a seed: {hex}");
    }
    outcome.expect("the inputs can be made");
}

macro_rules! hold_all {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            hold(stringify!($name));
        })*

        #[test]
        fn every_target_has_a_test() {
            assert_eq!([$(stringify!($name)),*], TARGETS.map(|target| target.name));
        }
    };
}

hold_all! {
    certificate, admission, hello, rpc_frames, rpc_question, rpc_answer, lane, founding, heartbeat, election,
    task_record, bulk, register, manifest, public_parts, sealed, records, keys, configuration, home_files,
    words, pictures, thumbnails, envelope, strip, hidden,
}

/// The seeds are the formats' own encodings, and some that are nearly right (`near-`): whoever changes a
/// format makes them anew with `TINTYPE_WRITE_SEEDS=1`. What was found by a fuzzer (`found-`) stays as it is.
#[test]
fn the_seeds_are_what_is_written_today() {
    let write = std::env::var_os("TINTYPE_WRITE_SEEDS").is_some();
    let made = seeds::made();
    for target in &TARGETS {
        for (file, _) in committed(target) {
            let is_made = made.iter().any(|(name, seed, _)| *name == target.name && *seed == file);
            assert!(is_made || file.starts_with("found-"), "{}/{file} is nobody's seed", target.name);
        }
    }
    for (target, name, bytes) in made {
        let target = named(target);
        let path = folder(target).join(&name);
        let found = fs::read(&path).ok();
        let settled = found.is_some() && seeds::BY_OTHERS.contains(&target.name);
        if write && !settled {
            fs::create_dir_all(folder(target)).expect("a folder");
            fs::write(&path, &bytes).expect("written");
        } else {
            assert!(settled || found.as_deref() == Some(&bytes), "{}/{name} is another seed", target.name);
        }
        assert!(bytes.len() <= target.input_bytes_max, "{}/{name} is cut before it is tried", target.name);
    }
}

#[test]
fn the_seeds_are_few_and_small_and_nothing_else_lies_there() {
    let all: Vec<_> = TARGETS.iter().flat_map(committed).collect();
    let bytes: usize = all.iter().map(|(_, bytes)| bytes.len()).sum();
    let is_small = all.len() <= 10 * TARGETS.len() && bytes <= 200_000;
    assert!(is_small, "{} seeds of {bytes} bytes", all.len());
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names = |folder: &str, ending: &str| {
        let entries = fs::read_dir(root.join(folder)).expect("a folder");
        let name =
            |entry: fs::DirEntry| entry.file_name().to_string_lossy().trim_end_matches(ending).to_owned();
        let mut names: Vec<String> = entries.map(|entry| name(entry.expect("an entry"))).collect();
        names.sort();
        names
    };
    let mut targets = TARGETS.map(|target| target.name.to_owned());
    targets.sort();
    assert_eq!(names("seeds", ""), targets);
    assert_eq!(names("fuzz_targets", ".rs"), targets);
}
