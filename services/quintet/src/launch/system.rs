//! Services put together: what `up` and `serve` start, and what flows are tested on.
//!
//! Every service has a connection of its own, under the credentials of its role. They end in order: the edge first, so
//! that nobody asks any more; then those who work, whose last reports schedulers and runners still take; then those.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use quintet_agent::AgentConfig;
use quintet_bus::{Bus, BusConfig};
use quintet_edge::{Edge, EdgeConfig};
use quintet_frames::FramesConfig;
use quintet_runner::RunnerConfig;
use quintet_scheduler::SchedulerConfig;
use quintet_service::health::Health;
use quintet_service::tasks::{ExitPolicy, Report, TaskEnd, Tasks};
use quintet_service::telemetry::{Prometheus, chain};
use quintet_workers::RunWorkerConfig;
use quintet_workers::effects::EffectsConfig;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use crate::settings::bus::{BusIdentity, BusSettings, RoleCredentials};

/// The name of the whole in the health body.
const SERVICE: &str = "orchestrator";
/// Messages that a subscription of the frames service may hold unread: of the largest that NATS takes, 256 MiB.
const FRAMES_UNREAD: usize = 256;
/// Wait before a NATS that does not answer yet is tried again.
const CONNECT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// What a system is made of.
#[derive(Debug)]
pub struct SystemConfig {
    /// Its bus.
    pub bus: BusSettings,
    /// Its edge, if it has one.
    pub edge: Option<EdgeConfig>,
    /// Its schedulers.
    pub schedulers: Vec<SchedulerConfig>,
    /// Its runners.
    pub runners: Vec<RunnerConfig>,
    /// Its frames services.
    pub frames: Vec<FramesConfig>,
    /// Its agents.
    pub agents: Vec<AgentConfig>,
    /// Its run workers.
    pub run_workers: Vec<RunWorkerConfig>,
    /// Its workers that offer effects.
    pub effects: Vec<EffectsConfig>,
    /// Where health and metrics are served beside the edge, or instead of one.
    pub metrics: Option<SocketAddr>,
}

/// A running system.
pub struct System {
    address: Option<SocketAddr>,
    health: Health,
    root: Tasks,
    edge: Tasks,
    agents: Tasks,
    run_workers: Tasks,
    effects: Tasks,
    schedulers: Tasks,
    runners: Tasks,
    frames: Tasks,
}

impl System {
    /// Starts everything. Waits for NATS, and creates what is missing there when it has a scheduler or a runner.
    pub async fn start(config: SystemConfig, prometheus: Prometheus) -> anyhow::Result<Self> {
        let SystemConfig {
            bus,
            edge,
            schedulers,
            runners,
            frames,
            agents,
            run_workers,
            effects,
            metrics,
        } = config;
        // The address first: nothing else is started for a port that is taken.
        let edge = match edge {
            Some(edge) => Some(Edge::bind(edge).await?),
            None => None,
        };
        let root = Tasks::new("quintet");
        let system = Self {
            address: edge.as_ref().map(Edge::local_addr),
            health: Health::new(SERVICE),
            edge: root.child("edge", ExitPolicy::Essential),
            agents: root.child("agents", ExitPolicy::Essential),
            run_workers: root.child("run workers", ExitPolicy::Essential),
            schedulers: root.child("schedulers", ExitPolicy::Essential),
            runners: root.child("runners", ExitPolicy::Essential),
            effects: root.child("effects", ExitPolicy::Essential),
            frames: root.child("frames", ExitPolicy::Essential),
            root,
        };
        // Named before anything starts: a part that has not begun is not ready.
        if edge.is_some() {
            drop(system.health.component("bus"));
        }
        if let Some(address) = metrics {
            let (health, token) = (system.health.clone(), system.root.token());
            let work = quintet_edge::serve_health(address, health, prometheus.clone(), token);
            system.root.spawn("metrics", ExitPolicy::Essential, work);
        }
        for scheduler in schedulers {
            system.start_scheduler(&bus, scheduler).await?;
        }
        for runner in runners {
            system.start_runner(&bus, runner).await?;
        }
        for frames in frames {
            system.start_frames(&bus, frames).await?;
        }
        for agent in agents {
            system.start_agent(&bus, agent).await?;
        }
        for run_worker in run_workers {
            system.start_run_worker(&bus, run_worker).await?;
        }
        for effects in effects {
            system.start_effects(&bus, effects).await?;
        }
        if let Some(edge) = edge {
            system.start_edge(&bus, edge, prometheus).await?;
        }
        Ok(system)
    }

    async fn start_scheduler(
        &self,
        bus: &BusSettings,
        config: SchedulerConfig,
    ) -> anyhow::Result<()> {
        let bus = connect_as_owner(bus.config(&BusIdentity::Scheduler)).await?;
        let health = self.health.component("scheduler");
        let token = self.schedulers.token();
        let work = quintet_scheduler::run(config, bus, health, token);
        self.schedulers
            .spawn("scheduler", ExitPolicy::Essential, work);
        Ok(())
    }

    async fn start_runner(&self, bus: &BusSettings, config: RunnerConfig) -> anyhow::Result<()> {
        let bus = connect_as_owner(bus.config(&BusIdentity::Runner)).await?;
        let health = self.health.component("runner");
        let token = self.runners.token();
        let work = quintet_runner::run(config, bus, health, token);
        self.runners.spawn("runner", ExitPolicy::Essential, work);
        Ok(())
    }

    async fn start_run_worker(
        &self,
        bus: &BusSettings,
        config: RunWorkerConfig,
    ) -> anyhow::Result<()> {
        let bus = connect(bus.config(&BusIdentity::RunWorker)).await?;
        let health = self.health.component("run worker");
        let token = self.run_workers.token();
        let name = format!("run worker {}", config.worker);
        let work = quintet_workers::run(config, bus, health, token);
        self.run_workers.spawn(&name, ExitPolicy::Essential, work);
        Ok(())
    }

    async fn start_frames(&self, bus: &BusSettings, config: FramesConfig) -> anyhow::Result<()> {
        let mut bus = bus.config(&BusIdentity::Frames);
        bus.unread = FRAMES_UNREAD;
        let bus = connect_as_owner(bus).await?;
        let health = self.health.component("frames");
        let token = self.frames.token();
        let work = quintet_frames::run(config, bus, health, token);
        self.frames.spawn("frames", ExitPolicy::Essential, work);
        Ok(())
    }

    async fn start_effects(&self, bus: &BusSettings, config: EffectsConfig) -> anyhow::Result<()> {
        let bus = connect(bus.config(&BusIdentity::Effects)).await?;
        let health = self.health.component("effects");
        let token = self.effects.token();
        let work = quintet_workers::effects::run(config, bus, health, token);
        self.effects.spawn("effects", ExitPolicy::Essential, work);
        Ok(())
    }

    async fn start_agent(&self, bus: &BusSettings, config: AgentConfig) -> anyhow::Result<()> {
        let bus = connect(bus.config(&BusIdentity::Agent(config.agent.clone()))).await?;
        let token = self.agents.token();
        let name = format!("agent {}", config.agent);
        self.agents.spawn(
            &name,
            ExitPolicy::Essential,
            quintet_agent::run(config, bus, token),
        );
        Ok(())
    }

    async fn start_edge(
        &self,
        bus: &BusSettings,
        edge: Edge,
        prometheus: Prometheus,
    ) -> anyhow::Result<()> {
        let bus = connect(bus.config(&BusIdentity::Edge)).await?;
        let token = self.edge.token();
        let work = edge.serve(bus, self.health.clone(), prometheus, token);
        self.edge.spawn("edge", ExitPolicy::Essential, work);
        Ok(())
    }

    /// Where the edge listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// How everything is.
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
        let mut report = self.edge.shutdown(deadline).await;
        // Both let work go on for a while.
        let (agents, run_workers, effects) = tokio::join!(
            self.agents.shutdown(deadline),
            self.run_workers.shutdown(deadline),
            self.effects.shutdown(deadline)
        );
        let mut reports = vec![agents, run_workers, effects];
        for part in [&self.schedulers, &self.runners, &self.frames, &self.root] {
            reports.push(part.shutdown(deadline).await);
        }
        for more in reports {
            report.aborted.extend(more.aborted);
            report.failed.extend(more.failed);
        }
        report
    }
}

/// Connects, and creates what is missing on the bus.
async fn connect_as_owner(config: BusConfig) -> anyhow::Result<Bus> {
    let bus = connect(config).await?;
    let report = bus
        .ensure_topology()
        .await
        .context("cannot create the streams and buckets")?;
    for problem in report.problems() {
        warn!(problem, "a stream is not as it should be");
    }
    Ok(bus)
}

/// Connects, waiting for a NATS that is not there yet; what will not pass fails at once.
pub(crate) async fn connect(config: BusConfig) -> anyhow::Result<Bus> {
    let mut warned = false;
    loop {
        match Bus::connect(config.clone()).await {
            Ok(bus) => return Ok(bus),
            Err(error @ quintet_bus::ConnectError::Unreachable { .. }) => {
                if !warned {
                    warn!(error = %chain(&error), "waits for NATS");
                    warned = true;
                }
            }
            Err(error) => return Err(error.into()),
        }
        sleep(CONNECT_RETRY_DELAY).await;
    }
}

/// Runs a system until it is asked to stop or a part of it ends; then ends the rest.
pub(crate) async fn run_until(
    system: System,
    stop: CancellationToken,
    deadline: Duration,
) -> anyhow::Result<()> {
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        end = system.wait() => Some(end),
    };
    let report = system.shutdown(deadline).await;
    for failed in &report.failed {
        warn!(error = %chain(failed), "a part ended badly");
    }
    if !report.aborted.is_empty() {
        warn!(aborted = ?report.aborted, "some parts did not end in time");
    }
    match ended {
        None => Ok(()),
        Some(end) => Err(end.into()),
    }
}
