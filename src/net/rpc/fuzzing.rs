//! What must hold of any bytes on a stream of rpc.
//!
//! For fuzzers and property tests only: no program is built with it.

use super::wire::{Frame, Input, Malformed, Output, Shape};
use crate::net::{fuzzing::STEPS, streams};

/// The bytes of a stream, as questions and as answers: the frames in it, and no byte of another.
pub fn rpc_frames(bytes: &[u8]) -> bool {
    let mut some = false;
    for shape in [Shape::Questions, Shape::Answers] {
        let whole = cut(bytes, STEPS[0], shape);
        for step in &STEPS[1..] {
            assert!(cut(bytes, *step, shape) == whole, "other frames in pieces of {step}");
        }
        let mut output = Output::default();
        for frame in &whole.0 {
            match shape {
                Shape::Questions => output.question(frame.number, &frame.bytes),
                Shape::Answers => output.answer(frame.number, frame.status, &frame.bytes),
            }
        }
        assert!(bytes.starts_with(output.waiting()), "frames that nobody sent");
        some |= !whole.0.is_empty() && whole.1.is_none();
    }
    // A stream begins with one byte of the other side: ready, or why not.
    if let Some(code) = bytes.first() {
        assert_eq!(streams::greeting(*code).is_ok(), *code == 1);
    }
    some
}

/// All whole frames, and what was wrong behind them.
fn cut(bytes: &[u8], step: usize, shape: Shape) -> (Vec<Frame>, Option<Malformed>) {
    let (mut input, mut frames, mut rest) = (Input::default(), Vec::new(), bytes);
    while !rest.is_empty() {
        let room = input.room();
        // What is held grows with what came, not with what was announced.
        assert!(room.len() <= 2 * bytes.len() + (64 << 10), "too much room");
        let (piece, later) = rest.split_at(step.min(rest.len()).min(room.len()));
        assert!(!piece.is_empty(), "a buffer without room");
        room[..piece.len()].copy_from_slice(piece);
        input.filled(piece.len());
        rest = later;
        loop {
            match input.next(shape) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(malformed) => return (frames, Some(malformed)),
            }
        }
    }
    (frames, None)
}
