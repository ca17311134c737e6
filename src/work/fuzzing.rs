//! What must hold of any bytes that come as a task or as a picture.
//!
//! For fuzzers and property tests only: no program is built with it.

use super::{Frames, Order, decode, envelope, run, strip};

/// An envelope says one thing only, and no order that it holds goes wrong on the picture behind it.
pub fn envelopes(bytes: &[u8]) -> bool {
    let Ok((order, picture)) = envelope::open(bytes) else { return false };
    assert!(envelope::envelope(&order, picture) == bytes, "written anew it is something else");
    assert!(order.kind().is_sane() && Order::KINDS.contains(&order.kind().0.as_str()));
    // Whatever comes of it, it comes.
    drop(run(&order, picture));
    true
}

/// A picture without metadata is one, of the same size and format, and has none to be taken away.
pub fn stripped(bytes: &[u8]) -> bool {
    let Ok(stripped) = strip::strip(bytes) else { return false };
    assert_eq!(decode::format(&stripped), decode::format(bytes));
    // What a file says of itself twice is said once now, so the two may differ in which is believed.
    let again = strip::strip(&stripped);
    assert!(again.is_err() || again.as_deref() == Ok(stripped.as_slice()), "stripped again it is less");
    assert!(decode::size(bytes, Frames::First).is_ok());
    true
}
