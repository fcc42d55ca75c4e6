//! Who may do what and how often: identities, keys, tickets, limits and origins.

pub(crate) mod authorize;
pub(crate) mod cors;
pub(crate) mod identity;
pub(crate) mod keys;
pub(crate) mod policy;
pub(crate) mod quota;
pub(crate) mod rate_limit;
pub(crate) mod ticket;
