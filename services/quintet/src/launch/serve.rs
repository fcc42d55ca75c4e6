//! `quintet serve`: any part against an existing NATS, any number of times.

use std::time::Duration;

use clap::{Args, ValueEnum};
use quintet_service::settings::Setting;
use quintet_service::{signals, telemetry::SETTINGS};

use crate::cli::exit::Outcome;
use crate::cli::stdout::{emit, print};
use crate::launch::banner::scheme;
use crate::launch::bind_policy::{refuse_known_token, warn_of_open_interface};
use crate::launch::system::{BusSettings, System, SystemConfig, run_until};
use crate::launch::telemetry;
use crate::settings::{Flags, Groups, edge, frames, nats, process, runner, scheduler};

/// How long each part may take to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// The settings of a process with services.
#[derive(Clone, Debug)]
pub(crate) struct ServeGroups;

impl Groups for ServeGroups {
    const TABLES: &'static [&'static [Setting]] = &[
        nats::TABLE,
        nats::RETENTION,
        edge::TABLE,
        scheduler::TABLE,
        runner::TABLE,
        frames::TABLE,
        process::TABLE,
        SETTINGS,
    ];
}

#[derive(Args)]
pub(crate) struct ServeCommand {
    /// Which services
    #[arg(required = true, value_enum)]
    services: Vec<Service>,
    /// Allow the well-known agent token on an address that others can reach
    #[arg(long)]
    insecure_dev: bool,
    #[command(flatten)]
    flags: Flags<ServeGroups>,
}

/// A service that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Service {
    /// HTTP and WebSockets.
    Edge,
    /// Jobs, agents and templates.
    Scheduler,
    /// Runs.
    Runner,
    /// Frames and the display.
    Frames,
}

pub(crate) async fn run(command: ServeCommand) -> Outcome {
    let wants = |service| command.services.contains(&service);
    // Only what is started is read: a mistake in the settings of another service is no reason to fail.
    let loaded = command.flags.read(|read| {
        let system = SystemConfig {
            edge: wants(Service::Edge).then(|| edge::read(read)),
            schedulers: Vec::from_iter(wants(Service::Scheduler).then(|| scheduler::read(read))),
            runners: Vec::from_iter(wants(Service::Runner).then(|| runner::read(read))),
            frames: Vec::from_iter(wants(Service::Frames).then(|| frames::read(read))),
            agents: Vec::new(),
            run_workers: Vec::new(),
            effects: Vec::new(),
            bus: BusSettings::open(""),
            metrics: None,
        };
        let process = process::read(read, "quintet");
        (nats::read_of_owner(read), system, process)
    })?;
    if command.flags.print_config {
        print(loaded.printed.trim_end());
        return Ok(());
    }
    let (nats, mut system, process) = loaded.settings;
    if let Some(edge) = &system.edge {
        refuse_known_token(edge, command.insecure_dev)?;
    }
    nats.require_nats()?;
    let telemetry = telemetry::start(process.telemetry)?;
    if let Some(edge) = &system.edge {
        crate::launch::file_limit::raise_limit();
        warn_of_open_interface(edge);
    }
    let scheme = system.edge.as_ref().map_or("http", scheme);
    let stop = signals::listen()?;
    (system.bus, system.metrics) = (nats.bus, process.metrics);
    let started = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        started = System::start(system, telemetry.prometheus()) => Some(started),
    };
    let outcome = match started {
        None => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(system)) => {
            if let Some(address) = system.address() {
                emit(format_args!("listens {scheme}://{address}"));
            }
            run_until(system, stop, SHUTDOWN_TIMEOUT).await
        }
    };
    telemetry::end(telemetry).await;
    outcome
}
