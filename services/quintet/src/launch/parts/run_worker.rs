//! A run worker as a part.

use std::time::Duration;

use quintet_contract::permission::Role;
use quintet_workers::RunWorkerConfig;

use crate::launch::part::{DrainPhase, Launch, PartConfig};

impl PartConfig for RunWorkerConfig {
    const PHASE: DrainPhase = DrainPhase::Work;

    fn name(&self) -> String {
        format!("run worker {}", self.worker)
    }

    fn role(&self) -> Role {
        Role::Worker
    }

    fn drain_grace(&self) -> Duration {
        self.drain_grace + self.kill_grace
    }

    async fn prepare(self) -> anyhow::Result<Launch> {
        Ok(Launch::new(|on| {
            let health = on.health.component("run worker");
            quintet_workers::run(self, on.bus, health, on.stop)
        }))
    }
}
