//! `tintype service install`: a systemd user unit, so that the node starts with the machine.
//!
//! It writes one file and starts nothing; what to type next is said.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use clap::Subcommand;

use super::{
    context::Context,
    problem::{Halt, Outcome},
};
use crate::api::{Exit, Problem};

const UNIT: &str = "tintype.service";

/// `service`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write a systemd user unit for this home
    Install,
}

/// Writes the unit.
///
/// # Errors
/// No systemd here; another unit of that name (`--yes` replaces it).
pub fn run(args: &Args, context: &Context) -> Outcome {
    let What::Install = args.what;
    let path = unit_path()?;
    let program = std::env::current_exe().map_err(|error| {
        Problem::failed(
            format!("this program does not know where it lies: {error}"),
            "call it by its full path",
        )
    })?;
    let text = unit(&quoted(program.as_os_str())?, &quoted(context.home.root().as_os_str())?);
    write(&path, &text, context.yes)?;
    context.output.answer(&serde_json::json!({ "unit": path, "next": NEXT }), || {
        format!("The unit was written: {}", path.display())
    })?;
    context.output.talk(&format!("Start it now and at each login: `{}`", NEXT[0]));
    context.output.talk(&format!("Before anybody logs in, too:      `{}`", NEXT[1]));
    context.output.talk("What it says: `journalctl --user -u tintype`");
    Ok(Exit::Done)
}

const NEXT: [&str; 2] = [
    "systemctl --user daemon-reload && systemctl --user enable --now tintype",
    "sudo loginctl enable-linger $USER",
];

fn unit_path() -> Result<PathBuf, Problem> {
    if !cfg!(target_os = "linux") {
        return Err(Problem::failed(
            "there is no systemd on this platform",
            "let the platform's own service manager run `tintype up`",
        ));
    }
    let directories = directories::BaseDirs::new().ok_or_else(|| {
        Problem::failed("this account has no home directory", "run it as the user who owns the pictures")
    })?;
    Ok(directories.config_dir().join("systemd").join("user").join(UNIT))
}

fn unit(program: &str, home: &str) -> String {
    format!(
        "[Unit]\n\
         Description=tintype, an encrypted vault for pictures\n\
         After=network-online.target\n\
         Wants=network-online.target\n\
         \n\
         [Service]\n\
         ExecStart={program} --home {home} up\n\
         Restart=on-failure\n\
         RestartSec=2\n\
         # A configuration or key that cannot be stays so: trying again every two seconds mends nothing.\n\
         RestartPreventExitStatus=1 2\n\
         LimitNOFILE=4096\n\
         # Asked to stop, it finishes its tasks first, and the processes that work on them with it.\n\
         KillMode=mixed\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n"
    )
}

/// A path as one word of a unit (systemd.service(5), "COMMAND LINES"; systemd.unit(5), "SPECIFIERS").
fn quoted(path: &OsStr) -> Result<String, Problem> {
    let text = path.to_str().filter(|text| !text.contains(char::is_control)).ok_or_else(|| {
        Problem::failed(
            format!("{} cannot be written into a unit", Path::new(path).display()),
            "use a path of plain UTF-8 without control characters",
        )
    })?;
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    Ok(format!("\"{escaped}\""))
}

fn write(path: &Path, text: &str, replace: bool) -> Result<(), Halt> {
    let failed = |error: io::Error| {
        Problem::failed(format!("{}: {error}", path.display()), "check that you may write there")
    };
    match fs::read_to_string(path) {
        Ok(there) if there == text => return Ok(()),
        Ok(_) if !replace => {
            let other = format!("there is another unit in {}", path.display());
            return Err(Problem::failed(other, "look at it; --yes replaces it").into());
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error).into()),
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed)?;
    let temporary = folder.join(format!(".{UNIT}.{}", std::process::id()));
    fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path)).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_one_word_of_the_unit_whatever_is_in_them() {
        let word = quoted(OsStr::new("/a b/\"c\"/100%/$x\\y")).expect("a word");
        assert_eq!(word, r#""/a b/\"c\"/100%%/$$x\\y""#);
        assert!(quoted(OsStr::new("/a\nb")).is_err());
        assert!(unit("\"/bin/tintype\"", "\"/h\"").contains("ExecStart=\"/bin/tintype\" --home \"/h\" up\n"));
    }

    #[test]
    fn another_unit_is_replaced_only_when_told_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("systemd/user").join(UNIT);
        write(&path, "one", false).expect("written");
        write(&path, "one", false).expect("the same is fine");
        assert!(write(&path, "two", false).is_err());
        assert_eq!(fs::read_to_string(&path).expect("a file"), "one");
        write(&path, "two", true).expect("told to");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "two");
    }
}
