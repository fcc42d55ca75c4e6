//! Who may do what and how often: identities, keys, tickets, limits and origins.

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
