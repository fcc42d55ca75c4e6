//! An agent as a part.

use std::time::Duration;

use quintet_agent::AgentConfig;
use quintet_contract::permission::Role;

use crate::launch::part::{DrainPhase, Launch, PartConfig};

impl PartConfig for AgentConfig {
    const PHASE: DrainPhase = DrainPhase::Work;

    fn name(&self) -> String {
        format!("agent {}", self.agent)
    }

    fn role(&self) -> Role {
        Role::Agent(self.agent.clone())
    }

    fn drain_grace(&self) -> Duration {
        self.drain_grace
    }

    async fn prepare(self) -> anyhow::Result<Launch> {
        Ok(Launch::new(|on| quintet_agent::run(self, on.bus, on.stop)))
    }
}
