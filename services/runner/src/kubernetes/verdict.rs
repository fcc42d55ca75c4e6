//! Verdict: the end of a Job as the last event of an attempt. Pure.

use std::time::Duration;

use humantime::format_duration;
use quintet_contract::task::WorkerEvent;
use quintet_worker::program::EXIT_RETRYABLE;

use super::job::{DEADLINE_EXCEEDED, JobEnd};
use super::log::Failure;
use super::pod::{ContainerEnd, PodEnd, StartObstacle, describe};

/// Everything that is known when an attempt is over.
#[derive(Debug, Default)]
pub(super) struct Over {
    /// How the pod ended; none where that was not seen.
    pub(super) pod: Option<PodEnd>,
    /// The state of the Job.
    pub(super) job: JobSeen,
    /// The program's own error.
    pub(super) failure: Option<Failure>,
    /// Why the log was not read to its end.
    pub(super) torn: Option<String>,
    /// The node's timeout.
    pub(super) timeout: Option<Duration>,
    /// The program's memory limit.
    pub(super) memory_limit: String,
}

/// A Job as it was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum JobSeen {
    /// It has not ended.
    #[default]
    Active,
    /// It ended.
    Over(JobEnd),
    /// It does not exist any more.
    Missing,
}

/// A failure in one sentence.
pub(super) fn failed(error: impl Into<String>, retryable: bool) -> WorkerEvent {
    let error = error.into();
    WorkerEvent::Failed { error, retryable }
}

/// The last event.
pub(super) fn last_event(over: Over) -> WorkerEvent {
    // A program that was stopped may well exit with 0: then the Job knows better.
    match &over.job {
        JobSeen::Over(JobEnd::Failed { reason, .. }) if reason == DEADLINE_EXCEEDED => {
            return failed(too_slow(over.timeout), true);
        }
        JobSeen::Missing if over.pod.as_ref().is_none_or(|pod| pod.is_deleted) => {
            return failed("its Job was removed from the cluster", true);
        }
        JobSeen::Active | JobSeen::Over(_) | JobSeen::Missing => {}
    }
    let Some(pod) = over.pod else {
        return without_pod(&over.job, over.torn);
    };
    let is_failed_job = matches!(over.job, JobSeen::Over(JobEnd::Failed { .. }));
    let end = match pod.container {
        Some(end) if end.exit_code == 0 && !is_failed_job => {
            return match over.torn {
                Some(why) => failed(torn(&why), true),
                None => WorkerEvent::Succeeded { output: None },
            };
        }
        other => other,
    };
    if let Some(why) = pod.disruption {
        return failed(format!("the cluster ended the program: {why}"), true);
    }
    if pod.is_deleted {
        return failed("its pod was deleted while the program ran", true);
    }
    match end {
        Some(end) => ended(end, over.failure, &over.memory_limit),
        None => without_pod(&over.job, over.torn),
    }
}

fn ended(end: ContainerEnd, failure: Option<Failure>, memory_limit: &str) -> WorkerEvent {
    let message = || describe(&end.reason, end.message.as_deref());
    if end.is_out_of_memory() {
        let error = format!(
            "the program was killed because it took more memory than its limit of {memory_limit}"
        );
        return failed(error, false);
    }
    if end.is_no_start() {
        return failed(
            format!("the program could not be started: {}", message()),
            false,
        );
    }
    if end.exit_code == 0 {
        return failed("the program was stopped by the cluster", true);
    }
    let failure = failure.unwrap_or_default();
    let described = failure.message;
    let by_code = end.exit_code == EXIT_RETRYABLE;
    failed(
        described.unwrap_or_else(|| format!("the program exited with status {}", end.exit_code)),
        failure.retryable.unwrap_or(by_code),
    )
}

/// The end of a Job whose pod was not seen ending.
fn without_pod(job: &JobSeen, why: Option<String>) -> WorkerEvent {
    match job {
        JobSeen::Over(JobEnd::Complete) => {
            let why = why.unwrap_or_else(|| "its pod is gone".to_owned());
            failed(torn(&why), true)
        }
        JobSeen::Over(JobEnd::Failed { reason, message }) => {
            let why = describe(reason, message.as_deref());
            failed(format!("its Job failed: {why}"), true)
        }
        JobSeen::Active | JobSeen::Missing => failed("its pod was removed from the cluster", true),
    }
}

fn torn(why: &str) -> String {
    format!("the program ended well, and its output could not be read to the end: {why}")
}

fn too_slow(timeout: Option<Duration>) -> String {
    match timeout {
        Some(timeout) => format!(
            "the program took longer than its timeout of {}",
            format_duration(timeout)
        ),
        None => "the program took longer than it was given".to_owned(),
    }
}

/// A program that was not started within the time that the cluster has for it.
pub(super) fn not_started(within: Duration, obstacle: Option<StartObstacle>) -> WorkerEvent {
    let within = format_duration(within);
    let error = match obstacle {
        Some(StartObstacle::Unschedulable(why)) => {
            format!("no node of the cluster could take the program within {within}: {why}")
        }
        Some(StartObstacle::Other(why)) => {
            format!("the program did not start within {within}: {why}")
        }
        None => format!(
            "the cluster made no pod for the program within {within}; `kubectl describe job` shows why"
        ),
    };
    failed(error, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(exit_code: i32, reason: &str) -> Option<PodEnd> {
        Some(PodEnd {
            container: Some(ContainerEnd {
                exit_code,
                reason: reason.to_owned(),
                message: Some("exec: \"x\": not found".to_owned()),
            }),
            ..PodEnd::default()
        })
    }

    fn job_failed(reason: &str) -> JobSeen {
        JobSeen::Over(JobEnd::Failed {
            reason: reason.to_owned(),
            message: Some("Job has failed".to_owned()),
        })
    }

    #[test]
    fn every_end_has_its_sentence() {
        let evicted = || {
            Some(PodEnd {
                disruption: Some("Evicted: low on memory".to_owned()),
                ..PodEnd::default()
            })
        };
        let deleted = || {
            let ended = container(143, "Error");
            ended.map(|pod| PodEnd {
                is_deleted: true,
                ..pod
            })
        };
        let complete = || JobSeen::Over(JobEnd::Complete);
        let cases = [
            (
                container(1, "Error"),
                JobSeen::Active,
                None,
                "the program exited with status 1",
                false,
            ),
            (
                container(3, "Error"),
                JobSeen::Active,
                None,
                "the program exited with status 3",
                true,
            ),
            (
                container(137, "OOMKilled"),
                JobSeen::Active,
                None,
                "the program was killed because it took more memory than its limit of 1Gi",
                false,
            ),
            (
                container(128, "StartError"),
                JobSeen::Active,
                None,
                "the program could not be started: StartError: exec: \"x\": not found",
                false,
            ),
            (
                container(0, "Completed"),
                job_failed("DeadlineExceeded"),
                None,
                "the program took longer than its timeout of 5s",
                true,
            ),
            (
                container(0, "Completed"),
                job_failed("BackoffLimitExceeded"),
                None,
                "the program was stopped by the cluster",
                true,
            ),
            (
                container(0, "Completed"),
                complete(),
                Some("500"),
                "the program ended well, and its output could not be read to the end: 500",
                true,
            ),
            (
                evicted(),
                JobSeen::Active,
                None,
                "the cluster ended the program: Evicted: low on memory",
                true,
            ),
            (
                deleted(),
                job_failed("BackoffLimitExceeded"),
                None,
                "its pod was deleted while the program ran",
                true,
            ),
            (
                None,
                JobSeen::Missing,
                None,
                "its Job was removed from the cluster",
                true,
            ),
            (
                None,
                job_failed("BackoffLimitExceeded"),
                None,
                "its Job failed: BackoffLimitExceeded: Job has failed",
                true,
            ),
            (
                None,
                complete(),
                None,
                "the program ended well, and its output could not be read to the end: its pod is gone",
                true,
            ),
            (
                None,
                JobSeen::Active,
                None,
                "its pod was removed from the cluster",
                true,
            ),
        ];
        for (pod, job, torn, error, retryable) in cases {
            let over = Over {
                pod,
                job,
                failure: None,
                torn: torn.map(str::to_owned),
                timeout: Some(Duration::from_secs(5)),
                memory_limit: "1Gi".to_owned(),
            };
            assert_eq!(last_event(over), failed(error, retryable));
        }
    }

    #[test]
    fn only_a_whole_log_is_a_success() {
        let over = Over {
            pod: container(0, "Completed"),
            ..Over::default()
        };
        assert_eq!(last_event(over), WorkerEvent::Succeeded { output: None });
    }
}
