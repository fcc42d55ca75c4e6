//! Errors that end a worker.

use std::path::PathBuf;

use quintet_contract::id::NameError;
use quintet_worker::process::ProcessError;

/// Why [`run`](crate::run), [`serve`](crate::serve) or [`effects::run`](crate::effects::run) ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder for programs cannot be made.
    #[error("cannot create the run worker's work folder {}", .path.display())]
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
    /// The bus refused a subscription that the worker cannot work without.
    #[error("subscribing to messages for the worker")]
    Subscribe {
        /// Why not.
        #[source]
        source: quintet_bus::SubscribeError,
    },
    /// An effect cannot have the name that it was to have.
    #[error("naming an effect {name:?}")]
    EffectName {
        /// The name.
        name: String,
        /// Why not.
        #[source]
        source: NameError,
    },
    /// The connection to the bus was closed for good.
    #[error("the connection to the bus was closed")]
    BusClosed,
}
