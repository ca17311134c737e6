//! What is printed: answers on stdout, talk on stderr, in words or as one JSON object a line.
//!
//! All printing of the program goes through here, so that nothing steers a terminal, a progress bar is never
//! torn, and a reader that goes away ends the program quietly.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
};

use indicatif::ProgressBar;
use serde::Serialize;

use super::text;
use crate::api::Problem;

/// Where and how this run prints. Cheap to clone; all clones share one progress bar.
#[derive(Clone, Debug)]
pub struct Output {
    json: bool,
    quiet: bool,
    colour: bool,
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
    bar: Arc<Mutex<Option<ProgressBar>>>,
}

/// The last line of a run that failed, with `--json`.
#[derive(Serialize)]
struct ProblemLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    error: &'a str,
    remedy: &'a str,
    exit: u8,
}

impl Output {
    /// `NO_COLOR`, set to anything, turns colours off (no-color.org).
    pub fn new(json: bool, quiet: bool) -> Self {
        let stderr_is_terminal = io::stderr().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            json,
            quiet,
            colour: stderr_is_terminal && !no_colour,
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal,
            bar: Arc::default(),
        }
    }

    /// Whether answers are JSON.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whether what goes to stderr may be coloured.
    pub fn colour(&self) -> bool {
        self.colour
    }

    /// Whether stdout is a terminal.
    pub fn stdout_is_terminal(&self) -> bool {
        self.stdout_is_terminal
    }

    /// Whether progress bars make sense: a terminal, and somebody who wants to see them.
    pub fn wants_bars(&self) -> bool {
        self.stderr_is_terminal && !self.quiet && !self.json
    }

    /// One answer in words.
    ///
    /// # Errors
    /// As stdout says; a closed pipe among them.
    pub fn line(&self, line: &str) -> io::Result<()> {
        let line = if self.stdout_is_terminal { text::sanitised(line) } else { text::upright(line) };
        self.undisturbed(|| {
            let mut stdout = io::stdout().lock();
            writeln!(stdout, "{line}")?;
            stdout.flush()
        })
    }

    /// Several answers in words.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn lines(&self, lines: impl IntoIterator<Item = String>) -> io::Result<()> {
        lines.into_iter().try_for_each(|line| self.line(&line))
    }

    /// One answer as a JSON object on a line of its own.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn object(&self, object: &impl Serialize) -> io::Result<()> {
        let line = serde_json::to_string(object)?;
        self.undisturbed(|| {
            let mut stdout = io::stdout().lock();
            writeln!(stdout, "{line}")?;
            stdout.flush()
        })
    }

    /// An answer in the form that was asked for.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn answer(&self, object: &impl Serialize, words: impl FnOnce() -> String) -> io::Result<()> {
        if self.json { self.object(object) } else { self.line(&words()) }
    }

    /// Talk, which nobody needs: on stderr, and not with `--quiet`.
    pub fn talk(&self, sentence: &str) {
        if !self.quiet {
            self.warn(sentence);
        }
    }

    /// What a person must see even with `--quiet`.
    pub fn warn(&self, sentence: &str) {
        self.to_stderr(&text::sanitised(sentence));
    }

    /// The error that ends the run: as the last line of stdout with `--json`, else on stderr with its remedy.
    pub fn problem(&self, problem: &Problem) {
        self.tell(None, problem);
    }

    /// The error of one of several files; the run goes on.
    pub fn problem_of(&self, name: &str, problem: &Problem) {
        self.tell(Some(name), problem);
    }

    fn tell(&self, name: Option<&str>, problem: &Problem) {
        let Problem { error, remedy, exit } = problem;
        if self.json {
            // There is nowhere to say that this could not be said.
            let _ = self.object(&ProblemLine { name, error, remedy, exit: *exit as u8 });
            return;
        }
        let label = if self.colour { "\u{1b}[1;31merror:\u{1b}[0m" } else { "error:" };
        let name = name.map(|name| text::path(name.as_ref()));
        let whose =
            name.filter(|name| !error.contains(name)).map_or(String::new(), |name| format!("{name}: "));
        let mut lines = format!("{label} {}", text::sanitised(&format!("{whose}{error}")));
        if !remedy.is_empty() {
            lines = format!("{lines}\n       {}", text::sanitised(remedy));
        }
        self.to_stderr(&lines);
    }

    /// Shows this bar from now on, or none.
    pub(super) fn set_bar(&self, bar: Option<ProgressBar>) {
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = bar;
    }

    fn to_stderr(&self, lines: &str) {
        self.undisturbed(|| {
            // There is nowhere to say that this could not be said.
            let _ = writeln!(io::stderr(), "{lines}");
        });
    }

    fn undisturbed<T>(&self, print: impl FnOnce() -> T) -> T {
        let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}
