//! Services put together: what `up` and `serve` start, and what flows are tested on.
//!
//! Every part has a connection of its own, under the credentials of its role. They drain in the order of
//! [`DrainPhase`]: the edge first, so that no more requests come in; then workers, whose last reports their owners still
//! take; then those.

use std::net::SocketAddr;
use std::time::Duration;

use quintet_service::health::Health;
use quintet_service::tasks::{ExitPolicy, Report, TaskEnd, Tasks};
use quintet_service::telemetry::{Prometheus, Telemetry, chain};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use crate::launch::part::{DrainPhase, Part};
pub use crate::settings::bus::{BusSettings, RoleCredentials};

/// The name of the whole in the health body.
const SERVICE: &str = "orchestrator";
/// How long each part may take to end beside the grace that work in flight has.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// What a system is made of.
#[derive(Debug)]
pub struct SystemConfig {
    /// Its bus.
    pub bus: BusSettings,
    /// Its parts, in the order in which they start; edges are last in any case.
    pub parts: Vec<Part>,
    /// Where health and metrics are served beside the edge, or instead of one.
    pub metrics: Option<SocketAddr>,
}

/// A running system.
pub struct System {
    address: Option<SocketAddr>,
    health: Health,
    /// How long work in flight may continue in a shutdown.
    grace: Duration,
    root: Tasks,
    phases: [(DrainPhase, Tasks); 3],
}

impl System {
    /// Starts everything. Waits for NATS, and creates what is missing there when it has an owner of streams.
    pub async fn start(config: SystemConfig, prometheus: Prometheus) -> anyhow::Result<Self> {
        // Addresses first: nothing else is started for a port that is taken.
        let mut parts = Vec::new();
        for part in config.parts {
            parts.push(part.prepare().await?);
        }
        // A request must not come in before there is a part that answers it.
        parts.sort_by_key(|part| part.phase == DrainPhase::Entry);
        let root = Tasks::new("quintet");
        let group = |phase: DrainPhase| (phase, root.child(phase.name(), ExitPolicy::Essential));
        let system = Self {
            address: parts.iter().find_map(|part| part.address),
            health: Health::new(SERVICE),
            grace: parts
                .iter()
                .map(|part| part.grace)
                .max()
                .unwrap_or_default(),
            phases: DrainPhase::ALL.map(group),
            root,
        };
        // Named before anything starts: a part that has not begun is not ready.
        if system.address.is_some() {
            drop(system.health.component("bus"));
        }
        if let Some(address) = config.metrics {
            let (health, token) = (system.health.clone(), system.root.token());
            let work = quintet_edge::serve_health(address, health, prometheus.clone(), token);
            system.root.spawn("metrics", ExitPolicy::Essential, work);
        }
        for part in parts {
            let tasks = system.tasks(part.phase);
            part.start(&config.bus, &system.health, &prometheus, tasks)
                .await?;
        }
        Ok(system)
    }

    fn tasks(&self, phase: DrainPhase) -> &Tasks {
        let found = self.phases.iter().find(|(of, _)| *of == phase);
        found.map_or(&self.root, |(_, tasks)| tasks)
    }

    /// Where the edge listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The health of its parts.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Waits until everything serves.
    pub async fn ready(&self, deadline: Duration) -> anyhow::Result<()> {
        if tokio::time::timeout(deadline, self.health.wait_ready())
            .await
            .is_err()
        {
            anyhow::bail!("not ready in time: {:?}", self.health.readiness().reasons);
        }
        Ok(())
    }

    /// Resolves when a part ended that should not have. Cancel-safe.
    pub async fn wait(&self) -> TaskEnd {
        self.root.wait().await
    }

    /// Ends everything in order, each part within the deadline.
    pub async fn shutdown(self, deadline: Duration) -> Report {
        let mut report = Report::default();
        let phases = self.phases.iter().map(|(_, tasks)| tasks);
        for tasks in phases.chain([&self.root]) {
            let more = tasks.shutdown(deadline).await;
            report.aborted.extend(more.aborted);
            report.failed.extend(more.failed);
        }
        report
    }

    /// Runs until it is asked to stop or a part of it ends; then ends the rest.
    pub(crate) async fn run_until(self, stop: CancellationToken) -> anyhow::Result<()> {
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            end = self.wait() => Some(end),
        };
        let deadline = self.grace + SHUTDOWN_TIMEOUT;
        let report = self.shutdown(deadline).await;
        for failed in &report.failed {
            warn!(error = %chain(failed), "a part failed while it ended");
        }
        if !report.aborted.is_empty() {
            warn!(aborted = ?report.aborted, "some parts did not end in time");
        }
        match ended {
            None => Ok(()),
            Some(end) => Err(end.into()),
        }
    }
}

/// Starts a system and runs it until it is asked to stop or a part of it ends; `started` is called in between.
pub(crate) async fn run(
    config: SystemConfig,
    telemetry: &Telemetry,
    stop: CancellationToken,
    started: impl FnOnce(&System),
) -> anyhow::Result<()> {
    let starting = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        starting = System::start(config, telemetry.prometheus()) => starting,
    };
    let system = starting?;
    started(&system);
    system.run_until(stop).await
}
