//! A whole system in this process on a NATS of its own: one of every service, and any number of agents and workers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use quintet::system::{BusSettings, Part, System, SystemConfig};
use quintet_agent::AgentConfig;
use quintet_bus::{Bus, BusConfig};
use quintet_contract::id::{AgentId, HolderId, WorkerId};
use quintet_edge::EdgeConfig;
use quintet_frames::FramesConfig;
use quintet_runner::RunnerConfig;
use quintet_scheduler::SchedulerConfig;
use quintet_service::telemetry::Telemetry;
use quintet_testkit::Nats;
use quintet_testkit::nats::Options;
use quintet_workers::RunWorkerConfig;
use quintet_workers::effects::EffectsConfig;
use tempfile::TempDir;

use crate::{Api, TIMEOUT};

/// What a system is made of.
pub struct Plan {
    /// Agents of this program, each with four slots, named `agent-1` and so on.
    pub agents: usize,
    /// Run workers of this program, each with four slots, named `run-worker-1` and so on.
    pub run_workers: usize,
    /// Workers that offer effects, each under its own prefix but for the first.
    pub effects: usize,
    /// The NATS server that it runs on.
    pub nats: fn() -> Options,
    /// Changes the edge's configuration.
    pub edge: fn(&mut EdgeConfig),
    /// Changes the scheduler's configuration.
    pub scheduler: fn(&mut SchedulerConfig),
    /// Changes the runner's configuration.
    pub runner: fn(&mut RunnerConfig),
    /// Changes the configuration of the frames service.
    pub frames: fn(&mut FramesConfig),
    /// Changes the configuration of every run worker.
    pub run_worker: fn(&mut RunWorkerConfig),
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            agents: 1,
            run_workers: 1,
            effects: 1,
            nats: Nats::options,
            edge: |_| {},
            scheduler: |_| {},
            runner: |_| {},
            frames: |_| {},
            run_worker: |_| {},
        }
    }
}

/// A running system; ends with the test.
pub struct Stack {
    /// Its bus.
    pub nats: Nats,
    /// A client of its edge.
    pub api: Api,
    /// Where its agents work.
    pub folder: TempDir,
    system: System,
    telemetry: Telemetry,
}

impl Stack {
    /// A system with one agent and one run worker.
    pub async fn start() -> Self {
        Self::with(Plan::default()).await
    }

    /// A system with agents that the test brings along.
    pub async fn without_agents() -> Self {
        Self::with(Plan {
            agents: 0,
            ..Plan::default()
        })
        .await
    }

    /// A system of one's own making.
    pub async fn with(plan: Plan) -> Self {
        let nats = (plan.nats)().start().await.unwrap();
        let (folder, telemetry) = (TempDir::new().unwrap(), Telemetry::for_tests());
        let mut edge = EdgeConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        // Flows ask more often than a client should.
        edge.run_rate = None;
        (plan.edge)(&mut edge);
        let mut scheduler = SchedulerConfig::new(HolderId::parse("test").unwrap());
        (plan.scheduler)(&mut scheduler);
        let agents = (1..=plan.agents).map(|number| {
            let mut agent = AgentConfig::new(AgentId::parse(format!("agent-{number}")).unwrap());
            agent.slots = 4;
            agent.work_dir = folder.path().to_owned();
            agent
        });
        let mut runner = RunnerConfig::new(HolderId::parse("test").unwrap());
        (plan.runner)(&mut runner);
        let run_workers = (1..=plan.run_workers).map(|number| {
            let id = WorkerId::parse(format!("run-worker-{number}")).unwrap();
            let mut worker = RunWorkerConfig::new(id);
            worker.slots = 4;
            worker.work_dir = folder.path().join("runs");
            worker.drain_grace = std::time::Duration::ZERO;
            (plan.run_worker)(&mut worker);
            worker
        });
        let mut frames = FramesConfig::new(HolderId::parse("test").unwrap());
        (plan.frames)(&mut frames);
        let effects = (1..=plan.effects).map(|number| {
            let prefix = (number > 1).then(|| format!("effects-{number}"));
            EffectsConfig { prefix }
        });
        let mut parts = vec![
            Part::Edge(edge),
            Part::Scheduler(scheduler),
            Part::Runner(runner),
            Part::Frames(frames),
        ];
        parts.extend(agents.map(Part::Agent));
        parts.extend(run_workers.map(Part::RunWorker));
        parts.extend(effects.map(Part::Effects));
        let config = SystemConfig {
            bus: BusSettings::open(nats.url()),
            parts,
            metrics: None,
        };
        let system = System::start(config, telemetry.prometheus()).await.unwrap();
        system.ready(TIMEOUT).await.unwrap();
        let api = Api::new(system.address().unwrap());
        for number in 1..=plan.agents {
            api.until_agent(&format!("agent-{number}"), "IDLE").await;
        }
        Self {
            nats,
            api,
            folder,
            system,
            telemetry,
        }
    }

    /// A connection of the test's own.
    pub async fn bus(&self) -> Bus {
        let config = BusConfig::open(self.nats.url(), "test");
        Bus::connect(config).await.unwrap()
    }

    /// Sends out what telemetry has collected.
    pub async fn flush_telemetry(&self) {
        self.telemetry.flush().await.unwrap();
    }

    /// Ends the system in order; the bus continues.
    pub async fn stop(self) -> Nats {
        let report = self.system.shutdown(TIMEOUT).await;
        assert!(report.is_clean(), "{report:?}");
        self.nats
    }
}

/// A part of a system, in this process, on a bus that is already there.
pub async fn part(nats: &Nats, edit: impl FnOnce(&mut SystemConfig)) -> System {
    let mut config = SystemConfig {
        bus: BusSettings::open(nats.url()),
        parts: Vec::new(),
        metrics: None,
    };
    edit(&mut config);
    System::start(config, Telemetry::for_tests().prometheus())
        .await
        .unwrap()
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// The program as this build made it.
pub fn binary() -> PathBuf {
    // Test programs lie in `deps`, beside which the program is.
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let binary = folder.join("quintet");
    assert!(
        binary.exists(),
        "{} is missing; `cargo build -p quintet` makes it",
        binary.display()
    );
    binary
}
