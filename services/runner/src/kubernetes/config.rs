//! Configuration of a runner for Kubernetes.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::error::KubernetesError;

/// Processor time that every pod asks for.
pub(super) const CPU_REQUEST: &str = "100m";
/// Memory that every pod asks for.
pub(super) const MEMORY_REQUEST: &str = "128Mi";

/// Where the cluster is, and what the Jobs of nodes look like.
#[derive(Clone, Debug)]
pub struct KubernetesConfig {
    /// The kubeconfig; several are merged when they are joined as in a PATH.
    pub kubeconfig: Option<PathBuf>,
    /// The runner is in the cluster itself and uses its pod's service account, unless there is a kubeconfig.
    pub in_cluster: bool,
    /// Where Jobs are made.
    pub namespace: String,
    /// Most processor time of a program.
    pub cpu_limit: Quantity,
    /// Most memory of a program.
    pub memory_limit: Quantity,
    /// User and group that programs run as; not 0, which Kubernetes would refuse.
    pub user: u32,
    /// How long a Job is kept after its end.
    pub ttl_after_finished: Duration,
    /// How long a program may take to end after SIGTERM.
    pub cancel_grace: Duration,
    /// How long the cluster may take to start a program: to find a place for it and to pull its image.
    pub start_timeout: Duration,
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            in_cluster: false,
            namespace: "default".to_owned(),
            cpu_limit: Quantity::known("1"),
            memory_limit: Quantity::known("1Gi"),
            user: 65_532,
            ttl_after_finished: Duration::from_secs(24 * 3600),
            cancel_grace: Duration::from_secs(10),
            start_timeout: Duration::from_secs(300),
        }
    }
}

impl KubernetesConfig {
    /// Whether a cluster is configured.
    pub fn is_configured(&self) -> bool {
        self.kubeconfig.is_some() || self.in_cluster
    }

    /// Refuses limits that no pod could have.
    pub fn check(&self) -> Result<(), KubernetesError> {
        let limits = [
            ("cpu", &self.cpu_limit, CPU_REQUEST),
            ("memory", &self.memory_limit, MEMORY_REQUEST),
        ];
        for (resource, limit, request) in limits {
            if limit.value < Quantity::known(request).value {
                let limit = limit.to_string();
                return Err(KubernetesError::Limit {
                    resource,
                    limit,
                    request,
                });
            }
        }
        Ok(())
    }
}

/// An amount as Kubernetes writes it, such as `500m` or `1Gi`.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantity {
    text: String,
    value: f64,
}

/// A text that is no amount.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no amount such as 500m, 2 or 1Gi")]
pub struct ParseQuantityError(String);

/// What may stand behind a number, and what it is multiplied by.
const SUFFIXES: [(&str, f64); 15] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
];

impl Quantity {
    fn known(text: &str) -> Self {
        text.parse().expect("the amounts of this file are amounts")
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, factor) = SUFFIXES
            .into_iter()
            .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, factor)))
            .unwrap_or((text, 1.0));
        let is_plain = number
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
        let value: f64 = number
            .parse()
            .ok()
            .filter(|_| is_plain)
            .ok_or_else(|| ParseQuantityError(text.to_owned()))?;
        Ok(Self {
            text: text.to_owned(),
            value: value * factor,
        })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_kubernetes_reads_them() {
        for (text, value) in [
            ("1", 1.0),
            ("0.5", 0.5),
            ("500m", 0.5),
            ("2k", 2e3),
            ("1Ki", 1024.0),
            ("1.5Gi", 1_610_612_736.0),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap().value, value, "{text}");
        }
        for text in ["", "x", "-1", "1 Gi", "1gi", "Gi", "inf", "1e3", "1.2.3"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_limit_below_what_is_asked_for_is_refused() {
        let config = KubernetesConfig::default();
        assert!(config.check().is_ok());
        let config = KubernetesConfig {
            memory_limit: "64Mi".parse().unwrap(),
            ..config
        };
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "the limit of memory, 64Mi, is less than what every pod asks for, 128Mi"
        );
    }
}
