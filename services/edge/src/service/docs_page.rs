//! The description of the interface: the OpenAPI document, and a page that shows it.

use std::sync::Arc;

use axum::response::Html;
use axum::{Extension, Json};
use serde_json::Value;

use super::Interface;

pub(crate) async fn openapi(Extension(interface): Extension<Arc<Interface>>) -> Json<Value> {
    Json(interface.openapi.clone())
}

pub(crate) async fn page() -> Html<&'static str> {
    Html(include_str!("docs_page.html"))
}
