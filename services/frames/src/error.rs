//! How a frames service can fail for good. Everything that may pass is retried by the driver instead.

/// Why a frames service cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What it was told is of no use.
    #[error("the configuration of frames")]
    Config(#[from] crate::config::ConfigError),
    /// The bus refused a subscription that it cannot work without.
    #[error("subscribing to {what}")]
    Subscribe {
        /// What was to be received.
        what: &'static str,
        /// Why not.
        #[source]
        source: quintet_bus::SubscribeError,
    },
    /// The programs of workers cannot be started.
    #[error("the processes of workers")]
    Process(#[from] quintet_worker::process::ProcessError),
}
