//! The run worker: takes tasks of runs from queues, runs them, and reports their progress and end.
//!
//! It owns the programs that it starts and its tasks in flight. It refuses to begin anything that the run's
//! owner did not grant, to continue with what is no longer its own, and to acknowledge a task that the owner has not
//! received the end of.
//!
//! ```text
//!   pulled ──▶ TAKING ──granted──▶ WORKING ──ended──▶ REPORTING ──stored──▶ acknowledged
//!                │  │                 │ │                │                    ▲
//!                │  └──gone───────────┼─┼────gone────────┴────────────────────┤
//!                │                    │ └──gone, canceled──▶ STOPPING ────────┘
//!                └──drained───────────┴──drained──▶ STOPPING ──▶ returned to the queue
//! ```
//!
//! [`run`] does tasks of nodes of kind `command`: each is a program in a process group and a folder of its own. [`serve`]
//! does what a [`Handler`] of the caller's does with a task, in this process. [`effects`] are workers of another kind: they
//! draw frames. The contracts with workers that are no part of this program are in `TASKS.md` and `FRAMES.md` beside this
//! crate.

mod command;
mod config;
mod driver;
pub mod effects;
mod error;
mod handler;
pub mod metrics;
mod task_run;

pub use config::RunWorkerConfig;
pub use driver::{run, serve};
pub use error::Error;
pub use handler::{Handler, TaskContext, TaskFailure};
