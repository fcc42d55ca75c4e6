//! The file in the data folder of a running `up` by which commands reach its NATS.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// How to reach the server, with its users and their passwords.
pub(crate) const CONNECTION: &str = "connection.json";

/// How to reach the NATS of a running `up`; it holds passwords, and is never shown.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Connection {
    /// Its address.
    pub(crate) url: String,
    /// Its users and their passwords.
    pub(crate) users: BTreeMap<String, String>,
}

/// How to reach the NATS of an `up` that runs on this folder, if one does.
pub(crate) fn connection_of(folder: &Path) -> Option<Connection> {
    let text = std::fs::read(folder.join(CONNECTION)).ok()?;
    serde_json::from_slice(&text).ok()
}
