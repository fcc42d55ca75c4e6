//! The parts of a system: every service, agent and worker that this program can start.
//!
//! A part is one line in the list below, beside [`PartConfig`] of its configuration, in a file of [`parts`](super::parts):
//! in which role it connects, in which phase of a shutdown it drains, and what runs.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use futures::FutureExt;
use futures::future::BoxFuture;
use quintet_agent::AgentConfig;
use quintet_bus::{Bus, BusConfig, ConnectError};
use quintet_contract::permission::Role;
use quintet_edge::EdgeConfig;
use quintet_frames::FramesConfig;
use quintet_runner::RunnerConfig;
use quintet_scheduler::SchedulerConfig;
use quintet_service::health::Health;
use quintet_service::settings::Reader;
use quintet_service::tasks::{ExitPolicy, Tasks};
use quintet_service::telemetry::{Prometheus, chain};
use quintet_workers::RunWorkerConfig;
use quintet_workers::effects::EffectsConfig;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::settings::bus::BusSettings;

/// Delay before a NATS that does not answer yet is tried again.
const CONNECT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Declares the parts. `serve` starts services by their names; `up` starts all of them.
macro_rules! parts {
    (
        services { $($(#[$about:meta])* $service:ident($service_config:ty),)* }
        workers { $($(#[$what:meta])* $worker:ident($worker_config:ty),)* }
    ) => {
        /// A part of a system, with its configuration.
        #[derive(Clone, Debug)]
        pub enum Part {
            $($(#[$about])* $service($service_config),)*
            $($(#[$what])* $worker($worker_config),)*
        }

        /// A service that can be started by its name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
        pub(crate) enum Service {
            $($(#[$about])* $service,)*
        }

        impl Service {
            /// The part, with its settings.
            pub(crate) fn read(self, read: &mut Reader<'_>) -> Part {
                match self {
                    $(Self::$service => Part::$service(<$service_config as ServiceConfig>::read(read)),)*
                }
            }
        }

        impl Part {
            /// Takes what it needs of this machine, such as the address of an edge: when that fails nothing has started.
            pub(crate) async fn prepare(self) -> anyhow::Result<Prepared> {
                match self {
                    $(Self::$service(config) => Prepared::of(config).await,)*
                    $(Self::$worker(config) => Prepared::of(config).await,)*
                }
            }
        }
    };
}

parts! {
    services {
        /// HTTP and WebSockets.
        Edge(EdgeConfig),
        /// Jobs, agents and templates.
        Scheduler(SchedulerConfig),
        /// Runs.
        Runner(RunnerConfig),
        /// Frames and the display.
        Frames(FramesConfig),
    }
    workers {
        /// An agent, which runs jobs.
        Agent(AgentConfig),
        /// A run worker, which runs the commands of runs.
        RunWorker(RunWorkerConfig),
        /// A worker that offers effects for the display.
        Effects(EffectsConfig),
    }
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

/// What is declared of a part, by its configuration.
pub(crate) trait PartConfig: Send + Sized {
    /// When it drains in a shutdown. Owners of state create streams and buckets before they start; others use those that
    /// are there.
    const PHASE: DrainPhase;
    /// Messages that a subscription may have pending.
    const PENDING: usize = BusConfig::PENDING_LIMIT;

    /// The name of its task, which logs and errors show.
    fn name(&self) -> String;

    /// The role in which it connects to the bus.
    fn role(&self) -> Role;

    /// How long the work that it has in flight may continue in a shutdown.
    fn drain_grace(&self) -> Duration {
        Duration::ZERO
    }

    /// Takes what it needs of this machine.
    fn prepare(self) -> impl Future<Output = anyhow::Result<Launch>> + Send;
}

/// What is declared of a service besides: it is started by its name.
pub(crate) trait ServiceConfig: PartConfig {
    /// Reads its settings.
    fn read(read: &mut Reader<'_>) -> Self;
}

/// What a part runs on.
pub(crate) struct Environment {
    pub(super) bus: Bus,
    pub(super) health: Health,
    pub(super) prometheus: Prometheus,
    pub(super) stop: CancellationToken,
}

/// Why a part failed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct WorkError(Box<dyn std::error::Error + Send + Sync>);

/// Starts the work of a part, which continues until it is asked to stop.
type Start = Box<dyn FnOnce(Environment) -> BoxFuture<'static, Result<(), WorkError>> + Send>;

/// A part that has what it needs of this machine.
pub(crate) struct Launch {
    start: Start,
    /// Where it listens, if it does.
    address: Option<SocketAddr>,
}

/// A part that has what it needs of this machine, and has not connected yet.
pub(crate) struct Prepared {
    name: String,
    role: Role,
    pending: usize,
    start: Start,
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
    /// The configuration of the edge, if there is one among these.
    pub(crate) fn edge(parts: &mut [Self]) -> Option<&mut EdgeConfig> {
        parts.iter_mut().find_map(|part| match part {
            Self::Edge(edge) => Some(edge),
            _ => None,
        })
    }
}

impl Launch {
    /// Starts by this function, and listens nowhere.
    pub(super) fn new<F, W, E>(start: F) -> Self
    where
        F: FnOnce(Environment) -> W + Send + 'static,
        W: Future<Output = Result<(), E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let start = |on| {
            start(on)
                .map(|ended| ended.map_err(|error| WorkError(Box::new(error))))
                .boxed()
        };
        Self {
            start: Box::new(start),
            address: None,
        }
    }

    /// The same, listening here.
    pub(super) fn at(self, address: SocketAddr) -> Self {
        Self {
            address: Some(address),
            ..self
        }
    }
}

impl Prepared {
    async fn of<C: PartConfig>(config: C) -> anyhow::Result<Self> {
        let (name, role) = (config.name(), config.role());
        let grace = config.drain_grace();
        let Launch { start, address } = config.prepare().await?;
        Ok(Self {
            name,
            role,
            pending: C::PENDING,
            start,
            address,
            phase: C::PHASE,
            grace,
        })
    }

    /// Connects, creates what is missing on the bus if it owns that, and starts.
    pub(crate) async fn start(
        self,
        settings: &BusSettings,
        health: &Health,
        prometheus: &Prometheus,
        tasks: &Tasks,
    ) -> anyhow::Result<()> {
        let mut config = settings.config(&self.role);
        config.name = format!("quintet {}", self.name);
        config.pending_limit = self.pending;
        let bus = connect(config).await?;
        if self.phase == DrainPhase::State {
            ensure_topology(&bus).await?;
        }
        let work = (self.start)(Environment {
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
