//! The runner as a part.

use quintet_contract::permission::Role;
use quintet_runner::RunnerConfig;
use quintet_service::settings::Reader;

use crate::launch::part::{DrainPhase, Launch, PartConfig, ServiceConfig};
use crate::settings::runner;

impl PartConfig for RunnerConfig {
    const PHASE: DrainPhase = DrainPhase::State;

    fn name(&self) -> String {
        "runner".to_owned()
    }

    fn role(&self) -> Role {
        Role::Runner
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
