//! What processes have cost so far, as Linux counts it: exact, also for threads that have ended. See
//! proc_pid_stat(5).

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// Ticks in a second in which Linux tells these times, whatever its own clock is.
const TICKS_PER_S: f64 = 100.0;

/// Seconds of processor time, user's and system's, of one process and all its threads so far.
pub(super) fn of_process(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("a process has ended")?;
    Ok(parse(&stat).context("the system tells its times otherwise")?.1)
}

/// The same of several processes together.
pub(super) fn of_processes(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| of_process(*pid)).sum()
}

/// The same by the name of the thread, for the threads that live.
pub(super) fn by_thread(pids: &[u32]) -> Result<BTreeMap<String, f64>> {
    let mut all = BTreeMap::new();
    for pid in pids {
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).context("a process has ended")? {
            // A thread may end at any time; its time stays in that of the process.
            let Ok(stat) = std::fs::read_to_string(task?.path().join("stat")) else { continue };
            let (name, s) = parse(&stat).context("the system tells its times otherwise")?;
            *all.entry(name.to_owned()).or_insert(0.0) += s;
        }
    }
    Ok(all)
}

/// The name and the seconds in a line of `stat`. The name may have blanks and brackets in it.
fn parse(stat: &str) -> Option<(&str, f64)> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let mut fields = after.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some((name, ticks as f64 / TICKS_PER_S))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_found_behind_any_name() {
        let rest = "S 1 2 3 0 -1 4194560 9 0 0 0 250 50 7 7 20 0 4 0 100 0 0";
        assert_eq!(parse(&format!("12 (tintype) {rest}")), Some(("tintype", 3.0)));
        assert_eq!(parse(&format!("12 (a) b (c) {rest}")), Some(("a) b (c", 3.0)));
        assert_eq!(parse("12 (short) S 1 2"), None);
        assert_eq!(parse(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn work_costs_time() {
        let me = std::process::id();
        let before = of_process(me).unwrap();
        let mut bytes = vec![7; 1 << 20];
        while of_process(me).unwrap() <= before {
            bytes = blake3::hash(&bytes).as_bytes().repeat(1 << 15);
        }
        // Who worked may have ended since: only that there are threads is sure.
        assert!(!by_thread(&[me]).unwrap().is_empty());
        assert_eq!(of_processes(&[]).unwrap(), 0.0);
    }
}
