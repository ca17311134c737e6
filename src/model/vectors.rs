//! The nouns' own encodings, byte for byte, against `tests/vectors/model.txt`.
//!
//! Registers and manifests have their vectors in `seal`, which alone can sign and seal them.

use serde_bytes::ByteBuf;

use super::{
    hello::{BootMark, Hello, Kind, KnownPeer, Side},
    id::{BodyId, FoundingId, Incarnation, ObjectId, OwnerKey, PeerId, ProcessId},
    member::{Epoch, Founding, Member, NodeNumber},
    register::RawRegister,
    rpc::{
        BodyState, Commit, ElectionInfo, ListRequest, RecordInfo, RecordPage, Request, Response, StatusInfo,
        SubmitRequest, TaskPage, TaskStanding,
    },
    task::{Claim, Phase, Place, Rank, Standing, Submitted, TaskId, TaskKind, TaskRecord, Verdict},
};

const FILE: &str = include_str!("../../tests/vectors/model.txt");

fn peer(byte: u8) -> PeerId {
    let secret = libp2p_identity::ed25519::SecretKey::try_from_bytes([byte; 32]).expect("a seed");
    let keypair = libp2p_identity::ed25519::Keypair::from(secret);
    libp2p_identity::Keypair::from(keypair).public().to_peer_id()
}

fn hello() -> Hello {
    let mark = |boot, byte| BootMark { boot, process: ProcessId([byte; 16]) };
    Hello {
        format: 1,
        versions: (1, 1),
        side: Side::Dialer,
        kind: Kind::Member,
        mark: mark(3, 1),
        promises: 40,
        known: Some(KnownPeer { mark: mark(300, 2), promises: 7000, incarnation: Incarnation([6; 16]) }),
        incarnation: Some(Incarnation([3; 16])),
        founding: Some(FoundingId([4; 16])),
        features: 5,
        name: "desk".into(),
        software: "0.1.0".into(),
        ticket: ByteBuf::new(),
    }
}

fn founding() -> Founding {
    let member = |byte| Member { peer: peer(byte), incarnation: Incarnation([byte; 16]) };
    Founding::new(FoundingId([4; 16]), vec![member(1), member(2)])
}

fn requests() -> Vec<(&'static str, Request)> {
    let object = ObjectId([7; 32]);
    let list = ListRequest {
        owner: OwnerKey([8; 32]),
        nonce: ByteBuf::from(vec![9; 16]),
        after: Some(object),
        signature: ByteBuf::from(vec![10; 64]),
    };
    vec![
        ("request_status", Request::Status),
        ("request_read", Request::Read { object }),
        ("request_propose", Request::Propose { value: RawRegister(vec![1, 2, 3]) }),
        ("request_list", Request::List(list)),
        ("request_offer", Request::Offer { bodies: vec![BodyId([11; 32])] }),
        ("request_check", Request::Check { bodies: vec![BodyId([11; 32])], read: true, copies: 3 }),
        ("request_scan", Request::ScanSlot { slot: 7, after: None }),
        ("request_election", Request::Election { message: ByteBuf::from(vec![1, 2]) }),
        ("request_reserve", Request::Reserve { record: task() }),
        ("request_tasks", Request::Tasks { after: Some(task().task) }),
        ("request_submit", Request::Submit(submit())),
        ("request_poll", Request::Poll { number: 9 }),
        ("request_acknowledge", Request::Acknowledge { number: 9 }),
        ("request_cancel", Request::Cancel { task: task().task }),
        ("request_elections", Request::Elections),
        ("request_submit_for", Request::SubmitFor { client: peer(1), submit: submit() }),
    ]
}

fn task() -> TaskRecord {
    let claim = Claim { epoch: Epoch(1), counter: 5, node: NodeNumber(2) };
    TaskRecord {
        task: TaskId { client: peer(1), number: 9 },
        kind: TaskKind("hide".into()),
        payload_bytes: 300,
        rank: Rank { claim, attempt: 2 },
        worker: NodeNumber(1),
        phase: Phase::Finished,
    }
}

fn submit() -> SubmitRequest {
    let TaskRecord { kind, payload_bytes, rank, .. } = task();
    SubmitRequest { number: 9, kind, payload_bytes, above: Some(rank), avoid: vec![peer(2)] }
}

fn task_responses() -> Vec<(&'static str, Response)> {
    let standing = Standing { record: Some(task()), place: Some(Place::Waiting { ahead: 2 }) };
    let standing = TaskStanding { standing, missing: vec![0, 7], pieces: vec![BodyId([11; 32])] };
    let election = ElectionInfo {
        unix_ms: 5,
        coordinator: peer(1),
        counter: 5,
        why: "the only node".into(),
        scores: vec![(peer(1), 2000)],
    };
    vec![
        ("response_election", Response::Election { message: ByteBuf::from(vec![1, 2]) }),
        ("response_verdict", Response::Verdict(Verdict::Full)),
        ("response_tasks", Response::Tasks(TaskPage { records: vec![task()], next: Some(task().task) })),
        ("response_assigned", Response::Submitted(Submitted::Assigned(task()))),
        ("response_task_busy", Response::Submitted(Submitted::Busy { tasks: 6, places: 8 })),
        ("response_standing", Response::Standing(standing)),
        ("response_elections", Response::Elections(vec![election])),
    ]
}

fn status() -> StatusInfo {
    StatusInfo {
        peer: peer(1),
        software: "0.1.0".into(),
        process: ProcessId([1; 16]),
        boot: 3,
        founding: Some(FoundingId([4; 16])),
        waiting: String::new(),
        nodes: Vec::new(),
        epoch: 1,
        under_repair: Some(0),
        clients: 2,
        refused: 4,
        foreign: Vec::new(),
        warnings: vec!["full".into()],
        clock_unix_ms: 5,
        single_copy_objects: Some(6),
        coordinator: Some(peer(2)),
        coordinator_why: "lowest load".into(),
    }
}

fn responses() -> Vec<(&'static str, Response)> {
    let value = RawRegister(vec![1, 2, 3]);
    let record =
        RecordInfo { object: ObjectId([7; 32]), ballot: ByteBuf::from(vec![1]), value: value.clone() };
    let page = RecordPage { records: vec![record], next: None };
    let states =
        vec![BodyState::Missing, BodyState::Good { verified_unix_ms: 5 }, BodyState::Mended, BodyState::Bad];
    vec![
        ("response_status", Response::Status(Box::new(status()))),
        ("response_register", Response::Register { value: Some(value) }),
        ("response_committed", Response::Committed(Commit { messages: 6, copies: 3 })),
        ("response_page", Response::Page(page)),
        ("response_have", Response::Have(vec![true, false])),
        ("response_checked", Response::Checked(states)),
        ("response_refused", Response::Refused("no".into())),
    ]
}

#[test]
fn the_encodings_are_those_of_the_file() {
    let mut encoded = vec![("hello", hello().encode()), ("founding", founding().encode())];
    encoded.extend(requests().into_iter().map(|(name, request)| (name, request.encode())));
    encoded.extend(
        responses().into_iter().chain(task_responses()).map(|(name, response)| (name, response.encode())),
    );
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let expected: Vec<String> =
        encoded.iter().map(|(name, bytes)| format!("{name} = {}", hex(bytes))).collect();
    let found: Vec<&str> = FILE.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
    assert!(found == expected, "model.txt does not say what was made, which is:\n{}\n", expected.join("\n"));
}

#[test]
fn what_was_encoded_is_read_back() {
    assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
    assert_eq!(Founding::decode(&founding().encode()), Ok(founding()));
    for (name, request) in requests() {
        assert_eq!(Request::decode(&request.encode()), Ok(request), "{name}");
    }
    for (name, response) in responses() {
        assert_eq!(Response::decode(&response.encode()), Ok(response), "{name}");
    }
}
