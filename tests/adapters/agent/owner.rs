//! A scheduler reduced to what an agent sees of one, and an agent to go with it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use quintet_agent::{AgentConfig, Error, run};
use quintet_bus::{Bus, BusConfig, now};
use quintet_contract::agent::{
    AgentCommand, AgentReport, AgentSettings, Assignment, CommandReply, Heartbeat, HeartbeatReply,
    ReportsReply, SessionStatus,
};
use quintet_contract::event::{JobEvent, LogStream};
use quintet_contract::id::{AgentId, IdempotencyKey, JobId, PoolName};
use quintet_contract::job::{Attempt, JobAttempt, JobError, JobStatus};
use quintet_contract::subject::{
    AgentHeartbeat, AgentReporting, AssignQueue, CommandAgent, CommandVerb, JobEvents, JobLogged,
};
use quintet_contract::topology::stream;
use quintet_testkit::{Nats, wait_for};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// An owner, its NATS, and one agent.
pub(crate) struct Fixture {
    pub(crate) nats: Nats,
    pub(crate) bus: Bus,
    pub(crate) folder: TempDir,
    received: Arc<Mutex<Received>>,
    serving: JoinSet<()>,
    shutdown: CancellationToken,
    agent: Option<JoinHandle<Result<(), Error>>>,
}

#[derive(Default)]
struct Received {
    reports: Vec<AgentReport>,
    heartbeats: Vec<Heartbeat>,
}

pub(crate) async fn connect(url: &str) -> Bus {
    let config = BusConfig::open(url, "test");
    let bus = Bus::connect(config).await.unwrap();
    bus.ensure_topology().await.unwrap();
    bus
}

pub(crate) fn agent_id() -> AgentId {
    AgentId::parse("a").unwrap()
}

pub(crate) fn placement(job: &str) -> JobAttempt {
    JobAttempt {
        job_id: JobId::parse(job).unwrap(),
        attempt: Attempt(1),
    }
}

impl Fixture {
    /// An owner and an agent with four slots.
    pub(crate) async fn start() -> Self {
        Self::with(AgentSettings::default(), |_| {}).await
    }

    pub(crate) async fn with(
        settings: AgentSettings,
        change: impl FnOnce(&mut AgentConfig),
    ) -> Self {
        let mut fixture = Self::without_agent(settings).await;
        let mut config = AgentConfig::new(agent_id());
        config.slots = 4;
        config.work_dir = fixture.folder.path().to_owned();
        config.reaper = Some(quintet_tests::binary());
        change(&mut config);
        let bus = connect(&fixture.nats.url()).await;
        fixture.agent = Some(tokio::spawn(run(config, bus, fixture.shutdown.clone())));
        fixture
    }

    pub(crate) async fn without_agent(settings: AgentSettings) -> Self {
        let nats = Nats::start().await.unwrap();
        let bus = connect(&nats.url()).await;
        let mut fixture = Self {
            nats,
            bus,
            folder: TempDir::new().unwrap(),
            received: Arc::default(),
            serving: JoinSet::new(),
            shutdown: CancellationToken::new(),
            agent: None,
        };
        fixture.serve(settings).await;
        fixture
    }

    async fn serve(&mut self, settings: AgentSettings) {
        let filter = AgentReporting::filter(self.bus.prefix(), None, Some(&PoolName::default()));
        let mut reports = self
            .bus
            .serve::<AgentReporting>(filter, None)
            .await
            .unwrap();
        let received = self.received.clone();
        self.serving.spawn(async move {
            while let Some(request) = reports.next().await {
                let reports = request.message.reports;
                let reply = ReportsReply {
                    settings: Some(settings),
                    start: reports.iter().filter_map(accepted).collect(),
                    ..ReportsReply::default()
                };
                received.lock().unwrap().reports.extend(reports);
                request.responder.ok(&reply).await;
            }
        });
        let filter = AgentHeartbeat::filter(self.bus.prefix(), None, Some(&PoolName::default()));
        let mut heartbeats = self
            .bus
            .serve::<AgentHeartbeat>(filter, None)
            .await
            .unwrap();
        let received = self.received.clone();
        self.serving.spawn(async move {
            while let Some(request) = heartbeats.next().await {
                received.lock().unwrap().heartbeats.push(request.message);
                let status = SessionStatus::Current;
                let kill = Vec::new();
                request.responder.ok(&HeartbeatReply { status, kill }).await;
            }
        });
        self.bus.flush().await.unwrap();
    }

    /// Answers nothing any more.
    pub(crate) async fn fall_silent(&mut self) {
        self.serving.shutdown().await;
    }

    pub(crate) async fn speak_again(&mut self, settings: AgentSettings) {
        self.serve(settings).await;
    }

    pub(crate) async fn offer(&self, job: &str, config: Value) {
        self.offer_as(job, config, false).await;
    }

    pub(crate) async fn offer_as(&self, job: &str, config: Value, restartable: bool) {
        let assignment = Assignment {
            job_id: JobId::parse(job).unwrap(),
            attempt: Attempt(1),
            config: config.as_object().cloned().unwrap(),
            idempotency_key: IdempotencyKey::parse(job).unwrap(),
            expires_at: now().after(Duration::from_secs(60)),
            restartable,
            requested_by: "test".to_owned(),
            stream_metadata: Default::default(),
        };
        let subject = AssignQueue { agent: agent_id() };
        let stored = self.bus.store(&subject, &assignment, None).await.unwrap();
        stored.await.unwrap();
    }

    /// Offers a job and waits until it runs.
    pub(crate) async fn run_job(&self, job: &str, config: Value) {
        self.offer(job, config).await;
        self.until(job, "RUNNING").await;
    }

    /// Every status and answer that was reported of a job, as words.
    pub(crate) fn story(&self, job: &str) -> Vec<String> {
        let received = self.received.lock().unwrap();
        let words = received
            .reports
            .iter()
            .filter_map(|report| word(report, job));
        words.collect()
    }

    /// Waits until this was reported of the job; returns everything reported so far.
    pub(crate) async fn until(&self, job: &str, wanted: &str) -> Vec<String> {
        let what = format!("{wanted} of {job}");
        let story = wait_for(&what, TIMEOUT, async || {
            let story = self.story(job);
            if story.iter().any(|word| word == wanted) {
                Ok(story)
            } else {
                Err(format!("{story:?}"))
            }
        });
        story.await.unwrap()
    }

    /// Waits for the end of a job: its error, if any.
    pub(crate) async fn end(&self, job: &str) -> Option<JobError> {
        let what = format!("the end of {job}");
        let end = wait_for(&what, TIMEOUT, async || {
            let received = self.received.lock().unwrap();
            let end = received.reports.iter().find_map(|report| match report {
                AgentReport::JobStopped { job_id, error, .. } if job_id.as_str() == job => {
                    Some(error.clone())
                }
                _ => None,
            });
            drop(received);
            end.ok_or_else(|| format!("{:?}", self.story(job)))
        });
        end.await.unwrap()
    }

    /// Stream metadata that was reported of a job, newest last.
    pub(crate) fn metadata(&self, job: &str) -> Vec<Value> {
        let received = self.received.lock().unwrap();
        let news = received.reports.iter().filter_map(|report| match report {
            AgentReport::JobMetadata {
                job_id, metadata, ..
            } if job_id.as_str() == job => Some(Value::Object(metadata.clone())),
            _ => None,
        });
        news.collect()
    }

    pub(crate) fn hellos(&self) -> usize {
        let received = self.received.lock().unwrap();
        let hellos = received.reports.iter();
        hellos
            .filter(|report| matches!(report, AgentReport::Hello { .. }))
            .count()
    }

    pub(crate) fn heard_goodbye(&self) -> bool {
        let received = self.received.lock().unwrap();
        matches!(received.reports.last(), Some(AgentReport::Goodbye { .. }))
    }

    /// The jobs of the newest heartbeat.
    pub(crate) fn listed(&self) -> Vec<String> {
        let received = self.received.lock().unwrap();
        let newest = received
            .heartbeats
            .last()
            .and_then(|heartbeat| heartbeat.jobs.clone());
        newest
            .unwrap_or_default()
            .iter()
            .map(|job| job.job_id.to_string())
            .collect()
    }

    pub(crate) fn forget_heartbeats(&self) {
        self.received.lock().unwrap().heartbeats.clear();
    }

    pub(crate) fn heartbeats(&self) -> usize {
        self.received.lock().unwrap().heartbeats.len()
    }

    pub(crate) async fn command(&self, command: AgentCommand) -> CommandReply {
        let verb = CommandVerb::of(&command).unwrap();
        let agent = agent_id();
        let subject = CommandAgent { agent, verb };
        self.bus.request(&subject, &command, TIMEOUT).await.unwrap()
    }

    pub(crate) async fn stop(&self, job: &str, deadline: Duration) {
        let JobAttempt { job_id, attempt } = placement(job);
        let command = AgentCommand::Stop {
            job_id,
            attempt,
            reason: "test".to_owned(),
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap(),
        };
        self.command(command).await;
    }

    pub(crate) async fn control(&self, job: &str, command: &str) -> Value {
        let JobAttempt { job_id, attempt } = placement(job);
        let command = AgentCommand::Control {
            job_id,
            attempt,
            command: command.to_owned(),
            args: Default::default(),
        };
        Value::Object(self.command(command).await.answer)
    }

    /// The stored log of a job.
    pub(crate) async fn log(&self, job: &str) -> Vec<(LogStream, String)> {
        let subject = JobLogged {
            job: JobId::parse(job).unwrap(),
        };
        let stream = stream::events(self.bus.prefix());
        let replay = self
            .bus
            .replay(stream, &subject, 1, usize::MAX)
            .await
            .unwrap();
        let lines = replay
            .messages
            .into_iter()
            .flat_map(|(_, _, log)| log.lines);
        lines.map(|line| (line.stream, line.line)).collect()
    }

    /// Waits until the log holds a line that contains this, and returns the line.
    pub(crate) async fn logged(&self, job: &str, wanted: &str) -> String {
        let what = format!("{wanted} in the log of {job}");
        let line = wait_for(&what, TIMEOUT, async || {
            let log = self.log(job).await;
            let found = log.iter().find(|(_, line)| line.contains(wanted));
            found
                .map(|(_, line)| line.clone())
                .ok_or_else(|| format!("{log:?}"))
        });
        line.await.unwrap()
    }

    pub(crate) async fn events(&self, job: &str) -> Vec<JobEvent> {
        let subject = JobEvents {
            job: JobId::parse(job).unwrap(),
        };
        let stream = stream::events(self.bus.prefix());
        let replay = self
            .bus
            .replay(stream, &subject, 1, usize::MAX)
            .await
            .unwrap();
        replay
            .messages
            .into_iter()
            .map(|(_, _, event)| event)
            .collect()
    }

    /// Asks the agent to leave and waits until it has.
    pub(crate) async fn shut_down(&mut self) -> Result<(), Error> {
        self.shutdown.cancel();
        self.left().await
    }

    pub(crate) async fn left(&mut self) -> Result<(), Error> {
        let agent = self.agent.take().unwrap();
        tokio::time::timeout(TIMEOUT, agent).await.unwrap().unwrap()
    }
}

fn accepted(report: &AgentReport) -> Option<JobAttempt> {
    match report {
        AgentReport::AssignAck {
            job_id,
            attempt: Some(attempt),
            accepted: true,
            ..
        } => Some(JobAttempt {
            job_id: job_id.clone(),
            attempt: *attempt,
        }),
        _ => None,
    }
}

fn word(report: &AgentReport, job: &str) -> Option<String> {
    match report {
        AgentReport::AssignAck {
            job_id,
            accepted,
            reason,
            ..
        } if job_id.as_str() == job => Some(match reason {
            Some(reason) => format!("refused: {reason}"),
            None => format!("accepted {accepted}"),
        }),
        AgentReport::JobUpdate { job_id, status, .. } if job_id.as_str() == job => {
            Some(status.to_string())
        }
        AgentReport::JobStopped {
            job_id,
            status,
            error,
            ..
        } if job_id.as_str() == job => {
            let code = error.as_ref().map(|error| format!(" {}", error.code));
            debug_assert!(matches!(status, JobStatus::Stopped | JobStatus::Failed));
            Some(format!("{status}{}", code.unwrap_or_default()))
        }
        AgentReport::JobMuted {
            job_id,
            muted,
            success,
            ..
        } if job_id.as_str() == job => Some(format!("muted {muted} {success}")),
        _ => None,
    }
}
