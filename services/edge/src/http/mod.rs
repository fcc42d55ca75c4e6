//! HTTP as the edge speaks it, nothing of a kind of work. What every request passes through, from the outside in:
//!
//! 1. It gets an id ([`request_id`], with layers of tower-http), and [`error_body`] writes the body of every error.
//! 2. A panic becomes a 500 (a layer of tower-http).
//! 3. [`access_log`] traces, measures and logs it.
//! 4. Hosts and origins of strangers are refused ([`screen`]).
//! 5. CORS headers for pages of other origins ([`cors`]).
//! 6. [`authorize`] authenticates the caller, checks its permissions and its rate limit.

pub(crate) mod access_log;
pub(crate) mod authorize;
pub(crate) mod cors;
pub(crate) mod docs;
pub(crate) mod error_body;
pub(crate) mod extract;
pub(crate) mod json_array;
pub(crate) mod page;
pub(crate) mod query;
pub(crate) mod request_id;
pub(crate) mod route;
pub(crate) mod screen;
pub(crate) mod sse;
pub(crate) mod websocket;
