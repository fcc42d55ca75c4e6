//! The runner as a part.

use quintet_runner::RunnerConfig;
use quintet_service::settings::Reader;

use crate::launch::part::{DrainPhase, Launch, PartConfig, ServiceConfig};
use crate::settings::bus::BusIdentity;
use crate::settings::runner;

impl PartConfig for RunnerConfig {
    const PHASE: DrainPhase = DrainPhase::State;

    fn name(&self) -> String {
        "runner".to_owned()
    }

    fn identity(&self) -> BusIdentity {
        BusIdentity::Runner
    }

    async fn prepare(self) -> anyhow::Result<Launch> {
        Ok(Launch::new(|on| {
            let health = on.health.component("runner");
            quintet_runner::run(self, on.bus, health, on.stop)
        }))
    }
}

impl ServiceConfig for RunnerConfig {
    fn read(read: &mut Reader<'_>) -> Self {
        runner::read(read)
    }
}
