//! `quintet worker`: workers against an existing NATS, one kind per subcommand.

use std::time::Duration;

use clap::{Args, Subcommand};
use quintet_service::signals;

use crate::cli::exit::Outcome;
use crate::cli::stdout::print;
use crate::launch::system::{System, SystemConfig, run_until};
use crate::launch::telemetry;
use crate::settings::Flags;

/// How long it may take to end beside the grace that its tasks have.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Subcommand)]
pub(crate) enum WorkerCommand {
    /// Start a run worker, which takes commands of runs from queues
    Run(WorkerFlags),
    /// Offer the effects bouncing-dot, text and simplex-noise for the display
    Effects(WorkerFlags),
}

#[derive(Args)]
pub(crate) struct WorkerFlags {
    #[command(flatten)]
    flags: Flags,
}

pub(crate) async fn run(command: WorkerCommand) -> Outcome {
    let (service, flags) = match &command {
        WorkerCommand::Run(worker) => ("quintet-run-worker", &worker.flags),
        WorkerCommand::Effects(worker) => ("quintet-effects", &worker.flags),
    };
    let config = flags.read(service)?;
    if flags.print_config {
        print(config.printed.trim_end());
        return Ok(());
    }
    config.require_nats()?;
    let telemetry = telemetry::start(&config)?;
    let stop = signals::listen()?;
    let mut system = SystemConfig {
        bus: config.bus,
        edge: None,
        schedulers: Vec::new(),
        runners: Vec::new(),
        frames: Vec::new(),
        agents: Vec::new(),
        run_workers: Vec::new(),
        effects: Vec::new(),
        metrics: config.metrics,
    };
    let deadline = match command {
        WorkerCommand::Run(_) => {
            let worker = config.run_worker;
            let grace = worker.drain_grace + worker.kill_grace;
            system.run_workers.push(worker);
            grace + SHUTDOWN_TIMEOUT
        }
        WorkerCommand::Effects(_) => {
            system.effects.push(config.effects);
            SHUTDOWN_TIMEOUT
        }
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
