//! `quintet serve`: any part against an existing NATS, any number of times.

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use quintet_service::settings::{Reader, Setting};
use quintet_service::{signals, telemetry::SETTINGS};

use crate::cli::exit::Outcome;
use crate::cli::stdout::{emit, print};
use crate::launch::banner::scheme;
use crate::launch::bind_policy;
use crate::launch::file_limit::raise_limit;
use crate::launch::system::{self, Part, System, SystemConfig};
use crate::launch::telemetry;
use crate::settings::{Flags, Groups, edge, frames, nats, process, runner, scheduler};

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
    /// Allow the well-known agent token, and to have no API key, on an address that others can reach
    #[arg(long)]
    insecure_dev: bool,
    #[command(flatten)]
    flags: Flags<ServeGroups>,
}

/// A service that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
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

impl Service {
    /// The part, with its settings.
    fn part(self, read: &mut Reader<'_>) -> Part {
        match self {
            Self::Edge => Part::Edge(edge::read(read)),
            Self::Scheduler => Part::Scheduler(scheduler::read(read)),
            Self::Runner => Part::Runner(runner::read(read)),
            Self::Frames => Part::Frames(frames::read(read)),
        }
    }
}

pub(crate) async fn run(command: ServeCommand) -> Outcome {
    // Only what is started is read: a mistake in the settings of another service is no reason to fail.
    let loaded = command.flags.read(|read| {
        let services: BTreeSet<Service> = command.services.iter().copied().collect();
        let parts: Vec<Part> = services
            .into_iter()
            .map(|service| service.part(read))
            .collect();
        let process = process::read(read, "quintet");
        (nats::read_of_owner(read), parts, process)
    })?;
    if command.flags.print_config {
        print(loaded.printed.trim_end());
        return Ok(());
    }
    let (nats, mut parts, process) = loaded.settings;
    let edge = parts.iter_mut().find_map(|part| match part {
        Part::Edge(edge) => Some(edge),
        _ => None,
    });
    let edge = match edge {
        Some(edge) => {
            bind_policy::apply(edge, command.insecure_dev)?;
            Some(edge.clone())
        }
        None => None,
    };
    nats.require_nats()?;
    let telemetry = telemetry::start(process.telemetry)?;
    if let Some(edge) = &edge {
        raise_limit();
        bind_policy::warn_of_open_edge(edge);
    }
    let scheme = edge.as_ref().map_or("http", scheme);
    let stop = signals::listen()?;
    let config = SystemConfig {
        bus: nats.bus,
        parts,
        metrics: process.metrics,
    };
    let started = |system: &System| {
        if let Some(address) = system.address() {
            emit(format_args!("listens {scheme}://{address}"));
        }
    };
    let outcome = system::run(config, &telemetry, stop, started).await;
    telemetry::end(telemetry).await;
    outcome
}
