//! The edge itself: health, metrics, keys, sessions, tickets, and the interface's own description.

pub(crate) mod docs_page;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod metrics;
pub(crate) mod ready;
pub(crate) mod route_index;
pub(crate) mod session;
pub(crate) mod tickets;

use serde_json::Value;

use self::route_index::RouteList;
use crate::access::policy::Access;
use crate::http::route::{Kind, Routes};
use crate::state::App;

/// The description of the interface; a fold over the routes of all kinds.
#[derive(Debug)]
pub(crate) struct Interface {
    pub(crate) routes: RouteList,
    pub(crate) openapi: Value,
}

/// Every route of the edge itself.
pub(crate) fn kind() -> Kind<App> {
    let routes = Routes::new()
        // It changes nothing: a reader may have a ticket.
        .post("/v1/tickets", Access::Read, tickets::issue, tickets::docs)
        .get("/v1/keys", Access::Admin, keys::list, keys::list_docs)
        .post("/v1/keys", Access::Admin, keys::create, keys::create_docs)
        .delete(
            "/v1/keys/{id}",
            Access::Admin,
            keys::revoke,
            keys::revoke_docs,
        )
        // Its body is the key.
        .post(
            "/v1/session",
            Access::Public,
            session::begin,
            session::begin_docs,
        )
        .get(
            "/v1/session",
            Access::Read,
            session::show,
            session::show_docs,
        )
        .delete(
            "/v1/session",
            Access::Public,
            session::end,
            session::end_docs,
        )
        .get(
            "/routes",
            Access::Read,
            route_index::list,
            route_index::docs,
        )
        .get(
            "/healthz",
            Access::Public,
            health::healthz,
            health::healthz_docs,
        )
        .quiet()
        .get(
            "/health",
            Access::Public,
            health::health,
            health::health_docs,
        )
        .quiet()
        .get("/ready", Access::Public, health::ready, health::ready_docs)
        .quiet()
        .get("/metrics", Access::Public, metrics::metrics, metrics::docs)
        .quiet()
        .page("/openapi.json", Access::Public, docs_page::openapi)
        .page("/docs", Access::Public, docs_page::page);
    Kind::new("service", routes)
}
