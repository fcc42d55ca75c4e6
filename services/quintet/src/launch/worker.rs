//! `quintet worker`: workers against an existing NATS, one kind per subcommand.

use clap::{Args, Subcommand};
use quintet_service::settings::Setting;
use quintet_service::{signals, telemetry::SETTINGS};

use crate::cli::exit::Outcome;
use crate::cli::stdout::print;
use crate::launch::system::{self, Part, SystemConfig};
use crate::launch::telemetry;
use crate::settings::{Flags, Groups, effects, nats, process, run_worker};

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
    fn tables() -> Vec<&'static [Setting]> {
        vec![nats::TABLE, run_worker::TABLE, process::TABLE, SETTINGS]
    }
}

impl Groups for EffectsGroups {
    fn tables() -> Vec<&'static [Setting]> {
        vec![nats::TABLE, effects::TABLE, process::TABLE, SETTINGS]
    }
}

pub(crate) async fn run(command: WorkerCommand) -> Outcome {
    let (print_config, loaded) = match command {
        WorkerCommand::Run(WorkerFlags { flags }) => {
            let loaded = flags.read(|read| {
                let process = process::read(read, "quintet-run-worker");
                let worker = Part::RunWorker(run_worker::read(read));
                (nats::read(read), worker, process)
            });
            (flags.print_config, loaded?)
        }
        WorkerCommand::Effects(WorkerFlags { flags }) => {
            let loaded = flags.read(|read| {
                let process = process::read(read, "quintet-effects");
                let worker = Part::Effects(effects::read(read));
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
    let config = SystemConfig {
        bus: nats.bus,
        parts: vec![worker],
        metrics: process.metrics,
    };
    let outcome = system::run(config, &telemetry, stop, |_| {}).await;
    telemetry::end(telemetry).await;
    outcome
}
