//! Agents: list, get, drain, forget.

use aide::axum::ApiRouter;
use aide::axum::routing::{get_with, post_with};
use axum::Json;
use axum::extract::State;
use quintet_contract::agent::Agent;
use quintet_contract::api::{Done, DrainAgent};
use quintet_contract::id::AgentId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorBody, HttpError};
use crate::http::docs::{Operation, guarded, of_one, with_body};
use crate::http::extract::{Body, Id};
use crate::state::App;

pub(crate) fn routes() -> ApiRouter<App> {
    ApiRouter::new()
        .api_route("/v1/agents", get_with(list, list_docs))
        .api_route(
            "/v1/agents/{id}",
            get_with(get, get_docs).delete_with(forget, forget_docs),
        )
        .api_route("/v1/agents/{id}/drain", post_with(drain, drain_docs))
}

async fn list(State(app): State<App>) -> Result<Json<Vec<Agent>>, HttpError> {
    Ok(Json(app.agents().await?))
}

fn list_docs(operation: Operation<'_>) -> Operation<'_> {
    guarded(operation)
        .summary("List agents in order of registration")
        .description("Offline ones stay listed until they are forgotten.")
        .tag("agents")
        .response::<200, Json<Vec<Agent>>>()
}

async fn get(State(app): State<App>, Id(id): Id<AgentId>) -> Result<Json<Agent>, HttpError> {
    Ok(Json(app.agent(id).await?.agent))
}

fn get_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(guarded(operation))
        .summary("Get an agent")
        .tag("agents")
        .response::<200, Json<Agent>>()
}

async fn forget(State(app): State<App>, Id(id): Id<AgentId>) -> Result<Json<Done>, HttpError> {
    Ok(Json(app.forget(id).await?))
}

fn forget_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(guarded(operation))
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
struct OkAgent {
    /// Always true.
    ok: bool,
    /// The agent as it is now.
    agent: Agent,
}

async fn drain(
    State(app): State<App>,
    Id(id): Id<AgentId>,
    Body(Drain { drain }): Body<Drain>,
) -> Result<Json<OkAgent>, HttpError> {
    let reply = app.drain(&DrainAgent { id, drain }).await?;
    Ok(Json(OkAgent {
        ok: true,
        agent: reply.agent,
    }))
}

fn drain_docs(operation: Operation<'_>) -> Operation<'_> {
    of_one(with_body(operation))
        .summary("Give an agent no more jobs, or jobs again")
        .description("The flag is the operator's: it survives reconnects of the agent and restarts of every service.")
        .tag("agents")
        .response::<200, Json<OkAgent>>()
}
