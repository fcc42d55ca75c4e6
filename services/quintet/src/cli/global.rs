//! Options of every client command: where the edge is, and how results are printed.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What every client command takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// Where the edge is.
    #[arg(
        long,
        global = true,
        env = "QUINTET_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) url: String,
    /// The API key, where keys are set.
    #[arg(long, global = true, env = "QUINTET_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Certificate authority of the edge, PEM; without it those of the system are trusted.
    #[arg(long, global = true, value_name = "FILE", env = "QUINTET_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For machines.
    Json,
    /// For people.
    Table,
}
