//! `quintet worker`: workers against an existing NATS, one kind per subcommand.

use std::time::Duration;

use clap::{Args, Subcommand};
use quintet_service::settings::Setting;
use quintet_service::{signals, telemetry::SETTINGS};
use quintet_workers::RunWorkerConfig;
use quintet_workers::effects::EffectsConfig;

use crate::cli::exit::Outcome;
use crate::cli::stdout::print;
use crate::launch::system::{System, SystemConfig, run_until};
use crate::launch::telemetry;
use crate::settings::{Flags, Groups, effects, nats, process, run_worker};

/// How long it may take to end beside the grace that its tasks have.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Subcommand)]
pub(crate) enum WorkerCommand {
    /// Start a run worker, which takes commands of runs from queues
    Run(WorkerFlags<RunWorkerGroups>),
    /// Offer the effects bouncing-dot, text and simplex-noise for the display
    Effects(WorkerFlags<EffectsGroups>),
}

#[derive(Args)]
pub(crate) struct WorkerFlags<G: Groups> {
    #[command(flatten)]
    flags: Flags<G>,
}

/// The settings of a run worker's process.
#[derive(Clone, Debug)]
pub(crate) struct RunWorkerGroups;

/// The settings of the process of a worker that offers effects.
#[derive(Clone, Debug)]
pub(crate) struct EffectsGroups;

impl Groups for RunWorkerGroups {
    const TABLES: &'static [&'static [Setting]] =
        &[nats::TABLE, run_worker::TABLE, process::TABLE, SETTINGS];
}

impl Groups for EffectsGroups {
    const TABLES: &'static [&'static [Setting]] =
        &[nats::TABLE, effects::TABLE, process::TABLE, SETTINGS];
}

/// The one worker of a process.
enum Worker {
    Run(RunWorkerConfig),
    Effects(EffectsConfig),
}

pub(crate) async fn run(command: WorkerCommand) -> Outcome {
    let (print_config, loaded) = match command {
        WorkerCommand::Run(WorkerFlags { flags }) => {
            let loaded = flags.read(|read| {
                let process = process::read(read, "quintet-run-worker");
                let worker = Worker::Run(run_worker::read(read));
                (nats::read(read), worker, process)
            });
            (flags.print_config, loaded?)
        }
        WorkerCommand::Effects(WorkerFlags { flags }) => {
            let loaded = flags.read(|read| {
                let process = process::read(read, "quintet-effects");
                let worker = Worker::Effects(effects::read(read));
                (nats::read(read), worker, process)
            });
            (flags.print_config, loaded?)
        }
    };
    if print_config {
        print(loaded.printed.trim_end());
        return Ok(());
    }
    let (nats, worker, process) = loaded.settings;
    nats.require_nats()?;
    let telemetry = telemetry::start(process.telemetry)?;
    let stop = signals::listen()?;
    let mut system = SystemConfig {
        bus: nats.bus,
        edge: None,
        schedulers: Vec::new(),
        runners: Vec::new(),
        frames: Vec::new(),
        agents: Vec::new(),
        run_workers: Vec::new(),
        effects: Vec::new(),
        metrics: process.metrics,
    };
    let deadline = match worker {
        Worker::Run(worker) => {
            let grace = worker.drain_grace + worker.kill_grace;
            system.run_workers.push(worker);
            grace + SHUTDOWN_TIMEOUT
        }
        Worker::Effects(effects) => {
            system.effects.push(effects);
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
