//! The client of a running system: HTTP to the edge, a connection to the bus, and what commands read and print.

pub(crate) mod http;
pub(crate) mod input;
pub(crate) mod nats;
pub(crate) mod output;
