//! `tintype stego info`: what fits into a picture, and whether something seems hidden in it.
//!
//! No node is asked.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::{
    context::Context,
    picture,
    problem::Outcome,
    work::{self, blocking},
};
use crate::{
    api::Exit,
    client::hidden::{self, Found, Room},
    work::{Frames, WorkError},
};

/// `stego`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to look at.
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// What fits into a picture, and whether something seems hidden in it
    Info {
        /// The picture; `-` is standard input
        #[arg(value_name = "IMAGE")]
        image: PathBuf,
    },
}

impl Args {
    /// The picture to look at.
    pub fn image(&self) -> &PathBuf {
        let What::Info { image } = &self.what;
        image
    }
}

/// The names are a promise of `--json`.
#[derive(Serialize)]
struct Info {
    image: String,
    width: u32,
    height: u32,
    /// Bytes that can be hidden.
    capacity: u64,
    /// Bytes that can be hidden with --seal.
    capacity_sealed: u64,
    /// `nothing`, `plain`, `text` (by another tool) or `sealed`.
    hidden: &'static str,
    /// Null if nobody without the key can tell.
    hidden_bytes: Option<u64>,
}

/// Looks, and says it.
///
/// # Errors
/// Not a picture that can be read.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    let image = args.image();
    let whose = picture::name(image);
    let bytes = picture::read(image).await?;
    let looked = blocking(move || look(&bytes)).await?;
    let (room, found) = looked.map_err(|error| work::problem(&whose, &error))?;
    let (hidden, hidden_bytes) = match &found {
        Found::Nothing => ("nothing", Some(0)),
        Found::Plain { payload, marked: true } => ("plain", Some(payload.len() as u64)),
        Found::Plain { payload, marked: false } => ("text", Some(payload.len() as u64)),
        Found::Broken => ("changed", None),
        Found::Sealed => ("sealed", None),
    };
    let info = Info {
        image: whose,
        width: room.size.width,
        height: room.size.height,
        capacity: room.plain_bytes,
        capacity_sealed: room.sealed_bytes,
        hidden,
        hidden_bytes,
    };
    context.output.answer(&info, || sentence(&info))?;
    Ok(Exit::Done)
}

fn look(bytes: &[u8]) -> Result<(Room, Found), WorkError> {
    let room = hidden::room(bytes, Frames::First)?;
    Ok((room, hidden::find(&hidden::pixels(bytes, Frames::First)?)))
}

/// `photo.png  3000 x 3000 pixels  room for 3374988 bytes (3374924 sealed)  nothing hidden here`
fn sentence(info: &Info) -> String {
    let Info { image, width, height, capacity, capacity_sealed, .. } = info;
    let bytes = info.hidden_bytes.unwrap_or(0);
    let hidden = match info.hidden {
        "plain" => format!("{bytes} bytes are hidden here"),
        "text" => format!("a text of {bytes} bytes seems hidden here, by another tool"),
        "sealed" => "something is sealed here, for whoever has the key".into(),
        "changed" => "something is hidden here, but it has been changed".into(),
        _ => "nothing hidden here".into(),
    };
    format!(
        "{image}  {width} x {height} pixels  room for {capacity} bytes ({capacity_sealed} sealed)  {hidden}"
    )
}
