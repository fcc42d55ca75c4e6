//! Status of frames: the workers, the rate, the counters, and the configuration of the display.

use axum::Json;
use axum::extract::State;
use quintet_contract::display::{DisplayConfig, DisplayStats};
use quintet_contract::frame::Fps;
use quintet_contract::frame_api::FrameStats;
use quintet_contract::id::WorkerId;
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::HttpError;
use crate::frames::client::FramesClient;
use crate::frames::of_frames;
use crate::http::docs::Operation;

pub(crate) async fn config(
    State(frames): State<FramesClient>,
) -> Result<Json<DisplayConfig>, HttpError> {
    Ok(Json(frames.frames_status().await?.config))
}

pub(crate) fn config_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .id("getDisplayConfig")
        .summary("Get the configuration of the display")
        .response::<200, Json<DisplayConfig>>()
}

pub(crate) async fn stats(
    State(frames): State<FramesClient>,
) -> Result<Json<FrameStats>, HttpError> {
    Ok(Json(frames.frames_status().await?.stats))
}

pub(crate) fn stats_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .id("getFrameStats")
        .summary("Get the statistics of frames")
        .description("The socket `/ws` sends the same once a second and on every change.")
        .response::<200, Json<FrameStats>>()
}

/// The active worker, and the others.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Sources {
    /// Workers that have sent frames.
    sources: Vec<WorkerId>,
    /// Workers that may be activated.
    known: Vec<WorkerId>,
    /// Running workers.
    running: Vec<WorkerId>,
}

pub(crate) async fn sources(
    State(frames): State<FramesClient>,
) -> Result<Json<Sources>, HttpError> {
    let look = frames.frames_status().await?;
    Ok(Json(Sources {
        sources: look.stats.sources,
        known: look.known,
        running: look.stats.running,
    }))
}

pub(crate) fn sources_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .id("listFrameSources")
        .summary("List workers of frames")
        .response::<200, Json<Sources>>()
}

pub(crate) async fn display(
    State(frames): State<FramesClient>,
) -> Result<Json<DisplayStats>, HttpError> {
    Ok(Json(frames.frames_status().await?.display))
}

pub(crate) fn display_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .id("getDisplay")
        .summary("Get the state of the display")
        .response::<200, Json<DisplayStats>>()
}

/// The active worker.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Active {
    /// The worker whose frames are shown.
    active: Option<WorkerId>,
    /// Running workers.
    running: Vec<WorkerId>,
}

pub(crate) async fn active(State(frames): State<FramesClient>) -> Result<Json<Active>, HttpError> {
    let stats = frames.frames_status().await?.stats;
    Ok(Json(Active {
        active: stats.active,
        running: stats.running,
    }))
}

pub(crate) fn active_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .id("getActiveWorker")
        .summary("Show the active worker")
        .response::<200, Json<Active>>()
}

/// How fast frames are shown.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Rate {
    /// Frames per second.
    fps: Fps,
    /// Whether an operator set it.
    manual: bool,
}

pub(crate) async fn fps(State(frames): State<FramesClient>) -> Result<Json<Rate>, HttpError> {
    let look = frames.frames_status().await?;
    Ok(Json(Rate {
        fps: look.stats.fps,
        manual: look.manual,
    }))
}

pub(crate) fn fps_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .id("getFrameRate")
        .summary("Get the frame rate")
        .response::<200, Json<Rate>>()
}
