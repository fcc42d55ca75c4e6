//! Limits of requests: [`local`] per second of one edge, [`shared`] in a window over all edges.

pub(crate) mod local;
pub(crate) mod shared;
