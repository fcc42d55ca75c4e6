//! Settings of telemetry.

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::filter::EnvFilter;

use crate::settings::{Reader, Secrecy, Setting};

/// The settings of telemetry, to be part of the table of every program.
pub const SETTINGS: &[Setting] = &[
    setting(
        "log_format",
        "LOG_FORMAT",
        Some("auto"),
        "Form of the logs on stderr: text, json, or auto (text on a terminal)",
    ),
    setting(
        "log_level",
        "LOG_LEVEL",
        Some("info"),
        "What is logged: error, warn, info, debug or trace, also per module",
    ),
    setting("log_filter", "RUST_LOG", None, "As log_level, and stronger"),
    setting(
        "otlp_endpoint",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        None,
        "Collector that traces and metrics are sent to (OTLP over HTTP, protobuf)",
    ),
    setting(
        "trace_propagation",
        "QUINTET_TRACE_PROPAGATION",
        Some("false"),
        "Pass trace context on even when nothing is exported",
    ),
];

/// Variables that the exporters read besides; a `*` at the end stands for any rest.
pub const EXPORTER_VARIABLES: &[&str] = &["OTEL_*"];

/// What telemetry a process produces.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// The name under which its traces and metrics appear.
    pub service_name: String,
    /// The form of its logs.
    pub log_format: LogFormat,
    /// Which of its logs are written, in the syntax of `RUST_LOG`.
    pub log_filter: String,
    /// The collector, such as `http://localhost:4318`; `None` exports nothing.
    pub otlp_endpoint: Option<String>,
    /// Whether trace context is passed on without a collector.
    pub propagation: Propagation,
}

/// The form of logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Readable on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// Readable.
    Text,
    /// Readable and captured by the test harness; not for configuration files.
    Test,
}

/// When trace context crosses the borders of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Only when traces are exported.
    #[default]
    WithExport,
    /// Always.
    On,
}

/// A text that names no log format.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownLogFormat;

impl TelemetryConfig {
    /// Reads [`SETTINGS`]; problems stay with `read`.
    pub fn read(read: &mut Reader<'_>, service_name: &str) -> Self {
        let log_format = read.parse("log_format");
        let level = read.text("log_level");
        let filter = read.optional("log_filter");
        let key = if filter.is_some() {
            "log_filter"
        } else {
            "log_level"
        };
        // The NATS client logs every connection; ours are logged by the bus.
        let log_filter = filter.unwrap_or_else(|| format!("{level},async_nats=warn"));
        let filter_parses = EnvFilter::try_new(&log_filter).is_ok();
        read.check(
            key,
            filter_parses,
            "expected a level such as info, or a filter such as info,quintet_bus=debug",
        );

        let otlp_endpoint = read.optional("otlp_endpoint");
        let is_url = otlp_endpoint
            .as_deref()
            .is_none_or(|url| url.starts_with("http://") || url.starts_with("https://"));
        read.check(
            "otlp_endpoint",
            is_url,
            "expected a URL such as http://localhost:4318",
        );
        let propagation = match read.boolean("trace_propagation") {
            true => Propagation::On,
            false => Propagation::WithExport,
        };
        Self {
            service_name: service_name.to_owned(),
            log_format,
            log_filter,
            otlp_endpoint,
            propagation,
        }
    }
}

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err(UnknownLogFormat),
        }
    }
}

impl fmt::Display for UnknownLogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected auto, json or text")
    }
}

impl std::error::Error for UnknownLogFormat {}

const fn setting(
    key: &'static str,
    env: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting {
        key,
        env,
        default,
        help,
        secret: Secrecy::Public,
    }
}
