//! Jobs: REST, event streams and sockets for jobs, their agents and their templates.

pub(crate) mod agent_socket;
pub(crate) mod agents;
mod client;
mod events;
pub(crate) mod hub;
pub(crate) mod log_feed;
mod logs;
pub(crate) mod pools;
pub(crate) mod routes;
pub(crate) mod snapshot;
pub(crate) mod templates;
mod ui_socket;
mod view;

use aide::axum::ApiRouter;
use axum::routing::{MethodRouter, get};

use crate::state::App;

/// Every documented route of this folder.
pub(crate) fn routes() -> ApiRouter<App> {
    ApiRouter::new()
        .merge(routes::job::routes())
        .merge(routes::batch::routes())
        .merge(routes::list::routes())
        .merge(agents::routes())
        .merge(templates::routes())
        .merge(events::routes())
        .merge(logs::routes())
}

/// Every socket of this folder and where it is.
pub(crate) fn sockets() -> [(&'static str, MethodRouter<App>); 2] {
    [
        ("/ui", get(ui_socket::connect)),
        ("/agent", get(agent_socket::connect)),
    ]
}
