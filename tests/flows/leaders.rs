//! Pools and their leaders as users see them: several pools, a pool without a leader, an edge that leaves.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use quintet::system::{Part, System, SystemConfig};
use quintet_agent::AgentConfig;
use quintet_bus::new_run_id;
use quintet_contract::id::{AgentId, HolderId, PoolName, RunShard};
use quintet_contract::permission::Role;
use quintet_contract::run_api::{ListRuns, RunRef};
use quintet_contract::subject::{CreateRuns, GetRun, ListRunsOf};
use quintet_edge::EdgeConfig;
use quintet_runner::RunnerConfig;
use quintet_scheduler::SchedulerConfig;
use quintet_testkit::{Nats, wait_for};
use quintet_tests::{Api, Stack, TIMEOUT, connect, part};
use serde_json::{Value, json};

fn scheduler(config: &mut SystemConfig, pool: &PoolName) {
    let mut scheduler = SchedulerConfig::new(HolderId::parse(format!("of-{pool}")).unwrap());
    scheduler.pool = pool.clone();
    config.parts.push(Part::Scheduler(scheduler));
}

fn agent(config: &mut SystemConfig, id: &str, pool: &PoolName) {
    let mut agent = AgentConfig::new(AgentId::parse(id).unwrap());
    agent.pool = pool.clone();
    config.parts.push(Part::Agent(agent));
}

/// An edge of its own; impatient, since a test need not wait long for a leader that never comes.
async fn edge(nats: &Nats, patience: Duration) -> (System, Api) {
    let system = part(nats, |config| {
        let mut edge = EdgeConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        edge.request_timeout = patience;
        config.parts.push(Part::Edge(edge));
    })
    .await;
    system.ready(TIMEOUT).await.unwrap();
    let api = Api::new(system.address().unwrap());
    (system, api)
}

#[tokio::test]
async fn every_pool_has_its_own_scheduler_and_agents_and_one_edge_serves_them_all() {
    let stack = Stack::start().await;
    let gpu = PoolName::parse("gpu").unwrap();
    let _other = part(&stack.nats, |config| {
        scheduler(config, &gpu);
        agent(config, "agent-gpu", &gpu);
    })
    .await;
    let api = &stack.api;
    api.until_agent("agent-gpu", "IDLE").await;
    let id = |job: &Value| job["id"].as_str().unwrap().to_owned();
    let there = id(&api
        .submit(json!({"inlineConfig": {"executor": "noop"}, "pool": "gpu"}))
        .await);
    let here = api.submit_noop().await;
    let job = api.until(&there, "RUNNING").await;
    assert_eq!(job["agentId"], "agent-gpu");
    let job = api.until(&here, "RUNNING").await;
    assert_eq!(job["agentId"], "agent-1");
    let jobs = api.get("/v1/jobs").await.expect(200).body;
    let listed: Vec<&str> = jobs
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|job| job["id"].as_str())
        .collect();
    assert!(
        listed.contains(&&*there) && listed.contains(&&*here),
        "{jobs}"
    );
    let agents = api.get("/v1/agents").await.expect(200).body;
    assert_eq!(agents.as_array().unwrap().len(), 2, "{agents}");
    api.post("/v1/agents/agent-gpu/drain", json!({"drain": true}))
        .await
        .expect(200);
    api.order(&format!("/v1/jobs/{there}/stop"))
        .await
        .expect(202);
    api.until(&there, "STOPPED").await;
    assert_eq!(api.job(&here).await["status"], "RUNNING");
}

#[tokio::test]
async fn without_a_leader_requests_answer_retry_and_jobs_can_still_be_read() {
    let mut nats = Nats::start().await.unwrap();
    let default = PoolName::default();
    let pool = part(&nats, |config| {
        scheduler(config, &default);
        agent(config, "agent-1", &default);
    })
    .await;
    let (_edge, api) = edge(&nats, Duration::from_secs(2)).await;
    api.until_agent("agent-1", "IDLE").await;
    let id = api
        .submit(json!({"inlineConfig": {"command": ["true"]}}))
        .await;
    let id = id["id"].as_str().unwrap();
    api.until(id, "STOPPED").await;
    assert!(pool.shutdown(TIMEOUT).await.is_clean());
    let refused = api
        .post("/v1/jobs", json!({"inlineConfig": {"executor": "noop"}}))
        .await
        .expect(503);
    assert!(
        refused.header("retry-after").is_some(),
        "{:?}",
        refused.headers
    );
    assert_eq!(refused.body["code"], "UNAVAILABLE");
    assert_eq!(
        api.job(id).await["status"],
        "STOPPED",
        "read from its bucket"
    );
    // An edge that never saw a leader reads it as well.
    let (_late, late) = edge(&nats, Duration::from_secs(2)).await;
    assert_eq!(late.job(id).await["status"], "STOPPED");
    nats.kill().await.unwrap();
    let gone = wait_for(
        "/ready to report that the bus is gone",
        TIMEOUT,
        async || {
            let answer = api.get("/ready").await;
            if answer.status == 503 {
                Ok(())
            } else {
                Err(answer.text)
            }
        },
    );
    gone.await.unwrap();
    api.get("/health").await.expect(200);
    let refused = api.get("/v1/jobs").await.expect(503);
    assert!(
        refused.header("retry-after").is_some(),
        "{:?}",
        refused.headers
    );
}

#[tokio::test]
async fn an_edge_that_leaves_finishes_the_request_it_has() {
    let nats = Nats::start().await.unwrap();
    let default = PoolName::default();
    // Makes the streams, and goes: the request below waits for its successor.
    let first = part(&nats, |config| scheduler(config, &default)).await;
    let (edge, api) = edge(&nats, TIMEOUT).await;
    assert!(first.shutdown(TIMEOUT).await.is_clean());
    let watcher = quintet_bus::Bus::connect(
        quintet::system::BusSettings::open(nats.url()).config(&Role::Scheduler),
    )
    .await
    .unwrap();
    let mut requests = watcher.tap("quintet.svc.>").await.unwrap();
    let asking = tokio::spawn(async move {
        api.post("/v1/jobs", json!({"inlineConfig": {"executor": "noop"}}))
            .await
    });
    let seen = async {
        while let Some(message) = requests.next().await {
            if message.subject.contains("submit") {
                return;
            }
        }
        panic!("the tap ended");
    };
    tokio::time::timeout(TIMEOUT, seen).await.unwrap();
    let leaving = tokio::spawn(edge.shutdown(TIMEOUT));
    let _second = part(&nats, |config| scheduler(config, &default)).await;
    asking.await.unwrap().expect(201);
    assert!(leaving.await.unwrap().is_clean());
}

/// Requests that are in flight when their owner leaves.
const IN_FLIGHT: usize = 300;

#[tokio::test]
async fn requests_in_flight_when_a_runner_leaves_may_be_sent_again() {
    let nats = Nats::start().await.unwrap();
    let runner = part(&nats, |config| {
        let holder = HolderId::parse("leaving").unwrap();
        config.parts.push(Part::Runner(RunnerConfig::new(holder)));
    });
    let runner = runner.await;
    runner.ready(TIMEOUT).await.unwrap();
    let bus = connect(&nats, "test").await;
    let run_id = new_run_id();
    let shard = RunShard::of(run_id);
    let create = json!({"runId": run_id, "mode": "queue", "plan": {"nodes": [{"id": "rest", "kind": "sleep", "for": "1ms"}]}});
    let create = serde_json::from_value(create).unwrap();
    let runs = CreateRuns { shard };
    let created = bus.request_until(&runs, &create, TIMEOUT);
    created.await.unwrap();
    let ended = wait_for("the end of the run", TIMEOUT, async || {
        let request = RunRef { run_id };
        let reply = bus.request(&GetRun { shard }, &request, TIMEOUT).await;
        match reply.map(|reply| reply.run.status) {
            Ok(status) if status.is_final() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    ended.await.unwrap();
    // What has ended is read from its bucket: such a reply takes a while.
    let (runs, list) = (ListRunsOf { shard }, ListRuns::default());
    let requests = (0..IN_FLIGHT).map(|_| bus.request(&runs, &list, TIMEOUT));
    let (outcomes, report) = tokio::join!(join_all(requests), runner.shutdown(TIMEOUT));
    assert!(report.is_clean());
    for outcome in outcomes {
        let Err(error) = outcome else { continue };
        let is_retryable = error.is_worth_retrying();
        assert!(is_retryable, "{error:?}");
    }
}
