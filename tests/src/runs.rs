//! Edges with runners, on a NATS of their own: what a test of runs over HTTP needs.

use quintet::system::{Part, System};
use quintet_bus::{Bus, BusConfig};
use quintet_contract::id::HolderId;
use quintet_edge::EdgeConfig;
use quintet_runner::RunnerConfig;
use quintet_testkit::Nats;

use crate::{Api, TIMEOUT, part};

/// A system that serves runs, without agents and without run workers; ends with the test.
pub struct Runs {
    /// A client of each edge.
    pub apis: Vec<Api>,
    /// Its bus.
    pub nats: Nats,
    edges: Vec<System>,
    runner: System,
}

impl Runs {
    /// So many edges and a runner.
    pub async fn start(edges: usize) -> Self {
        Self::with(edges, |_| {}).await
    }

    /// The same with changes to the edges.
    pub async fn with(edges: usize, edit: impl Fn(&mut EdgeConfig)) -> Self {
        let nats = Nats::start().await.unwrap();
        let runner = start_runner(&nats).await;
        let (apis, edges) = start_edges(&nats, edges, edit).await;
        Self {
            apis,
            nats,
            edges,
            runner,
        }
    }

    /// A client of the first edge.
    pub fn api(&self) -> &Api {
        &self.apis[0]
    }

    /// Ends all parts in order.
    pub async fn stop(self) {
        for edge in self.edges {
            assert!(edge.shutdown(TIMEOUT).await.is_clean());
        }
        assert!(self.runner.shutdown(TIMEOUT).await.is_clean());
    }
}

/// A runner; it makes what it needs on the bus.
async fn start_runner(nats: &Nats) -> System {
    let runner = part(nats, |config| {
        let holder = HolderId::parse("test").unwrap();
        config.parts.push(Part::Runner(RunnerConfig::new(holder)));
    });
    let runner = runner.await;
    runner.ready(TIMEOUT).await.unwrap();
    runner
}

/// Edges whose requests about runs are not limited, unless the test asks for it.
pub async fn start_edges(
    nats: &Nats,
    count: usize,
    edit: impl Fn(&mut EdgeConfig),
) -> (Vec<Api>, Vec<System>) {
    let (mut apis, mut systems) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let system = part(nats, |config| {
            let mut edge = EdgeConfig::new(([127, 0, 0, 1], 0).into());
            edge.run_rate = None;
            edit(&mut edge);
            config.parts.push(Part::Edge(edge));
        });
        let system = system.await;
        system.ready(TIMEOUT).await.unwrap();
        apis.push(Api::new(system.address().unwrap()));
        systems.push(system);
    }
    (apis, systems)
}

/// A connection of the test's own.
pub async fn connect(nats: &Nats, name: &str) -> Bus {
    let config = BusConfig::open(nats.url(), name);
    Bus::connect(config).await.unwrap()
}
