//! The data folder of `up`: locked while it is in use, with the passwords of its NATS and how to reach it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use uuid::Uuid;

use crate::cli::exit::{self, Failure};
use crate::client::connection::{CONNECTION, Connection};

/// Only its owner may read what is secret.
const OWNER_ONLY: u32 = 0o600;
/// The rights of other clients.
const OTHERS: u32 = 0o077;
const PASSWORDS: &str = "passwords.json";
/// The configuration of the server, which holds the passwords as well.
pub(crate) const NATS_CONF: &str = "nats.conf";
const SECRETS: [&str; 3] = [PASSWORDS, CONNECTION, NATS_CONF];

/// An open data folder; others are kept out until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens the folder, making it if need be.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)
            .with_context(|| format!("cannot make the data folder {}", path.display()))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot find the data folder {}", path.display()))?;
        let file = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(OWNER_ONLY)
            .open(&file);
        let lock = lock.with_context(|| format!("cannot open {}", file.display()))?;
        if lock.try_lock().is_err() {
            let text = format!(
                "the data folder {} is in use by another `quintet up`; stop that one, or give this one another --data-dir",
                path.display()
            );
            return Err(Failure::new(exit::FAILED, text).into());
        }
        Ok(Self { path, _lock: lock })
    }

    /// A path in the folder.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A password per user, made once and kept.
    pub(crate) fn passwords(&self, users: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
        let file = self.join(PASSWORDS);
        let mut passwords: BTreeMap<String, String> = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} is damaged; delete it", file.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        };
        for user in users {
            // 122 random bits each.
            passwords
                .entry(user.clone())
                .or_insert_with(|| Uuid::new_v4().simple().to_string());
        }
        self.write_secret(PASSWORDS, &serde_json::to_vec_pretty(&passwords)?)?;
        Ok(passwords)
    }

    /// The address of the NATS of this folder.
    pub(crate) fn write_connection(&self, connection: &Connection) -> anyhow::Result<()> {
        self.write_secret(CONNECTION, &serde_json::to_vec_pretty(connection)?)
    }

    /// Takes it back: there is no NATS any more.
    pub(crate) fn remove_connection(&self) {
        let _ = std::fs::remove_file(self.join(CONNECTION));
    }

    /// Writes a file that only its owner may read; a reader sees the old one or the new one.
    pub(crate) fn write_secret(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let (file, fresh) = (self.join(name), self.join(&format!("{name}.new")));
        let write = || {
            let _ = std::fs::remove_file(&fresh);
            let mut out = OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(OWNER_ONLY)
                .open(&fresh)?;
            out.write_all(content)?;
            std::fs::rename(&fresh, &file)
        };
        write().with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Files with secrets in a folder that others than their owner may read.
pub(crate) fn exposed(folder: &Path) -> Vec<&'static str> {
    let open = |name: &&str| {
        let found = std::fs::metadata(folder.join(name));
        found.is_ok_and(|found| found.permissions().mode() & OTHERS != 0)
    };
    SECRETS.into_iter().filter(open).collect()
}
