//! Everything that decodes foreign bytes, as functions that say what must hold of any bytes at all.
//!
//! One list for two drivers: the fuzz targets in `fuzz/` and the property tests in `tests/it/fuzzing.rs`. For
//! these alone: no program is built with it. Each room keeps its own functions beside what they reach; here
//! is only what needs two rooms, and the list. A function panics if something does not hold, and only then.

use crate::{
    client, disk,
    model::{self, register::RawRegister},
    net, node, proto, seal, stego, work,
};

/// One function, and what bounds it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Names its file in `fuzz/fuzz_targets` and its folder in `fuzz/seeds`.
    pub name: &'static str,
    /// Whether something was read of these bytes. Panics if something does not hold of them.
    pub run: fn(&[u8]) -> bool,
    /// The longest input worth trying: a little over the longest that is not refused unread, or what the time
    /// allows.
    pub input_bytes_max: usize,
    /// What it may hold in memory at once beside its input, with what the checks themselves hold.
    pub memory_bytes_max: usize,
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const fn target(name: &'static str, run: fn(&[u8]) -> bool, input_bytes_max: usize, memory: usize) -> Target {
    Target { name, run, input_bytes_max, memory_bytes_max: memory }
}

/// All of them, the most foreign bytes first.
///
/// A reader of a list takes room for what is announced, at most 1 MiB of it, before the first element comes.
pub const TARGETS: [Target; 26] = [
    target("certificate", net::fuzzing::certificate, 2 * KIB, MIB),
    target("admission", net::fuzzing::admission, 2 * KIB, 256 * KIB),
    target("hello", net::fuzzing::hello, 2 * KIB, 256 * KIB),
    target("rpc_frames", net::fuzzing::rpc_frames, 16 * KIB, MIB),
    target("rpc_question", model::fuzzing::rpc_question, 8 * KIB, 4 * MIB),
    target("rpc_answer", model::fuzzing::rpc_answer, 16 * KIB, 8 * MIB),
    target("lane", lane, 8 * KIB, 4 * MIB),
    target("founding", proto::fuzzing::founding_message, 17 * KIB, 4 * MIB),
    target("heartbeat", proto::fuzzing::heartbeat, 2 * KIB, 4 * MIB),
    target("election", proto::fuzzing::election, 5 * KIB, 4 * MIB),
    target("task_record", proto::fuzzing::task_record, 2 * KIB, 4 * MIB),
    target("bulk", net::fuzzing::bulk, 16 * KIB, 4 * MIB),
    target("register", register, 3 * KIB, 4 * MIB),
    target("manifest", seal::fuzzing::stored_manifest, 16 * KIB, 4 * MIB),
    target("public_parts", model::fuzzing::public_parts, 17 * KIB, 4 * MIB),
    target("sealed", seal::fuzzing::sealed_contents, 8 * KIB, 4 * MIB),
    target("records", proto::fuzzing::stored_records, 16 * KIB, 4 * MIB),
    target("keys", seal::fuzzing::key_line, KIB, 64 * KIB),
    target("configuration", model::fuzzing::configuration, 4 * KIB, 4 * MIB),
    target("home_files", home_files, 8 * KIB, 4 * MIB),
    target("words", words, 2 * KIB, 64 * KIB),
    target("pictures", client::fuzzing::pictures, 16 * KIB, MIB),
    target("thumbnails", client::fuzzing::small_pictures, 16 * KIB, 400 * MIB),
    target("envelope", work::fuzzing::envelopes, 16 * KIB, 1200 * MIB),
    target("strip", work::fuzzing::stripped, 16 * KIB, 400 * MIB),
    target("hidden", hidden, 8 * KIB, MIB),
];

/// The one of this name.
///
/// # Panics
/// If there is none.
pub fn named(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("the list names every target")
}

/// What a member sends on its lane: the frames of a stream, and all of it as one frame.
fn lane(bytes: &[u8]) -> bool {
    let verify = |raw: &RawRegister| seal::register::verify(&raw.0).ok();
    let frames = net::fuzzing::lane_frames(bytes);
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    let streamed = proto::fuzzing::lane_messages(&frames, verify);
    proto::fuzzing::lane_messages(&[bytes], verify) || streamed
}

/// What an owner signs.
fn register(bytes: &[u8]) -> bool {
    let (register, proof) = (seal::fuzzing::signed_register(bytes), seal::fuzzing::list_proof(bytes));
    register || proof
}

/// What may be hidden in a picture: its pixels, and what somebody sealed.
fn hidden(bytes: &[u8]) -> bool {
    let (sealed, pixels) = (seal::fuzzing::hidden_bytes(bytes), stego::fuzzing::pixels(bytes));
    sealed || pixels
}

/// What lies in a home but for keys and configuration.
fn home_files(bytes: &[u8]) -> bool {
    let (files, known) = (disk::fuzzing::home_files(bytes), node::fuzzing::known_peers(bytes));
    files || known
}

/// What people write: names and addresses.
fn words(bytes: &[u8]) -> bool {
    let (words, addresses) = (model::fuzzing::words(bytes), net::fuzzing::addresses(bytes));
    words || addresses
}
