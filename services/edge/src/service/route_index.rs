//! Every route of the edge: `GET /routes`. A fold over the route table, so that it cannot differ.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::Serialize;

use super::Interface;
use crate::http::docs::{Operation, guarded};
use crate::http::route::{Listing, Methods, RouteTable};

/// All routes.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct RouteList {
    /// In order of their paths.
    pub(crate) routes: Vec<RouteEntry>,
}

/// One route.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct RouteEntry {
    /// Its path; a part that begins with a colon stands for any text.
    pub(crate) path: String,
    /// What may be done there.
    pub(crate) methods: Vec<String>,
}

pub(crate) async fn list(Extension(interface): Extension<Arc<Interface>>) -> Json<RouteList> {
    Json(interface.routes.clone())
}

pub(crate) fn docs(operation: Operation<'_>) -> Operation<'_> {
    guarded(operation)
        .tag("service")
        .id("listRoutes")
        .summary("List every route")
        .response::<200, Json<RouteList>>()
}

/// The list of a table.
pub(crate) fn route_index(table: &RouteTable) -> RouteList {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for route in table
        .iter()
        .filter(|route| route.listing != Listing::Hidden)
    {
        if let Methods::One(method) = &route.methods {
            let methods = all.entry(template(&route.path)).or_default();
            methods.insert(method.to_string());
        }
    }
    let listed = all.into_iter().map(|(path, methods)| RouteEntry {
        path,
        methods: methods.into_iter().collect(),
    });
    RouteList {
        routes: listed.collect(),
    }
}

/// A path as the specifications write it.
fn template(path: &str) -> String {
    path.replace('{', ":").replace('}', "")
}
