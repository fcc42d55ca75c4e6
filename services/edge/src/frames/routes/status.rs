//! Looking at frames: who draws, how fast, what became of it, and what the display is made of.

use aide::axum::ApiRouter;
use aide::axum::routing::get_with;
use axum::Json;
use axum::extract::State;
use quintet_contract::display::{DisplayConfig, DisplayStats};
use quintet_contract::frame::Fps;
use quintet_contract::frame_api::FrameStats;
use quintet_contract::id::WorkerId;
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::HttpError;
use crate::frames::of_frames;
use crate::http::docs::Operation;
use crate::state::App;

pub(crate) fn routes() -> ApiRouter<App> {
    ApiRouter::new()
        .api_route("/config", get_with(config, config_docs))
        .api_route("/stats", get_with(stats, stats_docs))
        .api_route("/sources", get_with(sources, sources_docs))
        .api_route("/v1/display", get_with(display, display_docs))
}

async fn config(State(app): State<App>) -> Result<Json<DisplayConfig>, HttpError> {
    Ok(Json(app.frames_status().await?.config))
}

fn config_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .summary("Say what the display is made of")
        .response::<200, Json<DisplayConfig>>()
}

async fn stats(State(app): State<App>) -> Result<Json<FrameStats>, HttpError> {
    Ok(Json(app.frames_status().await?.stats))
}

fn stats_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .summary("Say what goes on with frames")
        .description(
            "The socket `/ws` tells the same once a second and whenever something changes.",
        )
        .response::<200, Json<FrameStats>>()
}

/// Who draws, and who could.
#[derive(Serialize, JsonSchema)]
struct Sources {
    /// Who has sent frames.
    sources: Vec<WorkerId>,
    /// Who may be activated.
    known: Vec<WorkerId>,
    /// Who runs now.
    running: Vec<WorkerId>,
}

async fn sources(State(app): State<App>) -> Result<Json<Sources>, HttpError> {
    let look = app.frames_status().await?;
    Ok(Json(Sources {
        sources: look.stats.sources,
        known: look.known,
        running: look.stats.running,
    }))
}

fn sources_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .summary("List workers of frames")
        .response::<200, Json<Sources>>()
}

async fn display(State(app): State<App>) -> Result<Json<DisplayStats>, HttpError> {
    Ok(Json(app.frames_status().await?.display))
}

fn display_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .summary("Say what the display does")
        .response::<200, Json<DisplayStats>>()
}

/// Whose frames are shown.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Active {
    /// The worker whose frames are shown.
    active: Option<WorkerId>,
    /// Who runs now.
    running: Vec<WorkerId>,
}

pub(crate) async fn active(State(app): State<App>) -> Result<Json<Active>, HttpError> {
    let stats = app.frames_status().await?.stats;
    Ok(Json(Active {
        active: stats.active,
        running: stats.running,
    }))
}

pub(crate) fn active_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .summary("Say whose frames are shown")
        .response::<200, Json<Active>>()
}

/// How fast frames are shown.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Rate {
    /// Frames per second.
    fps: Fps,
    /// Whether somebody set it.
    manual: bool,
}

pub(crate) async fn fps(State(app): State<App>) -> Result<Json<Rate>, HttpError> {
    let look = app.frames_status().await?;
    Ok(Json(Rate {
        fps: look.stats.fps,
        manual: look.manual,
    }))
}

pub(crate) fn fps_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .summary("Say how fast frames are shown")
        .response::<200, Json<Rate>>()
}
