//! Whose keys: the named user's, the only one's, or a user made now and named after the login.
//!
//! Only the first put, or a shell, makes a key: whoever only reads without one has nothing to read, and a key
//! made by accident looks like lost pictures.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::{
    Client, Error,
    types::{Connect, Passphrase},
};
use crate::{
    disk::{DiskError, Home},
    seal::{
        key_file::{self, KeyFile},
        keys::{UserKeys, UserSecret},
    },
};

/// The user of this client.
pub(super) struct User {
    pub(super) name: String,
    pub(super) made_now: bool,
    pub(super) keys: Arc<UserKeys>,
}

/// A user of this home, for what needs a key and no node.
pub struct LocalUser {
    /// The name.
    pub name: String,
    /// Whether the key was made just now.
    pub made_now: bool,
    /// The keys.
    pub keys: Arc<UserKeys>,
}

/// The user of a home, without a connection: the named one or the only one. `make`: as a first put would do
/// it, make a key if the home has none at all.
///
/// # Errors
/// As [`Client::user`].
pub async fn user_of_home(connect: Connect, make: bool) -> Result<LocalUser, Error> {
    let missing = if make { Missing::Make } else { Missing::Refuse };
    let home = Home::at(&connect.home);
    let loaded = load_apart(home, connect.user, connect.make_named, missing, connect.passphrase).await?;
    let User { name, made_now, keys } = loaded;
    Ok(LocalUser { name, made_now, keys })
}

/// What to do when the home has no key of the user.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Refuse,
}

impl Client {
    /// The user's name, and whether the key was made just now: that happens only if the home has no user's
    /// key at all, and for a user who was named only if [`super::types::Connect::make_named`] says so.
    ///
    /// # Errors
    /// [`Error::Key`]: several users and none named; a missing, broken or sealed key.
    pub async fn user(&self) -> Result<(String, bool), Error> {
        let user = self.user_loaded(Missing::Make).await?;
        Ok((user.name.clone(), user.made_now))
    }

    /// The user's keys, which must be there.
    pub(super) async fn keys(&self) -> Result<Arc<UserKeys>, Error> {
        Ok(Arc::clone(&self.user_loaded(Missing::Refuse).await?.keys))
    }

    /// The user's keys, made now if the home has no user's key at all.
    pub(super) async fn keys_or_new(&self) -> Result<Arc<UserKeys>, Error> {
        Ok(Arc::clone(&self.user_loaded(Missing::Make).await?.keys))
    }

    async fn user_loaded(&self, missing: Missing) -> Result<&User, Error> {
        let load = || {
            let (home, user) = (self.home.clone(), self.wanted_user.clone());
            load_apart(home, user, self.make_named, missing, self.passphrase.clone())
        };
        self.user.get_or_try_init(load).await
    }
}

/// Loads on a thread of its own: Argon2 takes its time, on purpose.
async fn load_apart(
    home: Home,
    wanted: Option<String>,
    make_named: bool,
    missing: Missing,
    ask: Option<Passphrase>,
) -> Result<User, Error> {
    let missing = match (missing, &wanted) {
        (Missing::Make, Some(_)) if !make_named => Missing::Refuse,
        _ => missing,
    };
    let loaded = tokio::task::spawn_blocking(move || {
        load(&home, wanted, missing, |user| {
            let ask = ask.as_ref()?;
            (ask.0)(user).ok().map(Zeroizing::new)
        })
    });
    loaded.await.map_err(|e| Error::Refused(format!("a task of this program failed: {e}")))?
}

fn load(
    home: &Home,
    wanted: Option<String>,
    missing: Missing,
    ask: impl Fn(&str) -> Option<Zeroizing<String>>,
) -> Result<User, Error> {
    let name = match wanted {
        Some(name) => Some(name),
        None => only_user(home)?,
    };
    let may_make = missing == Missing::Make && home.users().map_err(key_error)?.is_empty();
    let name = match (name, may_make) {
        (name, true) => return make(home, name.unwrap_or_else(|| login(home))),
        (Some(name), false) => name,
        (None, false) => return Err(no_key(home)),
    };
    let path = home.user_key_path(&name).map_err(key_error)?;
    let text = home.user_key(&name).map_err(key_error)?.ok_or_else(|| Error::Key {
        reason: format!("there is no key of user {name:?} at {}", path.display()),
        remedy: format!(
            "`tintype user import FILE --name {name}` brings in a backed-up key, `tintype user add {name}` \
             makes a new one"
        ),
    })?;
    let broken = |reason: String| Error::Key {
        reason: format!("{}: {reason}", path.display()),
        remedy: format!("put the backed-up key of {name:?} in its place"),
    };
    let secret = match KeyFile::parse(&text).map_err(|e| broken(e.to_string()))? {
        KeyFile::Plain(secret) => secret,
        KeyFile::Sealed(sealed) => {
            let passphrase = ask(&name).ok_or_else(|| Error::Key {
                reason: format!("the key of user {name:?} is sealed with a passphrase"),
                remedy: "run it on a terminal, or set TINTYPE_PASSPHRASE".into(),
            })?;
            sealed.open(&passphrase).map_err(|e| broken(e.to_string()))?
        }
    };
    Ok(User { name, made_now: false, keys: Arc::new(UserKeys::derive(&secret)) })
}

fn only_user(home: &Home) -> Result<Option<String>, Error> {
    let mut users = home.users().map_err(key_error)?;
    match users.len() {
        0 => Ok(None),
        1 => Ok(users.pop()),
        _ => Err(Error::Key {
            reason: format!("this home has the keys of several users: {}", users.join(", ")),
            remedy: "name one with `--as USER`".into(),
        }),
    }
}

fn no_key(home: &Home) -> Error {
    Error::Key {
        reason: format!("there is no user's key in {}", home.root().join("keys").join("users").display()),
        remedy: "`tintype user import FILE` brings in a backed-up key; the first `tintype put`, or \
                 `tintype user add NAME`, makes a new one"
            .into(),
    }
}

/// The login's name, if it can be a user's.
fn login(home: &Home) -> String {
    let login = ["USER", "LOGNAME", "USERNAME"].iter().find_map(|key| std::env::var(key).ok());
    login.filter(|name| home.user_key_path(name).is_ok()).unwrap_or_else(|| "me".to_owned())
}

fn make(home: &Home, name: String) -> Result<User, Error> {
    let secret = UserSecret::from_random(Zeroizing::new(rand::random()));
    home.create().map_err(key_error)?;
    if !home.create_user_key(&name, &key_file::plain_text(&secret)).map_err(key_error)? {
        // Another process was quicker.
        return load(home, Some(name), Missing::Refuse, |_| None);
    }
    Ok(User { name, made_now: true, keys: Arc::new(UserKeys::derive(&secret)) })
}

fn key_error(error: DiskError) -> Error {
    match error {
        DiskError::BadName { .. } => Error::UserName(error.to_string()),
        error => {
            Error::Key { reason: error.to_string(), remedy: "check the home's path and permissions".into() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody_asks(_: &str) -> Option<Zeroizing<String>> {
        None
    }

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().expect("a folder");
        let home = Home::at(dir.path().join("home"));
        (dir, home)
    }

    #[track_caller]
    fn refused(loaded: Result<User, Error>) -> (String, String) {
        match loaded {
            Err(Error::Key { reason, remedy }) => (reason, remedy),
            Err(other) => panic!("{other}"),
            Ok(user) => panic!("{} was there", user.name),
        }
    }

    #[test]
    fn only_who_may_make_a_key_makes_one() {
        let (_dir, home) = home();
        let (reason, remedy) = refused(load(&home, None, Missing::Refuse, nobody_asks));
        assert!(reason.contains("users"), "{reason}");
        assert!(remedy.contains("user import") && remedy.contains("user add"), "{remedy}");
        assert!(home.users().expect("listed").is_empty(), "nothing was made");

        let made = load(&home, None, Missing::Make, nobody_asks).expect("made");
        assert!(made.made_now);
        let again = load(&home, None, Missing::Refuse, nobody_asks).expect("there");
        assert_eq!((again.name, again.made_now), (made.name, false));
        assert_eq!(again.keys.owner(), made.keys.owner());
    }

    #[test]
    fn a_named_user_is_made_only_in_a_home_without_any() {
        let (_dir, home) = home();
        let anna = || Some("anna".to_owned());
        let (reason, remedy) = refused(load(&home, anna(), Missing::Refuse, nobody_asks));
        assert!(reason.contains("anna.key") && remedy.contains("--name anna"), "{reason} {remedy}");
        assert_eq!(load(&home, anna(), Missing::Make, nobody_asks).expect("made").name, "anna");
        let (reason, _) = refused(load(&home, Some("bert".into()), Missing::Make, nobody_asks));
        assert!(reason.contains("bert"), "{reason}");
        assert_eq!(home.users().expect("listed"), ["anna"]);
    }

    #[test]
    fn what_cannot_be_a_users_name_is_said_to_be_that() {
        let (_dir, home) = home();
        for name in ["", "../x", "-x"] {
            for missing in [Missing::Make, Missing::Refuse] {
                let loaded = load(&home, Some(name.into()), missing, nobody_asks);
                assert!(matches!(loaded, Err(Error::UserName(_))), "{name:?}");
            }
        }
    }

    #[test]
    fn of_several_one_must_be_named() {
        let (_dir, home) = home();
        for name in ["anna", "bert"] {
            let secret = UserSecret::from_random(Zeroizing::new([name.len() as u8; 32]));
            home.create().expect("made");
            assert!(home.create_user_key(name, &key_file::plain_text(&secret)).expect("written"));
        }
        let (reason, remedy) = refused(load(&home, None, Missing::Make, nobody_asks));
        assert!(reason.contains("anna, bert") && remedy.contains("--as"), "{reason} {remedy}");
        assert_eq!(
            load(&home, Some("bert".into()), Missing::Refuse, nobody_asks).expect("there").name,
            "bert"
        );
    }
}
