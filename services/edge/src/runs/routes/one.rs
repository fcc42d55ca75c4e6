//! One run: read, cancel, complete, and the decisions about its gates.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use quintet_contract::id::{MAX_NAME_BYTES, NodeId, RunId};
use quintet_contract::nesting;
use quintet_contract::run::{Run, RunStatus};
use quintet_contract::run_api::{CompleteRun, DecideGate, Decision};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::access::identity::Caller;
use crate::error::{ErrorBody, HttpError};
use crate::http::docs::{Operation, guarded, of_one, with_body};
use crate::http::extract::{BodyPolicy, Detailed, JsonBody, PathId};
use crate::runs::client::RunsClient;

/// A run.
#[derive(Serialize, JsonSchema)]
pub(crate) struct OneRun {
    /// The run.
    run: Run,
}

/// Done, and the status of the run.
#[derive(Serialize, JsonSchema)]
pub(crate) struct OkStatus {
    /// Always true.
    ok: bool,
    /// The present status of the run.
    status: RunStatus,
}

/// Done, and the run as it is now.
#[derive(Serialize, JsonSchema)]
pub(crate) struct OkRun {
    /// Always true.
    ok: bool,
    /// The present status of the run.
    status: RunStatus,
    /// The run.
    run: Run,
}

impl OkRun {
    fn of(run: Run) -> Json<Self> {
        Json(Self {
            ok: true,
            status: run.status,
            run,
        })
    }
}

pub(crate) async fn get(
    State(runs): State<RunsClient>,
    PathId(id): PathId<RunId>,
) -> Result<Json<OneRun>, HttpError> {
    let run = runs.run(id).await?.run;
    Ok(Json(OneRun { run }))
}

pub(crate) fn get_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(guarded(operation))
        .id("getRun")
        .summary("Get a run and the status of its nodes")
        .tag("runs")
        .response::<200, Json<OneRun>>()
}

pub(crate) async fn cancel(
    State(runs): State<RunsClient>,
    PathId(id): PathId<RunId>,
) -> Result<Json<OkStatus>, HttpError> {
    let status = runs.cancel_run(id).await?;
    Ok(Json(OkStatus { ok: true, status }))
}

pub(crate) fn cancel_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(guarded(operation))
        .id("cancelRun")
        .summary("Cancel a run")
        .description("Its running nodes are stopped. A run that has ended is answered 409 with `from` and `to`.")
        .tag("runs")
        .response::<200, Json<OkStatus>>()
        .response::<409, Json<ErrorBody>>()
}

/// How an outside program ends its run.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Completion {
    /// How it ended.
    status: CompletionStatus,
    /// Why it failed.
    #[serde(default)]
    error: Option<String>,
    /// What came out of it.
    #[serde(default)]
    output: Option<Value>,
}

/// The final statuses that a program may report.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum CompletionStatus {
    /// It ended well.
    Completed,
    /// It failed.
    Failed,
}

pub(crate) async fn complete(
    State(runs): State<RunsClient>,
    PathId(run_id): PathId<RunId>,
    JsonBody(completion, _): JsonBody<Completion, Detailed>,
) -> Result<Json<OkRun>, HttpError> {
    let Completion {
        status,
        error,
        output,
    } = completion;
    if !output.as_ref().is_none_or(nesting::is_bounded) {
        return Err(too_deep("output"));
    }
    let complete = CompleteRun {
        run_id,
        status: match status {
            CompletionStatus::Completed => RunStatus::Completed,
            CompletionStatus::Failed => RunStatus::Failed,
        },
        error,
        output,
    };
    Ok(OkRun::of(runs.complete_run(&complete).await?))
}

/// A value that could be stored, but not read again.
pub(crate) fn too_deep(field: &str) -> HttpError {
    let levels = nesting::MAX_LEVELS;
    Detailed::invalid(
        field,
        &format!("must not be nested deeper than {levels} levels"),
    )
}

pub(crate) fn complete_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(with_body(operation))
        .id("completeRun")
        .summary("End a run that has no plan")
        .description("For the outside program that does the work. A run with a plan, or one that has ended: 409.")
        .tag("runs")
        .response::<200, Json<OkRun>>()
        .response::<409, Json<ErrorBody>>()
}

pub(crate) async fn approve(
    State(runs): State<RunsClient>,
    PathId(id): PathId<RunId>,
    PathId(node): PathId<NodeId>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Json<OkRun>, HttpError> {
    decide(&runs, (id, node), Decision::Approve, &caller, &headers).await
}

pub(crate) async fn reject(
    State(runs): State<RunsClient>,
    PathId(id): PathId<RunId>,
    PathId(node): PathId<NodeId>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Json<OkRun>, HttpError> {
    decide(&runs, (id, node), Decision::Reject, &caller, &headers).await
}

async fn decide(
    runs: &RunsClient,
    (run_id, node_id): (RunId, NodeId),
    decision: Decision,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Json<OkRun>, HttpError> {
    let decide = DecideGate {
        run_id,
        node_id,
        decision,
        by: Some(bounded(&caller.name)),
        actor: super::create::actor(headers)?,
    };
    Ok(OkRun::of(runs.decide_gate(&decide).await?))
}

/// A name of a key in the configuration may have any length.
fn bounded(name: &str) -> String {
    let end = name.floor_char_boundary(MAX_NAME_BYTES);
    name[..end].to_owned()
}

pub(crate) fn approve_docs(operation: Operation<'_>) -> Operation<'_> {
    gate_docs(operation, "Approve a waiting gate").id("approveGate")
}

pub(crate) fn reject_docs(operation: Operation<'_>) -> Operation<'_> {
    gate_docs(operation, "Reject a waiting gate").id("rejectGate")
}

fn gate_docs<'t>(operation: Operation<'t>, summary: &str) -> Operation<'t> {
    of_one(guarded(operation))
        .summary(summary)
        .description("The decision is recorded under the name of the API key; the header `x-actor-id` may name the person. A node that is no gate, or does not wait: 409.")
        .tag("runs")
        .response::<200, Json<OkRun>>()
        .response::<409, Json<ErrorBody>>()
}
