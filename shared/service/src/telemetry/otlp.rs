//! Export of traces and metrics to an OTLP collector over HTTP.
//!
//! Batching and sending happen on threads of the SDK. Flushing and ending wait for them, so both are done
//! on a thread of their own, with a limit: neither a runtime nor an exit hangs on a silent collector.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_otlp::{MetricExporter, Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::sync::oneshot;

use super::bridge::Bridge;
use super::{Error, chain};

const FLUSH_THREAD: &str = "telemetry-flush";
const TRACES: &str = "traces";
const METRICS: &str = "metrics";

/// The two pipelines to the collector; handles, all clones are the same pipelines.
#[derive(Clone)]
pub(super) struct Exporters {
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
}

impl Exporters {
    pub(super) fn build(service_name: &str, endpoint: &str) -> Result<Self, Error> {
        let resource = resource(service_name);
        let mut spans = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary);
        if let Some(url) = signal_url(endpoint, TRACES) {
            spans = spans.with_endpoint(url);
        }
        let spans = spans
            .build()
            .map_err(|source| exporter_error(TRACES, source))?;
        let mut meters = MetricExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary);
        if let Some(url) = signal_url(endpoint, METRICS) {
            meters = meters.with_endpoint(url);
        }
        let meters = meters
            .build()
            .map_err(|source| exporter_error(METRICS, source))?;

        let traces = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_batch_exporter(spans)
            .build();
        let metrics = SdkMeterProvider::builder()
            .with_resource(resource)
            .with_periodic_exporter(meters)
            .build();
        Ok(Self { traces, metrics })
    }

    pub(super) fn tracer_provider(&self) -> &SdkTracerProvider {
        &self.traces
    }

    /// A recorder for the `metrics` facade that feeds the metrics pipeline.
    pub(super) fn recorder(&self) -> Bridge {
        Bridge::new(self.metrics.meter("quintet"))
    }

    pub(super) async fn flush(&self, limit: Duration) -> Result<(), Error> {
        let exporters = self.clone();
        let done = on_thread(move || {
            delivered(TRACES, exporters.traces.force_flush())
                .and(delivered(METRICS, exporters.metrics.force_flush()))
        })?;
        within(done, limit).await
    }

    pub(super) async fn shutdown(self, limit: Duration) -> Result<(), Error> {
        let done = on_thread(move || self.end(limit))?;
        within(done, limit).await
    }

    /// For a drop, where nothing can be awaited and no caller takes an error.
    pub(super) fn shutdown_blocking(self, limit: Duration) {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let started = std::thread::Builder::new()
            .name(FLUSH_THREAD.to_owned())
            // The receiver is gone once the limit has passed.
            .spawn(move || drop(sender.send(self.end(limit))));
        if started.is_err() {
            return;
        }
        let result = receiver
            .recv_timeout(limit)
            .unwrap_or(Err(Error::FlushTimeout));
        if let Err(error) = result {
            tracing::warn!(error = %chain(&error), "telemetry is incomplete");
        }
    }

    fn end(&self, limit: Duration) -> Result<(), Error> {
        let traces = delivered(TRACES, self.traces.shutdown_with_timeout(limit));
        let metrics = delivered(METRICS, self.metrics.shutdown_with_timeout(limit));
        traces.and(metrics)
    }
}

/// Names the process; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` add to it or overrule it.
fn resource(service_name: &str) -> Resource {
    let host = hostname::get().unwrap_or_default();
    let instance = format!("{}:{}", host.to_string_lossy(), std::process::id());
    let builder =
        Resource::builder().with_attribute(KeyValue::new("service.instance.id", instance));
    if std::env::var_os("OTEL_SERVICE_NAME").is_some() {
        return builder.build();
    }
    builder.with_service_name(service_name.to_owned()).build()
}

/// The endpoint for one signal; `None` leaves it to the signal's own standard variable.
fn signal_url(endpoint: &str, signal: &str) -> Option<String> {
    let variable = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.to_uppercase());
    if std::env::var_os(variable).is_some_and(|value| !value.is_empty()) {
        return None;
    }
    Some(format!("{}/v1/{signal}", endpoint.trim_end_matches('/')))
}

fn exporter_error(signal: &'static str, source: opentelemetry_otlp::ExporterBuildError) -> Error {
    Error::Exporter {
        signal,
        source: Box::new(source),
    }
}

fn delivered(signal: &'static str, result: OTelSdkResult) -> Result<(), Error> {
    match result {
        Ok(()) | Err(OTelSdkError::AlreadyShutdown) => Ok(()),
        Err(source) => Err(Error::Flush { signal, source }),
    }
}

fn on_thread(
    work: impl FnOnce() -> Result<(), Error> + Send + 'static,
) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name(FLUSH_THREAD.to_owned())
        // The receiver is gone once the limit has passed.
        .spawn(move || drop(sender.send(work())))
        .map_err(|source| Error::Thread {
            name: FLUSH_THREAD,
            source,
        })?;
    Ok(receiver)
}

async fn within(done: oneshot::Receiver<Result<(), Error>>, limit: Duration) -> Result<(), Error> {
    match tokio::time::timeout(limit, done).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) | Err(_) => Err(Error::FlushTimeout),
    }
}
