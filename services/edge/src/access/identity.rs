//! Identities: a caller's name and permissions.

use std::sync::Arc;

use quintet_contract::access::{KeyHash, Permissions};

/// The caller where no key is set.
const ANONYMOUS: &str = "anonymous";

/// A set of permissions that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// To read.
    Viewer,
    /// To do everything.
    Operator,
}

impl Role {
    /// What it allows.
    pub const fn permissions(self) -> Permissions {
        match self {
            Self::Viewer => Permissions::VIEWER,
            Self::Operator => Permissions::OPERATOR,
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "viewer" => Some(Self::Viewer),
            "operator" => Some(Self::Operator),
            _ => None,
        }
    }
}

/// The clients that are served while there is no key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OpenTo {
    /// Clients on this machine.
    #[default]
    ThisMachine,
    /// Any client; for development.
    Everyone,
}

/// The caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The name of its key; what it does is recorded under it.
    pub(crate) name: Arc<str>,
    pub(crate) permissions: Permissions,
    /// The digest of its key; none where no key is set.
    pub(crate) key: Option<KeyHash>,
}

impl Caller {
    /// A caller with a key.
    pub(crate) fn of_key(name: &str, permissions: Permissions, key: KeyHash) -> Self {
        Self {
            name: name.into(),
            permissions,
            key: Some(key),
        }
    }

    /// The caller where no key is set: it may do everything.
    pub(crate) fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.into(),
            permissions: Permissions::OPERATOR,
            key: None,
        }
    }
}
