//! The description of the interface, made from the routes themselves.

use std::sync::LazyLock;

use aide::axum::ApiRouter;
use aide::openapi::{Info, OpenApi};
use aide::transform::TransformOpenApi;
use serde_json::Value;

use crate::state::App;

/// The OpenAPI document of every route.
pub fn openapi() -> Value {
    shared().clone()
}

pub(crate) fn shared() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
        let mut api = base();
        let _ = routes().finish_api_with(&mut api, described);
        serde_json::to_value(&api).unwrap_or_default()
    });
    &DOCUMENT
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
    let scheme = aide::openapi::SecurityScheme::Http {
        scheme: "bearer".to_owned(),
        bearer_format: None,
        description: Some("an API key, where keys are set; also as `x-api-key`".to_owned()),
        extensions: Default::default(),
    };
    api.description(
        "Jobs on agents. Every error body is `{error, code, requestId}` with fields that help; every response carries \
         `x-request-id`. Times are RFC 3339 in UTC with milliseconds. The WebSockets `/agent` and `/ui` are described in \
         asyncapi.json.",
    )
    .security_scheme("apiKey", scheme)
}
