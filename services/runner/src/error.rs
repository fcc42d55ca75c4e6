//! Errors of a runner that end it. Everything that may pass is tried again by its leaders instead.

/// Why a runner cannot work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot lead, or a part of it ended.
    #[error(transparent)]
    Leader(#[from] quintet_leader::Error),
    /// The settings of the Kubernetes cluster are invalid.
    #[error("runs of the mode k8s")]
    Kubernetes(#[from] crate::kubernetes::KubernetesError),
}
