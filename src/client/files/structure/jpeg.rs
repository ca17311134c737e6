//! JPEG (ITU T.81, annex B): SOI, marker segments, scans, EOI.
//!
//! Inside a scan only the byte after 0xFF matters: zero is stuffing, RST goes on, anything else ends it.

use super::input::{Fault, Gather, Input, be16};

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const RST: std::ops::RangeInclusive<u8> = 0xd0..=0xd7;
/// SOF of JPEG-LS, whose scans are stuffed in another way: not judged.
const SOF_JPEG_LS: u8 = 0xf7;
/// The longest start of a segment that is looked at: a scan of four components.
const LOOKED_AT: usize = 14;

#[derive(Debug, Default)]
pub(super) struct Walk {
    state: State,
    gather: Gather<2>,
    saw_frame: bool,
    saw_scan: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Soi,
    /// 0xFF is expected.
    MarkerStart,
    /// 0xFF was seen; any more of them are filling.
    MarkerCode,
    Length {
        marker: u8,
    },
    Segment {
        marker: u8,
        len: u16,
        head: [u8; LOOKED_AT],
        seen: u16,
    },
    Scan,
    /// 0xFF was seen inside a scan.
    ScanEscape,
    Done,
    Unjudged,
}

impl Walk {
    pub(super) fn push(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        while !input.is_empty() {
            match &mut self.state {
                State::Soi => self.soi(input),
                State::MarkerStart => {
                    if input.byte() != Some(0xff) {
                        return Err(Fault::here("there is no marker where one should be"));
                    }
                    self.state = State::MarkerCode;
                }
                State::MarkerCode => self.marker_code(input)?,
                State::Length { marker } => {
                    let marker = *marker;
                    self.length(marker, input)?;
                }
                State::Segment { .. } => self.segment(input)?,
                State::Scan => self.scan(input),
                State::ScanEscape => self.scan_escape(input)?,
                State::Done | State::Unjudged => return Ok(()),
            }
        }
        Ok(())
    }

    pub(super) fn finish(&self) -> Result<(), Fault> {
        match self.state {
            State::Done | State::Unjudged => Ok(()),
            _ => Err(Fault::here("it ends before its EOI marker")),
        }
    }

    /// The sniffer has seen SOI already.
    fn soi(&mut self, input: &mut Input<'_>) {
        if self.gather.collect(2, input).is_some() {
            self.state = State::MarkerStart;
        }
    }

    fn marker_code(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        match input.byte() {
            None | Some(0xff) => Ok(()),
            Some(code) => self.marker(code),
        }
    }

    fn marker(&mut self, code: u8) -> Result<(), Fault> {
        self.state = match code {
            EOI if !self.saw_scan => return Err(Fault::here("no image data before its EOI marker")),
            EOI => State::Done,
            SOI => return Err(Fault::here("a second picture begins before the first ends")),
            SOF_JPEG_LS => State::Unjudged,
            SOS if !self.saw_frame => return Err(Fault::here("a scan before any frame header")),
            // TEM stands alone.
            0x01 => State::MarkerStart,
            0x00 | 0x02..=0xbf => return Err(Fault::here("a marker that does not exist")),
            code if RST.contains(&code) => {
                return Err(Fault::here("a restart marker outside of a scan"));
            }
            marker => State::Length { marker },
        };
        Ok(())
    }

    fn length(&mut self, marker: u8, input: &mut Input<'_>) -> Result<(), Fault> {
        let Some(bytes) = self.gather.collect(2, input) else { return Ok(()) };
        let len = be16(&bytes, 0);
        if len < 2 {
            return Err(Fault::here("a segment shorter than its own length"));
        }
        self.state = State::Segment { marker, len: len - 2, head: [0; LOOKED_AT], seen: 0 };
        if len == 2 {
            return self.segment(&mut Input::new(&[], input.offset()));
        }
        Ok(())
    }

    fn segment(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        let State::Segment { marker, len, head, seen } = &mut self.state else { return Ok(()) };
        let taken = input.take(u64::from(*len - *seen));
        let start = usize::from(*seen).min(LOOKED_AT);
        let kept = taken.len().min(LOOKED_AT - start);
        head[start..start + kept].copy_from_slice(&taken[..kept]);
        *seen += taken.len() as u16;
        if *seen < *len {
            return Ok(());
        }
        let (marker, len, head) = (*marker, *len, *head);
        self.segment_ended(marker, len, &head)
    }

    fn segment_ended(&mut self, marker: u8, len: u16, head: &[u8; LOOKED_AT]) -> Result<(), Fault> {
        self.state = State::MarkerStart;
        let is_frame = matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc);
        if is_frame {
            let components = u16::from(head[5]);
            if len < 6 || components == 0 || len != 6 + 3 * components || be16(head, 3) == 0 {
                return Err(Fault::here("its frame header describes no picture"));
            }
            self.saw_frame = true;
        }
        if marker == SOS {
            let components = u16::from(head[0]);
            if !(1..=4).contains(&components) || len != 4 + 2 * components {
                return Err(Fault::here("a scan header that makes no sense"));
            }
            self.saw_scan = true;
            self.state = State::Scan;
        }
        Ok(())
    }

    fn scan(&mut self, input: &mut Input<'_>) {
        match memchr::memchr(0xff, input.rest()) {
            None => {
                input.take(u64::MAX);
            }
            Some(at) => {
                input.take(at as u64 + 1);
                self.state = State::ScanEscape;
            }
        }
    }

    fn scan_escape(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        match input.byte() {
            None | Some(0xff) => {}
            Some(0) => self.state = State::Scan,
            Some(code) if RST.contains(&code) => self.state = State::Scan,
            Some(code) => self.marker(code)?,
        }
        Ok(())
    }
}
