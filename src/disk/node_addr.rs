//! `data/node.addr`: how a client on the same machine finds the running node, and may stop it.
//!
//! The one file in `data/` that a client reads. Only the home's owner can read it.

use std::fmt;

use crate::model::{Digest, PeerId, ProcessId};

const HEAD: &str = "tintype-node-addr-1";
/// Addresses in the file; a machine with more interfaces loses the last ones.
const ADDRS_MAX: usize = 32;
const ADDR_BYTES_MAX: usize = 256;

/// What the file says.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeAddr {
    /// The node.
    pub peer: PeerId,
    /// This start of it.
    pub process: ProcessId,
    /// Who shows it may stop the node.
    pub stop_token: [u8; 32],
    /// Multiaddresses at which it listens, loopback first.
    pub addrs: Vec<String>,
}

impl fmt::Debug for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeAddr({}, {:?}, {:?})", self.peer, self.process, self.addrs)
    }
}

impl NodeAddr {
    /// One with a fresh stop token.
    pub fn new(peer: PeerId, process: ProcessId, addrs: Vec<String>) -> Self {
        Self { peer, process, stop_token: rand::random(), addrs }
    }

    /// The text of the file. Addresses that no line can hold are left out.
    pub(super) fn to_text(&self) -> String {
        let mut text = format!(
            "{HEAD}\npeer {}\nprocess {}\nstop {}\n",
            self.peer,
            self.process,
            Digest(self.stop_token)
        );
        for addr in self.addrs.iter().filter(|addr| is_addr(addr)).take(ADDRS_MAX) {
            text.push_str("addr ");
            text.push_str(addr);
            text.push('\n');
        }
        text
    }

    /// Reads the text; the error says what is wrong with it.
    pub(super) fn from_text(text: &str) -> Result<Self, &'static str> {
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return Err("its first line is not known here");
        }
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ').map(str::to_string);
        let peer = field("peer").and_then(|text| text.parse().ok()).ok_or("no peer")?;
        let process = field("process").and_then(|text| ProcessId::from_hex(&text)).ok_or("no process")?;
        let stop = field("stop").and_then(|text| Digest::from_hex(&text)).ok_or("no stop token")?;
        let addrs: Vec<String> =
            lines.map_while(|line| line.strip_prefix("addr ")).map(str::to_string).collect();
        if addrs.len() > ADDRS_MAX || !addrs.iter().all(|addr| is_addr(addr)) {
            return Err("bad addresses");
        }
        Ok(Self { peer, process, stop_token: stop.0, addrs })
    }
}

fn is_addr(addr: &str) -> bool {
    !addr.is_empty() && addr.len() <= ADDR_BYTES_MAX && addr.bytes().all(|byte| byte.is_ascii_graphic())
}
