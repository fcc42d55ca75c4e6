//! Trace propagation through hooks, since only the service crate names OpenTelemetry.
//!
//! Without hooks no trace header is written or read.

use std::sync::OnceLock;

use tracing::Span;

/// Header that carries the trace context.
pub(crate) const HEADER_TRACEPARENT: &str = "traceparent";

/// Looks a header up by name.
pub type HeaderLookup<'h> = &'h dyn Fn(&str) -> Option<String>;

/// How trace context gets into and out of message headers.
#[derive(Clone, Copy, Debug)]
pub struct TraceHooks {
    /// Headers that describe the current span.
    pub inject: fn() -> Vec<(String, String)>,
    /// Makes a span a child of what the headers, looked up by name, describe.
    pub extract: fn(&Span, HeaderLookup<'_>),
}

static HOOKS: OnceLock<TraceHooks> = OnceLock::new();

/// Installs the hooks; the first call of a process counts.
pub fn set_trace_hooks(hooks: TraceHooks) {
    // A second installation would be the same hooks again, as when several services share one process.
    let _ = HOOKS.set(hooks);
}

pub(crate) fn hooks() -> Option<&'static TraceHooks> {
    HOOKS.get()
}

/// The current span's `traceparent`, for records that outlive a process.
pub fn current_traceparent() -> Option<String> {
    let headers = (hooks()?.inject)();
    headers
        .into_iter()
        .find_map(|(name, value)| (name == HEADER_TRACEPARENT).then_some(value))
}

/// Makes `span` a child of the span that `traceparent` names.
pub(crate) fn adopt(span: &Span, traceparent: Option<&str>) {
    if let (Some(hooks), Some(parent)) = (hooks(), traceparent) {
        (hooks.extract)(span, &|name| {
            (name == HEADER_TRACEPARENT).then(|| parent.to_owned())
        });
    }
}
