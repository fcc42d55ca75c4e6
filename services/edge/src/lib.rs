//! The edge: turns REST, server-sent events and WebSockets into requests on the bus.
//!
//! It owns sockets and nothing else: any request can go to any edge, any stream can be resumed on another, and a restart
//! loses nothing. It refuses to decide about jobs, agents and runs; it authenticates callers, validates requests, and ensures
//! that no client can make it grow without bounds.
//!
//! - One folder per kind of work (`jobs`, `runs`, `frames`), with its routes, event streams, sockets and its client of the bus;
//!   `dashboard` and `service` are the edge's own.
//! - `server` is the listener, `http` what every request passes through, `access` the permissions, `live` what is
//!   watched once for all listeners. `router` puts the kinds together, and nothing imports it.
//! - Imports point down: router, kinds, `state`, `http`, `access`; `config` stands on what `access` can parse.

mod access;
mod config;
mod dashboard;
mod edge;
mod error;
mod frames;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod http;
mod jobs;
mod live;
pub mod metrics;
mod router;
mod runs;
mod server;
mod service;
mod state;
mod workers;

pub use access::client_address::{Network, NoNetwork};
pub use access::identity::{OpenTo, Role};
pub use access::keys::{ApiKey, ApiKeyError, parse_api_keys};
pub use access::rate_limit::shared::RunRateLimit;
pub use config::{DEFAULT_AGENT_TOKEN, EdgeConfig, Tls};
pub use edge::Edge;
pub use error::Error;
pub use router::openapi;
pub use server::serve_health;
