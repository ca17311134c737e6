//! `tintype stat`: all that is known of an object.

pub use super::each::Args;
use super::{context::Context, each::each, problem::Halt, problem::Outcome, text};
use crate::api::{Stat, Vault};

/// Prints each object.
///
/// # Errors
/// No vault; names that cannot be. Single objects are told one by one.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    let ask = async |vault: &Vault, name: &str| vault.stat(name).await;
    each(args, context, "found", ask, |_, found| print(&found, context)).await
}

fn print(stat: &Stat, context: &Context) -> Result<(), Halt> {
    if context.output.json() {
        return Ok(context.output.object(stat)?);
    }
    let info = &stat.info;
    let versions: Vec<String> = stat.versions.iter().map(ToString::to_string).collect();
    let rows = [
        ("name", info.name.clone()),
        ("version", format!("{}{}", info.version, if info.removed { " (removed)" } else { "" })),
        ("size", format!("{} ({} bytes)", text::size(info.bytes), info.bytes)),
        ("type", info.media_type.clone()),
        ("put", text::moment(info.unix_ms)),
        (
            "stored",
            format!(
                "{} in {} a copy",
                text::size(stat.stored_bytes),
                text::count(stat.chunks, "chunk", "chunks")
            ),
        ),
        ("thumbnail", if stat.thumbnail { "yes" } else { "no" }.into()),
        ("versions", versions.join(", ")),
        ("home", stat.home.clone()),
        ("object", stat.object.clone()),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(key, value)| vec![key.to_owned(), value]).collect();
    Ok(context.output.lines(text::table(&["", ""], &rows))?)
}
