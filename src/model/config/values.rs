//! The kinds of values that knobs have, and how each is read and shown.
//!
//! A value that cannot be is refused with what would be one; nothing is corrected silently.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::model::limits;

/// The address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Every address of the machine, IPv4 and IPv6.
    All,
    /// One address.
    One(IpAddr),
}

/// The UDP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// [`limits::DEFAULT_PORT`], or the one that the home keeps; a fresh home may pick a free one.
    Auto,
    /// Any free one, another at each start.
    Free,
    /// This one; taken is an error.
    Given(u16),
}

/// What encrypts packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cipher {
    /// AES-128-GCM where both processors have instructions for it, else ChaCha20-Poly1305.
    Auto,
    /// ChaCha20-Poly1305, as if this processor had none.
    ChaCha20,
}

/// Tasks that a node works on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    /// As many as there are processors.
    Auto,
    /// So many.
    Given(u16),
}

/// How much a node may store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// All of the disk but the reserve.
    All,
    /// This many bytes.
    Bytes(u64),
}

/// A number of bytes, written as a number or as `20 GB`, `1.5 TiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KIB", 1 << 10),
    ("MIB", 1 << 20),
    ("GIB", 1 << 30),
    ("TIB", 1 << 40),
];

impl std::str::FromStr for Size {
    type Err = String;

    /// Reads `500000`, `20 GB` (powers of 1000), `1.5TiB` (powers of 1024); one letter is enough (`20G` =
    /// `20 GB`).
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || format!("{text:?} is not a size such as 500 GB, 1 TiB or 20G");
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = (&text[..digits], text[digits..].trim().to_ascii_uppercase());
        let factor = UNITS
            .iter()
            .find(|(name, _)| {
                *name == unit || (unit.len() == 1 && name.len() == 2 && name.starts_with(&unit))
            })
            .map_or_else(|| if unit.is_empty() { Some(1) } else { None }, |(_, factor)| Some(*factor))
            .ok_or_else(wrong)?;
        scaled(number, factor).map(Size).ok_or_else(wrong)
    }
}

/// A decimal number times a factor, exactly; none if it is no number or too large.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 6 || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    let mut bytes = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    if !fraction.is_empty() {
        let parts = u128::from(fraction.parse::<u64>().ok()?) * u128::from(factor);
        let tens = 10u128.pow(u32::try_from(fraction.len()).ok()?);
        bytes = bytes.checked_add(u64::try_from(parts / tens).ok()?)?;
    }
    Some(bytes)
}

impl fmt::Display for Size {
    /// The shortest exact form that [`Size`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const EXACT: [(&str, u64); 6] = [
            ("TiB", 1 << 40),
            ("TB", 1_000_000_000_000),
            ("GiB", 1 << 30),
            ("GB", 1_000_000_000),
            ("MiB", 1 << 20),
            ("MB", 1_000_000),
        ];
        match EXACT.iter().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) => write!(f, "{} {unit}", self.0 / factor),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// A value that people may write as a text or as a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrNumber {
    Number(i64),
    Text(String),
}

fn text_of<'de, D: Deserializer<'de>>(deserializer: D, wanted: &str) -> Result<String, D::Error> {
    match TextOrNumber::deserialize(deserializer) {
        Ok(TextOrNumber::Number(number)) => Ok(number.to_string()),
        Ok(TextOrNumber::Text(text)) => Ok(text),
        Err(_) => Err(de::Error::custom(format!("it wants {wanted}"))),
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_of(deserializer, "a size such as \"1 GiB\"")?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Capacity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = text_of(deserializer, "a size such as \"500 GB\", or \"all\"")?;
        match text.trim() {
            "all" => Ok(Self::All),
            size => size.parse().map(|Size(bytes)| Self::Bytes(bytes)).map_err(de::Error::custom),
        }
    }
}

impl Serialize for Capacity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Bytes(bytes) => Size(*bytes).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = text_of(deserializer, "a port from 0 to 65535, or \"auto\"")?;
        match (text.trim(), text.trim().parse::<u16>()) {
            ("auto", _) => Ok(Self::Auto),
            (_, Ok(0)) => Ok(Self::Free),
            (_, Ok(port)) => Ok(Self::Given(port)),
            _ => Err(de::Error::custom(format!("{text:?} is not a port from 0 to 65535, nor \"auto\""))),
        }
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Free => serializer.serialize_u16(0),
            Self::Given(port) => serializer.serialize_u16(*port),
        }
    }
}

impl<'de> Deserialize<'de> for Slots {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wanted = format!("a number from 1 to {}, or \"auto\"", limits::TASK_SLOTS_MAX);
        let text = text_of(deserializer, &wanted)?;
        match (text.trim(), text.trim().parse::<u16>()) {
            ("auto", _) => Ok(Self::Auto),
            (_, Ok(slots)) if (1..=limits::TASK_SLOTS_MAX).contains(&slots) => Ok(Self::Given(slots)),
            _ => Err(de::Error::custom(format!("{text:?} is not {wanted}"))),
        }
    }
}

impl Serialize for Slots {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Given(slots) => serializer.serialize_u16(*slots),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.trim().is_empty() {
            return Ok(Self::All);
        }
        let bare = text.trim().trim_start_matches('[').trim_end_matches(']');
        bare.parse().map(Self::One).map_err(|_| {
            de::Error::custom(format!("{text:?} is not an IP address of this machine, such as 192.168.1.20"))
        })
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str(""),
            Self::One(address) => serializer.collect_str(address),
        }
    }
}
