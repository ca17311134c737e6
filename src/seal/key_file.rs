//! A user's secret as one line of text: plain, or behind a passphrase.
//!
//! ```text
//! tintype-user-1:plain:SECRET:CHECK
//! tintype-user-1:sealed:MEMORY_KIB,PASSES,LANES:SALT:CIPHERTEXT:TAG:CHECK
//! ```
//! All in lower-case hexadecimal but the three numbers. CHECK covers everything before it, so a damaged line
//! is told apart from a wrong passphrase. The passphrase form is Argon2id (RFC 9106), then AES-128-CTR
//! and a keyed BLAKE3 tag under keys that follow from it. Reading and writing the file is the caller's.

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use subtle::ConstantTimeEq;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use super::{
    chunk::ChunkKey,
    keys::{Key, UserSecret, keyed_xof},
};

/// What every line begins with.
pub const PREFIX: &str = "tintype-user-1:";
const CLUSTER_PREFIX: &str = "tintype-cluster-";
const ANY_VERSION_PREFIX: &str = "tintype-user-";
const CHECK_CONTEXT: &str = "tintype 1 user file check";
const TAG_CONTEXT: &[u8] = b"tintype 1 user file";
const CHECK_BYTES: usize = 8;
/// No line is longer; what is longer is not read.
const LINE_BYTES_MAX: usize = 1024;
/// What a new file is made with: RFC 9106's second recommendation, 64 MiB and 3 passes, in one lane.
const NEW_COST: Cost = Cost { memory_kib: 64 << 10, passes: 3, lanes: 1 };
/// The most that a file may ask of the machine that reads it.
const COST_MAX: Cost = Cost { memory_kib: 256 << 10, passes: 10, lanes: 4 };

/// Why a line is not a user's key. Each message is one sentence for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// It does not begin like a user key.
    #[error("this is not a user key: a user key is one line that begins with `{PREFIX}`")]
    NotAUserKey,
    /// It is a cluster's.
    #[error("this is a cluster key, not a user key")]
    ClusterKey,
    /// It was written by a later program.
    #[error("this user key has a newer format: it needs a newer tintype")]
    NewerFormat,
    /// The check at the end does not fit the rest.
    #[error("this user key is damaged: a character is missing or wrong")]
    Damaged,
    /// The check fits, but the fields are not what this program knows.
    #[error("this user key has a field that this tintype does not know")]
    UnknownField,
    /// It asks for less than is safe or more than is sane.
    #[error("this user key asks for an unreasonable amount of memory or time to be opened")]
    Cost,
    /// The file is whole, the passphrase is not the one.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    /// The system refused the memory that Argon2id needs.
    #[error("there is not enough free memory to open this user key: it takes {mebibytes} MiB")]
    NoMemory { mebibytes: u32 },
    /// Nothing was typed.
    #[error("the passphrase must not be empty")]
    EmptyPassphrase,
}

/// What Argon2id costs.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// A line that was read.
#[derive(Debug)]
pub enum KeyFile {
    /// The secret itself.
    Plain(UserSecret),
    /// The secret behind a passphrase.
    Sealed(SealedSecret),
}

/// A user's secret behind a passphrase.
pub struct SealedSecret {
    cost: Cost,
    salt: [u8; 16],
    ciphertext: [u8; 32],
    tag: [u8; 32],
}

impl fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedSecret(hidden)")
    }
}

/// The plain line, with a line end.
pub fn plain_text(secret: &UserSecret) -> Zeroizing<String> {
    let mut line = Zeroizing::new(String::with_capacity(LINE_BYTES_MAX));
    line.push_str(PREFIX);
    line.push_str("plain:");
    push_hex(&mut line, secret.expose());
    finish_line(line)
}

/// The line behind a passphrase, with a line end. `salt` must be random. Takes 64 MiB and some 100 ms.
///
/// # Errors
/// [`KeyFileError::EmptyPassphrase`] or [`KeyFileError::NoMemory`].
pub fn sealed_text(secret: &UserSecret, passphrase: &str, salt: [u8; 16]) -> Result<String, KeyFileError> {
    let part = part_keys(passphrase, &salt, NEW_COST)?;
    let mut text = Zeroizing::new(*secret.expose());
    part.cipher.apply(text.as_mut_slice());
    let tag = tag(&part.mac, NEW_COST, &salt, &text);
    let mut line = Zeroizing::new(String::with_capacity(LINE_BYTES_MAX));
    let Cost { memory_kib, passes, lanes } = NEW_COST;
    line.push_str(&format!("{PREFIX}sealed:{memory_kib},{passes},{lanes}:"));
    push_hex(&mut line, &salt);
    line.push(':');
    push_hex(&mut line, text.as_slice());
    line.push(':');
    push_hex(&mut line, tag.as_slice());
    Ok(std::mem::take(&mut *finish_line(line)))
}

impl KeyFile {
    /// Reads a line; white space around it does not matter.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let line = text.trim();
        if !line.starts_with(PREFIX) {
            return Err(stranger(line));
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(KeyFileError::Damaged);
        }
        let (body, check) = line.rsplit_once(':').ok_or(KeyFileError::Damaged)?;
        let expected = check_of(body);
        let found = read_hex::<CHECK_BYTES>(check).ok_or(KeyFileError::Damaged)?;
        if !bool::from(expected.ct_eq(found.as_slice())) {
            return Err(KeyFileError::Damaged);
        }
        let fields = body.get(PREFIX.len()..).ok_or(KeyFileError::Damaged)?;
        match fields.split_once(':') {
            Some(("plain", secret)) => {
                let secret = read_hex::<32>(secret).ok_or(KeyFileError::UnknownField)?;
                Ok(KeyFile::Plain(UserSecret::from_random(secret)))
            }
            Some(("sealed", rest)) => SealedSecret::parse(rest).map(KeyFile::Sealed),
            _ => Err(KeyFileError::UnknownField),
        }
    }
}

fn stranger(line: &str) -> KeyFileError {
    if line.starts_with(CLUSTER_PREFIX) {
        return KeyFileError::ClusterKey;
    }
    let version = line.strip_prefix(ANY_VERSION_PREFIX).and_then(|rest| rest.split_once(':'));
    match version.and_then(|(number, _)| number.parse::<u32>().ok()) {
        Some(number) if number > 1 => KeyFileError::NewerFormat,
        _ => KeyFileError::NotAUserKey,
    }
}

impl SealedSecret {
    fn parse(fields: &str) -> Result<Self, KeyFileError> {
        let mut fields = fields.split(':');
        let mut next = || fields.next().ok_or(KeyFileError::UnknownField);
        let cost = Cost::parse(next()?)?;
        let salt = read_hex::<16>(next()?).ok_or(KeyFileError::UnknownField)?;
        let ciphertext = read_hex::<32>(next()?).ok_or(KeyFileError::UnknownField)?;
        let tag = read_hex::<32>(next()?).ok_or(KeyFileError::UnknownField)?;
        if fields.next().is_some() {
            return Err(KeyFileError::UnknownField);
        }
        Ok(Self { cost, salt: *salt, ciphertext: *ciphertext, tag: *tag })
    }

    /// Opens it. Takes the memory and time that the file asks for: 64 MiB and some 100 ms as a rule.
    ///
    /// # Errors
    /// [`KeyFileError::WrongPassphrase`], [`KeyFileError::EmptyPassphrase`] or [`KeyFileError::NoMemory`].
    pub fn open(&self, passphrase: &str) -> Result<UserSecret, KeyFileError> {
        let part = part_keys(passphrase, &self.salt, self.cost)?;
        let expected = tag(&part.mac, self.cost, &self.salt, &self.ciphertext);
        if !bool::from(expected.as_slice().ct_eq(self.tag.as_slice())) {
            return Err(KeyFileError::WrongPassphrase);
        }
        let mut text = Zeroizing::new(self.ciphertext);
        part.cipher.apply(text.as_mut_slice());
        Ok(UserSecret::from_random(text))
    }
}

impl Cost {
    fn parse(text: &str) -> Result<Self, KeyFileError> {
        let mut numbers = text.split(',').map(|number| number.parse::<u32>());
        let (Some(Ok(memory_kib)), Some(Ok(passes)), Some(Ok(lanes)), None) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(KeyFileError::UnknownField);
        };
        let within = (NEW_COST.memory_kib..=COST_MAX.memory_kib).contains(&memory_kib)
            && (NEW_COST.passes..=COST_MAX.passes).contains(&passes)
            && (NEW_COST.lanes..=COST_MAX.lanes).contains(&lanes);
        if within { Ok(Self { memory_kib, passes, lanes }) } else { Err(KeyFileError::Cost) }
    }
}

struct PartKeys {
    cipher: ChunkKey,
    mac: Key,
}

fn part_keys(passphrase: &str, salt: &[u8; 16], cost: Cost) -> Result<PartKeys, KeyFileError> {
    if passphrase.is_empty() {
        return Err(KeyFileError::EmptyPassphrase);
    }
    // The same letters typed on another system may be other bytes.
    let passphrase = Zeroizing::new(passphrase.nfc().collect::<String>());
    let root = argon2id(&passphrase, salt, cost)?;
    let stream = keyed_xof::<64>(&root, &[salt]);
    let (cipher, mac) = stream.split_at(32);
    let mut part = PartKeys { cipher: ChunkKey::ZERO, mac: Zeroizing::new([0; 32]) };
    part.cipher.copy_from(cipher.try_into().expect("32 of 64 bytes"));
    part.mac.copy_from_slice(mac);
    Ok(part)
}

/// Argon2id, 32 bytes. Its memory is wiped, for it would let a passphrase be guessed quickly.
fn argon2id(passphrase: &str, salt: &[u8; 16], cost: Cost) -> Result<Key, KeyFileError> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32))
        .expect("the cost is within its bounds");
    let mut memory = Zeroizing::new(Vec::new());
    if memory.try_reserve_exact(params.block_count()).is_err() {
        return Err(KeyFileError::NoMemory { mebibytes: cost.memory_kib >> 10 });
    }
    memory.resize(params.block_count(), Block::new());
    let mut root = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(
            passphrase.as_bytes(),
            salt,
            root.as_mut_slice(),
            memory.as_mut_slice(),
        )
        .expect("passphrase, salt, output and memory have allowed lengths");
    Ok(root)
}

fn tag(mac: &Key, cost: Cost, salt: &[u8; 16], ciphertext: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    let (memory, passes, lanes) =
        (cost.memory_kib.to_le_bytes(), cost.passes.to_le_bytes(), cost.lanes.to_le_bytes());
    keyed_xof::<32>(mac, &[TAG_CONTEXT, &memory, &passes, &lanes, salt, ciphertext])
}

pub(super) fn check_of(body: &str) -> [u8; CHECK_BYTES] {
    let hash = blake3::derive_key(CHECK_CONTEXT, body.as_bytes());
    *hash.first_chunk().expect("8 of 32 bytes")
}

fn finish_line(mut line: Zeroizing<String>) -> Zeroizing<String> {
    let check = check_of(&line);
    line.push(':');
    push_hex(&mut line, &check);
    line.push('\n');
    line
}

fn push_hex(line: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        line.push(char::from(DIGITS[usize::from(byte >> 4)]));
        line.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// Lower-case hexadecimal of exactly `N` bytes.
fn read_hex<const N: usize>(text: &str) -> Option<Zeroizing<[u8; N]>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut out = Zeroizing::new([0; N]);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    if pairs.len() != N {
        return None;
    }
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secret(byte: u8) -> UserSecret {
        UserSecret::from_random(Zeroizing::new([byte; 32]))
    }

    fn parsed(text: &str) -> KeyFileError {
        KeyFile::parse(text).expect_err("must be refused")
    }

    #[test]
    fn a_plain_line_comes_back_whatever_white_space_surrounds_it() {
        let line = plain_text(&secret(7));
        assert!(line.starts_with(PREFIX) && line.ends_with('\n') && line.lines().count() == 1);
        for text in [line.as_str(), line.trim(), &format!("  {}\r\n\n", line.trim())] {
            let Ok(KeyFile::Plain(back)) = KeyFile::parse(text) else { panic!("{text}") };
            assert_eq!(back.expose(), &[7; 32]);
        }
    }

    #[test]
    fn a_sealed_line_opens_with_its_passphrase_in_any_normal_form_and_no_other() {
        let line = sealed_text(&secret(9), "pass u\u{308} phrase", [3; 16]).expect("sealed");
        assert!(!line.contains(&"09".repeat(32)), "the secret is not in the file");
        let Ok(KeyFile::Sealed(sealed)) = KeyFile::parse(&line) else { panic!("{line}") };
        assert_eq!(sealed.open("pass \u{fc} phrase").expect("opens").expose(), &[9; 32]);
        assert_eq!(sealed.open("pass u phrase").err(), Some(KeyFileError::WrongPassphrase));
        assert_eq!(sealed.open("").err(), Some(KeyFileError::EmptyPassphrase));
        assert_eq!(sealed_text(&secret(9), "", [3; 16]), Err(KeyFileError::EmptyPassphrase));
    }

    #[test]
    fn every_damaged_character_is_called_damage_and_not_a_wrong_passphrase() {
        let line = sealed_text(&secret(9), "x", [3; 16]).expect("sealed");
        let line = line.trim();
        for i in PREFIX.len()..line.len() {
            let other = if line.as_bytes()[i] == b'0' { "1" } else { "0" };
            let wrong = format!("{}{other}{}", &line[..i], &line[i + 1..]);
            assert_eq!(parsed(&wrong), KeyFileError::Damaged, "{wrong}");
            let missing = format!("{}{}", &line[..i], &line[i + 1..]);
            assert_eq!(parsed(&missing), KeyFileError::Damaged, "{missing}");
            assert_eq!(parsed(&line[..i]), KeyFileError::Damaged, "cut at {i}");
        }
        assert_eq!(parsed(&line.to_uppercase()), KeyFileError::NotAUserKey);
        assert_eq!(parsed(&format!("{line}{}", "0".repeat(LINE_BYTES_MAX))), KeyFileError::Damaged);
    }

    #[test]
    fn other_files_are_called_what_they_are() {
        assert_eq!(parsed(""), KeyFileError::NotAUserKey);
        assert_eq!(parsed("hello"), KeyFileError::NotAUserKey);
        assert_eq!(parsed("tintype-user-x:plain:00"), KeyFileError::NotAUserKey);
        assert_eq!(parsed("tintype-cluster-1:00"), KeyFileError::ClusterKey);
        assert_eq!(parsed("tintype-user-2:whatever"), KeyFileError::NewerFormat);
        let checked = |body: &str| finish_line(Zeroizing::new(format!("{PREFIX}{body}"))).to_string();
        assert_eq!(parsed(&checked("plain:00")), KeyFileError::UnknownField);
        assert_eq!(parsed(&checked("other:00")), KeyFileError::UnknownField);
        assert_eq!(parsed(&checked("sealed:65536,3")), KeyFileError::UnknownField);
    }

    #[test]
    fn a_file_cannot_ask_for_too_little_or_too_much() {
        let line = |cost: &str| {
            let hex = |n: usize| "00".repeat(n);
            let body = format!("{PREFIX}sealed:{cost}:{}:{}:{}", hex(16), hex(32), hex(32));
            finish_line(Zeroizing::new(body)).to_string()
        };
        for cost in ["65535,3,1", "262145,3,1", "65536,2,1", "65536,11,1", "65536,3,0", "65536,3,5"] {
            assert_eq!(parsed(&line(cost)), KeyFileError::Cost, "{cost}");
        }
        assert_eq!(parsed(&line("4294967296,3,1")), KeyFileError::UnknownField);
        assert_eq!(parsed(&line("65536,3,1,1")), KeyFileError::UnknownField);
        assert!(matches!(KeyFile::parse(&line("262144,10,4")), Ok(KeyFile::Sealed(_))));
    }

    #[test]
    fn nothing_prints_a_secret() {
        let shown = format!("{:?} {:?}", secret(0xab), KeyFile::parse(&plain_text(&secret(0xab))));
        assert!(!shown.contains("ab") && !shown.contains("171"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "\\PC*", tail in "[0-9a-z:,]*") {
            for line in [text.clone(), [PREFIX, &tail].concat(), [PREFIX, &text].concat()] {
                prop_assert!(KeyFile::parse(&line).is_err());
            }
        }

        #[test]
        fn every_secret_comes_back(bytes: [u8; 32]) {
            let line = plain_text(&UserSecret::from_random(Zeroizing::new(bytes)));
            let Ok(KeyFile::Plain(back)) = KeyFile::parse(&line) else { panic!("{:?}", line) };
            prop_assert_eq!(back.expose(), &bytes);
        }
    }
}
