//! A run worker as a part.

use std::time::Duration;

use quintet_workers::RunWorkerConfig;

use crate::launch::part::{DrainPhase, Launch, PartConfig};
use crate::settings::bus::BusIdentity;

impl PartConfig for RunWorkerConfig {
    const PHASE: DrainPhase = DrainPhase::Work;

    fn name(&self) -> String {
        format!("run worker {}", self.worker)
    }

    fn identity(&self) -> BusIdentity {
        BusIdentity::RunWorker
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
