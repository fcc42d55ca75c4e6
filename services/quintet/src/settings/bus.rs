//! Connections to the bus: one identity per service, agent or worker, each with the credentials of its role.

use std::collections::BTreeMap;
use std::fmt;

use quintet_bus::{BusConfig, Credentials, TlsFiles, redact_url};
use quintet_contract::id::AgentId;
use quintet_contract::subject::Prefix;
use quintet_contract::topology::Retention;

/// A client of the bus, whose credentials and connection name are its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BusIdentity {
    /// The edge.
    Edge,
    /// A scheduler.
    Scheduler,
    /// A runner.
    Runner,
    /// A frames service.
    Frames,
    /// A run worker.
    RunWorker,
    /// A worker that offers effects.
    Effects,
    /// One agent.
    Agent(AgentId),
}

/// The credentials of every identity.
#[derive(Clone, Debug)]
pub enum RoleCredentials {
    /// The same for all.
    Same(Credentials),
    /// Each its own.
    Each(BTreeMap<BusIdentity, Credentials>),
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
    /// The credentials of each identity.
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

    /// The connection of one identity.
    pub fn config(&self, identity: &BusIdentity) -> BusConfig {
        let (name, credentials) = match (identity, &self.credentials) {
            (_, RoleCredentials::Same(credentials)) => (identity.name(), Some(credentials)),
            (identity, RoleCredentials::Each(each)) => (identity.name(), each.get(identity)),
        };
        BusConfig {
            url: self.url.clone(),
            prefix: self.prefix.clone(),
            name,
            credentials: credentials.cloned().unwrap_or(Credentials::None),
            tls: self.tls.clone(),
            replicas: self.replicas,
            pending_limit: BusConfig::PENDING_LIMIT,
            retention: self.retention,
        }
    }
}

impl BusIdentity {
    fn name(&self) -> String {
        match self {
            Self::Edge => "quintet edge".to_owned(),
            Self::Scheduler => "quintet scheduler".to_owned(),
            Self::Runner => "quintet runner".to_owned(),
            Self::Frames => "quintet frames".to_owned(),
            Self::RunWorker => "quintet run worker".to_owned(),
            Self::Effects => "quintet effects".to_owned(),
            Self::Agent(agent) => format!("quintet agent {agent}"),
        }
    }
}
