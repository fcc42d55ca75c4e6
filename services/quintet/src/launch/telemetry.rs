//! Logs, metrics and traces of a process that serves: set up in one place, with trace context on the bus and panics in
//! the log.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use quintet_bus::{TraceHooks, set_trace_hooks};
use quintet_service::telemetry::{self, Telemetry, TelemetryConfig, chain};
use quintet_service::trace;
use tracing::{error, warn};

/// Sets everything up; possible once.
pub(crate) fn start(config: TelemetryConfig) -> anyhow::Result<Telemetry> {
    let telemetry = telemetry::init(config)?;
    set_trace_hooks(TraceHooks {
        inject: trace::inject,
        extract: |span, lookup| trace::set_parent(span, lookup),
    });
    std::panic::set_hook(Box::new(log_panic));
    Ok(telemetry)
}

/// Sends the rest. A collector that does not take it does not make a good end a bad one.
pub(crate) async fn end(telemetry: Telemetry) {
    if let Err(error) = telemetry.shutdown().await {
        warn!(error = %chain(&error), "telemetry was not delivered");
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("no text");
    let place = panic.location().map(ToString::to_string);
    let place = place.unwrap_or_default();
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => error!(panic = text, place, %backtrace, "panicked"),
        _ => error!(panic = text, place, "panicked"),
    }
}
