//! Settings of every process that serves, and the names of this one.

use std::net::SocketAddr;

use quintet_contract::id::HolderId;
use quintet_service::settings::{Reader, Setting};
use quintet_service::telemetry::TelemetryConfig;

use super::shared::setting;

/// The settings of this file; those of telemetry are beside them.
pub(crate) const TABLE: &[Setting] = &[setting(
    "metrics_listen",
    "METRICS_LISTEN",
    None,
    "address, such as 127.0.0.1:9090, where a process serves /healthz, /ready and /metrics beside or without an edge",
)];

/// What every process that serves is configured with.
#[derive(Clone, Debug)]
pub(crate) struct ProcessSettings {
    pub(crate) telemetry: TelemetryConfig,
    /// Where health and metrics are served beside an edge, or without one.
    pub(crate) metrics: Option<SocketAddr>,
}

/// Reads [`TABLE`] and the settings of telemetry, under the name of a service.
pub(crate) fn read(read: &mut Reader<'_>, service: &str) -> ProcessSettings {
    ProcessSettings {
        telemetry: TelemetryConfig::read(read, service),
        metrics: read.parse_optional("metrics_listen"),
    }
}

/// The name of this machine.
pub(super) fn host() -> String {
    hostname::get()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// A name that no other process has.
pub(super) fn unique(name: &str) -> String {
    format!(
        "{name}-{}-{}",
        std::process::id(),
        quintet_bus::new_session()
    )
}

/// Names this process among those that may lead.
pub(super) fn holder() -> HolderId {
    HolderId::parse(unique(&host()))
        .or_else(|_| HolderId::parse(quintet_bus::new_session().to_string()))
        .unwrap_or_else(|_| {
            unreachable!("a UUID is a name");
        })
}
