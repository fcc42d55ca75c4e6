//! The bind policy: which addresses an edge may listen on without credentials of its own.

use quintet_edge::EdgeConfig;
use tracing::warn;

use crate::cli::exit::{self, Failure};

/// Everybody knows the default token: it is for machines that nobody else can reach.
pub(crate) fn refuse_known_token(edge: &EdgeConfig, insecure: bool) -> anyhow::Result<()> {
    let reachable = !edge.listen.ip().is_loopback();
    if reachable && edge.has_default_token() && !insecure {
        let text = "AGENT_TOKEN is the default that everybody knows, and the edge would listen on an address that others \
                    can reach; set AGENT_TOKEN, listen on 127.0.0.1, or say --insecure-dev";
        return Err(Failure::new(exit::USAGE, text).into());
    }
    Ok(())
}

/// Without keys everybody may submit jobs, which are programs: said aloud where others can reach the edge.
pub(crate) fn warn_of_open_interface(edge: &EdgeConfig) {
    if !edge.listen.ip().is_loopback() && edge.api_keys.is_empty() {
        warn!(
            address = %edge.listen,
            "no API_KEYS are set, whoever reaches this address may run jobs"
        );
    }
}
