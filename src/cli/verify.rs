//! `tintype verify`: every copy of every kept version is read; bad ones are reported and mended.

use super::{context::Context, get::check_names, problem::Outcome, progress::Meter, text};
use crate::api::{Exit, Verified};

/// `verify`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Objects, removed ones too [default: all of the user]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Verifies, and prints what was found.
///
/// # Errors
/// No vault; names that cannot be; no such object.
pub async fn run(args: &Args, context: &Context) -> Outcome {
    check_names(&args.names)?;
    let vault = context.vault().await?;
    let verified = {
        let meter = Meter::new(&context.output, "verify", 0);
        let part = meter.part(0);
        vault.verify(&args.names, &|progress| part.update(progress)).await?
    };
    context.output.answer(&verified, || sentence(&verified))?;
    for finding in &verified.findings {
        context.output.warn(finding);
    }
    Ok(if clean(&verified) { Exit::Done } else { Exit::Findings })
}

fn clean(verified: &Verified) -> bool {
    let Verified { bad, missing, lost, findings, unreachable, .. } = verified;
    bad + missing + lost == 0 && findings.is_empty() && unreachable.is_empty()
}

fn sentence(verified: &Verified) -> String {
    let mut objects = text::count(verified.objects, "object", "objects");
    if verified.removed > 0 {
        objects = format!("{objects} ({} removed)", verified.removed);
    }
    if verified.versions > verified.objects {
        objects = format!("{objects}, {} versions", verified.versions);
    }
    let read = text::count(verified.copies_read, "copy was", "copies were");
    let mut words = format!("{objects}: {read} read");
    if clean(verified) {
        return format!("{words}, all are good");
    }
    let mut add = |number: u64, what: String| {
        if number > 0 {
            words.push_str(&what);
        }
    };
    add(verified.bad, format!(", {} bad ({} mended)", verified.bad, verified.mended));
    add(verified.missing, format!(", {} missing ({} put in place)", verified.missing, verified.restored));
    add(verified.lost, format!(", {} without any good copy on the nodes that answer", verified.lost));
    if !verified.unreachable.is_empty() {
        words = format!("{words}; not asked, because silent: {}", verified.unreachable.join(", "));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_says_what_is_bad_and_what_became_of_it() {
        let good = Verified { objects: 1, versions: 1, copies_read: 6, ..Verified::default() };
        assert_eq!(sentence(&good), "1 object: 6 copies were read, all are good");
        let more = Verified { objects: 3, removed: 1, versions: 5, ..good.clone() };
        assert_eq!(sentence(&more), "3 objects (1 removed), 5 versions: 6 copies were read, all are good");
        let bad = Verified { bad: 2, mended: 1, lost: 1, unreachable: vec!["attic".into()], ..good };
        assert!(!clean(&bad));
        assert_eq!(
            sentence(&bad),
            "1 object: 6 copies were read, 2 bad (1 mended), 1 without any good copy on the nodes that \
             answer; not asked, because silent: attic"
        );
    }
}
