//! PNG: signature, chunks with their CRCs, IHDR first, IEND last.
//!
//! A CRC covers every byte of a chunk but its length, so nearly any damage is seen here.

use super::input::{Fault, Gather, Input, be32};

const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n'];
/// The specification's largest chunk.
const CHUNK_BYTES_MAX: u32 = 0x7fff_ffff;
const IHDR_BYTES: u32 = 13;

#[derive(Debug, Default)]
pub(super) struct Walk {
    state: State,
    gather: Gather<16>,
    crc: crc32fast::Hasher,
    header: Option<Header>,
    saw_palette: bool,
    saw_data: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Signature,
    ChunkHead,
    Header,
    Body {
        kind: [u8; 4],
        left: u32,
    },
    Crc {
        kind: [u8; 4],
    },
    Done,
}

#[derive(Debug)]
struct Header {
    colour: u8,
}

impl Walk {
    pub(super) fn push(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        while !input.is_empty() {
            match self.state {
                State::Signature => self.signature(input)?,
                State::ChunkHead => self.chunk_head(input)?,
                State::Header => self.header(input)?,
                State::Body { kind, left } => {
                    let taken = input.take(u64::from(left));
                    self.crc.update(taken);
                    let left = left - taken.len() as u32;
                    self.state = if left == 0 { State::Crc { kind } } else { State::Body { kind, left } };
                }
                State::Crc { kind } => self.crc(kind, input)?,
                State::Done => return Ok(()),
            }
        }
        Ok(())
    }

    pub(super) fn finish(&self) -> Result<(), Fault> {
        match self.state {
            State::Done => Ok(()),
            _ => Err(Fault::here("it ends before its IEND chunk")),
        }
    }

    fn signature(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        let Some(bytes) = self.gather.collect(SIGNATURE.len(), input) else { return Ok(()) };
        if bytes[..8] != SIGNATURE {
            return Err(Fault::at_byte("its signature is damaged, as by a transfer in text mode", 0));
        }
        self.state = State::ChunkHead;
        Ok(())
    }

    fn chunk_head(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        let Some(bytes) = self.gather.collect(8, input) else { return Ok(()) };
        let len = be32(&bytes, 0);
        let kind = [bytes[4], bytes[5], bytes[6], bytes[7]];
        if len > CHUNK_BYTES_MAX || !kind.iter().all(u8::is_ascii_alphabetic) {
            return Err(Fault::here("there is no chunk where one should begin"));
        }
        self.crc = crc32fast::Hasher::new();
        self.crc.update(&kind);
        self.order(kind, len)?;
        self.state = match (&kind, len) {
            (b"IHDR", _) => State::Header,
            (_, 0) => State::Crc { kind },
            (_, left) => State::Body { kind, left },
        };
        Ok(())
    }

    /// Which chunk may come when.
    fn order(&mut self, kind: [u8; 4], len: u32) -> Result<(), Fault> {
        let Some(header) = &self.header else {
            let first = &kind == b"IHDR" && len == IHDR_BYTES;
            return if first { Ok(()) } else { Err(Fault::here("its first chunk is not IHDR")) };
        };
        match &kind {
            b"IHDR" => return Err(Fault::here("a second IHDR chunk")),
            b"PLTE" => self.saw_palette = true,
            b"IDAT" if header.colour == 3 && !self.saw_palette => {
                return Err(Fault::here("indexed colours without a palette"));
            }
            b"IDAT" => self.saw_data = true,
            b"IEND" if len != 0 => return Err(Fault::here("an IEND chunk that is not empty")),
            b"IEND" if !self.saw_data => return Err(Fault::here("no image data before IEND")),
            _ => {}
        }
        Ok(())
    }

    fn header(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        let Some(bytes) = self.gather.collect(IHDR_BYTES as usize, input) else { return Ok(()) };
        self.crc.update(&bytes[..IHDR_BYTES as usize]);
        let edge = 1..=CHUNK_BYTES_MAX;
        let (depth, colour) = (bytes[8], bytes[9]);
        let possible = match colour {
            0 => matches!(depth, 1 | 2 | 4 | 8 | 16),
            3 => matches!(depth, 1 | 2 | 4 | 8),
            2 | 4 | 6 => matches!(depth, 8 | 16),
            _ => false,
        };
        if !edge.contains(&be32(&bytes, 0)) || !edge.contains(&be32(&bytes, 4)) || !possible {
            return Err(Fault::here("its IHDR chunk describes no picture"));
        }
        if bytes[10] != 0 || bytes[11] != 0 || bytes[12] > 1 {
            return Err(Fault::here("its IHDR chunk names unknown methods"));
        }
        self.header = Some(Header { colour });
        self.state = State::Crc { kind: *b"IHDR" };
        Ok(())
    }

    fn crc(&mut self, kind: [u8; 4], input: &mut Input<'_>) -> Result<(), Fault> {
        let Some(bytes) = self.gather.collect(4, input) else { return Ok(()) };
        let found = std::mem::take(&mut self.crc).finalize();
        if be32(&bytes, 0) != found {
            let name = String::from_utf8_lossy(&kind).into_owned();
            return Err(Fault::here(format!("the checksum of its {name} chunk does not match")));
        }
        self.state = if &kind == b"IEND" { State::Done } else { State::ChunkHead };
        Ok(())
    }
}
