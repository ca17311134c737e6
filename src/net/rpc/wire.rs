//! The frames of rpc on a stream: cut out of what comes in, gathered into large writes on the way out.
//!
//! It never waits: each step says what can be done now. A stream that takes nothing for too long is an error.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::Stream;
use tokio::time::{Sleep, sleep};

use crate::model::limits;

/// Frames are gathered until a write has this many bytes.
const BATCH_BYTES: usize = 128 << 10;
/// A buffer that is larger is given back once it is empty: there may be a thousand streams.
const KEPT_BYTES: usize = 32 << 10;
/// What a buffer begins with.
const FIRST_BYTES: usize = 8 << 10;
/// A read with less room is not worth its call.
const ROOM_MIN_BYTES: usize = 2 << 10;
const LENGTH: usize = 4;
const NUMBER: usize = 8;

/// The answer itself.
pub(super) const ANSWER: u8 = 1;
/// Too much in flight, or the answer could not be sent. Empty.
pub(super) const BUSY: u8 = 2;
/// There will be no answer. Empty.
pub(super) const NONE: u8 = 3;

/// Which frames come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Questions,
    Answers,
}

impl Shape {
    /// Bytes in front of the message.
    fn head(self) -> usize {
        LENGTH + NUMBER + usize::from(self == Self::Answers)
    }

    fn bytes_max(self) -> usize {
        match self {
            Self::Questions => limits::RPC_REQUEST_BYTES_MAX,
            Self::Answers => limits::RPC_RESPONSE_BYTES_MAX,
        }
    }
}

/// One message. A question has no status: it is 0.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) number: u64,
    pub(super) status: u8,
    pub(super) bytes: Vec<u8>,
}

/// What the peer broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Cuts a byte stream into frames. It grows with what really comes, whatever was announced.
#[derive(Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    /// So many bytes have been put into the room.
    pub(super) fn filled(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// Where the next bytes go; never empty once [`Self::next`] has said none.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == 0 && self.bytes.len() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        if self.bytes.len() - self.end < ROOM_MIN_BYTES {
            self.bytes.resize(FIRST_BYTES.max(2 * self.bytes.len()), 0);
        }
        &mut self.bytes[self.end..]
    }

    /// One byte, of no frame.
    pub(super) fn byte(&mut self) -> Option<u8> {
        let byte = self.bytes[self.start..self.end].first().copied()?;
        self.start += 1;
        Some(byte)
    }

    /// Whether there is no part of a frame.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The next whole frame.
    pub(super) fn next(&mut self, shape: Shape) -> Result<Option<Frame>, Malformed> {
        let here = &self.bytes[self.start..self.end];
        let Some((length, rest)) = here.split_first_chunk::<LENGTH>() else { return Ok(None) };
        let len = u32::from_be_bytes(*length) as usize;
        if len > shape.bytes_max() {
            return Err(Malformed("rpc message too long"));
        }
        let Some((number, rest)) = rest.split_first_chunk::<NUMBER>() else { return Ok(None) };
        let (status, rest) = match (shape, rest.split_first()) {
            (Shape::Questions, _) => (0, rest),
            (Shape::Answers, Some((status, rest))) => (*status, rest),
            (Shape::Answers, None) => return Ok(None),
        };
        if rest.len() < len {
            return Ok(None);
        }
        let frame = Frame { number: u64::from_be_bytes(*number), status, bytes: rest[..len].to_vec() };
        self.start += shape.head() + len;
        Ok(Some(frame))
    }
}

/// Bytes on their way out, written from the front.
#[derive(Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    sent: usize,
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether one more frame may go into this write. What is being written grows no more: a peer that takes
    /// a little at a time would make it grow for ever.
    pub(super) fn takes_more(&self) -> bool {
        self.sent == 0 && self.bytes.len() < BATCH_BYTES
    }

    pub(super) fn question(&mut self, number: u64, bytes: &[u8]) {
        self.head(number, bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn answer(&mut self, number: u64, status: u8, bytes: &[u8]) {
        self.head(number, bytes.len());
        self.bytes.push(status);
        self.bytes.extend_from_slice(bytes);
    }

    fn head(&mut self, number: u64, len: usize) {
        let len = u32::try_from(len).expect("both bounds are far below 4 GiB");
        self.bytes.extend_from_slice(&len.to_be_bytes());
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }

    /// All that waits to be written.
    #[cfg(feature = "fuzzing")]
    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.sent = 0;
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
    }
}

/// A stream with both.
pub(super) struct Wire {
    stream: Stream,
    pub(super) input: Input,
    pub(super) output: Output,
    /// Runs while the stream takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, input: Input::default(), output: Output::default(), stalled: None }
    }

    /// Writes what there is. Ready when nothing is left.
    ///
    /// # Errors
    /// The stream's, or that it took nothing for [`limits::RPC_STALL`].
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, output, stalled, .. } = self;
        while output.sent < output.bytes.len() {
            match Pin::new(&mut *stream).poll_write(cx, &output.bytes[output.sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => {
                    output.sent += n;
                    *stalled = None;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let stalled = stalled.get_or_insert_with(|| Box::pin(sleep(limits::RPC_STALL.into())));
                    ready!(stalled.as_mut().poll(cx));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        output.clear();
        Pin::new(stream).poll_flush(cx)
    }

    /// Reads some into the input; 0 at the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let got = ready!(Pin::new(&mut self.stream).poll_read(cx, self.input.room()))?;
        self.input.filled(got);
        Poll::Ready(Ok(got))
    }

    /// Says that no more will come.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(wire: &[u8], steps: &[usize], shape: Shape) -> Vec<Frame> {
        let (mut input, mut frames, mut rest) = (Input::default(), Vec::new(), wire);
        let mut steps = steps.iter().cycle();
        while !rest.is_empty() {
            let room = input.room();
            let n = (*steps.next().unwrap()).min(rest.len()).min(room.len());
            assert!(n > 0, "a buffer without room");
            room[..n].copy_from_slice(&rest[..n]);
            input.filled(n);
            rest = &rest[n..];
            while let Some(frame) = input.next(shape).unwrap() {
                frames.push(frame);
            }
        }
        assert!(input.is_empty());
        assert!(input.room().len() <= KEPT_BYTES.max(FIRST_BYTES), "a large buffer is given back");
        frames
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_wherever_the_reads_cut(
            sizes in proptest::collection::vec(0usize..=limits::RPC_REQUEST_BYTES_MAX, 0..6),
            steps in proptest::collection::vec(1usize..200_000, 1..5),
        ) {
            let frame = |(i, n): (usize, &usize), status| {
                Frame { number: u64::MAX - i as u64, status, bytes: vec![*n as u8; *n] }
            };
            let questions: Vec<_> = sizes.iter().enumerate().map(|s| frame(s, 0)).collect();
            let answers: Vec<_> = sizes.iter().enumerate().map(|s| frame(s, s.0 as u8)).collect();
            let (mut asked, mut answered) = (Output::default(), Output::default());
            questions.iter().for_each(|f| asked.question(f.number, &f.bytes));
            answers.iter().for_each(|f| answered.answer(f.number, f.status, &f.bytes));
            prop_assert_eq!(cut(&asked.bytes, &steps, Shape::Questions), questions);
            prop_assert_eq!(cut(&answered.bytes, &steps, Shape::Answers), answers);
        }
    }

    #[test]
    fn the_frames_are_these_bytes() {
        let mut output = Output::default();
        output.question(0x0102, b"ab");
        output.answer(3, BUSY, b"");
        assert_eq!(output.bytes[..14], *b"\0\0\0\x02\0\0\0\0\0\0\x01\x02ab");
        assert_eq!(output.bytes[14..], *b"\0\0\0\0\0\0\0\0\0\0\0\x03\x02");
    }

    #[test]
    fn a_message_that_is_too_long_is_an_error_before_its_bytes_come() {
        for (shape, max) in [
            (Shape::Questions, limits::RPC_REQUEST_BYTES_MAX),
            (Shape::Answers, limits::RPC_RESPONSE_BYTES_MAX),
        ] {
            for (len, is_malformed) in [(max, false), (max + 1, true), (u32::MAX as usize, true)] {
                let mut input = Input::default();
                input.room()[..4].copy_from_slice(&(len as u32).to_be_bytes());
                input.filled(4);
                assert_eq!(input.next(shape).is_err(), is_malformed, "{shape:?} {len}");
            }
        }
    }

    #[test]
    fn room_grows_with_what_comes_and_not_with_what_was_announced() {
        let mut input = Input::default();
        input.room()[..4].copy_from_slice(&(limits::RPC_RESPONSE_BYTES_MAX as u32).to_be_bytes());
        input.filled(4);
        assert_eq!(input.next(Shape::Answers), Ok(None));
        assert!(input.room().len() <= FIRST_BYTES);
    }
}
