//! Many jobs in one request: an entry that is wrong harms no other.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use futures::future::join_all;
use quintet_contract::JsonObject;
use quintet_contract::api::{BatchEntry, MAX_BATCH, SubmitBatch, SubmitJob};
use quintet_contract::error::ErrorReply;
use quintet_contract::id::PoolName;
use quintet_contract::job::Job;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::job::{KEY, with_request_context};
use crate::access::identity::Caller;
use crate::error::HttpError;
use crate::http::docs::{Operation, with_body};
use crate::http::extract::{Headers, JsonArray, Unprocessable, read};
use crate::jobs::client::JobsClient;

/// Jobs per message on the bus: its answer, which holds every job, must fit a message too.
const CHUNK_JOBS: usize = 250;
/// Bytes per message on the bus, for the same reason.
const CHUNK_BYTES: usize = 256 * 1024;

/// Documents the body.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes the body")]
struct Batch(#[schemars(length(max = MAX_BATCH))] Vec<SubmitJob>);

/// Documents the headers.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "describes the headers")]
struct BatchHeaders {
    /// `true`: an entry under a known key that differs from the first one's is refused.
    idempotency_strict: Option<String>,
}

/// The outcome of one entry.
#[derive(Clone, Serialize, JsonSchema)]
pub(crate) struct Entry {
    /// The HTTP status that it would have got by itself.
    status: u16,
    /// The job.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<Job>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<JsonObject>,
}

/// Submissions of one pool with their places in the request.
#[derive(Default)]
struct Chunk {
    places: Vec<usize>,
    jobs: Vec<SubmitJob>,
    bytes: usize,
}

pub(crate) async fn submit(
    State(jobs): State<JobsClient>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    JsonArray(items): JsonArray,
) -> Result<(StatusCode, Json<Vec<Entry>>), HttpError> {
    if headers.contains_key(&KEY) {
        let text = "a batch names its keys in its entries, as idempotencyKey; send it without the header Idempotency-Key";
        return Err(HttpError::invalid("idempotencyKey", text));
    }
    if items.len() > MAX_BATCH {
        let text = format!(
            "a batch holds at most {MAX_BATCH} jobs, this one holds {}; split it",
            items.len()
        );
        return Err(HttpError::invalid("jobs", text));
    }
    let mut entries: Vec<Option<Entry>> = vec![None; items.len()];
    let mut chunks: Vec<(PoolName, Chunk)> = Vec::new();
    let mut open: BTreeMap<PoolName, Chunk> = BTreeMap::new();
    for (place, item) in items.into_iter().enumerate() {
        let bytes = item.to_string().len();
        let submit = match parse_entry(item, &caller, &headers) {
            Ok(submit) => submit,
            Err(error) => {
                entries[place] = Some(rejected(error.reply));
                continue;
            }
        };
        let pool = submit.pool.clone().unwrap_or_default();
        let chunk = open.entry(pool.clone()).or_default();
        if chunk.jobs.len() == CHUNK_JOBS
            || (!chunk.jobs.is_empty() && chunk.bytes + bytes > CHUNK_BYTES)
        {
            chunks.push((pool, std::mem::take(chunk)));
        }
        chunk.places.push(place);
        chunk.jobs.push(submit);
        chunk.bytes += bytes;
    }
    chunks.extend(open);
    let answers = join_all(
        chunks
            .into_iter()
            .map(|(pool, chunk)| send(&jobs, pool, chunk)),
    )
    .await;
    for (place, entry) in answers.into_iter().flatten() {
        entries[place] = Some(entry);
    }
    let lost = || {
        rejected(ErrorReply::unavailable(
            "this entry was not answered; send it again",
        ))
    };
    let entries = entries
        .into_iter()
        .map(|entry| entry.unwrap_or_else(lost))
        .collect();
    Ok((StatusCode::MULTI_STATUS, Json(entries)))
}

/// One entry of a batch, checked.
pub(crate) fn parse_entry(
    item: Value,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<SubmitJob, HttpError> {
    if !item.is_object() {
        let text = "every entry must be a JSON object";
        return Err(HttpError::new(
            quintet_contract::error::ErrorCode::ValidationFailed,
            text,
        ));
    }
    let submit = with_request_context(read::<_, Unprocessable>(item)?, caller, headers)?;
    submit.check()?;
    Ok(submit)
}

async fn send(client: &JobsClient, pool: PoolName, chunk: Chunk) -> Vec<(usize, Entry)> {
    let Chunk { places, jobs, .. } = chunk;
    if jobs.is_empty() {
        return Vec::new();
    }
    match client.submit_batch(pool, &SubmitBatch { jobs }).await {
        Ok(reply) => places
            .into_iter()
            .zip(reply.results.into_iter().map(entry))
            .collect(),
        Err(error) => places
            .into_iter()
            .map(|place| (place, rejected(error.reply.clone())))
            .collect(),
    }
}

fn entry(entry: BatchEntry) -> Entry {
    match entry {
        BatchEntry {
            accepted: Some(reply),
            ..
        } => {
            let status = if reply.created {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            };
            Entry {
                status: status.as_u16(),
                job: Some(reply.job),
                error: None,
            }
        }
        BatchEntry {
            refused: Some(error),
            ..
        } => rejected(error),
        BatchEntry { .. } => rejected(ErrorReply::unavailable(
            "this entry was not answered; send it again",
        )),
    }
}

fn rejected(reply: ErrorReply) -> Entry {
    let status = reply.code.http_status();
    let mut error = reply.details;
    error.insert("error".to_owned(), Value::String(reply.error));
    error.insert(
        "code".to_owned(),
        serde_json::to_value(reply.code).unwrap_or_default(),
    );
    Entry {
        status,
        job: None,
        error: Some(error),
    }
}

pub(crate) fn docs(operation: Operation<'_>) -> Operation<'_> {
    with_body(operation)
        .id("submitJobs")
        .summary("Submit up to 1000 jobs")
        .description("An array of what POST /v1/jobs takes. Answered entry by entry, in order.")
        .tag("jobs")
        .input::<(Json<Batch>, Headers<BatchHeaders>)>()
        .response::<207, Json<Vec<Entry>>>()
}
