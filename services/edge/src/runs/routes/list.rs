//! The list of runs, over all shards, newest first.

use std::cmp::Reverse;

use axum::Json;
use axum::extract::State;
use quintet_contract::id::RunId;
use quintet_contract::run::{Run, RunStatus};
use quintet_contract::run_api::{ListRuns, MAX_RUNS_PAGE};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorBody, HttpError};
use crate::http::docs::{Operation, guarded};
use crate::http::query::{Query, QueryParams};
use crate::runs::client::RunsClient;

/// Runs of a page by default.
const PAGE: u32 = 50;

/// Which runs are listed.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Filter {
    /// At most so many; 50 when absent.
    #[schemars(range(min = 1, max = MAX_RUNS_PAGE))]
    limit: Option<u32>,
    /// Where to continue: the `nextCursor` of an earlier answer, opaque to clients.
    #[schemars(with = "Option<String>", extend("format" = "run-cursor"))]
    cursor: Option<RunId>,
    /// Only runs of this status.
    status: Option<RunStatus>,
    /// Only runs of this owner.
    owner: Option<String>,
}

/// A page of runs.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page {
    /// Newest first, without their plans and without the outputs of their nodes.
    runs: Vec<Run>,
    /// The `cursor` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<RunId>,
}

impl QueryParams for Filter {
    fn expected(name: &str) -> String {
        match name {
            "limit" => format!("a number from 1 to {MAX_RUNS_PAGE}"),
            "cursor" => "the nextCursor of an earlier answer".to_owned(),
            "status" => format!(
                "one of {}",
                RunStatus::ALL.map(RunStatus::as_str).join(", ")
            ),
            _ => "a text".to_owned(),
        }
    }

    fn out_of_bounds(&self) -> Option<&'static str> {
        let is_wrong = self
            .limit
            .is_some_and(|limit| limit == 0 || limit > MAX_RUNS_PAGE);
        is_wrong.then_some("limit")
    }
}

pub(crate) async fn list(
    State(runs): State<RunsClient>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page>, HttpError> {
    let limit = filter.limit.unwrap_or(PAGE);
    let list = ListRuns {
        // One more shows whether there is a next page.
        limit: Some(limit + 1),
        before: filter.cursor,
        status: filter.status,
        owner: filter.owner,
    };
    let pages = runs.list_runs(&list).await?;
    Ok(Json(merged(pages, limit as usize)))
}

/// The newest runs of all shards. Ids are made in order of creation, so their order is that of the runs.
fn merged(pages: Vec<Vec<Run>>, limit: usize) -> Page {
    let mut runs: Vec<Run> = pages.into_iter().flatten().collect();
    runs.sort_unstable_by_key(|run| Reverse(run.id));
    let is_more = runs.len() > limit;
    runs.truncate(limit);
    let next_cursor = runs.last().filter(|_| is_more).map(|run| run.id);
    Page { runs, next_cursor }
}

pub(crate) fn docs(operation: Operation<'_>) -> Operation<'_> {
    guarded(operation)
        .id("listRuns")
        .summary("List runs, newest first")
        .tag("runs")
        .response::<200, Json<Page>>()
        .response::<422, Json<ErrorBody>>()
}

#[cfg(test)]
mod tests {
    use quintet_bus::new_run_id;
    use serde_json::json;

    use super::*;

    fn runs(count: usize) -> Vec<Run> {
        let run = |_| {
            let run = json!({"id": new_run_id(), "status": "pending", "createdAt": "2026-01-01T00:00:00.000Z"});
            serde_json::from_value(run).unwrap()
        };
        (0..count).map(run).collect()
    }

    /// Pages as shards answer them.
    fn shards(all: &[Run], limit: usize, before: Option<RunId>) -> Vec<Vec<Run>> {
        let page = |shard: usize| {
            let mine = all.iter().skip(shard).step_by(3).rev();
            let older = mine.filter(|run| before.is_none_or(|before| run.id < before));
            older.take(limit + 1).cloned().collect()
        };
        (0..3).map(page).collect()
    }

    #[test]
    fn page_after_page_every_run_is_listed_once_newest_first() {
        for (count, limit) in [(0, 5), (7, 3), (6, 3), (9, 50), (300, 100), (301, 100)] {
            let all = runs(count);
            let (mut listed, mut cursor) = (Vec::new(), None);
            loop {
                let page = merged(shards(&all, limit, cursor), limit);
                assert!(page.runs.len() <= limit);
                listed.extend(page.runs);
                cursor = page.next_cursor;
                if cursor.is_none() {
                    break;
                }
            }
            let expected: Vec<Run> = all.into_iter().rev().collect();
            assert_eq!(listed, expected, "{count} by {limit}");
        }
    }
}
