//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::agent::AgentCommand;
use crate::client::ClientCommand;
use crate::doctor::DoctorCommand;
use crate::nats_conf::NatsConfCommand;
use crate::schemas::SchemasCommand;
use crate::serve::ServeCommand;
use crate::up::UpCommand;
use crate::worker::WorkerCommand;

/// Runs long work on many machines over one message bus.
#[derive(Parser)]
#[command(name = "quintet", version, after_help = crate::exit::HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

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
