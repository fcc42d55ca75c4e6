//! Errors of a frames service that end it. Everything that may pass is tried again by its leader instead.

/// Why a frames service cannot work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Its configuration is invalid.
    #[error("the configuration of frames")]
    Config(#[from] crate::config::ConfigError),
    /// It cannot lead.
    #[error(transparent)]
    Leader(#[from] quintet_leader::Error),
    /// The programs of workers cannot be started.
    #[error("the processes of workers")]
    Process(#[from] quintet_worker::process::ProcessError),
}
