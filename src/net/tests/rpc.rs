//! Questions and answers between whole networks, and with peers that speak the frames by hand.

use super::{super::streams::RPC, *};
use crate::net::streams::{Inbound, Inboxes};

/// A question as it goes over the wire.
fn question(number: u64, bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], &number.to_be_bytes(), bytes].concat()
}

/// An answer as it goes over the wire.
fn answer(number: u64, status: u8, bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], &number.to_be_bytes(), &[status], bytes].concat()
}

const ANSWER: u8 = 1;
const BUSY: u8 = 2;

async fn read_question(stream: &mut Stream) -> (u64, Vec<u8>) {
    let mut head = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut head)).await.unwrap().unwrap();
    let mut bytes = vec![0; u32::from_be_bytes(head[..4].try_into().unwrap()) as usize];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    (u64::from_be_bytes(head[4..].try_into().unwrap()), bytes)
}

async fn read_answer(stream: &mut Stream) -> (u64, u8, Vec<u8>) {
    let mut head = [0; 13];
    timeout(PATIENCE, stream.read_exact(&mut head)).await.unwrap().unwrap();
    let mut bytes = vec![0; u32::from_be_bytes(head[..4].try_into().unwrap()) as usize];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    (u64::from_be_bytes(head[4..12].try_into().unwrap()), head[12], bytes)
}

async fn say(stream: &mut Stream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

/// Waits for the other side to end the stream, however; gives what came before.
async fn ended(stream: &mut Stream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the stream is ended");
    rest
}

impl Peer {
    async fn asked(&mut self) -> (ReplyToken, Vec<u8>) {
        self.until(|e| if let Event::Request { token, bytes, .. } = e { Some((token, bytes)) } else { None })
            .await
    }

    /// Asks from a task beside the loop.
    fn ask(&self, to: PeerId, bytes: &[u8]) -> JoinHandle<Result<Vec<u8>, RequestError>> {
        let (handle, bytes) = (self.handle.clone(), bytes.to_vec());
        tokio::spawn(async move { handle.request(to, bytes, PATIENCE).await })
    }
}

/// A node whose streams of one protocol are answered by the test; a connected client asks it.
pub(super) struct ByHand {
    pub(super) id: PeerId,
    streams: mpsc::Receiver<Inbound>,
    pub(super) asker: Peer,
    _swarm: JoinHandle<()>,
}

impl ByHand {
    async fn start() -> Self {
        Self::of(|inboxes| inboxes.rpc).await
    }

    /// The protocol's inbox says which it is.
    pub(super) async fn of(protocol: impl FnOnce(Inboxes) -> mpsc::Receiver<Inbound>) -> Self {
        let (setup, keys) = (node(7), Keys::Cluster(ClusterKey::from_bytes([1; 32])));
        let mark = BootMark { boot: 1, process: ProcessId([1; 16]) };
        let me = Me {
            peer: id_of(7),
            kind: Kind::Member,
            mark,
            promises: 0,
            incarnation: Some(Incarnation([7; 16])),
            founding: None,
            name: String::new(),
        };
        let (gate, events) = Gate::new(me, keys, OwnStarts::new([mark]), []);
        let (boxed, transport) =
            transport::build(&keypair(7), gate.clone(), transport::TransportConfig::default()).unwrap();
        let (counters, roster) = (SharedCounters::default(), Arc::new(Roster::default()));
        let (behaviour, _opener, inboxes) = streams::build(roster.clone(), counters.clone(), true);
        let who = (gate, roster);
        let mut swarm =
            behaviour::swarm(&setup.config, &keypair(7), boxed, behaviour, counters, who).unwrap();
        let port = transport::listen_on(&mut swarm, &transport, loopback(0)).unwrap();
        let polling = tokio::spawn(async move {
            let _kept = (transport, events);
            loop {
                swarm.select_next_some().await;
            }
        });
        let mut setup = client(3);
        setup.config.bootstrap.push(loopback(port));
        let mut asker = setup.start().await;
        asker.until_connected(id_of(7)).await;
        Self { id: id_of(7), streams: protocol(inboxes), asker, _swarm: polling }
    }

    fn ask(&self, bytes: &[u8]) -> JoinHandle<Result<Vec<u8>, RequestError>> {
        self.asker.ask(self.id, bytes)
    }

    /// The next stream that the asker opens. Its place is given back at once.
    pub(super) async fn stream(&mut self) -> Stream {
        let inbound = timeout(PATIENCE, self.streams.recv()).await.unwrap().unwrap();
        inbound.greet().await.unwrap().0
    }
}

#[test]
fn a_question_is_answered_and_what_is_too_long_is_not_sent() {
    run(async {
        let (mut a, mut b) = pair().await;
        let number = a
            .act({
                let b = b.id;
                move |net| net.request(b, b"how are you".to_vec(), PATIENCE)
            })
            .await
            .unwrap();
        let (token, bytes, kind) = b
            .until(|e| match e {
                Event::Request { token, bytes, kind, .. } => Some((token, bytes, kind)),
                _ => None,
            })
            .await;
        assert_eq!((bytes.as_slice(), kind), (b"how are you".as_slice(), Kind::Member));
        let long = vec![7; limits::RPC_RESPONSE_BYTES_MAX];
        b.handle.respond(token, long.clone()).await.unwrap();
        let (request, answer) = a
            .until(|e| match e {
                Event::Response { request, bytes, .. } => Some((request, bytes)),
                _ => None,
            })
            .await;
        assert_eq!(request, number);
        assert_eq!(answer, long);
        let too_long = vec![0; limits::RPC_REQUEST_BYTES_MAX + 1];
        assert_eq!(a.handle.request(b.id, too_long, PATIENCE).await, Err(Busy::TooLong.into()));
        assert_eq!(a.handle.request(id_of(9), vec![], PATIENCE).await, Err(Busy::NotConnected.into()));
        let asking = tokio::spawn({
            let (h, b) = (a.handle.clone(), b.id);
            async move { h.request(b, vec![1], PATIENCE).await }
        });
        let token = b.until(|e| if let Event::Request { token, .. } = e { Some(token) } else { None }).await;
        let answer = vec![0; limits::RPC_RESPONSE_BYTES_MAX + 1];
        assert_eq!(b.act(|net| net.respond(token, answer)).await, Err(Busy::TooLong));
        assert_eq!(asking.await.unwrap(), Err(RequestError::PeerBusy));
    });
}

#[test]
fn answers_come_in_any_order_over_one_stream() {
    run(async {
        let (a, mut b) = pair().await;
        let asking: Vec<_> = (0..20u8).map(|i| a.ask(b.id, &[i])).collect();
        let mut asked = Vec::new();
        for _ in 0..20 {
            asked.push(b.asked().await);
        }
        for (token, bytes) in asked.into_iter().rev() {
            b.handle.respond(token, [bytes, vec![9]].concat()).await.unwrap();
        }
        for (i, asking) in asking.into_iter().enumerate() {
            assert_eq!(asking.await.unwrap(), Ok(vec![i as u8, 9]));
        }
        // All but one of the places are still to be had.
        let mut others = Vec::new();
        for _ in 1..limits::RPC_STREAMS_PER_PEER_MAX {
            others.push(a.handle.opener().open(b.id, RPC, PATIENCE).await.unwrap());
        }
        let one_more = a.handle.opener().open(b.id, RPC, PATIENCE).await;
        assert_eq!(one_more.err(), Some(OpenError::Refused(StreamRefusal::Busy)));
    });
}

#[test]
fn whoever_has_an_answer_may_ask_again_at_once() {
    run(async {
        let (a, mut b) = pair().await;
        let (handle, to, beside) = (a.handle.clone(), b.id, b.handle.clone());
        let _serving = tokio::spawn(async move {
            while let Some(event) = b.events.recv().await {
                if let Event::Request { token, bytes, .. } = event {
                    beside.respond(token, bytes).await.unwrap();
                }
            }
        });
        // As many as may be in flight, all the time, from a thread of their own.
        let asking = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(futures::future::join_all((0..limits::RPC_IN_FLIGHT_MAX).map(|i| {
                let handle = &handle;
                async move {
                    for round in 0..400u32 {
                        let bytes = [&[i as u8][..], &round.to_be_bytes()].concat();
                        assert_eq!(handle.request(to, bytes.clone(), PATIENCE).await, Ok(bytes), "{round}");
                    }
                }
            })));
        });
        asking.await.unwrap();
        assert_eq!(a.handle.counters().rpc_requests_sent.get(), 400 * limits::RPC_IN_FLIGHT_MAX as u64);
    });
}

#[test]
fn too_many_questions_are_refused_on_both_sides_and_each_has_a_deadline() {
    run(async {
        let (mut a, mut b) = pair().await;
        let to = b.id;
        for _ in 0..limits::RPC_IN_FLIGHT_MAX {
            a.act(move |net| net.request(to, vec![1], Duration::from_millis(50))).await.unwrap();
        }
        assert_eq!(a.act(move |net| net.request(to, vec![2], PATIENCE)).await, Err(Busy::Full));
        for _ in 0..limits::RPC_IN_FLIGHT_MAX {
            let error =
                a.until(|e| if let Event::RequestFailed { error, .. } = e { Some(error) } else { None });
            assert_eq!(error.await, RequestError::Timeout);
        }
        // Given up, but the other side still has them in hand: the slots are not free yet.
        assert_eq!(a.act(move |net| net.request(to, vec![2], PATIENCE)).await, Err(Busy::Full));
        // By hand, past the own bound: the other side says busy.
        let mut stream = a.greeted(to, RPC).await;
        say(&mut stream, &question(5, &[9])).await;
        assert_eq!(read_answer(&mut stream).await, (5, BUSY, vec![]));
        b.count(|c| c.rpc_busy.get(), 1).await;
        for _ in 0..limits::RPC_IN_FLIGHT_MAX {
            let (token, bytes) = b.asked().await;
            assert_eq!(bytes, [1]);
            b.act(move |net| net.respond(token, vec![])).await.unwrap();
        }
        let mut free = false;
        let start = Instant::now();
        while !free && start.elapsed() < PATIENCE {
            free = a.act(move |net| net.request(to, vec![3], PATIENCE)).await.is_ok();
        }
        assert!(free, "answers give the slots back");
        assert_eq!(b.asked().await.1, [3]);
        // What was late is thrown away.
        while let Ok(event) = a.events.try_recv() {
            assert!(!matches!(event, Event::Response { .. }), "{event:?}");
        }
    });
}

#[test]
fn a_late_answer_is_thrown_away_and_its_stream_serves_on() {
    run(async {
        let mut b = ByHand::start().await;
        let (handle, to) = (b.asker.handle.clone(), b.id);
        let start = Instant::now();
        let asking =
            tokio::spawn(async move { handle.request(to, vec![1], Duration::from_millis(100)).await });
        let mut stream = b.stream().await;
        let (first, _) = read_question(&mut stream).await;
        assert_eq!(asking.await.unwrap(), Err(RequestError::Timeout));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        let second = b.ask(&[2]);
        let (number, bytes) = read_question(&mut stream).await;
        assert_eq!(bytes, [2]);
        say(&mut stream, &[answer(first, ANSWER, b"late"), answer(number, ANSWER, b"in time")].concat())
            .await;
        assert_eq!(second.await.unwrap(), Ok(b"in time".to_vec()));
        assert_eq!(b.asker.handle.counters().rpc_malformed.get(), 0);
        // The same answer once more is one to no question.
        let third = b.ask(&[3]);
        read_question(&mut stream).await;
        say(&mut stream, &answer(first, ANSWER, b"late")).await;
        assert!(matches!(third.await.unwrap(), Err(RequestError::Malformed(_))));
    });
}

#[test]
fn a_question_that_nobody_answers_is_an_error_at_once() {
    run(async {
        let (a, mut b) = pair().await;
        let (first, second) = (a.ask(b.id, &[1]), a.ask(b.id, &[2]));
        let (dropped, _) = b.asked().await;
        let (kept, _) = b.asked().await;
        drop(dropped);
        assert_eq!(first.await.unwrap(), Err(RequestError::Closed));
        b.handle.respond(kept, vec![8]).await.unwrap();
        assert_eq!(second.await.unwrap(), Ok(vec![8]), "the other is not touched");
    });
}

#[test]
fn a_broken_stream_fails_its_questions_at_once_and_the_next_opens_another() {
    run(async {
        let mut b = ByHand::start().await;
        for round in 0..3 {
            let asking: Vec<_> = (0..limits::RPC_IN_FLIGHT_MAX as u8).map(|i| b.ask(&[i])).collect();
            let mut stream = b.stream().await;
            for _ in 0..limits::RPC_IN_FLIGHT_MAX {
                read_question(&mut stream).await;
            }
            let start = Instant::now();
            match round {
                0 => drop(stream),
                1 => stream.close().await.unwrap(),
                _ => {
                    b.asker
                        .act({
                            let to = b.id;
                            move |net| net.disconnect(to)
                        })
                        .await
                }
            }
            for asking in asking {
                assert_eq!(asking.await.unwrap(), Err(RequestError::Closed));
            }
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        }
        b.asker.until(|e| matches!(e, Event::Disconnected { .. }).then_some(())).await;
        assert_eq!(b.ask(&[1]).await.unwrap(), Err(Busy::NotConnected.into()));
        b.asker.until_connected(b.id).await;
        let asking = b.ask(&[1]);
        let mut stream = b.stream().await;
        let (number, _) = read_question(&mut stream).await;
        say(&mut stream, &answer(number, ANSWER, b"again")).await;
        assert_eq!(asking.await.unwrap(), Ok(b"again".to_vec()));
        assert_eq!(b.asker.handle.counters().rpc_malformed.get(), 0);
    });
}

#[test]
fn a_peer_that_refused_is_asked_again_by_the_next_question() {
    run(async {
        let (a, b) = pair().await;
        let to = b.id;
        let _serving = b.echo();
        let mut taken = Vec::new();
        for _ in 0..limits::RPC_STREAMS_PER_PEER_MAX {
            taken.push(a.greeted(to, RPC).await);
        }
        assert_eq!(a.handle.request(to, vec![1], PATIENCE).await, Err(RequestError::PeerBusy));
        drop(taken);
        let start = Instant::now();
        loop {
            match a.handle.request(to, vec![2], PATIENCE).await {
                Ok(bytes) => break assert_eq!(bytes, [2]),
                // The other side may still be taking the others down.
                Err(error) => assert_eq!(error, RequestError::PeerBusy),
            }
            assert!(start.elapsed() < PATIENCE);
        }
    });
}

#[test]
fn who_serves_no_rpc_says_so_at_once() {
    run(async {
        let mut a = node(1).start().await;
        let mut c = client(3).knows(&a).start().await;
        a.until_connected(c.id).await;
        c.until_connected(a.id).await;
        let start = Instant::now();
        let refused = a.handle.request(c.id, vec![1], PATIENCE).await;
        // The question went out before the "no" came in, whose stream may be reset by then.
        assert!(matches!(refused, Err(RequestError::Unsupported | RequestError::Closed)), "{refused:?}");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    });
}

#[test]
fn malformed_answers_end_the_stream_and_are_counted_and_told() {
    run(async {
        let mut b = ByHand::start().await;
        let counters = b.asker.handle.counters();
        let longest = limits::RPC_RESPONSE_BYTES_MAX;
        let ways: [fn(u64) -> Vec<u8>; 7] = [
            |_| u32::MAX.to_be_bytes().to_vec(),
            |_| (limits::RPC_RESPONSE_BYTES_MAX as u32 + 1).to_be_bytes().to_vec(),
            |number| answer(number + 1, ANSWER, b"x"),
            |number| answer(number, 9, b""),
            |number| answer(number, BUSY, b"x"),
            |number| answer(number, ANSWER, b"xy")[..14].to_vec(),
            |_| vec![0, 0],
        ];
        for (round, way) in ways.into_iter().enumerate() {
            let asking = [b.ask(&[1]), b.ask(&[2])];
            let mut stream = b.stream().await;
            let number = read_question(&mut stream).await.0.max(read_question(&mut stream).await.0);
            say(&mut stream, &way(number)).await;
            stream.close().await.unwrap();
            for asking in asking {
                let result = asking.await.unwrap();
                assert!(matches!(result, Err(RequestError::Malformed(_))), "{round}: {result:?}");
            }
            assert_eq!(counters.rpc_malformed.get(), round as u64 + 1);
            // It reads no more from that stream.
            while stream.write_all(&[0; 1000]).await.is_ok() {
                tokio::task::yield_now().await;
            }
        }
        b.asker.until(|e| matches!(e, Event::Malformed { .. }).then_some(())).await;
        // The longest that is allowed, in pieces, with another behind it.
        let asking = [b.ask(&[1]), b.ask(&[2])];
        let mut stream = b.stream().await;
        let numbers = [read_question(&mut stream).await.0, read_question(&mut stream).await.0];
        say(&mut stream, &numbers.map(|number| answer(number, ANSWER, &vec![7; longest])).concat()).await;
        for asking in asking {
            assert_eq!(asking.await.unwrap(), Ok(vec![7; longest]));
        }
    });
}

#[test]
fn hostile_rpc_bytes_are_counted_and_harm_nobody() {
    run(async {
        let (a, b) = pair().await;
        let (to, counters) = (b.id, b.handle.counters());
        let _serving = b.echo();
        let mut noise = Noise(0x5eed_0001);
        for round in 0..2000 {
            let mut stream = a.greeted(to, RPC).await;
            let mut bytes = noise.bytes(64);
            bytes.push(0xff);
            match round % 4 {
                // Announces one byte too many.
                0 => bytes = (limits::RPC_REQUEST_BYTES_MAX as u32 + 1).to_be_bytes().to_vec(),
                // A good one, and the same number again.
                1 => bytes = [question(1, &bytes), question(1, &bytes)].concat(),
                // A good one, and junk behind it.
                2 => bytes = [question(1, &[]), bytes].concat(),
                _ => {}
            }
            // The other side may have closed already.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.close().await;
            ended(&mut stream).await;
            if round % 500 == 0 {
                assert_eq!(a.handle.request(to, vec![1, 2], PATIENCE).await, Ok(vec![1, 2]));
            }
        }
        eventually(|| counters.rpc_malformed.get() == 2000, || format!("{:?}", counters.list())).await;
        assert_eq!(a.handle.request(to, vec![1, 2], PATIENCE).await, Ok(vec![1, 2]));
    });
}

#[test]
fn far_more_questions_than_any_may_have_end_the_stream() {
    run(async {
        let (a, mut b) = pair().await;
        let mut stream = a.greeted(b.id, RPC).await;
        let flood: Vec<u8> = (0..3000).flat_map(|number| question(number, &[])).collect();
        let _ = stream.write_all(&flood).await;
        b.count(|c| c.rpc_malformed.get(), 1).await;
        ended(&mut stream).await;
        b.until(|e| matches!(e, Event::Malformed { .. }).then_some(())).await;
        let counters = b.handle.counters();
        assert!(counters.rpc_requests_received.get() < 3000, "{:?}", counters.list());
        assert!(counters.rpc_busy.get() > 0);
    });
}

#[test]
fn who_does_not_read_its_answers_is_given_up_and_keeps_nobody_waiting() {
    run(async {
        let (a, mut b) = pair().await;
        let mut c = client(3).knows(&b).start().await;
        c.until_connected(b.id).await;
        let counters = b.handle.counters();
        let mut deaf = a.greeted(b.id, RPC).await;
        let many: Vec<u8> =
            (0..limits::RPC_IN_FLIGHT_MAX as u64).flat_map(|number| question(number, b"much")).collect();
        say(&mut deaf, &many).await;
        let mut tokens = Vec::new();
        for _ in 0..limits::RPC_IN_FLIGHT_MAX {
            tokens.push(b.asked().await.0);
        }
        let start = Instant::now();
        for token in tokens {
            b.handle.respond(token, vec![1; limits::RPC_RESPONSE_BYTES_MAX]).await.unwrap();
            tokio::task::yield_now().await;
        }
        // The wire takes as much as its window, the node keeps as much as its bound.
        let window = limits::QUIC_STREAM_WINDOW_BYTES as usize + limits::RPC_ANSWERS_PER_PEER_BYTES_MAX;
        let kept = window / limits::RPC_RESPONSE_BYTES_MAX + 1;
        let busy = counters.rpc_busy.get() as usize;
        assert!(busy >= limits::RPC_IN_FLIGHT_MAX - kept, "{busy} were turned away, {kept} kept");
        let (b_id, beside) = (b.id, b.handle.clone());
        let honest = c.ask(b_id, b"few");
        let (token, bytes) = b.asked().await;
        assert_eq!(bytes, b"few");
        beside.respond(token, vec![2]).await.unwrap();
        assert_eq!(honest.await.unwrap(), Ok(vec![2]));
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        // Given up, it has all its places again.
        tokio::time::sleep(limits::RPC_STALL.into()).await;
        let read = ended(&mut deaf).await.len();
        assert!(read < window, "{read} bytes reached it in the end");
        let start = Instant::now();
        let _asking: Vec<_> = (0..limits::RPC_IN_FLIGHT_MAX).map(|_| a.ask(b_id, b"again")).collect();
        let mut tokens = Vec::new();
        while tokens.len() < limits::RPC_IN_FLIGHT_MAX {
            let (token, bytes) = b.asked().await;
            assert_eq!(bytes, b"again");
            tokens.push(token);
        }
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    });
}

#[test]
fn an_asker_keeps_no_more_than_its_bound_for_a_peer_that_reads_nothing() {
    run(async {
        let mut b = ByHand::start().await;
        let to = b.id;
        let longest = || vec![0; limits::RPC_REQUEST_BYTES_MAX];
        let mut taken = 0;
        let start = Instant::now();
        while b.asker.act(move |net| net.request(to, longest(), Duration::from_millis(300))).await.is_ok() {
            taken += 1;
        }
        assert_eq!(taken, limits::RPC_IN_FLIGHT_MAX);
        let stream = b.stream().await;
        for _ in 0..taken {
            let failed = |e| if let Event::RequestFailed { error, .. } = e { Some(error) } else { None };
            assert_eq!(b.asker.until(failed).await, RequestError::Timeout);
        }
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        assert_eq!(b.asker.act(move |net| net.request(to, vec![1], PATIENCE)).await, Err(Busy::Full));
        drop(stream);
        let start = Instant::now();
        while b.asker.act(move |net| net.request(to, vec![1], PATIENCE)).await.is_err() {
            assert!(start.elapsed() < PATIENCE, "the slots of a broken stream are given back");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(read_question(&mut b.stream().await).await.1, [1]);
    });
}
