//! Trace context across process borders, as W3C headers.
//!
//! The bus and the edge carry `traceparent` and `tracestate` as plain pairs of text; what is in them is
//! known only here. Without an exporter and without propagation switched on there is no context, and
//! these functions cost a lookup.

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// The headers that make the receiver's span a child of the current one; none when there is no context.
pub fn inject() -> Vec<(String, String)> {
    let context = Span::current().context();
    let mut headers = Headers(Vec::new());
    if context.span().span_context().is_valid() {
        TraceContextPropagator::new().inject_context(&context, &mut headers);
    }
    headers.0
}

/// The `traceparent` header of the current span, `None` when there is no context.
pub fn current_traceparent() -> Option<String> {
    inject()
        .into_iter()
        .find_map(|(name, value)| (name == TRACEPARENT).then_some(value))
}

/// Makes the sender of the headers that `get` finds the parent of `span`.
///
/// To be called before `span` is first entered; without a valid `traceparent` nothing changes.
pub fn set_parent(span: &Span, get: impl Fn(&str) -> Option<String>) {
    let Some(parent) = get(TRACEPARENT) else {
        return;
    };
    let received = Received {
        parent,
        state: get(TRACESTATE),
    };
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &received);
    if context.span().span_context().is_valid() {
        // Fails only where there are no traces, or where the caller was late: no reason to fail the work.
        let _ = span.set_parent(context);
    }
}

struct Headers(Vec<(String, String)>);

impl Injector for Headers {
    fn set(&mut self, name: &str, value: String) {
        if !value.is_empty() {
            self.0.push((name.to_owned(), value));
        }
    }
}

struct Received {
    parent: String,
    state: Option<String>,
}

impl Extractor for Received {
    fn get(&self, name: &str) -> Option<&str> {
        match name {
            TRACEPARENT => Some(&self.parent),
            TRACESTATE => self.state.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Telemetry;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn found(headers: &[(String, String)], wanted: &str) -> Option<String> {
        let pair = headers.iter().find(|(name, _)| name == wanted);
        pair.map(|(_, value)| value.clone())
    }

    #[test]
    fn a_received_context_is_continued_in_what_is_sent() {
        let _telemetry = Telemetry::for_tests();
        let span = tracing::info_span!("handle");
        set_parent(&span, |name| match name {
            TRACEPARENT => Some(PARENT.to_owned()),
            TRACESTATE => Some("vendor=1".to_owned()),
            _ => None,
        });
        let headers = span.in_scope(inject);
        let sent = found(&headers, TRACEPARENT).unwrap();
        assert_eq!(sent[..36], PARENT[..36], "same trace");
        assert_ne!(sent, PARENT, "another span");
        assert_eq!(found(&headers, TRACESTATE).as_deref(), Some("vendor=1"));
        let child = span.in_scope(|| tracing::info_span!("inner").in_scope(current_traceparent));
        assert_eq!(child.unwrap()[..36], PARENT[..36]);
    }

    #[test]
    fn a_malformed_context_is_ignored() {
        let _telemetry = Telemetry::for_tests();
        let span = tracing::info_span!("handle");
        set_parent(&span, |_| Some("00-nonsense".to_owned()));
        let sent = span.in_scope(current_traceparent).unwrap();
        assert!(sent.starts_with("00-") && !sent.contains("nonsense"));
    }

    #[test]
    fn outside_of_any_span_nothing_is_sent() {
        let _telemetry = Telemetry::for_tests();
        assert!(inject().is_empty());
    }
}
