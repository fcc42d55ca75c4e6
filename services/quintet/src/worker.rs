//! `quintet worker`: workers against an existing NATS, one kind per subcommand.

use std::time::Duration;

use clap::{Args, Subcommand};
use quintet_service::signals;

use crate::exit::Outcome;
use crate::say::print;
use crate::serve::require_nats;
use crate::settings::Flags;
use crate::system::{System, SystemConfig, run_until};
use crate::telemetry;

/// How long it may take to end beside the grace that its tasks have.
const END: Duration = Duration::from_secs(15);

#[derive(Subcommand)]
pub(crate) enum WorkerCommand {
    /// Start a run worker, which takes commands of runs from queues
    Run(RunCommand),
}

#[derive(Args)]
pub(crate) struct RunCommand {
    #[command(flatten)]
    flags: Flags,
}

pub(crate) async fn run(command: WorkerCommand) -> Outcome {
    let WorkerCommand::Run(command) = command;
    let config = command.flags.read("quintet-run-worker")?;
    if command.flags.print_config {
        print(config.printed.trim_end());
        return Ok(());
    }
    require_nats(&config)?;
    let telemetry = telemetry::start(&config)?;
    let stop = signals::listen()?;
    let worker = config.run_worker;
    let deadline = worker.drain_grace + worker.kill_grace + END;
    let system = SystemConfig {
        bus: config.bus,
        edge: None,
        schedulers: Vec::new(),
        runners: Vec::new(),
        agents: Vec::new(),
        run_workers: vec![worker],
        metrics: config.metrics,
    };
    let started = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        started = System::start(system, telemetry.prometheus()) => Some(started),
    };
    let outcome = match started {
        None => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(system)) => run_until(system, stop, deadline).await,
    };
    telemetry::end(telemetry).await;
    outcome
}
