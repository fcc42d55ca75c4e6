//! The description of the interface, made from the routes themselves.

use std::sync::LazyLock;

use aide::axum::ApiRouter;
use aide::openapi::{
    ApiKeyLocation, Header, HeaderStyle, Info, OpenApi, ParameterSchemaOrContent, ReferenceOr,
    SchemaObject, SecurityScheme,
};
use aide::transform::{TransformOpenApi, TransformResponse};
use schemars::json_schema;
use serde_json::{Map, Value, json};

use crate::admit::{is_guarded, takes_token};
use crate::auth::COOKIE;
use crate::routes::runs::Mount;
use crate::state::App;

/// Whether requests without a key are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NeedsKey {
    /// They are.
    Yes,
    /// They are not, as far as is known.
    No,
}

/// Whether an answer has a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// In every answer of this status.
    Always,
    /// In some.
    Sometimes,
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

/// Documents a header of an answer.
pub(crate) fn with_header<'t, T>(
    mut response: TransformResponse<'t, T>,
    name: &str,
    presence: Presence,
    description: &str,
) -> TransformResponse<'t, T> {
    let header = Header {
        description: Some(description.to_owned()),
        style: HeaderStyle::Simple,
        required: presence == Presence::Always,
        deprecated: None,
        format: ParameterSchemaOrContent::Schema(SchemaObject {
            json_schema: json_schema!({"type": "string"}),
            external_docs: None,
            example: None,
        }),
        example: None,
        examples: Default::default(),
        extensions: Default::default(),
    };
    let headers = &mut response.inner().headers;
    headers.insert(name.to_owned(), ReferenceOr::Item(header));
    response
}

/// Every documented route.
pub(crate) fn routes() -> ApiRouter<App> {
    aide::generate::extract_schemas(true);
    aide::generate::infer_responses(false);
    ApiRouter::new()
        .merge(crate::routes::all())
        .merge(crate::streams::routes())
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
