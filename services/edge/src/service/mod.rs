//! The edge itself: health, metrics, tickets, and the interface's own description.

pub(crate) mod health;
pub(crate) mod ready;
pub(crate) mod route_index;
pub(crate) mod tickets;

use aide::axum::ApiRouter;
use axum::response::Html;
use axum::routing::{MethodRouter, get};

use crate::state::App;

/// Every documented route of this folder.
pub(crate) fn routes() -> ApiRouter<App> {
    ApiRouter::new()
        .merge(tickets::routes())
        .merge(route_index::routes())
        .merge(health::routes())
}

/// Every page of this folder and where it is.
pub(crate) fn pages() -> [(&'static str, MethodRouter<App>); 1] {
    [("/docs", get(async || Html(include_str!("docs_page.html"))))]
}
