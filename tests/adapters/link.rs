//! The link against a real NATS and an owner that the test scripts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use quintet_bus::{Bus, BusConfig, new_session, now};
use quintet_contract::agent::{
    ActiveJob, AgentCommand, AgentReport, AgentReports, AgentSettings, Assignment, Heartbeat,
    HeartbeatReply, Hello, ReportsReply, SessionStatus,
};
use quintet_contract::bucket::LeaseKey;
use quintet_contract::id::{AgentId, HolderId, IdempotencyKey, JobId, PoolName};
use quintet_contract::job::{Attempt, JobAttempt, JobStatus};
use quintet_contract::subject::{
    AgentHeartbeat, AgentReporting, AssignQueue, CommandAgent, CommandVerb,
};
use quintet_testkit::{Link, Nats, wait_for};
use quintet_worker::{AgentIdentity, AgentLink, LinkEvent, LinkHandle, LinkOptions};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;

const TIMEOUT: Duration = Duration::from_secs(20);

async fn connect(url: String) -> Bus {
    let config = BusConfig::open(url, "test");
    let bus = Bus::connect(config).await.unwrap();
    bus.ensure_topology().await.unwrap();
    bus
}

#[derive(Default)]
struct Received {
    reports: Vec<AgentReports>,
    heartbeats: Vec<Heartbeat>,
    status: SessionStatus,
}

impl Received {
    fn reports_without_hello(&self) -> Vec<AgentReport> {
        let reports = self.reports.iter().flat_map(|batch| batch.reports.clone());
        reports
            .filter(|report| !matches!(report, AgentReport::Hello { .. }))
            .collect()
    }
}

/// A scheduler that believes everything; ends when dropped.
struct Owner {
    received: Arc<Mutex<Received>>,
    _tasks: JoinSet<()>,
}

impl Owner {
    async fn start(bus: &Bus, settings: AgentSettings) -> Self {
        let received = Arc::new(Mutex::new(Received::default()));
        let mut tasks = JoinSet::new();
        let filter = AgentReporting::filter(bus.prefix(), None, Some(&PoolName::default()));
        let mut reports = bus.serve::<AgentReporting>(filter, None).await.unwrap();
        let here = received.clone();
        tasks.spawn(async move {
            while let Some(request) = reports.next().await {
                let accepted = request.message.reports.iter().filter_map(accepted);
                let reply = ReportsReply {
                    status: here.lock().unwrap().status,
                    settings: Some(settings),
                    start: accepted.collect(),
                    kill: Vec::new(),
                };
                here.lock().unwrap().reports.push(request.message);
                request.responder.ok(&reply).await;
            }
        });
        let filter = AgentHeartbeat::filter(bus.prefix(), None, Some(&PoolName::default()));
        let mut heartbeats = bus.serve::<AgentHeartbeat>(filter, None).await.unwrap();
        let here = received.clone();
        tasks.spawn(async move {
            while let Some(request) = heartbeats.next().await {
                let status = here.lock().unwrap().status;
                here.lock().unwrap().heartbeats.push(request.message);
                let kill = Vec::new();
                request.responder.ok(&HeartbeatReply { status, kill }).await;
            }
        });
        bus.flush().await.unwrap();
        Self {
            received,
            _tasks: tasks,
        }
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

fn settings(heartbeat_timeout_ms: u64) -> AgentSettings {
    AgentSettings {
        heartbeat_interval_ms: 100,
        heartbeat_timeout_ms,
        ..AgentSettings::default()
    }
}

fn open(bus: &Bus) -> (LinkHandle, Receiver<LinkEvent>) {
    let hello = Hello {
        name: "a".to_owned(),
        version: "1".to_owned(),
        capabilities: Default::default(),
        drain: false,
        active_jobs: Vec::new(),
        meta: Default::default(),
    };
    let identity = AgentIdentity {
        agent: agent(),
        pool: PoolName::default(),
    };
    AgentLink::open(bus.clone(), identity, hello, LinkOptions::default())
}

fn agent() -> AgentId {
    AgentId::parse("a").unwrap()
}

fn assignment(job: &str) -> Assignment {
    Assignment {
        job_id: JobId::parse(job).unwrap(),
        attempt: Attempt(1),
        config: Default::default(),
        idempotency_key: IdempotencyKey::parse(job).unwrap(),
        expires_at: now().after(Duration::from_secs(60)),
        restartable: false,
        requested_by: "test".to_owned(),
        stream_metadata: Default::default(),
    }
}

async fn offer(bus: &Bus, job: &str) {
    let subject = AssignQueue { agent: agent() };
    let stored = bus.store(&subject, &assignment(job), None).await.unwrap();
    stored.await.unwrap();
}

/// The next event that `wanted` turns into something.
async fn next<T>(
    events: &mut Receiver<LinkEvent>,
    what: &str,
    mut wanted: impl FnMut(LinkEvent) -> Option<T>,
) -> T {
    let found = async {
        while let Some(event) = events.recv().await {
            if let Some(found) = wanted(event) {
                return found;
            }
        }
        panic!("the link ended before {what}");
    };
    let found = tokio::time::timeout(TIMEOUT, found).await;
    found.unwrap_or_else(|_| panic!("no {what} in time"))
}

async fn welcome(events: &mut Receiver<LinkEvent>) {
    next(events, "welcome", |event| {
        matches!(event, LinkEvent::Welcome(_)).then_some(())
    })
    .await;
}

async fn assigned(events: &mut Receiver<LinkEvent>) -> String {
    next(events, "offer", |event| match event {
        LinkEvent::Assigned { assignment, .. } => Some(assignment.job_id.to_string()),
        _ => None,
    })
    .await
}

fn ack(job: &str) -> AgentReport {
    AgentReport::AssignAck {
        job_id: JobId::parse(job).unwrap(),
        attempt: Some(Attempt(1)),
        accepted: true,
        reason: None,
    }
}

#[tokio::test]
async fn offers_from_before_and_after_the_opening_come_once_each_and_are_confirmed() {
    let nats = Nats::start().await.unwrap();
    let bus = connect(nats.url()).await;
    let owner = Owner::start(&bus, settings(5000)).await;
    offer(&bus, "early").await;
    let (link, mut events) = open(&bus);
    assert_eq!(assigned(&mut events).await, "early");
    offer(&bus, "late").await;
    assert_eq!(assigned(&mut events).await, "late");
    link.report(ack("late")).await.unwrap();
    let started = next(&mut events, "confirmation", |event| match event {
        LinkEvent::Confirmed(job) => Some(job.job_id.to_string()),
        _ => None,
    });
    assert_eq!(started.await, "late");
    link.goodbye("done").await.unwrap();
    let reports = owner.received.lock().unwrap().reports_without_hello();
    let goodbye = AgentReport::Goodbye {
        reason: "done".to_owned(),
    };
    assert_eq!(reports, [ack("late"), goodbye]);
    while let Some(event) = events.recv().await {
        assert!(
            !matches!(event, LinkEvent::Assigned { .. }),
            "an offer came twice"
        );
    }
}

#[tokio::test]
async fn what_was_missed_while_the_connection_was_cut_comes_after_it() {
    let nats = Nats::start().await.unwrap();
    let direct = connect(nats.url()).await;
    let owner = Owner::start(&direct, settings(60_000)).await;
    let cable = Link::to((nats.host(), nats.client_port())).await.unwrap();
    let bus = connect(format!("nats://{}", cable.addr())).await;
    let (link, mut events) = open(&bus);
    welcome(&mut events).await;
    offer(&direct, "before").await;
    assert_eq!(assigned(&mut events).await, "before");
    cable.cut();
    link.report(ack("before")).await.unwrap();
    offer(&direct, "during").await;
    cable.heal();
    assert_eq!(assigned(&mut events).await, "during");
    link.flush(TIMEOUT).await.unwrap();
    assert_eq!(
        owner.received.lock().unwrap().reports_without_hello(),
        [ack("before")]
    );
    offer(&direct, "after").await;
    assert_eq!(assigned(&mut events).await, "after");
}

#[tokio::test]
async fn heartbeats_list_the_jobs_and_their_silence_fences_only_while_a_scheduler_leads() {
    let nats = Nats::start().await.unwrap();
    let bus = connect(nats.url()).await;
    let owner = Owner::start(&bus, settings(600)).await;
    let (link, mut events) = open(&bus);
    welcome(&mut events).await;
    let job = ActiveJob {
        job_id: JobId::parse("j").unwrap(),
        attempt: Some(Attempt(1)),
        status: JobStatus::Running,
    };
    link.set_jobs(vec![job.clone()]);
    wait_for("a heartbeat with the job", TIMEOUT, async || {
        let received = owner.received.lock().unwrap();
        let newest = received.heartbeats.last()?.clone();
        (newest.jobs == Some(vec![job.clone()])).then_some(())
    })
    .await
    .unwrap();
    let fence = |event| match event {
        LinkEvent::Fence => Some(()),
        _ => None,
    };
    // No scheduler leads: three times the timeout pass without a fence.
    drop(owner);
    let vacant = next(&mut events, "fence", fence);
    let vacant = tokio::time::timeout(Duration::from_millis(1800), vacant).await;
    assert!(
        vacant.is_err(),
        "fenced although no scheduler could give the jobs away"
    );
    // A scheduler leads and does not answer.
    let key = LeaseKey::Scheduler(PoolName::default());
    let holder = HolderId::parse("silent").unwrap();
    let mut candidate = bus.lease(key, holder, Duration::from_secs(2));
    let _lease = candidate.acquire().await.unwrap();
    next(&mut events, "fence", fence).await;
    let _owner = Owner::start(&bus, settings(600)).await;
    next(&mut events, "contact", |event| match event {
        LinkEvent::Contact => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_newer_session_ends_the_link() {
    let nats = Nats::start().await.unwrap();
    let bus = connect(nats.url()).await;
    let _owner = Owner::start(&bus, settings(5000)).await;
    let (link, mut events) = open(&bus);
    welcome(&mut events).await;
    let subject = CommandAgent {
        agent: agent(),
        verb: CommandVerb::Replaced,
    };
    let current = new_session();
    let command = AgentCommand::Replaced { current };
    bus.request(&subject, &command, TIMEOUT).await.unwrap();
    next(&mut events, "replaced", |event| match event {
        LinkEvent::Replaced => Some(()),
        _ => None,
    })
    .await;
    let closed = next(&mut events, "end", |event| match event {
        LinkEvent::Closed => Some(()),
        _ => None,
    });
    closed.await;
    assert!(link.report(ack("late")).await.is_err());
}
