//! Names of the edge's metrics and the few functions that write them. Labels come from closed sets.

use std::time::Duration;

use metrics::{counter, gauge, histogram};

/// Requests, by `method`, `route` as it is documented, and `status`.
pub const REQUESTS_TOTAL: &str = "http_requests_total";
/// Seconds from a request to its answer's head, by `method`, `route` as it is documented, and `status_code`.
pub const REQUEST_SECONDS: &str = "http_request_duration_seconds";
/// Open event streams and sockets, by `kind`: events, logs, runs, ui, agent, frames, frame_worker.
pub const STREAMS: &str = "edge_streams";
/// Invalid frames of agents that were ignored, by `kind`.
pub const IGNORED_FRAMES_TOTAL: &str = "edge_ignored_frames_total";
/// Sockets that did not read and were closed or given a fresh snapshot, by `kind`.
pub const SLOW_CLIENTS_TOTAL: &str = "edge_slow_clients_total";

/// Connections that were closed at once, because their address has too many.
pub const REFUSED_CONNECTIONS_TOTAL: &str = "edge_refused_connections_total";

pub(crate) fn request(method: &'static str, route: String, status: u16, took: Duration) {
    let status = status.to_string();
    counter!(REQUESTS_TOTAL, "method" => method, "route" => route.clone(), "status" => status.clone()).increment(1);
    histogram!(REQUEST_SECONDS, "method" => method, "route" => route, "status_code" => status)
        .record(took.as_secs_f64());
}

/// Counts a stream as open until it is dropped.
pub(crate) struct OpenStream(&'static str);

impl OpenStream {
    pub(crate) fn new(kind: &'static str) -> Self {
        gauge!(STREAMS, "kind" => kind).increment(1.0);
        Self(kind)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        gauge!(STREAMS, "kind" => self.0).decrement(1.0);
    }
}

pub(crate) fn ignored_frame(kind: &'static str) {
    counter!(IGNORED_FRAMES_TOTAL, "kind" => kind).increment(1);
}

pub(crate) fn refused_connection() {
    counter!(REFUSED_CONNECTIONS_TOTAL).increment(1);
}

pub(crate) fn slow_client(kind: &'static str) {
    counter!(SLOW_CLIENTS_TOTAL, "kind" => kind).increment(1);
}
