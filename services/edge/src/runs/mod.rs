//! Runs, under `/runs` and the same under `/v1/runs`.
//!
//! The two differ in one thing: without `?mode=` the former only plans, the latter creates a run.
//! Bodies of the wrong shape are answered 400, but for a new run 422.

mod client;
pub(crate) mod events;
pub(crate) mod payloads;
pub(crate) mod routes;

use axum::http::header;
use quintet_contract::id::{NodeId, RunId};
use schemars::JsonSchema;
use serde::Deserialize;

use self::client::{no_gate, run_not_found};
use self::routes::{checkpoints, create, list, one};
use crate::access::policy::Access;
use crate::error::HttpError;
use crate::http::extract::PathParam;
use crate::http::route::{ErrorStyle, Kind, Limit, Routes};
use crate::state::App;

/// Where the routes of runs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mount {
    /// `/runs`.
    Root,
    /// `/v1/runs`, another name of the same.
    Versioned,
}

impl Mount {
    const fn path(self) -> &'static str {
        match self {
            Self::Root => "/runs",
            Self::Versioned => "/v1/runs",
        }
    }

    /// Where a run is.
    fn location(self, id: RunId) -> String {
        format!("{}/{id}", self.path())
    }
}

/// Every route of runs.
pub(crate) fn kind() -> Kind<App> {
    let [root, versioned] = [Mount::Root, Mount::Versioned].map(Mount::path);
    let routes = mounted(Mount::Root).merge(mounted(Mount::Versioned).alias(versioned, root));
    Kind::new("runs", routes)
}

fn mounted(mount: Mount) -> Routes<App> {
    let at = |rest: &str| format!("{}{rest}", mount.path());
    Routes::new()
        .limited(Limit::Shared)
        .errors(ErrorStyle::Word)
        .get(at(""), Access::Read, list::list, list::docs)
        .post(at(""), Access::Write, create::create, create::create_docs)
        .exposes(&[header::LOCATION])
        .get(at("/{id}"), Access::Read, one::get, one::get_docs)
        .delete(at("/{id}"), Access::Write, one::cancel, one::cancel_docs)
        .post(
            at("/{id}/retry"),
            Access::Write,
            create::retry,
            create::retry_docs,
        )
        .exposes(&[header::LOCATION])
        .post(
            at("/{id}/complete"),
            Access::Write,
            one::complete,
            one::complete_docs,
        )
        .post(
            at("/{id}/nodes/{node}/approve"),
            Access::Write,
            one::approve,
            one::approve_docs,
        )
        .post(
            at("/{id}/nodes/{node}/reject"),
            Access::Write,
            one::reject,
            one::reject_docs,
        )
        .get(
            at("/{id}/checkpoints"),
            Access::Read,
            checkpoints::list,
            checkpoints::list_docs,
        )
        .post(
            at("/{id}/checkpoints"),
            Access::Write,
            checkpoints::add,
            checkpoints::add_docs,
        )
        .sse(
            at("/{id}/events"),
            Access::Read.or_ticket(),
            events::events,
            events::docs,
        )
        .with(mount)
}

/// Documents the `{id}` of a path.
#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "describes the path")]
pub(crate) struct RunPath {
    /// The id of the run.
    id: RunId,
}

/// Documents the `{node}` of a path.
#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "describes the path")]
pub(crate) struct NodePath {
    /// The id of the node.
    node: NodeId,
}

impl PathParam for RunId {
    const NAME: &'static str = "id";
    type Docs = RunPath;

    fn unknown(_: &str) -> HttpError {
        run_not_found()
    }
}

impl PathParam for NodeId {
    const NAME: &'static str = "node";
    type Docs = NodePath;

    fn unknown(text: &str) -> HttpError {
        no_gate(text)
    }
}
