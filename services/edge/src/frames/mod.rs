//! Frames: what drives the display, who draws for it, and what it shows.
//!
//! Many clients of these routes are small programs, so bodies are read whatever type they are said to be of, and whatever
//! is wrong with a request is answered 400. What a rate or an id must be is decided by the service; its texts are passed on.

mod client;
mod png;
pub(crate) mod routes;
pub(crate) mod stats_feed;
mod stats_socket;
mod worker_socket;

use std::marker::PhantomData;

use aide::OperationInput;
use aide::axum::ApiRouter;
use aide::generate::GenContext;
use aide::openapi::Operation as Documented;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::routing::{MethodRouter, any, get};
use quintet_contract::JsonObject;
use quintet_contract::error::ErrorCode;
use quintet_contract::id::WorkerId;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

pub(crate) use self::routes::ingest::{BUFFER_CAP, BUFFER_SIZE, RETRY_MS, SEQ_ACK};
use crate::error::{ErrorBody, HttpError};
use crate::http::docs::{Operation, guarded};
use crate::http::extract::{bytes, json};
use crate::state::App;

/// The socket on which everybody may look on.
pub(crate) const STATS_SOCKET: &str = "/ws";
/// The socket of a worker.
pub(crate) const WORKER_SOCKET: &str = "/workers/{id}/ws";

/// Where the routes of frames are, and whatever lies under them.
const ROOTS: [&str; 11] = [
    "/routes",
    "/config",
    "/active",
    "/workers",
    "/fps",
    "/stats",
    "/sources",
    "/frame.png",
    "/debug",
    "/ingest",
    STATS_SOCKET,
];

pub(crate) fn routes() -> ApiRouter<App> {
    let named = ApiRouter::new()
        .merge(routes::status::routes())
        .merge(routes::control::routes())
        .merge(routes::ingest::routes())
        .merge(routes::image::routes());
    // An empty id is no part of a path that could be matched.
    ["start", "stop", "config", "frame", "ws"]
        .into_iter()
        .fold(named, |router, rest| {
            let nobody = any(async || unknown_worker());
            router.route(&format!("/workers//{rest}"), nobody)
        })
}

/// Every socket of this folder and where it is.
pub(crate) fn sockets() -> [(&'static str, MethodRouter<App>); 2] {
    [
        (STATS_SOCKET, get(stats_socket::connect)),
        (WORKER_SOCKET, get(worker_socket::connect)),
    ]
}

/// Whether a path is one of frames.
pub(crate) fn is_of_frames(path: &str) -> bool {
    ROOTS.iter().any(|root| {
        let rest = path.strip_prefix(root);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Whether a path is the socket of a worker, on which frames come in.
pub(crate) fn is_worker_socket(path: &str) -> bool {
    let rest = path.strip_prefix("/workers/");
    rest.is_some_and(|rest| rest.ends_with("/ws"))
}

/// The `{id}` of the path; what cannot be an id is no worker's.
pub(crate) struct WorkerOf(pub(crate) WorkerId);

/// A JSON object as the body, documented as `T`.
pub(crate) struct Said<T>(pub(crate) JsonObject, PhantomData<T>);

/// A frame as the body.
pub(crate) struct RawBody(pub(crate) Bytes);

pub(crate) fn wrong(text: impl Into<String>) -> HttpError {
    HttpError::new(ErrorCode::BadRequest, text)
}

pub(crate) fn unknown_worker() -> HttpError {
    wrong("unknown worker id")
}

impl FromRequestParts<App> for WorkerOf {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, HttpError> {
        let read = Path::<String>::from_request_parts(parts, app).await;
        let Path(text) = read.map_err(|_| unknown_worker())?;
        text.parse().map(Self).map_err(|_| unknown_worker())
    }
}

impl<T> FromRequest<App> for Said<T> {
    type Rejection = HttpError;

    async fn from_request(request: Request, app: &App) -> Result<Self, HttpError> {
        let body = bytes(request, app.config.body_limit).await?;
        match json(&body)? {
            Value::Object(object) => Ok(Self(object, PhantomData)),
            _ => Err(wrong("the body must be a JSON object")),
        }
    }
}

impl FromRequest<App> for RawBody {
    type Rejection = HttpError;

    async fn from_request(request: Request, app: &App) -> Result<Self, HttpError> {
        bytes(request, app.config.body_limit).await.map(Self)
    }
}

/// What any of these may be answered.
pub(crate) fn of_frames(operation: Operation<'_>) -> Operation<'_> {
    guarded(operation).tag("frames")
}

/// What one that says something may be answered besides.
pub(crate) fn with_body(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .response::<400, Json<ErrorBody>>()
        .response::<413, Json<ErrorBody>>()
}

/// Documents the `{id}` of a path.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "describes the path")]
struct WorkerParam {
    /// The id of the worker.
    id: WorkerId,
}

impl OperationInput for WorkerOf {
    fn operation_input(ctx: &mut GenContext, operation: &mut Documented) {
        Path::<WorkerParam>::operation_input(ctx, operation);
    }
}

impl<T: JsonSchema> OperationInput for Said<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Documented) {
        Json::<T>::operation_input(ctx, operation);
    }
}

impl OperationInput for RawBody {
    fn operation_input(ctx: &mut GenContext, operation: &mut Documented) {
        Bytes::operation_input(ctx, operation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_of_frames_or_not() {
        for (path, expected) in [
            ("/active", true),
            ("/workers/a/start", true),
            ("/workers//start", true),
            ("/frame.png", true),
            ("/debug/panel.png", true),
            ("/ingest/rbm", true),
            ("/ws", true),
            ("/routes", true),
            ("/activex", false),
            ("/", false),
            ("/healthz", false),
            ("/v1/jobs", false),
            ("/wsx", false),
        ] {
            assert_eq!(is_of_frames(path), expected, "{path}");
        }
        assert!(is_worker_socket("/workers/a/ws") && is_worker_socket(WORKER_SOCKET));
        assert!(!is_worker_socket("/ws") && !is_worker_socket("/workers/a/frame"));
    }
}
