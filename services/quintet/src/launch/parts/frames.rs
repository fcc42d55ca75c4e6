//! The frames service as a part.

use quintet_contract::permission::Role;
use quintet_frames::FramesConfig;
use quintet_service::settings::Reader;

use crate::launch::part::{DrainPhase, Launch, PartConfig, ServiceConfig};
use crate::settings::frames;

/// Messages that a subscription may have pending: of the largest that NATS takes, 256 MiB.
const PENDING: usize = 256;

impl PartConfig for FramesConfig {
    const PHASE: DrainPhase = DrainPhase::State;
    const PENDING: usize = PENDING;

    fn name(&self) -> String {
        "frames".to_owned()
    }

    fn role(&self) -> Role {
        Role::Frames
    }

    async fn prepare(self) -> anyhow::Result<Launch> {
        Ok(Launch::new(|on| {
            let health = on.health.component("frames");
            quintet_frames::run(self, on.bus, health, on.stop)
        }))
    }
}

impl ServiceConfig for FramesConfig {
    fn read(read: &mut Reader<'_>) -> Self {
        frames::read(read)
    }
}
