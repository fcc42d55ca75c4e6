//! Configuration of an edge.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use quintet_bus::Secret;

use crate::access::client_address::Network;
use crate::access::identity::OpenTo;
use crate::access::keys::ApiKey;
use crate::access::rate_limit::shared::RunRateLimit;

/// The agent token of a machine that is not reachable from elsewhere.
pub const DEFAULT_AGENT_TOKEN: &str = "dev-shared-token";

/// The configuration of an edge. [`EdgeConfig::new`] has defaults for all but the address.
#[derive(Clone, Debug)]
pub struct EdgeConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The token of agents on WebSockets.
    pub agent_token: Secret,
    /// Keys of the interface, beside those that are stored. Without any it is open, see `open_to`.
    pub api_keys: Vec<ApiKey>,
    /// The clients that are served while there is no key.
    pub open_to: OpenTo,
    /// Hosts besides this machine's own names that are served while there is no key; `*` stands for all.
    pub allowed_hosts: Vec<String>,
    /// Proxies that are trusted about the address of a client.
    pub trusted_proxies: Vec<Network>,
    /// Origins whose pages may use the interface from a browser; `*` allows all. None allows those of this machine and of
    /// the edge itself.
    pub cors_origins: Vec<String>,
    /// Requests per second of one caller, also as a burst; none leaves them unlimited.
    pub rate_limit: Option<u32>,
    /// Requests about runs of one caller, over all edges; none leaves them unlimited.
    pub run_rate: Option<RunRateLimit>,
    /// Most bytes of a request's body.
    pub body_limit: usize,
    /// How long the bus may take to answer a request.
    pub request_timeout: Duration,
    /// Certificate and key, both PEM; without them it speaks plain HTTP.
    pub tls: Option<Tls>,
    /// Most open connections.
    pub max_connections: usize,
    /// Most open connections from one address, of IPv6 from one /64; trusted proxies have no such limit.
    pub max_connections_per_address: usize,
    /// Most open WebSockets and event streams from one address.
    pub max_streams_per_address: usize,
    /// How long a client may take to send the head of a request, and a connection may wait for its next one.
    pub head_timeout: Duration,
    /// How long a new agent socket may take to send hello.
    pub hello_timeout: Duration,
    /// How long open requests may take to finish when the edge is asked to leave.
    pub shutdown_grace: Duration,
}

/// Files of the listener's TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl EdgeConfig {
    /// The documented defaults.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            agent_token: Secret::new(DEFAULT_AGENT_TOKEN),
            api_keys: Vec::new(),
            open_to: OpenTo::ThisMachine,
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
            rate_limit: None,
            run_rate: Some(RunRateLimit::default()),
            body_limit: 1024 * 1024,
            request_timeout: Duration::from_secs(10),
            tls: None,
            max_connections: 50_000,
            max_connections_per_address: 20_000,
            max_streams_per_address: 10_000,
            head_timeout: Duration::from_secs(30),
            hello_timeout: Duration::from_secs(10),
            shutdown_grace: Duration::from_secs(10),
        }
    }

    /// Whether the agent token is the default, which is public.
    pub fn has_default_token(&self) -> bool {
        self.agent_token.expose() == DEFAULT_AGENT_TOKEN
    }
}
