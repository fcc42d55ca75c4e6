//! The REST interface of jobs.

pub(crate) mod batch;
pub(crate) mod job;
pub(crate) mod list;
