//! The checkpoints of a run: read them all, or add one.

use std::collections::VecDeque;

use axum::Json;
use axum::extract::{FromRef, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::stream;
use quintet_bus::new_checkpoint_id;
use quintet_contract::error::{ErrorCode, ErrorReply};
use quintet_contract::id::RunId;
use quintet_contract::nesting;
use quintet_contract::run::{
    Checkpoint, MAX_CHECKPOINT_BYTES, MAX_CHECKPOINT_TYPE_BYTES, RunEvent,
};
use quintet_contract::run_api::{AddCheckpoint, CheckpointPage, CheckpointReply};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::one::too_deep;
use crate::error::{ErrorBody, HttpError};
use crate::http::docs::{Operation, guarded, of_one, with_body};
use crate::http::extract::{self, BodyLimit, Detailed, PathId};
use crate::http::json_array::json_array;
use crate::runs::client::RunsClient;
use crate::runs::events::run_log::RunLogReader;
use crate::state::App;

pub(crate) async fn list(
    State(app): State<App>,
    PathId(run_id): PathId<RunId>,
) -> Result<Response, HttpError> {
    let entries = RunsClient::from_ref(&app).run(run_id).await?.entries;
    let listed = Listed {
        reader: RunLogReader::new(app.bus.clone(), run_id),
        entries,
        found: VecDeque::new(),
    };
    let checkpoints = stream::try_unfold(listed, |mut listed| async move {
        let checkpoint = listed.next().await?;
        Ok(checkpoint.map(|checkpoint| (checkpoint, listed)))
    });
    let open = format!("{{\"runId\":\"{run_id}\",\"checkpoints\":[");
    json_array(open, checkpoints, "]}").await
}

/// The checkpoints of a log, oldest first.
struct Listed {
    reader: RunLogReader,
    /// The log is read at least to this entry.
    entries: u64,
    found: VecDeque<Checkpoint>,
}

impl Listed {
    async fn next(&mut self) -> Result<Option<Checkpoint>, HttpError> {
        while self.found.is_empty() {
            let Some(page) = self.reader.page_up_to(self.entries).await? else {
                return Ok(None);
            };
            let found = page.into_iter().filter_map(|(_, entry)| match entry.fact {
                RunEvent::Checkpoint { checkpoint } => Some(checkpoint),
                _ => None,
            });
            self.found.extend(found);
        }
        Ok(self.found.pop_front())
    }
}

pub(crate) fn list_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(guarded(operation))
        .id("listCheckpoints")
        .summary("List the checkpoints of a run, oldest first")
        .tag("runs")
        .response::<200, Json<CheckpointPage>>()
}

/// A checkpoint from outside, as it must be.
#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "describes the body")]
struct NewCheckpoint {
    /// What it marks; spaces around it do not count.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = MAX_CHECKPOINT_TYPE_BYTES), regex(pattern = r"\S"))]
    kind: String,
    /// What its author wants to find again.
    #[serde(default)]
    data: Option<Value>,
}

/// A checkpoint as it may come: a wrong type has an error of its own.
#[derive(Deserialize)]
struct Given {
    #[serde(rename = "type", default)]
    kind: Value,
    #[serde(default)]
    data: Option<Value>,
}

pub(crate) async fn add(
    State(app): State<App>,
    PathId(run_id): PathId<RunId>,
    request: Request,
) -> Result<Response, HttpError> {
    let limit = MAX_CHECKPOINT_BYTES.min(app.config.body_limit);
    let body = extract::body(request, BodyLimit(limit)).await?;
    let add = checkpoint(run_id, &body)?;
    let checkpoint_id = add.checkpoint_id;
    RunsClient::from_ref(&app).add_checkpoint(add).await?;
    Ok((StatusCode::CREATED, Json(CheckpointReply { checkpoint_id })).into_response())
}

/// Reads a body as a checkpoint.
fn checkpoint(run_id: RunId, body: &[u8]) -> Result<AddCheckpoint, HttpError> {
    let Given { kind, data } = extract::object::<_, Detailed>(body)?;
    let kind = kind.as_str().map(str::trim).unwrap_or_default();
    if kind.is_empty() || kind.len() > MAX_CHECKPOINT_TYPE_BYTES {
        return Err(invalid_type());
    }
    if !data.as_ref().is_none_or(nesting::is_bounded) {
        return Err(too_deep("data"));
    }
    Ok(AddCheckpoint {
        run_id,
        checkpoint_id: new_checkpoint_id(),
        kind: kind.to_owned(),
        data,
        blob: None,
    })
}

fn invalid_type() -> HttpError {
    let text = format!(
        "type must be a text of 1 to {MAX_CHECKPOINT_TYPE_BYTES} bytes without the spaces around it"
    );
    let reply = ErrorReply::new(ErrorCode::BadRequest, "invalid checkpoint type");
    let detail = json!({"path": "type", "message": text});
    reply.with("details", json!([detail])).into()
}

pub(crate) fn add_docs(operation: Operation<'_>) -> Operation<'_> {
    let mut operation = of_one(with_body(operation))
        .id("addCheckpoint")
        .summary("Add a checkpoint to a run")
        .description("The id, the run and the time are set by the server. At most 1 MiB. A run that has ended: 409.")
        .tag("runs")
        .response::<201, Json<CheckpointReply>>()
        .response::<409, Json<ErrorBody>>();
    // The handler reads the body itself, since it has a limit of its own.
    aide::generate::in_context(|ctx| {
        use aide::OperationInput;
        Json::<NewCheckpoint>::operation_input(ctx, operation.inner_mut());
    });
    operation
}

#[cfg(test)]
mod tests {
    use quintet_bus::new_run_id;

    use super::*;

    #[test]
    fn a_checkpoint_needs_a_type_and_gets_all_else_from_the_server() {
        let run = new_run_id();
        let read = checkpoint(
            run,
            br#"{"type": " half ", "id": "mine", "data": {"a": 1}}"#,
        )
        .unwrap();
        assert_eq!((read.run_id, read.kind.as_str()), (run, "half"));
        assert_eq!(read.data, Some(json!({"a": 1})));
        let long = json!({"type": "x".repeat(MAX_CHECKPOINT_TYPE_BYTES + 1)}).to_string();
        for (body, error) in [
            ("{}", "invalid checkpoint type"),
            (r#"{"type": "  "}"#, "invalid checkpoint type"),
            (r#"{"type": 7}"#, "invalid checkpoint type"),
            (&long, "invalid checkpoint type"),
            ("[]", "validation failed"),
            ("7", "validation failed"),
        ] {
            let refused = checkpoint(run, body.as_bytes()).unwrap_err();
            assert_eq!(refused.reply.error, error, "{body}");
            assert!(refused.reply.details["details"][0]["message"].is_string());
            let status = refused.into_response().status();
            assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        }
        let deep = format!(
            r#"{{"type": "t", "data": {}1{}}}"#,
            "[".repeat(40),
            "]".repeat(40)
        );
        let refused = checkpoint(run, deep.as_bytes()).unwrap_err();
        assert_eq!(refused.reply.details["details"][0]["path"], "data");
    }
}
