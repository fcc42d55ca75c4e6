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
use aide::generate::GenContext;
use aide::openapi::Operation as Documented;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::header;
use axum::http::request::Parts;
use quintet_contract::JsonObject;
use quintet_contract::error::ErrorCode;
use quintet_contract::id::WorkerId;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use self::routes::{control, image, ingest, status};
use crate::access::policy::Access;
use crate::error::{ErrorBody, HttpError};
use crate::http::docs::{Operation, guarded};
use crate::http::extract::{bytes, json};
use crate::http::route::{Kind, Routes};
use crate::state::App;

/// Every route of frames.
pub(crate) fn kind() -> Kind<App> {
    let routes = Routes::new()
        .get("/config", Access::Read, status::config, status::config_docs)
        .get("/stats", Access::Read, status::stats, status::stats_docs)
        .quiet()
        .get(
            "/sources",
            Access::Read,
            status::sources,
            status::sources_docs,
        )
        .get(
            "/v1/display",
            Access::Read,
            status::display,
            status::display_docs,
        )
        .get("/active", Access::Read, status::active, status::active_docs)
        .post(
            "/active",
            Access::Write,
            control::activate,
            control::activate_docs,
        )
        .get("/fps", Access::Read, status::fps, status::fps_docs)
        .post(
            "/fps",
            Access::Write,
            control::set_fps,
            control::set_fps_docs,
        )
        .delete(
            "/fps",
            Access::Write,
            control::reset_fps,
            control::reset_fps_docs,
        )
        .post(
            "/workers/{id}/start",
            Access::Write,
            control::start,
            control::start_docs,
        )
        .post(
            "/workers/{id}/stop",
            Access::Write,
            control::stop,
            control::stop_docs,
        )
        .get(
            "/workers/{id}/config",
            Access::Read,
            control::settings,
            control::settings_docs,
        )
        .quiet()
        .post(
            "/workers/{id}/config",
            Access::Write,
            control::configure,
            control::configure_docs,
        )
        .post(
            "/workers/{id}/frame",
            Access::Write,
            ingest::frame,
            ingest::frame_docs,
        )
        .quiet()
        .post(
            "/ingest/rbm",
            Access::Write,
            ingest::ingest,
            ingest::ingest_docs,
        )
        .quiet()
        .exposes(&[
            ingest::BUFFER_SIZE,
            ingest::BUFFER_CAP,
            ingest::SEQ_ACK,
            ingest::RETRY_MS,
        ])
        .get("/frame.png", Access::Read, image::frame, image::frame_docs)
        .quiet()
        .exposes(&[header::ETAG])
        .get(
            "/debug/panel.png",
            Access::Read,
            image::panel,
            image::panel_docs,
        )
        .quiet()
        .exposes(&[header::ETAG])
        .socket("/ws", Access::Read.or_ticket(), stats_socket::connect)
        // Frames come in on it.
        .socket(
            "/workers/{id}/ws",
            Access::Write.or_ticket(),
            worker_socket::connect,
        );
    // An empty id is no part of a path that could be matched.
    let nobody = ["start", "stop", "config", "frame", "ws"].map(|rest| format!("/workers//{rest}"));
    let routes = nobody.into_iter().fold(routes, |routes, path| {
        routes.any(path, Access::Write, async || unknown_worker())
    });
    Kind::new("frames", routes)
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
