//! One task's work in a process of its own: a picture at which a decoder fails, or for which there is not
//! memory enough, ends that process and not the node; and work that nobody wants any more ends at once.
//!
//! The process is this program again (`cli::worker`). It gets the payload by its standard input, gives the
//! answer by its standard output, and ends. Nothing of a picture is written anywhere, and what it says on the
//! way is heard by nobody: that might be of the picture. It knows no home, no key and no network.

use std::{
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    model::{BodyId, limits},
    work::answer,
};

/// The first argument of such a process, which is no command for people; the second is the payload's length.
pub const ARGUMENT: &str = "__worker";

/// Of glibc's allocator (mallopt(3), "Tunables"): large pages, and freed memory is kept for what comes next.
/// A process that lives for one picture meets new pages only, and a sixth of its time went into them.
/// Elsewhere nobody reads it.
const MEMORY: (&str, &str) = (
    "GLIBC_TUNABLES",
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:\
     glibc.malloc.trim_threshold=1073741824:glibc.malloc.top_pad=67108864",
);

/// An answer in the pieces in which it is fetched, by their names.
pub(super) type Pieces = Vec<(BodyId, Arc<Vec<u8>>)>;

/// Ends the work of one task when it is dropped.
#[derive(Default)]
pub(super) struct Leash(Arc<Mutex<State>>);

/// The other end of a [`Leash`].
#[derive(Clone)]
pub(super) struct Held(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    #[default]
    NotBegun,
    Works(Child),
    Over,
}

impl Leash {
    pub(super) fn held(&self) -> Held {
        Held(Arc::clone(&self.0))
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.held().end();
    }
}

impl Held {
    /// Whatever is being done for it ends.
    pub(super) fn end(&self) {
        let mut state = lock(&self.0);
        match &mut *state {
            State::NotBegun => *state = State::Over,
            // Whoever reads from it sees its end, and buries it.
            State::Works(child) => drop(child.kill()),
            State::Over => {}
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Works on this payload in a process of its own, which `program` becomes; blocks until it has ended. Where
/// no process may be made, this thread does it; not where one cannot be made for want of memory, descriptors
/// or processes: the work would take this node's.
pub(super) fn work(program: Option<&Path>, payload: impl AsRef<[u8]>, held: &Held) -> Pieces {
    let begun = program.map(|program| begin(program, payload.as_ref().len(), held));
    let (stdin, stdout) = match begun {
        None => return pieces(&answer::work(payload.as_ref())),
        Some(Ok(Some(pipes))) => pipes,
        Some(Ok(None)) => return failure("nobody wants it any more"),
        Some(Err(error)) if is_forbidden(&error) => {
            tracing::warn!("there is no process for a task, a thread does it: {error}");
            return pieces(&answer::work(payload.as_ref()));
        }
        Some(Err(error)) => {
            tracing::warn!("there is no process for a task: {error}");
            return failure(answer::WORKER_FAILED);
        }
    };
    let answered = talk(stdin, stdout, payload);
    let status = match std::mem::replace(&mut *lock(&held.0), State::Over) {
        State::Works(mut child) => {
            if answered.is_err() {
                // It may not have noticed.
                drop(child.kill());
            }
            child.wait()
        }
        State::NotBegun | State::Over => return failure("nobody wants it any more"),
    };
    match (answered, status) {
        (Ok(answer), Ok(status)) if status.success() => answer,
        (answered, status) => {
            tracing::error!("a worker's process came to no good end: {status:?}, {:?}", answered.err());
            failure(answer::WORKER_FAILED)
        }
    }
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

/// Starts the process, unless its work is not wanted any more.
fn begin(program: &Path, bytes: usize, held: &Held) -> io::Result<Option<(ChildStdin, ChildStdout)>> {
    let mut state = lock(&held.0);
    if matches!(*state, State::Over) {
        return Ok(None);
    }
    let mut command = Command::new(program);
    // Ctrl-C at a node's terminal is for the node, which finishes its tasks first: so a group of its own.
    command.args([ARGUMENT, &bytes.to_string()]).env_clear().envs([MEMORY]).process_group(0);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let pipes = child.stdin.take().zip(child.stdout.take());
    *state = State::Works(child);
    Ok(pipes)
}

/// Gives it the payload, which is then let go, and reads its answer. It reads all before it says anything.
fn talk(mut stdin: ChildStdin, mut stdout: ChildStdout, payload: impl AsRef<[u8]>) -> io::Result<Pieces> {
    stdin.write_all(payload.as_ref())?;
    drop((stdin, payload));
    let mut pieces = Pieces::new();
    loop {
        // Each is named while the process writes the next.
        let mut bytes = Vec::with_capacity(limits::CHUNK_BYTES);
        stdout.by_ref().take(limits::CHUNK_BYTES as u64).read_to_end(&mut bytes)?;
        let is_last = bytes.len() < limits::CHUNK_BYTES;
        if !bytes.is_empty() {
            pieces.push(piece(bytes));
        }
        if is_last {
            return Ok(pieces);
        }
        if pieces.len() > limits::TASK_RESULT_BYTES_MAX / limits::CHUNK_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
}

/// An answer without a picture.
pub(super) fn failure(sentence: &str) -> Pieces {
    pieces(&answer::failure(sentence))
}

fn pieces(answer: &[u8]) -> Pieces {
    answer.chunks(limits::CHUNK_BYTES).map(|bytes| piece(bytes.to_vec())).collect()
}

fn piece(bytes: Vec<u8>) -> (BodyId, Arc<Vec<u8>>) {
    (BodyId(*blake3::hash(&bytes).as_bytes()), Arc::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(pieces: Pieces) -> String {
        let answer: Vec<u8> = pieces.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
        answer::read(answer).expect("an answer").expect_err("no picture comes of it")
    }

    #[test]
    fn without_a_process_a_thread_does_it() {
        for program in [None, Some(Path::new("/there/is/no/such/program"))] {
            let leash = Leash::default();
            let said = sentence(work(program, [1, 2, 3], &leash.held()));
            assert_eq!(said, sentence(pieces(&answer::work(&[1, 2, 3]))), "{program:?}");
        }
    }

    #[test]
    fn a_process_that_fails_is_a_sentence() {
        for program in ["/bin/false", "/bin/cat"] {
            let leash = Leash::default();
            let said = sentence(work(Some(Path::new(program)), vec![7; 1 << 20], &leash.held()));
            assert_eq!(said, answer::WORKER_FAILED, "{program}");
        }
    }

    #[test]
    fn an_answer_without_end_is_none() {
        let leash = Leash::default();
        let said = sentence(work(Some(Path::new("/usr/bin/yes")), [], &leash.held()));
        assert_eq!(said, answer::WORKER_FAILED);
    }

    #[test]
    fn pieces_are_the_answer_cut_and_named() {
        let answer = vec![3; 2 * limits::CHUNK_BYTES + 5];
        let cut = pieces(&answer);
        assert_eq!(cut.iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>(), [1 << 20, 1 << 20, 5]);
        assert_eq!(cut[0].0, BodyId(*blake3::hash(&answer[..limits::CHUNK_BYTES]).as_bytes()));
    }

    #[test]
    fn what_nobody_wants_ends_at_once() {
        let leash = Leash::default();
        let held = leash.held();
        drop(leash);
        assert_eq!(sentence(work(Some(Path::new("/bin/cat")), [1], &held)), "nobody wants it any more");

        // One that would read for ever: it is ended from outside.
        let leash = Leash::default();
        let held = leash.held();
        let worker = std::thread::spawn(move || work(Some(Path::new("/usr/bin/yes")), [1], &held));
        while !matches!(*lock(&leash.0), State::Works(_)) {
            std::thread::yield_now();
        }
        drop(leash);
        assert_eq!(sentence(worker.join().expect("it ends")), answer::WORKER_FAILED);
    }
}
