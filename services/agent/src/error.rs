//! Errors that end an agent.

use std::path::PathBuf;

use quintet_worker::process::ProcessError;

/// Why [`run`](crate::run) ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder for relative paths cannot be made.
    #[error("cannot create the agent's work folder {}", .path.display())]
    WorkDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It cannot start child processes.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A newer session of the same agent took over.
    #[error("another agent took over the id {agent}; give each agent its own")]
    Replaced {
        /// The id.
        agent: String,
    },
    /// The connection to the bus was closed for good.
    #[error("the connection to the bus was closed")]
    BusClosed,
}
