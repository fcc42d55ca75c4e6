//! Commands of operators: the active worker, the rate, start and stop, and the settings of workers.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use quintet_contract::frame::Thousandths;
use quintet_contract::frame_api::{ActivateWorker, ConfigureFrameWorker, FrameWorkerRef, SetFps};
use quintet_contract::id::WorkerId;
use quintet_contract::{JsonObject, nesting};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{ErrorBody, HttpError};
use crate::frames::client::FramesClient;
use crate::frames::{of_frames, unknown_worker, with_body, wrong};
use crate::http::docs::Operation;
use crate::http::extract::{JsonBody, Lenient, PathId};

/// The fastest rate that fits a message; the display's own limit is far below.
const MAX_RATE: f64 = 1e12;

/// The worker to activate.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Activation {
    /// The worker; none when it is null or left out.
    #[serde(default)]
    #[schemars(with = "Option<WorkerId>")]
    id: Option<Value>,
}

pub(crate) async fn activate(
    State(frames): State<FramesClient>,
    JsonBody(body, _): JsonBody<Activation, Lenient>,
) -> Result<StatusCode, HttpError> {
    let id = chosen(body.id.as_ref())?;
    frames.activate_worker(&ActivateWorker { id }).await?;
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

pub(crate) fn activate_docs(operation: Operation<'_>) -> Operation<'_> {
    with_body(operation)
        .id("activateWorker")
        .summary("Show the frames of a worker")
        .description("It is started if it does not run, and the one before it is stopped. Without an id none is shown.")
        .response::<204, ()>()
}

/// How fast frames shall be shown.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct NewRate {
    /// Frames per second: 1 or more, at most what the display can show.
    #[schemars(required, with = "f64")]
    fps: Option<Value>,
}

pub(crate) async fn set_fps(
    State(frames): State<FramesClient>,
    JsonBody(body, _): JsonBody<NewRate, Lenient>,
) -> Result<StatusCode, HttpError> {
    let number = body.fps.as_ref().and_then(Value::as_f64);
    let fps = number.and_then(rate);
    let fps = fps.ok_or_else(|| wrong("fps must be a number"))?;
    frames.set_fps(&SetFps { fps: Some(fps) }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A rate as the bus carries it. What is a little below or above a whole number stays so: that is where limits are.
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

pub(crate) fn set_fps_docs(operation: Operation<'_>) -> Operation<'_> {
    with_body(operation)
        .id("setFrameRate")
        .summary("Show frames at another rate")
        .response::<204, ()>()
}

pub(crate) async fn reset_fps(State(frames): State<FramesClient>) -> Result<StatusCode, HttpError> {
    frames.set_fps(&SetFps { fps: None }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) fn reset_fps_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .id("resetFrameRate")
        .summary("Show frames at the rate of the display again")
        .response::<204, ()>()
}

pub(crate) async fn start(
    State(frames): State<FramesClient>,
    PathId(id): PathId<WorkerId>,
) -> Result<StatusCode, HttpError> {
    frames.start_worker(&FrameWorkerRef { id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) fn start_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .id("startFrameWorker")
        .summary("Start a worker of frames")
        .description("One that runs already continues.")
        .response::<204, ()>()
        .response::<400, Json<ErrorBody>>()
}

pub(crate) async fn stop(
    State(frames): State<FramesClient>,
    PathId(id): PathId<WorkerId>,
) -> Result<StatusCode, HttpError> {
    frames.stop_worker(&FrameWorkerRef { id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) fn stop_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .id("stopFrameWorker")
        .summary("Stop a worker of frames")
        .response::<204, ()>()
        .response::<400, Json<ErrorBody>>()
}

/// What a worker is set to; its fields are the worker's own.
#[derive(Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Settings(JsonObject);

pub(crate) async fn settings(
    State(frames): State<FramesClient>,
    PathId(id): PathId<WorkerId>,
) -> Result<Json<JsonObject>, HttpError> {
    let found = frames.worker_settings(&FrameWorkerRef { id }).await?;
    Ok(Json(found.settings))
}

pub(crate) fn settings_docs(operation: Operation<'_>) -> Operation<'_> {
    of_frames(operation)
        .id("getFrameWorkerSettings")
        .summary("Get the settings of a frame worker")
        .response::<200, Json<Settings>>()
        .response::<400, Json<ErrorBody>>()
}

pub(crate) async fn configure(
    State(frames): State<FramesClient>,
    PathId(id): PathId<WorkerId>,
    JsonBody(Settings(settings), _): JsonBody<Settings, Lenient>,
) -> Result<StatusCode, HttpError> {
    if !nesting::is_bounded_object(&settings) {
        let levels = nesting::MAX_LEVELS;
        let text = format!("settings must not be nested deeper than {levels} levels");
        return Err(wrong(text));
    }
    let configure = ConfigureFrameWorker { id, settings };
    frames.configure_worker(&configure).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) fn configure_docs(operation: Operation<'_>) -> Operation<'_> {
    with_body(operation)
        .id("configureFrameWorker")
        .summary("Change the settings of a frame worker")
        .description(
            "Fields that are named are replaced, the others stay; the worker is notified at once.",
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
    fn a_formatted_rate_stays_on_its_side_of_every_whole_number() {
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
