//! `tintype hide`: hides a text or a file in a picture.
//!
//! What fits is known before anything is sent, and a picture that comes back is read before it is kept.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use serde::Serialize;

use super::{
    context::Context,
    picture::{self, Target},
    problem::{self, Halt, Outcome},
    text,
    work::{self, Job, blocking, carry_out},
};
use crate::{
    api::{Exit, Problem, Put, Source},
    client::hidden,
    model::object::ObjectName,
    seal::keys::UserKeys,
    stego::TooLong,
    work::WorkError,
};

/// `hide`.
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["text", "file"]))]
pub struct Args {
    /// The picture to hide in; it stays as it is. `-` is standard input
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// What to hide. Other users of this machine may see it in the list of processes: --file is safer
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// A file to hide, byte for byte; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The PNG to write; `-` is standard output [default: NAME.hidden.png beside the picture]
    #[arg(short, long, value_name = "OUT.png")]
    output: Option<PathBuf>,
    /// Encrypt it, so that only this user can read it
    #[arg(long)]
    seal: bool,
    /// Put the result into the vault, too, under this name or the file's; no file is written without -o
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    store: Option<String>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    /// How the work is done.
    #[command(flatten)]
    work: work::Args,
}

/// The names are a promise of `--json`.
#[derive(Serialize)]
struct Done<'a> {
    image: String,
    path: Option<&'a Path>,
    bytes: u64,
    hidden_bytes: u64,
    capacity: u64,
    sealed: bool,
    stored: Option<Stored>,
    ms: u64,
}

#[derive(Serialize)]
struct Stored {
    name: String,
    version: u64,
}

/// Hides, checks, writes.
///
/// # Errors
/// What does not fit or is no picture; no key; a different file; what came back and is not right.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    let began = Instant::now();
    let output = &context.output;
    let target =
        Target::plan(args.output.as_deref(), &args.image, |stem| format!("{stem}.hidden.png"), output)?;
    target.hold_lossless()?;
    let object = args.store.as_deref().map(|name| object_name(name, &target)).transpose()?;
    if args.image == Path::new("-") && args.file.as_deref() == Some(&args.image) {
        return Err(
            problem::usage("picture and file cannot both be standard input", "name one of them").into()
        );
    }
    let writes = object.is_none() || args.output.is_some();
    if writes {
        target.hold_place(args.force).await?;
    }
    let whose = picture::name(&args.image);
    let image = Arc::new(picture::read(&args.image).await?);
    let payload = payload(args).await?;
    let capacity = hold_capacity(args, &image, &payload, &whose)?;
    let keys = if args.seal { Some(context.user_keys(true).await?) } else { None };
    if object.is_some() {
        // Whether there is a vault is known before the work.
        context.vault_and_user().await?;
    }
    let order = hidden::order(&payload, keys.as_deref(), args.work.frames());
    let job = Job { order, picture: image, whose: &whose, needs_vault: object.is_some() };
    let png = carry_out(&args.work, context, job).await?;
    let payload_bytes = payload.len() as u64;
    let png = checked(png, keys, payload, &whose).await?;
    let bytes = png.len() as u64;
    let stored = match object {
        Some(name) => Some(store(name, &png, args.force, context).await?),
        None => None,
    };
    if writes {
        target.write(png, args.force).await?;
    }
    let done = Done {
        image: whose,
        path: target.path().filter(|_| writes),
        bytes,
        hidden_bytes: payload_bytes,
        capacity,
        sealed: args.seal,
        stored,
        ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    match target {
        // The picture itself is there.
        Target::Stdout if writes => output.talk(&sentence(&done)),
        _ => output.answer(&done, || sentence(&done))?,
    }
    Ok(Exit::Done)
}

/// The object's name: the given one, or that of the file that would be written.
fn object_name(given: &str, target: &Target) -> Result<String, Problem> {
    let of_file = target.path().and_then(Path::file_name).unwrap_or_default();
    let name = match (given, of_file.to_str()) {
        ("", Some(of_file)) => of_file.to_owned(),
        // Made into text by force, two such names could be one, and one picture a version of the other.
        ("", None) => {
            let error = format!("{}: its name is not UTF-8", text::path(of_file.as_ref()));
            return Err(problem::usage(error, "give a name with --store=NAME"));
        }
        (given, _) => given.to_owned(),
    };
    match ObjectName::parse(&name) {
        Ok(_) => Ok(name),
        Err(error) => Err(problem::usage(format!("{name:?}: {error}"), "give another with --store=NAME")),
    }
}

async fn payload(args: &Args) -> Result<Vec<u8>, Problem> {
    let payload = match (&args.text, &args.file) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(file)) => picture::read(file).await?,
        (None, None) => Vec::new(),
    };
    if payload.is_empty() {
        return Err(problem::usage(
            "there is nothing to hide: it is empty",
            "give a text or a file that has some",
        ));
    }
    Ok(payload)
}

/// What fits into the picture, before anybody is asked to do anything.
fn hold_capacity(args: &Args, image: &[u8], payload: &[u8], whose: &str) -> Result<u64, Problem> {
    let room = hidden::room(image, args.work.frames()).map_err(|error| work::problem(whose, &error))?;
    let capacity = if args.seal { room.sealed_bytes } else { room.plain_bytes };
    let bytes = payload.len() as u64;
    if bytes > capacity {
        return Err(work::problem(whose, &WorkError::TooLong(TooLong { bytes, capacity })));
    }
    Ok(capacity)
}

/// The picture that came back, read as its owner will read it.
async fn checked(
    png: Vec<u8>,
    keys: Option<Arc<UserKeys>>,
    payload: Vec<u8>,
    whose: &str,
) -> Result<Vec<u8>, Problem> {
    let (png, held) = blocking(move || {
        let held = hidden::hold(&png, keys.as_deref(), &payload);
        (png, held)
    })
    .await?;
    held.map_err(|error| work::problem(whose, &error))?;
    Ok(png)
}

async fn store(name: String, png: &[u8], force: bool, context: &Context) -> Result<Stored, Halt> {
    let (vault, _user) = context.vault_and_user().await?;
    let knobs = &context.config.config.put;
    let source = Source::Memory(Arc::from(png));
    let (copies, thumbnail) = (knobs.copies, knobs.thumbnail);
    let put = Put { source, name, force, if_version: None, copies, thumbnail };
    let done = vault.put(put, &|_| ()).await?;
    done.warnings.iter().for_each(|warning| context.output.warn(warning));
    Ok(Stored { name: done.name, version: done.version })
}

/// `photo.png  5 of 3374988 bytes hidden  -> photo.hidden.png  3.2 MB  412 ms`
fn sentence(done: &Done<'_>) -> String {
    let sealed = if done.sealed { ", sealed" } else { "" };
    let hidden = format!("{} of {} bytes hidden{sealed}", done.hidden_bytes, done.capacity);
    let path = done.path.map_or_else(String::new, |path| format!("  -> {}", text::path(path)));
    let stored = done
        .stored
        .as_ref()
        .map_or_else(String::new, |stored| format!("  stored as {} version {}", stored.name, stored.version));
    let (size, took) = (text::size(done.bytes), text::duration(done.ms));
    format!("{}  {hidden}{path}{stored}  {size}  {took}", done.image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_file_name_that_is_not_utf8_is_no_name_of_an_object() {
        use std::os::unix::ffi::OsStrExt;
        let target = |name: &[u8]| Target::File(PathBuf::from(std::ffi::OsStr::from_bytes(name)));
        assert_eq!(object_name("", &target(b"a/b.png")), Ok("b.png".to_owned()));
        let refused = object_name("", &target(b"\xff.png")).unwrap_err();
        assert!(
            refused.error.contains("not UTF-8") && refused.remedy.contains("--store=NAME"),
            "{refused:?}"
        );
        assert_eq!(object_name("mine.png", &target(b"\xfe.png")), Ok("mine.png".to_owned()));
    }
}
