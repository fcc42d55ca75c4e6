//! Runs, under `/runs` and the same under `/v1/runs`.
//!
//! The two differ in one thing: without `?mode=` the former only says what a plan would do, the latter makes a run.
//! Bodies of the wrong shape are answered 400, but for a new run 422.

mod client;
pub(crate) mod events;
pub(crate) mod payloads;
pub(crate) mod routes;

use aide::OperationInput;
use aide::axum::ApiRouter;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use quintet_contract::id::RunId;

pub(crate) use self::routes::read::RunOf;
use self::routes::{checkpoints, create, list, one};
use crate::error::HttpError;
use crate::state::App;

/// Where the routes of runs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mount {
    /// `/runs`.
    Root,
    /// `/v1/runs`.
    Versioned,
}

impl Mount {
    pub(crate) const ALL: [Self; 2] = [Self::Root, Self::Versioned];

    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Root => "/runs",
            Self::Versioned => "/v1/runs",
        }
    }

    /// Under which of the two a path is; none for one that is not of runs.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let is_under = |mount: &Self| {
            let rest = path.strip_prefix(mount.path());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        Self::ALL.into_iter().find(is_under)
    }

    /// Where a run is.
    fn location(self, id: RunId) -> String {
        format!("{}/{id}", self.path())
    }
}

impl FromRequestParts<App> for Mount {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, HttpError> {
        Self::of(parts.uri.path()).ok_or_else(HttpError::not_found)
    }
}

impl OperationInput for Mount {}

pub(crate) fn routes() -> ApiRouter<App> {
    Mount::ALL
        .into_iter()
        .fold(ApiRouter::new(), |router, mount| {
            let path = mount.path();
            router
                .merge(create::routes(path))
                .merge(list::routes(path))
                .merge(one::routes(path))
                .merge(checkpoints::routes(path))
        })
        .merge(events::routes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_of_runs_or_not() {
        for (path, mount) in [
            ("/runs", Some(Mount::Root)),
            ("/runs/x/events", Some(Mount::Root)),
            ("/v1/runs", Some(Mount::Versioned)),
            ("/v1/runs/x", Some(Mount::Versioned)),
            ("/runsx", None),
            ("/v1/jobs", None),
            ("/v1/runsx/y", None),
        ] {
            assert_eq!(Mount::of(path), mount, "{path}");
        }
    }
}
