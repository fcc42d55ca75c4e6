//! `quintet serve`: any part against an existing NATS, any number of times.

use std::collections::BTreeSet;

use clap::Args;
use quintet_service::settings::Setting;
use quintet_service::{signals, telemetry::SETTINGS};

use crate::cli::exit::Outcome;
use crate::cli::stdout::{emit, print};
use crate::launch::banner::scheme;
use crate::launch::bind_policy;
use crate::launch::file_limit::raise_limit;
use crate::launch::part::{Part, Service};
use crate::launch::system::{self, System, SystemConfig};
use crate::launch::telemetry;
use crate::settings::{Flags, Groups, SERVICES, nats, process};

/// The settings of a process with services.
#[derive(Clone, Debug)]
pub(crate) struct ServeGroups;

impl Groups for ServeGroups {
    fn tables() -> Vec<&'static [Setting]> {
        let nats: &[&[Setting]] = &[nats::TABLE, nats::RETENTION];
        let process: &[&[Setting]] = &[process::TABLE, SETTINGS];
        [nats, SERVICES, process].concat()
    }
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

pub(crate) async fn run(command: ServeCommand) -> Outcome {
    // Only what is started is read: a mistake in the settings of another service is no reason to fail.
    let loaded = command.flags.read(|read| {
        let services: BTreeSet<Service> = command.services.iter().copied().collect();
        let parts: Vec<Part> = services
            .into_iter()
            .map(|service| service.read(read))
            .collect();
        let process = process::read(read, "quintet");
        (nats::read_of_owner(read), parts, process)
    })?;
    if command.flags.print_config {
        print(loaded.printed.trim_end());
        return Ok(());
    }
    let (nats, mut parts, process) = loaded.settings;
    let edge = match Part::edge(&mut parts) {
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
