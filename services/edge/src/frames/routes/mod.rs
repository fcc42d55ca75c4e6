//! The REST interface of frames.

pub(crate) mod control;
pub(crate) mod image;
pub(crate) mod ingest;
pub(crate) mod status;
