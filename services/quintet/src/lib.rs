//! The program `quintet`: everything in one process (`up`), any part of it (`serve`, `agent`, `worker`), and the client.
//!
//! - `args`: the command line, with all commands.
//! - `cli`: options of every command, exit codes ([`exit`]) and standard output.
//! - `settings`: every setting, in groups.
//! - `client`: HTTP, events, and the bus, as a client.
//! - `launch`: what starts and runs services; [`system`] puts them together, also for the flows in tests.
//! - `commands`: a noun each, on top of the client.
//!
//! The benchmark, a package of its own, measures with [`Http`] on an [`EmbeddedNats`].

mod args;
mod cli;
mod client;
mod commands;
mod launch;
mod settings;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command};
use crate::cli::exit::Outcome;
use crate::cli::global::Global;
use crate::cli::stdout;
use crate::commands::{doctor, nats_conf, schemas};
use crate::launch::{agent, serve, up, worker};

pub use crate::cli::exit;
pub use crate::client::events;
pub use crate::client::http::Http;
pub use crate::launch::data_dir::DataDir;
pub use crate::launch::embedded_nats::{EmbeddedNats, NatsPlan};
pub use crate::launch::file_limit::raise_limit;
pub use crate::launch::system;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no failures, and go to standard output.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    exit::code(run(cli))
}

fn run(cli: Cli) -> Outcome {
    match cli.command {
        // Before any thread is started: it must be single-threaded and small.
        Command::Reaper => {
            quintet_worker::process::reaper::main();
            Ok(())
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "quintet", &mut script);
            stdout::print_bytes(&script);
            Ok(())
        }
        Command::Schemas(command) => schemas::run(&command),
        Command::NatsConf(command) => nats_conf::run(command),
        Command::Settings => {
            stdout::print(settings::markdown().trim_end());
            Ok(())
        }
        command => runtime()?.block_on(run_async(command, cli.global)),
    }
}

async fn run_async(command: Command, global: Global) -> Outcome {
    match command {
        Command::Up(command) => up::run(command, &global).await,
        Command::Serve(command) => serve::run(command).await,
        Command::Agent(command) => agent::run(command).await,
        Command::Worker(command) => worker::run(command).await,
        Command::Doctor(command) => doctor::run(command, &global).await,
        Command::Client(command) => commands::run(command, &global).await,
        // Done without a runtime.
        Command::Reaper
        | Command::Completions { .. }
        | Command::Schemas(_)
        | Command::NatsConf(_)
        | Command::Settings => Ok(()),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}
