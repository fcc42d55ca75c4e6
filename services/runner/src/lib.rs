//! The runner: executes the plans of runs, and keeps the log of every run.
//!
//! It owns runs: their logs, their records, what is to be done next. It refuses to do the work itself; that is done by run
//! workers that take tasks from queues, by agents, or by Kubernetes. All runs are split into shards; any number of runners
//! share them, one at a time leads a shard, and any may die.
//!
//! ```text
//!      ┌──────── lease lost, or yielded ───────┐
//!      ▼                                        │
//!   standby ──lease of a shard acquired──▶ loading ─┴─▶ leading ──shutdown──▶ lease released
//!                                             ▲            │
//!                                             └── conflict or indeterminate write
//! ```
//!
//! The life of a run is in [`core`]; so is every decision. The truth of a run is its log, to which entries are added by
//! compare and swap: a runner that is no longer the leader cannot add to it. The lease only prevents wasted work.

mod config;
pub mod core;
mod driver;
mod error;
mod execute;
mod inbound;
mod jobs;
mod kubernetes;
mod loading;
pub mod metrics;
mod outbound;
mod peers;
mod plans;
mod readiness;
mod runlog;

pub use config::RunnerConfig;
pub use driver::run;
pub use error::Error;
pub use kubernetes::{KubernetesConfig, KubernetesError, ParseQuantityError, Quantity};
