//! Errors of the Kubernetes configuration.

use std::path::PathBuf;

/// Why a runner cannot use Kubernetes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KubernetesError {
    /// The cluster is not configured.
    #[error(
        "no Kubernetes cluster is configured: set KUBECONFIG, or K8S_IN_CLUSTER for a runner inside of one"
    )]
    NotConfigured,
    /// A kubeconfig cannot be used.
    #[error("reading the kubeconfig {}; name one that can be read in KUBECONFIG, or leave it out", path.display())]
    Kubeconfig {
        /// The setting.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// The runner is in no cluster, or in one that gives it no account.
    #[error("reading the service account that a cluster gives to its pods")]
    InCluster {
        /// Why not.
        #[source]
        source: Box<kube::config::InClusterError>,
    },
    /// The configuration is readable and cannot be used.
    #[error("making a client for the Kubernetes API")]
    Client {
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// No pod could be made with these limits.
    #[error("the limit of {resource}, {limit}, is less than what every pod asks for, {request}")]
    Limit {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// What is configured.
        limit: String,
        /// What is asked for.
        request: &'static str,
    },
}
