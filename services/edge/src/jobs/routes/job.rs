//! Jobs: submit, read, stop, mute, control, metadata, explain.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use quintet_bus::new_job_id;
use quintet_contract::JsonObject;
use quintet_contract::api::{
    ControlJob, DryRunReply, Explanation, MetadataReply, PatchMetadata, SubmitJob,
};
use quintet_contract::id::{IdempotencyKey, JobId, MAX_NAME_BYTES};
use quintet_contract::job::Job;
use quintet_contract::metadata::{self, StreamMetadata};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::identity::Caller;
use crate::error::HttpError;
use crate::http::docs::{Operation, guarded, of_one, with_body};
use crate::http::docs::{Presence, with_header};
use crate::http::extract::{Headers, JsonBody, PathId};
use crate::http::query::{Flag, Query, QueryParams};
use crate::jobs::client::JobsClient;

/// Asks that a known key be refused when its request differs.
pub(crate) const STRICT: HeaderName = HeaderName::from_static("idempotency-strict");
/// The key, for clients that send it beside the body.
pub(crate) const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Done, and the job as it is now.
#[derive(Serialize, JsonSchema)]
struct OkJob {
    /// Always true.
    ok: bool,
    /// The job as it is now.
    job: Job,
}

/// What a submission that made nothing is answered.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes two kinds of answer under one status")]
enum Known {
    /// The job of the key.
    Job(Box<Job>),
    /// Where it would go.
    DryRun(DryRunReply),
}

pub(crate) async fn submit(
    State(jobs): State<JobsClient>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Query(params): Query<SubmitParams>,
    JsonBody(submit, _): JsonBody<SubmitJob>,
) -> Result<Response, HttpError> {
    let submit = with_request_context(submit, &caller, &headers)?;
    submit.check()?;
    if params.dry_run == Some(Flag(true)) {
        return Ok(Json(jobs.dry_run(&submit).await?).into_response());
    }
    let reply = jobs.submit(&submit).await?;
    let status = if reply.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let location = format!(
        "/v1/jobs/{}",
        quintet_contract::id::escape(reply.job.id.as_str())
    );
    Ok((status, [(header::LOCATION, location)], Json(reply.job)).into_response())
}

/// The submission with what only the edge knows: an id, so that it can be sent again, the caller, and how strictly.
/// That it is caused by other work is set by parts of the system.
pub(crate) fn with_request_context(
    submit: SubmitJob,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<SubmitJob, HttpError> {
    let strict = headers.get(&STRICT).and_then(|value| value.to_str().ok());
    let key = submit.idempotency_key.or(idempotency_key(headers)?);
    Ok(SubmitJob {
        job_id: Some(new_job_id()),
        idempotency_key: key,
        requested_by: Some(caller.name.to_string()),
        caused_by: None,
        strict: strict.is_some_and(|value| value.eq_ignore_ascii_case("true")),
        ..submit
    })
}

/// The key of the header. One that cannot be read is refused: without its key, a request that is sent again would make a
/// second job.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, HttpError> {
    let Some(value) = headers.get(&KEY) else {
        return Ok(None);
    };
    let invalid = |text: String| HttpError::invalid("idempotencyKey", text);
    let text = value
        .to_str()
        .map_err(|_| invalid("the header idempotency-key must be ASCII".to_owned()))?;
    let key = IdempotencyKey::parse(text).map_err(|error| invalid(error.to_string()))?;
    Ok(Some(key))
}

/// The parameters of a submission.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SubmitParams {
    /// True: store nothing, answer where it would go.
    #[schemars(with = "Option<bool>")]
    dry_run: Option<Flag>,
}

impl QueryParams for SubmitParams {
    const FLAGS: &'static [&'static str] = &["dryRun"];

    fn expected(_: &str) -> String {
        "true or false".to_owned()
    }
}

/// Documents the headers of a submission.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "describes the headers")]
struct SubmitHeaders {
    /// The key, for clients that send it beside the body; one in the body is stronger.
    #[schemars(length(min = 1, max = MAX_NAME_BYTES), regex(pattern = "^[!-~]([ -~]*[!-~])?$"))]
    idempotency_key: Option<String>,
    /// `true`: refuse a known key whose first request differed from this one.
    idempotency_strict: Option<String>,
}

pub(crate) fn submit_docs(operation: Operation<'_>) -> Operation<'_> {
    with_body(operation)
        .id("submitJob")
        .summary("Submit a job")
        .description(
            "Exactly one of `templateId` and `inlineConfig`. With `?dryRun=true` nothing is stored, and the answer shows \
             where it would go. A known `idempotencyKey` is answered with its job; with the header \
             `Idempotency-Strict: true` a different request under it is refused. `jobId`, `requestedBy` and `strict` are \
             set by the server.",
        )
        .tag("jobs")
        .input::<Headers<SubmitHeaders>>()
        .response_with::<201, Json<Job>, _>(|response| {
            let response = response.description("the new job");
            with_header(response, "location", Presence::Always, "where the job is")
        })
        .response_with::<200, Json<Known>, _>(|response| {
            response.description("the job of a known key as it is now; with dryRun, where it would go")
        })
        .response::<409, Json<crate::error::ErrorBody>>()
        .response::<404, Json<crate::error::ErrorBody>>()
}

pub(crate) async fn get(
    State(jobs): State<JobsClient>,
    PathId(id): PathId<JobId>,
) -> Result<Json<Job>, HttpError> {
    Ok(Json(jobs.job(&id).await?))
}

pub(crate) fn get_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(guarded(operation))
        .id("getJob")
        .summary("Get a job")
        .tag("jobs")
        .response::<200, Json<Job>>()
}

pub(crate) async fn stop(
    State(jobs): State<JobsClient>,
    PathId(id): PathId<JobId>,
) -> Result<Response, HttpError> {
    accepted(jobs.stop(id).await?)
}

fn accepted(job: Job) -> Result<Response, HttpError> {
    Ok((StatusCode::ACCEPTED, Json(OkJob { ok: true, job })).into_response())
}

pub(crate) fn stop_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(guarded(operation))
        .id("stopJob")
        .summary("Stop a job")
        .description("A job that waits is canceled, one that runs is stopped, one that ended stays as it is.")
        .tag("jobs")
        .response::<202, Json<OkJob>>()
}

pub(crate) async fn mute(
    State(jobs): State<JobsClient>,
    PathId(id): PathId<JobId>,
) -> Result<Response, HttpError> {
    command(&jobs, id, "mute").await
}

pub(crate) async fn unmute(
    State(jobs): State<JobsClient>,
    PathId(id): PathId<JobId>,
) -> Result<Response, HttpError> {
    command(&jobs, id, "unmute").await
}

async fn command(jobs: &JobsClient, id: JobId, command: &str) -> Result<Response, HttpError> {
    let control = ControlJob {
        id,
        command: command.to_owned(),
        args: JsonObject::new(),
    };
    accepted(jobs.control(&control).await?.job)
}

pub(crate) fn mute_docs(operation: Operation<'_>) -> Operation<'_> {
    muting_docs(operation)
        .id("muteJob")
        .summary("Turn a job's sound off")
}

pub(crate) fn unmute_docs(operation: Operation<'_>) -> Operation<'_> {
    muting_docs(operation)
        .id("unmuteJob")
        .summary("Turn a job's sound on")
}

fn muting_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(guarded(operation))
        .description("`streamMetadata.isMuted` follows when the agent has done it. An agent that cannot do it: 422.")
        .tag("jobs")
        .response::<202, Json<OkJob>>()
        .response::<409, Json<crate::error::ErrorBody>>()
        .response::<422, Json<crate::error::ErrorBody>>()
}

/// A live command.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Control {
    /// Its name, for example `mute`; one of those that the agent published.
    pub(crate) command: String,
    /// Its arguments.
    #[serde(default)]
    pub(crate) args: JsonObject,
}

/// Done, with what the program answered.
#[derive(Serialize, JsonSchema)]
struct OkControl {
    /// Always true.
    ok: bool,
    /// The job as it is now.
    job: Job,
    /// What the agent answered; null when it has not answered yet.
    answer: Option<JsonObject>,
}

pub(crate) async fn control(
    State(jobs): State<JobsClient>,
    PathId(id): PathId<JobId>,
    JsonBody(Control { command, args }, _): JsonBody<Control>,
) -> Result<Response, HttpError> {
    let reply = jobs.control(&ControlJob { id, command, args }).await?;
    let body = OkControl {
        ok: true,
        job: reply.job,
        answer: reply.answer,
    };
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}

pub(crate) fn control_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(with_body(operation))
        .id("controlJob")
        .summary("Send a live command to a running job")
        .description("Answered by the agent. An unknown command is answered 422 with the ones the agent published.")
        .tag("jobs")
        .response::<202, Json<OkControl>>()
        .response::<409, Json<crate::error::ErrorBody>>()
}

pub(crate) async fn metadata(
    State(jobs): State<JobsClient>,
    PathId(id): PathId<JobId>,
) -> Result<Json<MetadataReply>, HttpError> {
    let metadata = jobs.job(&id).await?.stream_metadata.unwrap_or_default();
    Ok(Json(MetadataReply { metadata }))
}

pub(crate) fn metadata_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(guarded(operation))
        .id("getJobMetadata")
        .summary("Get a job's stream metadata")
        .tag("jobs")
        .response::<200, Json<MetadataReply>>()
}

/// The fields to merge.
#[derive(Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Patch(#[schemars(with = "StreamMetadata")] JsonObject);

/// Done, and the metadata as it is now.
#[derive(Serialize, JsonSchema)]
pub(crate) struct OkMetadata {
    /// Always true.
    ok: bool,
    /// All fields.
    metadata: JsonObject,
}

pub(crate) async fn put_metadata(
    State(jobs): State<JobsClient>,
    PathId(id): PathId<JobId>,
    JsonBody(Patch(metadata), _): JsonBody<Patch>,
) -> Result<Json<OkMetadata>, HttpError> {
    let patch = patch(id, metadata)?;
    let reply = jobs.patch_metadata(&patch).await?;
    Ok(Json(OkMetadata {
        ok: true,
        metadata: reply.metadata,
    }))
}

/// The fields of a body, checked.
pub(crate) fn patch(id: JobId, metadata: JsonObject) -> Result<PatchMetadata, HttpError> {
    metadata::check(&metadata)
        .map_err(|error| HttpError::invalid(&error.field, error.to_string()))?;
    Ok(PatchMetadata { id, metadata })
}

pub(crate) fn put_metadata_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(with_body(operation))
        .id("mergeJobMetadata")
        .summary("Merge fields into a job's stream metadata")
        .description("A shallow merge: unknown fields are kept, null removes a field, known fields are type-checked.")
        .tag("jobs")
        .response::<200, Json<OkMetadata>>()
}

pub(crate) async fn explain(
    State(jobs): State<JobsClient>,
    PathId(id): PathId<JobId>,
) -> Result<Json<Explanation>, HttpError> {
    Ok(Json(jobs.explain(id).await?))
}

pub(crate) fn explain_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(guarded(operation))
        .id("explainJob")
        .summary("Explain the status of a job")
        .tag("jobs")
        .response::<200, Json<Explanation>>()
}
