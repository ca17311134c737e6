//! Order and picture as one string of bytes, for the way from a client to a worker.
//!
//! Two bytes of length, a head in CBOR with its version first, the bytes to be hidden, the picture. The last
//! two stand as they are, so nothing of a picture is copied to be read.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::{Zeroize, Zeroizing};

use super::{Frames, Layout, Order, WorkError};
use crate::model::{
    codec::{self, CodecError},
    limits,
};

/// Of the head.
const VERSION: u64 = 1;
const LENGTH_BYTES: usize = 2;

/// What is to be done, without the bytes. Variants are only ever added at the end.
#[derive(PartialEq, Serialize, Deserialize)]
enum What {
    Hide { scatter: Option<Scatter>, payload_bytes: u64, frames: Frames },
    Thumbnail { edge_px: u32, frames: Frames },
    Strip,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct Scatter {
    seed: ByteBuf,
    header: ByteBuf,
}

/// Version, what is to be done, bytes of the picture.
type Head = (u64, What, u64);

/// An order and its picture as bytes.
pub fn envelope(order: &Order, picture: &[u8]) -> Vec<u8> {
    let mut payload: &[u8] = &[];
    let what = match order {
        Order::Hide { layout, payload: bytes, frames } => {
            payload = bytes;
            let scatter = match layout {
                Layout::Plain => None,
                Layout::Scattered { seed, header } => Some(Scatter {
                    seed: ByteBuf::from(seed.to_vec()),
                    header: ByteBuf::from(header.clone()),
                }),
            };
            What::Hide { scatter, payload_bytes: payload.len() as u64, frames: *frames }
        }
        Order::Thumbnail { edge_px, frames } => What::Thumbnail { edge_px: *edge_px, frames: *frames },
        Order::Strip => What::Strip,
    };
    let head: Head = (VERSION, what, picture.len() as u64);
    let head = Zeroizing::new(codec::encode(&head));
    let head_len = u16::try_from(head.len()).expect("a head is a few short fields");
    let mut bytes = Vec::with_capacity(LENGTH_BYTES + head.len() + payload.len() + picture.len());
    for part in [&head_len.to_be_bytes()[..], &head, payload, picture] {
        bytes.extend_from_slice(part);
    }
    bytes
}

/// The order and the picture in an envelope.
///
/// # Errors
/// [`WorkError::Envelope`], also for an order that this program does not know;
/// [`WorkError::EnvelopeTooLarge`].
pub fn open(bytes: &[u8]) -> Result<(Order, &[u8]), WorkError> {
    if bytes.len() as u64 > limits::TASK_PAYLOAD_BYTES_MAX {
        return Err(WorkError::EnvelopeTooLarge { bytes: bytes.len() as u64 });
    }
    let cut = || WorkError::Envelope("it is cut off".into());
    let (len, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or_else(cut)?;
    let (head, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len))).ok_or_else(cut)?;
    let (what, picture_bytes) = read_head(head).map_err(|error| WorkError::Envelope(error.to_string()))?;
    let payload_bytes = match &what {
        What::Hide { payload_bytes, .. } => *payload_bytes,
        _ => 0,
    };
    let payload_bytes = usize::try_from(payload_bytes).map_err(|_| cut())?;
    let (payload, picture) = rest.split_at_checked(payload_bytes).ok_or_else(cut)?;
    if picture.len() as u64 != picture_bytes {
        return Err(cut());
    }
    Ok((order(what, payload)?, picture))
}

fn read_head(bytes: &[u8]) -> Result<(What, u64), CodecError> {
    let (version, what, picture_bytes): Head = codec::decode(bytes, limits::TASK_HEAD_BYTES_MAX)?;
    codec::check_version(version, VERSION)?;
    Ok((what, picture_bytes))
}

fn order(what: What, payload: &[u8]) -> Result<Order, WorkError> {
    Ok(match what {
        What::Hide { scatter, frames, .. } => {
            let layout = scatter.map_or(Ok(Layout::Plain), Scatter::layout)?;
            Order::Hide { layout, payload: Zeroizing::new(payload.to_vec()), frames }
        }
        What::Thumbnail { edge_px, frames } => Order::Thumbnail { edge_px, frames },
        What::Strip => Order::Strip,
    })
}

impl Scatter {
    fn layout(mut self) -> Result<Layout, WorkError> {
        let seed = <[u8; 32]>::try_from(self.seed.as_slice()).map(Zeroizing::new);
        let header = std::mem::take(&mut *self.header);
        match seed {
            Ok(seed) if header.len() <= limits::TASK_HEADER_BYTES_MAX => {
                Ok(Layout::Scattered { seed, header })
            }
            _ => Err(WorkError::Envelope("a seed or a header of another length".into())),
        }
    }
}

impl Drop for Scatter {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn orders() -> impl Strategy<Value = Order> {
        let frames = prop_oneof![Just(Frames::Single), Just(Frames::First)];
        let bytes = |max: usize| proptest::collection::vec(any::<u8>(), 0..max);
        let scattered = (any::<[u8; 32]>(), bytes(60))
            .prop_map(|(seed, header)| Layout::Scattered { seed: Zeroizing::new(seed), header });
        let layout = prop_oneof![Just(Layout::Plain), scattered];
        prop_oneof![
            (layout, bytes(100), frames.clone()).prop_map(|(layout, payload, frames)| Order::Hide {
                layout,
                payload: Zeroizing::new(payload),
                frames
            }),
            (any::<u32>(), frames).prop_map(|(edge_px, frames)| Order::Thumbnail { edge_px, frames }),
            Just(Order::Strip),
        ]
    }

    proptest! {
        #[test]
        fn what_is_put_into_an_envelope_comes_out(
            order in orders(),
            picture in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = envelope(&order, &picture);
            prop_assert_eq!(open(&bytes), Ok((order.clone(), picture.as_slice())));
            prop_assert!(order.kind().is_sane() && Order::KINDS.contains(&order.kind().0.as_str()));
            for len in 0..bytes.len() {
                prop_assert!(matches!(open(&bytes[..len]), Err(WorkError::Envelope(_))), "cut to {}", len);
            }
        }
    }

    /// Part of the wire format: it never changes.
    #[test]
    fn an_envelope_is_what_it_was() {
        let order = Order::Hide {
            layout: Layout::Plain,
            payload: Zeroizing::new(b"hi".to_vec()),
            frames: Frames::First,
        };
        let expected =
            [&[0, 11, 0x83, 0x01, 0x84, 0x00, 0xf6, 0x02, 0x81, 0x01, 0x03][..], b"hi", b"pic"].concat();
        let bytes = envelope(&order, b"pic");
        assert_eq!(bytes[2..], expected[2..], "{bytes:02x?}");
    }

    #[test]
    fn an_order_of_tomorrow_is_refused_with_a_sentence() {
        let mut bytes = envelope(&Order::Strip, b"picture");
        bytes[3] = 2;
        let Err(error) = open(&bytes) else { panic!("it was read") };
        let words = error.to_string();
        assert!(words.contains("unknown version 2") && words.contains("may be older"), "{words}");
        let mut bytes = envelope(&Order::Strip, b"picture");
        bytes[5] = 9;
        assert!(open(&bytes).is_err_and(|error| error.to_string().contains("may be older")));
    }

    #[test]
    fn nothing_of_what_is_hidden_is_shown() {
        let order = Order::Hide {
            layout: Layout::Scattered { seed: Zeroizing::new([7; 32]), header: vec![7; 9] },
            payload: Zeroizing::new(b"secret".to_vec()),
            frames: Frames::Single,
        };
        assert_eq!(format!("{order:?}"), "Hide(Scattered(hidden), 6 bytes, Single)");
    }
}
