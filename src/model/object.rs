//! An object as nodes and clients name it: its name, its media type, and the public half of its manifest.
//!
//! Only plain data and its encodings. The sealed half stays bytes here: sealing, opening and every key
//! are `seal`'s, so a node can read all of this without holding any secret.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_tuple::{Deserialize_tuple, Serialize_tuple};
use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::{
    codec::{self, CodecError},
    id::{BodyId, Digest},
    limits,
};

const FORMAT: u64 = 1;

// ---- names ----

/// Why a text is not the name of an object. Each message is one sentence for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No characters at all.
    #[error("a name must not be empty")]
    Empty,
    /// More than [`limits::NAME_BYTES_MAX`] after normalisation.
    #[error("a name has at most {max} bytes, this one has {len}")]
    TooLong { len: usize, max: usize },
    /// A control character, such as a line end.
    #[error("a name must not contain control characters such as line ends")]
    Control,
    /// An empty, `.` or `..` step between slashes, or a slash at either end.
    #[error("a name must not begin or end with `/`, nor contain an empty, `.` or `..` step")]
    Step,
    /// Read from stored bytes and not in the one form that is written.
    #[error("a stored name is not in Unicode normalisation form C")]
    NotNormal,
}

/// An object's name: NFC, 1 to 1,024 bytes, relative steps between slashes, no control characters.
///
/// Two spellings of one text are one name, and no name leaves the folder that it is fetched into. Format
/// characters (Unicode category Cf), such as marks and overrides of the direction of writing, are no control
/// characters (Cc): file names have them, so names may; whoever prints one writes them out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectName(String);

impl ObjectName {
    /// Normalises what a person gave, and checks it.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        Self::try_from(text.nfc().collect::<String>())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ObjectName {
    type Error = NameError;

    /// Takes a text that is already normal.
    fn try_from(text: String) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > limits::NAME_BYTES_MAX {
            return Err(NameError::TooLong { len: text.len(), max: limits::NAME_BYTES_MAX });
        }
        if text.chars().any(char::is_control) {
            return Err(NameError::Control);
        }
        if text.split('/').any(|step| matches!(step, "" | "." | "..")) {
            return Err(NameError::Step);
        }
        if !is_nfc(&text) {
            return Err(NameError::NotNormal);
        }
        Ok(Self(text))
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> String {
        name.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// A text is not a media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a media type looks like `image/png`: two words of at most 127 bytes together, in lower case")]
pub struct MediaTypeError;

/// A media type without parameters, such as `image/png` (RFC 6838), in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MediaType(String);

impl MediaType {
    /// Reads a media type; upper case becomes lower case.
    ///
    /// # Errors
    /// [`MediaTypeError`].
    pub fn parse(text: &str) -> Result<Self, MediaTypeError> {
        Self::try_from(text.to_ascii_lowercase())
    }

    /// Bytes of which nothing is known.
    pub fn octet_stream() -> Self {
        Self("application/octet-stream".into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for MediaType {
    type Error = MediaTypeError;

    fn try_from(text: String) -> Result<Self, MediaTypeError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$&-^_.+".contains(&b);
        let word =
            |w: &str| w.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric) && w.bytes().all(allowed);
        let fits = text.len() <= limits::MEDIA_TYPE_BYTES_MAX;
        match text.split_once('/') {
            Some((kind, sub)) if fits && word(kind) && word(sub) => Ok(Self(text)),
            _ => Err(MediaTypeError),
        }
    }
}

impl From<MediaType> for String {
    fn from(media_type: MediaType) -> String {
        media_type.0
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// ---- lengths ----

/// How far the last chunk of an object is padded: it depends on the length of the whole object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// To a multiple of 1 KiB: the object is under 64 KiB.
    Small,
    /// To a multiple of 64 KiB.
    Full,
}

impl Padding {
    /// The padding of an object of this many bytes.
    pub fn of_object(object_bytes: u64) -> Self {
        if object_bytes < limits::CHUNK_PAD_BYTES as u64 { Padding::Small } else { Padding::Full }
    }

    /// The padded length of a chunk of `chunk_bytes`.
    pub fn padded_bytes(self, chunk_bytes: usize) -> usize {
        match self {
            Padding::Small => chunk_bytes.next_multiple_of(limits::SMALL_PAD_BYTES),
            Padding::Full => chunk_bytes.next_multiple_of(limits::CHUNK_PAD_BYTES),
        }
    }
}

/// How many chunks an object of this many bytes has; none if it is empty.
pub fn chunk_count(object_bytes: u64) -> u64 {
    object_bytes.div_ceil(limits::CHUNK_BYTES as u64)
}

/// The true length of chunk number `index` of an object of this many bytes; zero past its end.
pub fn chunk_true_bytes(object_bytes: u64, index: u64) -> usize {
    let start = index.saturating_mul(limits::CHUNK_BYTES as u64);
    let rest = object_bytes.saturating_sub(start).min(limits::CHUNK_BYTES as u64);
    usize::try_from(rest).expect("a chunk's length fits")
}

/// The padded length of chunk number `index` of an object of this many bytes; zero past its end.
pub fn chunk_padded_bytes(object_bytes: u64, index: u64) -> usize {
    Padding::of_object(object_bytes).padded_bytes(chunk_true_bytes(object_bytes, index))
}

// ---- the manifest's public half ----

/// A chunk as nodes see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct ChunkRef {
    /// BLAKE3 of the ciphertext.
    pub id: BodyId,
    /// Length of the ciphertext, which is the padded length of the plaintext.
    pub padded_bytes: u64,
}

/// A part of a large manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct PartRef {
    /// BLAKE3 of the encoded part.
    pub id: BodyId,
    /// How many chunks it lists: 8,192 in every part but the last.
    pub chunks: u64,
}

/// An earlier version that stays readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct Predecessor {
    /// Its version.
    pub version: u64,
    /// Its manifest.
    pub manifest: BodyId,
}

/// How the bytes are kept against loss. Encoded as an array, a scheme number first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub enum Redundancy {
    /// Whole copies, this many where as many members exist; 1 to 16.
    Copies(u64),
}

const SCHEME_COPIES: u64 = 1;

impl TryFrom<(u64, u64)> for Redundancy {
    type Error = &'static str;
    fn try_from((scheme, count): (u64, u64)) -> Result<Self, Self::Error> {
        match scheme {
            SCHEME_COPIES if (1..=limits::COPIES_MAX).contains(&count) => Ok(Redundancy::Copies(count)),
            SCHEME_COPIES => Err("the number of copies is out of range"),
            _ => Err("unknown redundancy"),
        }
    }
}

impl From<Redundancy> for (u64, u64) {
    fn from(redundancy: Redundancy) -> (u64, u64) {
        let Redundancy::Copies(count) = redundancy;
        (SCHEME_COPIES, count)
    }
}

/// What nodes read of a manifest: enough to keep everything that it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct ManifestPublic {
    format: u64,
    /// The chunks in order; empty if there are parts, or if the object is empty.
    pub chunks: Vec<ChunkRef>,
    /// The parts in order, at most 8; empty if the chunks are listed here.
    pub parts: Vec<PartRef>,
    /// The chunk of the thumbnail.
    pub thumbnail: Option<ChunkRef>,
    /// Newest first, at most 15.
    pub predecessors: Vec<Predecessor>,
    /// How many copies the owner wants.
    pub redundancy: Redundancy,
}

/// What nodes read of a manifest's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct PartPublic {
    format: u64,
    /// The chunks in order: 1 to 8,192.
    pub chunks: Vec<ChunkRef>,
}

fn malformed<T>(what: &str) -> Result<T, CodecError> {
    Err(CodecError::Malformed(what.into()))
}

impl ManifestPublic {
    /// A manifest that lists its chunks itself.
    pub fn of_chunks(chunks: Vec<ChunkRef>, rest: ManifestRest) -> Self {
        Self::new(chunks, Vec::new(), rest)
    }

    /// A root that lists parts.
    pub fn of_parts(parts: Vec<PartRef>, rest: ManifestRest) -> Self {
        Self::new(Vec::new(), parts, rest)
    }

    fn new(chunks: Vec<ChunkRef>, parts: Vec<PartRef>, rest: ManifestRest) -> Self {
        let ManifestRest { thumbnail, predecessors, redundancy } = rest;
        Self { format: FORMAT, chunks, parts, thumbnail, predecessors, redundancy }
    }

    /// The encoded form.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the encoded form and checks every bound that can be checked without keys.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let public: Self = codec::decode(bytes, limits::BODY_BYTES_MAX)?;
        codec::check_version(public.format, FORMAT)?;
        if !public.chunks.is_empty() && !public.parts.is_empty() {
            return malformed("both chunks and parts");
        }
        check_chunks(&public.chunks)?;
        check_parts(&public.parts)?;
        check_predecessors(&public.predecessors)?;
        if let Some(thumbnail) = public.thumbnail {
            check_chunks(&[thumbnail])?;
        }
        Ok(public)
    }
}

/// The fields that a manifest has beside its chunks or parts.
#[derive(Clone, Debug)]
pub struct ManifestRest {
    /// See [`ManifestPublic::thumbnail`].
    pub thumbnail: Option<ChunkRef>,
    /// See [`ManifestPublic::predecessors`].
    pub predecessors: Vec<Predecessor>,
    /// See [`ManifestPublic::redundancy`].
    pub redundancy: Redundancy,
}

impl PartPublic {
    /// A part that lists these chunks.
    pub fn new(chunks: Vec<ChunkRef>) -> Self {
        Self { format: FORMAT, chunks }
    }

    /// The encoded form.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the encoded form and checks its bounds.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let public: Self = codec::decode(bytes, limits::BODY_BYTES_MAX)?;
        codec::check_version(public.format, FORMAT)?;
        if public.chunks.is_empty() {
            return malformed("a part without chunks");
        }
        check_chunks(&public.chunks)?;
        Ok(public)
    }
}

/// Every chunk but the last is full, and the last is padded as some object's would be.
fn check_chunks(chunks: &[ChunkRef]) -> Result<(), CodecError> {
    if chunks.len() > limits::MANIFEST_PART_CHUNKS_MAX {
        return malformed("too many chunks");
    }
    let Some((last, full)) = chunks.split_last() else { return Ok(()) };
    if full.iter().any(|chunk| chunk.padded_bytes != limits::CHUNK_BYTES as u64) {
        return malformed("a chunk before the last is not full");
    }
    let bytes = last.padded_bytes;
    let small = full.is_empty() && bytes < limits::CHUNK_PAD_BYTES as u64;
    let step = if small { limits::SMALL_PAD_BYTES } else { limits::CHUNK_PAD_BYTES } as u64;
    if bytes == 0 || bytes > limits::CHUNK_BYTES as u64 || bytes % step != 0 {
        return malformed("the length of the last chunk is not a padded one");
    }
    Ok(())
}

fn check_parts(parts: &[PartRef]) -> Result<(), CodecError> {
    if parts.len() > limits::MANIFEST_PARTS_MAX {
        return malformed("too many parts");
    }
    let Some((last, full)) = parts.split_last() else { return Ok(()) };
    let most = limits::MANIFEST_PART_CHUNKS_MAX as u64;
    if full.iter().any(|part| part.chunks != most) || !(1..=most).contains(&last.chunks) {
        return malformed("a part with a wrong number of chunks");
    }
    Ok(())
}

fn check_predecessors(predecessors: &[Predecessor]) -> Result<(), CodecError> {
    if predecessors.len() > limits::PREDECESSORS_MAX {
        return malformed("too many predecessors");
    }
    let descending = predecessors.windows(2).all(|pair| pair[0].version > pair[1].version);
    let in_range = predecessors.iter().all(|p| (1..=limits::VERSION_MAX).contains(&p.version));
    if descending && in_range { Ok(()) } else { malformed("predecessors are not in falling order") }
}

// ---- stored bodies ----

/// Ciphertext with what is needed to check and open it; `seal` makes and opens it.
#[derive(Clone, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct Sealed {
    format: u64,
    /// From which, under the owner's manifest key, the keys of this one follow.
    pub salt: Digest,
    /// A multiple of 256 bytes.
    pub ciphertext: ByteBuf,
    /// Authenticates salt, ciphertext and what they belong to.
    pub tag: Digest,
}

impl Sealed {
    /// The three, as they were computed.
    pub fn new(salt: Digest, ciphertext: Vec<u8>, tag: Digest) -> Self {
        Self { format: FORMAT, salt, ciphertext: ByteBuf::from(ciphertext), tag }
    }

    /// The encoded form.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads an encoded form of at most `max_bytes`.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8], max_bytes: usize) -> Result<Self, CodecError> {
        let sealed: Self = codec::decode(bytes, max_bytes)?;
        sealed.check()?;
        Ok(sealed)
    }

    fn check(&self) -> Result<(), CodecError> {
        codec::check_version(self.format, FORMAT)?;
        let len = self.ciphertext.len();
        if len == 0 || !len.is_multiple_of(limits::SEALED_PAD_BYTES) {
            return malformed("the sealed part has a wrong length");
        }
        Ok(())
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.ciphertext.len())
    }
}

/// Which of the two kinds of body it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
enum BodyKind {
    Manifest,
    Part,
}

impl From<BodyKind> for u8 {
    fn from(kind: BodyKind) -> u8 {
        match kind {
            BodyKind::Manifest => 1,
            BodyKind::Part => 2,
        }
    }
}

impl TryFrom<u8> for BodyKind {
    type Error = &'static str;
    fn try_from(byte: u8) -> Result<Self, Self::Error> {
        match byte {
            1 => Ok(BodyKind::Manifest),
            2 => Ok(BodyKind::Part),
            _ => Err("unknown kind of manifest"),
        }
    }
}

#[derive(Serialize_tuple, Deserialize_tuple)]
struct BodyWire {
    format: u64,
    kind: BodyKind,
    public: ByteBuf,
    sealed: Sealed,
}

/// The public half of a stored manifest body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyPublic {
    /// A whole manifest, or the root of one in parts.
    Manifest(ManifestPublic),
    /// One part.
    Part(PartPublic),
}

/// A manifest, root or part as it is stored and travels; its [`BodyId`] is the BLAKE3 hash of its encoding.
///
/// Its sealed half has not been checked by anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestBody {
    /// What nodes may read.
    pub public: BodyPublic,
    /// `public` encoded: what the sealed half is bound to.
    pub public_bytes: Vec<u8>,
    /// What only the owner can open.
    pub sealed: Sealed,
}

impl ManifestBody {
    /// The encoded form.
    pub fn encode(self) -> Vec<u8> {
        let kind = match self.public {
            BodyPublic::Manifest(_) => BodyKind::Manifest,
            BodyPublic::Part(_) => BodyKind::Part,
        };
        let public = ByteBuf::from(self.public_bytes);
        codec::encode(&BodyWire { format: FORMAT, kind, public, sealed: self.sealed })
    }

    /// Reads the encoded form; needs no key.
    ///
    /// # Errors
    /// [`CodecError`] if it is malformed, too long, of another version, or breaks a bound.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let wire: BodyWire = codec::decode(bytes, limits::BODY_BYTES_MAX)?;
        codec::check_version(wire.format, FORMAT)?;
        wire.sealed.check()?;
        let public_bytes = wire.public.into_vec();
        let public = match wire.kind {
            BodyKind::Manifest => BodyPublic::Manifest(ManifestPublic::decode(&public_bytes)?),
            BodyKind::Part => BodyPublic::Part(PartPublic::decode(&public_bytes)?),
        };
        Ok(Self { public, public_bytes, sealed: wire.sealed })
    }

    /// The bodies that this one stands for, itself not among them: its parts, chunks and thumbnail.
    ///
    /// The chunks of parts are in the parts; predecessors have bodies of their own.
    pub fn referenced(&self) -> impl Iterator<Item = BodyId> + '_ {
        let (parts, chunks, thumbnail) = match &self.public {
            BodyPublic::Manifest(m) => (m.parts.as_slice(), m.chunks.as_slice(), m.thumbnail),
            BodyPublic::Part(p) => (&[][..], p.chunks.as_slice(), None),
        };
        let parts = parts.iter().map(|part| part.id);
        parts.chain(chunks.iter().map(|chunk| chunk.id)).chain(thumbnail.map(|chunk| chunk.id))
    }

    /// Whether its owner wants one copy only, which no loss of a machine is survived by.
    pub fn wants_single_copy(&self) -> bool {
        match &self.public {
            BodyPublic::Manifest(manifest) => manifest.redundancy == Redundancy::Copies(1),
            BodyPublic::Part(_) => false,
        }
    }

    /// The earlier versions that stay readable, newest first; a part has none.
    pub fn predecessors(&self) -> &[Predecessor] {
        match &self.public {
            BodyPublic::Manifest(manifest) => &manifest.predecessors,
            BodyPublic::Part(_) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_normal_relative_and_bounded() {
        let good = ObjectName::parse("trip/u\u{308}ber us.png").expect("good");
        assert_eq!(good.as_str(), "trip/\u{fc}ber us.png");
        for (text, error) in [
            ("", NameError::Empty),
            ("/a", NameError::Step),
            ("a/", NameError::Step),
            ("a//b", NameError::Step),
            ("..", NameError::Step),
            ("a/../b", NameError::Step),
            ("./a", NameError::Step),
            ("a\nb", NameError::Control),
            ("a\0b", NameError::Control),
        ] {
            assert_eq!(ObjectName::parse(text), Err(error), "{text:?}");
        }
        assert!(ObjectName::parse("...a/..b").is_ok());
        assert!(ObjectName::parse(&"n".repeat(1024)).is_ok());
        let long = ObjectName::parse(&"n".repeat(1025));
        assert_eq!(long, Err(NameError::TooLong { len: 1025, max: 1024 }));
    }

    #[test]
    fn a_stored_name_must_be_normal_already() {
        let spelled = codec::encode(&"u\u{308}");
        assert!(codec::decode::<ObjectName>(&spelled, 64).is_err());
        let normal = codec::encode(&"\u{fc}");
        assert!(codec::decode::<ObjectName>(&normal, 64).is_ok());
    }

    #[test]
    fn media_types_are_two_lower_case_words() {
        for text in ["image/png", "application/vnd.api+json", "x/y"] {
            assert_eq!(MediaType::parse(text).map(|m| m.as_str().to_owned()), Ok(text.to_owned()));
        }
        assert_eq!(MediaType::parse("Image/PNG"), MediaType::parse("image/png"));
        for text in
            ["", "image", "image/", "/png", "image/png; q=1", "a/b/c", "im age/png", "-a/b", "b\u{e4}/x"]
        {
            assert_eq!(MediaType::parse(text), Err(MediaTypeError), "{text:?}");
        }
        assert_eq!(MediaType::parse(&format!("a/{}", "b".repeat(126))), Err(MediaTypeError));
        assert!(codec::decode::<MediaType>(&codec::encode(&"Image/png"), 64).is_err());
        assert!(MediaType::parse(MediaType::octet_stream().as_str()).is_ok());
    }

    #[test]
    fn an_object_is_cut_into_full_chunks_and_a_padded_last_one() {
        let mib = 1 << 20;
        for (bytes, count, last_true, last_padded) in [
            (0, 0, 0, 0),
            (1, 1, 1, 1 << 10),
            ((64 << 10) - 1, 1, (64 << 10) - 1, 64 << 10),
            (64 << 10, 1, 64 << 10, 64 << 10),
            (mib, 1, 1 << 20, 1 << 20),
            (mib + 1, 2, 1, 64 << 10),
            (limits::OBJECT_BYTES_MAX, 65_536, 1 << 20, 1 << 20),
        ] {
            assert_eq!(chunk_count(bytes), count);
            let last = count.saturating_sub(1);
            assert_eq!(chunk_true_bytes(bytes, last), last_true);
            assert_eq!(chunk_padded_bytes(bytes, last), last_padded);
            assert_eq!(chunk_padded_bytes(bytes, count), 0);
        }
        assert_eq!(chunk_true_bytes(u64::MAX, u64::MAX), 0);
    }

    fn chunk(byte: u8, padded_bytes: u64) -> ChunkRef {
        ChunkRef { id: BodyId([byte; 32]), padded_bytes }
    }

    fn rest() -> ManifestRest {
        ManifestRest { thumbnail: None, predecessors: Vec::new(), redundancy: Redundancy::Copies(3) }
    }

    fn refused(public: &ManifestPublic) -> bool {
        ManifestPublic::decode(&public.encode()).is_err()
    }

    #[test]
    fn what_a_manifest_stands_for_is_read_without_keys() {
        let thumbnail = Some(chunk(9, 2048));
        let predecessors = vec![Predecessor { version: 3, manifest: BodyId([8; 32]) }];
        let rest =
            ManifestRest { thumbnail, predecessors: predecessors.clone(), redundancy: Redundancy::Copies(3) };
        let public = ManifestPublic::of_chunks(vec![chunk(1, 1 << 20), chunk(2, 64 << 10)], rest);
        let body = ManifestBody {
            public_bytes: public.encode(),
            public: BodyPublic::Manifest(public),
            sealed: Sealed::new(Digest([1; 32]), vec![0; 256], Digest([2; 32])),
        };
        let read = ManifestBody::decode(&body.clone().encode()).expect("reads");
        assert_eq!(read, body);
        assert_eq!(read.predecessors(), &predecessors);
        let ids: Vec<u8> = read.referenced().map(|id| id.0[0]).collect();
        assert_eq!(ids, [1, 2, 9]);
        assert!(!read.wants_single_copy());
    }

    #[test]
    fn bounds_of_a_public_part_are_kept() {
        let of = |lengths: &[u64]| {
            ManifestPublic::of_chunks(lengths.iter().map(|bytes| chunk(1, *bytes)).collect(), rest())
        };
        for good in [&[][..], &[1024], &[63 << 10], &[64 << 10], &[1 << 20, 64 << 10]] {
            assert!(!refused(&of(good)), "{good:?}");
        }
        for bad in
            [&[0][..], &[1], &[65 << 10], &[(1 << 20) + (64 << 10)], &[64 << 10, 1 << 20], &[1 << 20, 1024]]
        {
            assert!(refused(&of(bad)), "{bad:?}");
        }
        assert!(refused(&of(&vec![1 << 20; 8193])) && !refused(&of(&vec![1 << 20; 8192])));
        assert!(PartPublic::decode(&PartPublic::new(Vec::new()).encode()).is_err());

        let part = |chunks| PartRef { id: BodyId([1; 32]), chunks };
        let root =
            |counts: &[u64]| ManifestPublic::of_parts(counts.iter().map(|n| part(*n)).collect(), rest());
        assert!(!refused(&root(&[8192, 1])) && !refused(&root(&[8192; 8])));
        assert!(refused(&root(&[8192; 9])) && refused(&root(&[8191, 1])) && refused(&root(&[8192, 0])));
        assert!(refused(&root(&[8193])));
        let both = ManifestPublic { chunks: vec![chunk(1, 1024)], ..root(&[1]) };
        assert!(refused(&both));

        let after = |versions: &[u64]| {
            let manifest = BodyId([1; 32]);
            let predecessors = versions.iter().map(|v| Predecessor { version: *v, manifest }).collect();
            ManifestPublic::of_chunks(Vec::new(), ManifestRest { predecessors, ..rest() })
        };
        let falling: Vec<u64> = (1..=16).rev().collect();
        assert!(!refused(&after(&falling[..15])) && refused(&after(&falling)));
        assert!(refused(&after(&[1, 2])) && refused(&after(&[2, 2])) && refused(&after(&[1, 0])));
        assert!(Redundancy::try_from((1, 0)).is_err() && Redundancy::try_from((2, 3)).is_err());
        assert!(Redundancy::try_from((1, 17)).is_err());
        let later = ManifestPublic { format: 2, ..of(&[1024]) };
        assert_eq!(ManifestPublic::decode(&later.encode()), Err(CodecError::Version(2)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400), text in "\\PC*") {
            prop_assert!(ManifestBody::decode(&bytes).is_err());
            prop_assert!(ManifestPublic::decode(&bytes).is_err());
            prop_assert!(PartPublic::decode(&bytes).is_err());
            prop_assert!(Sealed::decode(&bytes, 400).is_err());
            prop_assert!(MediaType::parse(&text).is_ok() <= text.contains('/'));
            if let Ok(name) = ObjectName::parse(&text) {
                prop_assert_eq!(ObjectName::parse(name.as_str()), Ok(name.clone()));
            }
        }
    }
}
