//! The runner: executes the plans of runs.

mod config;
mod driver;
mod error;

pub use config::RunnerConfig;
pub use driver::run;
pub use error::Error;
