//! Connections to the bus: one per service, agent or worker, each with the credentials of its role.

use std::collections::BTreeMap;
use std::fmt;

use quintet_bus::{BusConfig, Credentials, TlsFiles, redact_url};
use quintet_contract::permission::Role;
use quintet_contract::subject::Prefix;
use quintet_contract::topology::Retention;

/// The credentials of every role.
#[derive(Clone, Debug)]
pub enum RoleCredentials {
    /// The same for all.
    Same(Credentials),
    /// Each its own.
    Each(BTreeMap<Role, Credentials>),
}

impl From<Credentials> for RoleCredentials {
    fn from(credentials: Credentials) -> Self {
        Self::Same(credentials)
    }
}

/// How services reach the bus.
#[derive(Clone)]
pub struct BusSettings {
    /// Address of NATS.
    pub url: String,
    /// First part of every subject.
    pub prefix: Prefix,
    /// Copies of every stream.
    pub replicas: usize,
    /// How long output of jobs and logs of runs are kept.
    pub retention: Retention,
    /// Files of TLS.
    pub tls: Option<TlsFiles>,
    /// The credentials of each role.
    pub credentials: RoleCredentials,
}

/// Without the password that the address may hold.
impl fmt::Debug for BusSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusSettings")
            .field("url", &redact_url(&self.url))
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl BusSettings {
    /// A NATS without authentication.
    pub fn open(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: Prefix::default(),
            replicas: 1,
            retention: Retention::default(),
            tls: None,
            credentials: Credentials::None.into(),
        }
    }

    /// The connection of one role, which has its name.
    pub fn config(&self, role: &Role) -> BusConfig {
        let credentials = match &self.credentials {
            RoleCredentials::Same(credentials) => Some(credentials),
            RoleCredentials::Each(each) => each.get(role),
        };
        BusConfig {
            url: self.url.clone(),
            prefix: self.prefix.clone(),
            name: format!("quintet {}", role.user()),
            credentials: credentials.cloned().unwrap_or(Credentials::None),
            tls: self.tls.clone(),
            replicas: self.replicas,
            pending_limit: BusConfig::PENDING_LIMIT,
            retention: self.retention,
        }
    }
}
