//! A worker that offers effects as a part.

use quintet_contract::permission::Role;
use quintet_workers::effects::{self, EffectsConfig};

use crate::launch::part::{DrainPhase, Launch, PartConfig};

impl PartConfig for EffectsConfig {
    const PHASE: DrainPhase = DrainPhase::Work;

    fn name(&self) -> String {
        "effects".to_owned()
    }

    fn role(&self) -> Role {
        Role::Worker
    }

    async fn prepare(self) -> anyhow::Result<Launch> {
        Ok(Launch::new(|on| {
            let health = on.health.component("effects");
            effects::run(self, on.bus, health, on.stop)
        }))
    }
}
