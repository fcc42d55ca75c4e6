//! Frames: the display, its workers, and its image.
//!
//! Many clients of these routes are small programs, so bodies are read whatever their content type is, and whatever
//! is wrong with a request is answered 400. What a rate or an id must be is decided by the service; its texts are passed on.

mod client;
mod png;
pub(crate) mod routes;
pub(crate) mod stats_feed;
mod stats_socket;
mod worker_socket;

use axum::Json;
use axum::http::header;
use quintet_contract::error::ErrorCode;
use quintet_contract::id::WorkerId;
use schemars::JsonSchema;
use serde::Deserialize;

use self::routes::{control, image, ingest, status};
use crate::access::policy::Access;
use crate::error::{ErrorBody, HttpError};
use crate::http::docs::{Operation, guarded};
use crate::http::extract::PathParam;
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
    let without_id =
        ["start", "stop", "config", "frame", "ws"].map(|rest| format!("/workers//{rest}"));
    let routes = without_id.into_iter().fold(routes, |routes, path| {
        routes.any(path, Access::Write, async || unknown_worker())
    });
    Kind::new("frames", routes)
}

pub(crate) fn wrong(text: impl Into<String>) -> HttpError {
    HttpError::new(ErrorCode::BadRequest, text)
}

pub(crate) fn unknown_worker() -> HttpError {
    wrong("unknown worker id")
}

impl PathParam for WorkerId {
    const NAME: &'static str = "id";
    type Docs = WorkerPath;

    fn unknown(_: &str) -> HttpError {
        unknown_worker()
    }
}

/// What any of these may be answered.
pub(crate) fn of_frames(operation: Operation<'_>) -> Operation<'_> {
    guarded(operation).tag("frames")
}

/// Besides, what a request with a body may be answered.
pub(crate) fn with_body(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .response::<400, Json<ErrorBody>>()
        .response::<413, Json<ErrorBody>>()
}

/// Documents the `{id}` of a path.
#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "describes the path")]
pub(crate) struct WorkerPath {
    /// The id of the worker.
    id: WorkerId,
}
