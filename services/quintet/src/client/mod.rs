//! The client of a running system: HTTP, events and websockets of the edge, a connection to the bus, and what commands read and print.

pub(crate) mod connection;
pub mod events;
pub(crate) mod http;
pub(crate) mod input;
pub(crate) mod job_events;
pub(crate) mod nats;
pub(crate) mod output;
pub(crate) mod websocket;
