//! Agents: list, get, drain, forget.

use axum::Json;
use axum::extract::State;
use quintet_contract::agent::Agent;
use quintet_contract::api::{Done, DrainAgent};
use quintet_contract::id::AgentId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorBody, HttpError};
use crate::http::docs::{Operation, guarded, of_one, with_body};
use crate::http::extract::{JsonBody, PathId};
use crate::jobs::client::JobsClient;

pub(crate) async fn list(State(jobs): State<JobsClient>) -> Result<Json<Vec<Agent>>, HttpError> {
    Ok(Json(jobs.agents().await?))
}

pub(crate) fn list_docs(operation: Operation<'_>) -> Operation<'_> {
    guarded(operation)
        .id("listAgents")
        .summary("List agents in order of registration")
        .description("Offline ones stay listed until they are forgotten.")
        .tag("agents")
        .response::<200, Json<Vec<Agent>>>()
}

pub(crate) async fn get(
    State(jobs): State<JobsClient>,
    PathId(id): PathId<AgentId>,
) -> Result<Json<Agent>, HttpError> {
    Ok(Json(jobs.agent(id).await?.agent))
}

pub(crate) fn get_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(guarded(operation))
        .id("getAgent")
        .summary("Get an agent")
        .tag("agents")
        .response::<200, Json<Agent>>()
}

pub(crate) async fn forget(
    State(jobs): State<JobsClient>,
    PathId(id): PathId<AgentId>,
) -> Result<Json<Done>, HttpError> {
    Ok(Json(jobs.forget(id).await?))
}

pub(crate) fn forget_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(guarded(operation))
        .id("forgetAgent")
        .summary("Forget an offline agent")
        .tag("agents")
        .response::<200, Json<Done>>()
        .response::<409, Json<ErrorBody>>()
}

/// Whether an agent shall take no more jobs.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Drain {
    /// True: no more; false: as before.
    pub(crate) drain: bool,
}

/// Done, and the agent as it is now.
#[derive(Serialize, JsonSchema)]
pub(crate) struct OkAgent {
    /// Always true.
    ok: bool,
    /// The agent as it is now.
    agent: Agent,
}

pub(crate) async fn drain(
    State(jobs): State<JobsClient>,
    PathId(id): PathId<AgentId>,
    JsonBody(Drain { drain }, _): JsonBody<Drain>,
) -> Result<Json<OkAgent>, HttpError> {
    let reply = jobs.drain(&DrainAgent { id, drain }).await?;
    Ok(Json(OkAgent {
        ok: true,
        agent: reply.agent,
    }))
}

pub(crate) fn drain_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(with_body(operation))
        .id("drainAgent")
        .summary("Give an agent no more jobs, or jobs again")
        .description("The flag is the operator's: it survives reconnects of the agent and restarts of every service.")
        .tag("agents")
        .response::<200, Json<OkAgent>>()
}
