//! The one check of an Ed25519 signature (RFC 8032).
//!
//! libp2p-identity offers one way to verify, `ed25519::PublicKey::verify`, which is ed25519-dalek 3's
//! `Verifier`: a scalar `s` that is not reduced is refused, and `R` is recomputed and compared as bytes
//! (no cofactor), so of one honest key and message no second signature can be made from a first.
//! It does not pass on dalek's `verify_strict`, which also refuses keys and `R` of small order. The
//! missing half that matters here is the key: under a key of small order one signature fits many
//! messages, and a key that is not in canonical form is a second name for one owner. Both are refused
//! below, before the library is asked. With a good key an `R` of small order needs the secret key.

use libp2p_identity::ed25519::PublicKey;

use crate::model::id::OwnerKey;

/// 2^255 - 19 in little endian.
const FIELD_PRIME: [u8; 32] = {
    let mut bytes = [0xff; 32];
    bytes[0] = 0xed;
    bytes[31] = 0x7f;
    bytes
};

/// The y coordinates of the eight points of small order; the sign bit chooses between x and -x.
const SMALL_ORDER_Y: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    {
        let mut minus_one = FIELD_PRIME;
        minus_one[0] -= 1;
        minus_one
    },
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

/// Whether `owner` signed `message`. Not constant time: everything here is public.
pub(super) fn verify(owner: &OwnerKey, message: &[u8], signature: &[u8]) -> bool {
    is_sound(owner)
        && PublicKey::try_from_bytes(owner.as_bytes()).is_ok_and(|key| key.verify(message, signature))
}

/// Whether a key is in canonical form and not of small order.
fn is_sound(owner: &OwnerKey) -> bool {
    let mut y = owner.0;
    y[31] &= 0x7f;
    let canonical = y.iter().rev().lt(FIELD_PRIME.iter().rev());
    canonical && !SMALL_ORDER_Y.contains(&y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::keys::tests::user;

    #[test]
    fn the_library_believes_forgeries_under_keys_of_small_order_and_this_does_not() {
        // R is the neutral point and s is zero: right if the challenge is a multiple of the key's order.
        let mut forged = [0; 64];
        forged[0] = 1;
        for y in SMALL_ORDER_Y {
            for sign in [0, 0x80] {
                let mut key = OwnerKey(y);
                key.0[31] |= sign;
                let mut forgeries = 0;
                for number in 0..200u8 {
                    let message = [number];
                    let library =
                        PublicKey::try_from_bytes(&key.0).is_ok_and(|k| k.verify(&message, &forged));
                    forgeries += u32::from(library);
                    assert!(!verify(&key, &message, &forged));
                }
                // The two with x = 0 and the sign bit set are not points to a strict decoder.
                assert!(forgeries > 0 || sign != 0, "{key}: this is not a point of small order");
            }
        }
    }

    #[test]
    fn keys_that_are_not_reduced_are_refused() {
        for above in 0..19 {
            let mut y = FIELD_PRIME;
            y[0] += above;
            assert!(!is_sound(&OwnerKey(y)), "p + {above}");
            y[31] |= 0x80;
            assert!(!is_sound(&OwnerKey(y)), "p + {above}, negative");
        }
        let mut below = FIELD_PRIME;
        below[0] -= 2;
        assert!(is_sound(&OwnerKey(below)), "p - 2 is reduced");
    }

    #[test]
    fn a_good_signature_is_believed_and_its_unreduced_twin_is_not() {
        const ORDER: [u8; 32] = {
            let mut bytes = [0; 32];
            let low = [
                0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
                0x14,
            ];
            let mut i = 0;
            while i < 16 {
                bytes[i] = low[i];
                i += 1;
            }
            bytes[31] = 0x10;
            bytes
        };
        let keys = user(5);
        let good = keys.sign(b"message");
        assert!(verify(&keys.owner(), b"message", &good));
        let mut twin = good;
        let mut carry = 0u16;
        for (byte, order) in twin[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        assert!(!verify(&keys.owner(), b"message", &twin), "s + order is the same number to a lax check");
        assert!(!verify(&keys.owner(), b"message.", &good));
        assert!(!verify(&user(6).owner(), b"message", &good));
        assert!(!verify(&keys.owner(), b"message", &good[..63]));
        assert!(!verify(&keys.owner(), b"message", &[]));
    }
}
