//! What asks a command to end: Ctrl-C, SIGTERM, and a terminal that goes away (SIGHUP).
//!
//! A process that was started to outlive its terminal, as by `nohup`, never has its SIGHUP taken: a handler
//! would undo what its user asked for.

/// Who wants an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// A person at the terminal, of what is being done.
    CtrlC,
    /// Somebody else, of the process.
    Told,
}

/// Ctrl-C, or as [`told_to_end`]: whoever has started processes, or has work done elsewhere, must end that
/// then, too.
pub async fn interrupted() -> Interruption {
    tokio::select! {
        () = signalled(tokio::signal::ctrl_c()) => Interruption::CtrlC,
        () = told_to_end() => Interruption::Told,
    }
}

/// On Unix a SIGTERM, or the end of the terminal.
pub async fn told_to_end() {
    tokio::select! {
        () = terminated() => {}
        () = hung_up() => {}
    }
}

/// Whether the end of the terminal is to end this process in order. Where it cannot be told whether SIGHUP
/// was ignored from the start, it is left as it is: who ignores it goes on, anybody else ends at once.
pub fn heeds_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    is_hangup_ignored(&status) == Some(false)
}

/// Of what Linux says of a process, proc_pid_status(5): the mask of ignored signals, of which SIGHUP is the
/// first; none if it does not say.
fn is_hangup_ignored(status: &str) -> Option<bool> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    Some(u64::from_str_radix(mask.trim(), 16).ok()? & 1 == 1)
}

#[cfg(unix)]
async fn terminated() {
    heard(tokio::signal::unix::SignalKind::terminate()).await;
}

#[cfg(unix)]
async fn hung_up() {
    match heeds_hangup() {
        true => heard(tokio::signal::unix::SignalKind::hangup()).await,
        false => std::future::pending().await,
    }
}

#[cfg(unix)]
async fn heard(kind: tokio::signal::unix::SignalKind) {
    match tokio::signal::unix::signal(kind) {
        Ok(mut signal) => signalled(async { signal.recv().await.ok_or(()) }).await,
        Err(_) => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}

#[cfg(not(unix))]
async fn hung_up() {
    std::future::pending().await
}

/// Without a handler the operating system ends the program itself.
async fn signalled<T, E>(signal: impl Future<Output = Result<T, E>>) {
    if signal.await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_whether_the_end_of_the_terminal_is_ignored() {
        let of = |mask: &str| is_hangup_ignored(&format!("Name:\ttintype\nSigIgn:\t{mask}\nSigCgt:\t3\n"));
        assert_eq!(of("0000000000000001"), Some(true));
        assert_eq!(of("0000000000001003"), Some(true));
        assert_eq!(of("0000000000001000"), Some(false));
        assert_eq!(of("no number"), None);
        assert_eq!(is_hangup_ignored(""), None);
    }
}
