//! Paths of jobs.

use crate::client::http::path_of;

pub(super) fn path(id: &str) -> String {
    format!("/v1/jobs/{}", path_of(id))
}
