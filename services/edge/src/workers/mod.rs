//! Workers of every kind: which are present, and the drain of those that can be drained.
//!
//! Nothing is stored: the list is built from heartbeats, and an edge that has just started knows every worker after one
//! heartbeat of each. Agents are no workers here; they have `/v1/agents`.

mod presence;
mod routes;

use self::presence::Presence;
use crate::access::policy::Access;
use crate::http::route::{Kind, Routes};
use crate::state::App;

/// Every route of workers.
pub(crate) fn kind() -> Kind<App> {
    let routes = Routes::new()
        .get("/v1/workers", Access::Read, routes::list, routes::list_docs)
        .quiet()
        .post(
            "/v1/workers/{id}/drain",
            Access::Admin,
            routes::drain,
            routes::drain_docs,
        );
    // From the start of the edge, so that the first request finds them.
    Kind::new("workers", routes).starting(|app| drop(app.live.part::<Presence>()))
}
