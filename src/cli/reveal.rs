//! `tintype reveal`: what is hidden in a picture. No node is asked.

use std::{io::IsTerminal, path::PathBuf, sync::Arc};

use serde::Serialize;

use super::{
    context::Context,
    picture::{self, Target, to_stdout},
    problem::{Halt, Outcome},
    text,
    work::{self, blocking},
};
use crate::{
    api::{Exit, Problem},
    client::hidden::{self, Found, NotOpened},
    work::Frames,
};

/// `reveal`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The picture; `-` is standard input
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// Write what is hidden to this file, byte for byte; `-` is standard output [default: print it]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Take what the first four bytes count, whatever it is: for files that another tool has hidden
    #[arg(long)]
    unmarked: bool,
    /// Replace a file that is there and differs
    #[arg(long)]
    force: bool,
}

/// The names are a promise of `--json`.
#[derive(Serialize)]
struct Done<'a> {
    image: &'a str,
    /// What was hidden, if it is a text; null also when it was written to a file.
    text: Option<&'a str>,
    bytes: u64,
    sealed: bool,
    path: Option<&'a std::path::Path>,
}

/// Bytes that were hidden, and for whom.
struct Revealed {
    payload: Vec<u8>,
    sealed: bool,
}

/// Reveals, and prints or writes it.
///
/// # Errors
/// Nothing hidden (3), or for another user (3); no picture, changed, no key.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    let whose = picture::name(&args.image);
    let target = match &args.output {
        Some(given) => Some(Target::plan(Some(given), &args.image, str::to_owned, &context.output)?),
        None => None,
    };
    let image = picture::read(&args.image).await?;
    let revealed = reveal(args, image, &whose, context).await?;
    let text = std::str::from_utf8(&revealed.payload).ok();
    let done = |text, path| Done {
        image: &whose,
        text,
        bytes: revealed.payload.len() as u64,
        sealed: revealed.sealed,
        path,
    };
    match target {
        Some(target) => {
            target.write(revealed.payload.clone(), args.force).await?;
            let done = done(None, target.path());
            match target {
                Target::Stdout => {}
                Target::File(_) => context.output.answer(&done, || sentence(&done))?,
            }
        }
        None if context.output.json() => context.output.object(&done(text, None))?,
        // Where other answers follow, a text has a line of its own.
        None if std::io::stdout().is_terminal() || context.in_shell => {
            print(text, &revealed.payload, &whose, context)?
        }
        // A pipe gets the bytes, and not one more.
        None => to_stdout(&revealed.payload)?,
    }
    Ok(Exit::Done)
}

/// To a terminal, or among other answers, goes a text, and nothing that steers it.
fn print(text: Option<&str>, payload: &[u8], whose: &str, context: &Context) -> Result<(), Halt> {
    let fits = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r');
    match text.filter(|text| text.chars().all(fits)) {
        Some(text) => Ok(context.output.line(text)?),
        None => Err(Problem::failed(
            format!("{whose}: what is hidden here ({}) is no text", text::size(payload.len() as u64)),
            "write it to a file with -o FILE",
        )
        .into()),
    }
}

async fn reveal(args: &Args, image: Vec<u8>, whose: &str, context: &Context) -> Result<Revealed, Halt> {
    let unmarked = args.unmarked;
    let found = blocking(move || {
        let pixels = hidden::pixels(&image, Frames::First)?;
        let found = match hidden::find(&pixels) {
            Found::Nothing | Found::Broken if unmarked => hidden::unmarked(&pixels)
                .map_or(Found::Nothing, |payload| Found::Plain { payload, marked: false }),
            found => found,
        };
        Ok((pixels, found))
    });
    let (pixels, found) = found.await?.map_err(|error| work::problem(whose, &error))?;
    match found {
        Found::Nothing => Err(nothing(whose).into()),
        Found::Broken => Err(Problem::failed(
            format!("{whose}: something is hidden here, but it has been changed"),
            "look for the PNG that `hide` wrote; --unmarked shows the bytes as they are",
        )
        .into()),
        Found::Plain { payload, marked } => {
            if !marked {
                context.output.talk("Another tool hid this: nothing in the picture proves that it is whole.");
            }
            Ok(Revealed { payload, sealed: false })
        }
        Found::Sealed => {
            let keys = context.user_keys(false).await?;
            let opened = blocking(move || hidden::open(&pixels, &Arc::clone(&keys))).await?;
            let payload = opened.map_err(|error| not_opened(whose, error))?;
            Ok(Revealed { payload, sealed: true })
        }
    }
}

fn nothing(whose: &str) -> Problem {
    Problem {
        error: format!("{whose}: nothing hidden here"),
        remedy: "a copy that was sent as JPEG, or scaled, has lost what was hidden; look for the PNG".into(),
        exit: Exit::NotFound,
    }
}

fn not_opened(whose: &str, error: NotOpened) -> Problem {
    let error_text = format!("{whose}: {error}");
    match error {
        NotOpened::OtherKey => Problem {
            error: error_text,
            remedy: "name its user with --as USER; `tintype user import FILE` brings in a key".into(),
            exit: Exit::NotFound,
        },
        NotOpened::Damaged => Problem::failed(error_text, "look for the PNG as it was written"),
    }
}

fn sentence(done: &Done<'_>) -> String {
    let path = done.path.map_or_else(String::new, |path| format!("  -> {}", text::path(path)));
    let sealed = if done.sealed { "  sealed" } else { "" };
    format!("{}  {}{sealed}{path}", done.image, text::size(done.bytes))
}
