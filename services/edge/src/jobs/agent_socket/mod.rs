//! Third-party agents: each socket becomes an agent on the bus.
//!
//! ```text
//!   connected ──hello──▶ greeting ──welcome──▶ serving ──close──▶ goodbye on the bus
//!       │ 10 s              │ wrong token          │ a newer session elsewhere
//!       ▼                   ▼                      ▼
//!   close 4002          close 4001             close 1000, nothing is published
//! ```
//!
//! [`core`] translates both ways and remembers which jobs the agent has; [`session`] moves frames. Nothing is kept that
//! a restart would lose: at a shutdown nothing is published, and the agent reconnects through another edge.

mod core;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod session;

pub(crate) use self::session::connect;
