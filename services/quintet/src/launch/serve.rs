//! `quintet serve`: any part against an existing NATS, any number of times.

use std::time::Duration;

use clap::{Args, ValueEnum};
use quintet_service::signals;

use crate::cli::exit::{self, Failure, Outcome};
use crate::cli::stdout::{emit, print};
use crate::launch::banner::scheme;
use crate::launch::bind_policy::{refuse_known_token, warn_of_open_interface};
use crate::launch::system::{System, SystemConfig, run_until};
use crate::launch::telemetry;
use crate::settings::{Config, Flags};

/// How long each part may take to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Args)]
pub(crate) struct ServeCommand {
    /// Which services
    #[arg(required = true, value_enum)]
    services: Vec<Service>,
    /// Allow the well-known agent token on an address that others can reach
    #[arg(long)]
    insecure_dev: bool,
    #[command(flatten)]
    flags: Flags,
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
    let config = command.flags.read("quintet")?;
    if command.flags.print_config {
        print(config.printed.trim_end());
        return Ok(());
    }
    let wants = |service| command.services.contains(&service);
    if wants(Service::Edge) {
        refuse_known_token(&config, command.insecure_dev)?;
    }
    config.require_nats()?;
    let telemetry = telemetry::start(&config)?;
    if wants(Service::Edge) {
        crate::launch::file_limit::raise_limit();
        warn_of_open_interface(&config.edge);
    }
    let scheme = scheme(&config.edge);
    let stop = signals::listen()?;
    let system = SystemConfig {
        bus: config.bus,
        edge: wants(Service::Edge).then_some(config.edge),
        schedulers: if wants(Service::Scheduler) {
            vec![config.scheduler]
        } else {
            Vec::new()
        },
        runners: if wants(Service::Runner) {
            vec![config.runner]
        } else {
            Vec::new()
        },
        frames: if wants(Service::Frames) {
            vec![config.frames]
        } else {
            Vec::new()
        },
        agents: Vec::new(),
        run_workers: Vec::new(),
        effects: Vec::new(),
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
