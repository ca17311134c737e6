//! Configuration: every knob as plain data, and how one layer over another decides each.
//!
//! `config/default.toml`, embedded here, is the manual: every knob, its default and the reason. This file
//! never reads a file or the environment; `cli` brings their text in.

mod values;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

pub use self::values::{Capacity, Cipher, Listen, Port, Size, Slots};

use super::limits;

/// The manual and the lowest layer.
pub const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

/// What the environment's names of knobs begin with.
pub const ENVIRONMENT_PREFIX: &str = "TINTYPE_";

/// Every knob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This machine as a node.
    pub node: Node,
    /// How nodes find each other.
    pub network: Network,
    /// How pictures are stored.
    pub put: Put,
    /// How this machine works for others.
    pub tasks: Tasks,
    /// What is logged.
    pub log: Log,
}

/// This machine as a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Display name; empty = the machine's.
    pub name: String,
    /// Address to listen on; none = all, both families.
    pub listen: Listen,
    /// UDP port.
    pub port: Port,
    /// Machines that found the cluster together.
    pub expect: u32,
    /// Bytes that may be stored.
    pub capacity: Capacity,
    /// Free space that is left alone.
    pub reserve: Size,
}

/// How nodes find each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Addresses to call, `host:port` or a multiaddr.
    pub bootstrap: Vec<String>,
    /// Whether multicast DNS is used.
    pub mdns: bool,
    /// What each UDP socket asks the system to buffer, each way.
    pub udp_buffer: Size,
    /// What encrypts packets.
    pub cipher: Cipher,
}

impl Network {
    /// What of this concerns packets alone.
    pub fn packets(&self) -> Packets {
        let udp_buffer_bytes = usize::try_from(self.udp_buffer.0).unwrap_or(usize::MAX);
        Packets { udp_buffer_bytes, cipher: self.cipher }
    }
}

/// How packets are made and kept, for the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packets {
    /// Bytes that each UDP socket asks the system to buffer, each way.
    pub udp_buffer_bytes: usize,
    /// What encrypts them.
    pub cipher: Cipher,
}

impl Default for Packets {
    fn default() -> Self {
        Self { udp_buffer_bytes: limits::UDP_BUFFER_BYTES, cipher: Cipher::Auto }
    }
}

/// How pictures are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    /// Copies of each object.
    pub copies: u8,
    /// Whether pictures that decode get a small one.
    pub thumbnail: bool,
}

/// How this machine works for others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tasks {
    /// Tasks that it works on at once.
    pub slots: Slots,
    /// Points added to the load that it tells, 0 to 100.
    pub added_load: u8,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// A level or a list of `target=level`.
    pub level: String,
}

impl Default for Config {
    fn default() -> Self {
        Layered::new().finish().expect("default.toml is whole, which a test holds").config
    }
}

// ---- the layers ----

/// Who decided a knob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `default.toml`.
    Default,
    /// This file.
    File(String),
    /// This variable of the environment.
    Environment(String),
    /// This flag.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(name) | Self::Environment(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// What is wrong with a configuration; names the file, variable or flag, and the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text is not TOML.
    #[error("{origin} is not a configuration file: {reason}")]
    Syntax { origin: String, reason: String },
    /// There is no such knob.
    #[error("{origin} has an unknown key {key:?}")]
    UnknownKey { origin: String, key: String, known: String },
    /// A knob cannot have this value.
    #[error("{origin}: {key} cannot be {value}: {reason}")]
    Value { origin: String, key: String, value: String, reason: String },
}

impl ConfigError {
    /// What to do about it, one sentence without a full stop.
    pub fn remedy(&self) -> String {
        match self {
            Self::Syntax { origin, .. } => format!("mend {origin}, or move it away to use the defaults"),
            Self::UnknownKey { origin, known, .. } => {
                format!("take it out of {origin}, or use one of: {known}")
            }
            Self::Value { origin, key, .. } => {
                format!("give {key} another value in {origin}, or leave it out to use the default")
            }
        }
    }
}

/// A whole configuration and who decided each knob.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// The values.
    pub config: Config,
    values: BTreeMap<String, (Value, Source)>,
}

impl Effective {
    /// Every knob as (`section.key`, value in TOML, who decided), in the order of their names.
    pub fn knobs(&self) -> impl Iterator<Item = (&str, &Value, &Source)> {
        self.values.iter().map(|(key, (value, source))| (key.as_str(), value, source))
    }

    /// Who decided this knob (`section.key`).
    pub fn source(&self, key: &str) -> Option<&Source> {
        self.values.get(key).map(|(_, source)| source)
    }
}

/// Layers being laid: begin with [`Layered::new`], then file, environment and flags in this order.
#[derive(Clone, Debug)]
pub struct Layered {
    defaults: Table,
    table: Table,
    sources: BTreeMap<String, Source>,
    config: Config,
}

impl Default for Layered {
    fn default() -> Self {
        Self::new()
    }
}

impl Layered {
    /// The defaults.
    pub fn new() -> Self {
        let table: Table = DEFAULT_TOML.parse().expect("default.toml is TOML, which a test holds");
        let sources = known_keys(&table).into_iter().map(|key| (key, Source::Default)).collect();
        let config = read(&table).expect("default.toml has every knob, which a test holds");
        Self { defaults: table.clone(), table, sources, config }
    }

    /// Lays the text of a file over what is there; `name` is what people call it.
    ///
    /// # Errors
    /// [`ConfigError`]; nothing else of the file counts then.
    pub fn file(&mut self, name: &str, text: &str) -> Result<(), ConfigError> {
        let origin = Source::File(name.to_owned());
        let syntax = |reason: String| ConfigError::Syntax { origin: name.to_owned(), reason };
        let table: Table = text.parse().map_err(|e: toml::de::Error| syntax(one_line(&e.to_string())))?;
        for (section, value) in table {
            match value {
                Value::Table(keys) if self.table.contains_key(&section) => {
                    for (key, value) in keys {
                        self.set(&format!("{section}.{key}"), value, origin.clone())?;
                    }
                }
                Value::Table(_) => return Err(self.unknown(name, &format!("[{section}]"))),
                _ => return Err(self.unknown(name, &section)),
            }
        }
        Ok(())
    }

    /// Lays one variable of the environment over what is there. Its name begins with [`ENVIRONMENT_PREFIX`].
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn environment(&mut self, name: &str, text: &str) -> Result<(), ConfigError> {
        let Some(key) = self.sources.keys().find(|key| environment_name(key) == name).cloned() else {
            return Err(self.unknown("the environment", name));
        };
        self.environment_as(name, &key, text)
    }

    /// Lays a variable that has another name than the knob (`RUST_LOG`) over what is there.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn environment_as(&mut self, name: &str, key: &str, text: &str) -> Result<(), ConfigError> {
        let value = if self.sources.contains_key(key) { value_like(self.at(key), text) } else { text.into() };
        self.set(key, value, Source::Environment(name.to_owned()))
    }

    /// Lays one flag over what is there.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn flag(&mut self, flag: &str, key: &str, value: impl Into<Value>) -> Result<(), ConfigError> {
        self.set(key, value.into(), Source::Flag(flag.to_owned()))
    }

    /// All layers are laid: the values, checked together.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn finish(self) -> Result<Effective, ConfigError> {
        let values = self.sources.iter().map(|(key, s)| (key.clone(), (self.at(key).clone(), s.clone())));
        Ok(Effective { values: values.collect(), config: self.config.clone() })
    }

    fn set(&mut self, key: &str, value: Value, source: Source) -> Result<(), ConfigError> {
        let known = key.split_once('.').filter(|_| self.sources.contains_key(key));
        let Some((section, name)) = known else {
            return Err(self.unknown(&source.to_string(), key));
        };
        if let Some(Value::Table(keys)) = self.table.get_mut(section) {
            keys.insert(name.to_owned(), value);
        }
        self.sources.insert(key.to_owned(), source);
        match read(&self.table).and_then(|config| check(&config).map(|()| config)) {
            Ok(config) => {
                self.config = config;
                Ok(())
            }
            // What the reader says of a wrong type is in the words of programmers.
            Err(reason) if reason.starts_with("invalid ") => {
                Err(self.refused(key, format!("it wants {}", kind(&self.defaults[section][name]))))
            }
            Err(reason) => Err(self.refused(key, reason)),
        }
    }

    fn at(&self, key: &str) -> &Value {
        let (section, name) = key.split_once('.').expect("keys are made of section and name");
        &self.table[section][name]
    }

    fn refused(&self, key: &str, reason: String) -> ConfigError {
        let origin = self.sources.get(key).map_or_else(String::new, ToString::to_string);
        ConfigError::Value { origin, key: key.to_owned(), value: self.at(key).to_string(), reason }
    }

    fn unknown(&self, origin: &str, key: &str) -> ConfigError {
        let section = key.split_once('.').map_or("", |(section, _)| section);
        let environment = key.starts_with(ENVIRONMENT_PREFIX);
        let known: Vec<String> = match self.table.get(section).and_then(Value::as_table) {
            Some(keys) => keys.keys().map(|name| format!("{section}.{name}")).collect(),
            None if environment => self.sources.keys().map(|key| environment_name(key)).collect(),
            None => self.table.keys().map(|section| format!("[{section}]")).collect(),
        };
        ConfigError::UnknownKey { origin: origin.to_owned(), key: key.to_owned(), known: known.join(", ") }
    }
}

/// The environment's name of a knob: `node.name` is `TINTYPE_NODE_NAME`.
pub fn environment_name(key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

fn known_keys(table: &Table) -> Vec<String> {
    let sections = table.iter().filter_map(|(section, value)| Some((section, value.as_table()?)));
    sections.flat_map(|(section, keys)| keys.keys().map(move |key| format!("{section}.{key}"))).collect()
}

/// The environment has only texts: read one as what the knob now is.
fn value_like(now: &Value, text: &str) -> Value {
    let list = || text.split(',').map(str::trim).filter(|item| !item.is_empty());
    match now {
        Value::Integer(_) => text.trim().parse().map_or_else(|_| text.into(), Value::Integer),
        Value::Boolean(_) => text.trim().parse().map_or_else(|_| text.into(), Value::Boolean),
        Value::Array(_) => Value::Array(list().map(Value::from).collect()),
        _ => text.into(),
    }
}

/// What a knob with this default wants, in words.
fn kind(default: &Value) -> &'static str {
    match default {
        Value::Integer(_) => "a whole number within its bounds",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list of texts",
        _ => "a text",
    }
}

fn read(table: &Table) -> Result<Config, String> {
    Config::deserialize(table.clone()).map_err(|e| one_line(e.message()))
}

/// Bounds of single knobs.
fn check(config: &Config) -> Result<(), String> {
    let within = |value: u64, least: u64, most: u64| match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(format!("it may be from {least} to {most}")),
    };
    if config.node.name.len() > limits::DISPLAY_NAME_BYTES_MAX {
        return Err(format!("a name has at most {} bytes", limits::DISPLAY_NAME_BYTES_MAX));
    }
    if config.node.name.chars().any(char::is_control) {
        return Err("a name has no control characters".into());
    }
    if config.log.level.trim().is_empty() {
        return Err("it wants a level such as warn, info or debug".into());
    }
    within(u64::from(config.tasks.added_load), 0, 100)?;
    within(u64::from(config.node.expect), 1, limits::MEMBERS_MAX as u64)?;
    within(u64::from(config.put.copies), 1, 8)?;
    within(config.network.udp_buffer.0, 0, limits::UDP_BUFFER_BYTES_MAX)?;
    within(config.network.bootstrap.len() as u64, 0, limits::KNOWN_PEERS_MAX as u64)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str) -> Result<Effective, ConfigError> {
        let mut layers = Layered::new();
        layers.file("config/tintype.toml", text)?;
        layers.finish()
    }

    #[test]
    fn the_manual_is_whole_and_its_defaults_are_those_of_the_design() {
        let config = Config::default();
        assert_eq!(config.node.expect, 1);
        assert_eq!(config.node.port, Port::Auto);
        assert_eq!(config.node.listen, Listen::All);
        assert_eq!(config.node.capacity, Capacity::All);
        assert_eq!(config.node.reserve.0, limits::DEFAULT_RESERVE_BYTES);
        assert_eq!((config.put.copies, config.put.thumbnail), (3, true));
        assert_eq!(config.network.packets(), Packets::default());
        let table: Table = DEFAULT_TOML.parse().expect("TOML");
        let written = Table::try_from(&config).expect("a table");
        assert_eq!(
            known_keys(&table),
            known_keys(&written),
            "each knob is in the manual, and nothing else is"
        );
    }

    #[test]
    fn every_knob_of_the_manual_has_its_reason_above_it() {
        let mut comment = false;
        for line in DEFAULT_TOML.lines() {
            if line.contains(" = ") && !line.starts_with('#') {
                assert!(comment, "{line} has no comment above it");
            }
            comment = line.starts_with('#');
        }
    }

    #[test]
    fn a_flag_is_over_the_environment_over_the_file_over_the_default() {
        let mut layers = Layered::new();
        layers.file("f.toml", "[node]\nexpect = 3\nname = \"desk\"\nreserve = 5\n[put]\ncopies = 2").unwrap();
        layers.environment("TINTYPE_NODE_EXPECT", "4").unwrap();
        layers.environment("TINTYPE_NODE_NAME", "attic").unwrap();
        layers.environment("TINTYPE_NETWORK_BOOTSTRAP", "a:1, b:2").unwrap();
        layers.environment("TINTYPE_NETWORK_MDNS", "false").unwrap();
        layers.environment("TINTYPE_NODE_PORT", "5000").unwrap();
        layers.flag("--expect", "node.expect", 5).unwrap();
        let effective = layers.finish().unwrap();
        let config = &effective.config;
        assert_eq!((config.node.expect, config.node.name.as_str(), config.put.copies), (5, "attic", 2));
        assert_eq!(config.node.reserve, Size(5));
        assert_eq!(config.network.bootstrap, ["a:1", "b:2"]);
        assert_eq!((config.network.mdns, config.node.port), (false, Port::Given(5000)));
        assert_eq!(effective.source("node.expect"), Some(&Source::Flag("--expect".into())));
        assert_eq!(effective.source("node.name"), Some(&Source::Environment("TINTYPE_NODE_NAME".into())));
        assert_eq!(effective.source("put.copies"), Some(&Source::File("f.toml".into())));
        assert_eq!(effective.source("put.thumbnail"), Some(&Source::Default));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_file_and_key() {
        for (text, words) in [
            ("[node]\nnam = 1", vec!["config/tintype.toml", "unknown key", "node.nam"]),
            ("[nodes]\nname = \"x\"", vec!["config/tintype.toml", "unknown key", "[nodes]"]),
            ("name = \"x\"", vec!["unknown key", "\"name\""]),
            (
                "[node]\nexpect = \"three\"",
                vec!["config/tintype.toml", "node.expect", "three", "whole number"],
            ),
            ("[network]\nmdns = \"perhaps\"", vec!["network.mdns", "true or false"]),
            ("[network]\nbootstrap = \"a:1\"", vec!["network.bootstrap", "a list"]),
            ("[node]\nexpect = 0", vec!["node.expect", "from 1 to"]),
            ("[node]\nport = 70000", vec!["node.port", "70000"]),
            ("[node]\nlisten = \"desk\"", vec!["node.listen", "IP address"]),
            ("[node]\ncapacity = \"20 XB\"", vec!["node.capacity", "20 XB", "not a size"]),
            ("[put]\ncopies = -1", vec!["put.copies"]),
            ("[network]\ncipher = \"rot13\"", vec!["network.cipher", "rot13", "auto", "chacha20"]),
            ("[network]\nudp_buffer = \"1 TiB\"", vec!["network.udp_buffer", "1 TiB", "from 0 to"]),
            ("[node", vec!["config/tintype.toml", "not a configuration file"]),
        ] {
            let error = with_file(text).expect_err(text);
            for word in words {
                assert!(error.to_string().contains(word), "{text:?}: {error} should say {word}");
            }
            assert!(!error.to_string().contains('\n') && !error.remedy().is_empty());
        }
    }

    #[test]
    fn an_unknown_name_in_the_environment_is_refused_with_the_known_ones() {
        let error = Layered::new().environment("TINTYPE_NODE_NAMES", "x").expect_err("unknown");
        assert!(error.to_string().contains("TINTYPE_NODE_NAMES"), "{error}");
        assert!(error.remedy().contains("TINTYPE_NODE_NAME,"), "{}", error.remedy());
    }

    #[test]
    fn sizes_read_as_people_write_them_and_print_so_that_they_read_again() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("20G", 20_000_000_000),
            ("20 GB", 20_000_000_000),
            ("1.5TiB", 3 << 39),
            ("1 kib", 1024),
            ("0.5 MB", 500_000),
        ] {
            assert_eq!(text.parse::<Size>(), Ok(Size(bytes)), "{text}");
            assert_eq!(Size(bytes).to_string().parse::<Size>(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "GB", "1 XB", "-1", "1.", "1..2 GB", "99999999 TB", "1e9", "I", "1 I"] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
    }
}
