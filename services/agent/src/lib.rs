//! The agent: runs jobs as child processes, and reports their progress and end.
//!
//! It owns its child processes, their output, and the answer to "does this placement run here". It refuses
//! to decide what runs where, to start anything before its acceptance was confirmed, and to keep a job that
//! may be started elsewhere when it has lost the bus.
//!
//! ```text
//!   offered ──▶ accepted ──confirmed──▶ STARTING ──▶ RUNNING ──stop──▶ STOPPING ──▶ ended ──stored──▶ gone
//!      │            │ not confirmed in time   │          │                 │          ▲
//!      ▼            └─────────────────────────┼──────────┼─────────────────┼──────────┤
//!   refused                                   └──exit────┴─────exit────────┴──kill────┘
//! ```
//!
//! [`run`] is the whole program; `core` decides, `driver` runs the event loop, `child` supervises one process. Children
//! sit in process groups of their own and die with the agent: the kernel kills the child itself, the
//! [`reaper`](quintet_worker::process::reaper) kills everything that the child started.

mod child;
mod config;
mod core;
mod driver;
mod error;
mod executors;
mod ffmpeg;
mod inbound;
mod logs;
pub mod metrics;
mod outbound;
#[cfg(feature = "simulate")]
pub mod simulate;

pub use config::AgentConfig;
pub use driver::run;
pub use error::Error;
pub use executors::{Executor, UnknownExecutor};
