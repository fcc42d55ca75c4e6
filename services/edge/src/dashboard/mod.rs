//! The dashboard at `/`: one file that asks nobody else for anything.

use axum::response::Html;
use axum::routing::{MethodRouter, get};

use crate::state::App;

/// The page and where it is.
pub(crate) fn pages() -> [(&'static str, MethodRouter<App>); 1] {
    [("/", get(async || Html(include_str!("dashboard.html"))))]
}
