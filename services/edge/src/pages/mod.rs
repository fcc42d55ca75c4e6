//! Pages for people, each one file that asks nobody else for anything: the dashboard at `/`, the interface at `/docs`.

use axum::Router;
use axum::response::Html;
use axum::routing::get;

use crate::state::App;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(async || Html(include_str!("dashboard.html"))))
        .route("/docs", get(async || Html(include_str!("docs.html"))))
}
