//! One attempt of one node, from making or adopting its Job to its last event.

use std::convert::Infallible;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, PostParams, Preconditions};
use quintet_contract::task::WorkerEvent;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::follow::{Followed, Follower};
use super::job::{self, JobEnd};
use super::log::LogReader;
use super::pod::{PodEnd, PodState, StartObstacle};
use super::retry::{ApiFailure, Retries, send};
use super::verdict::{JobSeen, Over, failed, last_event, not_started};
use super::watch::{PodSeen, PodWatch};
use super::{Execution, Kubernetes, Reported};

/// How long it is tried to remove a Job from an API that does not answer.
const REMOVE_TIME: Duration = Duration::from_secs(300);

/// An attempt that is being run.
pub(super) struct Running<'a> {
    pub(super) kubernetes: &'a Kubernetes,
    pub(super) execution: &'a Execution,
    /// The name of its Job.
    pub(super) name: &'a str,
    pub(super) events: &'a mpsc::Sender<Reported>,
    pub(super) cancel: &'a CancellationToken,
}

/// Whose Job there is.
enum Claim {
    /// Ours.
    Job(Job),
    /// None, and there will be none.
    Refused(WorkerEvent),
    Canceled,
}

impl Running<'_> {
    /// Runs it to its end.
    pub(super) async fn run(&self) {
        let mut reader = LogReader::new(self.execution.after);
        let last = match self.claim().await {
            Claim::Canceled => return self.remove(None).await,
            Claim::Refused(event) => event,
            Claim::Job(job) => tokio::select! {
                biased;
                () = self.cancel.cancelled() => return self.remove(job.metadata.uid).await,
                () = self.events.closed() => return,
                last = self.supervise(&job, &mut reader) => last,
            },
        };
        let seq = reader.next_number();
        // The receiver may be gone.
        let _ = self.events.send(Reported { seq, event: last }).await;
    }

    /// Makes the Job, or finds it.
    async fn claim(&self) -> Claim {
        let wanted = match job::job(self.execution, &self.kubernetes.config) {
            Ok(wanted) => wanted,
            Err(unfit) => return Claim::Refused(failed(unfit.to_string(), false)),
        };
        let mut retries = Retries::new(self.kubernetes.pace);
        while !self.cancel.is_cancelled() {
            // A request that may create a Job is not broken off by a cancel: what it made could not be removed.
            let api_failure = match self.make_or_find(&wanted).await {
                Ok(Some(job)) if job::is_of(&job, self.execution) => return Claim::Job(job),
                Ok(Some(_)) => {
                    let error = format!("a Job {} that is not of this run exists", self.name);
                    return Claim::Refused(failed(error, false));
                }
                Ok(None) if self.execution.after > 0 => {
                    let error = "its Job was removed from the cluster before its end was seen";
                    return Claim::Refused(failed(error, true));
                }
                // It was removed between two requests.
                Ok(None) => continue,
                Err(api_failure) => api_failure,
            };
            if let Some(why) = api_failure.refusal() {
                let error = format!("Kubernetes refused the Job: {why}");
                return Claim::Refused(failed(error, api_failure.is_forbidden()));
            }
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => {}
                () = retries.wait("make job", self.name, &api_failure) => {}
            }
        }
        Claim::Canceled
    }

    /// An attempt of which something was seen already is not begun a second time.
    async fn make_or_find(&self, wanted: &Job) -> Result<Option<Job>, ApiFailure> {
        if self.execution.after == 0 {
            let params = PostParams::default();
            match send(self.kubernetes.jobs.create(&params, wanted)).await {
                Err(api_failure) if api_failure.is_already_there() => {}
                answer => return answer.map(Some),
            }
        }
        send(self.kubernetes.jobs.get_opt(self.name)).await
    }

    /// Follows the Job to its end.
    async fn supervise(&self, job: &Job, reader: &mut LogReader) -> WorkerEvent {
        let kubernetes = self.kubernetes;
        let uid = job.metadata.uid.clone().unwrap_or_default();
        let selector = format!("batch.kubernetes.io/controller-uid={uid}");
        let (pod, pod_seen) = watch::channel(PodSeen::default());
        let (job, job_seen) = watch::channel(seen(job));
        let watching = PodWatch {
            job: self.name,
            pods: &kubernetes.pods,
            selector: &selector,
            seen: &pod,
            pace: kubernetes.pace,
        };
        let mut follower = Follower {
            kubernetes,
            job: self.name,
            events: self.events,
            seen: pod_seen.clone(),
            reader,
        };
        let followed = tokio::select! {
            biased;
            followed = follower.run() => followed,
            () = self.overdue(job_seen, &pod_seen) => Followed::Lost,
            never = watching.run() => match never {},
            never = self.poll(&uid, &job) => match never {},
        };
        match followed {
            Followed::Ended { pod, torn } => {
                self.conclude(&uid, Some(pod), torn, follower.reader).await
            }
            Followed::Lost => self.conclude(&uid, None, None, follower.reader).await,
            Followed::Stuck { error, retryable } => {
                self.remove(Some(uid)).await;
                failed(error, retryable)
            }
            Followed::NotStarted(obstacle) => self.give_up(uid, obstacle).await,
        }
    }

    /// A program that has not started must not start later, beside its next attempt.
    async fn give_up(&self, uid: String, obstacle: Option<StartObstacle>) -> WorkerEvent {
        self.remove(Some(uid)).await;
        not_started(self.kubernetes.config.start_timeout, obstacle)
    }

    /// Polls the Job, and sends a heartbeat while it exists.
    async fn poll(&self, uid: &str, job: &watch::Sender<JobSeen>) -> Infallible {
        let pace = self.kubernetes.pace;
        let wanted = self.execution.heartbeat.unwrap_or(pace.poll);
        let mut retries = Retries::new(pace);
        loop {
            sleep(wanted.min(pace.poll)).await;
            match self.get_job(uid).await {
                Ok(now) => {
                    retries.succeeded();
                    let is_alive = now == JobSeen::Active;
                    job.send_replace(now);
                    if is_alive {
                        let event = WorkerEvent::Heartbeat;
                        let _ = self.events.send(Reported { seq: 0, event }).await;
                    }
                }
                Err(api_failure) => retries.wait("get job", self.name, &api_failure).await,
            }
        }
    }

    async fn get_job(&self, uid: &str) -> Result<JobSeen, ApiFailure> {
        let job = send(self.kubernetes.jobs.get_opt(self.name)).await?;
        let ours = job.filter(|job| job.metadata.uid.as_deref() == Some(uid));
        Ok(ours.as_ref().map_or(JobSeen::Missing, seen))
    }

    /// Ends when the Job ended and its pod does not: its node is dead, or its outcome stays unknown.
    async fn overdue(&self, mut job: watch::Receiver<JobSeen>, pod: &watch::Receiver<PodSeen>) {
        // The sender exists as long as this future.
        let _ = job.wait_for(|job| *job != JobSeen::Active).await;
        sleep(self.kubernetes.config.cancel_grace + self.kubernetes.pace.settle).await;
        if matches!(pod.borrow().state, PodState::Ended(_)) {
            // Only its log remains to be read, which has its own end.
            std::future::pending::<()>().await;
        }
    }

    async fn conclude(
        &self,
        uid: &str,
        pod: Option<PodEnd>,
        torn: Option<String>,
        reader: &LogReader,
    ) -> WorkerEvent {
        // Only the Job knows why a pod was deleted.
        let is_explained = pod.as_ref().is_some_and(|pod| !pod.is_deleted);
        let job = if is_explained {
            JobSeen::Active
        } else {
            self.settled(uid).await
        };
        last_event(Over {
            pod,
            job,
            failure: reader.failure().cloned(),
            torn,
            timeout: self.execution.timeout,
            memory_limit: self.kubernetes.config.memory_limit.to_string(),
        })
    }

    /// The Job once it ended, or its state after a while.
    async fn settled(&self, uid: &str) -> JobSeen {
        let pace = self.kubernetes.pace;
        let mut retries = Retries::new(pace);
        let deadline = Instant::now() + pace.settle;
        while Instant::now() < deadline {
            match self.get_job(uid).await {
                Ok(JobSeen::Active) => sleep(pace.retry_min).await,
                Ok(seen) => return seen,
                Err(api_failure) => {
                    let wait = retries.wait("get job", self.name, &api_failure);
                    tokio::select! {
                        biased;
                        () = wait => {}
                        () = sleep_until(deadline) => {}
                    }
                }
            }
        }
        JobSeen::Active
    }

    /// Removes the Job and its pod: the program gets SIGTERM, and is killed after the grace.
    async fn remove(&self, uid: Option<String>) {
        let params = DeleteParams {
            preconditions: uid.map(|uid| Preconditions {
                uid: Some(uid),
                resource_version: None,
            }),
            ..DeleteParams::foreground()
        };
        let mut retries = Retries::new(self.kubernetes.pace);
        let removing = async {
            loop {
                let Err(api_failure) = send(self.kubernetes.jobs.delete(self.name, &params)).await
                else {
                    return;
                };
                // Gone, or its name is another one's now.
                if api_failure.is_not_found() || api_failure.is_conflict() {
                    return;
                }
                if api_failure.refusal().is_some() {
                    let error = &api_failure as &dyn std::error::Error;
                    error!(
                        job = self.name,
                        error, "the job cannot be removed and continues"
                    );
                    return;
                }
                retries.wait("remove job", self.name, &api_failure).await;
            }
        };
        if timeout(REMOVE_TIME, removing).await.is_err() {
            error!(
                job = self.name,
                "the job could not be removed in time and continues"
            );
        }
    }
}

fn seen(job: &Job) -> JobSeen {
    job::end(job).map_or(JobSeen::Active, |end: JobEnd| JobSeen::Over(end))
}
