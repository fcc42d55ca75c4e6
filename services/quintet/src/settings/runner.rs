//! Settings of a runner, and of the runs that it has done on Kubernetes.

use std::path::PathBuf;
use std::time::Duration;

use quintet_runner::{KubernetesConfig, RunnerConfig};
use quintet_service::settings::{Reader, Setting};

use super::process::holder;
use super::shared::{RUN_RETENTION, TASK_ACK_WAIT, setting};

/// The settings of this file, and those that a runner shares with others.
pub(crate) const TABLE: &[Setting] = &[
    RUN_RETENTION,
    TASK_ACK_WAIT,
    setting(
        "kubeconfig",
        "KUBECONFIG",
        None,
        "cluster for runs of the mode k8s; several files joined as in PATH are merged",
    ),
    setting(
        "k8s_in_cluster",
        "K8S_IN_CLUSTER",
        Some("false"),
        "true for a runner that is in that cluster itself: it uses its pod's service account",
    ),
    setting(
        "k8s_namespace",
        "K8S_NAMESPACE",
        Some("default"),
        "namespace of the Jobs of runs; deploy/kubernetes/rbac.yaml has the rights that a runner needs there",
    ),
    setting(
        "k8s_cpu_limit",
        "K8S_CPU_LIMIT",
        Some("1"),
        "most processor time of a program on Kubernetes, 100m or more",
    ),
    setting(
        "k8s_memory_limit",
        "K8S_MEMORY_LIMIT",
        Some("1Gi"),
        "most memory of a program on Kubernetes, 128Mi or more",
    ),
    setting(
        "k8s_user",
        "K8S_USER",
        Some("65532"),
        "number of the user and group that programs on Kubernetes run as; not 0",
    ),
    setting(
        "k8s_ttl_after_finished",
        "K8S_TTL_AFTER_FINISHED",
        Some("1day"),
        "how long Kubernetes keeps a Job after its end; longer than runners may be away",
    ),
    setting(
        "k8s_cancel_grace",
        "K8S_CANCEL_GRACE",
        Some("10s"),
        "how long a program on Kubernetes may take to end before it is killed",
    ),
    setting(
        "k8s_start_timeout",
        "K8S_START_TIMEOUT",
        Some("5m"),
        "how long Kubernetes may take to place a program and to pull its image",
    ),
];

/// Reads [`TABLE`].
pub(crate) fn read(read: &mut Reader<'_>) -> RunnerConfig {
    let mut runner = RunnerConfig::new(holder());
    runner.run_retention = read.duration("run_retention");
    runner.task_ack_wait = read.duration("task_ack_wait");
    let long_enough = runner.run_retention >= Duration::from_secs(1);
    read.check("run_retention", long_enough, "must be 1 s or more");
    let long_enough = runner.task_ack_wait >= Duration::from_millis(100);
    read.check("task_ack_wait", long_enough, "must be 100 ms or more");
    runner.kubernetes = kubernetes(read);
    runner
}

fn kubernetes(read: &mut Reader<'_>) -> KubernetesConfig {
    let defaults = KubernetesConfig::default();
    let kubernetes = KubernetesConfig {
        kubeconfig: read.optional("kubeconfig").map(PathBuf::from),
        in_cluster: read.boolean("k8s_in_cluster"),
        namespace: read.text("k8s_namespace"),
        cpu_limit: read.parse_or("k8s_cpu_limit", defaults.cpu_limit),
        memory_limit: read.parse_or("k8s_memory_limit", defaults.memory_limit),
        user: read.parse("k8s_user"),
        ttl_after_finished: read.duration("k8s_ttl_after_finished"),
        cancel_grace: read.duration("k8s_cancel_grace"),
        start_timeout: read.duration("k8s_start_timeout"),
    };
    read.check("k8s_user", kubernetes.user != 0, "must not be 0");
    if let Err(error) = kubernetes.check() {
        read.check("k8s_memory_limit", false, &error.to_string());
    }
    kubernetes
}
