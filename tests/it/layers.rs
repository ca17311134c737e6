//! Keeps the rooms apart: imports go down only, rooms of one row do not see each other, and each outside
//! thing has one room that names it.

use crate::source::{Kind, SourceFile, Token, rust_files};

/// The rows from the top; a room may use every row below its own.
const ROWS: [&[&str]; 7] = [
    &["main"],
    &["cli"],
    &["api", "fuzzing"],
    &["node", "client"],
    &["net", "disk", "work"],
    &["proto", "seal", "stego"],
    &["model"],
];

const PURE_ROOMS: [&str; 4] = ["proto", "seal", "stego", "model"];

/// Imports that break a row, each with its reason: (file, room, reason).
const IMPORT_EXCEPTIONS: [(&str, &str, &str); 0] = [];

/// An outside thing and where it may be named.
struct Outside {
    /// Path prefixes, such as `std::fs`; a trailing `*` takes every name that begins so.
    names: &'static [&'static str],
    /// Files or folders that may name it.
    places: &'static [&'static str],
    /// Whether test code may name it anywhere, and why.
    tests: Option<&'static str>,
}

const OUTSIDE: [Outside; 5] = [
    Outside {
        names: &["libp2p", "libp2p_*", "quinn", "quinn_*", "rustls", "if_watch", "hickory_proto"],
        places: &["src/net/"],
        tests: None,
    },
    Outside { names: &["redb"], places: &["src/disk/"], tests: None },
    Outside {
        names: &["std::fs", "tokio::fs", "fs4"],
        // The user's own files are the client's, and a command writes keys, reports and pictures where the
        // user says.
        places: &["src/disk/", "src/client/files/", "src/cli/"],
        tests: Some("a test may make a temporary folder of its own"),
    },
    Outside {
        names: &["clap", "clap_complete", "anyhow", "indicatif", "rustyline", "rustix"],
        places: &["src/cli/"],
        tests: None,
    },
    Outside {
        names: &["directories", "sysinfo"],
        places: &["src/cli/", "src/node/", "src/disk/"],
        tests: None,
    },
];

/// What the pure rooms may not say at all.
const IMPURE_WORDS: [&str; 4] = ["async", "await", "Instant", "SystemTime"];
const IMPURE_PATHS: [&str; 9] = [
    "tokio",
    "futures",
    "std::thread",
    "std::fs",
    "std::env",
    "std::process",
    "rand::rng",
    "rand::random",
    "std::time::Instant",
];

/// The one way to a verified register: only the check of its signature may take it.
const VOUCH_PLACES: [&str; 2] = ["src/seal/register.rs", "src/model/register.rs"];

/// `libp2p_identity` is plain data and keys: every room may name it.
const ANYWHERE: &str = "libp2p_identity";

/// Words after which `::` begins a path and does not go on with one.
const BEFORE_PATHS: [&str; 12] =
    ["use", "as", "in", "return", "mut", "dyn", "impl", "for", "where", "else", "match", "if"];

fn row(room: &str) -> Option<usize> {
    ROWS.iter().position(|rooms| rooms.contains(&room))
}

/// The room of a file under `src`; none for the map itself.
fn room_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let room = inside.split('/').next()?.trim_end_matches(".rs");
    (room != "lib").then_some(room)
}

/// The module of a file: `src/net/bulk/mod.rs` is `net::bulk`.
fn module_of(path: &str) -> Vec<String> {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    let steps = inside.split('/').filter(|step| !matches!(*step, "mod" | "lib" | "main"));
    steps.map(str::to_owned).collect()
}

/// One path as the code says it, groups taken apart, with `super` and `self` resolved: from the crate's root
/// it begins with `crate`.
#[derive(Debug, PartialEq)]
struct Said {
    steps: Vec<String>,
    line: usize,
    in_test: bool,
}

impl Said {
    fn begins(&self, name: &str) -> bool {
        if let Some(prefix) = name.strip_suffix('*') {
            return self.steps[0].starts_with(prefix);
        }
        let wanted: Vec<&str> = name.split("::").collect();
        self.steps.len() >= wanted.len() && self.steps.iter().zip(wanted).all(|(step, want)| step == want)
    }
}

/// Every path in a file.
fn paths(file: &SourceFile) -> Vec<Said> {
    let code = file.code();
    let mut module = module_of(&file.path);
    let (mut depth, mut inline) = (0usize, Vec::new());
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = code.get(at) {
        if token.is("{") {
            depth += 1;
            let is_module = at >= 2 && code[at - 2].is("mod") && code[at - 1].kind == Kind::Word;
            if is_module {
                module.push(code[at - 1].text.clone());
                inline.push(depth);
            }
        } else if token.is("}") {
            if inline.last() == Some(&depth) {
                inline.pop();
                module.pop();
            }
            depth = depth.saturating_sub(1);
        } else if begins_path(&code, at) {
            let mut whole = Vec::new();
            at = tree(&code, at, &[], &mut whole);
            found.extend(whole.into_iter().map(|(steps, line)| Said {
                steps: resolve(steps, &module),
                line,
                in_test: token.in_test,
            }));
            continue;
        }
        at += 1;
    }
    found
}

fn begins_path(code: &[&Token], at: usize) -> bool {
    let is_name = code[at].kind == Kind::Word && !BEFORE_PATHS.contains(&code[at].text.as_str());
    is_name && !(at > 0 && is_step(code, at))
}

/// Whether the word at `at` goes on a path that began before it; `::name` at the start of a path does not.
fn is_step(code: &[&Token], at: usize) -> bool {
    if !code[at - 1].is("::") || at < 2 {
        return false;
    }
    let before = code[at - 2];
    before.is(">") || (before.kind == Kind::Word && !BEFORE_PATHS.contains(&before.text.as_str()))
}

/// Reads one path, with its groups, from `at` on; the answer is the place behind it.
fn tree(code: &[&Token], at: usize, before: &[String], out: &mut Vec<(Vec<String>, usize)>) -> usize {
    let mut steps = before.to_vec();
    let mut place = at;
    while let Some(token) = code.get(place) {
        if token.is("{") {
            place += 1;
            while code.get(place).is_some_and(|token| !token.is("}")) {
                let start = place;
                place = tree(code, place, &steps, out);
                while code.get(place).is_some_and(|token| token.is(",")) {
                    place += 1;
                }
                // Not a group of paths after all: leave it to the caller, word by word.
                if place == start {
                    return place + 1;
                }
            }
            return place + 1;
        }
        if token.kind != Kind::Word && !token.is("*") {
            break;
        }
        if token.text != "self" || steps.is_empty() {
            steps.push(token.text.clone());
        }
        place += 1;
        if !code.get(place).is_some_and(|token| token.is("::")) {
            break;
        }
        place += 1;
    }
    if place > at {
        out.push((steps, code[at].line));
        // `name as other` inside of a group.
        if code.get(place).is_some_and(|token| token.is("as")) && !before.is_empty() {
            place += 2;
        }
    }
    place
}

fn resolve(steps: Vec<String>, module: &[String]) -> Vec<String> {
    let root = |rest: &[String], module: &[String]| {
        let mut whole = vec!["crate".to_owned()];
        whole.extend_from_slice(module);
        whole.extend_from_slice(rest);
        whole
    };
    let ups = steps.iter().take_while(|step| *step == "super").count();
    match steps[0].as_str() {
        "super" => root(&steps[ups..], &module[..module.len().saturating_sub(ups)]),
        "self" if steps.get(1).is_some_and(|step| step == "super") => resolve(steps[1..].to_vec(), module),
        "self" if steps.len() > 1 => root(&steps[1..], module),
        "tintype" if steps.len() > 1 => root(&steps[1..], &[]),
        _ => steps,
    }
}

/// All that breaks the order, one sentence each.
fn violations(files: &[SourceFile]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        let Some(room) = room_of(&file.path) else { continue };
        let Some(own_row) = row(room) else {
            found.push(format!("{}: {room} is a room that no row knows", file.path));
            continue;
        };
        let paths = paths(file);
        for said in &paths {
            let complaint =
                import(&file.path, room, own_row, said).or_else(|| outside(&file.path, room, said));
            found.extend(complaint.map(|text| format!("{}:{}: {text}", file.path, said.line)));
        }
        found.extend(words(file, room));
    }
    found
}

fn import(path: &str, room: &str, own_row: usize, said: &Said) -> Option<String> {
    if said.steps[0] != "crate" || said.steps.len() < 2 {
        return None;
    }
    let target = said.steps[1].as_str();
    if target == "*" {
        return Some("a glob of the whole crate hides what is used".into());
    }
    let target_row = row(target)?;
    let excepted = IMPORT_EXCEPTIONS.iter().any(|(file, room, _)| path == *file && target == *room);
    if target == room || target_row > own_row || excepted {
        return None;
    }
    let direction = if target_row == own_row { "sideways" } else { "upward" };
    Some(format!("{room} uses {target}: {direction}"))
}

fn outside(path: &str, room: &str, said: &Said) -> Option<String> {
    if said.steps[0] == ANYWHERE {
        return None;
    }
    let shown = said.steps.join("::");
    // A test may be given its seed.
    let is_seed = said.in_test && said.begins("std::env");
    if PURE_ROOMS.contains(&room) && !is_seed && IMPURE_PATHS.iter().any(|name| said.begins(name)) {
        return Some(format!("{room} is pure and names {shown}"));
    }
    let thing = OUTSIDE.iter().find(|thing| thing.names.iter().any(|name| said.begins(name)))?;
    let allowed = thing.places.iter().any(|place| path.starts_with(place));
    // One word alone is a name of ours, such as a variable, unless a `use` or a path follows from it.
    let is_path = said.steps.len() > 1;
    if allowed || !is_path || (said.in_test && thing.tests.is_some()) {
        return None;
    }
    Some(format!("{room} names {shown}, which belongs to {}", thing.places.join(" and ")))
}

fn words(file: &SourceFile, room: &str) -> Vec<String> {
    let mut found = Vec::new();
    for token in file.code() {
        let line = token.line;
        if token.kind != Kind::Word {
            continue;
        }
        if PURE_ROOMS.contains(&room) && IMPURE_WORDS.contains(&token.text.as_str()) {
            found.push(format!("{}:{line}: {room} is pure and says {}", file.path, token.text));
        }
        // A test of a machine makes registers that nobody signed.
        let may_vouch = token.in_test || VOUCH_PLACES.contains(&file.path.as_str());
        if token.text == "vouch" && !may_vouch {
            found.push(format!(
                "{}:{line}: only the check of a signature may vouch for a register",
                file.path
            ));
        }
    }
    found
}

#[test]
fn imports_go_down_only() {
    let found = violations(&rust_files());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn exceptions_are_still_needed() {
    let files = rust_files();
    for (path, room, reason) in IMPORT_EXCEPTIONS {
        let file =
            files.iter().find(|file| file.path == path).expect("an exception for a file that is there");
        let used = paths(file).iter().any(|said| said.begins(&format!("crate::{room}")));
        assert!(used && reason.len() > 10, "{path} needs no exception for {room}");
    }
}

/// What is planted in a file of this path is found.
fn planted(path: &str, text: &str) -> Vec<String> {
    violations(&[SourceFile::new(path, text)])
}

#[test]
fn planted_imports_are_found_however_they_are_written() {
    let wrong = [
        ("src/proto/mod.rs", "use crate::net::Net;"),
        ("src/proto/mod.rs", "use crate::{model::Millis, seal};"),
        ("src/proto/paxos/mod.rs", "use super::super::disk::Chunks;"),
        ("src/proto/paxos.rs", "mod inner { use super::super::super::net::x; }"),
        ("src/net/mod.rs", "use super::disk;"),
        ("src/net/bulk.rs", "fn f() { let x = crate::node::start(); }"),
        ("src/client/put.rs", "type X = crate::api::Exit;"),
        ("src/client/put.rs", "use crate::{\n    model::{self, Millis as M},\n    node::serve,\n};"),
        ("src/disk/mod.rs", "#[cfg(test)] mod tests { use crate::net::Net; }"),
        ("src/model/id.rs", "use crate::*;"),
        ("src/model/id.rs", "macro_rules! m { () => { $crate::seal::keys() } }"),
        ("src/seal/keys.rs", "use tintype::proto::x;"),
        ("src/novel/mod.rs", "fn f() {}"),
    ];
    for (path, text) in wrong {
        assert_eq!(planted(path, text).len(), 1, "{path}: {text}: {:?}", planted(path, text));
    }
}

#[test]
fn planted_outside_things_are_found() {
    let wrong = [
        ("src/node/mod.rs", "use libp2p::PeerId;"),
        ("src/node/mod.rs", "use ::quinn::Endpoint;"),
        ("src/client/mod.rs", "fn f() { rustls::crypto::x(); }"),
        ("src/node/mod.rs", "use libp2p_gossipsub::Event;"),
        ("src/node/mod.rs", "use redb::Database;"),
        ("src/node/mod.rs", "use std::{fs, io};"),
        ("src/net/mod.rs", "use std::{io, fs::File};"),
        ("src/client/put.rs", "async fn f() { tokio::fs::read(x).await }"),
        ("src/api.rs", "use clap::Parser;"),
        ("src/node/mod.rs", "fn f() -> anyhow::Result<()> { x }"),
        ("src/node/serve.rs", "let v = VerifiedRegister::vouch(r);"),
        ("src/proto/mod.rs", "async fn f() {}"),
        ("src/seal/mod.rs", "use std::time::{Duration, Instant};"),
        ("src/model/time.rs", "fn f() { tokio::spawn(x) }"),
        ("src/seal/keys.rs", "let x = rand::rng();"),
    ];
    for (path, text) in wrong {
        assert!(!planted(path, text).is_empty(), "{path}: {text}");
    }
}

#[test]
fn what_is_in_order_passes() {
    let right = [
        ("src/proto/mod.rs", "use crate::model::{Millis, id};\nuse super::model;\n// crate::net::x\n"),
        ("src/proto/a/b.rs", "use super::super::c; use self::d; let x = \"crate::net::y\";"),
        ("src/node/mod.rs", "use crate::{disk, net::{self, Net}, proto, seal, model};"),
        ("src/api.rs", "use crate::client::types::*;"),
        ("src/main.rs", "fn main() { tintype::cli::run() }"),
        ("src/model/id.rs", "pub use libp2p_identity::PeerId;"),
        ("src/net/mod.rs", "use libp2p::swarm; #[cfg(test)] mod tests { fn f() { std::fs::read(x); } }"),
        ("src/node/load.rs", "struct S { net: u8 } fn f(s: &S, disk: u8) { s.net; disk.x(); if net {} }"),
        ("src/client/files/plan.rs", "use std::{fs::{self, File}, io};"),
        ("src/seal/register.rs", "VerifiedRegister::vouch(register)"),
        ("src/proto/mod.rs", "#[cfg(test)] mod tests { fn f() { std::env::var(x); V::vouch(r); } }"),
        ("src/lib.rs", "pub mod net; pub mod cli;"),
    ];
    for (path, text) in right {
        assert_eq!(planted(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn every_room_of_the_map_has_a_row() {
    let files = rust_files();
    let map = files.iter().find(|file| file.path == "src/lib.rs").expect("the map");
    let code = map.code();
    let declared: Vec<_> = code.windows(2).filter(|two| two[0].is("mod")).map(|two| &two[1].text).collect();
    assert!(declared.len() >= 9, "{declared:?}");
    for room in declared {
        assert!(row(room).is_some(), "{room} has no row");
    }
}
