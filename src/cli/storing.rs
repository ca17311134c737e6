//! `--store` of the commands that make a picture of a picture: the result becomes an object of the user's.
//!
//! This client encrypts and signs it like any `put`; whoever did the work has no part in it.

use std::{path::Path, sync::Arc};

use serde::Serialize;

use super::{
    context::Context,
    picture::Target,
    problem::{self, Halt},
    text,
};
use crate::{
    api::{Problem, Put, Source},
    model::object::ObjectName,
};

/// The flag.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Put the result into the vault, too, under this name or the file's; no file is written without -o
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    store: Option<String>,
}

/// What was stored. The names are a promise of `--json`.
#[derive(Serialize)]
pub(super) struct Stored {
    name: String,
    version: u64,
}

impl Args {
    /// Whether the result is to be stored.
    pub(super) fn is_wanted(&self) -> bool {
        self.store.is_some()
    }

    /// The object's name: the given one, or that of the file that would be written; none if nothing is to be
    /// stored.
    ///
    /// # Errors
    /// A name that no object can have.
    pub(super) fn object(&self, target: &Target) -> Result<Option<String>, Problem> {
        self.store.as_deref().map(|given| object_name(given, target)).transpose()
    }
}

impl Stored {
    /// `  stored as photo.hidden.png version 1`
    pub(super) fn words(&self) -> String {
        format!("  stored as {} version {}", text::sanitised(&self.name), self.version)
    }
}

fn object_name(given: &str, target: &Target) -> Result<String, Problem> {
    let of_file = target.path().and_then(Path::file_name).unwrap_or_default();
    let name = match (given, of_file.to_str()) {
        ("", Some("")) => {
            let error = "what goes to standard output has no name to be stored under";
            return Err(problem::usage(error, "give one with --store=NAME"));
        }
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

/// Puts it.
///
/// # Errors
/// Those of `put`.
pub(super) async fn store(
    name: String,
    picture: &[u8],
    force: bool,
    context: &Context,
) -> Result<Stored, Halt> {
    let (vault, _user) = context.vault_and_user().await?;
    let knobs = &context.config.config.put;
    let source = Source::Memory(Arc::from(picture));
    let (copies, thumbnail) = (knobs.copies, knobs.thumbnail);
    let put = Put { source, name, force, if_version: None, copies, thumbnail };
    let done = vault.put(put, &|_| ()).await?;
    done.warnings.iter().for_each(|warning| context.output.warn(warning));
    Ok(Stored { name: done.name, version: done.version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_file_name_that_is_not_utf8_is_no_name_of_an_object() {
        use std::{os::unix::ffi::OsStrExt, path::PathBuf};
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
