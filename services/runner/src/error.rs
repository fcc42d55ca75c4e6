//! How a runner can fail for good. Everything that may pass is retried by the driver instead.

/// Why a runner cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bus refused a subscription that the runner cannot work without.
    #[error("subscribing to {what}")]
    Subscribe {
        /// What was to be received.
        what: &'static str,
        /// Why not.
        #[source]
        source: quintet_bus::SubscribeError,
    },
    /// The settings of the Kubernetes cluster are of no use.
    #[error("runs of the mode k8s")]
    Kubernetes(#[from] crate::kubernetes::KubernetesError),
}
