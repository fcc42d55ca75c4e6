//! Access: identities, keys, tickets, limits and origins.

pub(crate) mod authenticate;
pub(crate) mod authorize;
pub(crate) mod client_address;
pub(crate) mod cors;
pub(crate) mod identity;
pub(crate) mod key_table;
pub(crate) mod keys;
pub(crate) mod origin;
pub(crate) mod policy;
pub(crate) mod quota;
pub(crate) mod rate_limit;
pub(crate) mod screen;
pub(crate) mod session;
pub(crate) mod signing;
