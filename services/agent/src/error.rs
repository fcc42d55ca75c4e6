//! Why an agent ends other than by being asked to.

use std::path::PathBuf;

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
    /// The thread that starts child processes cannot be started.
    #[error("cannot start the thread that starts child processes")]
    Spawner {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The process that cleans up after the agent cannot be started.
    #[error("cannot start the reaper {}", .program.display())]
    Reaper {
        /// Its program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
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
