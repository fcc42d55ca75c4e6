//! What the flows share: a whole system ([`Stack`]), and the clients that a user would write against it: HTTP
//! ([`Api`]), server-sent events ([`Feed`]) and WebSockets ([`Socket`]).

#![expect(clippy::unwrap_used, reason = "a client of a test fails the test")]

mod api;
mod command;
mod feed;
mod owner;
mod runs;
mod socket;
mod stack;

pub use api::{Answer, Api};
pub use command::run_to_end;
pub use feed::{Feed, Message};
pub use owner::{Owner, checkpoint, line, status};
pub use runs::{Runs, connect, start_edges};
pub use socket::{Agent, Frame, Socket};
pub use stack::{Plan, Stack, binary, part, repository};

use std::time::Duration;

/// How long anything may take on a busy machine before a test gives up.
pub const TIMEOUT: Duration = Duration::from_secs(30);
