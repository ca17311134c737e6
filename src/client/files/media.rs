//! The media type of an object, told from its content.
//!
//! Never from its name: a name can lie. It looks at the first bytes only and reads no file itself.

use super::structure::Format;

/// How many leading bytes of an object [`media_type`] wants to see; fewer are fine.
pub const HEAD_BYTES: usize = 8 << 10;

/// What is said of bytes that nothing else is known of.
pub const UNKNOWN: &str = "application/octet-stream";

/// A TIFF that is no camera's RAW format.
pub const TIFF: &str = "image/tiff";

const TEXT: &str = "text/plain";
const SVG: &str = "image/svg+xml";

/// RAW formats with a first line of their own. (Where, what stands there, the type.)
const RAW_MAGIC: [(usize, &[u8], &str); 8] = [
    (0, b"FUJIFILMCCD-RAW", "image/x-fuji-raf"),
    (0, b"IIRO", "image/x-olympus-orf"),
    (0, b"IIRS", "image/x-olympus-orf"),
    (0, b"MMOR", "image/x-olympus-orf"),
    (0, b"IIU\0", "image/x-panasonic-rw2"),
    (0, b"FOVb", "image/x-sigma-x3f"),
    (0, b"\0MRM", "image/x-minolta-mrw"),
    (4, b"ftypcrx ", "image/x-canon-cr3"),
];

/// RAW formats that are a TIFF whose first directory holds a small preview, by the camera's make.
const RAW_MAKES: [(&[u8], &str); 6] = [
    (b"NIKON", "image/x-nikon-nef"),
    (b"SONY", "image/x-sony-arw"),
    (b"PENTAX", "image/x-pentax-pef"),
    (b"RICOH", "image/x-pentax-pef"),
    (b"SAMSUNG", "image/x-samsung-srw"),
    (b"Hasselblad", "image/x-hasselblad-3fr"),
];

/// Brands of the HEIF container (ISO/IEC 23008-12, annex B) that hold HEVC pictures.
const HEIC_BRANDS: [&[u8]; 6] = [b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"];
const HEIF_BRANDS: [&[u8]; 2] = [b"mif1", b"msf1"];

/// The media type of an object that begins with `head`.
pub fn media_type(head: &[u8]) -> &'static str {
    let head = &head[..head.len().min(HEAD_BYTES)];
    match Format::of(head) {
        Some(Format::Png) => return "image/png",
        Some(Format::Jpeg) => return "image/jpeg",
        Some(Format::Gif) => return "image/gif",
        Some(Format::WebP) => return "image/webp",
        Some(Format::Bmp) => return "image/bmp",
        Some(Format::Tiff) => return tiff_family(head).unwrap_or(TIFF),
        None => {}
    }
    if let Some((_, _, kind)) = RAW_MAGIC.iter().find(|(at, magic, _)| begins_at(head, *at, magic)) {
        return kind;
    }
    if let Some(kind) = heif(head) {
        return kind;
    }
    let is_text = is_text(head);
    match infer::get(head).map(|kind| kind.mime_type()) {
        Some("text/xml" | "text/html") | None if is_text && is_svg(head) => SVG,
        // Two letters are enough for `infer` to call a text a program or a bitmap.
        Some("application/vnd.microsoft.portable-executable" | "image/bmp") if is_text => TEXT,
        Some("image/bmp") => UNKNOWN,
        Some(known) => known,
        None if is_text => TEXT,
        None => UNKNOWN,
    }
}

fn begins_at(head: &[u8], at: usize, magic: &[u8]) -> bool {
    head.get(at..).is_some_and(|rest| rest.starts_with(magic))
}

fn heif(head: &[u8]) -> Option<&'static str> {
    let brand = if begins_at(head, 4, b"ftyp") { head.get(8..12)? } else { return None };
    if HEIC_BRANDS.contains(&brand) {
        return Some("image/heic");
    }
    if !HEIF_BRANDS.contains(&brand) {
        return None;
    }
    let len = usize::try_from(u32::from_be_bytes([head[0], head[1], head[2], head[3]])).ok()?;
    let compatible = head.get(16..len.min(head.len())).unwrap_or_default();
    if compatible.chunks_exact(4).any(|brand| brand == b"avif" || brand == b"avis") {
        return Some("image/avif");
    }
    if compatible.chunks_exact(4).any(|brand| HEIC_BRANDS.contains(&brand)) {
        return Some("image/heic");
    }
    Some("image/heif")
}

/// The RAW format that a classic TIFF is, told from its first directory if that is within the head.
fn tiff_family(head: &[u8]) -> Option<&'static str> {
    const NEW_SUBFILE_TYPE: u32 = 254;
    const MAKE: u32 = 271;
    const DNG_VERSION: u32 = 50_706;
    let little = head[0] == b'I';
    if head[if little { 2 } else { 3 }] != 42 {
        return None;
    }
    let number = |at: usize, len: usize| {
        let bytes = head.get(at..at.checked_add(len)?)?;
        let shift_in = |sum: u32, byte: &u8| sum << 8 | u32::from(*byte);
        Some(if little { bytes.iter().rev().fold(0, shift_in) } else { bytes.iter().fold(0, shift_in) })
    };
    let directory = usize::try_from(number(4, 4)?).ok()?;
    let (mut is_preview, mut make) = (false, &b""[..]);
    for entry in 0..number(directory, 2)? as usize {
        let at = directory + 2 + 12 * entry;
        let Some(tag) = number(at, 2) else { break };
        match tag {
            NEW_SUBFILE_TYPE => is_preview = number(at + 8, 4) == Some(1),
            MAKE => make = number(at + 8, 4).and_then(|at| head.get(at as usize..)).unwrap_or_default(),
            DNG_VERSION => return Some("image/x-adobe-dng"),
            _ => {}
        }
    }
    RAW_MAKES.iter().find(|(name, _)| is_preview && make.starts_with(name)).map(|(_, kind)| *kind)
}

/// Whether these are characters and nothing else: UTF-8 (perhaps cut in the last character) or marked UTF-16.
fn is_text(head: &[u8]) -> bool {
    if head.is_empty() {
        return false;
    }
    if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
        return true;
    }
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).expect("valid up to there")
        }
        Err(_) => return false,
    };
    text.chars().all(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\x0c' | '\x1b'))
}

fn is_svg(head: &[u8]) -> bool {
    let begin = head.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
    head[begin..].starts_with(b"<") && memchr::memmem::find(head, b"<svg").is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tiff(little: bool, entries: &[(u16, u16, u32, u32)]) -> Vec<u8> {
        let two = |n: u16| if little { n.to_le_bytes() } else { n.to_be_bytes() };
        let four = |n: u32| if little { n.to_le_bytes() } else { n.to_be_bytes() };
        let mut bytes = if little { b"II*\0".to_vec() } else { b"MM\0*".to_vec() };
        bytes.extend(four(8));
        bytes.extend(two(entries.len() as u16));
        for (tag, kind, count, value) in entries {
            bytes.extend(two(*tag));
            bytes.extend(two(*kind));
            bytes.extend(four(*count));
            bytes.extend(four(*value));
        }
        bytes.resize(200, 0);
        bytes.extend(b"NIKON CORPORATION\0");
        bytes
    }

    #[test]
    fn pictures_are_told_from_their_content() {
        let cases: [(&[u8], &str); 16] = [
            (b"\x89PNG\r\n\x1a\n", "image/png"),
            (b"\xff\xd8\xff\xe0", "image/jpeg"),
            (b"GIF89a", "image/gif"),
            (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
            (b"II*\0\x08\0\0\0\0\0", "image/tiff"),
            (b"MM\0\x2b\0\x08\0\0", "image/tiff"),
            (b"II*\0\x10\0\0\0CR\x02\0", "image/x-canon-cr2"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "image/heic"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "image/heic"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1jpeg", "image/heif"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0avifmif1", "image/avif"),
            (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "image/avif"),
            (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "image/x-canon-cr3"),
            (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "video/mp4"),
            (b"FUJIFILMCCD-RAW 0201", "image/x-fuji-raf"),
            (b"<?xml version=\"1.0\"?>\n<svg xmlns=\"x\">", "image/svg+xml"),
        ];
        for (head, kind) in cases {
            assert_eq!(media_type(head), kind, "{}", head.escape_ascii());
        }
    }

    #[test]
    fn raw_families_in_a_tiff_are_told_from_scans_and_exports() {
        for little in [true, false] {
            let make = (271, 2, 18, 200);
            assert_eq!(media_type(&tiff(little, &[(254, 4, 1, 1), make])), "image/x-nikon-nef");
            // A finished picture keeps the make of the camera, but its first directory is no preview.
            assert_eq!(media_type(&tiff(little, &[(254, 4, 1, 0), make])), "image/tiff");
            assert_eq!(media_type(&tiff(little, &[(50_706, 1, 4, 1)])), "image/x-adobe-dng");
        }
    }

    #[test]
    fn text_is_text_and_the_rest_is_bytes() {
        assert_eq!(media_type("Grüße,\nund mehr".as_bytes()), TEXT);
        assert_eq!(media_type(b"MZ is how this text begins"), TEXT);
        assert_eq!(media_type(b"BMW is a maker of cars and motorcycles."), TEXT);
        assert_eq!(media_type(&"ü".as_bytes()[..1]), TEXT);
        assert_eq!(media_type(b""), UNKNOWN);
        assert_eq!(media_type(b"\0\x01\x02\x03 not a text"), UNKNOWN);
        assert_eq!(media_type(b"Gr\xfc\xdfe, in Latin-1"), UNKNOWN);
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_type(which in 0usize..6, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let begin: [&[u8]; 6] = [b"", b"II*\0", b"MM\0*", b"\0\0\0\x18ftypmif1", b"RIFF", b"BM"];
            let bytes = [begin[which], &body].concat();
            for len in 0..bytes.len().min(40) {
                media_type(&bytes[..len]);
            }
            prop_assert!(media_type(&bytes).contains('/'));
        }
    }
}
