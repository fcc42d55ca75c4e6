//! `quintet agent`: one agent against an existing NATS.

use std::time::Duration;

use clap::Args;
use quintet_service::settings::Setting;
use quintet_service::{signals, telemetry::SETTINGS};

use crate::cli::exit::Outcome;
use crate::cli::stdout::print;
use crate::launch::system::{System, SystemConfig, run_until};
use crate::launch::telemetry;
use crate::settings::{Flags, Groups, agent, nats, process};

/// How long it may take to end beside the grace that its jobs have.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// The settings of an agent's process.
#[derive(Clone, Debug)]
pub(crate) struct AgentGroups;

impl Groups for AgentGroups {
    const TABLES: &'static [&'static [Setting]] =
        &[nats::TABLE, agent::TABLE, process::TABLE, SETTINGS];
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
    let deadline = agent.drain_grace + SHUTDOWN_TIMEOUT;
    let system = SystemConfig {
        bus: nats.bus,
        edge: None,
        schedulers: Vec::new(),
        runners: Vec::new(),
        agents: vec![agent],
        frames: Vec::new(),
        effects: Vec::new(),
        run_workers: Vec::new(),
        metrics: process.metrics,
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
