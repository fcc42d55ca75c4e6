//! The Job of one attempt of one node, and the state of an existing one.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, PodSecurityContext, PodSpec,
    PodTemplateSpec, ResourceRequirements, SeccompProfile, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ObjectMeta;

use super::Execution;
use super::config::{CPU_REQUEST, KubernetesConfig, MEMORY_REQUEST};
use super::names;

/// The name of the container.
pub(super) const CONTAINER: &str = "program";
/// Most bytes of an argument, or of a variable with its name: Linux starts no program with a longer one.
const MAX_STRING_BYTES: usize = 128 * 1024 - 1;
/// Room for temporary files: the only place a program can write to.
const SCRATCH_SIZE: &str = "1Gi";
const SCRATCH: &str = "tmp";

/// Why no Job can be made of a node.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JobSpecError {
    #[error("a node of a run on Kubernetes needs an image")]
    NoImage,
    #[error("{what} has {bytes} bytes, and a program can be given {MAX_STRING_BYTES} at most")]
    TooLong { what: String, bytes: usize },
}

/// How a Job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JobEnd {
    Complete,
    Failed {
        reason: String,
        message: Option<String>,
    },
}

/// The reason of a Job that took longer than its node's timeout.
pub(super) const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";

/// The Job that runs this.
pub(super) fn job(execution: &Execution, config: &KubernetesConfig) -> Result<Job, JobSpecError> {
    let labels = names::labels(execution.run, &execution.node, execution.attempt);
    let metadata = ObjectMeta {
        labels: Some(labels),
        annotations: Some(BTreeMap::from([(
            names::NODE_ANNOTATION.to_owned(),
            execution.node.as_str().to_owned(),
        )])),
        ..ObjectMeta::default()
    };
    let spec = JobSpec {
        active_deadline_seconds: execution.timeout.map(whole_seconds),
        backoff_limit: Some(0),
        ttl_seconds_after_finished: Some(
            i32::try_from(whole_seconds(config.ttl_after_finished)).unwrap_or(i32::MAX),
        ),
        template: PodTemplateSpec {
            metadata: Some(metadata.clone()),
            spec: Some(pod(execution, config)?),
        },
        ..JobSpec::default()
    };
    Ok(Job {
        metadata: ObjectMeta {
            name: Some(execution.job_name()),
            ..metadata
        },
        spec: Some(spec),
        status: None,
    })
}

/// Rounded up, since 0 is no deadline to Kubernetes.
fn whole_seconds(duration: Duration) -> i64 {
    let seconds = duration.as_millis().div_ceil(1_000).max(1);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn pod(execution: &Execution, config: &KubernetesConfig) -> Result<PodSpec, JobSpecError> {
    let scratch = EmptyDirVolumeSource {
        size_limit: Some(Quantity(SCRATCH_SIZE.to_owned())),
        ..EmptyDirVolumeSource::default()
    };
    Ok(PodSpec {
        // What a plan starts has no business with the cluster.
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        containers: vec![container(execution, config)?],
        restart_policy: Some("Never".to_owned()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(config.user.into()),
            run_as_group: Some(config.user.into()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        termination_grace_period_seconds: Some(whole_seconds(config.cancel_grace)),
        volumes: Some(vec![Volume {
            name: SCRATCH.to_owned(),
            empty_dir: Some(scratch),
            ..Volume::default()
        }]),
        ..PodSpec::default()
    })
}

fn container(execution: &Execution, config: &KubernetesConfig) -> Result<Container, JobSpecError> {
    let image = execution
        .command
        .image
        .clone()
        .ok_or(JobSpecError::NoImage)?;
    let mut argv = Vec::new();
    for argument in &execution.command.argv {
        check_length("an argument", argument.len())?;
        argv.push(literal(argument));
    }
    let args = argv.split_off(argv.len().min(1));
    let amounts = |cpu: &str, memory: &str| {
        Some(BTreeMap::from([
            ("cpu".to_owned(), Quantity(cpu.to_owned())),
            ("memory".to_owned(), Quantity(memory.to_owned())),
        ]))
    };
    Ok(Container {
        name: CONTAINER.to_owned(),
        image: Some(image),
        command: Some(argv).filter(|argv| !argv.is_empty()),
        args: Some(args).filter(|args| !args.is_empty()),
        env: Some(environment(execution)?),
        resources: Some(ResourceRequirements {
            requests: amounts(CPU_REQUEST, MEMORY_REQUEST),
            limits: amounts(
                &config.cpu_limit.to_string(),
                &config.memory_limit.to_string(),
            ),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                add: None,
                drop: Some(vec!["ALL".to_owned()]),
            }),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![VolumeMount {
            name: SCRATCH.to_owned(),
            mount_path: "/tmp".to_owned(),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    })
}

/// The plan's variables, then ours, which win.
fn environment(execution: &Execution) -> Result<Vec<EnvVar>, JobSpecError> {
    let mut variables = execution.command.env.clone();
    variables.extend(execution.env.clone());
    variables.extend([
        ("RUN_ID".to_owned(), execution.run.to_string()),
        ("NODE_ID".to_owned(), execution.node.as_str().to_owned()),
        ("ATTEMPT".to_owned(), execution.attempt.to_string()),
    ]);
    let variable = |(name, value): (String, String)| {
        check_length(&name, name.len() + 1 + value.len())?;
        Ok(EnvVar {
            name,
            value: Some(literal(&value)),
            value_from: None,
        })
    };
    variables.into_iter().map(variable).collect()
}

fn check_length(what: &str, bytes: usize) -> Result<(), JobSpecError> {
    if bytes <= MAX_STRING_BYTES {
        return Ok(());
    }
    let what = what.to_owned();
    Err(JobSpecError::TooLong { what, bytes })
}

/// Kubernetes puts variables in the place of `$(NAME)` and one dollar in the place of two; doubled ones arrive as they
/// were written.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// Whether a Job that exists is the one of this attempt.
pub(super) fn is_of(job: &Job, execution: &Execution) -> bool {
    let labels = job.metadata.labels.as_ref();
    let annotations = job.metadata.annotations.as_ref();
    let node = annotations.and_then(|annotations| annotations.get(names::NODE_ANNOTATION));
    node.map(String::as_str) == Some(execution.node.as_str())
        && names::labels(execution.run, &execution.node, execution.attempt)
            .iter()
            .all(|(name, value)| labels.and_then(|labels| labels.get(name)) == Some(value))
}

/// How a Job ended, if it did: also when it is certain and only its pod has to end yet.
pub(super) fn end(job: &Job) -> Option<JobEnd> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let mut held = conditions
        .iter()
        .filter(|condition| condition.status == "True");
    held.find_map(|condition| match condition.type_.as_str() {
        "Complete" | "SuccessCriteriaMet" => Some(JobEnd::Complete),
        "Failed" | "FailureTarget" => Some(JobEnd::Failed {
            reason: condition.reason.clone().unwrap_or_default(),
            message: condition.message.clone(),
        }),
        _ => None,
    })
}
