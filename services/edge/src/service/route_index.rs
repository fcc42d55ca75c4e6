//! Every route of the edge: `GET /routes`. Made from the routes themselves, so that it cannot say anything else.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use aide::axum::ApiRouter;
use aide::axum::routing::get_with;
use axum::Json;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::health;
use crate::http::docs::Operation;
use crate::router::openapi;
use crate::{frames, router};

pub(crate) fn routes() -> ApiRouter<crate::state::App> {
    ApiRouter::new().api_route("/routes", get_with(list, docs))
}

/// All routes.
#[derive(Serialize, JsonSchema)]
struct Listing {
    /// In order of their paths.
    routes: Vec<Listed>,
}

/// One route.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Listed {
    /// Its path; a part that begins with a colon stands for any text.
    path: String,
    /// What may be done there.
    methods: Vec<String>,
}

async fn list() -> Json<Listing> {
    static ROUTES: LazyLock<Vec<Listed>> = LazyLock::new(route_index);
    Json(Listing {
        routes: ROUTES.clone(),
    })
}

fn docs(operation: Operation<'_>) -> Operation<'_> {
    frames::of_frames(operation)
        .summary("List every route")
        .response::<200, Json<Listing>>()
}

fn route_index() -> Vec<Listed> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let document = openapi();
    let documented = document.get("paths").and_then(Value::as_object);
    for (path, item) in documented.into_iter().flatten() {
        let methods = item.as_object().into_iter().flatten();
        let methods = methods.map(|(method, _)| method.to_uppercase());
        all.entry(template(path)).or_default().extend(methods);
    }
    let sockets = router::sockets().map(|(path, _)| path);
    let pages = router::pages().map(|(path, _)| path);
    let others = sockets.iter().chain(&pages).chain([&health::OPENAPI]);
    for path in others {
        let methods = all.entry(template(path)).or_default();
        methods.push("GET".to_owned());
    }
    let route_index = |(path, mut methods): (String, Vec<String>)| {
        methods.sort();
        methods.dedup();
        Listed { path, methods }
    };
    all.into_iter().map(route_index).collect()
}

/// A path as the specifications write it.
fn template(path: &str) -> String {
    path.replace('{', ":").replace('}', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_every_kind_are_listed_with_their_methods() {
        let all = route_index();
        let methods = |path: &str| {
            let found = all.iter().find(|route_index| route_index.path == path);
            found.map(|route_index| route_index.methods.join(" "))
        };
        for (path, expected) in [
            ("/fps", "DELETE GET POST"),
            ("/active", "GET POST"),
            ("/workers/:id/frame", "POST"),
            ("/workers/:id/ws", "GET"),
            ("/ws", "GET"),
            ("/agent", "GET"),
            ("/", "GET"),
            ("/docs", "GET"),
            ("/openapi.json", "GET"),
            ("/routes", "GET"),
            ("/healthz", "GET"),
            ("/v1/jobs/:id/events", "GET"),
            ("/runs/:id/nodes/:node/approve", "POST"),
        ] {
            assert_eq!(methods(path).as_deref(), Some(expected), "{path}");
        }
    }
}
