//! The banner of `up`: where everything is, for a person at a terminal.

use std::io::IsTerminal;

use quintet_edge::EdgeConfig;
use tracing::info;

use crate::launch::data_dir::DataDir;

/// How the edge is spoken to.
pub(crate) fn scheme(edge: &EdgeConfig) -> &'static str {
    match edge.tls {
        Some(_) => "https",
        None => "http",
    }
}

/// Where everything is, for a person at a terminal.
pub(crate) fn greet(address: &str, nats: &str, own: bool, data: &DataDir) {
    if !std::io::stderr().is_terminal() {
        info!(address, nats, "everything serves");
        return;
    }
    eprintln!("\n  dashboard   {address}/\n  interface   {address}/docs\n  NATS        {nats}");
    if own {
        eprintln!("  NATS users  {}", data.join("connection.json").display());
    }
    eprintln!("  Ctrl-C ends everything\n");
}
