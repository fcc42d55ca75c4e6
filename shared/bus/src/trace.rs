//! Trace propagation: through hooks, since only the service crate names OpenTelemetry, and through the running task.
//!
//! A process without an exporter has no spans that know their trace. There the trace of the running task, if it was given
//! one by [`with_traceparent`], travels in the headers of what it sends, so that records name the trace nevertheless.

use std::sync::OnceLock;

use tracing::Span;
use uuid::Uuid;

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

tokio::task_local! {
    static TRACEPARENT: String;
}

/// Runs work whose messages belong to a trace, named by a W3C `traceparent`, where no span knows a better one. Tasks that
/// are spawned in it do not inherit it. Cancel-safe if the work is.
pub async fn with_traceparent<F: Future>(traceparent: Option<String>, work: F) -> F::Output {
    match traceparent {
        Some(traceparent) => TRACEPARENT.scope(traceparent, work).await,
        None => work.await,
    }
}

/// A `traceparent` of a trace that begins here and is not exported.
pub fn new_traceparent() -> String {
    let (trace, span) = (Uuid::now_v7().as_u128(), Uuid::now_v7().as_u64_pair().1);
    format!("00-{trace:032x}-{span:016x}-00")
}

/// The trace headers of a message that is sent now.
pub(crate) fn inject() -> Vec<(String, String)> {
    let of_span = hooks().map(|hooks| (hooks.inject)()).unwrap_or_default();
    if !of_span.is_empty() {
        return of_span;
    }
    let of_task = TRACEPARENT
        .try_with(|traceparent| vec![(HEADER_TRACEPARENT.to_owned(), traceparent.clone())]);
    of_task.unwrap_or_default()
}

/// Makes `span` a child of the span that `traceparent` names.
pub(crate) fn adopt(span: &Span, traceparent: Option<&str>) {
    if let (Some(hooks), Some(parent)) = (hooks(), traceparent) {
        (hooks.extract)(span, &|name| {
            (name == HEADER_TRACEPARENT).then(|| parent.to_owned())
        });
    }
}
