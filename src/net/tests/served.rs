//! Who is served when a node has more to do than it has places for.

use futures::future;

use super::*;

/// A get of something from every one of `count` tasks.
fn gets(from: &Peer, to: PeerId, count: usize) -> Vec<JoinHandle<Result<Vec<u8>, BulkError>>> {
    let get = |number: usize| {
        let to = from.handle.bulk(to);
        tokio::spawn(async move { to.get(BodyId([number as u8; 32]), QUIET).await })
    };
    (0..count).map(get).collect()
}

async fn taken(calls: &mut mpsc::Receiver<BulkCall>, count: usize) -> Vec<BulkCall> {
    let mut all = Vec::new();
    while all.len() < count {
        let next = timeout(PATIENCE, calls.recv()).await;
        all.push(next.expect("a call comes in time").expect("the network runs"));
    }
    all
}

#[test]
fn a_client_waits_for_a_place_and_a_member_has_places_of_its_own() {
    run(async {
        let mut b = node(2).start().await;
        let mut calls = b.calls.take().unwrap();
        let mut clients = Vec::new();
        for seed in 3..6 {
            let mut client = client(seed).knows(&b).start().await;
            client.until_connected(b.id).await;
            clients.push(client);
        }
        let mut member = node(1).knows(&b).start().await;
        member.until_connected(b.id).await;

        // Two clients take all places that clients have.
        let half = limits::BULK_SERVED_MAX / 2;
        let mut asked = gets(&clients[0], b.id, half);
        asked.extend(gets(&clients[1], b.id, limits::BULK_SERVED_MAX - half));
        let mut held = taken(&mut calls, limits::BULK_SERVED_MAX).await;

        // A third one waits, longer than it would wait for a silent node.
        let mut third = gets(&clients[2], b.id, 1).remove(0);
        assert!(timeout(2 * QUIET, &mut third).await.is_err(), "it was turned away");
        assert!(calls.try_recv().is_err(), "more are served than there are places");

        // A member does not wait behind clients.
        let asking = gets(&member, b.id, 1).remove(0);
        let call = taken(&mut calls, 1).await.remove(0);
        assert_eq!(call.peer, member.id);
        call.reply.send(BulkAnswer::NotHere).unwrap();
        assert_eq!(asking.await.unwrap(), Err(BulkError::NotHere));

        // One place is free again: the third client has it.
        held.remove(0).reply.send(BulkAnswer::NotHere).unwrap();
        let call = taken(&mut calls, 1).await.remove(0);
        assert_eq!(call.peer, clients[2].id);
        call.reply.send(BulkAnswer::NotHere).unwrap();
        assert_eq!(third.await.unwrap(), Err(BulkError::NotHere));
        held.into_iter().for_each(|call| call.reply.send(BulkAnswer::NotHere).unwrap());
        let answers = future::join_all(asked).await;
        assert!(answers.into_iter().all(|answer| answer.unwrap() == Err(BulkError::NotHere)));
        assert_eq!(b.handle.counters().bulk_busy.get(), 0);
    });
}
