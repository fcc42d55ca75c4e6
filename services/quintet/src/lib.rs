//! The program `quintet`: everything in one process (`up`), any part of it (`serve`, `agent`, `worker`), and the client.
//!
//! [`system`] puts services together; it is also what flows in tests are run on. The commands are in files of their own,
//! those that talk to a running system under `client`. What a command's failure means to a shell is in [`exit`].

mod agent;
mod args;
mod client;
mod data;
mod demo;
mod doctor;
pub mod exit;
mod files;
mod nats;
mod nats_conf;
mod say;
mod schemas;
mod serve;
mod settings;
pub mod system;
mod telemetry;
mod up;
mod worker;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command};
use crate::exit::Outcome;

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
            say::print_bytes(&script);
            Ok(())
        }
        Command::Schemas(command) => schemas::run(&command),
        Command::NatsConf(command) => nats_conf::run(command),
        Command::Settings => {
            say::print(settings::markdown().trim_end());
            Ok(())
        }
        command => runtime()?.block_on(run_async(command, cli.global)),
    }
}

async fn run_async(command: Command, global: args::Global) -> Outcome {
    match command {
        Command::Up(command) => up::run(command, &global).await,
        Command::Serve(command) => serve::run(command).await,
        Command::Agent(command) => agent::run(command).await,
        Command::Worker(command) => worker::run(command).await,
        Command::Doctor(command) => doctor::run(command, &global).await,
        Command::Client(command) => client::run(command, &global).await,
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
