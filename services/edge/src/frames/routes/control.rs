//! Setting what a person decides: whose frames are shown, how fast, who runs, and what workers are set to.

use aide::axum::ApiRouter;
use aide::axum::routing::{get_with, post_with};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use quintet_contract::frame::Thousandths;
use quintet_contract::frame_api::{ActivateWorker, ConfigureFrameWorker, FrameWorkerRef, SetFps};
use quintet_contract::id::WorkerId;
use quintet_contract::{JsonObject, nesting};
use schemars::JsonSchema;
use serde_json::Value;

use super::status::{active, active_docs, fps, fps_docs};
use crate::error::{ErrorBody, HttpError};
use crate::frames::{Said, WorkerOf, of_frames, unknown_worker, with_body, wrong};
use crate::http::docs::Operation;
use crate::state::App;

/// Nothing faster than this can be said on the bus; the display's own limit is far below.
const MAX_RATE: f64 = 1e12;

pub(crate) fn routes() -> ApiRouter<App> {
    ApiRouter::new()
        .api_route(
            "/active",
            get_with(active, active_docs).post_with(activate, activate_docs),
        )
        .api_route(
            "/fps",
            get_with(fps, fps_docs)
                .post_with(set_fps, set_fps_docs)
                .delete_with(reset_fps, reset_fps_docs),
        )
        .api_route("/workers/{id}/start", post_with(start, start_docs))
        .api_route("/workers/{id}/stop", post_with(stop, stop_docs))
        .api_route(
            "/workers/{id}/config",
            get_with(settings, settings_docs).post_with(configure, configure_docs),
        )
}

/// Whose frames shall be shown.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "describes the body")]
struct Activation {
    /// The worker; nobody's when it is null or left out.
    #[serde(default)]
    id: Option<WorkerId>,
}

async fn activate(
    State(app): State<App>,
    Said(body, ..): Said<Activation>,
) -> Result<StatusCode, HttpError> {
    let id = chosen(body.get("id"))?;
    app.activate_worker(&ActivateWorker { id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The worker that a body names.
fn chosen(id: Option<&Value>) -> Result<Option<WorkerId>, HttpError> {
    match id {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) if !id.is_empty() => {
            let id = id.parse().map_err(|_| unknown_worker())?;
            Ok(Some(id))
        }
        Some(_) => Err(wrong("id must be a non-empty string")),
    }
}

fn activate_docs(operation: Operation<'_>) -> Operation<'_> {
    with_body(operation)
        .summary("Show the frames of a worker")
        .description("It is started if it does not run, and the one before it is stopped. Without an id nobody's are shown.")
        .response::<204, ()>()
}

/// How fast frames shall be shown.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "describes the body")]
struct NewRate {
    /// Frames per second: 1 or more, at most what the display can show.
    fps: f64,
}

async fn set_fps(
    State(app): State<App>,
    Said(body, ..): Said<NewRate>,
) -> Result<StatusCode, HttpError> {
    let number = body.get("fps").and_then(Value::as_f64);
    let fps = number.and_then(rate);
    let fps = fps.ok_or_else(|| wrong("fps must be a number"))?;
    app.set_fps(&SetFps { fps: Some(fps) }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A rate as it is said on the bus. What is a little below or above a whole number stays so: that is where limits are.
fn rate(number: f64) -> Option<Thousandths> {
    let number = number.clamp(-MAX_RATE, MAX_RATE);
    let rounded = Thousandths::of(number)?;
    let beside = match rounded.get() {
        whole if whole.fract() != 0.0 => 0,
        whole if number < whole => -1,
        whole if number > whole => 1,
        _ => 0,
    };
    Some(Thousandths(rounded.0 + beside))
}

fn set_fps_docs(operation: Operation<'_>) -> Operation<'_> {
    with_body(operation)
        .summary("Show frames at another rate")
        .response::<204, ()>()
}

async fn reset_fps(State(app): State<App>) -> Result<StatusCode, HttpError> {
    app.set_fps(&SetFps { fps: None }).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn reset_fps_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .summary("Show frames at the rate of the display again")
        .response::<204, ()>()
}

async fn start(State(app): State<App>, WorkerOf(id): WorkerOf) -> Result<StatusCode, HttpError> {
    app.start_worker(&FrameWorkerRef { id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn start_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .summary("Start a worker of frames")
        .description("One that runs already goes on.")
        .response::<204, ()>()
        .response::<400, Json<ErrorBody>>()
}

async fn stop(State(app): State<App>, WorkerOf(id): WorkerOf) -> Result<StatusCode, HttpError> {
    app.stop_worker(&FrameWorkerRef { id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn stop_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .summary("Stop a worker of frames")
        .response::<204, ()>()
        .response::<400, Json<ErrorBody>>()
}

/// What a worker is set to; its fields are the worker's own.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "describes the body")]
struct Settings(JsonObject);

async fn settings(
    State(app): State<App>,
    WorkerOf(id): WorkerOf,
) -> Result<Json<JsonObject>, HttpError> {
    let found = app.worker_settings(&FrameWorkerRef { id }).await?;
    Ok(Json(found.settings))
}

fn settings_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .summary("Get what a worker of frames is set to")
        .response::<200, Json<Settings>>()
        .response::<400, Json<ErrorBody>>()
}

async fn configure(
    State(app): State<App>,
    WorkerOf(id): WorkerOf,
    Said(settings, ..): Said<Settings>,
) -> Result<StatusCode, HttpError> {
    if !nesting::is_bounded_object(&settings) {
        let levels = nesting::MAX_LEVELS;
        let text = format!("settings must not be nested deeper than {levels} levels");
        return Err(wrong(text));
    }
    let configure = ConfigureFrameWorker { id, settings };
    app.configure_worker(&configure).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn configure_docs(operation: Operation<'_>) -> Operation<'_> {
    with_body(operation)
        .summary("Change what a worker of frames is set to")
        .description(
            "Fields that are named are replaced, the others stay; the worker is told at once.",
        )
        .response::<204, ()>()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_is_a_text_that_could_be_one_or_nothing() {
        let text = |id: Value| chosen(Some(&id)).map_err(|error| error.reply.error);
        assert_eq!(chosen(None).unwrap(), None);
        assert_eq!(text(json!(null)), Ok(None));
        assert_eq!(text(json!("a b")), Ok(Some("a b".parse().unwrap())));
        for id in [json!(""), json!(7), json!(["a"]), json!({}), json!(true)] {
            assert_eq!(text(id), Err("id must be a non-empty string".to_owned()));
        }
        for id in [json!("x".repeat(129)), json!("a\u{7}b")] {
            assert_eq!(text(id), Err("unknown worker id".to_owned()));
        }
    }

    #[test]
    fn what_is_said_as_a_rate_stays_on_its_side_of_every_whole_number() {
        for (number, expected) in [
            (30.0, 30_000),
            (0.9999, 999),
            (1.0, 1_000),
            (30.000_01, 30_001),
            (29.999_99, 29_999),
            (7.4996, 7_500),
            (-3.0, -3_000),
            (1e300, 1_000_000_000_000_000),
            (-1e300, -1_000_000_000_000_000),
        ] {
            assert_eq!(rate(number), Some(Thousandths(expected)), "{number}");
        }
    }
}
