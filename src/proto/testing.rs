//! What the tests of this room share: peers, verified registers, a seeded random source, golden files.

use std::sync::OnceLock;

use serde_bytes::ByteBuf;

use crate::model::{
    BodyId, Digest, Incarnation, ObjectId, OwnerKey, PeerId, RequestId,
    member::{Founding, Member},
    register::{Register, VerifiedRegister},
};

/// Distinct peers, sorted, the same each time; at most 16.
pub(crate) fn peers(count: usize) -> Vec<PeerId> {
    static ALL: OnceLock<Vec<PeerId>> = OnceLock::new();
    let all = ALL.get_or_init(|| (0..16).map(peer).collect());
    let mut peers = all[..count].to_vec();
    peers.sort();
    peers
}

fn peer(n: u64) -> PeerId {
    let seed = *blake3::hash(&n.to_le_bytes()).as_bytes();
    let keys = libp2p_identity::Keypair::ed25519_from_bytes(seed).expect("32 bytes are a key");
    keys.public().to_peer_id()
}

/// A founding of that many peers.
pub(crate) fn founding(count: usize) -> Founding {
    let members = peers(count).into_iter().map(|peer| Member { peer, incarnation: incarnation(&peer) });
    Founding::new(crate::model::FoundingId([1; 16]), members.collect())
}

/// The incarnation that tests give this peer.
pub(crate) fn incarnation(peer: &PeerId) -> Incarnation {
    let hash = blake3::hash(&peer.to_bytes());
    let (head, _) = hash.as_bytes().split_first_chunk::<16>().expect("a hash has 32 bytes");
    Incarnation(*head)
}

/// A register that counts as verified: the version after `previous`, by this request.
pub(crate) fn register(
    object: ObjectId,
    previous: Option<&VerifiedRegister>,
    request: u64,
) -> VerifiedRegister {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&request.to_le_bytes());
    let mut requests = previous.map_or_else(Vec::new, |p| p.requests.clone());
    requests.push(RequestId(id));
    let from = requests.len().saturating_sub(crate::model::limits::REGISTER_REQUESTS_MAX);
    let register = Register {
        format: 1,
        object,
        version: previous.map_or(1, |p| p.version + 1),
        previous: previous.map_or(Digest::ZERO, VerifiedRegister::hash),
        manifest: Some(BodyId(*blake3::hash(&request.to_le_bytes()).as_bytes())),
        owner: OwnerKey([2; 32]),
        tag: Digest([3; 32]),
        entry: ByteBuf::from(vec![4; 8]),
        flags: 0,
        fence: 0,
        requests: requests.split_off(from),
        signature: ByteBuf::from(vec![5; 64]),
    };
    let bytes = register.encode();
    VerifiedRegister::vouch(register, &bytes)
}

/// Random numbers from a seed.
pub(crate) struct Dice(blake3::OutputReader);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.0.fill(&mut bytes);
        bytes
    }
}

/// Whether the exhaustive checks go on to their wide bounds: `EXHAUSTIVE=long`.
pub(crate) fn goes_far() -> bool {
    std::env::var("EXHAUSTIVE").is_ok_and(|form| form == "long")
}

/// The exact content of a value as a short key: BLAKE3 over all that its `Hash` feeds.
#[derive(Default)]
pub(crate) struct Essence(blake3::Hasher);

impl Essence {
    pub(crate) fn key(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

impl std::hash::Hasher for Essence {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let key = self.key();
        let (head, _) = key.split_first_chunk::<8>().expect("a hash has 32 bytes");
        u64::from_le_bytes(*head)
    }
}

/// Things that were met, each once under a number, which the exhaustive checks use instead.
#[allow(clippy::disallowed_types)]
pub(crate) struct Met<K, T> {
    all: Vec<T>,
    // Only looked up in, never gone through: its order decides nothing.
    numbers: std::collections::HashMap<K, u32>,
}

impl<K: Eq + std::hash::Hash, T> Met<K, T> {
    #[allow(clippy::disallowed_types)]
    pub(crate) fn new() -> Self {
        Self { all: Vec::new(), numbers: std::collections::HashMap::new() }
    }

    /// The number of what has this key; it is `thing` if it was not met before.
    pub(crate) fn number(&mut self, key: K, thing: T) -> u32 {
        let next = u32::try_from(self.all.len()).expect("fewer than four thousand million");
        let number = *self.numbers.entry(key).or_insert(next);
        if number == next {
            self.all.push(thing);
        }
        number
    }

    pub(crate) fn get(&self, number: u32) -> &T {
        &self.all[number as usize]
    }

    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }
}

/// The seeds of a random test: `SEED=n` runs that one alone, `SCHEDULES=n` so many.
pub(crate) fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SCHEDULES").unwrap_or(count),
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
