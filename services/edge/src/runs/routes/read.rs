//! Reading requests about one run: its id, its node, and a body whose faults are answered 400.

use std::collections::HashMap;

use aide::OperationInput;
use aide::generate::GenContext;
use aide::openapi::Operation;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use quintet_contract::id::{NodeId, RunId};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::error::HttpError;
use crate::http::extract::{body, json};
use crate::runs::client::{parse_node, run_not_found};
use crate::state::App;

/// The `{id}` of the path; what cannot be an id is no run's.
pub(crate) struct RunOf(pub(crate) RunId);

/// The `{node}` of the path.
pub(crate) struct NodeOf(pub(crate) NodeId);

/// A JSON object as the body, read as `T`; one that does not fit is answered 400.
pub(crate) struct Fitting<T>(pub(crate) T);

async fn path_fields(parts: &mut Parts, app: &App) -> Result<HashMap<String, String>, HttpError> {
    let read = Path::<HashMap<String, String>>::from_request_parts(parts, app).await;
    read.map(|Path(fields)| fields).map_err(|_| run_not_found())
}

impl FromRequestParts<App> for RunOf {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, HttpError> {
        let fields = path_fields(parts, app).await?;
        let id = fields.get("id").and_then(|id| id.parse().ok());
        id.map(Self).ok_or_else(run_not_found)
    }
}

impl FromRequestParts<App> for NodeOf {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, HttpError> {
        let fields = path_fields(parts, app).await?;
        parse_node(fields.get("node").map_or("", String::as_str)).map(Self)
    }
}

impl<T: DeserializeOwned> FromRequest<App> for Fitting<T> {
    type Rejection = HttpError;

    async fn from_request(request: Request, app: &App) -> Result<Self, HttpError> {
        let body = body(request, app.config.body_limit).await?;
        fitting(&body).map(Self)
    }
}

/// Reads a body; what does not fit is named.
pub(crate) fn fitting<T: DeserializeOwned>(body: &[u8]) -> Result<T, HttpError> {
    let value = json(body)?;
    if !value.is_object() {
        return Err(misfit("", "the body must be a JSON object"));
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { "" } else { &path };
        misfit(path, &error.inner().to_string())
    })
}

/// One thing that does not fit.
pub(crate) fn misfit(path: &str, message: &str) -> HttpError {
    HttpError::validation_failed(vec![json!({"path": path, "message": message})])
}

/// Documents the `{id}` of a path.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "describes the path")]
struct RunParam {
    /// The id of the run.
    id: RunId,
}

/// Documents the `{node}` of a path.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "describes the path")]
struct NodeParam {
    /// The id of the node.
    node: NodeId,
}

impl OperationInput for RunOf {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        Path::<RunParam>::operation_input(ctx, operation);
    }
}

impl OperationInput for NodeOf {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        Path::<NodeParam>::operation_input(ctx, operation);
    }
}

impl<T: JsonSchema> OperationInput for Fitting<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        axum::Json::<T>::operation_input(ctx, operation);
    }
}
