//! The scheduler against a real NATS and a scripted agent on the public link.

use std::time::Duration;

use futures::future::join_all;
use quintet_bus::{Bus, BusConfig, new_job_id, with_traceparent};
use quintet_contract::JsonObject;
use quintet_contract::agent::{ActiveJob, AgentCommand, AgentReport, CommandReply, Hello};
use quintet_contract::api::{JobRef, PutTemplate, SubmitBatch, SubmitJob, TemplateRef};
use quintet_contract::bucket::{Jobs, Keys};
use quintet_contract::error::{ErrorCode, Retry};
use quintet_contract::id::{AgentId, HolderId, IdempotencyKey, JobId, PoolName};
use quintet_contract::job::{Job, JobAttempt, JobStatus, RestartPolicy};
use quintet_contract::subject::{
    GetJob, GetTemplate, PutStoredTemplate, StopJob, SubmitJobBatch, SubmitJobs,
};
use quintet_scheduler::{SchedulerConfig, run};
use quintet_service::health::Health;
use quintet_testkit::{Nats, wait_for};
use quintet_worker::{AgentIdentity, AgentLink, LinkEvent, LinkHandle, LinkOptions};
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

const TIMEOUT: Duration = Duration::from_secs(20);

async fn connect(nats: &Nats) -> Bus {
    let config = BusConfig::open(nats.url(), "test");
    let bus = Bus::connect(config).await.unwrap();
    bus.ensure_topology().await.unwrap();
    bus
}

fn pool() -> PoolName {
    PoolName::default()
}

/// A scheduler in this process.
struct Scheduler {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Scheduler {
    async fn start(nats: &Nats, holder: &str) -> Self {
        let mut config = SchedulerConfig::new(HolderId::parse(holder).unwrap());
        config.job_retention = Duration::from_secs(600);
        let (bus, shutdown) = (connect(nats).await, CancellationToken::new());
        let health = Health::new("test").component("scheduler");
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { run(config, bus, health, stop).await.unwrap() });
        Self { shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }

    /// As by kill -9: without a goodbye.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// An agent that takes everything and runs it until it is commanded to stop.
struct Agent {
    link: LinkHandle,
    _work: JoinSet<()>,
}

impl Agent {
    fn join(bus: &Bus, name: &str, slots: u32) -> Self {
        let identity = AgentIdentity {
            agent: AgentId::parse(name).unwrap(),
            pool: pool(),
        };
        let hello = Hello {
            name: String::new(),
            version: "1".to_owned(),
            capabilities: json!({"slots": slots, "selfFence": true})
                .as_object()
                .cloned()
                .unwrap(),
            drain: false,
            active_jobs: Vec::new(),
            meta: JsonObject::new(),
        };
        let (link, mut events) =
            AgentLink::open(bus.clone(), identity, hello, LinkOptions::default());
        let mut work = JoinSet::new();
        let agent = link.clone();
        work.spawn(async move {
            let mut jobs: Vec<ActiveJob> = Vec::new();
            while let Some(event) = events.recv().await {
                match event {
                    LinkEvent::Assigned { assignment, .. } => {
                        let (job_id, attempt) = (assignment.job_id, Some(assignment.attempt));
                        jobs.push(ActiveJob { job_id: job_id.clone(), attempt, status: JobStatus::Accepted });
                        agent.set_jobs(jobs.clone());
                        let ack = AgentReport::AssignAck { job_id, attempt, accepted: true, reason: None };
                        agent.report(ack).await.unwrap();
                    }
                    LinkEvent::Confirmed(JobAttempt { job_id, attempt }) => {
                        let status = JobStatus::Running;
                        let update = AgentReport::JobUpdate { job_id, attempt: Some(attempt), status };
                        agent.report(update).await.unwrap();
                    }
                    LinkEvent::Command { command: AgentCommand::Stop { job_id, attempt, .. }, responder, .. } => {
                        responder.ok(&CommandReply::default()).await;
                        let (attempt, status) = (Some(attempt), JobStatus::Stopped);
                        let end = AgentReport::JobStopped { job_id, attempt, status, error: None };
                        agent.report(end).await.unwrap();
                    }
                    LinkEvent::Stored(reports) => {
                        let ended = |id: &JobId| {
                            reports.iter().any(
                                |report| matches!(report, AgentReport::JobStopped { job_id, .. } if job_id == id),
                            )
                        };
                        jobs.retain(|job| !ended(&job.job_id));
                        agent.set_jobs(jobs.clone());
                    }
                    _ => {}
                }
            }
        });
        Self { link, _work: work }
    }
}

fn submission() -> SubmitJob {
    let config = json!({"executor": "noop"}).as_object().cloned();
    SubmitJob {
        job_id: Some(new_job_id()),
        inline_config: config,
        ..SubmitJob::default()
    }
}

async fn submit(bus: &Bus, submit: &SubmitJob) -> Job {
    let subject = SubmitJobs { pool: pool() };
    bus.request_until(&subject, submit, TIMEOUT)
        .await
        .unwrap()
        .job
}

async fn get(bus: &Bus, id: &JobId) -> Job {
    let subject = GetJob { pool: pool() };
    bus.request_until(&subject, &JobRef { id: id.clone() }, TIMEOUT)
        .await
        .unwrap()
        .job
}

async fn stop(bus: &Bus, id: &JobId) {
    let subject = StopJob { pool: pool() };
    bus.request_until(&subject, &JobRef { id: id.clone() }, TIMEOUT)
        .await
        .unwrap();
}

async fn until(bus: &Bus, id: &JobId, wanted: JobStatus) -> Job {
    let what = format!("{wanted} of {id}");
    let job = wait_for(&what, TIMEOUT, async || {
        let job = get(bus, id).await;
        if job.status == wanted {
            Ok(job)
        } else {
            Err(format!("{:?}", job.timeline))
        }
    });
    job.await.unwrap()
}

#[tokio::test]
async fn the_record_of_a_job_names_the_trace_of_its_request_though_nothing_exports_traces() {
    let nats = Nats::start().await.unwrap();
    let bus = connect(&nats).await;
    let scheduler = Scheduler::start(&nats, "one").await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let submission = submission();
    let submitting = submit(&bus, &submission);
    let named = with_traceparent(Some(parent.to_owned()), submitting).await;
    let unnamed = submit(&bus, &self::submission()).await;
    let trace = async |job: &Job| {
        let stored = bus.bucket::<Jobs>().get(&job.id).await.unwrap();
        stored.unwrap().record.trace_id.unwrap().as_str().to_owned()
    };
    let named = trace(&named).await;
    assert_eq!(named, "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_ne!(trace(&unnamed).await, named);
    scheduler.stop().await;
}

#[tokio::test]
async fn a_job_runs_and_stops_and_every_status_is_in_its_record() {
    let nats = Nats::start().await.unwrap();
    let bus = connect(&nats).await;
    let scheduler = Scheduler::start(&nats, "one").await;
    let _agent = Agent::join(&bus, "a", 1);
    let job = submit(&bus, &submission()).await;
    assert_eq!(job.status, JobStatus::Pending);
    until(&bus, &job.id, JobStatus::Running).await;
    stop(&bus, &job.id).await;
    until(&bus, &job.id, JobStatus::Stopped).await;
    let stored = bus
        .bucket::<Jobs>()
        .get(&job.id)
        .await
        .unwrap()
        .unwrap()
        .record
        .job;
    let story: Vec<String> = stored
        .timeline
        .iter()
        .map(|entry| entry.status.to_string())
        .collect();
    assert_eq!(
        story.join(" "),
        "CREATED PENDING ASSIGNED ACCEPTED RUNNING STOPPING STOPPED"
    );
    scheduler.stop().await;
}

#[tokio::test]
async fn a_hand_over_and_a_kill_lose_nothing_and_running_jobs_stay_running() {
    let nats = Nats::start().await.unwrap();
    let bus = connect(&nats).await;
    let first = Scheduler::start(&nats, "first").await;
    let _agent = Agent::join(&bus, "a", 4);
    let running = submit(&bus, &submission()).await;
    until(&bus, &running.id, JobStatus::Running).await;
    let second = Scheduler::start(&nats, "second").await;
    first.stop().await;
    let third = Scheduler::start(&nats, "third").await;
    let after_hand_over = submit(&bus, &submission()).await;
    until(&bus, &after_hand_over.id, JobStatus::Running).await;
    second.kill().await;
    let after_kill = submit(&bus, &submission()).await;
    until(&bus, &after_kill.id, JobStatus::Running).await;
    for id in [&running.id, &after_hand_over.id] {
        let job = get(&bus, id).await;
        assert_eq!(
            (job.status, job.attempt.0),
            (JobStatus::Running, 1),
            "{:?}",
            job.timeline
        );
    }
    third.stop().await;
}

#[tokio::test]
async fn one_key_is_one_job_when_twenty_clients_send_it_and_the_scheduler_is_killed() {
    let nats = Nats::start().await.unwrap();
    let bus = connect(&nats).await;
    let first = Scheduler::start(&nats, "first").await;
    let second = Scheduler::start(&nats, "second").await;
    let keyed = || SubmitJob {
        idempotency_key: IdempotencyKey::parse("the key").ok(),
        ..submission()
    };
    let clients = (0..20).map(|_| {
        let (bus, keyed) = (bus.clone(), keyed());
        tokio::spawn(async move { submit(&bus, &keyed).await.id })
    });
    let clients: Vec<_> = clients.collect();
    first.kill().await;
    let ids = join_all(clients).await;
    let ids: Vec<JobId> = ids.into_iter().map(Result::unwrap).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    // It ends, and the key keeps standing for it.
    stop(&bus, &ids[0]).await;
    assert_eq!(submit(&bus, &keyed()).await.status, JobStatus::Canceled);
    let key = IdempotencyKey::parse("the key").unwrap();
    assert!(
        bus.bucket::<Keys>()
            .get(&key)
            .await
            .unwrap()
            .unwrap()
            .record
            .ended
    );
    second.stop().await;
}

#[tokio::test]
async fn a_batch_fills_all_slots_and_no_more() {
    let nats = Nats::start().await.unwrap();
    let bus = connect(&nats).await;
    let scheduler = Scheduler::start(&nats, "one").await;
    let _agents = [Agent::join(&bus, "a", 8), Agent::join(&bus, "b", 4)];
    let batch = SubmitBatch {
        jobs: (0..20).map(|_| submission()).collect(),
    };
    let subject = SubmitJobBatch { pool: pool() };
    let reply = bus.request_until(&subject, &batch, TIMEOUT).await.unwrap();
    let ids: Vec<JobId> = reply
        .results
        .into_iter()
        .map(|entry| entry.accepted.unwrap().job.id)
        .collect();
    let full = wait_for("twelve running jobs", TIMEOUT, async || {
        let jobs = join_all(ids.iter().map(|id| get(&bus, id))).await;
        let running: Vec<_> = jobs
            .iter()
            .filter(|job| job.status == JobStatus::Running)
            .collect();
        let on_a = running.iter().filter(|job| {
            job.agent_id
                .as_ref()
                .is_some_and(|agent| agent.as_str() == "a")
        });
        match (running.len(), on_a.count()) {
            (12, 8) => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    });
    full.await.unwrap();
    scheduler.stop().await;
}

#[tokio::test]
async fn an_agent_that_sends_goodbye_gives_its_restartable_jobs_away() {
    let nats = Nats::start().await.unwrap();
    let bus = connect(&nats).await;
    let scheduler = Scheduler::start(&nats, "one").await;
    let first = Agent::join(&bus, "a", 1);
    let restartable = SubmitJob {
        restart_policy: Some(RestartPolicy::OnFailure),
        ..submission()
    };
    let job = submit(&bus, &restartable).await;
    until(&bus, &job.id, JobStatus::Running).await;
    first.link.goodbye("leaving").await.unwrap();
    until(&bus, &job.id, JobStatus::Unknown).await;
    let _second = Agent::join(&bus, "b", 1);
    let job = until(&bus, &job.id, JobStatus::Running).await;
    assert_eq!((job.attempt.0, job.agent_id.unwrap().as_str()), (2, "b"));
    scheduler.stop().await;
}

#[tokio::test]
async fn templates_are_stored_and_used_by_jobs_submitted_after() {
    let nats = Nats::start().await.unwrap();
    let bus = connect(&nats).await;
    let scheduler = Scheduler::start(&nats, "one").await;
    let template = json!({"id": "wait", "executor": "noop", "config": {"durationMs": "{{ms}}"}});
    let put = PutTemplate {
        template: serde_json::from_value(template).unwrap(),
    };
    let reply = bus
        .request_until(&PutStoredTemplate {}, &put, TIMEOUT)
        .await
        .unwrap();
    assert!(reply.created && reply.template.created_at.is_some());
    let id = reply.template.id;
    let found = bus
        .request(&GetTemplate {}, &TemplateRef { id: id.clone() }, TIMEOUT)
        .await
        .unwrap();
    assert_eq!(found.template.executor, "noop");
    let without = SubmitJob {
        inline_config: None,
        template_id: Some(id),
        ..submission()
    };
    // The leader learns of the template by its watch.
    let refused = wait_for("a refusal for want of params", TIMEOUT, async || {
        let wanted = SubmitJob {
            job_id: Some(new_job_id()),
            ..without.clone()
        };
        match bus
            .request_until(&SubmitJobs { pool: pool() }, &wanted, TIMEOUT)
            .await
        {
            Err(error) => Ok(error.to_reply()),
            Ok(reply) => Err(format!("{:?}", reply.job.status)),
        }
    });
    assert_eq!(refused.await.unwrap().details["param"], "ms");
    scheduler.stop().await;
}

#[tokio::test]
async fn a_job_whose_record_nats_rejects_is_refused_alone_and_nothing_is_reloaded() {
    let nats = Nats::options().config("max_payload: 65536\n");
    let nats = nats.start().await.unwrap();
    let bus = connect(&nats).await;
    let scheduler = Scheduler::start(&nats, "one").await;
    let _agent = Agent::join(&bus, "a", 4);
    let running = submit(&bus, &submission()).await;
    until(&bus, &running.id, JobStatus::Running).await;
    // It fits a message as a request; the record has more fields.
    let params = json!({"text": "x".repeat(64_900)}).as_object().cloned();
    let large = SubmitJob {
        params,
        ..submission()
    };
    let keyed = SubmitJob {
        job_id: Some(new_job_id()),
        idempotency_key: IdempotencyKey::parse("k").ok(),
        ..large.clone()
    };
    let subject = SubmitJobs { pool: pool() };
    for submit in [&large, &keyed] {
        let refused = bus.request(&subject, submit, TIMEOUT).await.unwrap_err();
        let refused = refused.to_reply();
        assert_eq!(
            (refused.code, refused.retry),
            (ErrorCode::PayloadTooLarge, Retry::Never),
            "{refused}"
        );
        assert!(refused.error.contains("does not store"), "{refused}");
    }
    // Answered at the first attempt: a scheduler that reloads answers nothing.
    let next = bus.request(&subject, &submission(), TIMEOUT).await.unwrap();
    until(&bus, &next.job.id, JobStatus::Running).await;
    let id = large.job_id.unwrap();
    let refused = bus
        .request(&GetJob { pool: pool() }, &JobRef { id }, TIMEOUT)
        .await
        .unwrap_err();
    assert_eq!(refused.to_reply().code, ErrorCode::NotFound);
    assert_eq!(get(&bus, &running.id).await.status, JobStatus::Running);
    scheduler.stop().await;
}
