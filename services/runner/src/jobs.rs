//! Nodes of kind `job`: a job for the agents, submitted under an id that follows from the node, and followed to its end.

use futures::StreamExt;
use quintet_bus::{Bus, Change, RequestError, WatchFrom, now};
use quintet_contract::JsonObject;
use quintet_contract::api::{JobRef, SubmitJob};
use quintet_contract::bucket::Jobs;
use quintet_contract::cause::CausedBy;
use quintet_contract::error::Retry;
use quintet_contract::id::{JobId, NodeId, PoolName, RunId};
use quintet_contract::job::{Attempt, Job, JobStatus};
use quintet_contract::subject::{StopJob, SubmitJobs};
use quintet_contract::task::WorkerEvent;
use quintet_service::telemetry::chain;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How long a scheduler may take to answer, until it is asked again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Wait before a watch that ended is restarted.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Submits the job, or finds it submitted, and reports its end. A cancelled one is stopped, unless it was another's before.
pub(crate) async fn execute(
    bus: Bus,
    (run, node, attempt): (RunId, NodeId, Attempt),
    job: JsonObject,
    events: mpsc::Sender<WorkerEvent>,
    cancel: CancellationToken,
) {
    let id = job_id(run, &node, attempt);
    let submit = match submission(run, &node, &id, job) {
        Ok(submit) => submit,
        Err(error) => return fail(&events, format!("this is no job: {error}"), false).await,
    };
    let pool = submit.pool.clone().unwrap_or_default();
    let outcome = tokio::select! {
        biased;
        () = cancel.cancelled() => None,
        outcome = follow(&bus, &pool, &submit, &events) => Some(outcome),
    };
    match outcome {
        Some(Ok(job)) => ended(&events, job).await,
        Some(Err(error)) => fail(&events, error, false).await,
        None => {
            let subject = StopJob { pool };
            if let Err(error) = bus
                .request_until(&subject, &JobRef { id }, REQUEST_TIMEOUT)
                .await
            {
                debug!(%run, %node, error = %chain(&error), "cannot stop the job of a node");
            }
        }
    }
}

/// The submission of a node's job, which names the node as its cause.
fn submission(
    run: RunId,
    node: &NodeId,
    id: &JobId,
    job: JsonObject,
) -> Result<SubmitJob, serde_json::Error> {
    let submit: SubmitJob = serde_json::from_value(job.into())?;
    Ok(SubmitJob {
        job_id: Some(id.clone()),
        requested_by: Some(format!("run {run}")),
        caused_by: Some(CausedBy::node(run, node)),
        ..submit
    })
}

/// One node, one attempt, one job, however often it is requested.
fn job_id(run: RunId, node: &NodeId, attempt: Attempt) -> JobId {
    let digest = Sha256::digest(format!("{run}/{node}/{attempt}").as_bytes());
    let short: String = digest
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    JobId::parse(format!("run-{run}-{short}")).expect("hexadecimal digits are a name")
}

async fn follow(
    bus: &Bus,
    pool: &PoolName,
    submit: &SubmitJob,
    events: &mpsc::Sender<WorkerEvent>,
) -> Result<Job, String> {
    let id = submitted(bus, pool, submit).await?;
    let data = json!({"jobId": id, "at": now()});
    let data = data.as_object().cloned().unwrap_or_default();
    let _ = events.send(WorkerEvent::Progress { data }).await;
    let jobs = bus.bucket::<Jobs>();
    loop {
        // First watch, then look: what happens in between is seen twice rather than not at all.
        let Ok(mut changes) = jobs.watch_of(&id, WatchFrom::New).await else {
            sleep(RETRY_DELAY).await;
            continue;
        };
        match jobs.get(&id).await {
            Ok(Some(found)) if found.record.job.status.is_final() => return Ok(found.record.job),
            Ok(None) => return Err("the job is no longer known".to_owned()),
            Ok(Some(_)) | Err(_) => {}
        }
        while let Some(Ok(change)) = changes.next().await {
            match change {
                Change::Put { record, .. } if record.job.status.is_final() => return Ok(record.job),
                Change::Gone { .. } => return Err("the job was deleted".to_owned()),
                Change::Put { .. } | Change::UpToDate => {}
            }
        }
        sleep(RETRY_DELAY).await;
    }
}

/// Submits the job; its id, which is another one's where the node's `idempotencyKey` was seen before.
async fn submitted(bus: &Bus, pool: &PoolName, submit: &SubmitJob) -> Result<JobId, String> {
    let subject = SubmitJobs { pool: pool.clone() };
    loop {
        match bus.request_until(&subject, submit, REQUEST_TIMEOUT).await {
            Ok(reply) => return Ok(reply.job.id),
            Err(RequestError::Refused(reply)) if reply.retry == Retry::Never => {
                return Err(reply.error);
            }
            Err(error) => {
                debug!(%pool, error = %chain(&error), "cannot submit the job of a node yet");
                sleep(RETRY_DELAY).await;
            }
        }
    }
}

async fn ended(events: &mpsc::Sender<WorkerEvent>, job: Job) {
    match job.status {
        JobStatus::Stopped => {
            let output = json!({"jobId": job.id, "agentId": job.agent_id, "streamMetadata": job.stream_metadata});
            let output = output.as_object().cloned();
            let _ = events.send(WorkerEvent::Succeeded { output }).await;
        }
        status => {
            let reason = job
                .error
                .map_or_else(|| status.to_string(), |error| error.message);
            fail(
                events,
                format!("job {} ended {status}: {reason}", job.id),
                true,
            )
            .await;
        }
    }
}

async fn fail(events: &mpsc::Sender<WorkerEvent>, error: String, retryable: bool) {
    let _ = events.send(WorkerEvent::Failed { error, retryable }).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_of_a_node_names_that_node_as_its_cause() {
        let (run, node) = (
            RunId::from_uuid(uuid::Uuid::from_u128(1)),
            NodeId::parse("each[0].step").unwrap(),
        );
        let id = job_id(run, &node, Attempt(1));
        // What the plan claims does not count.
        let job = json!({"inlineConfig": {}, "causedBy": {"kind": "job", "id": "other"}});
        let submit = submission(run, &node, &id, job.as_object().cloned().unwrap()).unwrap();
        assert_eq!(submit.caused_by, Some(CausedBy::node(run, &node)));
        assert_eq!(submit.job_id, Some(id));
    }
}
