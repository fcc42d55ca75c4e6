//! Logs, metrics and traces of a process, set up once.
//!
//! Logs go to stderr, readable on a terminal and JSON elsewhere. Metrics are recorded through the
//! `metrics` facade and always rendered for Prometheus. With an OTLP endpoint, traces and metrics are
//! exported there as well. Without one, spans stay inside the process, and trace context crosses process
//! borders only if propagation is asked for: then spans cost something and nothing is exported.

mod bridge;
mod config;
mod otlp;
mod prometheus;

use std::error::Error as StdError;
use std::fmt;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics_util::layers::FanoutBuilder;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, fmt as log};

pub use config::{EXPORTER_VARIABLES, LogFormat, Propagation, SETTINGS, TelemetryConfig};
pub use prometheus::Prometheus;

use otlp::Exporters;

/// How long leaving may be delayed by a collector that does not answer.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// Exporting is itself done by these; tracing them would produce telemetry about telemetry.
const NEVER_TRACED: [&str; 5] = ["h2", "hyper", "hyper_util", "opentelemetry", "reqwest"];

/// The recorders and subscribers are process-wide and cannot be replaced; this remembers them.
static INSTALLED: Mutex<Option<Prometheus>> = Mutex::new(None);

/// Why telemetry cannot be set up or delivered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was set up before.
    #[error("telemetry is already set up in this process")]
    AlreadySetUp,
    /// Something else owns the process-wide log subscriber.
    #[error("cannot install the log subscriber")]
    Subscriber(#[source] tracing::subscriber::SetGlobalDefaultError),
    /// Something else owns the process-wide metrics recorder.
    #[error("cannot install the metrics recorder: another one is installed")]
    Recorder,
    /// The log filter is malformed.
    #[error("cannot parse the log filter {filter:?}")]
    Filter {
        /// The filter as it was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// An exporter cannot be built, for example because the endpoint is no URL.
    #[error("cannot export {signal} by OTLP")]
    Exporter {
        /// What was to be exported.
        signal: &'static str,
        /// The exporter's message.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A helper thread cannot be started.
    #[error("cannot start the telemetry thread {name}")]
    Thread {
        /// The thread.
        name: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The collector did not take everything.
    #[error("cannot deliver {signal} by OTLP")]
    Flush {
        /// What was to be delivered.
        signal: &'static str,
        /// The exporter's message.
        source: opentelemetry_sdk::error::OTelSdkError,
    },
    /// The collector did not answer in time.
    #[error("cannot deliver telemetry by OTLP within {} s", FLUSH_LIMIT.as_secs())]
    FlushTimeout,
}

/// Owns the telemetry of the process; what is not exported yet is sent when this is dropped.
#[must_use = "dropping it ends the export"]
pub struct Telemetry {
    prometheus: Prometheus,
    exporters: Option<Exporters>,
}

/// Sets up logs, metrics and traces for this process; possible once.
///
/// # Errors
/// [`Error`] when another subscriber or recorder is installed, or the exporter cannot be made.
pub fn init(config: TelemetryConfig) -> Result<Telemetry, Error> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if installed.is_some() {
        return Err(Error::AlreadySetUp);
    }
    // Everything that can fail for a reason of the configuration comes before what cannot be undone.
    let filter = log_filter(&config.log_filter)?;
    let exporters = config
        .otlp_endpoint
        .as_deref()
        .map(|endpoint| Exporters::build(&config.service_name, endpoint))
        .transpose()?;
    let tracer = match (&exporters, config.propagation) {
        (Some(exporters), _) => Some(exporters.tracer_provider().clone()),
        (None, Propagation::On) => Some(SdkTracerProvider::builder().build()),
        (None, Propagation::WithExport) => None,
    };

    let subscriber = Registry::default()
        .with(log_layer(config.log_format, filter))
        .with(tracer.map(|provider| trace_layer(&provider)));
    tracing::subscriber::set_global_default(subscriber).map_err(Error::Subscriber)?;
    let prometheus = install_recorder(exporters.as_ref())?;
    *installed = Some(prometheus.clone());
    Ok(Telemetry {
        prometheus,
        exporters,
    })
}

impl Telemetry {
    /// Telemetry for a test: set up by the test that comes first, shared by the others, never exported.
    ///
    /// Logs are shown with a failing test; `RUST_LOG` selects them (default: warnings).
    pub fn for_tests() -> Telemetry {
        let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned());
        let config = TelemetryConfig {
            service_name: "test".to_owned(),
            log_format: LogFormat::Test,
            log_filter: filter,
            otlp_endpoint: None,
            propagation: Propagation::On,
        };
        match init(config) {
            Ok(telemetry) => telemetry,
            Err(Error::AlreadySetUp) => {
                let installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
                let prometheus = installed
                    .clone()
                    .expect("AlreadySetUp implies that it exists");
                Telemetry {
                    prometheus,
                    exporters: None,
                }
            }
            Err(error) => panic!("a test cannot set up telemetry: {}", chain(&error)),
        }
    }

    /// The handle that renders metrics; cheap to clone.
    pub fn prometheus(&self) -> Prometheus {
        self.prometheus.clone()
    }

    /// Sends everything recorded so far to the collector, if there is one.
    ///
    /// # Errors
    /// [`Error`] when the collector does not take what is left.
    pub async fn flush(&self) -> Result<(), Error> {
        match &self.exporters {
            Some(exporters) => exporters.flush(FLUSH_LIMIT).await,
            None => Ok(()),
        }
    }

    /// Sends the rest and ends the export without blocking the runtime; to be preferred to dropping.
    ///
    /// # Errors
    /// As [`Telemetry::flush`].
    pub async fn shutdown(mut self) -> Result<(), Error> {
        match self.exporters.take() {
            Some(exporters) => exporters.shutdown(FLUSH_LIMIT).await,
            None => Ok(()),
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(exporters) = self.exporters.take() {
            exporters.shutdown_blocking(FLUSH_LIMIT);
        }
    }
}

/// An error and all its causes in one line, for a log field or a person.
pub fn chain<'a>(error: &'a (dyn StdError + 'a)) -> impl fmt::Display + 'a {
    Chain(error)
}

struct Chain<'a>(&'a (dyn StdError + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

fn log_filter(filter: &str) -> Result<EnvFilter, Error> {
    EnvFilter::try_new(filter).map_err(|source| Error::Filter {
        filter: filter.to_owned(),
        source,
    })
}

fn log_layer<S>(format: LogFormat, filter: EnvFilter) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let terminal = std::io::stderr().is_terminal();
    let layer = log::layer()
        .with_writer(std::io::stderr)
        .with_ansi(terminal);
    match format {
        LogFormat::Text => layer.with_filter(filter).boxed(),
        LogFormat::Auto if terminal => layer.with_filter(filter).boxed(),
        LogFormat::Auto | LogFormat::Json => {
            json_layer(std::io::stderr).with_filter(filter).boxed()
        }
        LogFormat::Test => log::layer().with_test_writer().with_filter(filter).boxed(),
    }
}

/// Fields of the event at the top, fields of the innermost span under `span`.
fn json_layer<S, W>(writer: W) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> log::MakeWriter<'w> + Send + Sync + 'static,
{
    log::layer()
        .with_writer(writer)
        .with_ansi(false)
        .json()
        .flatten_event(true)
        .with_span_list(false)
}

/// Traces have a filter of their own: a quiet log does not make holes in a trace.
fn trace_layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let filter = NEVER_TRACED.iter().fold(
        Targets::new().with_default(LevelFilter::INFO),
        |filter, target| filter.with_target(*target, LevelFilter::OFF),
    );
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("quintet"))
        .with_threads(false)
        .with_filter(filter)
}

fn install_recorder(exporters: Option<&Exporters>) -> Result<Prometheus, Error> {
    let (recorder, prometheus) = prometheus::recorder();
    let installed = match exporters {
        Some(exporters) => {
            let fanout = FanoutBuilder::default()
                .add_recorder(recorder)
                .add_recorder(exporters.recorder())
                .build();
            metrics::set_global_recorder(fanout).is_ok()
        }
        None => metrics::set_global_recorder(recorder).is_ok(),
    };
    if !installed {
        return Err(Error::Recorder);
    }
    prometheus.keep_up()?;
    Ok(prometheus)
}

#[cfg(test)]
mod tests;
