//! The REST interface of runs.

pub(crate) mod checkpoints;
pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod one;
