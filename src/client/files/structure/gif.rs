//! GIF 87a and 89a: screen, colour tables, blocks of sub-blocks, trailer.
//!
//! It does not look into the LZW data.

use super::input::{Fault, Gather, Input};

/// Signature and logical screen descriptor.
const SCREEN_BYTES: usize = 13;
const IMAGE: u8 = 0x2c;
const EXTENSION: u8 = 0x21;
const TRAILER: u8 = 0x3b;

#[derive(Debug, Default)]
pub(super) struct Walk {
    state: State,
    gather: Gather<16>,
    saw_image: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Screen,
    Block,
    ImageDescriptor,
    ExtensionLabel,
    CodeSize,
    SubBlock,
    /// So many bytes to pass over, and what comes then.
    Skip {
        left: u64,
        then: After,
    },
    Done,
}

#[derive(Clone, Copy, Debug)]
enum After {
    Block,
    CodeSize,
    SubBlock,
}

impl Walk {
    pub(super) fn push(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        while !input.is_empty() {
            match self.state {
                State::Screen => {
                    if let Some(bytes) = self.gather.collect(SCREEN_BYTES, input) {
                        self.state = State::after_table(bytes[10], After::Block);
                    }
                }
                State::Block => self.block(input)?,
                State::ImageDescriptor => {
                    if let Some(bytes) = self.gather.collect(9, input) {
                        self.state = State::after_table(bytes[8], After::CodeSize);
                    }
                }
                State::ExtensionLabel => {
                    input.byte();
                    self.state = State::SubBlock;
                }
                State::CodeSize => self.code_size(input)?,
                State::SubBlock => {
                    self.state = match input.byte() {
                        Some(0) => State::Block,
                        Some(len) => State::Skip { left: u64::from(len), then: After::SubBlock },
                        None => State::SubBlock,
                    }
                }
                State::Skip { left, then } => {
                    let left = left - input.take(left).len() as u64;
                    self.state = if left == 0 { then.state() } else { State::Skip { left, then } };
                }
                State::Done => return Ok(()),
            }
        }
        Ok(())
    }

    pub(super) fn finish(&self) -> Result<(), Fault> {
        match self.state {
            State::Done => Ok(()),
            _ => Err(Fault::here("it ends before its trailer")),
        }
    }

    fn block(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        self.state = match input.byte() {
            Some(IMAGE) => State::ImageDescriptor,
            Some(EXTENSION) => State::ExtensionLabel,
            Some(TRAILER) if self.saw_image => State::Done,
            Some(TRAILER) => return Err(Fault::here("no image before its trailer")),
            _ => return Err(Fault::here("there is no block where one should begin")),
        };
        Ok(())
    }

    fn code_size(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        // The format says 2 to 8; some writers use 1 for two colours.
        if !matches!(input.byte(), Some(1..=11)) {
            return Err(Fault::here("an image with an impossible code size"));
        }
        self.saw_image = true;
        self.state = State::SubBlock;
        Ok(())
    }
}

impl State {
    /// What comes after a descriptor with these flags: its colour table, if it has one, then `then`.
    fn after_table(flags: u8, then: After) -> Self {
        if flags & 0x80 == 0 {
            return then.state();
        }
        Self::Skip { left: 3 << ((flags & 7) + 1), then }
    }
}

impl After {
    fn state(self) -> State {
        match self {
            Self::Block => State::Block,
            Self::CodeSize => State::CodeSize,
            Self::SubBlock => State::SubBlock,
        }
    }
}
