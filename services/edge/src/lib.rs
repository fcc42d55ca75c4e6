//! The edge: turns REST, server-sent events and WebSockets into requests on the bus.
//!
//! It owns sockets and nothing else: any request can go to any edge, any stream can be resumed on another, and a restart
//! loses nothing. It refuses to decide about jobs, agents and runs; it checks who asks, whether the question makes sense, and
//! that no client can make it grow without bounds.
//!
//! - `routes` are the REST interface, each beside its documentation; `streams` the server-sent events;
//!   `sockets` the WebSockets; `pages` the dashboard and the readable documentation.
//! - `feeds` watches jobs, agents, frames and the logs of runs once for all listeners; `backend`, `runners` and `frames` ask the bus;
//!   `middleware` is what every request passes through, `admit` the last of it.

mod admit;
mod auth;
mod backend;
mod blobs;
mod config;
mod cors;
mod error;
mod extract;
mod feeds;
mod frames;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod gate;
mod health;
pub mod metrics;
mod middleware;
mod openapi;
mod pace;
mod pages;
mod pools;
mod rate;
mod ready;
mod routes;
mod run_rate;
mod runners;
mod server;
mod sockets;
mod state;
mod streams;
mod tickets;

pub use auth::{ApiKey, ApiKeyError, Role, parse_api_keys};
pub use config::{DEFAULT_AGENT_TOKEN, EdgeConfig, RunRateLimit, Tls};
pub use error::Error;
pub use health::serve_health;
pub use openapi::openapi;
pub use server::Edge;
