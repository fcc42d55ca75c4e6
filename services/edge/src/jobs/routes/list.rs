//! The list of jobs, over all pools in order of creation: a page when a limit is given, else everything, streamed.

use std::collections::VecDeque;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use quintet_contract::api::{JobCursor, ListJobs, MAX_PAGE};
use quintet_contract::id::{AgentId, PoolName};
use quintet_contract::job::{Job, JobStatus};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{ErrorBody, HttpError};
use crate::http::docs::{Operation, guarded};
use crate::http::docs::{Presence, with_header};
use crate::http::json_array::json_array;
use crate::http::query::{Parsed, Query, QueryParams};
use crate::jobs::client::JobsClient;

pub(crate) const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");
/// Everything but letters, digits and `-._~`, as RFC 3986 writes it.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Which jobs are listed.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Filter {
    /// Only jobs with this status.
    status: Option<JobStatus>,
    /// Only jobs of this agent.
    agent_id: Option<AgentId>,
    /// At most so many; the cursor of the next page is in `x-next-cursor` and `Link`.
    #[schemars(range(min = 1, max = MAX_PAGE))]
    limit: Option<u32>,
    /// Where to continue: the `x-next-cursor` of an earlier answer, opaque to clients.
    #[schemars(with = "Option<String>", extend("format" = "cursor"))]
    cursor: Option<Parsed<JobCursor>>,
}

impl QueryParams for Filter {
    fn expected(name: &str) -> String {
        match name {
            "status" => format!(
                "one of {}",
                JobStatus::ALL.map(JobStatus::as_str).join(", ")
            ),
            "agentId" => "an agent id".to_owned(),
            "limit" => format!("a number from 1 to {MAX_PAGE}"),
            _ => "the x-next-cursor of an earlier answer".to_owned(),
        }
    }

    fn out_of_bounds(&self) -> Option<&'static str> {
        let is_wrong = self
            .limit
            .is_some_and(|limit| limit == 0 || limit > MAX_PAGE);
        is_wrong.then_some("limit")
    }
}

pub(crate) async fn list(
    State(jobs): State<JobsClient>,
    Query(filter): Query<Filter>,
) -> Result<Response, HttpError> {
    let list = ListJobs {
        status: filter.status,
        agent_id: filter.agent_id.clone(),
        limit: None,
        after: filter.cursor.clone().map(|Parsed(cursor)| cursor),
        ..ListJobs::default()
    };
    let merged = Merged::new(jobs, list);
    match filter.limit {
        Some(limit) => page(merged, limit as usize, &filter).await,
        None => everything(merged).await,
    }
}

async fn page(mut merged: Merged, limit: usize, filter: &Filter) -> Result<Response, HttpError> {
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
        let fields = [
            ("status", filter.status.map(JobStatus::as_str)),
            ("agentId", filter.agent_id.as_ref().map(AgentId::as_str)),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                link.push_str(&format!(
                    "&{name}={}",
                    utf8_percent_encode(value, UNRESERVED)
                ));
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

/// All jobs as one array.
async fn everything(merged: Merged) -> Result<Response, HttpError> {
    let jobs = stream::try_unfold(merged, |mut merged| async move {
        let job = merged.next().await?;
        Ok(job.map(|job| (job, merged)))
    });
    json_array("[", jobs, "]").await
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
        .response_with::<200, Json<Vec<Job>>, _>(|response| {
            let response = response.description(
                "the jobs; with a limit and more to come, also the cursor of the next page",
            );
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
