//! The scheduler as a part.

use quintet_contract::permission::Role;
use quintet_scheduler::SchedulerConfig;
use quintet_service::settings::Reader;

use crate::launch::part::{DrainPhase, Launch, PartConfig, ServiceConfig};
use crate::settings::scheduler;

impl PartConfig for SchedulerConfig {
    const PHASE: DrainPhase = DrainPhase::State;

    fn name(&self) -> String {
        "scheduler".to_owned()
    }

    fn role(&self) -> Role {
        Role::Scheduler
    }

    async fn prepare(self) -> anyhow::Result<Launch> {
        Ok(Launch::new(|on| {
            let health = on.health.component("scheduler");
            quintet_scheduler::run(self, on.bus, health, on.stop)
        }))
    }
}

impl ServiceConfig for SchedulerConfig {
    fn read(read: &mut Reader<'_>) -> Self {
        scheduler::read(read)
    }
}
