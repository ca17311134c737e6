//! Bulk calls to a server that speaks the frames by hand: it stops reading, breaks off, or sends another
//! length than it announced. The caller hears why, keeps nothing, and its next call works.

use super::{rpc::ByHand, *};

const STORED: u8 = 1;
const BODY: u8 = 2;

fn answer(number: u64, kind: u8, len: usize) -> Vec<u8> {
    framed(&(1u64, number, kind, len as u64, Vec::<PeerId>::new(), ""))
}

/// The next request: its number and kind. The body of a put is still to be read.
async fn request(stream: &mut Stream) -> (u64, u8) {
    let mut len = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut len)).await.unwrap().unwrap();
    let mut header = vec![0; u32::from_be_bytes(len) as usize];
    timeout(PATIENCE, stream.read_exact(&mut header)).await.unwrap().unwrap();
    let (_, number, kind, ..): (u64, u64, u8, BodyId, u64, Vec<PeerId>, u8, bool) =
        codec::decode(&header, limits::BULK_HEADER_BYTES_MAX).unwrap();
    (number, kind)
}

/// One put as it should be, to its receipt, on a new stream.
async fn one_put_works(by_hand: &mut ByHand, body: &Arc<Vec<u8>>) {
    let to = by_hand.asker.handle.bulk(by_hand.id);
    let putting = tokio::spawn({
        let put = put(body);
        async move { to.put(put, QUIET).await }
    });
    let mut stream = by_hand.stream().await;
    let (number, _) = request(&mut stream).await;
    let mut came = vec![0; body.len()];
    timeout(PATIENCE, stream.read_exact(&mut came)).await.unwrap().unwrap();
    assert!(came == **body);
    stream.write_all(&answer(number, STORED, 0)).await.unwrap();
    assert_eq!(putting.await.unwrap(), Ok(Receipt { holders: vec![] }));
}

#[test]
fn a_server_that_reads_nothing_is_given_up_and_holds_no_window() {
    run(async {
        let mut by_hand = ByHand::of(|inboxes| inboxes.bulk).await;
        let to = by_hand.asker.handle.bulk(by_hand.id);
        let bodies: Vec<_> = (0..12).map(|seed| body(seed, 1 << 20)).collect();
        let mut unread = Vec::new();
        // Together they leave more unread than the connection's window: what was given up must count no more.
        for _ in 0..4 {
            let putting: Vec<_> = bodies.iter().map(|body| (to.clone(), put(body))).collect();
            let putting =
                putting.into_iter().map(|(to, put)| tokio::spawn(async move { to.put(put, QUIET).await }));
            let putting: Vec<_> = putting.collect();
            for _ in 0..limits::BULK_STREAMS_OPENED_MAX {
                unread.push(by_hand.stream().await);
            }
            for put in putting {
                let failed = put.await.unwrap().unwrap_err();
                assert!(matches!(failed, BulkError::NoProgress(_) | BulkError::Closed), "{failed}");
            }
            assert_eq!(to.streams(), 0);
        }
        let sent = by_hand.asker.act(|net| net.transport().traffic().written).await;
        assert!(sent > u64::from(limits::QUIC_CONNECTION_WINDOW_BYTES), "{sent}");
        one_put_works(&mut by_hand, &bodies[0]).await;
    });
}

/// How a server breaks off or lies.
#[derive(Clone, Copy, Debug)]
enum Ill {
    /// It drops the stream in the middle of the body it takes.
    StopsTaking,
    /// It drops the stream in the middle of the body it gives.
    Resets,
    /// It ends the stream there.
    SaysLess,
    /// It sends more than it announced.
    SaysMore,
    /// It announces more than any body may have.
    AnnouncesTooMuch,
}

async fn serve_ill(stream: &mut Stream, ill: Ill, wanted: &[u8]) {
    let (number, _) = request(stream).await;
    let half = wanted.len() / 2;
    let said = match ill {
        Ill::StopsTaking => return stream.read_exact(&mut vec![0; half]).await.unwrap(),
        Ill::Resets | Ill::SaysLess => [&answer(number, BODY, wanted.len())[..], &wanted[..half]].concat(),
        Ill::SaysMore => [&answer(number, BODY, half)[..], wanted].concat(),
        Ill::AnnouncesTooMuch => answer(number, BODY, limits::BODY_BYTES_MAX + 1),
    };
    stream.write_all(&said).await.unwrap();
    if matches!(ill, Ill::SaysLess) {
        stream.close().await.unwrap();
    }
}

#[test]
fn a_server_that_breaks_off_or_sends_another_length_is_an_error_at_once() {
    run(async {
        let mut by_hand = ByHand::of(|inboxes| inboxes.bulk).await;
        let to = by_hand.asker.handle.bulk(by_hand.id);
        let full = body(1, 1 << 20);
        for ill in [Ill::StopsTaking, Ill::Resets, Ill::SaysLess, Ill::SaysMore, Ill::AnnouncesTooMuch] {
            let calling = tokio::spawn({
                let (to, full) = (to.clone(), full.clone());
                async move {
                    match ill {
                        Ill::StopsTaking => to.put(put(&full), PATIENCE).await.map(|_| Vec::new()),
                        _ => to.get(hash(&full), PATIENCE).await,
                    }
                }
            });
            let mut stream = by_hand.stream().await;
            serve_ill(&mut stream, ill, &full).await;
            if matches!(ill, Ill::StopsTaking | Ill::Resets) {
                drop(stream);
            }
            let failed = timeout(PATIENCE / 2, calling).await.expect("at once").unwrap().unwrap_err();
            let right = match ill {
                Ill::StopsTaking | Ill::Resets | Ill::SaysLess => failed == BulkError::Closed,
                // What was announced is another body; what follows it is no answer.
                Ill::SaysMore => failed == BulkError::Corrupt,
                Ill::AnnouncesTooMuch => matches!(failed, BulkError::Malformed(_) | BulkError::Closed),
            };
            assert!(right, "{ill:?}: {failed}");
            eventually(|| to.streams() == 0, || format!("{ill:?}: its stream is kept")).await;
            one_put_works(&mut by_hand, &full).await;
            by_hand.asker.handle.hang_up();
        }
        let counters = by_hand.asker.handle.counters();
        assert_eq!((counters.bulk_corrupt.get(), counters.bulk_malformed.get()), (1, 2));
    });
}
