//! The scheduler: decides which agent runs what.
//!
//! It owns the jobs and agents of one pool, their records and their life. It refuses to run anything, to keep a second
//! truth beside the records, and to decide by polling. Any number of schedulers may run; one at a time leads a pool.
//!
//! ```text
//!      ┌───────── lease lost ───────────┐
//!      ▼                                │
//!   standby ──lease acquired──▶ loading ─┴─▶ leading ──shutdown──▶ lease released
//!                                  ▲            │
//!                                  └── conflict or indeterminate write
//! ```
//!
//! The life of a job is in [`core`]; so is every decision. The lease only prevents wasted work: what keeps two
//! schedulers from doing the same is compare and swap on every record, attempt numbers, and agents that start nothing
//! before their acceptance was stored.

mod config;
pub mod core;
mod driver;
mod error;
mod inbound;
pub mod metrics;
mod outbound;
mod templates;
mod unwritable;

pub use config::SchedulerConfig;
pub use driver::run;
pub use error::Error;
