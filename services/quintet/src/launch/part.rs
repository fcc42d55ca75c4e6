//! The parts of a system: every service, agent and worker that this program can start.
//!
//! A kind of work is one variant here. Its arms define under which identity it connects, whether it owns streams and
//! buckets, in which phase of a shutdown it drains, and what runs.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use futures::future::BoxFuture;
use quintet_agent::AgentConfig;
use quintet_bus::{Bus, BusConfig, ConnectError};
use quintet_edge::{Edge, EdgeConfig};
use quintet_frames::FramesConfig;
use quintet_runner::RunnerConfig;
use quintet_scheduler::SchedulerConfig;
use quintet_service::health::Health;
use quintet_service::tasks::{ExitPolicy, Tasks};
use quintet_service::telemetry::{Prometheus, chain};
use quintet_workers::RunWorkerConfig;
use quintet_workers::effects::EffectsConfig;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::settings::bus::{BusIdentity, BusSettings};

/// Messages that a subscription of the frames service may have pending: of the largest that NATS takes, 256 MiB.
const FRAMES_PENDING: usize = 256;
/// Delay before a NATS that does not answer yet is tried again.
const CONNECT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// A part of a system, with its configuration.
#[derive(Clone, Debug)]
pub enum Part {
    /// HTTP and WebSockets.
    Edge(EdgeConfig),
    /// Jobs, agents and templates.
    Scheduler(SchedulerConfig),
    /// Runs.
    Runner(RunnerConfig),
    /// Frames and the display.
    Frames(FramesConfig),
    /// An agent, which runs jobs.
    Agent(AgentConfig),
    /// A run worker, which runs the commands of runs.
    RunWorker(RunWorkerConfig),
    /// A worker that offers effects for the display.
    Effects(EffectsConfig),
}

/// When a part drains in a shutdown; those of one phase drain at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainPhase {
    /// First: no more requests come in.
    Entry,
    /// Then those that work, whose last reports the owners still take.
    Work,
    /// Last the owners of state.
    State,
}

/// Whether a part creates what is missing on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topology {
    /// It creates streams and buckets before it starts.
    Owner,
    /// It uses those that are there.
    User,
}

/// What a part runs on.
pub(crate) struct Environment {
    bus: Bus,
    health: Health,
    prometheus: Prometheus,
    stop: CancellationToken,
}

/// Why a part failed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct WorkError(Box<dyn std::error::Error + Send + Sync>);

/// Starts the work of a part, which continues until it is asked to stop.
type Launch = Box<dyn FnOnce(Environment) -> BoxFuture<'static, Result<(), WorkError>> + Send>;

/// A part that has what it needs of this machine, and has not connected yet.
pub(crate) struct Prepared {
    name: String,
    identity: BusIdentity,
    topology: Topology,
    /// Messages that a subscription may have pending.
    pending: usize,
    launch: Launch,
    /// Where it listens, if it does.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) phase: DrainPhase,
    pub(crate) grace: Duration,
}

impl DrainPhase {
    /// All, in order.
    pub(crate) const ALL: [Self; 3] = [Self::Entry, Self::Work, Self::State];

    /// The name of its group of tasks.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Work => "work",
            Self::State => "state",
        }
    }
}

impl Part {
    /// Under which identity it connects to the bus.
    pub fn identity(&self) -> BusIdentity {
        match self {
            Self::Edge(_) => BusIdentity::Edge,
            Self::Scheduler(_) => BusIdentity::Scheduler,
            Self::Runner(_) => BusIdentity::Runner,
            Self::Frames(_) => BusIdentity::Frames,
            Self::Agent(config) => BusIdentity::Agent(config.agent.clone()),
            Self::RunWorker(_) => BusIdentity::RunWorker,
            Self::Effects(_) => BusIdentity::Effects,
        }
    }

    /// When it drains in a shutdown.
    pub const fn drain_phase(&self) -> DrainPhase {
        match self {
            Self::Edge(_) => DrainPhase::Entry,
            Self::Agent(_) | Self::RunWorker(_) | Self::Effects(_) => DrainPhase::Work,
            Self::Scheduler(_) | Self::Runner(_) | Self::Frames(_) => DrainPhase::State,
        }
    }

    /// How long the work that it has in flight may continue in a shutdown.
    pub fn drain_grace(&self) -> Duration {
        match self {
            Self::Agent(config) => config.drain_grace,
            Self::RunWorker(config) => config.drain_grace + config.kill_grace,
            Self::Edge(_)
            | Self::Scheduler(_)
            | Self::Runner(_)
            | Self::Frames(_)
            | Self::Effects(_) => Duration::ZERO,
        }
    }

    /// The name of its task, which logs and errors show.
    fn name(&self) -> String {
        match self {
            Self::Edge(_) => "edge".to_owned(),
            Self::Scheduler(_) => "scheduler".to_owned(),
            Self::Runner(_) => "runner".to_owned(),
            Self::Frames(_) => "frames".to_owned(),
            Self::Agent(config) => format!("agent {}", config.agent),
            Self::RunWorker(config) => format!("run worker {}", config.worker),
            Self::Effects(_) => "effects".to_owned(),
        }
    }

    const fn topology(&self) -> Topology {
        match self {
            Self::Scheduler(_) | Self::Runner(_) | Self::Frames(_) => Topology::Owner,
            Self::Edge(_) | Self::Agent(_) | Self::RunWorker(_) | Self::Effects(_) => {
                Topology::User
            }
        }
    }

    /// Takes what it needs of this machine, such as the address of an edge: when that fails nothing has started.
    pub(crate) async fn prepare(self) -> anyhow::Result<Prepared> {
        let (name, identity, topology) = (self.name(), self.identity(), self.topology());
        let (phase, grace) = (self.drain_phase(), self.drain_grace());
        let (mut address, mut pending) = (None, BusConfig::PENDING_LIMIT);
        let launch = match self {
            Self::Edge(config) => {
                let edge = Edge::bind(config).await?;
                address = Some(edge.local_addr());
                launch(|on| edge.serve(on.bus, on.health, on.prometheus, on.stop))
            }
            Self::Scheduler(config) => launch(|on| {
                let health = on.health.component("scheduler");
                quintet_scheduler::run(config, on.bus, health, on.stop)
            }),
            Self::Runner(config) => launch(|on| {
                let health = on.health.component("runner");
                quintet_runner::run(config, on.bus, health, on.stop)
            }),
            Self::Frames(config) => {
                pending = FRAMES_PENDING;
                launch(|on| {
                    let health = on.health.component("frames");
                    quintet_frames::run(config, on.bus, health, on.stop)
                })
            }
            Self::Agent(config) => launch(|on| quintet_agent::run(config, on.bus, on.stop)),
            Self::RunWorker(config) => launch(|on| {
                let health = on.health.component("run worker");
                quintet_workers::run(config, on.bus, health, on.stop)
            }),
            Self::Effects(config) => launch(|on| {
                let health = on.health.component("effects");
                quintet_workers::effects::run(config, on.bus, health, on.stop)
            }),
        };
        Ok(Prepared {
            name,
            identity,
            topology,
            pending,
            launch,
            address,
            phase,
            grace,
        })
    }
}

fn launch<F, W, E>(start: F) -> Launch
where
    F: FnOnce(Environment) -> W + Send + 'static,
    W: Future<Output = Result<(), E>> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    Box::new(|on| {
        start(on)
            .map(|ended| ended.map_err(|error| WorkError(Box::new(error))))
            .boxed()
    })
}

impl Prepared {
    /// Connects, creates what is missing on the bus if it owns that, and starts.
    pub(crate) async fn start(
        self,
        settings: &BusSettings,
        health: &Health,
        prometheus: &Prometheus,
        tasks: &Tasks,
    ) -> anyhow::Result<()> {
        let mut config = settings.config(&self.identity);
        config.pending_limit = self.pending;
        let bus = connect(config).await?;
        if self.topology == Topology::Owner {
            ensure_topology(&bus).await?;
        }
        let work = (self.launch)(Environment {
            bus,
            health: health.clone(),
            prometheus: prometheus.clone(),
            stop: tasks.token(),
        });
        tasks.spawn(&self.name, ExitPolicy::Essential, work);
        Ok(())
    }
}

/// Creates what is missing on the bus.
async fn ensure_topology(bus: &Bus) -> anyhow::Result<()> {
    let report = bus.ensure_topology().await;
    let report = report.context("cannot create the streams and buckets")?;
    for problem in report.problems() {
        warn!(problem, "a stream is not as configured");
    }
    Ok(())
}

/// Connects, waiting for a NATS that is not there yet; any other failure is final.
async fn connect(config: BusConfig) -> anyhow::Result<Bus> {
    let mut warned = false;
    loop {
        match Bus::connect(config.clone()).await {
            Ok(bus) => return Ok(bus),
            Err(error @ ConnectError::Unreachable { .. }) => {
                if !warned {
                    warn!(error = %chain(&error), "waiting for NATS");
                    warned = true;
                }
            }
            Err(error) => return Err(error.into()),
        }
        sleep(CONNECT_RETRY_DELAY).await;
    }
}
