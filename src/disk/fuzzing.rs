//! What must hold of any bytes in the files of a home.
//!
//! For fuzzers and property tests only: no program is built with it. It opens no file.

use super::{
    NodeAddr, Seen, client_state,
    home::{self, NODE_KEY_PREFIX},
    tables,
};
use crate::model::{Digest, fuzzing::settled};

/// `data/node.addr`, `keys/node.key`, a client's log, the names of users, and values of the record file.
pub fn home_files(bytes: &[u8]) -> bool {
    let log = client_state::fuzz(bytes);
    let seen = record_values(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return seen };
    let node = settled(text, |text| NodeAddr::from_text(text).ok(), NodeAddr::to_text);
    let user = home::check_user(text).is_ok();
    if user {
        let file = format!("{text}.key");
        assert_eq!(std::path::Path::new(&file).components().count(), 1, "a user's key outside of its folder");
        assert!(!text.starts_with('.'));
    }
    let text = text.trim_end_matches(['\r', '\n']);
    let key = home::parse_node_key(text).is_some();
    if key {
        let secret = text.strip_prefix(NODE_KEY_PREFIX).and_then(Digest::from_hex).expect("a prefix and hex");
        let printed = format!("{NODE_KEY_PREFIX}{secret}");
        assert!(home::parse_node_key(&printed).is_some() && printed.eq_ignore_ascii_case(text));
    }
    log || seen || node.is_some() || user || key
}

/// A value opens under its own key and sum alone.
fn record_values(bytes: &[u8]) -> bool {
    let seen = Seen::decode(bytes);
    assert!(seen.is_none_or(|seen| seen.encode() == bytes), "two spellings of what was seen");
    let written = tables::with_sum(b"key", bytes);
    assert_eq!(tables::without_sum(b"key", &written).ok().as_deref(), Some(bytes));
    assert!(tables::without_sum(b"kez", &written).is_err(), "under another key");
    if let Ok(value) = tables::without_sum(b"key", bytes) {
        assert_eq!(tables::with_sum(b"key", &value), bytes);
    }
    seen.is_some()
}
