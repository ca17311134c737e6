//! The one integration binary: the real program and whole networks on loopback.

// Tests touch the world: they may ask what time it is.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod answers;
mod bad_links;
mod bad_peers;
mod cli;
mod cluster;
mod consensus;
mod crashes;
mod faults;
mod foe;
mod founding;
mod fuzzing;
mod history;
mod homes;
mod hostile;
mod inspect;
mod kept;
mod lan;
mod layers;
mod many;
mod mixed_load;
mod namespaces;
mod older;
mod patient;
mod processes;
mod put_get;
mod readme;
mod signals;
mod sim;
mod source;
mod stego;
mod tasks;
mod tidy;
mod transport;
mod versions;
