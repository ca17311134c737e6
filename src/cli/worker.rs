//! A process that works on one task and knows nothing else; a node starts it (`node::worker`).
//!
//! It is no command for people. It reads a payload, writes an answer, and says how that went by its exit code
//! only: whatever goes wrong, no word and no image of its memory shall lie anywhere.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    process::ExitCode,
};

use crate::{model::limits, node::worker::ARGUMENT, work::answer};

/// The whole process, if these arguments are one's.
pub fn run(arguments: &[OsString]) -> Option<ExitCode> {
    let payload_bytes = payload_bytes(arguments)?;
    std::panic::set_hook(Box::new(|_| std::process::exit(1)));
    let is_well = payload_bytes <= limits::TASK_PAYLOAD_BYTES_MAX && answer(payload_bytes).is_ok();
    Some(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn payload_bytes(arguments: &[OsString]) -> Option<u64> {
    let [_, argument, bytes] = arguments else { return None };
    bytes.to_str().filter(|_| argument == ARGUMENT)?.parse().ok()
}

fn answer(payload_bytes: u64) -> io::Result<()> {
    // Linux: where memory runs out, this process goes before a node does. Elsewhere nobody reads it.
    drop(std::fs::write("/proc/self/oom_score_adj", "1000"));
    let mut payload = Vec::with_capacity(usize::try_from(payload_bytes).unwrap_or(0));
    io::stdin().lock().take(payload_bytes).read_to_end(&mut payload)?;
    if payload.len() as u64 != payload_bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let answer = answer::work(&payload);
    drop(payload);
    let mut out = io::stdout().lock();
    out.write_all(&answer)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_arguments_make_a_worker() {
        let arguments = |all: &[&str]| all.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(payload_bytes(&arguments(&["tintype", ARGUMENT, "3"])), Some(3));
        for other in
            [&["tintype"][..], &["tintype", "ls", "3"], &["tintype", ARGUMENT], &["tintype", ARGUMENT, "-1"]]
        {
            assert_eq!(payload_bytes(&arguments(other)), None);
        }
    }
}
