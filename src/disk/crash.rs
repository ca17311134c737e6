//! Named points at which a test can make the process die, as if the power went.
//!
//! Without the feature `crash-points` this is nothing. With it, `TINTYPE_CRASH_AT=name` kills the process
//! when that point is reached, `name:3` when it is reached the third time: no unwinding, nothing flushed.
//! It must never be on in what people run.

/// All names, sorted: the tests die at each.
pub const CRASH_POINTS: &[&str] = &[
    "client.put.before_propose",
    "client.put.chunks_stored",
    "client.put.manifest_stored",
    "client.put.proposed",
    "client.put.sealed",
    "disk.batch.answering",
    "disk.batch.before_commit",
    "disk.batch.committed",
    "disk.batch.gathered",
    "disk.boot.before_count",
    "disk.boot.counted",
    "disk.boot.locked",
    "disk.boot.opened",
    "disk.boot.records_durable",
    "disk.boot.records_made",
    "disk.boot.records_placed",
    "disk.chunk.durable",
    "disk.chunk.folder_made",
    "disk.chunk.folder_synced",
    "disk.chunk.placed",
    "disk.chunk.temp_created",
    "disk.chunk.temp_synced",
    "disk.chunk.temp_written",
    "disk.client_log.append_durable",
    "disk.client_log.appended",
    "disk.client_log.before_append",
    "disk.client_log.durable",
    "disk.client_log.half_appended",
    "disk.client_log.placed",
    "disk.client_log.temp_created",
    "disk.client_log.temp_synced",
    "disk.client_log.temp_written",
    "disk.dir.durable",
    "disk.dir.made",
    "disk.format.durable",
    "disk.format.placed",
    "disk.format.temp_created",
    "disk.format.temp_synced",
    "disk.format.temp_written",
    "disk.key.durable",
    "disk.key.placed",
    "disk.key.temp_created",
    "disk.key.temp_synced",
    "disk.key.temp_written",
    "disk.machine.durable",
    "disk.machine.placed",
    "disk.machine.temp_created",
    "disk.machine.temp_synced",
    "disk.machine.temp_written",
    "disk.node_addr.durable",
    "disk.node_addr.placed",
    "disk.node_addr.removed",
    "disk.node_addr.temp_created",
    "disk.node_addr.temp_synced",
    "disk.node_addr.temp_written",
    "disk.quarantine.before_move",
    "disk.quarantine.moved",
    "disk.rolled_back.durable",
    "disk.rolled_back.placed",
    "disk.rolled_back.temp_created",
    "disk.rolled_back.temp_synced",
    "disk.rolled_back.temp_written",
    "node.founding.abort_written",
    "node.founding.after_write",
    "node.founding.before_ready",
    "node.founding.before_send",
    "node.founding.before_write",
];

/// The points of a file that is written under a temporary name and put in place whole.
pub(super) struct Steps {
    /// The temporary file exists, empty.
    pub temp_created: &'static str,
    /// It holds the bytes, perhaps only in memory.
    pub temp_written: &'static str,
    /// They are on the disk.
    pub temp_synced: &'static str,
    /// It has its name, perhaps only in memory.
    pub placed: &'static str,
    /// The name is on the disk.
    pub durable: &'static str,
}

/// The [`Steps`] of one kind of file.
macro_rules! steps {
    ($name:literal) => {
        $crate::disk::crash::Steps {
            temp_created: concat!($name, ".temp_created"),
            temp_written: concat!($name, ".temp_written"),
            temp_synced: concat!($name, ".temp_synced"),
            placed: concat!($name, ".placed"),
            durable: concat!($name, ".durable"),
        }
    };
}
pub(super) use steps;

/// Dies here if a test wants it.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub const fn crash_point(_name: &'static str) {}

/// Dies here if a test wants it.
#[cfg(feature = "crash-points")]
pub fn crash_point(name: &'static str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static REACHED: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| std::env::var("TINTYPE_CRASH_AT").ok().map(|text| wanted(&text)));
    if let Some((at, time)) = wanted
        && at == name
        && REACHED.fetch_add(1, Ordering::SeqCst) + 1 == *time
    {
        std::process::abort();
    }
}

#[cfg(feature = "crash-points")]
fn wanted(text: &str) -> (String, u64) {
    match text.rsplit_once(':').and_then(|(name, time)| Some((name, time.parse().ok()?))) {
        Some((name, time)) => (name.to_string(), time),
        None => (text.to_string(), 1),
    }
}
