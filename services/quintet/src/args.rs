//! The command line.

use clap::{Parser, Subcommand};

use crate::cli::global::Global;
use crate::commands::ClientCommand;
use crate::commands::doctor::DoctorCommand;
use crate::commands::nats_conf::NatsConfCommand;
use crate::commands::schemas::SchemasCommand;
use crate::launch::agent::AgentCommand;
use crate::launch::serve::ServeCommand;
use crate::launch::up::UpCommand;
use crate::launch::worker::WorkerCommand;

/// Runs long work on many machines over one message bus.
#[derive(Parser)]
#[command(name = "quintet", version, after_help = crate::cli::exit::HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start everything in one process, with a nats-server of its own unless NATS_URL is set
    Up(UpCommand),
    /// Start some services against an existing NATS
    Serve(ServeCommand),
    /// Start an agent
    Agent(AgentCommand),
    /// Start a worker
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Check whether everything is as it should be
    Doctor(DoctorCommand),
    #[command(flatten)]
    Client(ClientCommand),
    /// Print a configuration for nats-server, with a user for every role and agent
    NatsConf(NatsConfCommand),
    /// Print a completion script for a shell
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print or write the generated schemas
    #[command(hide = true)]
    Schemas(SchemasCommand),
    /// Print the table of settings
    #[command(hide = true)]
    Settings,
    /// Kill what agents and run workers leave behind (started by them themselves)
    #[command(hide = true)]
    Reaper,
}
