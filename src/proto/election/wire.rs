//! What goes over the wire: recorded once, and the same ever after.

use super::*;
use crate::proto::testing::{hex, peers};

fn claim(counter: u64, node: u16) -> Claim {
    Claim { epoch: Epoch::FOUNDING, counter, node: NodeNumber(node) }
}

fn messages() -> Vec<(&'static str, Message)> {
    let (peer, epoch, known) = (peers(2)[1], Epoch::FOUNDING, Some(claim(0x0030_0003, 1)));
    let election =
        |reason| Message::Election { epoch, counter: 0x0030_0403, load_centi: 1250, known, reason };
    let alive = |verdict| Message::Alive {
        epoch,
        asked: 0x0030_0403,
        load_centi: 2010,
        counter: 0x0030_0403,
        known,
        verdict,
    };
    let loads = vec![(NodeNumber(0), 1250), (NodeNumber(1), 2010)];
    let coordinator =
        Message::Coordinator { claim: claim(0x0030_0403, 0), reason: Reason::Death(peer), loads };
    vec![
        ("election", election(Reason::First)),
        ("election-resignation", election(Reason::Resignation(peer))),
        ("election-gone", election(Reason::Gone(peer))),
        ("election-better", election(Reason::ClearlyBetter(peer))),
        ("alive", alive(Verdict::Agrees)),
        ("alive-better", alive(Verdict::Better)),
        ("alive-in-office", alive(Verdict::InOffice)),
        ("alive-believes", alive(Verdict::Believes)),
        ("alive-bound", alive(Verdict::Bound)),
        ("coordinator", coordinator),
        ("withdraw", Message::Withdraw { counter: 0x0030_0403 }),
        ("resign", Message::Resign { claim: claim(0x0030_0403, 0) }),
    ]
}

#[test]
fn what_is_written_is_what_was_recorded() {
    let written: Vec<String> =
        messages().iter().map(|(name, message)| format!("{name} {}", hex(&message.encode()))).collect();
    assert_eq!(include_str!("../../../tests/vectors/election.txt").trim_end(), written.join("\n"));
    for (name, message) in messages() {
        assert_eq!(Message::decode(&message.encode()), Ok(message), "{name}");
    }
}

#[test]
fn the_largest_message_fits_and_disorder_is_refused() {
    let with = |loads| Message::Coordinator { claim: claim(1, 0), reason: Reason::First, loads };
    let all = |count: usize| (0..count).map(|node| (NodeNumber(node as u16), u64::MAX)).collect::<Vec<_>>();
    let largest = with(all(limits::MEMBERS_MAX));
    assert_eq!(Message::decode(&largest.encode()), Ok(largest));
    assert!(Message::decode(&with(all(limits::MEMBERS_MAX + 1)).encode()).is_err());
    assert!(Message::decode(&with(vec![(NodeNumber(1), 1), (NodeNumber(0), 1)]).encode()).is_err());
    assert!(Message::decode(&with(vec![(NodeNumber(1), 1), (NodeNumber(1), 1)]).encode()).is_err());
    let mut newer = messages()[0].1.encode();
    newer[1] = 2;
    assert!(Message::decode(&newer).is_err());
}
