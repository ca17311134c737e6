//! `tintype user`: keys of users in this home: made, listed, backed up, taken back.
//!
//! Who has a key reads that user's pictures; who has lost it never will again. So a key is never overwritten,
//! never printed unless asked for, and what it needs is said in words.

use std::{
    io::{IsTerminal, Read},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    context::{Context, back_up_now},
    passphrase,
    problem::{Halt, Outcome, usage},
    text,
};
use crate::{
    api::{Exit, Problem},
    client::{Error, files::destination},
    seal::{
        key_file::{self, KeyFile},
        keys::{UserKeys, UserSecret},
    },
};

/// More than any key file has: what is longer is something else.
const KEY_TEXT_BYTES_MAX: u64 = 64 << 10;

/// `user`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a user: a new random key
    Add {
        /// The user's name, in this home only; letters, digits, `-`, `_`, `.`
        name: String,
        /// Seal the key file with a passphrase
        #[arg(long)]
        passphrase: bool,
    },
    /// The users of this home
    Ls,
    /// Print a user's key, to be kept in a safe place
    Export {
        /// The user [default: the only one]
        name: Option<String>,
        /// Write it to a file that only you can read, instead of standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Take a user's key from a file or, without one, from standard input
    Import {
        /// A file that `export` wrote; `-` is standard input
        #[arg(value_name = "FILE", default_value = "-")]
        file: PathBuf,
        /// The user's name in this home [default: the file's name without `.key`]
        #[arg(long)]
        name: Option<String>,
    },
}

#[derive(Serialize)]
struct Answer<'a> {
    name: &'a str,
    path: Option<&'a Path>,
    /// The public key, which nodes see too; null while the key is behind a passphrase.
    owner: Option<String>,
    sealed: bool,
}

/// Runs one of them.
///
/// # Errors
/// Names that cannot be; keys that are there already, are missing, or are no keys.
pub fn run(args: &Args, context: &Context) -> Outcome {
    match &args.what {
        What::Add { name, passphrase } => add(name, *passphrase, context),
        What::Ls => list(context),
        What::Export { name, output } => export(name.as_deref(), output.as_deref(), context),
        What::Import { file, name } => import(file, name.as_deref(), context),
    }
}

fn add(name: &str, sealed: bool, context: &Context) -> Outcome {
    let path = context.home.user_key_path(name)?;
    if context.home.user_key(name)?.is_some() {
        return Err(exists(name, &path).into());
    }
    let secret = UserSecret::from_random(Zeroizing::new(rand::random()));
    let text = if sealed {
        let passphrase = passphrase::new_one(name)?;
        let text = key_file::sealed_text(&secret, &passphrase, rand::random());
        Zeroizing::new(text.map_err(|error| Problem::failed(error.to_string(), "choose another passphrase"))?)
    } else {
        key_file::plain_text(&secret)
    };
    keep(name, &text, context)?;
    let owner = Some(UserKeys::derive(&secret).owner().to_string());
    context.output.answer(&Answer { name, path: Some(&path), owner, sealed }, || {
        format!("User {name} was added: {}", path.display())
    })?;
    context.output.talk(&back_up_now(name, &path));
    if sealed {
        context.output.talk("Keep the passphrase with the back-up: the key is of no use without it.");
    }
    Ok(Exit::Done)
}

/// Writes the key file unless there is one.
fn keep(name: &str, key_text: &str, context: &Context) -> Result<(), Halt> {
    context.home.create()?;
    match context.home.create_user_key(name, key_text.trim())? {
        true => Ok(()),
        false => Err(exists(name, &context.home.user_key_path(name)?).into()),
    }
}

fn exists(name: &str, path: &Path) -> Problem {
    Problem::failed(
        format!("there is a user {name} in this home already ({})", path.display()),
        "choose another name; a key is never overwritten",
    )
}

fn list(context: &Context) -> Outcome {
    let names = context.home.users()?;
    let mut rows = Vec::new();
    for name in &names {
        let Some(text) = context.home.user_key(name)? else { continue };
        let (owner, kind) = match KeyFile::parse(&text) {
            Ok(KeyFile::Plain(secret)) => {
                (Some(UserKeys::derive(&secret).owner().to_string()), "plain".to_owned())
            }
            Ok(KeyFile::Sealed(_)) => (None, "behind a passphrase".into()),
            Err(error) => (None, error.to_string()),
        };
        if context.output.json() {
            let path = context.home.user_key_path(name)?;
            let sealed = kind != "plain";
            context.output.object(&Answer { name, path: Some(&path), owner: owner.clone(), sealed })?;
        }
        rows.push(vec![name.clone(), kind, owner.unwrap_or_else(|| "unknown".into())]);
    }
    if !context.output.json() && !rows.is_empty() {
        context.output.lines(text::table(&["user", "key", "public key"], &rows))?;
    }
    if rows.is_empty() {
        context.output.talk(
            "No user has a key in this home yet: the first `put` makes one, or `tintype user add NAME`.",
        );
    }
    Ok(Exit::Done)
}

fn export(name: Option<&str>, output: Option<&Path>, context: &Context) -> Outcome {
    let name = match name {
        Some(name) => name.to_owned(),
        None => only_user(context)?,
    };
    let path = context.home.user_key_path(&name)?;
    let text = context.home.user_key(&name)?.ok_or_else(|| {
        Problem::failed(
            format!("there is no key of {name} in this home ({})", path.display()),
            "see `tintype user ls`; `tintype user add` makes one, `tintype user import` takes one back",
        )
    })?;
    check(&text, &path.display().to_string())?;
    match output.filter(|output| *output != Path::new("-")) {
        Some(file) => {
            write_private(file, &text)?;
            context.output.answer(&serde_json::json!({ "name": name, "path": file }), || {
                format!("The key of {name} was written to {}", file.display())
            })?;
        }
        None if context.output.json() => {
            context.output.object(&serde_json::json!({ "name": name, "key": text.as_str() }))?;
        }
        None => context.output.line(&text)?,
    }
    context.output.warn(&format!(
        "Whoever has this key reads and changes the pictures of {name}. Keep it where only you can get it; \
         `tintype user import FILE` takes it back."
    ));
    Ok(Exit::Done)
}

fn only_user(context: &Context) -> Result<String, Halt> {
    let users = context.home.users()?;
    match users.as_slice() {
        [name] => Ok(name.clone()),
        [] => Err(Problem::failed(
            "no user has a key in this home",
            "make one with `tintype user add NAME`, or bring one with `tintype user import FILE`",
        )
        .into()),
        several => Err(usage(
            format!("this home has the keys of {}", several.join(", ")),
            "say whose: `tintype user export NAME`",
        )
        .into()),
    }
}

/// A new file that only its owner can read. One that is there is never overwritten: it may be another key.
fn write_private(file: &Path, key_text: &str) -> Result<(), Problem> {
    let text = Zeroizing::new(format!("{}\n", key_text.trim()));
    destination::write_new_private(file, text.as_bytes()).map_err(|error| match error {
        Error::Exists { .. } => Problem::failed(
            format!("{} exists", file.display()),
            "give another file with -o; a file that may be a key is never overwritten",
        ),
        error => Problem::failed(error.to_string(), "give another file with -o"),
    })
}

fn import(file: &Path, name: Option<&str>, context: &Context) -> Outcome {
    let stdin = file == Path::new("-");
    let name = match (name, stdin) {
        (Some(name), _) => name.to_owned(),
        (None, true) => {
            return Err(usage(
                "a key from standard input needs a name",
                "give it with --name: `tintype user import --name NAME < FILE`",
            )
            .into());
        }
        (None, false) => name_of(file)?,
    };
    let path = context.home.user_key_path(&name)?;
    let whence = if stdin { "standard input".to_owned() } else { file.display().to_string() };
    let text = read_key_text(file, stdin, &whence)?;
    let sealed = matches!(check(&text, &whence)?, KeyFile::Sealed(_));
    if let Some(there) = context.home.user_key(&name)? {
        if there.trim() != text.trim() {
            return Err(exists(&name, &path).into());
        }
    } else {
        keep(&name, &text, context)?;
    }
    let owner = match check(&text, &whence)? {
        KeyFile::Plain(secret) => Some(UserKeys::derive(&secret).owner().to_string()),
        KeyFile::Sealed(_) => None,
    };
    context.output.answer(&Answer { name: &name, path: Some(&path), owner, sealed }, || {
        format!("The key of {name} is in this home: {}", path.display())
    })?;
    Ok(Exit::Done)
}

fn name_of(file: &Path) -> Result<String, Problem> {
    let stem = file.file_name().and_then(|name| name.to_str()).map(|name| name.trim_end_matches(".key"));
    stem.filter(|stem| !stem.is_empty()).map(str::to_owned).ok_or_else(|| {
        usage(format!("{} gives no name for the user", file.display()), "give one with --name")
    })
}

fn read_key_text(file: &Path, stdin: bool, whence: &str) -> Result<Zeroizing<String>, Problem> {
    let mut text = Zeroizing::new(String::new());
    let read = if stdin {
        if std::io::stdin().is_terminal() {
            return Err(usage("no key was given", "name the file, or pipe the key into standard input"));
        }
        std::io::stdin().take(KEY_TEXT_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|open| open.take(KEY_TEXT_BYTES_MAX).read_to_string(&mut text))
    };
    match read {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(no_key(whence, "it is not text"))
        }
        Err(error) => {
            Err(Problem::failed(format!("{whence}: {error}"), "check the path and that you may read it"))
        }
    }
}

fn check(key_text: &str, whence: &str) -> Result<KeyFile, Problem> {
    KeyFile::parse(key_text).map_err(|error| no_key(whence, &error.to_string()))
}

fn no_key(whence: &str, why: &str) -> Problem {
    Problem::failed(format!("{whence}: {why}"), "give the file that `tintype user export` wrote, whole")
}
