//! Manifests: what one version of an object consists of, cut into stored bodies and read back.
//!
//! A manifest has a public half, which nodes read to keep its chunks (`model::object`), and a sealed half
//! for its owner. Above 512 KiB it becomes a root and parts of at most 8,192 chunks. The sealed half of
//! each is bound to its object, its version and its own public half; a part is bound to its place by its
//! id in the root. The same plan sealed twice is the same bytes.

use serde::Serialize;
use serde_tuple::{Deserialize_tuple, Serialize_tuple};

use super::{
    chunk::{ChunkKey, SealedChunk, body_id},
    keys::UserKeys,
    sealed::{self, Binding, SealedError},
};
use crate::model::{
    codec::{self, CodecError},
    id::{BodyId, ObjectId},
    limits,
    object::{
        self, BodyPublic, ChunkRef, ManifestBody, ManifestPublic, ManifestRest, MediaType, ObjectName,
        Padding, PartPublic, PartRef, Predecessor, Redundancy,
    },
};

const FORMAT: u64 = 1;
pub(super) const MANIFEST_CONTEXT: &str = "tintype 1 manifest";
pub(super) const PART_CONTEXT: &str = "tintype 1 part";
/// A bound on the encoded sealed half without chunk keys: a name, a media type and a few short fields.
const INFO_BYTES_MAX: usize = 2048;
/// A chunk key as it is encoded.
const KEY_ENCODED_BYTES: usize = 34;

/// What a person wants to know of one version of an object. Sealed in its manifest and in its register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name.
    pub name: ObjectName,
    /// What it is.
    pub media_type: MediaType,
    /// Its true length.
    pub bytes: u64,
    /// When it was put, milliseconds since 1970; for display only.
    pub unix_ms: u64,
    /// A small picture of it.
    pub thumbnail: Option<Thumbnail>,
}

/// A thumbnail: one chunk, padded like an object of its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumbnail {
    /// BLAKE3 of its ciphertext.
    pub id: BodyId,
    /// What opens it.
    pub key: ChunkKey,
    /// Its true length.
    pub bytes: u64,
}

impl Thumbnail {
    /// The thumbnail of `true_bytes` that was sealed as this chunk, with the padding of such an object.
    pub fn new(sealed: SealedChunk, true_bytes: u64) -> Self {
        Self { id: sealed.chunk.id, key: sealed.key, bytes: true_bytes }
    }

    /// As the chunk that it is, for fetching and opening.
    pub fn chunk(&self) -> SealedChunk {
        SealedChunk { chunk: self.chunk_ref(), key: self.key.clone() }
    }

    fn chunk_ref(&self) -> ChunkRef {
        let padded_bytes = object::chunk_padded_bytes(self.bytes, 0) as u64;
        ChunkRef { id: self.id, padded_bytes }
    }

    fn is_sane(&self) -> bool {
        (1..=limits::CHUNK_BYTES as u64).contains(&self.bytes)
    }
}

/// A thumbnail inside a sealed part.
#[derive(Serialize_tuple, Deserialize_tuple)]
pub(super) struct ThumbnailWire {
    id: BodyId,
    key: ChunkKey,
    bytes: u64,
}

impl From<&Thumbnail> for ThumbnailWire {
    fn from(thumbnail: &Thumbnail) -> Self {
        Self { id: thumbnail.id, key: thumbnail.key.clone(), bytes: thumbnail.bytes }
    }
}

impl ThumbnailWire {
    /// None if its length is impossible.
    pub(super) fn checked(self) -> Option<Thumbnail> {
        let Self { id, key, bytes } = self;
        Some(Thumbnail { id, key, bytes }).filter(Thumbnail::is_sane)
    }
}

#[derive(Serialize_tuple, Deserialize_tuple)]
struct ManifestSecret {
    format: u64,
    chunk_keys: Vec<ChunkKey>,
    name: ObjectName,
    media_type: MediaType,
    bytes: u64,
    unix_ms: u64,
    thumbnail: Option<ThumbnailWire>,
}

#[derive(Serialize_tuple, Deserialize_tuple)]
struct PartSecret {
    format: u64,
    chunk_keys: Vec<ChunkKey>,
}

/// What a manifest shall say. Its object follows from the name.
#[derive(Clone, Debug)]
pub struct ManifestPlan {
    /// What it is.
    pub info: ObjectInfo,
    /// All its chunks in order; none if it is empty.
    pub chunks: Vec<SealedChunk>,
    /// The versions that stay readable, newest first, all below the new one; at most 15.
    pub predecessors: Vec<Predecessor>,
    /// How many copies are wanted.
    pub redundancy: Redundancy,
}

/// Why a plan cannot become a manifest: the caller's mistake, or an object that is too large.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Over [`limits::OBJECT_BYTES_MAX`].
    #[error("the object has {bytes} bytes; the largest possible one has {max}")]
    TooLarge { bytes: u64, max: u64 },
    /// The chunks are not those of an object of this length.
    #[error("the chunks do not add up to the object's {bytes} bytes")]
    Lengths { bytes: u64 },
    /// Not 1 byte to 1 MiB.
    #[error("the thumbnail has an impossible length")]
    Thumbnail,
    /// Too many, not in falling order, or not below the new version.
    #[error("the earlier versions are not at most 15 in falling order below version {version}")]
    Predecessors { version: u64 },
    /// Outside 1 to [`limits::VERSION_MAX`].
    #[error("version {0} is out of range")]
    Version(u64),
    /// Outside 1 to [`limits::COPIES_MAX`].
    #[error("{0} copies are out of range")]
    Copies(u64),
}

/// A body ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedBody {
    /// BLAKE3 of `bytes`.
    pub id: BodyId,
    /// At most 1 MiB.
    pub bytes: Vec<u8>,
}

impl EncodedBody {
    fn new(body: ManifestBody) -> Self {
        let bytes = body.encode();
        assert!(bytes.len() <= limits::BODY_BYTES_MAX, "a manifest body is under 1 MiB by its bounds");
        Self { id: body_id(&bytes), bytes }
    }
}

/// Seals a manifest: its parts, if there are any, and last the manifest or root, whose id the register names.
///
/// Store all of them before the register.
///
/// # Errors
/// [`PlanError`].
pub fn seal(keys: &UserKeys, version: u64, plan: &ManifestPlan) -> Result<Vec<EncodedBody>, PlanError> {
    check_plan(version, plan)?;
    let object = keys.address(&plan.info.name).object;
    if plan.chunks.len() <= limits::MANIFEST_PART_CHUNKS_MAX {
        let refs = plan.chunks.iter().map(|sealed| sealed.chunk).collect();
        let public = ManifestPublic::of_chunks(refs, rest_of(plan));
        let whole = seal_manifest(keys, (&object, version), public, &plan.info, &plan.chunks);
        if whole.bytes.len() <= limits::MANIFEST_BYTES_MAX {
            return Ok(vec![whole]);
        }
    }
    let mut bodies = Vec::new();
    let mut parts = Vec::new();
    for chunks in plan.chunks.chunks(limits::MANIFEST_PART_CHUNKS_MAX) {
        let body = seal_part(keys, (&object, version), chunks);
        parts.push(PartRef { id: body.id, chunks: chunks.len() as u64 });
        bodies.push(body);
    }
    let public = ManifestPublic::of_parts(parts, rest_of(plan));
    bodies.push(seal_manifest(keys, (&object, version), public, &plan.info, &[]));
    Ok(bodies)
}

fn check_plan(version: u64, plan: &ManifestPlan) -> Result<(), PlanError> {
    let bytes = plan.info.bytes;
    if bytes > limits::OBJECT_BYTES_MAX {
        return Err(PlanError::TooLarge { bytes, max: limits::OBJECT_BYTES_MAX });
    }
    let refs = plan.chunks.iter().map(|sealed| sealed.chunk);
    if plan.chunks.len() as u64 != object::chunk_count(bytes) || !lengths_agree(refs, bytes, 0) {
        return Err(PlanError::Lengths { bytes });
    }
    if !plan.info.thumbnail.as_ref().is_none_or(Thumbnail::is_sane) {
        return Err(PlanError::Thumbnail);
    }
    if !(1..=limits::VERSION_MAX).contains(&version) {
        return Err(PlanError::Version(version));
    }
    let versions: Vec<u64> = plan.predecessors.iter().map(|p| p.version).collect();
    let falling = versions.windows(2).all(|pair| pair[0] > pair[1]);
    let below = versions.iter().all(|v| (1..version).contains(v));
    if versions.len() > limits::PREDECESSORS_MAX || !falling || !below {
        return Err(PlanError::Predecessors { version });
    }
    let Redundancy::Copies(copies) = plan.redundancy;
    if !(1..=limits::COPIES_MAX).contains(&copies) {
        return Err(PlanError::Copies(copies));
    }
    Ok(())
}

fn rest_of(plan: &ManifestPlan) -> ManifestRest {
    ManifestRest {
        thumbnail: plan.info.thumbnail.as_ref().map(Thumbnail::chunk_ref),
        predecessors: plan.predecessors.clone(),
        redundancy: plan.redundancy,
    }
}

fn seal_manifest(
    keys: &UserKeys,
    place: (&ObjectId, u64),
    public: ManifestPublic,
    info: &ObjectInfo,
    chunks: &[SealedChunk],
) -> EncodedBody {
    let secret = ManifestSecret {
        format: FORMAT,
        chunk_keys: keys_of(chunks),
        name: info.name.clone(),
        media_type: info.media_type.clone(),
        bytes: info.bytes,
        unix_ms: info.unix_ms,
        thumbnail: info.thumbnail.as_ref().map(ThumbnailWire::from),
    };
    seal_body(keys, place, BodyPublic::Manifest(public), &secret, chunks.len())
}

fn seal_part(keys: &UserKeys, place: (&ObjectId, u64), chunks: &[SealedChunk]) -> EncodedBody {
    let secret = PartSecret { format: FORMAT, chunk_keys: keys_of(chunks) };
    let public = PartPublic::new(chunks.iter().map(|sealed| sealed.chunk).collect());
    seal_body(keys, place, BodyPublic::Part(public), &secret, chunks.len())
}

fn seal_body<T: Serialize>(
    keys: &UserKeys,
    (object, version): (&ObjectId, u64),
    public: BodyPublic,
    secret: &T,
    key_count: usize,
) -> EncodedBody {
    let (context, public_bytes) = match &public {
        BodyPublic::Manifest(manifest) => (MANIFEST_CONTEXT, manifest.encode()),
        BodyPublic::Part(part) => (PART_CONTEXT, part.encode()),
    };
    let binding = Binding { context, object, version, public: &public_bytes };
    let sealed = sealed::seal(keys, &binding, secret, INFO_BYTES_MAX + key_count * KEY_ENCODED_BYTES);
    EncodedBody::new(ManifestBody { public, public_bytes, sealed })
}

fn keys_of(chunks: &[SealedChunk]) -> Vec<ChunkKey> {
    chunks.iter().map(|sealed| sealed.key.clone()).collect()
}

/// Why a manifest was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are not those that the id stands for.
    #[error("the bytes of the manifest do not match its id")]
    Corrupt,
    /// Not a manifest at all.
    #[error("the manifest is {0}")]
    Codec(#[from] CodecError),
    /// A part where a manifest was expected, or the other way round.
    #[error("the manifest is of the wrong kind, a part for a whole or a whole for a part")]
    Kind,
    /// Sealed by another key, or for another object or version.
    #[error("the manifest was not sealed by this user for this version of this object")]
    NotAuthentic,
    /// Authentic, and yet its fields contradict each other: lengths, counts, names.
    #[error("the manifest contradicts itself: {0}")]
    Contents(&'static str),
}

impl From<SealedError> for ManifestError {
    fn from(error: SealedError) -> Self {
        match error {
            SealedError::Tag => ManifestError::NotAuthentic,
            SealedError::Content => ManifestError::Contents("its sealed half has an unknown form"),
        }
    }
}

/// Where an opened manifest lists its chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Here, in order; their number and lengths agree with the object's length.
    Chunks(Vec<SealedChunk>),
    /// In these parts, in order: fetch each and give it to [`Manifest::open_part`].
    Parts(Vec<PartRef>),
}

/// An opened manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The object that it belongs to.
    pub object: ObjectId,
    /// The version that it describes.
    pub version: u64,
    /// What the object is.
    pub info: ObjectInfo,
    /// Its chunks, or where they are listed.
    pub layout: Layout,
    /// The earlier versions that stay readable, newest first.
    pub predecessors: Vec<Predecessor>,
    /// How many copies the owner wants.
    pub redundancy: Redundancy,
}

/// Opens a manifest or root: `bytes` must hash to `id` and be sealed by this user for this version.
///
/// # Errors
/// [`ManifestError`].
pub fn open(
    keys: &UserKeys,
    object: &ObjectId,
    version: u64,
    id: &BodyId,
    bytes: &[u8],
) -> Result<Manifest, ManifestError> {
    let body = decode_checked(id, bytes)?;
    let BodyPublic::Manifest(public) = body.public else { return Err(ManifestError::Kind) };
    let binding = Binding { context: MANIFEST_CONTEXT, object, version, public: &body.public_bytes };
    let secret: ManifestSecret = sealed::open(keys, &binding, &body.sealed)?;
    codec::check_version(secret.format, FORMAT)?;
    if keys.address(&secret.name).object != *object {
        return Err(ManifestError::Contents("its name is another object's"));
    }
    if public.predecessors.first().is_some_and(|newest| newest.version >= version) {
        return Err(ManifestError::Contents("an earlier version is not earlier"));
    }
    let thumbnail = open_thumbnail(secret.thumbnail, public.thumbnail)?;
    let layout = open_layout(public.chunks, public.parts, secret.chunk_keys, secret.bytes)?;
    let ManifestSecret { name, media_type, bytes, unix_ms, .. } = secret;
    let info = ObjectInfo { name, media_type, bytes, unix_ms, thumbnail };
    let ManifestPublic { predecessors, redundancy, .. } = public;
    Ok(Manifest { object: *object, version, info, layout, predecessors, redundancy })
}

fn decode_checked(id: &BodyId, bytes: &[u8]) -> Result<ManifestBody, ManifestError> {
    if body_id(bytes) != *id {
        return Err(ManifestError::Corrupt);
    }
    Ok(ManifestBody::decode(bytes)?)
}

fn open_thumbnail(
    secret: Option<ThumbnailWire>,
    public: Option<ChunkRef>,
) -> Result<Option<Thumbnail>, ManifestError> {
    let impossible = ManifestError::Contents("its thumbnail has an impossible length");
    let thumbnail = secret.map(|wire| wire.checked().ok_or(impossible)).transpose()?;
    if thumbnail.as_ref().map(Thumbnail::chunk_ref) == public {
        Ok(thumbnail)
    } else {
        Err(ManifestError::Contents("its two halves name different thumbnails"))
    }
}

fn open_layout(
    chunks: Vec<ChunkRef>,
    parts: Vec<PartRef>,
    keys: Vec<ChunkKey>,
    bytes: u64,
) -> Result<Layout, ManifestError> {
    if bytes > limits::OBJECT_BYTES_MAX {
        return Err(ManifestError::Contents("it is longer than an object can be"));
    }
    let listed = chunks.len() as u64 + parts.iter().map(|part| part.chunks).sum::<u64>();
    if listed != object::chunk_count(bytes) {
        return Err(ManifestError::Contents("the number of chunks does not fit the object's length"));
    }
    if parts.is_empty() {
        Ok(Layout::Chunks(join(chunks, keys, bytes, 0)?))
    } else if keys.is_empty() {
        Ok(Layout::Parts(parts))
    } else {
        Err(ManifestError::Contents("a root holds keys of chunks"))
    }
}

/// Chunks with their keys, from chunk number `first` of an object of `bytes`.
fn join(
    chunks: Vec<ChunkRef>,
    keys: Vec<ChunkKey>,
    bytes: u64,
    first: u64,
) -> Result<Vec<SealedChunk>, ManifestError> {
    if chunks.len() != keys.len() {
        return Err(ManifestError::Contents("chunks and keys differ in number"));
    }
    if !lengths_agree(chunks.iter().copied(), bytes, first) {
        return Err(ManifestError::Contents("the lengths of the chunks do not fit the object's length"));
    }
    Ok(chunks.into_iter().zip(keys).map(|(chunk, key)| SealedChunk { chunk, key }).collect())
}

fn lengths_agree(chunks: impl Iterator<Item = ChunkRef>, bytes: u64, first: u64) -> bool {
    (first..).zip(chunks).all(|(index, chunk)| {
        chunk.padded_bytes == object::chunk_padded_bytes(bytes, index) as u64 && chunk.padded_bytes > 0
    })
}

impl Manifest {
    /// Opens part number `index`, from 0; `bytes` must hash to that part's id.
    ///
    /// # Errors
    /// [`ManifestError`].
    ///
    /// # Panics
    /// If the manifest has no such part.
    pub fn open_part(
        &self,
        keys: &UserKeys,
        index: usize,
        bytes: &[u8],
    ) -> Result<Vec<SealedChunk>, ManifestError> {
        let Layout::Parts(parts) = &self.layout else {
            panic!("a manifest without parts has no part {index}")
        };
        let part = &parts[index];
        let body = decode_checked(&part.id, bytes)?;
        let BodyPublic::Part(public) = body.public else { return Err(ManifestError::Kind) };
        let public_bytes = &body.public_bytes;
        let binding = Binding {
            context: PART_CONTEXT,
            object: &self.object,
            version: self.version,
            public: public_bytes,
        };
        let secret: PartSecret = sealed::open(keys, &binding, &body.sealed)?;
        codec::check_version(secret.format, FORMAT)?;
        if public.chunks.len() as u64 != part.chunks {
            return Err(ManifestError::Contents("a part has another number of chunks than its root says"));
        }
        let first = index as u64 * limits::MANIFEST_PART_CHUNKS_MAX as u64;
        join(public.chunks, secret.chunk_keys, self.info.bytes, first)
    }

    /// The padding with which the chunks of this object were sealed.
    pub fn padding(&self) -> Padding {
        Padding::of_object(self.info.bytes)
    }

    /// The true length of chunk number `index`, from 0; zero past the end.
    pub fn chunk_true_bytes(&self, index: u64) -> usize {
        object::chunk_true_bytes(self.info.bytes, index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::{
        chunk,
        keys::tests::{name, user},
    };
    use proptest::prelude::*;

    fn sealed_chunks(keys: &UserKeys, bytes: u64) -> Vec<SealedChunk> {
        let cut = (0..object::chunk_count(bytes)).map(|i| object::chunk_true_bytes(bytes, i));
        cut.map(|len| chunk::seal(keys, &mut vec![7; len], Padding::of_object(bytes))).collect()
    }

    /// Chunks of the right lengths that nobody sealed, for manifests too large to fill in a test.
    fn pretended_chunks(bytes: u64) -> Vec<SealedChunk> {
        (0..object::chunk_count(bytes))
            .map(|i| {
                let id = BodyId(*blake3::hash(&i.to_le_bytes()).as_bytes());
                let padded_bytes = object::chunk_padded_bytes(bytes, i) as u64;
                let mut key = ChunkKey::ZERO;
                key.copy_from(blake3::hash(id.as_bytes()).as_bytes());
                SealedChunk { chunk: ChunkRef { id, padded_bytes }, key }
            })
            .collect()
    }

    fn plan(keys: &UserKeys, bytes: u64, chunks: Vec<SealedChunk>) -> ManifestPlan {
        let thumbnail = chunk::seal(keys, &mut vec![1; 3000], Padding::of_object(3000));
        let info = ObjectInfo {
            name: name("trip/img.png"),
            media_type: MediaType::parse("image/png").expect("good"),
            bytes,
            unix_ms: 1_700_000_000_000,
            thumbnail: Some(Thumbnail::new(thumbnail, 3000)),
        };
        let predecessors = vec![Predecessor { version: 2, manifest: BodyId([2; 32]) }];
        ManifestPlan { info, chunks, predecessors, redundancy: Redundancy::Copies(3) }
    }

    fn small(keys: &UserKeys) -> ManifestPlan {
        plan(keys, 5000, sealed_chunks(keys, 5000))
    }

    fn object_of(keys: &UserKeys) -> ObjectId {
        keys.address(&name("trip/img.png")).object
    }

    fn opened(keys: &UserKeys, version: u64, body: &EncodedBody) -> Result<Manifest, ManifestError> {
        open(keys, &object_of(keys), version, &body.id, &body.bytes)
    }

    #[test]
    fn a_small_manifest_is_one_body_and_comes_back() {
        let keys = user(1);
        for bytes in [0, 1, 5000, 3 << 20, (3 << 20) + 1] {
            let plan = plan(&keys, bytes, sealed_chunks(&keys, bytes));
            let bodies = seal(&keys, 3, &plan).expect("seals");
            let [body] = bodies.as_slice() else { panic!("{} bodies", bodies.len()) };
            assert_eq!(body.id, body_id(&body.bytes));
            let manifest = opened(&keys, 3, body).expect("opens");
            assert_eq!(manifest.info, plan.info);
            assert_eq!(manifest.layout, Layout::Chunks(plan.chunks.clone()));
            assert_eq!(manifest.predecessors, plan.predecessors);
            assert_eq!(manifest.info.thumbnail.expect("has one").chunk().chunk.padded_bytes, 3 << 10);
            assert_eq!(seal(&keys, 3, &plan).expect("seals"), bodies, "the same plan is the same bytes");
        }
    }

    #[test]
    fn nodes_learn_what_to_keep_and_nothing_of_names_types_and_sizes() {
        let keys = user(1);
        let plan = small(&keys);
        let body = &seal(&keys, 3, &plan).expect("seals")[0];
        let public = ManifestBody::decode(&body.bytes).expect("reads without keys");
        let thumbnail = plan.info.thumbnail.as_ref().expect("has one").id;
        assert_eq!(public.referenced().collect::<Vec<_>>(), [plan.chunks[0].chunk.id, thumbnail]);
        assert_eq!(public.predecessors(), &plan.predecessors);
        for secret in
            [&b"img.png"[..], b"image/png", &5000u16.to_be_bytes(), &1_700_000_000_000u64.to_be_bytes()]
        {
            assert!(!body.bytes.windows(secret.len()).any(|w| w == secret), "{secret:?}");
        }
        // A name a little longer is not a body that is longer.
        let mut other = plan.clone();
        other.info.name = name("trip/img.jpeg");
        assert_eq!(seal(&keys, 3, &other).expect("seals")[0].bytes.len(), body.bytes.len());
    }

    #[test]
    fn the_largest_object_has_eight_parts_and_a_small_root() {
        let keys = user(1);
        let bytes = limits::OBJECT_BYTES_MAX;
        let plan = plan(&keys, bytes, pretended_chunks(bytes));
        let bodies = seal(&keys, 3, &plan).expect("seals");
        assert_eq!(bodies.len(), 9);
        assert!(bodies.iter().all(|body| body.bytes.len() <= limits::BODY_BYTES_MAX));
        let (root, parts) = bodies.split_last().expect("nine");
        assert!(root.bytes.len() < 2048);
        let manifest = opened(&keys, 3, root).expect("opens");
        assert_eq!(manifest.info, plan.info);
        let Layout::Parts(listed) = &manifest.layout else { panic!("a root lists parts") };
        assert!(listed.iter().map(|part| part.id).eq(parts.iter().map(|body| body.id)));
        let mut chunks = Vec::new();
        let mut kept = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            chunks.extend(manifest.open_part(&keys, i, &part.bytes).expect("opens"));
            kept.extend(ManifestBody::decode(&part.bytes).expect("reads").referenced().collect::<Vec<_>>());
        }
        assert_eq!(chunks, plan.chunks);
        assert!(kept.iter().eq(chunks.iter().map(|sealed| &sealed.chunk.id)));
        // Parts in each other's place, or of another version, are refused.
        assert_eq!(manifest.open_part(&keys, 0, &parts[1].bytes), Err(ManifestError::Corrupt));
        let elsewhere = Manifest { version: 4, ..manifest.clone() };
        assert_eq!(elsewhere.open_part(&keys, 0, &parts[0].bytes), Err(ManifestError::NotAuthentic));
        let elsewhere = Manifest { object: ObjectId([1; 32]), ..manifest.clone() };
        assert_eq!(elsewhere.open_part(&keys, 0, &parts[0].bytes), Err(ManifestError::NotAuthentic));
        assert_eq!(manifest.open_part(&user(2), 0, &parts[0].bytes), Err(ManifestError::NotAuthentic));
        let whole = Layout::Parts(vec![PartRef { id: root.id, chunks: 1 }]);
        let elsewhere = Manifest { layout: whole, ..manifest };
        assert_eq!(elsewhere.open_part(&keys, 0, &root.bytes), Err(ManifestError::Kind));
        assert_eq!(
            open(&keys, &object_of(&keys), 3, &parts[0].id, &parts[0].bytes),
            Err(ManifestError::Kind)
        );
    }

    #[test]
    fn a_manifest_is_cut_only_above_512_kib() {
        let keys = user(1);
        let largest_whole = (1..=8192)
            .rev()
            .step_by(64)
            .find(|n| {
                let bytes = n << 20;
                let bodies = seal(&keys, 3, &plan(&keys, bytes, pretended_chunks(bytes))).expect("seals");
                assert!(bodies.iter().all(|body| body.bytes.len() <= limits::BODY_BYTES_MAX));
                if bodies.len() == 1 {
                    assert!(bodies[0].bytes.len() <= limits::MANIFEST_BYTES_MAX);
                    return true;
                }
                let manifest = opened(&keys, 3, &bodies[1]).expect("opens");
                let chunks = manifest.open_part(&keys, 0, &bodies[0].bytes).expect("opens");
                assert_eq!((bodies.len(), chunks.len() as u64), (2, *n));
                false
            })
            .expect("small ones are whole");
        assert!((6800..7200).contains(&largest_whole), "{largest_whole}");
    }

    #[test]
    fn another_user_object_or_version_cannot_open_it() {
        let keys = user(1);
        let body = &seal(&keys, 3, &small(&keys)).expect("seals")[0];
        let object = object_of(&keys);
        assert!(opened(&keys, 3, body).is_ok());
        assert_eq!(opened(&keys, 4, body), Err(ManifestError::NotAuthentic));
        let foreign = open(&user(2), &object, 3, &body.id, &body.bytes);
        assert_eq!(foreign, Err(ManifestError::NotAuthentic));
        let moved = open(&keys, &ObjectId([1; 32]), 3, &body.id, &body.bytes);
        assert_eq!(moved, Err(ManifestError::NotAuthentic));
        let other_id = open(&keys, &object, 3, &BodyId([1; 32]), &body.bytes);
        assert_eq!(other_id, Err(ManifestError::Corrupt));
    }

    #[test]
    fn every_flipped_bit_is_refused_even_under_the_id_of_the_flipped_bytes() {
        let keys = user(1);
        let body = &seal(&keys, 3, &small(&keys)).expect("seals")[0];
        for bit in 0..body.bytes.len() * 8 {
            let mut bytes = body.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let object = object_of(&keys);
            assert_eq!(open(&keys, &object, 3, &body.id, &bytes), Err(ManifestError::Corrupt));
            let forged = open(&keys, &object, 3, &body_id(&bytes), &bytes);
            let refused = matches!(forged, Err(ManifestError::Codec(_) | ManifestError::NotAuthentic));
            assert!(refused, "bit {bit}: {forged:?}");
        }
    }

    #[test]
    fn plans_that_cannot_be_are_refused() {
        let keys = user(1);
        let refused = |change: &dyn Fn(&mut ManifestPlan)| {
            let mut plan = small(&keys);
            change(&mut plan);
            seal(&keys, 3, &plan).expect_err("must be refused")
        };
        let bytes = limits::OBJECT_BYTES_MAX + 1;
        let too_large = PlanError::TooLarge { bytes, max: limits::OBJECT_BYTES_MAX };
        assert_eq!(refused(&|p| p.info.bytes = bytes), too_large);
        for bytes in [0, 4096, 5121, 1 << 21] {
            assert_eq!(refused(&|p| p.info.bytes = bytes), PlanError::Lengths { bytes });
        }
        assert_eq!(refused(&|p| p.chunks.clear()), PlanError::Lengths { bytes: 5000 });
        let thumbnail_of = |p: &mut ManifestPlan, n| p.info.thumbnail.as_mut().expect("has one").bytes = n;
        assert_eq!(refused(&|p| thumbnail_of(p, 0)), PlanError::Thumbnail);
        assert_eq!(refused(&|p| thumbnail_of(p, (1 << 20) + 1)), PlanError::Thumbnail);
        assert_eq!(refused(&|p| p.predecessors[0].version = 3), PlanError::Predecessors { version: 3 });
        let twice = refused(&|p| p.predecessors.push(p.predecessors[0]));
        assert_eq!(twice, PlanError::Predecessors { version: 3 });
        assert_eq!(refused(&|p| p.redundancy = Redundancy::Copies(0)), PlanError::Copies(0));
        let plan = ManifestPlan { predecessors: Vec::new(), ..small(&keys) };
        assert_eq!(seal(&keys, 0, &plan), Err(PlanError::Version(0)));
        assert_eq!(
            seal(&keys, limits::VERSION_MAX + 1, &plan),
            Err(PlanError::Version(limits::VERSION_MAX + 1))
        );
    }

    /// The owner's own seal around `info` and `chunks` that no plan would allow.
    fn lie(keys: &UserKeys, info: &ObjectInfo, refs: Vec<ChunkRef>, chunks: &[SealedChunk]) -> ManifestError {
        let rest = rest_of(&small(keys));
        let public = ManifestPublic::of_chunks(refs, rest);
        let body = seal_manifest(keys, (&object_of(keys), 3), public, info, chunks);
        opened(keys, 3, &body).expect_err("must be refused")
    }

    #[test]
    fn an_authentic_manifest_that_contradicts_itself_is_refused() {
        let keys = user(1);
        let ManifestPlan { info, chunks, .. } = small(&keys);
        let refs = vec![chunks[0].chunk];
        let with = |change: &dyn Fn(&mut ObjectInfo)| {
            let mut info = info.clone();
            change(&mut info);
            info
        };
        let contents = |error| matches!(error, ManifestError::Contents(_));
        for bytes in [0, 4096, 5121, 1 << 21, 1 << 40, u64::MAX] {
            assert!(contents(lie(&keys, &with(&|i| i.bytes = bytes), refs.clone(), &chunks)), "{bytes}");
        }
        assert!(contents(lie(&keys, &with(&|i| i.name = name("other")), refs.clone(), &chunks)));
        assert!(contents(lie(&keys, &with(&|i| i.thumbnail = None), refs.clone(), &chunks)));
        let longer = with(&|i| i.thumbnail.as_mut().expect("has one").bytes += 1024);
        assert!(contents(lie(&keys, &longer, refs.clone(), &chunks)));
        let none = with(&|i| i.thumbnail.as_mut().expect("has one").bytes = 0);
        assert!(contents(lie(&keys, &none, refs.clone(), &chunks)));
        assert!(contents(lie(&keys, &info, refs, &[])));
        // One full chunk, where there should be two: each is of the right length.
        let full = pretended_chunks(1 << 20);
        let twice = with(&|i| i.bytes = 2 << 20);
        assert!(contents(lie(&keys, &twice, vec![full[0].chunk], &full)));
        let plan = small(&keys);
        let public = ManifestPublic::of_chunks(vec![plan.chunks[0].chunk], rest_of(&plan));
        let body = seal_manifest(&keys, (&object_of(&keys), 2), public, &plan.info, &plan.chunks);
        let late = opened(&keys, 2, &body).expect_err("version 2 lists version 2 as earlier");
        assert!(contents(late));
    }

    #[test]
    fn parts_agree_with_their_root_and_with_the_objects_length() {
        let keys = user(1);
        let bytes = (8200 << 20) + 100;
        let plan = plan(&keys, bytes, pretended_chunks(bytes));
        let bodies = seal(&keys, 3, &plan).expect("seals");
        let manifest = opened(&keys, 3, &bodies[2]).expect("opens");
        let last = manifest.open_part(&keys, 1, &bodies[1].bytes).expect("opens");
        assert_eq!((last.len(), last[8].chunk.padded_bytes), (9, 64 << 10));
        assert_eq!(manifest.chunk_true_bytes(8200), 100);

        let root = |counts: [u64; 2], object_bytes: u64| {
            let parts = [0, 1].map(|i| PartRef { id: bodies[i].id, chunks: counts[i] }).to_vec();
            let info = ObjectInfo { bytes: object_bytes, ..plan.info.clone() };
            let public = ManifestPublic::of_parts(parts, rest_of(&plan));
            opened(&keys, 3, &seal_manifest(&keys, (&object_of(&keys), 3), public, &info, &[]))
        };
        let contents = |error| matches!(error, ManifestError::Contents(_));
        assert!(root([8192, 9], bytes).is_ok());
        assert!(contents(root([8192, 8], bytes).expect_err("a chunk too few")));
        assert!(contents(root([8192, 10], bytes).expect_err("a chunk too many")));
        // A root that agrees with its own length, and a part that does not agree with it.
        let shorter = root([8192, 8], 8200 << 20).expect("opens");
        assert!(contents(shorter.open_part(&keys, 1, &bodies[1].bytes).expect_err("nine chunks")));
        let fuller = root([8192, 9], 8201 << 20).expect("opens");
        assert!(contents(fuller.open_part(&keys, 1, &bodies[1].bytes).expect_err("the last is short")));
        let chunks = pretended_chunks(8 << 20);
        let eight = seal_part(&keys, (&object_of(&keys), 3), &chunks);
        let parts = vec![PartRef { id: bodies[0].id, chunks: 8192 }, PartRef { id: eight.id, chunks: 9 }];
        let fuller = Manifest { layout: Layout::Parts(parts), ..fuller };
        assert!(contents(fuller.open_part(&keys, 1, &eight.bytes).expect_err("eight chunks for nine")));
    }

    #[test]
    fn a_sealed_half_of_an_unknown_version_is_refused() {
        let keys = user(1);
        let object = object_of(&keys);
        let ManifestPlan { info, chunks, .. } = small(&keys);
        let refs = vec![chunks[0].chunk];
        let public = BodyPublic::Part(PartPublic::new(refs.clone()));
        let secret = PartSecret { format: 2, chunk_keys: keys_of(&chunks) };
        let part = seal_body(&keys, (&object, 3), public, &secret, 1);
        let parts = Layout::Parts(vec![PartRef { id: part.id, chunks: 1 }]);

        let public = BodyPublic::Manifest(ManifestPublic::of_chunks(refs, rest_of(&small(&keys))));
        let secret = ManifestSecret {
            format: 2,
            chunk_keys: keys_of(&chunks),
            name: info.name.clone(),
            media_type: info.media_type.clone(),
            bytes: info.bytes,
            unix_ms: info.unix_ms,
            thumbnail: info.thumbnail.as_ref().map(ThumbnailWire::from),
        };
        let whole = seal_body(&keys, (&object, 3), public, &secret, 1);
        let unknown = ManifestError::Codec(CodecError::Version(2));
        assert_eq!(opened(&keys, 3, &whole), Err(unknown.clone()));
        let good = opened(&keys, 3, &seal(&keys, 3, &small(&keys)).expect("seals")[0]).expect("opens");
        assert_eq!(Manifest { layout: parts, ..good }.open_part(&keys, 0, &part.bytes), Err(unknown));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            at in 0usize..600,
            splice in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let keys = user(1);
            let object = object_of(&keys);
            prop_assert!(open(&keys, &object, 3, &body_id(&bytes), &bytes).is_err());
            let mut bent = seal(&keys, 3, &small(&keys)).expect("seals").remove(0).bytes;
            let from = at.min(bent.len());
            let original = bent.clone();
            bent.splice(from..(from + splice.len()).min(original.len()), splice);
            prop_assert!(bent == original || open(&keys, &object, 3, &body_id(&bent), &bent).is_err());
        }

        #[test]
        fn what_was_sealed_opens(
            secret: u8,
            version in 16u64..limits::VERSION_MAX,
            bytes in 0u64..200_000_000,
            earlier in 0usize..=15,
            thumbnail: bool,
        ) {
            let keys = user(secret);
            let mut plan = plan(&keys, bytes, pretended_chunks(bytes));
            let manifest = BodyId([secret; 32]);
            let before = |i: usize| Predecessor { version: version - 1 - i as u64, manifest };
            plan.predecessors = (0..earlier).map(before).collect();
            plan.info.thumbnail = plan.info.thumbnail.filter(|_| thumbnail);
            let bodies = seal(&keys, version, &plan).expect("seals");
            let manifest = opened(&keys, version, &bodies[0]).expect("opens");
            prop_assert_eq!(manifest.layout, Layout::Chunks(plan.chunks));
            prop_assert_eq!(manifest.info, plan.info);
            prop_assert_eq!(manifest.predecessors, plan.predecessors);
        }
    }
}
