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
    problem::{self, Outcome},
    storing::{self, Stored},
    text,
    work::{self, Job, blocking, carry_out},
};
use crate::{
    api::{Exit, Problem},
    client::hidden,
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
    /// Whether it is stored.
    #[command(flatten)]
    storing: storing::Args,
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

/// Hides, checks, writes.
///
/// # Errors
/// What does not fit or is no picture; no key; a different file; what came back and is not right.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    let (began, limit) = (Instant::now(), args.work.limit());
    let output = &context.output;
    let target =
        Target::plan(args.output.as_deref(), &args.image, |stem| format!("{stem}.hidden.png"), output)?;
    target.hold_lossless()?;
    let object = args.storing.object(&target)?;
    if let Some(name) = &object {
        picture::hold_lossless(Path::new(name), "--store=")?;
    }
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
    let reading = async { Ok::<_, Problem>((picture::read(&args.image).await?, payload(args).await?)) };
    let (image, payload) = limit.hold(&whose, "its input is read", reading).await??;
    let image = Arc::new(image);
    let capacity = hold_capacity(args, &image, &payload, &whose)?;
    let keys = if args.seal { Some(context.user_keys(true).await?) } else { None };
    if object.is_some() {
        // Whether there is a vault is known before the work.
        context.vault_and_user().await?;
    }
    let order = hidden::order(&payload, keys.as_deref(), args.work.frames());
    let job = Job { order, picture: image, whose: &whose, needs_vault: object.is_some() };
    let png = carry_out(&args.work, &limit, context, job).await?;
    let payload_bytes = payload.len() as u64;
    let png = checked(png, keys, payload, &whose).await?;
    let bytes = png.len() as u64;
    let stored = match object {
        Some(name) => Some(storing::store(name, &png, args.force, context).await?),
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

/// `photo.png  5 of 3374988 bytes hidden  -> photo.hidden.png  3.2 MB  412 ms`
fn sentence(done: &Done<'_>) -> String {
    let sealed = if done.sealed { ", sealed" } else { "" };
    let hidden = format!("{} of {} bytes hidden{sealed}", done.hidden_bytes, done.capacity);
    let path = done.path.map_or_else(String::new, |path| format!("  -> {}", text::path(path)));
    let stored = done.stored.as_ref().map_or_else(String::new, Stored::words);
    let (size, took) = (text::size(done.bytes), text::duration(done.ms));
    format!("{}  {hidden}{path}{stored}  {size}  {took}", done.image)
}
