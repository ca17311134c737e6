//! tintype: the machines you already own, as one encrypted vault for pictures.
//!
//! # The rooms, and who may use whom
//! ```text
//! main                                arguments -> run -> exit code
//! cli                                 one file per command
//! api                                 the one door for the command line and tests
//! node, client                        conduct: a node; a client
//! net, disk, work                     do: the only room with libp2p; the only one with files and redb; one
//!                                     task on one picture, in memory
//! proto, seal, stego                  decide; encrypt; hide: pure, no clock, socket, file or randomness
//! model                               the nouns, their encodings, every bound
//! ```
//! Imports go down only, and may skip rows; rooms of one row do not see each other. `tests/it/layers.rs`
//! keeps it so. Only `net` names libp2p, quinn and rustls, only `disk` names redb and the home's files,
//! only `cli` names clap and anyhow. What the pure rooms need of the world, a time or random bytes, is an
//! argument.
//!
//! # How one put travels
//! 1. `cli::put` finds the files and their names; `client::files` opens each and looks whether it is whole.
//! 2. `client::put` cuts it into chunks of 1 MiB and lets `seal::chunk` encrypt them; a chunk's name is the
//!    hash of its ciphertext, so what is stored already is not sent again.
//! 3. `client::upload` sends each chunk once, over `net::bulk`, to the first holder of its
//!    `proto::placement`.
//! 4. There `node::bodies` has `disk` write it and passes it on to the next holder while it still comes in.
//!    A receipt names the nodes that have it durably; two are enough, the third copy follows. Whom it missed
//!    `proto::hints` remembers, so that it is offered again.
//! 5. The client reads the object's register from its home proposer, lets `seal::manifest` make the next
//!    version's manifest, sends that like a chunk, signs the new register value and sends it, over
//!    `net::rpc`, to any node.
//! 6. `node::serve` checks the signature and hands the value to `proto::chunkpaxos`, whose home proposer
//!    has a majority of the object's acceptors accept it. Each promise is on disk before it is spoken.
//! 7. The answer says how many copies are durable and how many machines may be lost (`survives`).
//!
//! # How one task travels
//! 1. `cli::hide` (or `thumbnail`, `strip`) makes an order, `work::envelope` puts it and the picture into
//!    one string of bytes, `client::tasks` drives `proto::errand`.
//! 2. It submits the task to the coordinator, whom `proto::election` has elected; there `proto::history`
//!    asks the least loaded worker for a place, and tells everybody who works.
//! 3. The client brings the bytes to the worker in pieces (`net::bulk`), into `node::workbench`;
//!    in a process of its own (`node::worker`, `cli::worker`) `work::answer` opens them, carries the order
//!    out and writes down what came of it.
//! 4. The client fetches that, checks it, makes it count, and acknowledges. Whatever does not serve
//!    meanwhile, a worker or a coordinator, is passed over for another.
//!
//! # Decisions
//! - **Machines decide, conductors do.** Everything in `proto` is a state machine without I/O: event and
//!   time in, actions out. `node::event_loop` feeds them, `node::execute` carries the actions out. So a
//!   test can drive whole clusters through every schedule.
//! - **One consensus per object.** A register per object and no log: writes of different objects never wait
//!   for each other, and no leader's death stops them.
//! - **The client encrypts and signs.** A node cannot read, forge or rename; it checks ids and signatures
//!   only.
//! - **Admission is part of the transport.** A peer without the cluster's key meets no protocol at all.
//! - **Persist, then speak.** One thread writes promises, votes and small bodies, one durable batch at a
//!   time. After a failed sync the node stops.
//! - **Everything is bounded**, each bound in [`model::limits`] with its reason. Full is an answer, not a
//!   wait.
//! - **Nothing is deleted yet.** `rm` writes a tombstone.
//! - **Tasks are hints.** Who works on what is in memory and gossip; only the client, which has the picture,
//!   makes one answer count. So two coordinators, late answers and forgotten history do no harm.

pub mod model;

pub mod api;
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod cli;
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod client;
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod disk;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod net;
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod node;
pub mod proto;
pub mod seal;
pub mod stego;
pub mod work;
