//! The router: lists the kinds of work and folds their routes into the handlers, the OpenAPI document and the list of routes.
//! Nothing imports it but the root of the crate.

use std::sync::Arc;

use aide::axum::ApiRouter;
use aide::openapi::{ApiKeyLocation, Info, OpenApi, SecurityScheme};
use aide::transform::TransformOpenApi;
use axum::http::Method;
use axum::middleware::{from_fn_with_state, map_request};
use axum::{Extension, Router};
use serde_json::{Map, Value, json};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{PropagateRequestIdLayer, SetRequestIdLayer};

use crate::access::key_table::KeyPolicy;
use crate::access::policy::Policy;
use crate::access::session::SESSION_COOKIE;
use crate::error::HttpError;
use crate::http::authorize::{Authorizer, authorize};
use crate::http::request_id::{REQUEST_ID, UuidV7, drop_unsafe_id};
use crate::http::route::{Kind, Limit, Listing, RouteInfo, RouteTable, Target};
use crate::http::screen::screen;
use crate::http::{access_log, cors, error_body};
use crate::service::Interface;
use crate::service::route_index::route_index;
use crate::state::App;

/// Every kind of work.
fn kinds() -> Vec<Kind<App>> {
    // What the handlers of a kind are documented by is made with them.
    aide::generate::extract_schemas(true);
    aide::generate::infer_responses(false);
    vec![
        crate::jobs::kind(),
        crate::runs::kind(),
        crate::frames::kind(),
        crate::workers::kind(),
        crate::service::kind(),
        crate::dashboard::kind(),
    ]
}

/// All routes, and what is declared of them.
fn routes() -> (ApiRouter<App>, RouteTable) {
    let mut table = Vec::new();
    let mut router = ApiRouter::new();
    for (info, handler) in kinds().into_iter().flat_map(Kind::into_routes) {
        router = match info.listing {
            Listing::Documented => router.api_route(&info.path, handler),
            Listing::Listed | Listing::Hidden => router.route(&info.path, handler),
        };
        table.push(info);
    }
    (router, RouteTable::new(table))
}

/// Whether requests without a key are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NeedsKey {
    /// They are.
    Yes,
    /// They are not, as far as is known.
    No,
}

/// The OpenAPI document of every route. Whether keys are needed is up to the edge that serves it.
pub fn openapi() -> Value {
    let (router, table) = routes();
    document(router, &table, NeedsKey::No).1
}

/// The handlers, and the document of an edge with or without keys.
fn document(router: ApiRouter<App>, table: &RouteTable, keys: NeedsKey) -> (Router<App>, Value) {
    let mut api = base();
    let router = router.finish_api_with(&mut api, described);
    let mut document = serde_json::to_value(&api).unwrap_or_default();
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    for (path, item) in paths.into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap_or_default();
            if let Target::Route(route) = table.find(Some(path), &method)
                && let Some(operation) = operation.as_object_mut()
            {
                complete(operation, route, keys);
            }
        }
    }
    (router, document)
}

/// Adds what follows from the declaration of a route: its security, and the headers that go with a status.
fn complete(operation: &mut Map<String, Value>, route: &RouteInfo, keys: NeedsKey) {
    if !route.policy.is_public() {
        operation.insert("security".to_owned(), security(route.policy, keys));
    }
    if let Some(original) = &route.alias_of {
        operation.insert("x-alias-of".to_owned(), json!(original));
        // An id names one operation.
        if let Some(Value::String(id)) = operation.get_mut("operationId") {
            id.push_str("Alias");
        }
    }
    let parameters = operation.get_mut("parameters");
    let parameters = parameters.and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        // Such as a form sends for what was left blank: it counts as not given, and a flag as true.
        if parameter["in"] == "query" {
            parameter["allowEmptyValue"] = json!(true);
        }
    }
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    responses["414"] = json!({
        "description": "the address is longer than the limit",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}},
    });
    let responses = responses.as_object_mut();
    for (status, response) in responses.into_iter().flatten() {
        let header = |description: &str| json!({"description": description, "required": true, "schema": {"type": "string"}});
        let headers = &mut response["headers"];
        if route.limit == Limit::Shared && !route.policy.is_public() {
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
    // Answered before the request is read, so without its id.
    operation["responses"]["431"] = json!({"description": "the head of the request is larger than the limit; there is no body"});
}

/// On all answers about runs, where these requests are limited.
const RATE_HEADERS: [(&str, &str); 3] = [
    (
        "ratelimit-limit",
        "how many requests about runs a caller may make in a window",
    ),
    ("ratelimit-remaining", "how many of them are left"),
    ("ratelimit-reset", "seconds until the next window begins"),
];

/// Any one of these lets a request in.
fn security(policy: Policy, keys: NeedsKey) -> Value {
    let mut ways = vec![
        json!({"bearer": []}),
        json!({"header": []}),
        json!({"cookie": []}),
    ];
    if policy.takes_tickets() {
        ways.push(json!({"token": []}));
    }
    if keys == NeedsKey::No {
        ways.push(json!({}));
    }
    Value::Array(ways)
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
    .security_scheme("cookie", key(ApiKeyLocation::Cookie, SESSION_COOKIE, "a session, for browsers"))
    .security_scheme("token", key(ApiKeyLocation::Query, "token", "a ticket, for streams in a browser"))
}

/// All routes behind everything that a request passes through; see [`crate::http`].
pub(crate) fn router(app: App) -> Router {
    for kind in kinds() {
        kind.start(&app);
    }
    let (routes, table) = routes();
    let keys = match app.access.keys.table.policy() {
        KeyPolicy::Open => NeedsKey::No,
        KeyPolicy::Required | KeyPolicy::Unknown => NeedsKey::Yes,
    };
    let (routes, openapi) = document(routes, &table, keys);
    let interface = Interface {
        routes: route_index(&table),
        openapi,
    };
    let table = Arc::new(table);
    let authorizer = Authorizer {
        access: app.access.clone(),
        routes: table.clone(),
    };
    let cors = cors::layer(app.access.origins.clone(), &table);
    let routes = routes
        .fallback(async || HttpError::not_found())
        .layer(Extension(Arc::new(interface)))
        .layer(from_fn_with_state(authorizer, authorize))
        .layer(from_fn_with_state(cors, cors::answer))
        .layer(from_fn_with_state(app.access.clone(), screen));
    with_layers(routes, table).with_state(app)
}

/// What stands around every route, and needs to know nothing of its kind.
fn with_layers<S: Clone + Send + Sync + 'static>(
    routes: Router<S>,
    table: Arc<RouteTable>,
) -> Router<S> {
    routes
        .layer(from_fn_with_state(table.clone(), access_log::access_log))
        .layer(CatchPanicLayer::custom(error_body::render_panic))
        .layer(from_fn_with_state(table, error_body::error_body))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(SetRequestIdLayer::new(REQUEST_ID, UuidV7))
        .layer(map_request(drop_unsafe_id))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::SocketAddr;

    use axum::body::Body;
    use axum::extract::ConnectInfo;
    use axum::http::{Request, StatusCode};
    use axum::routing::get;
    use quintet_bus::{Bus, BusConfig};
    use quintet_service::health::Health;
    use quintet_service::tasks::Tasks;
    use quintet_service::telemetry::Telemetry;
    use quintet_testkit::Nats;
    use serde_json::Value;
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt;

    use super::*;
    use crate::access::identity::Role;
    use crate::access::keys::parse_api_keys;
    use crate::config::EdgeConfig;
    use crate::http::route::Methods;
    use crate::state::Context;

    #[expect(clippy::panic, reason = "this is what is tested")]
    async fn broken() {
        panic!("a secret of the handler");
    }

    #[tokio::test]
    async fn a_panic_is_a_500_with_the_request_id_and_without_its_text() {
        let routes: Router = with_layers(Router::new().route("/", get(broken)), Arc::default());
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

    #[tokio::test]
    async fn a_method_that_a_path_does_not_take_is_answered_with_those_that_it_takes() {
        let table = Arc::new(routes().1);
        let router = with_layers(Router::new().route("/v1/jobs", get(broken)), table);
        let request = Request::patch("/v1/jobs").body(Body::empty()).unwrap();
        let answer = router.oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
        let body = axum::body::to_bytes(answer.into_body(), 10_000).await;
        let body: Value = serde_json::from_slice(&body.unwrap()).unwrap();
        assert_eq!(
            body["error"],
            "this path does not take PATCH; it takes GET, POST"
        );
    }

    #[test]
    fn an_operation_without_documented_answers_is_completed() {
        let (_, table) = routes();
        let Target::Route(route) = table.find(Some("/v1/jobs"), &Method::GET) else {
            panic!("there is this route");
        };
        let mut operation = Map::new();
        complete(&mut operation, route, NeedsKey::Yes);
        assert!(operation["responses"]["414"].is_object());
    }

    #[test]
    fn routes_of_every_kind_are_listed_with_their_methods() {
        let all = route_index(&routes().1).routes;
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

    #[test]
    fn every_operation_has_an_id_of_its_own_and_aliases_name_their_original() {
        let document = openapi();
        let mut ids = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let id = operation["operationId"].as_str();
                let id = id.unwrap_or_else(|| panic!("{method} {path} has no id"));
                assert!(ids.insert(id.to_owned()), "{id} names two operations");
                let original = operation["x-alias-of"].as_str();
                let expected = path
                    .strip_prefix("/v1/runs")
                    .map(|rest| format!("/runs{rest}"));
                assert_eq!(original, expected.as_deref(), "{method} {path}");
                let original = original.map(|original| &document["paths"][original][method]);
                assert_ne!(original, Some(&Value::Null), "{method} {path}");
            }
        }
    }

    /// An edge with a viewer and an operator.
    async fn edge(nats: &Nats) -> Router {
        let bus = Bus::connect(BusConfig::open(nats.url(), "edge-routes"))
            .await
            .unwrap();
        let mut config = EdgeConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.api_keys = parse_api_keys("eve:viewer:look,oz:operator:work").unwrap();
        let telemetry = Telemetry::for_tests();
        let tasks = Tasks::new("edge");
        let context = Context {
            bus,
            health: Health::new("edge"),
            prometheus: telemetry.prometheus(),
        };
        router(App::start(
            config,
            context,
            &tasks,
            CancellationToken::new(),
        ))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_not_public_asks_for_a_key_and_for_one_that_may() {
        let nats = Nats::start().await.unwrap();
        let edge = edge(&nats).await;
        let (_, table) = routes();
        for route in table.iter() {
            let method = match &route.methods {
                Methods::One(method) => method.clone(),
                Methods::Any => Method::POST,
            };
            let path = route.path.replace(['{', '}'], "");
            let status = async |key: Option<&str>| {
                let address = ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 9)));
                let mut request = Request::builder()
                    .method(method.clone())
                    .uri(&path)
                    .extension(address);
                if let Some(key) = key {
                    request = request.header("x-api-key", key);
                }
                let request = request.body(Body::empty()).unwrap();
                edge.clone().oneshot(request).await.unwrap().status()
            };
            let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
            if route.policy.is_public() {
                assert!(!refused.contains(&status(None).await), "{method} {path}");
                continue;
            }
            assert_eq!(status(None).await, refused[0], "{method} {path}");
            assert_eq!(status(Some("wrong")).await, refused[0], "{method} {path}");
            if !route.policy.access.is_given_to(Role::Viewer.permissions()) {
                assert_eq!(status(Some("look")).await, refused[1], "{method} {path}");
            }
        }
    }
}
