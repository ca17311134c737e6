//! Asking a person for a passphrase without showing it.
//!
//! Scripts give it in the environment. It is never taken from the command line, which other users of the
//! machine can read.

use std::{borrow::Cow, io, sync::Arc};

use rustyline::{
    Behavior, ColorMode, Config, Editor,
    completion::Completer,
    error::ReadlineError,
    highlight::{CmdKind, Highlighter},
    hint::Hinter,
    history::MemHistory,
    validate::Validator,
};
use zeroize::Zeroizing;

use crate::api::{Passphrase, Problem};

/// The passphrase for scripts.
pub const VARIABLE: &str = "TINTYPE_PASSPHRASE";

/// Shows spaces for what is typed.
struct Masked;

impl Highlighter for Masked {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        Cow::Owned(" ".repeat(line.chars().count()))
    }

    fn highlight_char(&self, _: &str, _: usize, _: CmdKind) -> bool {
        true
    }
}

impl Completer for Masked {
    type Candidate = String;
}
impl Hinter for Masked {
    type Hint = String;
}
impl Validator for Masked {}
impl rustyline::Helper for Masked {}

/// Asks when a sealed key is met: the environment first, then the terminal.
pub fn ask_when_needed() -> Passphrase {
    Passphrase(Arc::new(|user: &str| match from_environment() {
        Some(passphrase) => Ok(passphrase.to_string()),
        None => prompt(&format!("Passphrase of {user}: ")).map(|passphrase| passphrase.to_string()),
    }))
}

/// A new passphrase, typed twice, or from the environment.
///
/// # Errors
/// No terminal and no variable; two that differ; an empty one.
pub fn new_one(user: &str) -> Result<Zeroizing<String>, Problem> {
    let again = "run it again, or set TINTYPE_PASSPHRASE";
    let chosen = match from_environment() {
        Some(passphrase) => passphrase,
        None => {
            let ask = |question: String| prompt(&question).map_err(|e| Problem::failed(e.to_string(), again));
            let first = ask(format!("New passphrase for {user}: "))?;
            if *first != *ask("The same again: ".into())? {
                return Err(Problem::failed("the two passphrases differ", again));
            }
            first
        }
    };
    if chosen.is_empty() {
        return Err(Problem::failed(
            "an empty passphrase protects nothing",
            "choose one, or leave --passphrase out",
        ));
    }
    Ok(chosen)
}

fn from_environment() -> Option<Zeroizing<String>> {
    std::env::var(VARIABLE).ok().map(Zeroizing::new)
}

/// Reads from the terminal itself, so that stdin may be a picture.
fn prompt(question: &str) -> io::Result<Zeroizing<String>> {
    if !io::IsTerminal::is_terminal(&io::stderr()) {
        let why =
            format!("a passphrase is needed and there is no terminal to ask on ({VARIABLE} is not set)");
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    let config = Config::builder()
        .behavior(Behavior::PreferTerm)
        .color_mode(ColorMode::Forced)
        .auto_add_history(false)
        .build();
    let mut editor = Editor::<Masked, MemHistory>::with_history(config, MemHistory::new()).map_err(to_io)?;
    editor.set_helper(Some(Masked));
    editor.readline(question).map(Zeroizing::new).map_err(to_io)
}

fn to_io(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::Io(error) => error,
        ReadlineError::Interrupted | ReadlineError::Eof => {
            io::Error::new(io::ErrorKind::Interrupted, "no passphrase was given")
        }
        other => io::Error::other(other.to_string()),
    }
}
