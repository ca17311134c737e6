//! BMP: the sizes in its headers against the length of the object.
//!
//! The format has no checksum and no end mark; a cut is all that can be seen.

use super::input::{Fault, Gather, Input, le16, le32};

const FILE_HEADER_BYTES: usize = 14;
/// The two headers, up to the image size of the 40-byte one.
const LOOKED_AT: usize = 38;
const RGB: u32 = 0;
const BITFIELDS: u32 = 3;
const ALPHA_BITFIELDS: u32 = 6;

#[derive(Debug, Default)]
pub(super) struct Walk {
    gather: Gather<LOOKED_AT>,
    /// The least length of the whole object, once it is known.
    needed_bytes: Option<u64>,
}

/// Whether these first bytes are a bitmap and not a text that begins with "BM".
pub(super) fn is_header(head: &[u8]) -> bool {
    let Some(head) = head.get(..30) else { return false };
    let dib = le32(head, FILE_HEADER_BYTES);
    let planes = if dib == 12 { le16(head, 22) } else { le16(head, 26) };
    le32(head, 6) == 0 && planes == 1 && matches!(dib, 12 | 16 | 40 | 52 | 56 | 64 | 108 | 124)
}

impl Walk {
    pub(super) fn push(&mut self, input: &mut Input<'_>) -> Result<(), Fault> {
        if self.needed_bytes.is_none()
            && let Some(head) = self.gather.collect(LOOKED_AT, input)
        {
            self.needed_bytes = Some(needed(&head)?);
        }
        Ok(())
    }

    pub(super) fn finish(&self, len: u64) -> Result<(), Fault> {
        match self.needed_bytes {
            Some(needed) if needed <= len => Ok(()),
            Some(needed) => Err(Fault::here(format!("it is {} bytes too short", needed - len))),
            None => Err(Fault::here("it ends inside its header")),
        }
    }
}

fn needed(head: &[u8; LOOKED_AT]) -> Result<u64, Fault> {
    let (file_bytes, data_at) = (u64::from(le32(head, 2)), u64::from(le32(head, 10)));
    let dib = le32(head, FILE_HEADER_BYTES);
    let (width, height, bits, compression, image_bytes) = if dib == 12 {
        (u64::from(le16(head, 18)), u64::from(le16(head, 20)), le16(head, 24), RGB, 0)
    } else {
        let signed = |at| u64::from((le32(head, at) as i32).unsigned_abs());
        // The 16-byte header ends before the compression: plain rows.
        let (compression, image_bytes) = if dib == 16 { (RGB, 0) } else { (le32(head, 30), le32(head, 34)) };
        (signed(18), signed(22), le16(head, 28), compression, u64::from(image_bytes))
    };
    if width == 0 || height == 0 || !matches!(bits, 0 | 1 | 2 | 4 | 8 | 16 | 24 | 32 | 64) {
        return Err(Fault::here("its header describes no picture"));
    }
    if data_at < FILE_HEADER_BYTES as u64 + u64::from(dib) {
        return Err(Fault::here("its pixels would begin inside its header"));
    }
    let pixels = match compression {
        RGB | BITFIELDS | ALPHA_BITFIELDS => {
            (width * u64::from(bits)).div_ceil(32).saturating_mul(4 * height)
        }
        _ => image_bytes,
    };
    // Some writers leave the length of the file at zero.
    Ok(file_bytes.max(data_at.saturating_add(pixels)))
}
