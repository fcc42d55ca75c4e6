//! The limit of open files of this process. A connection is one, and what a shell or a service manager gives by default
//! is far below what an edge can serve.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Enough for every connection that an edge takes; not more, since programs that we start inherit it and some of them
/// look at every number up to it.
const WANTED: u64 = 65_536;

/// Raises the limit as far as we are allowed to, once at the start.
pub fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    let possible = limit.maximum.unwrap_or(WANTED).min(WANTED);
    let Some(current) = limit.current.filter(|current| *current < possible) else {
        return;
    };
    limit.current = Some(possible);
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => debug!(from = current, to = possible, "may open more files"),
        Err(error) => warn!(%error, current, "may not open more files"),
    }
}
