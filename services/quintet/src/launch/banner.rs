//! What `up` reports: the steps of its start, and the banner with every address.

use std::path::Path;

use quintet_edge::EdgeConfig;
use tracing::info;

/// How the edge is spoken to.
pub(crate) fn scheme(edge: &EdgeConfig) -> &'static str {
    match edge.tls {
        Some(_) => "https",
        None => "http",
    }
}

/// How `up` reports what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// A person watches: steps are logged, and the banner is printed.
    Terminal,
    /// Steps and the banner are printed, since the log has warnings only.
    Plain,
    /// Steps and addresses are logged.
    Log,
}

impl Style {
    /// Reports a step of the start.
    pub(crate) fn step(self, step: &'static str) {
        match self {
            Self::Terminal | Self::Log => info!("{step}"),
            Self::Plain => eprintln!("quintet: {step}"),
        }
    }

    /// Reports where everything is.
    pub(crate) fn banner(self, address: &str, nats: &str, users: Option<&Path>) {
        if self == Self::Log {
            info!(address, nats, "ready");
            return;
        }
        eprintln!("\n  dashboard   {address}/\n  interface   {address}/docs\n  NATS        {nats}");
        if let Some(users) = users {
            eprintln!("  NATS users  {}", users.display());
        }
        eprintln!("  Ctrl-C ends everything\n");
    }
}
