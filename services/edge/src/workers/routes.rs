//! Routes of workers: the list, and the drain flag.

use axum::Json;
use axum::extract::State;
use quintet_bus::RequestError;
use quintet_contract::error::ErrorCode;
use quintet_contract::id::WorkerId;
use quintet_contract::subject::CommandWorker;
use quintet_contract::task::WorkerCommand;
use quintet_contract::worker::{Worker, WorkerKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::presence::Presence;
use crate::error::{ErrorBody, HttpError};
use crate::http::docs::{Operation, guarded, of_one, with_body};
use crate::http::extract::{JsonBody, PathId};
use crate::http::query::{Query, QueryParams};
use crate::state::App;

/// Which workers are listed.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Filter {
    /// Only workers of this kind.
    kind: Option<WorkerKind>,
}

impl QueryParams for Filter {
    fn expected(_: &str) -> String {
        let kinds = WorkerKind::ALL.map(WorkerKind::as_str).join(", ");
        format!("one of {kinds}")
    }
}

pub(crate) async fn list(
    State(app): State<App>,
    Query(Filter { kind }): Query<Filter>,
) -> Result<Json<Vec<Worker>>, HttpError> {
    Ok(Json(app.live.part::<Presence>().list(kind)))
}

pub(crate) fn list_docs(operation: Operation<'_>) -> Operation<'_> {
    guarded(operation)
        .id("listWorkers")
        .summary("List the workers that are present, by kind and id")
        .description(
            "A worker is listed from its first heartbeat until it leaves, or until `ttlMs` is over without another. An edge that \
             has just started lists each after its next heartbeat. Agents are listed by `/v1/agents`.",
        )
        .tag("workers")
        .response::<200, Json<Vec<Worker>>>()
        .response::<400, Json<ErrorBody>>()
        .response::<422, Json<ErrorBody>>()
}

/// Whether a worker shall take no more work.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Drain {
    /// True: no more, what it has continues; false: as before.
    drain: bool,
}

/// Done, and the worker as it is now.
#[derive(Serialize, JsonSchema)]
pub(crate) struct OkWorker {
    /// Always true.
    ok: bool,
    /// The worker as it is now.
    worker: Worker,
}

pub(crate) async fn drain(
    State(app): State<App>,
    PathId(id): PathId<WorkerId>,
    Query(Filter { kind }): Query<Filter>,
    JsonBody(Drain { drain }, _): JsonBody<Drain>,
) -> Result<Json<OkWorker>, HttpError> {
    let presence = app.live.part::<Presence>();
    let find = || {
        let workers = presence.list(kind).into_iter();
        let of_id: Vec<Worker> = workers.filter(|worker| worker.id == id).collect();
        // Ids are unique within a kind only: without one the kind that can be drained is meant.
        let run = of_id.iter().find(|worker| worker.kind == WorkerKind::Run);
        run.or(of_id.first()).cloned()
    };
    let worker = find().ok_or_else(HttpError::not_found)?;
    let kind = worker.kind;
    match kind {
        WorkerKind::Run => {
            let subject = CommandWorker { worker: id.clone() };
            let command = WorkerCommand::Drain { drain };
            let timeout = app.config.request_timeout;
            match app.bus.request(&subject, &command, timeout).await {
                Ok(_) => {}
                Err(RequestError::NoResponders { .. }) => {
                    let text = "this worker takes no commands: it is gone, or of a program that serves none; stop it itself";
                    return Err(HttpError::new(ErrorCode::Conflict, text));
                }
                Err(error) => return Err(error.into()),
            }
        }
        WorkerKind::Frames => {
            let text =
                "a frame worker is not drained; stop it with POST /workers/{id}/stop instead";
            return Err(HttpError::new(ErrorCode::Conflict, text));
        }
        WorkerKind::Infer | WorkerKind::Tts | WorkerKind::Asr => {
            let text = format!("workers of the kind {kind} cannot be drained");
            return Err(HttpError::new(ErrorCode::Conflict, text));
        }
    }
    presence.note_drain(kind, &id, drain);
    let worker = find().unwrap_or(worker);
    Ok(Json(OkWorker { ok: true, worker }))
}

pub(crate) fn drain_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(with_body(operation))
        .id("drainWorker")
        .summary("Let a worker take no more work, or take work again")
        .description(
            "Run workers can be drained: they take no more tasks, and continue with those that they have. The flag ends with the \
             worker's process. Needs the permission admin. Agents are drained by `/v1/agents/{id}/drain`.",
        )
        .tag("workers")
        .response::<200, Json<OkWorker>>()
        .response::<400, Json<ErrorBody>>()
        .response::<409, Json<ErrorBody>>()
}
