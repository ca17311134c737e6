//! What commands that make one picture of another have in common: read, carry out, write beside it.

use std::{path::Path, sync::Arc, time::Instant};

use image::ImageFormat;
use serde::Serialize;

use super::{
    context::Context,
    picture::{self, Target},
    problem::{self, Outcome},
    storing::{self, Stored},
    text,
    work::{self, Job, carry_out},
};
use crate::{
    api::{Exit, Problem},
    work::{Frames, Order, WorkError, decode},
};

/// What is read and what is written.
pub(super) struct Files<'a> {
    /// The picture.
    pub(super) image: &'a Path,
    /// What `-o` says.
    pub(super) output: Option<&'a Path>,
    /// Replace a different file.
    pub(super) force: bool,
    /// Whether it is stored.
    pub(super) storing: &'a storing::Args,
    /// Between name and ending of a file that nobody named.
    pub(super) infix: &'static str,
}

/// The names are a promise of `--json`.
#[derive(Serialize)]
struct Done<'a> {
    image: &'a str,
    path: Option<&'a Path>,
    bytes_before: u64,
    bytes: u64,
    width: u32,
    height: u32,
    stored: Option<Stored>,
    ms: u64,
}

/// Reads, carries the order out, writes.
pub(super) async fn run(files: Files<'_>, order: Order, args: &work::Args, context: &Context) -> Outcome {
    let (began, limit) = (Instant::now(), args.limit());
    let output = &context.output;
    let whose = picture::name(files.image);
    let plan = |ending: &str| {
        let beside = |stem: &str| format!("{stem}.{}.{ending}", files.infix);
        Target::plan(files.output, files.image, beside, output)
    };
    let target = plan("")?;
    if files.output.is_some() {
        target.hold_place(files.force).await?;
    }
    // A name that was given is checked before the work; the file's may become known after it.
    files.storing.object(&target)?;
    let writes = !files.storing.is_wanted() || files.output.is_some();
    let reading = picture::read(files.image);
    let image = Arc::new(limit.hold(&whose, "its input is read", reading).await??);
    let bytes_before = image.len() as u64;
    let damaged = |error| work::problem(&whose, &error);
    hold_picture(&order, &image).map_err(damaged)?;
    if let [sure] = endings(&order, &image) {
        let target = plan(sure)?;
        hold_format(&target, sure)?;
        if writes {
            target.hold_place(files.force).await?;
        }
    }
    let needs_vault = files.storing.is_wanted();
    if needs_vault {
        // Whether there is a vault is known before the work.
        context.vault_and_user().await?;
    }
    let job = Job { order, picture: image, whose: &whose, needs_vault };
    let made = carry_out(args, &limit, context, job).await?;
    let size = decode::size(&made, Frames::First);
    let size = size.map_err(damaged)?;
    let target = plan(ending(&made)?)?;
    hold_format(&target, ending(&made)?)?;
    let bytes = made.len() as u64;
    let stored = match files.storing.object(&target)? {
        Some(name) => Some(storing::store(name, &made, files.force, context).await?),
        None => None,
    };
    if writes {
        target.write(made, files.force).await?;
    }
    let done = Done {
        image: &whose,
        path: target.path().filter(|_| writes),
        bytes_before,
        bytes,
        width: size.width,
        height: size.height,
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

/// Refuses, by its header, a picture that every worker would refuse: before it is sent to one.
fn hold_picture(order: &Order, picture: &[u8]) -> Result<(), WorkError> {
    let frames = match order {
        Order::Thumbnail { frames, .. } => *frames,
        _ => Frames::First,
    };
    decode::size(picture, frames)?;
    match (order, decode::format(picture)) {
        (Order::Strip, Some(format @ ImageFormat::Tiff)) => {
            Err(WorkError::Strip { format: decode::format_name(format) })
        }
        _ => Ok(()),
    }
}

/// What can come out of this picture, by its format alone.
fn endings(order: &Order, picture: &[u8]) -> &'static [&'static str] {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, WebP};
    match (order, decode::format(picture)) {
        // Nothing shines through a JPEG.
        (_, Some(Jpeg)) => &["jpg"],
        (Order::Strip, Some(Png)) => &["png"],
        (Order::Strip, Some(WebP)) => &["webp"],
        (Order::Strip, Some(Gif)) => &["gif"],
        (Order::Strip, Some(Bmp)) => &["bmp"],
        _ => &["jpg", "png"],
    }
}

/// Refuses a name that promises another format than what is written.
fn hold_format(target: &Target, ending: &str) -> Result<(), Problem> {
    let Some(path) = target.path() else { return Ok(()) };
    let said = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let said = if matches!(said.as_str(), "jpeg" | "jfif") { "jpg" } else { said.as_str() };
    if said == ending || !PICTURES.contains(&said) {
        return Ok(());
    }
    Err(problem::usage(
        format!("{}: what comes out is a file of the kind .{ending}", path.display()),
        format!("call it one: -o {}", path.with_extension(ending).display()),
    ))
}

/// Endings that say what a picture is.
const PICTURES: [&str; 8] = ["jpg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"];

/// The ending of files of this format.
fn ending(picture: &[u8]) -> Result<&'static str, Problem> {
    Ok(match decode::format(picture) {
        Some(ImageFormat::Jpeg) => "jpg",
        Some(ImageFormat::Png) => "png",
        Some(ImageFormat::WebP) => "webp",
        Some(ImageFormat::Gif) => "gif",
        Some(ImageFormat::Bmp) => "bmp",
        _ => return Err(Problem::failed("what came back is no picture", "run it again")),
    })
}

/// `photo.jpg  3.4 MB  -> photo.thumb.jpg  320 x 240 pixels  19.8 kB  41 ms`
fn sentence(done: &Done<'_>) -> String {
    let path = done.path.map_or_else(String::new, |path| format!("  -> {}", text::path(path)));
    let stored = done.stored.as_ref().map_or_else(String::new, Stored::words);
    format!(
        "{}  {}{path}{stored}  {} x {} pixels  {}  {}",
        done.image,
        text::size(done.bytes_before),
        done.width,
        done.height,
        text::size(done.bytes),
        text::duration(done.ms),
    )
}
