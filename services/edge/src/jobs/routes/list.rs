//! The list of jobs, over all pools in order of creation: a page when a limit is given, else everything, streamed.

use std::collections::VecDeque;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use quintet_contract::api::{JobCursor, ListJobs, MAX_PAGE};
use quintet_contract::id::{AgentId, PoolName};
use quintet_contract::job::{Job, JobStatus};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{ErrorBody, HttpError};
use crate::http::docs::{Operation, guarded};
use crate::http::docs::{Presence, with_header};
use crate::http::extract::Params;
use crate::jobs::client::JobsClient;

pub(crate) const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");
/// Jobs that are written at once when everything is streamed.
const WRITE_JOBS: usize = 256;

/// Documents the parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "describes the query")]
struct Filter {
    /// Only jobs with this status.
    status: Option<JobStatus>,
    /// Only jobs of this agent.
    agent_id: Option<AgentId>,
    /// At most so many; where to go on is in `x-next-cursor` and `Link`.
    #[schemars(range(min = 1, max = MAX_PAGE))]
    limit: Option<u32>,
    /// Where to go on: the `x-next-cursor` of an earlier answer, whose form means nothing to clients.
    #[schemars(extend("format" = "cursor"))]
    cursor: Option<String>,
}

pub(crate) async fn list(
    State(jobs): State<JobsClient>,
    params: Params,
) -> Result<Response, HttpError> {
    let statuses = JobStatus::ALL.map(JobStatus::as_str).join(", ");
    let filter = ListJobs {
        status: params.parse("status", &format!("one of {statuses}"))?,
        agent_id: params.parse::<AgentId>("agentId", "an agent id")?,
        limit: None,
        after: params.parse("cursor", "the x-next-cursor of an earlier answer")?,
        ..ListJobs::default()
    };
    let limit = params.parse::<u32>("limit", &format!("a number from 1 to {MAX_PAGE}"))?;
    if limit.is_some_and(|limit| limit == 0 || limit > MAX_PAGE) {
        return Err(HttpError::invalid(
            "limit",
            format!("limit must be a number from 1 to {MAX_PAGE}"),
        ));
    }
    let merged = Merged::new(jobs, filter);
    match limit {
        Some(limit) => page(merged, limit as usize, &params).await,
        None => everything(merged).await,
    }
}

async fn page(mut merged: Merged, limit: usize, params: &Params) -> Result<Response, HttpError> {
    merged.page = Some(u32::try_from(limit + 1).unwrap_or(MAX_PAGE).min(MAX_PAGE));
    let mut jobs = Vec::new();
    while jobs.len() < limit
        && let Some(job) = merged.next().await?
    {
        jobs.push(job);
    }
    let more = merged.next().await?.is_some();
    let next = jobs.last().filter(|_| more).map(|job| {
        JobCursor {
            created_at: job.created_at,
            id: job.id.clone(),
        }
        .to_string()
    });
    let mut response = Json(jobs).into_response();
    if let Some(next) = next {
        let mut link = format!("/v1/jobs?limit={limit}&cursor={next}");
        for name in ["status", "agentId"] {
            if let Some(value) = params.text(name) {
                link.push_str(&format!("&{name}={}", percent(value)));
            }
        }
        let headers = response.headers_mut();
        headers.insert(NEXT_CURSOR, value(&next));
        headers.insert(header::LINK, value(&format!("<{link}>; rel=\"next\"")));
    }
    Ok(response)
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Everything but letters, digits and `-._~`, as RFC 3986 writes it.
fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// All jobs as one array, of which only a part is in memory at any time.
async fn everything(mut merged: Merged) -> Result<Response, HttpError> {
    // The first job is fetched before the answer begins, so that a failure still has a status.
    let first = merged.next().await?;
    let body = stream::unfold(
        Writing::Begin(first, Box::new(merged)),
        |state| async move {
            match state {
                Writing::Begin(None, _) => Some((Ok(Bytes::from_static(b"[]")), Writing::Done)),
                Writing::Begin(Some(first), merged) => write(first, b'[', merged).await,
                Writing::Next(next, merged) => write(next, b',', merged).await,
                Writing::Done => None,
            }
        },
    );
    let kind = (
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(([kind], Body::from_stream(body)).into_response())
}

enum Writing {
    Begin(Option<Job>, Box<Merged>),
    Next(Job, Box<Merged>),
    Done,
}

type Written = Option<(Result<Bytes, std::io::Error>, Writing)>;

async fn write(first: Job, mut before: u8, mut merged: Box<Merged>) -> Written {
    let mut out = Vec::new();
    let mut next = Some(first);
    for _ in 0..WRITE_JOBS {
        let Some(job) = next.take() else { break };
        out.push(before);
        before = b',';
        if let Err(error) = serde_json::to_writer(&mut out, &job) {
            return Some((Err(error.into()), Writing::Done));
        }
        next = match merged.next().await {
            Ok(next) => next,
            // The answer has begun: it is cut off, which no client takes for a whole one.
            Err(error) => {
                return Some((Err(std::io::Error::other(error.reply.error)), Writing::Done));
            }
        };
    }
    Some(match next {
        Some(job) => (Ok(out.into()), Writing::Next(job, merged)),
        None => {
            out.push(b']');
            (Ok(out.into()), Writing::Done)
        }
    })
}

/// The jobs of all pools as one list.
struct Merged {
    client: JobsClient,
    filter: ListJobs,
    /// How many to ask for at once.
    page: Option<u32>,
    pools: Vec<Pool>,
}

struct Pool {
    name: PoolName,
    jobs: VecDeque<Job>,
    after: Option<JobCursor>,
    is_done: bool,
}

impl Merged {
    fn new(client: JobsClient, filter: ListJobs) -> Self {
        let pools = client.pools.all().into_iter().map(|name| Pool {
            name,
            jobs: VecDeque::new(),
            after: filter.after.clone(),
            is_done: false,
        });
        let pools = pools.collect();
        Self {
            client,
            filter,
            page: None,
            pools,
        }
    }

    async fn next(&mut self) -> Result<Option<Job>, HttpError> {
        for pool in &mut self.pools {
            while pool.jobs.is_empty() && !pool.is_done {
                let list = ListJobs {
                    after: pool.after.take(),
                    limit: self.page,
                    ..self.filter.clone()
                };
                let page = self.client.list_jobs(pool.name.clone(), &list).await?;
                pool.jobs = page.jobs.into();
                pool.is_done = page.next.is_none();
                pool.after = page.next;
            }
        }
        let waiting = self.pools.iter_mut().filter(|pool| !pool.jobs.is_empty());
        let oldest = waiting.min_by_key(|pool| {
            pool.jobs
                .front()
                .map(|job| (job.created_at, job.id.clone()))
        });
        Ok(oldest.and_then(|pool| pool.jobs.pop_front()))
    }
}

pub(crate) fn docs(operation: Operation<'_>) -> Operation<'_> {
    guarded(operation)
        .id("listJobs")
        .summary("List jobs, oldest first")
        .description("Without a limit all of them.")
        .tag("jobs")
        .input::<axum::extract::Query<Filter>>()
        .response_with::<200, Json<Vec<Job>>, _>(|response| {
            let response = response
                .description("the jobs; with a limit and more to come, also where to go on");
            let response = with_header(
                response,
                NEXT_CURSOR.as_str(),
                Presence::Sometimes,
                "the `cursor` of the next page",
            );
            with_header(
                response,
                "link",
                Presence::Sometimes,
                "the next page, with `rel=\"next\"`",
            )
        })
        .response::<422, Json<ErrorBody>>()
}
