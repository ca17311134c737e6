//! Good bytes of every format, to begin with: the test vectors, and what the program writes.

use std::io::Cursor;

use image::{ExtendedColorType, ImageFormat};
use serde_bytes::ByteBuf;
use tintype::{
    fuzzing::named,
    model::{
        BodyId, Digest, FoundingId, Incarnation, ObjectId, PeerId, RequestId, codec,
        hello::{Hello, Kind, KnownPeer, Side},
        member::{Epoch, Founding, NodeNumber},
        object::{
            BodyPublic, ChunkRef, ManifestBody, ManifestPublic, ManifestRest, PartPublic, PartRef, Redundancy,
        },
        register::{RawRegister, VerifiedRegister},
        rpc::{BodyState, Counters, EventInfo, NodeInfo, NodeState, Request, Response},
        task::Claim,
    },
    net,
    proto::{
        chunkpaxos::{Accepted, AcceptorRecord, Answer, Ballot, Body, Command, Message, Outcome, RoundId},
        election as coordinator,
        founding::{self, FoundingRecord},
        membership,
    },
    seal::{fuzzing, register},
    stego::{self, Channels},
    work::{Frames, Layout, Order, envelope::envelope},
};
use zeroize::Zeroizing;

/// Target, name, bytes.
type Seed = (&'static str, String, Vec<u8>);

/// Targets whose seeds other people's encoders make, perhaps other ones each time: they stay as they are.
pub const BY_OTHERS: [&str; 5] = ["certificate", "pictures", "thumbnails", "envelope", "strip"];

const ACCEPTOR: &str = include_str!("../../vectors/acceptor.txt");
const ADMISSION: &str = include_str!("../../vectors/admission.txt");
const BULK: &str = include_str!("../../vectors/bulk.txt");
const ELECTION: &str = include_str!("../../vectors/election.txt");
const FOUNDING: &str = include_str!("../../vectors/founding.txt");
const HEARTBEAT: &str = include_str!("../../vectors/heartbeat.txt");
const KEY_FILE: &str = include_str!("../../vectors/key-file.txt");
const KNOWN: &str = include_str!("../../vectors/known.txt");
const MANIFEST: &str = include_str!("../../vectors/manifest.txt");
const MODEL: &str = include_str!("../../vectors/model.txt");
const REGISTER: &str = include_str!("../../vectors/register.txt");
const TASK: &str = include_str!("../../vectors/task.txt");
const USER_KEYS: &str = include_str!("../../vectors/user-keys.txt");

const OWN_ADDRESS: &str = "/ip4/127.0.0.1/udp/4117/quic-v1";

/// The value behind a name in a file of vectors.
fn text<'a>(file: &'a str, name: &str) -> &'a str {
    let rest = file.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix([' ']));
    rest.unwrap_or_else(|| panic!("no {name}")).trim_start_matches("= ")
}

fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex")).collect()
}

fn vector(file: &str, name: &str) -> Vec<u8> {
    hex(text(file, name))
}

fn seed(target: &'static str, name: &str, bytes: impl AsRef<[u8]>) -> Seed {
    assert_eq!(named(target).name, target);
    (target, name.to_owned(), bytes.as_ref().to_vec())
}

/// All of them.
pub fn made() -> Vec<Seed> {
    let parts = [
        admission(),
        rpc(),
        lane(),
        cluster(),
        election(),
        task_records(),
        bulk(),
        objects(),
        keys(),
        configuration(),
        home(),
        words(),
        pictures(),
        tasks(),
        hidden(),
    ];
    parts.concat()
}

// ---- the network ----

fn hello() -> Hello {
    Hello::decode(&vector(MODEL, "hello")).expect("the vector")
}

fn hellos() -> Vec<(&'static str, Hello)> {
    let member = hello();
    let client = Hello { kind: Kind::Client, known: None, incarnation: None, promises: 0, ..hello() };
    let ticket = Hello { kind: Kind::Ticket, ticket: ByteBuf::from(vec![7; 32]), ..client.clone() };
    let listener = Hello { side: Side::Listener, ..hello() };
    let look = Hello { kind: Kind::Look, founding: None, ..client.clone() };
    let looked = Hello {
        founding: Some(FoundingId::ZERO),
        side: Side::Listener,
        ticket: ByteBuf::from(vector(ADMISSION, "tag")),
        ..look.clone()
    };
    let fresh = Hello { founding: None, known: None, ..hello() };
    // It has seen a start of ours that our home does not remember; only of a member that counts.
    let forgotten = hello().known.map(|known| KnownPeer { mark: hello().mark, ..known });
    let knows_more = Hello { known: forgotten, ..hello() };
    let client_knows_more = Hello { known: forgotten, ..client.clone() };
    let again = Hello { mark: hello().known.expect("known").mark, promises: 41, ..hello() };
    vec![
        ("member", member),
        ("client", client),
        ("ticket", ticket),
        ("listener", listener),
        ("look", look),
        ("looked", looked),
        ("fresh", fresh),
        ("again", again),
        ("knows-more", knows_more),
        ("client-knows-more", client_knows_more),
    ]
}

fn admission() -> Vec<Seed> {
    let shown = net::fuzzing::fresh_certificate();
    let mut seeds: Vec<Seed> =
        hellos().iter().map(|(name, said)| seed("hello", name, said.encode())).collect();
    let said = |hello: &[u8]| [&(hello.len() as u16).to_be_bytes()[..], hello, &[9; 32]].concat();
    for (name, hello) in hellos() {
        let said = said(&hello.encode());
        let offer = [b"tintype\x01", &said[..]].concat();
        let answer = |verdict: u32| [b"tintype\x01", &verdict.to_be_bytes()[..], &said[..]].concat();
        match hello.side {
            Side::Dialer => seeds.push(seed("admission", name, offer)),
            Side::Listener => {
                seeds.push(seed("admission", &format!("{name}-admits"), answer(0)));
                seeds.push(seed("admission", &format!("{name}-refuses"), answer(0x7407)));
            }
        }
    }
    let long = said(&[0x61; 1025]);
    seeds.push(seed("admission", "near-too-long", [b"tintype\x01", &long[..]].concat()));
    seeds.push(seed(
        "admission",
        "near-other-version",
        [b"tintype\x02", &said(&hello().encode())[..]].concat(),
    ));
    seeds.push(seed("certificate", "near-cut", &shown[..shown.len() - 1]));
    seeds.push(seed("certificate", "fresh", shown));
    seeds.push(seed("hello", "near-other-protocol", Hello { versions: (2, 3), ..hello() }.encode()));
    seeds.push(seed("hello", "near-long-name", Hello { name: "n".repeat(65), ..hello() }.encode()));
    seeds
}

fn requests() -> Vec<(&'static str, Request)> {
    let (object, token) = (ObjectId([7; 32]), ByteBuf::from(vec![9; 32]));
    let bodies = vec![BodyId([1; 32]), BodyId([2; 32])];
    let peer = hello_peer();
    vec![
        ("nodes", Request::Nodes),
        ("events", Request::Events { after: 300 }),
        ("read-any", Request::ReadAny { object }),
        ("list-nonce", Request::ListNonce),
        ("stop", Request::Stop { token }),
        ("probe", Request::Probe),
        ("probe-through", Request::ProbeThrough { peer }),
        ("founding", Request::Founding { message: ByteBuf::from(vector(FOUNDING, "abort")) }),
        ("push", Request::Push { bodies }),
        ("peers", Request::Peers),
        ("behind", Request::Behind),
        ("propose", Request::Propose { value: RawRegister(vector(REGISTER, "register")) }),
    ]
}

fn hello_peer() -> PeerId {
    Founding::decode(&vector(MODEL, "founding")).expect("the vector").members[0].peer
}

fn responses() -> Vec<(&'static str, Response)> {
    let node = NodeInfo {
        peer: hello_peer(),
        name: "desk".into(),
        addrs: vec![OWN_ADDRESS.into()],
        state: NodeState::Suspect,
        load_centi: Some(2000),
        capacity_bytes: None,
        used_bytes: Some(7),
        role: "member".into(),
        tasks: Some(1),
        slots: None,
        counters: Some(Counters { commits: 3, ..Counters::default() }),
    };
    let events = vec![EventInfo { number: 1, unix_ms: 1_700_000_000_000, text: "desk is back".into() }];
    vec![
        ("nodes", Response::Nodes(vec![node.clone(), NodeInfo { counters: None, ..node }])),
        ("events", Response::Events(events)),
        ("conflict", Response::Conflict { current: Some(RawRegister(vector(REGISTER, "tombstone"))) }),
        ("nonce", Response::Nonce(ByteBuf::from(vec![5; 16]))),
        ("checked", Response::Checked(vec![BodyState::Restored, BodyState::Good { verified_unix_ms: 9 }])),
        ("done", Response::Done),
        ("reached", Response::Reached(true)),
        ("no-quorum", Response::NoQuorum),
        ("not-ready", Response::NotReady("it waits for two more".into())),
        ("peers", Response::Peers(vec![(hello_peer(), OWN_ADDRESS.into())])),
    ]
}

fn rpc() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for line in MODEL.lines() {
        let Some((name, _)) = line.split_once(" = ") else { continue };
        if let Some(short) = name.strip_prefix("request_") {
            seeds.push(seed("rpc_question", short, vector(MODEL, name)));
        } else if let Some(short) = name.strip_prefix("response_") {
            seeds.push(seed("rpc_answer", short, vector(MODEL, name)));
        }
    }
    seeds
        .extend(requests().iter().map(|(name, r)| seed("rpc_question", &format!("also-{name}"), r.encode())));
    seeds.extend(responses().iter().map(|(name, r)| seed("rpc_answer", &format!("also-{name}"), r.encode())));
    // What claims more than there is.
    seeds.push(seed("rpc_question", "near-many-bodies", hex("820182089bffffffffffffffff")));
    seeds.push(seed("rpc_answer", "near-many-nodes", hex("820182019affffffff81")));
    seeds.push(seed("rpc_answer", "near-deep", [&hex("820182")[..], &[0x81; 2000]].concat()));

    let question = |number: u64, bytes: &[u8]| {
        [&(bytes.len() as u32).to_be_bytes()[..], &number.to_be_bytes(), bytes].concat()
    };
    let answer = |number: u64, status: u8, bytes: &[u8]| {
        [&(bytes.len() as u32).to_be_bytes()[..], &number.to_be_bytes(), &[status], bytes].concat()
    };
    let (status, read) = (vector(MODEL, "request_status"), vector(MODEL, "request_read"));
    seeds.push(seed("rpc_frames", "questions", [question(1, &status), question(2, &read)].concat()));
    let register = vector(MODEL, "response_register");
    let answers = [answer(2, 1, &register), answer(1, 2, &[]), answer(3, 3, &[])].concat();
    seeds.push(seed("rpc_frames", "answers", answers));
    let cut = question(u64::MAX, &read);
    seeds.push(seed("rpc_frames", "near-cut", &cut[..cut.len() - 3]));
    seeds.push(seed("rpc_frames", "near-too-long", [&[0, 0x10, 0, 1][..], &[0; 9]].concat()));
    seeds
}

fn bulk() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for line in BULK.lines().filter(|line| !line.starts_with('#')) {
        let (name, framed) = line.split_once(" = ").expect("a vector");
        // Behind these belongs a body.
        let near = if ["put", "give", "body"].contains(&name) { "near-" } else { "" };
        seeds.push(seed("bulk", &format!("{near}{name}-framed"), hex(framed)));
        seeds.push(seed("bulk", name, &hex(framed)[4..]));
    }
    type Put = (u64, u64, u8, BodyId, u64, Vec<PeerId>, u8, bool);
    let body = [5; 300];
    let id = BodyId(*blake3::hash(&body).as_bytes());
    let put: Put = (1, 1, 1, id, body.len() as u64, vec![hello_peer()], 2, true);
    let get: Put = (1, 1, 2, id, 5, Vec::new(), 0, false);
    seeds.push(seed("bulk", "near-get-with-length", codec::encode(&get)));
    let framed = |header: &[u8]| [&(header.len() as u32).to_be_bytes()[..], header].concat();
    let whole = [framed(&codec::encode(&put)), body.to_vec()].concat();
    seeds.push(seed("bulk", "two-bodies", whole.repeat(2)));
    seeds.push(seed("bulk", "near-cut-body", &whole[..whole.len() - 1]));
    let reply: (u64, u64, u8, u64, Vec<PeerId>, String) = (1, 7, 2, body.len() as u64, vec![], String::new());
    let answered = [framed(&codec::encode(&reply)), body.to_vec(), vector(BULK, "working")].concat();
    seeds.push(seed("bulk", "answered", answered));
    seeds
}

// ---- members ----

fn ballot(counter: u64) -> Ballot {
    Ballot::decode(&vector(ACCEPTOR, "ballot"))
        .map(|ballot| Ballot { counter, ..ballot })
        .expect("the vector")
}

fn verified(name: &str) -> VerifiedRegister {
    register::verify(&vector(REGISTER, name)).expect("the vector")
}

fn messages() -> Vec<(&'static str, Body)> {
    let (value, next) = (verified("register"), Some(ballot(9)));
    let accepted = Some(Accepted { ballot: ballot(8), value: value.clone() });
    let of = |outcome| Body::Answered { answer: Answer { outcome, messages: 6, by_home: true } };
    vec![
        ("prepare", Body::Prepare { ballot: ballot(9) }),
        ("promise", Body::Promise { ballot: ballot(9), accepted: accepted.clone() }),
        ("promise-empty", Body::Promise { ballot: ballot(9), accepted: None }),
        ("accept", Body::Accept { ballot: ballot(8), value: value.clone(), next }),
        ("accept-first", Body::Accept { ballot: ballot(0), value: value.clone(), next: None }),
        ("accepted", Body::Accepted { ballot: ballot(8), next_promised: true }),
        ("refused", Body::Refused { ballot: ballot(8), floor: ballot(9) }),
        ("query", Body::Query),
        ("state", Body::State { accepted: accepted.clone() }),
        ("mirror", Body::Mirror { ballot: ballot(8), value: verified("tombstone") }),
        ("mirrored", Body::Mirrored { ballot: ballot(8) }),
        ("forward", Body::Forward { command: Command::Propose { value: value.clone() } }),
        ("forward-read", Body::Forward { command: Command::Read }),
        ("taken", Body::Taken),
        ("committed", of(Outcome::Committed { copies: 3 })),
        ("conflict", of(Outcome::Conflict { current: Some(value) })),
        ("value", of(Outcome::Value { current: accepted })),
        ("busy", of(Outcome::Busy)),
        ("written", Body::Written { serial: 5 }),
    ]
}

fn lane() -> Vec<Seed> {
    let object = verified("register").object;
    let round = RoundId { boot: 1, number: 2 };
    let framed = |frame: &[u8]| [&(frame.len() as u32).to_be_bytes()[..], frame].concat();
    let mut seeds = vec![seed("lane", "near-unsigned-accept", vector(ACCEPTOR, "accept"))];
    let mut stream = Vec::new();
    for (name, body) in messages() {
        let frame = Message { epoch: Epoch::FOUNDING, object, round, body }.encode(300);
        if ["prepare", "accept", "mirror", "query", "written"].contains(&name) {
            stream.extend(framed(&frame));
        }
        seeds.push(seed("lane", name, frame));
    }
    seeds.push(seed("lane", "stream", &stream));
    seeds.push(seed("lane", "cut-stream", &stream[..stream.len() - 2]));
    seeds.push(seed("lane", "near-too-long", [0, 1, 0, 1, 0x86]));
    seeds
}

/// Three nodes as in `proto::fuzzing`, and of them a founding.
fn cluster() -> Vec<Seed> {
    let founding = FoundingRecord::decode(&vector(FOUNDING, "founded")).expect("the vector");
    let founding = founding.founding.expect("it is founded");
    let announce = vector(FOUNDING, "announce");
    let say = |message: founding::Message| message.encode();
    let (id, member) = (founding.id, founding.members[0].clone());
    let incarnation = Incarnation([3; 16]);
    let standing = |standing| say(founding::Message::Announce { incarnation, expect: 3, standing });
    let voted = founding::Standing::Voted { id, proposer: member.peer, incarnation: member.incarnation };
    let mut seeds = vec![
        seed("founding", "announce", announce),
        seed("founding", "abort", vector(FOUNDING, "abort")),
        seed("founding", "propose", say(founding::Message::Propose { founding: founding.encode() })),
        seed("founding", "founded", say(founding::Message::Founded { founding: founding.encode() })),
        seed("founding", "pristine", standing(founding::Standing::Pristine)),
        seed("founding", "voted", standing(voted)),
        seed("founding", "of-a-founded-one", standing(founding::Standing::Founded { id })),
        seed("founding", "of-one-left-out", standing(founding::Standing::LeftOut { id })),
        seed("heartbeat", "vector", hex(HEARTBEAT.trim_end())),
        seed("public_parts", "founding", founding.encode()),
        seed("public_parts", "founding-of-two", vector(MODEL, "founding")),
        seed("records", "founded", vector(FOUNDING, "founded")),
        seed("records", "pristine", vector(FOUNDING, "empty")),
        seed("records", "left-out", vector(FOUNDING, "left out")),
        seed("records", "ballot", vector(ACCEPTOR, "ballot")),
        seed("records", "promised", vector(ACCEPTOR, "promised")),
        seed("records", "accepted", vector(ACCEPTOR, "accepted")),
        seed("records", "near-empty", hex("8301f6f6")),
    ];
    let voted = FoundingRecord { vote: Some(founding.clone()), founding: None, left_out: None };
    seeds.push(seed("records", "voted", voted.encode()));
    let accepted = Some(Accepted { ballot: ballot(8), value: verified("register") });
    seeds.push(seed("records", "both", AcceptorRecord::new(Some(ballot(9)), accepted).encode()));
    let heard = || membership::Message::decode(&hex(HEARTBEAT.trim_end())).expect("the vector");
    let (mut stranger, mut many) = (heard(), heard());
    stranger.node = hello_peer();
    (many.addrs, many.name) = (vec![OWN_ADDRESS.into(); 8], "n".repeat(64));
    seeds.push(seed("heartbeat", "stranger", stranger.encode()));
    seeds.push(seed("heartbeat", "much", many.encode()));
    seeds
}

fn election() -> Vec<Seed> {
    let names = ELECTION.lines().filter_map(|line| line.split_once(' ')).map(|(name, _)| name);
    let mut seeds: Vec<Seed> = names.map(|name| seed("election", name, vector(ELECTION, name))).collect();
    // After the first no counter is left; the second is nobody's.
    let claim = |counter, node| Claim { epoch: Epoch::FOUNDING, counter, node: NodeNumber(node) };
    let say = |claim| coordinator::Message::Resign { claim }.encode();
    seeds.push(seed("election", "resign-greatest", say(claim(Claim::COUNTER_MAX, 1))));
    seeds.push(seed("election", "resign-insane", say(claim(u64::MAX, 9))));
    let loads = (0..128).map(|node| (NodeNumber(node), u64::MAX)).collect();
    let (claim, reason) = (claim(1 << 40, 1), coordinator::Reason::Death(hello_peer()));
    let news = coordinator::Message::Coordinator { claim, reason, loads };
    seeds.push(seed("election", "much", news.encode()));
    let disorder = vec![(NodeNumber(1), 1), (NodeNumber(1), 2)];
    let news = coordinator::Message::Coordinator { claim, reason, loads: disorder };
    seeds.push(seed("election", "near-disorder", news.encode()));
    seeds
}

/// As gossip carries them: behind the version.
fn task_records() -> Vec<Seed> {
    let gossiped = |bytes: &[u8]| [&[0x82, 1][..], bytes].concat();
    let phases = ["Assigned", "Finished", "Lost", "Acknowledged"];
    let of = |phase: &&str| gossiped(&vector(TASK, &format!("record-{phase}")));
    let mut seeds: Vec<Seed> = phases.iter().map(|phase| seed("task_record", phase, of(phase))).collect();
    let bare = vector(TASK, "record-Assigned");
    seeds.push(seed("task_record", "near-bare", &bare));
    seeds
}

// ---- what users own ----

fn objects() -> Vec<Seed> {
    let (register, tombstone) = (vector(REGISTER, "register"), vector(REGISTER, "tombstone"));
    let (manifest, root) = (vector(MANIFEST, "manifest"), vector(MANIFEST, "root"));
    let proof = [vector(USER_KEYS, "owner"), vector(REGISTER, "list_proof")].concat();
    let contents = |bytes: &[u8]| fuzzing::contents_of_manifest(bytes).expect("the vector opens");
    let entry = fuzzing::contents_of_register(&register).expect("the vector opens");
    let body = ManifestBody::decode(&manifest).expect("the vector");
    let chunk = |padded_bytes| ChunkRef { id: BodyId([1; 32]), padded_bytes };
    let part = PartPublic::new(vec![chunk(1 << 20), chunk(1 << 16)]);
    let rest = ManifestRest { thumbnail: None, predecessors: Vec::new(), redundancy: Redundancy::Copies(2) };
    let parts =
        vec![PartRef { id: BodyId([2; 32]), chunks: 8192 }, PartRef { id: BodyId([3; 32]), chunks: 1 }];
    let of_parts = ManifestPublic::of_parts(parts, rest.clone());
    let part_secret = codec::encode(&(1u64, vec![ByteBuf::from(vec![4; 32]); 2]));
    let part_bytes = part.encode();
    let part_contents = [&(part_bytes.len() as u16).to_be_bytes()[..], &part_bytes, &part_secret].concat();
    let stored_part = ManifestBody {
        public_bytes: part_bytes.clone(),
        public: BodyPublic::Part(part),
        sealed: body.sealed.clone(),
    };
    vec![
        seed("register", "register", &register),
        seed("register", "tombstone", tombstone),
        seed("register", "list-proof", proof),
        seed("register", "near-signature", [&register[..register.len() - 1], &[0]].concat()),
        seed("manifest", "manifest", &manifest),
        seed("manifest", "root", &root),
        seed("manifest", "near-part", stored_part.encode()),
        seed("sealed", "manifest", contents(&manifest)),
        seed("sealed", "root", contents(&root)),
        seed("sealed", "part", part_contents),
        seed("sealed", "entry", entry),
        seed("public_parts", "manifest", body.public_bytes),
        seed("public_parts", "part", part_bytes),
        seed("public_parts", "root", of_parts.encode()),
        seed("public_parts", "empty", ManifestPublic::of_chunks(Vec::new(), rest).encode()),
    ]
}

fn keys() -> Vec<Seed> {
    let secret = text(USER_KEYS, "secret");
    vec![
        seed("keys", "plain", format!("{}\n", text(KEY_FILE, "plain"))),
        seed("keys", "sealed", text(KEY_FILE, "sealed")),
        seed("keys", "cluster", format!(" {}\n", text(ADMISSION, "cluster"))),
        seed("keys", "client", text(ADMISSION, "client")),
        seed("keys", "near-newer", "tintype-user-2:plain:00"),
        seed("keys", "near-newer-cluster", "tintype-cluster-2:00"),
        seed("keys", "near-unknown-field", format!("tintype-user-1:other:{secret}:0011223344556677")),
        seed("home_files", "node-key", format!("tintype-node-1:{secret}\n")),
    ]
}

fn configuration() -> Vec<Seed> {
    let some = "[node]\nname = \"desk\"\nport = \"auto\"\ncapacity = \"500 GB\"\nreserve = 1073741824\n\
                listen = \"[::1]\"\nexpect = 3\n\n[network]\n\
                bootstrap = [\"10.0.0.7:4117\", \"/dns4/a/udp/1/quic-v1\"]\n\
                mdns = false\n\n[put]\ncopies = 2\n\n[log]\nlevel = \"info,tintype::net=debug\"\n";
    vec![
        seed("configuration", "some", some),
        seed(
            "configuration",
            "environment",
            "NODE_NAME=desk\nNETWORK_BOOTSTRAP=a:1, b:2\nPUT_THUMBNAIL=no\n",
        ),
        seed("configuration", "flags", "node.expect=3\nnode.capacity=all\nput.copies = 8\nnode.port=0\n"),
        seed("configuration", "near-unknown", "[node]\nnam = \"desk\"\n[nodes]\nx = 1\n"),
        seed("configuration", "near-wrong", "[put]\ncopies = 9\nthumbnail = 1\n"),
        seed("configuration", "near-deep", format!("[node]\nname = {}", "[".repeat(300))),
    ]
}

fn home() -> Vec<Seed> {
    let (peer, id) = (hello_peer(), Digest([8; 32]));
    let process = "01".repeat(16);
    let addr = format!("addr {OWN_ADDRESS}\n");
    let node_addr = format!("tintype-node-addr-1\npeer {peer}\nprocess {process}\nstop {id}\n{addr}{addr}");
    let founding = "04".repeat(16);
    let seen =
        |object: u8, version: u64| format!("seen {founding} {id} {} {version}\n", Digest([object; 32]));
    let log = format!("tintype-client-1 {process}\n{addr}{}{}{}", seen(1, 7), seen(2, 1), seen(1, 8));
    let many: String = (0..40).map(|port| format!("addr /ip4/127.0.0.1/udp/{port}/quic-v1\n")).collect();
    let mark = hello().mark;
    vec![
        seed("home_files", "node-addr", node_addr),
        seed("home_files", "client-log", &log),
        seed("home_files", "addresses", many),
        seed("home_files", "newer-log", log.replace("client-1", "client-2")),
        seed("home_files", "seen", codec::encode(&(1u64, mark, 7u64, Incarnation([6; 16])))),
        seed("home_files", "known", hex(KNOWN.trim_end())),
        seed("home_files", "user", "alice-2@home.example"),
    ]
}

fn words() -> Vec<Seed> {
    vec![
        seed("words", "name", "trip/u\u{308}ber.png"),
        seed("words", "name-normal", "trip/\u{fc}ber.png"),
        seed("words", "name-right-to-left", "\u{5d0}\u{202e}gnp.exe"),
        seed("words", "near-step", "trip/../x"),
        seed("words", "media-type", "Image/svg+xml"),
        seed("words", "size", "1.5 TiB"),
        seed("words", "bytes", "500000"),
        seed("words", "id", Digest([0xab; 32]).to_string()),
        seed("words", "request", RequestId([0xab; 16]).to_string()),
        seed("words", "address", format!("{OWN_ADDRESS}/p2p/{}", hello_peer())),
        seed("words", "address-name", "/dns4/attic.local/udp/4117/quic-v1"),
        seed("words", "address-six", "/ip6/fe80::1/udp/4117/quic-v1"),
    ]
}

// ---- pictures ----

/// 12 by 10 points in the formats that are judged.
fn pictures() -> Vec<Seed> {
    let formats = [
        ("png", ImageFormat::Png),
        ("jpeg", ImageFormat::Jpeg),
        ("gif", ImageFormat::Gif),
        ("webp", ImageFormat::WebP),
        ("bmp", ImageFormat::Bmp),
        ("tiff", ImageFormat::Tiff),
    ];
    let points: Vec<u8> = (0..12 * 10 * 3u32).map(|i| (i * 7 % 251) as u8).collect();
    let mut seeds = Vec::new();
    for (name, format) in formats {
        let mut bytes = Cursor::new(Vec::new());
        image::write_buffer_with_format(&mut bytes, &points, 12, 10, ExtendedColorType::Rgb8, format)
            .expect("a small picture");
        // Of a TIFF nothing is taken away here.
        let strip = seed("strip", if name == "tiff" { "near-tiff" } else { name }, bytes.get_ref());
        seeds.push(strip);
        seeds.extend(["pictures", "thumbnails"].map(|target| seed(target, name, bytes.get_ref())));
    }
    seeds
}

// ---- tasks ----

fn tasks() -> Vec<Seed> {
    let picture = pictures().into_iter().find(|(_, name, _)| name == "png").expect("a PNG").2;
    let hide =
        |layout| Order::Hide { layout, payload: Zeroizing::new(b"a text".to_vec()), frames: Frames::Single };
    let scattered = Layout::Scattered { seed: Zeroizing::new([7; 32]), header: vec![0xfe; 20] };
    let orders = [
        ("hide", hide(Layout::Plain)),
        ("hide-scattered", hide(scattered)),
        ("thumbnail", Order::Thumbnail { edge_px: 5, frames: Frames::First }),
        ("strip", Order::Strip),
    ];
    orders.map(|(name, order)| seed("envelope", name, envelope(&order, &picture))).to_vec()
}

fn hidden() -> Vec<Seed> {
    let points = |len: usize| -> Vec<u8> { (0..len).map(|i| (i * 7 % 251) as u8).collect() };
    let (mut rgb, mut rgba) = (points(900), points(1200));
    stego::hide(&mut rgb, Channels::Rgb, b"a text").expect("it fits");
    stego::hide(&mut rgba, Channels::Rgba, &[0, 1, 2, 0xff]).expect("it fits");
    vec![
        seed("hidden", "rgb", rgb),
        seed("hidden", "rgba", rgba),
        seed("hidden", "sealed", fuzzing::hidden_seed(b"a text")),
        seed("hidden", "near-nothing", points(900)),
    ]
}
