//! Sending frames: of a worker, which are checked, de-duplicated and throttled, and straight to the display.

use axum::Json;
use axum::extract::State;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use quintet_contract::frame_api::RETRY_AFTER_MS;
use quintet_contract::id::WorkerId;
use serde_json::Value;

use crate::error::{ErrorBody, HttpError};
use crate::frames::client::FramesClient;
use crate::frames::with_body;
use crate::http::docs::Operation;
use crate::http::docs::{Presence, with_header};
use crate::http::extract::{PathId, RawBody};

/// Frames that wait, this one counted.
pub(crate) const BUFFER_SIZE: HeaderName = HeaderName::from_static("x-buffer-size");
/// Frames that can wait.
pub(crate) const BUFFER_CAP: HeaderName = HeaderName::from_static("x-buffer-cap");
/// The number of the frame.
pub(crate) const SEQ_ACK: HeaderName = HeaderName::from_static("x-seq-ack");
/// After how many milliseconds there is room again.
pub(crate) const RETRY_MS: HeaderName = HeaderName::from_static("x-retry-after-ms");

pub(crate) async fn frame(
    State(frames): State<FramesClient>,
    PathId(id): PathId<WorkerId>,
    RawBody(frame): RawBody,
) -> Result<StatusCode, HttpError> {
    frames.worker_frame(id, frame).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) fn frame_docs(operation: Operation<'_>) -> Operation<'_> {
    with_body(operation)
        .id("sendWorkerFrame")
        .summary("Send a frame of a worker")
        .description(
            "RBM: a header of 16 bytes, then one bit for every pixel. 204 means that it is valid; it is shown if the worker is the \
             active one, the image is another than before, and there are not too many.",
        )
        .response::<204, ()>()
}

pub(crate) async fn ingest(
    State(frames): State<FramesClient>,
    RawBody(frame): RawBody,
) -> Result<Response, HttpError> {
    let reply = frames.ingest_frame(frame).await.map_err(with_wait)?;
    let headers = [
        (BUFFER_SIZE, reply.size.to_string()),
        (BUFFER_CAP, reply.capacity.to_string()),
        (SEQ_ACK, reply.seq.to_string()),
    ];
    Ok((StatusCode::NO_CONTENT, headers).into_response())
}

/// Answers the time to retry, where the display has no room.
fn with_wait(error: HttpError) -> HttpError {
    let wait = error.reply.details.get(RETRY_AFTER_MS);
    let Some(ms) = wait.and_then(Value::as_u64) else {
        return error;
    };
    let seconds = ms.div_ceil(1000).max(1);
    error
        .header(RETRY_AFTER, seconds.into())
        .header(RETRY_MS, ms.into())
}

pub(crate) fn ingest_docs(operation: Operation<'_>) -> Operation<'_> {
    with_body(operation)
        .id("ingestFrame")
        .summary("Put a frame on the display")
        .description(
            "It bypasses the checks that frames of workers pass. A display without room answers 429 and stores nothing.",
        )
        .response_with::<204, (), _>(|response| {
            let response = with_header(
                response,
                BUFFER_SIZE.as_str(),
                Presence::Always,
                "frames that wait, this one counted",
            );
            let response = with_header(
                response,
                BUFFER_CAP.as_str(),
                Presence::Always,
                "frames that can wait",
            );
            with_header(
                response,
                SEQ_ACK.as_str(),
                Presence::Always,
                "the number that the frame had",
            )
        })
        .response_with::<429, Json<ErrorBody>, _>(|response| {
            with_header(
                response,
                RETRY_MS.as_str(),
                Presence::Sometimes,
                "after how many milliseconds there is room again",
            )
        })
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use quintet_contract::error::{ErrorCode, ErrorReply};

    use super::*;

    #[test]
    fn a_full_display_sends_retry_after_in_whole_seconds_and_in_milliseconds() {
        for (ms, seconds) in [(0_u64, "1"), (33, "1"), (1000, "1"), (1001, "2")] {
            let full = ErrorReply::new(ErrorCode::RateLimited, "full").with(RETRY_AFTER_MS, ms);
            let response = with_wait(full.into()).into_response();
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            let all: Vec<_> = response.headers().get_all(RETRY_AFTER).iter().collect();
            assert_eq!(all, [seconds]);
            assert_eq!(response.headers()[RETRY_MS], ms.to_string().as_str());
        }
    }
}
