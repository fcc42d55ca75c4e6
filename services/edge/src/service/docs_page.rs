//! The description of the interface: the OpenAPI document, and a page that shows it.

use std::sync::{Arc, LazyLock};

use axum::{Extension, Json};
use serde_json::Value;

use super::Interface;
use crate::http::page::Page;

pub(crate) async fn openapi(Extension(interface): Extension<Arc<Interface>>) -> Json<Value> {
    Json(interface.openapi.clone())
}

pub(crate) async fn page() -> &'static Page {
    static PAGE: LazyLock<Page> = LazyLock::new(|| Page::new(include_str!("docs_page.html")));
    &PAGE
}
