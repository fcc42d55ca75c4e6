//! Jobs: REST, event streams and sockets for jobs, their agents and their templates.

pub(crate) mod agent_socket;
pub(crate) mod agents;
mod client;
mod events;
mod feeds;
mod hub;
mod log_feed;
mod logs;
mod pools;
pub(crate) mod routes;
mod snapshot;
pub(crate) mod templates;
mod ui_socket;
mod view;

use axum::http::header;
use quintet_contract::id::{AgentId, JobId, TemplateId};

use self::pools::Pools;
use self::routes::{batch, job, list};
use crate::access::policy::Access;
use crate::http::extract::path_ids;
use crate::http::route::{Kind, Routes};
use crate::state::App;

/// Every route of jobs, agents and templates.
pub(crate) fn kind() -> Kind<App> {
    let routes = Routes::new()
        .get("/v1/jobs", Access::Read, list::list, list::docs)
        .exposes(&[header::LINK, list::NEXT_CURSOR])
        .post("/v1/jobs", Access::Write, job::submit, job::submit_docs)
        .exposes(&[header::LOCATION])
        .post("/v1/jobs/batch", Access::Write, batch::submit, batch::docs)
        .get("/v1/jobs/{id}", Access::Read, job::get, job::get_docs)
        .post(
            "/v1/jobs/{id}/stop",
            Access::Write,
            job::stop,
            job::stop_docs,
        )
        .post(
            "/v1/jobs/{id}/mute",
            Access::Write,
            job::mute,
            job::mute_docs,
        )
        .post(
            "/v1/jobs/{id}/unmute",
            Access::Write,
            job::unmute,
            job::unmute_docs,
        )
        .post(
            "/v1/jobs/{id}/control",
            Access::Write,
            job::control,
            job::control_docs,
        )
        .get(
            "/v1/jobs/{id}/metadata",
            Access::Read,
            job::metadata,
            job::metadata_docs,
        )
        .put(
            "/v1/jobs/{id}/metadata",
            Access::Write,
            job::put_metadata,
            job::put_metadata_docs,
        )
        .get(
            "/v1/jobs/{id}/explain",
            Access::Read,
            job::explain,
            job::explain_docs,
        )
        .sse(
            "/v1/jobs/{id}/events",
            Access::Read.or_ticket(),
            events::events,
            events::docs,
        )
        .sse(
            "/v1/jobs/{id}/logs",
            Access::Read.or_ticket(),
            logs::logs,
            logs::docs,
        )
        .get("/v1/agents", Access::Read, agents::list, agents::list_docs)
        .get(
            "/v1/agents/{id}",
            Access::Read,
            agents::get,
            agents::get_docs,
        )
        .delete(
            "/v1/agents/{id}",
            Access::Write,
            agents::forget,
            agents::forget_docs,
        )
        .post(
            "/v1/agents/{id}/drain",
            Access::Write,
            agents::drain,
            agents::drain_docs,
        )
        .get(
            "/v1/templates",
            Access::Read,
            templates::list,
            templates::list_docs,
        )
        .get(
            "/v1/templates/{id}",
            Access::Read,
            templates::get,
            templates::get_docs,
        )
        .put(
            "/v1/templates/{id}",
            Access::Write,
            templates::put,
            templates::put_docs,
        )
        .delete(
            "/v1/templates/{id}",
            Access::Write,
            templates::delete,
            templates::delete_docs,
        )
        .socket("/ui", Access::Read.or_ticket(), ui_socket::connect)
        // An agent is authenticated by its hello.
        .socket("/agent", Access::Public, agent_socket::connect);
    Kind::new("jobs", routes).starting(|app: &App| drop(app.live.part::<Pools>()))
}

path_ids! {
    JobId JobPath;
    AgentId AgentPath;
    TemplateId TemplatePath;
}
