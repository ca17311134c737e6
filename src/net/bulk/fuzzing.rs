//! What must hold of any bytes on a stream of bulk.
//!
//! For fuzzers and property tests only: no program is built with it.

use std::{sync::LazyLock, time::Duration};

use tokio::runtime::{Builder, Runtime};

use super::{
    framing::{self, Fault},
    wire::{self, BulkReply, BulkRequest},
};
use crate::model::{BodyId, fuzzing::canonical, limits};

/// For the patience that reading has; nothing here ever waits.
static CLOCK: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime without threads"));

const PATIENCE: Duration = Duration::from_secs(60);

/// A stream of requests with their bodies, one of answers, and each header alone.
pub fn bulk(bytes: &[u8]) -> bool {
    let request = |(number, request): &(u64, BulkRequest)| header_of(wire::encode_request(*number, request));
    let reply = |(number, reply): &(u64, BulkReply)| header_of(wire::encode_reply(*number, reply));
    let asked = canonical(bytes, wire::decode_request, request).is_some();
    let said = canonical(bytes, wire::decode_reply, reply).is_some();
    let of_request = |header: &[u8]| wire::decode_request(header).ok().map(|(_, request)| request.body_len());
    let of_reply = |header: &[u8]| wire::decode_reply(header).ok().map(|(_, reply)| reply.body_len());
    let streamed = [stream(bytes, of_request), stream(bytes, of_reply)];
    asked || said || streamed.contains(&true)
}

fn header_of(framed: Vec<u8>) -> Vec<u8> {
    let (len, header) = framed.split_first_chunk::<4>().expect("a length");
    assert_eq!(u32::from_be_bytes(*len) as usize, header.len());
    header.to_vec()
}

/// Reads frame after frame: each takes as many bytes as it says, and a body that is cut short is no body.
/// Whether all of it was frames.
fn stream(bytes: &[u8], body_len: impl Fn(&[u8]) -> Option<u64>) -> bool {
    let (mut rest, mut broken) = (bytes, true);
    let reading = async {
        loop {
            let header = match framing::read_header(&mut rest, PATIENCE).await {
                Ok(Some(header)) => header,
                end => return broken = end.is_err(),
            };
            assert!((1..=limits::BULK_HEADER_BYTES_MAX).contains(&header.len()));
            let Some(len) = body_len(&header).and_then(|len| usize::try_from(len).ok()) else { return };
            if len > limits::BODY_BYTES_MAX {
                return;
            }
            let before = rest;
            let mut body = vec![0; len];
            match framing::read_body(&mut rest, &mut body, PATIENCE, |_| {}).await {
                Ok(hash) => {
                    let (taken, later) = before.split_at(len);
                    assert_eq!((taken, later), (body.as_slice(), rest), "other bytes than were sent");
                    assert_eq!(hash, BodyId(*blake3::hash(taken).as_bytes()));
                }
                Err(fault) => {
                    assert!(
                        before.len() < len && matches!(fault, Fault::Short),
                        "it was all there: {fault:?}"
                    );
                    return;
                }
            }
        }
    };
    CLOCK.block_on(reading);
    !broken && !bytes.is_empty()
}
