//! The home directory: every path in it, and the key files.
//!
//! All paths are made here and nowhere else. A key file is never overwritten and never readable by others;
//! what its text means is the business of `seal`, but for `node.key`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use libp2p_identity::Keypair;
use zeroize::Zeroizing;

use super::{
    DiskError, NodeAddr,
    crash::{Steps, steps},
    files,
};
use crate::model::{BodyId, Digest, limits};

pub(super) const NODE_KEY_PREFIX: &str = "tintype-node-1:";
const USER_NAME_BYTES_MAX: usize = 64;
const KEY: Steps = steps!("disk.key");

/// A home: `keys/`, `config/`, `data/`, and a client's `state/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// The home at `root`; touches nothing.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every path and what it is, for people.
    pub fn layout(&self) -> Vec<(PathBuf, &'static str)> {
        vec![
            (self.node_key_path(), "this node's identity"),
            (self.cluster_key_path(), "the right to be a member of the cluster"),
            (self.users_dir(), "users' keys, NAME.key each: who loses one loses that user's pictures"),
            (self.config_file(), "the configuration, if you want one"),
            (self.data_dir(), "what the node stores"),
            (self.format_path(), "the version of data/"),
            (self.machine_path(), "the machine that this home was made on"),
            (self.lock_path(), "held while a node runs"),
            (self.node_addr_path(), "where the running node listens"),
            (self.rolled_back_path(), "there if this home turned out to be an old copy"),
            (self.records_path(), "promises, registers, small bodies"),
            (self.chunks_dir(), "chunks, encrypted"),
            (self.quarantine_dir(), "copies that were found corrupt"),
            (self.client_log_path(), "what clients of this home remember"),
        ]
    }

    pub(super) fn keys_dir(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// `keys/node.key`.
    pub fn node_key_path(&self) -> PathBuf {
        self.keys_dir().join("node.key")
    }

    /// Where the cluster key lies.
    pub fn cluster_key_path(&self) -> PathBuf {
        self.keys_dir().join("cluster.key")
    }

    fn users_dir(&self) -> PathBuf {
        self.keys_dir().join("users")
    }

    /// Where the configuration file may lie.
    pub fn config_file(&self) -> PathBuf {
        self.root.join("config").join("tintype.toml")
    }

    /// Where a node's data lie.
    pub fn data_dir(&self) -> PathBuf {
        self.root.join("data")
    }

    pub(super) fn format_path(&self) -> PathBuf {
        self.data_dir().join("format")
    }

    pub(super) fn machine_path(&self) -> PathBuf {
        self.data_dir().join("machine")
    }

    pub(super) fn lock_path(&self) -> PathBuf {
        self.data_dir().join("lock")
    }

    pub(super) fn node_addr_path(&self) -> PathBuf {
        self.data_dir().join("node.addr")
    }

    pub(super) fn rolled_back_path(&self) -> PathBuf {
        self.data_dir().join("rolled-back")
    }

    pub(super) fn ballast_path(&self) -> PathBuf {
        self.data_dir().join("ballast")
    }

    pub(super) fn records_path(&self) -> PathBuf {
        self.data_dir().join("records.redb")
    }

    pub(super) fn chunks_dir(&self) -> PathBuf {
        self.data_dir().join("chunks")
    }

    pub(super) fn chunk_temp_dir(&self) -> PathBuf {
        self.chunks_dir().join("tmp")
    }

    pub(super) fn chunk_path(&self, id: &BodyId) -> PathBuf {
        self.chunks_dir().join(format!("{:02x}", id.0[0])).join(id.to_string())
    }

    pub(super) fn quarantine_dir(&self) -> PathBuf {
        self.data_dir().join("quarantine")
    }

    pub(super) fn state_dir(&self) -> PathBuf {
        self.root.join("state")
    }

    pub(super) fn client_log_path(&self) -> PathBuf {
        self.state_dir().join("client.log")
    }

    pub(super) fn client_lock_path(&self) -> PathBuf {
        self.state_dir().join("client.lock")
    }

    /// Makes the directories that are missing, `keys/` for its owner alone. True if there was no `keys/`.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn create(&self) -> Result<bool, DiskError> {
        files::make_dir(&self.root, false)?;
        let fresh = files::make_dir(&self.keys_dir(), true)?;
        files::make_dir(&self.users_dir(), true)?;
        files::make_dir(&self.root.join("config"), false)?;
        files::remove_temps(&self.keys_dir(), false);
        files::remove_temps(&self.users_dir(), false);
        Ok(fresh)
    }

    /// Whether a node runs on this home: somebody holds its lock. Changes nothing.
    pub fn is_running(&self) -> bool {
        let Ok(lock) = std::fs::File::open(self.lock_path()) else { return false };
        matches!(lock.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
    }

    /// The node's identity, if there is one.
    ///
    /// # Errors
    /// [`DiskError::BadFile`] that names the file.
    pub fn node_key(&self) -> Result<Option<Keypair>, DiskError> {
        let path = self.node_key_path();
        let Some(text) = self.read_key(&path)? else { return Ok(None) };
        match parse_node_key(&text) {
            Some(key) => Ok(Some(key)),
            None => Err(DiskError::bad_file(path, format!("not a node key: {NODE_KEY_PREFIX}… expected"))),
        }
    }

    /// The node's identity, made now if there is none and no node has run here. True if it was made.
    ///
    /// # Errors
    /// [`DiskError::BadFile`] that names the file, or an I/O error.
    pub fn node_key_or_new(&self) -> Result<(Keypair, bool), DiskError> {
        if let Some(key) = self.node_key()? {
            return Ok((key, false));
        }
        self.check_is_fresh(self.node_key_path())?;
        let secret = Zeroizing::new(rand::random::<[u8; 32]>());
        let text = Zeroizing::new(format!("{NODE_KEY_PREFIX}{}", Digest(*secret)));
        let made = self.create_key(&self.node_key_path(), &text)?;
        match self.node_key()? {
            Some(key) => Ok((key, made)),
            None => Err(DiskError::bad_file(self.node_key_path(), "gone while it was read")),
        }
    }

    /// What was stored and promised here belongs to the keys of then: others in their place would open it for
    /// somebody else.
    fn check_is_fresh(&self, missing: PathBuf) -> Result<(), DiskError> {
        match self.format_path().symlink_metadata() {
            Ok(_) => Err(DiskError::bad_file(
                missing,
                "missing, although a node has run here: put it back; none is made in its place",
            )),
            Err(_) => Ok(()),
        }
    }

    /// The text of `keys/cluster.key` without the line's end, if there is one.
    ///
    /// # Errors
    /// [`DiskError::BadFile`], or an I/O error.
    pub fn cluster_key(&self) -> Result<Option<Zeroizing<String>>, DiskError> {
        self.read_key(&self.cluster_key_path())
    }

    /// Writes `keys/cluster.key` unless there is one. False if there was one: then read that.
    ///
    /// # Errors
    /// [`DiskError::BadFile`] if a node has run here, which had one; an I/O error.
    pub fn create_cluster_key(&self, text: &str) -> Result<bool, DiskError> {
        if self.cluster_key()?.is_some() {
            return Ok(false);
        }
        self.check_is_fresh(self.cluster_key_path())?;
        self.create_key(&self.cluster_key_path(), text)
    }

    /// The names of the users whose keys are here, sorted.
    ///
    /// # Errors
    /// An I/O error.
    pub fn users(&self) -> Result<Vec<String>, DiskError> {
        let dir = self.users_dir();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(DiskError::io("read", dir)(error)),
        };
        let mut users = Vec::new();
        for entry in entries {
            let name = entry.map_err(DiskError::io("read", &dir))?.file_name();
            let user = name.to_str().and_then(|name| name.strip_suffix(".key"));
            users.extend(user.filter(|user| check_user(user).is_ok()).map(str::to_string));
        }
        users.sort();
        Ok(users)
    }

    /// Where a user's key lies.
    ///
    /// # Errors
    /// [`DiskError::BadName`].
    pub fn user_key_path(&self, user: &str) -> Result<PathBuf, DiskError> {
        check_user(user)?;
        Ok(self.users_dir().join(format!("{user}.key")))
    }

    /// The text of a user's key without the line's end, if it is here.
    ///
    /// # Errors
    /// [`DiskError::BadName`], [`DiskError::BadFile`], or an I/O error.
    pub fn user_key(&self, user: &str) -> Result<Option<Zeroizing<String>>, DiskError> {
        self.read_key(&self.user_key_path(user)?)
    }

    /// Writes a user's key unless there is one of that name. False if there was one.
    ///
    /// # Errors
    /// [`DiskError::BadName`], or an I/O error.
    pub fn create_user_key(&self, user: &str, text: &str) -> Result<bool, DiskError> {
        self.create_key(&self.user_key_path(user)?, text)
    }

    /// The text of a configuration file, if there is one.
    ///
    /// # Errors
    /// [`DiskError::BadFile`] if it is not text or absurdly large, or an I/O error.
    pub fn read_config(&self, path: &Path) -> Result<Option<String>, DiskError> {
        files::read_text(path, limits::CONFIG_FILE_BYTES_MAX)
    }

    /// What a running node says of itself, for clients; none if no node listens here. A node that was killed
    /// leaves the file behind.
    ///
    /// # Errors
    /// [`DiskError::BadFile`] if it is malformed, or an I/O error.
    pub fn node_addr(&self) -> Result<Option<NodeAddr>, DiskError> {
        let path = self.node_addr_path();
        let Some(text) = files::read_text(&path, limits::NOTE_FILE_BYTES_MAX)? else { return Ok(None) };
        NodeAddr::from_text(&text).map(Some).map_err(|what| DiskError::bad_file(path, what))
    }

    fn read_key(&self, path: &Path) -> Result<Option<Zeroizing<String>>, DiskError> {
        let Some(text) = files::read_text(path, limits::KEY_FILE_BYTES_MAX)? else { return Ok(None) };
        let text = Zeroizing::new(text);
        Ok(Some(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_string())))
    }

    fn create_key(&self, path: &Path, text: &str) -> Result<bool, DiskError> {
        files::make_dir(&self.keys_dir(), true)?;
        files::make_dir(files::parent(path), true)?;
        let line = Zeroizing::new(format!("{text}\n"));
        files::write_new(path, line.as_bytes(), &KEY)
    }
}

pub(super) fn parse_node_key(text: &str) -> Option<Keypair> {
    let mut secret = Zeroizing::new(Digest::from_hex(text.strip_prefix(NODE_KEY_PREFIX)?)?.0);
    Keypair::ed25519_from_bytes(&mut secret[..]).ok()
}

pub(super) fn check_user(user: &str) -> Result<(), DiskError> {
    let bad = |why| Err(DiskError::BadName { name: user.chars().take(80).collect(), why });
    if user.is_empty() || user.len() > USER_NAME_BYTES_MAX {
        return bad("1 to 64 bytes are allowed");
    }
    if user.starts_with(['.', '-']) {
        return bad("it begins with a dot or a dash");
    }
    if !user.chars().all(|c| c.is_alphanumeric() || "-_.@+".contains(c)) {
        return bad("letters, digits and -_.@+ are allowed");
    }
    Ok(())
}
