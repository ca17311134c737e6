//! The demo's pictures: noise that no compression makes smaller, the same bytes for a seed for ever.
//!
//! The PNG is written here and not by an encoder, so that no dependency's next version changes a byte.

use std::io::Read;

/// Bytes of a pixel: red, green, blue.
const PIXEL_BYTES: usize = 3;
/// What one stored deflate block holds at most (RFC 1951, section 3.2.4).
const BLOCK_BYTES: usize = 65_535;
/// Header of a stored deflate block.
const BLOCK_HEAD_BYTES: usize = 5;
/// zlib's header (RFC 1950): deflate, 32 KiB window, fastest.
const ZLIB_HEAD: [u8; 2] = [0x78, 0x01];
const ZLIB_TAIL_BYTES: usize = 4;
const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n'];
/// Length, type and CRC of a PNG chunk.
const CHUNK_FRAME_BYTES: usize = 12;
const HEADER_BYTES: usize = 13;

/// How large a picture is, by its shorter edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum SizeClass {
    /// 1600 to 1999 px.
    From1600,
    /// 2000 to 2499 px.
    From2000,
    /// 2500 to 2999 px.
    From2500,
    /// 3000 to 3500 px.
    From3000,
}

/// One picture to be generated: small until [`Picture::png`] is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// The seed of the run.
    pub seed: u64,
    /// Its number in the run, from 0.
    pub index: u64,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

impl SizeClass {
    /// All, smallest first.
    pub const ALL: [SizeClass; 4] = [Self::From1600, Self::From2000, Self::From2500, Self::From3000];

    /// The class of a picture with this shorter edge; the smallest class takes everything below it too.
    pub fn of(shorter_edge_px: u32) -> Self {
        match shorter_edge_px {
            0..2000 => Self::From1600,
            2000..2500 => Self::From2000,
            2500..3000 => Self::From2500,
            _ => Self::From3000,
        }
    }

    /// As the report prints it: `1600 px`, `3000 px and up`.
    pub fn label(self) -> &'static str {
        match self {
            Self::From1600 => "1600 px",
            Self::From2000 => "2000 px",
            Self::From2500 => "2500 px",
            Self::From3000 => "3000 px and up",
        }
    }

    /// The edges of its pictures in pixels, both ends included.
    fn edges_px(self) -> (u32, u32) {
        match self {
            Self::From1600 => (1600, 1999),
            Self::From2000 => (2000, 2499),
            Self::From2500 => (2500, 2999),
            Self::From3000 => (3000, 3500),
        }
    }
}

impl Picture {
    /// Picture `index` of the run with this seed, 1600 to 3500 px an edge; four in a row are of four classes,
    /// the first of a run has the smallest edges and the fourth the largest.
    pub fn new(seed: u64, index: u64) -> Self {
        let class = SizeClass::ALL[(index % 4) as usize];
        let (low, high) = class.edges_px();
        let edges = match index {
            0 => [low, low],
            3 => [high, high],
            _ => {
                let mut dice = [0; 8];
                noise("tintype 1 demo size", seed, index).fill(&mut dice);
                let [a, b, c, d, e, f, g, h] = dice;
                [[a, b, c, d], [e, f, g, h]].map(|four| low + u32::from_le_bytes(four) % (high - low + 1))
            }
        };
        Self { seed, index, width: edges[0], height: edges[1] }
    }

    /// Its size class.
    pub fn class(&self) -> SizeClass {
        SizeClass::of(self.width.min(self.height))
    }

    /// A name for the object, such as `demo-1/0007-2480x2333.png`.
    pub fn name(&self) -> String {
        format!("demo-{}/{:04}-{}x{}.png", self.seed, self.index, self.width, self.height)
    }

    /// How many bytes [`Picture::png`] makes, without making them.
    pub fn png_bytes(&self) -> u64 {
        (SIGNATURE.len() + 3 * CHUNK_FRAME_BYTES + HEADER_BYTES + self.zlib_bytes()) as u64
    }

    /// The PNG: RGB, 8 bits, noise, stored without compression. Takes memory for exactly its bytes.
    pub fn png(&self) -> Vec<u8> {
        let mut png = Vec::with_capacity(self.png_bytes() as usize);
        png.extend(SIGNATURE);
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&self.width.to_be_bytes());
        header[4..8].copy_from_slice(&self.height.to_be_bytes());
        header[8..10].copy_from_slice(&[8, 2]);
        chunk(&mut png, b"IHDR", header.len(), |png| png.extend(header));
        chunk(&mut png, b"IDAT", self.zlib_bytes(), |png| self.zlib(png));
        chunk(&mut png, b"IEND", 0, |_| {});
        png
    }

    fn row_bytes(&self) -> usize {
        1 + self.width as usize * PIXEL_BYTES
    }

    fn raw_bytes(&self) -> usize {
        self.row_bytes() * self.height as usize
    }

    fn zlib_bytes(&self) -> usize {
        let blocks = self.raw_bytes().div_ceil(BLOCK_BYTES);
        ZLIB_HEAD.len() + blocks * BLOCK_HEAD_BYTES + self.raw_bytes() + ZLIB_TAIL_BYTES
    }

    /// The rows as a zlib stream of stored blocks: noise, but for the filter byte (none) that begins a row.
    fn zlib(&self, out: &mut Vec<u8>) {
        let (row_bytes, raw_bytes) = (self.row_bytes(), self.raw_bytes());
        let mut noise = noise("tintype 1 demo pixels", self.seed, self.index);
        let mut sum = simd_adler32::Adler32::new();
        out.extend(ZLIB_HEAD);
        let mut done = 0;
        while done < raw_bytes {
            let len = (raw_bytes - done).min(BLOCK_BYTES);
            let is_last = done + len == raw_bytes;
            out.push(u8::from(is_last));
            out.extend((len as u16).to_le_bytes());
            out.extend((!(len as u16)).to_le_bytes());
            let start = out.len();
            noise.by_ref().take(len as u64).read_to_end(out).expect("an endless stream in memory");
            let block = &mut out[start..];
            for row in done.div_ceil(row_bytes)..(done + len).div_ceil(row_bytes) {
                block[row * row_bytes - done] = 0;
            }
            sum.write(block);
            done += len;
        }
        out.extend(sum.finish().to_be_bytes());
    }
}

/// An endless stream of bytes for (what for, seed, index).
fn noise(context: &str, seed: u64, index: u64) -> blake3::OutputReader {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(&seed.to_le_bytes()).update(&index.to_le_bytes());
    hasher.finalize_xof()
}

/// One PNG chunk of `len` bytes, which `body` appends.
fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], len: usize, body: impl FnOnce(&mut Vec<u8>)) {
    png.extend((len as u32).to_be_bytes());
    let start = png.len();
    png.extend(kind);
    body(png);
    assert_eq!(png.len() - start, 4 + len, "a chunk has the length that it says");
    let crc = crc32fast::hash(&png[start..]);
    png.extend(crc.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::files::structure::Checker;

    fn small(width: u32, height: u32) -> Picture {
        Picture { seed: 1, index: 0, width, height }
    }

    #[test]
    fn the_bytes_never_change() {
        let hash = |picture: Picture| blake3::hash(&picture.png()).to_hex().to_string();
        assert_eq!(hash(small(200, 150)), "09e17d493f7392879ad2d0ba394b7e9c8f8377ce088fd6421f3274fc207ebdc1");
        assert_ne!(hash(small(200, 150)), hash(Picture { seed: 2, ..small(200, 150) }));
        assert_ne!(hash(small(200, 150)), hash(Picture { index: 1, ..small(200, 150) }));
    }

    #[test]
    fn any_reader_takes_them() {
        for (width, height) in [(1, 1), (200, 150), (21_844, 1), (21_845, 1), (21_846, 3), (333, 197)] {
            let picture = small(width, height);
            let png = picture.png();
            assert_eq!(png.len() as u64, picture.png_bytes());
            let decoded = image::load_from_memory_with_format(&png, image::ImageFormat::Png).expect("a PNG");
            assert_eq!((decoded.width(), decoded.height()), (width, height));
            let mut checker = Checker::new();
            checker.push(&png);
            assert_eq!(checker.finish(None), Ok(()));
        }
    }

    #[test]
    fn sizes_are_spread_over_the_classes_and_stay_inside() {
        let pictures: Vec<_> = (0..50).map(|index| Picture::new(7, index)).collect();
        for (index, picture) in pictures.iter().enumerate() {
            assert_eq!(picture.class(), SizeClass::ALL[index % 4]);
            assert!((7_000_000..38_000_000).contains(&picture.png_bytes()), "{picture:?}");
            assert_eq!(*picture, Picture::new(7, index as u64));
        }
        assert_eq!((pictures[0].width, pictures[0].height), (1600, 1600));
        assert_eq!((pictures[3].width, pictures[3].height), (3500, 3500));
        assert!(pictures.iter().any(|picture| picture.width != picture.height));
        assert_ne!(pictures[1], Picture { seed: 7, ..Picture::new(8, 1) });
    }
}
