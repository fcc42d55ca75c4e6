//! `quintet agent`: one agent against an existing NATS.

use std::time::Duration;

use clap::Args;
use quintet_service::signals;

use crate::cli::exit::Outcome;
use crate::cli::stdout::print;
use crate::launch::system::{System, SystemConfig, run_until};
use crate::launch::telemetry;
use crate::settings::Flags;

/// How long it may take to end beside the grace that its jobs have.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Args)]
pub(crate) struct AgentCommand {
    #[command(flatten)]
    flags: Flags,
}

pub(crate) async fn run(command: AgentCommand) -> Outcome {
    let config = command.flags.read("quintet-agent")?;
    if command.flags.print_config {
        print(config.printed.trim_end());
        return Ok(());
    }
    config.require_nats()?;
    let telemetry = telemetry::start(&config)?;
    let stop = signals::listen()?;
    let deadline = config.agent.drain_grace + SHUTDOWN_TIMEOUT;
    let agents = vec![config.agent];
    let system = SystemConfig {
        bus: config.bus,
        edge: None,
        schedulers: Vec::new(),
        runners: Vec::new(),
        agents,
        frames: Vec::new(),
        effects: Vec::new(),
        run_workers: Vec::new(),
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
