//! What must hold of any bytes that are given to the decoders of the nouns.
//!
//! For fuzzers and property tests only: no program is built with it. It may panic, that is how it speaks; it
//! must never let pass what a decoder should have refused.

use std::{
    fmt::{Debug, Display},
    sync::LazyLock,
};

use toml::Value;

use super::{
    BodyId, OwnerKey, RequestId,
    config::{ConfigError, ENVIRONMENT_PREFIX, Layered, Size},
    limits,
    member::Founding,
    object::{ManifestPublic, MediaType, ObjectName, PartPublic},
    rpc::{Request, Response},
};

/// What decodes is written with these very bytes, and read again it is the same. Whatever is refused can be
/// said in words.
pub(crate) fn canonical<T: PartialEq + Debug, E: Display + Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<T> {
    let value = match decode(bytes) {
        Ok(value) => value,
        Err(error) => {
            assert!(!error.to_string().is_empty(), "a refusal without a word");
            return None;
        }
    };
    let again = encode(&value);
    assert_eq!(again, bytes, "two spellings of {value:?}");
    let read = decode(&again).expect("what was written is read");
    assert_eq!(read, value, "another value from the same bytes");
    Some(value)
}

/// A text that is read is printed, read again the same, and printed again the same. It may have had other
/// spellings before.
pub(crate) fn settled<T: PartialEq + Debug>(
    text: &str,
    read: impl Fn(&str) -> Option<T>,
    print: impl Fn(&T) -> String,
) -> Option<T> {
    let value = read(text)?;
    let printed = print(&value);
    let again = read(&printed).expect("what was printed is read");
    assert_eq!(again, value, "{printed:?} is another value");
    assert_eq!(print(&again), printed, "printed in two ways");
    Some(value)
}

/// As [`settled`], for bytes of which anything is read, be it nothing.
pub(crate) fn settled_bytes<T: PartialEq + Debug>(
    bytes: &[u8],
    read: impl Fn(&[u8]) -> T,
    write: impl Fn(&T) -> Vec<u8>,
) -> T {
    let value = read(bytes);
    assert_eq!(read(&write(&value)), value, "another value");
    value
}

/// A question of rpc.
pub fn rpc_question(bytes: &[u8]) -> bool {
    let Some(request) = canonical(bytes, Request::decode, Request::encode) else { return false };
    assert!(bytes.len() <= limits::RPC_REQUEST_BYTES_MAX && !format!("{request:?}").is_empty());
    true
}

/// An answer of rpc.
pub fn rpc_answer(bytes: &[u8]) -> bool {
    let Some(response) = canonical(bytes, Response::decode, Response::encode) else { return false };
    assert!(bytes.len() <= limits::RPC_RESPONSE_BYTES_MAX && !format!("{response:?}").is_empty());
    true
}

/// The public halves of manifests, and the founding: what nodes read without keys.
pub fn public_parts(bytes: &[u8]) -> bool {
    let public = canonical(bytes, ManifestPublic::decode, ManifestPublic::encode);
    if let Some(public) = &public {
        assert!(public.chunks.is_empty() || public.parts.is_empty());
        assert!(public.chunks.len() <= limits::MANIFEST_PART_CHUNKS_MAX);
        assert!(public.predecessors.len() <= limits::PREDECESSORS_MAX);
    }
    let part = canonical(bytes, PartPublic::decode, PartPublic::encode);
    if let Some(part) = &part {
        assert!((1..=limits::MANIFEST_PART_CHUNKS_MAX).contains(&part.chunks.len()));
    }
    let founding = canonical(bytes, Founding::decode, Founding::encode);
    if let Some(founding) = &founding {
        assert!(!founding.members.is_empty() && founding.members.is_sorted_by(|a, b| a.peer < b.peer));
        for (number, member) in founding.members.iter().enumerate() {
            assert_eq!(founding.number_of(&member.peer).map(|n| usize::from(n.0)), Some(number));
        }
    }
    public.is_some() || part.is_some() || founding.is_some()
}

/// Names, media types, sizes and ids as people or other machines write them.
pub fn words(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let name = settled(text, |text| ObjectName::parse(text).ok(), ObjectName::to_string);
    if let Some(name) = &name {
        assert!((1..=limits::NAME_BYTES_MAX).contains(&name.as_str().len()));
        let steps = std::path::Path::new(name.as_str()).components();
        let inside = steps.into_iter().all(|step| matches!(step, std::path::Component::Normal(_)));
        assert!(inside, "{name:?} leaves the folder that it is fetched into");
        assert!(!name.as_str().chars().any(char::is_control));
    }
    let stored = ObjectName::try_from(text.to_owned()).ok();
    assert!(stored.is_none_or(|name| name.as_str() == text), "a stored name is changed");
    settled(text, |text| MediaType::parse(text).ok(), MediaType::to_string);
    settled(text, |text| text.parse::<Size>().ok(), Size::to_string);
    settled(text, BodyId::from_hex, BodyId::to_string);
    settled(text, OwnerKey::from_hex, OwnerKey::to_string);
    settled(text, RequestId::from_hex, RequestId::to_string);
    name.is_some()
}

/// Parsed once: that costs a millisecond.
static DEFAULTS: LazyLock<Layered> = LazyLock::new(Layered::new);

/// How a knob is laid.
type Way<'a> = &'a dyn Fn(&mut Layered) -> Result<(), ConfigError>;

/// A configuration file; its lines are tried as variables of the environment and as flags, too.
pub fn configuration(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let mut layers = DEFAULTS.clone();
    let mut some = false;
    match layers.file("a file", text) {
        Ok(()) => {
            some = true;
            read_again(layers);
        }
        Err(error) => assert!(!error.to_string().is_empty() && !error.remedy().is_empty()),
    }
    let mut layers = DEFAULTS.clone();
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')).take(32) {
        let (key, value) = (key.trim(), value.trim());
        let name = format!("{ENVIRONMENT_PREFIX}{key}");
        let flag = value.parse::<i64>().map_or_else(|_| Value::from(value), Value::from);
        let ways: [Way<'_>; 3] = [
            &|layers| layers.environment(&name, value),
            &|layers| layers.environment_as("RUST_LOG", key, value),
            &|layers| layers.flag("--flag", key, flag.clone()),
        ];
        // What is refused ends a program: the next one begins from before.
        for way in ways {
            let mut next = layers.clone();
            if way(&mut next).is_ok() {
                (layers, some) = (next, true);
            }
        }
    }
    read_again(layers);
    some
}

/// What is in force is printed; from that text nothing else follows.
fn read_again(layers: Layered) {
    let config = layers.finish().expect("all layers were taken").config;
    let printed = toml::to_string(&config).expect("a configuration is TOML");
    let mut again = DEFAULTS.clone();
    again.file("what was printed", &printed).expect("what was printed is read");
    assert_eq!(again.finish().expect("all layers were taken").config, config, "{printed}");
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    fn number(bytes: &[u8]) -> Result<u8, String> {
        bytes.first().copied().ok_or_else(|| "nothing".into())
    }

    #[test]
    fn a_decoder_that_takes_what_nobody_writes_is_found() {
        let written = |byte: &u8| vec![*byte];
        assert_eq!(canonical(&[7], number, written), Some(7));
        assert_eq!(canonical(&[], number, written), None);
        let passes = |decode: fn(&[u8]) -> Result<u8, String>, bytes: &'static [u8]| {
            catch_unwind(move || canonical(bytes, decode, written)).is_ok()
        };
        assert!(passes(number, &[7]));
        assert!(!passes(number, &[7, 0]), "more bytes than are written");
        assert!(!passes(|bytes| number(bytes).map(|byte| byte & 1), &[7]), "another value than was there");
        assert!(!passes(|_| Err(String::new()), &[7]), "a refusal without a word");
    }

    #[test]
    fn a_text_that_is_printed_as_another_is_found() {
        let read = |text: &str| text.trim().parse::<u8>().ok();
        assert_eq!(settled(" 07", read, u8::to_string), Some(7));
        assert_eq!(settled("x", read, u8::to_string), None);
        let other = |byte: &u8| (byte & 1).to_string();
        assert!(catch_unwind(|| settled("7", read, other)).is_err());
        assert!(catch_unwind(|| settled("7", read, |_| String::new())).is_err());
    }
}
