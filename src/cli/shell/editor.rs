//! The line editor: history, completion, and the thread on which it waits for keys.
//!
//! It waits on a thread of its own, because the connection to the vault must stay alive while nobody types.

use std::{path::PathBuf, sync::mpsc as std_mpsc, thread};

use rustyline::{
    Context, Editor,
    completion::{Completer, FilenameCompleter, Pair},
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::FileHistory,
    validate::Validator,
};
use tokio::sync::mpsc;

use super::words::{escaped, last_word_start, words};

/// The words that may begin a line.
pub(super) const COMMANDS: [&str; 19] = [
    "upload",
    "download",
    "ls",
    "stat",
    "rm",
    "undelete",
    "where",
    "verify",
    "hide",
    "reveal",
    "stego",
    "thumbnail",
    "strip",
    "task",
    "history",
    "election",
    "status",
    "help",
    "quit",
];

/// Those of them that work on the user's own files.
const OF_FILES: [&str; 7] = ["upload", "put", "hide", "reveal", "stego", "thumbnail", "strip"];

/// Candidates shown at once; more help nobody.
const CANDIDATES_MAX: usize = 200;

/// What a person did at the prompt.
#[derive(Debug)]
pub(super) enum Typed {
    /// A line.
    Line(String),
    /// Ctrl-C: the line is thrown away.
    Interrupted,
    /// Ctrl-D, or the terminal is gone.
    End,
    /// The editor cannot go on.
    Failed(String),
}

/// A prompt on a thread of its own. It reads one line at each call of [`Prompt::read`].
pub(super) struct Prompt {
    go: std_mpsc::SyncSender<Vec<String>>,
    typed: mpsc::Receiver<Typed>,
    _terminal: Terminal,
}

/// The terminal as it was found. It is left so also when the shell ends while the editor waits for a key.
#[cfg(unix)]
struct Terminal(Option<rustix::termios::Termios>);

#[cfg(unix)]
impl Terminal {
    fn found() -> Self {
        Self(rustix::termios::tcgetattr(std::io::stdin()).ok())
    }
}

#[cfg(unix)]
impl Drop for Terminal {
    fn drop(&mut self) {
        use rustix::termios::{OptionalActions, tcsetattr};
        if let Some(found) = &self.0 {
            // One that is gone needs nothing.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, found);
        }
    }
}

/// Elsewhere the system gives it back as it was.
#[cfg(not(unix))]
struct Terminal;

#[cfg(not(unix))]
impl Terminal {
    fn found() -> Self {
        Self
    }
}

impl Prompt {
    /// Starts the thread. `history` is made for its owner alone.
    pub(super) fn start(prompt: String, history: PathBuf) -> std::io::Result<Self> {
        let (go, asked) = std_mpsc::sync_channel(1);
        let (answer, typed) = mpsc::channel(1);
        let terminal = Terminal::found();
        thread::Builder::new()
            .name("prompt".into())
            .spawn(move || run(&prompt, &history, &asked, &answer))?;
        Ok(Self { go, typed, _terminal: terminal })
    }

    /// Reads a line; `objects` are completed after commands that take them.
    pub(super) async fn read(&mut self, objects: &[String]) -> Typed {
        if self.go.try_send(objects.to_vec()).is_err() {
            return Typed::End;
        }
        self.typed.recv().await.unwrap_or(Typed::End)
    }
}

fn run(
    prompt: &str,
    history: &PathBuf,
    asked: &std_mpsc::Receiver<Vec<String>>,
    answer: &mpsc::Sender<Typed>,
) {
    let mut editor = match editor(history) {
        Ok(editor) => editor,
        Err(error) => {
            // The other side only leaves when the program ends.
            let _ = answer.blocking_send(Typed::Failed(error.to_string()));
            return;
        }
    };
    while let Ok(objects) = asked.recv() {
        if let Some(helper) = editor.helper_mut() {
            helper.objects = objects;
        }
        let typed = match editor.readline(prompt) {
            Ok(line) => {
                // A history that cannot be written is a comfort lost, not a reason to stop.
                let _ = editor.append_history(history);
                Typed::Line(line)
            }
            Err(ReadlineError::Interrupted) => Typed::Interrupted,
            Err(ReadlineError::Eof) => Typed::End,
            Err(error) => Typed::Failed(error.to_string()),
        };
        if answer.blocking_send(typed).is_err() {
            return;
        }
    }
}

fn editor(history: &PathBuf) -> rustyline::Result<Editor<Helper, FileHistory>> {
    let config = rustyline::Config::builder()
        .auto_add_history(true)
        .history_ignore_space(true)
        .completion_type(rustyline::CompletionType::List)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Helper { files: FilenameCompleter::new(), objects: Vec::new() }));
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    if options.open(history).is_ok() {
        // A damaged history is no reason not to start.
        let _ = editor.load_history(history);
    }
    Ok(editor)
}

struct Helper {
    files: FilenameCompleter,
    objects: Vec<String>,
}

impl Completer for Helper {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..pos];
        match typed.split_whitespace().next() {
            Some(first) if OF_FILES.contains(&first) && typed.contains(char::is_whitespace) => {
                self.files.complete_path(line, pos)
            }
            _ => Ok(candidates(typed, &self.objects)),
        }
    }
}
impl Hinter for Helper {
    type Hint = String;
}
impl Highlighter for Helper {}
impl Validator for Helper {}
impl rustyline::Helper for Helper {}

/// Commands at the beginning, names of objects after it.
fn candidates(typed: &str, objects: &[String]) -> (usize, Vec<Pair>) {
    let start = last_word_start(typed);
    let begun = words(&typed[start..]).ok().and_then(|words| words.into_iter().next()).unwrap_or_default();
    let pair = |word: &str| Pair { display: crate::cli::text::sanitised(word), replacement: escaped(word) };
    let first = typed[..start].trim().is_empty();
    let found = if first {
        COMMANDS.iter().filter(|name| name.starts_with(&begun)).map(|name| pair(name)).collect()
    } else {
        let fitting = objects.iter().filter(|name| name.starts_with(&begun));
        fitting.take(CANDIDATES_MAX).map(|name| pair(name)).collect()
    };
    (start, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_first_and_objects_after_them() {
        let objects = ["trip/a.png".to_owned(), "trip/b c.png".to_owned(), "other".to_owned()];
        let replacements = |typed: &str| {
            let (start, found) = candidates(typed, &objects);
            (start, found.into_iter().map(|pair| pair.replacement).collect::<Vec<_>>())
        };
        assert_eq!(replacements("u"), (0, vec!["upload".into(), "undelete".into()]));
        assert_eq!(replacements("download tr"), (9, vec!["trip/a.png".into(), "trip/b\\ c.png".into()]));
        assert_eq!(replacements("download trip/b\\ c"), (9, vec!["trip/b\\ c.png".into()]));
        assert_eq!(replacements("rm x "), (5, objects.iter().map(|o| escaped(o)).collect()));
    }
}
