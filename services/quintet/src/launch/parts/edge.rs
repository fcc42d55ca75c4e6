//! The edge as a part.

use quintet_contract::permission::Role;
use quintet_edge::{Edge, EdgeConfig};
use quintet_service::settings::Reader;

use crate::launch::part::{DrainPhase, Launch, PartConfig, ServiceConfig};
use crate::settings::edge;

impl PartConfig for EdgeConfig {
    const PHASE: DrainPhase = DrainPhase::Entry;

    fn name(&self) -> String {
        "edge".to_owned()
    }

    fn role(&self) -> Role {
        Role::Edge
    }

    async fn prepare(self) -> anyhow::Result<Launch> {
        let edge = Edge::bind(self).await?;
        let address = edge.local_addr();
        let launch = Launch::new(|on| edge.serve(on.bus, on.health, on.prometheus, on.stop));
        Ok(launch.at(address))
    }
}

impl ServiceConfig for EdgeConfig {
    fn read(read: &mut Reader<'_>) -> Self {
        edge::read(read)
    }
}
