//! WebP (RFC 9649): the RIFF length and the chunks inside it.
//!
//! It looks at the first bytes of image chunks and decodes nothing.

use super::input::{Fault, Gather, Input, le32};

const RIFF_HEAD_BYTES: usize = 12;

#[derive(Debug, Default)]
pub(super) struct Walk {
    state: State,
    gather: Gather<16>,
    /// Where the RIFF container ends in the object.
    end: u64,
    saw_chunk: bool,
    saw_image: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    RiffHead,
    ChunkHead,
    /// The first bytes of a lossy or lossless picture, of this many in the chunk.
    ImageHead {
        lossless: bool,
        len: u64,
    },
    Skip {
        left: u64,
    },
    Done,
}

impl Walk {
    pub(super) fn push(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        while !input.is_empty() {
            match self.state {
                State::RiffHead => {
                    if let Some(bytes) = self.gather.collect(RIFF_HEAD_BYTES, input) {
                        self.end = 8 + u64::from(le32(&bytes, 4));
                        self.state = State::ChunkHead;
                    }
                }
                State::ChunkHead => self.chunk_head(input)?,
                State::ImageHead { lossless, len } => self.image_head(lossless, len, input)?,
                State::Skip { left } => {
                    let left = left - input.take(left).len() as u64;
                    self.state = if left > 0 { State::Skip { left } } else { self.next(input.offset())? };
                }
                State::Done => return Ok(()),
            }
        }
        Ok(())
    }

    pub(super) fn finish(&self) -> Result<(), Fault> {
        match self.state {
            State::Done => Ok(()),
            _ => Err(Fault::here("it is shorter than its RIFF length says")),
        }
    }

    fn chunk_head(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        let Some(bytes) = self.gather.collect(8, input) else { return Ok(()) };
        let kind = &bytes[..4];
        let len = u64::from(le32(&bytes, 4));
        if input.offset() + len > self.end {
            return Err(Fault::here("a chunk that is longer than the file says it is"));
        }
        if !self.saw_chunk && !matches!(kind, b"VP8 " | b"VP8L" | b"VP8X") {
            return Err(Fault::here("its first chunk is no picture"));
        }
        self.saw_chunk = true;
        self.saw_image |= matches!(kind, b"VP8 " | b"VP8L" | b"ANMF");
        self.state = match kind {
            b"VP8 " => State::ImageHead { lossless: false, len },
            b"VP8L" => State::ImageHead { lossless: true, len },
            _ => self.skip(len, input.offset())?,
        };
        Ok(())
    }

    /// The start codes: RFC 6386 section 9.1 and RFC 9649 section 3.4.
    fn image_head(&mut self, lossless: bool, len: u64, input: &mut Input<'_>) -> Result<(), Fault> {
        let want = if lossless { 5 } else { 10 };
        if len < want as u64 {
            return Err(Fault::here("an image chunk too short for a picture"));
        }
        let Some(bytes) = self.gather.collect(want, input) else { return Ok(()) };
        let begins_well =
            if lossless { bytes[0] == 0x2f } else { bytes[0] & 1 == 0 && bytes[3..6] == [0x9d, 1, 0x2a] };
        if !begins_well {
            return Err(Fault::here("an image chunk without its start code"));
        }
        // The chunk's padding is counted from its whole length.
        self.state = self.skip_rest(len - want as u64, len % 2, input.offset())?;
        Ok(())
    }

    fn skip(&self, len: u64, offset: u64) -> Result<State, Fault> {
        self.skip_rest(len, len % 2, offset)
    }

    /// Passes over the rest of a chunk and its padding byte, which a last chunk may lack.
    fn skip_rest(&self, left: u64, padding: u64, offset: u64) -> Result<State, Fault> {
        let left = (left + padding).min(self.end.saturating_sub(offset));
        if left == 0 { self.next(offset) } else { Ok(State::Skip { left }) }
    }

    /// After a chunk: the next one, or the end of the container.
    fn next(&self, offset: u64) -> Result<State, Fault> {
        match self.end.saturating_sub(offset) {
            0 if self.saw_image => Ok(State::Done),
            0 => Err(Fault::here("there is no image in it")),
            1..8 => Err(Fault::here("bytes that are no chunk before its end")),
            _ => Ok(State::ChunkHead),
        }
    }
}
