//! Admitted peers on a bad day: they stop reading, break off in the middle of a body, or send another length
//! than they announced.
//!
//! Each time the node serves others meanwhile, and every place, descriptor and byte of memory returns.

use std::{
    io::{Read, Write},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{PeerId, core::muxing::SubstreamBox};
use tintype::model::{BodyId, codec, limits};
use tokio::time::{sleep, timeout};

use crate::{
    cluster::{Answer, Cluster, ends, noise, wait_for},
    faults::Frozen,
    foe::{BULK, Foe, Mask, PATIENCE, framed, returned_to, uses},
    hostile::{GROWTH_KIB, Scene, body_id, put_raw},
    inspect::{json, wait_for_copies, wait_until_healthy},
};

/// Kinds of answers on a bulk stream.
const BODY: u8 = 2;
const BUSY: u8 = 5;
const WORKING: u8 = 8;

fn get_request(number: u64, id: BodyId) -> Vec<u8> {
    framed(&codec::encode(&(1u64, number, 2u8, id, 0u64, Vec::<PeerId>::new(), 0u8, false)))
}

fn put_request(number: u64, id: BodyId, len: usize) -> Vec<u8> {
    framed(&codec::encode(&(1u64, number, 1u8, id, len as u64, Vec::<PeerId>::new(), 1u8, false)))
}

/// A bulk stream, as soon as this peer may have one more.
async fn bulk(foe: &Foe) -> SubstreamBox {
    loop {
        match foe.greeted(BULK).await.expect("a bulk stream") {
            Ok(stream) => return stream,
            Err(code) => assert_eq!(code, 2, "only busy: the last ones are not gone yet"),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// The kind of the next answer that is more than a sign of life; its body is read too.
async fn answered(stream: &mut SubstreamBox) -> u8 {
    let answer = async {
        loop {
            let mut len = [0; 4];
            stream.read_exact(&mut len).await.expect("an answer");
            let mut header = vec![0; u32::from_be_bytes(len) as usize];
            stream.read_exact(&mut header).await.expect("a header");
            let (_, _, kind, len, ..): (u64, u64, u8, u64, Vec<PeerId>, String) =
                codec::decode(&header, limits::BULK_HEADER_BYTES_MAX).expect("a good header");
            let mut body = vec![0; len as usize];
            stream.read_exact(&mut body).await.expect("a body");
            if kind != WORKING {
                return kind;
            }
        }
    };
    timeout(PATIENCE, answer).await.expect("an answer in time")
}

/// As many bodies at once as one peer may be served: none is refused, so no place is lost.
async fn has_all_its_places(foe: &Foe, id: BodyId) {
    let mut stream = bulk(foe).await;
    for number in 0..limits::BULK_SERVED_PER_PEER_MAX as u64 {
        stream.write_all(&get_request(number, id)).await.unwrap();
    }
    for _ in 0..limits::BULK_SERVED_PER_PEER_MAX {
        assert_eq!(answered(&mut stream).await, BODY, "{BUSY} is busy");
    }
}

/// A client of a running node, and a body of the largest size that the node has.
async fn client_and_body(scene: &Scene) -> (Foe, Vec<u8>) {
    let foe = Foe::meet(&Mask::client(&scene.key), &scene.addr).await;
    let body = noise(1, limits::BODY_BYTES_MAX);
    assert_eq!(put_raw(&foe, body_id(&body), &body, vec![]).await.0, 1);
    (foe, body)
}

/// A first round, and up to six more until one asks for no more than those before it: what leaks grows in
/// each, by many times the bound, while an allocator takes a step now and then and keeps it.
async fn keeps_nothing(scene: &Scene, round: impl AsyncFn()) {
    round().await;
    let mut highest = uses(scene.pid).await;
    let mut grew = vec![highest];
    for _ in 1..=6 {
        round().await;
        match returned_to(scene.pid, highest, GROWTH_KIB, Duration::from_secs(3)).await {
            Ok(()) => return,
            Err(now) => grew.push(now),
        }
        highest.rss_kib = grew.iter().map(|uses| uses.rss_kib).max().expect("there is one");
    }
    panic!("each round grew by more than {GROWTH_KIB} KiB or kept descriptors: {grew:?}");
}

/// Asks for more than the windows take and reads none of it, until the node has given the streams up.
async fn read_nothing(foe: &Foe, id: BodyId) {
    let mut unread = Vec::new();
    for number in 0..limits::BULK_STREAMS_PER_PEER_MAX {
        let mut stream = bulk(foe).await;
        // All streams together would use up the connection's window, and nothing could be heard any more.
        for number in (0..8).filter(|_| number < 2) {
            stream.write_all(&get_request(number, id)).await.unwrap();
        }
        unread.push(stream);
    }
    drop(bulk(foe).await);
}

#[tokio::test]
async fn a_client_that_reads_nothing_of_what_it_asked_for_is_given_up() {
    let scene = Scene::start(1).await;
    let (foe, body) = client_and_body(&scene).await;
    let id = body_id(&body);
    keeps_nothing(&scene, async || {
        futures::join!(read_nothing(&foe, id), scene.serves("during.bin", 2));
        has_all_its_places(&foe, id).await;
    })
    .await;
    scene.serves("after.bin", 3).await;
}

/// Breaks off a put or a get in its middle, another way for each number, or sends another length than it
/// announced.
async fn break_off(foe: &Foe, body: &[u8], number: u64) {
    let (mut stream, id) = (bulk(foe).await, body_id(body));
    let put = [put_request(1, id, body.len()), body[..body.len() / 2].to_vec()].concat();
    match number % 5 {
        // A reset.
        0 => stream.write_all(&put).await.unwrap(),
        // Less than announced, and an end.
        1 => {
            stream.write_all(&put).await.unwrap();
            stream.close().await.unwrap();
            assert_eq!(rest_of(&mut stream).await, 0, "no receipt for half a body");
        }
        // More than announced: what is over is no request.
        2 => {
            let whole = [put_request(1, id, body.len()), body.to_vec(), vec![0xff; 1000]].concat();
            // The node may have closed it before all was said.
            let _ = stream.write_all(&whole).await;
            rest_of(&mut stream).await;
        }
        // The answer is stopped in its middle, and before its beginning.
        3 => {
            stream.write_all(&get_request(1, id)).await.unwrap();
            stream.read_exact(&mut [0; 1000]).await.unwrap();
        }
        _ => stream.write_all(&get_request(1, id)).await.unwrap(),
    }
}

/// Bytes that come before the other side ends the stream, signs of life aside.
async fn rest_of(stream: &mut SubstreamBox) -> usize {
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the stream is ended");
    let working = framed(&codec::encode(&(1u64, 0u64, WORKING, 0u64, Vec::<PeerId>::new(), "")));
    let mut rest = &rest[..];
    while let Some(behind) = rest.strip_prefix(&working[..]) {
        rest = behind;
    }
    rest.len()
}

/// The same with the whole connection, which goes without a word.
async fn cut_off(scene: &Scene, body: &[u8], number: u64) {
    let foe = Foe::meet(&Mask::client(&scene.key), &scene.addr).await;
    let (mut stream, id) = (bulk(&foe).await, body_id(body));
    match number % 2 {
        0 => {
            let put = [put_request(1, id, body.len()), body[..body.len() / 2].to_vec()].concat();
            stream.write_all(&put).await.unwrap();
        }
        _ => {
            stream.write_all(&get_request(1, id)).await.unwrap();
            stream.read_exact(&mut [0; 1000]).await.unwrap();
        }
    }
    // In this order: a stream that is dropped while its connection lives is reset.
    drop(foe);
    drop(stream);
}

#[tokio::test]
async fn bodies_broken_off_or_of_another_length_leave_nothing_behind() {
    let scene = Scene::start(1).await;
    let (foe, body) = client_and_body(&scene).await;
    keeps_nothing(&scene, async || {
        let counted = scene.counted().await;
        for number in 0..100 {
            break_off(&foe, &body, number).await;
            if number % 10 == 0 {
                cut_off(&scene, &body, number / 10).await;
            }
        }
        // Too short twenty times, too long twenty times.
        scene.malformed_since(&counted, 40).await;
        has_all_its_places(&foe, body_id(&body)).await;
    })
    .await;
    scene.serves("after.bin", 3).await;
}

// ---- a node that falls silent in the middle ----

/// Gives the program so much on its standard input.
fn feed(child: &mut Child, bytes: &[u8]) {
    child.stdin.as_mut().expect("piped").write_all(bytes).expect("it reads on");
}

/// Puts the bytes; this node freezes when the first half of them has been taken.
fn put_while_frozen(cluster: &Cluster, name: &str, bytes: &[u8], pid: u32) -> Answer {
    let mut put = cluster.command(&["put", "-", "--name", name]);
    put.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (mut putting, started) = (put.spawn().expect("started"), Instant::now());
    // What the program has no room for in its memory has gone on to the nodes when this returns.
    let (begun, rest) = bytes.split_at(bytes.len() / 2);
    feed(&mut putting, begun);
    let _frozen = Frozen::freeze(pid);
    feed(&mut putting, rest);
    drop(putting.stdin.take());
    Answer::of(&putting.wait_with_output().expect("it ends"), started)
}

/// Reads an object; this node freezes when the beginning of it has come.
fn get_while_frozen(cluster: &Cluster, name: &str, pid: u32) -> Vec<u8> {
    let mut get = cluster.command(&["get", name, "-o", "-"]);
    let mut getting = get.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started");
    let mut out = getting.stdout.take().expect("piped");
    let mut came = vec![0; 2_000_000];
    out.read_exact(&mut came).expect("the beginning comes");
    let _frozen = Frozen::freeze(pid);
    out.read_to_end(&mut came).expect("the rest comes");
    assert!(getting.wait().expect("it ends").success());
    came
}

#[test]
fn a_node_that_freezes_in_the_middle_of_a_put_or_a_get_is_passed_over() {
    let cluster = Cluster::start(3);
    let bytes = noise(7, 24_000_000);
    for victim in 0..2 {
        let (pid, name) = (cluster.nodes.pid(victim).expect("it runs"), format!("{victim}.bin"));
        let put = put_while_frozen(&cluster, &name, &bytes, pid);
        ends(&put, 0, &["survives 1"]);
        wait_until_healthy(&cluster);
        let started = Instant::now();
        let came = get_while_frozen(&cluster, &name, pid);
        eprintln!("node {victim} froze: put {:?}, get {:?}", put.took, started.elapsed());
        assert!(came == bytes, "{name} came back otherwise");
        wait_until_healthy(&cluster);
    }
}

/// Its object is agreed on long after the node is well again: no run of repair saw that a copy was missing.
#[test]
fn what_a_node_missed_of_a_put_that_takes_long_is_on_it_soon_after() {
    let cluster = Cluster::start(3);
    let bytes = noise(8, 24_000_000);
    let mut put = cluster.command(&["put", "-", "--name", "long.bin"]);
    put.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (mut putting, started) = (put.spawn().expect("started"), Instant::now());
    let (begun, rest) = bytes.split_at(bytes.len() / 2);
    let frozen = Frozen::freeze(cluster.nodes.pid(1).expect("it runs"));
    feed(&mut putting, begun);
    drop(frozen);
    wait_until_healthy(&cluster);
    // Nobody passes it over any more: what comes now misses nobody, and calls for no run of repair.
    let mut number = 0;
    wait_for("what is put is on all three at once", Duration::from_secs(30), || {
        number += 1;
        let name = format!("{number}.bin");
        let path = cluster.file(&name, &noise(100 + number, 1000));
        cluster.ok(&["put", path.to_str().expect("plain"), "--name", &name]);
        json(&cluster.run(&["where", &name, "--json"]))["fewest_copies"] == 3
    });
    wait_until_healthy(&cluster);
    feed(&mut putting, rest);
    drop(putting.stdin.take());
    let put = Answer::of(&putting.wait_with_output().expect("it ends"), started);
    ends(&put, 0, &["long.bin"]);
    wait_for_copies(&cluster, "long.bin", 3);
}
