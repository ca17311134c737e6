//! Each oracle sees what it is there for, and lets pass what is right.

use tintype::{
    model::{
        BodyId, FoundingId, Incarnation, Millis, limits,
        member::{Epoch, Founding, NodeNumber},
        rpc::NodeState,
        task::{Claim, Rank, TaskId},
    },
    proto::{chunkpaxos::CallId, founding::FoundingRecord},
    seal::chunk::body_id,
};

use super::{super::store::Store, claims::Belief, *};

fn founding(id: u8) -> Founding {
    Founding::new(FoundingId([id; 16]), Vec::new())
}

#[test]
fn heartbeats_too_soon_or_too_long_are_seen() {
    let mut heartbeats = heartbeats::Heartbeats::default();
    assert!(heartbeats.published(0, Millis(0), &[1]).is_ok());
    assert!(heartbeats.published(1, Millis(5), &[1]).is_ok(), "another node");
    assert!(heartbeats.published(0, limits::HEARTBEAT, &[1]).is_ok());
    assert!(heartbeats.published(0, limits::HEARTBEAT + Millis(299), &[1]).is_err());
    heartbeats.restarted(0);
    assert!(heartbeats.published(0, Millis(0), &[1]).is_ok(), "a process begins anew");
    assert!(heartbeats.published(0, Millis(5000), &vec![0; limits::GOSSIP_BYTES_MAX + 1]).is_err());
}

#[test]
fn a_second_founding_or_a_vote_given_twice_is_seen() {
    let vote = |id| FoundingRecord { vote: Some(founding(id)), ..FoundingRecord::default() };
    let made = |id| FoundingRecord { vote: Some(founding(id)), founding: Some(founding(id)), left_out: None };
    let mut foundings = founding::Foundings::new(2);
    assert!(foundings.durable(0, &vote(1)).is_ok());
    assert!(foundings.durable(0, &vote(2)).is_err(), "without taking the first back");
    let mut foundings = founding::Foundings::new(2);
    assert!(foundings.durable(0, &made(1)).is_ok() && foundings.ready(0, &founding(1)).is_ok());
    assert!(foundings.ready(1, &founding(1)).is_err(), "not on its disk");
    assert!(foundings.durable(1, &made(2)).is_err());
    assert!(foundings.durable(0, &FoundingRecord::default()).is_err(), "taken back");
}

#[test]
fn late_double_and_missing_answers_are_seen() {
    let mut calls = calls::Calls::default();
    calls.asked(0, CallId(1), 100);
    assert!(calls.all_answered(|_| 200).is_ok(), "it has time");
    assert!(calls.all_answered(|_| 5000).is_err());
    assert!(calls.answered(0, CallId(1), 200).is_ok());
    assert!(calls.answered(0, CallId(1), 201).is_err());
    calls.asked(0, CallId(2), 100);
    assert!(calls.answered(0, CallId(2), 100 + limits::NO_QUORUM.0 + 100).is_err());
    calls.asked(0, CallId(3), 0);
    calls.lost(0);
    assert!(calls.all_answered(|_| 5000).is_ok());
}

#[test]
fn too_much_of_anything_is_seen() {
    let mut bounds = bounds::Bounds::default();
    assert!(bounds.disk_queue(limits::WRITE_QUEUE_MAX).is_ok());
    assert!(bounds.disk_queue(limits::WRITE_QUEUE_MAX + 1).is_err());
    assert!(bounds.actions(100_000).is_err() && bounds.questions(100_000).is_err());
    assert!(bounds.fetches(100).is_err());
}

#[test]
fn fewer_copies_than_acknowledged_are_seen() {
    let empty = Store::new(Incarnation([1; 16]));
    let none = std::collections::BTreeMap::new();
    let object = ObjectId([1; 32]);
    let acked = |copies, survives, bodies| Acked { object, version: 1, survives, copies, bodies };
    let stores = [(&empty, false)];
    let mut kept = kept::Kept::default();
    assert!(kept.acknowledged(acked(1, 0, Vec::new()), &stores, false).is_err(), "no register");
    assert!(kept.acknowledged(acked(0, 0, vec![BodyId([2; 32])]), &stores, false).is_err(), "no body");
    assert!(kept.acknowledged(acked(0, 1, vec![BodyId([2; 32])]), &stores, true).is_ok(), "it rotted");
    assert!(kept.all_there(&stores, 1, &none).is_err());
    let newest = |version, has_manifest| {
        std::collections::BTreeMap::from([(object, Newest { version, has_manifest })])
    };
    let chosen = |version| newest(version, true);
    let kept_max = limits::VERSIONS_KEPT as u64;
    assert!(kept.all_there(&stores, 1, &chosen(kept_max)).is_err());
    assert!(kept.all_there(&stores, 1, &chosen(kept_max + 1)).is_ok(), "it is named no more");
    assert!(kept.includes(&object, 1));
    let mut holder = Store::new(Incarnation([2; 16]));
    let body = b"a body".to_vec();
    let id = body_id(&body);
    holder.contents.bodies.insert(id, std::sync::Arc::new(body));
    let stores = [(&empty, false), (&holder, false)];
    let mut kept = kept::Kept::default();
    assert!(kept.acknowledged(acked(0, 0, vec![id]), &stores, false).is_ok());
    assert!(kept.all_there(&stores, 2, &chosen(2)).is_err());
    assert!(kept.all_there(&stores, 2, &newest(2, false)).is_ok(), "nobody knows any more that it is one");
    assert!(kept.all_there(&stores[..1], 2, &newest(2, false)).is_err(), "it is gone altogether");
    let mut kept = kept::Kept::default();
    assert!(kept.acknowledged(acked(0, 0, vec![BodyId([2; 32])]), &stores, true).is_ok());
    assert!(kept.all_there(&stores, 1, &none).is_ok(), "the answer had said that it may be lost");
}

#[test]
fn a_wrong_view_is_seen() {
    assert!(views::settled(0, 1, NodeState::Alive, true).is_ok());
    assert!(views::settled(0, 1, NodeState::Dead, false).is_ok());
    assert!(views::settled(0, 1, NodeState::Dead, true).is_err());
    assert!(views::settled(0, 1, NodeState::Suspect, true).is_err());
    assert!(views::settled(0, 1, NodeState::Alive, false).is_err());
}

fn claim(counter: u64, node: u16) -> Claim {
    Claim { epoch: Epoch::FOUNDING, counter, node: NodeNumber(node) }
}

fn rank(attempt: u64) -> Rank {
    Rank { claim: claim(1, 0), attempt }
}

fn task(number: u64) -> TaskId {
    let keys = libp2p_identity::Keypair::ed25519_from_bytes([9; 32]).expect("32 bytes are a key");
    TaskId { client: keys.public().to_peer_id(), number }
}

#[test]
fn a_claim_that_goes_back_or_is_made_twice_is_seen() {
    let mut claims = claims::Claims::default();
    assert!(claims.claimed(0, 1, claim(5, 0)).is_ok() && claims.claimed(0, 1, claim(5, 0)).is_ok());
    assert!(claims.claimed(1, 1, claim(3, 1)).is_ok(), "another node");
    assert!(claims.claimed(0, 1, claim(6, 0)).is_ok());
    assert!(claims.claimed(0, 1, claim(5, 0)).is_err());
    assert!(claims.claimed(1, 2, claim(3, 1)).is_err(), "again in another life");
    assert!(claims.claimed(0, 2, claim(9, 1)).is_err(), "another's");
}

#[test]
fn no_coordinator_or_two_or_one_whom_not_all_follow_are_seen() {
    let belief = |node, counter: Option<u64>, is_own| Belief {
        node,
        claim: counter.map(|counter| claim(counter, 0)),
        is_own,
    };
    let calm = claims::Claims::calm;
    assert!(calm(&[belief(0, Some(5), true), belief(1, Some(5), false)]).is_ok());
    assert!(calm(&[belief(0, Some(5), false), belief(1, Some(5), false)]).is_err());
    assert!(calm(&[belief(0, Some(5), true), belief(1, Some(6), true)]).is_err());
    assert!(calm(&[belief(0, Some(5), true), belief(1, Some(4), false)]).is_err());
    assert!(calm(&[belief(0, Some(5), true), belief(1, None, false)]).is_err());
}

#[test]
fn a_second_effect_or_one_of_another_assignment_is_seen() {
    let mut effects = effects::Effects::default();
    let (one, other, third) = (task(1), task(2), task(3));
    assert!(effects.given(0, 1, one, rank(1)).is_ok() && effects.given(0, 1, one, rank(1)).is_ok());
    assert!(effects.given(1, 1, one, rank(2)).is_ok());
    assert!(effects.given(1, 1, one, rank(1)).is_err(), "two have the same");
    assert!(effects.given(0, 2, one, rank(1)).is_err(), "it has forgotten that it had it");
    effects.made(one, rank(1));
    assert!(effects.effective(one, rank(1), Some(rank(1))).is_ok());
    assert!(effects.effective(one, rank(1), Some(rank(1))).is_err(), "twice");
    effects.made(other, rank(1));
    assert!(effects.effective(other, rank(2), Some(rank(1))).is_err(), "a late answer of an earlier one");
    assert!(effects.effective(third, rank(1), Some(rank(1))).is_err(), "out of nothing");
}

#[test]
fn a_task_that_never_ends_or_is_asked_for_without_end_is_seen() {
    let mut tasks = tasks_end::TasksEnd::default();
    let (one, other) = (task(1), task(2));
    tasks.begun(0, one);
    tasks.begun(1, other);
    assert!(tasks.all_ended().is_err());
    tasks.ended(&one);
    assert!(tasks.all_ended().is_err());
    tasks.client_died(1);
    assert!(tasks.all_ended().is_ok());
    assert!((0..1000).all(|n| tasks.wished(one, 100 * n).is_ok()));
    assert!((0..1000).any(|n| tasks.wished(one, 200_000 + n).is_err()));
}

#[test]
fn an_unsigned_register_is_seen() {
    assert!(signed::on_disk(0, &ObjectId([1; 32]), None).is_err());
    assert!(signed::answered(&ObjectId([1; 32]), None).is_err());
    assert!(signed::on_disk(0, &ObjectId([1; 32]), Some(&AcceptorRecord::empty())).is_ok());
}
