//! What every command needs: the home, the configuration, where to print, and one connection to the vault.
//!
//! The connection is opened when the first command asks for it and kept, so a shell dials once.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use tokio::sync::OnceCell;

use super::{
    args::{Command, Globals},
    config,
    output::Output,
    passphrase,
    problem::Halt,
};
use crate::{
    api::{Connect, Problem, Vault, user_of_home},
    disk::Home,
    model::config::Effective,
    seal::keys::UserKeys,
};

/// Everything around one run of the program.
pub struct Context {
    /// The home.
    pub home: Home,
    /// The configuration in force.
    pub config: Effective,
    /// Where to print.
    pub output: Output,
    /// Do not ask.
    pub yes: bool,
    /// Whether this command is a shell, so that answers of several lines follow one another.
    pub in_shell: bool,
    nodes: Vec<String>,
    user: Option<String>,
    make_named: bool,
    vault: OnceCell<Vault>,
    /// Set once a person was told where a new key lies.
    told_of_key: OnceLock<()>,
}

impl Context {
    /// Finds the home, lays the layers of the configuration, and starts the log. Touches nothing.
    ///
    /// # Errors
    /// No home directory on this platform; a configuration that cannot be.
    pub fn new(globals: &Globals, command: Option<&Command>, output: Output) -> Result<Self, Halt> {
        let home = Home::at(home_directory(globals.home.as_deref())?);
        let config = config::load(&home, globals, command)?;
        start_log(&config, output.colour())?;
        let user = match command {
            Some(Command::Shell(args)) => args.user.clone(),
            _ => None,
        };
        Ok(Self {
            home,
            config,
            output,
            yes: globals.yes,
            in_shell: matches!(command, Some(Command::Shell(_))),
            nodes: globals.nodes.clone(),
            make_named: user.is_some(),
            user: user.or_else(|| globals.user.clone()),
            vault: OnceCell::new(),
            told_of_key: OnceLock::new(),
        })
    }

    /// How to reach the vault.
    pub fn connect(&self) -> Connect {
        let network = &self.config.config.network;
        Connect {
            home: self.home.root().to_owned(),
            nodes: self.nodes.clone(),
            bootstrap: network.bootstrap.clone(),
            mdns: network.mdns,
            packets: network.packets(),
            user: self.user.clone(),
            make_named: self.make_named,
            passphrase: Some(passphrase::ask_when_needed()),
        }
    }

    /// The vault, connected now if it was not.
    ///
    /// # Errors
    /// As [`Vault::open`]; a user's name that cannot be.
    pub async fn vault(&self) -> Result<&Vault, Halt> {
        if let Some(user) = &self.user {
            // A name that cannot be needs no node to be told so.
            self.home.user_key_path(user)?;
        }
        let open = || async {
            let vault = Vault::open(self.connect()).await?;
            for sentence in vault.unresolved() {
                self.output.warn(&format!("{sentence}; the other addresses are used."));
            }
            Ok::<Vault, Problem>(vault)
        };
        Ok(self.vault.get_or_try_init(open).await?)
    }

    /// The vault and the name of the user, whose key is made now if there is none at all; then a person is
    /// told where it lies.
    ///
    /// # Errors
    /// As [`Vault::open`] and [`Vault::user`].
    pub async fn vault_and_user(&self) -> Result<(&Vault, String), Halt> {
        let vault = self.vault().await?;
        let (user, made) = vault.user().await?;
        if made {
            self.tell_of_key(&user)?;
        }
        Ok((vault, user))
    }

    /// The user's keys, for what needs no node. `make`: if there is no user at all one is made, and a person
    /// is told where the key lies.
    ///
    /// # Errors
    /// Several users and none named; a missing, broken or sealed key.
    pub async fn user_keys(&self, make: bool) -> Result<Arc<UserKeys>, Halt> {
        let user = user_of_home(self.connect(), make).await?;
        if user.made_now {
            self.tell_of_key(&user.name)?;
        }
        Ok(user.keys)
    }

    /// A shell's lines all have the key that its first one made.
    fn tell_of_key(&self, user: &str) -> Result<(), Halt> {
        let path = self.home.user_key_path(user)?;
        if self.told_of_key.set(()).is_ok() {
            self.output.warn(&back_up_now(user, &path));
        }
        Ok(())
    }

    /// Has nodes let go of what they still do for a line that was interrupted.
    pub async fn cancel_tasks(&self) {
        if let Some(vault) = self.vault.get() {
            vault.cancel_own_tasks().await;
        }
    }

    /// Says goodbye to the nodes, if there was a connection.
    pub async fn close(self) {
        if let Some(vault) = self.vault.into_inner() {
            vault.close().await;
        }
    }
}

/// What a person must read when a key was made.
pub fn back_up_now(user: &str, path: &Path) -> String {
    format!(
        "A key was made for {user}: {}\nBack it up now: `tintype user export {user}`. Without it nobody, \
         not even you, can read these pictures.",
        path.display()
    )
}

fn home_directory(given: Option<&Path>) -> Result<PathBuf, Problem> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => directories::ProjectDirs::from("", "", "tintype")
            .map(|directories| directories.data_dir().to_owned())
            .ok_or_else(|| {
                Problem::failed(
                    "this account has no home directory",
                    "say where to keep things with --home DIR",
                )
            })?,
    };
    std::path::absolute(&path).map_err(|error| {
        Problem::failed(format!("{} cannot be the home: {error}", path.display()), "give another --home DIR")
    })
}

fn start_log(config: &Effective, colour: bool) -> Result<(), Problem> {
    use tracing_subscriber::{EnvFilter, fmt, util::SubscriberInitExt};
    let level = &config.config.log.level;
    let filter = EnvFilter::builder().parse(level).map_err(|error| {
        let source = config.source("log.level").map_or_else(String::new, ToString::to_string);
        Problem::failed(
            format!("{source}: {level:?} is not a log level: {error}"),
            "use error, warn, info, debug, trace, or a list such as \"warn,tintype::net=debug\"",
        )
    })?;
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true);
    // Its own default asks NO_COLOR, but not whether anything but a file reads it.
    let started = log.with_ansi(colour).finish().try_init();
    // A second start in one process (a test) keeps the first log.
    drop(started);
    Ok(())
}

/// The wall clock, for display only.
pub fn now_unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
