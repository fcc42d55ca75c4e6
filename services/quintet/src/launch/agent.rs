//! `quintet agent`: one agent against an existing NATS.

use clap::Args;
use quintet_service::settings::Setting;
use quintet_service::{signals, telemetry::SETTINGS};

use crate::cli::exit::Outcome;
use crate::cli::stdout::print;
use crate::launch::system::{self, Part, SystemConfig};
use crate::launch::telemetry;
use crate::settings::{Flags, Groups, agent, nats, process};

/// The settings of an agent's process.
#[derive(Clone, Debug)]
pub(crate) struct AgentGroups;

impl Groups for AgentGroups {
    fn tables() -> Vec<&'static [Setting]> {
        vec![nats::TABLE, agent::TABLE, process::TABLE, SETTINGS]
    }
}

#[derive(Args)]
pub(crate) struct AgentCommand {
    #[command(flatten)]
    flags: Flags<AgentGroups>,
}

pub(crate) async fn run(command: AgentCommand) -> Outcome {
    let loaded = command.flags.read(|read| {
        let process = process::read(read, "quintet-agent");
        (nats::read(read), agent::read(read), process)
    })?;
    if command.flags.print_config {
        print(loaded.printed.trim_end());
        return Ok(());
    }
    let (nats, agent, process) = loaded.settings;
    nats.require_nats()?;
    let telemetry = telemetry::start(process.telemetry)?;
    let stop = signals::listen()?;
    let config = SystemConfig {
        bus: nats.bus,
        parts: vec![Part::Agent(agent)],
        metrics: process.metrics,
    };
    let outcome = system::run(config, &telemetry, stop, |_| {}).await;
    telemetry::end(telemetry).await;
    outcome
}
