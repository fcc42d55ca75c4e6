//! Pages for people, each one file that asks nobody else for anything: the dashboard at `/`, the interface at `/docs`.

use axum::Router;
use axum::response::Html;
use axum::routing::{MethodRouter, get};

use crate::state::App;

/// Every page and where it is.
pub(crate) fn all() -> [(&'static str, MethodRouter<App>); 2] {
    [
        ("/", get(async || Html(include_str!("dashboard.html")))),
        ("/docs", get(async || Html(include_str!("docs.html")))),
    ]
}

pub(crate) fn routes() -> Router<App> {
    all()
        .into_iter()
        .fold(Router::new(), |router, (path, page)| {
            router.route(path, page)
        })
}
