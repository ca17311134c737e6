//! `tintype config show`, and how the configuration comes together: flag over environment over file over
//! default.

use clap::Subcommand;
use serde::Serialize;

use super::{
    args::{Command, Globals},
    context::Context,
    passphrase,
    problem::{Halt, Outcome},
    text,
};
use crate::{
    api::{Exit, Problem},
    disk::Home,
    model::config::{DEFAULT_TOML, ENVIRONMENT_PREFIX, Effective, Layered},
};

/// Variables that are no knobs: places, persons, secrets, and points at which tests let the program die.
const OTHER_VARIABLES: [&str; 3] = ["TINTYPE_HOME", "TINTYPE_USER", passphrase::VARIABLE];
const TEST_VARIABLES: [&str; 2] = ["TINTYPE_CRASH", "TINTYPE_TEST"];

/// `config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Every knob, its value, and who decided it
    Show {
        /// The manual instead: every knob, its default and the reason
        #[arg(long)]
        manual: bool,
    },
}

#[derive(Serialize)]
struct Knob<'a> {
    key: &'a str,
    value: &'a toml::Value,
    source: String,
}

/// Prints the values in force.
///
/// # Errors
/// As stdout says.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let What::Show { manual } = args.what;
    if manual {
        context.output.lines(DEFAULT_TOML.lines().map(str::to_owned))?;
        return Ok(Exit::Done);
    }
    let mut rows = Vec::new();
    for (key, value, source) in context.config.knobs() {
        if context.output.json() {
            context.output.object(&Knob { key, value, source: source.to_string() })?;
        }
        rows.push(vec![key.to_owned(), value.to_string(), source.to_string()]);
    }
    if !context.output.json() {
        context.output.lines(text::table(&["key", "value", "from"], &rows))?;
        let file = context.home.config_file();
        context
            .output
            .talk(&format!("Change what you like in {}; `config show --manual` explains.", file.display()));
    }
    Ok(Exit::Done)
}

/// Lays the four layers.
///
/// # Errors
/// A file that was named and is not there; an unknown key; a value that cannot be.
pub fn load(home: &Home, globals: &Globals, command: Option<&Command>) -> Result<Effective, Halt> {
    let mut layers = Layered::new();
    read_file(home, globals, &mut layers)?;
    read_environment(&mut layers)?;
    if let Some(level) = &globals.log {
        layers.flag("--log", "log.level", level.as_str())?;
    }
    match command {
        Some(Command::Up(args)) => args.lay(&mut layers)?,
        Some(Command::Put(args)) => args.lay(&mut layers)?,
        _ => {}
    }
    Ok(layers.finish()?)
}

fn read_file(home: &Home, globals: &Globals, layers: &mut Layered) -> Result<(), Halt> {
    let path = globals.config.clone().unwrap_or_else(|| home.config_file());
    match home.read_config(&path)? {
        Some(text) => Ok(layers.file(&path.display().to_string(), &text)?),
        None if globals.config.is_some() => Err(Problem::failed(
            format!("there is no configuration file {}", path.display()),
            "give --config another file, or leave it out",
        )
        .into()),
        None => Ok(()),
    }
}

fn read_environment(layers: &mut Layered) -> Result<(), Halt> {
    // The usual name for this, which other programs read too; ours is stronger.
    if let Ok(level) = std::env::var("RUST_LOG")
        && !level.trim().is_empty()
    {
        layers.environment_as("RUST_LOG", "log.level", &level)?;
    }
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| is_knob(name)) else { continue };
        let value = value.to_str().ok_or_else(|| {
            Problem::failed(
                format!("the environment's {name} is not UTF-8"),
                format!("unset {name}, or mend it"),
            )
        })?;
        layers.environment(name, value)?;
    }
    Ok(())
}

fn is_knob(name: &str) -> bool {
    name.starts_with(ENVIRONMENT_PREFIX)
        && !OTHER_VARIABLES.contains(&name)
        && !TEST_VARIABLES.iter().any(|prefix| name.starts_with(prefix))
}
