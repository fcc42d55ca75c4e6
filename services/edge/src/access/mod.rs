//! Access: identities, keys, tickets, limits and origins.

pub(crate) mod authenticate;
pub(crate) mod client_address;
pub(crate) mod identity;
pub(crate) mod key_table;
pub(crate) mod keys;
pub(crate) mod origin;
pub(crate) mod policy;
pub(crate) mod quota;
pub(crate) mod rate_limit;
pub(crate) mod session;
pub(crate) mod signing;

use self::authenticate::Authenticator;
use self::client_address::Network;
use self::origin::OriginPolicy;
use self::rate_limit::local::LocalRateLimit;
use self::rate_limit::shared::SharedRateLimit;

/// The keys and the rate limits.
pub(crate) struct AccessState {
    pub(crate) keys: Authenticator,
    /// Which hosts are served, and which pages may change anything.
    pub(crate) origins: OriginPolicy,
    /// Proxies that are trusted about the address of a client.
    pub(crate) trusted_proxies: Vec<Network>,
    /// Requests per second of this edge.
    pub(crate) local: Option<LocalRateLimit>,
    /// Requests of a window, over all edges.
    pub(crate) shared: Option<SharedRateLimit>,
}
