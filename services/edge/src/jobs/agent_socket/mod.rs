//! Other people's agents: each socket becomes an agent on the bus.
//!
//! ```text
//!   connected ──hello──▶ greeting ──welcome──▶ serving ──close──▶ goodbye on the bus
//!       │ 10 s              │ wrong token          │ a newer session elsewhere
//!       ▼                   ▼                      ▼
//!   close 4002          close 4001             close 1000, nothing is said on the bus
//! ```
//!
//! [`core`] translates both ways and remembers which jobs the agent has; [`session`] moves frames. Nothing is kept that
//! a restart would lose: when the edge leaves it says nothing on the bus, and the agent comes back through another.

mod core;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod session;

pub(crate) use self::session::connect;
