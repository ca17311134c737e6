//! Who should hold what: rendezvous hashing, pure functions of the members and the id.
//!
//! Never of who is alive: two nodes that see the cluster differently still agree here.
//!
//! Rendezvous hashing: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM
//! ToN 6(1), 1998. Weights by the logarithmic method: Schindelhauer and Schomaker, "Weighted distributed
//! hash tables", SPAA 2005. The score of a member is `-log2(u) / weight`, smallest first, where `u` in (0,
//! 1] is `(h + 1) / 2^64` and `h` the first eight bytes, little-endian, of keyed BLAKE3 over the PeerId's
//! bytes and then the subject; the key is `derive_key` of a context of its own for bodies, slots and homes.
//! The logarithm is computed in integers, 48 bits after the point, so that every machine gets the same one.

use crate::model::{
    BodyId, ObjectId, PeerId,
    member::{Epoch, Member},
    slots::HashSlot,
};

/// Copies of each body where there are that many members.
pub const COPIES: usize = 3;

const BODY_CONTEXT: &str = "tintype 1 placement of bodies";
const SLOT_CONTEXT: &str = "tintype 1 placement of hash slots";
const HOME_CONTEXT: &str = "tintype 1 placement of home proposers";
const FRACTION_BITS: u32 = 48;

/// A member and how much it should hold, relative to the others. Weight 0 holds nothing and comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weighted {
    /// The member.
    pub peer: PeerId,
    /// Its share.
    pub weight: u32,
}

impl From<&Member> for Weighted {
    /// Weight 1, until authority sets another.
    fn from(member: &Member) -> Self {
        Self { peer: member.peer, weight: 1 }
    }
}

/// Who keeps the registers of one hash slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotKeepers {
    /// Those that vote: three, or one.
    pub acceptors: Vec<PeerId>,
    /// With two members, the one that does not vote and keeps a copy.
    pub mirror: Option<PeerId>,
}

impl SlotKeepers {
    /// How many acceptors are a majority.
    pub fn majority(&self) -> usize {
        self.acceptors.len() / 2 + 1
    }

    /// Whether this node keeps the slot's registers, with a vote or without.
    pub fn holds(&self, peer: &PeerId) -> bool {
        self.acceptors.contains(peer) || self.mirror.as_ref() == Some(peer)
    }
}

/// All members in the order in which they should hold this body: the first [`COPIES`] are its placement, a
/// reader walks the whole list.
pub fn order(members: &[Weighted], body: &BodyId) -> Vec<PeerId> {
    ranked(BODY_CONTEXT, members, body.as_bytes())
}

/// Acceptors and mirror of a hash slot. The epoch names the membership and does not move anything by itself.
pub fn keepers(_epoch: Epoch, members: &[Weighted], slot: HashSlot) -> SlotKeepers {
    let mut ranked = ranked(SLOT_CONTEXT, members, &[slot.0]);
    if ranked.len() == 2 {
        let mirror = ranked.pop();
        return SlotKeepers { acceptors: ranked, mirror };
    }
    ranked.truncate(COPIES);
    SlotKeepers { acceptors: ranked, mirror: None }
}

/// The home proposer of an object, one of its slot's acceptors; none only if there are none.
pub fn home(epoch: Epoch, acceptors: &[PeerId], object: &ObjectId) -> Option<PeerId> {
    let members: Vec<Weighted> = acceptors.iter().map(|peer| Weighted { peer: *peer, weight: 1 }).collect();
    let mut subject = epoch.0.to_le_bytes().to_vec();
    subject.extend_from_slice(object.as_bytes());
    ranked(HOME_CONTEXT, &members, &subject).first().copied()
}

fn ranked(context: &str, members: &[Weighted], subject: &[u8]) -> Vec<PeerId> {
    let key = blake3::derive_key(context, &[]);
    let mut scored: Vec<(u64, u64, Weighted)> = members
        .iter()
        .map(|member| {
            let h = hash(&key, &member.peer, subject);
            (minus_log2(h), h, *member)
        })
        .collect();
    scored.sort_by(|(log_a, h_a, a), (log_b, h_b, b)| {
        let empty = (a.weight == 0).cmp(&(b.weight == 0));
        let left = u128::from(*log_a) * u128::from(b.weight);
        let right = u128::from(*log_b) * u128::from(a.weight);
        empty.then(left.cmp(&right)).then(h_b.cmp(h_a)).then(a.peer.cmp(&b.peer))
    });
    scored.into_iter().map(|(_, _, member)| member.peer).collect()
}

fn hash(key: &[u8; 32], peer: &PeerId, subject: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&peer.to_bytes()).update(subject);
    let digest = hasher.finalize();
    let (head, _) = digest.as_bytes().split_first_chunk::<8>().expect("a hash has 32 bytes");
    u64::from_le_bytes(*head)
}

/// `-log2((h + 1) / 2^64)`, fixed point, rounded up. The digits after the point come by repeated squaring
/// (Knuth, TAOCP 1.2.2, exercise 25).
fn minus_log2(h: u64) -> u64 {
    let Some(x) = h.checked_add(1) else { return 0 };
    let whole = x.ilog2();
    // 1 <= mantissa < 2, with 63 bits after the point.
    let mut mantissa = u128::from(x) << (63 - whole);
    let mut log = u64::from(whole);
    for _ in 0..FRACTION_BITS {
        mantissa = (mantissa * mantissa) >> 63;
        log <<= 1;
        if mantissa >= 1 << 64 {
            mantissa >>= 1;
            log |= 1;
        }
    }
    (64 << FRACTION_BITS) - log
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::testing::peers;

    fn equal(count: usize) -> Vec<Weighted> {
        peers(count).into_iter().map(|peer| Weighted { peer, weight: 1 }).collect()
    }

    #[test]
    fn vectors() {
        let members = equal(5);
        let numbers = |peers: &[PeerId]| -> Vec<usize> {
            peers
                .iter()
                .map(|p| members.iter().position(|m| m.peer == *p).expect("one of the members"))
                .collect()
        };
        let body = order(&members, &BodyId([7; 32]));
        let slot = keepers(Epoch(1), &members, HashSlot(42)).acceptors;
        let home = home(Epoch(1), &slot, &ObjectId([42; 32])).expect("three acceptors");
        let mut text =
            format!("body {:?}\nslot {:?}\nhome {:?}\n", numbers(&body), numbers(&slot), numbers(&[home]));
        let weighted: Vec<Weighted> =
            members.iter().enumerate().map(|(i, m)| Weighted { weight: i as u32, ..*m }).collect();
        text += &format!("weighted {:?}\n", numbers(&order(&weighted, &BodyId([7; 32]))));
        for h in [0, 1, u64::MAX / 3, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
            text += &format!("log {h} {}\n", minus_log2(h));
        }
        assert_eq!(include_str!("../../tests/vectors/placement.txt"), text);
    }

    #[test]
    fn one_acceptor_for_one_or_two_members_and_three_from_three_on() {
        for (count, acceptors, mirror) in [(1, 1, false), (2, 1, true), (3, 3, false), (9, 3, false)] {
            for slot in HashSlot::all() {
                let keepers = keepers(Epoch(1), &equal(count), slot);
                assert_eq!((keepers.acceptors.len(), keepers.mirror.is_some()), (acceptors, mirror));
                assert_eq!(keepers.majority(), acceptors / 2 + 1);
            }
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        let members: Vec<Weighted> =
            peers(4).into_iter().zip([1, 1, 2, 4]).map(|(peer, weight)| Weighted { peer, weight }).collect();
        let mut first = [0u32; 4];
        for n in 0..8000u32 {
            let body = BodyId(*blake3::hash(&n.to_le_bytes()).as_bytes());
            let winner = order(&members, &body)[0];
            first[members.iter().position(|m| m.peer == winner).expect("a member")] += 1;
        }
        for (count, expected) in first.into_iter().zip([1000, 1000, 2000, 4000]) {
            assert!(count.abs_diff(expected) < 130, "{first:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn all_get_their_share_and_losing_one_moves_only_its_own(
            count in 3usize..12,
            seed in any::<u64>(),
        ) {
            let members = equal(count);
            let gone = members[seed as usize % count].peer;
            let rest: Vec<Weighted> = members.iter().copied().filter(|m| m.peer != gone).collect();
            let mut held = std::collections::BTreeMap::<PeerId, u32>::new();
            for n in 0..1500u64 {
                let body = BodyId(*blake3::hash(&(seed, n).0.wrapping_add(n).to_le_bytes()).as_bytes());
                let before = order(&members, &body);
                before.iter().take(COPIES).for_each(|p| *held.entry(*p).or_default() += 1);
                let after = order(&rest, &body);
                let kept: Vec<PeerId> = before.into_iter().filter(|p| *p != gone).collect();
                prop_assert_eq!(kept, after);
            }
            let fair = 1500 * COPIES as u32 / count as u32;
            for member in &members {
                let share = held.get(&member.peer).copied().unwrap_or(0);
                prop_assert!(share.abs_diff(fair) < fair / 4 + 40, "{} of {}", share, fair);
            }
        }

        #[test]
        fn the_logarithm_never_grows_with_the_hash(a in any::<u64>(), b in any::<u64>()) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(minus_log2(low) >= minus_log2(high));
            let float = 64.0 - (low as f64 + 1.0).log2();
            let fixed = minus_log2(low) as f64 / (1u64 << FRACTION_BITS) as f64;
            prop_assert!((float - fixed).abs() < 1e-6);
        }
    }
}
