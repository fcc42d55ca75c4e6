//! The dashboard at `/`: one file without external resources.

use axum::response::Html;

use crate::access::policy::Access;
use crate::http::route::{Kind, Routes};
use crate::state::App;

/// The page.
pub(crate) fn kind() -> Kind<App> {
    let page = async || Html(include_str!("dashboard.html"));
    Kind::new("dashboard", Routes::new().page("/", Access::Public, page))
}
