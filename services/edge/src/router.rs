//! The description of the interface, made from the routes themselves.

use std::sync::LazyLock;

use aide::axum::ApiRouter;
use aide::openapi::{ApiKeyLocation, Info, OpenApi, SecurityScheme};
use aide::transform::TransformOpenApi;
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::MethodRouter;
use serde_json::{Map, Value, json};
use tower_http::catch_panic::CatchPanicLayer;

use crate::access::authorize::{self, is_guarded, takes_token};
use crate::access::cors;
use crate::access::keys::COOKIE;
use crate::error::HttpError;
use crate::http::{access_log, error_body, request_id};
use crate::runs::Mount;
use crate::state::App;
use crate::{dashboard, frames, jobs, runs, service};

/// Whether requests without a key are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NeedsKey {
    /// They are.
    Yes,
    /// They are not, as far as is known.
    No,
}

/// The OpenAPI document of every route. Whether keys are needed is up to the edge that serves it.
pub fn openapi() -> Value {
    served(NeedsKey::No).clone()
}

/// The document of an edge with or without keys.
pub(crate) fn served(keys: NeedsKey) -> &'static Value {
    static OPEN: LazyLock<Value> = LazyLock::new(|| document(NeedsKey::No));
    static WITH_KEYS: LazyLock<Value> = LazyLock::new(|| document(NeedsKey::Yes));
    match keys {
        NeedsKey::No => &OPEN,
        NeedsKey::Yes => &WITH_KEYS,
    }
}

fn document(keys: NeedsKey) -> Value {
    let mut api = base();
    let _ = routes().finish_api_with(&mut api, described);
    let mut document = serde_json::to_value(&api).unwrap_or_default();
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    for (path, item) in paths.into_iter().flatten() {
        let operations = item.as_object_mut().into_iter().flatten();
        for operation in operations.filter_map(|(_, operation)| operation.as_object_mut()) {
            complete(path, operation, keys);
        }
    }
    document
}

/// Adds what holds for every route: the keys it asks for, and the headers that go with a status.
fn complete(path: &str, operation: &mut Map<String, Value>, keys: NeedsKey) {
    if is_guarded(path) {
        operation.insert("security".to_owned(), security(path, keys));
    }
    let parameters = operation.get_mut("parameters");
    let parameters = parameters.and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        // Such as a form sends for what was left blank: it counts as not given, and a flag as true.
        if parameter["in"] == "query" {
            parameter["allowEmptyValue"] = json!(true);
        }
    }
    operation["responses"]["414"] = json!({
        "description": "the address is longer than the limit",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}},
    });
    let responses = operation.get_mut("responses");
    let responses = responses.and_then(Value::as_object_mut);
    for (status, response) in responses.into_iter().flatten() {
        let header = |description: &str| json!({"description": description, "required": true, "schema": {"type": "string"}});
        let headers = &mut response["headers"];
        if Mount::of(path).is_some() {
            for (name, description) in RATE_HEADERS {
                headers[name] = json!({"description": description, "schema": {"type": "string"}});
            }
        }
        headers["x-request-id"] =
            header("the id of the request: the client's own where it sent a sane one");
        match status.as_str() {
            "401" => headers["www-authenticate"] = header("how to send a key"),
            "429" | "503" => headers["retry-after"] = header("after how many seconds to try again"),
            _ => {}
        }
    }
    // Said before the request is looked at, so without its id.
    operation["responses"]["431"] = json!({"description": "the head of the request is larger than the limit; there is no body"});
}

/// On all answers about runs, where these requests are limited.
const RATE_HEADERS: [(&str, &str); 3] = [
    (
        "ratelimit-limit",
        "how many requests about runs a caller may make in a stretch of time",
    ),
    ("ratelimit-remaining", "how many of them are left"),
    (
        "ratelimit-reset",
        "in how many seconds the next stretch of time begins",
    ),
];

/// Any one of these lets a request in.
fn security(path: &str, keys: NeedsKey) -> Value {
    let mut ways = vec![
        json!({"bearer": []}),
        json!({"header": []}),
        json!({"cookie": []}),
    ];
    if takes_token(path) {
        ways.push(json!({"token": []}));
    }
    if keys == NeedsKey::No {
        ways.push(json!({}));
    }
    Value::Array(ways)
}

/// Every documented route.
pub(crate) fn routes() -> ApiRouter<App> {
    aide::generate::extract_schemas(true);
    aide::generate::infer_responses(false);
    ApiRouter::new()
        .merge(jobs::routes())
        .merge(runs::routes())
        .merge(frames::routes())
        .merge(service::routes())
}

fn base() -> OpenApi {
    OpenApi {
        info: Info {
            title: "Quintet".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Info::default()
        },
        ..OpenApi::default()
    }
}

fn described(api: TransformOpenApi<'_>) -> TransformOpenApi<'_> {
    let bearer = SecurityScheme::Http {
        scheme: "bearer".to_owned(),
        bearer_format: None,
        description: Some("an API key, where keys are set".to_owned()),
        extensions: Default::default(),
    };
    let key = |location, name: &str, description: &str| SecurityScheme::ApiKey {
        location,
        name: name.to_owned(),
        description: Some(description.to_owned()),
        extensions: Default::default(),
    };
    api.description(
        "Jobs on agents, runs of plans, and frames on a display. Every error body is `{error, code, requestId}` with fields that help; every response carries \
         `x-request-id`. Times are RFC 3339 in UTC with milliseconds. The WebSockets are described in asyncapi.json.",
    )
    .security_scheme("bearer", bearer)
    .security_scheme("header", key(ApiKeyLocation::Header, "x-api-key", "the same key"))
    .security_scheme("cookie", key(ApiKeyLocation::Cookie, COOKIE, "the same key, as the dashboard keeps it"))
    .security_scheme("token", key(ApiKeyLocation::Query, "token", "the same key, for streams in a browser"))
}

/// Every socket and where it is.
pub(crate) fn sockets() -> [(&'static str, MethodRouter<App>); 4] {
    let [ui, agent] = jobs::sockets();
    let [stats, worker] = frames::sockets();
    [ui, agent, stats, worker]
}

/// Every page and where it is.
pub(crate) fn pages() -> [(&'static str, MethodRouter<App>); 2] {
    let [dashboard] = dashboard::pages();
    let [docs] = service::pages();
    [dashboard, docs]
}

/// All routes behind everything that a request passes through; see [`crate::http`].
pub(crate) fn router(app: App) -> Router {
    let mut api = aide::openapi::OpenApi::default();
    let documented = routes().finish_api(&mut api);
    let others = sockets().into_iter().chain(pages());
    let routes = others
        .fold(documented, |router, (path, handler)| {
            router.route(path, handler)
        })
        .fallback(async || HttpError::not_found())
        .layer(from_fn_with_state(app.clone(), authorize::authorize));
    let cors = cors::layer(&app.config.cors_origins);
    let routes = routes.layer(from_fn_with_state(cors, cors::answer));
    with_layers(routes).with_state(app)
}

/// What stands around every route, and needs to know nothing of it.
fn with_layers<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes
        .layer(from_fn(access_log::access_log))
        .layer(CatchPanicLayer::custom(error_body::render_panic))
        .layer(from_fn(request_id::request_id))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use axum::routing::get;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;
    use crate::http::request_id::REQUEST_ID;

    #[expect(clippy::panic, reason = "this is what is tested")]
    async fn broken() {
        panic!("a secret of the handler");
    }

    #[tokio::test]
    async fn a_panic_is_a_500_with_the_request_id_and_without_its_text() {
        let routes: Router = with_layers(Router::new().route("/", get(broken)));
        let request = Request::get("/").header(REQUEST_ID, "mine");
        let answer = routes
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.headers()[REQUEST_ID], "mine");
        let body = axum::body::to_bytes(answer.into_body(), 10_000)
            .await
            .unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["code"], "INTERNAL");
        assert_eq!(body["requestId"], "mine");
        assert!(!body.to_string().contains("secret"), "{body}");
    }
}
