//! The state of the pod of a Job: whether its program runs, how it ended, or why it will not start. Pure.

use k8s_openapi::api::core::v1::{ContainerStateWaiting, ContainerStatus, Pod, PodStatus};

use super::job::CONTAINER;

/// The state of the program of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PodState {
    /// It has not started, and why not, as far as the cluster knows.
    Waiting(Option<StartObstacle>),
    /// It will not start: one sentence.
    Stuck { error: String, retryable: bool },
    /// It runs.
    Running,
    /// It ended.
    Ended(PodEnd),
    /// There was a pod, and it is gone.
    Gone,
}

/// What keeps a program from starting, perhaps for a while only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StartObstacle {
    /// No node has room for it, or may take it.
    Unschedulable(String),
    /// Anything else, such as an image that is being pulled.
    Other(String),
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct PodEnd {
    /// The end of its container; none where it never had one.
    pub(super) container: Option<ContainerEnd>,
    /// Why the cluster ended it, where it was the cluster.
    pub(super) disruption: Option<String>,
    /// The pod was deleted: the Job holds the reason.
    pub(super) is_deleted: bool,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerEnd {
    pub(super) exit_code: i32,
    pub(super) reason: String,
    pub(super) message: Option<String>,
}

impl ContainerEnd {
    /// Whether the program was never started, so that there is no log.
    pub(super) fn is_no_start(&self) -> bool {
        matches!(self.reason.as_str(), "StartError" | "ContainerCannotRun")
    }

    /// Whether it was killed for want of memory.
    pub(super) fn is_out_of_memory(&self) -> bool {
        self.reason == "OOMKilled"
    }
}

/// The state of a pod.
pub(super) fn state(pod: &Pod) -> PodState {
    let Some(status) = &pod.status else {
        return PodState::Waiting(None);
    };
    let is_deleted = pod.metadata.deletion_timestamp.is_some();
    let container = container(status);
    let container_state = container.and_then(|container| container.state.as_ref());
    let terminated = container_state.and_then(|state| state.terminated.as_ref());
    let phase = status.phase.as_deref();
    if terminated.is_some() || matches!(phase, Some("Failed" | "Succeeded")) {
        let container = terminated.map(|terminated| ContainerEnd {
            exit_code: terminated.exit_code,
            reason: terminated.reason.clone().unwrap_or_default(),
            message: terminated.message.clone(),
        });
        return PodState::Ended(PodEnd {
            container,
            disruption: disruption(status),
            is_deleted,
        });
    }
    if container_state.is_some_and(|state| state.running.is_some()) {
        return PodState::Running;
    }
    match container_state.and_then(|state| state.waiting.as_ref()) {
        Some(waiting) => waiting_state(waiting, container),
        None => PodState::Waiting(unschedulable(status)),
    }
}

fn container(status: &PodStatus) -> Option<&ContainerStatus> {
    let containers = status.container_statuses.as_ref()?;
    containers
        .iter()
        .find(|container| container.name == CONTAINER)
}

/// Why the cluster ended a pod: an eviction, a node that shuts down, a more important pod.
fn disruption(status: &PodStatus) -> Option<String> {
    let condition = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True");
    let (reason, message) = match (&status.reason, condition) {
        (Some(reason), _) => (reason.as_str(), status.message.as_deref()),
        (None, Some(condition)) => (
            condition.reason.as_deref().unwrap_or("DisruptionTarget"),
            condition.message.as_deref(),
        ),
        (None, None) => return None,
    };
    Some(describe(reason, message))
}

/// The reasons are those of the kubelet.
fn waiting_state(waiting: &ContainerStateWaiting, container: Option<&ContainerStatus>) -> PodState {
    let reason = waiting.reason.as_deref().unwrap_or("waiting");
    let why = describe(reason, waiting.message.as_deref());
    let image = container.map_or("", |container| container.image.as_str());
    match reason {
        // The kubelet has tried more than once by then and would continue for ever.
        "ImagePullBackOff" => PodState::Stuck {
            error: format!("the image {image} cannot be pulled: {why}"),
            retryable: true,
        },
        "InvalidImageName" | "ErrImageNeverPull" => PodState::Stuck {
            error: format!("the image {image} cannot be used: {why}"),
            retryable: false,
        },
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "CrashLoopBackOff" => PodState::Stuck {
            error: format!("the cluster cannot start the program: {why}"),
            retryable: false,
        },
        _ => PodState::Waiting(Some(StartObstacle::Other(why))),
    }
}

fn unschedulable(status: &PodStatus) -> Option<StartObstacle> {
    let condition = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let reason = condition.reason.as_deref().unwrap_or("Unschedulable");
    let why = describe(reason, condition.message.as_deref());
    Some(StartObstacle::Unschedulable(why))
}

/// A reason and what explains it.
pub(super) fn describe(reason: &str, message: Option<&str>) -> String {
    match message.map(str::trim) {
        Some(message) if !message.is_empty() => format!("{reason}: {message}"),
        _ => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(status: serde_json::Value) -> PodState {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "status": status});
        state(&serde_json::from_value(pod).unwrap())
    }

    fn with_container(container_state: serde_json::Value) -> serde_json::Value {
        json!({"phase": "Pending", "containerStatuses": [{
            "name": "program", "image": "busybox", "imageID": "", "ready": false, "restartCount": 0,
            "state": container_state,
        }]})
    }

    #[test]
    fn a_waiting_pod_shows_its_reason() {
        assert_eq!(read(json!({})), PodState::Waiting(None));
        let no_room = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"},
        ]});
        let why = "Unschedulable: 0/3 nodes are available".to_owned();
        assert_eq!(
            read(no_room),
            PodState::Waiting(Some(StartObstacle::Unschedulable(why)))
        );
        let pulling =
            with_container(json!({"waiting": {"reason": "ErrImagePull", "message": "timeout"}}));
        let why = "ErrImagePull: timeout".to_owned();
        assert_eq!(
            read(pulling),
            PodState::Waiting(Some(StartObstacle::Other(why)))
        );
    }

    #[test]
    fn a_pod_that_will_not_start_is_stuck() {
        let cases = [
            (
                "ImagePullBackOff",
                "the image busybox cannot be pulled: ImagePullBackOff: no",
                true,
            ),
            (
                "InvalidImageName",
                "the image busybox cannot be used: InvalidImageName: no",
                false,
            ),
            (
                "CreateContainerConfigError",
                "the cluster cannot start the program: CreateContainerConfigError: no",
                false,
            ),
        ];
        for (reason, error, retryable) in cases {
            let state = read(with_container(
                json!({"waiting": {"reason": reason, "message": "no"}}),
            ));
            let error = error.to_owned();
            assert_eq!(state, PodState::Stuck { error, retryable });
        }
    }

    #[test]
    fn an_ended_pod_shows_its_exit() {
        let state = read(with_container(
            json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
        ));
        let PodState::Ended(end) = state else {
            panic!("{state:?}");
        };
        assert!(end.container.unwrap().is_out_of_memory());

        let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."});
        let disruption = Some("Evicted: The node was low on resource: memory.".to_owned());
        assert_eq!(
            read(evicted),
            PodState::Ended(PodEnd {
                disruption,
                ..PodEnd::default()
            })
        );
        assert_eq!(
            read(with_container(json!({"running": {}}))),
            PodState::Running
        );
    }
}
